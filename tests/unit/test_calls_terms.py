"""Role and opening times of a room at the controller, on virtual time: kept before the provider is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.calls.terms import FREE, Terms, rules_of, terms_of
from appliance.errors import EdgecallError, Refused, SettingsError
from appliance.providers.api import MediaWanted
from appliance.settings import JanusRoomSettings
from appliance.settings.loading import Source, parse
from appliance.vocabulary import Json, Role
from tests.support.calls import House, in_room, settle
from tests.support.clock import virtual_time

ROOM = "room:1234"
LISTENS = MediaWanted(send_audio=False, send_video=False, listens_only=True, view={})
OPENS, CLOSES = 1000.0, 2000.0


def able(house: House, name: str) -> Json:
    found: Json = house.call["capabilities"][name]
    return found


def test_terms_are_those_of_the_settings_by_name_and_by_id() -> None:
    rules = rules_of((
        JanusRoomSettings(name="lobby", id="1234", role="consumer", valid_from="1970-01-01T01:00:00+01:00"),
        JanusRoomSettings(name="desk", id="1234", role="presenter", valid_until="1970-01-01T00:00:05Z"),
    ))
    assert rules == {
        "room:lobby": Terms(Role.CONSUMER, 0.0, None), "room:desk": Terms(Role.PRESENTER, None, 5.0),
        "room:1234": Terms(Role.CONSUMER, 0.0, None)}


def test_rooms_of_the_two_kinds_may_have_the_same_id() -> None:
    rules = rules_of((
        JanusRoomSettings(name="lobby", id="77"),
        JanusRoomSettings(name="hall", id="77", kind="audio", role="consumer"),
    ))
    sound = Terms(Role.CONSUMER, sound_alone=True)
    assert rules == {"room:lobby": FREE, "room:77": FREE, "audio:77": sound, "audio:hall": sound, "room:hall": sound}
    assert terms_of(rules, "room:99") == FREE
    assert terms_of(rules, "audio:99") == Terms(sound_alone=True)
    assert Terms(sound_alone=True).permit(MediaWanted()) == MediaWanted(send_video=False, receive_video=False)
    assert sound.permit(MediaWanted()) == MediaWanted(False, False, True, False, listens_only=True)


@pytest.mark.parametrize(("line", "why"), [
    ('valid_until = "2026-12-01T08:00:00+01:00"', "must be later than valid_from"),
    ('valid_until = "2026-12-24T18:00:00"', "must say its offset from UTC"),
    ('valid_until = "9999-12-31T23:59:59-12:00"', "must be in the years 1 to 9999"),
    ('valid_until = "Christmas"', "must be a time of RFC 3339"), ('role = "guest"', "must be one of presenter"),
    ('kind = "text"', "must be one of video, audio")])
def test_faults_of_the_settings_are_told(tmp_path: Path, line: str, why: str) -> None:
    text = ('[janus]\nurl = "wss://rooms.example.org"\n[[janus.rooms]]\nname = "lobby"\nid = "1234"\n'
            f'valid_from = "2026-12-01T07:00:00Z"\n{line}\n')
    with pytest.raises(SettingsError, match=why):
        parse(Source(tmp_path / "edgecall.toml", text), data_dir=tmp_path)


@pytest.mark.parametrize(("terms", "open_at"), [
    (FREE, (0.0, 1e9)), (Terms(opens=OPENS), (1000.0, 1e9)), (Terms(closes=CLOSES), (0.0, 1999.9)),
    (Terms(opens=OPENS, closes=CLOSES), (1000.0, 1999.9))])
def test_a_room_is_open_from_and_up_to_its_times(terms: Terms, open_at: tuple[float, float]) -> None:
    assert [terms.closed(wall) for wall in open_at] == [None, None]
    if terms.opens is not None:
        early = terms.closed(999.9)
        assert early is not None
        assert early.key == "403/outsideSchedule"
        assert "1970-01-01T00:16:40" in early.message
    if terms.closes is not None:
        late = terms.closed(2000.0)
        assert late is not None
        assert "closed since 1970-01-01T00:33:20" in late.message


@virtual_time
async def test_a_consumer_sends_nothing_and_may_not_begin_to(tmp_path: Path) -> None:
    async with House(tmp_path, rules={ROOM: Terms(Role.CONSUMER)}) as house:
        leg = await in_room(house)
        assert house.provider.media == [LISTENS]
        assert leg.media[-1] == LISTENS
        assert house.studio.muted
        assert not house.studio.warm
        assert (house.call["role"], house.call["isMuted"], house.call["mutedBy"]) == ("Consumer", True, "policy")
        assert not house.call["isLocalVideoStarted"]
        asked = len(leg.media)
        for verb, name in (("call.unmute", "unmuteMic"), ("video.start", "turnVideoOn")):
            assert able(house, name) == {"isPresent": False, "reason": "RoleRestricted"}
            with pytest.raises(Refused, match="Consumer") as refused:
                await house.give(verb)
            assert refused.value.key == "403/RoleRestricted"
        await settle()
        assert len(leg.media) == asked
        await house.give("call.hangup")
        await settle()
        assert able(house, "unmuteMic")["isPresent"] is False  # of the call that is over


@virtual_time
async def test_the_role_is_of_the_room_alone(tmp_path: Path) -> None:
    async with House(tmp_path, rules={ROOM: Terms(Role.CONSUMER)}) as house:
        await in_room(house)
        await house.give("call.hangup")
        await settle()
        house.provider.dialled.clear()
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        house.provider.legs[-1].up()
        await dialling
        assert house.provider.media[-1] == MediaWanted()
        assert (house.call["role"], house.call["mutedBy"]) == ("Attendee", "")
        assert not house.studio.muted
        assert able(house, "hangUpForEveryOne") == {"isPresent": True, "reason": "Capable"}


@virtual_time
async def test_an_attendee_may_send_but_not_end_it_for_all(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        assert leg.media[-1] == MediaWanted(view={})
        assert able(house, "turnVideoOn")["isPresent"]
        assert able(house, "hangUpForEveryOne") == {"isPresent": False, "reason": "RoleRestricted"}


@virtual_time
async def test_outside_its_times_a_room_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    async with House(tmp_path, rules={ROOM: Terms(opens=OPENS, closes=CLOSES)}) as house:
        for wall in (999.0, 2000.0):
            house.wall = wall
            with pytest.raises(Refused) as refused:
                await house.give("room.join", target="1234")
            assert refused.value.key == "403/outsideSchedule"
        # of several targets the others are called all the same
        dialling = house.giving("call.dial", targets=[ROOM, "operator:desk"])
        await house.provider.dialled.wait()
        assert [target.uri for target in house.provider.targets] == ["operator:desk"]
        house.provider.legs[0].up()
        await dialling


@virtual_time
async def test_a_room_that_closes_is_left(tmp_path: Path) -> None:
    async with House(tmp_path, rules={ROOM: Terms(closes=CLOSES)}) as house:
        house.wall = 1900.0
        leg = await in_room(house)
        for _ in range(4):  # the wall clock goes as slowly as in a dream, and then jumps
            await asyncio.sleep(60)
            assert house.call["state"] == "Connected"
        house.wall = 2000.0
        await asyncio.sleep(60)
        assert leg.ended is not None
        assert leg.ended.key == "403/outsideSchedule"
        assert (house.call["state"], house.reason) == ("Disconnected", "403/outsideSchedule")


@virtual_time
async def test_no_answer_of_the_server_without_a_network_is_the_networks_fault(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        house.bulletin.set("net", {"online": False})
        house.provider.offline.add(ROOM)
        with pytest.raises(EdgecallError) as failed:
            await house.give("room.join", target="1234")
        assert failed.value.key == "480/unreachable"  # known otherwise
        house.provider.refusal = Refused("not reached", code=503, sub_code="provider")
        with pytest.raises(EdgecallError) as failed:
            await house.give("room.join", target="1234")
        assert failed.value.key == "496/networkLost"
