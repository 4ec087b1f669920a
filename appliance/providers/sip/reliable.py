"""Responses that must arrive: a 2xx to an INVITE until its ACK (RFC 3261 13.3.1.4), provisional ones until their PRACK
(RFC 3262), each of which is acknowledged in its order, once."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.providers.sip.agent import RELIABLE, Agent
from appliance.providers.sip.body import sdp_of
from appliance.providers.sip.dialog import Dialog
from appliance.providers.sip.message import Request, Response

__all__ = ["Acknowledger", "Copies", "Provisional"]

BRANCHES: Final = 16  # of a fork whose provisional responses are acknowledged
LAST_NUMBER: Final = (1 << 31) - 1
_RACK: Final = re.compile(r"(\d{1,10})\s+(\d{1,10})\s+INVITE")


class Copies:
    """A response of ours, sent again after T1 and ever longer pauses, until ``stop``. ``longest``: of these pauses."""

    def __init__(
        self, agent: Agent, send: Callable[[], None], unacknowledged: Callable[[], None], *, longest: float,
    ) -> None:
        self._agent = agent
        self._send = send
        self._unacknowledged = unacknowledged
        self._longest = longest
        self._pause = agent.timings.t1
        self._until = agent.clock.time() + agent.timings.patience
        self._timer = agent.clock.call_later(self._pause, self._again)

    def _again(self) -> None:
        left = self._until - self._agent.clock.time()
        if left <= 0:
            self._unacknowledged()
            return
        self._send()
        self._pause = min(2 * self._pause, self._longest)
        self._timer = self._agent.clock.call_later(min(self._pause, left), self._again)

    def stop(self) -> None:
        self._timer.cancel()


class Provisional:
    """The reliable provisional responses to one INVITE of theirs: one at a time. ``unacknowledged`` is called when
    the PRACK of one does not come."""

    def __init__(self, agent: Agent, cseq: int, send: Callable[[Response], None], unacknowledged: Callable[[], None],
                 ) -> None:
        self._agent = agent
        self._cseq = cseq
        self._send = send
        self._unacknowledged = unacknowledged
        self._number = random.randrange(1, LAST_NUMBER - 1000)  # noqa: S311 - RFC 3262 3: anywhere but at the end
        self._copies: Copies | None = None
        self.waiting = False
        """The PRACK of the last one is due: the next must not leave before."""

    def send(self, response: Response) -> None:
        self._number += 1
        self.waiting = True
        response.headers.add("Require", RELIABLE)
        response.headers.add("RSeq", str(self._number))
        self._send(response)
        self._copies = Copies(self._agent, lambda: self._send(response), self._given_up,
                              longest=self._agent.timings.patience)

    def _given_up(self) -> None:
        self._copies = None
        self._unacknowledged()

    def acknowledged(self, prack: Request) -> bool:
        """Whether it is the one that is due."""
        match = _RACK.fullmatch(prack.headers.get("rack").strip())
        told = match is not None and (int(match[1]), int(match[2])) == (self._number, self._cseq)
        due, self.waiting = self.waiting, self.waiting and not told
        if told:
            self.stop()
        return told and due

    def stop(self) -> None:
        """No more copies; a PRACK may still come."""
        copies, self._copies = self._copies, None
        if copies is not None:
            copies.stop()


@dataclass(slots=True)
class _Branch:
    dialog: Dialog
    last: int  # number of its latest response
    described: bool = False  # it has answered our offer


class Acknowledger:
    """Takes the provisional responses to one INVITE of ours, and sends the PRACKs of those that want one."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._branches: dict[str, _Branch] = {}  # by tag

    def take(self, request: Request, response: Response) -> bool:
        """Whether a provisional response is news; a reliable one is acknowledged, and its copies are none. Raises
        Malformed."""
        number = response.number("rseq")
        if number is None or RELIABLE not in response.headers.tokens("require"):
            return True
        tag = response.to.tag
        branch = self._branches.get(tag)
        if branch is None:
            if len(self._branches) >= BRANCHES:
                return False
            branch = _Branch(Dialog.of_response(request, response), number - 1)
        if number != branch.last + 1:
            return False
        self._branches[tag] = branch
        branch.last = number
        branch.described |= bool(sdp_of(response))
        prack = branch.dialog.request("PRACK")
        prack.headers.add("RAck", f"{number} {request.cseq.number} INVITE")
        self._agent.exchange(prack, on_response=lambda _: None, on_failure=lambda _: None,
                             next_cseq=branch.dialog.next_cseq, in_dialog=True)
        return True

    def dialog(self, tag: str) -> Dialog | None:
        """The early dialog with this end, whose numbers go on when it answers."""
        branch = self._branches.get(tag)
        return branch.dialog if branch is not None else None

    def described(self, tag: str) -> bool:
        """Whether our offer has its answer from there already, so that others may follow (RFC 3311 5.1)."""
        branch = self._branches.get(tag)
        return branch is not None and branch.described
