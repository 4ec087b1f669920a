"""Our clocks, and whether the wall clock may be believed: an acting command of an unknown time moves nothing."""

from __future__ import annotations

import ctypes
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

__all__ = ["Clock", "RateLimit", "RateLimits", "SystemClock", "kernel_synchronised", "rfc3339"]

TIMESYNC_MARK: Final = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd(8): made at the first synchronisation since boot."""

_STA_UNSYNC: Final = 0x0040  # <linux/timex.h>
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised to a reliable server


class Clock(Protocol):
    def monotonic(self) -> float: ...

    def wall(self) -> float:
        """Seconds since the epoch."""

    def synchronised(self) -> bool:
        """Whether ``wall`` may be compared with a sender's time. False when nobody can tell."""


def rfc3339(wall: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RateLimit:
    """A token bucket: ``burst`` at once, ``per_s`` on and on."""

    def __init__(self, per_s: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = burst
        self._at = monotonic()

    def take(self) -> bool:
        """Whether one more is within the limit."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class RateLimits:
    """A limit for each who asks; over ``most`` of them, whoever was seen longest ago is forgotten."""

    def __init__(self, per_s: float, burst: float, monotonic: Callable[[], float], *, most: int) -> None:
        self._new: Callable[[], RateLimit] = lambda: RateLimit(per_s, burst, monotonic)
        self._most = most
        self._limits: OrderedDict[Hashable, RateLimit] = OrderedDict()

    def __len__(self) -> int:
        return len(self._limits)

    def take(self, who: Hashable) -> bool:
        """Whether one more of ``who`` is within the limit."""
        limit = self._limits.setdefault(who, self._new())
        self._limits.move_to_end(who)
        while len(self._limits) > self._most:
            self._limits.popitem(last=False)
        return limit.take()


class _Timeval(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2); the padding is what glibc reserves."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("constant", ctypes.c_long),
        ("precision", ctypes.c_long), ("tolerance", ctypes.c_long), ("time", _Timeval), ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long), ("jitter", ctypes.c_long), ("shift", ctypes.c_int), ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long), ("calcnt", ctypes.c_long), ("errcnt", ctypes.c_long), ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int), ("_reserved", ctypes.c_int * 11),
    )


def kernel_synchronised() -> bool | None:
    """What the kernel says; None where it may not be asked (a container, ``ProtectClock=yes`` of our own unit)."""
    state = _Timex(modes=0)  # modes 0: read only, needs no privilege
    try:
        result = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    except (OSError, AttributeError):  # a C library without adjtimex
        return None
    if result < 0:
        return None
    return result != _TIME_ERROR and not state.status & _STA_UNSYNC


class SystemClock:
    """The machine's clocks. The kernel's word is taken first; where it may not be asked, timesyncd's mark; with
    neither the clock counts as not synchronised, so that a relay needs its second step rather than trust a guess.

    ``synchronised`` is asked at most once a second (it reads a file on tmpfs at worst).
    """

    def __init__(self, kernel: Callable[[], bool | None] = kernel_synchronised, mark: Path = TIMESYNC_MARK) -> None:
        self._kernel = kernel
        self._mark = mark
        self._asked = -1.0
        self._answer = False

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def synchronised(self) -> bool:
        now = time.monotonic()
        if self._asked < 0 or now - self._asked >= 1.0:
            self._asked = now
            kernel = self._kernel()
            self._answer = self._mark.exists() if kernel is None else kernel
        return self._answer
