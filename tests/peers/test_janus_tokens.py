"""Tokens of a real Janus, stored at the server and signed: taken, refused, expired in the room, and renewed there."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path

import pytest

from appliance.clock import rfc3339
from appliance.errors import Refused
from appliance.providers import api
from appliance.settings import JanusRoomSettings, Secret
from appliance.vocabulary import DOCUMENTS, END_REASONS
from tests.support.appliance import Appliance
from tests.support.janus_tokens import SIGNED, admit, signed
from tests.support.room_device import H264, ROOM, device, janus
from tests.support.waiting import until

pytestmark = pytest.mark.peer

LEAVE = END_REASONS["0/local"]


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


async def test_a_signed_token_expires_in_the_room_and_is_renewed_there(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, general=SIGNED) as server, device(server.url, "door") as door,
        device(server.url, "gate", 880, token=signed(3600)) as gate,
        device(server.url, "forger", token=signed(3600, key="another")) as forger,
    ):
        await forger.join()
        assert await forger.ended() == "401/token"
        assert forger.flags["tokenInvalid"]
        until_then = math.ceil(time.time()) + 8
        await door.token.put(signed(8).reveal(), None)
        await door.join()
        await door.connected()
        await until(lambda: door.flags["tokenExpiring"], "it is told before")
        await until(lambda: door.flags["tokenInvalid"], "and when it has expired")
        assert not door.flags["tokenExpiring"]
        await until(lambda: time.time() > until_then + 1, "for Janus it is valid until that second is over")
        await gate.join()
        await gate.sees("Door")  # who is sent on and on
        await until(lambda: "Gate" in door.members, "who comes is told of")
        assert not door.tiles
        with pytest.raises(Refused) as refused:
            await door.join()
        assert (refused.value.code, refused.value.sub_code) == (401, "token")

        await door.token.put(signed(3600).reveal(), None)
        await door.sees("Gate")
        await door.hears(880)
        assert not door.flags["tokenInvalid"]
        assert not door.of(api.Lost)
        assert not door.of(api.Ended)


async def test_a_stored_token_is_withdrawn_and_another_one_given(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, general={"token_auth": True}) as server,
        device(server.url, "door", token=Secret("first")) as door,
        device(server.url, "gate", 880, token=Secret("of-the-gate")) as gate,
    ):
        await door.join()
        assert await door.ended() == "401/token"
        for token in ("first", "of-the-gate"):
            await admit(server, token)
        await door.join()
        await door.connected()
        assert not door.flags["tokenInvalid"]
        await server.admin("remove_token", token="first")
        await gate.join()
        await gate.sees("Door")
        await until(lambda: door.flags["tokenInvalid"], "refused when it wants to see who has come")
        assert not door.of(api.Lost)
        await admit(server, "second")
        await door.token.put("second", None)
        await door.sees("Gate")
        assert door.leg is not None
        await door.leg.end(LEAVE)
        assert await door.ended() == "0/local"
        await door.token.put("third", None)
        await door.join()
        assert await door.ended() == "401/token"


async def test_a_room_that_asks_for_a_signed_token_of_its_own(tmp_path: Path) -> None:
    rooms = {ROOM: {**H264, "signed_tokens": True}}
    right, wrong = (
        JanusRoomSettings("lobby", str(ROOM), token=signed(3600, "janus.plugin.videoroom", f"room={number}"))
        for number in (ROOM, 99))
    async with (
        janus(tmp_path, rooms, general=SIGNED) as server,
        device(server.url, "door", token=signed(3600), rooms=(right,)) as door,
        device(server.url, "gate", token=signed(3600), rooms=(wrong,)) as gate,
    ):
        await gate.join("lobby")
        assert await gate.ended() == "403/notInvited"
        await door.join("lobby")
        await door.connected()


async def test_the_whole_appliance_is_given_a_token_and_shows_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    token, file = signed(3600).reveal(), tmp_path / "token"
    await asyncio.to_thread(write, file, signed(-5).reveal())
    async with janus(tmp_path / "janus", general=SIGNED) as server, Appliance(
            tmp_path / "door", settings={"janus.url": server.url, "janus.token_file": str(file)}) as door:
        refused = await door.give("room.join", target=str(ROOM))
        assert (refused["result"], refused["code"], refused["subCode"]) == ("failed", 401, "token")
        given = await door.give("token.set", token=token)
        assert given["result"] == "done", given
        await door.wait_for_state("provider", lambda state: state["providers"]["janus"]["token"]["isValid"])
        joined = await door.give("room.join", target=str(ROOM))
        assert joined["result"] == "done", joined
        await door.give("room.leave")
        await door.stop()
        await door.start()  # what was set is kept
        joined = await door.give("room.join", target=str(ROOM))
        assert joined["result"] == "done", joined
        another = signed(1800).reveal()
        await asyncio.to_thread(write, file, another)  # the settings name another one: it takes the place of any
        reloaded = await door.give("config.reload")
        assert reloaded["result"] == "done", reloaded
        ends = rfc3339(float(another.partition(",")[0]))
        await door.wait_for_state("provider", lambda state: state["providers"]["janus"]["token"]["expires"] == ends)
        shown = json.dumps([door.state(name) for name in DOCUMENTS]) + await asyncio.to_thread(
            (door.folder / "log").read_text)
        assert token not in shown
        assert another not in shown


async def test_a_kiosk_whose_token_had_ended_is_back_with_another(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    file = tmp_path / "token"
    await asyncio.to_thread(write, file, signed(3600, key="another").reveal())
    async with janus(tmp_path / "janus", general=SIGNED) as server, Appliance(tmp_path / "door", settings={
            "janus.url": server.url, "janus.token_file": str(file), "call.auto_join": f"room:{ROOM}"}) as door:
        await door.wait_for_state("device", lambda state: state.get("autoJoin", {}).get("lastEnd") == "401/token")
        assert door.state("device")["autoJoin"]["isArmed"] is False
        given = await door.give("token.set", token=signed(3600).reveal())
        assert given["result"] == "done", given
        await door.call_is("Connected")
