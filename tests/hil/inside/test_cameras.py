"""Two cameras at nodes of the kernel: one is used, the other stands in, and what is selected goes first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from hw.api import FaultKind, Kind, VideoMode
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.part import PiCamera, open_camera
from hw.pi.camera.usb import find_usb
from tests.hil.devices import Encoder, H264Camera, camera
from tests.hil.machine import Machine, Stopwatch
from tests.hil.seen import Seen

MODULES = ["hilenc", "vivid n_devs=1 node_types=0x1"]

MODE = VideoMode(640, 360, 30, 1_000_000)
FIRST = "platform-vivid.0"
SWITCH_S = 2.0
"""In which the next device is in (docs/hardware.md)."""
SLOW_S = 20.0
"""A machine that starves the guest may take so long; of it no more than ``SWITCH_S`` may be waiting."""


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.line.close()


@pytest.fixture
def second() -> Iterator[H264Camera]:
    hands = H264Camera()
    hands.plug(camera_h264=0)
    yield hands
    hands.unplug()
    Encoder().calm()
    if not camera().plugged:
        camera().plug()


@pytest.fixture
def one(second: H264Camera, seen: Seen) -> Iterator[PiCamera]:
    opened = open_camera(CameraConfig(), seen.line)
    assert opened is not None
    try:
        seen.until(lambda: len(opened.cameras) == 2, 20.0)
        opened.start(MODE, seen.frame)
        seen.more(5, 20.0)
        yield opened
    finally:
        opened.close()


def used(one: PiCamera) -> str:
    fact, = (fact for fact in one.devices() if fact.used)
    return fact.id


def other(one: PiCamera) -> str:
    return next(device for device, _ in one.cameras if device != FIRST)


def pictures_of(one: PiCamera, seen: Seen, device: str, watch: Stopwatch, what: str) -> None:
    """From a key frame on, in time."""
    seen.until(lambda: used(one) == device, SLOW_S)
    seen.until(lambda: any(frame.keyframe for frame, at in zip(seen.frames, seen.arrived, strict=False)
                           if at > watch.begin), SLOW_S)
    watch.within(SWITCH_S, f"{what}: pictures of {device}")


def test_what_is_selected_is_used_in_the_same_stream(one: PiCamera, seen: Seen, machine: Machine) -> None:
    assert used(one) == FIRST
    for device in (other(one), FIRST, other(one)):
        watch = machine.stopwatch()
        one.choose(device)
        pictures_of(one, seen, device, watch, "selected")
    watch = machine.stopwatch()
    one.choose("")
    pictures_of(one, seen, FIRST, watch, "by the list again")
    assert not [fault for fault in seen.faults if fault.kind is Kind.CAMERA]


def test_pulled_in_use_the_other_stands_in_until_it_returns(
    one: PiCamera, seen: Seen, second: H264Camera, machine: Machine
) -> None:
    device = other(one)
    one.choose(device)
    seen.until(lambda: used(one) == device, SLOW_S)
    for _ in range(3):
        watch = machine.stopwatch()
        second.unplug()
        pictures_of(one, seen, FIRST, watch, "pulled")
        seen.until(seen.told(FaultKind.PULLED, True))
        assert next(fault for fault in seen.faults if fault.fault is FaultKind.PULLED).device == device
        watch = machine.stopwatch()
        second.plug(camera_h264=0)
        pictures_of(one, seen, device, watch, "back")
        seen.until(seen.told(FaultKind.PULLED, False))


def test_one_that_is_held_costs_the_other_no_picture(one: PiCamera, seen: Seen) -> None:
    device = other(one)
    path = next(found.path for found in find_usb() if found.id == device)
    script = ("import sys,time; from hw.pi.camera.usb import *; from hw.api import VideoMode; "
              f"s=UsbSensor(next(c for c in find_usb() if c.path=={path!r}), VideoMode(640, 360)); "
              "print('on', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"on\n"
        one.choose(device)
        seen.until(seen.told(FaultKind.BUSY, True))
        told = next(fault for fault in seen.faults if fault.fault is FaultKind.BUSY)
        assert (told.device, str(holder.pid) in told.detail) == (device, True)
        assert used(one) == FIRST
        seen.more(10)
        holder.kill()
    seen.until(lambda: used(one) == device, 10.0)
    seen.until(seen.told(FaultKind.BUSY, False))
    seen.more(5)
