"""H.264 by its descriptions: levels, parameter sets, packets without fragments."""

from __future__ import annotations

import av
import pytest

from appliance.media.h264 import (
    LARGEST_UNIT,
    SLICE_BYTES,
    PictureLimit,
    has_parameter_sets,
    level_of,
    limit_of,
    parameter_sets_of,
    single_units,
    sprop_of,
    units_of,
)
from appliance.media.ladder import Constraints, Ladder, within
from hw.api import VideoMode
from hw.camera.x264 import H264Encoder
from hw.sim.pattern import PatternPainter

SPS, PPS, IDR, SLICE = b"\x67\x42\xe0\x1f\x01", b"\x68\xce\x38\x80", b"\x65\x88" + b"\x11" * 40, b"\x41\x9a\x22"
KEY = b"".join(b"\0\0\0\1" + unit for unit in (SPS, PPS)) + b"\0\0\1" + IDR


def test_units_whatever_their_start_codes_are() -> None:
    assert list(units_of(KEY)) == [SPS, PPS, IDR]
    assert list(units_of(b"")) == list(units_of(b"\x01\x02")) == []
    assert single_units(KEY) == [SPS, PPS, IDR]
    assert single_units(KEY + b"\0\0\1\x65" + b"\x01" * LARGEST_UNIT) == [], "not half a picture"


def test_parameter_sets_go_through_a_description() -> None:
    text = sprop_of(KEY)
    assert text == "Z0LgHwE=,aM44gA=="
    assert list(units_of(parameter_sets_of(text))) == [SPS, PPS]
    assert list(units_of(parameter_sets_of("Z0LgHwE,aM44gA"))) == [SPS, PPS], "without padding"
    assert has_parameter_sets(KEY)
    assert not has_parameter_sets(b"\0\0\1" + IDR)
    assert sprop_of(b"\0\0\1" + IDR) == ""


@pytest.mark.parametrize("text", ["", "!!", "QQ==", "Z0LgHwE=,*", "A" * 5000, "é"])
def test_parameter_sets_that_are_none(text: str) -> None:
    assert parameter_sets_of(text) == b""


@pytest.mark.parametrize(("parameters", "bandwidth", "limit"), [
    ({"profile-level-id": "42e01f"}, 0, PictureLimit(3600, 108_000, 14_000_000)),
    ({"profile-level-id": "42E01F"}, 500_000, PictureLimit(3600, 108_000, 500_000)),
    ({"profile-level-id": "42e00d", "max-fs": "1620", "max-br": "x"}, 0, PictureLimit(1620, 11_880, 768_000)),
    ({"profile-level-id": "42f00b"}, 0, PictureLimit(99, 1485, 128_000)),
    ({"profile-level-id": "42e00b"}, 0, PictureLimit(396, 3000, 192_000)),
    ({}, 0, PictureLimit()), ({"profile-level-id": "42e0"}, 64_000, PictureLimit(bits_per_second=64_000)),
    ({"profile-level-id": "42e063"}, 0, PictureLimit())])
def test_what_a_peer_takes(parameters: dict[str, str], bandwidth: int, limit: PictureLimit) -> None:
    assert limit_of(parameters, bandwidth) == limit


def test_levels_of_our_own() -> None:
    assert [level_of(VideoMode(*size)) for size in ((640, 360, 30), (1280, 720, 30), (1920, 1080, 30), (1920, 1080, 60))
            ] == [31, 31, 40, 42]


@pytest.mark.parametrize(("limit", "best"), [
    (PictureLimit(), (1280, 720, 30, 1_500_000)), (PictureLimit(3600, 108_000, 14_000_000), (1280, 720, 30, 1_500_000)),
    (PictureLimit(396, 11_880, 768_000), (320, 180, 30, 768_000)),
    (PictureLimit(1620, 40_500, 0), (854, 480, 25, 1_500_000)),
    (PictureLimit(99, 1485, 64_000), (320, 180, 6, 64_000))])
def test_the_camera_keeps_within_what_a_peer_takes(limit: PictureLimit, best: tuple[int, int, int, int]) -> None:
    ladder = Ladder(VideoMode(), within(VideoMode(), Constraints(), limit))
    top = ladder.top
    assert (top.width, top.height, top.fps, top.bitrate) == best


def test_what_was_asked_for_stays_where_it_is_less() -> None:
    asked = Constraints(send_height=180, send_fps=10, send_bitrate=60_000)
    assert within(VideoMode(), asked, PictureLimit(396, 11_880, 768_000)) == asked
    assert within(VideoMode(), asked, PictureLimit()) == asked


def test_the_encoder_keeps_to_the_size_of_packets_and_its_pictures_can_be_decoded() -> None:
    mode = VideoMode(1280, 720, 30, 1_500_000, SLICE_BYTES)
    encoder, painter = H264Encoder(mode), PatternPainter(mode.width, mode.height)
    decoder = av.CodecContext.create("h264", "r")
    decoded, slices = 0, 0
    for number in range(5):
        frame = av.VideoFrame(mode.width, mode.height, "yuv420p")
        for plane, data in zip(frame.planes, painter.paint(number, number * 33), strict=True):
            plane.update(data)
        unit = encoder.encode(frame, number * 33_000)
        assert unit is not None
        payloads = single_units(unit.data)
        slices += len(payloads)
        assert payloads, "every unit fits"
        decoded += len(decoder.decode(av.Packet(unit.data)))
    assert decoded >= 4
    assert slices > 20
