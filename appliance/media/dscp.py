"""DSCP marks (RFC 2474) on sockets, by what they carry."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Marks", "mark"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Marks:
    """Code points (0 to 63). A transport has one mark: EF where it carries sound alone; where pictures share it that of
    pictures, since EF would put them into the queue that networks keep short for voice (RFC 4594 4.1)."""

    audio: int = 46  # EF (RFC 3246), highest of the values for interactive audio in RFC 8837 5
    video: int = 34  # AF41 (RFC 2597)

    def of(self, *, video: bool) -> int:
        """The mark of a transport that sends ``video`` beside sound, or does not."""
        return self.video if video else self.audio


class Socket(Protocol):
    @property
    def family(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def mark(sock: Socket, dscp: int) -> None:
    """Mark all that leaves ``sock`` from now on; a network that refuses is not worth a call."""
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
    except OSError as error:
        log.debug("packets are not marked: %s", error)
