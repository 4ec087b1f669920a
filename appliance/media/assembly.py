"""Packets of one video source to whole access units, and the holes between them asked for again.

Pure: the caller gives the time, in seconds of one monotonic clock. Sequence numbers are extended (with wrap cycles).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from appliance.media.api import AccessUnit
from appliance.media.lipsync import VIDEO_CLOCK

__all__ = ["LossList", "VideoAssembler", "is_key_frame"]

MAX_GAP: Final = 512  # a jump of sequence numbers beyond this is a new start, not a loss (RFC 3550 A.1: 3000)
MAX_HOLES: Final = 128  # missing at once; a key frame costs less than to send so much again (libwebrtc: 1000)
BLACKOUT: Final = 16  # missing after a gap as long as the patience: what was in them is too old to be asked for
MAX_BYTES: Final = 3_000_000  # buffered behind a hole: 8 s of 3 Mbit/s, far beyond the longest patience
MAX_PACKETS: Final = 4096  # likewise; those of a real picture are a thousand bytes each
MAX_KEY_STARTS: Final = 8  # key frames followed behind a hole; a peer that begins more is not helped by them

ROUND_TRIP_S: Final = 0.05  # until one is measured
HINT_MARGIN: Final = 9 / 8  # over a round trip that RTCP measured: it knows nothing of the repair's own way
VARIATIONS: Final = 2  # of the measured round trip, that a retry waits over it
LONG_MARGIN: Final = 1 / 16  # or such a share of a long round trip, where a second request costs more than its wait
RETRY_MARGIN_S: Final = 0.005  # or so much: each millisecond counts three times in a repair that fails twice
RETRY_LEAST_S: Final = 0.03  # senders do not repeat a packet faster
RETRY_MOST_S: Final = 1.0
TRIES: Final = 10  # as libwebrtc
GUESS_TRIES: Final = 2  # while nothing behind it has come: the peer may have paused
SURELY_LATE: Final = 3  # requests: two retransmissions in a row are seldom lost (4 % of holes at 10 % loss both ways)
ECHOES: Final = 1  # repetitions of a request under high loss, and of each retry: it may be lost too, and costs 16 bytes
ECHO_S: Final = 0.012  # after it, so that the sender takes both for one
ECHO_LOSS: Final = 0.01  # share of packets lost from which on even the first request is repeated
LOSS_WEIGHT: Final = 1 / 256
REORDER_MOST_S: Final = 0.02  # patience with packets that overtake each other, before the first request
REORDER_DECAY: Final = 0.98  # per hole that reordering did not explain
TAIL_LEAST_S: Final = 0.008  # after a packet of a picture, or the next one's time, before more is asked for unseen
TAIL_SPREADS: Final = 1.5  # or so many times the longest gap, or delay of a picture, of late
TAIL_MOST_S: Final = 0.1  # beyond, the next picture shows it sooner: nothing is asked for unseen
TAIL_PACKETS: Final = 6  # of one picture asked for unseen at most
GAP_DECAY: Final = 0.997  # per packet: half of it after 1.5 s of full video; less asks in vain where there is jitter
LATE_DECAY: Final = 0.992  # per picture, of the most that one came later than its interval

PLEAD_RETRIES: Final = 2.5  # a hole this many retry intervals old is worth a key frame, while it is still asked for
PLEAD_LEAST_S: Final = 0.15
GIVE_UP_RETRIES: Final = 4.5  # and so old it is not waited for any more
GIVE_UP_LEAST_S: Final = 0.4
GIVE_UP_MOST_S: Final = 3.0
NEVER_RESENT_S: Final = 0.05  # where nothing is sent again: as long as packets overtake each other


def is_key_frame(access_unit: bytes) -> bool:
    """Whether an Annex-B access unit holds an IDR slice (5); parameter sets (7) stand before one."""
    at = access_unit.find(b"\x00\x00\x01")
    while at != -1 and at + 3 < len(access_unit):
        kind = access_unit[at + 3] & 0x1F
        if kind in (5, 7):
            return True
        if kind == 1:
            return False
        at = access_unit.find(b"\x00\x00\x01", at + 3)
    return False


def _begins_key_frame(data: bytes) -> bool:
    """Whether a depayloaded packet is the first of a key frame: its parameter sets. (An IDR slice of macroblock 0 is
    not: the packet with the parameter sets may be what was lost.)"""
    at = data.find(b"\x00\x00\x01", 0, 4)
    while at != -1 and at + 3 < len(data):
        kind = data[at + 3] & 0x1F
        if kind == 7:
            return True
        if kind not in (6, 9):  # SEI and the delimiter may stand before
            return False
        at = data.find(b"\x00\x00\x01", at + 3)
    return False


@dataclass(slots=True)
class _Hole:
    since: float
    due: float  # of the next request
    asked: float = 0.0
    first_asked: float = 0.0
    times: int = 0
    guessed: bool = False  # nothing behind it has come: it may not have been sent
    echoes: int = 0  # repetitions of the last request that are still to come

    @property
    def tries(self) -> int:
        return GUESS_TRIES if self.guessed else TRIES


class LossList:
    """Missing packets: when to ask for each (RFC 4585 generic NACK), and when not to wait for it any more."""

    def __init__(self) -> None:
        self._holes: dict[int, _Hole] = {}
        self._smoothed: float | None = None  # RFC 6298 SRTT and RTTVAR, from request to retransmission
        self._variation = 0.0
        self._doubtful = 0  # times in a row that nobody knew which request was answered
        self._reordering = 0.0
        self._loss = 0.0
        self.round_trip_hint: float | None = None  # seconds, by RTCP: holds until an own one is measured
        self.resent = True  # the peer sends again what it is asked for

    def __len__(self) -> int:
        return len(self._holes)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._holes

    @property
    def retry_s(self) -> float:
        """Between two requests for one packet: a round trip with its variation."""
        if self._smoothed is not None:
            trip = self._smoothed + max(RETRY_MARGIN_S, VARIATIONS * self._variation, self._smoothed * LONG_MARGIN)
        else:
            trip = ROUND_TRIP_S if self.round_trip_hint is None else HINT_MARGIN * self.round_trip_hint
        return min(RETRY_MOST_S, max(RETRY_LEAST_S, trip))

    @property
    def plead_s(self) -> float:
        """Age of a hole at which a key frame is asked for beside the packet itself."""
        return max(PLEAD_LEAST_S, PLEAD_RETRIES * self.retry_s) if self.resent else NEVER_RESENT_S

    @property
    def give_up_s(self) -> float:
        """Age of a hole at which it is not waited for any more."""
        if not self.resent:
            return NEVER_RESENT_S
        return min(GIVE_UP_MOST_S, max(GIVE_UP_LEAST_S, GIVE_UP_RETRIES * self.retry_s))

    def seen(self) -> None:
        """A packet came where it was expected."""
        self._loss -= self._loss * LOSS_WEIGHT

    def missing(self, first: int, end: int, now: float) -> None:
        """``first`` up to ``end`` (exclusive) were skipped."""
        for sequence in range(first, end):
            self._loss += (1 - self._loss) * LOSS_WEIGHT
            hole = self._holes.setdefault(sequence, _Hole(now, now + self._reordering))
            if hole.guessed:
                hole.guessed, hole.since = False, now

    def overdue(self, sequence: int, now: float) -> None:
        """Nothing behind ``sequence`` came either, but it should be here by now: it is asked for at once."""
        if not self.resent:
            return
        self._holes.setdefault(sequence, _Hole(now, now, guessed=True))

    def found(self, sequence: int, now: float, *, resent: bool) -> None:
        """A packet is here that may have been missing."""
        hole = self._holes.pop(sequence, None)
        if hole is None:
            return
        if resent and hole.times:
            self._measure(hole, now)
        elif not resent and not hole.guessed and (not hole.times or now - hole.first_asked < self.retry_s / 2):
            self._reordering = min(REORDER_MOST_S, max(self._reordering, (now - hole.since) * 1.5))

    def forget_before(self, sequence: int) -> list[int]:
        """Packets before ``sequence`` are not needed any more; returns those that had not come."""
        forgotten = [hole for hole in self._holes if hole < sequence]
        for hole in forgotten:
            del self._holes[hole]
        return forgotten

    def clear(self) -> None:
        self._holes.clear()

    def due(self, now: float) -> list[int]:
        """What to ask for now, as extended sequence numbers; each counts as asked."""
        if not self.resent:
            return []
        asking = []
        for sequence, hole in self._holes.items():
            if now < hole.due or hole.times >= hole.tries:
                continue
            if not hole.times:
                hole.first_asked = now
                self._reordering *= REORDER_DECAY
            if hole.echoes:
                hole.echoes -= 1
            else:
                hole.times += 1
                hole.asked = now
                hole.echoes = ECHOES if hole.times > 1 or self._loss >= ECHO_LOSS else 0
            hole.due = now + ECHO_S if hole.echoes else hole.asked + self.retry_s
            asking.append(sequence)
        return asking

    def asked(self) -> list[int]:
        """What was asked for and has not come."""
        return [sequence for sequence, hole in self._holes.items() if hole.times]

    def oldest(self) -> float | None:
        """Since when the oldest hole is one, of those behind which something has come."""
        return min((hole.since for hole in self._holes.values() if not hole.guessed), default=None)

    def next_at(self) -> float | None:
        """When ``due`` has something again; None: nothing is missing that may be asked for."""
        if not self.resent:
            return None
        return min((hole.due for hole in self._holes.values() if hole.times < hole.tries), default=None)

    def _measure(self, hole: _Hole, now: float) -> None:
        """Karn's rule: of a packet asked for more than once nobody knows which request was answered. Of one asked for
        many times it was rather the first, on a path longer than is believed, which could not be learnt otherwise."""
        if hole.times == 1:
            self._doubtful = 0
            trip = now - hole.asked
            if self._smoothed is not None and self._smoothed < trip < self._smoothed + ECHOES * ECHO_S:
                trip = max(self._smoothed, trip - ECHOES * ECHO_S)  # the repetition may be what was answered
        else:
            self._doubtful += hole.times >= SURELY_LATE
            if self._doubtful < SURELY_LATE:
                return
            trip = now - hole.first_asked
        if self._smoothed is None:
            self._smoothed, self._variation = trip, trip / 4
            return
        self._variation += (abs(trip - self._smoothed) - self._variation) / 4
        self._smoothed += (trip - self._smoothed) / 8


class VideoAssembler:
    """Packets to access units, in order, each as soon as its last packet (marker) is here.

    Behind a hole everything waits, except for a whole key frame: it needs nothing that was before it. When a hole is
    given up nothing is handed on before the next key frame.
    """

    def __init__(self) -> None:
        self.losses = LossList()
        self._packets: dict[int, tuple[int, bool, bytes, float]] = {}  # -> (timestamp, marker, data, arrival)
        self._bytes = 0
        self._first: int | None = None  # of the access unit that is being put together
        self._at = 0  # first packet not looked at: all from _first to here are present and of one access unit
        self._timestamp = 0
        self._highest = 0
        self._heard = 0.0  # when the highest came
        self._gap = 0.0  # longest of late between two packets of one picture
        self._late = 0.0  # most of late that a picture came after it was due
        self._newest = 0  # timestamp of the picture that came last
        self._begun = 0  # its first packet
        self._begun_at = 0.0
        self._ended = False  # it has its last packet
        self._interval = 0.0  # to the one before, by their timestamps
        self._length = 0  # packets of the one before
        self._tail_at: float | None = None  # the packet after the highest is overdue from then on
        self._key_starts: dict[int, tuple[int, int]] = {}  # behind a hole: timestamp -> first packet, next to come
        self.wants_key = True  # nothing is handed on before a key frame
        self.asks_key = False  # and one must be asked for: the first frame may well be one that is still coming
        self.given_up = 0
        self.skipped = 0  # holes that a key frame made worthless
        self._forgotten: deque[int] = deque(maxlen=MAX_GAP)  # packets that are not waited for any more
        self.discarded = 0  # packets that came when they were not waited for any more; those that came twice are none

    @property
    def buffered_bytes(self) -> int:
        return self._bytes

    def add(
        self, sequence: int, timestamp: int, marker: bool, data: bytes, now: float, *, resent: bool = False,
    ) -> list[AccessUnit]:
        """Take a packet; returns the access units that are complete now."""
        if self._first is None or abs(sequence - self._highest) > MAX_GAP:
            if resent:  # long given up, or padding of a peer that probes its path (libwebrtc): no source begins so
                return []
            self._start_at(sequence)
        if sequence < self._at or sequence in self._packets:
            if sequence in self._forgotten:
                self._forgotten.remove(sequence)
                self.discarded += 1
            return []
        blackout = False
        self.losses.found(sequence, now, resent=resent)
        if sequence > self._highest:
            self.losses.seen()
            if sequence > self._highest + 1:
                self.losses.missing(max(self._highest + 1, self._at), sequence, now)
            self._expect(sequence, timestamp, marker, now, resent=resent)
            blackout = now - self._heard >= self.losses.give_up_s and len(self.losses) >= BLACKOUT
            self._highest, self._heard = sequence, now
        self._packets[sequence] = (timestamp, marker, data, now)
        self._bytes += len(data)
        units: list[AccessUnit] = []
        if sequence > self._at and self.losses and _begins_key_frame(data):
            self._note_key_start(sequence, timestamp)
        if self._key_starts:
            self._jump()
        self._advance(now, units)
        full = self._bytes > MAX_BYTES or len(self._packets) > MAX_PACKETS
        if blackout or full or len(self.losses) > MAX_HOLES:
            self._give_up()
        return units

    def tick(self, now: float) -> list[int]:
        """Extended sequence numbers to ask for now; gives up holes that are too old."""
        if self._tail_at is not None and now >= self._tail_at:
            self._tail_at = None
            for sequence in self._overdue():
                self.losses.overdue(sequence, now)
        while (oldest := self.losses.oldest()) is not None and now >= oldest + self.losses.give_up_s:
            self._give_up()  # up to a key frame that has begun to come, which may have holes as old
        if oldest is not None and now >= oldest + self.losses.plead_s:
            self.asks_key = True
        return self.losses.due(now)

    def next_at(self) -> float | None:
        """When ``tick`` has something to do again, None while nothing is missing or overdue."""
        moments = [at for at in (self.losses.next_at(), self._tail_at) if at is not None]
        oldest = self.losses.oldest()
        if oldest is not None:
            moments.append(oldest + self.losses.give_up_s)
            if not self.asks_key:
                moments.append(oldest + self.losses.plead_s)
        return min(moments, default=None)

    def need_key(self) -> None:
        """The decoder lost its place."""
        self.wants_key = self.asks_key = True

    def forget(self) -> None:
        """Keep nothing but the counters and what is known of the path; the next packet is a beginning."""
        self._packets.clear()
        self._bytes = 0
        self._key_starts.clear()
        self._forgotten.clear()
        self.losses.clear()
        self._first = self._tail_at = None
        self.wants_key = True

    # -- private

    def _expect(self, sequence: int, timestamp: int, marker: bool, now: float, *, resent: bool) -> None:
        """When the next packet is overdue. The packets of a picture come close upon each other, and pictures at an
        interval: how close and how punctually is learnt. The loss of the last packets of a picture, or of all, would
        show only with the next picture."""
        self._gap *= GAP_DECAY
        if timestamp != self._newest:
            self._begin(sequence, timestamp, now, resent=resent)
        elif not resent and (before := self._packets.get(sequence - 1)) is not None:
            self._gap = max(self._gap, now - before[3])
        self._ended = marker
        due, spread = (self._begun_at + self._interval, self._late) if marker else (now, self._gap)
        at = due + max(TAIL_LEAST_S, TAIL_SPREADS * spread)
        known = self._interval > 0 or not marker
        self._tail_at = at if known and now < at <= due + TAIL_MOST_S else None

    def _begin(self, sequence: int, timestamp: int, now: float, *, resent: bool) -> None:
        """A picture begins."""
        interval = (timestamp - self._newest & 0xFFFFFFFF) / VIDEO_CLOCK
        self._late *= LATE_DECAY
        late = now - self._begun_at - self._interval
        if sequence == self._highest + 1 and not resent and self._interval and late <= TAIL_MOST_S:  # else a pause
            self._late = max(self._late, late)
        self._interval = interval if TAIL_LEAST_S <= interval <= TAIL_MOST_S else 0.0
        self._length = sequence - self._begun
        self._begun, self._begun_at, self._newest = sequence, now, timestamp

    def _overdue(self) -> range:
        """What the newest picture still lacks, or the next one has, when it is as large as the one before; one packet
        at the least."""
        here = self._highest + 1 - self._begun
        lacks = here if self._ended else self._length - here
        return range(self._highest + 1, self._highest + 1 + max(1, min(TAIL_PACKETS, lacks)))

    def _start_at(self, sequence: int) -> None:
        """A source begins, or begins again."""
        if self._first is not None:
            self.asks_key = True
        self.forget()
        self._first = self._at = sequence
        self._highest = sequence - 1

    def _advance(self, now: float, units: list[AccessUnit]) -> None:
        while (packet := self._packets.get(self._at)) is not None:
            timestamp, marker, data, _ = packet
            if self._at != self._first:
                if timestamp != self._timestamp:  # the end of the one before was not marked
                    self._finish(now, units)
            elif not data:  # padding between two access units, which probes the path
                del self._packets[self._at]
                self._at += 1
                self._first = self._at
                continue
            self._timestamp = timestamp
            self._at += 1
            if marker:
                self._finish(now, units)

    def _finish(self, now: float, units: list[AccessUnit]) -> None:
        packets = [self._packets.pop(sequence) for sequence in range(self._first or 0, self._at)]
        data = b"".join([packet[2] for packet in packets])
        self._first = self._at
        self._bytes -= len(data)
        if not data:  # padding alone: to a decoder it would mean the end of the stream
            return
        key = is_key_frame(data)
        if key:
            self.wants_key = self.asks_key = False
        elif self.wants_key:
            self.asks_key = True
            return
        units.append(AccessUnit(data, self._timestamp, key, min(packet[3] for packet in packets), now))

    def _note_key_start(self, sequence: int, timestamp: int) -> None:
        """Some encoders repeat the parameter sets before every slice: the first of them begins the picture."""
        if sequence < self._key_starts.get(timestamp, (sequence + 1, 0))[0]:
            self._key_starts[timestamp] = sequence, sequence
        if len(self._key_starts) > MAX_KEY_STARTS:
            del self._key_starts[next(iter(self._key_starts))]

    def _jump(self) -> None:
        """Go on with a key frame that is whole although something before it is missing."""
        self._key_starts = {stamp: known for stamp, known in self._key_starts.items() if known[0] > self._at}
        for timestamp, (start, looked_at) in self._key_starts.items():
            at = looked_at
            while (packet := self._packets.get(at)) is not None and packet[0] == timestamp:
                if packet[1]:
                    self._drop_before(start)
                    self.skipped += 1
                    return
                at += 1
            self._key_starts[timestamp] = start, at  # no packet is looked at twice, however long the picture is

    def _give_up(self) -> None:
        """Throw away what waits: behind a hole only a key frame can be shown. One that has begun to come is kept."""
        self.given_up += 1
        self.wants_key = self.asks_key = True
        begun = (start for start, _ in self._key_starts.values() if start > self._at)
        self._drop_before(next(begun, self._highest + 1))

    def _drop_before(self, start: int) -> None:
        for sequence in [sequence for sequence in self._packets if sequence < start]:
            self._bytes -= len(self._packets.pop(sequence)[2])
        self._first = self._at = start
        self._key_starts = {stamp: known for stamp, known in self._key_starts.items() if known[0] > start}
        self._forgotten += self.losses.forget_before(start)
