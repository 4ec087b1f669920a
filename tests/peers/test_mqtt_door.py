"""The command path over a real mosquitto: what a controller sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.bulletin import Bulletin
from appliance.clock import SystemClock
from appliance.doors.mqtt import MqttDoor
from appliance.errors import Refused
from appliance.faces.acl import User
from appliance.intake import Intake
from appliance.link.session import Session
from appliance.settings import MqttSettings, Secret
from appliance.store import Store
from appliance.vocabulary import VERB, Command, Scope
from tests.support.broker import Broker, Client, Relay
from tests.support.waiting import until

pytestmark = pytest.mark.peer
ROOT = "edgecall/v1/door-1"
USERS = (User("boss", Scope.ADMIN), User("lena", Scope.OPERATOR))
DEVICES = ("door-1", "door-2")


class Device:
    """Store, intake, link and door as ``__main__`` wires them, with handlers that write down what they did."""

    def __init__(self, folder, port: int, *, name: str = "door-1", synchronised: bool = True,
                 keepalive_s: int = 5) -> None:
        self.name = name
        self.store = Store(folder, ballast=0)
        self.bulletin = Bulletin("1")
        self.clock = SystemClock(lambda: synchronised)
        self.done: list[str] = []
        self.taken_over = asyncio.Event()
        self.poisoned: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.intake = Intake(self.store, dict.fromkeys(VERB, self._do) | {"state.rebirth": self._rebirth},
                             self.bulletin, self.clock)
        self.session = Session(
            MqttSettings(host="127.0.0.1", port=port, username=name, password=Secret(name),
                         keepalive_s=keepalive_s), name,
            self.store, on_taken_over=self.taken_over.set, on_poison=lambda *poison: self.poisoned.append(poison))
        self.door = MqttDoor(self.session, self.intake, self.bulletin, self.clock, device_id=name)

    async def _do(self, command: Command):
        await self.gate.wait()
        if command.args.get("relay") == "broken":
            raise Refused("The relay is broken.", sub_code="relay")
        self.done.append(command.id)
        return {"verb": command.verb.name} if command.verb.returns else None

    async def _rebirth(self, command: Command):
        self.bulletin.republish()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Device]:
        await self.store.open()
        await self.intake.recover()
        self.door.start()
        self.session.start()
        try:
            yield self
        finally:
            await self.intake.stop()
            await self.door.stop()
            await self.session.stop()
            await self.store.close()

    async def connected(self, wanted: bool = True, within_s: float = 10) -> None:
        reached = asyncio.Event()

        def tell(connected: bool) -> None:
            if connected is wanted:
                reached.set()

        self.session.on_connection(tell)
        async with asyncio.timeout(within_s):
            await reached.wait()


@pytest.fixture
async def broker(tmp_path) -> AsyncIterator[Broker]:
    async with Broker(tmp_path / "broker", users=USERS, devices=DEVICES) as made:
        yield made


@pytest.fixture
async def device(broker, tmp_path) -> AsyncIterator[Device]:
    async with Device(tmp_path / "data", broker.port).running() as made:
        await made.connected()
        yield made


@pytest.fixture
async def boss(broker) -> AsyncIterator[Client]:
    async with Client(broker.port, "boss") as client:
        await client.subscribe(f"{ROOT}/ack/+", f"{ROOT}/state/+", f"{ROOT}/event/+", f"{ROOT}/log/+")
        yield client


def envelope(command_id: str, *, ttl_s: float | None = None, ts: float | None = None, **args) -> bytes:
    body = {"id": command_id, "ts": time.time() if ts is None else ts, "args": args}
    return json.dumps(body if ttl_s is None else {**body, "ttl_s": ttl_s}).encode()


async def answer(client: Client, command_id: str, *, final: bool = True, verb: str = "+") -> dict:
    def fits(message) -> bool:
        if "/ack/" not in message.topic or (verb != "+" and not message.topic.endswith(f"/{verb}")):
            return False
        body = json.loads(message.payload)
        return body["id"] == command_id and (body["result"] != "accepted") is final
    return json.loads((await client.until(fits)).payload)


async def test_commands_are_answered_on_their_topic(device, boss):
    await boss.publish(f"{ROOT}/cmd/io.set", envelope("1", ttl_s=5, relay="door", seconds=1), expiry_s=5)
    assert (await answer(boss, "1", verb="io.set"))["result"] == "done" and device.done == ["1"]
    await boss.publish(f"{ROOT}/cmd/call.dial", envelope("2", ttl_s=30, to="a"), expiry_s=30, correlation=b"2")
    assert (await answer(boss, "2", final=False))["result"] == "accepted"
    assert (await answer(boss, "2"))["data"] == {"verb": "call.dial"}
    await boss.publish(f"{ROOT}/cmd/io.set", envelope("3", ttl_s=5, relay="broken", seconds=1), expiry_s=5)
    assert (await answer(boss, "3"))["subCode"] == "relay"


async def test_the_same_id_again_gives_identical_bytes_and_no_second_action(device, boss):
    command = envelope("1", ttl_s=5, relay="door", seconds=1)
    await boss.publish(f"{ROOT}/cmd/io.set", command, expiry_s=5)
    await answer(boss, "1")
    await boss.publish(f"{ROOT}/cmd/io.set", command, expiry_s=5)
    await boss.publish(f"{ROOT}/cmd/call.mute", envelope("end"))
    await answer(boss, "end")
    first, second = boss.of(f"{ROOT}/ack/io.set")
    assert first.payload == second.payload and device.done == ["1", "end"]


async def test_a_retained_command_is_refused_live_and_at_the_next_connection(device, boss, broker, tmp_path):
    await boss.publish(f"{ROOT}/cmd/io.set", envelope("1", ttl_s=5, relay="door", seconds=1), expiry_s=5, retain=True)
    assert (await answer(boss, "1"))["subCode"] == "retained"
    event = json.loads((await boss.until(lambda m: m.topic == f"{ROOT}/event/security")).payload)
    assert event["type"] == "edgecall.security.refused" and event["data"]["why"] == "retained"
    assert event["specversion"] == "1.0" and event["source"] == ROOT
    await boss.publish("edgecall/v1/door-2/cmd/io.set", envelope("2", ttl_s=5, relay="door", seconds=1), retain=True)
    await boss.subscribe("edgecall/v1/door-2/ack/+")
    async with Device(tmp_path / "two", broker.port, name="door-2").running() as second:
        assert (await answer(boss, "2"))["subCode"] == "retained"
        assert second.done == []
    assert device.done == []


@pytest.mark.parametrize("expiry_s, ttl_s, ts, key", [
    (None, 5, None, "noExpiry"), (60, 5, None, "ttlTooLong"), (5, 6, None, "ttlTooLong"), (5, None, None, "noExpiry"),
    (5, 5, -14.0, "ttlExpired"), (5, 5, 14.0, "clockAhead"),
])
async def test_an_acting_command_without_a_right_expiry_does_nothing(device, boss, expiry_s, ttl_s, ts, key):
    command = envelope("1", ttl_s=ttl_s, ts=None if ts is None else time.time() + ts, relay="door", seconds=1)
    await boss.publish(f"{ROOT}/cmd/io.set", command, expiry_s=expiry_s)
    body = await answer(boss, "1")
    assert body["subCode"] == key and device.done == []
    assert expiry_s is not None or "missing or ran out on the way" in body["message"]


async def test_without_a_clock_the_relay_is_two_step(broker, boss, tmp_path):
    async with Device(tmp_path / "data", broker.port, synchronised=False).running() as device:
        await device.connected()
        await boss.publish(f"{ROOT}/cmd/io.set", envelope("1", ttl_s=5, relay="door", seconds=1), expiry_s=5)
        challenge = await answer(boss, "1")
        assert (challenge["code"], challenge["subCode"]) == (401, "challenge") and device.done == []
        body = json.loads(envelope("1", ttl_s=5, relay="door", seconds=1)) | {"nonce": challenge["data"]["nonce"]}
        await boss.publish(f"{ROOT}/cmd/io.set", json.dumps(body), expiry_s=5)
        await boss.until(lambda m: m.topic.endswith("ack/io.set") and b'"done"' in m.payload)
        assert device.done == ["1"]


async def test_what_names_no_verb_is_answered_apart_with_a_suggestion(device, boss):
    await boss.publish(f"{ROOT}/cmd/call.mute", envelope("1"), correlation=b"other")
    assert (await answer(boss, "1"))["subCode"] == "correlation"
    await boss.publish(f"{ROOT}/cmd/call.mute", b"\x00garbage")
    await boss.until(lambda m: m.topic == f"{ROOT}/ack/call.mute" and b"badJson" in m.payload)
    await boss.publish(f"{ROOT}/cmd/call.mute", b'{"id":"2","arg":{}}')
    assert "Did you mean 'args'" in (await answer(boss, "2"))["message"]
    await boss.publish(f"{ROOT}/cmd/call.mute", b"x" * 70_000)
    await boss.until(lambda m: b"tooLarge" in m.payload)


async def test_response_topic_is_honoured_only_below_our_own_answers(device, boss):
    await boss.subscribe(f"{ROOT}/ack/mine/+")
    await boss.publish(f"{ROOT}/cmd/call.mute", envelope("1"), response_topic=f"{ROOT}/ack/mine/1")
    await boss.until(lambda m: m.topic == f"{ROOT}/ack/mine/1")
    await boss.publish(f"{ROOT}/cmd/call.mute", envelope("2"), response_topic="edgecall/v1/door-2/cmd/call.dial")
    await boss.until(lambda m: m.topic == f"{ROOT}/ack/call.mute" and b'"2"' in m.payload)


async def test_the_access_list_by_messages_that_arrive_or_do_not(device, broker, boss):
    async with Client(broker.port, "lena") as lena, Client(broker.port, "door-2") as other:
        await lena.subscribe(f"{ROOT}/ack/+")
        await other.subscribe("#", f"{ROOT}/cmd/#", f"{ROOT}/state/#", "edgecall/v1/door-2/signal/+")
        put = {"name": "x", "uris": ["device:door-2"]}
        await lena.publish(f"{ROOT}/cmd/book.put", envelope("no-1", **put))
        await lena.publish(f"{ROOT}/cmd/nothing.known", envelope("no-2"))
        await lena.publish(f"{ROOT}/state/device", b"forged", retain=True)
        await other.publish(f"{ROOT}/cmd/call.mute", envelope("no-3"))
        await other.publish("edgecall/v1/door-2/signal/door-1", b"forged")
        await boss.publish(f"{ROOT}/cmd/book.put", envelope("yes-1", **put))
        await lena.publish(f"{ROOT}/cmd/call.mute", envelope("yes-2"))
        assert (await answer(boss, "yes-1"))["result"] == "done"
        assert (await answer(lena, "yes-2"))["result"] == "done"
        assert await device.session.publish("edgecall/v1/door-2/signal/door-1", b"true")
        await other.until(lambda m: m.topic == "edgecall/v1/door-2/signal/door-1")
        assert sorted(device.done) == ["yes-1", "yes-2"]
        # a set: the filters overlap, and mosquitto may deliver once for each
        assert {(m.topic, m.payload) for m in other.seen} == {("edgecall/v1/door-2/signal/door-1", b"true")}
        assert not [m for m in boss.seen if m.payload == b"forged"]


async def test_state_is_retained_whole_with_boot_and_seq(device, boss, broker):
    device.bulletin.set("device", {"name": "Door", "v": "ours wins"})
    await boss.until(lambda m: m.topic == f"{ROOT}/state/device")
    for volume in range(50):
        device.bulletin.set("media", {"volume": volume})
    await boss.until(lambda m: m.topic == f"{ROOT}/state/media" and b'"volume":49' in m.payload)
    assert len(boss.of(f"{ROOT}/state/media")) <= 3  # what changes fast floods nobody
    async with Client(broker.port, "boss", "late") as late:
        await late.subscribe(f"{ROOT}/state/+")
        message = await late.until(lambda m: m.topic == f"{ROOT}/state/device")
        online = await late.until(lambda m: m.topic == f"{ROOT}/state/availability")
    body = json.loads(message.payload)
    assert message.retained and online.payload == b"online"
    assert (body["v"], body["boot"], body["name"], body["clock"]) == (1, "1", "Door", "synchronised")
    seqs = [json.loads(m.payload)["seq"] for m in boss.seen if "/state/" in m.topic and m.payload[:1] == b"{"]
    assert seqs == sorted(set(seqs))
    before = len(boss.of(f"{ROOT}/state/device"))
    await boss.publish(f"{ROOT}/cmd/state.rebirth", envelope("1"))
    await answer(boss, "1")
    await boss.until(lambda m: len(boss.of(f"{ROOT}/state/device")) > before)
    assert await device.door.publish_quality({"rtt": 5})
    quality = await boss.until(lambda m: m.topic == f"{ROOT}/state/quality")
    assert quality.qos == 0 and not quality.retained
    await device.door.keep_log("callSummary", {"callId": "k"})
    summary = await boss.until(lambda m: m.topic == f"{ROOT}/log/callSummary")
    assert summary.qos == 1 and not summary.retained and json.loads(summary.payload)["callId"] == "k"


async def test_offline_is_told_when_it_stops_and_when_it_vanishes(broker, boss, tmp_path):
    relay = Relay(broker.port)
    async with relay.running(), Device(tmp_path / "data", relay.port).running() as device:
        await device.connected()
        relay.cut()
        await boss.until(lambda m: m.topic.endswith("availability") and m.payload == b"offline")
        await device.connected()
        boss.seen.clear()
        begun = time.monotonic()
        await device.session.stop()
        assert time.monotonic() - begun < 2
        await boss.until(lambda m: m.topic.endswith("availability") and m.payload == b"offline")


@pytest.mark.parametrize("stall_s", [3.0, pytest.param(14.0, marks=pytest.mark.long)])
async def test_a_stalled_link_does_not_move_the_relay(broker, boss, tmp_path, stall_s):
    """Measured: after a stall a command arrives with its whole expiry left. Only the sender's time tells."""
    relay = Relay(broker.port)
    ttl_s = 5.0 if stall_s > 10 else 0.5
    async with relay.running(), Device(
            tmp_path / "data", relay.port, keepalive_s=60).running() as device:  # the link outlives the stall
        await device.connected()
        relay.stall()
        await boss.publish(f"{ROOT}/cmd/io.set", envelope("1", ttl_s=ttl_s, relay="door", seconds=1), expiry_s=5)
        await asyncio.sleep(stall_s)
        relay.flow()
        assert (await answer(boss, "1"))["subCode"] == "ttlExpired" and device.done == []


