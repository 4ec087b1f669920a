"""Ports for servers of a test, below those that the kernel deals out by itself: of those one may be gone before its
server has started, or while it is down, and who calls a server that is down from there may reach himself."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from typing import Final

__all__ = ["free_port"]

OURS: Final = range(30_000, 32_768)
"""No peer of ours takes one of these by itself (Janus and baresip: media from 20000, and from 40000, on)."""
_turns: Final = itertools.cycle(OURS)
for _ in range(random.randrange(len(OURS))):
    next(_turns)


def free_port(host: str = "127.0.0.1", *, with_next: bool = False) -> int:
    """One that nobody has, for UDP and TCP, and that is given to nobody else soon. ``with_next``: nor is the next."""
    for port in itertools.islice(_turns, 2 * len(OURS)):
        if not _is_free(host, port):
            continue
        if not with_next:
            return port
        if port + 1 in OURS and next(_turns) == port + 1 and _is_free(host, port + 1):
            return port
    raise AssertionError(f"no port of {OURS} is free at {host}")


def _is_free(host: str, port: int) -> bool:
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            stack.enter_context(socket.socket(socket.AF_INET, kind)).bind((host, port))
        return True
    return False
