"""The door by signed data messages: who opens it, and everybody who does not."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.bulletin import Bulletin
from appliance.doors.signed import NONCE_S, SignedDoor
from appliance.errors import SettingsError
from appliance.settings import DoorSettings, SignerSettings
from appliance.settings.loading import Source, parse
from appliance.vocabulary import Answer, Command, Event, Json, Origin, Result

KEYS: dict[str, Any] = {"ES256": ec.generate_private_key(ec.SECP256R1()), "EdDSA": Ed25519PrivateKey.generate()}
CALL = "call-1"


def public(folder: Path, key: Any, name: str = "key.pub") -> str:
    path = folder / name
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(path)


class At:
    """A door, everything it submitted, and the time in the test's hand."""

    def __init__(self, folder: Path, algorithm: str = "ES256", **signer: Any) -> None:
        self.now = 50.0
        self.commands: list[Command] = []
        self.refused: list[tuple[str, str]] = []
        self.answer = Answer("x", Result.DONE)
        self.algorithm = algorithm
        self._numbers = itertools.count(1)
        settings = DoorSettings(2.5, (
            SignerSettings("caretaker", public(folder, KEYS[algorithm]), **signer),
            SignerSettings("other", public(folder, Ed25519PrivateKey.generate(), "other.pub"))))
        self.door = SignedDoor(self, Bulletin("boot-1"), settings, device_id="front-door",
                               refused=lambda why, who: self.refused.append((why, who)), monotonic=lambda: self.now)

    # as the intake

    async def submit(self, command: Command) -> Answer:
        self.commands.append(command)
        return self.answer

    async def final(self, command_id: str, deadline_s: float) -> Answer | None:
        raise AssertionError("nobody waits")

    def on_answer(self, tell: Callable[[Command, Answer], None]) -> None: ...

    # as somebody in the call

    async def says(
        self, body: Any, *, call: str = CALL, channel: str = "door", pause_s: float = 1.0, who: str = "p-7",
    ) -> Json | None:
        """A message, and what the door says to it."""
        before = len(self.replies)
        payload = body if isinstance(body, str) else json.dumps(body)
        self.door.on_event(Event("data.received", {
            "callId": call, "channel": channel, "payload": payload, "participantId": who, "rawId": "olga"},
            0.0, f"e{next(self._numbers)}"))
        self.now += pause_s
        await asyncio.gather(*self.door._tasks)
        return self.replies[-1] if len(self.replies) > before else None

    async def nonce(self, call: str = CALL) -> str:
        reply = await self.says({"type": "challenge"}, call=call)
        assert reply is not None
        assert (reply["type"], reply["device"], reply["callId"]) == ("nonce", "front-door", call)
        return str(reply["nonce"])

    async def opens(self, nonce: str, *, call: str = CALL, key: Any = None, kid: str = "caretaker",
                    algorithm: str = "", **changed: Any) -> str:
        """Sign and send; the key of the answer."""
        claims = {"device": "front-door", "call_id": CALL, "relay": "door", "nonce": nonce} | changed
        token = jwt.PyJWS().encode(json.dumps(claims).encode(), key or KEYS[self.algorithm],
                                   algorithm=algorithm or self.algorithm, headers={"kid": kid})
        reply = await self.says({"type": "open", "jws": token}, call=call)
        assert reply is not None
        return f"{reply['code']}/{reply['subCode']}"

    @property
    def replies(self) -> list[Json]:
        return [json.loads(one.args["payload"]) for one in self.commands if one.verb.name == "data.send"]

    @property
    def closed(self) -> list[Command]:
        return [one for one in self.commands if one.verb.name == "io.set"]


async def at_a_door(folder: Path, algorithm: str = "ES256", **signer: Any) -> At:
    return await asyncio.to_thread(At, folder, algorithm, **signer)  # it reads the keys


@pytest.mark.parametrize("algorithm", list(KEYS))
async def test_a_signed_message_closes_the_relay(tmp_path: Path, algorithm: str) -> None:
    at = await at_a_door(tmp_path, algorithm)
    assert await at.opens(await at.nonce()) == "0/"
    command, = at.closed
    assert dict(command.args) == {"relay": "door", "seconds": 2.5}
    assert (command.origin, command.sender) == (Origin.DATA, "caretaker")
    assert all(one.args["to"] == ["p-7"] for one in at.commands if one.verb.name == "data.send")
    assert at.refused == []


async def test_a_nonce_is_good_once(tmp_path: Path) -> None:
    at = await at_a_door(tmp_path)
    nonce = await at.nonce()
    assert await at.opens(nonce) == "0/"
    assert await at.opens(nonce) == "403/nonce"
    assert len(at.closed) == 1
    assert at.refused == [("nonce", "olga")]


@pytest.mark.parametrize("body", [
    {"type": "open", "relay": "door"}, {"type": "open", "jws": 7}, {"type": "open", "jws": None}])
