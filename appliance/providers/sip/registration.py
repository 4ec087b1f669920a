"""Being registered (RFC 3261 10): refreshed in time, kept alive, noticed when lost, and made again.

The contact is always the same one, with the device's instance and ``reg-id`` (RFC 5626): a registrar that counts
contacts sees one. Signs of life (``keep_alive``) tell whether the registrar is there, and where it asks for them
(``flow_watch``) whether the way to it is; what is lost is registered anew over another flow.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import Enum
from typing import Final

from appliance.backoff import Backoff, doubling
from appliance.providers.sip.agent import Agent
from appliance.providers.sip.flow_watch import FlowWatch, asked_for
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.keep_alive import KeepAlive
from appliance.providers.sip.message import Request, Response
from appliance.providers.sip.transaction import Failure, Timer
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["FlowBackoff", "Registration", "State"]

ANSWER_S: Final = 8.0  # a registrar that has said nothing for so long is not there
FIRST_S: Final = 2.0  # twice the base-time, which is 1 s here
MOST_S: Final = 60.0
"""Of pauses: RFC 5626 4.5 has 30 s and 30 min unless configured, too long for a device that calls for help."""
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


class FlowBackoff:
    """How long to wait before the next attempt (RFC 5626 4.5): not at all where the flow was good."""

    def __init__(self) -> None:
        self._attempts = Backoff(doubling(FIRST_S, MOST_S))
        self._good = False  # it carried an answer to a keep-alive

    def heard(self) -> None:
        self._attempts.succeeded()
        self._good = True

    def lost(self) -> float:
        """Seconds until the flow in use may be replaced."""
        good, self._good = self._good, False
        return 0.0 if good else self.failed()

    def failed(self) -> float:
        """Seconds until another attempt."""
        return self._attempts.failed()


class Registration:
    """Of one agent. ``expires_s``: how long it is asked for. ``on_change`` is called at every change of ``state``.
    ``on_failure``: the server is not there or out of order; returns whether another one is tried at once. ``renew``: a
    new flow is wanted; returns whether ``start`` will be called when there is one."""

    def __init__(
        self, agent: Agent, expires_s: int, on_change: Callable[[], None], *,
        on_failure: Callable[[], bool] = lambda: False, renew: Callable[[], bool] = lambda: False,
        backoff: FlowBackoff | None = None,
    ) -> None:
        self.state = State.OFF
        self.status = 0  # of the last answer, 0 where there is none
        self._agent = agent
        self._expires_s = expires_s
        self._on_change = on_change
        self._on_failure = on_failure
        self._renew = renew
        self._backoff = backoff or FlowBackoff()
        self._call_id = secrets.token_hex(16)
        self._tag = secrets.token_hex(8)
        self._cseq = 0
        self._generation = 0  # answers to what was asked before a restart mean nothing
        self._timers: dict[str, Timer] = {}
        self._alive = KeepAlive(agent, self._lost, self._backoff.heard)
        self._flow = FlowWatch(agent, self._lost)
        agent.on_flow_failed = self._flow_failed
        self._preset = agent.route
        self._leaving: Uri | None = None  # a contact that is still registered and leads nowhere

    # --- wishes -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Register, now; again where that is done already (another network). What was lost is so until it is there."""
        self._again()
        self._agent.public = None
        self._agent.keeps_flow = False
        if self.state in (State.OFF, State.UP):
            self._become(State.TRYING)
        self._register()

    def suspend(self) -> None:
        """The flow is gone: nothing is asked until another ``start``."""
        self._again()

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
        self._flow.stop()
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
        elif response.status == 439 and self._agent.outbound:  # what is next on the way knows of no flows
            self._agent.outbound = False
            self._register()
        elif response.status in (401, 403, 407):
            self._become(State.DENIED)
            self._timer("register", DENIED_S, self._register)
        else:
            wait = min(response.number("retry-after") or 0, LONGEST_WAIT_S)
            self._become(State.REFUSED)
            if response.status < 500 or not self._on_failure():
                self._timer("register", max(wait, self._backoff.failed()), self._register)

    def _taken(self, response: Response) -> None:
        moved = self._learn_address(response)
        services = response.addresses("service-route")
        self._agent.route = services or self._preset
        lifetime = max(SHORTEST_S, self._granted(response))
        self._timer("register", 0.0 if moved else lifetime * FRESH, self._register)
        self._alive.start()
        every_s = asked_for(response, self._agent.identity.server.transport)
        if every_s is not None:
            self._flow.start(every_s)
        else:
            self._flow.stop()
        self._agent.keeps_flow = "outbound" in response.headers.tokens("require")
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
        before, self._agent.public = self._agent.contact(registered=True).uri, seen
        moved = self._agent.contact(registered=True).uri != before
        self._leaving = before if moved else None
        return moved

    def _lost(self) -> None:
        self._again()
        self.status = 0
        self._become(State.LOST)
        pause = self._backoff.lost()
        if not self._on_failure():
            self._timer("register", pause, self._anew)

    def _flow_failed(self) -> None:
        if self.state is not State.OFF:
            self._lost()

    def _anew(self) -> None:
        """Over another flow (RFC 5626 4.5), with the same ``reg-id``."""
        if not self._renew():
            self._register()

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
        request.headers.add("Supported", "path, outbound" if self._agent.outbound else "path")
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
