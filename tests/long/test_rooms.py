"""Rooms for long: cuts of minutes, nine who come and go a hundred times, a day of arrivals without growth, and a bad
network for as long as EDGECALL_ROUGH_MINUTES says (3; hours before a release)."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from appliance.providers import api
from appliance.vocabulary import END_REASONS
from tests.support.appliance import Appliance
from tests.support.browser import chromium
from tests.support.coded_video import units
from tests.support.cycles import turn_around
from tests.support.house import house, start_of
from tests.support.impair import Burst, Conditions
from tests.support.interface import changed_network, ip
from tests.support.janus_between import between
from tests.support.room_device import H264, ROOM, device, janus, same_as_server
from tests.support.room_page import room_page
from tests.support.room_report import RoomReport, Shown
from tests.support.rough_way import is_media, rough_way
from tests.support.senders import SENDS, senders
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.peer, pytest.mark.timeout(3600)]

LEAVE = END_REASONS["0/local"]
FPS = 25  # of a bare H.264 stream without timing in it
LOOK_S = 2.5
LOOKS = 5
"""At one step: a machine that has too much to do for a moment is no fault, a picture that stands is seen in each."""
SHARE = 0.9
STEPS = 100
ARRIVALS = 288
"""In a day, one every five minutes."""
ROUGH_S = 60 * float(os.environ.get("EDGECALL_ROUGH_MINUTES", "3"))
HALF_DEAD = "no media, though the server reports"
STANDING = "the server stands still"
WEATHER = {
    "5 % lost": Conditions(loss=0.05, delay_s=0.03),
    "15 % lost": Conditions(loss=0.15, delay_s=0.03),
    "8 % in bursts": Conditions(loss=Burst.of(0.08, length=8), delay_s=0.03),
    "jitter and another order": Conditions(delay_s=0.05, jitter_s=0.08, reorder=0.05),
    "far away": Conditions(delay_s=0.3, jitter_s=0.02, loss=0.01),
    "too narrow": Conditions(delay_s=0.03, rate_bps=300_000, queue_ms=300),
    "dark for a moment": Conditions(dark=True),
    "dark": Conditions(dark=True),
    "dark for long": Conditions(dark=True),
    HALF_DEAD: Conditions(),
    STANDING: Conditions(),
}
"""Half of the time; the other half is fair."""
SPELL_S = {"dark for a moment": 2.0, "dark": 8.0, "dark for long": 25.0, STANDING: 6.0}
"""Seconds of each; of all others 15."""
FAIR_S = 15.0
AGAIN_S = 30.0
"""In fair weather so long until every tile moves again, with a new connection in it after the dark. It takes four
seconds where the machine has little else to do; a picture that stands for good is seen in any time."""
WARM_UP = 60
"""Connections that are made anew before memory is looked at: the allocator goes up for some fifty of them."""


def clip(folder: Path, number: int) -> str:
    """Four seconds of moving picture, encoded once."""
    path = folder / f"{number}.h264"
    coded = units(4 * FPS, size=(160, 96), fps=FPS, key_every=2 * FPS, slope=number + 1)
    path.write_bytes(b"".join(unit.data for unit in coded))
    return f"clip:{path}"


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
        shown = Shown(door)
        names = [f"p{number}" for number in range(8)]
        others = await stack.enter_async_context(senders(server.url, {
            name: await asyncio.to_thread(clip, tmp_path, number) for number, name in enumerate(names)}))
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
            return await others.sent(label.lower())

        async def shares_of(labels: set[str]) -> dict[str, float]:
            """Pictures shown, of those sent meanwhile."""
            before, sent_before = shown.count.copy(), {label: await sent(label) for label in labels}
            await asyncio.sleep(LOOK_S)
            came = {label: shown.count[label] - before[label] for label in labels}
            return {label: came[label] / max(1, await sent(label) - sent_before[label]) for label in labels}

        async def step(name: str) -> None:
            if name == "olga":
                words = "([url, room]) => enter(url, room, 'Olga')" if name not in inside else "() => exit('Olga')"
                await page.evaluate(words, *([[server.url, ROOM]] if name not in inside else []))
            elif name in inside:
                await others.leave(name)
            else:
                await others.join(name)
            inside.symmetric_difference_update({name})

        for number in range(STEPS):
            await step(dice.choice([*names, "olga"]) if number >= 9 else [*names, "olga"][number])
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


@pytest.mark.timeout(ROUGH_S + 600)
async def test_a_bad_network_leaves_no_picture_standing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nine pictures through one network that changes all the time, while one or the other of them leaves and is back.
    Whatever it was, in fair weather all nine move again, in one and the same call."""
    dice = random.Random(4)
    (tmp_path / "janus").mkdir()
    again: Counter[str] = Counter()  # milliseconds of fair weather until all move, at the longest, by what was before
    stood: Counter[str] = Counter()  # milliseconds that a picture of who was there stood in it
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(janus(tmp_path / "janus", {ROOM: {**H264, "publishers": 20}}))
        way = await stack.enter_async_context(rough_way(server.url, seed=4))
        door = await stack.enter_async_context(device(way.url, "door"))
        shown = Shown(door)
        report = RoomReport(server, way, door, shown, monkeypatch)
        stack.callback(report.close)
        labels = [f"P{number}" for number in range(9)]
        others = await stack.enter_async_context(senders(server.url, {
            label: await asyncio.to_thread(clip, tmp_path, number) for number, label in enumerate(labels)}))
        await door.join()
        await door.connected()
        for label in labels:
            await others.join(label)

        loop = asyncio.get_running_loop()

        async def all_move(within_s: float, what: str) -> None:
            before = shown.count.copy()
            try:
                await until(lambda: all(shown.count[label] > before[label] + 3 for label in labels),
                            f"every picture moves {what}", within_s)
            except AssertionError as error:
                moved = {label: shown.count[label] - before[label] for label in labels}
                told = await report.tell()
                with capsys.disabled():
                    print(f"\n  {error}: {moved}\n  {told}")
                raise AssertionError(f"{error}: {moved}; {told}") from None

        await all_move(30, "at the beginning")
        begun, spells = loop.time(), 0
        while loop.time() - begun < ROUGH_S:
            spells += 1
            shown.stood.clear()
            name, label = dice.choice([*WEATHER]), dice.choice(labels)
            way.change(WEATHER[name])
            if name == HALF_DEAD:
                way.drop(way.subscriber, is_media)
            elif name == STANDING:
                server.pause()
            await others.leave(label)
            await asyncio.sleep(SPELL_S.get(name, FAIR_S))
            server.go_on()
            await others.join(label)
            way.change(Conditions())
            fair = loop.time()
            await all_move(AGAIN_S, f"in spell {spells}, after {name}")
            again[name] = max(again[name], round(1000 * (loop.time() - fair)))
            stood[name] = max(stood[name], *(shown.stood[one] for one in labels if one != label))
            await asyncio.sleep(max(0.0, fair + FAIR_S - loop.time()))
            assert not door.of(api.Ended), door.told
            await same_as_server(server, door)
        lost = len(door.of(api.Lost))
    with capsys.disabled():
        print(f"\n  {spells} spells in {loop.time() - begun:.0f} s, {sum(shown.count.values())} pictures. Longest "
              f"until all moved again, ms: {dict(again)}; that one stood, ms: {dict(stood)}. Done about it: "
              f"{dict(report.done)}, and the room joined anew {lost} times")
