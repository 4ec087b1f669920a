"""The fault line of a board: what is wrong now, and that its devices changed, told on a thread of its own
(``hw.watch``)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from hw.api import Fault, FaultKind, Kind

__all__ = ["FaultLine"]

_log = logging.getLogger("hw.faults")

_Key = tuple[Kind, FaultKind, str]


class FaultLine:
    """Takes facts from every device thread and delivers each change once, in order, never on the caller's thread.

    Bounded by itself: one entry per kind of fault and device is pending at most, the newest state wins.
    """

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._active: dict[_Key, Fault] = {}
        self._pending: dict[_Key, Fault] = {}
        self._sink: Callable[[Fault], None] | None = None
        self._told: dict[_Key, bool] = {}
        self._watcher: Callable[[], None] | None = None
        self._changed = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hw.watch", daemon=True)
        self._thread.start()

    def report(
        self, kind: Kind, fault: FaultKind, device: str, active: bool, detail: str = "",
        cause: FaultKind | None = None,
    ) -> None:  # fmt: skip
        """A fault is there or is not; saying so twice changes nothing. Any thread."""
        key = (kind, fault, device)
        with self._wake:
            if (key in self._active) == active or self._stopping:
                return
            told = Fault(kind, fault, device, active, detail, cause)
            if active:
                self._active[key] = told
            else:
                del self._active[key]
            self._pending.pop(key, None)
            self._pending[key] = told
            self._wake.notify_all()

    def active(self, kind: Kind, fault: FaultKind, device: str) -> bool:
        with self._wake:
            return (kind, fault, device) in self._active

    def listen(self, sink: Callable[[Fault], None]) -> None:
        """Deliver from now on to ``sink``, those active already first."""
        with self._wake:
            self._sink = sink
            self._told.clear()
            self._pending = dict(self._active)
            self._wake.notify_all()

    def devices_changed(self) -> None:
        """``Board.devices`` tells something else from now on. Any thread."""
        with self._wake:
            self._changed = True
            self._wake.notify_all()

    def watch(self, sink: Callable[[], None]) -> None:
        """Call ``sink`` after changes of devices; several at once may come as one."""
        with self._wake:
            self._watcher = sink
            self._wake.notify_all()

    def close(self) -> None:
        """End the thread; no fault is delivered afterwards."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._due)
                if self._stopping:
                    return
                call = self._next()
            try:
                call()
            except Exception:  # outermost frame of the thread: one bad receiver must not silence the rest
                _log.exception("receiver of hardware faults failed")

    def _due(self) -> bool:
        return (self._stopping or (self._sink is not None and bool(self._pending))
                or (self._watcher is not None and self._changed))

    def _next(self) -> Callable[[], None]:
        """What is to be told first."""
        if self._sink is not None and self._pending:
            key = next(iter(self._pending))
            fault, sink = self._pending.pop(key), self._sink
            if self._told.get(key, False) != fault.active:
                self._told[key] = fault.active
                return lambda: sink(fault)
        elif self._watcher is not None:
            self._changed = False
            return self._watcher
        return lambda: None
