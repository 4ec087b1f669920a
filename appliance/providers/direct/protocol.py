"""Signalling of direct calls: the messages, their strict parser and the rules of freshness. Pure.

One JSON object per message, at most 64 KiB, the same over a WebSocket (page, appliance on the LAN) and over MQTT
(``edgecall/v1/<to>/signal/<from>``). Every message carries ``v`` (1), ``type``, ``nonce`` (one use) and ``ts`` (the
sender's clock, seconds since the epoch); those of a call carry ``callId``. An unknown type or field, a missing one, a
wrong type or a value out of bounds is a SignalingError and changes nothing. Who speaks is never read from a message:
it is proven by the token of the WebSocket or by the broker's ACL.

==================  =========  =======================================================================================
type                direction  fields and meaning
==================  =========  =======================================================================================
hello               C → S      ``client`` page|appliance, ``token`` of a former connection or "", ``device`` id or "",
                               ``displayName``. First message of a WebSocket
welcome             S → C      ``device`` and ``displayName`` of the appliance, ``you`` (proven name), ``token`` to come
                               back with, ``resumed``, ``calls`` [{callId, generation}] still alive
duty                C → S      ``on``, ``displayName``: take calls on this page, or no longer
onDuty              S → C      ``names`` of those on duty, at every change
leaving             C → S      the page is being unloaded: unless it is back within 5 s its calls end
error               both       ``code``, ``subCode``, ``message``; of a message that was refused. Never answered
invite              caller     ``caller`` {identity, displayName}, ``media`` {audio, video} it will send, ``to``
picture             caller     ``jpeg`` base64 of the visitor, after the ring
cancel              caller     ``reason`` {code, subCode}: the caller gives up
answeredElsewhere   caller     somebody else took the call
ringing             callee     it rings here
accept              callee     ``sdp`` (offer), ``peer`` {identity, displayName}, ``media``
reject              callee     ``reason``
answer              caller     ``sdp``: answers accept
candidate           both       ``generation``, ``candidate`` ("" ends them), ``mid``, ``line`` (RFC 8838)
update              both       ``seq`` rising, ``muted``, ``held``, ``video``: what the sender does now; ``watching``
                               (default true): whether the other side's picture is wanted, else it is not to be sent
bye                 both       ``reason``; the answer to any message of a call that is over here
lost                caller     ``generation`` that went silent: please offer again
resume              both       the sender lost its media (page reloaded): build them anew
reoffer             callee     ``generation``, ``sdp``: a new peer connection of the same call
reanswer            caller     ``generation``, ``sdp``
settle              callee     ``generation`` that lives on: later attempts are thrown away
==================  =========  =======================================================================================

The side that accepts offers (accept, reoffer); the caller answers (answer, reanswer). So nothing of the callee's
microphone or camera leaves before a caller that is there *now* has answered: an invitation delivered late, on a device
whose clock is not set, rings at most, it cannot listen.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Final, NoReturn

from appliance.errors import SignalingError
from appliance.vocabulary import END_REASONS, ID_PATTERN, Json, Reason

__all__ = [
    "EXPIRY_S",
    "MAX_SIGNAL",
    "PICTURE_BYTES",
    "Accept",
    "Answer",
    "AnsweredElsewhere",
    "Bye",
    "CallSignal",
    "Cancel",
    "Candidate",
    "Cause",
    "Duty",
    "Envelope",
    "ErrorSignal",
    "Hello",
    "Invite",
    "Leaving",
    "LiveCall",
    "MediaLost",
    "Move",
    "OnDuty",
    "Party",
    "PictureSignal",
    "Reanswer",
    "Reject",
    "Reoffer",
    "ReplayWindow",
    "Resume",
    "RingingSignal",
    "Sends",
    "Settle",
    "Signal",
    "Update",
    "Welcome",
    "expired",
    "pack",
    "parse",
]

VERSION: Final = 1
MAX_SIGNAL: Final = 64 * 1024
"""Bytes of one message."""
SDP_CHARS: Final = 48 * 1024
"""An aiortc offer is about 6 KB, Chromium's about 8 KB with every codec: ample, and leaves room for JSON escapes."""
PICTURE_BYTES: Final = 45 * 1024
"""Largest JPEG that fits a message as base64 (60 KiB)."""
GENERATIONS: Final = 1_000_000
SLACK_S: Final = 2.0
"""Clocks of both sides may differ by this much before a message counts as late."""

