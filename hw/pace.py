"""Who lets a panel act: its clock, the thread that keeps its time, and the one that delivers what it tells."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from hw.api import Press

__all__ = ["Pace", "ThreadPace"]

_log = logging.getLogger("hw.panel")

PRESS_QUEUE: Final = 64
"""Presses that may wait for a slow listener; the newest is dropped and counted."""

STOP_S: Final = 0.5


class Pace(Protocol):
    """Time and turns of one panel. Any thread."""

    def now(self) -> float:
        """Seconds of a clock that never goes back."""

    def run(self, act: Callable[[], float | None], deliver: Callable[[Press], None]) -> None:
        """Call ``act`` now, again after as many seconds as it returns (None: no more) and after every ``nudge``; and
        ``deliver`` with each press that was told, in order. Neither keeps the other waiting."""

    def nudge(self) -> None: ...

    def tell(self, press: Press) -> bool:
        """False: too many wait, and this one is dropped."""

    def stop(self) -> None:
        """Both are called no more, unless one hangs."""


class ThreadPace:
    """Implements ``Pace`` by the machine's clock, on threads of its own: ``hw.panel`` and ``hw.press``, so that a slow
    listener never keeps a relay closed."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._nudged = self._stopped = False
        self._presses: queue.Queue[Press | None] = queue.Queue(PRESS_QUEUE)
        self._threads: tuple[threading.Thread, ...] = ()

    def now(self) -> float:
        return time.monotonic()

    def run(self, act: Callable[[], float | None], deliver: Callable[[Press], None]) -> None:
        self._threads = (
            threading.Thread(target=self._keep_time, args=(act,), name="hw.panel", daemon=True),
            threading.Thread(target=self._hand_on, args=(deliver,), name="hw.press", daemon=True))
        for thread in self._threads:
            thread.start()

    def nudge(self) -> None:
        with self._wake:
            self._nudged = True
            self._wake.notify()

    def tell(self, press: Press) -> bool:
        try:
            self._presses.put_nowait(press)
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify()
        try:
            self._presses.put(None, timeout=STOP_S)
        except queue.Full:
            _log.warning("the receiver of presses hangs; its thread is left behind")
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(STOP_S)

    def _keep_time(self, act: Callable[[], float | None]) -> None:
        while True:
            pause = act()
            with self._wake:
                self._wake.wait_for(lambda: self._nudged or self._stopped, pause)
                self._nudged = False
                if self._stopped:
                    return

    def _hand_on(self, deliver: Callable[[Press], None]) -> None:
        while (press := self._presses.get()) is not None:
            deliver(press)
