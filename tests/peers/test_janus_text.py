"""Data messages of rooms through the TextRoom of a real Janus: between appliances, and with a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.errors import Refused
from appliance.providers import api
from appliance.settings import JanusRoomSettings, Secret
from tests.support.audio_page import audio_page
from tests.support.browser import chromium, wait_for
from tests.support.house import house, start_of
from tests.support.janus import AUDIO as AUDIO_BRIDGE
from tests.support.janus import TEXT, JanusServer
from tests.support.janus_between import between
from tests.support.room_device import ROOM, Device, device, janus
from tests.support.room_talk import heard, listening, lose_and_find_the_server, says
from tests.support.waiting import until

pytestmark = pytest.mark.peer

HALL, TALK, LOCKED = 77, 7, 8
SECRET = "s3cret"
AUDIO = {HALL: {"sampling_rate": 48_000}}
TEXTS = {TALK: {"secret": SECRET}, LOCKED: {"pin": "4711"}}


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[JanusServer]:
    async with janus(folder, audio=AUDIO, texts=TEXTS) as server:
        yield server


def room(**more: Any) -> JanusRoomSettings:
    return JanusRoomSettings(**{"name": "hall", "id": str(HALL), "kind": "audio", "text_id": str(TALK), **more})


@asynccontextmanager
async def people(server: JanusServer, *names: str, **how: Any) -> AsyncIterator[list[Device]]:
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(device(server.url, name, rooms=(room(**how),))) for name in names]
        for one in made:
            await one.join("hall")
            await one.connected()
        yield made


async def refused_with(one: Device, words: str, within_s: float = 5.0) -> None:
    """What is sent is refused, and why is told."""
    assert one.leg is not None
    deadline = asyncio.get_running_loop().time() + within_s
    said = ""
    while words not in said:
        assert asyncio.get_running_loop().time() < deadline, said
        await asyncio.sleep(0.05)
        try:
            await one.leg.send("chat", "hello")
        except Refused as refused:
            assert refused.sub_code == "noDataChannel"
            said = refused.message


@pytest.mark.parametrize("where", [{}, {"id": str(ROOM), "kind": "video"}], ids=["sound alone", "with pictures"])
async def test_messages_reach_all_or_those_who_are_meant_alone(tmp_path: Path, where: dict[str, str]) -> None:
    async with world(tmp_path) as server, people(server, "door", "gate", "desk", **where) as (door, gate, desk):
        await listening(door, gate, desk)
        sent = ["short", "ä" * 30_000, "\x01" * 60_000, '"\\' * 30_000, *(str(number) for number in range(30))]
        for payload in sent:
            await says(door, "chat", payload)
        await says(door, "note", "for the gate", to=[door.members["Gate"].id])
        await says(door, "note", "for the desk", to=[door.members["Desk"].id], lossy=True)
        await says(door, "note", "for both", to=[door.members["Gate"].id, door.members["Desk"].id])
        await says(door, "chat", "the last")
        for one, notes in ((gate, ["for the gate", "for both"]), (desk, ["for the desk", "for both"])):
            await until(lambda one=one: len(heard(one, "chat")) == len(sent) + 1,  # type: ignore[misc]
                        f"all messages at {one.name}")
            assert [message.payload for message in heard(one, "chat")] == [*sent, "the last"]
            assert [message.payload for message in heard(one, "note")] == notes
            assert {message.sender for message in one.of(api.DataReceived)} == {
                one.members[other.name.title()].id for other in (door, gate, desk) if other is not one}
            assert not any(message.lost for message in one.of(api.DataReceived))
        assert not heard(door, "chat")  # the plug-in says to us too what we say to all

        assert gate.leg is not None
        with pytest.raises(Refused) as refused:
            await gate.leg.send("chat", "x" * 70_000)
        assert refused.value.key == "413/tooLarge"
        with pytest.raises(Refused, match="nobody of those who are meant"):
            await gate.leg.send("chat", "x", to=["somebody"])
        for one in (door, gate):
            assert not one.of(api.Lost)
        assert {one["type"] for one in await door.stats()} >= {"outbound-rtp"}


async def test_a_browser_that_knows_no_frames_is_understood_and_reads_ours(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as server, people(server, "door") as (door,), audio_page() as url, chromium(880) as browser,
    ):
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, HALL])
        joined = await page.evaluate("([room]) => people.Olga.text(room, 'olga')", [TALK])
        assert joined["textroom"] == "success", joined
        await until(lambda: "Olga" in door.members, "Olga is there")
        olga = door.members["Olga"].id
        await says(door, "chat", "for all")
        await says(door, "note", "for Olga", to=[olga])
        await wait_for(page, "() => people.Olga.said.length === 2")
        said = [(one.get("whisper", False), json.loads(one["text"])) for one in await page.evaluate(
            "() => people.Olga.said")]
        assert [(private, one["channel"], one["payload"]) for private, one in said] == [
            (False, "chat", "for all"), (True, "note", "for Olga")]

        await page.evaluate("() => people.Olga.say('Good evening')")
        await page.evaluate("""() => people.Olga.say(JSON.stringify({ channel: 'level', payload: '3' }))""")
        await until(lambda: heard(door, "chat") and heard(door, "level"), "what Olga says")
        assert heard(door, "chat") == [api.DataReceived("chat", "Good evening", olga)]
        assert heard(door, "level") == [api.DataReceived("level", "3", olga)]


async def test_who_has_taken_our_name_there_does_not_keep_us_out(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as server, people(server, "door") as (door,), audio_page() as url, chromium(880) as browser,
        device(server.url, "gate", rooms=(room(),)) as gate,
    ):
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, HALL])
        await gate.join("hall")
        await until(lambda: "Gate" in door.members, "the gate has its id")
        await page.evaluate("([room, name]) => people.Olga.text(room, name)", [TALK, door.members["Gate"].id])
        await says(gate, "chat", "here")
        await until(lambda: heard(door, "chat"), "the gate is heard")


async def test_where_the_text_room_lets_nobody_in_the_call_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as server:
        for text, words in (("99", "No such room"), (str(LOCKED), "Missing mandatory element (pin)")):
            async with people(server, "door", text_id=text) as (door,):
                await refused_with(door, words)
                assert not door.of(api.Lost)
        async with people(server, "door", text_id=str(LOCKED), pin=Secret("4711")) as (door,):
            await says(door, "chat", "let in")
        async with people(server, "door", "gate") as (door, gate):
            await listening(door, gate)
            async with server.control(TEXT) as control:
                guarded = {"room": TALK, "secret": SECRET}
                listed = await control.request({"request": "listparticipants", "room": TALK})
                assert {one["username"] for one in listed["participants"]} == {*door.names, *gate.names}
                await control.request({"request": "kick", **guarded, "username": gate.members["Door"].id})
                await refused_with(door, "removed")
                await control.request({"request": "destroy", **guarded})
                await refused_with(gate, "destroyed")
            assert not door.of(api.Lost)
            assert not gate.of(api.Lost)
            await door.hears(440)  # of the gate, which sounds the same


async def test_after_a_loss_messages_come_again(tmp_path: Path) -> None:
    async with world(tmp_path) as server, people(server, "door", "gate") as (door, gate):
        await listening(door, gate)
        await lose_and_find_the_server(server, door, gate)


async def test_where_only_the_signalling_is_cut_no_ghost_is_left(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as server, between(server.url) as way, people(server, "gate") as (gate,),
        device(way.url, "door", rooms=(room(),)) as door,
    ):
        await door.join("hall")
        await door.connected()
        await listening(door, gate)
        await way.close()
        await until(lambda: door.of(api.Lost), "the door reconnects", 3)
        await way.open()
        await until(lambda: door.of(api.Recovered), "it is back", 8)
        assert any(one["janus"] == "claim" for one in way.asked)
        await until(lambda: door.names and gate.names, "each sees the other")
        for one in (door, gate):
            one.told[:] = [(at, event) for at, event in one.told if not isinstance(event, api.DataReceived)]
        await listening(door, gate)
        for plugin, where, name in ((AUDIO_BRIDGE, HALL, "id"), (TEXT, TALK, "username")):
            async with server.control(plugin) as control:
                listed = await control.request({"request": "listparticipants", "room": where})
                assert {str(one[name]) for one in listed["participants"]} == {*door.names, *gate.names}


async def test_a_server_with_ids_of_text_and_who_may_only_listen(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, audio={str(HALL): AUDIO[HALL]}, texts={str(TALK): {}}) as server,
        people(server, "door", "gate") as (door, gate), device(server.url, "desk", rooms=(room(),)) as desk,
    ):
        await desk.join("hall", media=api.MediaWanted(False, False, listens_only=True))
        await desk.connected()
        await listening(door, gate)
        await says(door, "note", "for the desk", to=[door.members["Desk"].id])
        await until(lambda: heard(desk, "note"), "the desk reads it")
        assert not heard(gate, "note")
        assert desk.leg is not None
        with pytest.raises(Refused) as refused:
            await desk.leg.send("chat", "hello")
        assert refused.value.key == "403/RoleRestricted"


async def test_a_recording_of_the_mix_is_told_to_the_others(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    where = {HALL: {"sampling_rate": 48_000, "secret": SECRET, "record_dir": str(tmp_path)}}
    async with (
        janus(tmp_path / "janus", audio=where, texts={TALK: {}}) as server, people(server, "gate") as (gate,),
    ):
        start = await start_of(tmp_path, {"janus.url": server.url, "mqtt.enabled": False, "janus.rooms": [{
            "name": "hall", "id": str(HALL), "kind": "audio", "text_id": str(TALK), "role": "presenter",
            "secret_file": str(secret)}]})
        async with house(start) as running:
            joined = await running.give("room.join", target="hall")
            assert joined["result"] == "done", joined
            assert running.document("call")["capabilities"]["startRecording"]["isPresent"]
            for _ in range(50):
                begun = await running.give("record.start")
                if begun["result"] == "done":
                    break
                assert begun["subCode"] == "noDataChannel", begun  # it is not in the TextRoom yet
                await asyncio.sleep(0.1)
            assert begun["result"] == "done", begun
            await until(lambda: any(json.loads(one.payload).get("recording") for one in heard(gate, "state")),
                        "it is told")
            assert running.document("call")["isRecordingActive"]
            await until(lambda: any(one.stat().st_size > 50_000 for one in tmp_path.glob("*.wav")), "half a second")
            ended = await running.give("record.stop")
            assert ended["result"] == "done", ended


async def test_the_door_is_opened_and_hands_are_seen_in_a_room_of_sound_alone(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "caretaker.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    async with world(tmp_path / "janus") as server, people(server, "gate") as (gate,):
        start = await start_of(tmp_path, {
            "janus.url": server.url, "mqtt.enabled": False, "door.seconds": 1.0,
            "janus.rooms": [{"name": "hall", "id": str(HALL), "kind": "audio", "text_id": str(TALK)}],
            "door.signers": [{"name": "caretaker", "key_file": str(public)}]})
        async with house(start) as running:
            joined = await running.give("room.join", target="hall")
            assert joined["result"] == "done", joined
            await until(lambda: "Edgecall" in gate.members, "the appliance is there")
            await says(gate, "door", json.dumps({"type": "challenge"}), to=[])

            async def replied(kind: str) -> dict[str, Any]:
                def found() -> list[dict[str, Any]]:
                    return [one for message in heard(gate, "door")
                            if (one := json.loads(message.payload))["type"] == kind]

                deadline = asyncio.get_running_loop().time() + 10
                while not found():
                    assert asyncio.get_running_loop().time() < deadline, heard(gate, "door")
                    await asyncio.sleep(0.2)
                    if kind == "nonce" and not found():  # the appliance may have come into the TextRoom after it
                        await says(gate, "door", json.dumps({"type": "challenge"}))
                return found()[-1]

            nonce = await replied("nonce")
            claims = {"device": nonce["device"], "call_id": nonce["callId"], "relay": "door", "nonce": nonce["nonce"]}
            token = jwt.PyJWS().encode(json.dumps(claims).encode(), key, "EdDSA", headers={"kid": "caretaker"})
            await says(gate, "door", json.dumps({"type": "open", "jws": token}))
            assert (await replied("result"))["result"] == "done"
            assert running.document("io")["relays"]["door"]["closed"]

            assert running.document("call")["capabilities"]["raiseHand"]["isPresent"]
            raised = await running.give("call.raiseHand")
            assert raised["result"] == "done", raised
            await until(lambda: any(json.loads(one.payload)["handRaised"] for one in heard(gate, "state")), "the hand")
            await says(gate, "state", json.dumps({"handRaised": True, "muted": False}))
            await running.until(lambda: [one["displayName"] for one in running.document("roster")["participants"]
                                         if one["isHandRaised"]] == ["Gate"])
