"""Points where recording and others take media out of a call: bounded, and free while nobody listens.

A ``TapPoint`` is where something passes, on any thread; a ``Tap`` is one consumer of it, on the loop. A consumer that
is too slow loses the oldest and never holds anybody up.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

__all__ = ["Tap", "TapPoint"]

T = TypeVar("T")


class Tap(Generic[T]):
    """``async for item in tap``: what passes the point from now on, until ``close`` or the end of the point."""

    def __init__(self, point: TapPoint[T], limit_bytes: int) -> None:
        self.dropped = 0  # items lost because they were not read in time
        self.waiting_bytes = 0
        self._point = point
        self._limit = limit_bytes
        self._items: deque[T] = deque()
        self._lock = threading.Lock()
        self._begun = False  # an item with which a consumer can begin has passed
        self._idle = False  # the consumer waits to be woken
        self._closed = False
        self._ready = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            with self._lock:
                if self._items:
                    item = self._items.popleft()
                    self.waiting_bytes -= self._point.size(item)
                    return item
                if self._closed:
                    raise StopAsyncIteration
                self._idle = True
                self._ready.clear()
            await self._ready.wait()

    def close(self) -> None:
        """Take no more; what waits may still be read. On the loop, may be called twice."""
        self._point.forget(self)
        with self._lock:
            self._closed = True
        self._ready.set()

    def put(self, item: T) -> bool:
        """By the point, on any thread. False when something was lost."""
        with self._lock:
            if self._closed:
                return True
            if not self._begun:
                if not self._point.begins(item):
                    return True
                self._begun = True
            self._items.append(item)
            self.waiting_bytes += self._point.size(item)
            whole = self.waiting_bytes <= self._limit
            if not whole:
                self._shrink()
            wake = self._idle and bool(self._items)
            if wake:
                self._idle = False
        if wake:
            self._point.on_loop(self._ready.set)
        return whole

    def _shrink(self) -> None:
        """Drop the oldest, up to the next item with which a consumer can begin again."""
        while self._items:
            self.waiting_bytes -= self._point.size(self._items.popleft())
            self.dropped += 1
            if self.waiting_bytes <= self._limit and self._items and self._point.begins(self._items[0]):
                return
        self._begun = False


class TapPoint(Generic[T]):
    """One place in the media's way.

    size: bytes of an item, for the bound. begins: whether a consumer can begin with it (a key frame; any block of
    sound). on_open: a consumer has come. on_loss: one has lost something. Both are called on the loop.
    """

    def __init__(
        self, size: Callable[[T], int], *, begins: Callable[[T], bool] | None = None,
        on_open: Callable[[], None] | None = None, on_loss: Callable[[], None] | None = None,
    ) -> None:
        self.size = size
        self.begins = begins or _any
        self._loop: asyncio.AbstractEventLoop | None = None  # of the consumers
        self._on_open = on_open
        self._on_loss = on_loss
        self._taps: tuple[Tap[T], ...] = ()  # replaced as a whole: other threads read it without a lock

    @property
    def active(self) -> bool:
        """Somebody listens, so that an item is worth being made."""
        return bool(self._taps)

    def open(self, limit_bytes: int) -> Tap[T]:
        """A new consumer on the running loop, with so many bytes waiting for it at most."""
        self._loop = asyncio.get_running_loop()
        tap = Tap(self, limit_bytes)
        self._taps = (*self._taps, tap)
        if self._on_open is not None:
            self._on_open()
        return tap

    def forget(self, tap: Tap[T]) -> None:
        self._taps = tuple(other for other in self._taps if other is not tap)

    def put(self, item: T) -> None:
        """Hand an item to all that listen. On any thread, never waits."""
        whole = True
        for tap in self._taps:
            whole = tap.put(item) and whole
        if not whole and self._on_loss is not None:
            self.on_loop(self._on_loss)

    def close(self) -> None:
        """Nothing more passes. On the loop, may be called twice."""
        for tap in self._taps:
            tap.close()

    def on_loop(self, callback: Callable[[], object]) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop has ended: nobody is left to tell
            self._taps = ()


def _any(_: object) -> bool:
    return True
