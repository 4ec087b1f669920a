"""A room recorded by its server, at the controller on virtual time: who may, who is told, and how it ends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.calls.recording import ARRIVAL_S
from appliance.calls.terms import Terms
from appliance.errors import Refused
from appliance.media.api import Tone
from appliance.providers.api import DataReceived, Member, Members, Recording
from appliance.vocabulary import END_REASONS, Json, Role
from tests.support.calls import House, ScriptedLeg, in_room, settle
from tests.support.clock import virtual_time

PRESENTER = {"room:1234": Terms(Role.PRESENTER)}
OLGA, OTTO = Member("7", "olga", "Olga"), Member("8", "otto", "Otto")


def told(house: House) -> list[tuple[str, str | None, str | None]]:
    """State, participant, and key of the reason."""
    return [(one["state"], one["participantId"], one["reason"] and one["reason"]["subCode"])
            for one in house.posted("recording.stateChanged")]


def says(leg: ScriptedLeg) -> list[Json]:
    return [json.loads(payload) for channel, payload in leg.sent if channel == "state"]


async def say(leg: ScriptedLeg, who: str, recording: object) -> None:
    leg.peer_does(DataReceived("state", json.dumps({"recording": recording}), who))
    await settle()


@virtual_time
async def test_what_we_have_recorded_is_told_here_and_there(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house, OLGA)
        leg.records = True
        assert await house.give("record.start") == {"isRecordingActive": True}
        await settle()
        assert house.call["isRecordingActive"]
        assert says(leg) == [{"handRaised": False, "muted": False, "recording": True}]
        await asyncio.sleep(6)
        assert len(says(leg)) == 2, "who comes later is told as well"
        await house.give("record.start")  # it is recorded already
        assert await house.give("record.stop") == {"isRecordingActive": False}
        await settle()
        assert not house.call["isRecordingActive"]
        assert says(leg)[-1] == {"handRaised": False, "muted": False}
        await house.give("record.stop")
        assert told(house) == [("Started", None, None), ("Ended", None, None)]


@virtual_time
async def test_who_is_recorded_hears_it_and_so_does_who_comes_later(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        heard = house.studio.announced
        leg = await in_room(house, OLGA)
        leg.records = True
        await house.give("record.start")
        await settle()
        assert heard == [Tone.RECORDED]
        leg.peer_does(Members((replace(OLGA, muted=True),)))
        await settle()
        assert heard == [Tone.RECORDED], "nobody has come"
        leg.peer_does(Members((OLGA, OTTO)))
        await asyncio.sleep(ARRIVAL_S / 2)
        assert len(heard) == 1, "no sound of ours arrives at who has just come"
        await asyncio.sleep(ARRIVAL_S)
        assert heard == [Tone.RECORDED] * 2
        await house.give("record.stop")
        leg.peer_does(Members((OLGA,)))
        leg.peer_does(Members((OLGA, OTTO)))
        await asyncio.sleep(2 * ARRIVAL_S)
        assert len(heard) == 2
        await say(leg, "8", True)
        assert len(heard) == 2, "who records says it"


@virtual_time
async def test_who_comes_one_after_the_other_or_again_hears_it_each(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        heard = house.studio.announced
        leg = await in_room(house)
        leg.records = True
        await house.give("record.start")
        leg.peer_does(Members((OLGA,)))
        await asyncio.sleep(0.75 * ARRIVAL_S)
        leg.peer_does(Members((OLGA, OTTO)))
        await asyncio.sleep(0.5 * ARRIVAL_S)
        assert len(heard) == 2, "Olga's time is over, Otto's is not"
        await asyncio.sleep(ARRIVAL_S)
        assert len(heard) == 3
        leg.peer_does(Members((OLGA,)))
        await asyncio.sleep(2 * ARRIVAL_S)
        assert len(heard) == 3, "to nobody is anything announced"
        leg.peer_does(Members((OLGA, OTTO)))
        await asyncio.sleep(0.5 * ARRIVAL_S)
        leg.peer_does(Members((OLGA,)))
        await asyncio.sleep(2 * ARRIVAL_S)
        assert len(heard) == 3, "he has left before"
        leg.peer_does(Members((OLGA, OTTO)))
        await asyncio.sleep(2 * ARRIVAL_S)
        assert len(heard) == 4


@virtual_time
async def test_who_may_not_is_told_why_before_the_server_is_asked(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        with pytest.raises(Refused) as refused:
            await house.give("record.start")
        assert refused.value.sub_code == "noCall"
        leg = await in_room(house, OLGA)
        with pytest.raises(Refused, match=r"from here; give its secret in the settings$") as refused:
            await house.give("record.start")
        assert refused.value.key == "403/NotCapable"
        leg.records = True
        leg.refuses_recording = Refused("no", code=403, sub_code="roomSecret")
        with pytest.raises(Refused) as refused:
            await house.give("record.start")
        assert refused.value.key == "403/roomSecret"
        assert not told(house)


@virtual_time
async def test_an_attendee_and_a_call_of_two_do_not_record(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        leg.records = True
        with pytest.raises(Refused) as refused:
            await house.give("record.start")
        assert refused.value.key == "403/RoleRestricted"
    async with House(tmp_path / "two") as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        house.provider.legs[-1].up()
        await dialling
        with pytest.raises(Refused) as refused:
            await house.give("record.start")
        assert refused.value.key == "501/FeatureNotSupported"


@virtual_time
async def test_what_others_have_recorded_is_told_and_theirs_to_stop(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house, OLGA, OTTO)
        leg.records = True
        await say(leg, "7", True)
        await say(leg, "7", True)
        assert house.call["isRecordingActive"]
        assert [one["isRecording"] for one in house.bulletin.document("roster")["participants"]] == [True, False]
        with pytest.raises(Refused, match="by Olga") as refused:
            await house.give("record.stop")
        assert refused.value.key == "403/MeetingRestricted"
        await house.give("record.start")
        await settle()
        assert await house.give("record.stop") == {"isRecordingActive": True}, "Olga has"
        await settle()
        assert house.call["isRecordingActive"]
        await say(leg, "8", "yes")  # that says nothing
        leg.peer_does(Members((OTTO,)))
        await settle()
        assert not house.call["isRecordingActive"]
        assert told(house) == [("Started", "7", None), ("Started", None, None), ("Ended", None, None),
                               ("Ended", "7", None)]


@virtual_time
async def test_a_recording_that_is_lost_says_why_and_ends_with_the_call(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house, OLGA)
        leg.records = True
        await house.give("record.start")
        await settle()
        leg.peer_does(Recording(False, END_REASONS["503/provider"]))
        await settle()
        assert not house.call["isRecordingActive"]
        await house.give("record.start")
        await settle()
        await house.give("room.leave")
        await settle()
        assert told(house) == [("Started", None, None), ("Ended", None, "provider"), ("Started", None, None),
                               ("Ended", None, None)]
        assert not house.call["isRecordingActive"]
