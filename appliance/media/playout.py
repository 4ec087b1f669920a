"""Play-out of one voice, pulled by the sound card: packets in on the loop, 10 ms blocks out on the audio thread.

The audio thread never waits. Time rules, not the number of packets: a sample is played a certain delay after the
fastest packet would have brought it, and that delay follows ``jitter.DelayTarget``. It is changed by taking out or
putting in single pitch periods, so clock drift between peer and card, and what is left of a burst, disappear the
same way. What is missing when its time comes is, in this order: the copy the next packet carries (in-band FEC),
comfort noise where the sender pauses, or extrapolated by the decoder and counted as concealed.

While nothing at all has arrived, made-up sound is played *instead of* going on in the stream: what comes late after a
stall is still heard, with more delay, which then shrinks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, fields, replace
from typing import Final, Protocol

from appliance.media.jitter import DelayTarget, Lag
from appliance.media.opus import OpusDecoder
from appliance.media.sound import BLOCK_BYTES, BLOCK_SAMPLES, RATE, audioop, crossfade
from appliance.media.stretch import ALIKE, NEEDED, longer, shorter

__all__ = ["Decoder", "Played", "Playout"]

FRAME: Final = RATE // 50  # samples of a packet while none has told otherwise
LEAST_FRAME: Final = RATE // 400  # 2.5 ms, of Opus; packets with less are counted as so much
BUFFER_S: Final = 2.0  # of packets waiting; more means that nobody pulls
CUT_S: Final = 0.4  # of delay above the target: not stretched away but left out
STALL_S: Final = 1.0  # of made-up sound: then it is silence, and play-out begins again
JUMP_S: Final = 10.0  # of RTP time, forward or back: the source began again
BLOCK_S: Final = BLOCK_SAMPLES / RATE
EARLY_S: Final = 0.005  # of delay that could be less before a period is taken out
LATE_S: Final = 0.002  # below it, before one is put in
ROUGH_S: Final = 0.06  # above it: also periods that are not quite alike
CALM_BLOCKS: Final = 5  # between two changes of length
FADE_BYTES: Final = RATE * 5 // 1000 * 2
QUIET: Final = 33  # RMS of 16 bits, -60 dBFS: silence to a listener


class Decoder(Protocol):
    """One codec's stream to 48 kHz mono s16, in order; used by one thread alone. Lengths are samples at 48 kHz."""

    def duration(self, packet: bytes) -> int:
        """Samples in ``packet``. Raises ValueError for what is not of this codec."""

    def pauses(self, packet: bytes) -> bool:
        """Whether the sender sends no sound after it (DTX, comfort noise)."""

    def repeats(self, packet: bytes) -> bool:
        """Whether ``packet`` carries a copy of the one before."""

    def decode(self, packet: bytes) -> bytes: ...

    def previous(self, packet: bytes, samples: int) -> bytes:
        """The ``samples`` before ``packet``, from the copy it carries."""

    def conceal(self, samples: int) -> bytes:
        """``samples`` that go on from what was decoded last; comfort noise after a packet that pauses."""


@dataclass(slots=True)
class Played:
    """Counters of one voice, in samples at 48 kHz where not said otherwise (W3C webrtc-stats names)."""

    received: int = 0  # totalSamplesReceived and jitterBufferEmittedCount: all that was played, made up or not
    concealed: int = 0
    silent_concealed: int = 0
    concealments: int = 0  # events
    repaired: int = 0  # from the copy in a later packet (FEC)
    inserted: int = 0  # insertedSamplesForDeceleration
    removed: int = 0  # removedSamplesForAcceleration, and what was left out
    delay_s: float = 0.0  # jitterBufferDelay: sum over the emitted samples
    target_s: float = 0.0  # jitterBufferTargetDelay: likewise, with what is waited for the picture
    minimum_s: float = 0.0  # jitterBufferMinimumDelay: likewise, what the network alone asks for
    late: int = 0  # packets
    duplicates: int = 0  # packets
    overflow: int = 0  # packets
    undecodable: int = 0  # packets
    resets: int = 0  # the source began again
    energy: float = 0.0  # totalAudioEnergy
    level: float = 0.0  # of the last block, RMS 0..1

    @property
    def discarded(self) -> int:
        """packetsDiscarded: that came too late or too early to be played. One that came twice is none (RFC 7002)."""
        return self.late + self.overflow

    def since(self, before: Played) -> Played:
        """What was counted since then; the level of now."""
        grown = {one.name: getattr(self, one.name) - getattr(before, one.name) for one in fields(self)}
        return Played(**grown | {"level": self.level})


