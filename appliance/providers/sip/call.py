"""A call: an INVITE and the dialog it makes (RFC 3261 13 to 15, 9; RFC 3311 UPDATE, RFC 6086 INFO). Here is what both
sides have in common; ``outgoing`` and ``incoming`` have what is different until it is answered.

Descriptions go through as bytes; what they mean is ``offer``'s. A call speaks by events, ``Closed`` being the last. It
may be ended at any moment: what signalling still owes the peer then (a CANCEL, an ACK and BYE to a late 200, the copies
of either) is done without a further event.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeVar

from appliance.providers.sip.agent import ALLOWED, RELIABLE, SUPPORTED, Agent, Exchange
from appliance.providers.sip.body import SDP, description_of, sdp_of
from appliance.providers.sip.dialog import Dialog
from appliance.providers.sip.events import (
    Answered,
    Closed,
    Event,
    Keyed,
    KeyFrameWanted,
    Offered,
    Refused,
    Sent,
    causes_of,
)
from appliance.providers.sip.grammar import Malformed, quoted
from appliance.providers.sip.message import Message, Request, Response
from appliance.providers.sip.refer import Asked, Handover, Replaces
from appliance.providers.sip.reliable import Copies
from appliance.providers.sip.session_timer import SessionTimer
from appliance.providers.sip.transaction import Failure, ServerInvite, ServerTransaction, Timer
from appliance.providers.sip.uri import Uri

__all__ = ["FAST_UPDATE", "MEDIA_CONTROL", "Call", "Phase", "put_sdp", "warning"]

M = TypeVar("M", bound=Message)

ACKS: Final = 32  # that can be sent again: of every branch, and of the latest descriptions
RETRIES: Final = 8  # of one description that the peer cannot take now
LATER_S: Final = 10.0  # the longest a peer may put it off (RFC 3261 14.2)
MEDIA_CONTROL: Final = "application/media_control+xml"  # RFC 5168
MEDIA_CONTROL_BYTES: Final = 4096  # of one that are looked at
FAST_UPDATE: Final = (b'<?xml version="1.0" encoding="utf-8"?>\r\n<media_control><vc_primitive><to_encoder>'
                      b"<picture_fast_update/></to_encoder></vc_primitive></media_control>\r\n")
_FAST_UPDATE: Final = re.compile(rb"<\s*(?:\w+:)?picture_fast_update[\s/>]")
_DIGIT: Final = re.compile(r"(?:signal\s*=\s*)?([0-9*#A-D])(?![0-9A-Z])", re.IGNORECASE)


class Phase(Enum):
    SETUP = auto()
    UP = auto()  # a 2xx was sent or received
    OVER = auto()


class Call:
    """What both sides have in common once there is a dialog."""

    _owns_call_id = False
    """It is ours, which decides who waits longer after descriptions have crossed (14.1)."""

    def __init__(self, agent: Agent, call_id: str, tag: str, on_event: Callable[[Event], None]) -> None:
        self._agent = agent
        self._call_id = call_id
        self._tag = tag
        self._on_event = on_event
        self._phase = Phase.SETUP
        self._dialog: Dialog | None = None
        self._asked: ServerTransaction | None = None  # their description, not answered yet
        self._ours: Exchange | None = None  # a re-INVITE of ours under way
        self._make: Callable[[], bytes] | None = None  # the description to be offered when nothing else is under way
        self._retry: Timer | None = None
        self._retries = 0
        self._copies: dict[int, Copies] = {}
        self._answer_due: set[int] = set()  # CSeq of 2xx of ours that hold an offer: the ACK has the answer
        self._acks: dict[tuple[str, int], Callable[[], None]] = {}
        self._byes = 0
        self._session_timer = SessionTimer(agent.clock, self._refresh, lambda: self._lost(408))
        self._takes_update = False
        self._handover: Handover | None = None  # our wish that the peer call somebody else
        self._referred = False  # the peer has wished so once
        self.describe: Callable[[], bytes] | None = None  # our description as it is, for who is asked for it again

    @property
    def tag(self) -> str:
        return self._tag

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
        if make is None or dialog is None or self._phase is not Phase.UP or not ready:
            return
        self._make = None
        request = self._with_contact(dialog.request("INVITE"))
        request.headers.set("Supported", ", ".join(sorted(SUPPORTED - {RELIABLE})))  # it will hardly ring again
        put_sdp(request, make())
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
            self._ours, self._retries = None, 0
            if self._phase is Phase.UP:
                dialog.refresh(response)
                self._session_timer.granted(response)
                self._on_event(Answered(sdp_of(response)))
            self._offer_now()
        elif response.status == 422 and self._phase is Phase.UP and self._session_timer.too_small(response):
            self._ours = None
            self._make = self._make or make
            self._offer_now()
        elif response.final:
            self._ours = None
            if response.status in (408, 481):  # the peer knows of no call any more (12.2.1.2)
                self._lost(response.status)
            elif self._phase is Phase.UP and (pause := self._pause_after(response)) is not None:
                self._make = self._make or make
                self._retry = self._agent.clock.call_later(pause, self._try_again)
            else:
                self._retries = 0
                if self._phase is Phase.UP:
                    self._on_event(Refused(response.status))
                self._offer_now()

    def _pause_after(self, response: Response) -> float | None:
        """Seconds until a refused request may be sent again, where another time is all it needs (14.1, 14.2)."""
        if self._retries >= RETRIES:
            return None
        later = response.number("retry-after")
        if response.status == 491:
            pause = random.uniform(2.1, 4.0) if self._owns_call_id else random.uniform(0.0, 2.0)  # noqa: S311
        elif response.status == 500 and later is not None:
            pause = min(float(later), LATER_S)
        else:
            return None
        self._retries += 1
        return pause

    def _try_again(self) -> None:
        self._retry = None
        self._offer_now()

    def _offer_failed(self, failure: Failure) -> None:
        self._ours = None
        self._lost(408 if failure is Failure.TIMEOUT else 503)

    def _refresh(self) -> None:
        """It is for us to ask for a sign of life: by UPDATE, which disturbs no media, or by the same description."""
        dialog = self._dialog
        if self._phase is not Phase.UP or dialog is None:
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
            if self._phase is Phase.UP:
                self._session_timer.granted(response)
        elif response.status in (408, 481):
            self._lost(response.status)
        elif response.final and self._phase is Phase.UP:
            if (pause := self._pause_after(response)) is not None:
                self._session_timer.postpone(pause)
                return
            if response.status == 422:
                self._session_timer.too_small(response)
            self._takes_update = False
            self._refresh()

    def answer(self, sdp: bytes) -> None:
        """Of what was ``Offered``: our answer; or our description, where that was wanted."""
        asked, self._asked = self._asked, None
        if asked is None or self._phase is Phase.OVER:
            return
        response = self._with_contact(asked.request.response(200, "OK", tag=self._tag))
        put_sdp(response, sdp)
        if asked.request.method != "PRACK":
            self._session_timer.answer(asked.request, response)
        asked.respond(response)
        if isinstance(asked, ServerInvite):
            self._send_until_acknowledged(asked, response, offers=not sdp_of(asked.request))
        self._offer_now()

    def refuse(self, why: str = "") -> None:
        """Of what was ``Offered``: nothing of it can be used; the call goes on as it was."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._agent.respond(asked, 488, *([("Warning", warning(why))] if why else []), tag=self._tag)
            self._offer_now()

    def _send_until_acknowledged(self, invite: ServerInvite, response: Response, *, offers: bool) -> None:
        number = invite.request.cseq.number
        if offers:
            self._answer_due.add(number)
        self._copies[number] = Copies(
            self._agent, lambda: invite.respond(response), lambda: self._never_acknowledged(number),
            longest=self._agent.timings.t2)

    def _never_acknowledged(self, number: int) -> None:
        self._copies.pop(number, None)
        if self._phase is Phase.UP:
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
        if self._phase is not Phase.UP:
            self._bye_if_due()
            return
        if number in self._answer_due:
            self._answer_due.discard(number)
            self._on_event(Answered(sdp_of(request)))
        self._offer_now()

    def _bye_if_due(self) -> None:
        """Hung up before the ACK of our 200 was there: it had to come first (15)."""
        if not self._copies and self._byes == 0:
            self._bye()

    # --- requests of the peer ---------------------------------------------------------------------------------------

    def receive(self, request: Request, transaction: ServerTransaction) -> None:
        dialog = self._dialog_with(request.sender.tag)
        if dialog is None or self._phase is Phase.OVER:
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
            case "PRACK":
                self._prack(request, transaction)
            case "REFER":
                self._asked_to_refer(dialog, transaction)
            case "NOTIFY":
                self._notified(request, transaction)
            case "INFO":
                self._informed(request, transaction)
            case "OPTIONS":
                self._agent.respond(transaction, 200, ("Allow", ", ".join(ALLOWED)), tag=self._tag)
            case _:
                self._agent.respond(transaction, 405, ("Allow", ", ".join(ALLOWED)), tag=self._tag)

    def _dialog_with(self, tag: str) -> Dialog | None:
        """That with the end of this tag; an early one too."""
        dialog = self._dialog
        return dialog if dialog is not None and dialog.remote.tag == tag else None

    def _hung_up(self, request: Request) -> None:
        self._close(Closed(200, by_peer=True, causes=causes_of(request)))

    def _prack(self, request: Request, transaction: ServerTransaction) -> None:
        """Of what a call of ours has said nothing waits for one."""
        self._agent.respond(transaction, 481, tag=self._tag)

    def _renegotiate(self, dialog: Dialog, request: Request, transaction: ServerTransaction) -> None:
        invite = request.method == "INVITE"
        sdp = description_of(request)
        offers = invite or bool(sdp)
        if self._asked is not None or (invite and self._copies) or (offers and self._owes_answer(invite=invite)):
            soon = str(random.randint(0, 10))  # noqa: S311 - RFC 3261 14.2, RFC 3311 5.2
            self._agent.respond(transaction, 500, ("Retry-After", soon), tag=self._tag)
        elif offers and self._awaits_answer(request.sender.tag, invite=invite):
            self._agent.respond(transaction, 491, tag=self._tag)
        elif sdp is None:
            self._agent.respond(transaction, 415, ("Accept", SDP), tag=self._tag)
        elif (least := self._session_timer.refusal(request)) is not None:
            self._agent.respond(transaction, 422, ("Min-SE", str(least)), tag=self._tag)
        else:
            dialog.refresh(request)
            if offers:
                self._asked = transaction
                self._on_event(Offered(sdp))
            else:  # nothing but a sign of life, or another Contact
                response = self._with_contact(request.response(200, "OK", tag=self._tag))
                self._session_timer.answer(request, response)
                transaction.respond(response)

    def _owes_answer(self, *, invite: bool) -> bool:
        """Whether a description of theirs waits for ours; ``invite``: or their first INVITE for its end."""
        return False

    def _awaits_answer(self, tag: str, *, invite: bool) -> bool:
        """Whether a description of ours waits for theirs; ``invite``: or an INVITE of ours for its end."""
        return self._ours is not None or bool(self._answer_due)

    def _asked_to_refer(self, dialog: Dialog, transaction: ServerTransaction) -> None:
        first, self._referred = not self._referred, True
        if self._phase is not Phase.UP:
            self._agent.respond(transaction, 603, tag=self._tag)
            return
        try:
            asked = Asked(self._agent, dialog, transaction, tag=self._tag, first=first)
        except Malformed:
            self._agent.respond(transaction, 400, tag=self._tag)
        else:
            self._on_event(Sent(asked))

    def _notified(self, request: Request, transaction: ServerTransaction) -> None:
        event = request.headers.get("event").partition(";")[0].strip().lower()
        if event != "refer":
            self._agent.respond(transaction, 489, tag=self._tag)
        elif self._handover is None:
            self._agent.respond(transaction, 481, tag=self._tag)
        else:
            self._agent.respond(transaction, 200, tag=self._tag)
            self._handover.notified(request)

    def _informed(self, request: Request, transaction: ServerTransaction) -> None:
        digit = None
        if request.content_type in ("application/dtmf-relay", "application/dtmf"):
            digit = _DIGIT.match(request.body[:64].decode("ascii", "replace").strip())
        self._agent.respond(transaction, 200, tag=self._tag)
        if digit is not None:
            self._on_event(Keyed(digit[1].upper()))
        elif request.content_type == MEDIA_CONTROL and _FAST_UPDATE.search(request.body[:MEDIA_CONTROL_BYTES]):
            self._on_event(KeyFrameWanted())

    def inform(self, content_type: str, body: bytes, told: Callable[[int], None]) -> bool:
        """Tell the peer something by INFO; ``told`` gets the status of its answer, 408 for none. False without a
        call."""
        dialog = self._dialog
        if dialog is None or self._phase is not Phase.UP:
            return False
        request = dialog.request("INFO")
        request.headers.set("Content-Type", content_type)
        request.body = body

        def answered(response: Response) -> None:
            if response.final:
                told(response.status)
                if response.status in (408, 481):
                    self._lost(response.status)

        try:
            self._agent.exchange(request, on_response=answered, on_failure=lambda _: told(408),
                                 next_cseq=dialog.next_cseq, in_dialog=True)
        except Malformed:
            return False
        return True

    # --- handed on --------------------------------------------------------------------------------------------------

    def refer(self, target: Uri, replaces: Replaces | None = None) -> bool:
        """Ask the peer to call somebody else, in place of the call that ``replaces`` names; ``Moved`` tells how it
        goes. False where there is nobody to be asked."""
        dialog = self._dialog
        if dialog is None or self._phase is not Phase.UP:
            return False
        if self._handover is not None:
            self._handover.stop()
        handover = self._handover = Handover(self._agent, dialog, target, replaces, self._on_event)

        def answered(response: Response) -> None:
            handover.answered(response)
            if response.status in (408, 481):
                self._lost(response.status)

        try:
            self._agent.exchange(self._with_contact(handover.request), on_response=answered,
                                 on_failure=handover.failed, next_cseq=dialog.next_cseq, in_dialog=True)
        except Malformed:
            handover.stop()
            return False
        return True

    @property
    def handing_over(self) -> bool:
        """Whether the peer has agreed to call somebody else in our place."""
        return self._handover is not None and self._handover.accepted

    def is_meant(self, replaces: Replaces) -> bool:
        """Whether it is this call that another one is to take the place of."""
        return self._phase is Phase.UP and self._dialog is not None and replaces.names(*self._dialog.key)

    @property
    def is_early(self) -> bool:
        """Not answered yet."""
        return self._phase is Phase.SETUP

    def cancelled(self, request: Request) -> None:
        """A CANCEL that comes too late changes nothing; what it can still reach is in ``incoming``."""

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
        if self._phase is Phase.UP:
            self._bye()
            self._close(Closed(status, by_peer=True))

    def _close(self, closed: Closed) -> None:
        if self._phase is Phase.OVER:
            return
        self._phase = Phase.OVER
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._make = None
        self._session_timer.stop()
        if self._handover is not None:
            self._handover.stop()
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
        if self._phase is Phase.OVER and self._byes == 0 and not self._copies:
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


def put_sdp(message: Message, sdp: bytes) -> None:
    message.headers.set("Content-Type", SDP)
    message.body = sdp


def warning(text: str) -> str:
    """Words for a Warning header field."""
    return f"399 edgecall {quoted(text)}"