async def test_a_broker_that_is_killed_loses_no_command_event_or_answer(device, boss, broker):
    device.gate.clear()
    await boss.publish(f"{ROOT}/cmd/call.dial", envelope("1", ttl_s=30, to="a"), expiry_s=30)
    await answer(boss, "1", final=False)
    await asyncio.sleep(1.1)  # the broker's own autosave_interval
    await broker.kill()
    await device.connected(False)
    device.gate.set()
    for n in range(20):
        device.bulletin.post("io.pressed", name=str(n))
    await asyncio.sleep(2.0)
    begun = time.monotonic()
    await broker.start()
    device.session.reconnect_now()
    await device.connected()
    assert time.monotonic() - begun < 2
    assert (await answer(boss, "1"))["result"] == "done"
    await boss.until(lambda m: m.topic.endswith("event/io") and b'"19"' in m.payload)
    names = [int(json.loads(m.payload)["data"]["name"]) for m in boss.of(f"{ROOT}/event/io")]
    assert list(dict.fromkeys(names)) == list(range(20))  # all, in order; at least once


async def test_a_broker_that_is_absent_at_the_start_is_told_once_and_found_later(tmp_path, caplog):
    caplog.set_level(logging.INFO, "appliance.link")
    async with (Broker(tmp_path / "broker", users=USERS, devices=DEVICES, absent=True) as broker,
                Device(tmp_path / "data", broker.port).running() as device):
        device.bulletin.post("device.booted", version="1", boot=1)
        for _ in range(3):
            device.session.reconnect_now()
            await asyncio.sleep(0.3)
        assert not device.session.connected
        await broker.start()
        device.session.reconnect_now()
        await device.connected()
        async with Client(broker.port, "boss") as boss:
            await boss.subscribe(f"{ROOT}/state/availability")
            await boss.until(lambda m: m.payload == b"online")
    words = [record for record in caplog.records if "broker 127.0.0.1" in record.getMessage()]
    assert [record.levelno for record in words] == [logging.WARNING, logging.INFO]
    assert "connected to the broker" in words[1].getMessage()


