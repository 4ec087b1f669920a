"""One end of a call of the media bench, in a process of its own: our engine, or stock aiortc, on a board for measuring.

    python -m tests.bench.media_end ours|stock [--sends] [--receives] [--camera pattern|clip] [--size 1280x720]
                                    [--speech FILE]

Commands and answers are JSON lines; the process ends with its standard input.

    {"do": "offer"}, {"do": "answer", "sdp": …}     a new connection; its description with all candidates
    {"do": "accept", "sdp": …}                      of the connection that was offered last
    {"do": "up"}                                    once every connection is up
    {"do": "record", "pictures": bool, "sound": bool}, {"do": "take"}
    {"do": "numbers"}                               totals so far: processor time, sound, pictures, bytes

The microphone hears the recorded speech and the camera sees the test picture, which carries the clock of before it was
painted. Times are CLOCK_MONOTONIC. A microphone's block has sounded before it is handed over, a loudspeaker's sounds
from then on.

Stock is aiortc as it comes, on the same board: its receivers' frames are played by a sound card that plays silence
when there is nothing to play; its sender passes the encoder's pictures through, and a key frame comes every 2 s, as
nothing asks the encoder for one.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import sys
import threading
import time
import wave
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from appliance.media.api import Directions, IceServers, SessionClosed, SessionUp
from appliance.media.rtp_seam import codec_preferences
from appliance.media.studio import Studio
from appliance.media.webrtc import WebRtcSession
from appliance.settings import VideoSettings
from hw.api import AudioBlock, EncodedFrame, Tile, VideoMode
from hw.camera.owner import ProcessCamera
from hw.faults import FaultLine
from hw.sim.sources import open_source
from tests.bench.bench_send_path import ClipCamera, clip
from tests.bench.pictures import Marks
from tests.bench.process import cpu_s
from tests.support.media_board import BLOCK, RATE, ClockedAudio, HandBoard

Exchange = Callable[[AudioBlock], bytes]
FPS: Final = 30
UP_S: Final = 30.0
STOCK_BUFFERED: Final = RATE // 2 * 2  # bytes that wait for stock's sound card: half a second, then the oldest go
STOCK_KEY_S: Final = 2.0
PAINTED: Final = 15
SILENCE: Final = bytes(BLOCK * 2)


class Card(ClockedAudio):
    """A sound card: speech at the microphone, what is played is kept while ``recording``.

    ``echoes``: whether the board's voice processing is to run; nothing of what is played reaches this microphone.
    """

    def __init__(self, spoken: bytes, *, echoes: bool) -> None:
        super().__init__()
        self._spoken = spoken
        self.echoes = echoes
        self.recording = False
        self.heard: list[tuple[float, bytes]] = []
        self.played: list[tuple[float, bytes]] = []

    def _run(self, exchange: Exchange) -> None:
        due, place, played = time.monotonic(), 0, SILENCE
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            heard = self._spoken[place:place + 2 * BLOCK] if self._spoken else SILENCE
            place = (place + 2 * BLOCK) % max(1, len(self._spoken))
            played = exchange(AudioBlock(heard, played))
            if self.recording:  # the card's clock, not that of a thread that was woken late
                self.heard.append((due - 0.01, heard))
                self.played.append((due, played))
            due += 0.01


class Eye:
    """A display that keeps the marks of what it is shown while ``recording``."""

    size = (1280, 720)

    def __init__(self) -> None:
        self.recording = False
        self.marks = Marks()
        self.shown = 0

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        pictures = [tile.picture for tile in tiles if tile.picture is not None]
        self.shown += bool(pictures)
        if self.recording and pictures:
            self.marks.add(time.monotonic(), pictures[0].i420, pictures[0].width, pictures[0].width, pictures[0].height)

    def blank(self) -> None: ...

    def screenshot(self) -> bytes:
        return b""


class Engine(Protocol):
    async def offer(self) -> str: ...

    async def answer(self, sdp: str) -> str: ...

    async def accept(self, sdp: str) -> None: ...

    async def up(self) -> None: ...

    async def numbers(self) -> dict[str, float]: ...

    async def close(self) -> None: ...


class Ours:
    def __init__(self, board: HandBoard, mode: VideoMode, *, sends: bool, receives: bool) -> None:
        self._studio = Studio(board, VideoSettings(mode.width, mode.height, mode.fps, mode.bitrate))
        self._opened = asyncio.ensure_future(self._studio.open())
        self._wanted = Directions(sends, sends, receives, receives)
        self._sends, self._receives = sends, receives
        self._sessions: list[WebRtcSession] = []

    async def _session(self) -> WebRtcSession:
        await self._opened
        session = self._studio.session(self._wanted, ice=IceServers(), loopback=True)
        session.peer_sends(audio=self._receives, video=self._receives)
        self._sessions.append(session)
        return session

    async def offer(self) -> str:
        return await (await self._session()).offer()

    async def answer(self, sdp: str) -> str:
        return await (await self._session()).answer(sdp)

    async def accept(self, sdp: str) -> None:
        await self._sessions[-1].accept_answer(sdp)

    async def up(self) -> None:
        for session in self._sessions:
            async for event in session.events():
                assert not isinstance(event, SessionClosed), event
                if isinstance(event, SessionUp):
                    break

    async def numbers(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for session in self._sessions:
            for row in await session.stats():
                _add_w3c(totals, dict(row))
        return totals

    async def close(self) -> None:
        await self._studio.close()


def _add_w3c(totals: dict[str, float], row: dict[str, Any]) -> None:
    """The members of webrtc-stats that the bench compares; the page adds the same."""
    names = {
        ("inbound-rtp", "audio"): ("concealedSamples", "totalSamplesReceived", "packetsLost", "jitterBufferDelay",
                                   "jitterBufferEmittedCount"),
        ("inbound-rtp", "video"): ("framesDecoded", "freezeCount", "pliCount"),
        ("outbound-rtp", "video"): ("bytesSent", "retransmittedBytesSent", "framesSent"),
    }
    for name in names.get((row["type"], row.get("kind", "")), ()):
        totals[name] = totals.get(name, 0) + (row.get(name) or 0)


class _Passed(MediaStreamTrack):
    """The camera's pictures for stock's sender."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[EncodedFrame] = asyncio.Queue(8)

    def take(self, frame: EncodedFrame) -> None:
        self._loop.call_soon_threadsafe(self._put, frame)

    def _put(self, frame: EncodedFrame) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(frame)

    async def recv(self) -> av.Packet:
        frame = await self._waiting.get()
        packet = av.Packet(frame.data)
        packet.pts, packet.time_base = frame.pts_us, Fraction(1, 1_000_000)
        return packet


