"""What a moderator of a room does to us, and we to others, at the controller, on virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.calls.terms import Terms
from appliance.errors import BadRequest, Refused
from appliance.providers.api import Lost, Members, Moderated, Recovered
from appliance.vocabulary import END_REASONS, Json, Role
from tests.support.calls import House, in_room, settle
from tests.support.clock import virtual_time
from tests.unit.test_calls_rooms import OLGA

PRESENTER = {"room:1234": Terms(Role.PRESENTER)}


def able(house: House, name: str) -> Json:
    found: Json = house.call["capabilities"][name]
    return found


@virtual_time
async def test_muted_by_a_moderator_nothing_is_sent_and_only_we_unmute(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        leg.peer_does(Moderated(audio=True))
        await settle()
        assert house.studio.muted
        assert (house.call["isMuted"], house.call["mutedBy"]) == (True, "remote")
        assert house.posted("call.mutedByOthers") == [{"callId": house.call["callId"], "kind": "audio"}]
        assert able(house, "unmuteMic") == {"isPresent": False, "reason": "MeetingRestricted"}
        with pytest.raises(Refused, match="moderator") as refused:
            await house.give("call.unmute")
        assert refused.value.key == "403/MeetingRestricted"
        assert house.studio.muted

        leg.peer_does(Moderated())  # the moderator lets go: nothing opens by itself
        await settle()
        assert house.studio.muted
        assert house.call["mutedBy"] == "remote"
        assert able(house, "unmuteMic")["isPresent"]
        await house.give("call.unmute")
        assert not house.studio.muted
        assert (house.call["isMuted"], house.call["mutedBy"]) == (False, "")
        assert len(house.posted("call.mutedByOthers")) == 1


@virtual_time
async def test_a_picture_that_a_moderator_takes_away_closes_the_camera(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        leg.peer_does(Moderated(video=True))
        await settle()
        assert (leg.media[-1].send_audio, leg.media[-1].send_video) == (True, False)
        assert not house.call["isLocalVideoStarted"]
        assert not house.call["isMuted"]
        assert [one["kind"] for one in house.posted("call.mutedByOthers")] == ["video"]
        with pytest.raises(Refused) as refused:
            await house.give("video.start")
        assert refused.value.key == "403/MeetingRestricted"
        leg.peer_does(Moderated())
        await settle()
        assert not leg.media[-1].send_video
        await house.give("video.start")
        await settle()
        assert leg.media[-1].send_video


@virtual_time
async def test_muted_by_ourselves_and_by_a_moderator_is_two_things(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        await house.give("call.mute")
        leg.peer_does(Moderated(audio=True), Moderated())
        await settle()
        assert (house.call["mutedBy"], house.studio.muted) == ("local", True)
        leg.peer_does(Lost("media"), Moderated(), Recovered())
        await settle()
        assert house.studio.muted
        await house.give("call.unmute")
        assert not house.studio.muted


@virtual_time
async def test_hanging_up_for_everyone(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        assert able(house, "hangUpForEveryOne") == {"isPresent": False, "reason": "NotCapable"}
        with pytest.raises(Refused, match="secret") as refused:
            await house.give("call.hangup", forEveryone=True)
        assert refused.value.key == "403/NotCapable"
        await house.give("call.hangup", forEveryone=False)
        await settle()
        assert leg.ended == END_REASONS["0/local"]
        assert leg.ended_for_all is False


@virtual_time
async def test_hanging_up_for_everyone_where_the_room_lets_us(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        leg.moderates = True
        leg.ended_for_all = Refused("the secret is wrong", code=403, sub_code="secret")
        with pytest.raises(Refused, match="secret is wrong"):
            await house.give("call.hangup", forEveryone=True)
        assert house.call["state"] == "Connected"
        leg.ended_for_all = False
        await house.give("call.hangup", forEveryone=True)
        await settle()
        assert leg.ended_for_all is True
        assert (house.call["state"], house.reason) == ("Disconnected", "0/local")


@virtual_time
async def test_an_attendee_does_not_end_it_for_everyone(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        leg.moderates = True
        with pytest.raises(Refused) as refused:
            await house.give("call.hangup", forEveryone=True)
        assert refused.value.key == "403/RoleRestricted"
        assert (leg.ended_for_all, leg.ended) == (False, None)


@virtual_time
async def test_a_call_of_two_ends_for_both(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        leg = house.provider.legs[0]
        leg.up()
        await dialling
        await house.give("call.hangup", forEveryone=True)
        await settle()
        assert leg.ended == END_REASONS["0/local"]


@virtual_time
async def test_a_moderator_mutes_others_and_sends_them_away(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        leg.moderates = True
        leg.peer_does(Members((OLGA,)))
        await settle()
        await house.give("call.raiseHand")
        assert able(house, "muteOthers")["isPresent"]
        assert able(house, "removeParticipant")["isPresent"]
        await house.give("call.muteOthers")
        await house.give("call.muteOthers", participantId=OLGA.id)
        await house.give("call.remove", participantId=OLGA.id)
        assert leg.ordered == [("mute", None), ("mute", OLGA.id), ("remove", OLGA.id)]
        for verb in ("call.muteOthers", "call.remove"):
            with pytest.raises(BadRequest) as nobody:
                await house.give(verb, participantId="99")
            assert nobody.value.key == "404/notFound"
        assert len(leg.ordered) == 3
        assert house.call["state"] == "Connected"


@virtual_time
@pytest.mark.parametrize(("verb", "args"), [("call.muteOthers", {}), ("call.remove", {"participantId": OLGA.id})])
async def test_who_is_no_moderator_orders_nothing(tmp_path: Path, verb: str, args: Json) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        leg.peer_does(Members((OLGA,)))
        await settle()
        with pytest.raises(Refused, match="secret") as refused:
            await house.give(verb, **args)
        assert refused.value.key == "403/NotCapable"
        assert leg.ordered == []
    (tmp_path / "attendee").mkdir()
    async with House(tmp_path / "attendee") as house:
        leg = await in_room(house)
        leg.moderates = True
        leg.peer_does(Members((OLGA,)))
        await settle()
        with pytest.raises(Refused) as refused:
            await house.give(verb, **args)
        assert refused.value.key == "403/RoleRestricted"
        assert leg.ordered == []
    (tmp_path / "two").mkdir()
    async with House(tmp_path / "two") as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        house.provider.legs[-1].up()
        await dialling
        with pytest.raises(Refused) as refused:
            await house.give(verb, **args)
        assert refused.value.key == "501/FeatureNotSupported"
