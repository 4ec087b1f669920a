"""Rooms of a real Janus, with real browsers and other appliances as the people in them."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from appliance.providers import api
from appliance.settings import Secret
from appliance.vocabulary import END_REASONS
from tests.support.browser import Chromium, chromium, wait_for
from tests.support.house import house, start_of
from tests.support.interface import ADDRESS, INTERFACE, changed_network, ip
from tests.support.janus import ADMIN
from tests.support.janus_between import between
from tests.support.room_device import H264, ROOM, device, janus, same_as_server
from tests.support.room_page import room_page
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DEVICE_HERTZ = 440.0
PAGE_HERTZ = 880.0
LEAVE = END_REASONS["0/local"]


async def test_a_browser_and_the_device_see_and_hear_each_other_in_a_room(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, device(server.url, "door", DEVICE_HERTZ, height=360) as door, room_page() as url,
        chromium(PAGE_HERTZ) as browser,
    ):
        begun = asyncio.get_running_loop().time()
        await door.join()
        await door.connected()
        assert door.when(api.Connected) - begun < 1.0
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, ROOM])
        await wait_for(page, "() => people.Olga.streams.Door?.getTracks().length === 2")

        await Chromium.listen(page, "people.Olga.streams.Door")
        await Chromium.hears(page, DEVICE_HERTZ)
        counters = []
        for _ in range(200):
            mark = (await Chromium.sees(page, "video#Door")).mark
            if mark is not None and mark.counter not in counters:
                counters.append(mark.counter)
            if len(counters) == 4:
                break
        assert len(counters) == 4
        assert all(later > earlier for earlier, later in pairwise(counters))

        await door.hears(PAGE_HERTZ)
        await door.sees("Olga")
        olga = door.members["Olga"]
        assert (olga.video, olga.receiving, olga.away, olga.muted) == (True, True, False, False)
        await same_as_server(server, door)

        await page.evaluate("() => people.Olga.publisher({ request: 'configure', display: 'Olga P.' })")
        await door.sees("Olga P.")
        assert set(door.members) == set(door.tiles) == {"Olga P."}
        await same_as_server(server, door)

        await page.evaluate("() => exit('Olga')")
        await until(lambda: not door.members and not door.tiles, "nobody left, nothing shown")
        assert not door.of(api.Ended)


async def test_each_refusal_has_its_own_reason(tmp_path: Path) -> None:
    rooms = {ROOM: H264, 2: {**H264, "publishers": 1}, 3: {**H264, "pin": "4711"}}
    async with janus(tmp_path, rooms) as server, device(server.url, "door") as door, device(server.url, "gate") as gate:
        for room in ("99", "nosuch", "-5", "9" * 200):
            await door.join(room)
            assert await door.ended(2) == "404/noSuchRoom"
        await door.join("3")
        assert await door.ended() == "403/wrongPin"
        await door.join("3", pin="1111")
        assert await door.ended() == "403/wrongPin"
        await door.join("3", pin="4711")
        await door.connected()
        assert door.leg is not None
        await door.leg.end(LEAVE)
        assert await door.ended() == "0/local"
        await gate.join("2")
        await gate.connected()
        await door.join("2")
        assert await door.ended() == "403/roomFull"
    async with device(server.url, "late") as late:  # there is no server any more
        await late.join()
        assert await late.ended() == "503/provider"


async def test_what_the_server_and_a_room_ask_for(tmp_path: Path) -> None:
    """An API secret of the server, and a list of tokens of the room."""
    async with (
        janus(tmp_path, secret="s3cret") as server, device(server.url, "stranger") as stranger,
        device(server.url, "door", api_secret=Secret("s3cret"), token=Secret("t0ken")) as door,
        device(server.url, "gate", api_secret=Secret("s3cret"), token=Secret("other")) as gate,
    ):
        await stranger.join()
        assert await stranger.ended() == "401/token"
        async with server.control() as control:
            await control.request({"request": "allowed", "room": ROOM, "action": "add", "allowed": ["t0ken"]})
            await control.request({"request": "allowed", "room": ROOM, "action": "enable"})
        await gate.join()
        assert await gate.ended() == "403/notInvited"
        await door.join()
        await door.connected()


async def test_a_server_whose_ids_are_text(tmp_path: Path) -> None:
    """Rooms and people have words for ids there, of which a number is one. What the server itself sends for others to
    subscribe to is nobody."""
    async with (
        janus(tmp_path, {"lobby": H264, "7": H264}) as server, device(server.url, "door") as door,
        device(server.url, "gate") as gate, server.control() as control,
    ):
        made = await control.request({
            "request": "create", "room": "hall", "admin_key": ADMIN, **H264, "dummy_publisher": True,
            "dummy_streams": [{"codec": "opus"}, {"codec": "h264", "fmtp": "profile-level-id=42e01f"}]})
        assert made["videoroom"] == "created", made
        assert [one["dummy"] for one in await control.participants("hall")] == [True]
        for room in ("lobby", "7", "hall"):
            await door.join(room)
            await gate.join(room)
            await door.sees("Gate")
            await gate.sees("Door")
            assert set(door.members) == set(door.tiles) == {"Gate"}
            assert not door.members["Gate"].id.isdigit()
            await same_as_server(server, door, room=room)
            for one in (door, gate):
                assert one.leg is not None
                await one.leg.end(LEAVE)
                await one.ended()
        for room in ("attic", "8"):
            await door.join(room)
            assert await door.ended() == "404/noSuchRoom"


async def test_the_whole_appliance_joins_and_leaves_by_command(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with janus(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate:
        settings = {"janus.url": server.url, "mqtt.enabled": False}
        async with house(await start_of(tmp_path, settings)) as running:
            await gate.join()
            await gate.connected()
            missing = await running.give("room.join", target="99")
            assert (missing["result"], missing["code"], missing["subCode"]) == ("failed", 404, "noSuchRoom"), missing
            await running.until(lambda: running.document("call")["state"] == "Disconnected")
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await running.until(lambda: running.document("roster")["participants"])
            assert running.document("call")["kind"] == "Room"
            await running.until(lambda: running.document("roster")["participants"][0]["videoStreams"][0]["isReceiving"])
            assert running.document("roster")["participants"][0]["displayName"] == "Gate"
            await gate.sees("Edgecall")
            refused = await running.give("room.join", target="99")
            assert (refused["result"], refused["subCode"]) == ("rejected", "inCall")
            left = await running.give("room.leave")
            assert left["result"] == "done"
            await running.until(lambda: running.document("call")["state"] == "Disconnected")
            await until(lambda: not gate.members, "the appliance has left")


async def test_removed_by_a_moderator_and_the_room_destroyed(tmp_path: Path) -> None:
    async with janus(tmp_path) as server, device(server.url, "door") as door, device(server.url, "gate") as gate:
        await door.join()
        await gate.join()
        await door.connected()
        await gate.connected()
        await until(lambda: "Door" in gate.members and "Gate" in door.members, "both see each other")
        async with server.control() as control:
            await control.request({"request": "kick", "room": ROOM, "id": int(gate.members["Door"].id)})
            assert await door.ended() == "0/removed"
            await until(lambda: not gate.members, "the one who was removed is gone")
            await control.request({"request": "destroy", "room": ROOM})
            assert await gate.ended() == "0/endedForAll"


async def test_the_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, device(server.url, "door", 440) as door, device(server.url, "gate", 880) as gate,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        await gate.sees("Door")
        await server.kill()
        killed = asyncio.get_running_loop().time()
        await until(lambda: door.of(api.Lost) and gate.of(api.Lost), "both reconnect", 3)
        assert not door.members
        await asyncio.sleep(1.0)
        await server.start()
        back = asyncio.get_running_loop().time()
        await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are back", 8)
        await door.sees("Gate")
        await gate.sees("Door")
        await door.hears(880)
        await same_as_server(server, door)
        assert door.when(api.Lost) - killed < 3
        assert door.when(api.Recovered) - back < 5
        assert not door.of(api.Ended)


async def test_others_come_and_go_in_any_order(tmp_path: Path) -> None:
    """Lines of our subscription are used again, with sources of their own; each step is the server's list."""
    dice = random.Random(6)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(janus(tmp_path))
        door = await stack.enter_async_context(device(server.url, "door"))
        others = [await stack.enter_async_context(device(server.url, f"p{number}", height=90)) for number in range(4)]
        await door.join()
        await door.connected()
        inside: set[str] = set()
        for _ in range(14):
            other = dice.choice(others)
            if other.name in inside:
                assert other.leg is not None
                await other.leg.end(LEAVE)
                inside.discard(other.name)
            else:
                await other.join()
                await other.connected()
                inside.add(other.name)
            labels = {name.title() for name in inside}
            await until(lambda labels=labels: set(door.members) == labels == set(door.tiles),  # type: ignore[misc]
                        f"{sorted(labels)} at the door, and nobody else")
            await door.sees(*labels)
            await same_as_server(server, door)
        assert not door.of(api.Lost)
        assert not door.of(api.Ended)


