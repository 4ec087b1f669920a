"""Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): its wire form, and what to report.

A message tells of a run of transport-wide sequence numbers which of them arrived, and when, in ticks of 250 us.
What a peer sends is taken with care: every length is checked, and what a message may make us hold is bounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

__all__ = [
    "FMT",
    "TICKS_PER_S",
    "URI",
    "Arrivals",
    "MalformedFeedbackError",
    "TransportFeedback",
    "nearest",
    "split_compound",
]

URI: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
FMT: Final = 15
"""Feedback message type among RTPFB (RFC 4585 6.2)."""

TICKS_PER_S: Final = 4000
REFERENCE_TICKS: Final = 256  # the reference time counts 64 ms
RTPFB: Final = 205
MAX_STATUSES: Final = 4096  # of one message taken: 20 s of 2 Mbit/s; 16 bytes could claim 65 535
REPORT_STATUSES: Final = 400  # of one message sent: fits a datagram of 1200 bytes whatever the deltas are
WINDOW: Final = 2048  # sequence numbers remembered behind the newest; a jump ahead by more is a new start

_MISSING, _SMALL, _LARGE = 0, 1, 2


class MalformedFeedbackError(ValueError):
    """A feedback message that breaks its own rules."""


def nearest(sequence: int, around: int) -> int:
    """The extended number (with wrap cycles) of a 16-bit ``sequence`` that is nearest to ``around``."""
    return around + ((sequence - around + 0x8000) & 0xFFFF) - 0x8000


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    """One message. ``arrivals`` begins with sequence number ``base``: the time in ticks on the receiver's clock, or
    None for what has not arrived. ``reference`` counts 64 ms, ``count`` the messages (8 bit)."""

    base: int
    reference: int
    count: int
    arrivals: tuple[int | None, ...]

    @classmethod
    def parse(cls, fci: bytes) -> TransportFeedback:
        """Raises MalformedFeedbackError."""
        if len(fci) < 8:
            raise MalformedFeedbackError("shorter than its head")
        base, statuses, reference_and_count = struct.unpack_from("!HHL", fci)
        if not 0 < statuses <= MAX_STATUSES:
            raise MalformedFeedbackError(f"{statuses} packets in one message")
        reference = reference_and_count >> 8
        reference -= (reference & 0x800000) << 1
        symbols, at = _read_symbols(fci, statuses)
        ticks = reference * REFERENCE_TICKS
        arrivals: list[int | None] = []
        for symbol in symbols:
            size = symbol if symbol in (_SMALL, _LARGE) else 0
            if at + size > len(fci):
                raise MalformedFeedbackError("fewer times than packets that arrived")
            if size:
                ticks += int.from_bytes(fci[at : at + size], "big", signed=size == _LARGE)
                at += size
            arrivals.append(ticks if size else None)
        return cls(base, reference, reference_and_count & 0xFF, tuple(arrivals))

    def fci(self) -> bytes:
        """The wire form, not padded. The times must be at most 8 s apart (16 bit of ticks)."""
        symbols: list[int] = []
        deltas = bytearray()
        before = self.reference * REFERENCE_TICKS
        for ticks in self.arrivals:
            if ticks is None:
                symbols.append(_MISSING)
                continue
            delta, before = ticks - before, ticks
            symbols.append(_SMALL if 0 <= delta <= 0xFF else _LARGE)
            deltas += delta.to_bytes(symbols[-1], "big", signed=symbols[-1] == _LARGE)
        head = struct.pack("!HHL", self.base, len(symbols), (self.reference & 0xFFFFFF) << 8 | self.count)
        return head + _chunks(symbols) + bytes(deltas)

    def packet(self, ssrc: int, media_ssrc: int) -> bytes:
        """The RTCP packet."""
        body = struct.pack("!LL", ssrc, media_ssrc) + self.fci()
        padding = -len(body) % 4
        if padding:
            body += bytes(padding - 1) + bytes([padding])
        return struct.pack("!BBH", 0x80 | bool(padding) << 5 | FMT, RTPFB, len(body) // 4) + body


def _read_symbols(fci: bytes, statuses: int) -> tuple[list[int], int]:
    """The status of each packet, and where the times begin."""
    symbols: list[int] = []
    at = 8
    while len(symbols) < statuses:
        if at + 2 > len(fci):
            raise MalformedFeedbackError("fewer statuses than it says")
        chunk = fci[at] << 8 | fci[at + 1]
        at += 2
        if not chunk & 0x8000:
            symbols += [chunk >> 13 & 3] * min(chunk & 0x1FFF, statuses - len(symbols))
        elif chunk & 0x4000:
            symbols += [chunk >> shift & 3 for shift in range(12, -1, -2)]
        else:
            symbols += [chunk >> shift & 1 for shift in range(13, -1, -1)]
        if chunk & 0x9FFF == 0:
            raise MalformedFeedbackError("a run of no packets")  # 65 000 of them would be a slow way to say nothing
    return symbols[:statuses], at


def _chunks(symbols: list[int]) -> bytes:
    packed = bytearray()
    at = 0
    while at < len(symbols):
        first = symbols[at]
        run = len(list(takewhile(first.__eq__, symbols[at : at + 0x1FFF])))
        ones = symbols[at : at + 14]
        if run >= (7 if _LARGE in ones else 14) or at + run == len(symbols):
            chunk, taken = first << 13 | run, run
        elif _LARGE not in ones:
            chunk, taken = 0x8000 | sum(symbol << 13 - place for place, symbol in enumerate(ones)), 14
        else:
            chunk, taken = 0xC000 | sum(symbol << 12 - 2 * place for place, symbol in enumerate(ones[:7])), 7
        packed += chunk.to_bytes(2, "big")
        at += taken
    return bytes(packed)


class Arrivals:
    """What arrived on one transport, and which of it is to be reported. Pure."""

    def __init__(self) -> None:
        self._times: dict[int, int] = {}  # extended sequence number -> ticks
        self._highest: int | None = None
        self._kept = 0  # nothing before it is in _times
        self._unreported: int | None = None  # the report begins here
        self._count = 0

    def add(self, sequence: int, now: float) -> None:
        """A packet with transport-wide ``sequence`` arrived at ``now`` (seconds)."""
        highest = self._highest
        extended = sequence + 0x10000 if highest is None else nearest(sequence, highest)
        if highest is None or abs(extended - highest) > WINDOW:
            self._times.clear()
            self._highest = self._unreported = self._kept = extended
        elif extended in self._times:
            return
        else:
            begin = highest + 1 if self._unreported is None else self._unreported
            self._unreported = min(begin, extended)  # later than its successors: told with what is known of those
            self._highest = max(highest, extended)
            self._kept = min(self._kept, extended)
        self._times[extended] = round(now * TICKS_PER_S)

    @property
    def waiting(self) -> bool:
        """Something arrived that no report has told of."""
        return self._unreported is not None

    def reports(self) -> list[TransportFeedback]:
        """All that has not been told yet, in as many messages as it takes."""
        if self._unreported is None or self._highest is None:
            return []
        made = []
        begin: int | None = self._unreported
        while begin is not None:
            report, begin = self._report(begin, self._highest)
            made.append(report)
        self._unreported = None
        while self._kept < self._highest - WINDOW:  # what goes is few, what stays is many: no look at all
            self._times.pop(self._kept, None)
            self._kept += 1
        return made

    def _report(self, begin: int, end: int) -> tuple[TransportFeedback, int | None]:
        """A message from ``begin`` on, and where the next one begins."""
        first = next(self._times[extended] for extended in range(begin, end + 1) if extended in self._times)
        reference = first // REFERENCE_TICKS
        before = reference * REFERENCE_TICKS
        arrivals: list[int | None] = []
        rest: int | None = None
        for extended in range(begin, end + 1):
            ticks = self._times.get(extended)
            if len(arrivals) == REPORT_STATUSES or (ticks is not None and not -0x8000 <= ticks - before <= 0x7FFF):
                rest = extended
                break
            arrivals.append(ticks)
            before = before if ticks is None else ticks
        self._count = self._count + 1 & 0xFF
        return TransportFeedback(begin & 0xFFFF, reference, self._count - 1 & 0xFF, tuple(arrivals)), rest


def split_compound(compound: bytes) -> tuple[bytes, list[bytes]]:
    """An RTCP compound packet without its transport-wide feedback, and the bodies (FCI) of that.

    A compound that does not hold together is returned whole: refusing it is the parser's.
    """
    rest, bodies = bytearray(), []
    at = 0
    while at < len(compound):
        if at + 4 > len(compound):
            return compound, []
        end = at + 4 + 4 * (compound[at + 2] << 8 | compound[at + 3])
        if end > len(compound):
            return compound, []
        if compound[at + 1] == RTPFB and compound[at] & 0x1F == FMT and end - at >= 12:
            padding = compound[end - 1] if compound[at] & 0x20 else 0
            bodies.append(compound[at + 12 : max(at + 12, end - padding)])
        else:
            rest += compound[at:end]
        at = end
    return bytes(rest), bodies
