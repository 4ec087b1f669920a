"""CSI cameras by picamera2 and libcamera, which the system brings (Raspberry Pi OS, Debian) and no package index."""

from __future__ import annotations

from collections.abc import Sequence

from av.video.frame import VideoFrame

from hw.api import DeviceMissingError, VideoMode
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.usb import UsbCamera

__all__ = ["CsiSensor", "csi_is_there", "find_csi"]


def find_csi() -> Sequence[UsbCamera]:
    return ()


def csi_is_there() -> bool:
    return False


class CsiSensor:
    in_sensor = True
    file = -1
    what = ""

    def __init__(self, camera: UsbCamera, mode: VideoMode, config: CameraConfig) -> None:
        raise DeviceMissingError("csi")

    def take(self) -> tuple[VideoFrame, int] | None:
        return None

    def close(self) -> None:
        pass