# --- checks of one value --------------------------------------------------------------------------------------------

Check = Callable[[Any, str], Any]


def _refuse(where: str, why: str) -> NoReturn:
    raise SignalingError(f"signalling message: {where} {why}")


def _text(maximum: int, *, minimum: int = 0, pattern: str | None = None) -> Check:
    compiled = re.compile(pattern, re.ASCII) if pattern else None

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum:
            _refuse(where, f"must be a text of {minimum} to {maximum} characters")
        if compiled is not None and not compiled.fullmatch(value):
            _refuse(where, "has characters that are not allowed")
        if any("\ud800" <= char <= "\udfff" for char in value):
            _refuse(where, "holds half a surrogate pair")
        return value

    return check


def _name(maximum: int) -> Check:
    """A text shown to people: no control characters, no bidirectional overrides that reorder what is around."""
    plain = _text(maximum)

    def check(value: Any, where: str) -> str:
        text: str = plain(value, where)
        if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069
               for c in text):
            _refuse(where, "holds control characters")
        return text

    return check


def _integer(low: int, high: int) -> Check:
    def check(value: Any, where: str) -> int:
        if type(value) is not int or not low <= value <= high:
            _refuse(where, f"must be a whole number from {low} to {high}")
        return int(value)

    return check


def _flag(value: Any, where: str) -> bool:
    if value is not True and value is not False:
        _refuse(where, "must be true or false")
    return bool(value)


def _optional(inner: Check) -> Check:
    return lambda value, where: None if value is None else inner(value, where)


def _list(inner: Check, maximum: int) -> Check:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > maximum:
            _refuse(where, f"must be a list of at most {maximum}")
        return tuple(inner(item, f"{where}[{index}]") for index, item in enumerate(value))

    return check


def _object(kind: type[Any]) -> Check:
    return lambda value, where: _build(kind, value, where)


