"""A stateful H.264 encoder of the board, driven by V4L2 (memory to memory, ``dev-encoder.rst`` of the kernel's docs).

It is found by what it can do and never by its number, and believed only after it has encoded a picture. One picture
goes in, and its access unit is waited for: encoders of these boards take 5 to 15 ms for 720p, less than a frame lasts,
and an access unit that is sent at once has the least delay. Used in the camera's process alone; nothing here is
waited for longer than STALL_S.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Sequence
from typing import Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, EncoderKind, VideoMode
from hw.camera.x264 import KEYFRAME_S, level
from hw.host.holders import holders
from hw.sim.sources import nal_units
from hw.videodev import (
    BITRATE_CONSTANT,
    CAPTURE_MPLANE,
    CTRL_BITRATE,
    CTRL_BITRATE_MODE,
    CTRL_FORCE_KEYFRAME,
    CTRL_I_PERIOD,
    CTRL_LEVEL,
    CTRL_PROFILE,
    CTRL_REPEAT_HEADERS,
    FLAG_ERROR,
    FLAG_LAST,
    LEVELS,
    OUTPUT_MPLANE,
    PROFILE_CONSTRAINED_BASELINE,
    Done,
    Queue,
    VideoDevice,
    nodes,
)

__all__ = ["FLOORS", "STALL_S", "EncoderFault", "HardwareEncoder", "floor", "hardware_encoders"]

_log = logging.getLogger("hw.encoder")

STALL_S: Final = 0.5
"""An encoder that needs longer for one picture has stalled."""

BUFFERS: Final = 4
"""Of each queue. Fewer starve the encoder of the Raspberry Pi."""

FLOORS: Final = ((1080, 300_000), (720, 150_000), (540, 110_000), (480, 100_000), (360, 80_000), (240, 60_000))
"""(least rows, bits per second): below it the Raspberry Pi's encoder is known to stall (picamera2 #1228)."""

LEAST: Final = 50_000
MOST: Final = 25_000_000
"""Bits per second; the bcm2835 encoder takes up to 25 Mbit/s."""

RAW: Final = ("YU12", "NV12")
"""Raw formats that are fed, the first that the encoder takes."""

_PIXELS: Final = {"YU12": "yuv420p", "NV12": "nv12"}


class EncoderFault(Exception):
    """The encoder cannot be used, or not any more; the text says why and what to do."""


def floor(mode: VideoMode) -> int:
    """The least bit rate for a size, in bits per second."""
    return next((rate for rows, rate in FLOORS if mode.height >= rows), LEAST)


def hardware_encoders(paths: Sequence[str] | None = None) -> list[str]:
    """The nodes that say they take raw pictures and give H.264, in order of their numbers. Those that cannot be asked
    are logged with their reason."""
    found = []
    for path in nodes() if paths is None else paths:
        try:
            device = VideoDevice(path)
        except OSError as error:
            _log.debug("%s: %s", path, error.strerror)
            if error.errno in (errno.EACCES, errno.EPERM):
                _log.warning("%s may not be opened: add the user to the group video", path)
            continue
        try:
            if (
                device.transforms
                and "H264" in device.formats(CAPTURE_MPLANE)
                and not set(RAW).isdisjoint(device.formats(OUTPUT_MPLANE))
            ):
                found.append(path)
        finally:
            device.close()
    return found


