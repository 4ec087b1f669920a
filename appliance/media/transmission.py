"""What all streams of one transport share: transport-wide sequence numbers, and the feedback on them both ways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from appliance.media.aiortc_seam import Outlet
from appliance.media.congestion.sent import SentLog
from appliance.media.congestion.transport_cc import Arrivals, MalformedFeedbackError, TransportFeedback

__all__ = ["Outbound", "Transmission"]

REPORT_S: Final = (0.05, 0.1)  # between reports: the first while much arrives, the second for sound alone
BUSY_PACKETS: Final = 10  # in one report: more than sound alone brings in the longer interval
NTP_UNIX_S: Final = 2_208_988_800  # seconds between 1900 and 1970


@dataclass(slots=True)
class Outbound:
    """One RTP packet on its way out. ``wide_at`` and ``time_at``: where the transport-wide sequence number and the
    abs-send-time stand in it, written when it leaves; None when not negotiated."""

    data: bytearray
    wide_at: int | None = None
    time_at: int | None = None


class Transmission:
    """One transport's packets out, and its ``TransportWide`` of the seam. On the loop; ends with ``close``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sent = SentLog()
        self._arrivals = Arrivals()
        self._outlet: Outlet | None = None
        self._ssrc = 0
        self._peer_ssrc = 0
        self._timer: asyncio.TimerHandle | None = None
        self._interval = REPORT_S[1]
        self._closed = False
        self.reports_sent = 0
        self.reports_received = 0
        self.reports_malformed = 0
        self.packets_arrived = 0  # of ours, by the peer's reports
        self.packets_lost = 0

    # -- out

    async def send(self, packet: Outbound, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Stamp and send. Raises ConnectionError when the transport is gone."""
        data = packet.data
        if packet.time_at is not None:
            stamp = int((time.time() + NTP_UNIX_S) * 262_144) & 0xFFFFFF  # 6.18 fixed point seconds
            data[packet.time_at : packet.time_at + 3] = stamp.to_bytes(3, "big")
        if packet.wide_at is not None:
            sequence = self._sent.add(len(data), time.monotonic())
            data[packet.wide_at : packet.wide_at + 2] = sequence.to_bytes(2, "big")
        await send(bytes(data))

    def on_feedback(self, fci: bytes) -> None:
        try:
            feedback = TransportFeedback.parse(fci)
        except MalformedFeedbackError:
            self.reports_malformed += 1
            return
        self.reports_received += 1
        for packet in self._sent.match(feedback):
            arrived = packet.arrived_at is not None
            self.packets_arrived += arrived
            self.packets_lost += -1 if arrived and packet.reported else not arrived

    # -- in

    def report_as(self, ssrc: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        if self._outlet is None:
            self._ssrc, self._outlet = ssrc, Outlet(send, self._name)

    def on_packet(self, sequence: int, ssrc: int) -> None:
        if self._outlet is None or self._closed:
            return
        self._arrivals.add(sequence, time.monotonic())
        self._peer_ssrc = ssrc
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._report)

    def _report(self) -> None:
        self._timer = None
        if self._outlet is None or self._closed:
            return
        reports = self._arrivals.reports()
        told = sum(len(report.arrivals) for report in reports)
        self._interval = REPORT_S[0] if told > BUSY_PACKETS * self._interval / REPORT_S[1] else REPORT_S[1]
        self.reports_sent += len(reports)
        self._outlet.put([report.packet(self._ssrc, self._peer_ssrc) for report in reports])

    async def close(self) -> None:
        """No report leaves any more. May be called twice."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._outlet is not None:
            await self._outlet.stop()
