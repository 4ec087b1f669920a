"""Two running appliances and a broker between them: calls, groups, glare, and what is not taken for a call."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from appliance.faces.acl import User
from appliance.vocabulary import ROOT, Scope
from tests.support.appliance import Appliance, Json, Panel
from tests.support.broker import Broker, Client, Relay, Seen
from tests.support.pair import connect, online
from tests.support.ports import free_port
from tests.support.reports import faults

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]

DOOR_HERTZ, LOBBY_HERTZ = 1000, 1500
CLOCK_IS_SET = ("-m", "tests.support.clock_is_set")
VIDEO = {"video.width": 640, "video.height": 360, "video.fps": 15, "board.screen": "640x360"}
DOOR_BOOK = """
[[book]]
name = "Lobby"
uris = ["device:lobby-2"]
[[book]]
name = "Spare"
uris = ["device:spare-3"]
[[book]]
name = "One after the other"
members = ["Spare", "Lobby"]
ring_seconds = 5
[[book]]
name = "All at once"
members = ["Spare", "Lobby"]
strategy = "parallel"
"""
LOBBY_BOOK = """
[[book]]
name = "Door"
uris = ["device:door-1"]
"""


class Spare:
    """A device of another make, ``spare-3``: it knows the broker and the messages, and nothing else of ours."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @staticmethod
    def message(kind: str, **fields: object) -> Json:
        return {"v": 1, "type": kind, "nonce": secrets.token_urlsafe(16), "ts": time.time(), **fields}

    def invite(self, call_id: str, **fields: object) -> Json:
        caller = {"identity": "spare-3", "displayName": "Spare"}
        return self.message("invite", callId=call_id, caller=caller, media={"audio": True, "video": False}, **fields)

    async def say(self, body: Json, *, expiry_s: int | None = 5, retain: bool = False, to: str = "door-1") -> None:
        await self.client.publish(f"{ROOT}/{to}/signal/spare-3", json.dumps(body), expiry_s=expiry_s, retain=retain)

    async def gives_up(self, call_id: str) -> None:
        await self.say(self.message("cancel", callId=call_id, reason={"code": 487, "subCode": "cancelled"}))

    async def hears(self, *kinds: str, call_id: str = "", within_s: float = 10) -> Json:
        def fits(message: Seen) -> bool:
            body = json.loads(message.payload)
            return body["type"] in kinds and (not call_id or body.get("callId") == call_id)

        return dict(json.loads((await self.client.until(fits, within_s)).payload))


@dataclass
class Pair:
    broker: Broker
    relay: Relay  # between the door and the broker
    door: Appliance
    lobby: Appliance
    at_door: Panel
    at_lobby: Panel
    spare: Spare


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    devices = ["door-1", "lobby-2", "spare-3", "mallory"]
    broker = Broker(folder / "broker", users=[User("boss", Scope.ADMIN)], devices=devices)
    await broker.start()
    settings = {"call.ring_s": 8, "call.reconnect_s": 20, **VIDEO}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(broker.stop)
        relay = await stack.enter_async_context(Relay(broker.port).running())
        door = Appliance(folder / "door", broker=broker, port=relay.port, tables=DOOR_BOOK, program=CLOCK_IS_SET,
                         settings={**settings, "board.microphone": f"tone:{DOOR_HERTZ}"})
        lobby = Appliance(folder / "lobby", device="lobby-2", broker=broker, tables=LOBBY_BOOK, program=CLOCK_IS_SET,
                          settings={**settings, "board.microphone": f"tone:{LOBBY_HERTZ}"})
        await asyncio.gather(*(stack.enter_async_context(one) for one in (door, lobby)))
        at_door = await stack.enter_async_context(door.panel(watch=True))
        at_lobby = await stack.enter_async_context(lobby.panel(watch=True))
        client = await stack.enter_async_context(Client(broker.port, "spare-3"))
        await client.subscribe(f"{ROOT}/spare-3/signal/+")
        await asyncio.gather(*map(online, (door, lobby)))
        yield Pair(broker, relay, door, lobby, at_door, at_lobby, Spare(client))


