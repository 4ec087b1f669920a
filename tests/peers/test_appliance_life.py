"""The life of the daemon: killed, stopped, reloaded, started twice. What it promised holds, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.vocabulary import ROOT, Scope
from tests.support.appliance import ROOM, TONE_HERTZ, Appliance, Json, alive, envelope
from tests.support.broker import Broker, Client, User
from tests.support.browser import chromium
from tests.support.operator_page import Operator
from tests.support.pair import connect, online
from tests.support.ports import free_port

pytestmark = pytest.mark.peer

CLOCK_IS_SET = ("-m", "tests.support.clock_is_set")
VIDEO = {"video.width": 640, "video.height": 360, "video.fps": 15, "board.screen": "640x360"}
TOPIC = f"{ROOT}/door-1"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "broker", users=[User("boss", Scope.ADMIN)], devices=["door-1", "lobby-2"])
    await broker.start()
    yield broker
    await broker.stop()


async def gone(children: list[int], within_s: float = 5.0) -> None:
    """A killed daemon's children notice by themselves that it is gone."""
    deadline = time.monotonic() + within_s
    while left := [pid for pid in children if alive(pid)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        await asyncio.sleep(0.05)


def answers(boss: Client, command_id: str) -> list[Json]:
    found = [json.loads(m.payload) for m in boss.seen if m.topic.startswith(f"{TOPIC}/ack/")]
    return [answer for answer in found if answer["id"] == command_id]


async def final(boss: Client, command_id: str) -> Json:
    """The one final answer; it may have come twice, and then with the same words."""
    await boss.until(lambda _: any(answer["result"] != "accepted" for answer in answers(boss, command_id)), 20)
    finals = [answer for answer in answers(boss, command_id) if answer["result"] != "accepted"]
    assert all(answer == finals[0] for answer in finals), finals
    return finals[0]


def told(boss: Client, kind: str) -> list[Json]:
    """Events of one kind, each once (QoS 1 repeats)."""
    found = {event["id"]: event for m in boss.seen if m.topic == f"{TOPIC}/event/{kind.partition('.')[0]}"
             for event in [json.loads(m.payload)] if event["type"] == f"edgecall.{kind}"}
    return [event["data"] for event in found.values()]


# --- killed ---------------------------------------------------------------------------------------------------------


async def test_killed_while_idle_it_comes_back_with_all_it_knew(tmp_path: Path, broker: Broker) -> None:
    async with Appliance(tmp_path / "door", broker=broker) as door, door.commander() as boss:
        await online(door)
        await door.give("book.put", name="Lobby", uris=["device:lobby-2"])
        await door.give("dnd.set", on=True)
        children = door.children()
        assert children, "the camera process is a child"
        await door.kill()
        await gone(children)
        await boss.until(lambda m: m.topic == f"{TOPIC}/state/availability" and m.payload == b"offline", 30)
        since = len(boss.seen)
        begun = time.monotonic()
        await door.start()
        assert time.monotonic() - begun < 10
        await boss.until(lambda m: m in boss.seen[since:] and m.topic == f"{TOPIC}/state/availability"
                         and m.payload == b"online", 20)
        device = door.state("device")
        assert device["doNotDisturb"] and "Lobby" in [entry["name"] for entry in device["addressBook"]]
        assert (await door.publish(boss, "dnd.set", on=False))["result"] == "done"


@pytest.mark.parametrize("delay_s", [
    0.005, 0.1, *(pytest.param(delay_s, marks=pytest.mark.long) for delay_s in (0.0, 0.01, 0.02, 0.04))])
async def test_killed_with_a_relay_command_just_given_it_never_moves_twice(
        tmp_path: Path, broker: Broker, delay_s: float) -> None:
    door = Appliance(tmp_path / "door", broker=broker, program=CLOCK_IS_SET)
    async with door, door.commander() as boss:
        await online(door)
        body = envelope("io.set", {"relay": "door", "seconds": 0.3})
        sending = asyncio.create_task(
            boss.publish(f"{TOPIC}/cmd/io.set", json.dumps(body), expiry_s=5), name="test.relay")
        await asyncio.sleep(delay_s)
        await door.kill()
        await sending
        await door.start()
        await online(door)
        answer = await final(boss, body["id"])
        assert answer["result"] in ("done", "failed", "expired"), answer
        if answer["result"] == "failed":
            assert answer["subCode"] == "interrupted"
        await boss.publish(f"{TOPIC}/cmd/io.set", json.dumps({**body}), expiry_s=5)  # the sender tries again
        assert (await door.publish(boss, "devices.volume", percent=70))["result"] == "done"
        assert await final(boss, body["id"]) == answer
        await door.wait_for_state("io", lambda io: not io["relays"]["door"]["closed"])
        moved = [event for event in told(boss, "io.relay") if event["closed"]]
        assert len(moved) <= 1
        assert answer["result"] != "done" or len(moved) == 1


async def test_killed_in_a_call_both_sides_learn_it_and_the_next_call_works(tmp_path: Path, broker: Broker) -> None:
    book = '[[book]]\nname = "{}"\nuris = ["device:{}"]\n'
    settings = {**VIDEO, "call.reconnect_s": 60}
    door = Appliance(tmp_path / "door", broker=broker, settings=settings, tables=book.format("Lobby", "lobby-2"))
    lobby = Appliance(tmp_path / "lobby", device="lobby-2", broker=broker, settings=settings,
                      tables=book.format("Door", "door-1"))
    async with door, lobby, door.commander() as boss:
        await asyncio.gather(online(door), online(lobby))
        dial = envelope("call.dial", {"to": "Lobby"})
        await boss.publish(f"{TOPIC}/cmd/call.dial", json.dumps(dial), expiry_s=30)
        await lobby.call_is("Incoming")
        await lobby.give("call.answer", wait=20)
        connected = (await final(boss, dial["id"]))["data"]["callId"]
        await asyncio.gather(door.call_is("Connected"), lobby.call_is("Connected"))
        asked = envelope("call.dial", {"to": "device:nobody-9"})
        await door.kill()
        await lobby.call_is("Reconnecting")
        await door.start()
        await online(door)
        await boss.until(lambda _: told(boss, "call.ended"), 20)
        ended = told(boss, "call.ended")
        assert [(e["callId"], e["reason"]["subCode"]) for e in ended] == [(connected, "deviceFault.restart")]
        await lobby.call_is("Disconnected", within_s=15)  # it asks, and is told that there is no such call
        await connect(door, lobby, "Lobby")
        await door.give("call.hangup")
        await asyncio.gather(door.ended("0/local"), lobby.ended("0/remote"))
        # killed while it dials: the command was accepted, its fate is told
        await boss.publish(f"{TOPIC}/cmd/call.dial", json.dumps(asked), expiry_s=30)
        await boss.until(lambda _: answers(boss, asked["id"]), 10)
        await door.kill()
        await door.start()
        answer = await final(boss, asked["id"])
        assert (answer["result"], answer["subCode"]) == ("failed", "interrupted"), answer
        assert door.state("call")["state"] == "None"


async def test_killed_in_a_call_the_operator_page_comes_back_by_itself(tmp_path: Path) -> None:
    settings = {"http.port": free_port(), "call.reconnect_s": 20}
    async with Appliance(tmp_path / "door", settings=settings) as door, chromium() as browser:
        operator = await Operator.on_duty(browser, door)
        await in_call(door, operator)
        children = door.children()
        await door.kill()
        await gone(children)
        await door.start()
        await door.on_duty()  # the page went on duty again, without a click
        assert door.state("call")["state"] == "None"
        assert await operator.ended(20)
        await in_call(door, operator)


async def in_call(door: Appliance, operator: Operator) -> None:
    await door.press()
    await operator.rings()
    await operator.answer()
    await door.call_is("Connected")
    await operator.connected()
    await operator.picture()
    await operator.listen()
    await operator.hears(TONE_HERTZ)


# --- stopped --------------------------------------------------------------------------------------------------------


async def test_stopped_in_a_call_the_operator_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    async with Appliance(tmp_path / "door") as door, chromium() as browser:
        operator = await Operator.on_duty(browser, door)
        await in_call(door, operator)
        ending = asyncio.create_task(operator.ended(10), name="test.ended")
        code, took = await door.stop(signal.SIGTERM)  # looks for children and socket
        assert (code, took < 5) == (0, True), (code, took, door.log())
        assert "shutting down" in await ending
        log = (door.folder / "log").read_text()
        assert "Traceback" not in log and "ERROR" not in log, door.log()


async def test_stopped_in_a_call_the_other_device_is_told(tmp_path: Path, broker: Broker) -> None:
    book = '[[book]]\nname = "{}"\nuris = ["device:{}"]\n'
    door = Appliance(tmp_path / "door", broker=broker, settings=VIDEO, tables=book.format("Lobby", "lobby-2"))
    lobby = Appliance(tmp_path / "lobby", device="lobby-2", broker=broker, settings=VIDEO,
                      tables=book.format("Door", "door-1"))
    async with door, lobby, door.commander() as boss:
        await asyncio.gather(online(door), online(lobby))
        await connect(door, lobby, "Lobby")
        code, took = await door.stop(signal.SIGINT)  # Ctrl-C
        assert (code, took < 5) == (0, True), (code, took)
        await lobby.ended("503/shutdown", 3)
        await boss.until(lambda _: told(boss, "call.ended") and told(boss, "device.stopping"), 5)
        assert [event["reason"]["subCode"] for event in told(boss, "call.ended")] == ["shutdown"]
        await boss.until(lambda m: m.topic == f"{TOPIC}/state/availability" and m.payload == b"offline", 5)
        code, took = await lobby.stop()
        assert (code, took < 5) == (0, True), (code, took)


# --- settings -------------------------------------------------------------------------------------------------------


async def test_settings_are_read_again_on_sighup_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    async with Appliance(tmp_path / "door", settings={"call.ring_s": 30}) as door:
        good = door.config.read_text()
        door.config.write_text(good.replace("ring_s = 30", "ring_s = 3000"))
        door.signal(signal.SIGHUP)
        rejected = await door.wait_for_state("diag", lambda diag: diag.get("configRejected", {}).get("value") is True)
        assert "call.ring_s" in json.dumps(rejected["configRejected"])
        assert "call.ring_s" in door.state("config")["errors"][0]
        assert (await ring_s(door)) == 30
        more = '[[book]]\nname = "X"\nuris = ["tel:110"]\n'
        door.config.write_text(good.replace("ring_s = 30", "ring_s = 12") + more)
        door.signal(signal.SIGHUP)
        await door.wait_for_state("diag", lambda diag: not diag.get("configRejected", {}).get("value"))
        await door.wait_for_state("config", lambda config: not config["errors"])
        assert (await ring_s(door)) == 12
        await door.wait_for_state("device", lambda device: "X" in [e["name"] for e in device["addressBook"]])
        door.config.write_text("this is no TOML")
        await door.stop()
        door.write_settings = lambda **_: None  # type: ignore[method-assign]  # leave the bad file as it is
        await door.start()
        assert (await ring_s(door)) == 12 and door.state("diag")["configRejected"]["value"] is True


async def ring_s(door: Appliance) -> int:
    answer = await door.give("config.get")
    return int(answer["data"]["settings"]["call"]["ring_s"])


async def refused_start(*words: str) -> tuple[int, str]:
    """Exit code and words of a start that must not succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=ROOM)
    try:
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return process.returncode or 0, out.decode()


async def test_a_second_one_on_the_same_data_is_refused_and_harms_nothing(tmp_path: Path, broker: Broker) -> None:
    async with Appliance(tmp_path / "door", broker=broker) as door, door.commander() as boss:
        await online(door)
        code, words = await refused_start("--config", str(door.config), "--data", str(door.data))
        assert code == 1 and f"Another process uses the data folder {door.data}" in words, words
        assert "Traceback" not in words
        assert (await door.publish(boss, "devices.volume", percent=33))["result"] == "done"
        assert door.state("diag").get("storageReadOnly", {}).get("value") is not True
        assert not [event for event in door.events if event["type"] == "edgecall.security.refused"]
        assert door.state("device")["boot"].endswith("1")
        await door.stop()
        await door.start()
        assert door.state("device")["boot"].endswith("2")


async def test_a_port_that_is_taken_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        data = tmp_path / "data"
        config = tmp_path / "edgecall.toml"
        config.write_text(f"[http]\nport = {port}\n[mqtt]\nenabled = false\n")
        code, words = await refused_start("--config", str(config), "--data", str(data))
    assert code == 1 and f"Port {port}" in words and "pid" in words and "Traceback" not in words, words
    config.write_text("[http]\nport = 'x'\n")
    code, words = await refused_start("--config", str(config), "--data", str(tmp_path / "other"))
    assert code == 78 and "http.port" in words and "Traceback" not in words, words


# --- ready ----------------------------------------------------------------------------------------------------------


async def test_it_is_ready_without_broker_and_without_service_manager(tmp_path: Path) -> None:
    absent = {"mqtt.enabled": True, "mqtt.host": "127.0.0.1", "mqtt.port": free_port()}
    begun = time.monotonic()
    async with Appliance(tmp_path / "door", settings=absent) as door:
        assert time.monotonic() - begun < 15
        await door.wait_for_state("diag", lambda diag: diag.get("mqttDisconnected", {}).get("value") is True, 20)
        async with door.http.get("http://edgecall/v1/health") as reply:
            assert (await reply.json())["status"] in ("ok", "degraded")
        assert (await door.give("devices.volume", percent=50))["result"] == "done"


async def test_the_service_manager_is_told_in_order(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}
        async with Appliance(tmp_path / "door", environ=environ) as door:
            steps = [await hear(manager) for _ in range(4)]
            said = [await hear(manager) for _ in range(4)]
            door.signal(signal.SIGHUP)
            while "RELOADING=1" not in said[-1]:
                said.append(await hear(manager))
            reloading = len(said) - 1
            while "READY=1" not in said[-1]:
                said.append(await hear(manager))
            code, _ = await door.stop()
            with contextlib.suppress(BlockingIOError):
                while True:
                    said.append(manager.recv(4096).decode())
    assert code == 0
    assert steps == ["EXTEND_TIMEOUT_USEC=30000000"] * 4
    assert "READY=1" in said[0].splitlines() and "STATUS=call: None" in said[0].splitlines(), said
    assert said[1:4] == ["WATCHDOG=1"] * 3
    assert "MONOTONIC_USEC=" in said[reloading]
    stopping = next(n for n, words in enumerate(said) if "STOPPING=1" in words.splitlines())
    assert stopping > reloading
    assert not [words for words in said[stopping + 1:] if "READY=1" in words]


async def hear(manager: socket.socket) -> str:
    async with asyncio.timeout(15):
        return (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode()
