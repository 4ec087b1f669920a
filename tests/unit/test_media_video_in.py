"""From access units to pictures: what is decoded, what is bounded, and a decoder that gets stuck."""

from __future__ import annotations

import asyncio
import threading
import time
import tracemalloc
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import pytest

from appliance.media import video_in
from appliance.media.api import AccessUnit
from appliance.media.h264 import has_parameter_sets, parameter_sets_of, sprop_of, units_of
from appliance.media.smoothness import RESTART_S
from appliance.media.video_in import (
    HELD_BYTES,
    SHOW_AHEAD,
    SHOW_INTERVAL_S,
    SPACED,
    SPACING_S,
    STUCK,
    UNIT_BYTES,
    UNITS,
    VideoIn,
)
from hw.api import Picture
from tests.support.clock import virtual_time
from tests.support.coded_video import units
from tests.support.media_pair import until


@dataclass
class World:
    """A VideoIn and what it asked for."""

    pictures: list[Picture] = field(default_factory=list)
    lost: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self.video = VideoIn(
            "test", asyncio.get_running_loop(), on_picture=self.pictures.append,
            on_lost=lambda: setattr(self, "lost", self.lost + 1),
            on_asked=lambda: setattr(self, "asked", self.asked + 1),
        )

    def put(self, all_units: list[AccessUnit]) -> None:
        for unit in all_units:
            self.video.on_access_unit(unit)

    async def decode(self, all_units: list[AccessUnit]) -> None:
        """At a pace the queue holds."""
        for unit in all_units:
            decoded = self.video.decoded
            self.video.on_access_unit(unit)
            await until(lambda before=decoded: self.video.decoded > before)


