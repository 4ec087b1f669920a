"""Calls that are handed on: REFER and what is told of it by NOTIFY (RFC 3515, 3892, 4488), and calls that take the
place of others: Replaces (RFC 3891)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from appliance.providers.sip.agent import Agent, phrase_of
from appliance.providers.sip.dialog import Dialog
from appliance.providers.sip.events import Moved
from appliance.providers.sip.grammar import TOKEN, Malformed, params_of
from appliance.providers.sip.message import Request, Response
from appliance.providers.sip.transaction import Failure, ServerTransaction, Timer
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["Asked", "Handover", "Replaces"]

PATIENCE_S: Final = 60.0  # for the news whether it worked
EXPIRES_S: Final = 60
FRAGMENT: Final = "message/sipfrag"
_WORD: Final = re.compile(rf"(?:{TOKEN}|[()<>:\\\"/\[\]?{{}}@])+")  # a Call-ID is a word, or two with @ between
_STATUS: Final = re.compile(rb"\s*SIP/2\.0 ([1-6]\d\d)(?:\s|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Replaces:
    """Which call another one takes the place of, by its dialog as the one who is asked sees it."""

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Replaces:
        """Raises Malformed."""
        call_id, _, params = text.strip().partition(";")
        found = params_of(params)
        if _WORD.fullmatch(call_id.strip()) is None or not found.get("to-tag") or not found.get("from-tag"):
            raise Malformed("a Replaces names no call with both its tags")
        return cls(call_id.strip(), found["to-tag"], found["from-tag"], "early-only" in found)

    @classmethod
    def of(cls, dialog: Dialog) -> Replaces:
        """That which our peer in this dialog is to give up."""
        return cls(dialog.call_id, dialog.remote.tag, dialog.local.tag)

    def names(self, call_id: str, local_tag: str, remote_tag: str) -> bool:
        return (self.call_id, self.to_tag, self.from_tag) == (call_id, local_tag, remote_tag)

    def __str__(self) -> str:
        early = ";early-only" if self.early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{early}"


class Handover:
    """A REFER of ours, in a dialog of ours. ``tell`` gets each news once, in the end a final one."""

    def __init__(
        self, agent: Agent, dialog: Dialog, target: Uri, replaces: Replaces | None, tell: Callable[[Moved], None],
    ) -> None:
        self._tell = tell
        self._over = False
        self._status = 0  # the latest
        self._timer: Timer = agent.clock.call_later(PATIENCE_S, self._end, 408)
        self.accepted = False
        """The other side has said that it will try."""
        headers = f"Replaces={quote(str(replaces), safe='')}" if replaces is not None else target.headers
        to = NameAddr(Uri(target.scheme, target.user, target.host, target.port, target.params, headers, target.opaque))
        self.request = dialog.request("REFER")
        self.request.headers.add("Refer-To", str(to))
        if not agent.identity.withheld:
            self.request.headers.add("Referred-By", str(NameAddr(agent.identity.address)))

    def answered(self, response: Response) -> None:
        """To the REFER."""
        if 200 <= response.status < 300:
            self.accepted = True
            if response.headers.get("refer-sub").strip().lower() == "false":  # it will tell no more (RFC 4488)
                self._end(response.status)
        elif response.final:
            self._end(response.status)

    def failed(self, failure: Failure) -> None:
        self._end(408 if failure is Failure.TIMEOUT else 503)

    def notified(self, notify: Request) -> None:
        """What the other side tells of its call."""
        state = notify.headers.get("subscription-state").partition(";")[0].strip().lower()
        match = _STATUS.match(notify.body[:64])
        status = int(match[1]) if match is not None else 0
        if status >= 200:
            self._end(status)
        elif state == "terminated":  # without having told how it went
            self._end(status or 487)
        elif status > self._status and not self._over:
            self.accepted = True
            self._status = status
            self._tell(Moved(status))

    def _end(self, status: int) -> None:
        if not self._over:
            self.stop()
            self._tell(Moved(status, final=True))

    def stop(self) -> None:
        """Nothing more is told."""
        self._over = True
        self._timer.cancel()


class Asked:
    """A REFER of theirs, in a dialog of ours: to be ``take``n or ``refuse``d, then told of by ``progress``.

    ``target``: whom we are to call; ``replaces``: in place of which of their calls; ``fields``: what the INVITE needs.
    Raises Malformed.
    """

    def __init__(self, agent: Agent, dialog: Dialog, transaction: ServerTransaction, *, tag: str, first: bool) -> None:
        request = transaction.request
        told = request.headers.all("refer-to")
        if len(told) != 1:
            raise Malformed("a REFER names nobody, or several")
        uri = NameAddr.parse(told[0]).uri
        if uri.scheme not in ("sip", "sips", "tel") or uri.params.get("method", "INVITE").upper() != "INVITE":
            raise Malformed("a REFER asks for something else than a call")
        pairs = (one.partition("=") for one in uri.headers.split("&"))
        headers = {name.lower(): unquote(value) for name, _, value in pairs}
        self.replaces = Replaces.parse(headers["replaces"]) if "replaces" in headers else None
        params = {name: value for name, value in uri.params.items() if name != "method"}
        self.target = Uri(uri.scheme, uri.user, uri.host, uri.port, params, "", uri.opaque)
        self.fields: list[tuple[str, str]] = []
        if self.replaces is not None:
            self.fields += [("Replaces", str(self.replaces)), ("Require", "replaces")]
        self.fields += [("Referred-By", one) for one in request.headers.all("referred-by")[:1]]
        self._agent = agent
        self._dialog = dialog
        self._transaction = transaction
        self._tag = tag
        self._event = "refer" if first else f"refer;id={request.cseq.number}"
        self._silent = request.headers.get("refer-sub").strip().lower() == "false"
        self._last = 0

    def take(self) -> None:
        """We will try."""
        silent = [("Refer-Sub", "false")] if self._silent else []
        contact = ("Contact", str(self._agent.contact()))
        self._agent.respond(self._transaction, 200 if self._silent else 202, contact, *silent, tag=self._tag)
        self.progress(100)

    def refuse(self, status: int) -> None:
        self._agent.respond(self._transaction, status, tag=self._tag)

    def progress(self, status: int) -> None:
        """How the call goes: the first of each status, and nothing after a final one."""
        if self._silent or status <= self._last or self._last >= 200:
            return
        self._last = status
        state = "terminated;reason=noresource" if status >= 200 else f"active;expires={EXPIRES_S}"
        notify = self._dialog.request("NOTIFY")
        for name, value in (("Event", self._event), ("Subscription-State", state),
                            ("Contact", str(self._agent.contact())), ("Content-Type", f"{FRAGMENT};version=2.0")):
            notify.headers.add(name, value)
        notify.body = f"SIP/2.0 {status} {phrase_of(status)}\r\n".encode()
        try:
            self._agent.exchange(notify, on_response=self._heard, on_failure=lambda _: None,
                                 next_cseq=self._dialog.next_cseq, in_dialog=True)
        except Malformed:
            self._silent = True

    def _heard(self, response: Response) -> None:
        if response.status in (408, 481, 489):  # nobody wants to know
            self._silent = True
