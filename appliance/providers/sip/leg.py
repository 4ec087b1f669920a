"""A leg of a telephone call: the SIP call, its offers and answers, and the media session they speak of.

Signalling acts at once, on the loop; only opening and closing of media takes time, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Final

from appliance.errors import Refused
from appliance.media.api import (
    SessionClosed,
    SessionDigit,
    SessionEvent,
    SessionKeyWanted,
    SessionSilent,
    SessionSound,
    SessionUp,
)
from appliance.media.ways import STRANGER, Place
from appliance.providers import api
from appliance.providers.chores import Chores
from appliance.providers.endings import reason_of as reason_of_error
from appliance.providers.facts import Facts
from appliance.providers.sip import events as said
from appliance.providers.sip.agent import Hop
from appliance.providers.sip.call import FAST_UPDATE, MEDIA_CONTROL
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.ground import Ground
from appliance.providers.sip.incoming import IncomingCall
from appliance.providers.sip.leg_media import LegMedia, Move
from appliance.providers.sip.offer import Agreed, Negotiation, NotAcceptable
from appliance.providers.sip.outgoing import OutgoingCall
from appliance.providers.sip.reasons import header_of, reason_of, reason_of_media, status_of
from appliance.providers.sip.uri import Uri
from appliance.providers.two import CallOfTwo
from appliance.vocabulary import END_REASONS, Json, KeyMethod, Reason

__all__ = ["SipLeg"]

log = logging.getLogger(__name__)

CLOSE_S: Final = 1.0
SILENT_SERVER_S: Final = 4.0  # without any word of it the next target is tried (decisions K5)
LOOK_S: Final = 0.1  # for the first sound of early media
REDIRECTIONS: Final = 5
ENCRYPTED: Final = ("TLS", "WSS")  # transports of signalling
INFORM_S: Final = 5.0  # for the answer to an INFO
OWED_S: Final = 10.0  # sound that is due after the answer (decisions D1)


class _Timer(Enum):
    SILENT_SERVER = "nobody says anything"
    LOOK = "see whether sound has come"
    OWED = "sound is due"


class SipLeg(CallOfTwo):
    """One SIP call of a leg (``transfer``). ``call`` is given for one that comes in, and ``shows`` where it has
    pictures; ``dial`` begins one of ours."""

    def __init__(
        self, leg_id: str, ground: Ground, peer: api.Peer, media: api.MediaWanted, *,
        call: IncomingCall | None = None, shows: bool = False,
    ) -> None:
        self._id = leg_id
        self._ground = ground
        self._peer = peer
        self._media = LegMedia(ground, media)
        self._incoming = call
        self._call: IncomingCall | OutgoingCall = call or OutgoingCall(ground.agent, self._event)
        self.emergency = False  # no guard of ours stops it
        self._plain = False
        self._answered = False
        self._connected = False
        self._playing = False  # early media are heard
        self._keyed_by: KeyMethod | None = None  # how the peer's keys come
        self._held_by_peer = False
        self._pictures = api.Pictures(False)
        self._peer_shows = False
        self._asking_key = False
        self._no_fast_update = False
        self._tried: set[str] = set()  # addresses, ours and those we were redirected to
        self._elsewhere: list[Uri] = []  # where else to try, best first
        self._servers: set[Hop] = set()  # those that it was tried by
        self._up: SessionUp | None = None
        self._facts = Facts()
        self._chores: Chores[_Timer] = Chores(f"sip.media.{leg_id[:12]}", self._defect)
        self._finishing: asyncio.Task[None] | None = None
        self.on_sent: Callable[[said.Sent], None] = lambda sent: sent.asked.refuse(603)
        self.on_moved: Callable[[said.Moved], None] = lambda _: None
        self.taken_over: Callable[[Callable[[api.MediaWanted], SipLeg]], bool] = lambda _: False
        """Told how to make the leg of who calls in place of the peer; returns whether that may be."""
        self._fields: Sequence[tuple[str, str]] = ()  # more of the INVITE
        if call is not None:
            call.listen(self._event)
        if shows:
            self._pictures = api.Pictures(True)
            self._facts.put(self._pictures)

    # --- Leg --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def peer(self) -> api.Peer:
        return self._peer

    def events(self) -> AsyncIterator[api.LegEvent]:
        return self._facts.read()

    @property
    def pictures(self) -> api.Pictures:
        """As told last."""
        return self._pictures

    @property
    def peer_shows(self) -> bool:
        """Whether the peer sends pictures, as told last."""
        return self._peer_shows

    @property
    def call(self) -> IncomingCall | OutgoingCall:
        """The SIP call; after a redirection another one."""
        return self._call

    def dial(
        self, uri: Uri, fields: Sequence[tuple[str, str]] = (), *, emergency: bool = False, plain: bool = False,
    ) -> None:
        """Begin to call; Ringing, Accepted, Connected, or Ended follow. ``fields``: more of the INVITE's header;
        ``emergency``, ``plain``: see ``api.Target``."""
        self._fields, self.emergency, self._plain = fields, emergency, plain
        self._chores.do(partial(self._invite, uri))

    async def ring(self) -> None:
        if self._incoming is None:
            return
        if self._incoming.wants_early_offer:
            self._chores.do(partial(self._ring_with_offer, self._incoming))
        else:
            self._incoming.ring()

    async def accept(self, media: api.MediaWanted) -> None:
        self._media.accept(media)
        if self._incoming is not None and not self._answered and self._finishing is None:
            self._answered = True
            self._chores.do(self._accept)

    async def end(self, reason: Reason) -> None:
        if self._finishing is None:
            if self._incoming is not None and not self._answered:
                self._incoming.reject(status_of(reason))
            else:
                self._call.end(header_of(reason))
            self._finish(reason)
        if self._finishing is not None:
            await asyncio.shield(self._finishing)

    async def set_media(self, media: api.MediaWanted) -> None:
        self._media.want(media)

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        """A telephone is told hold and pictures by another description, and nothing of mute."""
        due = self._media.tell(held=held, video=video)
        if due and self._answered and self._media.negotiation is not None:
            self._call.offer(self._media.negotiation.offer)

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        raise Refused("telephones take no data messages", code=501, sub_code="FeatureNotSupported")

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        session, agreed = self._media.session, self._media.agreed
        if session is None or agreed is None:
            raise Refused("the other side has not answered yet", code=409, sub_code="notConnected")
        events = agreed.event is not None
        method = method or (KeyMethod.EVENTS if events else KeyMethod.INFO)
        if method is KeyMethod.EVENTS and not events:
            raise Refused("the other side takes no digits beside the sound (telephone-event, RFC 4733); try the method "
                          "info or inband", code=488, sub_code="noCodec", retryable=False)
        if method is KeyMethod.TONES and agreed.format.name not in ("pcma", "pcmu"):
            raise Refused("this call's codec bends the tones of digits; take another method", code=488,
                          sub_code="noCodec", retryable=False)
        try:
            for digit in digits:
                if method is KeyMethod.INFO:
                    await self._inform(digit.upper(), seconds)
                else:
                    await session.send_digit(digit, seconds, tones=method is KeyMethod.TONES)
        except ConnectionError as error:
            raise Refused("the call ended before all digits were sent", code=409, sub_code="notConnected") from error

    async def _inform(self, digit: str, seconds: float) -> None:
        """One key by INFO. Raises Refused where the other side does not take it, ConnectionError without a call."""
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        body = f"Signal={digit}\r\nDuration={round(seconds * 1000)}\r\n".encode()
        if not self._call.inform("application/dtmf-relay", body, lambda status: _settle(told, status)):
            raise ConnectionError("there is no call")
        try:
            async with asyncio.timeout(INFORM_S):
                status = await told
        except TimeoutError:
            status = 408
        if status >= 300:
            raise Refused(f"the other side takes no digits by INFO (SIP {status}); try the method inband", code=488,
                          sub_code="noCodec", retryable=False)

    @property
    def heard_energy(self) -> float:
        """Of all that was heard of the other side so far (W3C totalAudioEnergy)."""
        return self._media.heard_energy

    async def stats(self) -> Sequence[Json]:
        return await self._media.stats()

    async def replaced(self) -> Sequence[Sequence[Json]]:
        return ()

    # --- signalling -------------------------------------------------------------------------------------------------

    async def _invite(self, target: Uri) -> None:
        negotiation = await self._open()
        if negotiation is None or self._finishing is not None or not isinstance(self._call, OutgoingCall):
            return
        self._start(self._call, target, negotiation)

    def _start(self, call: OutgoingCall, target: Uri, negotiation: Negotiation) -> None:
        self._tried.add(str(target))
        self._servers.add(self._ground.agent.identity.server)
        try:
            call.start(target, negotiation.offer(), *self._fields)
        except Malformed as error:
            log.warning("the call has no way: %s", error)
            self._finish(END_REASONS["404/notFound"])
            return
        self._chores.start_timer(_Timer.SILENT_SERVER, SILENT_SERVER_S, self._timeout)

    async def _ring_with_offer(self, call: IncomingCall) -> None:
        negotiation = await self._open()
        if negotiation is not None and self._finishing is None:
            call.ring(negotiation.offer())

    async def _accept(self) -> None:
        negotiation = self._media.negotiation or await self._open()
        call = self._incoming
        if negotiation is None or call is None or self._finishing is not None:
            return
        if not call.offer_of_peer:
            call.accept(b"" if call.offered_early else negotiation.offer())
            return
        try:
            answer, agreed = negotiation.answer(call.offer_of_peer)
        except (NotAcceptable, Malformed) as error:
            self._not_acceptable(error)
            return
        call.accept(answer)
        self._agree(agreed)

    def _event(self, event: said.Event) -> None:
        if self._finishing is not None:
            return
        match event:
            case said.Progress(status, sdp):
                self._progress(status, sdp)
            case said.Answered(sdp):
                self._take_answer(sdp)
            case said.Offered(sdp):
                self._take_offer(sdp)
            case said.Refused(status):
                log.warning("the other side refuses another description (SIP %d)", status)
            case said.KeyFrameWanted():
                self._media.send_key_frame()
            case said.Keyed(digit):
                self._pressed(digit, KeyMethod.INFO)
            case said.Moved():
                self.on_moved(event)
            case said.Sent():
                self.on_sent(event)
            case said.Closed(488, by_peer=True) if self._goes_by_another_profile():
                pass
            case said.Closed(by_peer=True) if self._goes_on_elsewhere(event):
                pass
            case said.Closed(503, by_peer=True) if self._goes_by_another_server():
                pass
            case said.Closed(by_peer=True):
                self._finish(reason_of(event, answered=self._answered, incoming=self._incoming is not None))

    def _goes_on_elsewhere(self, closed: said.Closed) -> bool:
        """Redirected (RFC 3261 8.1.3.4): through the same account, which knows the way; one contact after the other,
        until there is one where nobody wants the call anywhere (6xx)."""
        negotiation = self._media.negotiation
        told = {str(one): one for one in (*closed.contacts, *self._elsewhere) if one.scheme in ("sip", "sips", "tel")}
        self._elsewhere = [one for text, one in told.items() if text not in self._tried]
        spent = len(self._tried) >= REDIRECTIONS or closed.status >= 600
        if negotiation is None or self._answered or not self._elsewhere or spent:
            return False
        try:
            target = self._elsewhere.pop(0)
            if not self.emergency:
                self._ground.admit(target)
        except Refused as error:
            log.warning("a call is not sent on: %s", error.message)
            self._finish(reason_of_error(error))
            return True
        self._start_anew(target, negotiation)
        return True

    def _start_anew(self, target: Uri, negotiation: Negotiation) -> None:
        negotiation.forget()
        self._call = OutgoingCall(self._ground.agent, self._event)
        self._call.describe = negotiation.offer
        self._start(self._call, target, negotiation)

    def _goes_by_another_server(self) -> bool:
        """The one in use takes no calls now: each other one is asked once (RFC 3263 4.3)."""
        call = self._call
        if not isinstance(call, OutgoingCall) or call.target is None or self._answered:
            return False
        self._ground.server_silent()
        if self._ground.agent.identity.server in self._servers:
            return False
        self._chores.do(partial(self._invite_by_another_server, call.target))
        return True

    def _goes_by_another_profile(self) -> bool:
        """Older exchanges take DTLS in descriptions that name no feedback alone (RFC 5764 8; RFC 3261 8.1.3.5)."""
        negotiation, call = self._media.negotiation, self._call
        if negotiation is None or not isinstance(call, OutgoingCall) or call.target is None or self._answered:
            return False
        if plainer := negotiation.leave_feedback():
            self._start_anew(call.target, negotiation)
        return plainer

    async def _invite_by_another_server(self, target: Uri) -> None:
        usable, negotiation = await self._ground.settled(), self._media.negotiation
        if self._finishing is not None:
            return
        if usable and negotiation is not None:
            self._start_anew(target, negotiation)
        else:
            self._finish(END_REASONS["480/unreachable"])

    def _progress(self, status: int, sdp: bytes) -> None:
        self._chores.cancel_timer(_Timer.SILENT_SERVER)
        if sdp and self._media.negotiation is not None:
            try:
                agreed = self._media.negotiation.take_answer(sdp)
            except (NotAcceptable, Malformed) as error:
                log.info("early media cannot be used: %s", error)
            else:
                self._agree(agreed)
                self._chores.start_timer(_Timer.LOOK, LOOK_S, self._timeout)
        if status == 180 and not self._playing:
            self._facts.put(api.Ringing())

    def _take_answer(self, sdp: bytes) -> None:
        self._chores.cancel_timer(_Timer.SILENT_SERVER)
        negotiation = self._media.negotiation
        if negotiation is None:
            return
        first = not self._answered
        if first:
            self._answered = True
            self._facts.put(api.Accepted(self._peer))
        if not sdp and negotiation.agreed:  # it was said before the answer, and holds
            self._agree(negotiation.agreed)
            return
        try:
            self._agree(negotiation.take_answer(sdp))
        except (NotAcceptable, Malformed) as error:
            if first or not negotiation.agreed:
                self._not_acceptable(error)
            else:
                log.warning("another description of the other side cannot be used: %s", error)

    def _take_offer(self, sdp: bytes) -> None:
        """A description of the peer in the call: hold, resume, another address or codec."""
        negotiation = self._media.negotiation
        if negotiation is None:
            self._call.refuse()
            return
        if not sdp:
            self._call.answer(negotiation.offer())
            return
        wanted = self._media.wanted_move(sdp)
        if wanted is Move.NOTHING:
            self._answer(negotiation, sdp)
        else:
            self._chores.do(partial(self._answer_moved, negotiation, wanted, sdp))

    def _answer(self, negotiation: Negotiation, sdp: bytes) -> bool:
        """Whether it could be answered."""
        try:
            answer, agreed = negotiation.answer(sdp)
        except (NotAcceptable, Malformed) as error:
            log.info("another description of the other side is refused: %s", error)
            self._call.refuse(str(error))
            return False
        self._call.answer(answer)
        self._agree(agreed)
        return True

    async def _answer_moved(self, negotiation: Negotiation, wanted: Move, sdp: bytes) -> None:
        """After our side has moved, which takes time."""
        before = negotiation.places
        try:
            await self._media.move(wanted, sdp)
        except OSError as error:
            log.warning("no ports for media: %s", error)
            self._call.refuse("no ports for media")
            return
        if self._finishing is None and not self._answer(negotiation, sdp):
            negotiation.move(before)
            await self._media.stay()

    async def _offer_moved(self, negotiation: Negotiation, left: Mapping[str, Place]) -> None:
        """Another one answers than was heard before the answer, or the other side has another certificate: our places
        are in use for the former, and take nobody else."""
        if negotiation.places != left:  # done already
            return
        try:
            await self._media.move(Move.ANEW)
        except OSError as error:
            log.warning("no ports for media: %s", error)  # the call ends as no sound comes
            return
        self._call.offer(negotiation.offer)

    def _not_acceptable(self, error: Exception) -> None:
        log.warning("no call: %s", error)
        known = END_REASONS["488/noCodec"]
        if self._incoming is not None and self._media.agreed is None:
            self._incoming.reject(488, str(error))
        self._call.end(header_of(known))
        self._finish(Reason(known.code, known.sub_code, known.category, f"{known.message} ({error})", known.advice))

    # --- media ------------------------------------------------------------------------------------------------------

    async def _open(self) -> Negotiation | None:
        """The session with its ports; None where the machine gives none, and the leg ends."""
        offer = self._incoming.offer_of_peer if self._incoming is not None else b""
        try:
            events = await self._media.open(plain=self._plain, offer=offer)
        except Malformed as error:
            self._not_acceptable(error)
            return None
        except OSError as error:
            log.warning("no ports for media: %s", error)
            self._call.end()
            self._finish(END_REASONS["503/provider"])
            return None
        self._chores.spawn(self._listen(events), f"sip.session.{self._id[:12]}")
        negotiation = self._media.negotiation
        self._call.describe = negotiation.offer if negotiation is not None else None
        return negotiation

    def _agree(self, agreed: Mapping[str, Agreed]) -> None:
        if self._media.session is None or self._finishing is not None:
            return
        usable = self._media.agree(agreed, answered=self._answered)
        self._note_pictures()
        if not self._answered:
            return
        if not usable and self._media.negotiation is not None:
            negotiation = self._media.negotiation
            self._chores.do(partial(self._offer_moved, negotiation, negotiation.places))
        if not self._connected:
            self._chores.start_timer(_Timer.OWED, OWED_S, self._timeout)
            self._maybe_connected()
        self._note_hold(not agreed["audio"].sends)

    def _note_pictures(self) -> None:
        pictures, shows = self._media.pictures, self._media.peer_shows and self._answered
        if pictures != self._pictures:
            self._pictures = pictures
            self._facts.put(pictures)
        if shows is not self._peer_shows:
            self._peer_shows = shows
            self._facts.put(api.PeerMedia(video=shows))

    def _ask_key_frame(self) -> None:
        """By INFO (RFC 5168), one at a time, and not where the peer does not know it."""
        if self._asking_key or self._no_fast_update:
            return
        self._asking_key = self._call.inform(MEDIA_CONTROL, FAST_UPDATE, self._key_frame_asked)

    def _key_frame_asked(self, status: int) -> None:
        self._asking_key, self._no_fast_update = False, status >= 300

    def _note_hold(self, held: bool) -> None:
        if held is not self._held_by_peer:
            self._held_by_peer = held
            self._facts.put(api.Held(held))

    def _maybe_connected(self) -> None:
        """Answered, and what is due has shown itself; early media may have been here before."""
        agreed = self._media.agreed
        if self._connected or not self._answered or self._up is None or agreed is None:
            return
        if agreed.receives and not self._media.sound_has_come:
            self._chores.start_timer(_Timer.LOOK, LOOK_S, self._timeout)
            return
        self._connected = True
        self._chores.cancel_timer(_Timer.OWED)
        self._facts.put(api.Connected({**self._up.security, **self._ground.signalling}))

    async def _listen(self, events: AsyncIterator[SessionEvent]) -> None:
        async for event in events:
            self._session_event(event)

    def _session_event(self, event: SessionEvent) -> None:
        match event:
            case SessionUp():
                self._up = event
                self._maybe_connected()
            case SessionSilent() if self._connected:
                self._facts.put(api.Lost("media"))
            case SessionSound() if self._connected:
                self._facts.put(api.Recovered())
            case SessionKeyWanted():
                self._ask_key_frame()
            case SessionDigit(digit, heard):
                self._pressed(digit, KeyMethod.TONES if heard else KeyMethod.EVENTS)
            case SessionClosed(why, detail) if why != "closed" and self._finishing is None:
                self._media_closed(why, detail)
            case _:
                pass

    def _media_closed(self, why: str, detail: str) -> None:
        reason = reason_of_media(why, detail)
        self._call.end(header_of(reason))
        if detail == STRANGER:
            self._ground.impostor(self._peer.identity)
        self._finish(reason)

    def _pressed(self, digit: str, method: KeyMethod) -> None:
        """Some send each key in two ways: that which came first is theirs."""
        self._keyed_by = self._keyed_by or method
        if method is not self._keyed_by:
            return
        signalling = self._ground.signalling.get("signalling")
        encrypted = signalling in ENCRYPTED and self._media.sound_encrypted
        self._facts.put(api.Pressed(digit, encrypted, method))

    def _timeout(self, timer: _Timer) -> None:
        match timer:
            case _Timer.SILENT_SERVER:
                log.warning("the server says nothing to a call within %.0f s", SILENT_SERVER_S)
                self._call.end()
                self._ground.server_silent()
                self._finish(END_REASONS["480/unreachable"])
            case _Timer.LOOK if self._answered:
                self._maybe_connected()
            case _Timer.LOOK if self._media.sound_has_come:
                self._playing = True
                self._facts.put(api.EarlyMedia())
            case _Timer.LOOK if self._finishing is None:
                self._chores.start_timer(_Timer.LOOK, LOOK_S, self._timeout)
            case _Timer.OWED if not self._connected:
                self._call.end()
                self._finish(END_REASONS["410/oneWayMedia"])
            case _:
                pass

    # --- the end ----------------------------------------------------------------------------------------------------

    def _defect(self) -> None:
        self._call.end(header_of(END_REASONS["500/internal"]))
        self._finish(END_REASONS["500/internal"])

    def _finish(self, reason: Reason) -> None:
        if self._finishing is None:
            self._finishing = asyncio.create_task(self._let_go(reason), name=f"sip.end.{self._id[:12]}")

    async def _let_go(self, reason: Reason) -> None:
        for timer in _Timer:
            self._chores.cancel_timer(timer)
        await self._chores.stop_jobs(CLOSE_S)
        closing = asyncio.create_task(self._media.close(), name="sip.close")
        await asyncio.wait([closing], timeout=CLOSE_S)
        await self._chores.cancel([closing])
        self._facts.put(api.Ended(reason))
        self._ground.leg_over(self)


def _settle(told: asyncio.Future[int], status: int) -> None:
    if not told.done():
        told.set_result(status)