async def test_it_can_be_stopped_while_its_thread_is_being_started(broker, tmp_path, monkeypatch, caplog):
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    class Slow(threading.Thread):
        def start(self) -> None:
            if self.name.startswith("paho"):
                loop.call_soon_threadsafe(begun.set)
                time.sleep(0.2)
            super().start()

    monkeypatch.setattr(threading, "Thread", Slow)
    async with Device(tmp_path / "data", broker.port).running(), asyncio.timeout(5):
        await begun.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not [thread for thread in threading.enumerate() if thread.name == "paho-mqtt-client-door-1"]


async def test_a_poison_message_is_set_aside_and_the_rest_flows(tmp_path):
    async with (Broker(tmp_path / "broker", users=USERS, devices=DEVICES, extra="max_packet_size 20000\n") as broker,
                Device(tmp_path / "data", broker.port).running() as device, Client(broker.port, "boss") as boss):
        await boss.subscribe(f"{ROOT}/event/+")
        await device.connected()
        await device.session.enqueue(f"{ROOT}/event/a", b"x" * 30_000)  # too large: the broker said so in CONNACK
        await device.session.enqueue("edgecall/v1/door-2/state/x", b"not ours to write")
        await device.session.enqueue(f"{ROOT}/event/a", b"good")
        await boss.until(lambda m: m.payload == b"good")
        await until(lambda: len(device.poisoned) == 2, "both are set aside")  # the broker hands on before it answers
        assert [topic for topic, _ in device.poisoned] == [f"{ROOT}/event/a", "edgecall/v1/door-2/state/x"]
        assert "20000 bytes" in device.poisoned[0][1] and "refused" in device.poisoned[1][1]
        assert await device.store.backlog() == (0, 2)


