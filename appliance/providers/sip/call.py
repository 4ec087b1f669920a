"""A call: an INVITE and the dialog it makes, from either side (RFC 3261 13 to 15, 9; RFC 3311 UPDATE, RFC 6086 INFO).

Descriptions go through as bytes; what they mean is ``offer``'s. A call speaks by events, ``Closed`` being the last. It
may be ended at any moment: what signalling still owes the peer then (a CANCEL, an ACK and BYE to a late 200, the copies
of either) is done without a further event.
"""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Final, TypeVar

from appliance.providers.sip.agent import ALLOWED, SUPPORTED, Agent, Exchange
from appliance.providers.sip.dialog import Dialog
from appliance.providers.sip.events import (
    Answered,
    Closed,
    Event,
    Keyed,
    Offered,
    Progress,
    Refused,
    causes_of,
)
from appliance.providers.sip.grammar import Malformed, quoted
from appliance.providers.sip.message import Message, Request, Response
from appliance.providers.sip.reliable import RELIABLE, Reliable
from appliance.providers.sip.session_timer import SessionTimer
from appliance.providers.sip.transaction import Failure, ServerInvite, ServerTransaction, Timer
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["IncomingCall", "OutgoingCall"]

M = TypeVar("M", bound=Message)

SDP: Final = "application/sdp"
RING_AGAIN_S: Final = 60.0  # a proxy gives up a request that rings for 3 min without another word (13.3.1.1)
ACKS: Final = 32  # that can be sent again: of every branch, and of the latest descriptions
FORKS: Final = 16  # branches of one call of ours that may answer
_DIGIT: Final = re.compile(r"(?:signal\s*=\s*)?([0-9*#A-D])(?![0-9A-Z])", re.IGNORECASE)


class _Phase(Enum):
    SETUP = auto()
    UP = auto()  # a 2xx was sent or received
    OVER = auto()


class _Copies:
    """A 2xx of ours, sent again until its ACK is there (13.3.1.4)."""

    def __init__(self, agent: Agent, send: Callable[[], None], unacknowledged: Callable[[], None]) -> None:
        self._agent = agent
        self._send = send
        self._unacknowledged = unacknowledged
        self._pause = agent.timings.t1
        self._until = agent.clock.time() + agent.timings.patience
        self._timer = agent.clock.call_later(self._pause, self._again)

    def _again(self) -> None:
        if self._agent.clock.time() >= self._until:
            self._unacknowledged()
            return
        self._send()
        self._pause = min(2 * self._pause, self._agent.timings.t2)
        self._timer = self._agent.clock.call_later(self._pause, self._again)

    def stop(self) -> None:
        self._timer.cancel()