class _Spoken(MediaStreamTrack):
    """The microphone for stock's sender: frames of 20 ms."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(16)
        self._half = b""
        self._sent = 0

    def take(self, block: bytes) -> None:
        if self._half:
            self._loop.call_soon_threadsafe(self._put, self._half + block)
            self._half = b""
        else:
            self._half = block

    def _put(self, samples: bytes) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(samples)

    async def recv(self) -> av.AudioFrame:
        samples = await self._waiting.get()
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // 2)
        frame.planes[0].update(samples)
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, Fraction(1, RATE)
        self._sent += frame.samples
        return frame


class Stock:
    def __init__(self, board: HandBoard, mode: VideoMode, *, sends: bool, receives: bool) -> None:
        self._board = board
        self._mode = mode
        self._sends, self._receives = sends, receives
        self._peers: list[RTCPeerConnection] = []
        self._connected: list[asyncio.Event] = []
        self._spoken: list[_Spoken] = []
        self._passed: list[_Passed] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._executor = ThreadPoolExecutor(1)
        self._buffer = bytearray()
        self._buffering = threading.Lock()
        self._begun = False
        self._numbers = {"concealedSamples": 0.0, "totalSamplesReceived": 0.0, "framesDecoded": 0.0}
        if board.audio is not None:
            board.audio.start(RATE, 10, self._exchange)
        if sends and board.camera is not None:
            board.camera.start(mode, self._on_frame)
            self._start(self._ask_for_key_frames())

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_for_key_frames(self) -> None:
        while True:
            await asyncio.sleep(STOCK_KEY_S)
            assert self._board.camera is not None
            self._board.camera.request_keyframe()

    def _on_frame(self, frame: EncodedFrame) -> None:
        for track in self._passed:
            track.take(frame)

    def _exchange(self, block: AudioBlock) -> bytes:
        for track in self._spoken:
            track.take(block.heard)
        with self._buffering:
            played = bytes(self._buffer[:2 * BLOCK])
            del self._buffer[:2 * BLOCK]
        if self._begun:
            self._numbers["totalSamplesReceived"] += BLOCK
            self._numbers["concealedSamples"] += BLOCK - len(played) // 2
        return played.ljust(2 * BLOCK, b"\0")

    def _peer(self) -> RTCPeerConnection:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peers.append(peer)
        connected = asyncio.Event()
        self._connected.append(connected)
        peer.on("connectionstatechange", lambda: peer.connectionState == "connected" and connected.set())
        peer.on("track", lambda track: self._start(self._receive(track)))
        return peer

    def _prefer(self, peer: RTCPeerConnection) -> None:
        for transceiver in peer.getTransceivers():
            transceiver.setCodecPreferences(codec_preferences(transceiver.kind))

    async def offer(self) -> str:
        peer = self._peer()
        if self._sends:
            self._spoken.append(_Spoken())
            self._passed.append(_Passed())
            for track in (self._spoken[-1], self._passed[-1]):
                peer.addTransceiver(track, "sendrecv" if self._receives else "sendonly")
        self._prefer(peer)
        await peer.setLocalDescription(await peer.createOffer())
        return peer.localDescription.sdp

    async def answer(self, sdp: str) -> str:
        peer = self._peer()
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        if self._sends:
            self._spoken.append(_Spoken())
            self._passed.append(_Passed())
            peer.addTrack(self._spoken[-1])
            peer.addTrack(self._passed[-1])
        self._prefer(peer)
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def accept(self, sdp: str) -> None:
        await self._peers[-1].setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def up(self) -> None:
        for connected in self._connected:
            await connected.wait()
        if self._board.camera is not None:
            self._board.camera.request_keyframe()  # stock's peer cannot ask for the first one

    async def _receive(self, track: MediaStreamTrack) -> None:
        eye = self._board.display
        assert isinstance(eye, Eye)
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, av.VideoFrame):
                eye.shown += 1
                self._numbers["framesDecoded"] += 1
                if eye.recording:
                    plane = frame.planes[0]
                    eye.marks.add(time.monotonic(), plane, plane.line_size, frame.width, frame.height)
            else:
                assert isinstance(frame, av.AudioFrame)
                samples = np.frombuffer(bytes(frame.planes[0])[:frame.samples * 4], "<i2")[::2].tobytes()
                with self._buffering:
                    self._buffer += samples
                    del self._buffer[:max(0, len(self._buffer) - STOCK_BUFFERED)]
                self._begun = True

    async def numbers(self) -> dict[str, float]:
        return dict(self._numbers)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self._peers:
            await peer.close()
        for device in (self._board.camera, self._board.audio):
            if device is not None:
                await asyncio.get_running_loop().run_in_executor(self._executor, device.stop)


class End:
    """The commands on an engine and its board."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        width, height = (int(word) for word in arguments.size.split("x"))
        self._mode = mode = VideoMode(width, height, FPS)
        spoken = b""
        if arguments.speech is not None:
            with wave.open(str(arguments.speech)) as source:
                spoken = source.readframes(source.getnframes())
        self._card, self._eye = Card(spoken, echoes=arguments.sends and arguments.receives), Eye()
        self._camera: ProcessCamera | None = None
        board = HandBoard(camera=False)
        board.audio, board.display = self._card, self._eye  # type: ignore[assignment]
        if arguments.sends and arguments.camera == "clip":
            board.camera = ClipCamera(clip(width=width, height=height))  # type: ignore[assignment]
        elif arguments.sends:
            self._camera = ProcessCamera("cam0", "pattern", FaultLine(), mode)
            board.camera = self._camera  # type: ignore[assignment]
        make = Ours if arguments.engine == "ours" else Stock
        self._engine: Engine = make(board, mode, sends=arguments.sends, receives=arguments.receives)

    async def offer(self) -> Any:
        return await self._engine.offer()

    async def answer(self, sdp: str) -> Any:
        return await self._engine.answer(sdp)

    async def accept(self, sdp: str) -> Any:
        await self._engine.accept(sdp)

    async def up(self) -> Any:
        async with asyncio.timeout(UP_S):
            await self._engine.up()

    async def record(self, pictures: bool, sound: bool) -> Any:
        self._eye.recording, self._card.recording = pictures, sound

    async def take(self) -> Any:
        self._eye.recording = self._card.recording = False
        rows, times = self._eye.marks.take()
        taken: dict[str, Any] = {"pictures": rows, "times": times, "painting": await asyncio.to_thread(self._painting)}
        for name, kept in (("heard", self._card.heard), ("played", self._card.played)):
            blocks, kept[:] = list(kept), []
            pcm = base64.b64encode(b"".join(block for _, block in blocks)).decode()
            taken[name] = {"begin": blocks[0][0] if blocks else 0.0, "pcm": pcm}
        return taken

    def _painting(self) -> float:
        """Seconds that the camera process takes to paint a picture, between its clock and its encoder."""
        if self._camera is None:
            return 0.0
        source, took = open_source("pattern", self._mode), []
        for number in range(PAINTED):
            time.sleep(1 / self._mode.fps)  # as cold as the caches are in a call
            begun = time.monotonic()
            source.picture(number, int(begun * 1e6))
            took.append(time.monotonic() - begun)
        source.close()
        return statistics.median(took)

    async def numbers(self) -> Any:
        numbers = await self._engine.numbers()
        camera = self._camera.pid if self._camera is not None else None
        return numbers | {
            "cpu": time.process_time(), "cameraCpu": cpu_s(camera) if camera is not None else 0.0,
            "shown": self._eye.shown, "at": time.monotonic(),
        }

    async def close(self) -> None:
        await self._engine.close()
        if self._camera is not None:
            await asyncio.to_thread(self._camera.close)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("engine", choices=("ours", "stock"))
    parser.add_argument("--sends", action="store_true")
    parser.add_argument("--receives", action="store_true")
    parser.add_argument("--camera", choices=("pattern", "clip"), default="pattern")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--speech", type=Path)
    sys.setswitchinterval(0.001)
    end = End(parser.parse_args())
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, name="commands", daemon=True).start()
    while line := await lines.get():
        command = json.loads(line)
        work: Callable[..., Awaitable[Any]] = getattr(end, command.pop("do"))
        print(json.dumps(await work(**command)), flush=True)
    await end.close()


if __name__ == "__main__":
    asyncio.run(main())
