"""AudioBridge rooms of a real Janus, which mixes: with a browser and other appliances as the people in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.vocabulary import END_REASONS
from tests.support.audio_page import audio_page
from tests.support.browser import Chromium, chromium, wait_for
from tests.support.house import house, start_of
from tests.support.janus import AUDIO, JanusServer
from tests.support.room_device import Device, device, janus
from tests.support.rough_way import is_media, rough_way
from tests.support.waiting import until

pytestmark = pytest.mark.peer

HALL = 77
SECRET = "s3cret"
ROOMS: dict[int, dict[str, Any]] = {
    HALL: {"description": "Hall", "sampling_rate": 48_000, "secret": SECRET, "audiolevel_event": True,
           "audio_active_packets": 10, "audio_level_average": 40},
    78: {"description": "Closed", "sampling_rate": 16_000, "pin": "4711"}}


@asynccontextmanager
async def hall(folder: Path, **general: Any) -> AsyncIterator[JanusServer]:
    async with janus(folder, audio=ROOMS, **general) as server:
        yield server


async def joins(one: Device, room: int = HALL, **how: Any) -> None:
    await one.join(str(room), scheme="audio", **how)
    await one.connected()


async def same_as_server(server: JanusServer, one: Device) -> None:
    """The roster is the server's own list, without us, and says the same of each."""
    async with server.control(AUDIO) as control:
        def ours(members: Any) -> set[tuple[str, str, bool, bool]]:
            return {(member.id, member.display_name, not member.connecting, member.muted) for member in members}

        theirs: set[tuple[str, str, bool, bool]] = set()
        for _ in range(40):
            theirs = {(str(each["id"]), each["display"], each["setup"], each["muted"])
                      for each in await control.participants(HALL)}
            if len(theirs) == len(one.members) + 1 and ours(one.members.values()) < theirs:
                return
            await asyncio.sleep(0.05)
        raise AssertionError((theirs, one.members))


async def test_a_browser_and_the_device_hear_each_other_and_no_camera_is_opened(tmp_path: Path) -> None:
    async with (
        hall(tmp_path) as server, device(server.url, "door", 440) as door, audio_page() as url,
        chromium(880) as browser,
    ):
        await joins(door)
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, HALL])
        await wait_for(page, "() => people.Olga.stream")
        await Chromium.listen(page, "people.Olga.stream")
        await Chromium.hears(page, 440)
        await door.hears(880)
        assert not door.studio.state()["video"]["actual"]["open"]
        assert not door.board.display.tiles  # type: ignore[union-attr]

        await until(lambda: "Olga" in door.members and not door.members["Olga"].connecting, "Olga is connected")
        olga = door.members["Olga"]
        assert (olga.muted, olga.video, olga.receiving, olga.away) == (False, False, False, False)
        await until(lambda: door.members["Olga"].speaking, "Olga talks")
        await until(lambda: any(levels.levels.get(olga.id, -127) > -45 for levels in door.of(api.Voices)), "her voice")
        await same_as_server(server, door)

        await page.evaluate("() => people.Olga.configure({ muted: true })")
        await until(lambda: door.members["Olga"].muted and not door.members["Olga"].speaking, "Olga is muted")
        await until(lambda: door.board.hears()[1] < -60, "nothing of her is heard")
        assert door.leg is not None
        await door.leg.tell(muted=True, held=False, video=False)
        await wait_for(page, "() => people.Olga.of('Door').muted")
        await Chromium.hears_silence(page)
        await door.leg.tell(muted=False, held=False, video=False)
        await wait_for(page, "() => !people.Olga.of('Door').muted")
        await Chromium.hears(page, 440)

        await page.evaluate("() => people.Olga.configure({ display: 'Olga P.' })")
        await until(lambda: set(door.members) == {"Olga P."}, "she has another name")
        await same_as_server(server, door)

        await page.evaluate("() => exit('Olga')")
        await until(lambda: not door.members, "nobody left")
        assert not door.of(api.Lost)
        await door.leg.end(END_REASONS["0/local"])
        assert await door.ended() == "0/local"


@pytest.mark.parametrize("sent", [True, False])
async def test_who_is_not_heard_or_hears_nothing_though_the_server_is_there_joins_again(
    tmp_path: Path, sent: bool,
) -> None:
    async with (
        hall(tmp_path) as server, rough_way(server.url, seed=6) as way, device(way.url, "door", 440) as door,
        device(server.url, "gate", 880) as gate,
    ):
        await joins(door)
        await joins(gate)
        await door.hears(880)
        await gate.hears(440)
        before, ear = way.publisher, gate if sent else door
        way.drop(before, is_media, sent=sent)
        await until(lambda: ear.board.hears()[1] < -60, "nothing is heard")
        await until(lambda: way.publisher != before, "another connection")
        await until(lambda: door.of(api.Recovered), "it is back")
        await gate.hears(440)
        await door.hears(880)
        await same_as_server(server, door)
        assert len(door.of(api.Lost)) == 1
        assert not gate.of(api.Lost)


