"""The controller on virtual time: what the peer sees, what the device shows, and how each call ends."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from appliance.calls.book import Entry
from appliance.errors import EdgecallError, Refused
from appliance.media.api import Tone
from appliance.providers.api import Accepted, Connected, DataReceived, Ended, Lost, Recovered, Ringing
from appliance.vocabulary import END_REASONS
from tests.support.calls import OPERATOR, OPERATORS, House, connected, settle
from tests.support.clock import virtual_time


@virtual_time
async def test_a_call_out_from_dialling_to_hanging_up(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await settle()
        leg = house.provider.legs[0]
        assert (house.call["state"], house.studio.warm) == ("Connecting", True)
        leg.peer_does(Ringing())
        await settle()
        assert (house.call["state"], house.studio.tone) == ("Ringing", Tone.RINGBACK)
        leg.up()
        await dialling
        assert house.call["state"] == "Connected"
        assert house.studio.tone is None
        assert not house.studio.warm  # from now on the leg's media hold the camera, and let it go on hold
        assert house.bulletin.document("roster")["participants"][0]["state"] == "Connected"
        await asyncio.sleep(12)
        record = house.controller.record_so_far(None)
        assert record is not None
        assert (record["state"], record["durationMs"], record["endReason"]) == ("Connected", 12_000, None)
        assert house.controller.record_so_far("call-9") is None
        await house.give("call.hangup")
        await settle()
        assert leg.ended == END_REASONS["0/local"]
        assert (house.call["state"], house.reason, house.call["durationMs"]) == ("Disconnected", "0/local", 12_000)
        assert house.controller.record_so_far(None) is None
        assert house.bulletin.document("roster")["participants"] == []
        assert house.records.past[0]["callId"] == house.call["callId"]
        assert not house.studio.warm


@virtual_time
async def test_a_call_to_everybody_bears_the_books_name_until_somebody_answers(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS]) as house:
        dialling = house.giving("call.dial", to="operator:*")
        await settle()
        assert house.call["callerInfo"]["displayName"] == "Operators"
        house.provider.legs[0].peer_does(Accepted(OPERATOR), Connected())
        await dialling
        assert house.call["callerInfo"]["displayName"] == OPERATOR.display_name
        await house.give("call.hangup")
        await settle()
        dialling = house.giving("call.dial", to="operator:*")
        await settle()
        house.provider.legs[1].peer_does(Ended(END_REASONS["603/declined"]))
        with pytest.raises(EdgecallError):
            await dialling
        record = house.bulletin.document("calls")["calls"][0]
        assert record["callerInfo"]["displayName"] == "Operators"


@virtual_time
async def test_parallel_ringing_first_answer_wins(tmp_path: Path) -> None:
    group = Entry("House", members=("device:anna", "device:ben", "device:carl"), strategy="parallel")
    async with House(tmp_path, entries=[group]) as house:
        house.provider.offline.add("device:carl")
        dialling = house.giving("call.dial", to="House")
        await settle()
        anna, ben = house.provider.legs
        anna.peer_does(Ringing())
        ben.peer_does(Ringing())
        await settle()
        assert len(house.bulletin.document("roster")["participants"]) == 2
        ben.up()
        await dialling
        assert anna.ended == END_REASONS["487/answeredElsewhere"]
        anna.peer_does(Accepted(anna.peer))  # too late, and it must not steal the call
        await settle()
        assert house.call["callerInfo"]["rawId"] == "ben"
        assert [p["rawId"] for p in house.bulletin.document("roster")["participants"]] == ["ben"]


@virtual_time
async def test_after_glare_the_call_goes_on_under_the_id_of_the_other_side(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="device:anna")
        await settle()
        leg, mine = house.provider.legs[0], house.call["callId"]
        leg.peer_does(Accepted(leg.peer, "call-of-anna"), Connected())
        assert await dialling == {"callId": "call-of-anna"}
        assert (house.call["callId"], house.call["state"]) == ("call-of-anna", "Connected")
        assert house.bulletin.document("roster")["callId"] == "call-of-anna"
        assert [event["callId"] for event in house.posted("call.started")] == ["call-of-anna"]
        assert house.posted("call.ended") == []
        await house.give("call.hangup", callId=mine)  # given by one who has not heard of it yet
        await settle()
        assert house.reason == "0/local"


@virtual_time
async def test_sequence_then_fallback_then_no_answer(tmp_path: Path) -> None:
    entries = [Entry("House", members=("device:anna", "device:ben"), ring_s=10, fallback="device:porter")]
    async with House(tmp_path, entries=entries, ring_s=15) as house:
        started = asyncio.get_running_loop().time()
        with pytest.raises(EdgecallError) as failure:
            await house.give("call.dial", to="House")
        assert failure.value.key == "487/noAnswer"
        assert [leg.peer.identity for leg in house.provider.legs] == ["anna", "ben", "porter"]
        assert all(leg.ended == END_REASONS["487/noAnswer"] for leg in house.provider.legs)
        assert asyncio.get_running_loop().time() - started == pytest.approx(35, abs=1)
        assert house.reason == "487/noAnswer"


@virtual_time
async def test_nobody_online_ends_at_once_in_words(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        house.provider.offline.add("operator:desk")
        with pytest.raises(EdgecallError) as failure:
            await house.give("call.dial", to="operator:desk")
        assert failure.value.key == "480/unreachable"
        assert (house.call["state"], house.reason) == ("Disconnected", "480/unreachable")


@virtual_time
async def test_the_last_word_of_those_who_were_called_is_the_reason(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await settle()
        house.provider.legs[0].peer_does(Ended(END_REASONS["603/declined"]))
        with pytest.raises(EdgecallError, match="declined"):
            await dialling
        assert house.reason == "603/declined"


@virtual_time
async def test_hanging_up_while_it_rings_cancels_every_leg(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", targets=["device:anna", "device:ben"], strategy="parallel")
        await settle()
        await house.give("call.hangup")
        with pytest.raises(EdgecallError, match="gave up"):
            await dialling
        assert [leg.ended for leg in house.provider.legs] == [END_REASONS["487/cancelled"]] * 2
        assert house.call["state"] == "Disconnected"


@virtual_time
async def test_a_peer_that_never_says_goodbye_does_not_keep_the_call(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await connected(house)
        leg.says_goodbye = False
        await house.give("call.hangup")
        await settle()
        assert house.call["state"] == "Disconnecting"
        await asyncio.sleep(2.1)
        assert house.call["state"] == "Disconnected"


@virtual_time
async def test_a_lost_peer_comes_back_in_the_same_call(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await connected(house)
        call_id = house.call["callId"]
        leg.peer_does(Lost("media"))
        await settle()
        assert house.call["state"] == "Reconnecting"
        assert house.bulletin.document("roster")["participants"][0]["state"] == "Reconnecting"
        await asyncio.sleep(60)
        leg.peer_does(Recovered())
        await settle()
        assert (house.call["state"], house.call["callId"]) == ("Connected", call_id)
        assert house.posted("media.reconnected")[0]["seconds"] == 60
        await asyncio.sleep(200)  # the timer of the loss is gone
        assert house.call["state"] == "Connected"


@virtual_time
async def test_a_peer_that_stays_lost_ends_the_call_with_the_reason(tmp_path: Path) -> None:
    for online, key in ((True, "410/mediaLost"), (False, "496/networkLost")):
        async with House(tmp_path, reconnect_s=30) as house:
            leg = await connected(house)
            house.bulletin.set("net", {"online": online})
            leg.peer_does(Lost("media"))
            await asyncio.sleep(33)
            assert house.reason == key
            assert leg.ended == END_REASONS[key]


@virtual_time
async def test_media_that_never_comes_ends_the_set_up(tmp_path: Path) -> None:
    async with House(tmp_path, setup_s=10) as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await settle()
        leg = house.provider.legs[0]
        leg.peer_does(Accepted(leg.peer))
        with pytest.raises(EdgecallError) as failure:
            await dialling
        assert failure.value.key == "408/setupTimeout"


@virtual_time
async def test_a_peer_that_floods_data_does_not_flood_the_outbox(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await connected(house)
        leg.peer_does(*(DataReceived("edgecall", str(n)) for n in range(1000)))
        await settle()
        assert 90 <= len(house.posted("data.received")) <= 130
        assert house.call["state"] == "Connected"


@virtual_time
async def test_speaking_is_in_the_roster_and_no_event(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await connected(house)
        before = len(house.posted("call.participant.updated"))
        for speaking in (True, False, True):
            house.controller.note_speaking(speaking)
        assert house.bulletin.document("roster")["participants"][0]["isSpeaking"]
        assert len(house.posted("call.participant.updated")) == before


@virtual_time
async def test_joined_at_is_when_it_was_connected(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await connected(house)
        joined = house.bulletin.document("roster")["participants"][0]["joinedAt"]
        assert datetime.fromisoformat(joined) >= datetime.fromisoformat(house.call["began"])


@virtual_time
async def test_a_late_goodbye_of_the_last_call_leaves_the_roster_of_this_one_alone(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        first = await connected(house)
        first.says_goodbye = False
        await house.give("call.hangup")
        await asyncio.sleep(3)
        dialling = house.giving("call.dial", to="operator:desk")
        await settle()
        house.provider.legs[-1].up()
        await dialling
        assert len(house.bulletin.document("roster")["participants"]) == 1
        first.peer_does(Ended(END_REASONS["0/local"]))
        await settle()
        roster = house.bulletin.document("roster")
        assert (roster["callId"], len(roster["participants"])) == (house.call["callId"], 1)


@virtual_time
async def test_a_late_hangup_cannot_end_the_next_call(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await connected(house)
        with pytest.raises(Refused, match="another one is in progress"):
            await house.give("call.hangup", callId="an-older-call")
        assert house.call["state"] == "Connected"


@virtual_time
async def test_targets_this_device_cannot_reach_are_refused_before_anything_happens(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        with pytest.raises(Refused, match="cannot call sip: addresses") as refusal:
            await house.give("call.dial", to="sip:porter@pbx.example")
        assert refusal.value.sub_code == "FeatureNotSupported"
        assert house.call["state"] == "None"


@virtual_time
async def test_shutting_down_ends_the_call_and_refuses_callers(tmp_path: Path) -> None:
    house = House(tmp_path, entries=[OPERATORS])
    async with house:
        leg = await connected(house)
    assert leg.ended == END_REASONS["503/shutdown"]
    assert house.provider.stopped
    late = house.provider.call_in(OPERATOR, "call-2")
    await settle()
    assert late.ended == END_REASONS["503/shutdown"]


@virtual_time
async def test_the_address_book_is_kept(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.give("book.put", name="Anna", uris=["device:anna"], autoAnswer=True)
        assert (await house.give("book.list") or {})["entries"][0]["autoAnswer"] is True
        assert "Anna" in (tmp_path / "book.json").read_text()
        await house.give("book.remove", name="Anna")
        assert (await house.give("book.list") or {})["entries"] == []
