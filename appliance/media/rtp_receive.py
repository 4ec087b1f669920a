"""Receiving: RTP packets of one peer to encoded frames in order, with loss repair and reports back.

Video: a frame is released with its last packet (marker), a hole is asked for again on a timer and given up after
``GIVE_UP_S``, after which nothing is shown until a key frame. Audio: packets are put in order with a little
patience and handed on with the number of those lost between them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from appliance.media.aiortc_seam import (
    FEEDBACK,
    AnyRtcpPacket,
    Outlet,
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
from appliance.tasks import background, fail_loudly

__all__ = [
    "Allowance",
    "AudioOrder",
    "AudioSink",
    "Incoming",
    "RtpReceiveStream",
    "VideoAssembler",
    "VideoSink",
    "is_key_frame",
]

log = logging.getLogger(__name__)

GIVE_UP_S: Final = 0.3  # a hole in video older than this is not waited for
NACK_AGAIN_S: Final = 0.05
NACK_TRIES: Final = 6
VIDEO_PACKETS: Final = 1024  # buffered behind a hole at most: 7 s of 720p, far beyond GIVE_UP_S
MAX_GAP: Final = 512  # a jump of sequence numbers beyond this is a new start, not a loss (RFC 3550 A.1: 3000)
PLI_FIRST_S: Final = 0.3  # back-off of key-frame requests: asking faster made a thin link worse
PLI_LAST_S: Final = 2.4
AUDIO_WAIT_PACKETS: Final = 2  # an audio hole is given up when this many later packets are here: 40 ms
REMB_FLOOR: Final = 150_000  # bits per second: the estimator drives a peer to 30 kbit/s when our own loop stalls
REMB_START: Final = 1_500_000  # told with the first packet: Chromium jumps there (stock: 0.28 Mbit/s after 6 s)
REMB_CEILING: Final = 3_000_000
REMB_GROWTH: Final = 1.03  # per report, about every 0.4 s


class VideoSink(Protocol):
    def on_access_unit(self, data: bytes, timestamp: int, key: bool) -> None: ...


class AudioSink(Protocol):
    def on_audio(self, data: bytes, lost: int) -> None:
        """One packet, with the number of packets lost before it."""


@dataclass(slots=True)
class Incoming:
    """Counters of one incoming stream."""

    ssrc: int = 0
    packets: int = 0
    payload_bytes: int = 0
    header_bytes: int = 0
    frames: int = 0
    key_frames: int = 0
    given_up: int = 0  # holes in video
    discarded: int = 0  # packets too late or twice
    resent_packets: int = 0
    nacks: int = 0
    plis: int = 0
    reports: int = 0  # sender reports of the peer
    peer_packets: int = 0
    peer_bytes: int = 0


class Reception:
    """Statistics of one source for receiver reports (RFC 3550 A.1, A.3, A.8)."""

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
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
            transit = arrival_s * self._clock_rate - timestamp
            if self._transit is not None:
                change = abs((transit - self._transit + 0x80000000) % 0x100000000 - 0x80000000)
                if change < self._clock_rate * 10:
                    self._jitter += (change - self._jitter) / 16
            self._transit = transit
        return extended

    def extend(self, sequence: int) -> int:
        """The extended number (with wrap cycles) nearest to those seen."""
        return self._highest + _signed(sequence - self._highest)

    @property
    def lost(self) -> int:
        return 0 if self._base is None else clamp_packets_lost(self._highest - self._base + 1 - self._received)

    @property
    def jitter_s(self) -> float:
        return self._jitter / self._clock_rate

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


class VideoAssembler:
    """Packets of one video source to whole frames. Pure: the caller gives the time."""

    def __init__(self) -> None:
        self._packets: dict[int, tuple[int, bool, bytes]] = {}  # extended sequence -> (timestamp, marker, data)
        self._next: int | None = None
        self._highest = 0
        self._missing: dict[int, tuple[float, float, int]] = {}  # -> (since, asked at, times asked)
        self.wants_key = True  # nothing is handed on before a key frame
        self.asks_key = False  # and one must be asked for: the first frame may well be one that is still coming
        self.given_up = 0
        self.discarded = 0

    def add(self, sequence: int, timestamp: int, marker: bool, data: bytes, now: float) -> list[tuple[int, bytes]]:
        """Take a packet (extended sequence number); returns the frames complete now as (timestamp, data)."""
        if self._next is None or abs(sequence - self._highest) > MAX_GAP:
            self._packets.clear()
            self._missing.clear()
            self._next = self._highest = sequence
            self.wants_key = True
        if sequence < self._next or sequence in self._packets:
            self.discarded += 1
            return []
        self._missing.pop(sequence, None)
        for hole in range(max(self._highest + 1, self._next), sequence):
            self._missing[hole] = (now, 0.0, 0)
        self._highest = max(self._highest, sequence)
        self._packets[sequence] = (timestamp, marker, data)
        if len(self._packets) > VIDEO_PACKETS:
            self._give_up()
        return self._release()

    def tick(self, now: float) -> list[int]:
        """Sequence numbers (16 bit) to ask for again now; gives up holes that are too old."""
        if self._missing and now - min(since for since, _, _ in self._missing.values()) > GIVE_UP_S:
            self._give_up()
        again = []
        for sequence, (since, asked, times) in self._missing.items():
            if times < NACK_TRIES and now - asked >= NACK_AGAIN_S:
                self._missing[sequence] = (since, now, times + 1)
                again.append(sequence & 0xFFFF)
        return sorted(again)

    @property
    def waiting(self) -> bool:
        """Something is missing, so ``tick`` is needed."""
        return bool(self._missing)

    def _release(self) -> list[tuple[int, bytes]]:
        frames = []
        while (frame := self._next_frame()) is not None:
            timestamp, data = frame
            if self.wants_key and not is_key_frame(data):
                self.asks_key = True
                continue
            self.wants_key = self.asks_key = False
            frames.append((timestamp, data))
        return frames

    def _next_frame(self) -> tuple[int, bytes] | None:
        if self._next is None or (first := self._packets.get(self._next)) is None:
            return None
        parts, at = [], self._next
        while (packet := self._packets.get(at)) is not None and packet[0] == first[0]:
            parts.append(packet[2])
            at += 1
            if packet[1]:
                break
        else:
            if packet is None:  # neither its marker nor the next frame is here
                return None
        for sequence in range(self._next, at):
            del self._packets[sequence]
        self._next = at
        return first[0], b"".join(parts)

    def _give_up(self) -> None:
        """Throw away all that waits: what follows a hole cannot be shown before a key frame."""
        self.given_up += 1
        self.wants_key = self.asks_key = True
        self._packets.clear()
        self._missing.clear()
        self._next = self._highest + 1


class AudioOrder:
    """Packets of one audio source in order, with the number lost between them. Pure."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._held: dict[int, bytes] = {}
        self.discarded = 0

    def add(self, sequence: int, data: bytes) -> list[tuple[bytes, int]]:
        """Take a packet; returns (data, lost before it) for each that may be played now."""
        if self._next is None or abs(sequence - self._next) > MAX_GAP:
            self._held.clear()
            self._next = sequence
        if sequence < self._next or sequence in self._held:
            self.discarded += 1
            return []
        self._held[sequence] = data
        ready: list[tuple[bytes, int]] = []
        lost = 0
        while self._held:
            if self._next in self._held:
                ready.append((self._held.pop(self._next), lost))
                lost = 0
                self._next += 1
            elif len(self._held) > AUDIO_WAIT_PACKETS:
                lost = min(self._held) - self._next
                self._next += lost
            else:
                break
        return ready


