"""Handing over: the only crossing from a foreign thread to the loop, and the channel a door hands to a provider."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from appliance.vocabulary import Scope

__all__ = ["Inbox", "PeerAttach", "PeerChannel", "PeerIdentity"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """A bounded queue from foreign threads to one consumer on the loop.

    ``put`` may be called from any thread and never waits. When full, the oldest item is thrown away, counted in
    ``dropped``, and ``on_drop`` is called on the loop before the next item is delivered (encoded video uses it to
    ask for a key frame). The consumer awaits ``get`` or passes ``deliver``; both run on the loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit: int, name: str, *,
        deliver: Callable[[T], None] | None = None, on_drop: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.limit = limit
        self.dropped = 0
        self._loop = loop
        self._items: deque[T] = deque()
        self._lock = threading.Lock()
        self._scheduled = False
        self._drop_pending = False
        self._closed = False
        self._deliver = deliver
        self._on_drop = on_drop
        self._ready = asyncio.Event()

    def put(self, item: T) -> None:
        """Hand ``item`` over; after ``close`` it is thrown away."""
        with self._lock:
            if self._closed:
                return
            if len(self._items) >= self.limit:
                self._items.popleft()
                self.dropped += 1
                self._drop_pending = True
            self._items.append(item)
            if self._scheduled:
                return
            self._scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop has closed between our check and now: nobody is left to tell
            self._closed = True

    def close(self) -> None:
        """Throw away what waits; ``get`` raises EOFError from now on. May be called twice, on the loop."""
        with self._lock:
            self._closed = True
            self._items.clear()
        self._ready.set()

    async def get(self) -> T:
        """The next item. Raises EOFError after ``close``."""
        while True:
            found, item = self._take()
            if found:
                return item  # type: ignore[return-value]
            if self._closed:
                raise EOFError(f"inbox {self.name} is closed")
            self._ready.clear()
            await self._ready.wait()

    def __len__(self) -> int:
        return len(self._items)

    def _take(self) -> tuple[bool, T | None]:
        with self._lock:
            dropped, self._drop_pending = self._drop_pending, False
            item = self._items.popleft() if self._items else None
            found = item is not None
        if dropped and self._on_drop is not None:
            self._on_drop()
        return found, item

    def _wake(self) -> None:
        with self._lock:
            self._scheduled = False
        if self._deliver is None:
            self._ready.set()
            return
        while True:
            found, item = self._take()
            if not found:
                return
            self._deliver(item)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who is at the other end of a WebSocket, as its token or session cookie proves."""

    name: str
    scope: Scope
    display_name: str
    loopback: bool  # it came by a loopback address
    session: str  # stable over reconnects of the same page or device


class PeerChannel(Protocol):
    """A WebSocket with a proven identity: the HTTP door makes it, a provider speaks signalling over it."""

    @property
    def identity(self) -> PeerIdentity: ...

    async def send(self, text: str) -> None:
        """Raises ConnectionError when the other side is gone or does not take it within 5 s."""

    def __aiter__(self) -> AsyncIterator[str]:
        """Texts received (at most 64 KiB each), until the other side is gone."""

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


PeerAttach = Callable[[PeerChannel], Awaitable[None]]
"""What a provider gives ``__main__`` to mount under the HTTP door's ``/v1/peer``; returns when the peer is gone."""