async def test_a_message_that_ends_connections_is_found_and_set_aside(device, boss, monkeypatch):
    """The same broker limit, which this time CONNACK did not tell."""
    await device.connected()
    device.session._connection.largest_packet = 0
    monkeypatch.setattr("appliance.link.connection.Connection.fits", lambda *_: True)
    await device.session.enqueue(f"{ROOT}/event/a+b", b"a wildcard in a topic name: the broker ends the connection")
    await device.session.enqueue(f"{ROOT}/event/a", b"good")
    monkeypatch.setattr("paho.mqtt.client.Client._raise_for_invalid_topic", staticmethod(lambda _topic: None))
    for _ in range(6):
        if device.poisoned:
            break
        with contextlib.suppress(TimeoutError):
            await device.connected(False, 2)
        device.session.reconnect_now()
        await device.connected()
        await asyncio.sleep(0.1)
    await boss.until(lambda m: m.payload == b"good")
    assert [topic for topic, _ in device.poisoned] == [f"{ROOT}/event/a+b"]


async def test_two_devices_with_one_id_do_not_fight(device, broker, tmp_path, caplog):
    async with Device(tmp_path / "two", broker.port).running() as second:
        await second.connected()
        await device.connected(False)
        if any("Sending DISCONNECT to door-1" in line for line in broker.log):
            async with asyncio.timeout(5):
                await device.taken_over.wait()
            device.session.reconnect_now()
            await asyncio.sleep(1.0)
            assert second.session.connected and not device.session.connected
            assert "took the session over" in caplog.text
        else:  # Mosquitto 2.0.11 ends the older connection without a word: they take turns, ever more slowly
            begun = len([line for line in broker.log if "New client connected" in line])
            await asyncio.sleep(6.0)
            turns = len([line for line in broker.log if "New client connected" in line]) - begun
            assert turns <= 10


