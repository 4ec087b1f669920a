"""The test kernel's encoder: true pictures, the surface the product counts on, and each fault as its errno says."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.hil.devices import Encoder
from tests.hil.m2m import FORCE_KEY, M2MEncoder, Unit

MODULES = ["hilenc"]
NODE = Path("/dev/video11")
WIDTH, HEIGHT = 640, 368
FRAME_US = 33_333

Plane = NDArray[np.uint8]


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    hands = Encoder()
    hands.calm()
    try:
        yield hands
    finally:
        hands.calm()
    assert hands["live"] == 0, "a handle is left open"


def planes(n: int, width: int = WIDTH, height: int = HEIGHT) -> tuple[Plane, Plane, Plane]:
    """A bar that wanders, over a fine pattern that no mosaic shows."""
    luma = np.full((height, width), 60, np.uint8)
    luma[:, (n * 8) % width : (n * 8) % width + 64] = 200
    luma += (np.arange(width) % 7).astype(np.uint8)
    chroma = (height // 2, width // 2)
    return luma, np.full(chroma, 100 + n % 50, np.uint8), np.full(chroma, 140, np.uint8)


def raw(encoder: M2MEncoder, n: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """``planes`` as YUV420 with the padding the device asked for."""
    line = encoder.bytes_per_line
    return b"".join(
        np.pad(plane, ((0, 0), (0, wide - plane.shape[1]))).tobytes()
        for plane, wide in zip(planes(n, width, height), (line, line // 2, line // 2), strict=True)
    )


def mosaic(plane: Plane, block: int) -> Plane:
    """The rounded mean of each block; those at the edge are of what is there."""
    shown = np.empty_like(plane)
    for y in range(0, plane.shape[0], block):
        for x in range(0, plane.shape[1], block):
            part = plane[y : y + block, x : x + block]
            shown[y : y + block, x : x + block] = (int(part.sum()) + part.size // 2) // part.size
    return shown


def decode(units: list[Unit]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    pictures = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))]
    return pictures + decoder.decode(None)


@pytest.mark.parametrize(("width", "height"), [(640, 368), (640, 360), (1280, 720), (322, 182)])
def test_every_picture_decodes_to_the_mosaic_of_what_went_in(encoder: Encoder, width: int, height: int) -> None:
    with closing(M2MEncoder(width, height)) as m2m:
        units = [m2m.encode(raw(m2m, n, width, height), n * FRAME_US) for n in range(20)]
    pictures = decode(units)
    assert [unit.pts_us for unit in units] == [n * FRAME_US for n in range(20)]
    assert len(pictures) == 20
    for n, picture in enumerate(pictures):
        for k, plane in enumerate(planes(n, width, height)):
            seen = np.frombuffer(bytes(picture.planes[k]), np.uint8).reshape(-1, picture.planes[k].line_size)
            assert np.array_equal(seen[: plane.shape[0], : plane.shape[1]], mosaic(plane, 8 if k else 16)), (n, k)


def test_exact_pictures_are_equal_to_what_went_in(encoder: Encoder) -> None:
    encoder["pcm"] = 1
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        pictures = decode([m2m.encode(raw(m2m, n), n * FRAME_US) for n in range(3)])
    for n, picture in enumerate(pictures):
        assert np.array_equal(picture.to_ndarray(format="yuv420p")[:HEIGHT], planes(n)[0])


@pytest.mark.parametrize("pixel_format", [b"NV12", b"YUYV", b"RGB3", b"BGR3"])
def test_the_raw_formats_of_cameras_show_the_same_grey(encoder: Encoder, pixel_format: bytes) -> None:
    with closing(M2MEncoder(64, 64, pixel_format=pixel_format)) as m2m:
        picture = bytes([128]) * m2m.size
        (shown,) = decode([m2m.encode(picture, 0)])
    expected = 126 if pixel_format in (b"RGB3", b"BGR3") else 128  # limited range
    assert abs(int(shown.to_ndarray(format="yuv420p")[0, 0]) - expected) <= 1


def test_key_pictures_come_by_period_and_by_request_with_their_headers(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT, period=10)) as m2m:
        units = []
        for n in range(20):
            if n == 4:
                m2m.control(FORCE_KEY, 1)
            units.append(m2m.encode(raw(m2m, n), n * FRAME_US))
    assert [n for n, unit in enumerate(units) if unit.key] == [0, 4, 14]
    for unit in units:
        assert unit.data.startswith(b"\0\0\0\1\x67") == unit.key


def test_the_stream_says_constrained_baseline(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        data = m2m.encode(raw(m2m, 0), 0).data
    assert (data[5], data[6] & 0x40) == (66, 0x40)


def test_the_bit_rate_is_kept_to_the_byte(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT, bits_per_second=1_000_000)) as m2m:
        units = [m2m.encode(raw(m2m, n), n * FRAME_US) for n in range(30)]
    assert abs(sum(len(unit.data) for unit in units) * 8 - 1_000_000) < 1000


def test_draining_ends_with_the_last_buffer(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        m2m.put(raw(m2m, 0), 0)
        m2m.put(raw(m2m, 1), FRAME_US)
        m2m.drain()
        flags = [m2m.get().flags for _ in range(2)]
        if not flags[-1] & 0x100000:  # both were encoded before the command came: then an empty one says it
            flags.append(m2m.get().flags)
    assert flags[-1] & 0x100000


# --- faults ---------------------------------------------------------------------------------------------------------


def test_error(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        m2m.encode(raw(m2m, 0), 0)
        encoder["error_next"] = 1
        failed, next_one = m2m.encode(raw(m2m, 1), FRAME_US), m2m.encode(raw(m2m, 2), 2 * FRAME_US)
    assert (failed.failed, failed.data) == (True, b"")
    assert (next_one.failed, next_one.key) == (False, True)


def test_stall(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        encoder["stall"] = 1
        m2m.put(raw(m2m, 0), 0)
        with pytest.raises(TimeoutError):
            m2m.get(0.3)
        encoder["stall"] = 0
        assert m2m.get().data


def test_closing_a_stalled_encoder_ends(encoder: Encoder) -> None:
    m2m = M2MEncoder(WIDTH, HEIGHT)
    encoder["stall"] = 1
    m2m.put(raw(m2m, 0), 0)
    m2m.close()
    assert encoder["live"] == 0


def test_delay(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        encoder["delay_once_ms"] = 300
        started = time.monotonic()
        m2m.encode(raw(m2m, 0), 0)
        late = time.monotonic() - started
        started = time.monotonic()
        m2m.encode(raw(m2m, 1), FRAME_US)
        on_time = time.monotonic() - started
    assert late > 0.29
    assert on_time < 0.2


def test_time_of_a_picture(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        encoder["encode_us"] = 50_000
        started = time.monotonic()
        for n in range(4):
            m2m.encode(raw(m2m, n), n * FRAME_US)
        assert time.monotonic() - started > 0.19


def test_corrupt(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        encoder["fill"] = 0  # the damage has to hit the picture
        units = []
        for n in range(3):  # two IDR pictures in a row differ in their idr_pic_id
            m2m.control(FORCE_KEY, 1)
            encoder["corrupt_next"] = int(n == 2)
            units.append(m2m.encode(raw(m2m, 0), n * FRAME_US))
    whole, _, damaged = units
    assert not damaged.failed
    assert len(damaged.data) == len(whole.data)
    assert sum(a != b for a, b in zip(whole.data, damaged.data, strict=True)) >= 40


@pytest.mark.parametrize("fault", ["fail_streamon", "max_bufs"])
def test_no_memory(encoder: Encoder, fault: str) -> None:
    encoder[fault] = 1
    with pytest.raises(OSError) as caught:
        M2MEncoder(WIDTH, HEIGHT)
    assert caught.value.errno == errno.ENOMEM
    encoder.calm()
    M2MEncoder(WIDTH, HEIGHT).close()


def test_busy(encoder: Encoder) -> None:
    encoder["max_ctx"] = 1
    with closing(M2MEncoder(WIDTH, HEIGHT)), pytest.raises(OSError) as caught:
        M2MEncoder(WIDTH, HEIGHT)
    assert caught.value.errno == errno.EBUSY


def test_unplugged_in_use_and_plugged_in_again(encoder: Encoder) -> None:
    for turn in range(3):
        with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
            assert m2m.encode(raw(m2m, turn), turn).key
            encoder["unplug"] = 1
            assert encoder.node is None
            with pytest.raises(OSError) as caught:
                m2m.put(raw(m2m, turn), turn)
            assert caught.value.errno == errno.ENODEV
            encoder["unplug"] = 0  # while the old handle is still open
            assert encoder.node not in (None, NODE), "the old one is still taken"
            with closing(M2MEncoder(WIDTH, HEIGHT, node=encoder.node)) as second:
                assert second.encode(raw(second, 0), 0).key
        encoder["unplug"] = 1
        encoder["unplug"] = 0
        assert encoder.node == NODE


def test_who_waits_for_a_picture_wakes_up_when_it_is_unplugged(encoder: Encoder) -> None:
    with closing(M2MEncoder(WIDTH, HEIGHT)) as m2m:
        encoder["stall"] = 1
        m2m.put(raw(m2m, 0), 0)
        puller = threading.Timer(0.3, encoder.__setitem__, ("unplug", 1))
        puller.start()
        started = time.monotonic()
        with pytest.raises(OSError) as caught:
            m2m.get(20)
        waited = time.monotonic() - started
        puller.join()
    assert (caught.value.errno, waited < 10) == (errno.ENODEV, True)


def test_the_node_says_what_a_raspberry_pi_says() -> None:
    name = Path("/sys/class/video4linux/video11/name").read_text().strip()
    assert name == "bcm2835-codec-encode"
    assert os.access(NODE, os.R_OK | os.W_OK)
