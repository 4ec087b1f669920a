"""Rooms for long: cuts of minutes, nine who come and go a hundred times, and a day of arrivals without growth."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.vocabulary import END_REASONS
from hw.api import Picture, Tile
from tests.support.appliance import Appliance
from tests.support.browser import chromium
from tests.support.coded_video import units
from tests.support.cycles import turn_around
from tests.support.house import house, start_of
from tests.support.interface import changed_network, ip
from tests.support.janus_between import between
from tests.support.room_device import H264, ROOM, Device, device, janus, same_as_server
from tests.support.room_page import room_page
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.peer, pytest.mark.timeout(3600)]

LEAVE = END_REASONS["0/local"]
FPS = 25  # of a bare H.264 stream without timing in it
SENDS = api.MediaWanted(receive_audio=False, receive_video=False)
LOOK_S = 2.5
LOOKS = 5
"""At one step: a machine that has too much to do for a moment is no fault, a picture that stands is seen in each."""
SHARE = 0.9
STEPS = 100
ARRIVALS = 288
"""In a day, one every five minutes."""
WARM_UP = 60
"""Connections that are made anew before memory is looked at: the allocator goes up for some fifty of them."""


def clip(folder: Path, number: int) -> str:
    """Four seconds of moving picture, encoded once."""
    path = folder / f"{number}.h264"
    coded = units(4 * FPS, size=(160, 96), fps=FPS, key_every=2 * FPS, slope=number + 1)
    path.write_bytes(b"".join(unit.data for unit in coded))
    return f"clip:{path}"


class Counted:
    """How many pictures of each label came to the screen."""

    def __init__(self, one: Device) -> None:
        self.shown: Counter[str] = Counter()
        self._last: dict[str, Picture] = {}
        show = one.board.display.show

        def counting(tiles: Any, banner: str = "", hint: str = "") -> None:
            show(tiles, banner, hint)
            one.board.pictures.clear()  # hundreds of thousands
            for tile in tiles:
                self._count(tile)

        one.board.display.show = counting  # type: ignore[method-assign]

    def _count(self, tile: Tile) -> None:
        if tile.picture is not None and self._last.get(tile.label) is not tile.picture:
            self._last[tile.label] = tile.picture
            self.shown[tile.label] += 1


async def test_a_cut_of_a_minute(tmp_path: Path) -> None:
    async with (
        changed_network(), janus(tmp_path) as server, device(server.url, "door", 440) as door,
        device(server.url, "gate", 880) as gate,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        await gate.sees("Door")
        await ip("link set lo down")
        await asyncio.sleep(60)
        await ip("link set lo up")
        back = asyncio.get_running_loop().time()
        await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are back")
        assert door.when(api.Recovered) - back < 5
        await door.sees("Gate")
        await gate.sees("Door")
        await door.hears(880)
        await same_as_server(server, door)
        assert not door.of(api.Ended)


async def test_a_cut_longer_than_a_call_is_kept(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with changed_network(), janus(tmp_path / "janus") as server:
        settings = {"janus.url": server.url, "mqtt.enabled": False}
        async with house(await start_of(tmp_path, settings)) as running:
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await ip("link set lo down")
            cut = asyncio.get_running_loop().time()
            await running.until(lambda: running.document("call")["state"] == "Reconnecting", 10)
            await running.until(lambda: running.document("call")["state"] == "Disconnected", 140)
            assert 120 < asyncio.get_running_loop().time() - cut < 130
            await asyncio.sleep(cut + 150 - asyncio.get_running_loop().time())
            await ip("link set lo up")
            (ended,) = [one for one in running.events if one.type == "call.ended"]
            assert (ended.data["reason"]["code"], ended.data["reason"]["subCode"]) == (410, "mediaLost")
            again = await running.give("room.join", target=str(ROOM))
            assert again["result"] == "done", again


async def test_nine_publishers_come_and_go_a_hundred_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight that pass a recorded stream through, and a browser. After each step the roster is the server's list, and
    of everybody inside the screen gets over 90 % of the pictures that were sent."""
    dice = random.Random(9)
    (tmp_path / "janus").mkdir()
    least, kept, again = 1.0, 0, 0
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(janus(tmp_path / "janus", {ROOM: {**H264, "publishers": 20}}))
        door = await stack.enter_async_context(device(server.url, "door"))
        counted = Counted(door)
        others = {name: await stack.enter_async_context(
            device(server.url, name, camera=await asyncio.to_thread(clip, tmp_path, number)))
            for number, name in enumerate(f"p{number}" for number in range(8))}
        url = await stack.enter_async_context(room_page())
        browser = await stack.enter_async_context(chromium(880))
        page = await browser.open(url)
        await door.join()
        await door.connected()
        inside: set[str] = set()

        async def sent(label: str) -> int:
            """Pictures that this one has sent."""
            if label == "Olga":
                return int(await page.evaluate("() => sent('Olga')"))
            return next(int(row["framesSent"]) for row in await others[label.lower()].stats()
                        if row["type"] == "outbound-rtp" and row["kind"] == "video")

        async def shares_of(labels: set[str]) -> dict[str, float]:
            """Pictures shown, of those sent meanwhile."""
            before, sent_before = counted.shown.copy(), {label: await sent(label) for label in labels}
            await asyncio.sleep(LOOK_S)
            shown = {label: counted.shown[label] - before[label] for label in labels}
            return {label: shown[label] / max(1, await sent(label) - sent_before[label]) for label in labels}

        async def step(name: str) -> None:
            if name == "olga":
                words = "([url, room]) => enter(url, room, 'Olga')" if name not in inside else "() => exit('Olga')"
                await page.evaluate(words, *([[server.url, ROOM]] if name not in inside else []))
            elif name in inside:
                leg = others[name].leg
                assert leg is not None
                await leg.end(LEAVE)
            else:
                await others[name].join(media=SENDS)
                await others[name].connected()
            inside.symmetric_difference_update({name})

        for number in range(STEPS):
            await step(dice.choice([*others, "olga"]) if number >= 9 else [*others, "olga"][number])
            labels = {name.title() for name in inside}
            await until(lambda labels=labels: set(door.members) == labels == set(door.tiles),  # type: ignore[misc]
                        f"step {number}: {sorted(labels)} at the door, and nobody else", 15)
            await same_as_server(server, door)
            if not inside:
                continue
            await asyncio.sleep(0.5)  # the first pictures of who has just come
            for look in range(LOOKS):
                shares = await shares_of(labels)
                if min(shares.values()) > SHARE:
                    break
                again += look < LOOKS - 1
            least, kept = min(least, *shares.values()), kept + len(shares)
            assert min(shares.values()) > SHARE, f"step {number}: {shares}"
        assert not door.of(api.Lost)
        assert not door.of(api.Ended)
    with capsys.disabled():
        print(f"\n  {STEPS} steps, {kept} streams looked at, the least share of pictures {least:.0%}, "
              f"{again} looked at again")


