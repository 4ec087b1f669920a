"""The whole appliance as a kiosk and as a consumer in rooms of a real Janus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import Running, house, start_of
from tests.support.janus import JanusServer
from tests.support.room_device import ROOM, device, janus
from tests.support.waiting import until

pytestmark = pytest.mark.peer


def settings(server: JanusServer, **more: Any) -> dict[str, Any]:
    return {"janus.url": server.url, "mqtt.enabled": False, **more}


async def in_state(running: Running, state: str) -> None:
    await running.until(lambda: running.document("call").get("state") == state)


async def test_a_kiosk_joins_by_itself_is_back_after_the_server_was_and_stays_out_when_it_is_sent_away(
    tmp_path: Path,
) -> None:
    (tmp_path / "janus").mkdir()
    async with janus(tmp_path / "janus") as server:
        start = await start_of(tmp_path, settings(server, **{"call.auto_join": f"room:{ROOM}", "call.reconnect_s": 5}))
        async with house(start) as running:
            await in_state(running, "Connected")
            assert running.document("device")["autoJoin"] == {
                "target": f"room:{ROOM}", "isArmed": True, "lastEnd": None}
            await server.kill()
            await in_state(running, "Reconnecting")
            await in_state(running, "Disconnected")  # given up after reconnect_s
            assert running.document("device")["autoJoin"]["isArmed"]
            await server.start()
            await in_state(running, "Connected")
            async with server.control() as control:
                there, = await control.participants(ROOM)
                await control.request({"request": "kick", "room": ROOM, "id": there["id"]})
                await in_state(running, "Disconnected")
                assert running.document("device")["autoJoin"] == {
                    "target": f"room:{ROOM}", "isArmed": False, "lastEnd": "0/removed"}
                await asyncio.sleep(2.5)  # twice the first pause
                assert not await control.participants(ROOM)


async def test_a_consumer_hears_and_sees_and_nothing_of_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with janus(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate:
        lobby = {"name": "lobby", "id": str(ROOM), "role": "consumer"}
        async with house(await start_of(tmp_path, settings(server, **{"janus.rooms": [lobby]}))) as running:
            await gate.join()
            await gate.connected()
            joined = await running.give("room.join", target="lobby")
            assert joined["result"] == "done", joined
            await running.until(lambda: (running.document("roster")["participants"] or [
                {"videoStreams": [{"isReceiving": False}]}])[0]["videoStreams"][0]["isReceiving"])
            await until(lambda: "Edgecall" in gate.members, "the consumer is in the roster")
            there = gate.members["Edgecall"]
            assert (there.video, there.receiving, there.away) == (False, False, False)
            for verb in ("video.start", "call.unmute"):
                refused = await running.give(verb)
                assert (refused["code"], refused["subCode"]) == (403, "RoleRestricted"), refused
            async with server.control() as control:
                listed = {one["display"]: one for one in await control.participants(ROOM)}
                assert listed["Edgecall"]["publisher"] is False
                assert listed["Gate"]["publisher"] is True
