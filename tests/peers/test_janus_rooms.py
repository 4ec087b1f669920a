"""Rooms of a real Janus, with real browsers and other appliances as the people in them."""

from __future__ import annotations

import asyncio
import random
import ssl
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.settings import Secret
from appliance.vocabulary import END_REASONS
from tests.support.appliance import Appliance
from tests.support.browser import Chromium, chromium, wait_for
from tests.support.house import Running, house, start_of
from tests.support.impair import Conditions
from tests.support.interface import ADDRESS, INTERFACE, changed_network, ip, watching
from tests.support.janus import ADMIN
from tests.support.janus_between import between
from tests.support.lag import lateness
from tests.support.room_device import ANEW_S, H264, ROOM, device, janus, same_as_server
from tests.support.room_page import room_page
from tests.support.rough_way import rough_way
from tests.support.turnserver import Authority
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DEVICE_HERTZ = 440.0
PAGE_HERTZ = 880.0
LEAVE = END_REASONS["0/local"]
SENDS = api.MediaWanted(receive_audio=False, receive_video=False)


async def cut() -> None:
    await ip(f"link set {INTERFACE} down")
    await ip("link set lo down")  # nor is there a way inside the machine


async def mended() -> None:
    await ip("link set lo up")
    await ip(f"link set {INTERFACE} up")


async def in_state(running: Running, state: str, within_s: float) -> None:
    await running.until(lambda: running.document("call")["state"] == state, within_s)


async def test_a_browser_and_the_device_see_and_hear_each_other_in_a_room(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, device(server.url, "door", DEVICE_HERTZ, height=360) as door, room_page() as url,
        chromium(PAGE_HERTZ) as browser, lateness() as late,
    ):
        begun, late_before = asyncio.get_running_loop().time(), late()
        await door.join()
        await door.connected()
        assert door.when(api.Connected) - begun < 1.0 + late() - late_before
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, ROOM])
        await wait_for(page, "() => people.Olga.streams.Door?.getTracks().length === 2")

        await Chromium.listen(page, "people.Olga.streams.Door")
        await Chromium.hears(page, DEVICE_HERTZ)
        counters = await Chromium.sees_moving(page, "video#Door")
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
        for room in ("99", "nosuch", "-5", "9" * 200, "003", f"0{ROOM}"):
            await door.join(room)
            assert await door.ended() == "404/noSuchRoom"
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
        janus(tmp_path, {"lobby": H264, "7": H264, "007": H264}) as server, device(server.url, "door") as door,
        device(server.url, "gate") as gate, server.control() as control,
    ):
        made = await control.request({
            "request": "create", "room": "hall", "admin_key": ADMIN, **H264, "dummy_publisher": True,
            "dummy_streams": [{"codec": "opus"}, {"codec": "h264", "fmtp": "profile-level-id=42e01f"}]})
        assert made["videoroom"] == "created", made
        assert [one["dummy"] for one in await control.participants("hall")] == [True]
        for room in ("lobby", "7", "007", "hall"):
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
        for room in ("attic", "8", "07"):
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
            joined = await running.give("room.join", target=str(ROOM), constraints={"send": {"frameHeight": 180}})
            assert joined["result"] == "done", joined
            await running.until(lambda: running.document("roster")["participants"])
            assert running.document("call")["kind"] == "Room"
            await running.until(lambda: running.document("roster")["participants"][0]["videoStreams"][0]["isReceiving"])
            assert running.document("roster")["participants"][0]["displayName"] == "Gate"
            await gate.sees("Edgecall")
            shown = gate.tiles["Edgecall"].picture
            assert shown is not None
            assert shown.height == 180
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
                await other.join(media=SENDS)
                await other.connected()
                inside.add(other.name)
            labels = {name.title() for name in inside}
            await until(lambda labels=labels: set(door.members) == labels == set(door.tiles),  # type: ignore[misc]
                        f"{sorted(labels)} at the door, and nobody else")
            await door.sees(*labels)
            await same_as_server(server, door)
        assert not door.of(api.Lost)
        assert not door.of(api.Ended)


