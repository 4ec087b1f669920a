"""Data messages in rooms of a real Janus, between appliances; and the door opened from there by a signature."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.providers import api
from appliance.vocabulary import END_REASONS
from tests.support.house import Running, house, start_of
from tests.support.lag import lateness
from tests.support.room_device import ROOM, Device, device, janus
from tests.support.room_talk import heard, listening, lose_and_find_the_server, says
from tests.support.waiting import until

pytestmark = pytest.mark.peer

HAND_S = 0.3
"""From asking for attention to the message at the others, the median of five."""


async def test_messages_reach_all_or_those_who_are_meant_and_the_server_says_whose_they_are(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, device(server.url, "door", 440) as door, device(server.url, "gate", 880) as gate,
        device(server.url, "desk", 660) as desk,
    ):
        for one in (door, gate, desk):
            await one.join()
            await one.connected()
        await listening(door, gate, desk)
        sent = ["short", "ä" * 30_000, "\x01" * 60_000, *(str(number) for number in range(50))]
        for payload in sent:
            await says(door, "chat", payload)
        for one in (gate, desk):
            await until(lambda one=one: len(heard(one, "chat")) == len(sent),  # type: ignore[misc]
                        f"all messages at {one.name}")
            assert [message.payload for message in heard(one, "chat")] == sent
            assert {message.sender for message in heard(one, "chat")} == {one.members["Door"].id}
            assert not any(message.lost for message in heard(one, "chat"))

        await says(door, "note", "for the gate", to=[door.members["Gate"].id])
        await says(door, "note", "for all", lossy=True)
        for one, came in ((gate, {"for the gate", "for all"}), (desk, {"for all"})):
            await until(lambda one=one, came=came: {  # type: ignore[misc]
                message.payload for message in heard(one, "note")} == came, f"notes at {one.name}")
        assert not heard(door, "chat")

        assert desk.leg is not None
        await desk.leg.end(END_REASONS["0/local"])
        await until(lambda: "Desk" not in door.members, "the desk has left")
        await says(gate, "chat", "still there?")
        await until(lambda: heard(door, "chat"), "the one who is left is heard still")
        await desk.join()
        await desk.connected()
        await listening(door, gate, desk)
        assert not door.of(api.Lost)


async def test_after_a_loss_messages_come_again(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, device(server.url, "door", 440) as door, device(server.url, "gate", 880) as gate,
    ):
        for one in (door, gate):
            await one.join()
            await one.connected()
        await listening(door, gate)
        await lose_and_find_the_server(server, door, gate)


async def shown(running: Running, gate: Device, late: Callable[[], float], *, raised: bool) -> float:
    """Seconds from the command until the gate has the message, without those for which the loop was late."""
    seen, begun, late_before = len(gate.told), asyncio.get_running_loop().time(), late()

    def arrived() -> list[float]:
        return [at for at, event in gate.told[seen:] if isinstance(event, api.DataReceived)
                and event.channel == "state" and json.loads(event.payload)["handRaised"] is raised]

    answer = await running.give("call.raiseHand" if raised else "call.lowerHand")
    assert answer["result"] == "done", answer
    await until(arrived, "the gate is told")
    return arrived()[0] - begun - (late() - late_before)


async def test_a_raised_hand_and_a_mute_are_known_to_the_others_and_to_who_comes_later(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with (
        janus(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate,
        device(server.url, "desk", 660) as desk,
    ):
        def told(one: Device) -> list[dict[str, bool]]:
            return [json.loads(message.payload) for message in heard(one, "state")]

        await gate.join()
        await gate.connected()
        async with (
            house(await start_of(tmp_path, {"janus.url": server.url, "mqtt.enabled": False})) as running,
            lateness() as late,
        ):
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await running.until(lambda: running.document("roster")["participants"])

            async def hears(word: str) -> None:
                deadline = asyncio.get_running_loop().time() + 10
                while not any(message.payload == word for message in heard(gate, "chat")):
                    assert asyncio.get_running_loop().time() < deadline
                    await running.give("data.send", payload=word, channel="chat")
                    await asyncio.sleep(0.2)

            await hears("the channel is open")
            took = [await shown(running, gate, late, raised=raised) for raised in (True, False, True, False, True)]
            print(f"from the command to the message: median {statistics.median(took) * 1000:.0f} ms, "
                  f"at the most {max(took) * 1000:.0f} ms")
            assert statistics.median(took) < HAND_S

            await desk.join()
            await desk.connected()
            await until(lambda: {"handRaised": True, "muted": False} in told(desk), "who came later sees the hand")

            deadline = asyncio.get_running_loop().time() + 15
            while [one["displayName"] for one in running.document("roster")["participants"]
                   if one["isHandRaised"] and one["isMuted"]] != ["Gate"]:
                assert asyncio.get_running_loop().time() < deadline
                await says(gate, "state", json.dumps({"handRaised": True, "muted": True}))
                await asyncio.sleep(0.2)  # it is heard once the other channel, of what the appliance receives, is open


async def test_the_door_is_opened_from_the_room_by_a_signature_and_by_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "caretaker.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    async with janus(tmp_path / "janus") as server, device(server.url, "gate", 880) as gate:
        await gate.join(identity="Gate")  # what is said of it by every Janus
        await gate.connected()
        start = await start_of(tmp_path, {
            "janus.url": server.url, "mqtt.enabled": False, "door.seconds": 1.0,
            "door.signers": [{"name": "caretaker", "key_file": str(public)}]})
        async with house(start) as running:
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined
            await until(lambda: "Edgecall" in gate.members, "the appliance is there")

            def replies(kind: str) -> list[dict[str, Any]]:
                return [reply for message in heard(gate, "door")
                        if (reply := json.loads(message.payload))["type"] == kind]

            async def asks(body: dict[str, Any]) -> dict[str, Any]:
                before = len(replies("result"))
                await says(gate, "door", json.dumps(body))
                await until(lambda: len(replies("result")) > before, "the door answers")
                return replies("result")[-1]

            deadline = asyncio.get_running_loop().time() + 20
            while not replies("nonce"):
                assert asyncio.get_running_loop().time() < deadline
                await says(gate, "door", json.dumps({"type": "challenge"}))
                await asyncio.sleep(1)  # the other channel, by which the appliance hears it, may not be open yet
            nonce = replies("nonce")[-1]
            assert not running.document("io")["relays"]["door"]["closed"]
            unsigned = await asks({"type": "open", "relay": "door"})
            assert (unsigned["code"], unsigned["subCode"]) == (401, "unsigned")
            claims = {"device": nonce["device"], "call_id": nonce["callId"], "relay": "door", "nonce": nonce["nonce"]}
            token = jwt.PyJWS().encode(json.dumps(claims).encode(), key, "EdDSA", headers={"kid": "caretaker"})
            opened = await asks({"type": "open", "jws": token})
            assert opened["result"] == "done", opened
            assert running.document("io")["relays"]["door"]["closed"]
            again = await asks({"type": "open", "jws": token})
            assert (again["code"], again["subCode"]) == (403, "nonce")
            relay = [event.data for event in running.events if event.type == "io.relay"]
            assert [(one["origin"], one["sender"]) for one in relay if one["closed"]] == [("data", "caretaker")]
            assert [event.data["why"] for event in running.events if event.type == "security.refused"] == [
                "unsigned", "nonce"]
            told = [event.data for event in running.events if event.type == "data.received"]
            assert {one["rawId"] for one in told} == {"Gate"}
