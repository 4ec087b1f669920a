"""A camera's own H.264 without a camera: what of it is passed on, what is refused, and how its unit is found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.api import VideoMode
from hw.camera.x264 import H264Encoder
from hw.pi.camera.own import DAMAGED, KEY_S, OwnStream, OwnStreamError
from hw.pi.camera.steer import H264_UNIT, extension_unit
from hw.sim.sources import nal_units

MODE = VideoMode(320, 180, 30, 400_000)
START = b"\0\0\0\1"
DELIMITER, FILLER = START + b"\x09\xf0", START + b"\x0c" + b"\xff" * 2000 + b"\x80"


def made(count: int, keys: tuple[int, ...] = (0,)) -> list[bytes]:
    encoder = H264Encoder(MODE)
    units = []
    for n in range(count):
        picture = VideoFrame(MODE.width, MODE.height, "yuv420p")
        for plane, value in zip(picture.planes, (40 + 5 * n, 100, 200), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        if n in keys:
            encoder.force_keyframe()
        unit = encoder.encode(picture, n)
        assert unit is not None
        units.append(unit.data)
    return units


def bare(unit: bytes) -> bytes:
    """Slices alone, behind short start codes."""
    return b"".join(b"\0\0\1" + nal for kind, nal in nal_units(unit) if kind in (1, 5))


def kinds(data: bytes) -> list[int]:
    return [kind for kind, _ in nal_units(data)]


def test_it_begins_with_a_key_frame_and_asks_for_one() -> None:
    stream, units = OwnStream(400_000), made(4, (0, 2))
    assert stream.unit(units[1], 1, 0.0) == (None, True)
    frame, wanted = stream.unit(units[2], 2, 0.0)
    assert frame is not None
    assert (frame.keyframe, frame.pts_us, wanted) == (True, 2, False)
    frame, _ = stream.unit(units[3], 3, 0.0)
    assert frame is not None
    assert not frame.keyframe


def test_headers_are_repeated_and_nothing_but_slices_is_kept() -> None:
    stream, units = OwnStream(400_000), made(3, (0, 2))
    for unit in (units[0], units[1], bare(units[2])):
        frame, _ = stream.unit(DELIMITER + unit + FILLER if unit.startswith(START) else unit, 0, 0.0)
        assert frame is not None
        assert frame.data.startswith(START)
        assert set(kinds(frame.data)) == ({7, 8, 5} if frame.keyframe else {1})
        assert len(frame.data) < 2000


def test_headers_may_come_in_a_buffer_of_their_own() -> None:
    stream, units = OwnStream(400_000), made(1)
    headers = b"".join(START + nal for kind, nal in nal_units(units[0]) if kind in (7, 8))
    assert stream.unit(headers, 0, 0.0) == (None, False)
    frame, _ = stream.unit(bare(units[0]), 1, 0.0)
    assert frame is not None
    assert kinds(frame.data)[:2] == [7, 8]


def test_b_pictures_and_other_profiles_are_refused_at_once() -> None:
    stream, units = OwnStream(400_000), made(2)
    stream.unit(units[0], 0, 0.0)
    with pytest.raises(OwnStreamError, match="B picture"):
        stream.unit(START + b"\x41\x9c\0\0", 1, 0.0)
    main = bytearray(units[0])
    main[main.index(b"\x67") + 1] = 77
    with pytest.raises(OwnStreamError, match="another profile"):
        OwnStream(400_000).unit(bytes(main), 0, 0.0)


def test_a_torn_unit_is_dropped_until_a_key_frame_and_some_in_a_row_are_too_many() -> None:
    stream, units = OwnStream(400_000), made(4, (0, 3))
    stream.unit(units[0], 0, 0.0)
    assert stream.unit(b"rubbish", 1, 0.1) == (None, True)
    assert stream.unit(units[2], 2, 0.2) == (None, True), "it refers to what is lost"
    frame, _ = stream.unit(units[3], 3, 0.3)
    assert frame is not None
    with pytest.raises(OwnStreamError, match="damaged"):
        for n in range(DAMAGED):
            stream.unit(b"rubbish", 4, 0.4 + n / 10)


def test_a_camera_that_makes_no_key_frame_when_asked_is_found_out() -> None:
    stream, units = OwnStream(400_000), made(4, (0, 3))
    stream.unit(units[0], 0, 0.0)
    stream.asked(1.0)
    assert stream.awaiting
    stream.unit(units[1], 1, 1.0 + KEY_S)
    with pytest.raises(OwnStreamError, match="no key frame"):
        stream.unit(units[2], 2, 1.01 + KEY_S)
    stream.unit(units[3], 3, 1.02 + KEY_S)
    assert not stream.awaiting


def test_a_camera_that_takes_more_than_twice_the_rate_is_found_out() -> None:
    noise = VideoFrame(MODE.width, MODE.height, "yuv420p")
    for plane in noise.planes:
        plane.update(random.Random(1).randbytes(plane.buffer_size))
    unit = H264Encoder(replace(MODE, bitrate=4_000_000)).encode(noise, 0)
    assert unit is not None
    key = unit.data
    interval = len(key) * 8 / 1_000_000  # a megabit a second
    patient, strict = OwnStream(600_000), OwnStream(400_000)
    for n in range(int(6 / interval)):
        patient.unit(key, n, n * interval)
    with pytest.raises(OwnStreamError, match="are asked"):
        for n in range(int(6 / interval)):
            strict.unit(key, n, n * interval)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_rubbish_ends_in_words_or_in_nothing(parts: list[bytes]) -> None:
    stream = OwnStream(400_000)
    try:
        for n, part in enumerate(parts):
            assert stream.unit(START + part, n, n / 30)[0] is None
    except OwnStreamError as error:
        assert str(error)


UNIT = bytes((28, 0x24, 6, 12)) + H264_UNIT + bytes((4, 1, 3, 2, 3, 0x21, 0, 0))
OTHER = bytes((28, 0x24, 6, 3)) + bytes(16) + bytes((4, 1, 3, 2, 3, 0x21, 0, 0))
DEVICE = bytes((18, 1)) + bytes(16)


def test_the_extension_unit_is_found_by_its_guid() -> None:
    assert extension_unit(DEVICE + OTHER + UNIT) == 12
    assert extension_unit(DEVICE + OTHER) is None
    assert extension_unit(DEVICE + UNIT[:20]) is None
    assert extension_unit(b"") is None


@given(st.binary(max_size=80))
def test_cut_descriptors_break_nothing(data: bytes) -> None:
    assert extension_unit(data) in (None, *range(256))
