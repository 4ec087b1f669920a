"""One direct call as a pure state machine: what came in, what to do. No loop, no clock, no media.

A dialog (RFC 3261 12) has one or more branches while it is being set up: a page or an appliance that rings. Branches
are named by keys. The first that accepts is the peer; the others are told. Every input returns the effects in the
order in which they must be carried out; an input that does not fit the phase (late, repeated, out of order, of the
wrong side) has no effect. The side that accepted makes every offer (``offers``); generations number its peer
connections: a higher one replaces a lower one as soon as it is up.

    caller   CALLING ──accept──▶ JOINING ──up──▶ UP ◀──▶ LOST        any ──▶ OVER
    callee   OFFERED ──accept()─▶ JOINING
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from appliance.media.api import SessionClosed, SessionEvent, SessionSilent, SessionSound, SessionStranded, SessionUp
from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.effects import (
    AddCandidate,
    CancelTimer,
    Drop,
    Effect,
    Finish,
    MakeAnswer,
    MakeOffer,
    PeerSends,
    PeerWatches,
    Post,
    StartTimer,
    TakeAnswer,
    Tell,
    Timer,
)
from appliance.providers.direct.reasons import of_all, remote_reason
from appliance.vocabulary import END_REASONS, Reason

__all__ = ["Dialog", "Phase", "Timings"]


class Phase(Enum):
    CALLING = "calling"  # we invited, nobody accepted yet
    OFFERED = "offered"  # we are invited, not accepted yet
    JOINING = "joining"  # accepted; the first peer connection is being built
    UP = "up"
    LOST = "lost"  # silent; a new peer connection is being built
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. ``reach_s``: until a target that does not answer at all is given up for the next."""

    reach_s: float = 4.0
    answer_s: float = 10.0
    repair_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)  # the last one repeats
    settle_s: float = 2.0  # from the peer's end of the old connection to the newer one being up here too
    attempt_s: float = 6.0  # a new connection that the peer answered may take this long: ICE and DTLS under loss
    grace_s: float = 5.0  # a page that was reloaded is back within this


CANDIDATES: Final = 64
"""Candidates taken from a peer per peer connection; Chromium sends about 4 per interface and address family."""

JOINS: Final = 4
"""Peer connections tried for a call that is not up yet: a peer that asks for one after the other gets no more."""


@dataclass(slots=True)
class _Branch:
    peer: api.Peer
    rings: bool = False
    away: bool = False  # its connection is gone


