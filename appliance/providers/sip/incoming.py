"""A call of theirs: until we answer it, or it is cancelled (RFC 3261 13.3, 9.2)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from appliance.providers.sip.agent import RELIABLE, Agent
from appliance.providers.sip.body import sdp_of
from appliance.providers.sip.call import Call, Phase, put_sdp, warning
from appliance.providers.sip.dialog import Dialog
from appliance.providers.sip.events import Answered, Closed, Event, Offered, causes_of
from appliance.providers.sip.message import Request
from appliance.providers.sip.reliable import Provisional
from appliance.providers.sip.transaction import ServerInvite, ServerTransaction, Timer

__all__ = ["IncomingCall"]

RING_AGAIN_S: Final = 60.0  # a proxy gives up a request that rings for 3 min without another word (13.3.1.1)


class IncomingCall(Call):
    """They call. ``offer_of_peer``: its description; empty where ours is wanted in the 200."""

    def __init__(self, agent: Agent, request: Request, transaction: ServerInvite) -> None:
        super().__init__(agent, request.call_id, secrets.token_hex(8), lambda _: None)
        self._invite = transaction
        self._ring_timer: Timer | None = None
        self._provisional: Provisional | None = None
        self._offered = False  # our description was told while it rang
        self._early_answer: bytes | None = None  # theirs to it
        self._accepting = False  # as soon as that has come
        self._dialog = Dialog.of_request(request, self._tag)
        self.request = request
        self._offer = sdp_of(request)
        self._takes_update = "update" in request.headers.tokens("allow")
        if RELIABLE in request.headers.tokens("require"):
            self._provisional = Provisional(agent, request.cseq.number, transaction.respond, self._unacknowledged)
        agent.adopt(self, self._call_id, self._tag, transaction)
        agent.respond(transaction, 100)

    @property
    def offer_of_peer(self) -> bytes:
        return self._offer

    @property
    def wants_early_offer(self) -> bool:
        """Ringing must arrive (100rel is required) and carry our description, as the INVITE has none (RFC 3262 5)."""
        return self._provisional is not None and not self._offer and not self._offered

    @property
    def offered_early(self) -> bool:
        """Whether our description has been told already, so that the answer needs none."""
        return self._offered

    def listen(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event

    def ring(self, sdp: bytes = b"") -> None:
        """Tell that it rings here, and again every minute. ``sdp``: see ``wants_early_offer``."""
        if self._phase is not Phase.SETUP:
            return
        if self._ring_timer is not None:
            self._ring_timer.cancel()
        response = self._with_contact(self.request.response(180, "Ringing", tag=self._tag))
        if self._provisional is None:
            self._invite.respond(response)
        elif not self._provisional.waiting:
            if sdp and self.wants_early_offer:
                self._offered = True
                put_sdp(response, sdp)
            self._provisional.send(response)
        self._ring_timer = self._agent.clock.call_later(RING_AGAIN_S, self.ring)

    def accept(self, sdp: bytes) -> None:
        """Answer with this description; where it was told already, it is not told again."""
        if self._phase is not Phase.SETUP:
            return
        if self._offered and self._early_answer is None:  # a 200 must not overtake the PRACK (RFC 3262 3)
            self._accepting = True
            return
        self._phase = Phase.UP
        self._quiet()
        response = self._with_contact(self.request.response(200, "OK", tag=self._tag))
        if not self._offered:
            put_sdp(response, sdp)
        self._session_timer.answer(self.request, response)
        self._invite.respond(response)
        self._send_until_acknowledged(self._invite, response, offers=not self._offer and not self._offered)
        if self._early_answer is not None:
            self._on_event(Answered(self._early_answer))

    def _prack(self, request: Request, transaction: ServerTransaction) -> None:
        if self._provisional is None or not self._provisional.acknowledged(request):
            super()._prack(request, transaction)
            return
        answers = self._offered and self._early_answer is None
        if answers:
            self._early_answer = sdp_of(request)
        if sdp_of(request) and not answers and self._phase is Phase.SETUP:
            self._offered_in(request, transaction)
        else:
            self._agent.respond(transaction, 200, tag=self._tag)
        if self._accepting:
            self.accept(b"")

    def _offered_in(self, prack: Request, transaction: ServerTransaction) -> None:
        """Another description, which is only in order after the first one has been answered (RFC 3262 5)."""
        if self._early_answer is None or self._asked is not None:
            self._agent.respond(transaction, 488, tag=self._tag)
        else:
            self._asked = transaction
            self._on_event(Offered(sdp_of(prack)))

    def _owes_answer(self, *, invite: bool) -> bool:
        return self._phase is Phase.SETUP and (invite or bool(self._offer))

    def _awaits_answer(self, tag: str, *, invite: bool) -> bool:
        if self._phase is Phase.SETUP:
            return self._early_answer is None
        return super()._awaits_answer(tag, invite=invite)

    def _unacknowledged(self) -> None:
        """Nobody takes notice of the ringing that must arrive."""
        if self._phase is Phase.SETUP:
            self._refuse(504)
            self._close(Closed(408, by_peer=True))

    def reject(self, status: int, why: str = "") -> None:
        """Refuse, with a status of 300 and above and words for a Warning."""
        if self._phase is Phase.SETUP:
            self._refuse(status, why)
            self._close(Closed(status, by_peer=False))

    def end(self, reason: str = "") -> None:
        """Hang up; before it was answered, refuse."""
        if self._phase is Phase.UP:
            if not self._copies:
                self._bye(reason)
            self._close(Closed(200, by_peer=False))
        else:
            self.reject(480)

    def cancelled(self, request: Request) -> None:
        if self._phase is Phase.SETUP:
            self._refuse(487)
            self._close(Closed(487, by_peer=True, causes=causes_of(request)))

    def _hung_up(self, request: Request) -> None:
        if self._phase is Phase.SETUP:  # a BYE in an early dialog (15.1.2)
            self._refuse(487)
            self._close(Closed(487, by_peer=True, causes=causes_of(request)))
        else:
            super()._hung_up(request)

    def _refuse(self, status: int, why: str = "") -> None:
        self._quiet()
        self._agent.respond(self._invite, status, *([("Warning", warning(why))] if why else []), tag=self._tag)

    def _quiet(self) -> None:
        if self._provisional is not None:
            self._provisional.stop()
        if self._ring_timer is not None:
            self._ring_timer.cancel()
            self._ring_timer = None
