"""The life of media on one transport: connecting, up, silent, stranded, over, and each told as an event."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Any, Final

from appliance.media.api import (
    SessionClosed,
    SessionEvent,
    SessionSilent,
    SessionSound,
    SessionStranded,
    SessionUp,
)
from appliance.media.inquiry import Inquiry
from appliance.media.transport import MediaTransport
from appliance.network import Network
from appliance.tasks import background

__all__ = ["CHECK_S", "CLOSE_S", "MAX_EVENTS", "MediaLife"]

log = logging.getLogger(__name__)

CHECK_S: Final = 0.25
SILENT_S: Final = 3.0 - CHECK_S  # looked at so often, so it is told after 3 s at the latest
CONNECT_S: Final = 30.0  # from both descriptions to DTLS
CLOSE_S: Final = 0.7
MAX_EVENTS: Final = 256  # events nobody took: data messages beyond are dropped


class MediaLife(ABC):
    """Everything on the loop. Who derives from it sets ``_transport`` and calls ``_described``."""

    _transport: MediaTransport

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._events: deque[SessionEvent] = deque()
        self._event_ready = asyncio.Event()
        self._ended = False
        self._closing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._described_at: float | None = None
        self._connected_at: float | None = None
        self._heard_at = self._loop.time()
        self._inquiry = Inquiry()
        self._checked_at = self._heard_at
        self._up = False
        self._silent = False
        self.on_closed: Callable[[Any], None] = _nobody

    # -- what is made of it

    @abstractmethod
    def _due(self) -> bool:
        """Whether something is to arrive now: its absence is silence then, and nothing otherwise."""

    @abstractmethod
    def _maybe_up(self) -> None:
        """See whether all that is owed has shown itself; then ``_be_up``."""

    @abstractmethod
    def _on_connected(self) -> None:
        """The transport is up, for the first time."""

    @abstractmethod
    def _look(self, now: float) -> None:
        """Every CHECK_S while it is not over."""

    @abstractmethod
    def _release(self) -> None:
        """It is over: let go of all that needs no waiting."""

    @abstractmethod
    async def _end_streams(self, deadline_s: float) -> None:
        """The transport is closed: end what is left."""

    def _ask(self) -> bool:
        """Have the peer show that it is there: its answer is an arrival, and the lack of it silence, whatever is due.
        False: it is not asked."""
        return False

    def _round_trip_s(self) -> float | None:
        """That an answer takes, by the latest; None: not known."""
        return None

    # -- events

    async def events(self) -> AsyncIterator[SessionEvent]:
        while True:
            while self._events:
                event = self._events.popleft()
                yield event
                if isinstance(event, SessionClosed):
                    return
            self._event_ready.clear()
            await self._event_ready.wait()

    def _emit(self, event: SessionEvent) -> None:
        self._events.append(event)
        self._event_ready.set()

    @property
    def up(self) -> bool:
        return self._up and not self._ended

    # -- course

    def _described(self) -> None:
        """Both sides know what is agreed: the time to connect in runs from here."""
        self._described_at = self._checked_at = self._loop.time()
        self._check()

    def on_arrival(self) -> None:
        """Of the transport: something of the peer arrived."""
        self._heard_at = self._loop.time()
        self._inquiry.heard()
        if self._silent:
            self._silent = False
            if self._up:
                self._emit(SessionSound())

    def on_state(self) -> None:
        """Of the transport: it may be up, or gone."""
        state = self._transport.state
        if self._ended:
            return
        if state == "connected" and self._connected_at is None:
            self._connected_at = self._heard_at = self._loop.time()
            self._on_connected()
            self._maybe_up()
        elif state in ("failed", "closed"):
            why = self._transport.failure() or "lost"
            self._finish(why, "" if self._transport.failure() else "the peer closed the connection")

    def _on_defect(self, error: Exception) -> None:
        """A task of a stream ended by a fault of ours: the connection is of no use any more, a new one may well be."""
        log.error("a stream of the session ended by a fault", exc_info=error)
        self._finish("internal", f"{type(error).__name__}: {error}")

    def _be_up(self) -> None:
        self._up = True
        self._heard_at = self._loop.time()
        security = self._transport.security()
        self._emit(SessionUp({**security, "verified": bool(security)}))

    def _check(self) -> None:
        """Every CHECK_S: deadlines of connecting, of owed media, and of silence."""
        if self._ended:
            return
        self._timer = self._loop.call_later(CHECK_S, self._check)
        now = self._loop.time()
        if now - self._checked_at > 4 * CHECK_S:  # our own loop stood still: what arrived meanwhile is not read yet
            self._heard_at = max(self._heard_at, now - CHECK_S)
        self._checked_at = now
        if self._connected_at is None:
            if self._described_at is not None and now - self._described_at > CONNECT_S:
                self._finish("iceFailed", f"no connection within {CONNECT_S:.0f} s")
            else:
                self._listen(now, owes=False)  # a handshake sends again ever more seldom, also when the path is back
        elif not self._up:
            self._maybe_up()
        else:
            self._listen(now, owes=self._due())
        self._look(now)

    def _listen(self, now: float, *, owes: bool) -> None:
        """Whether it is silent; while nothing comes it is asked. ``owes``: something else than its answers."""
        if not self._silent and now - self._heard_at >= SILENT_S and (
                owes or self._inquiry.in_vain(now, self._round_trip_s())):
            self._silent = True
            self._emit(SessionSilent(now - self._heard_at))
        if self._inquiry.due(now, self._heard_at) and self._ask():
            self._inquiry.asked(now)

    def _finish(self, why: str, detail: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        self._emit(SessionClosed(why, detail))
        if self._timer is not None:
            self._timer.cancel()
        self._release()
        self._closing = self._loop.create_task(self._tear_down(), name=f"media.close {self.name}")

    async def close(self) -> None:
        self._finish("closed")
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _tear_down(self) -> None:
        closing = background(self._transport.close(), name=f"media.close transport {self.name}", failed=_close_failed)
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        try:
            _, late = await asyncio.wait({closing}, timeout=CLOSE_S)
            if late:  # a TURN server that is gone is asked for a minute; cut off, the sockets would stay
                log.warning("a peer connection takes longer than %.1f s to close", CLOSE_S)
            await self._end_streams(1.0 - CLOSE_S)
        finally:
            self.on_closed(self)

    def network_changed(self, before: Network, now: Network) -> None:
        """See SessionStranded. What began at a loopback address ends there too and is left alone."""
        own = {address for address in self._transport.local_addresses() if not ip_address(address).is_loopback}
        if self._ended:
            return
        if self._connected_at is None:  # what is new now was not gathered, and is not asked for any more
            if (own and own.isdisjoint(now.addresses)) or now.addresses - before.addresses:
                self._emit(SessionStranded(gone=True))
        elif own and own.isdisjoint(now.addresses):
            self._emit(SessionStranded(gone=True))
        elif any(before.default(one) != now.default(one) for one in own):
            self._emit(SessionStranded(gone=False))


_closing: Final[set[asyncio.Task[None]]] = set()
"""Transports that close, held because the loop does not hold its tasks."""


def _close_failed(error: Exception) -> None:
    log.error("a peer connection did not close as it should", exc_info=error)


def _nobody(_: object) -> None:
    return None