class StuckCodec:
    """Stands for a decoder that does not come back before it is told to."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.entries = 0
        self.release = threading.Event()
        self.thread_count = 0
        self.options: dict[str, str] = {}

    def decode(self, packet: Any) -> list[Any]:
        self.entries += 1
        self.entered.set()
        self.release.wait(10)
        return []


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> StuckCodec:
    codec, create = StuckCodec(), video_in.av.CodecContext.create
    monkeypatch.setattr(
        video_in.av.CodecContext, "create", lambda name, mode: codec if mode == "r" else create(name, mode)
    )
    return codec


async def test_pictures_come_with_size_and_position() -> None:
    world = World()
    await world.decode(units(10, size=(176, 144), begin=5_000))
    await until(lambda: bool(world.pictures))
    picture = world.pictures[0]
    assert (picture.width, picture.height) == (176, 144) == world.video.size
    assert len(picture.i420) == 176 * 144 * 3 // 2
    assert world.video.position is not None
    assert world.video.position[0] == 5_000 + 9 * 3_000
    assert (world.video.decoded, world.video.key_decoded) == (10, 1)
    assert world.video.smoothness.frames_rendered == 10
    await world.video.close()


async def test_nothing_is_decoded_that_nobody_sees() -> None:
    world = World()
    world.video.show(False)
    assert not world.video.wants_video
    world.put(units(3))
    assert not any(thread.name.startswith("media.decode") for thread in threading.enumerate())
    tap = world.video.encoded.open(1_000_000)
    assert world.video.wants_video
    assert world.asked == 1, "recording begins with a key frame"
    world.put(units(3))
    assert tap.waiting_bytes > 0
    assert not any(thread.name.startswith("media.decode") for thread in threading.enumerate())
    world.video.show(True)
    assert world.lost == 1, "the decoder was not fed: it needs a key frame"
    await world.video.close()
    assert len([unit async for unit in tap]) == 3


async def test_raw_pictures_are_decoded_for_a_tap_although_nothing_is_shown() -> None:
    world = World()
    world.video.show(False)
    tap = world.video.pictures.open(10_000_000)
    await world.decode(units(5))
    assert not world.pictures
    assert world.video.smoothness.frames_rendered == 0
    world.video.show(True)
    lost = world.lost
    world.video.pictures.open(10_000_000).close()
    assert world.lost == lost, "who looks is not disturbed by one more who does"
    await world.video.close()
    assert len([picture async for picture in tap]) == 5


async def test_what_waits_for_a_slow_decoder_is_bounded_and_a_key_frame_is_asked_for(stuck: StuckCodec) -> None:
    world = World()
    coded = units(UNITS + SPACED + 3)
    world.put(coded)
    assert world.video.dropped >= UNITS
    assert world.lost == 1
    big = AccessUnit(bytes(UNIT_BYTES // 2 + 1), 0, False, 0.0, 0.0)
    world.put([big, big])
    assert world.lost == 2
    stuck.release.set()
    await world.video.close()


async def test_an_unread_peer_costs_less_than_10_mb(stuck: StuckCodec) -> None:
    """A minute of 8 Mbit/s that neither decoder nor recording takes (stock aiortc: 97 MB in 10 s of 360p)."""
    world = World()
    tap = world.video.encoded.open(4_000_000)
    tracemalloc.start()
    try:
        for number in range(60 * 30):
            world.video.on_access_unit(AccessUnit(bytes(33_000), number, number % 60 == 0, 0.0, 0.0))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000_000
    assert tap.dropped > 1000
    stuck.release.set()
    await world.video.close()


async def test_closing_does_not_wait_for_a_stuck_decoder(stuck: StuckCodec, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put(units(2))
    await until(stuck.entered.is_set)
    assert not await world.video.close(0.1), "or it had been waited for to its end"
    assert "did not end" in caplog.text
    stuck.release.set()


async def test_a_stuck_decoder_is_replaced_and_pictures_come_again(
    stuck: StuckCodec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    coded = units(20, key_every=10)
    world.video.look(10.0, due=True)
    world.put(coded[:2])
    await until(stuck.entered.is_set)
    world.video.look(11.5, due=True)
    assert world.asked == 1
    monkeypatch.undo()
    world.video.look(10.0 + RESTART_S + 0.1, due=True)
    assert (world.video.restarts, world.lost) == (1, 1)
    assert "replaced" in caplog.text
    await world.decode(coded[10:])
    await until(lambda: bool(world.pictures))
    stuck.release.set()
    assert await world.video.close()


async def test_decoders_that_get_stuck_again_and_again_are_not_replaced_without_end(stuck: StuckCodec) -> None:
    world = World()
    coded = units(2)
    for second in range(0, 100, 2):
        world.put(coded)
        await until(lambda: stuck.entries > world.video.restarts)
        world.video.look(10.0 + second, due=True)
    assert world.video.restarts == STUCK
    assert world.asked > 10
    stuck.release.set()
    assert await world.video.close()


async def test_a_new_source_of_another_size_follows_without_a_black_picture() -> None:
    world = World()
    await world.decode(units(5))
    await until(lambda: bool(world.pictures))
    world.video.on_new_source()
    assert (world.video.decoded, world.video.emitted, world.video.smoothness.frames_rendered) == (0, 0, 0)
    await world.decode(units(5, size=(320, 192)))
    await until(lambda: world.pictures[-1].width == 320)
    assert world.video.emitted == 5, "counted for each source by itself"
    assert all(picture.width in (160, 320) for picture in world.pictures)
    assert world.video.undecodable == 0
    await world.video.close()


async def test_what_cannot_be_decoded_asks_for_a_key_frame() -> None:
    world = World()
    world.video.on_access_unit(AccessUnit(b"\0\0\0\1\x65\x88" + bytes(50), 0, True, 0.0, 0.0))
    await until(lambda: world.lost == 1)
    assert world.video.undecodable == 1
    await world.video.close()


async def test_a_picture_of_no_possible_size_is_not_shown_and_takes_no_memory() -> None:
    """A few kilobytes of a peer made the decoder take hundreds of megabytes; a single pixel made a picture of none."""
    world = World()
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 1, 1, "yuv444p", Fraction(1, 30)
    encoder.options = {"tune": "zerolatency"}
    pixel = b"".join(bytes(one) for one in [*encoder.encode(av.VideoFrame(1, 1, "yuv444p")), *encoder.encode(None)])
    for number, data in enumerate((units(1, size=(4096, 1024))[0].data, pixel), 1):
        world.video.on_access_unit(AccessUnit(data, 0, True, 0.0, 0.0))
        await until(lambda most=number: world.video.undecodable == most)  # type: ignore[misc]
    assert world.video.size == (0, 0)
    await world.decode(units(1))
    await until(lambda: [picture.width for picture in world.pictures] == [160])
    await world.video.close()


@virtual_time
async def test_pictures_that_wait_for_their_sound_come_late_in_order_and_all() -> None:
    world, loop = World(), asyncio.get_running_loop()
    world.video.delay_s = 0.09
    for number, unit in enumerate(units(UNITS)):
        assert world.video.emitted == max(0, number - 2), "each 90 ms after it came"
        world.video.on_access_unit(replace(unit, arrived_s=loop.time()))
        await asyncio.sleep(1 / 30)
    await asyncio.sleep(0.1)
    await until(lambda: world.video.decoded == UNITS)
    assert world.video.position is not None
    assert world.video.position[0] == (UNITS - 1) * 3000
    world.video.delay_s = 0.0
    await world.decode([replace(unit, arrived_s=loop.time()) for unit in units(3, begin=UNITS * 3000)])
    assert world.video.dropped == 0
    await world.video.close()


@virtual_time
async def test_what_a_picture_waits_for_its_sound_is_told_apart_from_what_the_network_took() -> None:
    world, loop = World(), asyncio.get_running_loop()
    world.video.delay_s = 0.1
    for unit in units(6):
        world.video.on_access_unit(replace(unit, began_s=loop.time() - 0.02, arrived_s=loop.time()))
        await asyncio.sleep(1 / 30)
    await asyncio.sleep(0.2)
    video = world.video
    assert video.emitted == 6
    assert video.minimum_s == pytest.approx(6 * 0.02)
    assert video.target_s == pytest.approx(6 * 0.12, abs=0.01)
    assert video.buffered_s == pytest.approx(video.target_s, abs=6 * 0.003)
    await video.close()


async def test_what_waits_for_its_sound_is_bounded_in_bytes() -> None:
    world = World()
    world.video.delay_s = 0.4
    now = asyncio.get_running_loop().time()
    for number in range(8):
        world.video.on_access_unit(AccessUnit(bytes(HELD_BYTES // 4), number, False, now, now))
    assert world.video._held_bytes <= HELD_BYTES
    world.video.show(False)
    assert world.video._held_bytes == 0
    await world.video.close()


@virtual_time
async def test_what_a_repair_lets_go_at_once_is_brought_out_one_by_one_and_a_stall_is_caught_up() -> None:
    world = World()
    world.put(units(3))
    for shown in range(1, 4):
        assert world.video.emitted == shown
        await asyncio.sleep(SPACING_S)
    world.put(units(SPACED + 5, begin=9_000))
    assert world.video.emitted == 3 + 5, "after a stall only the last of them are worth the time"
    await asyncio.sleep(SPACED * SPACING_S)
    assert world.video.emitted == 3 + 5 + SPACED
    await world.video.close()


async def test_three_pictures_in_a_row_are_shown_and_not_all_of_a_fast_source() -> None:
    world, begun = World(), time.monotonic()
    for number, unit in enumerate(units(3), 1):
        world.video.on_access_unit(unit)
        await until(lambda number=number: len(world.pictures) == number, what="each shown")
    await world.decode(units(60, begin=9_000))
    assert len(world.pictures) <= SHOW_AHEAD + 1 + (time.monotonic() - begun) / SHOW_INTERVAL_S
    await world.video.close()


async def test_key_frames_without_parameter_sets_are_decoded_with_those_of_the_description() -> None:
    """As some door stations send them (RFC 6184 8.1, sprop-parameter-sets)."""
    world = World()
    coded = units(3)
    world.video.parameter_sets = parameter_sets_of(sprop_of(coded[0].data))
    slices = b"".join(b"\0\0\0\1" + unit for unit in units_of(coded[0].data) if unit[0] & 0x1F not in (7, 8))
    tap = world.video.encoded.open(1_000_000)
    await world.decode([replace(coded[0], data=slices), *coded[1:]])
    assert world.video.decoded == 3
    assert not world.video.undecodable
    await world.video.close()
    recorded = [unit async for unit in tap]
    assert has_parameter_sets(recorded[0].data), "a recording has them, too"
