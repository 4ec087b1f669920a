"""CSI cameras: which streams picamera2 is asked for, and what a snapshot shows.

Of picamera2 and libcamera, which no package index has, only what is asked and answered is played here; the real one is
asked in the guest (``tests/hil/picamera2/ours.py``).
"""

from __future__ import annotations

import io
import select
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from PIL import Image

from hw.api import DeviceFailedError, EncodedFrame, Picture, VideoMode
from hw.camera.serve import Owner
from hw.pi.camera import process
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.csi import CSI, SMALL_WIDTH, CsiSensor, csi_streams
from hw.pi.camera.process import RealCamera
from hw.pi.camera.usb import UsbCamera
from hw.pi.encoder.ladder import CameraEncoder

CAMERA = UsbCamera("/base/soc/i2c0mux/i2c@1/imx219@10", "imx219", CSI)
PAD = 64
"""Bytes that follow each line of the luma."""

LUMA = {"main": 60, "lores": 180}


class Request:
    """A completed request of picamera2: counted, as its buffers come back only with the last holder's release."""

    def __init__(self, camera: PlayedCamera) -> None:
        self._camera, self.held = camera, 1
        memory = SimpleNamespace(planes=[SimpleNamespace(fd=number) for number in camera.files])
        self.request, self.stream_map = SimpleNamespace(buffers={"stream": memory}), {"main": "stream"}

    def acquire(self) -> None:
        assert self.held > 0
        self.held += 1

    def release(self) -> None:
        self.held -= 1
        assert self.held >= 0, "released more often than acquired"

    def get_metadata(self) -> dict[str, int]:
        return {"SensorTimestamp": time.monotonic_ns()}

    def memory(self, name: str) -> bytes:
        given = self._camera.given[name]
        self._camera.copied.append(name)
        lines, packed = given["size"][1] * given["stride"], given["format"] == "BGR888"
        return bytes([LUMA[name]]) * lines if packed else bytes([LUMA[name]]) * lines + bytes([128]) * (lines // 2)


class Mapped:
    """``MappedArray``, whose array is a buffer here."""

    def __init__(self, request: Request, stream: str, *, reshape: bool, write: bool) -> None:
        assert (reshape, write) == (False, False)
        assert request.held
        self.array = request.memory(stream)

    def __enter__(self) -> Mapped:
        return self

    def __exit__(self, *_: object) -> None:
        del self.array


class PlayedCamera:
    """``Picamera2`` with ``streams`` of the formats ``formats``."""

    streams, formats, files = 2, ("YUV420", "BGR888"), (70, 70, 70)
    camera_controls: ClassVar[dict[str, Any]] = {}
    opened: list[PlayedCamera]

    def __init__(self, number: int = 0) -> None:
        self.pre_callback: Callable[[Request], None] | None = None
        self.controls: dict[str, Any] = {}
        self.requests: list[Request] = []
        self.copied: list[str] = []
        self.running = False
        self.opened.append(self)

    @staticmethod
    def global_camera_info() -> list[dict[str, str]]:
        return [{"Id": CAMERA.id, "Model": CAMERA.name}]

    def create_video_configuration(self, main: dict[str, Any], lores: dict[str, Any] | None = None, *,
                                   buffer_count: int, controls: dict[str, Any]) -> dict[str, Any]:
        assert lores is None or lores["size"] <= main["size"]
        return {"main": main, "lores": lores}

    def configure(self, wanted: dict[str, Any]) -> None:
        if wanted["lores"] is not None and self.streams < 2:
            raise AttributeError("'NoneType' object has no attribute 'orientation'")
        self.given = {}
        for name, one in wanted.items():
            self.given[name] = one
            if one is not None:
                kept = one["format"] if one["format"] in self.formats else self.formats[0]
                line = one["size"][0] * (3 if kept == "BGR888" else 1)
                size = (line + PAD) * one["size"][1] * (2 if kept == "BGR888" else 3) // 2
                self.given[name] = {"size": one["size"], "format": kept, "stride": line + PAD, "framesize": size}

    def camera_configuration(self) -> dict[str, Any]:
        return self.given

    def set_controls(self, controls: dict[str, Any]) -> None:
        assert set(controls) <= set(self.camera_controls)
        self.controls = controls

    def start(self) -> None:
        self.running = True

    def shoot(self) -> Request:
        """One picture, as picamera2's thread tells it."""
        assert self.pre_callback is not None
        request = Request(self)
        self.requests.append(request)
        self.pre_callback(request)
        request.release()
        return request

    def stop(self) -> None:
        self.running = False

    def close(self) -> None:
        assert not self.running


@pytest.fixture(autouse=True)
def picamera2(monkeypatch: pytest.MonkeyPatch) -> type[PlayedCamera]:
    class Fresh(PlayedCamera):
        opened: list[PlayedCamera] = []  # noqa: RUF012 - of this test

    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Fresh, MappedArray=Mapped))
    monkeypatch.setitem(sys.modules, "libcamera", SimpleNamespace(controls=SimpleNamespace(ExposureTimeMode=0)))
    return Fresh


