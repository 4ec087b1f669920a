"""What a command is: scopes, arguments, verbs, origins, results, answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

__all__ = [
    "DEVICE_KINDS", "DIALECTS", "ID_PATTERN", "MAX_PAYLOAD", "ROOT", "Answer", "Arg", "ArgType", "Category",
    "Command", "Json", "Origin", "Result", "Scope", "Verb",
]

ROOT: Final = "edgecall/v1"
"""Topic root; a breaking change of the contract is a new root."""

ID_PATTERN: Final = r"^[a-z0-9-]{3,40}$"
"""Device ids and user names."""

MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of one command, answer or event on any door."""

Json = dict[str, Any]


class Scope(StrEnum):
    """Who may give a verb. A higher scope includes the lower ones: admin > device > operator."""

    OPERATOR = "operator"
    DEVICE = "device"
    ADMIN = "admin"

    def permits(self, needed: Scope) -> bool:
        return _RANK[self] >= _RANK[needed]


_RANK: Final = {Scope.OPERATOR: 0, Scope.DEVICE: 1, Scope.ADMIN: 2}


class ArgType(StrEnum):
    """JSON types an argument may have."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRINGS = "strings"  # array of strings
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument of a verb. ``minimum``/``maximum`` bound a number, or the length of a string or array; ``fields``
    are the members of an object, which then has no others."""

    name: str
    type: ArgType
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    positional: bool = False  # the CLI takes it without its name
    secret: bool = False  # never logged
    fields: tuple[Arg, ...] = ()


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing the appliance can be told to do.

    ``acts``: it does something in the world that must not happen late; it needs ``ttl_s`` up to ``max_ttl_s``.
    ``idempotent``: after a crash an unfinished one is run again; the others answer ``failed/interrupted``.
    ``long``: answers ``accepted`` first and one final answer later.
    ``two_step``: while the clock is not synchronised it needs a challenge.
    ``stops``: it only stops, mutes or ends something, and passes where a flood of others is refused.
    """

    name: str
    summary: str
    args: tuple[Arg, ...] = ()
    acts: bool = False
    max_ttl_s: float = 30.0
    scope: Scope = Scope.OPERATOR
    idempotent: bool = True
    long: bool = False
    two_step: bool = False
    stops: bool = False
    returns: str = ""  # what stands in the answer's ``data``

    def arg(self, name: str) -> Arg | None:
        return next((a for a in self.args if a.name == name), None)


class Origin(StrEnum):
    """The door a command came through."""

    MQTT = "mqtt"
    HTTP = "http"
    CLI = "cli"
    PANEL = "panel"
    DATA = "data"  # a call's data channel
    DIGITS = "digits"  # keys of a telephone, pressed in a call
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Command:
    """One command, checked against its verb.

    ``ts``: the sender's wall clock, seconds since the epoch, None when it gave none. ``deadline``: monotonic
    seconds on our clock, None for verbs that only stop or mute. ``sender``: who, for the audit.
    """

    id: str
    verb: Verb
    args: Mapping[str, Any]
    origin: Origin
    sender: str = ""
    scope: Scope = Scope.ADMIN
    ts: float | None = None
    ttl_s: float | None = None
    deadline: float | None = None
    nonce: str | None = None

    @property
    def stops(self) -> bool:
        """Whether it only stops something; also a relay that opens (``io.set`` of 0 s)."""
        return self.verb.stops or (self.verb.name == "io.set" and self.args.get("seconds") == 0)


class Result(StrEnum):
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self is not Result.ACCEPTED


class Category(StrEnum):
    """ACS result categories."""

    SUCCESS = "Success"
    EXPECTED = "ExpectedError"
    CLIENT = "UnexpectedClientError"
    SERVER = "UnexpectedServerError"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one command, the same on every door."""

    id: str
    result: Result
    code: int = 0  # SIP-like; 0 is success
    sub_code: str = ""
    category: Category = Category.SUCCESS
    message: str = ""
    state_rev: int = 0
    data: Json | None = None

    def payload(self) -> Json:
        """The wire form (``data`` only where the verb returns something)."""
        body: Json = {
            "id": self.id,
            "result": self.result.value,
            "code": self.code,
            "subCode": self.sub_code,
            "category": self.category.value,
            "message": self.message,
            "state_rev": self.state_rev,
        }
        if self.data is not None:
            body["data"] = self.data
        return body


DEVICE_KINDS: Final = ("microphone", "speaker", "camera", "capture", "display", "panel")
"""Kinds of device, as ``hw.api.Kind`` has them."""

DIALECTS: Final = ("w3c", "acs")
"""Names and units of statistics: W3C webrtc-stats, or Azure Communication Services."""