async def test_one_whose_machine_stands_still_is_reconnecting_until_the_room_drops_it(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, general={"session_timeout": 8, "reclaim_session_timeout": 0}) as server,
        device(server.url, "door", DEVICE_HERTZ) as door, room_page() as url, chromium(PAGE_HERTZ) as browser,
    ):
        await door.join()
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, ROOM])
        await door.sees("Olga")
        browser.freeze()
        try:
            await until(lambda: door.members["Olga"].away, "she is reconnecting", 5)
            await same_as_server(server, door)
            await until(lambda: "Olga" not in door.members, "the room has dropped her", 20)
            await same_as_server(server, door)
        finally:
            browser.thaw()
        assert not door.of(api.Lost), "we are kept by our own signs of life"


async def test_fifty_who_send_nothing_stand_in_the_roster(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    rooms = {ROOM: {**H264, "publishers": 60}}
    async with (
        janus(tmp_path / "janus", rooms) as server, Appliance(tmp_path, settings={"janus.url": server.url}) as door,
        AsyncExitStack() as stack, server.control() as control,
    ):
        joined = await door.give("room.join", target=str(ROOM))
        assert joined["result"] == "done", joined

        async def same_as_listed(count: int) -> None:
            def names(state: dict[str, Any]) -> list[str]:
                return sorted(one["displayName"] for one in state["participants"])

            await door.wait_for_state("roster", lambda state: len(state["participants"]) == count)
            listed = await control.participants(ROOM)
            assert names(door.state("roster")) == sorted(
                one["display"] for one in listed if one["display"].startswith("Guest"))

        before = door.own_kib()
        guests = [await stack.enter_async_context(server.control()) for _ in range(50)]
        for number, guest in enumerate(guests):
            await guest.say({"request": "join", "room": ROOM, "ptype": "publisher", "display": f"Guest {number}"})
        await same_as_listed(50)
        assert door.own_kib() - before < 20 * 1024
        await stack.aclose()
        await same_as_listed(0)


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
        await door.sees("Gate", within_s=ANEW_S)
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


@pytest.mark.parametrize("sends", [True, False])
async def test_a_device_alone_notices_within_three_seconds_that_the_way_to_the_server_is_cut(
    tmp_path: Path, sends: bool,
) -> None:
    """Its own link is there. The server, which owes nothing, is asked and does not answer."""
    media = api.MediaWanted(send_audio=sends, send_video=sends, listens_only=not sends)
    async with (
        changed_network(), janus(tmp_path) as server, device(server.url, "door") as door, lateness() as late,
    ):
        await door.join(media=media)
        await door.connected()
        await asyncio.sleep(4)
        assert not door.of(api.Lost), "it answers"
        late_before = late()
        await ip("link set lo down")
        cut = asyncio.get_running_loop().time()
        await until(lambda: door.of(api.Lost), "the loss is told", 15)
        assert door.when(api.Lost) - cut < 3.1 + late() - late_before
        await ip("link set lo up")
        await until(lambda: door.of(api.Recovered), "it is back", 15)
        await same_as_server(server, door)


async def test_who_watches_those_who_send_nothing_notices_within_three_seconds_that_media_are_cut(
    tmp_path: Path,
) -> None:
    """Nothing is due, on a slow way, and messages go on: the connection of media is asked by itself."""
    watches = api.MediaWanted(send_audio=False, send_video=False, listens_only=True)
    async with (
        changed_network(), janus(tmp_path) as server, rough_way(server.url, seed=4) as way,
        device(way.url, "door") as door, device(server.url, "gate", 880) as gate, lateness() as late,
    ):
        await gate.join()
        await door.join(media=watches)
        await door.sees("Gate")
        assert gate.leg is not None
        await gate.leg.set_media(api.MediaWanted(send_audio=False, send_video=False))
        way.change(Conditions(delay_s=0.3))
        await until(lambda: door.members["Gate"].away, "nothing comes of it")
        await asyncio.sleep(4)
        assert not door.of(api.Lost), "the server is there"
        late_before, cut = late(), asyncio.get_running_loop().time()
        way.change(Conditions(dark=True))
        await until(lambda: door.of(api.Lost), "the loss is told", 15)
        assert door.when(api.Lost) - cut < 3.6 + late() - late_before, "0.5 s, or 1.5 round trips, for the last answer"
        way.change(Conditions())
        await until(lambda: door.of(api.Recovered), "it is back", 15)
        await gate.leg.set_media(api.MediaWanted())
        await door.sees("Gate")


@pytest.mark.parametrize("sends", [True, False])
async def test_a_device_alone_knows_at_once_that_its_own_network_is_gone(tmp_path: Path, sends: bool) -> None:
    """Nobody is there whose silence would tell, and of who only watches not even a connection of media."""
    media = api.MediaWanted(send_audio=sends, send_video=sends, listens_only=not sends)
    async with (
        changed_network(), janus(tmp_path) as server, between(server.url, host=ADDRESS) as way,
        device(way.url, "door") as door, watching(door.studio.network_changed, door.provider.network_changed),
    ):
        await door.join(media=media)
        await door.connected()
        await cut()
        await until(lambda: door.of(api.Lost), "the loss is told", 3)
        await mended()
        await until(lambda: door.of(api.Recovered), "it is back", 5)
        await same_as_server(server, door)
        assert not door.of(api.Ended)


async def test_the_whole_appliance_alone_in_a_room_hears_of_its_network_from_its_watch(tmp_path: Path) -> None:
    """Its address goes, and the way by it stays: nothing but the watch of the network tells."""
    (tmp_path / "janus").mkdir()
    authority, gone = Authority(tmp_path), "10.99.0.5"
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue(gone))
    lobby = {"name": "lobby", "id": str(ROOM), "role": "consumer"}
    async with changed_network(), AsyncExitStack() as stack:
        for place in (f"dev {INTERFACE}", "dev lo scope host"):  # on lo none is an address to go out by
            await ip(f"addr add {gone}/32 {place}")
        stack.push_async_callback(ip, f"addr del {gone}/32 dev lo")
        server = await stack.enter_async_context(janus(tmp_path / "janus"))
        way = await stack.enter_async_context(between(server.url, host=gone, tls=tls))
        running = await stack.enter_async_context(house(await start_of(tmp_path, {
            "janus.url": way.url, "janus.ca_file": authority.file, "janus.rooms": [lobby], "mqtt.enabled": False})))
        joined = await running.give("room.join", target="lobby")
        assert joined["result"] == "done", joined
        before = way.connections
        await until(lambda: running.house.network.now is not None, "the first look")
        await ip(f"addr del {gone}/32 dev {INTERFACE}")
        await in_state(running, "Reconnecting", 15)
        await in_state(running, "Connected", 15)
        assert way.connections == before + 1
        await asyncio.sleep(4)
        assert way.connections == before + 1, "the way is there"
        assert running.document("call")["state"] == "Connected"


