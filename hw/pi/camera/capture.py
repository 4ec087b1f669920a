"""The process of a capture device that is shown to others. Started as ``python -m hw.pi.camera.capture ID``.

One thread. The device is looked up by where it is plugged at every opening. An HDMI input is opened in the format of
what is connected, opened anew when that changes, and gives black pictures while there is nothing.
"""

from __future__ import annotations

import logging
import select
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from av.video.frame import VideoFrame

from hw.api import DeviceFailedError, DeviceMissingError, DevicePulledError, HardwareError, VideoMode
from hw.blame import fault_of
from hw.camera.preview import Preview
from hw.camera.serve import Owner, serve
from hw.camera.x264 import H264Encoder, jpeg
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.develop import Developer
from hw.pi.camera.hdmi import HdmiSensor, NoSignalError
from hw.pi.camera.usb import UsbCamera, UsbSensor, find_hdmi, find_usb
from hw.pi.dv import describe_ourselves
from hw.pi.v4l2 import Node

LOOK_S: Final = 0.5
"""The signal of an HDMI input is looked at this often. (Not all receivers tell of its change.)"""


class Capture:
    """What the process serves."""

    def __init__(self, device: str, owner: Owner) -> None:
        self._device, self._owner = device, owner
        self._preview = Preview(owner)
        self._wanted: tuple[int, VideoMode] | None = None  # number of the start, what it is opened with
        self._mode = VideoMode()
        self._sensor: UsbSensor | None = None
        self._is_dark = False  # open, and nothing is received
        self._was_there = False
        self._told: str | None = None  # why there is no signal, as it was told last
        self._look_at = 0.0
        self._due_us = 0
        self._last: VideoFrame | None = None
        self._encoder = H264Encoder(self._mode)
        self._developer = Developer(CameraConfig(), self._mode)

    # --- from the board

    def handle(self, fields: Mapping[str, Any]) -> None:
        match fields["do"]:
            case "start":
                self._close()
                self._wanted = fields["generation"], _mode(fields)
                self._make(self._wanted[1])
                self._open()
            case "mode":
                self._make(_mode(fields))
                generation = 0 if self._wanted is None else self._wanted[0]
                self._owner.tell("mode", generation=generation, width=self._mode.width, height=self._mode.height,
                                 fps=self._mode.fps)
            case "stop":
                self._close()
                self._wanted = None
                self._owner.tell("stopped", generation=fields["generation"])
            case "keyframe":
                self._encoder.force_keyframe()
            case "bitrate":
                self._mode = replace(self._mode, bitrate=int(fields["value"]))
                self._encoder.set_bitrate(self._mode.bitrate)
            case "preview":
                self._preview.want(int(fields["side"]))
            case "snapshot":
                self._snapshot(int(fields["id"]))
            case "ping":
                self._owner.tell("pong", id=fields["id"])
            case "warm":
                pass  # it is started for one use, which follows
            case unknown:
                raise ValueError(f"capture process: unknown command {unknown!r}")

    def lend(self, data: bytes) -> None:
        raise ValueError("capture process: a capture device takes no pictures from elsewhere")

    # --- device

    def _make(self, mode: VideoMode) -> None:
        """Pictures of this mode from the next one on."""
        self._mode = mode
        self._encoder, self._developer = H264Encoder(mode), Developer(CameraConfig(), mode)

    def _found(self) -> tuple[UsbCamera, bool]:
        """The device, and whether it is an HDMI input. Raises DeviceMissingError."""
        for is_hdmi, there in ((True, find_hdmi()), (False, find_usb())):
            for one in there:
                if one.id == self._device:
                    return one, is_hdmi
        if self._was_there:
            raise DevicePulledError(f"the capture device {self._device} was unplugged")
        raise DeviceMissingError(f"there is no capture device {self._device}: check cable and power")

    def _open(self) -> None:
        assert self._wanted is not None  # noqa: S101
        generation, mode = self._wanted
        self._look_at = time.monotonic() + LOOK_S
        try:
            device, is_hdmi = self._found()
            self._was_there = True
            if is_hdmi:
                with Node(device.path) as node, suppress(OSError):  # it has one, and does not let it be changed
                    describe_ourselves(node)
            self._sensor = HdmiSensor(device, mode) if is_hdmi else UsbSensor(device, mode)
        except NoSignalError as error:
            self._tell_signal(str(error))
        except OSError as error:  # between finding and opening it
            self._tell_trouble(error if isinstance(error, HardwareError) else DeviceFailedError(str(error)))
            return
        except HardwareError as error:
            self._tell_trouble(error)
            return
        else:
            self._tell_signal("")
        self._is_dark = self._sensor is None
        self._owner.tell("started", generation=generation, width=mode.width, height=mode.height, fps=mode.fps,
                         bitrate=mode.bitrate)

    def _close(self) -> None:
        sensor, self._sensor = self._sensor, None
        self._is_dark, self._last, self._due_us = False, None, 0
        if sensor is not None:
            sensor.close()

    def _lose(self, error: HardwareError) -> None:
        self._close()
        self._tell_trouble(error)

    def _tell_trouble(self, error: HardwareError) -> None:
        self._owner.tell("device", why=fault_of(error).value, detail=str(error))

    def _tell_signal(self, lacking: str) -> None:
        if lacking != self._told:
            self._told = lacking
            self._owner.tell("signal", there=not lacking, detail=lacking)

    def _look(self) -> None:
        """Whether the signal is another one than a moment ago."""
        if isinstance(self._sensor, HdmiSensor) and not self._sensor.lacking:
            return
        if self._is_dark or isinstance(self._sensor, HdmiSensor):
            was_dark = self._is_dark
            self._close()
            self._open()
            if self._is_dark != was_dark:
                self._encoder.force_keyframe()

    # --- the thread

    def files(self) -> Sequence[tuple[int, int]]:
        return () if self._sensor is None else ((self._sensor.file, select.POLLIN),)

    def wait_s(self) -> float | None:
        if self._is_dark:
            return max(0.0, self._due_us / 1e6 - time.monotonic())
        return LOOK_S if isinstance(self._sensor, HdmiSensor) else None

    def tick(self) -> None:
        if not self._is_dark and self._sensor is None:
            return
        try:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_S
                self._look()
            taken = None if self._sensor is None else self._sensor.take()
        except HardwareError as error:
            self._lose(error)
            return
        except OSError as error:  # of a look at the signal
            self._lose(DevicePulledError(f"the capture device {self._device} was unplugged ({error.strerror})"))
            return
        now_us, period_us = time.monotonic_ns() // 1000, 1_000_000 // self._mode.fps
        if taken is not None:
            if taken.pts_us >= self._due_us - period_us // 4:  # devices are not that regular
                self._due_us = max(self._due_us + period_us, taken.pts_us)
                picture = taken.picture()
                if picture is not None:  # else it is damaged
                    self._deliver(self._developer.develop(picture), taken.pts_us)
            taken.close()
        elif self._is_dark and now_us >= self._due_us:
            self._due_us = now_us + period_us
            self._deliver(_black(self._mode), now_us)

    def _deliver(self, picture: VideoFrame, pts_us: int) -> None:
        assert self._wanted is not None  # noqa: S101 - only while open
        self._last = picture
        unit = self._encoder.encode(picture, pts_us)
        if unit is not None:
            self._owner.frame(self._wanted[0], unit)
            if self._preview.due(pts_us):
                self._preview.show(self._wanted[0], picture, self._mode)

    def _snapshot(self, number: int) -> None:
        if self._last is not None:
            self._owner.snapshot(number, jpeg(self._last))
        else:
            self._owner.tell("snapshot_failed", id=number, why="failed", detail="it has given no picture yet")


def _mode(fields: Mapping[str, Any]) -> VideoMode:
    return VideoMode(fields["width"], fields["height"], fields["fps"], fields["bitrate"], fields.get("slice_bytes", 0))


def _black(mode: VideoMode) -> VideoFrame:
    frame = VideoFrame(mode.width, mode.height, "yuv420p")
    for plane, value in zip(frame.planes, (16, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    serve(lambda owner: Capture(sys.argv[1], owner))