@pytest_asyncio.fixture(loop_scope="module")
async def pair(shared: Pair) -> AsyncIterator[Pair]:
    yield shared
    for one in (shared.door, shared.lobby):
        if one.state("call").get("state") not in ("None", "Disconnected"):
            await one.give("call.hangup")
    for one in (shared.door, shared.lobby):
        await one.call_is("None", "Disconnected", within_s=30)


async def media_flows(pair: Pair) -> None:
    """Each hears the other's tone and sees the other's test picture move."""
    await asyncio.gather(pair.at_door.hears(LOBBY_HERTZ), pair.at_lobby.hears(DOOR_HERTZ))
    for panel in (pair.at_door, pair.at_lobby):
        panel.screens.clear()
        first = (await panel.sees()).counter
        await panel.until(lambda panel=panel, first=first: any(
            mark.counter > first for mark in [panel.mark()] if mark), "the picture moves")


async def call(pair: Pair) -> str:
    """The door calls, the lobby answers; the call's id."""
    return await connect(pair.door, pair.lobby, "Lobby")


def told(one: Appliance, kind: str, since: int = 0) -> list[Json]:
    return [event["data"] for event in one.events[since:] if event["type"] == f"edgecall.{kind}"]


async def test_the_door_calls_the_lobby_and_both_see_and_hear(pair: Pair) -> None:
    await call(pair)
    caller = pair.lobby.state("call")
    assert caller["callerInfo"] == {"rawId": "door-1", "uri": "device:door-1", "displayName": "Door", "verified": True}
    assert caller["direction"] == "Incoming" and pair.door.state("call")["direction"] == "Outgoing"
    await media_flows(pair)
    await pair.door.give("call.mute")
    await pair.at_lobby.silent()
    await pair.at_door.hears(LOBBY_HERTZ)
    await pair.door.give("call.unmute")
    await pair.at_lobby.hears(DOOR_HERTZ)
    await pair.door.give("call.hangup")
    await asyncio.gather(pair.door.ended("0/local"), pair.lobby.ended("0/remote"))


def metric(summary: Json, name: str, direction: str, kind: str) -> Json:
    return next(row for row in summary["media"]["metrics"]
                if (row["metricName"], row["direction"], row["type"]) == (name, direction, kind))


async def test_a_call_is_sampled_for_who_subscribes_and_summed_up_at_its_end(pair: Pair) -> None:
    quality, log = f"{ROOT}/door-1/state/quality", f"{ROOT}/door-1/log/callSummary"
    async with pair.door.commander() as boss:
        await boss.subscribe(log)
        call_id = await call(pair)
        await media_flows(pair)
        await pair.door.wait_for_state("net", lambda net: net.get("networkQualityLevel"))
        assert not boss.of(quality), "nobody has asked yet"
        for dialect in ("w3c", "acs"):
            assert (await pair.door.publish(boss, "stats.subscribe", interval=1, dialect=dialect))["result"] == "done"
        await boss.until(lambda m: len(boss.of(quality)) >= 4)
        samples = [json.loads(message.payload) for message in boss.of(quality)][-2:]
        assert samples[-1]["callId"] == call_id and "networkQualityLevel" in samples[-1]["quality"]
        assert faults(samples[-1]["stats"]) == []
        assert 0.5 < samples[-1]["ts"] - samples[-2]["ts"] < 2
        assert samples[-1]["acs"]["video"]["send"][0]["codecName"] == "H264"
        device = next(row for row in samples[-1]["stats"] if row["type"] == "x-device")
        assert 0 < device["captureToFirstPacketLatency"] <= device["captureToSendLatency"] < 1
        assert 0 < device["encoderDwell"] < 1
        assert device["audioLoopDelay"] == pytest.approx(0.01), "of the simulated board: one block"
        lobby = (await pair.lobby.get("/v1/stats"))["stats"]
        assert faults(lobby) == []
        await pair.door.give("call.hangup")
        ended = time.monotonic()
        await asyncio.gather(pair.door.ended("0/local"), pair.lobby.ended("0/remote"))
        told = json.loads((await boss.until(lambda m: m.topic == log)).payload)
        assert time.monotonic() - ended < 5
        assert (told["callId"], told["endReason"]["subCode"]) == (call_id, "local")
        assert {name: told[name] for name in told if name not in ("v", "ts", "clock", "boot", "seq")} == (
            await pair.door.get("/v1/calls/last/summary"))
        answer = await pair.lobby.give("call.summary", callId=call_id)
        for kind in ("audio", "video"):
            sent = metric(told, "packetsSent", "send", kind)["sum"]
            came = metric(answer["data"], "packetsReceived", "receive", kind)["sum"]
            assert came == pytest.approx(sent, rel=0.05, abs=30), "but for what was on its way when it ended"
        series = (await pair.lobby.get(f"/v1/calls/{call_id}/summary?dialect=acs"))["mediaStatsTimeSeries"]
        assert {"healedRatio", "jitterInMs", "frameRateReceived"} <= {row["MetricName"] for row in series}
        assert "media" not in pair.door.state("calls")["calls"][0]


