"""Our encoder on a stateful encoder of the kernel: steered, judged, and left for software when it fails."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import av
import pytest
from av.video.frame import VideoFrame

from hw.api import EncodedFrame, EncoderKind, FaultKind, VideoMode
from hw.pi.encoder.ladder import CameraEncoder
from hw.pi.encoder.m2m import M2mEncoder
from hw.pi.encoder.probe import encoder_nodes, find_encoder, plugged_encoders, prove
from hw.pi.encoder.session import EncoderError, floor_of
from hw.sim.sources import nal_units
from tests.hil.devices import Encoder
from tests.hil.machine import Machine

MODULES = ["hilenc"]

MODE = VideoMode(640, 360, 30, 1_000_000)
FALL_BACK_S = 2.0
SLOW_S = 20.0
"""A machine that starves the guest may take so long; of it no more than ``FALL_BACK_S`` may be waiting."""


@pytest.fixture
def device() -> Iterator[Encoder]:
    encoder = Encoder()
    encoder.calm()
    yield encoder
    encoder.calm()
    deadline = time.monotonic() + 3.0
    while encoder["live"]:  # a hung session ends with the fault
        assert time.monotonic() < deadline, "a session was left open"
        time.sleep(0.02)


class Told:
    def __init__(self) -> None:
        self.now: tuple[EncoderKind, str] = (EncoderKind.RECORDED, "")
        self.fault: FaultKind | None = None

    def __call__(self, kind: EncoderKind, reason: str, fault: FaultKind) -> None:
        self.now, self.fault = (kind, reason), fault


def picture(mode: VideoMode, luma: int = 100) -> VideoFrame:
    frame = VideoFrame(mode.width, mode.height, "yuv420p")
    for plane, value in zip(frame.planes, (luma, 90, 160), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


class Stream:
    """Pictures at 30 a second in, as a camera process does it."""

    def __init__(self, encoder: CameraEncoder) -> None:
        self.encoder = encoder
        self.units: list[EncodedFrame] = []
        self.given: list[int] = []  # times of the pictures
        self._number = 0

    def step(self) -> list[EncodedFrame]:
        """One picture, and what came out before the next."""
        self._number += 1
        due = time.monotonic() + 1 / self.encoder.mode.fps
        self.given.append(time.monotonic_ns() // 1000)
        self.encoder.encode(picture(self.encoder.mode, 40 + self._number % 150), self.given[-1])
        units: list[EncodedFrame] = []
        while (left := due - time.monotonic()) > 0:
            poll = select.poll()
            for file, events in self.encoder.files():
                poll.register(file, events)
            poll.poll(left * 1000)
            units += self.encoder.collect()
        units += self.encoder.collect()  # also where the picture took all of its time
        self.encoder.recover()
        self.units += units
        return units

    def run(self, count: int) -> list[EncodedFrame]:
        return [unit for _ in range(count) for unit in self.step()]


def decoded(units: list[EncodedFrame]) -> list[VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    pictures = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))]
    return [*pictures, *decoder.decode(None)]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def encoder(device: Encoder, told: Told) -> Iterator[CameraEncoder]:
    opened = CameraEncoder(told)
    yield opened
    opened.close()


def test_it_is_found_and_proven(device: Encoder) -> None:
    assert encoder_nodes() == [str(device.node)]
    before = device["frames"]
    assert find_encoder().path == str(device.node)
    assert device["frames"] > before


def test_pictures_are_constrained_baseline_with_headers_at_every_key(encoder: CameraEncoder, told: Told) -> None:
    assert encoder.open(MODE) == MODE
    assert told.now == (EncoderKind.HARDWARE, "")
    stream = Stream(encoder)
    stream.run(10)
    encoder.force_keyframe()
    units = [*stream.units, *stream.run(10)]
    assert [unit.keyframe for unit in units[:10]] == [True, *[False] * 9]
    assert sum(unit.keyframe for unit in units[10:]) == 1
    assert units[10].keyframe or units[11].keyframe
    for unit in units:
        kinds = [kind for kind, _ in nal_units(unit.data)]
        assert ({7, 8, 5} <= set(kinds)) == unit.keyframe
    parameters = next(nal for kind, nal in nal_units(units[0].data) if kind == 7)
    assert (parameters[1], parameters[2] & 0x40) == (66, 0x40)
    assert [unit.pts_us for unit in units] == sorted({unit.pts_us for unit in units})
    shown = decoded(units)
    assert len(shown) == len(units) >= 19
    lumas = [memoryview(frame.planes[0])[640 * 100 + 300] for frame in shown[:9]]
    assert lumas == [41 + n for n in range(9)]


def test_bit_rate_is_changed_while_it_runs(encoder: CameraEncoder) -> None:
    encoder.open(MODE)
    stream = Stream(encoder)
    stream.run(5)
    high = sum(len(unit.data) for unit in stream.run(15))
    encoder.set_bitrate(300_000)
    stream.run(3)
    low = sum(len(unit.data) for unit in stream.run(15))
    assert 0.15 < low / high < 0.45


def test_bit_rate_is_never_below_what_it_survives(device: Encoder) -> None:
    session = M2mEncoder(str(device.node), MODE)
    try:
        assert session.set_bitrate(1) == floor_of(MODE) > 0
        assert session.set_bitrate(400_000) == 400_000
    finally:
        session.close()


def test_another_size_begins_with_a_key_frame_and_nothing_inside_is_lost(encoder: CameraEncoder) -> None:
    encoder.open(MODE)
    stream = Stream(encoder)
    stream.run(5)
    encoder.encode(picture(MODE), time.monotonic_ns() // 1000)
    smaller = VideoMode(320, 180, 30, 300_000)
    assert encoder.open(smaller) == smaller
    stream.run(5)
    sizes = [frame.width for frame in decoded([*stream.units])]
    assert sizes[5] == 640
    assert sizes[6:] == [320] * (len(sizes) - 6)
    assert len(sizes) >= 10


@pytest.mark.parametrize("count", [1, 2])
def test_a_lost_picture_is_made_good_by_a_key_frame(device: Encoder, encoder: CameraEncoder, told: Told, count: int,
                                                    ) -> None:
    encoder.open(MODE)
    stream = Stream(encoder)
    stream.run(5)
    device["error_next"] = count
    stream.run(8)
    times = [unit.pts_us for unit in stream.units]
    lost = [pts_us for pts_us in stream.given if pts_us not in times and pts_us < times[-1]]
    assert next(unit for unit in stream.units if unit.pts_us > lost[-1]).keyframe
    assert told.now == (EncoderKind.HARDWARE, "")


def test_one_late_picture_is_waited_for(device: Encoder, encoder: CameraEncoder, told: Told) -> None:
    encoder.open(MODE)
    stream = Stream(encoder)
    stream.run(5)
    device["delay_once_ms"] = 300
    stream.run(25)
    assert told.now == (EncoderKind.HARDWARE, "")
    assert len(decoded(stream.units)) == len(stream.units) >= 20


@pytest.mark.parametrize(("fault", "value", "words", "told_as"), [
    ("error_next", 1000, "damaged", FaultKind.FAILED),
    ("corrupt_next", 1000, "damaged", FaultKind.FAILED),
    ("stall", 1, "not answered", FaultKind.STALLED),
    ("encode_us", 120_000, "for each picture", FaultKind.FAILED),
    ("unplug", 1, "not there", FaultKind.PULLED),
])  # fmt: skip
def test_what_fails_is_left_for_software(device: Encoder, encoder: CameraEncoder, told: Told, machine: Machine,
                                         fault: str, value: int, words: str, told_as: FaultKind) -> None:
    device["fill"] = 0  # or what is damaged may be filler alone
    encoder.open(MODE)
    stream = Stream(encoder)
    stream.run(10)
    watch = machine.stopwatch()
    device[fault] = value
    encoder.force_keyframe()
    while encoder.kind is EncoderKind.HARDWARE:
        stream.step()
        assert time.monotonic() - watch.begin < SLOW_S, "it did not fall back"
    watch.within(FALL_BACK_S, f"{fault}: software")
    before = max(n for n, unit in enumerate(stream.units) if unit.keyframe)  # where software began, at once
    kind, reason = told.now
    assert (kind, told.fault) == (EncoderKind.SOFTWARE, told_as)
    assert words in reason
    stream.run(3)
    assert len(decoded(stream.units[before:])) == len(stream.units) - before
    times = [unit.pts_us for unit in stream.units]
    assert times == sorted(set(times))
    missing = [pts_us for pts_us in stream.given[:-3] if pts_us not in times]
    if fault == "stall":  # what found no room was never inside; what was inside is in software's hands
        assert stream.units[before].pts_us < min(missing)
        assert stream.given.index(stream.units[before].pts_us) == before
    elif fault != "encode_us":
        assert not missing


@pytest.mark.parametrize(("fault", "value", "words", "told_as"), [
    ("fail_streamon", 1, "memory", FaultKind.FAILED), ("max_bufs", 0, "memory", FaultKind.FAILED),
    ("max_ctx", 0, "held by", FaultKind.BUSY),
])  # fmt: skip
def test_what_refuses_to_begin_is_left_for_software(device: Encoder, encoder: CameraEncoder, told: Told, fault: str,
                                                    value: int, words: str, told_as: FaultKind) -> None:
    device[fault] = value
    encoder.open(MODE)
    assert (told.now[0], told.fault) == (EncoderKind.SOFTWARE, told_as)
    assert words in told.now[1]
    assert Stream(encoder).run(3)[0].keyframe


@pytest.fixture
def slow_board(device: Encoder) -> Iterator[Callable[[Told, Callable[[], float]], CameraEncoder]]:
    """Makes encoders of a board whose software does 320x180, by a clock of the test's own."""
    made: list[CameraEncoder] = []

    def make(told: Told, clock: Callable[[], float]) -> CameraEncoder:
        made.append(CameraEncoder(told, clock=clock, speed=lambda: 5e6, nodes=frozenset))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_it_is_taken_back_between_two_pictures_when_it_has_recovered(
    device: Encoder, told: Told, slow_board: Callable[[Told, Callable[[], float]], CameraEncoder],
) -> None:  # fmt: skip
    now = [time.monotonic()]
    encoder = slow_board(told, lambda: now[0])
    encoder.open(MODE)
    stream = Stream(encoder)
    now[0] = time.monotonic()
    stream.run(3)
    device["unplug"] = 1
    stream.run(6)
    assert told.now[0] is EncoderKind.SOFTWARE
    assert encoder.mode.width < MODE.width
    device["unplug"] = 0
    now[0] += 9.0
    stream.run(5)
    assert told.now[0] is EncoderKind.SOFTWARE, "not before its time"
    now[0] += 2.0
    begun = time.monotonic()
    while encoder.kind is EncoderKind.SOFTWARE:
        stream.step()
        assert time.monotonic() - begun < 5.0, "it was not taken back"
    now[0] = time.monotonic()  # or a picture that is not coded at once has been in there for ten seconds
    stream.run(5)
    assert told.now == (EncoderKind.HARDWARE, "")
    assert encoder.mode == MODE
    times = [unit.pts_us for unit in stream.units]
    assert times == sorted(set(times))
    assert [pts_us for pts_us in stream.given[:-1] if pts_us not in times] == []
    shown = decoded(stream.units)
    assert len(shown) == len(stream.units)
    assert {one.width for one in shown} == {640, 320}
    assert (shown[0].width, shown[-1].width) == (640, 640)


