"""The whole appliance with tokens of a server of tokens (``janus.token_url``) in the rooms of a real Janus."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance import house as house_module
from appliance.clock import SystemClock
from appliance.house import Start
from appliance.settings import Secret
from tests.support.house import Running, house, start_of
from tests.support.janus import JanusServer
from tests.support.janus_tokens import SIGNED, Issuer, admit, issuer, signed, stored
from tests.support.room_device import ROOM, Device, device, janus

pytestmark = pytest.mark.peer


class Set(SystemClock):
    """Of a computer that is synchronised, which a container cannot be made to be."""

    def synchronised(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_module, "SystemClock", Set)


async def fetching(folder: Path, server: JanusServer, tokens: Issuer) -> Start:
    """An appliance that has its tokens from a server of tokens."""
    return await start_of(folder, {"janus.url": server.url, "mqtt.enabled": False, **tokens.settings})


def ends(running: Running) -> str:
    """When the token in force does; empty while there is none."""
    provider = running.document("provider").get("providers", {}).get("janus", {"token": {}})
    return provider["token"].get("expires") or ""


def what_of(running: Running) -> Any:
    """Why its token is of no use."""
    return running.document("diag")["tokenInvalid"]["detail"]["what"]


async def joins(running: Running) -> dict[str, Any]:
    """The answer to ``room.join``."""
    return await running.give("room.join", target=str(ROOM))


def sees(running: Running, name: str) -> bool:
    return any(stream["isReceiving"] for one in running.document("roster")["participants"]
               if one["displayName"] == name for stream in one["videoStreams"])


def states(running: Running) -> set[str]:
    """Of its calls, so far."""
    return {one.data["to"] for one in running.events if one.type == "call.stateChanged"}


@asynccontextmanager
async def in_the_room(
    tmp_path: Path, *, life_s: float,
) -> AsyncIterator[tuple[JanusServer, Issuer, Device, Running]]:
    """By a stored token that was fetched; the gate, which is not there yet, has its own."""
    (tmp_path / "janus").mkdir()
    async with (
        janus(tmp_path / "janus", general={"token_auth": True}) as server,
        issuer(tmp_path, stored(server), life_s=life_s) as tokens,
        device(server.url, "gate", 880, token=Secret("of-the-gate")) as gate,
        house(await fetching(tmp_path, server, tokens)) as running,
    ):
        await admit(server, "of-the-gate")
        await running.until(lambda: ends(running))
        joined = await joins(running)
        assert joined["result"] == "done", joined
        yield server, tokens, gate, running


async def test_fetched_tokens_are_renewed_in_the_room_before_they_end(tmp_path: Path) -> None:
    async with in_the_room(tmp_path, life_s=5) as (server, tokens, gate, running):
        assert tokens.asked[0] == {"grant_type": "client_credentials", "client_id": "door-1"}
        first = tokens.given[-1]
        before = ends(running)
        await running.until(lambda: ends(running) != before, 20)  # the next one holds
        await server.admin("remove_token", token=first)  # its time is over
        await gate.join()
        await running.until(lambda: sees(running, "Gate"))
        assert "Reconnecting" not in states(running)
        shown = json.dumps(running.house.bulletin.snapshot().documents, default=str)
        assert not any(token in shown for token in tokens.given)


async def test_a_fetched_token_that_the_rooms_refuse_is_replaced_at_once(tmp_path: Path) -> None:
    async with in_the_room(tmp_path, life_s=3600) as (server, tokens, gate, running):
        await server.admin("remove_token", token=tokens.given[0])
        await gate.join()  # whom we may not see with that one
        await running.until(lambda: sees(running, "Gate"))
        assert len(tokens.given) == 2
        await running.until(lambda: not running.raised("tokenInvalid"))
        assert "Reconnecting" not in states(running)


async def test_a_fetched_token_that_ends_without_another_one_ends_the_call_and_the_next_one_opens_the_door(
    tmp_path: Path,
) -> None:
    """The session at the server outlives the token, and nothing asks for it meanwhile."""
    (tmp_path / "janus").mkdir()

    async def make() -> str:
        return signed(8).reveal()

    async with (
        janus(tmp_path / "janus", general={**SIGNED, "session_timeout": 11}) as server,
        issuer(tmp_path, make, life_s=8) as tokens, house(await fetching(tmp_path, server, tokens)) as running,
    ):
        await running.until(lambda: ends(running))
        tokens.open = False
        joined = await joins(running)
        assert joined["result"] == "done", joined
        await running.until(lambda: running.raised("tokenInvalid") and what_of(running) == (
            "it has expired, and janus.token_url gave none: it answers with status 503"), 30)
        assert running.document("call")["state"] == "Connected", "whoever is there goes on being heard"
        await running.until(lambda: running.document("call")["state"] == "Disconnected", 30)
        ended, = [one for one in running.events if one.type == "call.ended"]
        assert (ended.data["reason"]["code"], ended.data["reason"]["subCode"]) == (401, "token")
        refused = await joins(running)
        assert (refused["result"], refused["code"], refused["subCode"]) == ("failed", 401, "token"), refused
        tokens.open = True
        await running.until(lambda: not running.raised("tokenInvalid"), 30)
        joined = await joins(running)
        assert joined["result"] == "done", joined
