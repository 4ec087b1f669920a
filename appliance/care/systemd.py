"""The service manager: telling it how we are, and feeding its watchdog while our own work goes on.

The protocol is sd_notify(3): one datagram per message, kept stable by systemd. libsystemd's own function is not used:
it waits while the manager's queue is full, so that a manager busy for seconds (a daemon-reload) would hold up our loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["Notifier", "Pulse", "Watchdog"]

logger = logging.getLogger(__name__)

DEFAULT_INTERVAL_S: Final = 5.0
"""How often the pulses are looked at where no watchdog asks: a quarter of the unit's WatchdogSec=20."""

UNSENT_LIMIT: Final = 8
"""Messages kept for a manager that takes none; more than the different ones there are."""

LOOP_LAG_S: Final = 2.0
"""A loop that wakes later than this is no use to a call; one such wake withholds one feed, not more."""


class Notifier:
    """Tells the service manager; every method is a no-op where there is none. On the loop, and never waits."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._status = ""
        self._unsent: deque[str] = deque(maxlen=UNSENT_LIMIT)
        self._socket: socket.socket | None = None
        path = self._environ.get("NOTIFY_SOCKET", "")
        if path:
            self._address = f"\0{path[1:]}" if path.startswith("@") else path
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def close(self) -> None:
        """May be called twice; nothing is told afterwards."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def present(self) -> bool:
        """Does a service manager listen?"""
        return self._socket is not None

    @property
    def watchdog_s(self) -> float | None:
        """Seconds within which the watchdog wants to be fed; None when it does not watch this process."""
        if self._environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None  # meant for the process that started us
        try:
            microseconds = int(self._environ.get("WATCHDOG_USEC", "0"))
        except ValueError:
            return None
        return microseconds / 1e6 if microseconds > 0 else None

    def ready(self, status: str = "") -> None:
        """Started, or finished reloading."""
        self._tell("READY=1", status)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; the same text twice is sent once."""
        if text != self._status:
            self._tell("", text)

    def reloading(self) -> None:
        """Settings are being read again; ``ready`` ends it. From systemd 253 the time matters."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        self._tell("STOPPING=1", status)

    def extend(self, seconds: float) -> None:
        """Starting, reloading or stopping takes this much longer, counted from now."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def feed(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, state: str, status: str = "") -> None:
        if status:
            self._status = status
            state = f"{state}\nSTATUS={status.splitlines()[0]}".lstrip("\n")
        if self._unsent and self._unsent[-1] == state:  # feeds that nobody took yet count as one
            self._unsent.pop()
        self._unsent.append(state)
        while self._unsent:
            if self._socket is not None:
                try:
                    self._socket.sendto(self._unsent[0].encode(), self._address)
                except BlockingIOError:  # its queue is full: told with the next message, a feed at the latest
                    return
                except OSError as error:
                    logger.warning("the service manager cannot be reached: %s", error.strerror)
            self._unsent.popleft()


class Pulse:
    """The sign of life of one piece of our own work: the audio exchange, a send task.

    ``tick()`` at every turn, from any thread (one assignment). ``rest()`` while nothing is due: a stopped exchange or
    an ended call is not stuck. What waits for a peer, the network, a disk or a missing device rests: only our own code
    may let a pulse run out.
    """

    def __init__(self, name: str, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.limit_s = limit_s
        self._clock = clock
        self._last: float | None = None

    def tick(self) -> None:
        self._last = self._clock()

    def rest(self) -> None:
        self._last = None

    @property
    def late_s(self) -> float:
        """Seconds over the limit; 0 while it ticks or rests."""
        last = self._last  # one read: rest() may come from another thread in between
        return 0.0 if last is None else max(0.0, self._clock() - last - self.limit_s)


class Watchdog:
    """Feeds the service manager's watchdog while the loop turns and every pulse ticks.

    Runs equally where no watchdog asks, and then only says what is stuck: the one place that knows.
    """

    def __init__(self, notifier: Notifier, clock: Callable[[], float] = time.monotonic) -> None:
        self._notifier = notifier
        self._clock = clock
        self._pulses: dict[str, Pulse] = {}
        self._stuck: frozenset[str] = frozenset()
        limit = notifier.watchdog_s
        # a quarter of the limit: one feed may be withheld and one more come late before it bites
        self.interval_s = limit / 4 if limit else DEFAULT_INTERVAL_S

    def pulse(self, name: str, limit_s: float) -> Pulse:
        """A pulse that is watched from now on, resting until its first tick. ``release`` ends it."""
        if name in self._pulses:
            raise ValueError(f"a pulse named {name!r} is watched already")
        pulse = self._pulses[name] = Pulse(name, limit_s, self._clock)
        return pulse

    def release(self, pulse: Pulse) -> None:
        """Watch ``pulse`` no longer; may be called twice."""
        if self._pulses.get(pulse.name) is pulse:
            del self._pulses[pulse.name]

    @property
    def stuck(self) -> frozenset[str]:
        """Names of what was found stuck at the last look."""
        return self._stuck

    def look(self, loop_lag_s: float = 0.0) -> bool:
        """Look at everything; feed and return True when all goes on. Logs once what is stuck, once its return."""
        stuck = {pulse.name for pulse in self._pulses.values() if pulse.late_s > 0}
        if loop_lag_s > LOOP_LAG_S:
            stuck.add("loop")
        for name in sorted(stuck - self._stuck):
            logger.error("watchdog: %s is stuck; the watchdog is not fed", name, extra={"event": "watchdog.stuck"})
        for name in sorted(self._stuck - stuck):
            logger.info("watchdog: %s goes on", name, extra={"event": "watchdog.recovered"})
        self._stuck = frozenset(stuck)
        if stuck:
            return False
        self._notifier.feed()
        return True

    async def follow(self, name: str, limit_s: float, turn: Callable[[], float]) -> None:
        """Watch, until cancelled, work that counts its turns (``turn`` gives another number after each one)."""
        pulse, last = self.pulse(name, limit_s), turn()
        try:
            while True:
                await asyncio.sleep(limit_s / 4)
                if (now := turn()) != last:
                    last = now
                    pulse.tick()
        finally:
            self.release(pulse)

    async def run(self) -> None:
        """Look every ``interval_s`` until cancelled. Its own turn coming late is how a blocked loop shows."""
        self.look()
        while True:
            due = self._clock() + self.interval_s
            await asyncio.sleep(self.interval_s)
            self.look(self._clock() - due)
