"""A leg of a direct call: the dialog, carried out with real media, timers and endpoints.

The dialog decides (``dialog.py``); here its effects are carried out in order. What takes time (offers, answers,
candidates, closing) runs in one worker, so that ending a call never waits for media and media of one leg never
overtakes itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from appliance.errors import EdgecallError, Refused, SignalingError
from appliance.media.api import DataMessage, Directions, Session, SessionClosed, SessionEvent
from appliance.providers import api
from appliance.providers.chores import Chores
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.dialog import Dialog, Phase
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
from appliance.providers.direct.endpoint import Endpoint
from appliance.providers.endings import GivenUp, last_report
from appliance.providers.facts import Facts
from appliance.providers.two import CallOfTwo
from appliance.vocabulary import END_REASONS, Json, KeyMethod, Reason

__all__ = ["DirectLeg", "MakeSession"]

log = logging.getLogger(__name__)

FLUSH_S: Final = 1.0
CLOSE_S: Final = 1.0
"""Together the 2 s within which a leg ends."""

MakeSession = Callable[[Directions, bool], Session]
"""A new session: what is wanted of it now, and whether the peer came by loopback."""


class Owner(Protocol):
    """What a leg tells the provider."""

    def leg_over(self, leg: DirectLeg) -> None: ...


_ELSEWHERE: Final = END_REASONS["487/answeredElsewhere"]


class DirectLeg(CallOfTwo):
    """A Leg (``providers.api``). Made by the provider, which then calls ``invite`` or hands it out as incoming."""

    def __init__(self, leg_id: str, dialog: Dialog, owner: Owner, make_session: MakeSession, media: api.MediaWanted,
                 *, to: str = "", placeholder: api.Peer | None = None) -> None:
        self._id = leg_id
        self._dialog = dialog
        self._owner = owner
        self._make_session = make_session
        self._media = media
        self._placeholder = placeholder
        self.to = to
        self._endpoints: dict[str, Endpoint] = {}
        self._sessions: dict[int, Session] = {}
        self._current: Session | None = None
        self._lost: Session | None = None  # the one that was dropped last
        self._last_stats: Sequence[Json] = ()  # of a leg that is over
        self._given_up = GivenUp()
        self._peer_sends = (True, True)
        self._peer_watches = True
        self._facts = Facts()
        self._chores: Chores[Timer] = Chores(
            f"direct.media.{leg_id[:12]}", lambda: self._carry_out(self._dialog.end(END_REASONS["500/internal"])))
        self._finishing: asyncio.Task[None] | None = None
        self._picture = b""

    # --- Leg --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def peer(self) -> api.Peer:
        found = self._dialog.peer or self._placeholder
        if found is None:
            raise RuntimeError("a leg without branches has no peer")
        return found

    def events(self) -> AsyncIterator[api.LegEvent]:
        return self._facts.read()

    async def ring(self) -> None:
        self._carry_out(self._dialog.ring())

    async def accept(self, media: api.MediaWanted) -> None:
        self._media = media
        self._carry_out(self._dialog.watch(media.receive_video))
        self._carry_out(self._dialog.accept(wire.Sends(media.send_audio, media.send_video)))

    async def end(self, reason: Reason) -> None:
        self._carry_out(self._dialog.end(reason))
        if self._finishing is not None:
            await asyncio.shield(self._finishing)

    async def set_media(self, media: api.MediaWanted) -> None:
        self._media = media
        for session in self._sessions.values():
            session.set_directions(self._directions())
        self._carry_out(self._dialog.watch(media.receive_video))

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        self._carry_out(self._dialog.tell(muted=muted, held=held, video=video))

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        if self._current is None:
            raise Refused("There is no data channel: the call is not connected.", code=409, sub_code="notConnected")
        self._current.send(channel, payload, lossy=lossy, urgent=urgent)
        self._facts.put(api.DataSent(channel, len(payload.encode())))

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        raise Refused("only telephones take digits", code=501, sub_code="FeatureNotSupported")

    async def transfer(self, target: api.Target, *, attended: bool) -> None:
        raise Refused("only telephone calls can be handed on", code=501, sub_code="FeatureNotSupported")

    async def stats(self) -> Sequence[Json]:
        return await self._current.stats() if self._current is not None else self._last_stats

    async def replaced(self) -> Sequence[Sequence[Json]]:
        return await self._given_up.taken()

    # --- for the provider and the endpoints -------------------------------------------------------------------------

    @property
    def call_id(self) -> str:
        return self._dialog.call_id

    @property
    def generation(self) -> int:
        return max(self._dialog.generation, 0)

    @property
    def over(self) -> bool:
        return self._dialog.phase is Phase.OVER

    @property
    def calling(self) -> bool:
        """We invited, and nobody has accepted yet."""
        return self._dialog.phase is Phase.CALLING

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._endpoints

    def invite(self, endpoints: Sequence[Endpoint]) -> None:
        """Ring everybody."""
        for endpoint in endpoints:
            self._join(endpoint)
        self._carry_out(self._dialog.call([(e.key, e.peer) for e in endpoints], self.to))

    def ring_too(self, endpoint: Endpoint) -> bool:
        """Ring one more; False when the time for that is over."""
        if not self.calling or endpoint.key in self._endpoints:
            return False
        self._join(endpoint)
        self._carry_out(self._dialog.add_branch(endpoint.key, endpoint.peer))
        return True

    def invited_by(self, endpoint: Endpoint) -> None:
        """Incoming: the branch we are called on."""
        self._join(endpoint)

    def yield_to(self, invite: wire.Invite, endpoint: Endpoint) -> None:
        """Glare: answer the peer's call in place of ours."""
        before = self._dialog.call_id
        effects = self._dialog.yield_to(invite, endpoint.key, endpoint.peer)
        if not effects:
            return
        former = self._endpoints
        self._endpoints = {**former, endpoint.key: endpoint}
        endpoint.join(invite.call_id, self)
        self._carry_out(effects)
        for other in former.values():
            other.forget(before, _ELSEWHERE)
        self._endpoints = {endpoint.key: endpoint}

    def show_picture(self, jpeg: bytes, endpoint: Endpoint) -> None:
        """The visitor's picture, for one that rings."""
        self._picture = jpeg
        if self.calling and endpoint.key in self._dialog.branches:
            endpoint.post(wire.PictureSignal.of(self._dialog.call_id, jpeg))

    def receive(self, endpoint: Endpoint, signal: wire.CallSignal) -> None:
        self._carry_out(self._dialog.receive(endpoint.key, signal))
        self._let_go()

    def signalling(self, endpoint: Endpoint, up: bool) -> None:
        effects = self._dialog.signalling(endpoint.key, up)
        self._carry_out(effects)
        if effects and self._picture and endpoint.pictures:
            self.show_picture(self._picture, endpoint)

    def gone(self, endpoint: Endpoint, *, left: bool, reason: Reason | None = None) -> None:
        self._carry_out(self._dialog.gone(endpoint.key, left=left, reason=reason))
        self._let_go()

    # --- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Post(branch, signal):
                    self._endpoints[branch].post(signal)
                case Tell(event):
                    self._facts.put(event)
                case MakeOffer(generation):
                    self._open(generation)
                    self._chores.do(partial(self._offer, generation))
                case MakeAnswer(generation, sdp):
                    self._open(generation)
                    self._chores.do(partial(self._answer, generation, sdp))
                case TakeAnswer(generation, sdp):
                    self._chores.do(partial(self._take_answer, generation, sdp))
                case AddCandidate(signal):
                    self._chores.do(partial(self._add_candidate, signal))
                case Drop(generation):
                    self._drop(generation)
                case PeerSends(audio, video):
                    self._peer_sends = (audio, video)
                    for session in self._sessions.values():
                        session.peer_sends(audio=audio, video=video)
                case PeerWatches(video):
                    self._peer_watches = video
                    for session in self._sessions.values():
                        session.set_directions(self._directions())
                case StartTimer(timer, seconds):
                    self._chores.start_timer(timer, seconds, self._timeout)
                case CancelTimer(timer):
                    self._chores.cancel_timer(timer)
                case Finish(reason):
                    self._finishing = asyncio.create_task(self._finish(reason), name=f"direct.end.{self._id[:12]}")

    def _join(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint.key] = endpoint
        endpoint.join(self._dialog.call_id, self)

    def _let_go(self) -> None:
        """Of branches that said no or came second."""
        for key in self._endpoints.keys() - set(self._dialog.branches):
            self._endpoints.pop(key).forget(self._dialog.call_id, _ELSEWHERE)

    def _timeout(self, timer: Timer) -> None:
        self._carry_out(self._dialog.timeout(timer))

    # --- media ------------------------------------------------------------------------------------------------------

    def _directions(self) -> Directions:
        media = self._media
        return Directions(media.send_audio, media.send_video and self._peer_watches, media.receive_audio,
                          media.receive_video)

    def _open(self, generation: int) -> None:
        """A session negotiates every direction there is a device for, and does not use those not wanted now: so video
        can start later without a new negotiation, and a call on hold that reconnects can resume."""
        peer = self._dialog.chosen
        loopback = peer is not None and self._endpoints[peer].loopback
        session = self._make_session(self._directions(), loopback)
        session.peer_sends(audio=self._peer_sends[0], video=self._peer_sends[1])
        self._sessions[generation] = session
        if self._current is None:
            self._current = session
        self._chores.spawn(self._listen(generation, session), f"direct.session.{self._id[:12]}.{generation}")

    async def _listen(self, generation: int, session: Session) -> None:
        async for event in session.events():
            if isinstance(event, DataMessage):
                self._facts.put(api.DataReceived(event.channel, event.payload, self._id, event.lost))
                continue
            self._session_event(generation, session, event)

    def _session_event(self, generation: int, session: Session, event: SessionEvent) -> None:
        effects = self._dialog.session(generation, event)
        if effects and not isinstance(event, SessionClosed) and generation in self._sessions:
            self._current = session
        self._carry_out(effects)

    async def _offer(self, generation: int) -> None:
        session = self._sessions.get(generation)
        if session is not None:
            self._carry_out(self._dialog.offered(generation, await session.offer()))

    async def _answer(self, generation: int, sdp: str) -> None:
        session = self._sessions.get(generation)
        if session is None:
            return
        try:
            answer = await session.answer(sdp)
        except (SignalingError, Refused) as error:
            self._failed(generation, error)
            return
        self._carry_out(self._dialog.answered(generation, answer))

    async def _take_answer(self, generation: int, sdp: str) -> None:
        session = self._sessions.get(generation)
        if session is None:
            return
        try:
            await session.accept_answer(sdp)
        except (SignalingError, Refused) as error:
            self._failed(generation, error)

    async def _add_candidate(self, signal: wire.Candidate) -> None:
        session = self._sessions.get(signal.generation)
        if session is None:
            return
        try:
            await session.add_candidate(signal.candidate, signal.mid, signal.line)
        except SignalingError as error:
            log.info("a candidate was refused: %s", error.message)

    def _failed(self, generation: int, error: EdgecallError) -> None:
        log.warning("no peer connection: %s", error.message)
        reason = END_REASONS.get(error.key, END_REASONS["503/provider"])
        self._carry_out(self._dialog.failed(generation, reason))

    def _drop(self, generation: int) -> None:
        session = self._sessions.pop(generation, None)
        if session is None:
            return
        if self._current is session:
            self._current = next(iter(self._sessions.values()), None)
            self._lost = session
        self._given_up.add(self._last_of(session), f"direct.stats.{generation}")
        self._chores.spawn(session.close(), f"direct.close.{self._id[:12]}.{generation}")

    async def _note_stats(self) -> None:
        """Of the connection in use, or of the lost one where a new one carries nothing yet."""
        for session in (self._current, self._lost):
            if session is not None and (stats := await self._last_of(session)):
                self._last_stats = stats
                break
        self._lost = None

    async def _last_of(self, session: Session) -> Sequence[Json]:
        """Empty where nothing was received."""
        stats = await last_report(session)
        return stats if any(one["type"] == "inbound-rtp" for one in stats) else ()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _finish(self, reason: Reason) -> None:
        """Say it, let go of media, tell Ended: each with its own deadline."""
        await self._chores.stop_jobs(CLOSE_S)
        await self._note_stats()
        sessions, self._sessions, self._current = list(self._sessions.values()), {}, None
        flushes = [asyncio.create_task(e.flush(FLUSH_S), name="direct.flush") for e in self._endpoints.values()]
        closes = [asyncio.create_task(s.close(), name="direct.close") for s in sessions]
        if closes:
            await asyncio.wait(closes, timeout=CLOSE_S)
        if flushes:
            await asyncio.wait(flushes, timeout=FLUSH_S)
        await self._chores.cancel((*closes, *flushes))
        for endpoint in tuple(self._endpoints.values()):
            endpoint.forget(self._dialog.call_id, reason)
        self._facts.put(api.Ended(reason))
        self._owner.leg_over(self)
