"""The seam to aiortc's SCTP: what a peer sends on data channels, bounded before it reaches the association.

aiortc trusts an authenticated peer: a parameter of length 0 holds its loop for ever, fragments of a message that never
ends and data channels without number fill the memory, and an assertion ends the call.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiortc import rtcsctptransport

__all__ = ["DataGate"]

log = logging.getLogger(__name__)

CHANNELS: Final = 160  # of one peer; a room has one for each who sends, and Janus itself no more than 150
STREAMS: Final = 192
PIECES: Final = 2048  # fragments that wait for others: 30 times the largest message of ours
WINDOW: Final = 1024 * 1024  # bytes beyond the window that aiortc advertises and does not keep to


def decode_params(body: bytes) -> list[tuple[int, bytes]]:
    """Parameters of a chunk (RFC 9260 3.2.1). Raises ValueError where a length is shorter than its own header."""
    params = []
    at = 0
    while at <= len(body) - 4:
        kind, length = struct.unpack_from("!HH", body, at)
        if length < 4:
            raise ValueError(f"an SCTP parameter has a length of {length} bytes")
        params.append((kind, body[at + 4 : at + length]))
        at += length + 3 & ~3
    return params


rtcsctptransport.decode_params = decode_params


class DataGate:
    """Stands between DTLS and SCTP. ``guard`` runs the handling of a packet and counts what it raises."""

    def __init__(self, receiver: Any, guard: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        self._receiver = receiver
        self._guard = guard
        self.refused = 0

    async def _handle_data(self, data: bytes) -> None:
        if self._overloaded():
            self.refused += 1
            if self.refused == 1:
                log.warning("a peer fills its data channels without end; its data is not taken any more")
            return
        await self._guard(self._receiver._handle_data(data))

    def _overloaded(self) -> bool:
        receiver = self._receiver
        streams = receiver._inbound_streams
        return (
            len(receiver._data_channels) > CHANNELS or len(streams) > STREAMS or receiver._advertised_rwnd < -WINDOW
            or len(receiver._sack_misordered) > PIECES
            or sum(len(stream.reassembly) for stream in streams.values()) > PIECES
        )
