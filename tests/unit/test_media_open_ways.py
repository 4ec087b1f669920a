"""Which ways of a transport stay open: those in use, and those that may be yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from appliance.media.open_ways import OpenWays
from appliance.media.ways import CLEAR, UdpWay


class Lines:
    """Two, of the ways that they use."""

    def __init__(self) -> None:
        self.ways = OpenWays("test")
        self.used: dict[str, UdpWay] = {}

    async def open(self, *kinds: str) -> list[UdpWay]:
        """A round."""
        self.ways.begin()
        made = []
        for kind in kinds:
            way = UdpWay(lambda _data, _rtcp: True, protection=CLEAR)
            self.ways.keep(kind, way, self.used.values())
            await way.open("127.0.0.1", mux=True)
            made.append(way)
        return made

    def use(self, kind: str, way: UdpWay) -> None:
        self.used[kind] = way
        self.ways.agreed(kind, way, self.used.values())


async def is_open(way: UdpWay) -> bool:
    await asyncio.sleep(0)  # what is left is closed by a task
    way.reach(("127.0.0.1", 9), None)
    try:
        await way.send(b"\x80\x00", rtcp=False)
    except ConnectionError:
        return False
    return True


@asynccontextmanager
async def two() -> AsyncIterator[Lines]:
    lines = Lines()
    try:
        yield lines
    finally:
        await lines.ways.close()
        await asyncio.sleep(0)


async def test_another_round_takes_the_place_of_the_former_as_it_is_agreed() -> None:
    async with two() as lines:
        first = await lines.open("audio", "video")
        lines.use("audio", first[0])
        lines.use("video", first[1])
        second = await lines.open("audio", "video")
        assert [await is_open(one) for one in (*first, *second)] == [True] * 4
        lines.use("audio", second[0])
        assert [await is_open(one) for one in (*first, *second)] == [False, True, True, True]
        lines.use("video", second[1])
        assert [await is_open(one) for one in (*first, *second)] == [False, False, True, True]


async def test_in_a_bundle_the_way_of_the_second_line_is_not_needed() -> None:
    async with two() as lines:
        audio, video = await lines.open("audio", "video")
        lines.use("audio", audio)
        lines.use("video", audio)
        assert [await is_open(one) for one in (audio, video)] == [True, False]


async def test_what_is_agreed_for_the_former_round_leaves_the_latest_open() -> None:
    """The answer to what was offered before."""
    async with two() as lines:
        (first,) = await lines.open("audio")
        lines.use("audio", first)
        (second,) = await lines.open("audio")
        lines.use("audio", first)
        assert await is_open(second)
        lines.ways.stay(lines.used.values())
        assert [await is_open(one) for one in (first, second)] == [True, False]


async def test_ways_are_found_by_place() -> None:
    async with two() as lines:
        audio, video = await lines.open("audio", "video")
        assert lines.ways.find("video", audio.ports) is audio
        assert lines.ways.find("video", None) is video
        assert lines.ways.find("audio", (1, 2)) is None
        (latest,) = await lines.open("audio")
        assert lines.ways.find("audio", None) is latest
        assert lines.ways.find("audio", audio.ports) is None, "nothing came of it"


async def test_when_all_is_over_nothing_is_opened_any_more() -> None:
    async with two() as lines:
        (first,) = await lines.open("audio")
        await lines.ways.close()
        assert not await is_open(first)
        with pytest.raises(OSError, match="over"):
            await lines.open("audio")
