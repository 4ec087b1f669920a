"""The encoder of real boards, without a kernel device: what software can do, and what is believed of a unit."""

from __future__ import annotations

import mmap
import threading
import time

import av
import pytest
from av.video.frame import VideoFrame
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hw.api import EncodedFrame, EncoderKind, FaultKind, VideoMode
from hw.camera.x264 import H264Encoder
from hw.pi.encoder.ladder import CameraEncoder, affordable, measure
from hw.pi.encoder.m2m import fill_planes
from hw.pi.encoder.probe import Found
from hw.pi.encoder.session import floor_of
from hw.pi.encoder.units import OTHER_PROFILE, fault_of_unit
from hw.pi.v4l2 import Format

HD = VideoMode(1280, 720, 30, 1_500_000)


def grey(mode: VideoMode, luma: int = 90) -> VideoFrame:
    frame = VideoFrame(mode.width, mode.height, "yuv420p")
    for plane, value in zip(frame.planes, (luma, 100, 200), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def units(count: int) -> list[EncodedFrame]:
    mode = VideoMode(320, 180, 30, 400_000)
    encoder = H264Encoder(mode)
    made = [encoder.encode(grey(mode, 40 + 20 * n), n * 33_333) for n in range(count)]
    return [unit for unit in made if unit is not None]


@pytest.mark.parametrize(("speed", "expected"), [
    (80e6, (1280, 720, 30)),  # a Pi 5
    (25e6, (854, 480, 30)),
    (12e6, (640, 360, 30)),
    (2e6, (320, 180, 20)),
    (0.0, (320, 180, 10)),
])  # fmt: skip
def test_software_makes_the_largest_picture_that_the_processor_keeps_up_with(
    speed: float, expected: tuple[int, int, int]
) -> None:
    mode = affordable(HD, speed)
    assert (mode.width, mode.height, mode.fps) == expected
    assert mode.bitrate == HD.bitrate


@settings(max_examples=200)
@example(1, 360, 5, 0.0)
@given(st.integers(1, 960), st.integers(90, 1200), st.integers(5, 60), st.floats(0, 2e8))
def test_software_never_makes_more_than_is_asked(half_width: int, height: int, fps: int, speed: float) -> None:
    asked = VideoMode(half_width * 2, height // 2 * 2, fps, 1_000_000)
    mode = affordable(asked, speed)
    assert 2 <= mode.width <= asked.width
    assert mode.height <= asked.height
    assert 5 <= mode.fps <= asked.fps


def test_speed_is_measured() -> None:
    assert 1e5 < measure() < 1e10


def test_a_board_without_hardware_encodes_in_software() -> None:
    told: list[tuple[EncoderKind, str, FaultKind]] = []
    encoder = CameraEncoder(lambda *words: told.append(words), find=Found, speed=lambda: 12e6)
    assert [words[:2] for words in told] == [(EncoderKind.SOFTWARE, "")]
    mode = encoder.open(HD)
    assert (mode.width, mode.height) == (640, 360)
    encoder.encode(grey(HD), 1)  # of the size before: made smaller, and not lost
    encoder.encode(grey(mode), 2)
    first, second = encoder.collect()
    assert (first.keyframe, first.pts_us) == (True, 1)
    assert (second.keyframe, second.pts_us) == (False, 2)
    shown, = av.CodecContext.create("h264", "r").decode(av.Packet(first.data)) or [None]
    assert shown is None or (shown.width, shown.height) == (640, 360)
    encoder.encode(grey(mode), 3)
    encoder.force_keyframe()
    encoder.encode(grey(mode), 4)
    assert [unit.keyframe for unit in encoder.collect()] == [False, True]
    assert (encoder.files(), encoder.wait_s()) == ((), None)
    encoder.close()


def test_hardware_that_the_board_should_have_is_missed_from_the_start_and_taken_when_it_comes() -> None:
    told: list[tuple[EncoderKind, str, FaultKind]] = []
    now, nodes, found = [0.0], [frozenset[str]()], [Found()]
    encoder = CameraEncoder(lambda *words: told.append(words), expected=True, find=lambda: found[0],
                            nodes=lambda: nodes[0], speed=lambda: 1e9, clock=lambda: now[0])
    (kind, reason, fault), = told
    assert (kind, fault) == (EncoderKind.SOFTWARE, FaultKind.MISSING)
    assert "is not there: look for its driver" in reason
    mode = encoder.open(VideoMode(320, 180))
    encoder.encode(grey(mode), 1)
    assert len(encoder.collect()) == 1
    encoder.close()
    found[0], nodes[0], now[0] = Found("/dev/video11"), frozenset({"/dev/video11"}), 2.0
    encoder.recover()
    while encoder.proving:
        encoder.recover()
    assert [words[:2] for words in told[1:]] == [(EncoderKind.HARDWARE, "")]


@pytest.mark.parametrize("found", [Found("/dev/video11"), Found("", "it is held by x (7)", FaultKind.BUSY)])
def test_hardware_that_is_there_is_not_missed(found: Found) -> None:
    told: list[tuple[EncoderKind, str, FaultKind]] = []
    CameraEncoder(lambda *words: told.append(words), expected=True, find=lambda: found, speed=lambda: 1e9)
    assert [words[1:] for words in told] == [(found.reason, found.fault)]


def test_a_node_that_is_gone_at_the_opening_is_left_for_software() -> None:
    told: list[tuple[EncoderKind, str, FaultKind]] = []
    encoder = CameraEncoder(lambda *words: told.append(words), find=lambda: Found("/dev/not-there"), speed=lambda: 1e9)
    assert encoder.open(HD) == HD
    assert told[0][:2] == (EncoderKind.HARDWARE, "")
    assert told[1][0] is EncoderKind.SOFTWARE
    assert "/dev/not-there" in told[1][1]
    encoder.close()


class Trials:
    """Proofs on request: each is done when it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = threading.Semaphore(1)  # the one at the start is not held up

    def __call__(self) -> Found:
        self.begun += 1
        self.go.acquire()
        return Found("", "it is broken")

    def end_one(self, encoder: CameraEncoder) -> None:
        self.go.release()
        begun = time.monotonic()
        while encoder.proving:
            encoder.recover()
            assert time.monotonic() - begun < 5.0


def test_hardware_that_failed_is_proven_again_after_pauses_that_grow_and_nobody_waits() -> None:
    now, trials = [1000.0], Trials()
    encoder = CameraEncoder(lambda *_: None, find=trials, speed=lambda: 1e9, clock=lambda: now[0])
    encoder.open(VideoMode(320, 180))
    for number, pause in enumerate((10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0), 2):
        now[0] += pause - 0.1
        encoder.recover()
        assert (trials.begun, encoder.proving) == (number - 1, False)
        now[0] += 0.1
        encoder.recover()
        assert encoder.proving
        encoder.encode(grey(VideoMode(320, 180)), number)
        assert len(encoder.collect()) == 1  # while it is being proven
        now[0] += 1000.0
        encoder.recover()  # not another one beside it
        trials.end_one(encoder)
        assert trials.begun == number
    encoder.close()


def test_one_that_is_plugged_in_waits_for_no_pause() -> None:
    now, nodes, begun = [0.0], [frozenset[str]()], []

    def find() -> Found:
        begun.append(now[0])
        return Found("/dev/not-there") if len(begun) == 1 else Found("", "not ready yet")

    encoder = CameraEncoder(lambda *_: None, find=find, nodes=lambda: nodes[0], speed=lambda: 1e9, clock=lambda: now[0])
    encoder.open(HD)
    assert encoder.kind is EncoderKind.SOFTWARE

    def look(at: float, *there: str) -> bool:
        now[0], nodes[0] = at, frozenset(there)
        encoder.recover()
        return encoder.proving

    assert not look(2.0), "nothing was plugged in"
    assert not look(2.5, "/dev/video11"), "not every picture asks the system"
    assert look(3.5, "/dev/video11")
    while encoder.proving:
        encoder.recover()
    assert not look(5.0, "/dev/video11"), "it was there before"
    assert begun == [0.0, 3.5]
    encoder.close()


def test_a_board_that_never_had_one_is_not_asked_again() -> None:
    now, begun = [0.0], []

    def find() -> Found:
        begun.append(now[0])
        return Found()

    encoder = CameraEncoder(lambda *_: None, find=find, speed=lambda: 1e9, clock=lambda: now[0])
    now[0] = 1e6
    encoder.recover()
    assert begun == [0.0]
    assert not encoder.proving


def test_good_units_are_believed() -> None:
    assert [fault_of_unit(unit.data) for unit in units(4)] == [""] * 4


@pytest.mark.parametrize(("data", "words"), [
    (b"", "no access unit"),
    (b"\0\0\0\1", "no picture"),
    (b"\0\0\0\1\xff\xff", "no access unit"),
    (b"\0\0\0\1\x68\xce\x38\x80", "no picture"),
    (b"\0\0\0\1\x65\x88\x84", "without its headers"),
    (b"\0\0\0\1\x41\xa0\x00", "B picture"),
    (b"\0\0\0\1\x41\x90\x00", "unknown kind"),  # SP
])  # fmt: skip
def test_bad_units_are_told(data: bytes, words: str) -> None:
    assert words in fault_of_unit(data)


def test_another_profile_is_told() -> None:
    data = bytearray(units(1)[0].data)
    at = data.index(b"\0\0\1\x67") + 4
    data[at] = 77
    assert fault_of_unit(bytes(data)) == OTHER_PROFILE


def test_a_damaged_key_frame_is_told() -> None:
    data = bytearray(units(1)[0].data)
    at = data.index(b"\0\0\1\x65") + 12
    data[at : at + 20] = bytes(byte ^ 0x5A for byte in data[at : at + 20])
    assert fault_of_unit(bytes(data)) != ""


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64))
def test_rubbish_never_breaks_the_judge(data: bytes) -> None:
    assert isinstance(fault_of_unit(b"\0\0\0\1" + data), str)


@pytest.mark.parametrize("line", [320, 384])
@pytest.mark.parametrize("pixels", ["YU12", "NV12"])
def test_a_picture_is_laid_out_as_the_encoder_says(pixels: str, line: int) -> None:
    raw = Format(320, 180, pixels, line, line * 180 * 3 // 2)
    with mmap.mmap(-1, raw.size) as memory:
        fill_planes(memory, raw, grey(VideoMode(320, 180)))
        data = memory[:]
    assert {data[y * line + x] for y in (0, 90, 179) for x in (0, 319)} == {90}
    chroma = line * 180
    if pixels == "NV12":
        assert data[chroma : chroma + 320] == b"\x64\xc8" * 160
    else:
        assert data[chroma : chroma + 160] == b"\x64" * 160
        assert data[chroma + line * 90 // 2 :][:160] == b"\xc8" * 160


def test_the_floor_grows_with_the_size() -> None:
    assert floor_of(VideoMode(320, 180, 30)) == 50_000
    assert 100_000 < floor_of(HD) < 150_000  # where the ladder of sizes steps down anyway
