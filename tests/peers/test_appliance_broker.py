"""The running appliance and its broker: killed in and out of calls, absent, slow; and what it refuses to do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from appliance.vocabulary import ROOT, Scope
from tests.support.appliance import TONE_HERTZ, Appliance, envelope
from tests.support.broker import Broker, Client, User
from tests.support.browser import chromium
from tests.support.operator_page import Operator

pytestmark = pytest.mark.peer

USERS = [User("boss", Scope.ADMIN), User("lena", Scope.OPERATOR)]
TOPIC = f"{ROOT}/door-1"
BACK_S = 32.0  # within which it has found its broker: the longest wait between two tries, and a moment
CLOCK_IS_SET = ("-m", "tests.support.clock_is_set")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with Broker(tmp_path / "broker", users=USERS, devices=["door-1"]) as broker:
        yield broker


@pytest.fixture
async def door(tmp_path: Path, broker: Broker) -> AsyncIterator[Appliance]:
    async with Appliance(tmp_path / "door", broker=broker, program=CLOCK_IS_SET) as door:
        await door.wait_for_state("net", lambda net: net.get("brokerConnected"), 20)
        yield door


@pytest.fixture
async def boss(door: Appliance) -> AsyncIterator[Client]:
    async with door.commander() as boss:
        yield boss


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Appliance, Client]]:
    """For tests after which everything is as it was before."""
    folder = tmp_path_factory.mktemp("calm")
    async with (Broker(folder / "broker", users=USERS, devices=["door-1"]) as broker,
                Appliance(folder / "door", broker=broker, program=CLOCK_IS_SET) as door, door.commander() as boss):
        await online(boss)
        yield door, boss


async def online(boss: Client) -> None:
    await boss.until(lambda m: m.topic == f"{TOPIC}/state/availability" and m.payload == b"online", 20)


async def switch(door: Appliance, closed: bool) -> None:
    """The input of the door contact, and wait until it is told: what is shorter bounces and is none."""
    assert (await door.give("sim.input", input="door", closed=closed))["result"] == "done"
    await door.wait_for_state("io", lambda io: io["inputs"]["door"]["closed"] is closed)


def numbers(boss: Client, kind: str) -> list[str]:
    """Identifiers of the events of one kind, in the order in which they came first."""
    found = [json.loads(m.payload) for m in boss.seen if m.topic == f"{TOPIC}/event/{kind.partition('.')[0]}"]
    return list(dict.fromkeys(event["id"] for event in found if event["type"] == f"edgecall.{kind}"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("away_s", [5.0, pytest.param(20.0, marks=pytest.mark.long),
                                    pytest.param(60.0, marks=pytest.mark.long)])
async def test_a_killed_broker_stops_no_call_and_loses_nothing(
        door: Appliance, broker: Broker, boss: Client, away_s: float) -> None:
    async with chromium() as browser:
        operator = await Operator.on_duty(browser, door)
        await door.press(boss)
        await operator.rings()
        await operator.answer()
        await door.call_is("Connected")
        await operator.picture()
        await operator.listen()
        await operator.hears(TONE_HERTZ)
        call = door.state("call")["callId"]
        relay = envelope("io.set", {"relay": "door", "seconds": 0.2})
        first = await door.publish(boss, "io.set", relay)
        assert first["result"] == "done"
        await broker.kill()
        frames = await operator.frames()
        for closed in (True, False) * 3:
            await switch(door, closed)
        await asyncio.sleep(away_s)
        assert door.state("call")["state"] == "Connected" and door.state("call")["callId"] == call
        assert await operator.frames() - frames > 5 * away_s  # of 30 a second that are sent
        await operator.hears(TONE_HERTZ)
        await broker.start()
        # its availability says nothing: the broker kept "online", for a killed broker publishes no will
        await door.wait_for_state("net", lambda net: net["brokerConnected"], BACK_S)
        ids = [event["id"] for event in door.events if event["type"] == "edgecall.io.input"]
        await boss.until(lambda _: numbers(boss, "io.input") == ids, 20)
        assert len(ids) == 6
        assert (await door.publish(boss, "call.mute"))["result"] == "done"
        await operator.silent()
        await boss.until(lambda m: m.topic == f"{TOPIC}/state/call" and json.loads(m.payload).get("isMuted"), 10)
        assert (await door.publish(boss, "call.hangup"))["result"] == "done"
        await door.ended("0/local")
        ended = [event["id"] for event in door.events if event["type"] == "edgecall.call.ended"]
        await boss.until(lambda _: numbers(boss, "call.ended") == ended, 10)
    moved = [event for event in door.events if event["type"] == "edgecall.io.relay" and event["data"]["closed"]]
    assert len(moved) == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("away_s", [5.0, pytest.param(20.0, marks=pytest.mark.long)])
async def test_a_broker_killed_out_of_calls_comes_back_to_the_whole_truth(
        door: Appliance, broker: Broker, boss: Client, away_s: float) -> None:
    await online(boss)
    await broker.kill()
    assert (await door.give("devices.volume", percent=31))["result"] == "done"
    await asyncio.sleep(away_s)
    since = len(boss.seen)
    begun = time.monotonic()
    await broker.start()
    await boss.until(lambda m: m in boss.seen[since:] and m.topic == f"{TOPIC}/state/devices"
                     and json.loads(m.payload)["volume"] == 31, 60)
    assert time.monotonic() - begun < BACK_S
    assert (await door.publish(boss, "devices.volume", percent=32))["result"] == "done"


async def test_it_starts_without_its_broker_and_finds_it_later(tmp_path: Path) -> None:
    async with (Broker(tmp_path / "broker", users=USERS, devices=["door-1"], absent=True) as broker,
                Appliance(tmp_path / "door", broker=broker) as door):
        assert (await door.give("devices.volume", percent=40))["result"] == "done"
        await broker.start()
        async with door.commander() as boss:
            await online(boss)
            assert (await door.publish(boss, "devices.volume", percent=41))["result"] == "done"
            await boss.until(lambda m: m.topic == f"{TOPIC}/event/device" and b"device.booted" in m.payload)


async def test_a_broker_that_takes_one_message_at_a_time_is_served(tmp_path: Path) -> None:
    one = "max_inflight_messages 1\n"
    async with (Broker(tmp_path / "broker", users=USERS, devices=["door-1"], extra=one) as broker,
                Appliance(tmp_path / "door", broker=broker) as door, door.commander() as boss):
        await online(boss)
        for closed in (True, False) * 10:
            await switch(door, closed)
        await boss.until(lambda _: len(numbers(boss, "io.input")) == 20)
    assert "Receive Maximum" not in "\n".join(broker.log)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_relay_closes_for_its_time_and_opens(calm: tuple[Appliance, Client]) -> None:
    door, boss = calm
    begun = time.monotonic()
    assert (await door.publish(boss, "io.set", relay="door", seconds=0.5))["result"] == "done"
    await boss.until(lambda m: m.topic == f"{TOPIC}/state/io" and json.loads(m.payload)["relays"]["door"]["closed"])
    await door.wait_for_state("io", lambda io: io["relays"]["door"]["closed"])
    await door.wait_for_state("io", lambda io: not io["relays"]["door"]["closed"])
    assert 0.4 < time.monotonic() - begun < 5


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("ttl_s, ts, expiry_s, retain, key", [
    (None, 0, 5, False, "noExpiry"), (5, 0, None, False, "noExpiry"), (60, 0, 60, False, "ttlTooLong"),
    (5, -20, 5, False, "ttlExpired"), (5, 0, 5, True, "retained"),
])
async def test_a_relay_command_without_its_papers_moves_nothing(
        calm: tuple[Appliance, Client], ttl_s, ts, expiry_s, retain, key) -> None:
    door, boss = calm
    since = len(door.events)
    body = {"id": f"paper-{key}-{expiry_s}", "ts": time.time() + ts, "args": {"relay": "door", "seconds": 1}}
    if ttl_s is not None:
        body["ttl_s"] = ttl_s
    await boss.publish(f"{TOPIC}/cmd/io.set", json.dumps(body), expiry_s=expiry_s, retain=retain)
    answer = json.loads((await boss.until(
        lambda m: m.topic == f"{TOPIC}/ack/io.set" and json.loads(m.payload)["id"] == body["id"])).payload)
    if retain:
        await boss.publish(f"{TOPIC}/cmd/io.set", b"", retain=True)
    assert answer["subCode"] == key and answer["result"] in ("rejected", "expired"), answer
    assert not door.state("io")["relays"]["door"]["closed"]
    assert not [event for event in door.events[since:] if event["type"] == "edgecall.io.relay"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_operator_cannot_give_what_an_administrator_may(calm: tuple[Appliance, Client]) -> None:
    door, boss = calm
    async with Client(door.broker.port, "lena") as lena:
        await lena.subscribe(f"{TOPIC}/ack/+")
        put = {"name": "Mallory", "uris": ["device:mallory"], "autoAnswer": True}
        await lena.publish(f"{TOPIC}/cmd/book.put", json.dumps(envelope("book.put", put)))
        assert (await door.publish(lena, "devices.volume", percent=50))["result"] == "done"
        assert (await door.publish(boss, "devices.volume", percent=51))["result"] == "done"
    names = [entry["name"] for entry in door.state("device")["addressBook"]]
    assert "Mallory" not in names
