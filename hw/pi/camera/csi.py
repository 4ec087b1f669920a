"""CSI cameras by picamera2 and libcamera, which the system brings (Raspberry Pi OS, Debian) and no package index.

Zoom is done by the signal processor where it can, focus and exposure by libcamera. picamera2 is imported where such a
camera is, and in the camera's process alone.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from av.video.frame import VideoFrame

from hw.api import DeviceBusyError, DeviceFailedError, HardwareError, VideoMode
from hw.pi.camera.config import WHOLE, CameraConfig
from hw.pi.camera.raw import picture_of
from hw.pi.camera.usb import CSI_NODES, UsbCamera
from hw.pi.encoder.m2m import M2mEncoder
from hw.pi.encoder.picamera import PicameraEncoder
from hw.pi.encoder.session import Driver
from hw.pi.shot import Shot
from hw.pi.v4l2 import Format, nodes_named

__all__ = ["CSI", "SMALL_WIDTH", "CsiSensor", "csi_controls", "csi_is_there", "csi_lacks", "csi_streams", "find_csi"]

_log = logging.getLogger("hw.camera")

CSI: Final = "csi"
"""Instead of a node's path."""

FORMATS: Final = {"YUV420": "YU12", "NV12": "NV12", "BGR888": "RGB3"}
"""libcamera's names, the first that the camera's driver gives, with those of Video4Linux."""

SMALL: Final = {"YUV420": "YUV420", "NV12": "NV12", "BGR888": "YUV420"}
"""The format of the second stream by that of the first: a Raspberry Pi gives it in YUV alone."""

SMALL_WIDTH: Final = 640
"""Of the second stream: what snapshots are shown in. A multiple of 64, so that no line of its chroma is padded."""

BUFFERS: Final = 6

NO_EXPOSURE: Final = ("exposure_us is not used: it needs libcamera 0.5 or newer, and exposure is automatic; update "
                      "python3-libcamera, or leave it out")

_REFUSALS: Final = (RuntimeError, ValueError, IndexError, KeyError, AttributeError)
"""What picamera2 raises for a configuration that the camera does not do; the last where it has fewer streams, for which
libcamera makes none."""


def csi_is_there(sysfs: str = "/sys") -> bool:
    """Whether the kernel has a receiver for such cameras; a sensor may be missing all the same."""
    return any(name.startswith(CSI_NODES) for _, name in nodes_named(sysfs))


def csi_lacks(sysfs: str = "/sys") -> str:
    """Why cameras at the receiver cannot be found, and what to do; empty without a receiver, or where they can be."""
    return _picamera2_lacks() if csi_is_there(sysfs) else ""


def _picamera2_lacks() -> str:
    try:
        import picamera2  # noqa: F401 - whether it can be
    except ImportError as error:
        return ("a CSI camera needs picamera2 and libcamera: apt-get install python3-libcamera, and an environment "
                f"made with --system-site-packages ({error})")
    return ""


def find_csi(sysfs: str = "/sys") -> Sequence[UsbCamera]:
    """The cameras that libcamera finds, by the names of their places in the device tree."""
    if not csi_is_there(sysfs):
        return ()
    if lacks := _picamera2_lacks():
        _log.warning("%s", lacks)
        return ()
    from picamera2 import Picamera2

    there = Picamera2.global_camera_info()
    return [UsbCamera(one["Id"], one["Model"], CSI) for one in there if "/usb" not in one["Id"]]


def csi_controls(config: CameraConfig, mode: VideoMode, known: Sequence[str], whole: tuple[int, int, int, int],
                 streams: int = 1) -> dict[str, Any]:
    """libcamera's controls for a configuration, of those that the camera knows. ``whole`` is the crop of the picture
    without zoom, of which ``streams`` are made."""
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
        crop = (left + int(width * part.left), top + int(height * part.top),
                int(width * part.width), int(height * part.height))
        # on a Raspberry Pi 5 picamera2 sets the second to the whole picture, and it goes before the first
        wanted |= {"ScalerCrop": crop, "ScalerCrops": [crop] * streams}
    return {name: value for name, value in wanted.items() if name in known}


def _takes_exposure() -> bool:
    """Whether a fixed exposure may be asked for: picamera2 then names a control that libcamera has from 0.5 on."""
    from libcamera import controls

    return hasattr(controls, "ExposureTimeMode")


