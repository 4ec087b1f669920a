"""The call as a table. Pure: no clock, no asyncio, no device; time comes in with each event.

Theory of operation. A call is one frozen `Call`. `step(call, event, now)` looks up ``(call.state, event.signal)`` in
TABLE and returns the next call and the effects the controller has to run, in order. A pair that is not in the table
is illegal: `IllegalEvent` is raised and nothing changes.

Rule 1: everything that decides a transition lives in this file. Two things do not fit a flat table and are resolved
here by name: ``SETTLED`` (media is up: Connected, or one of the holds, by who holds) and the reason an unanswered
outgoing call ends with when we give up (487/cancelled instead of 0/local).

The diagram in ``docs/architecture.md`` is generated from TABLE (``diagram()``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Final

from appliance.errors import Refused
from appliance.vocabulary import END_REASONS, CallKind, CallState, Direction, Reason

__all__ = ["LIVE", "TABLE", "Call", "Effect", "Happening", "IllegalEvent", "Signal", "diagram", "step"]


class Signal(StrEnum):
    """What can happen to a call."""

    DIAL = "dial"  # we call
    INVITED = "invited"  # somebody calls us
    PEER_RINGS = "peerRings"  # 180: the other side rings
    PEER_QUEUES = "peerQueues"  # 182: waiting to be let in
    PEER_PLAYS = "peerPlays"  # 183: early media
    PEER_ACCEPTS = "peerAccepts"  # 200: answered, media is being connected
    ANSWER = "answer"  # we answer
    REJECT = "reject"  # we refuse
    MEDIA_UP = "mediaUp"  # each negotiated direction flows
    MEDIA_LOST = "mediaLost"  # nothing arrives any more
    MEDIA_BACK = "mediaBack"  # it flows again
    HOLD = "hold"  # we hold
    RESUME = "resume"  # we resume
    PEER_HOLDS = "peerHolds"
    PEER_RESUMES = "peerResumes"
    TRANSFER = "transfer"  # we hand the call to a third party
    TRANSFER_FAILED = "transferFailed"
    TIMEOUT = "timeout"  # the timer of this state ran out; carries the reason
    HANG_UP = "hangUp"  # we end it
    GONE = "gone"  # the other side ended it, or the last leg is over; carries the reason


class Effect(Enum):
    """What the controller does for the call; each is run with a deadline."""

    DIAL_TARGETS = "dial the targets of the plan"
    TELL_RINGING = "tell the caller that it rings here"
    ACCEPT_LEG = "accept the incoming leg"
    END_LEGS = "end every leg with the call's reason"
    KEEP_ONE_LEG = "end every leg but the one that was accepted"
    RING = "play the ring tone"
    RINGBACK = "play the ringback tone"
    QUIET = "stop tones"
    WARM_CAMERA = "open the camera before the answer"
    ARM_SETUP = "start the set-up timer"
    ARM_RING = "start the ring timer"
    ARM_RECONNECT = "start the reconnect timer"
    ARM_LEAVE = "give the other side 2 s to say goodbye"
    DISARM = "stop the timer"
    APPLY_MEDIA = "send and play what the state permits"
    TELL_HOLD = "tell the other side that we hold, or not"
    NOTE_STARTED = "event call.started"
    NOTE_LOST = "event media.reconnecting"
    NOTE_BACK = "event media.reconnected"
    CLOSE = "release everything, record the call, event call.ended"


@dataclass(frozen=True, slots=True)
class Call:
    """One call at one moment. Times are monotonic seconds."""

    id: str
    state: CallState = CallState.NONE
    previous: CallState = CallState.NONE
    direction: Direction = Direction.OUTGOING
    kind: CallKind = CallKind.P2P
    since: float = 0.0  # when it came into this state
    began: float = 0.0  # dialled or invited
    connected: float | None = None  # first time Connected
    local_hold: bool = False
    remote_hold: bool = False
    reason: Reason | None = None

    @property
    def live(self) -> bool:
        return self.state in LIVE


@dataclass(frozen=True, slots=True)
class Happening:
    """One event; TIMEOUT, GONE, REJECT and HANG_UP carry a reason."""

    signal: Signal
    reason: Reason | None = None


class IllegalEvent(Refused):
    """The event cannot happen in this state; the call is as it was."""

    sub_code = "callState"


class _Settled(Enum):
    SETTLED = "Connected, LocalHold or RemoteHold, by who holds"


_S, _N, _E = CallState, Signal, Effect
_Next = CallState | _Settled
SETTLED: Final = _Settled.SETTLED

LIVE: Final = frozenset(CallState) - {_S.NONE, _S.DISCONNECTED}
"""States in which the device is in a call."""

_UP: Final = (_S.CONNECTED, _S.LOCAL_HOLD, _S.REMOTE_HOLD)
_SETTING_UP: Final = (_S.CONNECTING, _S.RINGING, _S.EARLY_MEDIA, _S.IN_LOBBY)

_LEAVE: Final = (_S.DISCONNECTING, (_E.QUIET, _E.END_LEGS, _E.ARM_LEAVE))
_OVER: Final = (_S.DISCONNECTED, (_E.QUIET, _E.DISARM, _E.END_LEGS, _E.CLOSE))


def _table() -> Mapping[tuple[CallState, Signal], tuple[_Next, tuple[Effect, ...]]]:
    table: dict[tuple[CallState, Signal], tuple[_Next, tuple[Effect, ...]]] = {
        (_S.NONE, _N.DIAL): (_S.CONNECTING, (_E.WARM_CAMERA, _E.ARM_SETUP, _E.DIAL_TARGETS)),
        (_S.NONE, _N.INVITED): (_S.INCOMING, (_E.TELL_RINGING, _E.RING, _E.ARM_RING, _E.WARM_CAMERA)),
        (_S.INCOMING, _N.ANSWER): (_S.CONNECTING, (_E.QUIET, _E.ARM_SETUP, _E.ACCEPT_LEG)),
        (_S.INCOMING, _N.REJECT): _LEAVE,
        # A late 180 after the answer, or a second target that rings, changes nothing.
        (_S.RINGING, _N.PEER_RINGS): (_S.RINGING, ()),
        (_S.EARLY_MEDIA, _N.PEER_RINGS): (_S.EARLY_MEDIA, ()),
        (_S.CONNECTING, _N.PEER_RINGS): (_S.RINGING, (_E.RINGBACK,)),
        (_S.IN_LOBBY, _N.PEER_RINGS): (_S.RINGING, (_E.RINGBACK,)),
        (_S.EARLY_MEDIA, _N.PEER_PLAYS): (_S.EARLY_MEDIA, ()),
        (_S.IN_LOBBY, _N.PEER_QUEUES): (_S.IN_LOBBY, ()),
        (_S.CONNECTING, _N.MEDIA_UP): (SETTLED, (_E.DISARM, _E.QUIET, _E.NOTE_STARTED, _E.APPLY_MEDIA)),
        (_S.RECONNECTING, _N.MEDIA_BACK): (SETTLED, (_E.DISARM, _E.NOTE_BACK, _E.APPLY_MEDIA)),
        (_S.RECONNECTING, _N.MEDIA_UP): (SETTLED, (_E.DISARM, _E.NOTE_BACK, _E.APPLY_MEDIA)),
        (_S.RECONNECTING, _N.MEDIA_LOST): (_S.RECONNECTING, ()),
        (_S.TRANSFERRING, _N.TRANSFER_FAILED): (SETTLED, (_E.APPLY_MEDIA,)),
        (_S.DISCONNECTING, _N.TIMEOUT): _OVER,
        # While we leave, what the call still does changes nothing.
        **{(_S.DISCONNECTING, late): (_S.DISCONNECTING, ()) for late in (
            _N.HANG_UP, _N.PEER_RINGS, _N.PEER_PLAYS, _N.PEER_QUEUES, _N.PEER_ACCEPTS, _N.MEDIA_UP, _N.MEDIA_LOST,
            _N.MEDIA_BACK, _N.PEER_HOLDS, _N.PEER_RESUMES)},
    }
    for state in (_S.CONNECTING, _S.RINGING):
        table[state, _N.PEER_PLAYS] = (_S.EARLY_MEDIA, (_E.QUIET,))
    for state in (_S.CONNECTING, _S.RINGING, _S.EARLY_MEDIA):
        table[state, _N.PEER_QUEUES] = (_S.IN_LOBBY, (_E.QUIET,))
    for state in _SETTING_UP:
        table[state, _N.PEER_ACCEPTS] = (_S.CONNECTING, (_E.QUIET, _E.KEEP_ONE_LEG, _E.ARM_SETUP))
    for state in _UP:
        table[state, _N.MEDIA_LOST] = (_S.RECONNECTING, (_E.ARM_RECONNECT, _E.NOTE_LOST))
        table[state, _N.MEDIA_BACK] = (SETTLED, ())
        table[state, _N.MEDIA_UP] = (SETTLED, ())
        table[state, _N.TRANSFER] = (_S.TRANSFERRING, (_E.APPLY_MEDIA,))
        table[state, _N.HOLD] = (SETTLED, (_E.APPLY_MEDIA, _E.TELL_HOLD))
        table[state, _N.RESUME] = (SETTLED, (_E.APPLY_MEDIA, _E.TELL_HOLD))
        table[state, _N.PEER_HOLDS] = (SETTLED, (_E.APPLY_MEDIA,))
        table[state, _N.PEER_RESUMES] = (SETTLED, (_E.APPLY_MEDIA,))
    for state in (_S.CONNECTING, _S.RECONNECTING, _S.TRANSFERRING):
        # The peer may hold before our media is up, while it comes back, or while it calls somebody else: remembered,
        # shown when settled.
        table[state, _N.PEER_HOLDS] = (state, ())
        table[state, _N.PEER_RESUMES] = (state, ())
    for state in sorted(LIVE - {_S.DISCONNECTING}):
        table[state, _N.HANG_UP] = _LEAVE
    for state in sorted(LIVE):
        table[state, _N.GONE] = _OVER
    for state in (*_SETTING_UP, _S.INCOMING, _S.RECONNECTING, _S.TRANSFERRING):
        table[state, _N.TIMEOUT] = _LEAVE
    return table


TABLE: Final = _table()


def _holds(call: Call, signal: Signal) -> Call:
    """The call with the hold flags that ``signal`` sets or clears; the same object when none changes."""
    local = {_N.HOLD: True, _N.RESUME: False}.get(signal, call.local_hold)
    remote = {_N.PEER_HOLDS: True, _N.PEER_RESUMES: False}.get(signal, call.remote_hold)
    if (local, remote) == (call.local_hold, call.remote_hold):
        return call
    return replace(call, local_hold=local, remote_hold=remote)



def step(call: Call, happening: Happening, now: float) -> tuple[Call, tuple[Effect, ...]]:
    """The call after ``happening`` at ``now``, and what to do. Raises IllegalEvent and changes nothing."""
    row = TABLE.get((call.state, happening.signal))
    if row is None:
        raise IllegalEvent(f"the call is {call.state.value}: {happening.signal.value} is not possible now",
                           state=call.state.value, signal=happening.signal.value)
    target, effects = row
    changed = _holds(call, happening.signal)
    if changed is call and happening.signal in (_N.HOLD, _N.RESUME):
        return call, ()  # holding a held call is done already
    state = _settle(changed) if isinstance(target, _Settled) else target
    reason = changed.reason or _reason(call, happening)
    if state is not call.state:
        changed = replace(changed, state=state, previous=call.state, since=now)
        if call.state is _S.NONE:
            changed = replace(changed, began=now)
    if state in (_S.DISCONNECTING, _S.DISCONNECTED):
        changed = replace(changed, reason=reason)
    elif state in _UP and changed.connected is None:
        changed = replace(changed, connected=now)
    return changed, effects


def _settle(call: Call) -> CallState:
    if call.local_hold:
        return _S.LOCAL_HOLD
    return _S.REMOTE_HOLD if call.remote_hold else _S.CONNECTED


def _reason(call: Call, happening: Happening) -> Reason:
    if happening.reason is not None:
        return happening.reason
    unanswered = call.direction is Direction.OUTGOING and call.connected is None
    if happening.signal is _N.HANG_UP and unanswered:
        return END_REASONS["487/cancelled"]
    return END_REASONS["603/declined" if call.state is _S.INCOMING else "0/local"]


def diagram() -> str:
    """TABLE as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> None"]
    edges: dict[tuple[str, str], list[str]] = {}
    for (state, signal), (target, _) in TABLE.items():
        to = "Settled" if isinstance(target, _Settled) else target.value
        if to != state.value:
            edges.setdefault((state.value, to), []).append(signal.value)
    lines += [f"    {a} --> {b}: {' / '.join(signals)}" for (a, b), signals in edges.items()]
    lines += [f"    Settled --> {state.value}" for state in _UP]
    lines += ["    Disconnected --> [*]"]
    return "\n".join(lines)
