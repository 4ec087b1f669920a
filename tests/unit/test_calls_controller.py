"""The controller on virtual time: what the peer sees, what the device shows, and how each call ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from appliance.calls.book import Entry
from appliance.errors import EdgecallError, Refused, StoreError
from appliance.media.api import Tone
from appliance.media.ladder import Constraints, Preference
from appliance.providers.api import (
    Accepted,
    Connected,
    DataReceived,
    Ended,
    Held,
    Lost,
    MediaWanted,
    Peer,
    PeerMedia,
    Recovered,
    Ringing,
)
from appliance.vocabulary import END_REASONS, Json
from tests.support.calls import MONDAY_NOON, OPERATOR, House, MemoryRecords, ScriptedLeg, settle
from tests.support.clock import virtual_time

OPERATORS = Entry("Operators", ("operator:*",))


async def connected(house: House) -> ScriptedLeg:
    """A call from the device to the desk, answered."""
    dialling = house.giving("call.dial", to="operator:desk")
    await house.provider.dialled.wait()
    leg = house.provider.legs[-1]
    leg.peer_does(Ringing())
    leg.up()
    assert await dialling == {"callId": house.call["callId"]}
    return leg


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
async def test_an_incoming_call_rings_and_is_answered(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS]) as house:
        leg = house.provider.call_in(OPERATOR)
        await settle()
        assert (house.call["state"], house.studio.tone, leg.rang) == ("Incoming", Tone.RING, True)
        assert house.posted("call.incoming")[0]["callerInfo"]["displayName"] == "Reception"
        answering = house.giving("call.answer", callId="call-1", video=False)
        await settle()
        assert leg.accepted == MediaWanted(send_video=False)
        assert house.studio.tone is None
        leg.up()
        await answering
        assert house.call["state"] == "Connected"


@virtual_time
async def test_an_incoming_call_nobody_takes_is_missed_after_the_ring_time(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS], ring_s=20) as house:
        leg = house.provider.call_in(OPERATOR)
        started = asyncio.get_running_loop().time()
        await leg.over.wait()
        assert asyncio.get_running_loop().time() - started == 20
        await settle()
        assert house.reason == "487/noAnswer"
        assert house.posted("call.missed")[0]["callId"] == "call-1"


@virtual_time
async def test_rejecting_tells_the_caller(tmp_path: Path) -> None:
    for asked, key in ((None, "603/declined"), ("busy", "486/busy")):
        async with House(tmp_path, entries=[OPERATORS]) as house:
            leg = house.provider.call_in(OPERATOR)
            await house.give("call.reject", **({"reason": asked} if asked else {}))
            await settle()
            assert leg.ended == END_REASONS[key]
            assert house.call["state"] == "Disconnected"


@virtual_time
async def test_who_may_not_call(tmp_path: Path) -> None:
    stranger = Peer("eve", "device:eve", "Eve", verified=True)
    async with House(tmp_path, entries=[OPERATORS, Entry("Blocked", ("device:mallory",), allowed=False)]) as house:
        for peer in (stranger, Peer("mallory", "device:mallory", "M", verified=True)):
            leg = house.provider.call_in(peer)
            await settle()
            assert leg.ended == END_REASONS["403/notAllowed"]
        await house.give("dnd.set", on=True)
        leg = house.provider.call_in(OPERATOR)
        await settle()
        assert leg.ended == END_REASONS["480/doNotDisturb"]
        assert house.posted("call.missed")
        assert house.call["state"] == "None"
    async with House(tmp_path, allow_unknown=True) as house:
        leg = house.provider.call_in(stranger)
        await settle()
        assert leg.ended is None
        assert house.call["state"] == "Incoming"


@virtual_time
async def test_do_not_disturb_by_schedule_and_over_a_restart(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS], dnd=("Mon 11:00-13:00",)) as house:
        leg = house.provider.call_in(OPERATOR)
        await settle()
        assert leg.ended == END_REASONS["480/doNotDisturb"]
        await house.give("dnd.set", on=True)
    async with House(tmp_path, entries=[OPERATORS], records=house.records) as again:
        assert again.bulletin.document("device")["doNotDisturb"] is True


@virtual_time
async def test_the_schedule_is_told_when_it_begins_and_ends(tmp_path: Path) -> None:
    async with House(tmp_path, dnd=("Mon 12:30-13:00",)) as house:
        for later, active in ((29, False), (30, True), (59, True), (60, False)):
            house.now = MONDAY_NOON + timedelta(minutes=later)
            await asyncio.sleep(60)
            assert house.bulletin.document("device")["doNotDisturbNow"] is active


@virtual_time
async def test_the_second_caller_hears_busy_and_the_first_call_goes_on(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS]) as house:
        await connected(house)
        second = house.provider.call_in(OPERATOR, "call-2")
        await settle()
        assert second.ended == END_REASONS["486/busy"]
        assert house.call["state"] == "Connected"
        with pytest.raises(Refused, match="a call already"):
            await house.give("call.dial", to="operator:desk")


@virtual_time
async def test_auto_answer_only_for_proven_callers_and_never_without_a_tone(tmp_path: Path) -> None:
    entry = Entry("Desk", ("operator:desk",), auto_answer=True)
    async with House(tmp_path, entries=[entry], auto_answer_delay_s=2.0) as house:
        leg = house.provider.call_in(OPERATOR)
        await asyncio.sleep(1.9)
        assert leg.accepted is None
        assert Tone.AUTO_ANSWER in house.studio.tones
        await asyncio.sleep(0.2)
        assert leg.accepted is not None
        assert house.call["isAutoAnswered"]
    async with House(tmp_path, entries=[entry]) as house:
        leg = house.provider.call_in(Peer("desk", "operator:desk", "claims to be the desk"))
        await asyncio.sleep(10)
        assert leg.accepted is None


class Ledger:
    """A Conclusion that writes down what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, list[Sequence[Json]]]] = []
        self.told: list[Json] = []
        self.broken = False

    def media(self, call_id: str, last: Sequence[Sequence[Json]]) -> Json:
        self.given.append((call_id, list(last)))
        return {"metrics": ["of", call_id]}

    async def tell(self, summary: Json) -> None:
        if self.broken:
            raise StoreError("The data folder is full.")
        self.told.append(summary)


