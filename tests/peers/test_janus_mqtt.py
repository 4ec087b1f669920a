"""Rooms of a real Janus through a real Mosquitto: calls over it, and what is lost of either of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.settings import JanusRoomSettings, Secret
from appliance.vocabulary import END_REASONS
from tests.support.broker import Broker, Client, Relay
from tests.support.janus import AUDIO, JanusServer, Rooms
from tests.support.lag import lateness
from tests.support.ports import free_port
from tests.support.room_device import ROOM, Device, device, janus, same_as_server
from tests.support.room_talk import heard, listening, lose_and_find_the_server, says
from tests.support.turnserver import Authority
from tests.support.waiting import until

pytestmark = pytest.mark.peer

LEAVE = END_REASONS["0/local"]
NAMES = ("rooms", "door-rooms", "gate-rooms", "watcher")


@asynccontextmanager
async def brokered(
    folder: Path, more: str = "", *, audio: Rooms | None = None, texts: Rooms | None = None,
) -> AsyncIterator[tuple[Broker, JanusServer]]:
    """A broker with a Janus at it. The devices may ask it and hear it, and nothing else of it. ``more``: of what stands
    in the broker's configuration; ``audio``, ``texts``: rooms of AudioBridge and TextRoom."""
    broker = Broker(folder / "broker", devices=NAMES, extra=more)
    rights = "user rooms\ntopic readwrite rooms/#\nuser watcher\ntopic readwrite rooms/#\n" + "".join(
        f"user {name}\ntopic write rooms/to-janus\ntopic read rooms/from-janus\ntopic read rooms/status\n"
        for name in NAMES[1:3])
    await asyncio.to_thread((broker.folder / "acl").write_text, rights)
    (folder / "janus").mkdir()
    async with (
        broker, janus(folder / "janus", broker=broker.port, audio=audio, texts=texts) as server,
        Client(broker.port, "watcher") as watcher,
    ):
        await watcher.subscribe("rooms/status")
        await watcher.until(lambda seen: b"true" in seen.payload)
        yield broker, server


def url(broker: Broker) -> str:
    return f"mqtt://127.0.0.1:{broker.port}/rooms"


def login(name: str) -> dict[str, Any]:
    return {"trusted_broker": True, "mqtt_username": f"{name}-rooms", "mqtt_password": Secret(f"{name}-rooms")}


def fault(one: Device) -> str:
    return str(one.provider.state()["endpoints"][0]["fault"])


async def test_a_call_whose_server_and_whose_broker_are_killed(tmp_path: Path) -> None:
    async with (
        brokered(tmp_path) as (broker, server), device(url(broker), "door", 440, **login("door")) as door,
        device(url(broker), "gate", 880, **login("gate")) as gate,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        await gate.sees("Door")
        await door.hears(880)
        await gate.hears(440)
        await same_as_server(server, door)

        await server.kill()
        await until(lambda: door.of(api.Lost) and gate.of(api.Lost), "both are told by its will", 3)
        await until(lambda: "not at the broker" in fault(door), "and say why")
        await server.start()
        await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are back")
        await door.sees("Gate")
        await gate.hears(440)

        await broker.kill()
        await until(lambda: len(door.of(api.Lost)) == 2, "the broker is missed", 3)
        await broker.start()
        await until(lambda: len(door.of(api.Recovered)) == 2 and len(gate.of(api.Recovered)) == 2, "both are back", 15)
        await gate.sees("Door")
        await door.hears(880)
        await same_as_server(server, door)  # without ghosts of us: the old sessions were claimed
        for one in (door, gate):
            assert one.leg is not None
            await one.leg.end(LEAVE)
            assert await one.ended() == "0/local"
        deadline = asyncio.get_running_loop().time() + 5  # long before the server would end the sessions by itself
        async with server.control() as control:
            while await control.participants(ROOM):
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.05)


async def test_a_watcher_alone_notices_within_three_seconds_that_the_way_to_the_broker_is_cut(tmp_path: Path) -> None:
    """Its own link is there, and so are broker and server: nobody tells, and nothing is due."""
    watches = api.MediaWanted(send_audio=False, send_video=False, listens_only=True)
    async with (
        brokered(tmp_path) as (broker, server), Relay(broker.port).running() as way,
        device(f"mqtt://127.0.0.1:{way.port}/rooms", "door", **login("door")) as door, lateness() as late,
    ):
        await door.join(media=watches)
        await door.connected()
        await asyncio.sleep(4)
        assert not door.of(api.Lost), "it answers"
        late_before, cut = late(), asyncio.get_running_loop().time()
        way.stall()
        await until(lambda: door.of(api.Lost), "the loss is told", 15)
        assert door.when(api.Lost) - cut < 3.1 + late() - late_before
        way.flow()
        await until(lambda: door.of(api.Recovered), "it is back", 15)
        await same_as_server(server, door)