async def test_a_flood_is_answered_busy_and_does_not_stop_the_rest(device, boss):
    for n in range(60):
        await boss.publish(f"{ROOT}/cmd/book.list", envelope(str(n)))
    await boss.publish(f"{ROOT}/cmd/call.hangup", envelope("stop"))
    await boss.until(lambda m: b'"busy"' in m.payload)
    stopped = await boss.until(lambda m: b'"stop"' in m.payload)
    assert json.loads(stopped.payload)["result"] == "done", stopped.payload
    for n in range(20):  # what waits is worked off, and answers to a flood are bounded too
        await asyncio.sleep(0.5)
        await boss.publish(f"{ROOT}/cmd/book.list", envelope(f"after-{n}"))
        with contextlib.suppress(AssertionError):
            message = await boss.until(lambda m, n=n: f'"after-{n}"'.encode() in m.payload, 1)
            if json.loads(message.payload)["result"] == "done":
                return
    raise AssertionError("nothing is done after a flood")


async def test_garbage_on_any_command_topic_never_hurts(broker, tmp_path):
    async with Device(tmp_path / "data", broker.port).running() as device, Client(broker.port, "boss") as boss:
        await device.connected()
        await boss.subscribe(f"{ROOT}/ack/+")
        defects = []
        device.door._refusals.take = lambda: True

        @settings(deadline=None, derandomize=True, max_examples=150, database=None,
                  suppress_health_check=list(HealthCheck))
        @given(verb=st.sampled_from([*VERB, "_invalid", "x/y", "ä", ""]) | st.text(max_size=20),
               payload=st.binary(max_size=100) | st.builds(lambda v: json.dumps(v).encode(), st.recursive(
                   st.none() | st.booleans() | st.integers() | st.text(), lambda i: st.lists(i) | st.dictionaries(
                       st.sampled_from(["id", "ts", "ttl_s", "args", "nonce"]) | st.text(), i), max_leaves=8)),
               expiry=st.none() | st.integers(0, 100))
        def fire(verb, payload, expiry):
            from appliance.link.api import Message
            message = Message(f"{ROOT}/cmd/{verb}", payload, False, 1, expiry, None, None, time.monotonic())
            task = asyncio.ensure_future(device.door._command(message))
            task.add_done_callback(lambda done: defects.append(done.exception()) if done.exception() else None)
            tasks.append(task)

        tasks: list[asyncio.Future] = []
        fire()
        await asyncio.gather(*tasks)
        await boss.publish(f"{ROOT}/cmd/call.mute", envelope("alive"))
        await boss.until(lambda m: b'"alive"' in m.payload)
        assert defects == [] and "alive" not in [m for m in device.done if m != "alive"]


async def test_round_trip_is_quick(device, boss, capsys):
    """Not a benchmark: a figure for the record, and a bound that only a defect breaks."""
    took = []
    for n in range(30):
        await asyncio.sleep(0.1)  # the rate limit is 10 a second
        begun = time.perf_counter()
        await boss.publish(f"{ROOT}/cmd/call.mute", envelope(f"r{n}"))
        await answer(boss, f"r{n}")
        took.append((time.perf_counter() - begun) * 1000)
    took.sort()
    if os.environ.get("EDGECALL_FIGURES"):
        with capsys.disabled():
            print(f"\ncommand round trip over MQTT: p50 {took[15]:.1f} ms, max {took[-1]:.1f} ms")
    assert took[15] < 200