async def test_a_server_whose_ids_are_text(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, audio={str(room): settings for room, settings in ROOMS.items()}) as server,
        device(server.url, "door", 440) as door, device(server.url, "gate", 880) as gate,
    ):
        await joins(door)
        await joins(gate)
        await door.hears(880)
        assert not door.members["Gate"].id.isdigit()


async def test_of_three_each_hears_the_other_two(tmp_path: Path) -> None:
    async with (
        hall(tmp_path) as server, device(server.url, "door", 440) as door, device(server.url, "gate", 880) as gate,
        device(server.url, "desk", 1320) as desk,
    ):
        for one in (door, gate, desk):
            await joins(one)
        desk.studio.mute(True)
        await door.hears(880)
        await gate.hears(440)
        desk.studio.mute(False)
        door.studio.mute(True)
        await gate.hears(1320)
        await same_as_server(server, gate)
        assert set(gate.members) == {"Door", "Desk"}


async def test_who_only_listens_hears_and_is_muted(tmp_path: Path) -> None:
    async with (
        hall(tmp_path) as server, device(server.url, "door", 440) as door, device(server.url, "gate", 880) as gate,
    ):
        await joins(gate)
        await joins(door, media=api.MediaWanted(False, False, listens_only=True))
        await door.hears(880)
        await until(lambda: "Door" in gate.members and gate.members["Door"].muted, "the door is muted")
        await until(lambda: gate.board.hears()[1] < -60, "nothing of the door is heard")
        assert not any(one["type"] == "outbound-rtp" for one in await door.stats())


async def test_each_refusal_has_its_own_reason(tmp_path: Path) -> None:
    async with hall(tmp_path) as server, device(server.url, "door") as door:
        for room, pin, key in (("99", "", "404/noSuchRoom"), ("nosuch", "", "404/noSuchRoom"),
                               ("78", "", "403/wrongPin"), ("78", "1", "403/wrongPin")):
            await door.join(room, pin=pin, scheme="audio")
            assert await door.ended() == key
        await door.join(str(HALL))  # of the other plug-in there is none by this id
        assert await door.ended() == "404/noSuchRoom"
        await joins(door, 78, pin="4711")
        assert door.leg is not None
        with pytest.raises(Refused) as refused:
            await door.leg.send("chat", "hello")
        assert (refused.value.code, refused.value.sub_code) == (501, "FeatureNotSupported")
    async with device(server.url, "late") as late:
        await late.join(str(HALL), scheme="audio")
        assert await late.ended() == "503/provider"


async def test_whom_the_rooms_list_of_tokens_does_not_have_is_told_so(tmp_path: Path) -> None:
    async with hall(tmp_path) as server, device(server.url, "door") as door:
        async with server.control(AUDIO) as control:
            listed = await control.request(
                {"request": "allowed", "room": HALL, "secret": SECRET, "action": "enable", "allowed": ["t0ken"]})
            assert listed["audiobridge"] == "success", listed
        await door.join(str(HALL), scheme="audio")
        assert await door.ended() == "403/notInvited"


async def test_the_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with (
        hall(tmp_path) as server, device(server.url, "door", 440) as door, device(server.url, "gate", 880) as gate,
    ):
        for one in (door, gate):
            await joins(one)
        await door.hears(880)
        assert door.leg is not None
        await door.leg.tell(muted=False, held=True, video=False)
        await until(lambda: gate.members["Door"].muted, "the door is on hold")
        await server.kill()
        killed = asyncio.get_running_loop().time()
        await until(lambda: door.of(api.Lost) and gate.of(api.Lost), "both reconnect", 3)
        assert not door.members
        await server.start()
        back = asyncio.get_running_loop().time()
        await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are back", 8)
        await until(lambda: "Door" in gate.members and gate.members["Door"].muted, "and the door is on hold still")
        await door.leg.tell(muted=False, held=False, video=False)
        await door.hears(880)
        await gate.hears(440)
        await same_as_server(server, door)
        assert door.when(api.Lost) - killed < 3
        assert door.when(api.Recovered) - back < 5
        assert not door.of(api.Ended)


async def test_removed_by_a_moderator_and_the_room_destroyed(tmp_path: Path) -> None:
    async with hall(tmp_path) as server, device(server.url, "door") as door, device(server.url, "gate") as gate:
        for one in (door, gate):
            await joins(one)
        await until(lambda: "Door" in gate.members, "the door is there")
        async with server.control(AUDIO) as control:
            guarded = {"room": HALL, "secret": SECRET}
            await control.request({"request": "kick", **guarded, "id": int(gate.members["Door"].id)})
            assert await door.ended() == "0/removed"
            await until(lambda: not gate.members, "the one who was removed is gone")
            await control.request({"request": "destroy", **guarded})
            assert await gate.ended() == "0/endedForAll"


