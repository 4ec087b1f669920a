"""One call in a room: the membership, carried out with a connection to the server, real media and timers.

What takes time (offers, answers, candidates) runs in one worker, so that media of a room never overtake themselves.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol

from appliance.errors import Refused, SignalingError
from appliance.media.api import (
    DataMessage,
    Directions,
    Gallery,
    Session,
    SessionClosed,
    SessionEvent,
    SessionStranded,
)
from appliance.providers import api
from appliance.providers.chores import Chores
from appliance.providers.endings import GivenUp, last_report, reason_of
from appliance.providers.facts import Facts
from appliance.providers.janus.effects import (
    CancelTimer,
    Carry,
    Drop,
    Effect,
    Expelled,
    Finish,
    GiveUp,
    Open,
    Publish,
    Send,
    Share,
    ShareAnswer,
    Shut,
    StartTimer,
    TakeAnswer,
    TakenOver,
    Tell,
    Timer,
    TokenJudged,
    Trickle,
    Unshare,
    Unwatch,
    Watch,
)
from appliance.providers.janus.link import JanusLink
from appliance.providers.janus.membership import Membership, Room
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = ["Ground", "JanusLeg"]

log = logging.getLogger(__name__)

CLOSE_S: Final = 1.0
EXPEL_S: Final = 5.0


class Ground(Protocol):
    """What the provider gives its legs."""

    def publication(self, wanted: Directions) -> Session | None: ...

    def gallery(self) -> Gallery: ...

    def shared(self) -> Session | None: ...

    def link(
        self, name: str, *, on_up: Callable[[bool], None], on_message: Callable[[Json], None],
        on_down: Callable[[str, bool], None],
    ) -> JanusLink: ...

    def token_judged(self, refused: str) -> None: ...

    def taken_over(self, identity: str) -> None: ...

    def leg_over(self, leg: JanusLeg) -> None: ...


class JanusLeg:
    """A Leg (``providers.api``), outgoing only: rooms are joined, they do not call."""

    def __init__(
        self, leg_id: str, room: Room, ground: Ground, *, me: api.Peer, media: api.MediaWanted, shows: bool,
    ) -> None:
        self._id = leg_id
        self._ground = ground
        self._media = media
        self._peer = api.Peer(room.name, f"room:{room.name}", room.name)
        self._membership = Membership(room, me=me, shows=shows, new_transaction=lambda: secrets.token_urlsafe(12),
                                      monotonic=time.monotonic)
        self._link = ground.link(
            leg_id[:12], on_up=lambda same: self._carry_out(self._membership.link_up(same=same)),
            on_message=lambda message: self._carry_out(self._membership.receive(message)),
            on_down=lambda words, elsewhere: self._carry_out(self._membership.link_down(words, elsewhere=elsewhere)))
        self._publication: tuple[int, Session] | None = None
        self._gallery: tuple[int, Gallery] | None = None
        self._shared: tuple[int, Session] | None = None
        self._facts = Facts()
        self._last_stats: Sequence[Json] = ()
        self._given_up = GivenUp()
        self._chores: Chores[Timer] = Chores(
            f"janus.media.{leg_id[:12]}", lambda: self._carry_out(self._membership.end(END_REASONS["500/internal"])))
        self._finishing: asyncio.Task[None] | None = None
        self._expelled: asyncio.Future[Reason | None] | None = None

    # --- Leg --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def peer(self) -> api.Peer:
        return self._peer

    def events(self) -> AsyncIterator[api.LegEvent]:
        return self._facts.read()

    def join(self) -> None:
        """Begin; Accepted and Connected, or Ended, follow."""
        media = self._media
        self._carry_out(self._membership.want(hears=media.receive_audio, sees=media.receive_video, view=media.view))
        self._carry_out(self._membership.start())

    def token_renewed(self) -> None:
        self._carry_out(self._membership.token_renewed())

    async def ring(self) -> None:
        """Nobody is called by a room."""

    async def accept(self, media: api.MediaWanted) -> None:
        """Nobody is called by a room."""

    async def end(self, reason: Reason) -> None:
        self._carry_out(self._membership.end(reason))
        if self._finishing is not None:
            await asyncio.shield(self._finishing)

    @property
    def ends_for_all(self) -> bool:
        return self._membership.may_expel

    async def end_for_all(self) -> None:
        if self._expelled is None:
            self._expelled = asyncio.get_running_loop().create_future()
            self._carry_out(self._membership.expel())
        try:
            async with asyncio.timeout(EXPEL_S):
                refusal = await asyncio.shield(self._expelled)
        except TimeoutError:
            refusal = END_REASONS["503/provider"]
        self._expelled = None
        if refusal is not None:
            raise Refused(refusal.message, code=refusal.code, sub_code=refusal.sub_code, category=refusal.category)

    async def set_media(self, media: api.MediaWanted) -> None:
        self._media = media
        if self._publication is not None:
            self._publication[1].set_directions(self._directions())
        if self._gallery is not None:
            self._gallery[1].set_wanted(audio=media.receive_audio, video=media.receive_video)
        self._carry_out(self._membership.want(hears=media.receive_audio, sees=media.receive_video, view=media.view))
        self._carry_out(self._membership.share(media.content))

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        """The room has no word for it: others see that nothing comes."""

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        if self._publication is None:
            raise Refused("nothing of this device is in the room now, and no data either", sub_code="noDataChannel")
        self._publication[1].send(channel, payload, to=to, lossy=lossy, urgent=urgent)
        self._facts.put(api.DataSent(channel, len(payload.encode())))

    async def press(self, digits: str, seconds: float) -> None:
        raise Refused("only telephones take digits", code=501, sub_code="FeatureNotSupported")

    async def stats(self) -> Sequence[Json]:
        if self._membership.over:
            return self._last_stats
        return [one for part in self._parts() for one in await part.stats()]

    async def replaced(self) -> Sequence[Sequence[Json]]:
        return await self._given_up.taken()

    # --- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Open():
                    self._link.open()
                case Shut():
                    self._link.shut()
                case GiveUp(words):
                    self._link.give_up(words)
                case Send(message):
                    self._link.send(message)
                case Publish(generation):
                    self._publish(generation)
                case TakeAnswer(generation, sdp):
                    self._chores.do(partial(self._take_answer, generation, sdp))
                case Watch():
                    self._chores.do(partial(self._watch, effect))
                case Carry():
                    self._chores.do(partial(self._carry, effect))
                case Trickle():
                    self._chores.do(partial(self._trickle, effect))
                case Unwatch(generation):
                    self._unwatch(generation)
                case Share(generation):
                    self._share(generation)
                case ShareAnswer(generation, sdp):
                    self._chores.do(partial(self._take_share_answer, generation, sdp))
                case Unshare():
                    self._unshare()
                case Drop(generation):
                    self._drop(generation)
                case Expelled(refusal):
                    if self._expelled is not None and not self._expelled.done():
                        self._expelled.set_result(refusal)
                case Tell(event):
                    self._note(event)
                case TakenOver(identity):
                    self._ground.taken_over(identity)
                case TokenJudged(refused):
                    self._ground.token_judged(refused)
                case StartTimer(timer, seconds):
                    self._chores.start_timer(timer, seconds, self._timeout)
                case CancelTimer(timer):
                    self._chores.cancel_timer(timer)
                case Finish(reason):
                    self._finishing = asyncio.create_task(self._finish(reason), name=f"janus.end.{self._id[:12]}")

    def _note(self, event: api.LegEvent) -> None:
        if isinstance(event, api.Accepted):
            self._peer = event.peer
        self._facts.put(event)

    def _timeout(self, timer: Timer) -> None:
        self._carry_out(self._membership.timeout(timer))

    # --- media ------------------------------------------------------------------------------------------------------

    def _directions(self) -> Directions:
        return Directions(self._media.send_audio, self._media.send_video, receive_audio=False, receive_video=False)

    def _publish(self, generation: int) -> None:
        session = None if self._media.listens_only else self._ground.publication(self._directions())
        if session is None:
            self._carry_out(self._membership.nothing_to_send(generation))
            return
        self._publication = generation, session
        self._listen(generation, session.events(), watching=False)
        self._chores.do(partial(self._offer, generation, session))

    async def _offer(self, generation: int, session: Session) -> None:
        if self._publication is not None and self._publication[1] is session:  # or it was let go while this job waited
            self._carry_out(self._membership.offered(generation, await session.offer()))

    async def _take_answer(self, generation: int, sdp: str) -> None:
        if self._publication is not None and self._publication[0] == generation:
            await self._attempt(generation, self._publication[1].accept_answer(sdp))

    async def _watch(self, watch: Watch) -> None:
        if watch.generation != self._membership.generation:
            return
        if self._gallery is None:
            gallery = self._ground.gallery()
            gallery.set_wanted(audio=self._media.receive_audio, video=self._media.receive_video)
            gallery.on_voices = lambda levels: self._carry_out(self._membership.voices(watch.generation, levels))
            gallery.on_absence = lambda: self._carry_out(self._membership.absent(
                watch.generation, gallery.absent, gallery.still, gallery.levels))
            self._gallery = watch.generation, gallery
            self._listen(watch.generation, gallery.events(), watching=True)
        await self._attempt(watch.generation, self._answer(self._gallery[1], watch))

    async def _carry(self, carry: Carry) -> None:
        if self._gallery is not None and self._gallery[0] == carry.generation:
            self._gallery[1].carry(carry.lines)

    async def _answer(self, gallery: Gallery, watch: Watch) -> None:
        answer = await gallery.answer(watch.sdp, watch.lines)
        self._carry_out(self._membership.watched(watch.generation, answer))

    async def _trickle(self, one: Trickle) -> None:
        try:
            if one.shared:
                if self._shared is not None and self._shared[0] == one.generation:
                    await self._shared[1].add_candidate(one.candidate, one.mid, one.line)
            elif one.watching and self._gallery is not None and self._gallery[0] == one.generation:
                await self._gallery[1].add_candidate(one.candidate)
            elif not one.watching and self._publication is not None and self._publication[0] == one.generation:
                await self._publication[1].add_candidate(one.candidate, one.mid, one.line)
        except SignalingError as error:
            log.info("a candidate was refused: %s", error.message)

    async def _attempt(self, generation: int, work: Awaitable[None]) -> None:
        try:
            await work
        except (SignalingError, Refused) as error:
            log.warning("no peer connection with the room: %s", error.message)
            self._carry_out(self._membership.media_failed(generation, reason_of(error)))

    def _listen(self, generation: int, events: AsyncIterator[SessionEvent], *, watching: bool) -> None:
        async def listen() -> None:
            async for event in events:
                if isinstance(event, DataMessage):
                    self._receive(event)
                    continue
                self._carry_out(self._membership.session(generation, event, watching=watching))

        self._chores.spawn(listen(), f"janus.{'gallery' if watching else 'publication'}.{self._id[:12]}")

    def _receive(self, message: DataMessage) -> None:
        """The room hands everything to everybody; what is meant for others alone is theirs."""
        if not message.to or self._membership.me_there in message.to:
            self._facts.put(api.DataReceived(message.channel, message.payload, message.sender, message.lost))

    # --- what is shared

    def _share(self, generation: int) -> None:
        session = self._ground.shared()
        if session is None:
            self._carry_out(self._membership.sharing_lost(generation))
            return
        self._shared = generation, session

        async def listen() -> None:
            async for event in session.events():
                if isinstance(event, SessionClosed | SessionStranded):
                    self._carry_out(self._membership.sharing_lost(generation))

        self._chores.spawn(listen(), f"janus.shared.{self._id[:12]}")
        self._chores.do(partial(self._offer_share, generation, session))

    async def _offer_share(self, generation: int, session: Session) -> None:
        if self._shared is not None and self._shared[1] is session:
            self._carry_out(self._membership.shared(generation, await session.offer()))

    async def _take_share_answer(self, generation: int, sdp: str) -> None:
        if self._shared is None or self._shared[0] != generation:
            return
        try:
            await self._shared[1].accept_answer(sdp)
        except (SignalingError, Refused) as error:
            log.warning("nothing can be shared: %s", error.message)
            self._carry_out(self._membership.sharing_lost(generation))

    def _unshare(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            self._chores.spawn(shared[1].close(), f"janus.close.shared.{self._id[:12]}")

    def _unwatch(self, generation: int) -> None:
        if self._gallery is not None and self._gallery[0] == generation:
            gallery, self._gallery = self._gallery[1], None
            self._chores.spawn(gallery.close(), f"janus.close.{self._id[:12]}")

    def _drop(self, generation: int) -> None:
        publication, gallery = self._publication, self._gallery
        self._unshare()
        if publication is None and gallery is None:
            return
        self._given_up.add(last_report(*self._parts()), f"janus.stats.{generation}")
        self._publication = self._gallery = None
        for media in (publication, gallery):
            if media is not None:
                self._chores.spawn(media[1].close(), f"janus.close.{self._id[:12]}.{generation}")

    def _parts(self) -> Sequence[Session | Gallery]:
        """The connections that are there now."""
        return [media[1] for media in (self._publication, self._gallery) if media is not None]

    async def _finish(self, reason: Reason) -> None:
        """Say it, let go of media, tell Ended: each with its own deadline."""
        await self._chores.stop_jobs(CLOSE_S)
        parts = self._parts()
        self._last_stats = await last_report(*parts)
        shared = () if self._shared is None else (self._shared[1],)
        closes = [asyncio.create_task(one.close(), name="janus.close") for one in (*parts, *shared)]
        closes.append(asyncio.create_task(self._link.close(), name="janus.link.close"))
        await asyncio.wait(closes, timeout=CLOSE_S)
        await self._chores.cancel(closes)
        self._publication = self._gallery = self._shared = None
        self._facts.put(api.Ended(reason))
        self._ground.leg_over(self)