async def test_the_one_who_was_called_hangs_up(pair: Pair) -> None:
    await call(pair)
    assert (await pair.lobby.give("call.hangup"))["result"] == "done"
    await asyncio.gather(pair.lobby.ended("0/local"), pair.door.ended("0/remote"))


@pytest.mark.parametrize("reason, key", [("declined", "603/declined"), ("busy", "486/busy")])
async def test_a_call_that_is_rejected_says_why(pair: Pair, reason: str, key: str) -> None:
    dialling = asyncio.create_task(pair.door.give("call.dial", to="Lobby", wait=30))
    await pair.lobby.call_is("Incoming")
    assert (await pair.lobby.give("call.reject", reason=reason))["result"] == "done"
    answer = await dialling
    assert (answer["result"], f"{answer['code']}/{answer['subCode']}") == ("failed", key)
    await asyncio.gather(pair.door.ended(key), pair.lobby.ended(key))


async def test_who_calls_into_a_call_is_told_busy_and_it_goes_on(pair: Pair) -> None:
    call_id = await call(pair)
    await pair.spare.say(pair.spare.invite("call-of-spare"))
    assert (await pair.spare.hears("reject", call_id="call-of-spare"))["reason"] == {"code": 486, "subCode": "busy"}
    assert pair.door.state("call")["callId"] == call_id and pair.door.state("call")["state"] == "Connected"
    await pair.at_lobby.hears(DOOR_HERTZ)
    refused = await pair.door.give("call.dial", to="Spare")
    assert (refused["result"], refused["subCode"]) == ("rejected", "inCall")


async def test_both_dial_each_other_at_once_and_have_one_call(pair: Pair) -> None:
    marks = {one: len(one.events) for one in (pair.door, pair.lobby)}
    pair.relay.stall()  # what the door says and hears waits, so that both invitations are under way
    dialling = [asyncio.create_task(pair.door.give("call.dial", to="Lobby", wait=30)),
                asyncio.create_task(pair.lobby.give("call.dial", to="Door", wait=30))]
    await asyncio.gather(pair.door.call_is("Connecting"), pair.lobby.call_is("Connecting"))
    expected = pair.door.state("call")["callId"]  # of the smaller device id
    pair.relay.flow()
    answers = await asyncio.gather(*dialling)
    assert [answer["result"] for answer in answers] == ["done", "done"], answers
    await asyncio.gather(pair.door.call_is("Connected"), pair.lobby.call_is("Connected"))
    assert [answer["data"]["callId"] for answer in answers] == [expected, expected]
    await media_flows(pair)
    for one in (pair.door, pair.lobby):
        assert one.state("call")["callId"] == expected
        since = marks[one]
        assert [event["callId"] for event in told(one, "call.started", since)] == [expected]
        assert not told(one, "call.incoming", since) and not told(one, "call.missed", since)
        assert not told(one, "call.ended", since)
        assert len([e for e in told(one, "call.stateChanged", since) if e["to"] == "Connected"]) == 1
    await pair.lobby.give("call.hangup", callId=expected)
    await asyncio.gather(pair.lobby.ended("0/local"), pair.door.ended("0/remote"))
    for one in (pair.door, pair.lobby):
        assert [event["callId"] for event in told(one, "call.ended", marks[one])] == [expected]


