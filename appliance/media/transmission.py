"""What all streams of one transport share on their way out: pacing, transport-wide numbers, the estimate, and who gets
what of it; and the reports on what comes in.

Sound leaves at once; the picture, what was lost of it and probes leave through the pacer, whose task sends and sleeps
until the next burst is due.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from appliance.media.congestion.allocation import AUDIO_BPS, Allocation, Allocator, Meter
from appliance.media.congestion.estimator import START_BPS, UNHEARD_S, Estimator
from appliance.media.congestion.pacer import Pacer, Priority, RetransmissionBudget
from appliance.media.congestion.remb import RembEstimate
from appliance.media.congestion.sent import OVERHEAD, SentLog
from appliance.media.congestion.transport_cc import Arrivals, MalformedFeedbackError, TransportFeedback
from appliance.media.dtls_seam import Outlet
from appliance.tasks import background, fail_loudly

__all__ = ["Outbound", "Transmission"]

log = logging.getLogger(__name__)

REPORT_S: Final = (0.05, 0.1)  # between reports: the first while much arrives, the second for sound alone
BUSY_PACKETS: Final = 10  # in one report: more than sound alone brings in the longer interval
TICK_S: Final = 0.25
REPEAT_LOSS: Final = 0.005  # share of packets lost from which on a retransmission is worth a second copy
UNREPORTED_S: Final = 3.0  # a peer that promised transport-wide feedback and gives none: REMB and loss must do
DEMAND_OVERHEAD: Final = 1.08  # headers on what the encoder makes
UNBOUNDED_FACTOR: Final = 2.0  # then: more than headers and repair can take of it
UNBOUNDED_PACING_BPS: Final = 6_000_000  # while nothing is known to limit the path
NTP_UNIX_S: Final = 2_208_988_800  # seconds between 1900 and 1970


@dataclass(slots=True)
class Outbound:
    """One RTP packet on its way out. ``wide_at`` and ``time_at``: where the transport-wide sequence number and the
    abs-send-time stand in it, written when it leaves; None when not negotiated."""

    data: bytearray
    wide_at: int | None = None
    time_at: int | None = None
    sent_at: float = 0.0  # monotonic, once it has left

    @property
    def size(self) -> int:
        return len(self.data)


class Transmission:
    """One transport's packets out, and its ``TransportWide`` of the seam. On the loop; ends with ``close``.

    ``on_allocation`` is told what the picture may have, several times a second while packets leave; ``on_failure`` of
    the exception by which sending ended.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._ntp_origin = time.time() - time.monotonic() + NTP_UNIX_S
        self._send: Callable[[bytes], Awaitable[None]] | None = None
        self._sent = SentLog()
        self._estimator = Estimator()
        self._remb = RembEstimate()
        self._allocator = Allocator()
        self._pacer: Pacer[Outbound] = Pacer(self._estimator.pacing_bps, self._pad)
        self._padding: Callable[[int], Outbound | None] = _no_padding
        self._budget = RetransmissionBudget()
        self._meters = {"audio": Meter(), "video": Meter(), "headers": Meter(), "repair": Meter()}
        self._first_sent_at: float | None = None
        self._wide = False
        self._kick = asyncio.Event()
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._sending_since: float | None = None
        self._gone = False
        self._arrivals = Arrivals()
        self._outlet: Outlet | None = None
        self._ssrc = 0
        self._peer_ssrc = 0
        self._reporting: asyncio.TimerHandle | None = None
        self._interval = REPORT_S[1]
        self._closed = False
        self.on_allocation: Callable[[Allocation], None] = _nobody
        self.on_failure: Callable[[Exception], None] = fail_loudly
        self.demand: Callable[[], int | None] = _no_demand
        """Bits per second the encoder would make at most; None: no picture is sent."""
        self.allocation = Allocation(START_BPS, AUDIO_BPS, None)
        self.reports_sent = 0
        self.reports_received = 0
        self.reports_malformed = 0
        self.packets_arrived = 0  # of ours, by the peer's reports
        self.packets_lost = 0
        self.probes = 0

    # -- out

    def ntp(self, now: float) -> float:
        """Seconds since 1900 at the monotonic time ``now``. A clock that is set in the middle of a call, as on a device
        without a battery, does not move it: at the peer sound and picture would come apart."""
        return self._ntp_origin + now

    def attach(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """``send`` protects and sends one packet; the same for all streams of the transport."""
        self._send = send

    def pad_with(self, padding: Callable[[int], Outbound | None]) -> None:
        """``padding(size)`` makes a packet that carries nothing, of about that many bytes."""
        self._padding = padding

    async def send_audio(self, packet: Outbound) -> None:
        """Send at once. Raises ConnectionError when the transport is gone."""
        now = time.monotonic()
        self._pacer.charge(packet.size, now)
        self._meters["audio"].add(packet.size + OVERHEAD, now)
        await self._transmit(packet, None)

    async def send_frame(self, packets: list[Outbound], payload: int) -> bool:
        """Send one picture of ``payload`` bytes; returns when its last packet has left. False: too much waited, and
        not all of it was taken. Raises ConnectionError when the transport is gone."""
        if self._gone or self._closed:
            raise ConnectionError("the transport is gone")
        now = time.monotonic()
        taken = 0
        for packet in packets:
            taken += self._pacer.put(packet, Priority.VIDEO)
        self._meters["video"].add(payload, now)
        self._meters["headers"].add(sum(packet.size + OVERHEAD for packet in packets) - payload, now)
        self._drained.clear()
        self._wake()
        await self._drained.wait()
        if self._gone:
            raise ConnectionError("the transport is gone")
        return taken == len(packets)

    def may_resend(self, size: int) -> bool:
        """Whether ``size`` bytes more may be sent again now."""
        rate = self.target_bps
        return self._budget.take(size, START_BPS if math.isinf(rate) else rate, time.monotonic())

    @property
    def repeats(self) -> bool:
        """Whether what is sent again should be sent twice: the path loses packets, and not for want of rate."""
        return (
            self.reported and self._estimator.loss >= REPEAT_LOSS and self._estimator.has_room(time.monotonic())
        )

    def resend(self, packets: list[Outbound]) -> None:
        """Send lost packets again, before the picture."""
        now = time.monotonic()
        for packet in packets:
            if self._pacer.put(packet, Priority.RETRANSMISSION):
                self._meters["repair"].add(packet.size + OVERHEAD, now)
        self._wake()

    async def _transmit(self, packet: Outbound, probe: int | None) -> None:
        if self._send is None or self._closed:
            raise ConnectionError("the transport is not open")
        data, now = packet.data, time.monotonic()
        self._wide = self._wide or packet.wide_at is not None
        if self._first_sent_at is None:
            self._first_sent_at = now
            self._tick()
        if packet.time_at is not None:
            stamp = int(self.ntp(now) * 262_144) & 0xFFFFFF  # 6.18 fixed point seconds
            data[packet.time_at : packet.time_at + 3] = stamp.to_bytes(3, "big")
        if packet.wide_at is not None:
            sequence = self._sent.add(len(data), now, probe)
            data[packet.wide_at : packet.wide_at + 2] = sequence.to_bytes(2, "big")
            self._estimator.sent(len(data) + OVERHEAD, now)
        await self._send(bytes(data))
        packet.sent_at = now

    # -- the pacer's task

    def _wake(self) -> None:
        if self._task is None and not self._closed:
            self._task = background(self._pace(), name=f"media.pacer {self._name}", failed=self._failed)
        self._kick.set()

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._kick.clear()
                release = self._pacer.take(time.monotonic())
                self._sending_since = time.monotonic()
                for packet, probe in release.packets:
                    await self._transmit(packet, probe)
                self._sending_since = None
                if not self._pacer.waiting:
                    self._drained.set()
                if release.next_at is None:
                    await self._kick.wait()
                else:
                    # monotonic is the loop's own clock; woken earlier by what goes first
                    timer = loop.call_at(release.next_at, self._kick.set)
                    await self._kick.wait()
                    timer.cancel()
        except ConnectionError:
            log.debug("pacing ends: the transport is gone")
        finally:
            self._sending_since = None
            self._gone = True
            self._drained.set()

    def _failed(self, error: Exception) -> None:
        self.on_failure(error)

    def _pad(self, size: int) -> Outbound | None:
        return self._padding(size)

    @property
    def sending_since(self) -> float | None:
        """Monotonic time at which the transport was handed what it has not taken yet; None while nothing is."""
        return self._sending_since

    # -- the estimate

    @property
    def reported(self) -> bool:
        """The estimate stands on transport-wide feedback; else on REMB and the loss of receiver reports."""
        if self._estimator.heard or self._first_sent_at is None:
            return self._wide
        return self._wide and time.monotonic() - self._first_sent_at < UNREPORTED_S

    @property
    def target_bps(self) -> float:
        """What may be sent, with all headers, in bits per second; ``math.inf`` where nothing is known to limit it."""
        if self.reported:
            return min(self._estimator.target_bps, self._remb.wish(time.monotonic()))
        return self._remb.bits_per_second

    @property
    def available_bps(self) -> float | None:
        """The estimate itself, None while there is none."""
        estimate = self._estimator.bits_per_second if self.reported else self._remb.bits_per_second
        return None if math.isinf(estimate) else estimate

    @property
    def loss(self) -> float:
        """Share of our packets that got lost lately."""
        return self._estimator.loss if self.reported else self._remb.loss

    @property
    def round_trip_s(self) -> float | None:
        """Seconds from sending to the report on it, of the last one; its waiting at the peer included."""
        return self._estimator.round_trip_s

    def on_feedback(self, fci: bytes) -> None:
        try:
            feedback = TransportFeedback.parse(fci)
        except MalformedFeedbackError:
            self.reports_malformed += 1
            return
        self.reports_received += 1
        told = self._sent.match(feedback)
        for packet in told:
            arrived = packet.arrived_at is not None
            self.packets_arrived += arrived
            self.packets_lost += -1 if arrived and packet.reported else not arrived
        now = time.monotonic()
        self._estimator.report(told, now)
        self._allocate(now)
        self._probe(now)

    def on_remb(self, bits_per_second: int) -> None:
        """The peer's estimate, or wish."""
        now = time.monotonic()
        self._remb.told(bits_per_second, self._meters["video"].bps(now) or 0.0, now)
        self._allocate(now)

    def on_report(self, highest: int, fraction_lost: float) -> None:
        """A receiver report on the picture."""
        now = time.monotonic()
        self._remb.reported(highest, fraction_lost, self._meters["video"].bps(now) or math.inf, now)
        self._allocate(now)

    def _allocate(self, now: float) -> None:
        target, meters = self.target_bps, self._meters
        lasting = max(target, min(self._estimator.bits_per_second, self._remb.wish(now))) if self.reported else target
        unbounded = math.isinf(target)
        if unbounded:
            target = lasting = (self.demand() or 0) * UNBOUNDED_FACTOR + AUDIO_BPS
        self._pacer.rate = self._estimator.pacing_bps if self.reported else UNBOUNDED_PACING_BPS
        video, headers = meters["video"].bps(now) or 0.0, meters["headers"].bps(now) or 0.0
        self.allocation = self._allocator.allocate(
            target, lasting, audio=AUDIO_BPS if (audio := meters["audio"].bps(now)) is None else audio,
            repair=0.0 if unbounded else meters["repair"].bps(now) or 0.0,
            overhead=headers / (video + headers) if video else 0.0, now=now,
        )
        self.on_allocation(self.allocation)

    def _probe(self, now: float) -> None:
        demand = self.demand()
        if demand is None:
            return
        cluster = self._estimator.probe(now, demand * DEMAND_OVERHEAD + self.allocation.audio)
        if cluster is not None:
            self.probes += 1
            self._pacer.probe(cluster, now)
            self._wake()

    def _find_out(self, now: float) -> None:
        """The picture pauses, and may be all that the peer reports on, as it is to Janus: without it nothing more is
        told, and it would pause for good."""
        if self.reported:
            self._probe(now)
            self._estimator.fade(now, TICK_S)
        else:
            self._remb.fade(TICK_S)

    def _tick(self) -> None:
        self._ticking = None
        if self._closed:
            return
        now = time.monotonic()
        self._estimator.tick(now, sending=self._sent.in_flight(now - UNHEARD_S) > 0)
        self._allocate(now)
        if self.allocation.video is None:
            self._find_out(now)
        self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    # -- in

    def report_as(self, ssrc: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        if self._outlet is None:
            self._ssrc, self._outlet = ssrc, Outlet(send, self._name, failed=self._failed)

    def on_packet(self, sequence: int, ssrc: int) -> None:
        if self._outlet is None or self._closed:
            return
        self._arrivals.add(sequence, time.monotonic())
        self._peer_ssrc = ssrc
        if self._reporting is None:
            self._reporting = asyncio.get_running_loop().call_later(self._interval, self._report)

    def _report(self) -> None:
        self._reporting = None
        if self._outlet is None or self._closed:
            return
        reports = self._arrivals.reports()
        told = sum(len(report.arrivals) for report in reports)
        self._interval = REPORT_S[0] if told > BUSY_PACKETS * self._interval / REPORT_S[1] else REPORT_S[1]
        self.reports_sent += len(reports)
        self._outlet.put([report.packet(self._ssrc, self._peer_ssrc) for report in reports])

    async def close(self) -> None:
        """Nothing leaves any more, neither packets nor reports. May be called twice."""
        self._closed = True
        for timer in (self._reporting, self._ticking):
            if timer is not None:
                timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._outlet is not None:
            await self._outlet.stop()


def _no_padding(_: int) -> Outbound | None:
    return None


def _no_demand() -> int | None:
    return None


def _nobody(_: Allocation) -> None:
    return None
