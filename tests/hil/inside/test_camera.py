"""A camera of a board file on nodes of the kernel: sensor and encoder real to us, their pictures simulated."""

from __future__ import annotations

import io
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from hw.api import (
    DeviceBusyError,
    DeviceFailedError,
    DeviceMissingError,
    EncoderKind,
    FaultKind,
    Kind,
    Picture,
    VideoMode,
)
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.part import PiCamera, open_camera
from hw.pi.camera.usb import find_usb
from hw.pi.encoder.ladder import AGAIN_S
from tests.hil.devices import Bound, Encoder, camera
from tests.hil.machine import Machine
from tests.hil.seen import Seen, longest_gap_s, luma, pictures

MODULES = ["hilenc", "vivid n_devs=1 node_types=0x1"]
pytestmark = pytest.mark.timeout(180)

MODE = VideoMode(640, 360, 30, 1_000_000)
BLOCKED_S = 0.2
"""No call waits longer, whatever the device does."""
WORKING_S = 1.0
"""Or lasts longer, with the work of other processes beside it."""

PLUG_S = 2.0
"""In which a pulled camera is told, and pictures of one that returned or from another encoder arrive."""
SLOW_S = 20.0
"""A machine that starves the guest may take so long; of it no more than ``PLUG_S`` may be waiting."""


def quick(machine: Machine, call: Callable[[], object]) -> None:
    watch = machine.stopwatch()
    call()
    lasted = time.monotonic() - watch.begin
    watch.within(BLOCKED_S, "a call that may not block")
    # the guest has one processor: a call that waits for what another process computes does not find it free
    assert lasted - machine.stood_s(watch.begin, watch.begin + lasted) < WORKING_S, f"{lasted:.2f} s"


def level(picture: Picture, x: float, y: float) -> int:
    return picture.i420[int(y * picture.height) * picture.width + int(x * picture.width)]


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.line.close()


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    Encoder().calm()
    yield
    Encoder().calm()
    if not camera().plugged:
        camera().plug()


@pytest.fixture
def opened(seen: Seen) -> Iterator[Callable[..., PiCamera]]:
    cameras: list[PiCamera] = []

    def make(config: CameraConfig | None = None) -> PiCamera:
        one = open_camera(config or CameraConfig(), seen.line)
        assert one is not None
        cameras.append(one)
        seen.until(lambda: one.cameras, 20.0)  # its process is up: the test measures the camera and not an import
        return one

    yield make
    Encoder().calm()  # a process in a driver that hangs cannot be ended
    for one in cameras:
        one.close()


@pytest.fixture
def one(opened: Callable[..., PiCamera]) -> PiCamera:
    return opened()


def test_it_is_found_by_where_it_is_plugged(one: PiCamera) -> None:
    found, = find_usb()
    assert (found.id, found.name) == ("platform-vivid.0", "vivid-000-vid-cap")
    fact, = one.devices()
    assert (fact.kind, fact.id, fact.name) == (Kind.CAMERA, "platform-vivid.0", "vivid-000-vid-cap")
    assert (fact.present, fact.used, fact.simulated) == (True, True, False)


def test_it_delivers_at_its_rate_by_the_hardware_encoder(one: PiCamera, seen: Seen, machine: Machine) -> None:
    quick(machine, lambda: one.start(MODE, seen.frame))
    seen.more(10)
    assert one.mode == MODE
    assert one.encoder is EncoderKind.HARDWARE
    watch = machine.stopwatch()
    frames = seen.more(60)
    watch.within(60 / 25, "60 pictures")
    lasted = seen.arrived[-1] - seen.arrived[-60] - machine.stood_s(seen.arrived[-60], seen.arrived[-1])
    assert 59 / lasted >= 20, "whatever else the guest's processor has to do"
    dwell = statistics.median(frame.delivered_us - frame.pts_us for frame in frames) / 1000
    print(f"{59 / lasted:.1f} pictures a second, {dwell:.1f} ms from capture to the daemon")
    assert seen.frames[0].keyframe
    assert [frame.pts_us for frame in frames] == sorted({frame.pts_us for frame in frames})
    frames = list(seen.frames)
    shown = pictures(frames)
    assert len(shown) >= len(frames) - 1
    assert {(picture.width, picture.height) for picture in shown} == {(640, 360)}
    with pytest.raises(DeviceBusyError, match="started already"):
        one.start(MODE, seen.frame)
    quick(machine, one.stop)
    count = len(seen.frames)
    assert one.mode is None
    one.stop()
    assert len(seen.frames) == count


