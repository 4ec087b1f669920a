"""What every ``hw.api.Camera`` promises, for a board's own test to call with its device.

``late_s`` is what the machine under the board may add to a time that the contract limits. Each leaves the camera
stopped.
"""

from __future__ import annotations

import io
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import av
import psutil
import pytest
from PIL import Image

from hw.api import Camera, DeviceBusyError, EncodedFrame, EncoderKind, FaultKind, Kind, VideoMode
from hw.sim.sources import nal_units
from tests.contract.seen import Faults, Frames, Pictures, until

__all__ = [
    "MODE",
    "Recording",
    "changes_size_and_rate",
    "comes_back_after_its_process_was_killed",
    "delivers_constrained_baseline",
    "follows_the_bitrate",
    "gives_small_pictures_of_what_is_sent",
    "is_not_held_up_by_a_process_that_hangs",
    "shows_small_pictures_again_after_its_process_hung",
    "stops_from_within_its_sink",
    "takes_a_picture_when_it_is_stopped",
]

MODE = VideoMode(640, 360, 30, 800_000)


@dataclass(frozen=True, slots=True)
class Recording:
    """What ``delivers_constrained_baseline`` saw, for a board that knows what was before its camera."""

    units: list[EncodedFrame]
    jpeg: bytes  # taken while the camera ran


def delivers_constrained_baseline(camera: Camera, encoder: EncoderKind, late_s: float = 0.0) -> Recording:
    """Frames of ``MODE`` come at once, stamped with their capture, headers at each key frame, one on request, and none
    after ``stop``; a snapshot disturbs nothing."""
    frames = Frames()
    began = time.monotonic()
    assert camera.start(MODE, frames) == MODE
    assert time.monotonic() - began < 0.2 + late_s
    with pytest.raises(DeviceBusyError):
        camera.start(MODE, frames)
    frames.wait(20, 5.0 + late_s)
    assert camera.encoder is encoder
    jpeg = camera.snapshot(2.0 + late_s)
    frames.wait(25)
    asked_us = time.monotonic_ns() // 1000
    camera.request_keyframe()
    key = frames.first(lambda unit: unit.keyframe and unit.pts_us > asked_us)
    frames.wait(len(frames.frames) + 2)
    stopping = time.monotonic()
    camera.stop()
    assert time.monotonic() - stopping < 0.5 + late_s
    camera.stop()
    count = len(frames.frames)

    assert frames.frames[0][0] - began < 0.5 + late_s
    units = [unit for _, unit in frames.frames]
    stamps = [unit.pts_us for unit in units]
    assert stamps == sorted(set(stamps))
    ages = [at * 1e6 - unit.pts_us for at, unit in frames.frames]
    assert min(ages) >= 0, ages
    assert max(ages) < 200_000 + late_s * 1e6, ages
    for unit in units:
        assert unit.dwell_us is not None
        assert 0 <= unit.dwell_us <= unit.delivered_us - unit.pts_us, "it was in the encoder after its capture"
        types = [kind for kind, _ in nal_units(unit.data)]
        assert unit.data.startswith(b"\0\0\0\1")
        assert unit.keyframe == (5 in types) == (7 in types) == (8 in types)
        for kind, body in nal_units(unit.data):
            if kind == 7:
                assert (body[1], body[2] & 0x40) == (66, 0x40)  # constrained baseline
                assert body[3] <= 31  # level 3.1
    assert units[0].keyframe
    assert key.pts_us - asked_us < 100_000 + late_s * 1e6, "on request, and not by itself"
    assert Image.open(io.BytesIO(jpeg)).size == (MODE.width, MODE.height)
    assert len(frames.frames) == count  # none came after stop()
    return Recording(units, jpeg)


def follows_the_bitrate(camera: Camera, late_s: float = 0.0) -> None:
    frames = Frames()
    camera.start(replace(MODE, bitrate=2_000_000), frames)

    def rate_of_a_second() -> float:
        start = len(frames.frames)
        frames.wait(start + 30)
        part = [unit for _, unit in frames.frames[start : start + 30]]
        return sum(len(unit.data) * 8 for unit in part) * 1e6 * 29 / 30 / (part[-1].pts_us - part[0].pts_us)

    frames.wait(15, 5.0 + late_s)
    for _ in range(5 if late_s else 2):  # it is less in a second in which the machine stood still
        if (high := rate_of_a_second()) > 1_200_000:
            break
    camera.set_bitrate(300_000)
    frames.wait(len(frames.frames) + 15)  # 500 ms
    low = rate_of_a_second()
    camera.stop()
    assert high > 1_200_000
    assert low < 450_000
    stamps = [unit.pts_us for _, unit in frames.frames]
    assert all(0 < after - before < 250_000 + late_s * 1e6 for before, after in itertools.pairwise(stamps))


