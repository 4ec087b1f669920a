"""Sending: encoded frames of one track to RTP, retransmission, sender reports, and what the peer asks back.

Frames come encoded (H.264 access units from the board, voice from the microphone's feed) as ``av.Packet`` and are only
packetised here: no encoder, no executor, no second thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import av

from appliance.media.h264 import PACKET_MODE, single_units
from appliance.media.hearing import Hearing
from appliance.media.rtp_seam import (
    FEEDBACK,
    ONE_BYTE_ID,
    AnyRtcpPacket,
    MediaStreamTrack,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    h264_payloads,
    is_rtx,
    transport_wide_id,
    unpack_remb_fci,
)
from appliance.media.transmission import Outbound, Transmission
from appliance.tasks import background, fail_loudly

__all__ = ["EncodedTrack", "Feedback", "Outgoing", "RtpSendStream"]

log = logging.getLogger(__name__)

HISTORY: Final = 512  # packets kept for retransmission: 3 s of 720p at 1.5 Mbit/s (stock: 128)
REPEAT_S: Final = 0.01  # from a retransmission to its second copy: a short burst of losses is over by then
RESEND_HOLDOFF_S: Final = 0.03  # the same packet is not repeated faster: a NACK storm multiplied traffic 3.5 times
PADDING_MAX: Final = 255  # RFC 3550 5.1: the last byte counts it
PADDING_MIN: Final = 3
"""Janus 1.1 takes padding on the stream of retransmissions for a payload, and the first two bytes of it for a
sequence number, which it cuts off: of a single byte it then moves minus one byte, and writes over its heap."""
TOO_LARGE: Final = 4  # key frames that no packet takes: for longer than an encoder needs to be told
RTT_WEIGHT: Final = 1 / 8  # RFC 6298 alpha

URI_MID: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
URI_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
URI_SEND_TIME: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"


class EncodedTrack(MediaStreamTrack):
    """A track of encoded packets, pts in the codec's RTP clock (90 kHz, 48 kHz)."""

    level_dbov: int | None = None  # of the latest audio packet, -127..0 (RFC 6464)

    async def recv(self) -> av.Packet[Any]:
        raise NotImplementedError

    def captured_at(self, packet: av.Packet[Any]) -> float:
        """Monotonic time of capture, in seconds: what sender reports pair with the RTP timestamp."""
        raise NotImplementedError


class Feedback(Protocol):
    """What the peer asks of our video encoder."""

    def keyframe_wanted(self) -> None: ...

    def lost(self) -> None:
        """A picture was thrown away on its way out: what follows it is of no use before a key frame."""


@dataclass(slots=True)
class Outgoing:
    """Counters of one outgoing stream, and the peer's last report on it."""

    ssrc: int = 0
    packets: int = 0
    payload_bytes: int = 0
    header_bytes: int = 0
    frames: int = 0
    key_frames: int = 0
    resent_packets: int = 0
    resent_bytes: int = 0  # payload
    not_resent: int = 0  # asked for and over the budget
    too_large: int = 0  # pictures that packets without fragments cannot carry
    padding_packets: int = 0  # of probes: nothing but header and padding
    nacks: int = 0
    plis: int = 0
    firs: int = 0
    send_delay_s: float = 0.0  # sum over packets, from packetised to handed to the transport
    capture_to_first_packet_s: float | None = None  # of the latest frame, from the sensor to its first packet
    capture_to_send_s: float | None = None  # and to its last one
    estimate: int | None = None  # bits per second, by the peer's last REMB
    reports: int = 0
    fraction_lost: float = 0.0
    packets_lost: int = 0
    packets_come: int = 0  # what the report is about, less what was lost of it
    jitter_s: float = 0.0
    round_trip_s: float | None = None  # smoothed
    latest_round_trip_s: float | None = None
    round_trip_total_s: float = 0.0
    round_trips: int = 0