def test_key_frame_bit_rate_and_size_while_it_runs(one: PiCamera, seen: Seen, machine: Machine) -> None:
    one.start(MODE, seen.frame)
    seen.more(10)
    assert not any(frame.keyframe for frame in seen.more(10))
    one.request_keyframe()
    assert sum(frame.keyframe for frame in seen.more(8)) == 1
    high = sum(len(frame.data) for frame in seen.more(30))
    one.set_bitrate(300_000)
    seen.more(6)
    low = sum(len(frame.data) for frame in seen.more(30))
    assert 0.1 < low / high < 0.6
    begin, watch = len(seen.frames), machine.stopwatch()
    quick(machine, lambda: one.set_mode(VideoMode(320, 180, 15, 300_000)))
    seen.until(lambda: any(frame.keyframe for frame in seen.frames[begin:]), SLOW_S)
    watch.within(1.0, "a key frame of another size")
    first = next(n for n, frame in enumerate(seen.frames) if n >= begin and frame.keyframe)
    watch = machine.stopwatch()
    begin_s = watch.begin
    frames = seen.more(30)
    watch.within(30 / 12, "30 pictures of 15 a second")
    assert 29 / (seen.arrived[-1] - begin_s - machine.stood_s(begin_s, seen.arrived[-1])) >= 9
    assert {picture.width for picture in pictures(seen.frames[first:])} == {320}
    rate = 29e6 / (frames[29].pts_us - frames[0].pts_us)
    assert rate <= 18
    assert one.mode is not None
    assert (one.mode.width, one.mode.height, one.mode.fps) == (320, 180, 15)


def test_without_a_hardware_encoder_software_does_it(opened: Callable[..., PiCamera], seen: Seen) -> None:
    one = opened(CameraConfig(encoder="software"))
    one.start(VideoMode(320, 180, 30, 300_000), seen.frame)
    seen.more(20)
    assert one.encoder is EncoderKind.SOFTWARE
    assert not seen.faults
    assert len(pictures(seen.frames)) >= 19


def test_snapshot_started_and_stopped(one: PiCamera, seen: Seen) -> None:
    still = Image.open(io.BytesIO(one.snapshot()))
    assert (still.format, still.size) == ("JPEG", (1280, 720))
    one.start(MODE, seen.frame)
    seen.more(10)
    assert Image.open(io.BytesIO(one.snapshot())).size == (640, 360)
    seen.more(5)


def test_masks_zoom_and_rotation_are_in_the_picture_that_leaves(opened: Callable[..., PiCamera], seen: Seen) -> None:
    plain = opened()
    plain.start(MODE, seen.frame)
    seen.more(5)
    plain.stop()
    bars = pictures(seen.frames)[0]  # colour bars, bright at the left, dark at the right; words over the upper half
    assert luma(bars, 0.06, 0.7) > luma(bars, 0.35, 0.7) + 20 > luma(bars, 0.9, 0.7) + 40
    plain.close()
    masked = opened(CameraConfig(masks=("0.0 0.75 0.25 0.25",), rotation=180))
    begin = len(seen.frames)
    masked.start(MODE, seen.frame)
    seen.more(5)
    shown = pictures(seen.frames[begin:])[0]
    assert max(luma(shown, x, y) for x in (0.77, 0.87, 0.97) for y in (0.03, 0.1, 0.22)) <= 18
    assert luma(shown, 0.94, 0.35) > 100  # the same bar, outside the mask
    snapshot = Image.open(io.BytesIO(masked.snapshot())).convert("L")
    assert max(snapshot.getpixel((int(640 * x), int(360 * y))) for x in (0.77, 0.97) for y in (0.03, 0.22)) <= 8
    small: list[Picture] = []
    masked.preview(small.append)
    seen.until(lambda: len(small) >= 3)
    assert {(picture.width, picture.height) for picture in small} == {(320, 180)}
    assert max(level(small[-1], x, y) for x in (0.77, 0.87, 0.97) for y in (0.03, 0.1, 0.22)) <= 18
    assert level(small[-1], 0.94, 0.35) > 100
    masked.close()
    begin = len(seen.frames)
    zoomed = opened(CameraConfig(zoom="0 0.75 0.125 0.125"))
    zoomed.start(MODE, seen.frame)
    seen.more(5)
    near = pictures(seen.frames[begin:])[0]
    assert max(abs(luma(near, x, 0.5) - luma(near, 0.5, 0.5)) for x in (0.1, 0.3, 0.9)) < 12  # one bar alone


