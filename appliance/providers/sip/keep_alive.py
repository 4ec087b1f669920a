"""Whether a server is still there: an OPTIONS every 15 s, which any answer will do for (RFC 3261 11)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from appliance.providers.sip.agent import Agent
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.transaction import Timer
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["KeepAlive"]

EVERY_S: Final = 15.0
WITHIN_S: Final = 8.0
"""A server that dies is noticed within 23 s."""


class KeepAlive:
    """``lost`` is told each time that nothing comes within WITHIN_S, ``heard`` of each answer. It goes on until
    ``stop``."""

    def __init__(
        self, agent: Agent, lost: Callable[[], None], heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._agent = agent
        self._lost = lost
        self._heard = heard
        self._next: Timer | None = None
        self._due: Timer | None = None
        self._generation = 0  # an answer to what was asked before a stop means nothing

    def start(self, after_s: float = EVERY_S) -> None:
        """The first is asked for after so long; does nothing where it runs already."""
        if self._next is None:
            self._next = self._agent.clock.call_later(after_s, self._ask)

    def stop(self) -> None:
        self._generation += 1
        for timer in (self._next, self._due):
            if timer is not None:
                timer.cancel()
        self._next = self._due = None

    def _ask(self) -> None:
        generation = self._generation

        def answered() -> None:
            if generation == self._generation:
                self._answered()

        def silent() -> None:
            if generation == self._generation:
                self._silent()

        me = self._agent.identity.address
        server = Uri("sip", host=me.host, port=me.port)
        request = self._agent.request("OPTIONS", server, NameAddr(server), secrets.token_hex(16), secrets.token_hex(8))
        self._next = self._agent.clock.call_later(EVERY_S, self._ask)
        if self._due is not None:
            self._due.cancel()
        self._due = self._agent.clock.call_later(WITHIN_S, self._silent)
        try:
            self._agent.exchange(request, on_response=lambda _: answered(), on_failure=lambda _: silent())
        except Malformed:  # a Service-Route that leads nowhere
            self._agent.clock.call_later(0.0, silent)

    def _answered(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._heard()

    def _silent(self) -> None:
        if self._due is not None:  # once for each that was asked
            self._due.cancel()
            self._due = None
            self._lost()
