"""Whether the way to a server carries anything, by the keep-alives of RFC 5626 4.4: a pair of empty lines over a
connection, a STUN request over UDP. A server has to say that it answers them; one that does not would be thought lost.

OPTIONS (``keep_alive``) ask the server itself; these ask only what is next on the way, and keep it open.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from appliance.providers.sip.agent import Agent, Seen
from appliance.providers.sip.message import Response
from appliance.providers.sip.transaction import Timer

__all__ = ["ANSWER_S", "FlowWatch", "asked_for"]

ANSWER_S: Final = 10.0  # the longest that an answer takes (RFC 5626 4.4.1)
USUAL_S: Final = {"udp": 29.0, "tcp": 120.0, "tls": 120.0}
"""The longest pause between two where the server names none. Between WebSockets' own pings there are 20 s."""
SHORTEST_S: Final = ANSWER_S
LONGEST_S: Final = 3600.0


def asked_for(response: Response, transport: str) -> float | None:
    """At most how many seconds apart keep-alives are to be, by the 2xx to a REGISTER; None where the server does not
    say that it answers any: by Flow-Timer or ``outbound`` (RFC 5626), or by ``keep`` in Via (RFC 6223)."""
    usual = USUAL_S.get(transport)
    if usual is None:
        return None
    keep = response.via.params.get("keep", "")
    told = response.number("flow-timer") or (int(keep) if keep.isascii() and keep.isdigit() and len(keep) < 10 else 0)
    if told:
        return min(max(float(told), SHORTEST_S), LONGEST_S)
    return usual if "outbound" in response.headers.tokens("require") else None


class FlowWatch:
    """``failed`` is told once: nothing came within ANSWER_S, or the server sees us at another address than before."""

    def __init__(self, agent: Agent, failed: Callable[[], None]) -> None:
        self._agent = agent
        self._failed = failed
        self._every_s = 0.0
        self._seen: Seen | None = None
        self._timer: Timer | None = None
        self._generation = 0  # an answer to what was asked before a stop means nothing

    def start(self, every_s: float) -> None:
        """Or go on, with another pause."""
        self._every_s = every_s
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        self._generation += 1
        self._seen = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        pause = self._every_s * random.uniform(0.8, 1.0)  # noqa: S311 - not all devices at one moment
        self._timer = self._agent.clock.call_later(pause, self._ask)

    def _ask(self) -> None:
        generation = self._generation

        def heard(seen: Seen | None) -> None:
            if generation == self._generation and self._timer is not None:
                self._heard(seen)

        self._timer = self._agent.clock.call_later(ANSWER_S, self._lost)
        self._agent.probe(heard)

    def _heard(self, seen: Seen | None) -> None:
        if self._seen is not None and seen != self._seen:
            self._lost()
            return
        self._seen = seen
        if self._timer is not None:
            self._timer.cancel()
        self._generation += 1  # copies of the answer
        self._wait()

    def _lost(self) -> None:
        self.stop()
        self._failed()