@pytest.mark.parametrize(("fault", "value"), [
    ("error_next", 1000), ("stall", 1), ("unplug", 1), ("corrupt_next", 1000), ("encode_us", 120_000),
])  # fmt: skip
def test_an_encoder_that_fails_is_left_within_two_seconds(
    one: PiCamera, seen: Seen, machine: Machine, fault: str, value: int
) -> None:
    Encoder()["fill"] = 0
    one.start(MODE, seen.frame)
    seen.more(15)
    begin, watch = len(seen.frames), machine.stopwatch()
    Encoder()[fault] = value
    one.request_keyframe()
    seen.until(seen.told(FaultKind.FALLBACK, True), SLOW_S)
    count = len(seen.frames)
    seen.until(lambda: len(seen.frames) > count, SLOW_S)
    watch.within(PLUG_S, f"{fault}: pictures again")
    assert one.encoder is EncoderKind.SOFTWARE
    told = next(told for told in seen.faults if told.fault is FaultKind.FALLBACK)
    assert "encoder" in told.detail
    assert "software" in told.detail
    seen.more(10)
    frames = list(seen.frames)
    key = max(n for n, frame in enumerate(frames) if n >= begin and frame.keyframe)  # may come before it is told
    assert len(pictures(frames[key:])) >= 5


def test_an_encoder_that_recovers_is_used_again_while_the_camera_runs(
    one: PiCamera, seen: Seen, machine: Machine
) -> None:
    one.start(MODE, seen.frame)
    seen.more(10)
    Encoder()["unplug"] = 1
    seen.until(seen.told(FaultKind.FALLBACK, True))
    Encoder()["unplug"] = 0
    back = seen.until(seen.told(FaultKind.FALLBACK, False), AGAIN_S[0] + 5.0)
    print(f"proven again after {back:.1f} s")
    assert one.encoder is EncoderKind.HARDWARE
    seen.more(10)
    frames = list(seen.frames)
    assert longest_gap_s(frames, machine) < 0.5
    assert len(pictures(frames)) >= len(frames) - 1


def test_an_encoder_that_is_gone_before_the_process_starts_is_missed_until_it_comes(
    opened: Callable[..., PiCamera], seen: Seen
) -> None:
    one = opened()
    seen.until(lambda: one.encoder is EncoderKind.HARDWARE, 20.0)
    pid = one.pid
    assert pid is not None
    Encoder()["unplug"] = 1
    os.kill(pid, signal.SIGKILL)
    seen.until(seen.told(FaultKind.FALLBACK, True), 20.0)
    told = next(told for told in seen.faults if told.fault is FaultKind.FALLBACK)
    assert "is not there" in told.detail
    assert one.encoder is EncoderKind.SOFTWARE
    Encoder()["unplug"] = 0
    seen.until(seen.told(FaultKind.FALLBACK, False), 10.0)
    assert one.encoder is EncoderKind.HARDWARE


