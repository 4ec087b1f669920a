"""The four transactions of RFC 3261 17 with the corrections of RFC 6026: they make a request arrive once over a network
that loses and repeats.

Each machine is told of messages by its methods and of time by the clock it was given, and speaks through callables. The
timers have the letters they have in the RFC. Over a reliable transport nothing is repeated, and nothing lingers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

from appliance.providers.sip.message import Headers, Request, Response

__all__ = [
    "ClientInvite",
    "ClientRequest",
    "ClientTransaction",
    "Clock",
    "Failure",
    "ServerInvite",
    "ServerRequest",
    "ServerTransaction",
    "Timer",
    "Timings",
    "client_key",
    "server_key",
]

COOKIE: Final = "z9hG4bK"  # begins a branch that is unique by itself (RFC 3261 8.1.1.7)


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """An asyncio loop is one."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer: ...


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds (RFC 3261 17.1.1.1). ``t1``: a round trip, ``t2``: the longest pause between two repetitions, ``t4``: how
    long a message stays in the network."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0

    @property
    def patience(self) -> float:
        """64 T1, timers B, F, H, L and M: after so long without an answer there is none."""
        return 64 * self.t1


class Failure(Enum):
    """Why there is no response."""

    TIMEOUT = "no answer in time"
    TRANSPORT = "the network does not take the message"


class State(Enum):
    """Of all four; each uses some."""

    CALLING = auto()  # client INVITE: sent, nothing heard
    TRYING = auto()  # sent or received, no response yet
    PROCEEDING = auto()  # a provisional response
    ACCEPTED = auto()  # INVITE with a 2xx, whose copies still come (RFC 6026)
    COMPLETED = auto()  # a final response, whose copies or whose request's still come
    CONFIRMED = auto()  # server INVITE: its ACK is there
    TERMINATED = auto()


class _Machine:
    """What the four have in common: a state, timers, an end that is told once."""

    def __init__(self, clock: Clock, timings: Timings, state: State, *, reliable: bool) -> None:
        self._clock = clock
        self._timings = timings
        self._reliable = reliable
        self._timers: dict[str, Timer] = {}
        self.state = state
        self.on_end: Callable[[], None] = _nothing

    def _start(self, name: str, seconds: float, due: Callable[[], None]) -> None:
        self._stop(name)
        self._timers[name] = self._clock.call_later(seconds, due)

    def _stop(self, *names: str) -> None:
        for name in names or tuple(self._timers):
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()

    def _linger(self, state: State, name: str, seconds: float) -> None:
        """Into a state in which only copies are expected, for so long; over a reliable transport there are none."""
        self._stop()
        self.state = state
        if seconds:
            self._start(name, seconds, self.end)
        else:
            self.end()

    def end(self) -> None:
        """Terminated; may be called at any moment, and again."""
        if self.state is not State.TERMINATED:
            self._stop()
            self.state = State.TERMINATED
            self.on_end()


class _Client(_Machine):
    """``send`` takes a message, ``on_response`` each response once (but see ClientInvite), ``on_failure`` the news that
    there will be none."""

    def __init__(
        self, request: Request, clock: Clock, timings: Timings, state: State, *, reliable: bool,
        send: Callable[[Request], None], on_response: Callable[[Response], None],
        on_failure: Callable[[Failure], None],
    ) -> None:
        super().__init__(clock, timings, state, reliable=reliable)
        self.request = request
        self._send = send
        self._on_response = on_response
        self._on_failure = on_failure
        self._pause = timings.t1

    @property
    def waiting(self) -> bool:
        """Whether there is no final response yet."""
        return self.state in (State.CALLING, State.TRYING, State.PROCEEDING)

    def failed(self, failure: Failure) -> None:
        """The transport cannot deliver the request, or nobody answered it."""
        if self.state is State.TERMINATED:
            return
        waiting = self.waiting
        self.end()
        if waiting:
            self._on_failure(failure)

    def _timeout(self) -> None:
        self.failed(Failure.TIMEOUT)


class ClientInvite(_Client):
    """An INVITE of ours (17.1.1, RFC 6026 7.2). It acknowledges final responses other than 2xx by itself; each 2xx goes
    to ``on_response``, its copies too: acknowledging those is the business of who asked."""

    def __init__(self, request: Request, clock: Clock, timings: Timings, **ports: Any) -> None:
        super().__init__(request, clock, timings, State.CALLING, **ports)
        self._ack: Request | None = None

    def start(self) -> None:
        self._start("B", self._timings.patience, self._timeout)
        if not self._reliable:
            self._start("A", self._pause, self._again)
        self._send(self.request)

    def _again(self) -> None:
        self._pause *= 2
        self._start("A", self._pause, self._again)
        self._send(self.request)

    def receive(self, response: Response) -> None:
        match self.state:
            case State.CALLING | State.PROCEEDING if not response.final:
                self._stop("A", "B")
                self.state = State.PROCEEDING
                self._on_response(response)
            case State.CALLING | State.PROCEEDING if response.status < 300:
                self._linger(State.ACCEPTED, "M", self._timings.patience)
                self._on_response(response)
            case State.CALLING | State.PROCEEDING:
                self._acknowledge(response)
                self._linger(State.COMPLETED, "D", 0 if self._reliable else self._timings.patience)
                self._on_response(response)
            case State.COMPLETED if response.status >= 300:
                self._acknowledge(response)
            case State.ACCEPTED if 200 <= response.status < 300:
                self._on_response(response)
            case _:
                pass

    def _acknowledge(self, response: Response) -> None:
        """The ACK belongs to this transaction: same branch, same target, same route (17.1.1.3)."""
        if self._ack is None:
            request = self.request
            headers = Headers([("Via", request.headers.values("via")[0])])
            for name in ("Max-Forwards", "Route", "From"):
                for value in request.headers.all(name):
                    headers.add(name, value)
            headers.add("To", response.headers.get("to"))
            headers.add("Call-ID", request.call_id)
            headers.add("CSeq", f"{request.cseq.number} ACK")
            self._ack = Request(headers, b"", "ACK", request.target)
        self._send(self._ack)