async def test_all_ring_at_once_and_the_others_hear_who_was_faster(pair: Pair) -> None:
    dialling = asyncio.create_task(pair.door.give("call.dial", to="All at once", wait=30))
    await pair.lobby.call_is("Incoming")
    invited = await pair.spare.hears("invite", call_id=pair.lobby.state("call")["callId"])
    await pair.spare.say(pair.spare.message("ringing", callId=invited["callId"]))
    await pair.lobby.give("call.answer", wait=20)
    assert (await dialling)["result"] == "done"
    told_spare = await pair.spare.hears("answeredElsewhere", "cancel", call_id=invited["callId"])
    assert told_spare["type"] == "answeredElsewhere" or told_spare["reason"] == {
        "code": 487, "subCode": "answeredElsewhere"}
    assert len(pair.door.state("roster")["participants"]) == 1


async def test_one_after_the_other_until_somebody_answers(pair: Pair) -> None:
    dialling = asyncio.create_task(pair.door.give("call.dial", to="One after the other", wait=40))
    await pair.door.call_is("Connecting", "Ringing")
    invited = await pair.spare.hears("invite", call_id=pair.door.state("call")["callId"])
    await pair.spare.say(pair.spare.message("ringing", callId=invited["callId"]))
    await pair.door.call_is("Ringing")
    assert pair.lobby.state("call").get("state") in ("None", "Disconnected")
    cancelled = await pair.spare.hears("cancel", call_id=invited["callId"])
    assert cancelled["reason"] == {"code": 487, "subCode": "noAnswer"}
    await pair.lobby.call_is("Incoming")
    await pair.lobby.give("call.answer", wait=20)
    assert (await dialling)["result"] == "done"
    assert pair.door.state("call")["callerInfo"]["rawId"] == "lobby-2"


async def test_one_that_is_not_there_is_unreachable_within_seconds(pair: Pair) -> None:
    answer = await pair.door.give("call.dial", to="device:nobody-9", wait=20)
    assert (answer["result"], f"{answer['code']}/{answer['subCode']}") == ("failed", "480/unreachable")


async def test_nobody_signals_in_the_name_of_another_device(pair: Pair) -> None:
    since = len(pair.door.history)
    async with Client(pair.broker.port, "mallory") as mallory:
        await mallory.subscribe(f"{ROOT}/door-1/signal/+", f"{ROOT}/lobby-2/signal/+")
        forged = pair.spare.invite("call-forged")
        await mallory.publish(f"{ROOT}/door-1/signal/spare-3", json.dumps(forged), expiry_s=5)
        await mallory.publish(f"{ROOT}/door-1/signal/mallory", json.dumps(forged), expiry_s=5)
        refusal = await pair.door.event("security.refused")
        await pair.spare.say(pair.spare.invite("call-honest"))
        await pair.door.call_is("Incoming")
        assert pair.door.state("call")["callId"] == "call-honest"
        assert not mallory.seen, "a third device sees what is not for it"
    assert any("Denied PUBLISH" in line and "signal/spare-3" in line for line in pair.broker.log)
    assert refusal["data"]["sender"] == "mallory" and "address book" in refusal["data"]["why"]
    assert "call-forged" not in {d.get("callId") for _, name, d in pair.door.history[since:] if name == "call"}
    await pair.spare.gives_up("call-honest")
    await pair.door.ended("487/cancelled")


async def test_a_message_counts_once_in_time_and_never_from_the_shelf(pair: Pair) -> None:
    since, events = len(pair.door.history), len(pair.door.events)
    first = pair.spare.invite("call-once-1")
    await pair.spare.say(first)
    await pair.spare.hears("ringing", call_id="call-once-1")
    await pair.spare.gives_up("call-once-1")
    await pair.door.ended("487/cancelled")
    await pair.spare.say(first)  # recorded and played again
    await pair.spare.say({**first, "callId": "call-once-2"})  # the same nonce
    await pair.spare.say(pair.spare.invite("call-once-3") | {"ts": time.time() - 20})  # a stalled link
    await pair.spare.say(pair.spare.invite("call-once-4"), expiry_s=None)
    await pair.spare.say(pair.spare.invite("call-once-5"), retain=True)
    await pair.spare.say(pair.spare.invite("call-once-6"))
    await pair.spare.hears("ringing", call_id="call-once-6")
    await pair.door.wait_for_state("call", lambda call: call["callId"] == "call-once-6")
    rang = [d.get("callId") for _, name, d in pair.door.history[since:] if name == "call" and d["state"] == "Incoming"]
    assert list(dict.fromkeys(rang)) == ["call-once-1", "call-once-6"]
    assert [e["sender"] for e in told(pair.door, "security.refused", events) if "retained" in e["why"]] == ["spare-3"]
    assert [e["sender"] for e in told(pair.door, "security.refused", events) if "expiry" in e["why"]] == ["spare-3"]
    await pair.spare.client.publish(f"{ROOT}/door-1/signal/spare-3", b"", retain=True)
    await pair.spare.gives_up("call-once-6")
    await pair.door.ended("487/cancelled")


