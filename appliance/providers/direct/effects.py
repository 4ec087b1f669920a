"""What is to be done, as the dialog of a direct call says it to the one who does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.vocabulary import Reason

__all__ = [
    "AddCandidate",
    "CancelTimer",
    "Drop",
    "Effect",
    "Finish",
    "MakeAnswer",
    "MakeOffer",
    "PeerSends",
    "PeerWatches",
    "Post",
    "StartTimer",
    "TakeAnswer",
    "Tell",
    "Timer",
]


class Timer(Enum):
    REACH = "reach"  # caller: nobody has answered in any way
    ANSWER = "answer"  # callee: accepted, and no answer to the offer
    REPAIR = "repair"  # lost: the next attempt; up: the newer connection that the peer went on to must be up


@dataclass(frozen=True, slots=True)
class Post:
    """Send a message to a branch."""

    branch: str
    signal: wire.CallSignal


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the controller."""

    event: api.LegEvent


@dataclass(frozen=True, slots=True)
class MakeOffer:
    generation: int


@dataclass(frozen=True, slots=True)
class MakeAnswer:
    generation: int
    sdp: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    generation: int
    sdp: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AddCandidate:
    signal: wire.Candidate


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the peer connection of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class PeerSends:
    """What the peer says it sends: what is not sent is not missed."""

    audio: bool
    video: bool


@dataclass(frozen=True, slots=True)
class PeerWatches:
    """Whether the peer wants our picture."""

    video: bool


@dataclass(frozen=True, slots=True)
class StartTimer:
    timer: Timer
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class Finish:
    """Let everything go, then tell Ended."""

    reason: Reason


Effect = (
    Post | Tell | MakeOffer | MakeAnswer | TakeAnswer | AddCandidate | Drop | PeerSends | PeerWatches | StartTimer
    | CancelTimer | Finish
)
