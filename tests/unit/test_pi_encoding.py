"""What a board's processor can afford to encode, and which bit rates an encoder is never taken below. No devices."""

from __future__ import annotations

import pytest
from av.video.frame import VideoFrame

from hw.api import EncoderKind, VideoMode
from hw.pi.encoder import EncoderFault, HardwareEncoder, floor, hardware_encoders
from hw.pi.encoding import SHARE, BoardEncoder, affordable, software_speed
from hw.videodev import fourcc

HD = VideoMode(1280, 720, 30, 1_500_000)


def test_a_fast_processor_keeps_what_was_asked() -> None:
    assert affordable(HD, 108_000 / SHARE) == HD


@pytest.mark.parametrize(("speed", "size"), [
    (90_000, (1280, 720, 15)),
    (60_000, (960, 540, 15)),
    (30_000, (640, 360, 15)),
    (10_000, (320, 180, 24)),
    (1, (320, 180, 15)),
])
def test_a_slower_one_loses_rate_and_then_size(speed: float, size: tuple[int, int, int]) -> None:
    mode = affordable(HD, speed)
    assert (mode.width, mode.height, mode.fps) == size
    assert mode.bitrate == HD.bitrate


def test_a_small_picture_is_never_made_larger() -> None:
    small = VideoMode(320, 180, 10, 100_000)
    assert affordable(small, 1) == small


def test_floors_grow_with_the_size() -> None:
    floors = [floor(VideoMode(16, rows, 30, 0)) for rows in (180, 240, 360, 480, 540, 720, 1080)]
    assert floors == sorted(floors)
    assert floors[0] == 50_000


def test_the_speed_of_this_machine_is_a_sensible_number() -> None:
    assert 1_000 < software_speed(pictures=3) < 100_000_000


def test_without_an_encoder_software_is_told_and_nothing_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoardEncoder, "_speed", 1e6)
    told: list[tuple[EncoderKind, str]] = []
    encoder = BoardEncoder(HD, lambda kind, reason: told.append((kind, reason)), paths=list)
    frame = encoder.encode(VideoFrame(1280, 720, "yuv420p"), 0)
    encoder.close()
    assert told == [(EncoderKind.SOFTWARE, "")]
    assert frame is not None
    assert frame.keyframe


def test_a_node_that_is_no_video_device_is_no_encoder() -> None:
    assert hardware_encoders(["/dev/null", "/dev/video-none"]) == []
    with pytest.raises(EncoderFault, match="/dev/null"):
        HardwareEncoder("/dev/null", HD)


def test_four_characters_are_the_number_of_the_header_file() -> None:
    assert fourcc("YU12") == 0x32315559