class Playout:
    """The buffer and clock of one voice. ``put`` on the loop, ``take`` on the audio thread.

    ``clock_rate`` is that of the RTP timestamps (48000 for Opus, 8000 for G.711 and, RFC 3551 4.5.2, G.722).
    """

    def __init__(self, decoder: Decoder | None = None, clock_rate: int = RATE) -> None:
        self._decoder = decoder or OpusDecoder()
        self._arriving = self._decoder  # of the packets that are put; the audio thread follows at the restart
        self._scale = RATE // clock_rate
        self._clock_rate = clock_rate
        self._lock = threading.Lock()
        self._packets: dict[int, bytes] = {}  # by extended RTP time, in samples at 48 kHz
        self._highest: int | None = None
        self._target = DelayTarget()
        self._restart = False
        # of the audio thread alone, from here on
        self._next = 0  # the sample that follows what was decoded
        self._pcm = b""  # decoded, not played yet
        self._playing = False
        self._pausing = False
        self._frame = FRAME
        self._held = 0  # samples made up without going on in the stream
        self._concealing = False
        self._delay = 0.0
        self._lag = Lag()
        self._calm = 0
        self._position: tuple[int, float] | None = None
        self.counters = Played()
        self._before = Played()  # counted of the sources before this one
        self.silent = False
        """Received but not played (hold, loudspeaker mute of this session)."""
        self.minimum_delay_s = 0.0
        """Delay at least, for lip-sync: sound waits for a picture that is slower."""
        self.closed = False

    # -- on the loop

    def put(self, timestamp: int, data: bytes, arrival: float) -> None:
        """A packet with its RTP timestamp (32 bit), in any order; ``arrival`` in seconds of the monotonic clock."""
        counters = self.counters
        if self.closed:
            return
        try:
            samples = self._arriving.duration(data)
        except ValueError:
            counters.undecodable += 1
            return
        with self._lock:
            at = self._extend(timestamp)
            if at in self._packets:
                counters.duplicates += 1
                return
            transit = arrival - at / RATE
            self._target.add(transit, arrival, samples / RATE)
            if self._playing and at < self._next and not self._restart and not self._pausing:
                counters.late += 1
                self._target.found()
                return
            if len(self._packets) * max(samples, LEAST_FRAME) > BUFFER_S * RATE:
                del self._packets[min(self._packets)]
                counters.overflow += 1
            self._packets[at] = data

    def restart(self) -> None:
        """Another source takes over (SSRC): what waits of the old one is thrown away, and time begins anew."""
        with self._lock:
            self._begin_again()
            self._highest = None
        self._before = replace(self.counters)

    @property
    def of_source(self) -> Played:
        """The counters of the source that plays (SSRC), as W3C has them for each by itself."""
        return self.counters.since(self._before)

    def use(self, decoder: Decoder, clock_rate: int) -> None:
        """What follows is of another codec."""
        with self._lock:
            self._arriving, self._clock_rate, self._scale = decoder, clock_rate, RATE // clock_rate
            self._begin_again()
            self._highest = None

    def close(self) -> None:
        """Nothing is taken in any more; what waits is thrown away."""
        with self._lock:
            self.closed = True
            self._packets.clear()

    @property
    def position(self) -> tuple[int, float] | None:
        """RTP timestamp (32 bit) of the sample given to the card last, and when (monotonic seconds)."""
        return self._position

    @property
    def delay_s(self) -> float:
        """Seconds that sound waits here now, beyond its fastest packet; 0 while nothing is played."""
        return self._lag.least or 0.0 if self._playing else 0.0

    def _extend(self, timestamp: int) -> int:
        """The RTP time without wrap, in samples at 48 kHz."""
        scale = self._scale
        if self._highest is None:
            self._highest = timestamp + (1 << 32)  # one cycle ahead: an early reordering stays positive
            return self._highest * scale
        distance = (timestamp - self._highest + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        if distance < -JUMP_S * self._clock_rate or (distance > JUMP_S * self._clock_rate and not self._pausing):
            self._begin_again()
        at = self._highest + distance
        self._highest = max(self._highest, at) if abs(distance) <= JUMP_S * self._clock_rate else at
        return at * scale

    def _begin_again(self) -> None:
        self._packets.clear()
        self._target.reset()
        self._restart = True
        self.counters.resets += 1

    # -- on the audio thread

    def take(self, now: float | None = None) -> bytes | None:
        """The next 10 ms for the loudspeaker, None where there is nothing to play. Never waits.

        ``now`` in seconds of the monotonic clock.
        """
        now = time.monotonic() if now is None else now
        if self._restart:
            self._restart = False
            self._decoder, self._frame = self._arriving, FRAME
            self._stop()
        if not self._playing and not self._start(now):
            self._position = None
            self.counters.level = 0.0
            return None
        self._judge(now)
        while len(self._pcm) < BLOCK_BYTES:
            if not self._produce(now):
                return None
        block, self._pcm = self._pcm[:BLOCK_BYTES], self._pcm[BLOCK_BYTES:]
        self._count(block, now)
        return None if self.silent else block

    def _wanted(self, now: float, lead_s: float) -> float:
        return max(self._target.at(now, lead_s), self.minimum_delay_s)

    @property
    def _lead_s(self) -> float:
        """How long before its first sample is played a packet is needed: when the block begins whose end it is in."""
        step = min(self._frame, BLOCK_SAMPLES)
        return (len(self._pcm) // 2 % step + BLOCK_SAMPLES - step) / RATE

    def _start(self, now: float) -> bool:
        """Begin with the packet whose time has come; older ones are no reason for delay, nothing was heard yet."""
        with self._lock:
            base = self._target.base
            if base is None or not self._packets:
                return False
            due = (now - base - self._wanted(now, self._lead_s)) * RATE
            ready = [at for at in self._packets if at <= due]
            if not ready:
                return False
            first = max(ready)
            for at in ready:
                if at != first:
                    del self._packets[at]
                    self.counters.removed += self._frame
            self._next, self._playing = first, True
        self._pcm, self._held, self._calm = b"", 0, 0
        self._lag.reset()
        self._pausing = self._concealing = False
        return True

    def _stop(self) -> None:
        self._playing, self._pcm = False, b""
        self._held = 0
        self._lag.reset()
        self._pausing = self._concealing = False

    def _judge(self, now: float) -> None:
        """Note how late the sound played now is."""
        base = self._target.base
        if base is None:
            return
        playing = self._next - len(self._pcm) // 2
        self._delay = now - base - playing / RATE
        self._lag.note(self._delay)

    def _produce(self, now: float) -> bool:
        """Append what comes next to the decoded sound. False: play-out ended."""
        with self._lock:
            if self._restart:  # since this block began: what waits now is for another decoder
                return False
            data = self._packets.pop(self._next, None)
            first = self._first_waiting() if data is None else None
            if first is not None and self._reaches(first, now):
                self._next = first
                data = self._packets.pop(first)
            following = None if first is None or self._pausing else self._packets.get(first)
        if data is not None:
            self._decode(data, now)
        elif self._pausing:
            self._append(self._made_up(BLOCK_SAMPLES))
            self._next += BLOCK_SAMPLES
        elif first is not None and following is not None:
            self._bridge(first, following, now)
        else:
            return self._stall()
        return True

    def _reaches(self, first: int, now: float) -> bool:
        """Whether play-out goes on with the packet at ``first``, before which nothing is here."""
        if self._pausing:  # it was as long as the delay needs it
            delay = now - (self._target.base or 0.0) - (first - len(self._pcm) // 2) / RATE
            ended = delay >= self._wanted(now, self._lead_s) - LATE_S
            if ended:
                self._lag.reset()
            return ended
        passed = max(0, min(self._held, first - self._next))  # packets of some senders overlap a little
        if passed:
            self._target.lost(now)
        self._next += passed
        self._held -= passed
        self._lag.moved(-passed / RATE)
        if first - self._next > CUT_S * RATE:  # a pause without a word of it, or a long outage
            self._lag.reset()
            return True
        return self._next >= first

    def _first_waiting(self) -> int | None:
        """The earliest packet that is here. One that came while it was being made up is late: its time has passed."""
        while self._packets:
            first = min(self._packets)
            if self._pausing or first + self._frame > self._next:
                return first
            del self._packets[first]
            self.counters.late += 1
        return None

    def _decode(self, data: bytes, now: float) -> None:
        try:
            pcm = self._decoder.decode(data)
        except ValueError:
            self.counters.undecodable += 1
            self._conceal(self._frame)
            self._next += self._frame
            return
        self._frame = samples = len(pcm) // 2
        self._next += samples
        self._held = 0
        self._pausing = self._decoder.pauses(data)
        self._append(pcm)
        self._adapt(now)

    def _bridge(self, first: int, following: bytes, now: float) -> None:
        """Something is missing before ``first``, which is here."""
        gap = first - self._next
        self._target.lost(now)
        if gap <= self._frame and self._decoder.repeats(following):
            try:
                pcm = self._decoder.previous(following, gap)
            except ValueError:
                pcm = b""
            if pcm:
                self._append(pcm)
                self._next = first
                self.counters.repaired += gap
                return
        step = min(gap, self._frame)
        self._conceal(step)
        self._next += step

    def _stall(self) -> bool:
        """Nothing is here at all. Go on with made-up sound, but not in the stream."""
        if self._held > STALL_S * RATE:
            self._stop()
            return False
        step = BLOCK_SAMPLES
        self._conceal(step)
        self._held += step
        self._lag.moved(step / RATE)
        return True

    def _made_up(self, samples: int) -> bytes:
        try:
            return self._decoder.conceal(samples)
        except ValueError:
            return bytes(samples * 2)

    def _conceal(self, samples: int) -> None:
        counters = self.counters
        if not self._concealing:
            self._concealing = True
            counters.concealments += 1
        pcm = self._made_up(samples)
        counters.concealed += samples
        if audioop.rms(pcm, 2) < QUIET:
            counters.silent_concealed += samples
        self._pcm += pcm

    def _append(self, pcm: bytes) -> None:
        self._concealing = False
        self._pcm += pcm

    def _adapt(self, now: float) -> None:
        """Bring the delay nearer to what is wanted: period by period, or at once where it is far too long."""
        self._calm = max(0, self._calm - self._frame // BLOCK_SAMPLES)
        lag = self._lag.least
        if lag is None or self._pausing:
            return
        lead = self._lead_s
        excess = lag - self._wanted(now, lead)
        if excess > CUT_S:
            self._cut(excess)
            return
        if self._calm or len(self._pcm) < NEEDED * 2:
            return
        alike = 0.0 if excess > ROUGH_S else ALIKE
        pcm = self._pcm
        # Less lead costs nothing; beyond it every packet is needed a whole block sooner.
        room = lead + (lag - lead - self._wanted(now, 0.0)) // BLOCK_S * BLOCK_S
        if room >= EARLY_S:
            pcm = shorter(pcm, alike, round(room * RATE))
            self.counters.removed += (len(self._pcm) - len(pcm)) // 2
        elif excess <= -LATE_S:
            pcm = longer(pcm, alike)
            self.counters.inserted += (len(pcm) - len(self._pcm)) // 2
        if moved := (len(pcm) - len(self._pcm)) / 2 / RATE:
            self._lag.moved(moved)
            self._pcm = pcm
            self._calm = 0 if excess > ROUGH_S else CALM_BLOCKS

    def _cut(self, excess: float) -> None:
        """Leave out packets until the delay is what it should be; faded, so that nothing clicks."""
        with self._lock:
            keep = self._next + int(excess * RATE)
            passed = sorted(at for at in self._packets if at < keep)
            old = self._pcm
            for at in passed[:-1]:
                del self._packets[at]
            if not passed:
                return
            data = self._packets.pop(passed[-1])
            left_out = passed[-1] - self._next
        try:
            pcm = self._decoder.decode(data)
        except ValueError:
            return
        width = min(len(old), len(pcm), FADE_BYTES)
        self._pcm = crossfade(old[:width], pcm[:width]) + pcm[width:] if width else pcm
        self._next = passed[-1] + len(pcm) // 2
        self._lag.moved(-left_out / RATE)
        self.counters.removed += left_out

    def _count(self, block: bytes, now: float) -> None:
        counters = self.counters
        counters.received += BLOCK_SAMPLES
        counters.delay_s += max(0.0, self._delay) * BLOCK_SAMPLES
        needed = self._target.at(now, self._lead_s)
        counters.minimum_s += needed * BLOCK_SAMPLES
        counters.target_s += max(needed, self.minimum_delay_s) * BLOCK_SAMPLES
        counters.level = audioop.rms(block, 2) / 32768
        counters.energy += counters.level**2 * BLOCK_SAMPLES / RATE
        at = self._next - len(self._pcm) // 2
        self._position = (at // self._scale & 0xFFFFFFFF, now)
