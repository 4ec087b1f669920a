"""One peer's video from access units to pictures: decoded on a thread, shown in step with the sound, never queued
without limit, and only while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import av
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

from appliance.media.api import AccessUnit
from appliance.media.frame_rate import FrameRate
from appliance.media.h264 import has_parameter_sets
from appliance.media.lipsync import Pace
from appliance.media.smoothness import Remedy, Smoothness, StallWatch
from appliance.media.taps import TapPoint
from hw.api import Picture

__all__ = ["VideoIn", "picture_of"]

log = logging.getLogger(__name__)

UNITS: Final = 12  # access units waiting for the decoder: 0.4 s at 30 fps; more means that it is too slow
UNIT_BYTES: Final = 4_000_000  # and so many bytes of them
HELD_BYTES: Final = 2_000_000  # of access units that wait for their sound: five times what 0.4 s of 3 Mbit/s are
MOST_PIXELS: Final = 4_000_000  # of a picture, 2560x1440 with room: what a peer may make FFmpeg take memory for
LEAST_SIDE: Final = 2  # pixels: less has no colour in I420
STUCK: Final = 3  # decoders that were replaced and have not ended: no further one would do better
GRAIN_S: Final = 0.002  # due so soon is due now
SPACING_S: Final = 1 / 60  # between pictures that come all at once behind a hole: a screen shows one per refresh
SPACED: Final = 3  # pictures so brought out one by one; more are a stall, after which the newest counts
SHOW_INTERVAL_S: Final = 1 / 32  # between two pictures handed to the screen on average: all of 30 fps, half of 60
SHOW_AHEAD: Final = 2  # pictures handed over earlier, when they catch up


class _Decoder:
    """A thread that decodes what is put, in order. ``close`` tells it to end; nobody waits for it on the loop."""

    def __init__(
        self, name: str, on_frame: Callable[[VideoFrame, AccessUnit], None], on_bad: Callable[[], None]
    ) -> None:
        self._on_frame = on_frame
        self._on_bad = on_bad
        self._units: deque[AccessUnit] = deque()
        self._bytes = 0
        self._changed = threading.Condition(threading.Lock())
        self._closed = False
        self.decode_s = 0.0
        self.thread = threading.Thread(target=self._run, name=f"media.decode {name}", daemon=True)
        self.thread.start()

    def put(self, unit: AccessUnit) -> int:
        """Queue a unit; when it does not fit, all that waits is thrown away and the number of it returned."""
        with self._changed:
            dropped = 0
            if len(self._units) >= UNITS or self._bytes + len(unit.data) > UNIT_BYTES:
                dropped = len(self._units) + 1
                self._units.clear()
                self._bytes = 0
            else:
                self._units.append(unit)
                self._bytes += len(unit.data)
            self._changed.notify()
        return dropped

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._units.clear()
            self._changed.notify()

    def _next(self) -> AccessUnit | None:
        with self._changed:
            while not self._units and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            unit = self._units.popleft()
            self._bytes -= len(unit.data)
            return unit

    def _run(self) -> None:
        codec = av.CodecContext.create("h264", "r")
        codec.thread_count = 1  # more threads add a frame of delay each (aiortc #1310)
        codec.options = {"flags": "+low_delay", "max_pixels": str(MOST_PIXELS)}
        while (unit := self._next()) is not None:
            begun = time.perf_counter()
            try:
                frames = codec.decode(av.Packet(unit.data))
            except av.FFmpegError:
                self._on_bad()
                continue
            self.decode_s += time.perf_counter() - begun
            for frame in frames:
                if not isinstance(frame, VideoFrame) or self._closed:
                    continue
                if min(frame.width, frame.height) < LEAST_SIDE:
                    self._on_bad()
                else:
                    self._on_frame(frame, unit)


class VideoIn:
    """Decodes one peer's H.264. A VideoSink for RtpReceiveStream; everything on the loop but the decoder's thread.

    on_picture: a picture for the screen. on_lost: the decoder has lost its place. on_asked: a key frame would help.
    """

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, *, on_picture: Callable[[Picture], None],
        on_lost: Callable[[], None], on_asked: Callable[[], None],
    ) -> None:
        self._name = name
        self._loop = loop
        self._on_picture = on_picture
        self._on_lost = on_lost
        self._on_asked = on_asked
        self._decoder: _Decoder | None = None
        self._left: list[_Decoder] = []  # told to end
        self._closed = False
        self._show_next_at = 0.0  # if all came at SHOW_INTERVAL_S
        self._handing = False
        self._showing = True
        self._watch = StallWatch()
        self.rate = FrameRate()
        self.delay_s = 0.0
        """That pictures wait, beyond the fastest of them, for the sound that belongs to them."""
        self._pace = Pace()
        self._held: deque[tuple[float, AccessUnit]] = deque()  # with the time each is due
        self._held_bytes = 0
        self._decoding_at = 0.0  # the last one was given to the decoder
        self._release: asyncio.TimerHandle | None = None
        self.position: tuple[int, float] | None = None
        """RTP timestamp of the picture shown last, and the monotonic time of that."""
        self.encoded: TapPoint[AccessUnit] = TapPoint(
            lambda unit: len(unit.data), begins=lambda unit: unit.key, on_open=on_asked, on_loss=on_asked,
        )
        self.pictures: TapPoint[Picture] = TapPoint(lambda picture: len(picture.i420), on_open=self._on_tapped)
        self.size = (0, 0)
        self.parameter_sets = b""
        """Of the peer's description, for key frames that come without theirs."""
        self._begin_counting()

    def _begin_counting(self) -> None:
        """What W3C counts for each source by itself."""
        self.smoothness = Smoothness()
        self.decoded = 0
        self.key_decoded = 0
        self.dropped = 0
        self.undecodable = 0
        self.restarts = 0  # of the decoder, because it gave no picture
        self.emitted = 0  # access units given to a decoder
        self.buffered_s = 0.0  # from the first packet of each to that, its wait for the sound included, summed
        self.minimum_s = 0.0  # of that, until each was whole: what the network took
        self.target_s = 0.0  # until each was due, in step with its sound
        self.processing_s = 0.0  # from the first packet of each picture to its decoding, summed
        self._decode_s = 0.0  # of decoders that have ended

    # -- what is wanted

    def show(self, showing: bool) -> None:
        """False: nothing is decoded for the screen, so that a picture nobody sees costs nothing."""
        if showing and not self._showing:
            self._on_look()
        elif not showing and not self.pictures.active:
            self._forget_held()
        self._showing = showing

    @property
    def showing(self) -> bool:
        """Whether it decodes for the screen."""
        return self._showing and not self._closed

    @property
    def wants_video(self) -> bool:
        return not self._closed and (self._decodes or self.encoded.active)

    @property
    def _decodes(self) -> bool:
        return self._showing or self.pictures.active

    def _on_look(self) -> None:
        """Decoding begins: what was before is not there to build on."""
        self.smoothness.interrupted()
        self._on_lost()

    def _on_tapped(self) -> None:
        if not self._showing:
            self._on_look()

    # -- from the network

    def on_access_unit(self, unit: AccessUnit) -> None:
        if self._closed:
            return
        if unit.key and self.parameter_sets and not has_parameter_sets(unit.data):
            unit = replace(unit, data=self.parameter_sets + unit.data)
        self.encoded.put(unit)
        if not self._decodes:
            return
        self._held.append((self._pace.due(unit.timestamp, unit.arrived_s, self.delay_s), unit))
        self._held_bytes += len(unit.data)
        while self._held_bytes > HELD_BYTES:
            self._decode_held()
        self._release_due()

    def on_new_source(self) -> None:
        """Another encoder from here on; the last picture stays until its first one."""
        self._forget_held()
        self._replace_decoder()
        self._begin_counting()
        self._pace = Pace()
        self.position = None

    def look(self, now: float, *, due: bool) -> None:
        """Now and then, on the loop: see to it that pictures come while they are ``due``."""
        if not due:
            self.smoothness.interrupted()
        remedy = self._watch.look(
            now, due=due and self._decodes and not self._closed, units=self.emitted, decoded=self.decoded,
            interval_s=self.smoothness.average_s,
        )
        stuck = sum(decoder.thread.is_alive() for decoder in self._left)
        if remedy is Remedy.NEW_DECODER and stuck < STUCK:
            log.warning("a video decoder gives no picture; it is replaced")
            self.restarts += 1
            self._replace_decoder()
            self._on_lost()
        elif remedy is not Remedy.NONE:
            self._on_asked()

    @property
    def stalled(self) -> bool:
        """Pictures are due and have not come for so long that people should know."""
        return self._watch.stalled

    @property
    def decode_s(self) -> float:
        """Time spent decoding."""
        return self._decode_s + (self._decoder.decode_s if self._decoder is not None else 0.0)

    async def close(self, deadline_s: float = 0.5) -> bool:
        """End the thread; never joined inside the loop. False when the decoder did not come back in time."""
        self._closed = True
        self._forget_held()
        self.encoded.close()
        self.pictures.close()
        self._replace_decoder()
        begun, left = self._loop.time(), self._left
        self._left = []
        for decoder in left:
            await asyncio.to_thread(decoder.thread.join, max(0.0, begun + deadline_s - self._loop.time()))
        stuck = any(decoder.thread.is_alive() for decoder in left)
        if stuck:
            log.warning("a video decoder did not end within %.1f s; its thread is left behind", deadline_s)
        return not stuck

    # -- private

    def _decode(self, unit: AccessUnit, due: float) -> None:
        if self._decoder is None:
            self._decoder = _Decoder(self._name, self._on_frame, lambda: self._tell(self._on_bad))
        self.emitted += 1
        self._decoding_at = self._loop.time()
        self.buffered_s += self._decoding_at - unit.began_s
        self.minimum_s += unit.arrived_s - unit.began_s
        self.target_s += due - unit.began_s
        if dropped := self._decoder.put(unit):
            self.dropped += dropped
            self._on_lost()

    def _decode_held(self) -> None:
        due, unit = self._held.popleft()
        self._held_bytes -= len(unit.data)
        self._decode(unit, due)

    def _release_due(self) -> None:
        """Decode what is due and come back for the next."""
        self._cancel_release()
        now = self._loop.time()
        while self._held:
            at = self._next_at(now)
            if at > now + GRAIN_S:
                self._release = self._loop.call_at(at, self._release_due)
                return
            self._decode_held()

    def _next_at(self, now: float) -> float:
        """When the first of those held is decoded: when it is due, but not on the heels of the one before, or the
        screen would show only one of both."""
        late = sum(due <= now for due, _ in self._held)
        spaced = self._decoding_at + SPACING_S if late <= SPACED else now
        return max(self._held[0][0], spaced)

    def _cancel_release(self) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None

    def _forget_held(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        self._cancel_release()

    def _replace_decoder(self) -> None:
        if self._decoder is not None:
            self._decode_s += self._decoder.decode_s
            self._decoder.close()
            self._left = [decoder for decoder in self._left if decoder.thread.is_alive()]
            self._left.append(self._decoder)
            self._decoder = None

    def _on_bad(self) -> None:
        self.undecodable += 1
        self._on_lost()

    # -- on the decoder's thread

    def _on_frame(self, frame: VideoFrame, unit: AccessUnit) -> None:
        now = time.monotonic()
        self.decoded += 1
        self.key_decoded += frame.key_frame
        self.size = (frame.width, frame.height)
        self.processing_s += now - unit.began_s
        self.position = (unit.timestamp, now)
        self.rate.frame(now)
        if self._showing:
            self.smoothness.rendered(now)
        show = self._showing and not self._handing and now >= self._show_next_at - SHOW_AHEAD * SHOW_INTERVAL_S
        if not show and not self.pictures.active:
            return
        picture = picture_of(frame)
        self.pictures.put(picture)
        if show:
            self._show_next_at, self._handing = max(self._show_next_at, now) + SHOW_INTERVAL_S, True
            self._tell(lambda: self._hand(picture))

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            log.debug("the loop has ended before a decoder")

    # -- on the loop

    def _hand(self, picture: Picture) -> None:
        self._handing = False
        if not self._closed:
            self._on_picture(picture)


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