RANGES: dict[str, Any] = {
    "AfMode": (0, 2, 0), "LensPosition": (0.0, 32.0, 1.0), "ExposureTime": (13, 500_000, None),
    "FrameDurationLimits": (33_333, 120_000, None),
    # of an imx708 whose 16:9 picture leaves out the upper and lower part of what its sensor sees
    "ScalerCrop": ((0, 0, 64, 36), (0, 0, 4608, 2952), (0, 180, 4608, 2592)),
}  # fmt: skip


@pytest.mark.parametrize("streams", [1, 2])
def test_a_zoom_is_of_the_picture_s_shape_and_in_every_stream(picamera2: type[PlayedCamera], streams: int) -> None:
    """A board with two scalers (Raspberry Pi 5) has ScalerCrops, which goes before ScalerCrop and is the whole picture
    unless it is set."""
    picamera2.streams = streams
    picamera2.camera_controls = RANGES | {"ScalerCrops": (RANGES["ScalerCrop"][2],) * 3}
    config = CameraConfig(zoom="0.5 0.5 0.25 0.25", focus="fixed", focus_distance_m=0.5, exposure_us=8000)
    sensor = CsiSensor(CAMERA, VideoMode(1280, 720, 25), config)
    crop = (2304, 180 + 1296, 1152, 648)
    assert picamera2.opened[-1].controls == {
        "FrameDurationLimits": (40_000, 40_000), "AfMode": 0, "LensPosition": 2.0, "ExposureTime": 8000,
        "ScalerCrop": crop, "ScalerCrops": [crop] * streams}
    assert crop[2] * 720 == crop[3] * 1280, "not stretched"
    assert (sensor.zooms, sensor.note) == (True, "")
    sensor.close()


