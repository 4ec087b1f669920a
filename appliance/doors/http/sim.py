"""The front panel's live stream: the simulated screen and loudspeaker out, a tab's microphone and camera in.

Binary frames carry one type byte and the payload. To the browser: 0x01 JPEG of the screen, 0x02 loudspeaker. From
the browser: 0x11 microphone, 0x12 JPEG of its camera. Sound is 48 kHz mono s16le. JSON texts switch what is wanted:
``{"watch": bool, "listen": bool, "lend": bool}``; we tell ``{"lend": bool}`` when lending begins or is taken over.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from appliance.errors import Refused
from appliance.handover import Inbox
from hw.api import HardwareError, Simulation

__all__ = ["SimStream"]

log = logging.getLogger(__name__)

SCREEN, SPEAKER, MICROPHONE, CAMERA = 0x01, 0x02, 0x11, 0x12

CLIENTS_LIMIT: Final = 8
FRAME_LIMIT: Final = 256 * 1024  # bytes; a 640x480 JPEG of a camera has 30-90 KiB
PCM_LIMIT: Final = 48_000 * 2 // 5  # bytes; 200 ms at once at the most
SCREEN_PERIOD_S: Final = 1 / 10
SCREEN_WIDTH: Final = 640
SPEAKER_BLOCKS: Final = 50  # of 10 ms; what is older is of no use to a listener
SEND_S: Final = 5.0


class _Viewer:
    """One page. The newest screen and at most half a second of sound wait for it; older ones are thrown away."""

    def __init__(self, socket: web.WebSocketResponse, session: str) -> None:
        self.socket = socket
        self.session = session
        self.watch = False
        self.listen = False
        self.dropped = 0
        self._screen: bytes | None = None
        self._texts: deque[str] = deque(maxlen=8)
        self._sound: deque[bytes] = deque(maxlen=SPEAKER_BLOCKS)
        self._ready = asyncio.Event()

    def screen(self, jpeg: bytes) -> None:
        self._screen = jpeg
        self._ready.set()

    def sound(self, block: bytes) -> None:
        self.dropped += len(self._sound) == SPEAKER_BLOCKS
        self._sound.append(block)
        self._ready.set()

    def tell(self, **words: Any) -> None:
        self._texts.append(json.dumps(words))
        self._ready.set()

    async def send(self) -> None:
        """Send what waits until the page is gone or takes nothing for 5 s."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            async with asyncio.timeout(SEND_S):
                while self._texts:
                    await self.socket.send_str(self._texts.popleft())
                if self._sound:
                    blocks = b"".join(self._sound)
                    self._sound.clear()
                    await self.socket.send_bytes(bytes([SPEAKER]) + blocks)
                if self._screen is not None:
                    jpeg, self._screen = self._screen, None
                    await self.socket.send_bytes(bytes([SCREEN]) + jpeg)


async def _feed(viewer: _Viewer, transport: asyncio.Transport | None) -> None:
    """Send to a page as long as it takes what is sent. One that took nothing for 5 s is cut off, and connects anew when
    it goes on: a frame that was half sent cannot be taken back, so this connection is of no use any more."""
    try:
        await viewer.send()
    except TimeoutError:
        log.info("a front panel took nothing for %g s; its connection is cut", SEND_S)
    except ConnectionError:
        return  # it is gone; whoever receives has seen it too
    if transport is not None:
        transport.abort()


