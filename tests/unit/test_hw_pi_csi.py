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
from typing import Any

import pytest
from PIL import Image

from hw.api import DeviceFailedError, EncodedFrame, VideoMode
from hw.camera.serve import Owner
from hw.pi.camera import process
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.csi import CSI, SMALL_WIDTH, CsiSensor, csi_streams
from hw.pi.camera.process import RealCamera
from hw.pi.camera.usb import UsbCamera

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
    opened: list[PlayedCamera]

    def __init__(self, number: int = 0) -> None:
        self.pre_callback: Callable[[Request], None] | None = None
        self.camera_controls: dict[str, Any] = {}
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
        assert not controls

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
    return Fresh


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

    def tell(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        self.frames.append(frame)

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


def test_a_snapshot_of_a_camera_with_one_stream_is_of_that(picamera2: type[PlayedCamera], told: Told) -> None:
    picamera2.streams = 1
    camera = running(CameraConfig(), told, VideoMode(1280, 720, 30, 1_000_000))
    shoot(camera, picamera2.opened[-1])
    camera.handle({"do": "snapshot", "id": 1})
    assert told.stills[0].size == (1280, 720)
    assert luma(told.stills[0], 0.5, 0.5) < 70
    camera.handle({"do": "stop", "generation": 1})
