"""What a call tells (``call``), and why it ended (RFC 3326)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.providers.sip.grammar import quoted, split, unquoted
from appliance.providers.sip.message import Message
from appliance.providers.sip.uri import Uri

if TYPE_CHECKING:
    from appliance.providers.sip.refer import Asked

__all__ = [
    "Answered", "Cause", "Closed", "Event", "KeyFrameWanted", "Keyed", "Moved", "Offered", "Progress", "Refused",
    "Sent", "causes_of",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """One value of a Reason header field (RFC 3326): ``SIP`` or ``Q.850``, a number, words."""

    protocol: str
    code: int
    text: str = ""

    def __str__(self) -> str:
        """As in the header field; bytes that are no text are question marks."""
        text = f";text={quoted(self.text.encode('utf-8', 'replace').decode())}" if self.text else ""
        return f"{self.protocol};cause={self.code}{text}"


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a call of ours, before it is answered; with a description there is something to be heard."""

    status: int
    sdp: bytes = b""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to our description, at first and to each later one."""

    sdp: bytes


@dataclass(frozen=True, slots=True)
class Offered:
    """A new description of the peer in the call, to be ``answer``ed or ``refuse``d; empty: ours is wanted."""

    sdp: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Our new description was not taken; the call goes on as it was."""

    status: int


@dataclass(frozen=True, slots=True)
class Keyed:
    """The peer pressed a key, told by INFO."""

    digit: str


@dataclass(frozen=True, slots=True)
class KeyFrameWanted:
    """The peer needs a key frame, told by INFO (RFC 5168)."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Of our wish that the peer call somebody else: how that goes, by the status of its call. ``final``: the last of
    it; 2xx: it has worked."""

    status: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """The peer wants us to call somebody else; to be ``take``n or ``refuse``d."""

    asked: Asked


@dataclass(frozen=True, slots=True)
class Closed:
    """``status``: of the response that ended it; 200: by BYE, 408: nobody answered, 503: the network does not carry.
    ``by_peer``: it was not us. ``contacts``: where else to try, of a 3xx."""

    status: int
    by_peer: bool
    causes: tuple[Cause, ...] = ()
    contacts: tuple[Uri, ...] = ()


Event = Progress | Answered | Offered | Refused | Keyed | KeyFrameWanted | Moved | Sent | Closed


def causes_of(message: Message) -> tuple[Cause, ...]:
    """The Reason header field; what of it cannot be read is left out."""
    found = []
    for value in message.headers.values("reason"):
        protocol, *params = split(value, ";")
        fields = dict(one.partition("=")[::2] for one in params)
        code = fields.get("cause", "")
        if code.isascii() and code.isdigit() and len(code) < 5:
            found.append(Cause(protocol.upper(), int(code), unquoted(fields.get("text", ""))[:120]))
    return tuple(found)
