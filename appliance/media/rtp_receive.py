"""Receiving: RTP packets of one peer to encoded frames in order, with loss repair and reports back.

Video: see ``repair``. Audio: packets are handed on as they come; the play-out buffer puts them in order.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from appliance.media.dtls_seam import Outlet
from appliance.media.lipsync import SenderClock
from appliance.media.playout import Decoder
from appliance.media.repair import VideoRepair, VideoSink
from appliance.media.rtp_seam import (
    FEEDBACK,
    AnyRtcpPacket,
    RemoteBitrateEstimator,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    clamp_packets_lost,
    depayload,
    is_rtx,
    pack_remb_fci,
    transport_wide_id,
    unwrap_rtx,
)
from appliance.media.voice_codecs import NOISE, OPUS, VOICE_CODECS, Noise
from appliance.tasks import background, fail_loudly

__all__ = [
    "Allowance",
    "AudioSink",
    "Incoming",
    "RtpReceiveStream",
]

log = logging.getLogger(__name__)

MAX_GAP: Final = 512  # a jump of sequence numbers beyond this is a new start, not a loss (RFC 3550 A.1: 3000)
RETURN_S: Final = 0.5  # a source that was replaced may come back when its successor was silent for so long
REMB_FLOOR: Final = 150_000  # bits per second: the estimator drives a peer to 30 kbit/s when our own loop stalls
REMB_START: Final = 1_500_000  # told with the first packet: Chromium jumps there (stock: 0.28 Mbit/s after 6 s)
REMB_CEILING: Final = 3_000_000
REMB_LIFTED: Final = 100_000_000  # what lifts an earlier limit: senders keep the last one they were told
REMB_GROWTH: Final = 1.03  # per report, about every 0.4 s


class AudioSink(Protocol):
    """A play-out buffer: puts packets in order by itself."""

    def put(self, timestamp: int, data: bytes, arrival: float) -> None:
        """A packet as it came: RTP timestamp, payload, monotonic seconds."""

    def restart(self) -> None:
        """What follows is of another source."""

    def use(self, decoder: Decoder, clock_rate: int) -> None:
        """What follows is of another codec, its timestamps at ``clock_rate`` Hz."""


@dataclass(slots=True)
class Incoming:
    """Counters of one incoming stream."""

    ssrc: int = 0
    packets: int = 0
    payload_bytes: int = 0
    header_bytes: int = 0  # extensions and padding included
    frames: int = 0
    key_frames: int = 0
    given_up: int = 0  # holes in video
    discarded: int = 0  # packets too late (W3C: those that came twice are none)
    malformed: int = 0  # packets that are not what their codec's payload format says
    stray: int = 0  # packets of the source before this one
    resent_packets: int = 0
    nacks: int = 0
    plis: int = 0
    reports: int = 0  # sender reports of the peer
    peer_packets: int = 0
    peer_bytes: int = 0
    peer_ntp: int = 0  # NTP time of its last sender report, 32.32 fixed point
    last_at: float = 0.0  # monotonic time of the last packet
    resent_bytes: int = 0


class Reception:
    """Statistics of one source for receiver reports (RFC 3550 A.1, A.3, A.8)."""

    def __init__(self, clock_rate: int) -> None:
        self.clock_rate = clock_rate
        self._base: int | None = None
        self._highest = 0
        self._received = 0
        self._expected_before = 0
        self._received_before = 0
        self._jitter = 0.0
        self._transit: float | None = None

    def add(self, sequence: int, timestamp: int, arrival_s: float) -> int:
        """Note a packet; returns its extended sequence number (with wrap cycles)."""
        if self._base is None:
            self._base = self._highest = sequence + 0x10000  # one cycle ahead: an early reordering stays positive
        extended = self.extend(sequence)
        if abs(extended - self._highest) > MAX_GAP * 4:  # the source started again
            self._base = extended
            self._received = self._received_before = self._expected_before = 0
        self._base = min(self._base, extended)
        self._received += 1
        if extended > self._highest or self._received == 1:
            self._highest = extended
            transit = arrival_s * self.clock_rate - timestamp
            if self._transit is not None:
                change = abs((transit - self._transit + 0x80000000) % 0x100000000 - 0x80000000)
                if change < self.clock_rate * 10:
                    self._jitter += (change - self._jitter) / 16
            self._transit = transit
        return extended

    def extend(self, sequence: int) -> int:
        """The extended number (with wrap cycles) nearest to those seen."""
        return self._highest + _signed(sequence - self._highest)

    def change_clock(self, clock_rate: int) -> None:
        """Timestamps count in another clock from the next packet on, as another codec has it."""
        self._jitter *= clock_rate / self.clock_rate
        self.clock_rate, self._transit = clock_rate, None

    @property
    def lost(self) -> int:
        return 0 if self._base is None else clamp_packets_lost(self._highest - self._base + 1 - self._received)

    @property
    def jitter_s(self) -> float:
        return self._jitter / self.clock_rate

    def report(self, ssrc: int, lsr: int, dlsr: int) -> RtcpReceiverInfo:
        expected = self._highest - (self._base or 0) + 1
        interval = expected - self._expected_before
        missing = interval - (self._received - self._received_before)
        self._expected_before, self._received_before = expected, self._received
        return RtcpReceiverInfo(
            ssrc=ssrc, fraction_lost=min(255, (missing << 8) // interval) if interval > 0 and missing > 0 else 0,
            packets_lost=self.lost, highest_sequence=(self._highest - 0x10000) & 0xFFFFFFFF,
            jitter=int(self._jitter), lsr=lsr, dlsr=dlsr,
        )


def _signed(difference: int) -> int:
    """Difference of two 16-bit sequence numbers as -32768..32767."""
    return (difference + 0x8000 & 0xFFFF) - 0x8000


class Allowance:
    """What to let the peer send at most (REMB). Pure.

    aiortc's estimator never goes above 1.5 times what arrives, so on its own it keeps a peer that begins carefully
    small for half a minute. Only an estimate below what arrives is evidence of a full path; everything else lets the
    allowance grow.
    """

    def __init__(self) -> None:
        self.bits_per_second = REMB_START

    def update(self, estimate: int, arriving: int | None) -> int:
        if arriving is not None and estimate < arriving:
            self.bits_per_second = max(REMB_FLOOR, estimate)
        else:
            grown = max(estimate, round(self.bits_per_second * REMB_GROWTH))
            self.bits_per_second = max(self.bits_per_second, min(REMB_CEILING, grown))
        return self.bits_per_second


def _unknown() -> float | None:
    return None


class RtpReceiveStream:
    """One RTP stream in, on the loop. Give it a sink of its kind.

    ``round_trip`` is what RTCP measured to this peer, in seconds. ``on_failure`` is told of the exception by which
    reporting ended.
    """

    def __init__(
        self, kind: str, name: str, *, video: VideoSink | None = None, audio: AudioSink | None = None,
        on_media: Callable[[], None] | None = None, round_trip: Callable[[], float | None] = _unknown,
    ) -> None:
        self.kind = kind
        self.counters = Incoming()
        self.on_failure: Callable[[Exception], None] = fail_loudly
        self.on_key_wanted: Callable[[], None] | None = None
        """Called in place of a PLI (RFC 4585), where the peer takes none."""
        self.resends = True
        """Whether the peer sends lost packets again when it is asked (generic NACK)."""
        self.reception: Reception | None = None
        self._name = name
        self._video = video
        self._audio = audio
        self._on_media = on_media
        self._codecs: dict[int, Any] = {}
        self._voice = OPUS.mime_type  # what the play-out decodes
        self._rtcp_ssrc = 0
        self._outlet: Outlet | None = None
        self._task: asyncio.Task[None] | None = None
        self._round_trip = round_trip
        self._repair: VideoRepair | None = None
        self._estimator = RemoteBitrateEstimator() if kind == "video" else None
        self._allowance = Allowance()
        self._limit = 0  # bits per second somebody asked for, 0: none
        self._lsr: tuple[int, float] = (0, 0.0)
        self._sender_clock: SenderClock | None = None
        self._heard_at = 0.0
        self._retired: int | None = None  # the source before this one
        self._stopped = False

    # -- called through the seam

    def start(self, *, rtcp_ssrc: int, parameters: Any, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.negotiate(parameters)
        if transport_wide_id(parameters) is not None:
            self._estimator = None  # the peer estimates by itself; a REMB would only hold it down
        self._rtcp_ssrc, self._outlet = rtcp_ssrc, Outlet(send, self._name, failed=self._failed)
        self._task = background(
            self._report(), name=f"media.receiver-reports {self.kind} {self._name}", failed=self._failed
        )

    def negotiate(self, parameters: Any) -> None:
        """What was negotiated, at first or again: codecs by payload type."""
        self._codecs = {codec.payloadType: codec for codec in parameters.codecs}

    def _failed(self, error: Exception) -> None:
        self.on_failure(error)

    def on_rtp(self, packet: RtpPacket, arrival_ms: int, overhead: int = 12) -> None:
        codec = self._codecs.get(packet.payload_type)
        if codec is None or self._stopped:
            return
        now = time.monotonic()
        again = is_rtx(codec)
        if again:
            apt = codec.parameters.get("apt")
            if len(packet.payload) < 2 or apt not in self._codecs or self.reception is None:
                self.counters.header_bytes += overhead  # padding, which W3C counts there
                return
            self.counters.resent_packets += 1
            packet = unwrap_rtx(packet, payload_type=apt, ssrc=self.counters.ssrc)
            self.counters.resent_bytes += len(packet.payload)
            codec = self._codecs[apt]
        elif (packet.ssrc != self.counters.ssrc or self.reception is None) and not self._change_source(packet, now):
            return
        reception, counters = self.reception, self.counters
        if reception is None:
            return
        if codec.clockRate != reception.clock_rate and codec.mimeType.lower() in VOICE_CODECS:
            reception.change_clock(codec.clockRate)
            self._sender_clock = SenderClock(codec.clockRate)
        counters.payload_bytes += len(packet.payload)
        counters.header_bytes += overhead
        counters.last_at = now
        if self._estimator is not None and packet.extensions.abs_send_time is not None:
            self._estimate(self._estimator, packet, arrival_ms)
        counters.packets += 1
        # a retransmission is another RTP stream (RFC 4588 4): it fills the hole, but not the peer's statistics
        if again:
            extended = reception.extend(packet.sequence_number)
        else:
            extended = reception.add(packet.sequence_number, packet.timestamp, now)
            self._heard_at = now
        if self._on_media is not None:
            self._on_media()
        try:
            data = depayload(codec, packet.payload) if packet.payload else b""
        except (ValueError, IndexError):
            counters.malformed += 1
            if self.kind == "audio":
                return
            data = b""  # asking for it again would bring the same
        if self.kind == "audio":
            self._take_audio(codec.mimeType.lower(), packet.timestamp, data, now)
        elif self._repair is not None:
            self._repair.take(extended, packet.timestamp, bool(packet.marker), data, resent=again)
            counters.frames, counters.key_frames = self._repair.frames, self._repair.key_frames
            counters.given_up, counters.discarded = self._repair.given_up, self._repair.discarded

    def on_rtcp(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            self.counters.reports += 1
            self.counters.peer_packets = packet.sender_info.packet_count
            self.counters.peer_bytes = packet.sender_info.octet_count
            self.counters.peer_ntp = packet.sender_info.ntp_timestamp
            if self._sender_clock is not None:
                self._sender_clock.report(packet.sender_info.ntp_timestamp, packet.sender_info.rtp_timestamp)
            self._lsr = (packet.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF, time.monotonic())
            if self._on_media is not None:
                self._on_media()

    def captured_at(self, timestamp: int) -> float | None:
        """When the peer captured what carries this RTP timestamp, in seconds since 1900 by its own clock (NTP); None
        until it has reported."""
        return self._sender_clock.captured_at(timestamp) if self._sender_clock is not None else None

    @property
    def allowed(self) -> int | None:
        """Bits per second the peer was told it may send (REMB), None where it estimates itself or is yet silent."""
        return self._allowance.bits_per_second if self._estimator is not None and self.counters.ssrc else None

    async def stop(self) -> None:
        self._stopped = True
        if self._repair is not None:
            self._repair.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._outlet is not None:
            await self._outlet.stop()

    def want_keyframe(self) -> None:
        """Ask the peer for a key frame, no faster than the back-off allows."""
        if self._repair is not None and not self._stopped:
            self._repair.ask_key()

    def need_keyframe(self) -> None:
        """The decoder lost its place: nothing is handed on before the next key frame."""
        if self._repair is not None and not self._stopped:
            self._repair.need_key()

    def expects(self, packet: RtpPacket) -> bool:
        """Whether a packet of unknown source is a retransmission that was asked for (RFC 4588 5.3)."""
        codec = self._codecs.get(packet.payload_type)
        if codec is None or not is_rtx(codec) or len(packet.payload) < 2 or self._repair is None:
            return False
        return self._repair.asked_for(int.from_bytes(packet.payload[:2], "big"))

    # -- media

    def _change_source(self, packet: RtpPacket, now: float) -> bool:
        """A packet of another source than the one that plays. What the one before still had under way does not bring
        it back: only when this one has gone silent does it count as returned."""
        if packet.ssrc == self._retired and now - self._heard_at < RETURN_S:
            self.counters.stray += 1
            return False
        if self.reception is not None:
            self._retired = self.counters.ssrc
        self._new_source(packet.ssrc, self._codecs[packet.payload_type].clockRate)
        return True

    def _new_source(self, ssrc: int, clock_rate: int) -> None:
        self.counters = Incoming(ssrc=ssrc)
        self.reception = Reception(clock_rate)
        self._sender_clock = SenderClock(clock_rate)
        self._lsr = (0, 0.0)
        if self._audio is not None:
            self._audio.restart()
        if self._repair is not None:
            self._repair.stop()
        if self._video is not None:
            self._repair = VideoRepair(
                self._video, send_nack=self._send_nack, send_pli=self._send_pli, round_trip=self._round_trip,
                resends=self.resends,
            )
            self._video.on_new_source()
        if self._estimator is not None:
            self._allow(self._allowance.bits_per_second)
        elif self._limit:
            self._allow(self._limit)

    def _take_audio(self, mime_type: str, timestamp: int, data: bytes, now: float) -> None:
        if not data or self._audio is None:
            return  # padding alone
        if mime_type == NOISE.lower():
            if self._voice == OPUS.mime_type:
                return  # which makes its own
            data = Noise(data)
        elif mime_type != self._voice:
            codec = VOICE_CODECS.get(mime_type)
            if codec is None:
                return
            self._voice = mime_type
            self._audio.use(codec.decoder(), codec.clock_rate)
        self.counters.frames += 1
        self._audio.put(timestamp, data, now)

    def _send_nack(self, lost: list[int]) -> None:
        self.counters.nacks += 1
        nack = RtcpRtpfbPacket(fmt=FEEDBACK["nack"], ssrc=self._rtcp_ssrc, media_ssrc=self.counters.ssrc)
        nack.lost = lost
        self._send_rtcp(nack)

    def _send_pli(self) -> None:
        if self.on_key_wanted is not None:
            self.on_key_wanted()
            return
        self.counters.plis += 1
        self._send_rtcp(RtcpPsfbPacket(fmt=FEEDBACK["pli"], ssrc=self._rtcp_ssrc, media_ssrc=self.counters.ssrc))

    def _estimate(self, estimator: RemoteBitrateEstimator, packet: RtpPacket, arrival_ms: int) -> None:
        estimate = estimator.add(
            abs_send_time=packet.extensions.abs_send_time or 0, arrival_time_ms=arrival_ms,
            payload_size=len(packet.payload) + packet.padding_size, ssrc=packet.ssrc,
        )
        if estimate is not None:
            self._allow(self._allowance.update(estimate[0], estimator.incoming_bitrate.rate(arrival_ms)))

    def limit(self, bits_per_second: int) -> None:
        """The most the peer is to send, 0: as its path carries. Told by REMB, which a sender with an estimate of its
        own takes for a ceiling."""
        lifted = self._limit and not bits_per_second
        self._limit = bits_per_second
        if not self.counters.ssrc:
            return
        if self._estimator is not None:
            self._allow(self._allowance.bits_per_second)
        elif lifted or bits_per_second:
            self._allow(bits_per_second or REMB_LIFTED)

    def _allow(self, bits_per_second: int) -> None:
        if self._limit:
            bits_per_second = min(bits_per_second, self._limit)
        fci = pack_remb_fci(bits_per_second, [self.counters.ssrc])
        self._send_rtcp(RtcpPsfbPacket(fmt=FEEDBACK["app"], ssrc=self._rtcp_ssrc, media_ssrc=0, fci=fci))

    # -- reports

    async def _report(self) -> None:
        """Receiver reports every 0.5 to 1.5 s (RFC 3550 6.2)."""
        while True:
            await asyncio.sleep(0.5 + random.random())  # noqa: S311 spreads reports, no secret
            if self.reception is None:
                continue
            lsr, at = self._lsr
            dlsr = min(0xFFFFFFFF, int((time.monotonic() - at) * 65536)) if lsr else 0
            report = self.reception.report(self.counters.ssrc, lsr, dlsr)
            self._send_rtcp(RtcpRrPacket(ssrc=self._rtcp_ssrc, reports=[report]))
            if self._limit and self._estimator is None:
                self._allow(self._limit)  # a wish that is not repeated is forgotten

    def _send_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._outlet is not None:
            self._outlet.put([bytes(packet)])
