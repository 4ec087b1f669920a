"""The other end of signalling: a page, an appliance on the LAN or in the fleet, with what it may do and has done.

An endpoint outlives its connection: a page that reloads or an appliance that reconnects is attached to the same
endpoint again and finds its calls. Nothing it sends is trusted: messages are rate-limited, parsed strictly, each nonce
is taken once, and identity is what the connection proved.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

from appliance.clock import Clock, RateLimit
from appliance.errors import SignalingError
from appliance.providers.api import Peer
from appliance.providers.direct import protocol as wire
from appliance.tasks import background
from appliance.vocabulary import END_REASONS, Reason

__all__ = ["CallParty", "Endpoint", "Switchboard", "Wire"]

log = logging.getLogger(__name__)

OUTBOX: Final = 64
"""Messages waiting for a connection; the oldest is thrown away when full. A call needs about ten."""
MESSAGES_BURST: Final = 200
MESSAGES_PER_S: Final = 50.0
"""A call set up with 64 candidates each way stays far below."""
FAULTS_LIMIT: Final = 20
"""Messages that cannot be read before a peer is cut off."""
OVER_LIMIT: Final = 64
"""Calls whose end is remembered, so that a late message of theirs is answered with its reason."""


class Wire(Protocol):
    """One connection to an endpoint."""

    async def send(self, text: str, expiry_s: int) -> bool:
        """Hand one message over; False when the connection is gone or did not take it."""

    async def close(self, code: int, reason: str) -> None: ...


class CallParty(Protocol):
    """What an endpoint knows of a leg."""

    def receive(self, endpoint: Endpoint, signal: wire.CallSignal) -> None: ...

    def signalling(self, endpoint: Endpoint, up: bool) -> None: ...

    def gone(self, endpoint: Endpoint, *, left: bool, reason: Reason | None = None) -> None: ...

    @property
    def generation(self) -> int: ...

    @property
    def over(self) -> bool: ...


class Switchboard(Protocol):
    """What an endpoint asks of the provider."""

    def invited(self, endpoint: Endpoint, invite: wire.Invite) -> None:
        """An invitation that belongs to no call yet."""

    def refused(self, why: str, sender: str) -> None:
        """Something was refused for a security reason."""


class Endpoint:
    """See the module. ``key`` names it among all endpoints; ``pictures``: it wants the visitor's picture."""

    def __init__(self, key: str, peer: Peer, switchboard: Switchboard, clock: Clock, *, loopback: bool = False,
                 pictures: bool = False, on_signal: Callable[[Endpoint, wire.Signal], None] | None = None,
                 on_idle: Callable[[Endpoint], None] | None = None) -> None:
        self.key = key
        self.peer = peer
        self.loopback = loopback
        self.pictures = pictures
        self.device = ""  # the appliance's id as it tells it: orders glare, proves nothing
        self.calls: dict[str, CallParty] = {}
        self.dropped = 0
        self.duplicates = 0
        self._switchboard = switchboard
        self._clock = clock
        self._on_signal = on_signal
        self._on_idle = on_idle
        self._wire: Wire | None = None
        self._outbox: deque[tuple[float, str, int]] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._sender: asyncio.Task[None] | None = None
        self._window = wire.ReplayWindow()
        self._messages = RateLimit(MESSAGES_PER_S, MESSAGES_BURST, clock.monotonic)
        self._faults = 0
        self._limited = False
        self._over: OrderedDict[str, Reason] = OrderedDict()

    # --- connection -------------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        return self._wire is not None

    def attach(self, connection: Wire) -> Wire | None:
        """Take a new connection; returns the one it replaces. What waits is sent."""
        before, self._wire = self._wire, connection
        if self._sender is None:
            self._start_sender()
        self._wake.set()
        for party in tuple(self.calls.values()):
            party.signalling(self, True)
        return before

    def detach(self, connection: Wire) -> bool:
        """The connection is gone; False when another one has replaced it already."""
        if self._wire is not connection:
            return False
        self._wire = None
        for party in tuple(self.calls.values()):
            party.signalling(self, False)
        return True

    def _start_sender(self) -> None:
        self._sender = background(self._send(), name=f"direct.send.{self.key[:24]}", failed=self._sending_failed)

    def _sending_failed(self, error: Exception) -> None:
        """A fault of ours: the message it happened with is given up, the others go on."""
        log.error("a signalling message could not be sent", exc_info=error)
        if self._outbox:
            self._outbox.popleft()
            self.dropped += 1
        self._start_sender()
        self._wake.set()

    async def close(self) -> None:
        """Let go of the sender. May be called twice."""
        self._wire = None
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender
        self._outbox.clear()
        self._empty.set()

    # --- sending ----------------------------------------------------------------------------------------------------

    def post(self, signal: wire.Signal) -> None:
        """Send as soon as there is a connection, unless that comes too late for this message."""
        expiry_s = wire.EXPIRY_S.get(type(signal), wire.DEFAULT_EXPIRY_S)
        text = wire.pack(signal, ts=self._clock.wall())
        if len(self._outbox) >= OUTBOX:
            self._outbox.popleft()
            self.dropped += 1
        self._outbox.append((self._clock.monotonic() + expiry_s, text, expiry_s))
        self._empty.clear()
        self._wake.set()

    @property
    def waiting(self) -> bool:
        """Whether something posted is not handed over yet and still worth sending."""
        now = self._clock.monotonic()
        return any(now < deadline for deadline, _, _ in self._outbox)

    async def flush(self, seconds: float) -> bool:
        """Wait until everything posted is handed over; False when it was not in time, or there is no connection: what
        is posted then is sent when there is one again, if that is soon enough for it."""
        if not self.up:
            return not self.waiting
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox and self._wire is not None:
                deadline, text, expiry_s = self._outbox[0]
                if self._clock.monotonic() < deadline:
                    connection = self._wire
                    if not await connection.send(text, expiry_s):
                        self.detach(connection)
                        break
                if self._outbox and self._outbox[0][1] == text:
                    self._outbox.popleft()
            if not self._outbox:
                self._empty.set()

    # --- receiving --------------------------------------------------------------------------------------------------

    def receive(self, text: str | bytes) -> bool:
        """Take one message; False when the peer must be cut off."""
        if not self._messages.take():
            if not self._limited:
                self._limited = True
                self._switchboard.refused("too many signalling messages", self.peer.identity)
            return False
        self._limited = False
        try:
            envelope = wire.parse(text)
        except SignalingError as error:
            return self._unreadable(error)
        if not self._window.fresh(envelope.nonce, self._clock.monotonic()):
            self.duplicates += 1  # QoS 1 repeats; a replay looks the same and is thrown away the same
            return True
        if wire.expired(envelope, now=self._clock.wall(), synchronised=self._clock.synchronised()):
            log.info("a signalling message came too late and was dropped")
            return True
        if isinstance(envelope.signal, wire.CallSignal):
            self._call_signal(envelope.signal)
        elif isinstance(envelope.signal, wire.ErrorSignal):
            log.info("a peer refused a signalling message: %d/%s", envelope.signal.code, envelope.signal.sub_code)
        elif self._on_signal is not None:
            self._on_signal(self, envelope.signal)
        return True

    def _unreadable(self, error: SignalingError) -> bool:
        self._faults += 1
        if self._faults == 1 or self._faults == FAULTS_LIMIT:
            self._switchboard.refused(error.message, self.peer.identity)
        if self._faults >= FAULTS_LIMIT:
            return False
        self.post(wire.ErrorSignal(error.code, error.sub_code, error.message[:512]))
        return True

    def _call_signal(self, signal: wire.CallSignal) -> None:
        party = self.calls.get(signal.call_id)
        if party is not None:
            party.receive(self, signal)
            return
        ended = self._over.get(signal.call_id)
        if isinstance(signal, wire.Invite) and ended is None:
            self._switchboard.invited(self, signal)
        elif isinstance(signal, wire.Cancel | wire.AnsweredElsewhere | wire.Bye | wire.Reject):
            if ended is None:  # it overtook its invitation, which must not ring any more
                self.forget(signal.call_id, _GIVEN_UP)
        elif not isinstance(signal, wire.PictureSignal | wire.Candidate):
            self.post(wire.Bye(signal.call_id, wire.Cause.of(ended or _UNKNOWN)))

    # --- calls ------------------------------------------------------------------------------------------------------

    def join(self, call_id: str, party: CallParty) -> None:
        self.calls[call_id] = party

    def forget(self, call_id: str, reason: Reason) -> None:
        """A call is over (or must never begin): late messages of it are answered with ``reason``."""
        self.calls.pop(call_id, None)
        self._over[call_id] = reason
        while len(self._over) > OVER_LIMIT:
            self._over.popitem(last=False)
        if not self.calls and self._on_idle is not None:
            self._on_idle(self)

    def gone(self, *, left: bool, reason: Reason | None = None) -> None:
        """It will not come back (``left``: it said so), or cannot be called for ``reason``."""
        for party in tuple(self.calls.values()):
            party.gone(self, left=left, reason=reason)


_GIVEN_UP: Final = END_REASONS["487/cancelled"]
_UNKNOWN: Final = END_REASONS["0/local"]
