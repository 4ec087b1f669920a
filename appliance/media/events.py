"""Telephone events (RFC 4733): digits as packets of their own in the stream of the voice. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["DIGITS", "EVENT_MIME", "EventPacket", "EventReader", "packets_of"]

EVENT_MIME: Final = "audio/telephone-event"
DIGITS: Final = "0123456789*#ABCD"  # events 0 to 15 (3.2)
LEVEL: Final = 10  # sent as -10 dBm0, where telephones have it
END_REPEATS: Final = 3  # the end is told three times: nothing else repeats it (2.5.1.4)
LONGEST: Final = 0xFFFF  # ticks of one event; longer ones go in segments (2.5.1.3), which no digit needs


@dataclass(frozen=True, slots=True)
class EventPacket:
    """The payload of one packet. ``duration`` in ticks of the stream's clock, from the event's beginning on."""

    event: int
    duration: int
    end: bool = False
    level: int = LEVEL

    def pack(self) -> bytes:
        return struct.pack("!BBH", self.event, self.end << 7 | self.level, self.duration)

    @classmethod
    def parse(cls, payload: bytes) -> EventPacket:
        """Raises ValueError."""
        if len(payload) < 4:
            raise ValueError("a telephone event has four bytes")
        event, flags, duration = struct.unpack_from("!BBH", payload)
        return cls(event, duration, bool(flags & 0x80), flags & 0x3F)


def packets_of(digit: str, seconds: float, clock_rate: int, step_s: float) -> Iterator[EventPacket]:
    """The packets of one digit: one each ``step_s``, the last one as often as it is repeated at once.

    Raises ValueError for what is no digit, or lasts longer than a packet can say.
    """
    event, total = DIGITS.find(digit.upper()), round(seconds * clock_rate)
    if len(digit) != 1 or event < 0:
        raise ValueError(f"{digit!r} is no digit of a telephone: {DIGITS}")
    step = round(step_s * clock_rate)
    if not step < total <= LONGEST:
        raise ValueError(f"a digit lasts {step_s} to {LONGEST / clock_rate:.1f} s here, not {seconds}")
    for duration in range(step, total, step):
        yield EventPacket(event, duration)
    for _ in range(END_REPEATS):
        yield EventPacket(event, total, end=True)


class EventReader:
    """Digits of what arrives, each told once: at its first packet, whichever of them that is."""

    def __init__(self) -> None:
        self._told: int | None = None  # RTP timestamp of the latest

    def take(self, timestamp: int, packet: EventPacket) -> str | None:
        """The digit that begins with this packet, None where it was told or is none. Of an event that is over at its
        first packet (all but its end were lost) the digit is told too; one that comes late, after the next, is not."""
        if self._told is not None and not 0 < (timestamp - self._told & 0xFFFFFFFF) < 1 << 31:
            return None
        self._told = timestamp
        return DIGITS[packet.event] if packet.event < len(DIGITS) else None
