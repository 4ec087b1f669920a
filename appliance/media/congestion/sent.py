"""What was sent on one transport, and what became of it by the peer's feedback."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.media.congestion.transport_cc import (
    REFERENCE_TICKS,
    TICKS_PER_S,
    TransportFeedback,
    nearest,
)

__all__ = ["OVERHEAD", "SentLog", "SentPacket"]

KEPT: Final = 4096  # packets still waited for: 10 s of 4 Mbit/s
KEPT_S: Final = 10.0
OVERHEAD: Final = 28 + 16
"""Bytes that IPv4, UDP and the tag of SRTP (AES-GCM) add to a packet: at 60 kbit/s they are a third of all."""


@dataclass(slots=True)
class SentPacket:
    """One packet that left. ``size`` in bytes with all headers, ``sent_at`` seconds on our clock; ``arrived_at``
    seconds on the peer's clock, None while it has not arrived. ``probe``: the cluster it belongs to."""

    sequence: int
    size: int
    sent_at: float
    probe: int | None = None
    arrived_at: float | None = None
    reported: bool = False  # a report covered it


class SentLog:
    """Gives each packet its transport-wide number and matches feedback to packets. Pure."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: OrderedDict[int, SentPacket] = OrderedDict()
        self._reference: int | None = None
        self.highest_reported = -1

    def add(self, size: int, now: float, probe: int | None = None) -> int:
        """A packet of ``size`` bytes (RTP) leaves now; returns its 16-bit number."""
        sequence = self._next
        self._next += 1
        self._waiting[sequence] = SentPacket(sequence, size + OVERHEAD, now, probe)
        while len(self._waiting) > KEPT or next(iter(self._waiting.values())).sent_at < now - KEPT_S:
            self._waiting.popitem(last=False)
        return sequence & 0xFFFF

    def match(self, feedback: TransportFeedback) -> Sequence[SentPacket]:
        """The packets it tells something new of: arrived, or reported missing for the first time. In order."""
        if self._reference is None:
            self._reference = feedback.reference
        turn = (feedback.reference - self._reference + 0x800000 & 0xFFFFFF) - 0x800000  # the 24 bits wrap in 12 days
        self._reference += turn
        shift = (self._reference - feedback.reference) * REFERENCE_TICKS
        base = nearest(feedback.base, max(0, self.highest_reported))
        told = []
        for sequence, ticks in enumerate(feedback.arrivals, base):
            packet = self._waiting.get(sequence)
            if packet is None:
                continue
            if ticks is not None:
                packet.arrived_at = (ticks + shift) / TICKS_PER_S
                del self._waiting[sequence]
                told.append(packet)
            elif not packet.reported:
                packet.reported = True
                told.append(packet)
            self.highest_reported = max(self.highest_reported, sequence)
        return told

    def in_flight(self, since: float) -> int:
        """Bytes sent after the last packet reported on, and after ``since``: of what left before it, and is all there
        is, a report may never have been owed (the rest of a picture that pauses since then)."""
        return sum(packet.size for packet in self._waiting.values()
                   if packet.sequence > self.highest_reported and packet.sent_at > since)