def test_one_that_the_board_should_have_is_missed_from_the_first_start_on(
    opened: Callable[..., PiCamera], seen: Seen
) -> None:
    Encoder()["unplug"] = 1
    opened(CameraConfig(encoder="hardware"))
    seen.until(seen.told(FaultKind.FALLBACK, True), 20.0)


def test_pulled_in_use_and_back(one: PiCamera, seen: Seen, machine: Machine) -> None:
    one.start(MODE, seen.frame)
    seen.more(10)
    bus: Bound = camera()
    watch = machine.stopwatch()
    bus.unplug()
    seen.until(seen.told(FaultKind.PULLED, True), SLOW_S)
    watch.within(PLUG_S, "told that it was pulled")
    told = next(fault for fault in seen.faults if fault.fault is FaultKind.PULLED)
    assert ("unplugged" in told.detail, told.device) == (True, "platform-vivid.0")
    quick(machine, one.request_keyframe)
    quick(machine, lambda: one.set_bitrate(500_000))
    with pytest.raises(DeviceMissingError):
        one.snapshot()
    assert [fact.present for fact in one.devices()] == [False]
    begin, watch = len(seen.frames), machine.stopwatch()
    bus.plug()
    seen.until(lambda: len(seen.frames) > begin, SLOW_S)
    watch.within(PLUG_S, "pictures of the one that returned")
    seen.until(seen.told(FaultKind.PULLED, False))
    assert seen.frames[begin].keyframe
    assert [fact.present for fact in one.devices()] == [True]


def test_a_camera_that_was_never_there(opened: Callable[..., PiCamera], seen: Seen, machine: Machine) -> None:
    one = opened(CameraConfig(devices=("usb-1-1.4:1.0",)))
    quick(machine, lambda: one.start(MODE, seen.frame))
    seen.until(seen.told(FaultKind.MISSING, True))
    assert "usb-1-1.4:1.0" in seen.faults[-1].detail
    assert "platform-vivid.0" in seen.faults[-1].detail
    assert {fact.id: fact.present for fact in one.devices()} == {"platform-vivid.0": True, "cam0": False}


def test_a_camera_that_is_required_is_missed_before_it_is_wanted(opened: Callable[..., PiCamera], seen: Seen) -> None:
    opened(CameraConfig(use="required", devices=("vivid",)))
    assert not seen.faults
    camera().unplug()
    seen.until(seen.told(FaultKind.MISSING, True))
    assert "vivid" in seen.faults[-1].detail
    camera().plug()
    seen.until(seen.told(FaultKind.MISSING, False))


def test_busy_names_the_holder(one: PiCamera, seen: Seen, machine: Machine) -> None:
    path = find_usb()[0].path
    script = ("import sys,time; from hw.pi.camera.usb import *; from hw.api import VideoMode; "
              "s=UsbSensor(find_usb()[0], VideoMode(640, 360)); print('on', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"on\n"
        quick(machine, lambda: one.start(MODE, seen.frame))
        seen.until(seen.told(FaultKind.BUSY, True))
        told = next(fault for fault in seen.faults if fault.fault is FaultKind.BUSY)
        assert (str(holder.pid) in told.detail, told.device) == (True, "platform-vivid.0")
        with pytest.raises(DeviceBusyError, match=str(holder.pid)):
            one.snapshot()
        holder.kill()
    seen.more(5, 8.0)
    seen.until(seen.told(FaultKind.BUSY, False))
    assert Path(path).exists()


def test_a_process_that_hangs_is_killed_and_nobody_waits(one: PiCamera, seen: Seen, machine: Machine) -> None:
    one.start(MODE, seen.frame)
    seen.more(10)
    pid = one.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    quick(machine, one.request_keyframe)
    quick(machine, lambda: one.set_mode(VideoMode(320, 180, 30, 300_000)))
    with pytest.raises(DeviceFailedError):
        one.snapshot(0.1)
    seen.until(lambda: one.pid not in (pid, None), 10.0)
    seen.more(10, 20.0)
    assert one.encoder is EncoderKind.HARDWARE