async def test_a_stream_that_the_server_forgets_is_subscribed_anew(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, between(server.url) as way, device(way.url, "door") as door,
        device(server.url, "gate", 880) as gate,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        watching = next(one["handle_id"] for one in way.asked if one.get("body", {}).get("ptype") == "subscriber")
        lines = [one["plugindata"]["data"]["streams"] for one in way.told
                 if one.get("plugindata", {}).get("data", {}).get("videoroom") in ("attached", "updated")][-1]
        picture = next(one["mid"] for one in lines if one["type"] == "video")
        await way.say({"janus": "message", "handle_id": watching, "body": {
            "request": "configure", "streams": [{"mid": picture, "send": False}]}})
        await until(lambda: any(one.get("transaction") == "of-the-test" for one in way.told), "it is stopped")
        await asyncio.sleep(0.5)  # for what was under way
        shown = door.tiles["Gate"].picture
        await asyncio.sleep(1)
        assert door.tiles["Gate"].picture is shown, "it stands"
        await door.sees("Gate", within_s=12)
        await door.hears(880)
        assert not door.of(api.Lost)


async def test_a_call_that_does_not_come_back_ends_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with janus(tmp_path / "janus") as server:
        settings = {"janus.url": server.url, "mqtt.enabled": False, "call.reconnect_s": 5}
        async with house(await start_of(tmp_path, settings)) as running:
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await server.kill()
            await running.until(lambda: running.document("call")["state"] == "Reconnecting", 5)
            lost = asyncio.get_running_loop().time()
            await running.until(lambda: running.document("call")["state"] == "Disconnected", 8)
            assert 4.5 < asyncio.get_running_loop().time() - lost < 7
            (ended,) = [one for one in running.events if one.type == "call.ended"]
            assert (ended.data["reason"]["code"], ended.data["reason"]["subCode"]) == (410, "mediaLost")
            again = await running.give("room.join", target=str(ROOM))
            assert (again["result"], again["code"], again["subCode"]) == ("failed", 503, "provider"), again


async def test_a_call_whose_network_stays_away_ends_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with (
        changed_network(), janus(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate,
    ):
        settings = {"janus.url": server.url, "mqtt.enabled": False, "call.reconnect_s": 5}
        await gate.join()
        async with house(await start_of(tmp_path, settings)) as running:
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await gate.sees("Edgecall")
            await running.until(lambda: running.document("roster")["participants"][0]["videoStreams"][0]["isReceiving"])
            await ip(f"addr del {ADDRESS}/24 dev {INTERFACE}")  # as a network manager does once the cable is out
            await ip(f"link set {INTERFACE} down")
            await ip("link set lo down")  # nor is there a way inside the machine
            await running.until(lambda: running.document("call")["state"] == "Reconnecting", 3.3)
            lost = asyncio.get_running_loop().time()
            await running.until(lambda: running.document("call")["state"] == "Disconnected", 8)
            assert 4.5 < asyncio.get_running_loop().time() - lost < 7
            (ended,) = [one for one in running.events if one.type == "call.ended"]
            assert (ended.data["reason"]["code"], ended.data["reason"]["subCode"]) == (496, "networkLost")
            assert not running.document("roster")["participants"]


@pytest.mark.parametrize(("seconds", "lost"), [(2.0, False), (10.0, True)])
async def test_a_cut_of_the_network(tmp_path: Path, seconds: float, lost: bool) -> None:
    """Of two seconds nothing is left but a gap; from three seconds on the room is joined again."""
    async with (
        changed_network(), janus(tmp_path) as server, device(server.url, "door", 440) as door,
        device(server.url, "gate", 880) as gate,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        await gate.sees("Door")
        cut = asyncio.get_running_loop().time()
        await ip("link set lo down")  # all of this machine's own traffic, whatever its address
        await asyncio.sleep(seconds)
        await ip("link set lo up")
        back = asyncio.get_running_loop().time()
        if lost:
            await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are back")
            assert 2.5 < door.when(api.Lost) - cut < 3.3
            assert door.when(api.Recovered) - back < 5
        await door.sees("Gate")
        await gate.sees("Door")
        await door.hears(880)
        assert bool(door.of(api.Lost)) is lost
        assert not door.of(api.Ended)
        await same_as_server(server, door)