@virtual_time
async def test_a_call_that_ends_is_concluded_with_its_last_report_kept_and_told(tmp_path: Path) -> None:
    ledger = Ledger()
    async with House(tmp_path, entries=[OPERATORS], conclusion=ledger) as house:
        leg = await connected(house)
        leg.report, leg.given_up = [{"type": "inbound-rtp"}], [[{"type": "transport"}]]
        call_id = house.call["callId"]
        leg.peer_does(Ended(END_REASONS["0/remote"]))
        await settle()
        assert ledger.given == [(call_id, [[{"type": "transport"}], [{"type": "inbound-rtp"}]])]
        (told,) = ledger.told
        assert (told["callId"], told["endReason"]["subCode"], told["media"]) == (
            call_id, "remote", {"metrics": ["of", call_id]})
        assert house.records.summaries == {call_id: told}
        assert "media" not in house.records.past[0], "the list of calls stays small"
        ledger.broken = True
        leg = house.provider.call_in(OPERATOR, "call-2")
        await settle()
        leg.peer_does(Ended(END_REASONS["487/cancelled"]))
        await settle()
        assert house.records.summaries["call-2"]["media"] == {"metrics": ["of", "call-2"]}
        assert house.call["state"] == "Disconnected"


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
async def test_mute_is_told_applied_and_beaten_by_the_switch_on_the_device(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await connected(house)
        await house.give("call.mute")
        await settle()
        assert (house.studio.muted, house.call["mutedBy"], leg.told[-1]["muted"]) == (True, "local", True)
        house.controller.hardware_mute(True)
        assert house.call["mutedBy"] == "hardware"
        with pytest.raises(Refused, match="switch on the device") as refusal:
            await house.give("call.unmute")
        assert refusal.value.key == "403/hardwareMuted"
        house.controller.hardware_mute(False)
        assert house.call["mutedBy"] == "local"  # wanted is kept beside actual
        await house.give("call.unmute")
        assert (house.studio.muted, house.call["isMuted"]) == (False, False)
        house.controller.hardware_mute(True)
        await house.give("call.hangup")
        await settle()
        assert house.studio.muted  # the switch holds outside of calls too


@virtual_time
async def test_hold_of_both_sides_stops_media_and_is_told(tmp_path: Path) -> None:
    nothing = MediaWanted(False, False, False, False)
    async with House(tmp_path) as house:
        leg = await connected(house)
        await house.give("call.hold")
        await settle()
        assert (house.call["state"], leg.media[-1], leg.told[-1]["held"]) == ("LocalHold", nothing, True)
        leg.peer_does(Held(True))
        await settle()
        await house.give("call.resume")
        await settle()
        assert (house.call["state"], leg.media[-1]) == ("RemoteHold", nothing)
        leg.peer_does(Held(False))
        await settle()
        assert (house.call["state"], leg.media[-1]) == ("Connected", MediaWanted())
        with pytest.raises(Refused, match="not possible now"):
            await house.give("call.answer")
        assert house.call["state"] == "Connected"


@virtual_time
async def test_video_incoming_mute_data_and_the_peers_own_state(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await connected(house)
        await house.give("video.stop")
        await settle()
        assert (leg.media[-1].send_video, house.call["isLocalVideoStarted"]) == (False, False)
        await house.give("video.start")
        await house.give("call.muteIncoming")
        await house.give("data.send", payload="hello")
        leg.peer_does(PeerMedia(muted=True, video=True), DataReceived("edgecall", "open please"))
        await settle()
        assert house.studio.incoming_muted
        assert leg.sent == [("edgecall", "hello")]
        member = house.bulletin.document("roster")["participants"][0]
        assert (member["isMuted"], member["videoStreams"][0]["isAvailable"]) == (True, True)
        assert house.posted("data.received")[0]["payload"] == "open please"


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
async def test_a_device_without_a_camera_refuses_video_with_the_reason(tmp_path: Path) -> None:
    async with House(tmp_path, features={"turnVideoOn": "this board has no camera"}) as house:
        await connected(house)
        with pytest.raises(Refused, match="no camera") as refusal:
            await house.give("video.start")
        assert refusal.value.sub_code == "FeatureNotSupported"
        assert house.call["capabilities"]["turnVideoOn"] == {"isPresent": False, "reason": "FeatureNotSupported"}
        assert house.call["capabilities"]["blurBackground"]["isPresent"] is False


@virtual_time
async def test_a_telephone_call_leaves_the_camera_closed_and_says_so(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="tel:+4930123456")
        await house.provider.dialled.wait()
        assert not house.studio.warm
        house.provider.legs[0].up()
        await dialling
        assert house.call["isLocalVideoStarted"] is False
        with pytest.raises(Refused, match="a telephone call carries sound alone"):
            await house.give("video.start")
        assert house.call["capabilities"]["turnVideoOn"]["isPresent"] is False


@virtual_time
async def test_an_operator_who_answers_beside_a_telephone_is_seen(tmp_path: Path) -> None:
    both = Entry("Both", members=("Porter", "Desk"), strategy="parallel")
    book = [both, Entry("Porter", ("tel:+4930123456",)), Entry("Desk", ("operator:desk",))]
    async with House(tmp_path, entries=book) as house:
        dialling = house.giving("call.dial", to="Both")
        await settle()
        assert house.studio.warm
        next(leg for leg in house.provider.legs if leg.peer.kind == "voip").up()
        await dialling
        assert house.call["isLocalVideoStarted"] is True


@virtual_time
async def test_a_late_hangup_cannot_end_the_next_call(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await connected(house)
        with pytest.raises(Refused, match="another one is in progress"):
            await house.give("call.hangup", callId="an-older-call")
        assert house.call["state"] == "Connected"


@virtual_time
async def test_without_a_call_there_is_nothing_to_mute(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        for verb in ("call.mute", "call.hangup", "call.answer", "call.hold", "video.stop"):
            with pytest.raises(Refused, match="there is no call"):
                await house.give(verb)


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
async def test_a_call_cut_by_a_crash_gets_its_end_told_once(tmp_path: Path) -> None:
    records = MemoryRecords()
    records.values["active_call"] = "call-9"
    async with House(tmp_path, records=records) as house:
        assert house.posted("call.ended") == [{
            "callId": "call-9", "reason": END_REASONS["410/deviceFault.restart"].payload(), "durationMs": None}]
    async with House(tmp_path, records=records) as house:
        assert house.posted("call.ended") == []


class SlowRecords(MemoryRecords):
    """A card that takes its time over each write, or does not answer any more."""

    def __init__(self, write_s: float) -> None:
        super().__init__()
        self.write_s = write_s
        self.hangs = False

    async def add_call(self, record: Json) -> None:
        await asyncio.sleep(self.write_s)
        await super().add_call(record)

    async def get(self, name: str, default: str | None = None) -> str | None:
        if self.hangs:
            raise StoreError("the data folder does not answer")
        return await super().get(name, default)

    async def set(self, name: str, value: str) -> None:
        await asyncio.sleep(self.write_s)
        await super().set(name, value)


@virtual_time
async def test_a_call_ended_by_a_stop_is_not_told_again_by_the_next_start(tmp_path: Path) -> None:
    records = SlowRecords(1.5)
    async with House(tmp_path, entries=[OPERATORS], records=records) as house:
        await connected(house)
        await asyncio.sleep(2)
        assert records.values["active_call"]
    assert [told["reason"]["subCode"] for told in house.posted("call.ended")] == ["shutdown"]
    assert [record["endReason"]["subCode"] for record in records.past] == ["shutdown"]
    async with House(tmp_path, records=records) as house:
        assert house.posted("call.ended") == []


@virtual_time
async def test_a_card_that_hangs_holds_neither_start_nor_stop(tmp_path: Path) -> None:
    records = SlowRecords(3600)
    records.hangs = True
    async with House(tmp_path, entries=[OPERATORS], records=records) as house:
        await connected(house)
        began = asyncio.get_running_loop().time()
        await house.controller.stop()
        assert asyncio.get_running_loop().time() - began <= 5


@virtual_time
async def test_the_address_book_is_kept(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.give("book.put", name="Anna", uris=["device:anna"], autoAnswer=True)
        assert (await house.give("book.list") or {})["entries"][0]["autoAnswer"] is True
        assert "Anna" in (tmp_path / "book.json").read_text()
        await house.give("book.remove", name="Anna")
        assert (await house.give("book.list") or {})["entries"] == []


@virtual_time
async def test_limits_on_the_picture_are_taken_live_and_kept_until_lifted(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        answer = await house.give("video.constraints", send={"frameHeight": 360, "bitrate": 400_000},
                                  recv={"maxBitrate": 300_000}, degradationPreference="maintain-resolution")
        assert answer == {"constraints": {
            "send": {"frameHeight": 360, "frameRate": 0, "bitrate": 400_000},
            "recv": {"frameHeight": 0, "maxBitrate": 300_000}, "degradationPreference": "maintain-resolution",
            "inForce": {"send": {"frameWidth": 640, "frameHeight": 360, "frameRate": 30, "bitrate": 400_000},
                        "recv": {"maxBitrate": 300_000}}}}
        await house.give("video.constraints", send={"frameHeight": 0, "frameRate": 15})
        assert house.studio.constraints == Constraints(0, 15, 400_000, 0, 300_000, Preference.RESOLUTION)