def _jpeg(value: Any, where: str) -> str:
    text: str = _text(4 * (PICTURE_BYTES + 2) // 3, minimum=8)(value, where)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse(where, "is not base64")
    if not data.startswith(b"\xff\xd8\xff"):
        _refuse(where, "is not a JPEG")
    return text


def _wire(check: Check, *, name: str | None = None) -> Mapping[str, Any]:
    """Metadata of a field: its check, and its name on the wire where that differs."""
    return {"check": check, "wire": name}


_CALL_ID: Final = _text(64, minimum=8, pattern=r"[A-Za-z0-9._-]+")
_NONCE: Final = _text(64, minimum=16, pattern=r"[A-Za-z0-9_-]+")
_TOKEN: Final = _text(64, pattern=r"[A-Za-z0-9_-]*")
_SDP: Final = _text(SDP_CHARS, minimum=8)
_GENERATION: Final = _integer(0, GENERATIONS)

# --- parts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Party:
    """How a side calls itself. A claim: shown to people, never the ground of a decision."""

    identity: str = field(metadata=_wire(_name(128)))
    display_name: str = field(metadata=_wire(_name(128), name="displayName"))


@dataclass(frozen=True, slots=True)
class Sends:
    """What a side sends from the start."""

    audio: bool = field(metadata=_wire(_flag))
    video: bool = field(metadata=_wire(_flag))


@dataclass(frozen=True, slots=True)
class Cause:
    """Code and sub-code of an end reason."""

    code: int = field(metadata=_wire(_integer(0, 999)))
    sub_code: str = field(metadata=_wire(_text(64, pattern=r"[A-Za-z0-9.]*"), name="subCode"))

    @classmethod
    def of(cls, reason: Reason) -> Cause:
        return cls(reason.code, reason.sub_code)

    @property
    def reason(self) -> Reason | None:
        """The reason of the vocabulary, None for one that is not known here."""
        return END_REASONS.get(f"{self.code}/{self.sub_code}")


_PARTY: Final = _object(Party)
_SENDS: Final = _object(Sends)
_CAUSE: Final = _object(Cause)


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that lives on, as told to a page that comes back."""

    call_id: str = field(metadata=_wire(_CALL_ID, name="callId"))
    generation: int = field(metadata=_wire(_GENERATION))


# --- messages of the connection -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signal:
    """Any message, without its envelope."""

    TYPE: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Hello(Signal):
    TYPE: ClassVar[str] = "hello"
    client: str = field(metadata=_wire(_text(16, pattern="page|appliance")))
    token: str = field(default="", metadata=_wire(_TOKEN))
    device: str = field(default="", metadata=_wire(_text(40, pattern=f"(?:{ID_PATTERN})?")))
    display_name: str = field(default="", metadata=_wire(_name(128), name="displayName"))


@dataclass(frozen=True, slots=True)
class Welcome(Signal):
    TYPE: ClassVar[str] = "welcome"
    device: str = field(metadata=_wire(_name(128)))
    display_name: str = field(metadata=_wire(_name(128), name="displayName"))
    you: str = field(metadata=_wire(_name(128)))
    token: str = field(metadata=_wire(_TOKEN))
    resumed: bool = field(metadata=_wire(_flag))
    calls: tuple[LiveCall, ...] = field(metadata=_wire(_list(_object(LiveCall), 16)))


@dataclass(frozen=True, slots=True)
class Duty(Signal):
    TYPE: ClassVar[str] = "duty"
    on: bool = field(metadata=_wire(_flag))
    display_name: str = field(default="", metadata=_wire(_name(128), name="displayName"))


@dataclass(frozen=True, slots=True)
class OnDuty(Signal):
    TYPE: ClassVar[str] = "onDuty"
    names: tuple[str, ...] = field(metadata=_wire(_list(_name(128), 64)))


@dataclass(frozen=True, slots=True)
class Leaving(Signal):
    TYPE: ClassVar[str] = "leaving"


# --- messages of a call ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallSignal(Signal):
    """Any message of a call."""

    call_id: str = field(metadata=_wire(_CALL_ID, name="callId"))


@dataclass(frozen=True, slots=True)
class ErrorSignal(Signal):
    """A message was refused. ``call_id`` is empty when it belonged to no call, or could not be read."""

    TYPE: ClassVar[str] = "error"
    code: int = field(metadata=_wire(_integer(0, 999)))
    sub_code: str = field(metadata=_wire(_text(64, pattern=r"[A-Za-z0-9.]*"), name="subCode"))
    message: str = field(metadata=_wire(_name(512)))
    call_id: str = field(default="", metadata=_wire(_text(64, pattern=r"[A-Za-z0-9._-]*"), name="callId"))


@dataclass(frozen=True, slots=True)
class Invite(CallSignal):
    TYPE: ClassVar[str] = "invite"
    caller: Party = field(metadata=_wire(_PARTY))
    media: Sends = field(metadata=_wire(_SENDS))
    to: str = field(default="", metadata=_wire(_name(256)))


@dataclass(frozen=True, slots=True)
class RingingSignal(CallSignal):
    TYPE: ClassVar[str] = "ringing"


@dataclass(frozen=True, slots=True)
class PictureSignal(CallSignal):
    TYPE: ClassVar[str] = "picture"
    jpeg: str = field(metadata=_wire(_jpeg))

    @classmethod
    def of(cls, call_id: str, data: bytes) -> PictureSignal:
        return cls(call_id, base64.b64encode(data).decode("ascii"))


@dataclass(frozen=True, slots=True)
class Accept(CallSignal):
    TYPE: ClassVar[str] = "accept"
    sdp: str = field(metadata=_wire(_SDP))
    peer: Party = field(metadata=_wire(_PARTY))
    media: Sends = field(metadata=_wire(_SENDS))


@dataclass(frozen=True, slots=True)
class Answer(CallSignal):
    TYPE: ClassVar[str] = "answer"
    sdp: str = field(metadata=_wire(_SDP))


@dataclass(frozen=True, slots=True)
class Candidate(CallSignal):
    TYPE: ClassVar[str] = "candidate"
    generation: int = field(metadata=_wire(_GENERATION))
    candidate: str = field(metadata=_wire(_text(1024)))
    mid: str | None = field(default=None, metadata=_wire(_optional(_text(64))))
    line: int | None = field(default=None, metadata=_wire(_optional(_integer(0, 63))))


@dataclass(frozen=True, slots=True)
class Cancel(CallSignal):
    TYPE: ClassVar[str] = "cancel"
    reason: Cause = field(metadata=_wire(_CAUSE))


@dataclass(frozen=True, slots=True)
class AnsweredElsewhere(CallSignal):
    TYPE: ClassVar[str] = "answeredElsewhere"


@dataclass(frozen=True, slots=True)
class Reject(CallSignal):
    TYPE: ClassVar[str] = "reject"
    reason: Cause = field(metadata=_wire(_CAUSE))


@dataclass(frozen=True, slots=True)
class Bye(CallSignal):
    TYPE: ClassVar[str] = "bye"
    reason: Cause = field(metadata=_wire(_CAUSE))


@dataclass(frozen=True, slots=True)
class Update(CallSignal):
    TYPE: ClassVar[str] = "update"
    seq: int = field(metadata=_wire(_integer(0, 2**53 - 1)))
    muted: bool = field(metadata=_wire(_flag))
    held: bool = field(metadata=_wire(_flag))
    video: bool = field(metadata=_wire(_flag))
    watching: bool = field(default=True, metadata=_wire(_flag))


@dataclass(frozen=True, slots=True)
class MediaLost(CallSignal):
    TYPE: ClassVar[str] = "lost"
    generation: int = field(metadata=_wire(_GENERATION))


@dataclass(frozen=True, slots=True)
class Move(CallSignal):
    """The connection of this generation still carries; the side that offers is asked for one on a better path."""

    TYPE: ClassVar[str] = "move"
    generation: int = field(metadata=_wire(_GENERATION))


@dataclass(frozen=True, slots=True)
class Resume(CallSignal):
    TYPE: ClassVar[str] = "resume"


@dataclass(frozen=True, slots=True)
class Reoffer(CallSignal):
    TYPE: ClassVar[str] = "reoffer"
    generation: int = field(metadata=_wire(_GENERATION))
    sdp: str = field(metadata=_wire(_SDP))


@dataclass(frozen=True, slots=True)
class Reanswer(CallSignal):
    TYPE: ClassVar[str] = "reanswer"
    generation: int = field(metadata=_wire(_GENERATION))
    sdp: str = field(metadata=_wire(_SDP))


@dataclass(frozen=True, slots=True)
class Settle(CallSignal):
    TYPE: ClassVar[str] = "settle"
    generation: int = field(metadata=_wire(_GENERATION))


_SIGNALS: Final[tuple[type[Signal], ...]] = (
    Hello, Welcome, Duty, OnDuty, Leaving, ErrorSignal, Invite, RingingSignal, PictureSignal, Accept, Answer,
    Candidate, Cancel, AnsweredElsewhere, Reject, Bye, Update, MediaLost, Move, Resume, Reoffer, Reanswer, Settle,
)
_BY_TYPE: Final[Mapping[str, type[Signal]]] = {kind.TYPE: kind for kind in _SIGNALS}

EXPIRY_S: Final[Mapping[type[Signal], int]] = {
    Invite: 5,  # the caller gives an unreachable peer up after 4 s
    PictureSignal: 5,
    Reoffer: 5,  # the next attempt follows after 4 s at the latest
    Reanswer: 5,
    MediaLost: 5,
    Move: 5,
    Candidate: 10,
    Accept: 10,
    Answer: 10,
}
"""Seconds a message is worth delivering; 30 for the others, which only tell an end or a state."""
DEFAULT_EXPIRY_S: Final = 30

# --- envelope -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message received: its freshness and its content."""

    nonce: str
    ts: float | None
    signal: Signal


def pack(signal: Signal, *, ts: float, nonce: str | None = None) -> str:
    """The message as JSON. ``ts`` in seconds since the epoch; a nonce of 128 random bits unless given."""
    body: Json = {"v": VERSION, "type": signal.TYPE, "nonce": nonce or secrets.token_urlsafe(16), "ts": round(ts, 3)}
    body.update(_plain(signal))
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) > MAX_SIGNAL:
        raise SignalingError(f"signalling message {signal.TYPE} is larger than {MAX_SIGNAL} bytes")
    return text


