"""The test picture says its counter and clock, also after scaling and H.264."""

from __future__ import annotations

import av
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.api import VideoMode
from hw.camera.x264 import H264Encoder
from hw.sim.pattern import Mark, PatternPainter, read

SMALL = PatternPainter(320, 180)


def _frame(width: int, height: int, planes: tuple[bytes, bytes, bytes]) -> VideoFrame:
    frame = VideoFrame(width, height, "yuv420p")
    for plane, data in zip(frame.planes, planes, strict=True):
        step = len(data) // plane.height
        pad = bytes(plane.line_size - step)
        plane.update(b"".join(data[y * step : (y + 1) * step] + pad for y in range(plane.height)))
    return frame


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**24 - 1), st.integers(0, 2**32 - 1))
def test_counter_and_clock_are_read_back(counter: int, clock_ms: int) -> None:
    luma, _, _ = SMALL.paint(counter, clock_ms * 1000 + 999)
    assert read(luma, 320, 180) == Mark(counter, clock_ms)


def test_counters_wrap_at_their_width() -> None:
    luma, _, _ = SMALL.paint(2**24 + 5, (2**32 + 7) * 1000)
    assert read(luma, 320, 180) == Mark(5, 7)


@pytest.mark.parametrize("size", [(160, 90), (240, 180), (640, 360), (1280, 720)])
def test_every_size_carries_the_band(size: tuple[int, int]) -> None:
    planes = PatternPainter(*size).paint(4711, 123_456_789)
    assert [len(plane) for plane in planes] == [size[0] * size[1], size[0] * size[1] // 4, size[0] * size[1] // 4]
    assert read(planes[0], *size) == Mark(4711, 123_456)


def test_band_survives_h264_at_a_starving_bitrate_and_scaling_down() -> None:
    mode = VideoMode(1280, 720, 30, 300_000)
    encoder, painter = H264Encoder(mode), PatternPainter(1280, 720)
    decoder = av.CodecContext.create("h264", "r")
    seen = []
    for number in range(8):
        unit = encoder.encode(_frame(1280, 720, painter.paint(number, number * 33_000)), number * 33_000)
        assert unit is not None
        for frame in decoder.decode(av.Packet(unit.data)):
            small = frame.reformat(width=160, height=90)
            plane = small.planes[0]
            seen.append(read(bytes(plane), 160, 90, plane.line_size))
    seen += [read(bytes(f.planes[0]), 1280, 720, f.planes[0].line_size) for f in decoder.decode(None)]
    assert seen == [Mark(number, number * 33) for number in range(8)]


def test_no_band_no_mark() -> None:
    assert read(bytes(320 * 180), 320, 180) is None
    assert read(b"\xeb" * (320 * 180), 320, 180) is None
    assert read(b"", 10, 10) is None


def test_a_damaged_band_is_refused() -> None:
    luma = bytearray(SMALL.paint(77, 1_000_000)[0])
    for y in range(11 * 2, 11 * 3):  # one row of cells turned over, references included or not
        for x in range(32, 64):
            luma[y * 320 + x] = 251 - luma[y * 320 + x]
    assert read(luma, 320, 180) is None


def test_the_picture_moves() -> None:
    first, second = SMALL.paint(1, 0)[1], SMALL.paint(1, 1_000_000)[1]
    assert first != second


@pytest.mark.parametrize("size", [(1281, 720), (100, 50)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even and at least 160x90"):
        PatternPainter(*size)
