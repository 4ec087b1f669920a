"""Two whole appliances in a call, and an update at one of them: it comes slowly, waits, is forced, and is told of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from appliance import house as house_module
from appliance.clock import SystemClock
from appliance.faces import jsonschema
from appliance.faces.cloudevents import cloud_event
from tests.support.house import Running, house, start_of
from tests.support.root_service import FakeRootService, taken_by_a_call

URL = "https://updates.example.org/2.0.0.raucb"
DOOR = {"mqtt.enabled": False, "update.origins": ["https://updates.example.org/"], "update.call_bitrate": 800_000}
LOBBY = {"mqtt.enabled": False, "device.id": "lobby-1", "call.allow_unknown": True}


class Set(SystemClock):
    """A container's kernel says that its clock is not synchronised, and may not be told otherwise."""

    def synchronised(self) -> bool:
        return True


def secret(path: Path) -> Path:
    path.write_text("a token of more than 16 characters")
    path.chmod(0o600)
    return path


def keeps_the_schema(running: Running) -> None:
    Draft202012Validator(jsonschema.state("update")).validate(running.document("update"))
    for event in running.events:
        body = json.loads(json.dumps(cloud_event(event, "door-1", running.house.bulletin.boot)))
        Draft202012Validator(jsonschema.event(event.type)).validate(body)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[FakeRootService]:
    found = FakeRootService(tmp_path / "update.sock", tmp_path / "door" / "data" / "call.lock")
    await found.start()
    yield found
    await found.stop()


async def test_an_update_asked_for_in_a_call(
        tmp_path: Path, service: FakeRootService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_module, "SystemClock", Set)
    door_folder, lobby_folder = tmp_path / "door", tmp_path / "lobby"
    door_folder.mkdir()
    lobby_folder.mkdir()
    token, lock = secret(tmp_path / "token"), door_folder / "data" / "call.lock"
    known = f'[[http.tokens]]\nname = "door-1"\nscope = "device"\ntoken_file = "{token}"\n'
    async with house(await start_of(lobby_folder, LOBBY, tables=known)) as lobby:
        peers = (f'[[direct.peers]]\nname = "lobby"\nurl = "http://127.0.0.1:{lobby.house.http.port}"\n'
                 f'token_file = "{token}"')
        start = await start_of(door_folder, DOOR, tables=peers, update_socket=service.path)
        async with house(start) as door:
            assert not await asyncio.to_thread(taken_by_a_call, lock)
            dialled = asyncio.create_task(door.give("call.dial", to="lan:lobby"))
            await lobby.until(lambda: lobby.document("call").get("state") == "Incoming")
            await lobby.give("call.answer")
            await door.until(lambda: door.document("call")["state"] == "Connected")
            assert (await dialled)["result"] == "done"
            assert (await door.give("update.install", url=URL))["result"] == "done"
            await door.until(lambda: door.document("update")["phase"] == "installing")
            assert service.last("install")["rateLimit"] == 100_000
            await service.installed()
            await door.until(lambda: door.document("update")["waitsFor"] == ["call"])
            assert await asyncio.to_thread(taken_by_a_call, lock)
            assert service.count("reboot") == 0
            assert (await door.give("update.commit", force=datetime.now(UTC).isoformat()))["result"] == "done"
            await door.until(lambda: door.document("update")["phase"] == "rebooting")
            assert door.document("call")["state"] == "Connected"  # the restart itself ends it
            keeps_the_schema(door)
            (restarting,) = [event for event in door.events if event.type == "update.restarting"]
            assert restarting.data["forced"] is True
        await lobby.until(lambda: lobby.document("call")["state"] == "Disconnected")
    await service.restart("B", trial=True, version="2.0.0")
    async with house(start) as door:
        await door.until(lambda: door.document("update")["phase"] == "trial")
        await service.end("succeeded")
        await door.until(lambda: door.document("update")["last"])
        told = [event.data for event in door.events if event.type == "update.completed"]
        assert [(one["result"], one["running"]) for one in told] == [("succeeded", "2.0.0")]
        _, shown = await door.ask("GET", "/v1/state/update")
        assert shown["last"]["result"] == "succeeded"
        keeps_the_schema(door)


async def test_without_an_image(tmp_path: Path) -> None:
    start = await start_of(tmp_path, {"mqtt.enabled": False}, update_socket=tmp_path / "none")
    async with house(start) as running:
        await running.until(lambda: running.document("update")["supported"] is False)
        answer = await running.give("update.install", url=URL)
        assert (answer["result"], answer["code"], answer["subCode"]) == ("rejected", 501, "FeatureNotSupported")
        assert not running.raised("updateFailed")
        keeps_the_schema(running)
