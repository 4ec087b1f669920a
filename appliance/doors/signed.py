"""The door by data message: a relay is closed by a signed message of somebody in the call, on the channel ``door``.

    {"type": "challenge"}                 -> {"type": "nonce", "nonce", "device", "callId", "seconds": 30}
    {"type": "open", "jws": "…"}          -> {"type": "result", "relay", "result", "code", "subCode", "message"}

The JWS (RFC 7515, compact; ES256 or EdDSA with Ed25519, RFC 8037) is over ``{"device", "call_id", "relay", "nonce"}``;
its ``kid`` is a name of ``[[door.signers]]``. A nonce is good once, for 30 s, in its own call: so no clock is needed,
and what was recorded opens nothing. Everything else is refused and told as ``security.refused``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from appliance.bulletin import Bulletin
from appliance.clock import RateLimits
from appliance.errors import EdgecallError, NotPermitted
from appliance.faces.envelope import parse
from appliance.intake import Submit
from appliance.settings import DoorSettings, SignerSettings
from appliance.tasks import background
from appliance.vocabulary import VERB, Answer, Event, Json, Origin, Result, Scope

__all__ = ["CHANNEL", "SignedDoor"]

log = logging.getLogger(__name__)

CHANNEL: Final = "door"
NONCE_S: Final = 30.0
NONCES: Final = 4  # of one sender that wait for their use; its oldest goes first
REQUESTS_PER_S: Final = 1.0  # of one sender: nobody in a room keeps the door from the others
REQUESTS_BURST: Final = 8.0
SENDERS: Final = 64  # who asked longest ago is forgotten first
FINAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Signer:
    key: Any  # what load_pem_public_key made of it
    algorithm: str
    relays: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Nonce:
    call_id: str
    until: float  # monotonic
    sender: str | None  # who asked for it; anybody in the call may use it


class SignedDoor:
    """Subscribes to events; lives on the loop. Construction reads the keys, which the settings have checked.

    ``refused``: told of each refusal, by why and who.
    """

    def __init__(
        self, submit: Submit, bulletin: Bulletin, settings: DoorSettings, *, device_id: str,
        refused: Callable[[str, str], None], monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._submit = submit
        self._bulletin = bulletin
        self._seconds = settings.seconds
        self._signers = {one.name: _signer(one) for one in settings.signers}
        self._device = device_id
        self._refused = refused
        self._monotonic = monotonic
        self._limits = RateLimits(REQUESTS_PER_S, REQUESTS_BURST, monotonic, most=SENDERS)
        self._nonces: dict[str, _Nonce] = {}  # in the order in which they were given
        self._tasks: set[asyncio.Task[None]] = set()

    def on_event(self, event: Event) -> None:
        """A subscriber of the bulletin."""
        if event.type != "data.received" or event.data.get("channel") != CHANNEL:
            return
        if not self._limits.take(event.data.get("participantId")):
            log.debug("a message to the door is dropped: its sender sends too many")
            return
        task = background(self._serve(event.data), name="doors.signed", failed=_failed)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, message: Json) -> None:
        body = _object(message["payload"])
        if body.get("type") == "challenge":
            await self._reply(message, self._challenge(message["callId"], message.get("participantId")))
        elif body.get("type") == "open":
            await self._reply(message, await self._open(message, body))
        # anything else, our own words that came back among them, is no request

    def _challenge(self, call_id: str, sender: str | None) -> Json:
        nonce, now = token_urlsafe(24), self._monotonic()
        self._nonces = {text: one for text, one in self._nonces.items() if one.until > now}
        own = [text for text, one in self._nonces.items() if one.sender == sender]
        if len(own) >= NONCES:
            del self._nonces[own[0]]
        elif len(self._nonces) >= NONCES * SENDERS:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = _Nonce(call_id, now + NONCE_S, sender)
        return {"type": "nonce", "nonce": nonce, "device": self._device, "callId": call_id, "seconds": NONCE_S}

    async def _open(self, message: Json, body: Mapping[str, Any]) -> Json:
        relay = ""
        try:
            signer, relay = self._verify(message["callId"], body.get("jws"))
            answer = await self._close_relay(relay, signer)
        except EdgecallError as error:
            sender = str(message.get("rawId") or "")
            log.warning("the door was not opened for somebody in the call: %s", error.key)
            self._refused(error.sub_code, sender)
            return {"type": "result", "relay": relay, "result": Result.REJECTED.value, "code": error.code,
                    "subCode": error.sub_code, "message": error.message}
        return {"type": "result", "relay": relay, "result": answer.result.value, "code": answer.code,
                "subCode": answer.sub_code, "message": answer.message}

    def _verify(self, call_id: str, token: object) -> tuple[str, str]:
        """Who signed it, and the relay that is meant. Raises NotPermitted."""
        if not isinstance(token, str):
            raise NotPermitted("The message is not signed: ask for a nonce, and send a JWS over it.", code=401,
                               sub_code="unsigned")
        try:
            name = str(jwt.get_unverified_header(token).get("kid"))
            signer = self._signers.get(name)
            if signer is None:
                raise NotPermitted("Nobody of this name is a signer of this device.", code=401, sub_code="signer")
            claims = _object(jwt.PyJWS().decode(token, signer.key, algorithms=[signer.algorithm]))
        except (jwt.PyJWTError, ValueError) as error:
            raise NotPermitted("The signature is not right.", code=401, sub_code="signature") from error
        relay, nonce = claims.get("relay"), claims.get("nonce")
        if claims.get("device") != self._device or claims.get("call_id") != call_id or not isinstance(relay, str):
            raise NotPermitted("What was signed is not for this device and this call.", sub_code="otherCall")
        given = self._nonces.pop(nonce, None) if isinstance(nonce, str) else None
        if given is None or given.call_id != call_id or self._monotonic() > given.until:
            raise NotPermitted("The nonce is used, too old, or none of ours; ask for another one.", sub_code="nonce")
        if signer.relays and relay not in signer.relays:
            raise NotPermitted("The signer may not close this relay.", sub_code="relay")
        return name, relay

    async def _close_relay(self, relay: str, signer: str) -> Answer:
        verb = VERB["io.set"]
        command = parse(verb.name, {"id": f"data-{uuid.uuid4()}", "ts": time.time(), "ttl_s": verb.max_ttl_s,
                                    "args": {"relay": relay, "seconds": self._seconds}},
                        origin=Origin.DATA, sender=signer, scope=Scope.OPERATOR)
        return await self._submit.submit(command)

    async def _reply(self, message: Json, body: Json) -> None:
        verb = VERB["data.send"]
        to = {"to": [message["participantId"]]} if message.get("participantId") else {}
        command = parse(verb.name, {"id": f"door-{uuid.uuid4()}", "ts": time.time(), "ttl_s": FINAL_S,
                                    "args": {"channel": CHANNEL, "payload": json.dumps(body), **to}},
                        origin=Origin.INTERNAL, sender="door", scope=Scope.ADMIN)
        await self._submit.submit(command)  # who has left meanwhile is told nothing


def _signer(settings: SignerSettings) -> _Signer:
    key = load_pem_public_key(Path(settings.key_file).read_bytes())
    return _Signer(key, "EdDSA" if isinstance(key, Ed25519PublicKey) else "ES256", settings.relays)


def _failed(error: Exception) -> None:
    log.error("a message to the door was not served; this is a defect", exc_info=error)


def _object(text: str | bytes) -> Mapping[str, Any]:
    """The JSON object; an empty one for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
