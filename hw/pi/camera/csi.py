"""CSI cameras by picamera2 and libcamera, which the system brings (Raspberry Pi OS, Debian) and no package index.

Zoom is done by the signal processor where it can, focus and exposure by libcamera. picamera2 is imported where such a
camera is, and in the camera's process alone.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from av.video.frame import VideoFrame

from hw.api import DeviceBusyError, DeviceFailedError, HardwareError, VideoMode
from hw.pi.camera.config import WHOLE, CameraConfig
from hw.pi.camera.usb import CSI_NODES, UsbCamera
from hw.pi.v4l2 import nodes_named

__all__ = ["CSI", "CsiSensor", "csi_controls", "csi_is_there", "find_csi"]

_log = logging.getLogger("hw.camera")

CSI: Final = "csi"
"""Instead of a node's path."""

FORMATS: Final = {"YUV420": "yuv420p", "BGR888": "rgb24"}
"""libcamera's names, the first that the camera's driver gives, with PyAV's."""

BUFFERS: Final = 6


def csi_is_there(sysfs: str = "/sys") -> bool:
    """Whether the kernel has a receiver for such cameras; a sensor may be missing all the same."""
    return any(name.startswith(CSI_NODES) for _, name in nodes_named(sysfs))


def find_csi(sysfs: str = "/sys") -> Sequence[UsbCamera]:
    """The cameras that libcamera finds, by the names of their places in the device tree."""
    if not csi_is_there(sysfs):
        return ()
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        _log.warning("a CSI camera needs picamera2 and libcamera: apt-get install python3-picamera2, and an "
                     "environment made with --system-site-packages (%s)", error)
        return ()
    there = Picamera2.global_camera_info()
    return [UsbCamera(one["Id"], one["Model"], CSI) for one in there if "/usb" not in one["Id"]]


def csi_controls(config: CameraConfig, mode: VideoMode, known: Sequence[str], whole: tuple[int, int, int, int],
                 ) -> dict[str, Any]:
    """libcamera's controls for a configuration, of those that the camera knows. ``whole`` is ScalerCrop's maximum."""
    period = 1_000_000 // mode.fps
    wanted: dict[str, Any] = {"FrameDurationLimits": (period, period)}
    if config.focus == "auto":
        wanted["AfMode"] = 2  # continuous
    else:
        wanted["AfMode"] = 0
        wanted["LensPosition"] = 1 / config.focus_distance_m if config.focus_distance_m else 0.0  # dioptres
    if config.exposure_us:
        wanted["ExposureTime"] = config.exposure_us
    if config.part != WHOLE:
        left, top, width, height = whole
        part = config.part
        wanted["ScalerCrop"] = (left + int(width * part.left), top + int(height * part.top),
                                int(width * part.width), int(height * part.height))
    return {name: value for name, value in wanted.items() if name in known}


class CsiSensor:
    """A camera that streams. Raises HardwareError."""

    steering = None
    note = ""

    def __init__(self, camera: UsbCamera, mode: VideoMode, config: CameraConfig) -> None:
        from picamera2 import Picamera2

        self.what = f"camera {camera.name} ({camera.id})"
        self.file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._newest: Any = None
        self._closed = False
        self._camera: Any = None
        try:
            number = [one["Id"] for one in Picamera2.global_camera_info()].index(camera.id)
            self._camera = Picamera2(number)
            self._open(mode, config)
        except (RuntimeError, ValueError, IndexError, OSError, KeyError) as error:
            self.close()
            raise _refusal(self.what, error) from error

    def _open(self, mode: VideoMode, config: CameraConfig) -> None:
        camera = self._camera
        refusal: Exception | None = None
        for name, pixels in FORMATS.items():
            try:
                wanted = camera.create_video_configuration(
                    {"size": (mode.width, mode.height), "format": name}, buffer_count=BUFFERS, controls={})
                camera.configure(wanted)
            except (RuntimeError, ValueError, KeyError) as error:
                refusal = error
                continue
            if camera.camera_configuration()["main"]["format"] == name:  # else it was "adjusted" to another
                self._pixels = pixels
                break
        else:
            raise refusal or ValueError(f"it gives none of {', '.join(FORMATS)}")
        given = camera.camera_configuration()["main"]
        self._size, self._line = given["size"], given["stride"]
        whole = camera.camera_controls.get("ScalerCrop", ((0, 0, 0, 0), (0, 0, 0, 0)))[1]
        camera.set_controls(csi_controls(config, mode, list(camera.camera_controls), whole))
        self.zooms = "ScalerCrop" in camera.camera_controls
        camera.pre_callback = self._arrived
        camera.start()

    def _arrived(self, request: Any) -> None:
        """On picamera2's thread: keep the newest, which nobody has to copy in vain."""
        request.acquire()
        with self._lock:
            old, self._newest = self._newest, None if self._closed else request
            if self._closed:
                old = request
            else:
                os.eventfd_write(self.file, 1)
        if old is not None:
            old.release()

    def take(self) -> tuple[VideoFrame, int] | None:
        """The newest picture and its time; None: none yet. Raises HardwareError."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.file)
        with self._lock:
            request, self._newest = self._newest, None
        if request is None:
            return None
        try:
            pts_us = request.get_metadata().get("SensorTimestamp", 0) // 1000
            return self._picture(bytes(request.make_buffer("main"))), pts_us
        finally:
            request.release()

    def units(self) -> list[tuple[bytes, int]]:
        """None: such cameras have no encoder of their own."""
        return []

    def _picture(self, data: bytes) -> VideoFrame:
        width, height = self._size
        picture = VideoFrame(width, height, self._pixels)
        at = 0
        for number, plane in enumerate(picture.planes):
            line = self._line // 2 if number else self._line  # packed formats have one plane
            used = min(line, plane.line_size)
            pad = bytes(plane.line_size - used)
            rows = (data[at + row * line : at + row * line + used] + pad for row in range(plane.height))
            plane.update(b"".join(rows).ljust(plane.buffer_size, b"\0"))
            at += line * plane.height
        return picture

    def close(self) -> None:
        with self._lock:
            self._closed = True
            request, self._newest = self._newest, None
        if request is not None:
            request.release()
        if self._camera is not None:
            with suppress(RuntimeError):
                self._camera.stop()
            self._camera.close()
            self._camera = None
        with self._lock:
            file, self.file = self.file, -1
        if file >= 0:
            os.close(file)


def _refusal(what: str, error: Exception) -> HardwareError:
    text = str(error)
    if "acquire" in text or "busy" in text.lower():
        return DeviceBusyError(f"{what} is held by another program: end it ({text})")
    return DeviceFailedError(f"{what}: {text}; look for its overlay in config.txt and its cable")
