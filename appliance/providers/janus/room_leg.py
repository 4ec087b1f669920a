"""One call in a room: the stay there, carried out with a connection to the server, real media and timers.

What takes time (offers, answers, candidates) runs in one worker, so that media of a room never overtake themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from appliance.errors import Refused, SignalingError
from appliance.media.api import DataLine, DataMessage, Gallery, Session, SessionClosed, SessionEvent
from appliance.providers import api
from appliance.providers.chores import Chores
from appliance.providers.endings import GivenUp, last_report, reason_of
from appliance.providers.facts import Facts
from appliance.providers.janus.effects import (
    CancelTimer,
    CloseText,
    Drop,
    Effect,
    Finish,
    GiveUp,
    Open,
    OpenText,
    Ordered,
    Publish,
    Recorded,
    Send,
    Shut,
    StartTimer,
    TakeAnswer,
    TakenOver,
    Tell,
    Timer,
    TokenJudged,
    Trickle,
    WriteText,
)
from appliance.providers.janus.link import JanusLink
from appliance.providers.janus.stay import Room, Stay
from appliance.vocabulary import END_REASONS, Json, KeyMethod, Reason

__all__ = ["CLOSE_S", "JOB_S", "Doorkeeper", "RoomLeg"]

log = logging.getLogger(__name__)

CLOSE_S: Final = 1.0
ORDER_S: Final = 5.0
RECORD_S: Final = 5.0
STOP_RECORDING_S: Final = 0.5  # of the two seconds that an end may take
JOB_S: Final = 10.0  # for an offer, an answer or a candidate: servers for media are asked for less than that


class Doorkeeper(Protocol):
    """What the provider gives to each of its legs."""

    def link(
        self, name: str, *, on_up: Callable[[bool], None], on_message: Callable[[Json], None],
        on_down: Callable[[str, bool], None], alone: Callable[[], bool],
    ) -> JanusLink: ...

    def data_line(self) -> DataLine: ...

    def token_judged(self, refused: str) -> None: ...

    def taken_over(self, identity: str) -> None: ...

    def leg_over(self, leg: RoomLeg[Any]) -> None: ...


S = TypeVar("S", bound=Stay)


class RoomLeg(ABC, Generic[S]):
    """A Leg (``providers.api``). Who derives from it has the media of the one kind of room."""

    def __init__(self, leg_id: str, room: Room, ground: Doorkeeper, stay: S, media: api.MediaWanted) -> None:
        self._id = leg_id
        self._doorkeeper = ground
        self._media = media
        self._peer = api.Peer(room.name, room.uri, room.name)
        self._stay = stay
        self._link = ground.link(
            leg_id[:12], on_up=lambda same: self._carry_out(stay.link_up(same=same)),
            on_message=lambda message: self._carry_out(stay.receive(message)),
            on_down=lambda words, elsewhere: self._carry_out(stay.link_down(words, elsewhere=elsewhere)),
            alone=self._link_is_alone)
        self._publication: tuple[int, Session] | None = None
        self._line: tuple[int, DataLine] | None = None
        self._facts = Facts()
        self._last_stats: Sequence[Json] = ()
        self._given_up = GivenUp()
        self._chores: Chores[Timer] = Chores(
            f"janus.media.{leg_id[:12]}", lambda: self._carry_out(stay.end(END_REASONS["500/internal"])))
        self._finishing: asyncio.Task[None] | None = None
        self._ordered: asyncio.Future[Reason | None] | None = None
        self._ordering = asyncio.Lock()
        self._recorded: asyncio.Future[Reason | None] | None = None

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
        self._carry_out(self._stay.start())

    def token_renewed(self) -> None:
        self._carry_out(self._stay.token_renewed())

    def network_changed(self, addresses: Set[str]) -> None:
        """``addresses``: those of ours that are left."""
        self._link.network_changed(addresses)

    async def ring(self) -> None:
        """Nobody is called by a room."""

    async def accept(self, media: api.MediaWanted) -> None:
        """Nobody is called by a room."""

    async def end(self, reason: Reason) -> None:
        if self._stay.recording:
            with contextlib.suppress(Refused, TimeoutError):
                async with asyncio.timeout(STOP_RECORDING_S):
                    await self.record(on=False)
        self._carry_out(self._stay.end(reason))
        if self._finishing is not None:
            await asyncio.shield(self._finishing)

    @property
    def moderates(self) -> bool:
        return self._stay.may_order

    async def end_for_all(self) -> None:
        await self._order(self._stay.expel)

    async def remove(self, participant: str) -> None:
        await self._order(partial(self._stay.expel, participant))

    async def mute_others(self, participant: str | None = None) -> None:
        await self._order(partial(self._stay.silence, participant))

    async def _order(self, order: Callable[[], Sequence[Effect]]) -> None:
        """Raises Refused where the room does not let us."""
        async with self._ordering:
            ordered = self._ordered = asyncio.get_running_loop().create_future()
            self._carry_out(order())
            try:
                async with asyncio.timeout(ORDER_S):
                    refusal = await ordered
            except TimeoutError:
                refusal = END_REASONS["503/provider"]
            finally:
                self._ordered = None
        _refuse(refusal)

    @property
    def records(self) -> bool:
        return self._stay.may_record

    async def record(self, *, on: bool) -> None:
        text = self._stay.text
        if on and (self._publication is None or (text.exists and not text.takes)):
            raise Refused("nothing of this device is in the room now, or its TextRoom takes no messages: nobody there "
                          "could be told of it", sub_code="noDataChannel")
        if self._recorded is not None:
            raise Refused("the server is being asked to record, or to stop; wait for its answer", sub_code="busy")
        self._recorded = asyncio.get_running_loop().create_future()
        try:
            self._carry_out(self._stay.record(on=on))
            async with asyncio.timeout(RECORD_S):
                refusal = await self._recorded
        except TimeoutError:
            refusal = END_REASONS["503/provider"]
        finally:
            self._recorded = None
        _refuse(refusal)

    @abstractmethod
    async def set_media(self, media: api.MediaWanted) -> None: ...

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        """The room has no word for it: others see that nothing comes."""

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        if self._stay.text.exists:
            self._write(channel, payload, to=to, lossy=lossy, urgent=urgent)
        else:
            self._say(channel, payload, to=to, lossy=lossy, urgent=urgent)
        self._facts.put(api.DataSent(channel, len(payload.encode())))

    @abstractmethod
    def _say(self, channel: str, payload: str, *, to: Sequence[str], lossy: bool, urgent: bool) -> None:
        """Send a data message without a TextRoom. Raises Refused."""

    def _write(self, channel: str, payload: str, *, to: Sequence[str], lossy: bool, urgent: bool) -> None:
        """Send one through it; all the way reliably. Raises Refused."""
        if self._media.listens_only:
            raise Refused("the role of this device in the room lets it send nothing", code=403,
                          sub_code="RoleRestricted", retryable=False)
        text = self._stay.text
        text.require()
        if self._line is not None:
            self._line[1].require(urgent=urgent)
            self._line[1].write(text.messages(channel, payload, to, lossy=lossy))

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        raise Refused("only telephones take digits", code=501, sub_code="FeatureNotSupported")

    async def transfer(self, target: api.Target, *, attended: bool) -> None:
        raise Refused("only telephone calls can be handed on", code=501, sub_code="FeatureNotSupported")

    async def stats(self) -> Sequence[Json]:
        if self._stay.over:
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
                case Trickle():
                    self._chores.do(partial(self._trickle, effect))
                case OpenText():
                    self._open_text(effect)
                case WriteText(generation, text):
                    if self._line is not None and self._line[0] == generation:
                        self._line[1].write([text])
                case CloseText():
                    self._close_text()
                case Drop(generation):
                    self._drop(generation)
                case Ordered(refusal):
                    if self._ordered is not None and not self._ordered.done():
                        self._ordered.set_result(refusal)
                case Recorded(refusal):
                    if self._recorded is not None and not self._recorded.done():
                        self._recorded.set_result(refusal)
                case Tell(event):
                    self._note(event)
                case TakenOver(identity):
                    self._doorkeeper.taken_over(identity)
                case TokenJudged(refused):
                    self._doorkeeper.token_judged(refused)
                case StartTimer(timer, seconds):
                    self._chores.start_timer(timer, seconds, self._timeout)
                case CancelTimer(timer):
                    self._chores.cancel_timer(timer)
                case Finish(reason):
                    self._finishing = asyncio.create_task(self._finish(reason), name=f"janus.end.{self._id[:12]}")
                case _:
                    self._do(effect)

    def _do(self, effect: Effect) -> None:
        """One that this kind of room alone has."""
        raise AssertionError(f"nobody carries out {type(effect).__name__}")

    def _note(self, event: api.LegEvent) -> None:
        if isinstance(event, api.Accepted):
            self._peer = event.peer
        self._facts.put(event)

    def _link_is_alone(self) -> bool:
        """Nothing but the link would tell that the server is gone. A room that was never reached is given time."""
        return self._stay.reached and bool(self._stay.me_there) and not any(one.up for one in self._parts())

    def _timeout(self, timer: Timer) -> None:
        try:
            self._carry_out(self._stay.timeout(timer))
        except Exception:  # it is not started again then, and what it watches over would stand for good
            log.exception("a timer of a room failed; this is a defect, and the room is joined again")
            self._carry_out(self._stay.media_failed(self._stay.generation, END_REASONS["500/internal"]))

    # --- media ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _open_publication(self) -> Session | None:
        """The connection that we publish on; None where there is nothing to publish."""

    def _publish(self, generation: int) -> None:
        session = self._open_publication()
        if session is None:
            self._carry_out(self._stay.nothing_to_send(generation))
            return
        self._publication = generation, session
        self._listen(generation, session.events(), watching=False)
        self._chores.do(partial(self._offer, generation, session))

    async def _offer(self, generation: int, session: Session) -> None:
        if self._publication is not None and self._publication[1] is session:  # or it was let go while this job waited
            await self._attempt(generation, self._offer_now(generation, session))

    async def _offer_now(self, generation: int, session: Session) -> None:
        self._carry_out(self._stay.offered(generation, await session.offer()))

    async def _take_answer(self, generation: int, sdp: str) -> None:
        if self._publication is not None and self._publication[0] == generation:
            await self._attempt(generation, self._publication[1].accept_answer(sdp))

    async def _trickle(self, one: Trickle) -> None:
        try:
            async with asyncio.timeout(JOB_S):
                await self._take_candidate(one)
        except SignalingError as error:
            log.info("a candidate was refused: %s", error.message)
        except TimeoutError:
            log.warning("a candidate was not taken within %.0f s", JOB_S)

    async def _take_candidate(self, one: Trickle) -> None:
        """Raises SignalingError."""
        if self._publication is not None and self._publication[0] == one.generation:
            await self._publication[1].add_candidate(one.candidate, one.mid, one.line)

    async def _attempt(self, generation: int, work: Awaitable[None]) -> None:
        """Whatever hangs here would hold up all that comes after it, of a later generation too."""
        try:
            async with asyncio.timeout(JOB_S):
                await work
        except (SignalingError, Refused) as error:
            log.warning("no peer connection with the room: %s", error.message)
            self._carry_out(self._stay.media_failed(generation, reason_of(error)))
        except TimeoutError:
            log.warning("media took more than %.0f s over a description; the room is joined again", JOB_S)
            self._carry_out(self._stay.media_failed(generation, END_REASONS["410/mediaLost"]))

    def _listen(
        self, generation: int, events: AsyncIterator[SessionEvent], *, watching: bool,
        in_use: Callable[[], bool] = lambda: True,
    ) -> None:
        """``in_use``: the end of a connection that is not any more is no loss."""
        async def listen() -> None:
            async for event in events:
                if isinstance(event, DataMessage):
                    self._receive(event)
                elif in_use():
                    self._carry_out(self._stay.session(generation, event, watching=watching))

        self._chores.spawn(listen(), f"janus.{'gallery' if watching else 'publication'}.{self._id[:12]}")

    def _receive(self, message: DataMessage) -> None:
        """The room hands everything to everybody; what is meant for others alone is theirs."""
        if not message.to or self._stay.me_there in message.to:
            self._facts.put(api.DataReceived(message.channel, message.payload, message.sender, message.lost))

    # --- data messages through a TextRoom

    def _open_text(self, effect: OpenText) -> None:
        line, generation = self._doorkeeper.data_line(), effect.generation
        self._line = generation, line
        text = self._stay.text

        async def listen() -> None:
            async for event in line.events():
                if self._line is None or self._line[1] is not line:
                    continue
                if isinstance(event, DataMessage):
                    self._carry_out(text.told(generation, event.payload))
                else:
                    self._carry_out(text.session(generation, event))

        async def answer() -> None:
            if self._line is None or self._line[1] is not line:
                return
            try:
                async with asyncio.timeout(JOB_S):
                    said = await line.answer(effect.sdp)
                self._carry_out(text.answered(generation, said))
            except (SignalingError, Refused, TimeoutError) as error:
                log.warning("no connection with the TextRoom: %s", str(error) or "its offer took media too long")
                self._carry_out(text.session(generation, SessionClosed("badSdp")))

        self._chores.spawn(listen(), f"janus.text.{self._id[:12]}")
        self._chores.do(answer)

    def _close_text(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._chores.spawn(line[1].close(), f"janus.close.text.{self._id[:12]}")

    # --- letting go

    def _drop(self, generation: int) -> None:
        self._close_text()
        parts = self._parts()
        if not parts:
            return
        self._given_up.add(last_report(*parts), f"janus.stats.{generation}")
        self._let_go()
        for one in parts:
            self._chores.spawn(one.close(), f"janus.close.{self._id[:12]}.{generation}")

    def _let_go(self) -> None:
        """The connections are closed by somebody else, or going to be."""
        self._publication = self._line = None

    def _parts(self) -> Sequence[Session | Gallery]:
        """The connections that are there now, and whose statistics are those of the call."""
        return [] if self._publication is None else [self._publication[1]]

    def _others(self) -> Sequence[Session | DataLine]:
        """Connections that are there now beside those."""
        return [] if self._line is None else [self._line[1]]

    async def _finish(self, reason: Reason) -> None:
        """Say it, let go of media, tell Ended: each with its own deadline."""
        await self._chores.stop_jobs(CLOSE_S)
        parts = self._parts()
        self._last_stats = await last_report(*parts)
        closes = [asyncio.create_task(one.close(), name="janus.close") for one in (*parts, *self._others())]
        closes.append(asyncio.create_task(self._link.close(), name="janus.link.close"))
        await asyncio.wait(closes, timeout=CLOSE_S)
        await self._chores.cancel(closes)
        self._let_go()
        self._facts.put(api.Ended(reason))
        self._doorkeeper.leg_over(self)


def _refuse(refusal: Reason | None) -> None:
    if refusal is not None:
        raise Refused(refusal.message, code=refusal.code, sub_code=refusal.sub_code, category=refusal.category)