async def test_the_appliance_in_a_room_of_sound_alone(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    room = {"name": "hall", "id": str(HALL), "kind": "audio"}
    async with hall(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate:
        await joins(gate)
        start = await start_of(
            tmp_path, {"janus.url": server.url, "janus.rooms": [room], "mqtt.enabled": False})
        async with house(start) as running:
            await running.give("call.mute")
            for verb, whom in (("room.join", {"target": "hall"}), ("room.join", {"target": f"audio:{HALL}"}),
                               ("call.dial", {"to": f"audio:{HALL}"})):
                joined = await running.give(verb, **whom)
                assert joined["result"] == "done", joined
                await running.until(lambda: [
                    (one["displayName"], one["state"]) for one in running.document("roster").get("participants", ())
                ] == [("Gate", "Connected")])
                call = running.document("call")
                assert (call["kind"], call["isLocalVideoStarted"]) == ("Room", False)
                able = call["capabilities"]
                assert [able[name] for name in ("turnVideoOn", "shareScreen", "raiseHand", "startRecording")] == 4 * [
                    {"isPresent": False, "reason": "FeatureNotSupported"}]
                assert able["unmuteMic"]["isPresent"]
                refused = await running.give("video.start")
                assert (refused["code"], refused["subCode"]) == (501, "FeatureNotSupported"), refused
                assert "sound alone" in refused["message"]
                assert not running.document("media")["video"]["actual"]["open"]
                await gate.hears(440)
                muted = await running.give("call.mute")
                assert muted["result"] == "done"
                await until(lambda: gate.members["Edgecall"].muted, "the server tells that it is muted")
                await running.give("call.unmute")
                await until(lambda: not gate.members["Edgecall"].muted, "and that it is not")
                left = await running.give("room.leave")
                assert left["result"] == "done"
                await running.until(lambda: running.document("call")["state"] == "Disconnected")
                await until(lambda: not gate.members, "the appliance has left")


async def test_muted_by_a_moderator_alone_or_with_everybody_only_the_device_opens_its_microphone(
    tmp_path: Path,
) -> None:
    (tmp_path / "janus").mkdir()
    async with hall(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate:
        await joins(gate)
        async with house(await start_of(tmp_path, {"janus.url": server.url, "mqtt.enabled": False})) as running:
            joined = await running.give("room.join", target=f"audio:{HALL}")
            assert joined["result"] == "done", joined
            await gate.hears(440)
            door = int(gate.members["Edgecall"].id)
            async with server.control(AUDIO) as control:
                for word, whom in (("mute", {"id": door}), ("mute_room", {})):
                    asked = {"request": word, "room": HALL, "secret": SECRET, **whom}
                    assert (await control.request(asked))["audiobridge"] == "success"
                    await running.until(lambda: running.document("call")["mutedBy"] == "remote")
                    await until(lambda: gate.board.hears()[1] < -60, "silence at the gate")
                    refused = await running.give("call.unmute")
                    assert (refused["code"], refused["subCode"]) == (403, "MeetingRestricted"), refused
                    await control.request({**asked, "request": f"un{word}"})
                    await running.until(lambda: running.document("call")["capabilities"]["unmuteMic"]["isPresent"])
                    assert running.document("call")["isMuted"]
                    await until(lambda: gate.members["Edgecall"].muted, "it says that it is muted still")
                    assert gate.board.hears()[1] < -60
                    opened = await running.give("call.unmute")
                    assert opened["result"] == "done", opened
                    await gate.hears(440)
            assert [one.data["kind"] for one in running.events if one.type == "call.mutedByOthers"] == 2 * ["audio"]


async def test_who_talks_has_the_floor(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with (
        hall(tmp_path / "janus") as server, device(server.url, "one", 440) as one,
        device(server.url, "two", 660) as two,
    ):
        others = {other.name.title(): other for other in (one, two)}
        for other in others.values():
            other.studio.mute(True)
            await joins(other)
        async with house(await start_of(tmp_path, {"janus.url": server.url, "mqtt.enabled": False})) as running:
            joined = await running.give("room.join", target=f"audio:{HALL}")
            assert joined["result"] == "done", joined

            def names(ids: Any) -> list[str]:
                known = {each["participantId"]: each["displayName"]
                         for each in running.document("roster").get("participants", ())}
                return [known.get(each, "") for each in ids]

            def speaking() -> set[str]:
                return {each["displayName"] for each in running.document("roster").get("participants", ())
                        if each["isSpeaking"]}

            for name in ("One", "Two", "One"):
                others[name].studio.mute(False)
                await running.until(
                    lambda name=name: names(running.document("roster").get("dominantSpeakers", ()))[:1] == [name])
                await running.until(lambda name=name: speaking() == {name})  # type: ignore[misc]
                others[name].studio.mute(True)
                await running.until(lambda: not speaking())


async def test_a_presenter_with_the_secret_ends_it_for_everyone(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    room = {"name": "hall", "id": str(HALL), "kind": "audio", "role": "presenter", "secret_file": str(secret)}
    async with hall(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate:
        await joins(gate)
        start = await start_of(
            tmp_path, {"janus.url": server.url, "janus.rooms": [room], "mqtt.enabled": False})
        async with house(start) as running:
            joined = await running.give("room.join", target="hall")
            assert joined["result"] == "done", joined
            ended = await running.give("call.hangup", forEveryone=True)
            assert ended["result"] == "done", ended
            assert await gate.ended() == "0/removed"
            async with server.control(AUDIO) as control:
                assert not await control.participants(HALL)