def parse(text: str | bytes) -> Envelope:
    """Read one message. Raises SignalingError for whatever is not exactly a message of the table above."""
    if len(text) > MAX_SIGNAL or (isinstance(text, str) and len(text.encode(errors="replace")) > MAX_SIGNAL):
        _refuse("it", f"is larger than {MAX_SIGNAL} bytes")
    try:
        body = json.loads(text, object_pairs_hook=_unique, parse_constant=lambda name: _refuse(name, "is no JSON"))
    except (ValueError, RecursionError) as error:  # RecursionError: 64 KiB of "[" nest deeper than the stack
        raise SignalingError("signalling message: it is not JSON") from error
    if not isinstance(body, dict):
        _refuse("it", "is not an object")
    if type(body.get("v")) is not int or body["v"] != VERSION:
        _refuse("v", f"must be {VERSION}")
    kind = _BY_TYPE.get(body["type"]) if isinstance(body.get("type"), str) else None
    if kind is None:
        _refuse("type", "is not known")
    nonce = _NONCE(body.get("nonce"), "nonce")
    ts = body.get("ts")
    if ts is not None and (type(ts) not in (int, float) or not 0 <= ts < 1e11):
        _refuse("ts", "must be seconds since the epoch")
    rest = {name: value for name, value in body.items() if name not in ("v", "type", "nonce", "ts")}
    return Envelope(nonce, None if ts is None else float(ts), _build(kind, rest, kind.TYPE))