async def test_a_call_whose_network_stays_away_ends_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with (
        changed_network(), janus(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate,
        lateness() as late,
    ):
        settings = {"janus.url": server.url, "mqtt.enabled": False, "call.reconnect_s": 5}
        await gate.join()
        async with house(await start_of(tmp_path, settings)) as running:
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await gate.sees("Edgecall")
            await running.until(lambda: running.document("roster")["participants"][0]["videoStreams"][0]["isReceiving"])
            await cut()
            dark, late_before = asyncio.get_running_loop().time(), late()
            await in_state(running, "Reconnecting", 15)
            lost = asyncio.get_running_loop().time()
            assert lost - dark < 3.1 + late() - late_before
            await in_state(running, "Disconnected", 8)
            assert 4.5 < asyncio.get_running_loop().time() - lost < 7
            (ended,) = [one for one in running.events if one.type == "call.ended"]
            assert (ended.data["reason"]["code"], ended.data["reason"]["subCode"]) == (496, "networkLost")
            assert not running.document("roster")["participants"]


@pytest.mark.parametrize(("seconds", "lost"), [(2.0, False), (10.0, True)])
async def test_a_cut_of_the_network(tmp_path: Path, seconds: float, lost: bool) -> None:
    """Of two seconds nothing is left but a gap; from three seconds on the room is joined again."""
    async with (
        changed_network(), janus(tmp_path) as server, device(server.url, "door", 440) as door,
        device(server.url, "gate", 880) as gate, lateness() as late,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        await gate.sees("Door")
        before_cut, late_before = asyncio.get_running_loop().time(), late()
        await ip("link set lo down")  # all of this machine's own traffic, whatever its address
        cut = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        await ip("link set lo up")
        back = asyncio.get_running_loop().time()
        if lost:
            await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are back")
            assert door.when(api.Lost) - before_cut > 2.5
            assert door.when(api.Lost) - cut < 3.1 + late() - late_before
            assert door.when(api.Recovered) - back < 5
        await door.sees("Gate")
        await gate.sees("Door")
        await door.hears(880)
        assert bool(door.of(api.Lost)) is lost
        assert not door.of(api.Ended)
        await same_as_server(server, door)