class RtpSendStream:
    """One RTP stream out; lives from ``start`` to ``stop`` on the loop.

    ``on_failure`` is told of the exception by which sending or reporting ended; the stream sends no more then.
    """

    def __init__(
        self, kind: str, name: str, feedback: Feedback | None = None, transmission: Transmission | None = None,
    ) -> None:
        self.kind = kind
        self.counters = Outgoing()
        self.hearing = Hearing()
        self.on_failure: Callable[[Exception], None] = fail_loudly
        self.on_loss: Callable[[float], None] = _ignored
        """Called with the share lost, 0..1, of every receiver report of the peer."""
        self._name = name
        self._feedback = feedback
        self._transmission = transmission or Transmission(name)
        self._enabled = True
        self._send: Callable[[bytes], Awaitable[None]] = _nowhere
        self._tasks: list[asyncio.Task[None]] = []
        self._history: dict[int, tuple[int, bytes, int]] = {}  # slot -> (sequence, packet, size of header)
        self._resent_at: dict[int, float] = {}
        self._sequence = int.from_bytes(os.urandom(2), "big") % 0x8000  # lower half: no wrap while SRTP settles
        self._first_sequence = self._sequence
        self._rtx_sequence = int.from_bytes(os.urandom(2), "big") % 0x8000
        self._origin = int.from_bytes(os.urandom(4), "big")
        self._rtx_ssrc = 0
        self._payload_type = 0
        self._rtx_type: int | None = None
        self._clock_rate = 90_000
        self._cname = ""
        self._mid_extension = b""
        self._time_extension: int | None = None
        self._wide_extension: int | None = None
        self._level_extension: int | None = None
        self._last: tuple[int, float] | None = None  # (RTP timestamp, monotonic capture time) of the last frame
        self._report_sent: tuple[int, float] | None = None  # (middle NTP bits, monotonic time) of the last SR
        self._paused = True
        self._pack: Callable[[bytes], list[bytes]] = h264_payloads if kind == "video" else _one_payload
        self._taken_at: float | None = None

    @property
    def taken_at(self) -> float | None:
        """Monotonic time at which the frame being sent was taken; None while the stream waits for one."""
        return self._taken_at

    # -- called through the seam

    def start(
        self, *, ssrc: int, rtx_ssrc: int, parameters: Any,
        send: Callable[[bytes], Awaitable[None]], track: MediaStreamTrack | None,
    ) -> None:
        """Begin to send ``track`` with what was negotiated. ``send`` protects and sends one packet."""
        self.counters.ssrc, self._rtx_ssrc, self._send = ssrc, rtx_ssrc, send
        self._transmission.attach(send)
        self._cname = parameters.rtcp.cname
        self.negotiate(parameters)
        if isinstance(track, EncodedTrack):
            self._tasks = [
                background(
                    self._run(track), name=f"media.send {self.kind} {self._name}", failed=self._failed),
                background(
                    self._report(), name=f"media.reports {self.kind} {self._name}", failed=self._failed),
            ]

    def negotiate(self, parameters: Any) -> None:
        """What was negotiated, at first or again: the payload types and header extensions of what leaves from now on.
        With another clock the next report waits for the next frame."""
        codec = parameters.codecs[0]
        if codec.clockRate != self._clock_rate:
            self._last = None
        self._payload_type, self._clock_rate = codec.payloadType, codec.clockRate
        if self.kind == "video":
            self._pack = single_units if codec.parameters.get(PACKET_MODE) == "0" else h264_payloads
        self._rtx_type = None
        for other in parameters.codecs:
            if is_rtx(other) and other.parameters.get("apt") == codec.payloadType:
                self._rtx_type = other.payloadType
                self._transmission.pad_with(self._padding)
        self._wide_extension = transport_wide_id(parameters)
        self._mid_extension, self._time_extension, self._level_extension = b"", None, None
        for extension in parameters.headerExtensions:
            if not 1 <= extension.id <= ONE_BYTE_ID:
                continue  # it could only be written in the two-byte form, and is not needed so much
            if extension.uri == URI_MID and parameters.muxId:
                mid = parameters.muxId.encode()[:16]
                self._mid_extension = bytes([extension.id << 4 | len(mid) - 1]) + mid
            elif extension.uri == URI_SEND_TIME:
                self._time_extension = extension.id
            elif extension.uri == URI_LEVEL:
                self._level_extension = extension.id

    def _failed(self, error: Exception) -> None:
        self.on_failure(error)

    @property
    def rtx_ssrc(self) -> int | None:
        """SSRC of retransmissions (RFC 4588), None where they were not negotiated."""
        return self._rtx_ssrc if self._rtx_type is not None else None

    def enable(self, enabled: bool) -> None:
        self._enabled = enabled

    def on_rtcp(self, packet: AnyRtcpPacket) -> None:
        counters = self.counters
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == counters.ssrc:
                    self._on_report(report)
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == FEEDBACK["nack"]:
            counters.nacks += 1
            self._resend(packet.lost)
        elif isinstance(packet, RtcpPsfbPacket):
            if packet.fmt == FEEDBACK["pli"]:
                counters.plis += 1
                self._ask_keyframe()
            elif packet.fmt == FEEDBACK["fir"]:
                counters.firs += 1
                self._ask_keyframe()
            elif packet.fmt == FEEDBACK["app"]:
                self._on_remb(packet.fci)

    async def stop(self) -> None:
        """End both tasks and say BYE."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            self._tasks = []
            try:
                await self._send(struct.pack("!BBHL", 0x81, 203, 1, self.counters.ssrc))
            except ConnectionError:
                log.debug("no BYE: the transport is gone")
        self._history.clear()
        self._resent_at.clear()

    # -- sending

    async def _run(self, track: EncodedTrack) -> None:
        try:
            while True:
                self._taken_at = None
                packet = await track.recv()
                self._taken_at = time.monotonic()
                if not self._enabled:
                    continue
                if payloads := self._pack(bytes(packet)):
                    await self._send_frame(self._packets(payloads, packet, track), packet, track)
                elif self.kind == "video":
                    self._leave_out()
        except ConnectionError:
            log.debug("%s stream ends: the transport is gone", self.kind)
        finally:
            self._taken_at = None
            track.stop()

    def _leave_out(self) -> None:
        """A picture that packets without fragments cannot carry: of an encoder that does not keep to their size (yet).
        """
        self.counters.too_large += 1
        if self.counters.too_large == TOO_LARGE:
            log.warning("the encoder's slices are too large for packets without fragments; such pictures are left out")
        if self._feedback is not None:
            self._feedback.lost()

    def _packets(self, payloads: list[bytes], packet: av.Packet[Any], track: EncodedTrack) -> list[Outbound]:
        """The RTP packets of one frame."""
        counters = self.counters
        timestamp = (self._origin + (packet.pts or 0)) & 0xFFFFFFFF
        extension = self._extensions(track.level_dbov)
        last = len(payloads) - 1
        # RFC 3551 4.1: the marker of audio means the first packet after silence; of video the end of the frame.
        talkspurt = self.kind == "audio" and self._paused
        self._paused = False
        packets = []
        for index, payload in enumerate(payloads):
            marker = index == last if self.kind == "video" else talkspurt
            sequence = self._sequence
            self._sequence = (sequence + 1) & 0xFFFF
            header = struct.pack(
                "!BBHLL", 0x90 if extension else 0x80, self._payload_type | (0x80 if marker else 0),
                sequence, timestamp, counters.ssrc,
            ) + extension
            data = header + payload
            if self._rtx_type is not None:
                self._history[sequence % HISTORY] = (sequence, data, len(header))
            packets.append(self._outbound(data))
            counters.packets += 1
            counters.payload_bytes += len(payload)
            counters.header_bytes += len(header)
        counters.frames += 1
        counters.key_frames += packet.is_keyframe and self.kind == "video"
        self.hearing.begin(time.monotonic())
        self._last = (timestamp, track.captured_at(packet))
        return packets

    async def send_event(self, payload_type: int, payload: bytes, timestamp: int, *, first: bool) -> None:
        """One packet of a telephone event (RFC 4733) in the place of sound; ``timestamp`` is that of its beginning."""
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        extension = self._extensions(None)
        header = struct.pack(
            "!BBHLL", 0x90 if extension else 0x80, payload_type | (0x80 if first else 0), sequence, timestamp,
            self.counters.ssrc,
        ) + extension
        await self._transmission.send_audio(self._outbound(header + payload))
        self.counters.packets += 1
        self.counters.payload_bytes += len(payload)
        self.counters.header_bytes += len(header)

    def timestamp_at(self, moment: float) -> int:
        """The RTP timestamp of a monotonic moment, by the capture clock of what was sent last."""
        timestamp, captured = self._last or (self._origin, moment)
        return (timestamp + round((moment - captured) * self._clock_rate)) & 0xFFFFFFFF

    async def _send_frame(self, packets: list[Outbound], packet: av.Packet[Any], track: EncodedTrack) -> None:
        packetised = time.monotonic()
        if self.kind == "audio":
            for sound in packets:
                await self._transmission.send_audio(sound)
        else:
            self._taken_at = None  # waiting for the pacer is no standstill of ours
            if not await self._transmission.send_frame(packets, packet.size) and self._feedback is not None:
                self._feedback.lost()
        self.counters.send_delay_s += sum(max(0.0, each.sent_at - packetised) for each in packets)
        captured = track.captured_at(packet)
        if packets[0].sent_at:  # not where a full queue threw it away
            self.counters.capture_to_first_packet_s = packets[0].sent_at - captured
        self.counters.capture_to_send_s = time.monotonic() - captured

    def _extensions(self, level: int | None) -> bytes:
        """Header extensions in the one-byte form (RFC 8285 4.2), the same for all packets of a frame. Those that
        change with the packet stand first and are written when it leaves."""
        block = b""
        if self._wide_extension is not None:
            block += bytes([self._wide_extension << 4 | 1, 0, 0])
        if self._time_extension is not None:
            block += bytes([self._time_extension << 4 | 2, 0, 0, 0])
        block += self._mid_extension
        if self._level_extension is not None and level is not None:
            block += bytes([self._level_extension << 4, max(0, min(127, -level))])
        if not block:
            return b""
        block += bytes(-len(block) % 4)
        return struct.pack("!HH", 0xBEDE, len(block) // 4) + block

    def _outbound(self, packet: bytes) -> Outbound:
        """``packet`` with the places that ``_extensions`` left open."""
        first = 17  # header, head of the extensions, head of the first one
        wide_at = first if self._wide_extension is not None else None
        time_at = None if self._time_extension is None else first if wide_at is None else first + 3
        return Outbound(bytearray(packet), wide_at, time_at)

    def paused(self) -> None:
        """The source stopped for a while: the next audio packet begins a talkspurt."""
        self._paused = True

    # -- retransmission (RFC 4588)

    def _resend(self, lost: list[int]) -> None:
        now = time.monotonic()
        holdoff = max(RESEND_HOLDOFF_S, (self.counters.round_trip_s or 0.0) / 2)
        asked = dict.fromkeys(lost[:HISTORY])  # once each, however often one message names them
        wanted = [sequence for sequence in asked if now - self._resent_at.get(sequence, -holdoff) >= holdoff]
        if len(self._resent_at) > HISTORY:
            self._resent_at.clear()
        again = self._send_again(wanted)
        self._resent_at.update(dict.fromkeys(again, now))
        if again and self._transmission.repeats:
            asyncio.get_running_loop().call_later(REPEAT_S, self._send_again, again)  # nothing is kept after stop()

    def _send_again(self, sequences: list[int]) -> list[int]:
        """Send what is kept of these, within the budget; returns what that is."""
        sent: list[int] = []
        packets: list[Outbound] = []
        for sequence in sequences:
            kept = self._history.get(sequence % HISTORY)
            if kept is None or kept[0] != sequence:
                continue
            if not self._transmission.may_resend(len(kept[1])):
                self.counters.not_resent += 1
                continue
            sent.append(sequence)
            packets.append(self._outbound(self._retransmission(*kept)))
            self.counters.resent_packets += 1
            self.counters.resent_bytes += len(kept[1]) - kept[2]
            self.counters.header_bytes += kept[2]
        if packets:
            self._transmission.resend(packets)
        return sent

    def _padding(self, size: int) -> Outbound | None:
        """A packet of about ``size`` bytes that carries nothing, on the stream of retransmissions: there it leaves no
        gap in the picture's numbers (RFC 4588 4). Its first bytes are the number of the last packet, for a peer that
        looks for one there."""
        if self._rtx_type is None or self._last is None:
            return None
        extension = self._extensions(None)
        header = struct.pack(
            "!BBHLL", 0xB0 if extension else 0xA0, self._rtx_type, self._rtx_sequence, self._last[0], self._rtx_ssrc
        ) + extension
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        padding = max(PADDING_MIN, min(PADDING_MAX, size - len(header)))
        self.counters.padding_packets += 1
        self.counters.header_bytes += len(header) + padding  # W3C counts padding there
        last = struct.pack("!H", (self._sequence - 1) & 0xFFFF)
        return self._outbound(header + last + bytes(padding - 3) + bytes([padding]))

    def _retransmission(self, sequence: int, packet: bytes, header: int) -> bytes:
        if self._rtx_type is None:
            return packet
        again = bytearray(packet[:header])
        again[1] = again[1] & 0x80 | self._rtx_type
        struct.pack_into("!H", again, 2, self._rtx_sequence)
        struct.pack_into("!L", again, 8, self._rtx_ssrc)
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        return bytes(again) + struct.pack("!H", sequence) + packet[header:]

    # -- reports

    async def _report(self) -> None:
        """Sender report and CNAME: soon after the first frame (lip-sync), then every 0.5 to 1.5 s (RFC 3550 6.2)."""
        pause = 0.2
        try:
            while True:
                await asyncio.sleep(pause)
                if self._last is None:
                    continue
                pause = 0.5 + random.random()  # noqa: S311 spreads reports, no secret
                now = time.monotonic()
                # the RTP timestamp of this moment, by the capture clock: encoding delay is no lip-sync error
                timestamp = self.timestamp_at(now)
                ntp = int(self._transmission.ntp(now) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF
                info = RtcpSenderInfo(
                    ntp_timestamp=ntp, rtp_timestamp=timestamp,
                    packet_count=self.counters.packets & 0xFFFFFFFF,
                    octet_count=self.counters.payload_bytes & 0xFFFFFFFF,
                )
                names = RtcpSdesPacket(
                    chunks=[RtcpSourceInfo(ssrc=self.counters.ssrc, items=[(1, self._cname.encode())])]
                )
                self._report_sent = (ntp >> 16 & 0xFFFFFFFF, now)
                await self._send(bytes(RtcpSrPacket(ssrc=self.counters.ssrc, sender_info=info)) + bytes(names))
        except ConnectionError:
            log.debug("%s reports end: the transport is gone", self.kind)

    def _on_report(self, report: Any) -> None:
        counters = self.counters
        counters.reports += 1
        counters.fraction_lost = report.fraction_lost / 256
        counters.packets_lost = report.packets_lost
        # RFC 3550 A.3, from the first packet sent on: the peer extends the number from the first that came to it
        expected = report.highest_sequence - self._first_sequence + 1
        counters.packets_come = max(0, min(expected, counters.packets) - report.packets_lost)
        counters.jitter_s = report.jitter / self._clock_rate
        self.hearing.report(report.highest_sequence, counters.packets, time.monotonic())
        self.on_loss(counters.fraction_lost)
        if self.kind == "video":
            self._transmission.on_report(report.highest_sequence, counters.fraction_lost)
        if self._report_sent is None or report.lsr != self._report_sent[0] or not report.dlsr:
            return
        round_trip = max(0.0, time.monotonic() - self._report_sent[1] - report.dlsr / 65536)
        counters.round_trips += 1
        counters.round_trip_total_s += round_trip
        counters.latest_round_trip_s = round_trip
        old = counters.round_trip_s
        counters.round_trip_s = round_trip if old is None else old + (round_trip - old) * RTT_WEIGHT

    def _ask_keyframe(self) -> None:
        if self._feedback is not None:
            self._feedback.keyframe_wanted()

    def _on_remb(self, fci: bytes) -> None:
        try:
            estimate, sources = unpack_remb_fci(fci)
        except (ValueError, struct.error):
            return  # another application's message
        if self.counters.ssrc in sources:
            self.counters.estimate = estimate
            self._transmission.on_remb(estimate)


def _one_payload(data: bytes) -> list[bytes]:
    return [data]


def _ignored(_: float) -> None:
    return None


async def _nowhere(_: bytes) -> None:
    raise ConnectionError("the stream is not started")
