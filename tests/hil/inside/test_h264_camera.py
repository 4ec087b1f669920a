"""A USB camera that makes H.264 by itself, at a node of the kernel: passed through, judged, and else encoded again."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from hw.api import DeviceFact, DeviceFormatError, EncoderKind, FaultKind, Picture, VideoMode
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.part import PiCamera, open_camera
from hw.pi.camera.usb import EXPOSURE_ABSOLUTE, EXPOSURE_AUTO, FOCUS_ABSOLUTE, FOCUS_AUTO, find_usb
from hw.pi.v4l2 import Node
from hw.sim.sources import nal_units
from tests.hil.devices import Encoder, H264Camera
from tests.hil.machine import Machine
from tests.hil.seen import Seen, luma, pictures

MODULES = ["hilenc"]
pytestmark = pytest.mark.timeout(180)

MODE = VideoMode(640, 360, 30, 1_000_000)
KEY_S = 1.0
"""In which a key frame that somebody needs arrives."""
PLUG_S = 2.0
SLOW_S = 20.0
"""A machine that starves the guest may take so long; of it no more than the times above may be waiting."""
CONTROLS, UNIT = 1, 2
STEERED = pytest.mark.parametrize("steer", [CONTROLS, UNIT], ids=["controls", "unit"])


@pytest.fixture
def device() -> Iterator[H264Camera]:
    hands = H264Camera()
    yield hands
    hands.unplug()
    Encoder().calm()


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.line.close()


@pytest.fixture
def opened(device: H264Camera, seen: Seen) -> Iterator[Callable[..., PiCamera]]:
    """Plug it in with settings and open it, ready to be started."""
    cameras: list[PiCamera] = []

    def make(config: CameraConfig | None = None, **settings: int) -> PiCamera:
        device.plug(**settings)
        one = open_camera(config or CameraConfig(), seen.line)
        assert one is not None
        cameras.append(one)
        seen.until(lambda: one.cameras, 20.0)
        return one

    yield make
    for one in cameras:
        one.close()


def fact(one: PiCamera) -> DeviceFact:
    found, = one.devices()
    return found


def kinds(data: bytes) -> set[int]:
    return {kind for kind, _ in nal_units(data)}


@STEERED
def test_its_own_h264_is_passed_through_and_steered(device: H264Camera, opened: Callable[..., PiCamera], seen: Seen,
                                                    steer: int) -> None:
    one = opened(camera_steer=steer, camera_period=0)
    encoded = Encoder()["frames"]
    one.start(MODE, seen.frame)
    seen.more(20)
    assert one.encoder is EncoderKind.CAMERA
    assert device["camera_passing"] == 1
    assert fact(one).note == ""
    assert seen.frames[0].keyframe
    assert not any(frame.keyframe for frame in seen.more(10))
    asked = device["camera_asked"]
    one.request_keyframe()
    assert sum(frame.keyframe for frame in seen.more(8)) == 1
    assert device["camera_asked"] == asked + 1
    assert device["camera_bitrate"] == MODE.bitrate
    one.set_bitrate(400_000)
    seen.until(lambda: device["camera_bitrate"] == 400_000)
    one.stop()
    for frame in seen.frames:
        assert frame.data.startswith(b"\0\0\0\1")
        assert ({7, 8, 5} <= kinds(frame.data)) == frame.keyframe
        for kind, nal in nal_units(frame.data):
            assert kind != 7 or (nal[1], nal[2] & 0x40) == (66, 0x40)
    assert [frame.pts_us for frame in seen.frames] == sorted({frame.pts_us for frame in seen.frames})
    shown = pictures(seen.frames)
    assert len(shown) == len(seen.frames)
    assert {(picture.width, picture.height) for picture in shown} == {(640, 360)}
    assert {luma(shown[-1], x / 40, 0.5) for x in range(40)} == {90, 200}
    assert Encoder()["frames"] == encoded, "no other encoder had to do with it"
    assert not seen.faults


def test_headers_that_come_once_are_repeated(opened: Callable[..., PiCamera], seen: Seen) -> None:
    one = opened(camera_headers=0, camera_period=5)
    one.start(MODE, seen.frame)
    seen.more(20)
    assert one.encoder is EncoderKind.CAMERA
    one.stop()
    keys = [n for n, frame in enumerate(seen.frames) if frame.keyframe]
    assert len(keys) >= 3
    assert all(kinds(seen.frames[n].data) == {5, 7, 8} for n in keys)
    assert len(pictures(seen.frames[keys[1]:])) == len(seen.frames) - keys[1]  # one may begin at any of them


def test_a_snapshot_is_of_its_key_frame(opened: Callable[..., PiCamera], seen: Seen) -> None:
    one = opened(camera_period=0)
    still = Image.open(io.BytesIO(one.snapshot()))  # closed: by its raw pictures
    assert still.size == (1280, 720)
    one.start(MODE, seen.frame)
    seen.more(10)
    running = Image.open(io.BytesIO(one.snapshot())).convert("L")
    assert running.size == (640, 360)
    assert running.getextrema()[1] > 190
    seen.more(5)
    assert one.encoder is EncoderKind.CAMERA


def test_a_smaller_mode_is_decoded_and_encoded_again_and_back(opened: Callable[..., PiCamera], seen: Seen,
                                                              machine: Machine) -> None:
    one, small = opened(camera_period=0), list[Picture]()
    one.preview(small.append)
    one.start(MODE, seen.frame)
    seen.more(10)
    assert not small, "there are no raw pictures of what is passed through"
    begin, watch = len(seen.frames), machine.stopwatch()
    one.set_mode(VideoMode(320, 180, 15, 300_000))
    seen.until(lambda: any(frame.keyframe for frame in seen.frames[begin:]), SLOW_S)
    watch.within(KEY_S, "a key frame of a smaller mode")
    first = next(n for n, frame in enumerate(seen.frames) if n >= begin and frame.keyframe)
    seen.more(15)
    assert one.encoder is EncoderKind.HARDWARE
    assert {picture.width for picture in pictures(seen.frames[first:])} == {320}
    seen.until(lambda: small)
    Image.open(io.BytesIO(one.snapshot()))
    begin, watch = len(seen.frames), machine.stopwatch()
    one.set_mode(MODE)
    seen.until(lambda: any(frame.keyframe for frame in seen.frames[begin:]), SLOW_S)
    watch.within(KEY_S, "a key frame of the camera's own")
    first = next(n for n, frame in enumerate(seen.frames) if n >= begin and frame.keyframe)
    seen.more(15)
    assert one.encoder is EncoderKind.CAMERA
    assert {picture.width for picture in pictures(seen.frames[first:])} == {640}


@pytest.mark.parametrize(("settings", "words"), [
    ({"camera_b": 1}, "B picture"),
    ({"camera_stubborn": 1}, "another profile"),
    ({"camera_deaf": 1, "camera_period": 0}, "no key frame"),
    ({"camera_steer": 0}, "cannot be asked for"),
], ids=["b", "profile", "key", "steer"])  # fmt: skip
def test_what_is_of_no_use_is_left_for_its_raw_pictures(
    device: H264Camera, opened: Callable[..., PiCamera], seen: Seen, machine: Machine, settings: dict[str, int],
    words: str,
) -> None:  # fmt: skip
    one = opened(**settings)
    one.start(MODE, seen.frame)
    seen.more(10)
    one.request_keyframe()
    seen.until(lambda: words in fact(one).note, 12.0)
    begin, watch = len(seen.frames), machine.stopwatch()
    seen.until(lambda: len(seen.frames) > begin and device["camera_passing"] == 0, SLOW_S)
    watch.within(2.0, "its raw pictures")
    assert one.encoder is EncoderKind.HARDWARE
    begin, watch = len(seen.frames), machine.stopwatch()
    one.request_keyframe()
    seen.until(lambda: any(frame.keyframe for frame in seen.frames[begin:]), SLOW_S)
    watch.within(KEY_S, "a key frame of the raw pictures")
    first = next(n for n, frame in enumerate(seen.frames) if n >= begin and frame.keyframe)
    seen.more(10)
    shown = pictures(seen.frames[first:])
    assert len(shown) >= 8
    assert abs(max(luma(shown[-1], x / 40, 0.5) for x in range(40)) - 200) <= 1
    assert not [fault for fault in seen.faults if fault.fault is FaultKind.FALLBACK]


@pytest.mark.parametrize("config", [
    CameraConfig(masks=("0 0 0.5 1",)), CameraConfig(rotation=180), CameraConfig(zoom="0 0 0.5 0.5"),
    CameraConfig(encoder="software"),
], ids=["mask", "rotation", "zoom", "software"])  # fmt: skip
def test_what_is_drawn_before_the_encoder_needs_its_raw_pictures(
    device: H264Camera, opened: Callable[..., PiCamera], seen: Seen, config: CameraConfig,
) -> None:  # fmt: skip
    one = opened(config)
    one.start(MODE, seen.frame)
    seen.more(5)
    assert device["camera_passing"] == 0
    assert one.encoder is (EncoderKind.SOFTWARE if config.encoder == "software" else EncoderKind.HARDWARE)


def test_masks_are_in_the_pictures_of_a_camera_that_gives_h264_alone(
    device: H264Camera, opened: Callable[..., PiCamera], seen: Seen,
) -> None:  # fmt: skip
    one = opened(CameraConfig(masks=("0 0 0.5 1",)), camera_raw=0)
    one.start(MODE, seen.frame)
    seen.more(20)
    assert device["camera_passing"] == 1
    assert one.encoder is EncoderKind.HARDWARE
    shown = pictures(seen.frames)
    assert max(luma(picture, x / 40, 0.5) for picture in shown for x in range(19)) <= 18
    assert {luma(shown[-1], x / 40, 0.5) for x in range(21, 40)} <= {90, 200}


def test_lens_and_exposure_are_set_at_the_node(opened: Callable[..., PiCamera], seen: Seen) -> None:
    one = opened(CameraConfig(focus="fixed", exposure_us=10_000))
    one.start(MODE, seen.frame)
    seen.more(3)
    with Node(find_usb()[0].path) as node:
        values = [node.control(each) for each in (FOCUS_AUTO, FOCUS_ABSOLUTE, EXPOSURE_AUTO, EXPOSURE_ABSOLUTE)]
    assert values == [0, 0, 1, 100]
    one.close()
    one = opened(CameraConfig())
    begin = len(seen.frames)
    one.start(MODE, seen.frame)
    seen.until(lambda: len(seen.frames) > begin + 3)
    with Node(find_usb()[0].path) as node:
        assert [node.control(each) for each in (FOCUS_AUTO, EXPOSURE_AUTO)] == [1, 3]


def test_pulled_while_it_is_passed_through_and_back(device: H264Camera, opened: Callable[..., PiCamera], seen: Seen,
                                                    machine: Machine) -> None:
    one = opened()
    one.start(MODE, seen.frame)
    seen.more(10)
    watch = machine.stopwatch()
    device.unplug()
    seen.until(seen.told(FaultKind.PULLED, True), SLOW_S)
    watch.within(PLUG_S, "told that it was pulled")
    begin, watch = len(seen.frames), machine.stopwatch()
    device.plug()
    seen.until(lambda: len(seen.frames) >= begin + 5, SLOW_S)
    watch.within(5.0, "five pictures of the one that returned")
    assert seen.frames[begin].keyframe
    assert one.encoder is EncoderKind.CAMERA


def test_a_camera_of_no_format_of_ours_says_what_it_offers(opened: Callable[..., PiCamera], seen: Seen) -> None:
    one = opened(camera_raw=0, camera_h264=0)
    one.start(MODE, seen.frame)
    seen.until(seen.told(FaultKind.FORMAT, True))
    detail = next(fault.detail for fault in seen.faults if fault.fault is FaultKind.FORMAT)
    assert "H.264 camera" in detail
    assert "Y16" in detail
    with pytest.raises(DeviceFormatError, match="Y16"):
        one.snapshot()


def test_a_node_that_may_not_be_opened_is_told_with_what_to_do(device: H264Camera) -> None:
    """Without the capabilities by which to root nothing is forbidden."""
    device.plug()
    Path(find_usb()[0].path).chmod(0)
    script = (
        "import threading\n"
        "from hw.api import DeviceDeniedError, FaultKind, VideoMode\n"
        "from hw.faults import FaultLine\n"
        "from hw.pi.camera.config import CameraConfig\n"
        "from hw.pi.camera.part import open_camera\n"
        "line, told = FaultLine(), threading.Event()\n"
        "def hear(fault):\n"
        "    print(fault.fault.value, fault.active, fault.detail, flush=True)\n"
        "    told.set()\n"
        "line.listen(hear)\n"
        "camera = open_camera(CameraConfig(), line)\n"
        "camera.start(VideoMode(640, 360), lambda frame: None)\n"
        "assert told.wait(20)\n"
        "try:\n"
        "    camera.snapshot(20)\n"
        "except DeviceDeniedError as error:\n"
        "    print('snapshot:', error)\n"
        "camera.close()\n"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-c", script],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("denied True "), done.stdout + done.stderr
    assert "group video" in done.stdout
    assert "snapshot: " in done.stdout
