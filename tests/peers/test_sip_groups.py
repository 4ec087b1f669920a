"""Ring groups and fallbacks over every kind of target: a real telephone, an appliance on the LAN, a room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.test_sip_codes import encrypted_account
from tests.peers.test_sip_kamailio import phone_at, proxy
from tests.support.baresip import Baresip
from tests.support.house import Running, house, start_of
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DEVICE_HERTZ = 440
TOKEN = "a token of sixteen or more"
BOOK = """
[[book]]
name = "Phone"
uris = ["sip:phone@example.test"]
[[book]]
name = "Lobby"
uris = ["lan:lobby"]
[[book]]
name = "Everybody"
members = ["Phone", "Lobby"]
strategy = "parallel"
[[book]]
name = "One by one"
members = ["Phone", "Lobby"]
[[book]]
name = "Meeting room"
uris = ["room:1234"]
fallback = "Phone"
"""


@dataclass
class Scene:
    door: Running
    lobby: Running
    phone: Baresip

    async def lobby_is(self, state: str) -> None:
        await self.lobby.until(lambda: self.lobby.document("call").get("state") == state)


@asynccontextmanager
async def scene(folder: Path, *, answers: str = "manual") -> AsyncIterator[Scene]:
    """The door, an account at a Kamailio with a telephone, and another appliance on its LAN."""
    port = free_port()
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    (folder / "lobby").mkdir()
    tokens = (f'[[http.tokens]]\nname = "door-1"\nscope = "device"\ntoken_file = "{token}"\n'
              '[[book]]\nname = "Door"\nuris = ["lan:door-1"]\n')
    peers = f'[[direct.peers]]\nname = "lobby"\nurl = "http://127.0.0.1:{port}"\ntoken_file = "{token}"\n'
    async with (
        proxy(folder) as server, phone_at(server, folder, more=";mediaenc=srtp-mand", answers=answers) as phone,
        house(await start_of(folder / "lobby", {"device.id": "lobby", "http.port": port, "mqtt.enabled": False},
                             tables=tokens)) as lobby,
        house(await start_of(folder, {"mqtt.enabled": False, "janus.url": f"ws://127.0.0.1:{free_port()}"},
                             tables=encrypted_account(folder, server) + peers + BOOK)) as door,
    ):
        await door.until(lambda: any(one["up"] for one in door.document("provider").get("providers", {}).get(
            "sip", {}).get("accounts", {}).values()))
        yield Scene(door, lobby, phone)


def calling(door: Running, to: str, **more: int) -> asyncio.Task[dict[str, object]]:
    return asyncio.create_task(door.give("call.dial", to=to, **more))


async def test_both_ring_and_the_telephone_is_told_that_somebody_else_answered(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        dialling = calling(at.door, "Everybody")
        await asyncio.gather(at.phone.until("CALL_INCOMING"), at.lobby_is("Incoming"))
        assert (await at.lobby.give("call.answer"))["result"] == "done"
        assert (await dialling)["result"] == "done"
        await at.phone.until("CALL_CLOSED")
        await until(lambda: 'Reason: SIP;cause=200;text="Call completed elsewhere"' in "".join(at.phone.log),
                    "the reason in the CANCEL")
        assert at.door.document("call")["callerInfo"]["displayName"] == "Lobby"
        assert at.door.document("call")["state"] == "Connected"


async def test_both_ring_and_the_telephone_answers_first(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        dialling = calling(at.door, "Everybody")
        await asyncio.gather(at.phone.until("CALL_INCOMING"), at.lobby_is("Incoming"))
        await at.phone.tell("accept")
        assert (await dialling)["result"] == "done"
        await at.lobby_is("Disconnected")
        assert at.lobby.document("call")["endReason"]["subCode"] == "answeredElsewhere"
        await at.phone.hear(DEVICE_HERTZ)


async def test_one_after_the_other_while_nobody_answers(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        dialling = calling(at.door, "One by one", ringSeconds=5)
        await at.phone.until("CALL_INCOMING")
        assert at.lobby.document("call")["state"] == "None"
        await at.phone.until("CALL_CLOSED")
        await at.lobby_is("Incoming")
        assert (await at.lobby.give("call.answer"))["result"] == "done"
        await at.door.until(lambda: at.door.document("call")["state"] == "Connected")
        await dialling


async def test_from_a_room_that_is_not_to_be_had_to_the_telephone(tmp_path: Path) -> None:
    async with scene(tmp_path, answers="auto") as at:
        answer = await calling(at.door, "Meeting room")
        assert answer["result"] == "done", answer
        assert at.door.document("call")["callerInfo"]["displayName"] == "Phone"
        await at.phone.hear(DEVICE_HERTZ)
