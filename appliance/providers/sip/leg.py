"""A leg of a telephone call: the SIP call, its offers and answers, and the media session they speak of.

Signalling acts at once, on the loop; only opening and closing of media takes time, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum
from functools import partial
from typing import Final, Protocol

from appliance.errors import Refused
from appliance.media.api import (
    Directions,
    SessionClosed,
    SessionDigit,
    SessionEvent,
    SessionSilent,
    SessionSound,
    SessionUp,
)
from appliance.media.plain_rtp import Line, PlainSession, Protection
from appliance.media.transport import StreamFormat
from appliance.providers import api
from appliance.providers.chores import Chores
from appliance.providers.endings import last_report
from appliance.providers.endings import reason_of as reason_of_error
from appliance.providers.facts import Facts
from appliance.providers.sip import events as said
from appliance.providers.sip.agent import Agent
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.incoming import IncomingCall
from appliance.providers.sip.offer import Agreed, Negotiation, NotAcceptable
from appliance.providers.sip.outgoing import OutgoingCall
from appliance.providers.sip.reasons import header_of, reason_of, status_of
from appliance.providers.sip.sdes import MediaProtection
from appliance.providers.sip.uri import Uri
from appliance.providers.two import CallOfTwo
from appliance.vocabulary import END_REASONS, Json, KeyMethod, Reason

__all__ = ["Ground", "SipLeg"]

log = logging.getLogger(__name__)

CLOSE_S: Final = 1.0
SILENT_SERVER_S: Final = 4.0  # without any word of it the next target is tried (decisions K5)
LOOK_S: Final = 0.1  # for the first sound of early media
REDIRECTIONS: Final = 5
ENCRYPTED: Final = ("TLS", "WSS")  # transports of signalling
INFORM_S: Final = 5.0  # for the answer to an INFO
OWED_S: Final = 10.0  # sound that is due after the answer (decisions D1)


class Ground(Protocol):
    """What an account gives its legs."""

    @property
    def agent(self) -> Agent: ...

    @property
    def signalling(self) -> Json:
        """How signalling is protected, for ``state/call``."""

    def negotiation(self, ports: tuple[int, int], *, plain: bool = False) -> Negotiation:
        """``plain``: nothing is encrypted, whatever the settings say."""

    def session(self, wanted: Directions, protection: Protection) -> PlainSession: ...

    @property
    def media_host(self) -> str: ...

    @property
    def legs(self) -> set[SipLeg]:
        """Those that are not over; who makes one puts it there."""

    def address(self, uri: str) -> Uri:
        """Where a target is called. Raises Refused."""

    @property
    def admit(self) -> Callable[[Uri], None]:
        """Count a call to an address. Raises Refused for one that may not be called."""

    def server_silent(self) -> None:
        """A call of ours has had no word of it."""

    def leg_over(self, leg: SipLeg) -> None: ...


class _Timer(Enum):
    SILENT_SERVER = "nobody says anything"
    LOOK = "see whether sound has come"
    OWED = "sound is due"


class SipLeg(CallOfTwo):
    """One SIP call of a leg (``transfer``). ``call`` is given for one that comes in; ``dial`` begins one of ours."""

    def __init__(
        self, leg_id: str, ground: Ground, peer: api.Peer, media: api.MediaWanted, *,
        call: IncomingCall | None = None,
    ) -> None:
        self._id = leg_id
        self._ground = ground
        self._peer = peer
        self._media = media
        self._incoming = call
        self._call: IncomingCall | OutgoingCall = call or OutgoingCall(ground.agent, self._event)
        self._protection = MediaProtection()
        self._session: PlainSession | None = None
        self._negotiation: Negotiation | None = None
        self._agreed: Agreed | None = None
        self.emergency = False  # no guard of ours stops it
        self._plain = False
        self._answered = False
        self._connected = False
        self._playing = False  # early media are heard
        self._keyed_by: KeyMethod | None = None  # how the peer's keys come
        self._held_by_peer = False
        self._tried: set[str] = set()  # addresses, ours and those we were redirected to
        self._up: SessionUp | None = None
        self._facts = Facts()
        self._last_stats: Sequence[Json] = ()
        self._chores: Chores[_Timer] = Chores(f"sip.media.{leg_id[:12]}", self._defect)
        self._finishing: asyncio.Task[None] | None = None
        self.on_sent: Callable[[said.Sent], None] = lambda sent: sent.asked.refuse(603)
        self.on_moved: Callable[[said.Moved], None] = lambda _: None
        self.taken_over: Callable[[Callable[[api.MediaWanted], SipLeg]], bool] = lambda _: False
        """Told how to make the leg of who calls in place of the peer; returns whether that may be."""
        self._fields: Sequence[tuple[str, str]] = ()  # more of the INVITE
        if call is not None:
            call.listen(self._event)

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
        self._media = media
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
        self._media = media
        if self._session is not None:
            self._session.set_directions(self._directions())

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        """Of these three telephones know only hold."""
        negotiation = self._negotiation
        if negotiation is not None and negotiation.held is not held and self._answered:
            negotiation.held = held
            self._call.offer(negotiation.offer)

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        raise Refused("telephones take no data messages", code=501, sub_code="FeatureNotSupported")

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        session = self._session
        if session is None or self._agreed is None:
            raise Refused("the other side has not answered yet", code=409, sub_code="notConnected")
        events = self._agreed.event is not None
        method = method or (KeyMethod.EVENTS if events else KeyMethod.INFO)
        if method is KeyMethod.EVENTS and not events:
            raise Refused("the other side takes no digits beside the sound (telephone-event, RFC 4733); try the method "
                          "info or inband", code=488, sub_code="noCodec", retryable=False)
        if method is KeyMethod.TONES and self._agreed.format.name not in ("pcma", "pcmu"):
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
        return 0.0 if self._session is None else self._session.voice_in.counters.energy

    async def stats(self) -> Sequence[Json]:
        return await self._session.stats() if self._session is not None else self._last_stats

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
        negotiation = self._negotiation or await self._open()
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
            case said.Keyed(digit):
                self._pressed(digit, KeyMethod.INFO)
            case said.Moved():
                self.on_moved(event)
            case said.Sent():
                self.on_sent(event)
            case said.Closed(by_peer=True) if self._goes_on_elsewhere(event.contacts):
                pass
            case said.Closed(by_peer=True):
                self._finish(reason_of(event, answered=self._answered, incoming=self._incoming is not None))

    def _goes_on_elsewhere(self, contacts: Sequence[Uri]) -> bool:
        """Redirected (RFC 3261 8.1.3.4): through the same account, which knows the way."""
        negotiation = self._negotiation
        untried = [one for one in contacts if str(one) not in self._tried and one.scheme in ("sip", "sips", "tel")]
        if negotiation is None or self._answered or not untried or len(self._tried) >= REDIRECTIONS:
            return False
        try:
            if not self.emergency:
                self._ground.admit(untried[0])
        except Refused as error:
            log.warning("a call is not sent on: %s", error.message)
            self._finish(reason_of_error(error))
            return True
        negotiation.agreed = None
        self._call = OutgoingCall(self._ground.agent, self._event)
        self._call.describe = negotiation.offer
        self._start(self._call, untried[0], negotiation)
        return True

    def _progress(self, status: int, sdp: bytes) -> None:
        self._chores.cancel_timer(_Timer.SILENT_SERVER)
        if sdp and self._negotiation is not None:
            try:
                agreed = self._negotiation.take_answer(sdp)
            except (NotAcceptable, Malformed) as error:
                log.info("early media cannot be used: %s", error)
            else:
                self._agree(agreed)
                self._chores.start_timer(_Timer.LOOK, LOOK_S, self._timeout)
        if status == 180 and not self._playing:
            self._facts.put(api.Ringing())

    def _take_answer(self, sdp: bytes) -> None:
        self._chores.cancel_timer(_Timer.SILENT_SERVER)
        if self._negotiation is None:
            return
        first = not self._answered
        if first:
            self._answered = True
            self._facts.put(api.Accepted(self._peer))
        if not sdp and self._agreed is not None:  # it was said before the answer, and holds
            self._agree(self._agreed)
            return
        try:
            self._agree(self._negotiation.take_answer(sdp))
        except (NotAcceptable, Malformed) as error:
            if first or self._agreed is None:
                self._not_acceptable(error)
            else:
                log.warning("another description of the other side cannot be used: %s", error)

    def _take_offer(self, sdp: bytes) -> None:
        """A description of the peer in the call: hold, resume, another address or codec."""
        if self._negotiation is None:
            self._call.refuse()
            return
        if not sdp:
            self._call.answer(self._negotiation.offer())
            return
        try:
            answer, agreed = self._negotiation.answer(sdp)
        except (NotAcceptable, Malformed) as error:
            log.info("another description of the other side is refused: %s", error)
            self._call.refuse(str(error))
            return
        self._call.answer(answer)
        self._agree(agreed)

    def _not_acceptable(self, error: Exception) -> None:
        log.warning("no call: %s", error)
        known = END_REASONS["488/noCodec"]
        if self._incoming is not None and self._agreed is None:
            self._incoming.reject(488, str(error))
        self._call.end(header_of(known))
        self._finish(Reason(known.code, known.sub_code, known.category, f"{known.message} ({error})", known.advice))

    # --- media ------------------------------------------------------------------------------------------------------

    def _directions(self) -> Directions:
        media = self._media
        return Directions(media.send_audio, send_video=False, receive_audio=media.receive_audio, receive_video=False)

    async def _open(self) -> Negotiation | None:
        """The session with its ports; None where the machine gives none, and the leg ends."""
        session = self._ground.session(self._directions(), self._protection)
        self._session = session
        try:
            ports = (await session.open(self._ground.media_host))["audio"]
        except OSError as error:
            log.warning("no ports for media: %s", error)
            self._call.end()
            self._finish(END_REASONS["503/provider"])
            return None
        self._chores.spawn(self._listen(session), f"sip.session.{self._id[:12]}")
        self._negotiation = self._ground.negotiation(ports, plain=self._plain)
        self._call.describe = self._negotiation.offer
        return self._negotiation

    def _agree(self, agreed: Agreed) -> None:
        session = self._session
        if session is None or self._finishing is not None:
            return
        self._agreed = agreed
        self._protection.agree(agreed.keys)
        session.peer_sends(audio=agreed.receives and self._answered, video=False)
        chosen = agreed.format
        session.agree({"audio": Line(
            StreamFormat(
                f"audio/{chosen.spelt}", chosen.payload_type, chosen.clock_rate, chosen.channels, agreed.packet_time_ms,
                agreed.event, dict(_parameters(chosen.parameters)), sends=agreed.sends, receives=agreed.receives),
            (agreed.host, agreed.port), None if agreed.rtcp is None else (agreed.host, agreed.rtcp))})
        if not self._answered:
            return
        if not self._connected:
            self._chores.start_timer(_Timer.OWED, OWED_S, self._timeout)
            self._maybe_connected()
        self._note_hold(not agreed.sends)

    def _note_hold(self, held: bool) -> None:
        if held is not self._held_by_peer:
            self._held_by_peer = held
            self._facts.put(api.Held(held))

    def _sound_has_come(self) -> bool:
        stream = self._session.incoming.get("audio") if self._session is not None else None
        return stream is not None and bool(stream.counters.packets or stream.counters.reports)

    def _maybe_connected(self) -> None:
        """Answered, and what is due has shown itself; early media may have been here before."""
        if self._connected or not self._answered or self._up is None or self._agreed is None:
            return
        if self._agreed.receives and not self._sound_has_come():
            self._chores.start_timer(_Timer.LOOK, LOOK_S, self._timeout)
            return
        self._connected = True
        self._chores.cancel_timer(_Timer.OWED)
        self._facts.put(api.Connected({**self._up.security, **self._ground.signalling}))

    async def _listen(self, session: PlainSession) -> None:
        async for event in session.events():
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
            case SessionDigit(digit, heard):
                self._pressed(digit, KeyMethod.TONES if heard else KeyMethod.EVENTS)
            case SessionClosed(why) if why != "closed" and self._finishing is None:
                key = {"oneWayMedia": "410/oneWayMedia", "internal": "500/internal"}.get(why, "410/mediaLost")
                self._call.end(header_of(END_REASONS[key]))
                self._finish(END_REASONS[key])
            case _:
                pass

    def _pressed(self, digit: str, method: KeyMethod) -> None:
        """Some send each key in two ways: that which came first is theirs."""
        self._keyed_by = self._keyed_by or method
        if method is not self._keyed_by:
            return
        signalling = self._ground.signalling.get("signalling")
        encrypted = signalling in ENCRYPTED and bool(self._protection.security())
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
            case _Timer.LOOK if self._sound_has_come():
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
        session, self._session = self._session, None
        closes: list[asyncio.Task[None]] = []
        if session is not None:
            self._last_stats = await last_report(session)
            closes.append(asyncio.create_task(session.close(), name="sip.close"))
            await asyncio.wait(closes, timeout=CLOSE_S)
        await self._chores.cancel(closes)
        self._facts.put(api.Ended(reason))
        self._ground.leg_over(self)


def _parameters(text: str) -> list[tuple[str, str]]:
    """``a=fmtp`` as pairs."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _settle(told: asyncio.Future[int], status: int) -> None:
    if not told.done():
        told.set_result(status)
