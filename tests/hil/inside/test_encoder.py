"""The board's own H.264 encoder as the camera process uses it: true pictures, steering, and software at every fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import av
import pytest
from av.video.frame import VideoFrame

from hw.api import EncodedFrame, EncoderKind, VideoMode
from hw.pi.encoder import EncoderFault, HardwareEncoder, floor, hardware_encoders
from hw.pi.encoding import BoardEncoder, probe
from hw.sim.sources import nal_units
from tests.hil.devices import Encoder

MODULES = ["hilenc"]
MODE = VideoMode(640, 360, 30, 1_000_000)
FRAME_US = 33_333

Told = list[tuple[EncoderKind, str]]


@pytest.fixture(autouse=True)
def hands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Encoder]:
    monkeypatch.setattr(BoardEncoder, "_failed", {})
    monkeypatch.setattr(BoardEncoder, "_speed", 1e6)
    encoder = Encoder()
    encoder.calm()
    yield encoder
    encoder.calm()
    for thread in threading.enumerate():
        if thread.name == "hw.encoder.close":
            thread.join(5.0)
    assert encoder["live"] == 0, "a handle is left open"


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def board(told: Told) -> Iterator[BoardEncoder]:
    encoder = BoardEncoder(MODE, lambda kind, reason: told.append((kind, reason)))
    yield encoder
    encoder.close()


def picture(shade: int, mode: VideoMode = MODE) -> VideoFrame:
    frame = VideoFrame(mode.width, mode.height, "yuv420p")
    for plane, value in zip(frame.planes, (shade, 100, 140), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def shades(units: list[EncodedFrame]) -> list[int]:
    """The grey in the middle of every picture that a decoder makes of the units."""
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))]
    middle = [frame.to_ndarray(format="yuv420p")[frame.height // 2, frame.width // 2] for frame in
              frames + decoder.decode(None)]
    return [int(one) for one in middle]


def encode(encoder: BoardEncoder | HardwareEncoder, numbers: range) -> list[EncodedFrame]:
    units = [encoder.encode(picture(60 + n % 100), n * FRAME_US) for n in numbers]
    return [unit for unit in units if unit is not None]


def test_it_is_found_by_what_it_can_do_and_proves_it(hands: Encoder) -> None:
    (path,) = hardware_encoders()
    assert path == str(hands.node)
    assert probe(path) == ""


@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (322, 182)])
def test_pictures_come_out_as_they_went_in(hands: Encoder, size: tuple[int, int]) -> None:
    mode = VideoMode(*size, 30, 1_000_000)
    encoder = HardwareEncoder(str(hands.node), mode)
    try:
        units = [encoder.encode(picture(60 + n, mode), n * FRAME_US) for n in range(10)]
    finally:
        encoder.close()
    whole = [unit for unit in units if unit is not None]
    assert [unit.pts_us for unit in whole] == [n * FRAME_US for n in range(10)]
    assert all(abs(seen - 60 - n) <= 1 for n, seen in enumerate(shades(whole)))
    assert len(shades(whole)) == 10


def test_a_key_frame_comes_on_request_with_its_headers(board: BoardEncoder) -> None:
    units = encode(board, range(4))
    board.force_keyframe()
    units += encode(board, range(4, 8))
    assert [n for n, unit in enumerate(units) if unit.keyframe] == [0, 4]
    assert {7, 8, 5} <= {kind for kind, _ in nal_units(units[4].data)}


def test_the_rate_follows_while_it_runs_and_never_below_its_floor(board: BoardEncoder) -> None:
    before = sum(len(unit.data) for unit in encode(board, range(30)))
    assert board.set_bitrate(600_000) == 600_000
    after = sum(len(unit.data) for unit in encode(board, range(30, 60)))
    assert before * 8 == pytest.approx(1_000_000, rel=0.05)
    assert after * 8 == pytest.approx(600_000, rel=0.05)
    assert board.set_bitrate(1000) == floor(MODE)


def test_what_it_holds_comes_out_when_it_is_drained(hands: Encoder) -> None:
    encoder = HardwareEncoder(str(hands.node), MODE)
    try:
        assert encoder.encode(picture(90), 0) is not None
        assert encoder.drain() == []  # each picture is waited for: none is held back
    finally:
        encoder.close()


# --- faults: the next picture comes from software, decodable from a key frame on, and the reason is told --------------


@pytest.mark.parametrize(("fault", "value", "reason"), [
    ("error_next", 1, "failed at a picture"),
    ("stall", 1, "gave nothing for 0.5 s"),
    ("delay_once_ms", 900, "gave nothing for 0.5 s"),
    ("unplug", 1, "is gone"),
])
def test_a_fault_while_it_runs_costs_no_picture(
    hands: Encoder, board: BoardEncoder, told: Told, fault: str, value: int, reason: str,
) -> None:
    assert len(encode(board, range(5))) == 5
    hands[fault] = value
    begun = time.monotonic()
    unit = board.encode(picture(77), 5 * FRAME_US)
    assert time.monotonic() - begun < 2.0
    assert unit is not None
    assert unit.keyframe
    assert shades([unit]) == [pytest.approx(77, abs=2)]
    assert [kind for kind, _ in told] == [EncoderKind.HARDWARE, EncoderKind.SOFTWARE]
    assert reason in told[-1][1]
    assert len(encode(board, range(6, 20))) == 14
    hands.calm()


@pytest.mark.parametrize(("fault", "value", "reason"), [
    ("max_bufs", 1, ""),
    ("fail_streamon", 1, "has no memory"),
    ("max_ctx", 0, "is held by"),
])
def test_one_that_cannot_be_opened_is_replaced_at_once(hands: Encoder, told: Told, fault: str, value: int,
                                                      reason: str) -> None:
    path = str(hands.node)
    hands[fault] = value
    encoder = BoardEncoder(MODE, lambda kind, why: told.append((kind, why)), paths=lambda: [path])
    try:
        assert [kind for kind, _ in told] == [EncoderKind.SOFTWARE]
        assert path in told[0][1]
        assert reason in told[0][1]
        units = encode(encoder, range(3))
        assert units[0].keyframe
    finally:
        encoder.close()


def test_damaged_pictures_are_sent_on_and_end_at_the_next_key_frame(hands: Encoder, board: BoardEncoder) -> None:
    units = encode(board, range(5))
    hands["corrupt_next"] = 1
    try:
        board.encode(picture(70), 5 * FRAME_US)
    finally:
        board.force_keyframe()
    clean = encode(board, range(6, 9))
    assert clean[0].keyframe
    assert len(shades(clean)) == 3
    assert len(units) == 5


def test_it_is_used_again_when_it_is_well_and_not_before_the_pause_is_over(hands: Encoder, told: Told) -> None:
    clock = [100.0]
    path = str(hands.node)

    def tell(kind: EncoderKind, reason: str) -> None:
        told.append((kind, reason))

    first = BoardEncoder(MODE, tell, now=lambda: clock[0], paths=lambda: [path])
    hands["error_next"] = 1
    encode(first, range(1))
    assert first.kind is EncoderKind.SOFTWARE
    assert not first.due()
    clock[0] += 11
    assert first.due()
    first.close()
    again = BoardEncoder(MODE, tell, now=lambda: clock[0], paths=lambda: [path])
    assert again.kind is EncoderKind.HARDWARE
    again.close()


def test_a_node_that_is_gone_says_so() -> None:
    with pytest.raises(EncoderFault, match="is gone"):
        HardwareEncoder("/dev/video77", MODE)