class HardwareEncoder:
    """One encoder for one picture size. Raises EncoderFault from everything but ``close``."""

    kind = EncoderKind.HARDWARE

    def __init__(self, path: str, mode: VideoMode) -> None:
        self.path = path
        self._mode = mode
        self._queues: list[Queue] = []
        self._headers = b""
        try:
            self._device = VideoDevice(path)
        except OSError as error:
            raise self._fault(error) from error
        try:
            self._open(mode)
        except OSError as error:
            self.close()
            raise self._fault(error) from error
        except EncoderFault:
            self.close()
            raise

    def _open(self, mode: VideoMode) -> None:
        device = self._device
        taken = set(device.formats(OUTPUT_MPLANE))
        pixels = next((one for one in RAW if one in taken), None)
        if pixels is None:
            raise EncoderFault(f"{self.path}: takes none of {', '.join(RAW)} but {', '.join(sorted(taken))}")
        self._pixels = pixels
        self._raw = device.set_format(OUTPUT_MPLANE, mode.width, mode.height, pixels)
        if self._raw.width < mode.width or self._raw.height < mode.height:
            raise EncoderFault(f"{self.path}: encodes {self._raw.width}x{self._raw.height} at most, "
                               f"not {mode.width}x{mode.height}: ask for a smaller picture")
        device.set_format(CAPTURE_MPLANE, mode.width, mode.height, "H264")
        device.set_rate(OUTPUT_MPLANE, mode.fps)
        self._target = self._clamp(mode.bitrate)
        # Each driver knows its own few: what it does not is checked in what comes out.
        for control, value in ((CTRL_BITRATE_MODE, BITRATE_CONSTANT), (CTRL_BITRATE, self._target),
                               (CTRL_REPEAT_HEADERS, 1), (CTRL_PROFILE, PROFILE_CONSTRAINED_BASELINE),
                               (CTRL_LEVEL, LEVELS[level(mode)]), (CTRL_I_PERIOD, mode.fps * KEYFRAME_S)):
            try:
                device.set_control(control, value)
            except OSError as error:
                if control in (CTRL_BITRATE, CTRL_PROFILE) or error.errno not in (errno.EINVAL, errno.ERANGE):
                    raise
        for kind in (OUTPUT_MPLANE, CAPTURE_MPLANE):
            self._queues.append(Queue(device, kind, BUFFERS))
        self._input, self._output = self._queues
        for index in list(self._output.free):
            self._output.put(index)
        for queue in self._queues:
            queue.start()

    def _clamp(self, bits_per_second: int) -> int:
        return max(floor(self._mode), min(MOST, bits_per_second))

    @property
    def bitrate(self) -> int:
        return self._target

    def force_keyframe(self) -> None:
        """The next picture is an IDR."""
        self._control(CTRL_FORCE_KEYFRAME, 1)

    def set_bitrate(self, bits_per_second: int) -> int:
        """Follow a new target from the next picture on; returns the target after clamping."""
        target = self._clamp(bits_per_second)
        if target != self._target:
            self._control(CTRL_BITRATE, target)
            self._target = target
        return target

    def encode(self, picture: VideoFrame, pts_us: int) -> EncodedFrame | None:
        """The access unit of one picture of the mode's size. Waits STALL_S at most."""
        try:
            if not self._input.free:
                raise EncoderFault(f"{self.path}: holds all {BUFFERS} pictures and gives none back")
            index = self._input.free[0]
            self._fill(index, picture)
            self._input.put(index, self._raw.size, pts_us)
            deadline = time.monotonic() + STALL_S
            while True:
                unit = self._take(pts_us)
                if unit is not None:
                    return unit
                left = deadline - time.monotonic()
                if left <= 0 or not self._device.wait(left):
                    raise EncoderFault(f"{self.path}: gave nothing for {STALL_S:g} s")
        except OSError as error:
            raise self._fault(error) from error

    def drain(self) -> list[EncodedFrame]:
        """What it still holds; afterwards it takes no more pictures."""
        units: list[EncodedFrame] = []
        try:
            self._device.stop_encoding()
            deadline = time.monotonic() + STALL_S
            while self._device.wait(deadline - time.monotonic()):
                try:
                    done = self._output.get()
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    return units
                if done.used:
                    units.append(self._unit(done))
                if done.flags & FLAG_LAST:
                    return units
                self._output.put(done.index)
        except OSError as error:
            raise self._fault(error) from error
        raise EncoderFault(f"{self.path}: did not come to its end within {STALL_S:g} s")

    def close(self) -> None:
        for queue in self._queues:
            queue.close()
        self._queues.clear()
        self._device.close()

    # --- inside

    def _control(self, number: int, value: int) -> None:
        try:
            self._device.set_control(number, value)
        except OSError as error:
            raise self._fault(error) from error

    def _fill(self, index: int, picture: VideoFrame) -> None:
        """Copy rows into the driver's layout: its rows and columns are padded by its own rules."""
        if picture.format.name != _PIXELS[self._pixels]:
            picture = picture.reformat(format=_PIXELS[self._pixels])
        memory, at = self._input.memory(index), 0
        for number, plane in enumerate(picture.planes):
            # A chroma plane of YU12 has half the columns; NV12's holds both colours side by side in whole rows.
            line = self._raw.bytes_per_line // (2 if number and self._pixels == "YU12" else 1)
            rows = self._raw.height // (2 if number else 1)
            source = memoryview(plane)
            if plane.line_size == line:
                size = min(len(source), line * rows)
                memory[at : at + size] = source[:size]
            else:
                width = min(line, plane.line_size)
                for row in range(min(rows, plane.height)):
                    memory[at + row * line : at + row * line + width] = source[row * plane.line_size :][:width]
            at += line * rows

    def _take(self, pts_us: int) -> EncodedFrame | None:
        """The unit of that picture, if it is done. One of an earlier picture, given up then, is thrown away."""
        while True:
            try:
                self._input.get()
            except BlockingIOError:
                break
        while True:
            try:
                done = self._output.get()
            except BlockingIOError:
                return None
            try:
                if done.pts_us == pts_us:
                    return self._unit(done)
            finally:
                self._output.put(done.index)

    def _unit(self, done: Done) -> EncodedFrame:
        if done.flags & FLAG_ERROR or not done.used:
            raise EncoderFault(f"{self.path}: failed at a picture")
        data = self._output.read(done)
        units = list(nal_units(data))
        kinds = {kind for kind, _ in units}
        if not kinds & {1, 5}:
            raise EncoderFault(f"{self.path}: gave something that is no picture of H.264")
        if 7 in kinds:
            self._headers = b"".join(b"\0\0\0\1" + unit for kind, unit in units if kind in (7, 8))
        elif 5 in kinds:  # it does not repeat its headers
            data = self._headers + data
        return EncodedFrame(data, done.pts_us, 5 in kinds)

    def _fault(self, error: OSError) -> EncoderFault:
        match error.errno:
            case errno.EBUSY:
                why = f"is held by {holders(self.path) or 'a program of another user'}, or by as many as it can serve"
            case errno.ENOENT | errno.ENODEV | errno.ENXIO:
                why = "is gone"
            case errno.EACCES | errno.EPERM:
                why = "may not be opened: add the user to the group video"
            case errno.ENOMEM:
                why = "has no memory: give the board more CMA (cma=256M in cmdline.txt), or ask for a smaller picture"
            case errno.EINVAL:
                why = f"refuses {self._mode.width}x{self._mode.height} at {self._mode.fps}: ask for a smaller picture"
            case _:
                why = error.strerror or str(error)
        return EncoderFault(f"{self.path}: {why}")
