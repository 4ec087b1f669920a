"""Peer to board: sounds of all sessions and tones to the loudspeaker, latest pictures to the screen.

Pictures are decoded on one thread per peer with a short queue; of several that are ready only the latest is shown.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

import av
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

from appliance.media.playout import Playout
from appliance.media.sound import SILENCE, mix
from appliance.media.tones import TonePlayer
from hw.api import Display, Picture, Tile

__all__ = ["Loudspeaker", "Screen", "VideoIn", "picture_of"]

log = logging.getLogger(__name__)

DECODE_QUEUE: Final = 12  # access units waiting: 0.4 s at 30 fps; more means the decoder is too slow
SHOW_INTERVAL_S: Final = 1 / 15  # between two pictures handed to the screen


class Loudspeaker:
    """Mixes play-outs and tones into the block the board plays next."""

    def __init__(self) -> None:
        self.tones = TonePlayer()
        self.muted = False
        self._playouts: tuple[Playout, ...] = ()  # replaced as a whole: the audio thread reads it without a lock

    def add(self, playout: Playout) -> None:
        self._playouts = (*self._playouts, playout)

    def remove(self, playout: Playout) -> None:
        self._playouts = tuple(other for other in self._playouts if other is not playout)

    def block(self) -> bytes:
        """On the audio thread: the next 10 ms. Received sound is consumed even while it is muted."""
        received = [block for playout in self._playouts if (block := playout.take()) is not None]
        sounds = [] if self.muted else received
        tone = self.tones.block()
        if tone is not None:
            sounds.append(tone)
        return mix(sounds) if sounds else SILENCE


class VideoIn:
    """Decodes one peer's H.264 on a thread of its own. A VideoSink for RtpReceiveStream."""

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, *,
        on_picture: Callable[[Picture], None], on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._on_picture = on_picture
        self._on_lost = on_lost
        self._units: queue.Queue[bytes | None] = queue.Queue(DECODE_QUEUE)
        self._gone = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"media.decode {name}", daemon=True)
        self._started = False
        self._closed = False
        self._shown_at = 0.0
        self._handing = False
        self._showing = True
        self.decoded = 0
        self.key_decoded = 0
        self.dropped = 0
        self.undecodable = 0
        self.decode_s = 0.0
        self.size = (0, 0)

    def show(self, showing: bool) -> None:
        """False: nothing is decoded, so that a picture nobody sees costs nothing."""
        if showing and not self._showing:
            self._on_lost()
        self._showing = showing

    def on_access_unit(self, data: bytes, timestamp: int, key: bool) -> None:
        if not self._showing or self._closed:
            return
        if not self._started:
            self._started = True
            self._thread.start()
        try:
            self._units.put_nowait(data)
        except queue.Full:
            self._drain()
            self._on_lost()

    async def close(self, deadline_s: float = 0.5) -> bool:
        """End the thread; never joined inside the loop. False when the decoder did not come back in time."""
        if self._closed:
            return True
        self._closed = True
        if not self._started:
            return True
        self._drain()
        self._units.put_nowait(None)
        try:
            await asyncio.wait_for(self._gone.wait(), deadline_s)
        except TimeoutError:
            log.warning("a video decoder did not end within %.1f s; its thread is left behind", deadline_s)
            return False
        for _ in range(100):  # it has told that it ends: what is left takes microseconds
            if not self._thread.is_alive():
                break
            await asyncio.sleep(0.001)
        return not self._thread.is_alive()

    def _drain(self) -> None:
        while True:
            try:
                self._units.get_nowait()
                self.dropped += 1
            except queue.Empty:
                return

    # -- on the decoder thread

    def _run(self) -> None:
        decoder = av.CodecContext.create("h264", "r")
        decoder.thread_count = 1  # more threads add a frame of delay each (aiortc #1310)
        decoder.options = {"flags": "+low_delay"}
        while (data := self._units.get()) is not None:
            begun = time.perf_counter()
            try:
                frames = decoder.decode(av.Packet(data))
            except av.FFmpegError:
                self.undecodable += 1
                self._tell(self._on_lost)
                continue
            for frame in frames:
                self.decoded += 1
                self.key_decoded += frame.key_frame
                self.size = (frame.width, frame.height)
                self._offer(frame)
            self.decode_s += time.perf_counter() - begun
        self._tell(self._gone.set)

    def _offer(self, frame: VideoFrame) -> None:
        """Hand the picture over unless the last one is too fresh or still on its way."""
        now = time.monotonic()
        if self._handing or now - self._shown_at < SHOW_INTERVAL_S * 0.9:
            return
        self._shown_at, self._handing = now, True
        picture = picture_of(frame)

        def hand() -> None:
            self._handing = False
            if not self._closed:
                self._on_picture(picture)

        self._tell(hand)

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            log.debug("the loop has ended before a decoder")


def picture_of(frame: VideoFrame) -> Picture:
    """The frame as I420 without padding."""
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuv420p")
    width, height = frame.width & ~1, frame.height & ~1
    sizes = ((width, height), (width // 2, height // 2), (width // 2, height // 2))
    parts = [_rows(plane, *size) for plane, size in zip(frame.planes, sizes, strict=True)]
    return Picture(width, height, b"".join(parts))


def _rows(plane: VideoPlane, width: int, height: int) -> bytes:
    line = plane.line_size
    data = memoryview(plane)
    if line == width:
        return bytes(data[: width * height])
    return b"".join(data[row * line : row * line + width] for row in range(height))


class Screen:
    """Composes what the board shows: the latest picture of every session, a banner and a hint."""

    def __init__(self, display: Display | None) -> None:
        self._display = display
        self._pictures: dict[object, Picture] = {}
        self._banner = ""
        self._hint = ""

    @property
    def pictures(self) -> int:
        return len(self._pictures)

    def text(self, banner: str, hint: str = "") -> None:
        if (banner, hint) != (self._banner, self._hint):
            self._banner, self._hint = banner, hint
            self._show()

    def picture(self, owner: object, picture: Picture | None) -> None:
        """Show the picture of ``owner``, None removes it."""
        if picture is not None:
            self._pictures[owner] = picture
        elif self._pictures.pop(owner, None) is None:
            return
        self._show()

    def _show(self) -> None:
        if self._display is None:
            return
        count = max(1, len(self._pictures))
        columns = 1 if count == 1 else 2 if count <= 4 else 3
        rows = -(-count // columns)
        tiles = [
            Tile(picture, x=index % columns / columns, y=index // columns / rows, w=1 / columns, h=1 / rows)
            for index, picture in enumerate(self._pictures.values())
        ]
        self._display.show(tiles, self._banner, self._hint)