def test_a_fixed_exposure_that_libcamera_is_too_old_for_is_told_and_the_camera_used(
    picamera2: type[PlayedCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "libcamera", SimpleNamespace(controls=SimpleNamespace()))
    picamera2.camera_controls = RANGES
    sensor = CsiSensor(CAMERA, VideoMode(1280, 720), CameraConfig(exposure_us=8000))
    assert "ExposureTime" not in picamera2.opened[-1].controls
    assert "needs libcamera 0.5" in sensor.note
    assert picamera2.opened[-1].running
    sensor.close()
    automatic = CsiSensor(CAMERA, VideoMode(1280, 720), CameraConfig())
    assert not automatic.note
    automatic.close()


def test_the_small_stream_is_asked_for_where_the_picture_is_larger() -> None:
    assert csi_streams(VideoMode(1280, 720))[0] == {
        "main": {"size": (1280, 720), "format": "YUV420"}, "lores": {"size": (640, 360), "format": "YUV420"}}
    assert csi_streams(VideoMode(1296, 972))[0]["lores"]["size"] == (640, 480)
    asked = [sorted(streams) for streams in csi_streams(VideoMode(1280, 720))]
    assert asked == [["lores", "main"]] * 3 + [["main"]] * 3
    pairs = [tuple(one["format"] for one in streams.values()) for streams in csi_streams(VideoMode(1280, 720))]
    assert pairs[:3] == [("YUV420", "YUV420"), ("NV12", "NV12"), ("BGR888", "YUV420")]
    assert all("lores" not in streams for streams in csi_streams(VideoMode(SMALL_WIDTH, 360)))
    mode = VideoMode(1920, 200)
    assert all(size % 2 == 0 for streams in csi_streams(mode) for one in streams.values() for size in one["size"])


@pytest.mark.parametrize(("streams", "formats", "small"), [
    (2, ("YUV420", "BGR888"), True), (2, ("NV12",), True), (1, ("YUV420", "BGR888"), False), (1, ("NV12",), False),
    (1, ("BGR888",), False), (2, ("BGR888",), False),
])  # fmt: skip
def test_a_camera_without_a_second_stream_is_used_all_the_same(picamera2: type[PlayedCamera], streams: int,
                                                               formats: tuple[str, ...], small: bool) -> None:
    picamera2.streams, picamera2.formats = streams, formats
    sensor = CsiSensor(CAMERA, VideoMode(1280, 720), CameraConfig())
    camera, = picamera2.opened
    camera.shoot()
    taken = sensor.take()
    assert taken is not None
    whole, beside = taken.picture(), taken.small()
    assert whole is not None
    assert (whole.width, whole.height) == (1280, 720)
    assert (beside is not None) is small
    if beside is not None:
        made = "nv12" if formats == ("NV12",) else "yuv420p"
        assert (beside.width, beside.height, beside.format.name) == (640, 360, made)
        plane = beside.planes[0]
        line = bytes(plane)[100 * plane.line_size :][:640]
        assert set(line) == {LUMA["lores"]}, "no byte of the padding is in the picture"
    taken.close()
    sensor.close()


def test_no_buffer_of_the_camera_is_kept_and_nothing_is_copied_unless_asked_for(picamera2: type[PlayedCamera]) -> None:
    sensor = CsiSensor(CAMERA, VideoMode(1280, 720), CameraConfig())
    camera, = picamera2.opened
    assert sensor.take() is None
    for _ in range(20):
        camera.shoot()
        camera.shoot()  # of two the newest is taken
        taken = sensor.take()
        assert taken is not None
        assert [request.held for request in camera.requests if request.held] == [1]
        taken.keep().close()
        taken.close()
        assert not any(request.held for request in camera.requests)
    assert not camera.copied
    sensor.close()
    camera.shoot()  # one more comes as it is closed
    assert not any(request.held for request in camera.requests)
    sensor.close()


@pytest.mark.parametrize(("files", "shared"), [((70, 70, 70), 70), ((70,), 70), ((70, 71, 72), -1)])
def test_memory_is_shared_where_it_is_in_one_piece(picamera2: type[PlayedCamera], files: tuple[int, ...], shared: int,
                                                   ) -> None:
    picamera2.files = files
    sensor = CsiSensor(CAMERA, VideoMode(1280, 720), CameraConfig())
    picamera2.opened[0].shoot()
    taken = sensor.take()
    assert taken is not None
    assert taken.file == shared
    layout = sensor.layout
    assert layout is not None
    assert (layout.pixels, layout.line, layout.size) == ("YU12", 1344, 1344 * 720 * 3 // 2)
    taken.close()
    sensor.close()


def test_a_camera_that_does_nothing_of_it_is_told(picamera2: type[PlayedCamera]) -> None:
    picamera2.formats = ("SRGGB10",)
    with pytest.raises(DeviceFailedError, match="it gives none of YUV420, NV12, BGR888"):
        CsiSensor(CAMERA, VideoMode(1280, 720), CameraConfig())


class Told(Owner):
    """The board's end of the pipe."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.events: list[dict[str, Any]] = []
        self.frames: list[EncodedFrame] = []
        self.stills: list[Image.Image] = []
        self.small: list[Picture] = []

    def tell(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        self.frames.append(frame)

    def preview(self, generation: int, picture: Picture) -> None:
        self.small.append(picture)

    def snapshot(self, number: int, jpeg: bytes) -> None:
        self.stills.append(Image.open(io.BytesIO(jpeg)))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setattr(process, "find_csi", lambda: [CAMERA])
    monkeypatch.setattr(process, "find_usb", list)
    yield Told()


def running(config: CameraConfig, told: Told, mode: VideoMode) -> RealCamera:
    camera = RealCamera(config, told)
    camera.handle({"do": "start", "generation": 1, "width": mode.width, "height": mode.height, "fps": mode.fps,
                   "bitrate": mode.bitrate})
    return camera


def shoot(camera: RealCamera, played: PlayedCamera) -> None:
    played.shoot()
    poll = select.poll()
    for file, events in camera.files():
        poll.register(file, events)
    assert poll.poll(1000)
    camera.tick()


def luma(still: Image.Image, x: float, y: float) -> int:
    pixel = still.convert("L").getpixel((int(x * still.width), int(y * still.height)))
    assert isinstance(pixel, int)
    return pixel


def test_a_snapshot_is_of_the_small_stream_with_the_same_masks(picamera2: type[PlayedCamera], told: Told) -> None:
    camera = running(CameraConfig(masks=("0 0 0.5 1",)), told, VideoMode(1280, 720, 30, 1_000_000))
    played = picamera2.opened[-1]
    shoot(camera, played)
    camera.handle({"do": "snapshot", "id": 1})
    camera.handle({"do": "snapshot", "id": 2})
    assert [still.size for still in told.stills] == [(640, 360)] * 2
    assert luma(told.stills[1], 0.25, 0.5) <= 4
    assert luma(told.stills[1], 0.75, 0.5) > 170, "the luma of the small stream, not of the other"
    assert len(told.frames) == 1
    camera.handle({"do": "mode", "width": 320, "height": 180, "fps": 30, "bitrate": 300_000})
    shoot(camera, played)
    camera.handle({"do": "snapshot", "id": 3})
    assert told.stills[2].size == (320, 180), "what is smaller than the small stream is shown itself"
    camera.handle({"do": "stop", "generation": 1})
    assert not any(request.held for request in played.requests)


@pytest.mark.parametrize(("streams", "shares", "of"), [(2, True, "lores"), (1, True, "main"), (2, False, "main")])
def test_small_pictures_are_masked_and_of_the_small_stream_where_the_other_is_not_copied_anyway(
    picamera2: type[PlayedCamera], told: Told, monkeypatch: pytest.MonkeyPatch, streams: int, shares: bool, of: str
) -> None:
    picamera2.streams = streams
    monkeypatch.setattr(CameraEncoder, "shares", shares)
    monkeypatch.setattr(CameraEncoder, "share", lambda _, shot: shot.close())
    camera = running(CameraConfig(masks=("0 0 0.5 1",)), told, VideoMode(1280, 720, 30, 1_000_000))
    played = picamera2.opened[-1]
    monkeypatch.setattr(Request, "get_metadata", lambda _: {"SensorTimestamp": len(played.requests) * 33_334_000})
    shoot(camera, played)
    assert not told.small, "nobody looks"
    camera.handle({"do": "preview", "side": 320})
    played.copied.clear()
    for _ in range(9):
        shoot(camera, played)
    assert len(told.small) == 5, "the first at once, then every second"
    assert set(played.copied) == {of}
    assert {(one.width, one.height, len(one.i420)) for one in told.small} == {(320, 180, 320 * 180 * 3 // 2)}
    assert [told.small[-1].i420[90 * 320 + x] for x in (80, 240)] == [16, LUMA[of]]
    camera.handle({"do": "preview", "side": 0})
    shoot(camera, played)
    assert len(told.small) == 5
    camera.handle({"do": "stop", "generation": 1})
    assert not any(request.held for request in played.requests)


def test_a_snapshot_of_a_camera_with_one_stream_is_of_that(picamera2: type[PlayedCamera], told: Told) -> None:
    picamera2.streams = 1
    camera = running(CameraConfig(), told, VideoMode(1280, 720, 30, 1_000_000))
    shoot(camera, picamera2.opened[-1])
    camera.handle({"do": "snapshot", "id": 1})
    assert told.stills[0].size == (1280, 720)
    assert luma(told.stills[0], 0.5, 0.5) < 70
    camera.handle({"do": "stop", "generation": 1})