async def test_a_device_by_the_broker_and_one_by_the_websocket_meet(tmp_path: Path) -> None:
    async with (
        brokered(tmp_path) as (broker, server), device(url(broker), "door", 440, **login("door")) as door,
        device(server.url, "gate", 880) as gate, lateness() as late,
    ):
        begun, late_before = asyncio.get_running_loop().time(), late()
        await door.join()
        await door.connected()
        assert door.when(api.Connected) - begun < 1 + late() - late_before
        await gate.join()
        await door.sees("Gate")
        await gate.hears(440)
        task = asyncio.create_task(door.provider.probe.run(), name="test.probe")
        try:
            assert door.leg is not None
            await door.leg.end(LEAVE)
            await door.ended()
            door.provider.probe.soon()
            await until(lambda: door.provider.state()["selectedEndpoint"]["roundTripTime"], "it is probed that way too")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_room_of_sound_alone_and_its_text_room_through_the_broker(tmp_path: Path) -> None:
    rooms = (JanusRoomSettings(name="hall", id="77", kind="audio", text_id="7"),)
    async with (
        brokered(tmp_path, audio={77: {"sampling_rate": 48_000}}, texts={7: {}}) as (broker, server),
        device(url(broker), "door", 440, rooms=rooms, **login("door")) as door,
        device(url(broker), "gate", 880, rooms=rooms, **login("gate")) as gate,
        device(server.url, "desk", 1320, rooms=rooms) as desk,
    ):
        for one in (door, gate, desk):
            await one.join("hall")
            await one.connected()
        desk.studio.mute(True)
        await door.hears(880)
        await gate.hears(440)
        await until(lambda: set(door.members) == {"Gate", "Desk"}, "the others at the door")
        gate.studio.mute(True)
        assert gate.leg is not None
        await gate.leg.set_media(replace(gate.media, send_audio=False))
        await until(lambda: door.members["Gate"].muted, "the mute is told")
        gate.studio.mute(False)
        await gate.leg.set_media(gate.media)
        await until(lambda: not door.members["Gate"].muted, "and its end")

        await listening(door, gate, desk)
        await says(door, "chat", "for the gate", to=[door.members["Gate"].id])
        await says(door, "chat", "x" * 60_000)
        await until(lambda: [len(one.payload) for one in heard(gate, "chat")] == [12, 60_000], "both at the gate")
        await until(lambda: [len(one.payload) for one in heard(desk, "chat")] == [60_000], "one at the desk")

        await lose_and_find_the_server(server, door, gate, desk)
        await door.hears(880)

        await broker.kill()
        await until(lambda: door.of(api.Lost) and gate.of(api.Lost), "the broker is missed", 3)
        await broker.start()
        await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are back", 15)
        await listening(door, gate, desk)
        await gate.hears(440)
        assert not desk.of(api.Lost)
        async with server.control(AUDIO) as control:
            listed = await control.participants(77)
            assert sorted(one["display"] for one in listed) == ["Desk", "Door", "Gate"], "no ghosts of ours"


async def test_what_is_missing_is_told_apart(tmp_path: Path) -> None:
    async with brokered(tmp_path) as (broker, server), device(url(broker), "door", **login("door")) as door:
        await server.kill()
        await door.join()
        assert await door.ended() == "503/provider"
        assert "not at the broker" in fault(door)
        async with Client(broker.port, "watcher", "w2") as watcher:  # as if it told no status
            await watcher.publish("rooms/status", b"", retain=True)
            await door.join()
            assert await door.ended() == "503/provider"
            assert "no room server listens" in fault(door)
        await broker.kill()
        await door.join()
        assert await door.ended() == "503/provider"
        assert "refused" in fault(door).lower()


async def test_a_login_or_a_right_that_is_missing(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"trusted_broker": True, "mqtt_username": "door-rooms", "mqtt_password": Secret("guess")}
    async with (
        brokered(tmp_path) as (broker, _), device(url(broker), "door", **wrong) as door,
        device(f"mqtt://127.0.0.1:{broker.port}/others", "gate", **login("gate")) as gate,
    ):
        await door.join()
        assert await door.ended() == "503/provider"
        assert "refused" in fault(door)
        await gate.join()
        assert await gate.ended() == "503/provider"
        assert "see its access list" in fault(gate)


async def test_only_a_broker_whose_authority_is_known_is_told_anything(tmp_path: Path) -> None:
    known, unknown = Authority(tmp_path, "known"), Authority(tmp_path, "unknown")
    certificate, key = known.issue("127.0.0.1")
    port = free_port()
    more = f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n"
    secure = f"mqtts://127.0.0.1:{port}/rooms"
    async with (
        brokered(tmp_path, more) as (broker, _),
        device(secure, "door", ca_file=str(known.file), **login("door")) as door,
        device(secure, "gate", ca_file=str(unknown.file), **login("gate")) as gate,
    ):
        await door.join()
        await door.connected()
        await gate.join()
        assert await gate.ended() == "503/provider"
        assert "certificate" in fault(gate).lower()
        assert not any("gate-rooms" in line for line in broker.log)


async def test_what_others_say_on_the_common_topic_changes_nothing(tmp_path: Path) -> None:
    """Answers and errors of others, texts that are none, and more at once than is taken."""
    async with (
        brokered(tmp_path) as (broker, _), device(url(broker), "door", 440, **login("door")) as door,
        device(url(broker), "gate", 880, **login("gate")) as gate, Client(broker.port, "watcher", "w3") as watcher,
    ):
        await door.join()
        await door.connected()
        for payload in (
            b'{"janus":"error","transaction":"other","session_id":7,"error":{"code":458,"reason":"no such session"}}',
            b'{"janus":"timeout","session_id":7}', b'{"janus":"error","error":{"code":403,"reason":"x"}}', b"\xff\xfe{",
            b"[" * 100_000, b"{}", b"null", b'{"janus":"event","session_id":[1],"sender":{}}',
        ):
            await watcher.publish("rooms/from-janus", payload)
        await watcher.publish("rooms/status", b'{"online": 7}')
        await watcher.publish("rooms/from-janus", b"x" * 2_000_000)  # the broker keeps to what we take
        await gate.join()
        await door.sees("Gate")
        assert not door.of(api.Lost)
        assert not gate.of(api.Lost)