async def test_unsigned_is_refused_and_told(tmp_path: Path, body: Json) -> None:
    at = await at_a_door(tmp_path)
    await at.nonce()
    reply = await at.says(body)
    assert reply is not None
    assert (reply["result"], reply["code"], reply["subCode"]) == ("rejected", 401, "unsigned")
    assert at.closed == []
    assert at.refused == [("unsigned", "olga")]


async def test_everything_else_that_is_signed_is_refused(tmp_path: Path) -> None:
    at = await at_a_door(tmp_path, relays=("door", "light"))
    nonce = await at.nonce()
    wrong = ec.generate_private_key(ec.SECP256R1())
    assert await at.opens(nonce, key=wrong) == "401/signature"
    assert await at.opens(nonce, kid="stranger") == "401/signer"
    assert await at.opens(nonce, kid="other") == "401/signature"  # with a key of another kind
    assert await at.opens(nonce, key=b"0123456789abcdef0123456789abcdef", algorithm="HS256") == "401/signature"
    claims = {"device": "front-door", "call_id": CALL, "relay": "door", "nonce": nonce}
    naked = jwt.PyJWS().encode(json.dumps(claims).encode(), "", algorithm="none", headers={"kid": "caretaker"})
    reply = await at.says({"type": "open", "jws": naked})
    assert reply is not None
    assert reply["subCode"] == "signature"
    assert await at.opens(nonce, device="back-door") == "403/otherCall"
    assert await at.opens(nonce, call_id="call-2") == "403/otherCall"
    assert await at.opens(nonce, relay=7) == "403/otherCall"
    assert await at.opens("none-of-ours") == "403/nonce"
    assert await at.opens(["x"]) == "403/nonce"  # type: ignore[arg-type]
    assert at.closed == []
    assert await at.opens(nonce) == "0/"  # none of them has used it up
    assert await at.opens(await at.nonce(), relay="siren") == "403/relay"
    assert len(at.closed) == 1
    assert len(at.refused) == 11


async def test_a_nonce_is_of_its_call_and_of_its_time(tmp_path: Path) -> None:
    at = await at_a_door(tmp_path)
    nonce = await at.nonce()
    assert await at.opens(nonce, call="call-2") == "403/otherCall"
    assert await at.opens(nonce, call="call-2", call_id="call-2") == "403/nonce"
    old = await at.nonce()
    at.now += NONCE_S
    assert await at.opens(old) == "403/nonce"
    assert at.closed == []


@pytest.mark.parametrize("body", ["", "{", "[]", "7", "[" * 5000, {}, {"type": "result"}, {"type": "nonce"}, "\x00"])
async def test_what_is_no_request_is_left_alone(tmp_path: Path, body: Any) -> None:
    at = await at_a_door(tmp_path)
    assert await at.says(body) is None
    assert await at.says({"type": "challenge"}, channel="chat") is None
    assert at.commands == []


async def test_the_answer_of_the_relay_is_handed_on(tmp_path: Path) -> None:
    at = await at_a_door(tmp_path)
    nonce = await at.nonce()
    at.answer = Answer("x", Result.FAILED, 404, "notFound", message="there is no relay 'gate'")
    assert await at.opens(nonce, relay="gate") == "404/notFound"


async def test_a_flood_is_served_no_faster_than_is_said(tmp_path: Path) -> None:
    at = await at_a_door(tmp_path)
    for _ in range(100):
        await at.says({"type": "challenge"}, pause_s=0)
    assert len(at.replies) == 8
    assert await at.says({"type": "challenge"}, who="p-8")  # which keeps the door from nobody else
    for number in range(200):
        await at.says({"type": "challenge"}, pause_s=0, who=f"p-{number}")
    assert len(at.door._nonces) <= 4 * 64


async def test_who_asks_for_ever_more_nonces_uses_up_nobody_elses(tmp_path: Path) -> None:
    at = await at_a_door(tmp_path)
    nonce = await at.nonce()
    for number in range(10):
        for _ in range(8):
            await at.says({"type": "challenge"}, pause_s=0, who=f"mallory-{number}")
    assert await at.opens(nonce) == "0/"


async def test_a_defect_of_the_door_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    at = await at_a_door(tmp_path)
    at.answer = None  # type: ignore[assignment]
    nonce = await at.nonce()
    with pytest.raises(AttributeError):
        await at.opens(nonce)
    await asyncio.sleep(0)
    assert "this is a defect" in caplog.text


@pytest.mark.parametrize(("made", "why"), [
    (lambda: generate_private_key(65537, 2048), "another kind"),
    (lambda: ec.generate_private_key(ec.SECP384R1()), "another kind"), (None, "no public key in PEM")])
def test_a_key_of_another_kind_is_a_fault_of_the_settings(
    tmp_path: Path, made: Callable[[], Any] | None, why: str,
) -> None:
    path = tmp_path / "key.pub"
    path.write_text("no key")
    if made is not None:
        public(tmp_path, made())
    text = f'[[door.signers]]\nname = "caretaker"\nkey_file = "{path}"\n'
    with pytest.raises(SettingsError, match=why):
        parse(Source(tmp_path / "edgecall.toml", text), data_dir=tmp_path)
