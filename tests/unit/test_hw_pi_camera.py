"""Cameras of real boards, without a kernel device: the table of the board file, the choice of a format, the picture."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from hw.api import VideoMode
from hw.pi.boardfile import BoardFile, BoardFileError
from hw.pi.camera.config import WHOLE, Area, CameraConfig, area_of, config_of, seen
from hw.pi.camera.csi import csi_controls
from hw.pi.camera.develop import Developer
from hw.pi.camera.raw import PIXELS, picture_of
from hw.pi.camera.usb import Offer, captured_us, choose, find_usb
from hw.pi.shot import Shot
from hw.pi.v4l2 import FLAG_MONOTONIC, Done, Format

HD = VideoMode(1280, 720, 30)


def table(**values: object) -> CameraConfig:
    return BoardFile("x.toml", tables={"camera": values}).part("camera", CameraConfig)


def test_the_table_reaches_the_process_whole() -> None:
    config = table(devices=["usb-1-1.2:1.0", "imx708"], rotation=90, zoom="0 0 0.5 0.5", masks=["0 0 0.1 1"],
                   focus="fixed", focus_distance_m=1.5, exposure_us=8000)
    assert config_of(config.text()) == config
    assert config_of(CameraConfig().text()) == CameraConfig()


@pytest.mark.parametrize(("values", "words"), [
    ({"rotation": 45}, "0, 90, 180, 270"),
    ({"use": "maybe"}, "auto, required, none"),
    ({"encoder": "x265"}, "auto, hardware, software"),
    ({"zoom": "0 0 1"}, "LEFT TOP WIDTH HEIGHT"),
    ({"masks": ["0.5 0 0.6 1"]}, "inside the picture"),
    ({"masks": [""]}, "LEFT TOP WIDTH HEIGHT"),
    ({"masks": ["0 0 nan 1"]}, "inside the picture"),
    ({"exposure_us": -1}, "exposure_us"),
    ({"mask": []}, "did you mean masks"),
])  # fmt: skip
def test_a_wrong_table_is_refused_in_words(values: dict[str, object], words: str) -> None:
    with pytest.raises(BoardFileError, match=words):
        table(**values)


def test_masks_stay_on_what_they_hide_when_zoomed() -> None:
    config = CameraConfig(zoom="0.5 0.5 0.5 0.5", masks=("0.5 0.5 0.25 0.25", "0.9 0.9 0.1 0.1", "0 0 0.4 0.4"))
    first, second = config.hidden
    assert first == Area(0.0, 0.0, 0.5, 0.5)
    assert astuple(second) == pytest.approx((0.8, 0.8, 0.2, 0.2))
    plain, = CameraConfig(masks=("0.1 0.2 0.3 0.4",)).hidden
    assert astuple(plain) == pytest.approx((0.1, 0.2, 0.3, 0.4))


fractions = st.floats(0, 0.9).flatmap(lambda left: st.tuples(st.just(left), st.floats(0.01, 1 - left)))


@given(fractions, fractions, fractions, fractions)
def test_what_is_seen_of_an_area_is_inside(
    x: tuple[float, float], y: tuple[float, float], u: tuple[float, float], v: tuple[float, float]
) -> None:
    area = Area(x[0], y[0], x[1], y[1])
    whole = seen(area, WHOLE)
    assert whole is not None
    assert astuple(whole) == pytest.approx(astuple(area))
    inside = seen(area, Area(u[0], v[0], u[1], v[1]))
    if inside is not None:
        assert -1e-9 <= inside.left <= inside.left + inside.width <= 1 + 1e-9
        assert -1e-9 <= inside.top <= inside.top + inside.height <= 1 + 1e-9


@pytest.mark.parametrize(("offers", "expected"), [
    # USB 2 carries 720p uncompressed at 10 pictures a second only
    ([Offer("YUYV", 1280, 720, 10), Offer("MJPG", 1280, 720, 30)], "MJPG 1280"),
    ([Offer("YUYV", 1280, 720, 30), Offer("MJPG", 1280, 720, 30)], "YUYV 1280"),
    ([Offer("YUYV", 640, 480, 30), Offer("YUYV", 1920, 1080, 30)], "YUYV 1920"),
    ([Offer("YUYV", 640, 480, 30), Offer("YUYV", 1920, 1080, 5)], "YUYV 640"),
    ([Offer("H264", 1280, 720, 30), Offer("YUYV", 320, 240, 15)], "H264 1280"),  # decoded
    ([Offer("H264", 1280, 720, 30), Offer("MJPG", 1280, 720, 30)], "MJPG 1280"),
    ([Offer("NV12", 1280, 720, 0)], "NV12 1280"),
])  # fmt: skip
def test_the_format_that_is_fast_enough_large_enough_and_cheap(offers: list[Offer], expected: str) -> None:
    chosen = choose(offers, HD)
    assert f"{chosen.pixels} {chosen.width}" == expected
    assert choose(reversed(offers), HD) == chosen


def bars(width: int, height: int, pixels: str = "yuv420p") -> VideoFrame:
    """Bright at the left, dark at the right."""
    frame = VideoFrame(width, height, "yuv420p")
    for number, plane in enumerate(frame.planes):
        line = bytes(220 - 180 * x // plane.width if not number else 128 for x in range(plane.width))
        plane.update((line.ljust(plane.line_size, b"\0") * plane.height).ljust(plane.buffer_size, b"\0"))
    return frame if pixels == "yuv420p" else frame.reformat(format=pixels)


def luma(picture: VideoFrame, x: float, y: float) -> int:
    plane = picture.planes[0]
    return memoryview(plane)[int(y * picture.height) * plane.line_size + int(x * picture.width)]


@pytest.mark.parametrize("pixels", ["yuv420p", "yuyv422", "yuvj422p", "nv12"])
def test_pictures_of_every_format_are_developed(pixels: str) -> None:
    mode = VideoMode(320, 180)
    shown = Developer(CameraConfig(masks=("0 0 0.5 0.25",)), mode).develop(bars(640, 360, pixels))
    assert (shown.width, shown.height, shown.format.name) == (320, 180, "yuv420p")
    assert {luma(shown, x, y) for x in (0, 0.2, 0.499) for y in (0, 0.1, 0.249)} == {16}
    assert luma(shown, 0.1, 0.5) > 150
    assert luma(shown, 0.6, 0.1) > 60


@pytest.mark.parametrize(("rotation", "bright"), [(0, (0.1, 0.5)), (90, (0.5, 0.1)), (180, (0.9, 0.5)),
                                                  (270, (0.5, 0.9))])
def test_rotation_is_clockwise(rotation: int, bright: tuple[float, float]) -> None:
    shown = Developer(CameraConfig(rotation=rotation), VideoMode(180, 180)).develop(bars(360, 360))
    assert luma(shown, *bright) > 180
    assert luma(shown, 1 - bright[0], 1 - bright[1]) < 100


@pytest.mark.parametrize("pad", [0, 64])
@pytest.mark.parametrize(("pixels", "line", "parts"), [
    ("YU12", 64, ((64, 36), (32, 18), (32, 18))), ("NV12", 64, ((64, 36), (64, 18))), ("YUYV", 128, ((128, 36),)),
    ("RGB3", 192, ((192, 36),)),
])  # fmt: skip
def test_raw_memory_becomes_the_picture_that_lies_in_it(pixels: str, line: int, parts: tuple[tuple[int, int], ...],
                                                        pad: int) -> None:
    memory, lines = b"", []
    for number, (used, rows) in enumerate(parts):
        for row in range(rows):
            lines.append(bytes((number * 50 + row * 7 + x) % 251 for x in range(used)))
            memory += lines[-1] + b"\xff" * (pad * used // line)
    layout = Format(64, 36, pixels, line + pad, len(memory))
    picture = picture_of(memoryview(memory), layout)
    assert picture is not None
    assert picture.format.name == PIXELS[pixels]
    shown = [bytes(plane)[row * plane.line_size :][:used]
             for plane, (used, rows) in zip(picture.planes, parts, strict=True) for row in range(rows)]
    assert shown == lines
    assert picture_of(memoryview(memory)[: -pad - 1], layout) is None, "a picture that was cut off"


def test_a_narrow_picture_has_bars_and_its_mask_is_where_it_belongs() -> None:
    config = CameraConfig(masks=("0 0 0.5 1",))
    shown = Developer(config, VideoMode(640, 360)).develop(bars(480, 480))
    assert luma(shown, 0.05, 0.5) == luma(shown, 0.3, 0.5) == 16
    assert luma(shown, 0.55, 0.5) > 100


def test_a_sensor_that_zooms_is_not_zoomed_again() -> None:
    config = CameraConfig(zoom="0.5 0 0.5 1", masks=("0.5 0 0.25 1",))
    shown = Developer(config, VideoMode(320, 180), zoomed=True).develop(bars(320, 180))
    assert luma(shown, 0.4, 0.5) == 16  # the mask moves with the zoom
    assert luma(shown, 0.55, 0.5) > 100


@pytest.mark.parametrize(("config", "expected"), [
    (CameraConfig(), {"FrameDurationLimits": (40_000, 40_000), "AfMode": 2}),
    (CameraConfig(focus="fixed", focus_distance_m=0.5, exposure_us=9000),
     {"FrameDurationLimits": (40_000, 40_000), "AfMode": 0, "LensPosition": 2.0, "ExposureTime": 9000}),
    (CameraConfig(zoom="0.5 0.25 0.5 0.5"),
     {"FrameDurationLimits": (40_000, 40_000), "AfMode": 2, "ScalerCrop": (408, 204, 400, 200)}),
])  # fmt: skip
def test_controls_of_libcamera(config: CameraConfig, expected: dict[str, object]) -> None:
    known = ["FrameDurationLimits", "AfMode", "LensPosition", "ExposureTime", "ScalerCrop"]
    assert csi_controls(config, VideoMode(640, 360, 25), known, (8, 104, 800, 400)) == expected
    crops = {"ScalerCrops": [expected["ScalerCrop"]] * 2} if "ScalerCrop" in expected else {}
    assert csi_controls(config, VideoMode(640, 360, 25), [*known, "ScalerCrops"], (8, 104, 800, 400), 2) == (
        expected | crops)
    assert csi_controls(config, VideoMode(), [], (0, 0, 0, 0)) == {}


def node(sysfs: Path, number: int, name: str, place: str, index: int = 0) -> None:
    device = sysfs / "devices" / place
    device.mkdir(parents=True, exist_ok=True)
    bus = sysfs / "bus" / ("usb" if ":" in place else "platform")
    bus.mkdir(parents=True, exist_ok=True)
    if not (device / "subsystem").exists():
        (device / "subsystem").symlink_to(bus)
    folder = sysfs / "class" / "video4linux" / f"video{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "index").write_text(f"{index}\n")
    (folder / "device").symlink_to(device)


def test_cameras_are_known_by_where_they_are_plugged(tmp_path: Path) -> None:
    node(tmp_path, 910, "HD Webcam", "usb1/1-1/1-1.2/1-1.2:1.0")
    node(tmp_path, 911, "HD Webcam", "usb1/1-1/1-1.2/1-1.2:1.0", index=1)  # metadata
    node(tmp_path, 909, "unicam-image", "soc/fe801000.csi")
    node(tmp_path, 912, "bcm2835-codec-encode", "soc/bcm2835-codec")
    found, = find_usb(str(tmp_path))
    assert (found.id, found.name, found.path) == ("usb-1-1.2:1.0", "HD Webcam", "/dev/video910")
    assert find_usb(str(tmp_path / "empty")) == []


def test_a_picture_goes_back_to_the_camera_with_its_last_holder() -> None:
    copies, back = [], []

    def copy() -> VideoFrame:
        copies.append(VideoFrame(64, 36, "yuv420p"))
        return copies[-1]

    shot = Shot(5, copy, file=7, give_back=lambda: back.append(True))
    assert shot.small() is None
    assert shot.keep() is shot
    shot.close()
    assert not back
    assert shot.picture() is shot.picture() is copies[0]
    shot.close()
    assert (len(copies), len(back)) == (1, 1)
    with pytest.raises(AssertionError):
        shot.keep()


def test_area_words() -> None:
    assert area_of("0 0 1 1") == WHOLE
    assert replace(WHOLE, width=0.5) == area_of("0 0 0.5 1")


@pytest.mark.parametrize(("flags", "stamp", "captured"), [
    (FLAG_MONOTONIC, 960_000, 960_000),
    (FLAG_MONOTONIC, 1_027_000, 1_000_000),  # the end of a picture that is here already
    (0x4000, 960_000, 1_000_000),  # copied from who knows where
    (0, 1_700_000_000_000_000, 1_000_000),  # time of day
])
def test_a_picture_is_stamped_with_its_capture_whatever_the_driver_says(flags: int, stamp: int, captured: int) -> None:
    assert captured_us(Done(0, 1, flags, stamp), 1_000_000) == captured