class _Call:
    """What both sides have in common once there is a dialog."""

    def __init__(self, agent: Agent, call_id: str, tag: str, on_event: Callable[[Event], None]) -> None:
        self._agent = agent
        self._call_id = call_id
        self._tag = tag
        self._on_event = on_event
        self._phase = _Phase.SETUP
        self._dialog: Dialog | None = None
        self._asked: ServerTransaction | None = None  # their description, not answered yet
        self._ours: Exchange | None = None  # a re-INVITE of ours under way
        self._make: Callable[[], bytes] | None = None  # the description to be offered when nothing else is under way
        self._retry: Timer | None = None
        self._copies: dict[int, _Copies] = {}
        self._answer_due: set[int] = set()  # CSeq of 2xx of ours that hold an offer: the ACK has the answer
        self._acks: dict[tuple[str, int], Callable[[], None]] = {}
        self._byes = 0
        self._session_timer = SessionTimer(agent.clock, self._refresh, lambda: self._lost(408))
        self._takes_update = False
        self.describe: Callable[[], bytes] | None = None  # our description as it is, for who is asked for it again

    @property
    def dialog(self) -> Dialog | None:
        return self._dialog

    # --- in the call ------------------------------------------------------------------------------------------------

    def offer(self, make: Callable[[], bytes]) -> None:
        """Offer a new description, made when it leaves: at once, or when what is under way is over."""
        self._make = make
        self._offer_now()

    def _offer_now(self) -> None:
        make, dialog = self._make, self._dialog
        ready = self._ours is None and self._asked is None and self._retry is None and not self._copies
        if make is None or dialog is None or self._phase is not _Phase.UP or not ready:
            return
        self._make = None
        request = self._with_contact(dialog.request("INVITE"))
        _put(request, make())
        self._session_timer.ask(request)
        try:
            self._ours = self._agent.exchange(
                request, on_response=lambda response: self._offer_answered(dialog, make, response),
                on_failure=self._offer_failed, next_cseq=dialog.next_cseq, in_dialog=True)
        except Malformed:
            self._close(Closed(503, by_peer=True))

    def _offer_answered(self, dialog: Dialog, make: Callable[[], bytes], response: Response) -> None:
        if 200 <= response.status < 300:
            if not self._acknowledge(dialog, response):
                return
            self._ours = None
            if self._phase is _Phase.UP:
                dialog.refresh(response)
                self._session_timer.granted(response)
                self._on_event(Answered(_sdp_of(response)))
            self._offer_now()
        elif response.status == 422 and self._phase is _Phase.UP and self._session_timer.too_small(response):
            self._ours = None
            self._make = self._make or make
            self._offer_now()
        elif response.final:
            self._ours = None
            if response.status in (408, 481):  # the peer knows of no call any more (12.2.1.2)
                self._lost(response.status)
            elif response.status == 491 and self._phase is _Phase.UP:
                owner = isinstance(self, OutgoingCall)
                pause = random.uniform(2.1, 4.0) if owner else random.uniform(0.0, 2.0)  # noqa: S311 - 14.1
                self._make = self._make or make
                self._retry = self._agent.clock.call_later(pause, self._try_again)
            else:
                if self._phase is _Phase.UP:
                    self._on_event(Refused(response.status))
                self._offer_now()

    def _try_again(self) -> None:
        self._retry = None
        self._offer_now()

    def _offer_failed(self, failure: Failure) -> None:
        self._ours = None
        self._lost(408 if failure is Failure.TIMEOUT else 503)

    def _refresh(self) -> None:
        """It is for us to ask for a sign of life: by UPDATE, which disturbs no media, or by the same description."""
        dialog = self._dialog
        if self._phase is not _Phase.UP or dialog is None:
            return
        if self._takes_update and self._ours is None and self._asked is None:
            request = self._with_contact(dialog.request("UPDATE"))
            self._session_timer.ask(request)
            try:
                self._agent.exchange(request, on_response=self._refreshed, on_failure=self._offer_failed,
                                     next_cseq=dialog.next_cseq, in_dialog=True)
            except Malformed:
                self._lost(503)
        elif self.describe is not None:
            self.offer(self.describe)

    def _refreshed(self, response: Response) -> None:
        if 200 <= response.status < 300:
            if self._phase is _Phase.UP:
                self._session_timer.granted(response)
        elif response.status in (408, 481):
            self._lost(response.status)
        elif response.final:
            if response.status == 422:
                self._session_timer.too_small(response)
            self._takes_update = False
            self._refresh()

    def answer(self, sdp: bytes) -> None:
        """Of what was ``Offered``: our answer; or our description, where that was wanted."""
        asked, self._asked = self._asked, None
        dialog = self._dialog
        if asked is None or dialog is None or self._phase is not _Phase.UP:
            return
        response = self._with_contact(asked.request.response(200, "OK", tag=self._tag))
        _put(response, sdp)
        self._session_timer.answer(asked.request, response)
        asked.respond(response)
        if isinstance(asked, ServerInvite):
            self._send_until_acknowledged(asked, response, offers=not asked.request.body)
        self._offer_now()

    def refuse(self, why: str = "") -> None:
        """Of what was ``Offered``: nothing of it can be used; the call goes on as it was."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._agent.respond(asked, 488, *([("Warning", _warning(why))] if why else []), tag=self._tag)
            self._offer_now()

    def _send_until_acknowledged(self, invite: ServerInvite, response: Response, *, offers: bool) -> None:
        number = invite.request.cseq.number
        if offers:
            self._answer_due.add(number)
        self._copies[number] = _Copies(
            self._agent, lambda: invite.respond(response), lambda: self._never_acknowledged(number))

    def _never_acknowledged(self, number: int) -> None:
        self._copies.pop(number, None)
        if self._phase is _Phase.UP:
            self._bye()
            self._close(Closed(408, by_peer=True))
        else:
            self._bye_if_due()

    def acknowledged(self, request: Request) -> None:
        number = request.cseq.number
        copies = self._copies.pop(number, None)
        if copies is None:
            return
        copies.stop()
        if self._phase is not _Phase.UP:
            self._bye_if_due()
            return
        if number in self._answer_due:
            self._answer_due.discard(number)
            self._on_event(Answered(_sdp_of(request)))
        self._offer_now()

    def _bye_if_due(self) -> None:
        """Hung up before the ACK of our 200 was there: it had to come first (15)."""
        if not self._copies and self._byes == 0:
            self._bye()

    # --- requests of the peer ---------------------------------------------------------------------------------------

    def receive(self, request: Request, transaction: ServerTransaction) -> None:
        dialog = self._dialog
        if dialog is None or request.sender.tag != dialog.remote.tag or self._phase is _Phase.OVER:
            self._agent.respond(transaction, 481, tag=self._tag)
            return
        if not dialog.in_order(request):
            self._agent.respond(transaction, 500, tag=self._tag)
            return
        if required := request.headers.tokens("require") - SUPPORTED:
            self._agent.respond(transaction, 420, ("Unsupported", ", ".join(sorted(required))), tag=self._tag)
            return
        match request.method:
            case "BYE":
                self._agent.respond(transaction, 200, tag=self._tag)
                self._hung_up(request)
            case "INVITE" | "UPDATE":
                self._renegotiate(dialog, request, transaction)
            case "INFO":
                self._informed(request, transaction)
            case "OPTIONS":
                self._agent.respond(transaction, 200, ("Allow", ", ".join(ALLOWED)), tag=self._tag)
            case _:
                self._agent.respond(transaction, 405, ("Allow", ", ".join(ALLOWED)), tag=self._tag)

    def _hung_up(self, request: Request) -> None:
        self._close(Closed(200, by_peer=True, causes=causes_of(request)))

    def _renegotiate(self, dialog: Dialog, request: Request, transaction: ServerTransaction) -> None:
        invite = request.method == "INVITE"
        if self._phase is not _Phase.UP and invite:
            self._agent.respond(transaction, 491, tag=self._tag)
        elif self._asked is not None or self._copies:
            soon = str(random.randint(0, 10))  # noqa: S311 - RFC 3261 14.2
            self._agent.respond(transaction, 500, ("Retry-After", soon), tag=self._tag)
        elif self._ours is not None and (invite or request.body):
            self._agent.respond(transaction, 491, tag=self._tag)
        elif request.body and request.content_type != SDP:
            self._agent.respond(transaction, 415, ("Accept", SDP), tag=self._tag)
        elif (least := self._session_timer.refusal(request)) is not None:
            self._agent.respond(transaction, 422, ("Min-SE", str(least)), tag=self._tag)
        else:
            dialog.refresh(request)
            if not invite and not request.body:  # nothing but a sign of life, or another Contact
                response = self._with_contact(request.response(200, "OK", tag=self._tag))
                self._session_timer.answer(request, response)
                transaction.respond(response)
            elif self._phase is not _Phase.UP:
                self._agent.respond(transaction, 488, tag=self._tag)
            else:
                self._asked = transaction
                self._on_event(Offered(request.body))

    def _informed(self, request: Request, transaction: ServerTransaction) -> None:
        digit = None
        if request.content_type in ("application/dtmf-relay", "application/dtmf"):
            digit = _DIGIT.match(request.body[:64].decode("ascii", "replace").strip())
        self._agent.respond(transaction, 200, tag=self._tag)
        if digit is not None:
            self._on_event(Keyed(digit[1].upper()))

    def cancelled(self, request: Request) -> None:
        """A CANCEL that comes too late changes nothing; what it can still reach is in ``IncomingCall``."""

    # --- the end ----------------------------------------------------------------------------------------------------

    def _bye(self, reason: str = "") -> None:
        dialog = self._dialog
        if dialog is not None:
            self._bye_to(dialog, reason)

    def _bye_to(self, dialog: Dialog, reason: str = "") -> None:
        request = dialog.request("BYE")
        if reason:
            request.headers.add("Reason", reason)
        self._byes += 1

        def done(response: Response | None = None) -> None:
            if response is None or response.final:
                self._byes -= 1
                self._let_go()

        try:
            self._agent.exchange(request, on_response=done, on_failure=lambda _: done(), next_cseq=dialog.next_cseq,
                                 in_dialog=True)
        except Malformed:
            done()

    def _lost(self, status: int) -> None:
        """The peer does not answer in the dialog any more."""
        if self._phase is _Phase.UP:
            self._bye()
            self._close(Closed(status, by_peer=True))

    def _close(self, closed: Closed) -> None:
        if self._phase is _Phase.OVER:
            return
        self._phase = _Phase.OVER
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._make = None
        self._session_timer.stop()
        asked, self._asked = self._asked, None
        if asked is not None:
            self._agent.respond(asked, 487, tag=self._tag)
        if closed.by_peer:  # who hung up acknowledges nothing any more
            for copies in self._copies.values():
                copies.stop()
            self._copies.clear()
        self._on_event(closed)
        self._let_go()

    def _let_go(self) -> None:
        """The agent need not know of us when nothing more is owed."""
        if self._phase is _Phase.OVER and self._byes == 0 and not self._copies:
            self._agent.forget(self._call_id, self._tag)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _acknowledge(self, dialog: Dialog, response: Response) -> bool:
        """Send the ACK of a 2xx; of its copies again. Whether it is the first of its kind."""
        key = dialog.remote.tag, response.cseq.number
        again = self._acks.get(key)
        if again is not None:
            again()
            return False
        while len(self._acks) >= ACKS:
            del self._acks[next(iter(self._acks))]
        self._acks[key] = self._agent.send_ack(dialog.request("ACK", response.cseq.number))
        return True

    def _with_contact(self, message: M) -> M:
        message.headers.set("Contact", str(self._agent.contact()))
        message.headers.set("Allow", ", ".join(ALLOWED))
        message.headers.set("Supported", ", ".join(sorted(SUPPORTED)))
        return message


class OutgoingCall(_Call):
    """We call. ``start`` sends the INVITE; several may answer, the first one is taken."""

    def __init__(self, agent: Agent, on_event: Callable[[Event], None]) -> None:
        super().__init__(agent, secrets.token_hex(16), secrets.token_hex(8), on_event)
        self._invite: Exchange | None = None
        self._reliable = Reliable(agent)
        self._losers: dict[str, Dialog] = {}  # branches that answered too, by their tag

    def start(self, target: Uri, sdp: bytes, *fields: tuple[str, str]) -> None:
        """Call. Raises Malformed where the address leads nowhere."""
        self._agent.adopt(self, self._call_id, self._tag)
        try:
            self._ask(target, sdp, fields, 1)
        except Malformed:
            self._agent.forget(self._call_id, self._tag)
            raise

    def _ask(self, target: Uri, sdp: bytes, fields: Sequence[tuple[str, str]], cseq: int) -> None:
        to = NameAddr(target.bare())
        request = self._with_contact(self._agent.request("INVITE", target, to, self._call_id, self._tag, cseq))
        for name, value in fields:
            request.headers.add(name, value)
        request.headers.add("Supported", RELIABLE)
        _put(request, sdp)
        self._session_timer.ask(request)

        def answered(response: Response) -> None:
            if response.status == 422 and self._phase is _Phase.SETUP and self._session_timer.too_small(response):
                self._ask(target, sdp, fields, response.cseq.number + 1)
            else:
                self._invite_answered(response)

        self._invite = self._agent.exchange(request, on_response=answered, on_failure=self._failed)

    def _invite_answered(self, response: Response) -> None:
        if response.status == 100:
            return
        if not response.final:
            if self._phase is _Phase.SETUP and self._is_news(response):
                self._on_event(Progress(response.status, _sdp_of(response)))
        elif response.status < 300:
            self._accepted(response)
        elif self._phase is _Phase.SETUP:
            self._close(Closed(response.status, by_peer=True, causes=causes_of(response),
                               contacts=_elsewhere(response)))

    def _is_news(self, response: Response) -> bool:
        try:
            return self._invite is not None and self._reliable.take(self._invite.request, response)
        except Malformed:  # nobody to be acknowledged
            return False

    def _accepted(self, response: Response) -> None:
        tag, winner = response.to.tag, self._dialog
        if self._invite is None:  # it is what this answers
            return
        if winner is not None and winner.remote.tag == tag:
            self._acknowledge(winner, response)
        elif tag in self._losers:
            self._acknowledge(self._losers[tag], response)
        elif winner is None and self._phase is _Phase.SETUP:
            try:
                self._dialog = self._dialog_with(self._invite.request, response)
                self._acknowledge(self._dialog, response)
            except Malformed:  # without a Contact that leads somewhere not even the ACK has a way
                self._close(Closed(503, by_peer=True))
                return
            self._phase = _Phase.UP
            self._takes_update = "update" in response.headers.tokens("allow")
            self._session_timer.granted(response)
            self._on_event(Answered(_sdp_of(response)))
            self._offer_now()
        elif len(self._losers) < FORKS:  # somebody else was quicker, or we have hung up meanwhile
            loser = self._losers[tag] = self._dialog_with(self._invite.request, response)
            self._acknowledge(loser, response)
            self._bye_to(loser)

    def _dialog_with(self, request: Request, response: Response) -> Dialog:
        """Raises Malformed."""
        dialog = self._reliable.dialog(response.to.tag)
        if dialog is None:
            return Dialog.of_response(request, response)
        dialog.confirm(response)
        return dialog

    def _failed(self, failure: Failure) -> None:
        self._close(Closed(408 if failure is Failure.TIMEOUT else 503, by_peer=True))

    def end(self, reason: str = "") -> None:
        """Cancel, or hang up. ``reason``: of RFC 3326, told to the peer."""
        if self._phase is _Phase.SETUP and self._invite is not None:
            self._invite.cancel(reason)
            self._close(Closed(487, by_peer=False))
        elif self._phase is _Phase.UP:
            self._bye(reason)
            self._close(Closed(200, by_peer=False))


class IncomingCall(_Call):
    """They call. ``offer_of_peer``: its description; empty where ours is wanted in the 200."""

    def __init__(self, agent: Agent, request: Request, transaction: ServerInvite) -> None:
        super().__init__(agent, request.call_id, secrets.token_hex(8), lambda _: None)
        self._invite = transaction
        self._ring_timer: Timer | None = None
        self._dialog = Dialog.of_request(request, self._tag)
        self.request = request
        self._takes_update = "update" in request.headers.tokens("allow")
        agent.adopt(self, self._call_id, self._tag, transaction)
        agent.respond(transaction, 100)

    @property
    def offer_of_peer(self) -> bytes:
        return self.request.body

    def listen(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event

    def ring(self) -> None:
        """Tell that it rings here, and again every minute."""
        if self._phase is not _Phase.SETUP:
            return
        if self._ring_timer is not None:
            self._ring_timer.cancel()
        self._invite.respond(self._with_contact(self.request.response(180, "Ringing", tag=self._tag)))
        self._ring_timer = self._agent.clock.call_later(RING_AGAIN_S, self.ring)

    def accept(self, sdp: bytes) -> None:
        """Answer with this description."""
        if self._phase is not _Phase.SETUP:
            return
        self._phase = _Phase.UP
        self._quiet()
        response = self._with_contact(self.request.response(200, "OK", tag=self._tag))
        _put(response, sdp)
        self._session_timer.answer(self.request, response)
        self._invite.respond(response)
        self._send_until_acknowledged(self._invite, response, offers=not self.request.body)

    def reject(self, status: int, why: str = "") -> None:
        """Refuse, with a status of 300 and above and words for a Warning."""
        if self._phase is _Phase.SETUP:
            self._refuse(status, why)
            self._close(Closed(status, by_peer=False))

    def end(self, reason: str = "") -> None:
        """Hang up; before it was answered, refuse."""
        if self._phase is _Phase.UP:
            if not self._copies:
                self._bye(reason)
            self._close(Closed(200, by_peer=False))
        else:
            self.reject(480)

    def cancelled(self, request: Request) -> None:
        if self._phase is _Phase.SETUP:
            self._refuse(487)
            self._close(Closed(487, by_peer=True, causes=causes_of(request)))

    def _hung_up(self, request: Request) -> None:
        if self._phase is _Phase.SETUP:  # a BYE in an early dialog (15.1.2)
            self._refuse(487)
            self._close(Closed(487, by_peer=True, causes=causes_of(request)))
        else:
            super()._hung_up(request)

    def _refuse(self, status: int, why: str = "") -> None:
        self._quiet()
        self._agent.respond(self._invite, status, *([("Warning", _warning(why))] if why else []), tag=self._tag)

    def _quiet(self) -> None:
        if self._ring_timer is not None:
            self._ring_timer.cancel()
            self._ring_timer = None


def _elsewhere(response: Response) -> tuple[Uri, ...]:
    """The contacts of a redirection, that with the greatest q first."""
    if not 300 <= response.status < 400:
        return ()
    try:
        found = response.addresses("contact")
    except Malformed:
        return ()
    found.sort(key=lambda one: one.params.get("q", "1"), reverse=True)
    return tuple(one.uri for one in found)


def _sdp_of(message: Message) -> bytes:
    return message.body if message.content_type in ("", SDP) else b""


def _put(message: Message, sdp: bytes) -> None:
    message.headers.set("Content-Type", SDP)
    message.body = sdp


def _warning(text: str) -> str:
    return f"399 edgecall {quoted(text)}"