class RtpReceiveStream:
    """One RTP stream in, on the loop. Give it a sink of its kind.

    ``on_failure`` is told of the exception by which reporting ended.
    """

    def __init__(
        self, kind: str, name: str, *, video: VideoSink | None = None, audio: AudioSink | None = None,
        on_media: Callable[[], None] | None = None,
    ) -> None:
        self.kind = kind
        self.counters = Incoming()
        self.on_failure: Callable[[Exception], None] = fail_loudly
        self.reception: Reception | None = None
        self._name = name
        self._video = video
        self._audio = audio
        self._on_media = on_media
        self._codecs: dict[int, Any] = {}
        self._rtcp_ssrc = 0
        self._outlet: Outlet | None = None
        self._task: asyncio.Task[None] | None = None
        self._repair: asyncio.TimerHandle | None = None
        self._estimator = RemoteBitrateEstimator() if kind == "video" else None
        self._allowance = Allowance()
        self._assembler = VideoAssembler()
        self._order = AudioOrder()
        self._lsr: tuple[int, float] = (0, 0.0)
        self._pli_at = 0.0
        self._pli_pause = PLI_FIRST_S
        self._stopped = False

    # -- called through the seam

    def start(self, *, rtcp_ssrc: int, parameters: Any, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._codecs = {codec.payloadType: codec for codec in parameters.codecs}
        if transport_wide_id(parameters) is not None:
            self._estimator = None  # the peer estimates by itself; a REMB would only hold it down
        self._rtcp_ssrc, self._outlet = rtcp_ssrc, Outlet(send, self._name, failed=self._failed)
        self._task = background(
            self._report(), name=f"media.receiver-reports {self.kind} {self._name}", failed=self._failed
        )

    def _failed(self, error: Exception) -> None:
        self.on_failure(error)

    def on_rtp(self, packet: RtpPacket, arrival_ms: int) -> None:
        codec = self._codecs.get(packet.payload_type)
        if codec is None or self._stopped:
            return
        now = time.monotonic()
        counters = self.counters
        counters.payload_bytes += len(packet.payload)
        counters.header_bytes += 12
        again = is_rtx(codec)
        if again:
            apt = codec.parameters.get("apt")
            if len(packet.payload) < 2 or apt not in self._codecs or self.reception is None:
                return
            counters.resent_packets += 1
            packet = unwrap_rtx(packet, payload_type=apt, ssrc=counters.ssrc)
            codec = self._codecs[apt]
        elif packet.ssrc != counters.ssrc or self.reception is None:
            self._new_source(packet.ssrc, codec.clockRate)
        reception = self.reception
        if reception is None:
            return
        if self._estimator is not None and packet.extensions.abs_send_time is not None:
            self._estimate(self._estimator, packet, arrival_ms)
        counters.packets += 1
        # a retransmission is another RTP stream (RFC 4588 4): it fills the hole, but not the peer's statistics
        extended = (
            reception.extend(packet.sequence_number) if again
            else reception.add(packet.sequence_number, packet.timestamp, now)
        )
        if self._on_media is not None:
            self._on_media()
        try:
            data = depayload(codec, packet.payload) if packet.payload else b""
        except (ValueError, IndexError):
            counters.discarded += 1
            return
        if self.kind == "audio":
            self._take_audio(extended, data)
        else:
            self._take_video(extended, packet, data, now)

    def on_rtcp(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            self.counters.reports += 1
            self.counters.peer_packets = packet.sender_info.packet_count
            self.counters.peer_bytes = packet.sender_info.octet_count
            self._lsr = (packet.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF, time.monotonic())
            if self._on_media is not None:
                self._on_media()

    async def stop(self) -> None:
        self._stopped = True
        if self._repair is not None:
            self._repair.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._outlet is not None:
            await self._outlet.stop()

    def want_keyframe(self) -> None:
        """Ask the peer for a key frame (RFC 4585 6.3.1), no faster than the back-off allows."""
        now = time.monotonic()
        if self.kind != "video" or self._stopped or now - self._pli_at < self._pli_pause or not self.counters.ssrc:
            return
        self._pli_at = now
        self._pli_pause = min(PLI_LAST_S, self._pli_pause * 2)
        self.counters.plis += 1
        self._send_rtcp(RtcpPsfbPacket(fmt=FEEDBACK["pli"], ssrc=self._rtcp_ssrc, media_ssrc=self.counters.ssrc))

    def need_keyframe(self) -> None:
        """The decoder lost its place: nothing is handed on before the next key frame."""
        self._assembler.wants_key = self._assembler.asks_key = True
        self.want_keyframe()

    # -- media

    def _new_source(self, ssrc: int, clock_rate: int) -> None:
        self.counters.ssrc = ssrc
        self.reception = Reception(clock_rate)
        self._assembler = VideoAssembler()
        self._order = AudioOrder()
        if self._estimator is not None:
            self._allow(self._allowance.bits_per_second)

    def _take_audio(self, sequence: int, data: bytes) -> None:
        for payload, lost in self._order.add(sequence, data):
            self.counters.frames += 1
            if self._audio is not None:
                self._audio.on_audio(payload, lost)
        self.counters.discarded = self._order.discarded

    def _take_video(self, sequence: int, packet: RtpPacket, data: bytes, now: float) -> None:
        assembler = self._assembler
        for timestamp, frame in assembler.add(sequence, packet.timestamp, bool(packet.marker), data, now):
            key = is_key_frame(frame)
            self.counters.frames += 1
            self.counters.key_frames += key
            if key:
                self._pli_pause = PLI_FIRST_S
            if self._video is not None:
                self._video.on_access_unit(frame, timestamp, key)
        self._repair_now(now)

    def _on_repair_timer(self) -> None:
        self._repair = None
        if not self._stopped:
            self._repair_now(time.monotonic())

    def _repair_now(self, now: float) -> None:
        lost = self._assembler.tick(now)
        if lost:
            self.counters.nacks += 1
            nack = RtcpRtpfbPacket(fmt=FEEDBACK["nack"], ssrc=self._rtcp_ssrc, media_ssrc=self.counters.ssrc)
            nack.lost = lost
            self._send_rtcp(nack)
        self.counters.given_up = self._assembler.given_up
        self.counters.discarded = self._assembler.discarded
        if self._assembler.asks_key:
            self.want_keyframe()
        if self._assembler.waiting and self._repair is None and not self._stopped:
            self._repair = asyncio.get_running_loop().call_later(NACK_AGAIN_S, self._on_repair_timer)

    def _estimate(self, estimator: RemoteBitrateEstimator, packet: RtpPacket, arrival_ms: int) -> None:
        estimate = estimator.add(
            abs_send_time=packet.extensions.abs_send_time or 0, arrival_time_ms=arrival_ms,
            payload_size=len(packet.payload) + packet.padding_size, ssrc=packet.ssrc,
        )
        if estimate is not None:
            self._allow(self._allowance.update(estimate[0], estimator.incoming_bitrate.rate(arrival_ms)))

    def _allow(self, bits_per_second: int) -> None:
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

    def _send_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._outlet is not None:
            self._outlet.put([bytes(packet)])