class ClientRequest(_Client):
    """A request of ours other than INVITE and ACK (17.1.2)."""

    def __init__(self, request: Request, clock: Clock, timings: Timings, **ports: Any) -> None:
        super().__init__(request, clock, timings, State.TRYING, **ports)

    def start(self) -> None:
        self._start("F", self._timings.patience, self._timeout)
        if not self._reliable:
            self._start("E", self._pause, self._again)
        self._send(self.request)

    def _again(self) -> None:
        longest = self._timings.t2
        self._pause = longest if self.state is State.PROCEEDING else min(2 * self._pause, longest)
        self._start("E", self._pause, self._again)
        self._send(self.request)

    def receive(self, response: Response) -> None:
        if self.state not in (State.TRYING, State.PROCEEDING):
            return
        if response.final:
            self._linger(State.COMPLETED, "K", 0 if self._reliable else self._timings.t4)
        else:
            self.state = State.PROCEEDING
        self._on_response(response)


class _Server(_Machine):
    def __init__(
        self, request: Request, clock: Clock, timings: Timings, state: State, *, reliable: bool,
        send: Callable[[Response], None],
    ) -> None:
        super().__init__(clock, timings, state, reliable=reliable)
        self.request = request
        self._send = send
        self._last: Response | None = None

    @property
    def answered(self) -> bool:
        """Whether a final response was given."""
        return self.state not in (State.TRYING, State.PROCEEDING)

    def _repeat(self) -> None:
        if self._last is not None:
            self._send(self._last)


class ServerInvite(_Server):
    """An INVITE of theirs (17.2.1, RFC 6026 7.1). Copies of a 2xx are sent by who answers, until the ACK, which does
    not belong to this transaction. ``on_unacknowledged``: a refusal was never acknowledged."""

    def __init__(self, request: Request, clock: Clock, timings: Timings, **ports: Any) -> None:
        super().__init__(request, clock, timings, State.PROCEEDING, **ports)
        self._pause = timings.t1

    def respond(self, response: Response) -> None:
        """A provisional or final response; after a final one only a 2xx again. Anything else is left out."""
        match self.state:
            case State.PROCEEDING if not response.final:
                self._last = response
            case State.PROCEEDING if response.status < 300:
                self._linger(State.ACCEPTED, "L", self._timings.patience)
            case State.PROCEEDING:
                self._last = response
                self.state = State.COMPLETED
                self._start("H", self._timings.patience, self.end)
                if not self._reliable:
                    self._start("G", self._pause, self._again)
            case State.ACCEPTED if 200 <= response.status < 300:
                pass
            case _:
                return
        self._send(response)

    def _again(self) -> None:
        self._pause = min(2 * self._pause, self._timings.t2)
        self._start("G", self._pause, self._again)
        self._repeat()

    def receive(self, request: Request) -> None:
        """The INVITE again, or the ACK of a refusal."""
        if request.method == "ACK":
            if self.state is State.COMPLETED:
                self._linger(State.CONFIRMED, "I", 0 if self._reliable else self._timings.t4)
        elif self.state in (State.PROCEEDING, State.COMPLETED):
            self._repeat()


class ServerRequest(_Server):
    """A request of theirs other than INVITE and ACK (17.2.2)."""

    def __init__(self, request: Request, clock: Clock, timings: Timings, **ports: Any) -> None:
        super().__init__(request, clock, timings, State.TRYING, **ports)

    def respond(self, response: Response) -> None:
        """A provisional or the final response; what comes after the final one is left out."""
        if self.state not in (State.TRYING, State.PROCEEDING):
            return
        self._last = response
        self.state = State.PROCEEDING
        if response.final:
            self._linger(State.COMPLETED, "J", 0 if self._reliable else self._timings.patience)
        self._send(response)

    def receive(self, request: Request) -> None:
        """The request again."""
        if self.state in (State.PROCEEDING, State.COMPLETED):
            self._repeat()


ClientTransaction = ClientInvite | ClientRequest
ServerTransaction = ServerInvite | ServerRequest


def client_key(message: Request | Response) -> tuple[str, str]:
    """What a response has in common with its request (17.1.3)."""
    return message.via.branch, message.cseq.method


def server_key(request: Request) -> tuple[str, ...]:
    """What a request has in common with its copies, an ACK with the INVITE it refers to (17.2.3)."""
    via, method = request.via, request.method
    method = "INVITE" if method == "ACK" else method
    if via.branch.startswith(COOKIE) and len(via.branch) > len(COOKIE):
        return via.branch, via.sent_by, method
    # of before RFC 3261: by everything that a copy has in common
    to_tag = "" if method == "INVITE" else request.to.tag
    return (request.target, request.sender.tag, to_tag, request.call_id, str(request.cseq.number), str(via), method)


def _nothing() -> None:
    return None