async def test_a_day_of_arrivals_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The appliance stays in the room; others come and go, and now and then the server's connection is cut."""
    (tmp_path / "janus").mkdir()
    async with (
        janus(tmp_path / "janus") as server, between(server.url) as way,
        device(server.url, "gate", 880, camera=await asyncio.to_thread(clip, tmp_path, 0)) as gate,
        Appliance(tmp_path / "door", settings={"janus.url": way.url}) as door,
    ):
        joined = await door.give("room.join", target=str(ROOM))
        assert joined["result"] == "done", joined

        def there() -> bool:
            return any(one["videoStreams"][0]["isReceiving"] for one in door.state("roster")["participants"]
                       if one["videoStreams"])

        async def cycle(number: int) -> None:
            await gate.join(media=SENDS)
            await gate.connected()
            await door.until(there, "the other is shown", 10)
            if number < WARM_UP or number % 12 == 0:  # then every hour
                await way.close()
                await door.call_is("Reconnecting")
                await way.open()
                await door.call_is("Connected")
                await door.until(there, "the other is shown again", 10)
            assert gate.leg is not None
            await gate.leg.end(LEAVE)
            await gate.ended()
            await door.until(lambda: not door.state("roster")["participants"], "nobody is left", 10)

        words = await turn_around(ARRIVALS, cycle, door, warm_up=WARM_UP, tasks=4)
    with capsys.disabled():
        print(f"\n  {words}")
