"""What is to be done, as the state machines of a room say it to the one who does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from appliance.media.api import OnLine
from appliance.providers import api
from appliance.vocabulary import Json, Reason

__all__ = [
    "CancelTimer",
    "Carry",
    "CloseText",
    "Drop",
    "Effect",
    "Finish",
    "GiveUp",
    "Open",
    "OpenText",
    "Ordered",
    "Publish",
    "Recorded",
    "Send",
    "Share",
    "ShareAnswer",
    "Shut",
    "StartTimer",
    "TakeAnswer",
    "TakenOver",
    "Tell",
    "Timer",
    "TokenJudged",
    "Trickle",
    "Unshare",
    "Unwatch",
    "Watch",
    "WriteText",
]


class Timer(Enum):
    ANSWER = "the server answers"
    KEEPALIVE = "tell the server that we are there"
    RETRY = "join again"
    BLOCKED = "join again where media do not pass"
    RENEW = "subscribe anew to what should come and does not"
    OFFER = "the server offers what it owes us, and we answer it"
    FORGIVE = "ask again for what the server did not give"
    INSIST = "ask for a quality again"
    TAKE_OVER = "an identity may change hands again"
    VOICES = "tell again who talks"
    TEXT = "the TextRoom lets us in, or is to be tried again"


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to the server; ``link_up`` or ``link_down`` follows."""


@dataclass(frozen=True, slots=True)
class Shut:
    """Leave the connection, or give up connecting; nothing more of it is told."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The server says nothing: leave the connection; ``link_down`` follows."""

    words: str


@dataclass(frozen=True, slots=True)
class Send:
    message: Json = field(repr=False)  # tokens, PINs and secrets stand in it


@dataclass(frozen=True, slots=True)
class Publish:
    """Offer what we send; ``offered`` follows, or ``nothing_to_send``."""

    generation: int


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    """The server's answer to that offer."""

    generation: int
    sdp: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Answer the server's offer of what we receive; ``watched`` follows. ``lines``: who is on which, by MID."""

    generation: int
    sdp: str
    lines: Mapping[str, OnLine]


@dataclass(frozen=True, slots=True)
class Carry:
    """Without a negotiation other people are on the lines of what we receive, by MID; a line not named has nobody."""

    generation: int
    lines: Mapping[str, OnLine]


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Nothing is received any more: let that connection go."""

    generation: int


@dataclass(frozen=True, slots=True)
class Share:
    """Offer what is shared; ``shared`` follows, or ``sharing_lost``."""

    generation: int


@dataclass(frozen=True, slots=True)
class ShareAnswer:
    """The server's answer to that offer."""

    generation: int
    sdp: str


@dataclass(frozen=True, slots=True)
class Unshare:
    """Let that connection go."""

    generation: int


@dataclass(frozen=True, slots=True)
class OpenText:
    """Answer the TextRoom's offer of a connection; ``text.answered`` follows, or ``text.session``."""

    generation: int
    sdp: str


@dataclass(frozen=True, slots=True)
class WriteText:
    """Say this to the TextRoom."""

    generation: int
    text: str = field(repr=False)  # PINs and tokens stand in it


@dataclass(frozen=True, slots=True)
class CloseText:
    """Let that connection go."""

    generation: int


@dataclass(frozen=True, slots=True)
class Trickle:
    """A candidate of the server; ``""``: that was the last one. ``shared``: for what we share, else for what we receive
    (``watching``) or send."""

    generation: int
    watching: bool
    candidate: str
    mid: str | None
    line: int | None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Let both connections of this generation go."""

    generation: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """What we ordered as a moderator is done; ``refusal``: why not all of it."""

    refusal: Reason | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The server has begun to record the room, or stopped, as it was asked to; ``refusal``: why it did not."""

    refusal: Reason | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    event: api.LegEvent


@dataclass(frozen=True, slots=True)
class TokenJudged:
    """The server has taken our token, or refused it in these words."""

    refused: str = ""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Somebody has joined under the identity of one who is there."""

    identity: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    timer: Timer
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class Finish:
    """It is over: say what was sent, let everything go, tell ``Ended``."""

    reason: Reason


Effect = (Open | Shut | GiveUp | Send | Publish | TakeAnswer | Watch | Carry | Unwatch | Share | ShareAnswer | Unshare
          | OpenText | WriteText | CloseText | Trickle | Drop | Tell | TokenJudged | TakenOver | StartTimer
          | CancelTimer | Ordered | Recorded | Finish)