class Dialog:
    """See the module. ``offers``: this side accepted, so it makes the offers."""

    def __init__(self, call_id: str, *, me: wire.Party, sends: wire.Sends, timings: Timings) -> None:
        self.call_id = call_id
        self.offers = False
        self.phase = Phase.CALLING
        self.generation = -1  # the highest one made or taken
        self._me = me
        self._sends = sends
        self._timings = timings
        self._branches: dict[str, _Branch] = {}
        self._chosen: str | None = None
        self._active = -1  # the generation that is up
        self._alive: set[int] = set()  # generations with a peer connection
        self._reachable = True
        self._to_uri = ""
        self._attempts = 0
        self._early: list[wire.Candidate] = []
        self._candidates: dict[int, int] = {}
        self._no: list[Reason] = []
        self._told: wire.Update | None = None
        self._seq = 0
        self._peer_seq = -1
        self._peer_held = False
        self._peer_audio = True
        self._peer_video = True
        self._watching = self._peer_watches = True
        self._established = False  # Connected was told
        self._accept_told = False
        self._overtaken = False  # by a change of the network, before our first offer was ready

    # --- setting up -------------------------------------------------------------------------------------------------

    @classmethod
    def incoming(cls, invite: wire.Invite, branch: str, peer: api.Peer, *, me: wire.Party,
                 timings: Timings) -> Dialog:
        """The callee's side of an invitation."""
        dialog = cls(invite.call_id, me=me, sends=wire.Sends(audio=True, video=True), timings=timings)
        dialog.phase = Phase.OFFERED
        dialog._branches[branch] = _Branch(peer)
        dialog._chosen = branch
        dialog._expect(invite.media)
        return dialog

    def _expect(self, media: wire.Sends) -> None:
        self._peer_audio, self._peer_video = media.audio, media.video

    def call(self, branches: Iterable[tuple[str, api.Peer]], to: str) -> list[Effect]:
        """Invite everybody at once."""
        self._to_uri = to
        effects: list[Effect] = [StartTimer(Timer.REACH, self._timings.reach_s)]
        for branch, peer in branches:
            effects += self.add_branch(branch, peer)
        return effects

    def add_branch(self, branch: str, peer: api.Peer) -> list[Effect]:
        """Somebody more to ring (went on duty meanwhile)."""
        if self.phase is not Phase.CALLING or branch in self._branches:
            return []
        self._branches[branch] = _Branch(peer)
        return [self._invite(branch)]

    def _invite(self, branch: str) -> Post:
        return Post(branch, wire.Invite(self.call_id, self._me, self._sends, self._to_uri))

    def ring(self) -> list[Effect]:
        """Callee: tell that it rings here."""
        if self.phase is not Phase.OFFERED or self._chosen is None:
            return []
        return [Post(self._chosen, wire.RingingSignal(self.call_id))]

    def accept(self, sends: wire.Sends) -> list[Effect]:
        """Callee: answer; the offer follows."""
        if self.phase is not Phase.OFFERED:
            return []
        self._sends = sends
        self.offers = True
        self.phase = Phase.JOINING
        return [*self._offer(), PeerSends(self._peer_audio, self._peer_video),
                StartTimer(Timer.ANSWER, self._timings.answer_s)]

    def yield_to(self, invite: wire.Invite, branch: str, peer: api.Peer) -> list[Effect]:
        """Glare: the peer called us while we called it, and its call lives. We answer it at once under its id."""
        if self.phase is not Phase.CALLING:
            return []
        effects: list[Effect] = [CancelTimer(Timer.REACH)]
        effects += [Post(other, wire.AnsweredElsewhere(self.call_id)) for other in self._branches if other != branch]
        self.call_id = invite.call_id
        self._branches = {branch: _Branch(peer)}
        self._chosen = branch
        self._expect(invite.media)
        self.phase = Phase.OFFERED
        return [*effects, Tell(api.Accepted(peer, invite.call_id)), *self.accept(self._sends)]

    @property
    def peer(self) -> api.Peer | None:
        """Who it is with; None while several ring."""
        if self._chosen is not None:
            return self._branches[self._chosen].peer
        if len(self._branches) == 1:
            return next(iter(self._branches.values())).peer
        return None

    @property
    def chosen(self) -> str | None:
        return self._chosen

    @property
    def branches(self) -> tuple[str, ...]:
        return tuple(self._branches)

    # --- ending -----------------------------------------------------------------------------------------------------

    def end(self, reason: Reason) -> list[Effect]:
        """Reject, cancel or hang up, by the phase."""
        cause = wire.Cause.of(reason)
        effects: list[Effect] = []
        if self.phase is Phase.CALLING:
            effects += [Post(branch, wire.Cancel(self.call_id, cause)) for branch in self._branches]
        elif self.phase is Phase.OFFERED and self._chosen is not None:
            effects.append(Post(self._chosen, wire.Reject(self.call_id, cause)))
        elif self.phase is not Phase.OVER and self._chosen is not None:
            effects.append(Post(self._chosen, wire.Bye(self.call_id, cause)))
        return effects + self._finish(reason)

    def gone(self, branch: str, *, left: bool, reason: Reason | None = None) -> list[Effect]:
        """A branch is gone for good. ``left``: it said so; without that an established call waits for its media.
        ``reason``: why it cannot be called, where that is known."""
        if branch not in self._branches or self.phase is Phase.OVER:
            return []
        if self.phase is Phase.CALLING:
            return self._no_from(branch, reason or END_REASONS["480/unreachable"])
        if branch != self._chosen:
            return []
        if self.phase is Phase.OFFERED:
            return self._finish(END_REASONS["487/cancelled"])
        return self._finish(END_REASONS["0/remote"]) if left else []

    def _no_from(self, branch: str, reason: Reason) -> list[Effect]:
        del self._branches[branch]
        self._no.append(reason)
        if self._branches:
            return []
        return self._finish(of_all(self._no))

    def _finish(self, reason: Reason) -> list[Effect]:
        if self.phase is Phase.OVER:
            return []
        self.phase = Phase.OVER
        self._alive.clear()
        return [*(CancelTimer(timer) for timer in Timer), Finish(reason)]

    # --- what the peer says -----------------------------------------------------------------------------------------

    def receive(self, branch: str, signal: wire.CallSignal) -> list[Effect]:
        """One message of the call from a branch, in any order and any number of times."""
        if self.phase is Phase.OVER:
            return []
        if branch not in self._branches:
            return self._from_stranger(branch, signal)
        if self.phase is Phase.CALLING:
            return self._while_calling(branch, signal)
        if branch != self._chosen:
            return self._from_stranger(branch, signal)
        match signal:
            case wire.Cancel() | wire.AnsweredElsewhere() | wire.Reject() | wire.Bye():
                return self._finish(remote_reason(signal))
            case wire.Update():
                return self._updated(signal)
            case wire.Candidate():
                return self._candidate(signal)
            case wire.Resume():
                return self._resumed()
            case _:
                return self._offered_to(signal) if self.offers else self._offered_by(signal)

    def _from_stranger(self, branch: str, signal: wire.CallSignal) -> list[Effect]:
        """A branch that is no longer (or never was) in: an accept that came second is told so."""
        if isinstance(signal, wire.Accept):
            return [Post(branch, wire.AnsweredElsewhere(self.call_id))]
        return []

    def _while_calling(self, branch: str, signal: wire.CallSignal) -> list[Effect]:
        state = self._branches[branch]
        match signal:
            case wire.RingingSignal():
                first = not any(other.rings for other in self._branches.values())
                state.rings = True
                return [CancelTimer(Timer.REACH), Tell(api.Ringing())] if first else []
            case wire.Reject() | wire.Bye():
                return self._no_from(branch, remote_reason(signal))
            case wire.Candidate():
                return self._candidate(signal)
            case wire.Accept():
                return self._accepted(branch, signal)
            case _:
                return []

    def _accepted(self, branch: str, signal: wire.Accept) -> list[Effect]:
        peer = self._branches[branch].peer
        effects: list[Effect] = [CancelTimer(Timer.REACH)]
        effects += [Post(other, wire.AnsweredElsewhere(self.call_id)) for other in self._branches if other != branch]
        self._branches = {branch: self._branches[branch]}
        self._chosen = branch
        self._expect(signal.media)
        self.phase = Phase.JOINING
        return [*effects, Tell(api.Accepted(peer)), *self._take_offer(0, signal.sdp)]

    def _offered_to(self, signal: wire.CallSignal) -> list[Effect]:
        """What only the side that offers is sent."""
        match signal:
            case wire.Answer(sdp=sdp) if 0 in self._alive:
                return [CancelTimer(Timer.ANSWER), TakeAnswer(0, sdp)]
            case wire.Reanswer(generation=generation, sdp=sdp) if (
                    generation in self._alive and generation == self.generation):
                timers: Mapping[Phase, Effect] = {
                    Phase.LOST: StartTimer(Timer.REPAIR, self._timings.attempt_s),
                    Phase.JOINING: CancelTimer(Timer.ANSWER)}
                return [TakeAnswer(generation, sdp), *([timers[self.phase]] if self.phase in timers else [])]
            case wire.MediaLost(generation=generation) if (
                    self.phase is Phase.UP and generation >= self._active):
                return self._lost()
            case wire.Move(generation=generation) if self.phase is Phase.JOINING and generation == self.generation:
                return self._join_anew()
            case wire.Move(generation=generation) if (
                    self.phase is Phase.UP and generation == self._active == self.generation):  # one move at a time
                return self._move()
            case _:
                return []

    def _offered_by(self, signal: wire.CallSignal) -> list[Effect]:
        """What only the side that answers is sent."""
        match signal:
            case wire.Reoffer(generation=generation, sdp=sdp) if (
                    generation > self.generation and self.phase in (Phase.JOINING, Phase.UP, Phase.LOST)):
                effects = self._drop_stale()
                lost = self._lost() if self.phase is Phase.UP and not self._alive else []
                return [*effects, *lost, *self._take_offer(generation, sdp)]
            case wire.Settle(generation=generation) if self.phase in (Phase.UP, Phase.LOST):
                if generation not in self._alive:
                    return [Post(self._to, wire.MediaLost(self.call_id, generation))]
                return self._drop_others(generation)
            case _:
                return []

    def _updated(self, signal: wire.Update) -> list[Effect]:
        if signal.seq <= self._peer_seq:
            return []  # MQTT may deliver an older one later
        self._peer_seq = signal.seq
        self._peer_audio, self._peer_video = not (signal.muted or signal.held), signal.video and not signal.held
        effects: list[Effect] = [PeerSends(self._peer_audio, self._peer_video),
                                 Tell(api.PeerMedia(signal.muted, signal.video))]
        if signal.held != self._peer_held:
            self._peer_held = signal.held
            effects.append(Tell(api.Held(signal.held)))
        if signal.watching != self._peer_watches:
            self._peer_watches = signal.watching
            effects.append(PeerWatches(signal.watching))
        return effects

    def _candidate(self, signal: wire.Candidate) -> list[Effect]:
        if signal.generation in self._alive:
            self._candidates = {old: count for old, count in self._candidates.items() if old in self._alive}
            count = self._candidates.get(signal.generation, 0)
            if count >= CANDIDATES:
                return []
            self._candidates[signal.generation] = count + 1
            return [AddCandidate(signal)]
        if signal.generation > self.generation and len(self._early) < CANDIDATES:
            self._early.append(signal)  # overtook its description
        return []

    def _resumed(self) -> list[Effect]:
        """The peer lost its media (page reloaded): ours lead nowhere.

        While the call is lost already an attempt was begun when the peer's connection came back, so it went to the
        page as it is now: it is kept. That also bounds what a peer that says this again and again can make us build.
        """
        if self.phase not in (Phase.UP, Phase.LOST, Phase.JOINING):
            return []
        dead = {self._active} & self._alive if self.phase is Phase.LOST else set(self._alive)
        effects: list[Effect] = [Drop(old) for old in sorted(dead)]
        self._alive -= dead
        self._active = -1
        self._peer_seq = -1  # a reloaded page counts from the beginning
        effects += self._repeat()
        return effects if self.phase is Phase.LOST else effects + self._lost()

    # --- what media and time say ------------------------------------------------------------------------------------

    def offered(self, generation: int, sdp: str) -> list[Effect]:
        """Our offer is ready."""
        if generation not in self._alive:
            return []
        if generation == 0:
            self._accept_told = True
            return [Post(self._to, wire.Accept(self.call_id, sdp, self._me, self._sends)), *self._repeat(),
                    *(self._join_anew() if self._overtaken else [])]
        return [Post(self._to, wire.Reoffer(self.call_id, generation, sdp))]

    def answered(self, generation: int, sdp: str) -> list[Effect]:
        """Our answer is ready."""
        if generation not in self._alive:
            return []
        if generation == 0:
            return [Post(self._to, wire.Answer(self.call_id, sdp)), *self._repeat()]
        reanswer = Post(self._to, wire.Reanswer(self.call_id, generation, sdp))
        if self.phase is Phase.LOST:  # asked again sooner the peer would give up what it has up already
            return [reanswer, StartTimer(Timer.REPAIR, self._timings.attempt_s)]
        return [reanswer, *(self._repeat() if self.phase is Phase.JOINING else [])]

    def failed(self, generation: int, reason: Reason) -> list[Effect]:
        """No peer connection can be made of what the peer sent."""
        if generation not in self._alive:
            return []
        self._alive.discard(generation)
        if self.phase is Phase.JOINING:
            return [Drop(generation), *self.end(reason)]
        return [Drop(generation)]  # the next attempt follows by its timer

    def session(self, generation: int, event: SessionEvent) -> list[Effect]:
        """What a peer connection tells of itself."""
        if generation not in self._alive:
            return []
        match event:
            case SessionUp(security=security):
                return self._up(generation, api.Connected(security))
            case SessionSilent() if generation == self._active and self.phase is Phase.UP:
                return self._lost()
            case SessionStranded(gone=gone):
                return self._stranded(generation, gone)
            case SessionSound() if generation == self._active and self.phase is Phase.LOST:
                return self._sound(generation)
            case SessionClosed(why=why):
                return self._closed(generation, why)
            case _:
                return []

    def signalling(self, branch: str, up: bool) -> list[Effect]:
        """The way to a branch is broken, or is back."""
        if self.phase is Phase.CALLING and branch in self._branches:
            state = self._branches[branch]
            before, state.away = state.away, not up
            # A page that was reloaded while it rang knows nothing of the call: ring again. Others know its id.
            return [self._invite(branch)] if before and up else []
        if branch != self._chosen:
            return []
        self._reachable = up
        if up and self.phase is Phase.LOST:
            self._attempts = 0
            return self._repair()
        return []

    def timeout(self, timer: Timer) -> list[Effect]:
        match timer:
            case Timer.REACH if self.phase is Phase.CALLING:
                if any(branch.rings for branch in self._branches.values()):
                    return []
                effects: list[Effect] = [Post(branch, wire.Cancel(self.call_id, wire.Cause(480, "unreachable")))
                                         for branch in self._branches]
                return effects + self._finish(END_REASONS["480/unreachable"])
            case Timer.ANSWER if self.phase is Phase.JOINING:
                return self.end(END_REASONS["408/setupTimeout"])
            case Timer.REPAIR if self.phase is Phase.LOST:
                return self._repair()
            case Timer.REPAIR if self.phase is Phase.UP and self._active == -1:
                return self._lost()
            case _:
                return []

    def tell(self, *, muted: bool, held: bool, video: bool) -> list[Effect]:
        """Our own mute, hold and video; said again after every accept and resume."""
        self._seq += 1
        self._told = wire.Update(self.call_id, self._seq, muted, held, video, self._watching)
        if self.phase in (Phase.JOINING, Phase.UP, Phase.LOST):
            return self._repeat()
        return []

    def watch(self, watching: bool) -> list[Effect]:
        """Whether we want the peer's picture; where nothing was told yet it is told with the first word."""
        if watching == self._watching:
            return []
        self._watching = watching
        told = self._told
        return [] if told is None else self.tell(muted=told.muted, held=told.held, video=told.video)

    def _repeat(self) -> list[Effect]:
        if self._told is None or self._chosen is None:
            return []
        told = self._told
        if told.call_id != self.call_id:  # glare changed it
            told = replace(told, call_id=self.call_id)
        return [Post(self._chosen, told)]

    # --- peer connections -------------------------------------------------------------------------------------------

    @property
    def _to(self) -> str:
        if self._chosen is None:
            raise RuntimeError("a dialog without a peer has no peer connection")
        return self._chosen

    def _offer(self) -> list[Effect]:
        self.generation += 1
        self._alive.add(self.generation)
        return [MakeOffer(self.generation), *self._take_early()]

    def _take_offer(self, generation: int, sdp: str) -> list[Effect]:
        self.generation = generation
        self._alive.add(generation)
        return [MakeAnswer(generation, sdp), PeerSends(self._peer_audio, self._peer_video), *self._take_early()]

    def _take_early(self) -> list[Effect]:
        early, self._early = self._early, []
        return [effect for signal in early for effect in self._candidate(signal)]

    def _up(self, generation: int, connected: api.Connected) -> list[Effect]:
        if generation < self._active:
            return []
        before, self.phase = self.phase, Phase.UP
        first, self._established = not self._established, True
        self._active = generation
        self._attempts = 0
        effects: list[Effect] = [CancelTimer(Timer.REPAIR), CancelTimer(Timer.ANSWER)]
        effects += self._drop_others(generation)
        if first:
            effects.append(Tell(connected))
        elif before is Phase.LOST:
            effects.append(Tell(api.Recovered()))
        return effects

    def _sound(self, generation: int) -> list[Effect]:
        """Sound is back on the old connection before a new one is up: keep it."""
        self.phase = Phase.UP
        self._attempts = 0
        effects: list[Effect] = [CancelTimer(Timer.REPAIR)]
        if self.offers and self._alive != {generation}:
            effects += self._drop_others(generation)
            effects.append(Post(self._to, wire.Settle(self.call_id, generation)))
        return [*effects, Tell(api.Recovered())]

    def _closed(self, generation: int, why: str) -> list[Effect]:
        self._alive.discard(generation)
        if self.phase is Phase.JOINING:
            key = {"iceFailed": "410/iceFailed", "dtls": "488/dtls", "oneWayMedia": "410/oneWayMedia",
                   "internal": "500/internal"}
            return self.end(END_REASONS[key.get(why, "410/mediaLost")])
        if why == "oneWayMedia":
            return self.end(END_REASONS["410/oneWayMedia"])
        effects: list[Effect] = [Drop(generation)]
        if generation == self._active:
            self._active = -1
        if self.phase is not Phase.UP or self._active != -1:
            return effects
        if not self._alive:
            return effects + self._lost()
        # The side that is up first closes the old connection; here the newer one may lack its first packet still.
        return [*effects, StartTimer(Timer.REPAIR, self._timings.settle_s)]

    def _stranded(self, generation: int, gone: bool) -> list[Effect]:
        """Our own network changed. A path that still carries is kept until a new one is up."""
        if self.phase is Phase.LOST and generation == self.generation:
            self._attempts = 0
            return self._repair()
        if self.phase is Phase.JOINING and generation == self.generation:
            return self._join_anew()
        if self.phase is not Phase.UP:
            return []
        if gone and generation == self._active:
            return self._lost()
        return self._move() if generation == self.generation else []  # else: it is being replaced already

    def _join_anew(self) -> list[Effect]:
        """The first connection is being built, by addresses that are not the right ones any more."""
        if not self.offers:
            return [Post(self._to, wire.Move(self.call_id, self.generation))]
        self._overtaken = not self._accept_told  # an offer of generation 0 is what tells that we accept
        if self._overtaken or self.generation >= JOINS - 1:
            return []
        return [*self._drop_stale(), *self._offer(), StartTimer(Timer.ANSWER, self._timings.answer_s)]

    def _move(self) -> list[Effect]:
        """Build a new connection beside the one that carries, or ask the peer to."""
        if not self.offers:
            return [Post(self._to, wire.Move(self.call_id, self.generation))]
        return [*self._drop_stale(), *self._offer()]

    def _lost(self) -> list[Effect]:
        self.phase = Phase.LOST
        self._attempts = 0
        cause = "media" if self._reachable else "signalling"
        told: list[Effect] = [Tell(api.Lost(cause))] if self._established else []
        return [*told, CancelTimer(Timer.ANSWER), *self._repair()]

    def _repair(self) -> list[Effect]:
        """The next attempt, or the request for one; waits for signalling where that is gone too."""
        if not self._reachable:
            return [CancelTimer(Timer.REPAIR)]
        steps = self._timings.repair_s
        pause = steps[min(self._attempts, len(steps) - 1)]
        self._attempts += 1
        effects: list[Effect] = []
        if self.offers:
            effects += [*self._drop_stale(), *self._offer()]
        else:
            effects.append(Post(self._to, wire.MediaLost(self.call_id, max(self.generation, 0))))
        return [*effects, StartTimer(Timer.REPAIR, pause)]

    def _drop_stale(self) -> list[Effect]:
        """Attempts that were never up."""
        stale = sorted(self._alive - {self._active})
        self._alive -= set(stale)
        return [Drop(old) for old in stale]

    def _drop_others(self, generation: int) -> list[Effect]:
        others = sorted(self._alive - {generation})
        self._alive = {generation}
        return [Drop(old) for old in others]
