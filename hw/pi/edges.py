"""Lines of a GPIO chip that are read, by the kernel's own line request, and the edges of them all on one thread.

lgpio looks for edges every millisecond as soon as it watches one line; here nothing runs before there is one.
Structures of ``<linux/gpio.h>``, version 2 of the interface (Linux 5.10 on), whose edges are timed by CLOCK_MONOTONIC.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hw.pi.gpiochip import Chip, refused

__all__ = ["BIAS", "Edge", "EdgeReader", "InputLine"]

_CONFIG: Final = struct.Struct("QI260x")  # flags, number of attributes
_REQUEST: Final = struct.Struct("I252x32s272sII20xi")  # offset, consumer, config, lines, events kept, descriptor
_VALUES: Final = struct.Struct("QQ")  # bits, mask
_EVENT: Final = struct.Struct("QIIII24x")  # nanoseconds, which edge, offset, number, number of this line
_GET_LINE: Final = 3 << 30 | _REQUEST.size << 16 | 0xB4 << 8 | 0x07
_SET_CONFIG: Final = 3 << 30 | _CONFIG.size << 16 | 0xB4 << 8 | 0x0D
_GET_VALUES: Final = 3 << 30 | _VALUES.size << 16 | 0xB4 << 8 | 0x0E
_INPUT: Final = 1 << 2
_BOTH_EDGES: Final = 1 << 4 | 1 << 5
_RISING: Final = 1

BIAS: Final = {"up": 1 << 8, "down": 1 << 9, "floating": 1 << 10}

EVENTS: Final = 64
"""Edges of one line that the kernel keeps while nobody reads; then the oldest is lost, and its number is missing."""

CLOSE_S: Final = 1.0


class Edge(NamedTuple):
    """``at`` that monotonic time, in seconds, the line went ``high`` or low."""

    at: float
    high: bool


class InputLine:
    """One line of a chip, taken as an input without a pull and without edges. Raises HardwareError where it cannot be
    taken; all else raises OSError when it fails, ENODEV when the chip is gone."""

    def __init__(self, chip: Chip, offset: int, name: str) -> None:
        holder = f"edgecall {name}".encode()[:31]
        asked = _REQUEST.pack(offset, holder, _CONFIG.pack(_INPUT | BIAS["floating"], 0), 1, EVENTS, 0)
        try:
            node = os.open(chip.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._line: int = _REQUEST.unpack(fcntl.ioctl(node, _GET_LINE, asked))[-1]
            finally:
                os.close(node)
        except OSError as error:
            raise refused(f"{name}, line {offset} of {chip.label}", error.errno or 0) from error
        os.set_blocking(self._line, False)
        self._number: int | None = None  # of the last edge

    def fileno(self) -> int:
        return self._line

    def configure(self, pull: str, *, edges: bool) -> None:
        """``pull``: of BIAS. Edges are counted anew."""
        fcntl.ioctl(self._line, _SET_CONFIG, _CONFIG.pack(_INPUT | BIAS[pull] | (_BOTH_EDGES if edges else 0), 0))
        self._number = None

    def level(self) -> bool:
        return bool(_VALUES.unpack(fcntl.ioctl(self._line, _GET_VALUES, _VALUES.pack(0, 1)))[0])

    def edges(self) -> Sequence[Edge]:
        """Those that wait. Where some were lost, the last one is the level as it is now."""
        try:
            raw = os.read(self._line, _EVENT.size * EVENTS)
        except BlockingIOError:
            return ()
        found, lost = [], False
        for nanoseconds, which, _, _, number in _EVENT.iter_unpack(raw):
            lost |= self._number is not None and number != (self._number + 1) & 0xFFFFFFFF
            self._number = number
            found.append(Edge(nanoseconds / 1e9, which == _RISING))
        if lost:
            found.append(Edge(time.monotonic(), self.level()))
        return found

    def close(self) -> None:
        line, self._line = self._line, -1
        if line >= 0:
            os.close(line)


class EdgeReader:
    """Reads the edges of many lines on a thread, ``hw.gpio.edges``, which sleeps until there is one.

    ``failed`` hears, on that thread, of a line that is read no more, because its chip is gone or it broke.
    """

    def __init__(self, failed: Callable[[OSError], None]) -> None:
        self._failed = failed
        self._lock = threading.Lock()
        self._lines: dict[int, tuple[InputLine, Callable[[Edge], None]]] = {}
        self._poll = select.epoll()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._end, select.EPOLLIN)
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, line: InputLine, told: Callable[[Edge], None]) -> None:
        """Tell ``told`` of every edge of ``line``, on the thread."""
        with self._lock:
            self._lines[line.fileno()] = line, told
            self._poll.register(line.fileno(), select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hw.gpio.edges", daemon=True)
                self._thread.start()

    def leave(self, line: InputLine) -> None:
        """Before a line is closed. An edge that is just being told may still be."""
        with self._lock:
            if self._lines.pop(line.fileno(), None) is not None and not self._closed:
                self._poll.unregister(line.fileno())

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lines.clear()
        os.eventfd_write(self._end, 1)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)
        if self._thread is None or not self._thread.is_alive():  # else one of ``told`` hangs: they are its own
            self._poll.close()
            os.close(self._end)

    # --- hw.gpio.edges

    def _run(self) -> None:
        while not self._closed:
            for descriptor, what in self._poll.poll():
                self._read(descriptor, what)

    def _read(self, descriptor: int, what: int) -> None:
        with self._lock:
            if descriptor not in self._lines:
                return  # left meanwhile, or the end
            line, told = self._lines[descriptor]
            edges, failure = _waiting(line, what)
            if failure is not None:
                del self._lines[descriptor]
                self._poll.unregister(descriptor)
        for edge in edges:
            told(edge)
        if failure is not None:
            self._failed(failure)


def _waiting(line: InputLine, what: int) -> tuple[Sequence[Edge], OSError | None]:
    """The edges that wait, or why there will be no more. ``what`` is of epoll(7)."""
    if what & (select.EPOLLERR | select.EPOLLHUP):
        return (), OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    try:
        return line.edges(), None
    except OSError as error:
        return (), error
