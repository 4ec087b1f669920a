"""What the kernel and udev tell of plugs (netlink): that something of a subsystem came or went."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Final

__all__ = ["Uevents"]

_log = logging.getLogger("hw.audio")

KOBJECT_UEVENT: Final = 15
GROUPS: Final = 1 | 2
"""The kernel's own word, and udev's after it has set owner and mode of the node."""


class Uevents:
    """Readable when something happened. Messages say only *that*: whoever hears them looks for itself."""

    def __init__(self, subsystem: str) -> None:
        self._mark = f"SUBSYSTEM={subsystem}\0".encode()
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, KOBJECT_UEVENT)
            self._socket.setblocking(False)
            self._socket.bind((0, GROUPS))
        except OSError as error:
            _log.info("plugs are looked for every few seconds: %s", error)
            self.close()

    def fileno(self) -> int | None:
        """None where the system lets us not listen: then look now and again."""
        return None if self._socket is None else self._socket.fileno()

    def happened(self) -> bool:
        """Take all that waits; whether any of it was of the subsystem, or some was lost."""
        seen = False
        while self._socket is not None:
            try:
                seen |= self._mark in self._socket.recv(16_384)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more came than fits
                seen = True
        return seen

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