def changes_size_and_rate(camera: Camera, late_s: float = 0.0) -> None:
    """While the stream goes on, from a key frame on."""
    camera.set_mode(VideoMode(320, 180, 15, 100_000))
    assert camera.mode is None, "stopped: nothing to change"
    frames = Frames()
    camera.start(MODE, frames)
    frames.wait(15, 5.0 + late_s)
    small = VideoMode(320, 180, 15, 150_000)
    began = time.monotonic()
    camera.set_mode(small)
    assert time.monotonic() - began < 0.05 + late_s
    assert camera.mode == small
    frames.wait(45)
    camera.set_bitrate(120_000)
    assert camera.mode == replace(small, bitrate=120_000)
    frames.wait(50)
    back = time.monotonic()
    camera.set_mode(MODE)
    frames.wait(70)
    camera.stop()
    assert camera.mode is None

    decoder = av.CodecContext.create("h264", "r")
    sizes = []
    for at, unit in frames.frames:
        (picture,) = decoder.decode(av.Packet(unit.data))
        sizes.append((at, unit, picture.width))
    assert [width for width, _ in itertools.groupby(width for *_, width in sizes)] == [640, 320, 640]
    changes = [after for before, after in itertools.pairwise(sizes) if after[2] != before[2]]
    for asked, (at, unit, _) in zip((began, back), changes, strict=True):
        assert unit.keyframe
        assert at - asked < 0.5 + late_s
    steps = [after[1].pts_us - before[1].pts_us for before, after in itertools.pairwise(sizes) if after[2] == 320]
    assert 55_000 < sorted(steps)[len(steps) // 2] < 78_000, "15 a second"


def takes_a_picture_when_it_is_stopped(camera: Camera, late_s: float = 0.0) -> None:
    """Of the full size, however small it ran."""
    frames = Frames()
    camera.start(MODE, frames)
    frames.wait(1, 5.0 + late_s)
    camera.stop()
    jpeg = camera.snapshot(2.0 + late_s)
    assert Image.open(io.BytesIO(jpeg)).size == (VideoMode().width, VideoMode().height)


def comes_back_after_its_process_was_killed(camera: Camera, faults: Faults, late_s: float = 0.0) -> None:
    """``faults``: a sink that the board has already."""
    frames = Frames()
    camera.start(MODE, frames)
    frames.wait(3, 5.0 + late_s)
    pid = getattr(camera, "pid", None)
    assert pid in {child.pid for child in psutil.Process().children()}
    os.kill(pid, signal.SIGKILL)
    fault = faults.wait(Kind.CAMERA, FaultKind.FAILED, active=True, seconds=2.0 + late_s)
    assert "died" in fault.detail
    count = len(frames.frames)
    frames.wait(count + 3, seconds=8.0 + late_s)
    assert frames.frames[count][1].keyframe
    faults.wait(Kind.CAMERA, FaultKind.FAILED, active=False, seconds=1.0 + late_s)
    camera.stop()


def is_not_held_up_by_a_process_that_hangs(camera: Camera, late_s: float = 0.0) -> None:
    frames = Frames()
    camera.start(MODE, frames)
    frames.wait(1, 5.0 + late_s)
    pid = getattr(camera, "pid", None)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    camera.stop()
    assert time.monotonic() - began < 0.5 + late_s
    assert until(lambda: not psutil.pid_exists(pid), 2.0 + late_s)
    assert camera.snapshot(30.0 + late_s)  # of a new one; the faults of tests before have made the pause long


def gives_small_pictures_of_what_is_sent(camera: Camera, late_s: float = 0.0) -> tuple[Frames, Pictures]:
    """While they are wanted and it runs, as large as it is asked and seldom enough, after the frames that they are of.
    The board's own test knows what is in them."""
    frames = Frames()
    pictures = Pictures(frames)
    with pytest.raises(ValueError, match="64 pixels at least"):
        camera.preview(pictures, 32)
    _in_time(lambda: camera.preview(pictures), late_s)
    camera.start(MODE, frames)
    frames.wait(1, 5.0 + late_s)
    small = pictures.more(20, 5.0 + late_s)
    assert {(one.width, one.height) for one in small} == {(320, 180)}
    assert {len(one.i420) for one in small} == {320 * 180 * 3 // 2}
    count, taken = len(pictures.seen), [unit.pts_us for _, unit in frames.frames]
    assert count <= (taken[-1] - taken[0]) / 1e6 * 15 + 4, "in this time"
    _in_time(lambda: camera.preview(None), late_s)
    ended = len(pictures.seen)
    frames.wait(len(frames.frames) + 10)
    assert len(pictures.seen) == ended, "nobody looks any more"
    other = Pictures(frames)
    camera.preview(other, 1000)
    assert {(one.width, one.height) for one in other.more(3)} == {(MODE.width, MODE.height)}, "none is larger than sent"
    camera.set_mode(VideoMode(320, 180, 15, 150_000))
    assert until(lambda: (other.seen[-1][1].width, other.seen[-1][1].height) == (320, 180), 2.0 + late_s)
    camera.stop()
    count = len(other.seen)
    camera.snapshot(2.0 + late_s)
    assert len(other.seen) == count, "it does not run"
    camera.start(MODE, frames)
    other.more(2, 5.0 + late_s)
    camera.preview(None)
    camera.stop()
    assert len(pictures.seen) == ended
    return frames, pictures


def shows_small_pictures_again_after_its_process_hung(camera: Camera, late_s: float = 0.0) -> None:
    frames = Frames()
    pictures = Pictures(frames)
    camera.preview(pictures)
    camera.start(MODE, frames)
    pictures.more(2, 5.0 + late_s)
    pid = getattr(camera, "pid", None)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    _in_time(lambda: camera.preview(None), late_s)
    count = len(pictures.seen)
    _in_time(lambda: camera.preview(pictures), late_s)
    assert until(lambda: not psutil.pid_exists(pid), 6.0 + late_s)
    pictures.more(2, 8.0 + late_s)
    assert len(pictures.seen) >= count + 2
    camera.preview(None)
    camera.stop()


def _in_time(call: Callable[[], object], late_s: float) -> None:
    began = time.monotonic()
    call()
    assert time.monotonic() - began < 0.2 + late_s


def stops_from_within_its_sink(camera: Camera, late_s: float = 0.0) -> None:
    stopped, count = threading.Event(), 0

    def sink(_: EncodedFrame) -> None:
        nonlocal count
        count += 1
        camera.stop()
        stopped.set()

    camera.start(MODE, sink)
    assert stopped.wait(5.0 + late_s)
    assert camera.snapshot(2.0 + late_s)  # the pipe was read beyond
    assert count == 1
