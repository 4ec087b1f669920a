"""Moderators of rooms of a real Janus: what they do to the device, and what the device does as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.settings import JanusRoomSettings, Secret
from tests.support.house import house, start_of
from tests.support.janus import Control
from tests.support.room_device import H264, ROOM, device, janus
from tests.support.waiting import until

pytestmark = pytest.mark.peer

SECRET = "s3cret"
GUARDED = {ROOM: {**H264, "secret": SECRET}}


async def test_muted_by_a_moderator_nothing_more_is_heard_and_only_the_device_opens_its_microphone(
    tmp_path: Path,
) -> None:
    (tmp_path / "janus").mkdir()
    async with janus(tmp_path / "janus", GUARDED) as server, device(server.url, "gate", 880) as gate:
        await gate.join()
        await gate.connected()
        async with house(await start_of(tmp_path, {"janus.url": server.url, "mqtt.enabled": False})) as running:
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await gate.hears(440)
            door = int(gate.members["Edgecall"].id)

            async with server.control() as control:
                async def moderate(mid: str, *, mute: bool) -> None:
                    answer = await control.request({"request": "moderate", "room": ROOM, "secret": SECRET, "id": door,
                                                    "mid": mid, "mute": mute})
                    assert answer["videoroom"] == "success", answer

                await moderate("0", mute=True)
                await running.until(lambda: running.document("call")["mutedBy"] == "remote")
                assert [one.data["kind"] for one in running.events if one.type == "call.mutedByOthers"] == ["audio"]
                await until(lambda: gate.board.hears()[1] < -60, "silence at the gate")
                await until(lambda: gate.members["Edgecall"].muted, "the gate knows")
                refused = await running.give("call.unmute")
                assert (refused["code"], refused["subCode"]) == (403, "MeetingRestricted"), refused

                await moderate("0", mute=False)
                await running.until(lambda: running.document("call")["capabilities"]["unmuteMic"]["isPresent"])
                assert running.document("call")["isMuted"]
                assert running.house.studio.state()["audio"]["wanted"]["muted"]
                assert gate.board.hears()[1] < -60
                opened = await running.give("call.unmute")
                assert opened["result"] == "done", opened
                await gate.hears(440)

                await moderate("1", mute=True)
                await running.until(lambda: not running.document("call")["isLocalVideoStarted"])
                await running.until(lambda: not running.document("media")["video"]["actual"]["open"])
                refused = await running.give("video.start")
                assert (refused["code"], refused["subCode"]) == (403, "MeetingRestricted"), refused


async def test_a_presenter_with_the_secret_ends_it_for_everyone(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with (
        janus(tmp_path / "janus", GUARDED) as server, device(server.url, "gate", 880) as gate,
        device(server.url, "desk", 660) as desk,
    ):
        secret = tmp_path / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        lobby = {"name": "lobby", "id": str(ROOM), "role": "presenter", "secret_file": str(secret)}
        for one in (gate, desk):
            await one.join()
            await one.connected()
        start = await start_of(tmp_path, {
            "janus.url": server.url, "mqtt.enabled": False, "janus.rooms": [lobby]})
        async with house(start) as running:
            joined = await running.give("room.join", target="lobby")
            assert joined["result"] == "done", joined
            assert running.document("call")["capabilities"]["hangUpForEveryOne"]["isPresent"]
            ended = await running.give("call.hangup", forEveryone=True)
            assert ended["result"] == "done", ended
            for one in (gate, desk):
                assert await one.ended() == "0/removed"
            async with server.control() as control:
                await running.until(lambda: running.document("call")["state"] == "Disconnected")
                await _empty(control)
                await gate.join()  # and the room is there still
                await gate.connected()


async def test_a_presenter_with_the_secret_mutes_others_and_sends_one_away(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with (
        janus(tmp_path / "janus", GUARDED) as server, device(server.url, "gate", 880) as gate,
        device(server.url, "desk", 660) as desk, device(server.url, "door", rooms=(_lobby(SECRET),)) as door,
    ):
        for one in (gate, desk):
            await one.join()
            await one.connected()
        await door.join("lobby")
        await door.connected()
        assert door.leg is not None
        assert door.leg.moderates
        await door.leg.mute_others()
        for one in (gate, desk):
            await until(lambda one=one: one.of(api.Moderated), "told that it is muted")
            assert one.of(api.Moderated)[-1] == api.Moderated(audio=True)
        await until(lambda: all(one.muted for one in door.members.values()), "both stand muted in the roster")
        await gate.hears(440)  # the door alone
        gone = door.members["Desk"].id
        await door.leg.remove(gone)
        assert await desk.ended() == "0/removed"
        await until(lambda: len(door.members) == 1, "one is left")
        assert not gate.of(api.Ended)
        assert not door.of(api.Ended)


async def test_the_wrong_secret_ends_nothing(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, GUARDED) as server, device(server.url, "gate") as gate,
        device(server.url, "door", rooms=(_lobby("wrong"),)) as door,
    ):
        await gate.join()
        await gate.connected()
        await door.join("lobby")
        await door.connected()
        assert door.leg is not None
        assert door.leg.moderates
        with pytest.raises(Refused) as refused:
            await door.leg.end_for_all()
        assert refused.value.key == "403/roomSecret"
        assert not gate.of(api.Ended)
        assert not door.of(api.Ended)


def _lobby(secret: str) -> JanusRoomSettings:
    return JanusRoomSettings("lobby", str(ROOM), secret=Secret(secret))


async def _empty(control: Control) -> None:
    for _ in range(100):
        if not await control.participants(ROOM):
            return
    raise AssertionError("somebody is left in the room")
