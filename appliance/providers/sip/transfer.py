"""A leg that one SIP call after another goes through, for the one call that people know: the other side hands us on to
somebody else, somebody takes its place, or we hand it on (RFC 5589).

``SipLeg`` is one of these calls. The one in use tells its facts as they are; another one is tried beside it and takes
its place when it is up, so that nothing is lost where it comes to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from appliance.errors import Refused
from appliance.providers import api
from appliance.providers.endings import GivenUp, raised
from appliance.providers.facts import Facts
from appliance.providers.sip import events as said
from appliance.providers.sip.ground import Ground
from appliance.providers.sip.leg import SipLeg
from appliance.providers.sip.reasons import reason_of, status_of
from appliance.providers.sip.refer import Asked, Replaces
from appliance.providers.two import CallOfTwo
from appliance.vocabulary import END_REASONS, Json, KeyMethod, Reason

__all__ = ["TransferableLeg"]

log = logging.getLogger(__name__)

TRANSFER_S: Final = 60.0  # until somebody else has the call, or it is ours again
SILENT: Final = api.MediaWanted(send_audio=False, send_video=False, receive_audio=False, receive_video=False)


class _Purpose(Enum):
    """What the other SIP call is tried for."""

    SENT = auto()  # the peer wants us to talk with somebody else
    TAKEN = auto()  # somebody else takes the place of the peer
    ASKED = auto()  # whoever is to get the call is called first


class TransferableLeg(CallOfTwo):
    """A Leg (``providers.api``) that begins as ``first``. ``called``: by us; who was called may send us on, as may who
    is proven."""

    def __init__(self, first: SipLeg, ground: Ground, *, called: bool) -> None:
        self._id = first.id
        self._ground = ground
        self._leg = first
        self._called = called
        self._accepted = False
        self._other: SipLeg | None = None
        self._purpose = _Purpose.SENT
        self._asked: Asked | None = None  # by whom the other one is wanted
        self._reached: asyncio.Future[None] | None = None  # whom we call before we hand the call on
        self._handed: asyncio.Future[int] | None = None  # to somebody else: the status of that
        self._over: api.Ended | None = None  # the one in use is, and the other one is still being tried
        self._media: api.MediaWanted | None = None
        self._told: tuple[bool, bool, bool] | None = None
        self._held = False
        self._lost = False
        self._facts = Facts()
        self._given_up = GivenUp()
        self._tasks: set[asyncio.Task[None]] = set()
        self._follow(first)

    # --- Leg --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def peer(self) -> api.Peer:
        return self._leg.peer

    def events(self) -> AsyncIterator[api.LegEvent]:
        return self._facts.read()

    async def ring(self) -> None:
        await self._leg.ring()

    async def accept(self, media: api.MediaWanted) -> None:
        self._media = media
        await self._leg.accept(media)

    async def end(self, reason: Reason) -> None:
        self._answer_asked(487)
        await asyncio.gather(self._leave_other(END_REASONS["487/cancelled"]), self._leg.end(reason))
        if self._over is not None:
            self._facts.put(api.Ended(reason))

    async def set_media(self, media: api.MediaWanted) -> None:
        self._media = media
        await self._leg.set_media(media)

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        self._told = muted, held, video
        await self._leg.tell(muted=muted, held=held, video=video)

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        await self._leg.send(channel, payload, to=to, lossy=lossy, urgent=urgent)

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        await self._leg.press(digits, seconds, method)

    @property
    def heard_energy(self) -> float:
        """Of all that was heard in the call in use."""
        return self._leg.heard_energy

    async def stats(self) -> Sequence[Json]:
        return await self._leg.stats()

    async def replaced(self) -> Sequence[Sequence[Json]]:
        return await self._given_up.taken()

    # --- we hand it on ----------------------------------------------------------------------------------------------

    async def transfer(self, target: api.Target, *, attended: bool) -> None:
        if self._other is not None or self._handed is not None:
            raise Refused("the call is being handed on already", code=409, sub_code="transferring")
        uri = self._ground.address(target.uri)
        self._ground.admit(uri)
        self._handed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(TRANSFER_S):
                replaces = None
                if attended:
                    asked = self._begin(_Purpose.ASKED, uri.identity, target.uri)
                    self._reached = asyncio.get_running_loop().create_future()
                    asked.dial(uri)
                    await self._reached
                    dialog = asked.call.dialog
                    replaces = Replaces.of(dialog) if dialog is not None else None
                if not self._leg.call.refer(uri, replaces):
                    raise Refused("there is nobody to be handed on: the call is not up", code=409, sub_code="callState")
                status = await self._handed
        except TimeoutError:
            raise raised(END_REASONS["487/noAnswer"], "The call is not handed on") from None
        finally:
            self._handed = self._reached = None
            await self._leave_other(END_REASONS["0/local"])
        if status >= 300:
            raise raised(reason_of(said.Closed(status, by_peer=True), answered=False, incoming=False),
                         "The call is not handed on")

    def _moved(self, leg: SipLeg, event: said.Moved) -> None:
        if leg is self._leg and event.final:
            self._settle(event.status)

    def _settle(self, status: int) -> None:
        if self._handed is not None and not self._handed.done():
            self._handed.set_result(status)

    # --- we are handed on -------------------------------------------------------------------------------------------

    def _sent(self, leg: SipLeg, event: said.Sent) -> None:
        """The peer wants us to talk with somebody else."""
        asked = event.asked
        if leg is not self._leg or self._other is not None or self._handed is not None:
            asked.refuse(491)
            return
        if not (self._called or leg.peer.verified):
            log.warning("who calls is not proven, and may not send us on to somebody else")
            asked.refuse(403)
            return
        try:
            uri = self._ground.address(str(asked.target))
            if not leg.emergency:
                self._ground.admit(uri)
        except Refused as error:
            log.warning("we are not sent on: %s", error.message)
            asked.refuse(403)
            return
        asked.take()
        self._asked = asked
        self._begin(_Purpose.SENT, uri.identity, str(asked.target)).dial(uri, asked.fields, emergency=leg.emergency)

    def take_over(self, make: Callable[[api.MediaWanted], SipLeg]) -> bool:
        """Somebody calls in place of the peer (Replaces); False where that cannot be now, and nothing is made."""
        if self._other is not None or self._handed is not None:
            return False
        leg = make(self._wanted())
        self._expect(leg, _Purpose.TAKEN)
        self._spawn(leg.accept(self._wanted()), "accept")
        return True

    def _answer_asked(self, status: int) -> None:
        if self._asked is not None:
            self._asked.progress(status)
        if status >= 200:
            self._asked = None

    # --- one after the other ----------------------------------------------------------------------------------------

    def _wanted(self) -> api.MediaWanted:
        return self._media or api.MediaWanted(send_video=False, receive_video=False)

    def _begin(self, purpose: _Purpose, who: str, uri: str) -> SipLeg:
        """A call beside the one in use."""
        media = SILENT if purpose is _Purpose.ASKED else self._wanted()
        leg = SipLeg(uuid.uuid4().hex, self._ground, api.Peer(who, uri, who, "pstn"), media)
        self._ground.legs.add(leg)
        self._expect(leg, purpose)
        return leg

    def _expect(self, leg: SipLeg, purpose: _Purpose) -> None:
        self._other, self._purpose = leg, purpose
        self._follow(leg)

    def _follow(self, leg: SipLeg) -> None:
        leg.on_sent, leg.on_moved = partial(self._sent, leg), partial(self._moved, leg)
        leg.taken_over = self.take_over
        self._spawn(self._read(leg), "facts")

    async def _read(self, leg: SipLeg) -> None:
        async for event in leg.events():
            if leg is self._leg:
                self._take(event)
            elif leg is self._other:
                self._try(leg, event)

    def _take(self, event: api.LegEvent) -> None:
        """Of the one in use."""
        match event:
            case api.Ended() if self._other is not None and self._purpose is not _Purpose.ASKED:
                self._over = event  # it may go on with somebody else
                return
            case api.Ended(reason) if self._handed is not None:
                if self._leg.call.handing_over:  # it has gone to somebody else before telling so
                    self._settle(200)
                    event = api.Ended(END_REASONS["0/transferred"])
                else:
                    self._settle(487)
                    self._not_reached(reason)
            case api.Accepted():
                self._accepted = True
            case api.Held(held):
                self._held = held
            case api.Lost():
                self._lost = True
            case api.Recovered():
                self._lost = False
        self._facts.put(event)

    def _try(self, leg: SipLeg, event: api.LegEvent) -> None:
        """Of the other one."""
        match event:
            case api.Ringing() | api.EarlyMedia():
                self._answer_asked(180)
            case api.Accepted() if self._purpose is _Purpose.ASKED:
                if self._reached is not None and not self._reached.done():
                    self._reached.set_result(None)
            case api.Accepted():
                self._answer_asked(200)
                self._go_on_with(leg)
            case api.Connected() if self._purpose is _Purpose.TAKEN:
                if self._called and not self._accepted:  # before whom we call has answered
                    self._accepted = True
                    self._facts.put(api.Accepted(leg.peer))
                self._go_on_with(leg)
                self._facts.put(event)
            case api.Ended(reason):
                self._come_to_nothing(reason)

    def _come_to_nothing(self, reason: Reason) -> None:
        if self._purpose is _Purpose.ASKED:
            self._not_reached(reason)
            return
        self._other = None
        self._answer_asked(status_of(reason))
        if self._over is not None:
            self._facts.put(self._over)

    def _not_reached(self, reason: Reason) -> None:
        if self._reached is not None and not self._reached.done():
            self._reached.set_exception(raised(reason, "The call is not handed on"))

    def _go_on_with(self, leg: SipLeg) -> None:
        before, self._leg, self._other, self._over = self._leg, leg, None, None
        self._called = self._called and self._purpose is _Purpose.SENT
        self._given_up.add(_last_of(before), f"sip.left.{before.id[:12]}")
        if self._held:
            self._held = False
            self._facts.put(api.Held(False))
        if self._lost:
            self._lost = False
            self._facts.put(api.Recovered())
        if leg.pictures != before.pictures:
            self._facts.put(leg.pictures)
        if leg.peer_shows is not before.peer_shows:
            self._facts.put(api.PeerMedia(video=leg.peer_shows))
        self._facts.put(api.Transferred(leg.peer))
        self._spawn(self._say_how_it_is(leg), "tell")

    async def _say_how_it_is(self, leg: SipLeg) -> None:
        """What was told to the one before."""
        await leg.set_media(self._wanted())
        if self._told is not None:
            muted, held, video = self._told
            await leg.tell(muted=muted, held=held, video=video)

    async def _leave_other(self, reason: Reason) -> None:
        other, self._other = self._other, None
        if other is not None:
            await other.end(reason)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.create_task(work, name=f"sip.{what}.{self._id[:12]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _last_of(leg: SipLeg) -> Sequence[Json]:
    await leg.end(END_REASONS["0/transferred"])
    return await leg.stats()