async def test_the_call_lives_on_without_its_broker_and_ends_with_it(pair: Pair) -> None:
    call_id = await call(pair)
    await pair.broker.kill()
    await asyncio.gather(*(one.wait_for_state("net", lambda net: net.get("brokerConnected") is False, 20)
                           for one in (pair.door, pair.lobby)))
    await asyncio.sleep(4)  # longer than silence is borne
    for one in (pair.door, pair.lobby):
        assert (one.state("call")["state"], one.state("call")["callId"]) == ("Connected", call_id)
    await media_flows(pair)
    await pair.door.give("call.hangup")
    await pair.door.ended("0/local")
    await pair.broker.start()
    await pair.lobby.ended("0/remote", 20)
    await asyncio.gather(*map(online, (pair.door, pair.lobby)))
    await call(pair)


# --- on the LAN, with no broker -------------------------------------------------------------------------------------


@pytest.fixture
async def neighbours(tmp_path: Path) -> AsyncIterator[tuple[Appliance, Appliance]]:
    port, right, wrong = free_port(), tmp_path / "right.token", tmp_path / "wrong.token"
    for path in (right, wrong):
        path.write_text(secrets.token_urlsafe(24))
        path.chmod(0o600)
    peers = "".join(f"""
[[direct.peers]]
name = "{name}"
url = "http://127.0.0.1:{port}"
token_file = "{path}"
""" for name, path in (("lobby", right), ("stranger", wrong)))
    trusted = f"""
[[http.tokens]]
name = "door-1"
scope = "device"
token_file = "{right}"
[[book]]
name = "Door"
uris = ["lan:door-1"]
"""
    settings = {"call.ring_s": 8, **VIDEO}
    door = Appliance(tmp_path / "door", tables=peers, settings=settings | {"board.microphone": f"tone:{DOOR_HERTZ}"})
    lobby = Appliance(tmp_path / "lobby", device="lobby-2", tables=trusted, settings={
        **settings, "board.microphone": f"tone:{LOBBY_HERTZ}", "http.port": port})
    async with door, lobby:
        yield door, lobby


@pytest.mark.asyncio(loop_scope="function")
async def test_two_on_the_lan_need_no_broker_but_the_right_token(neighbours: tuple[Appliance, Appliance]) -> None:
    door, lobby = neighbours
    refused = await door.give("call.dial", to="lan:stranger", wait=20)
    assert (refused["result"], f"{refused['code']}/{refused['subCode']}") == ("failed", "401/token"), refused
    assert "token" in refused["message"]
    await lobby.event("security.refused")
    assert lobby.state("call")["state"] == "None"
    async with door.panel() as at_door, lobby.panel() as at_lobby:
        for caller_hangs_up in (True, False):
            dialling = asyncio.create_task(door.give("call.dial", to="lan:lobby", wait=30))
            await lobby.call_is("Incoming")
            assert lobby.state("call")["callerInfo"]["uri"] == "lan:door-1"
            assert lobby.state("call")["kind"] == "LAN"
            await lobby.give("call.answer", wait=20)
            assert (await dialling)["result"] == "done"
            await asyncio.gather(at_door.hears(LOBBY_HERTZ), at_lobby.hears(DOOR_HERTZ))
            one, other = (door, lobby) if caller_hangs_up else (lobby, door)
            await one.give("call.hangup")
            await asyncio.gather(one.ended("0/local"), other.ended("0/remote"))
