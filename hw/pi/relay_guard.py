"""Holds the lines of relays in a process of its own, so that they open when the daemon dies, however it dies.

The kernels of Raspberry Pi boards leave a line as it was when its holder ends (unless ``dtparam=strict_gpiod`` is
set): a daemon that is killed while the door is open would leave it open. This process opens every relay when its time
is over, when the daemon's end of the socket closes, and when it is asked to end. It takes the lines from the kernel by
itself, open from the first moment, also where a relay closes on a low level. Only the standard library is imported:
it starts in tens of milliseconds and stays small.

Started as ``relay_guard.py FD CHIP NAME:LINE:HIGH ...`` with a sequenced-packet socket as FD. In: ``NAME SECONDS``.
Out: ``ready``, then ``state NAME 0|1`` at every change, as read back from the line; ``failed NAME ERRNO`` when a line
cannot be taken or driven.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence

REQUEST_SIZE = 592
GET_LINE = 3 << 30 | REQUEST_SIZE << 16 | 0xB4 << 8 | 0x07
VALUES = struct.Struct("QQ")  # bits, mask
GET_VALUES = 3 << 30 | VALUES.size << 16 | 0xB4 << 8 | 0x0E
SET_VALUES = 3 << 30 | VALUES.size << 16 | 0xB4 << 8 | 0x0F
PRIORITY = 10  # real time, where LimitRTPRIO allows; it sleeps but for a moment
ACTIVE_LOW, OUTPUT = 1 << 1, 1 << 3


class Relay:
    """One line, taken as an output that is inactive: the relay is open before it is ours."""

    def __init__(self, chip: int, name: str, offset: int, high: bool) -> None:
        self.name = name
        self.open_at = math.inf
        # struct gpio_v2_line_request: without an attribute for its value an output begins inactive
        request = bytearray(REQUEST_SIZE)
        struct.pack_into("I", request, 0, offset)
        struct.pack_into("32s", request, 256, f"edgecall {name}".encode()[:31])
        struct.pack_into("Q", request, 288, OUTPUT | (0 if high else ACTIVE_LOW))
        struct.pack_into("I", request, 560, 1)
        fcntl.ioctl(chip, GET_LINE, request)
        self._line = struct.unpack_from("i", request, 588)[0]

    def drive(self, closed: bool) -> None:
        fcntl.ioctl(self._line, SET_VALUES, VALUES.pack(int(closed), 1))

    def closed(self) -> bool:
        return bool(VALUES.unpack(fcntl.ioctl(self._line, GET_VALUES, VALUES.pack(0, 1)))[0])


class Guard:
    def __init__(self, door: socket.socket, relays: Sequence[Relay]) -> None:
        self._door = door
        self._relays = {relay.name: relay for relay in relays}

    def tell(self, *words: object) -> None:
        with contextlib.suppress(OSError):  # nobody reads: the end of the socket tells, and that opens all
            self._door.send(" ".join(map(str, words)).encode(), socket.MSG_DONTWAIT)

    def switch(self, relay: Relay, seconds: float) -> None:
        try:
            relay.drive(seconds > 0.0)
            relay.open_at = time.monotonic() + seconds if seconds > 0.0 else math.inf
            self.tell("state", relay.name, int(relay.closed()))
        except OSError as error:
            relay.open_at = math.inf
            self.tell("failed", relay.name, error.errno)

    def serve(self) -> None:
        """Until the daemon is gone."""
        self.tell("ready")
        while True:
            due = min((relay.open_at for relay in self._relays.values()), default=math.inf)
            wait = None if due == math.inf else max(0.0, due - time.monotonic())
            if select.select([self._door], [], [], wait)[0]:
                words = self._door.recv(256).decode().split()
                if not words:
                    return
                self.switch(self._relays[words[0]], float(words[1]))
            now = time.monotonic()
            for relay in self._relays.values():
                if now >= relay.open_at:
                    self.switch(relay, 0.0)

    def open_all(self) -> None:
        for relay in self._relays.values():
            with contextlib.suppress(OSError):  # the chip is gone, and the line with it
                relay.drive(closed=False)


def main(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon; its end is ours
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(OSError):  # first to run when the daemon dies: a service manager kills what is left of it
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    door = socket.socket(fileno=int(arguments[0]))
    chip = os.open(arguments[1], os.O_RDWR | os.O_CLOEXEC)
    relays, failed = [], []
    for word in arguments[2:]:
        name, offset, high = word.rsplit(":", 2)
        try:
            relays.append(Relay(chip, name, int(offset), high == "1"))
        except OSError as error:
            failed.append((name, error.errno))
    os.close(chip)
    guard = Guard(door, relays)
    for name, number in failed:
        guard.tell("failed", name, number)
    try:
        guard.serve()
    finally:
        guard.open_all()


if __name__ == "__main__":
    main(sys.argv[1:])