def expired(envelope: Envelope, *, now: float, synchronised: bool) -> bool:
    """Whether a message came too late by the sender's clock; told only while our own clock is right.

    The expiry of the transport alone is not enough: a stalled connection delivers late what was sent in time.
    """
    if not synchronised or envelope.ts is None:
        return False
    return now > envelope.ts + EXPIRY_S.get(type(envelope.signal), DEFAULT_EXPIRY_S) + SLACK_S


class ReplayWindow:
    """Nonces of one peer seen lately: each is fresh once. Bounded in number and time.

    ``keep_s`` is longer than any message lives; the number is more than the rate limit lets through in that time.
    """

    def __init__(self, *, keep_s: float = 60.0, limit: int = 4096) -> None:
        self._keep_s = keep_s
        self._limit = limit
        self._seen: OrderedDict[str, float] = OrderedDict()

    def fresh(self, nonce: str, now: float) -> bool:
        """Whether this nonce comes for the first time (``now``: monotonic seconds)."""
        while self._seen and (len(self._seen) > self._limit or now - next(iter(self._seen.values())) > self._keep_s):
            self._seen.popitem(last=False)
        if nonce in self._seen:
            return False
        self._seen[nonce] = now
        return True

    def __len__(self) -> int:
        return len(self._seen)


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("it", "names a field twice")
    return found


def _build(kind: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(where, "must be an object")
    left = dict(value)
    made: dict[str, Any] = {}
    for spec in fields(kind):
        name = spec.metadata["wire"] or spec.name
        if name in left:
            made[spec.name] = spec.metadata["check"](left.pop(name), f"{where}.{name}")
        elif spec.default is MISSING:
            _refuse(f"{where}.{name}", "is missing")
    if left:
        _refuse(where, f"has an unknown field {next(iter(left))[:32]!r}")
    return kind(**made)


def _plain(value: Any) -> Json:
    plain: Json = {}
    for spec in fields(value):
        item = getattr(value, spec.name)
        if isinstance(item, tuple):
            item = [_plain(part) if hasattr(part, "__dataclass_fields__") else part for part in item]
        elif hasattr(item, "__dataclass_fields__"):
            item = _plain(item)
        plain[spec.metadata["wire"] or spec.name] = item
    return plain
