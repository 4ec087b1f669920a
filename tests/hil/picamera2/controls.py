"""What our camera asks of libcamera through picamera2 as it is: focus, exposure, zoom, frame rate, by libcamera's names
and in its types; and a picture that is turned, zoomed and masked.

No camera of the test kernel has a lens, an exposure or a crop, so picamera2 is told that this one knows the controls
(libcamera's own, with the ranges of a camera module). What picamera2 then hands to ``Camera.start`` is written down and
goes on to libcamera, whose binding takes nothing that is not of the control's type. Runs in the guest, in the Debian 13
of ``tests/hil/picamera2/suite``. Prints one JSON line.
"""

from __future__ import annotations

import json
import select
import sys
import time
from types import SimpleNamespace
from typing import Any

import av
import libcamera
import picamera2

from hw.api import EncodedFrame, VideoMode
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.csi import CsiSensor, find_csi
from hw.pi.camera.process import RealCamera
from tests.hil.picamera2.virtual import plug

LIMIT_S = 60.0
RANGES = {
    "AfMode": (0, 2, 0), "LensPosition": (0.0, 32.0, 1.0), "ExposureTime": (13, 500_000, 20_000),
    "FrameDurationLimits": (33_333, 120_000, 33_333),
    "ScalerCrop": tuple(libcamera.Rectangle(*one) for one in (
        (0, 0, 64, 36), (0, 0, 4608, 2952), (0, 180, 4608, 2592))),
}  # fmt: skip
started: list[dict[str, Any]] = []


class Written:
    """A libcamera camera whose ``start`` is written down before it is done."""

    def __init__(self, camera: Any) -> None:
        self._camera = camera

    def __getattr__(self, name: str) -> Any:
        return getattr(self._camera, name)

    def start(self, controls: dict[Any, Any]) -> None:
        started.append({one.name: [one.type.name, str(value)] for one, value in controls.items()})
        self._camera.start(controls)


class Knowing(picamera2.Picamera2):
    def _initialize_camera(self) -> None:
        super()._initialize_camera()
        self.camera = Written(self.camera)

    @property
    def camera_ctrl_info(self) -> dict[str, Any]:
        return self._told

    @camera_ctrl_info.setter
    def camera_ctrl_info(self, told: dict[str, Any]) -> None:
        self._told = told | {
            name: (getattr(libcamera.controls, name), SimpleNamespace(min=low, max=high, default=usual))
            for name, (low, high, usual) in RANGES.items()}


class Owner:
    """What the camera's process is told of."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []

    def tell(self, event: str, **fields: Any) -> None: ...

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        self.frames.append(frame)


def asked(config: CameraConfig) -> dict[str, Any]:
    """What reaches libcamera of a configuration, and whether pictures come with it."""
    sensor = CsiSensor(find_csi()[0], VideoMode(640, 360, 10), config)
    try:
        poll = select.poll()
        poll.register(sensor.file, select.POLLIN)
        arrived = bool(poll.poll(LIMIT_S * 1000))
        return {"controls": started[-1], "arrived": arrived, "note": sensor.note}
    finally:
        sensor.close()


def shown(config: CameraConfig) -> list[int]:
    """Luma of eight columns in the middle of the picture that leaves."""
    owner = Owner()
    camera = RealCamera(config, owner)  # type: ignore[arg-type]
    camera.handle({"do": "start", "generation": 1, "width": 1280, "height": 720, "fps": 30, "bitrate": 2_000_000})
    deadline = time.monotonic() + LIMIT_S
    while len(owner.frames) < 4 and time.monotonic() < deadline:
        poll = select.poll()
        for file, events in camera.files():
            poll.register(file, events)
        poll.poll(1000)
        camera.tick()
    camera.handle({"do": "stop", "generation": 1})
    decoder = av.CodecContext.create("h264", "r")
    picture = next(one for unit in owner.frames for one in decoder.decode(av.Packet(unit.data)))
    plane = picture.planes[0]
    line = bytes(plane)[360 * plane.line_size :][: plane.width]
    return [line[80 + 160 * column] for column in range(8)]


if sys.argv[1] == "controls":
    picamera2.Picamera2 = Knowing
    print(json.dumps({
        "modes": {name: int(getattr(libcamera.controls.AfModeEnum, name)) for name in ("Manual", "Continuous")},
        "automatic": asked(CameraConfig()),
        "fixed": asked(CameraConfig(focus="fixed", focus_distance_m=0.5, zoom="0.5 0.5 0.25 0.25")),
        "infinity": asked(CameraConfig(focus="fixed", exposure_us=8000)),
    }))  # fmt: skip
else:
    plug()
    one = ("Virtual0",)
    print(json.dumps({
        "plain": shown(CameraConfig(devices=one)),
        "turned": shown(CameraConfig(devices=one, rotation=180)),
        "zoomed": shown(CameraConfig(devices=one, zoom="0.125 0 0.25 0.25")),
        "all": shown(CameraConfig(devices=one, rotation=180, zoom="0.125 0 0.25 0.25", masks=("0.25 0 0.125 1",))),
    }))  # fmt: skip
