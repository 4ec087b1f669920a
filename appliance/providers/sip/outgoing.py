"""A call of ours: its INVITE until it is answered, and who else answers (RFC 3261 13.2)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

from appliance.providers.sip.agent import Agent, Exchange
from appliance.providers.sip.body import sdp_of
from appliance.providers.sip.call import Call, Phase, put_sdp
from appliance.providers.sip.dialog import Dialog
from appliance.providers.sip.events import Answered, Closed, Event, Progress, causes_of
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.message import Request, Response
from appliance.providers.sip.refer import Replaces
from appliance.providers.sip.reliable import Acknowledger
from appliance.providers.sip.transaction import Failure
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["OutgoingCall"]

FORKS: Final = 16  # branches of one call of ours that may answer


class OutgoingCall(Call):
    """We call. ``start`` sends the INVITE; several may answer, the first one is taken."""

    _owns_call_id = True

    def __init__(self, agent: Agent, on_event: Callable[[Event], None]) -> None:
        super().__init__(agent, secrets.token_hex(16), secrets.token_hex(8), on_event)
        self.target: Uri | None = None
        """Who is called, from ``start`` on."""
        self._invite: Exchange | None = None
        self._early = Acknowledger(agent)
        self._heard: set[str] = set()  # tags of who has said something, the ends of early dialogs
        self._losers: dict[str, Dialog] = {}  # branches that answered too, by their tag

    def start(self, target: Uri, sdp: bytes, *fields: tuple[str, str]) -> None:
        """Call. Raises Malformed where the address leads nowhere."""
        self.target = target
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
        put_sdp(request, sdp)
        self._session_timer.ask(request)

        def answered(response: Response) -> None:
            if response.status == 422 and self._phase is Phase.SETUP and self._session_timer.too_small(response):
                self._ask(target, sdp, fields, response.cseq.number + 1)
            else:
                self._invite_answered(response)

        self._invite = self._agent.exchange(request, on_response=answered, on_failure=self._failed)

    def _invite_answered(self, response: Response) -> None:
        if response.status == 100:
            return
        if not response.final:
            if response.to.tag and len(self._heard) < FORKS:
                self._heard.add(response.to.tag)
            if self._phase is Phase.SETUP and self._is_news(response):
                self._on_event(Progress(response.status, sdp_of(response)))
        elif response.status < 300:
            self._accepted(response)
        elif self._phase is Phase.SETUP:
            self._close(Closed(response.status, by_peer=True, causes=causes_of(response),
                               contacts=_elsewhere(response)))

    def _is_news(self, response: Response) -> bool:
        try:
            return self._invite is not None and self._early.take(self._invite.request, response)
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
        elif winner is None and self._phase is Phase.SETUP:
            try:
                self._dialog = self._confirmed(self._invite.request, response)
                self._acknowledge(self._dialog, response)
            except Malformed:  # without a Contact that leads somewhere not even the ACK has a way
                self._close(Closed(503, by_peer=True))
                return
            self._phase = Phase.UP
            self._takes_update = "update" in response.headers.tokens("allow")
            self._session_timer.granted(response)
            self._on_event(Answered(sdp_of(response)))
            self._offer_now()
        elif len(self._losers) < FORKS:  # somebody else was quicker, or we have hung up meanwhile
            loser = self._losers[tag] = self._confirmed(self._invite.request, response)
            self._acknowledge(loser, response)
            self._bye_to(loser)

    def _confirmed(self, request: Request, response: Response) -> Dialog:
        """The dialog with who answers. Raises Malformed."""
        dialog = self._early.dialog(response.to.tag)
        if dialog is None:
            return Dialog.of_response(request, response)
        dialog.confirm(response)
        return dialog

    def _dialog_with(self, tag: str) -> Dialog | None:
        if self._phase is Phase.SETUP:
            return self._early.dialog(tag)
        return super()._dialog_with(tag)

    def is_meant(self, replaces: Replaces) -> bool:
        """One of our early dialogs, too (RFC 3891 3)."""
        if self._phase is Phase.SETUP:
            return any(replaces.names(self._call_id, self._tag, tag) for tag in self._heard)
        return super().is_meant(replaces)

    def _hung_up(self, request: Request) -> None:
        """One branch of a fork may give up; the call is over when its INVITE is answered."""
        if self._phase is not Phase.SETUP:
            super()._hung_up(request)

    def _awaits_answer(self, tag: str, *, invite: bool) -> bool:
        if self._phase is Phase.SETUP:
            return invite or not self._early.described(tag)
        return super()._awaits_answer(tag, invite=invite)

    def _failed(self, failure: Failure) -> None:
        self._close(Closed(408 if failure is Failure.TIMEOUT else 503, by_peer=True))

    def end(self, reason: str = "") -> None:
        """Cancel, or hang up. ``reason``: of RFC 3326, told to the peer."""
        if self._phase is Phase.SETUP and self._invite is not None:
            self._invite.cancel(reason)
            self._close(Closed(487, by_peer=False))
        elif self._phase is Phase.UP:
            self._bye(reason)
            self._close(Closed(200, by_peer=False))


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
