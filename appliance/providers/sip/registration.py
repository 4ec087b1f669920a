"""Being registered (RFC 3261 10): refreshed in time, kept alive, noticed when lost, and made again.

The contact is always the same one, with the device's instance and ``reg-id`` (RFC 5626): a registrar that counts
contacts sees one. Signs of life (``keep_alive``) tell whether the registrar is there.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from enum import Enum
from typing import Final

from appliance.providers.sip.agent import Agent
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.keep_alive import KeepAlive
from appliance.providers.sip.message import Request, Response
from appliance.providers.sip.transaction import Failure, Timer
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["Registration", "State"]

ANSWER_S: Final = 8.0  # a registrar that has said nothing for so long is not there
RETRIES_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
DENIED_S: Final = 300.0  # a wrong password does not become right by asking often, and asking often locks accounts
LONGEST_WAIT_S: Final = 3600.0  # of a Retry-After
SHORTEST_S: Final = 20  # seconds of a registration; less would be nothing but refreshing
FRESH: Final = 0.8  # of its time a registration is used before it is renewed


class State(Enum):
    """The values are words for people."""

    OFF = "off"  # not asked for, or taken back
    TRYING = "registering"  # asked for the first time, or anew
    UP = "registered"
    LOST = "the registrar does not answer"
    REFUSED = "the registrar refuses"  # with a status that another attempt may change
    DENIED = "the registrar does not take name or password"


class Registration:
    """Of one agent. ``expires_s``: how long it is asked for. ``on_change`` is called at every change of ``state``."""

    def __init__(self, agent: Agent, expires_s: int, on_change: Callable[[], None]) -> None:
        self.state = State.OFF
        self.status = 0  # of the last answer, 0 where there is none
        self._agent = agent
        self._expires_s = expires_s
        self._on_change = on_change
        self._call_id = secrets.token_hex(16)
        self._tag = secrets.token_hex(8)
        self._cseq = 0
        self._failures = 0
        self._generation = 0  # answers to what was asked before a restart mean nothing
        self._timers: dict[str, Timer] = {}
        self._alive = KeepAlive(agent, self._lost)
        self._preset = agent.route
        self._leaving: Uri | None = None  # a contact that is still registered and leads nowhere

    # --- wishes -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Register, now; again where that is done already (another network)."""
        self._again()
        self._agent.public = None
        self._become(State.TRYING)
        self._register()

    def stop(self) -> None:
        """Take it back; nobody waits for the answer."""
        was_up = self.state is State.UP
        self._again()
        if was_up:
            self._send(self._request("REGISTER", 0), lambda _: None, lambda _: None)
        self._become(State.OFF)

    def _again(self) -> None:
        self._generation += 1
        self._alive.stop()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    # --- course -----------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        generation = self._generation

        def answered(response: Response) -> None:
            if generation == self._generation and response.final:
                self._answered(response)

        def failed(_: Failure) -> None:
            if generation == self._generation:
                self._lost()

        self._send(self._request("REGISTER", self._expires_s), answered, failed)
        self._timer("answer", ANSWER_S, self._lost)

    def _answered(self, response: Response) -> None:
        self._stop("answer")
        self.status = response.status
        if 200 <= response.status < 300:
            self._taken(response)
        elif response.status == 423 and (least := response.number("min-expires")) and least > self._expires_s:
            self._expires_s = min(least, 86_400)  # the interval was too brief for it
            self._register()
        elif response.status in (401, 403, 407):
            self._become(State.DENIED)
            self._timer("register", DENIED_S, self._register)
        else:
            wait = min(response.number("retry-after") or 0, LONGEST_WAIT_S)
            self._become(State.REFUSED)
            self._retry(wait)

    def _taken(self, response: Response) -> None:
        self._failures = 0
        moved = self._learn_address(response)
        services = response.addresses("service-route")
        self._agent.route = services or self._preset
        lifetime = max(SHORTEST_S, self._granted(response))
        self._timer("register", 0.0 if moved else lifetime * FRESH, self._register)
        self._alive.start()
        self._become(State.UP)

    def _granted(self, response: Response) -> int:
        """Seconds that the registrar keeps us, by our own contact among those it tells."""
        mine = self._agent.identity.contact_user
        for contact in response.addresses("contact"):
            text = contact.params.get("expires", "")
            if contact.uri.user == mine and text.isascii() and text.isdigit() and len(text) < 10:
                return int(text)
        return response.number("expires") or self._expires_s

    def _learn_address(self, response: Response) -> bool:
        """Whether our contact is another one now. Behind a translator the address we believe in leads nowhere; what the
        server saw is the one to be known by (RFC 3581), where it tells: Via has ``received`` and ``rport``."""
        via = response.via
        port = via.params.get("rport", "")
        if "received" not in via.params or not port.isascii() or not port.isdigit():
            return False
        seen = via.params["received"].strip("[]"), int(port)
        before, self._agent.public = self._agent.contact().uri, seen
        moved = self._agent.contact().uri != before
        self._leaving = before if moved else None
        return moved

    def _lost(self) -> None:
        self._again()
        self.status = 0
        self._become(State.LOST)
        self._retry(0)

    def _retry(self, least_s: float) -> None:
        """After ever longer pauses, and not all devices of a site at one moment."""
        pause = RETRIES_S[min(self._failures, len(RETRIES_S) - 1)]
        self._failures += 1
        self._timer("register", max(least_s, pause * random.uniform(0.7, 1.0)), self._register)  # noqa: S311 - jitter

    # --- messages ---------------------------------------------------------------------------------------------------

    def _request(self, method: str, expires_s: int) -> Request:
        self._cseq += 1
        me = self._agent.identity.address
        request = self._agent.request(method, Uri("sip", host=me.host, port=me.port), NameAddr(me), self._call_id,
                                      self._tag, self._cseq)
        contact = self._agent.contact(registered=True)
        request.headers.add("Contact", str(NameAddr(contact.uri, "", {**contact.params, "expires": str(expires_s)})))
        if self._leaving is not None:
            request.headers.add("Contact", str(NameAddr(self._leaving, "", {"expires": "0"})))
        request.headers.add("Expires", str(expires_s))
        request.headers.add("Supported", "path, outbound")
        return request

    def _send(
        self, request: Request, on_response: Callable[[Response], None], on_failure: Callable[[Failure], None],
    ) -> None:
        try:
            self._agent.exchange(request, on_response=on_response, on_failure=on_failure, next_cseq=self._next_cseq)
        except Malformed:  # a Service-Route that leads nowhere
            self._agent.route = self._preset
            self._agent.clock.call_later(0.0, on_failure, Failure.TRANSPORT)

    def _next_cseq(self) -> int:
        self._cseq += 1
        return self._cseq

    def _timer(self, name: str, seconds: float, due: Callable[[], None]) -> None:
        self._stop(name)

        def fire() -> None:
            self._timers.pop(name, None)
            due()

        self._timers[name] = self._agent.clock.call_later(seconds, fire)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._on_change()