class SimStream:
    """All front panels of one simulated board."""

    def __init__(self, simulation: Simulation | None) -> None:
        self._simulation = simulation
        self._viewers: set[_Viewer] = set()
        self._lender: _Viewer | None = None
        self._speaker: Inbox[bytes] | None = None
        self._painter: asyncio.Task[None] | None = None
        self._executor: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._viewers)

    async def serve(self, request: web.Request, session: str) -> web.WebSocketResponse:
        """Serve one page until it leaves."""
        if self._simulation is None:
            raise Refused("This is a real board: it has a panel of its own.", code=501, sub_code="notSimulated")
        if len(self._viewers) >= CLIENTS_LIMIT:
            raise Refused(f"{CLIENTS_LIMIT} pages show the front panel already.", code=503, sub_code="viewers")
        socket = web.WebSocketResponse(max_msg_size=FRAME_LIMIT, heartbeat=10.0, timeout=1.0, compress=False)
        await socket.prepare(request)
        viewer = _Viewer(socket, session)
        self._viewers.add(viewer)
        sender = asyncio.create_task(_feed(viewer, request.transport), name="http.sim.send")
        try:
            await self._receive(socket, viewer, self._simulation)
        finally:
            self._viewers.discard(viewer)
            if self._lender is viewer:
                self._lender = None
            self._settle()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await socket.close()
        return socket

    async def close(self, session: str | None = None, reason: str = "shutdown") -> None:
        """Close all pages, or those of one session, and give the loudspeaker back."""
        viewers = [v for v in self._viewers if session is None or v.session == session]
        await asyncio.gather(*(v.socket.close(code=WSCloseCode.GOING_AWAY, message=reason.encode()) for v in viewers))
        if session is None:
            self._viewers.clear()
            self._settle()
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
                self._executor = None

    async def _receive(self, socket: web.WebSocketResponse, viewer: _Viewer, simulation: Simulation) -> None:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                if not self._control(viewer, message.data):
                    await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not a control message")
            elif message.type is WSMsgType.BINARY and viewer is self._lender:
                self._lend(message.data, simulation)

    def _control(self, viewer: _Viewer, text: str) -> bool:
        try:
            words = json.loads(text)
        except (ValueError, RecursionError):
            return False
        if not isinstance(words, dict) or not all(isinstance(value, bool) for value in words.values()):
            return False
        viewer.watch = words.get("watch", viewer.watch)
        viewer.listen = words.get("listen", viewer.listen)
        if "lend" in words:
            self._set_lender(viewer, lend=words["lend"])
        self._settle()
        return True

    def _set_lender(self, viewer: _Viewer, *, lend: bool) -> None:
        """One tab lends at a time, the newest: two microphones mixed by blocks would be noise."""
        if lend and self._lender is not viewer:
            if self._lender is not None:
                self._lender.tell(lend=False)
            self._lender = viewer
        elif not lend and self._lender is viewer:
            self._lender = None
        viewer.tell(lend=self._lender is viewer)

    @staticmethod
    def _lend(frame: bytes, simulation: Simulation) -> None:
        kind, payload = frame[:1], frame[1:]
        if kind == bytes([MICROPHONE]) and 0 < len(payload) <= PCM_LIMIT and len(payload) % 2 == 0:
            simulation.lend_audio(payload)
        elif kind == bytes([CAMERA]) and payload[:3] == b"\xff\xd8\xff":
            simulation.lend_picture(payload)

    def _settle(self) -> None:
        """Tap the loudspeaker and paint the screen exactly while somebody wants it."""
        simulation = self._simulation
        if simulation is None:
            return
        listening = any(viewer.listen for viewer in self._viewers)
        if listening and self._speaker is None:
            self._speaker = Inbox(asyncio.get_running_loop(), SPEAKER_BLOCKS, "http.speaker", deliver=self._heard)
            simulation.tap_speaker(self._speaker.put)
        elif not listening and self._speaker is not None:
            simulation.tap_speaker(None)
            self._speaker.close()
            self._speaker = None
        watching = any(viewer.watch for viewer in self._viewers)
        if watching and self._painter is None:
            self._painter = asyncio.create_task(self._paint(simulation.screen), name="http.sim.screen")
        elif not watching and self._painter is not None:
            self._painter.cancel()
            self._painter = None

    def _heard(self, block: bytes) -> None:
        for viewer in self._viewers:
            if viewer.listen:
                viewer.sound(block)

    async def _paint(self, screen: Callable[[int], bytes]) -> None:
        """Render the screen once for all pages, ten times a second, off the loop; unchanged pictures are not sent
        more often than once a second, so that a still screen costs next to nothing."""
        loop = asyncio.get_running_loop()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "http.screen")
        executor, last, due, failed = self._executor, b"", 0.0, False
        while True:
            begun = loop.time()
            try:
                jpeg = await loop.run_in_executor(executor, screen, SCREEN_WIDTH)
                failed = False
            except HardwareError as error:
                if not failed:
                    log.info("the simulated screen cannot be shown: %s", error)
                failed, jpeg = True, last
            if jpeg and (jpeg != last or begun >= due):
                last, due = jpeg, begun + 1.0
                for viewer in self._viewers:
                    if viewer.watch:
                        viewer.screen(jpeg)
            await asyncio.sleep(max(0.0, begun + SCREEN_PERIOD_S - loop.time()))