def csi_streams(mode: VideoMode) -> list[dict[str, Any]]:
    """What picamera2 is asked for, best first: the picture, and where that is larger a small one beside it (``lores``),
    which costs the signal processor nothing."""
    mains = [{"size": (mode.width, mode.height), "format": name} for name in FORMATS]
    small = (SMALL_WIDTH, max(2, round(mode.height * SMALL_WIDTH / mode.width / 2) * 2))
    both = [{"main": main, "lores": {"size": small, "format": SMALL[str(main["format"])]}} for main in mains]
    return (both if mode.width > SMALL_WIDTH else []) + [{"main": main} for main in mains]


class CsiSensor:
    """A camera that streams. Raises HardwareError."""

    steering = None
    note = ""

    def __init__(self, camera: UsbCamera, mode: VideoMode, config: CameraConfig) -> None:
        from picamera2 import Picamera2

        self.what = f"camera {camera.name} ({camera.id})"
        self.driver: Driver = PicameraEncoder if config.encoder == "picamera2" else M2mEncoder
        self.file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._newest: Any = None
        self._closed = False
        self._camera: Any = None
        try:
            number = [one["Id"] for one in Picamera2.global_camera_info()].index(camera.id)
            self._camera = Picamera2(number)
            self._open(mode, config)
        except (*_REFUSALS, OSError) as error:
            self.close()
            raise _refusal(self.what, error) from error

    def _open(self, mode: VideoMode, config: CameraConfig) -> None:
        camera = self._camera
        refusal: Exception | None = None
        for wanted in csi_streams(mode):
            try:
                camera.configure(camera.create_video_configuration(**wanted, buffer_count=BUFFERS, controls={}))
            except _REFUSALS as error:
                refusal = error
                continue
            given = camera.camera_configuration()
            if all(given[name]["format"] == asked["format"] for name, asked in wanted.items()):  # else "adjusted"
                break
        else:
            raise refusal or ValueError(f"it gives none of {', '.join(FORMATS)}")
        self._main = _layout(given["main"])
        self._small = _layout(given["lores"]) if "lores" in wanted else None
        _log.info("%s: %s; small stream: %s", self.what, self._main, self._small or "none")
        known = camera.camera_controls
        # the default keeps the shape of the picture, the most is of the sensor's: a zoom in it would be stretched
        _, most, default = known.get("ScalerCrop", ((0, 0, 0, 0),) * 3)
        usable = [name for name in known if name != "ExposureTime" or _takes_exposure()]
        if config.exposure_us and "ExposureTime" in known and "ExposureTime" not in usable:
            self.note = NO_EXPOSURE
            _log.warning("%s: %s", self.what, NO_EXPOSURE)
        camera.set_controls(csi_controls(config, mode, usable, default if any(default) else most, len(wanted)))
        self.zooms = "ScalerCrop" in known
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

    @property
    def layout(self) -> Format | None:
        """How its pictures lie in memory that can be shared."""
        return self._main

    def take(self) -> Shot | None:
        """The newest picture; None: none yet. Raises HardwareError."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.file)
        with self._lock:
            request, self._newest = self._newest, None
        if request is None:
            return None
        small = self._small
        return Shot(
            request.get_metadata().get("SensorTimestamp", 0) // 1000, lambda: _picture(request, "main", self._main),
            file=_file(request, "main"), give_back=request.release,
            small=lambda: None if small is None else _picture(request, "lores", small), source=request,
        )  # fmt: skip

    def units(self) -> list[tuple[bytes, int]]:
        """None: such cameras have no encoder of their own."""
        return []

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


def _layout(given: Mapping[str, Any]) -> Format:
    width, height = given["size"]
    return Format(width, height, FORMATS[given["format"]], given["stride"], given["framesize"])


def _file(request: Any, stream: str) -> int:
    """Of the one piece of memory that all planes of a picture lie in; -1: there are several."""
    planes = request.request.buffers[request.stream_map[stream]].planes
    files = {plane.fd for plane in planes}
    return files.pop() if len(files) == 1 else -1


def _picture(request: Any, stream: str, layout: Format) -> VideoFrame:
    """A copy of one stream's picture."""
    from picamera2 import MappedArray

    with MappedArray(request, stream, reshape=False, write=False) as mapped:
        picture = picture_of(memoryview(mapped.array), layout)
    if picture is None:
        raise DeviceFailedError(f"the camera's memory is less than its picture: {layout}")
    return picture


def _refusal(what: str, error: Exception) -> HardwareError:
    text = str(error)
    if "acquire" in text or "busy" in text.lower():
        return DeviceBusyError(f"{what} is held by another program: end it ({text})")
    return DeviceFailedError(f"{what}: {text}; look for its overlay in config.txt and its cable")