def test_one_that_is_plugged_in_again_waits_for_no_pause(device: Encoder, encoder: CameraEncoder, told: Told) -> None:
    encoder.open(MODE)
    stream = Stream(encoder)
    for _ in range(3):
        stream.run(5)
        device["unplug"] = 1
        while encoder.kind is EncoderKind.HARDWARE:
            stream.step()
        device["unplug"] = 0
        begun = time.monotonic()
        while encoder.kind is EncoderKind.SOFTWARE:
            stream.step()
            assert time.monotonic() - begun < 5.0, "it was not taken back"
        assert told.now == (EncoderKind.HARDWARE, "")
    stream.run(5)
    assert len(decoded(stream.units)) == len(stream.units)


def test_one_that_went_and_returned_between_two_looks_is_another(device: Encoder) -> None:
    before = plugged_encoders()
    device["unplug"] = 1
    device["unplug"] = 0
    begun = time.monotonic()
    while not (now := plugged_encoders()):
        assert time.monotonic() - begun < 5.0, "it did not return"
    assert [path for path, _ in now] == [path for path, _ in before]
    assert now != before


def test_what_makes_no_picture_is_not_believed(device: Encoder) -> None:
    device["stall"] = 1
    found = find_encoder()  # gives up by itself: this driver is silent, it does not hang
    assert found.path == ""
    assert "encoder" in found.reason
    device["stall"] = 0
    with pytest.raises(EncoderError, match="not there"):
        prove("/dev/video99")


def test_a_size_that_it_does_not_make_is_told_as_that(device: Encoder) -> None:
    with pytest.raises(EncoderError, match="does not do 8192x8192 of format") as caught:
        M2mEncoder(str(device.node), VideoMode(8192, 8192))
    assert caught.value.fault is FaultKind.FORMAT


def test_one_that_may_not_be_opened_is_told_with_what_to_do(device: Encoder) -> None:
    """Without the capabilities by which to root nothing is forbidden."""
    mode = device.node.stat().st_mode
    device.node.chmod(0)
    try:
        done = subprocess.run(
            ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-c",
             "from hw.pi.encoder.probe import find_encoder\n"
             "found = find_encoder()\n"
             "print(found.fault.value, found.reason)\n"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    finally:
        device.node.chmod(mode & 0o777)
    assert done.stdout.startswith("denied "), done.stdout
    assert "add the user to the group video" in done.stdout


def test_a_board_without_one_has_software_and_nothing_is_wrong(device: Encoder, told: Told) -> None:
    device["unplug"] = 1
    encoder = CameraEncoder(told)
    assert told.now == (EncoderKind.SOFTWARE, "")
    encoder.open(MODE)
    assert Stream(encoder).run(3)[0].keyframe
    encoder.close()
