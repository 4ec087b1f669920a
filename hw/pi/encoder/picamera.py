"""The hardware encoder of a Raspberry Pi by picamera2's own class, for the pictures of a CSI camera as they are.

A subclass steers it while it runs (bit rate, key frame), and takes its errors out of picamera2's threads, where they
would end unseen. What it makes is judged as what our own driver makes (``session``), and given up as soon.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, FaultKind, VideoMode
from hw.camera.x264 import KEYFRAME_S
from hw.pi.encoder.m2m import BITRATE, FORCE_KEY
from hw.pi.encoder.session import (
    MAX_BITRATE,
    REFUSALS,
    SHARED,
    EncoderError,
    EncoderSession,
    MemoryRefusedError,
    failure,
    floor_of,
)
from hw.pi.shot import Shot
from hw.pi.v4l2 import Format, set_control, stop_encoder

__all__ = ["NAMES", "NODE", "PicameraEncoder"]

NODE: Final = "/dev/video11"
"""The one that picamera2 opens, whatever there is."""

NAMES: Final = {"YU12": "YUV420", "NV12": "NV12", "RGB3": "BGR888"}
"""picamera2's names of the formats of Video4Linux that a CSI camera gives."""

JOIN_S: Final = 0.6
"""picamera2's thread looks every 0.4 s whether it is to end, where the driver does not wake it."""


class _Handed:
    """One request as picamera2 hands it to its encoder, which holds the picture until it has read it."""

    def __init__(self, shot: Shot, done: Callable[[], None]) -> None:
        self.request, self.stream_map = shot.source.request, shot.source.stream_map
        self.pts_us = shot.pts_us
        self._shot, self._done, self._held = shot, done, False

    def acquire(self) -> None:
        self._shot.keep()
        self._held = True

    def release(self) -> None:
        """On any thread."""
        if self._held:
            self._held = False
            self._shot.close()
            self._done()


class PicameraEncoder(EncoderSession):
    """Raises EncoderError when it cannot be opened as asked."""

    close_s = JOIN_S

    def __init__(self, path: str, mode: VideoMode, layout: Format) -> None:
        super().__init__(path, mode, layout)
        self._name = f"encoder {path} by picamera2"
        if path != NODE:
            raise EncoderError(f"picamera2 encodes at {NODE} alone, and this board's encoder is {path}: set encoder = "
                               '"auto" in the board file', FaultKind.FORMAT)
        self._inside = 0  # pictures that it reads
        self._lock = threading.Lock()
        self._coded: deque[tuple[bytes, int, bool]] = deque()
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._encoder = _steered()(
            self._arrived, bitrate=self._within(mode.bitrate), iperiod=mode.fps * KEYFRAME_S, framerate=mode.fps,
            enable_sps_framerate=True, profile="constrained baseline")
        self._encoder.size, self._encoder.stride = (mode.width, mode.height), layout.line
        self._encoder.format = NAMES[layout.pixels]
        try:
            self._encoder.start()
        except OSError as error:
            self.close()
            if error.errno in REFUSALS:
                raise MemoryRefusedError(f"{self._name} does not start: {error.strerror}") from error
            raise failure(self._name, path, error) from error

    def _within(self, bits_per_second: int) -> int:
        return max(floor_of(self.mode), min(MAX_BITRATE, bits_per_second))

    @property
    def file(self) -> int:
        return self._wakes

    def set_bitrate(self, bits_per_second: int) -> int:
        target = self._within(bits_per_second)
        with suppress(OSError):  # a device that is gone is noticed by the next picture
            self._encoder.steer(BITRATE, target)
        return target

    # --- pictures

    @property
    def room(self) -> bool:
        return self._inside < SHARED

    def encode(self, picture: VideoFrame, pts_us: int) -> None:
        raise EncoderError(f"{self._name} takes pictures of the camera alone")

    def share(self, shot: Shot) -> None:
        handed = _Handed(shot, self._read)
        with self._lock:
            self._inside += 1
        try:
            if self._want_key:
                self._want_key = False
                self._encoder.steer(FORCE_KEY, 1)
            self._encoder.encode("main", handed)
        except OSError as error:
            handed.release()
            if not self._taken and error.errno in REFUSALS:
                raise MemoryRefusedError(f"{self._name} does not read the camera's memory: {error.strerror}") from error
            raise failure(self._name, self._path, error, running=True) from error
        self._taken = True
        self._went_in(shot.pts_us, shot)

    def _read(self) -> None:
        """On picamera2's thread: it has read a picture."""
        with self._lock:
            self._inside -= 1

    def _arrived(self, data: bytes, pts_us: int, key: bool) -> None:
        """On picamera2's thread: a unit, or (empty) its end."""
        if data:
            self._coded.append((data, pts_us, key))
        with suppress(OSError):  # closed
            os.eventfd_write(self._wakes, 1)

    def _gather(self, units: list[EncodedFrame], now: float) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakes)
        while self._coded:
            data, pts_us, key = self._coded.popleft()
            frame = self._unit(data, pts_us, now, key=key)
            if frame is not None:
                units.append(frame)
        if (error := self._encoder.failed) is not None:
            raise failure(self._name, self._path, error, running=True)

    # --- the end

    def _finish(self) -> None:
        """Nothing to tell it: what is inside comes by itself."""

    def _ending(self) -> Callable[[], None]:
        encoder, wakes = self._encoder, self._wakes

        def end() -> None:
            encoder.leave()
            os.close(wakes)

        return end


def _steered() -> Any:
    """The class of picamera2 with what it lacks. A function, since picamera2 is where such cameras are alone."""
    from picamera2.encoders.h264_encoder import H264Encoder

    class SteeredEncoder(H264Encoder):  # type: ignore[misc]
        def __init__(self, arrived: Callable[[bytes, int, bool], None], **settings: Any) -> None:
            super().__init__(**settings)
            self._arrived = arrived
            self.failed: OSError | None = None

        def steer(self, control: int, value: int) -> None:
            """Raises OSError."""
            set_control(self.vd.fileno(), control, value)

        def thread_poll(self, buf_available: Any) -> None:
            try:
                super().thread_poll(buf_available)
            except OSError as error:
                self.failed = error
                self._arrived(b"", 0, False)

        def outputframe(self, frame: bytes, keyframe: bool = True, timestamp: Any = None, packet: Any = None,
                        audio: bool = False) -> None:
            self._arrived(bytes(frame), timestamp, keyframe)

        def _timestamp(self, request: _Handed) -> int:
            return request.pts_us

        def leave(self) -> None:
            """Give all back at any moment; may hang in the driver."""
            self._running = False
            if self.vd is None:
                return
            with suppress(OSError):
                stop_encoder(self.vd.fileno())  # which wakes its thread
            self.thread.join(JOIN_S)
            while self.buf_frame.qsize():  # of a device that is gone its thread waits for nothing, over and over
                self.buf_frame.get().release()
            with suppress(OSError):
                self._stop()
            for memory, _ in self.bufs.values():
                memory.close()
            self.vd.close()

    return SteeredEncoder
