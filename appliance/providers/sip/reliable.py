"""Provisional responses that must arrive (RFC 3262): each is acknowledged by a PRACK, in its order, once."""

from __future__ import annotations

from typing import Final

from appliance.providers.sip.agent import Agent
from appliance.providers.sip.dialog import Dialog
from appliance.providers.sip.message import Request, Response

__all__ = ["RELIABLE", "Reliable"]

RELIABLE: Final = "100rel"
BRANCHES: Final = 16  # of a fork whose provisional responses are acknowledged


class Reliable:
    """Of one INVITE of ours."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._heard: dict[str, tuple[Dialog, int]] = {}  # by tag: the early dialog, and the number of its last response

    def take(self, request: Request, response: Response) -> bool:
        """Whether a provisional response is news; a reliable one is acknowledged, and its copies are none. Raises
        Malformed."""
        number = response.number("rseq")
        if number is None or RELIABLE not in response.headers.tokens("require"):
            return True
        dialog, last = self._heard.get(response.to.tag) or (Dialog.of_response(request, response), number - 1)
        if number != last + 1 or len(self._heard) >= BRANCHES:
            return False
        self._heard[response.to.tag] = dialog, number
        prack = dialog.request("PRACK")
        prack.headers.add("RAck", f"{number} {request.cseq.number} INVITE")
        self._agent.exchange(prack, on_response=lambda _: None, on_failure=lambda _: None,
                             next_cseq=dialog.next_cseq, in_dialog=True)
        return True

    def dialog(self, tag: str) -> Dialog | None:
        """The early dialog with this end, whose numbers go on when it answers."""
        found = self._heard.get(tag)
        return found[0] if found is not None else None
