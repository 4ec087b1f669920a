"""RTP and RTCP over UDP without ICE and DTLS (RFC 3550), each line on ports of its own: what telephones speak.

The peer is where its description says, or where its first packet comes from: it may be behind a translator that its
description knows nothing of. From then on its address is locked until the next description. ``Protection`` is where
SRTP comes in (its keys are signalling's: RFC 4568).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Unpack

from appliance.media import dscp
from appliance.media.api import Directions, SessionDigit
from appliance.media.dscp import Marks
from appliance.media.events import EVENT_MIME, EventPacket, EventReader, packets_of
from appliance.media.packet_time import PacketTimeTrack
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_seam import (
    HeaderExtensionsMap,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpReceiveParameters,
    RTCRtpSendParameters,
    RtpPacket,
)
from appliance.media.rtp_send import EncodedTrack, RtpSendStream
from appliance.media.session import Session, SessionParts
from appliance.media.sound import audioop
from appliance.media.transport import StreamFormat, TransportListener
from appliance.tasks import background, fail_loudly

if TYPE_CHECKING:
    from appliance.media.inband import ToneReader

__all__ = ["CLEAR", "Line", "PlainSession", "PlainTransport", "Protection", "SourceGate"]

log = logging.getLogger(__name__)

DATAGRAM: Final = 1500  # bytes
LINEAR: Final = {"audio/pcmu": audioop.ulaw2lin, "audio/pcma": audioop.alaw2lin}
CODED: Final = {"audio/pcmu": audioop.lin2ulaw, "audio/pcma": audioop.lin2alaw}
"""Codecs whose sound carries tones as they are, by the names of their formats."""
BIND_TRIES: Final = 64
SEQUENTIAL: Final = 2  # packets in sequence that make a source (RFC 3550 A.1)
CHANGE_S: Final = 1.0  # between two changes of source

Address = tuple[str, int]


class Protection(Protocol):
    """What is done to packets on their way; ``rtcp`` tells the two kinds apart, which SRTP counts by themselves."""

    def protect(self, packet: bytes, *, rtcp: bool) -> bytes: ...

    def unprotect(self, packet: bytes, *, rtcp: bool) -> bytes:
        """Raises ValueError for what is not authentic."""

    def security(self) -> Mapping[str, str]: ...


class _Clear:
    def protect(self, packet: bytes, *, rtcp: bool) -> bytes:
        return packet

    def unprotect(self, packet: bytes, *, rtcp: bool) -> bytes:
        return packet

    def security(self) -> Mapping[str, str]:
        return {}


CLEAR: Final[Protection] = _Clear()


@dataclass(frozen=True, slots=True)
class Line:
    """What signalling agreed for one line: the format, and where the peer takes RTP and RTCP (None: one port above, or
    the same where RTCP is multiplexed)."""

    format: StreamFormat
    remote: Address
    remote_rtcp: Address | None = None


class SourceGate:
    """Which source (SSRC) speaks on a line. The first is taken at once; another after two packets in sequence and at
    most once a second, so that stray packets do not tear the play-out to and fro. Pure."""

    def __init__(self) -> None:
        self._ssrc: int | None = None
        self._changed_at = float("-inf")
        self._candidate: tuple[int, int, int] | None = None  # (SSRC, next sequence number, packets in sequence)

    def admit(self, ssrc: int, sequence: int, now: float) -> bool:
        if ssrc == self._ssrc:
            return True
        if self._ssrc is None:
            self._ssrc = ssrc
            return True
        known, due, count = self._candidate or (ssrc, sequence, 0)
        count = count + 1 if known == ssrc and due == sequence else 1
        self._candidate = (ssrc, sequence + 1 & 0xFFFF, count)
        if count < SEQUENTIAL or now - self._changed_at < CHANGE_S:
            return False
        self._ssrc, self._changed_at, self._candidate = ssrc, now, None
        return True


class _Port(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._received(data, (str(addr[0]), int(addr[1])))


class _Flow:
    """The sockets of one line and the streams on it."""

    def __init__(self, owner: PlainTransport) -> None:
        self._owner = owner
        self.line: Line | None = None
        self.outgoing: RtpSendStream | None = None
        self.incoming: RtpReceiveStream | None = None
        self.codec: RTCRtpCodecParameters | None = None
        self._events: RTCRtpCodecParameters | None = None
        self._packed: PacketTimeTrack | None = None  # our voice in packets of the agreed length
        self.ssrc = secrets.randbits(32)
        self._cname = secrets.token_hex(12)  # RFC 7022 4.2
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None  # the same one where RTCP is multiplexed
        self._to_rtp: Address | None = None
        self._to_rtcp: Address | None = None
        self._locked = False
        self._locked_rtcp = False
        self._gate = SourceGate()
        self._digits = EventReader()
        self._pressing: int | None = None  # the source whose digits they are
        self._tones: ToneReader | None = None
        self._learning: asyncio.Task[None] | None = None
        self._extensions = HeaderExtensionsMap()

    # -- life

    async def open(self, host: str, *, mux: bool) -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        first, second = _bind(host, mux=mux)
        try:
            self._rtp, _ = await loop.create_datagram_endpoint(lambda: _Port(self._on_rtp_port), sock=first)
        except BaseException:  # given up meanwhile: of the first one asyncio lets go itself
            if second is not None:
                second.close()
            raise
        self._rtcp = self._rtp
        if second is not None:
            self._rtcp, _ = await loop.create_datagram_endpoint(lambda: _Port(self._on_rtcp_port), sock=second)
        return self._rtp.get_extra_info("sockname")[1], self._rtcp.get_extra_info("sockname")[1]

    def agree(self, line: Line) -> None:
        """What was agreed, at first or again: the address is learnt anew, and the streams take the formats over."""
        self.line = line
        agreed = line.format
        self.codec = RTCRtpCodecParameters(
            mimeType=agreed.mime_type, clockRate=agreed.clock_rate, channels=agreed.channels,
            payloadType=agreed.payload_type, parameters=dict(agreed.parameters),
        )
        self._events = None if agreed.event_type is None else RTCRtpCodecParameters(
            mimeType=EVENT_MIME, clockRate=agreed.clock_rate, payloadType=agreed.event_type)
        host, port = line.remote
        self._to_rtp = line.remote
        self._to_rtcp = line.remote_rtcp or (host, port if self._rtcp is self._rtp else port + 1)
        self._locked = self._locked_rtcp = not self._owner.symmetric
        if agreed.event_type is None and agreed.mime_type.lower() in LINEAR and self._learning is None:
            self._learning = background(self._learn_to_listen(), name="media.inband", failed=fail_loudly)
        if self.incoming is not None and self.outgoing is not None:
            self.incoming.negotiate(self._incoming_parameters())
            self.outgoing.negotiate(self._outgoing_parameters())
            if self._packed is not None:
                self._packed.agree(agreed.packet_time_ms, agreed.clock_rate, opus=_is_opus(agreed))

    def start(self, outgoing: RtpSendStream, incoming: RtpReceiveStream, track: EncodedTrack | None) -> None:
        if self.line is None:
            raise RuntimeError("nothing is agreed for this line yet")
        self.outgoing, self.incoming = outgoing, incoming
        incoming.start(rtcp_ssrc=self.ssrc, parameters=self._incoming_parameters(), send=self._owner.send)
        agreed = self.line.format
        if track is not None and agreed.kind == "audio":
            track = self._packed = PacketTimeTrack(
                track, agreed.packet_time_ms, agreed.clock_rate, opus=_is_opus(agreed))
        outgoing.start(
            ssrc=self.ssrc, rtx_ssrc=0, parameters=self._outgoing_parameters(), send=self._owner.send, track=track)

    def _incoming_parameters(self) -> RTCRtpReceiveParameters:
        codecs = [one for one in (self.codec, self._events) if one is not None]
        return RTCRtpReceiveParameters(codecs=codecs, rtcp=self._rtcp_parameters())

    def _outgoing_parameters(self) -> RTCRtpSendParameters:
        codecs = [self.codec] if self.codec is not None else []
        return RTCRtpSendParameters(codecs=codecs, rtcp=self._rtcp_parameters())

    def _rtcp_parameters(self) -> RTCRtcpParameters:
        return RTCRtcpParameters(cname=self._cname, mux=self._rtcp is self._rtp)

    async def send_digit(self, digit: str, seconds: float) -> None:
        """In the place of sound, in real time. Raises ValueError for no digit, ConnectionError when it is over."""
        line, outgoing = self.line, self.outgoing
        if line is None or outgoing is None or line.format.event_type is None:
            raise ConnectionError("telephone events are not agreed on this line")
        step_s = line.format.packet_time_ms / 1000
        packets = list(packets_of(digit, seconds, line.format.clock_rate, step_s))
        timestamp = outgoing.timestamp_at(time.monotonic())
        outgoing.enable(False)
        try:
            for number, packet in enumerate(packets):
                await outgoing.send_event(line.format.event_type, packet.pack(), timestamp, first=number == 0)
                if not packet.end:
                    await asyncio.sleep(step_s)
        finally:
            outgoing.enable(line.format.sends)
            outgoing.paused()  # what follows begins a talkspurt

    async def send_tones(self, digit: str, seconds: float) -> None:
        """In the place of sound, as sound, in real time. Raises ValueError for no digit, ConnectionError where the
        codec would bend them, or when it is over."""
        line, outgoing = self.line, self.outgoing
        coded = None if line is None else CODED.get(line.format.mime_type.lower())
        if line is None or outgoing is None or coded is None:
            raise ConnectionError("tones are sent by G.711 alone")
        step_s = line.format.packet_time_ms / 1000
        size = round(step_s * line.format.clock_rate)
        count = max(1, round(seconds / step_s))
        payload = coded(await asyncio.to_thread(_tones_of, digit.upper(), count * size), 2)
        timestamp = outgoing.timestamp_at(time.monotonic())
        outgoing.enable(False)
        try:
            for number in range(count):
                await outgoing.send_event(
                    line.format.payload_type, payload[number * size : (number + 1) * size],
                    timestamp + number * size & 0xFFFFFFFF, first=number == 0)
                await asyncio.sleep(step_s)
        finally:
            outgoing.enable(line.format.sends)
            outgoing.paused()

    async def close(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        for stream in (self.outgoing, self.incoming):
            if stream is not None:
                await stream.stop()  # its BYE still leaves
        for port in (self._rtp, self._rtcp):
            if port is not None:
                port.close()

    def mark(self, marking: int) -> None:
        for port in (self._rtp, self._rtcp):
            if port is not None:
                dscp.mark(port.get_extra_info("socket"), marking)

    @property
    def address(self) -> str | None:
        name = self._rtp.get_extra_info("sockname") if self._rtp is not None else None
        return str(name[0]) if name else None

    # -- out

    def send(self, packet: bytes, *, rtcp: bool) -> None:
        port, to = (self._rtcp, self._to_rtcp) if rtcp else (self._rtp, self._to_rtp)
        if port is None or to is None or port.is_closing():
            raise ConnectionError("the transport is not open")
        port.sendto(self._owner.protection.protect(packet, rtcp=rtcp), to)

    # -- in

    def _on_rtp_port(self, data: bytes, addr: Address) -> None:
        rtcp = self._rtcp is self._rtp and len(data) > 1 and 192 <= data[1] <= 223  # RFC 5761 4
        self._received(data, addr, rtcp=rtcp)

    def _on_rtcp_port(self, data: bytes, addr: Address) -> None:
        self._received(data, addr, rtcp=True)

    def _received(self, data: bytes, addr: Address, *, rtcp: bool) -> None:
        """The boundary: whatever a packet does to us, it is one packet."""
        owner = self._owner
        if self.line is None or len(data) > DATAGRAM or not self._is_peer(addr, rtcp=rtcp):
            owner.strangers += 1
            return
        try:
            clear = owner.protection.unprotect(data, rtcp=rtcp)
            taken = self._take_rtcp(clear) if rtcp else self._take_rtp(clear)
        except Exception:
            owner.malformed += 1
            return
        if taken:
            self._lock(addr, rtcp=rtcp)
            owner.arrived(len(data))
        else:
            owner.unrouted += 1

    def _is_peer(self, addr: Address, *, rtcp: bool) -> bool:
        if rtcp and self._rtcp is not self._rtp:
            if self._locked_rtcp:
                return addr == self._to_rtcp
            return not self._locked or self._to_rtp is None or addr[0] == self._to_rtp[0]
        return not self._locked or addr == self._to_rtp

    def _lock(self, addr: Address, *, rtcp: bool) -> None:
        """Symmetric RTP (RFC 4961): from here on this is where the peer is."""
        if rtcp and self._rtcp is not self._rtp:
            self._to_rtcp, self._locked_rtcp = addr, True
        elif not self._locked:
            self._to_rtp, self._locked = addr, True
            if self._rtcp is self._rtp:
                self._to_rtcp = addr

    def _take_rtp(self, data: bytes) -> bool:
        line, incoming = self.line, self.incoming
        packet = RtpPacket.parse(data, self._extensions)
        types = () if line is None else (line.format.payload_type, line.format.event_type)
        if line is None or incoming is None or packet.payload_type not in types:
            return False
        if not self._gate.admit(packet.ssrc, packet.sequence_number, time.monotonic()):
            return False
        if line.format.receives:
            incoming.on_rtp(packet, int(time.time() * 1000), len(data) - len(packet.payload))
        if line.format.event_type is None:  # else they come as events, and what sounds like one is none
            self._listen(line.format, packet.payload)
        elif packet.payload_type == line.format.event_type:
            if packet.ssrc != self._pressing:  # its timestamps begin anywhere
                self._digits, self._pressing = EventReader(), packet.ssrc
            digit = self._digits.take(packet.timestamp, EventPacket.parse(packet.payload))
            if digit is not None:
                self._owner.on_digit(digit)
        return True

    def _listen(self, agreed: StreamFormat, payload: bytes) -> None:
        linear = LINEAR.get(agreed.mime_type.lower())
        if linear is not None and self._tones is not None:
            for digit in self._tones.take(linear(payload, 2)):
                self._owner.on_tones(digit)

    async def _learn_to_listen(self) -> None:
        self._tones = await asyncio.to_thread(_tone_reader)

    def _take_rtcp(self, data: bytes) -> bool:
        outgoing, incoming = self.outgoing, self.incoming
        packets = RtcpPacket.parse(data)
        if outgoing is None or incoming is None:
            return False
        for packet in packets:
            if isinstance(packet, RtcpRtpfbPacket | RtcpPsfbPacket) and packet.media_ssrc not in (0, self.ssrc):
                continue
            outgoing.on_rtcp(packet)
            if isinstance(packet, RtcpSrPacket):
                incoming.on_rtcp(packet)
        return bool(packets)


class PlainTransport:
    """A ``MediaTransport``. ``open`` gives the ports for a description, ``agree`` takes the peer's, ``start`` begins.

    ``symmetric``: learn the peer's address from its first packet. ``mux``: RTCP on the port of RTP (RFC 5761).
    """

    def __init__(
        self, listener: TransportListener, marks: Marks, *, mux: bool = False, symmetric: bool = True,
        protection: Protection = CLEAR,
    ) -> None:
        self._listener = listener
        self._marks = marks
        self._mux = mux
        self.symmetric = symmetric
        self.protection = protection
        self.on_digit: Callable[[str], None] = _ignored
        self.on_tones: Callable[[str], None] = _ignored
        self._flows: dict[str, _Flow] = {}
        self._state = "new"
        self.malformed = 0
        self.strangers = 0  # packets from where the peer is not
        self.unrouted = 0  # packets of no stream: another payload type, a source that is not taken yet
        self._sent = [0, 0]  # packets, bytes
        self._received = [0, 0]

    async def open(self, host: str, kinds: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """Bind at ``host``: the ports of RTP and RTCP of each kind. Raises OSError."""
        ports = {}
        for kind in kinds:
            flow = self._flows[kind] = _Flow(self)
            ports[kind] = await flow.open(host, mux=self._mux)
            flow.mark(self._marks.of(video=kind == "video"))
        return ports

    def agree(self, kind: str, line: Line) -> None:
        self._flows[kind].agree(line)

    def start(
        self, kind: str, outgoing: RtpSendStream, incoming: RtpReceiveStream, track: EncodedTrack | None
    ) -> None:
        """Begin to send ``track`` and to hand over what comes, as agreed."""
        self._flows[kind].start(outgoing, incoming, track)
        self._state = "connected"

    async def send_digit(self, digit: str, seconds: float) -> None:
        """See ``PlainSession.send_digit``."""
        flow = self._flows.get("audio")
        if flow is None:
            raise ConnectionError("the transport is not open")
        await flow.send_digit(digit, seconds)

    async def send_tones(self, digit: str, seconds: float) -> None:
        """See ``PlainSession.send_digit``."""
        flow = self._flows.get("audio")
        if flow is None:
            raise ConnectionError("the transport is not open")
        await flow.send_tones(digit, seconds)

    async def send(self, packet: bytes) -> None:
        """Raises ConnectionError when it is not open."""
        rtcp = 192 <= packet[1] <= 223
        ssrc = int.from_bytes(packet[4:8] if rtcp else packet[8:12], "big")
        flow = next((flow for flow in self._flows.values() if flow.ssrc == ssrc), None)
        if flow is None:
            raise ConnectionError("the transport is not open")
        flow.send(packet, rtcp=rtcp)
        self._sent = [self._sent[0] + 1, self._sent[1] + len(packet)]

    def arrived(self, size: int) -> None:
        self._received = [self._received[0] + 1, self._received[1] + size]
        self._listener.on_arrival()

    # -- MediaTransport

    @property
    def state(self) -> str:
        return self._state

    def negotiated(self, kind: str) -> tuple[bool, bool]:
        flow = self._flows.get(kind)
        agreed = flow.line.format if flow is not None and flow.line is not None else None
        return (agreed.sends, agreed.receives) if agreed is not None else (False, False)

    def codec(self, kind: str) -> RTCRtpCodecParameters | None:
        flow = self._flows.get(kind)
        return flow.codec if flow is not None else None

    def mid(self, kind: str) -> str | None:
        return None

    def security(self) -> Mapping[str, str]:
        return self.protection.security()

    def certificates(self) -> Mapping[str, Any]:
        return {}

    def failure(self) -> str:
        return ""

    def mark(self, marks: Marks, *, video: bool) -> None:
        """Each kind has its own transport here and keeps its own mark."""

    def local_addresses(self) -> Set[str]:
        return {flow.address for flow in self._flows.values() if flow.address is not None}

    def transport_facts(self) -> dict[str, Any]:
        return {
            "packetsSent": self._sent[0], "bytesSent": self._sent[1],
            "packetsReceived": self._received[0], "bytesReceived": self._received[1],
            "malformed": self.malformed, "overflow": 0, "strangers": self.strangers,
        }

    async def close(self) -> None:
        flows, self._flows = list(self._flows.values()), {}
        for flow in flows:
            await flow.close()
        self._state = "closed"


class PlainSession(Session):
    """A session whose signalling is somebody else's: ``open``, tell the ports, then ``agree`` whenever it is agreed."""

    def __init__(
        self, name: str, *, wanted: Directions, mux: bool = False, symmetric: bool = True,
        protection: Protection = CLEAR, **parts: Unpack[SessionParts],
    ) -> None:
        super().__init__(name, wanted=wanted, **parts)
        self._transport = self._plain = PlainTransport(
            self, parts["marks"], mux=mux, symmetric=symmetric, protection=protection
        )
        self._plain.on_digit = self._on_digit
        self._plain.on_tones = lambda digit: self._emit(SessionDigit(digit, heard=True))
        self._pressing = asyncio.Lock()

    async def open(self, host: str, kinds: Sequence[str] = ("audio",)) -> Mapping[str, tuple[int, int]]:
        """Bind at ``host``: the ports of RTP and RTCP of each kind, for our description. Raises OSError."""
        return await self._plain.open(host, kinds)

    def agree(self, lines: Mapping[str, Line]) -> None:
        """What both descriptions agree on, by kind; again with every new one."""
        first = not self.outgoing
        for kind, line in lines.items():
            self._plain.agree(kind, line)
            if kind not in self.outgoing:
                track = self.microphone_track if kind == "audio" else self.camera_track
                self._plain.start(kind, *self._streams(kind), track)
        if first:
            self._prepare_camera()
            self._described()
            self.on_state()
        else:
            self._apply()

    async def send_digit(
        self, digit: str, seconds: float = 0.1, pause_s: float = 0.1, *, tones: bool = False,
    ) -> None:
        """Press a key: one event (RFC 4733) in the place of sound, or its two ``tones``, then a pause; several wait for
        each other.

        Raises ValueError for what is no digit or too long or short, ConnectionError where events are not agreed, or the
        codec carries no tones.
        """
        async with self._pressing:
            await (self._plain.send_tones if tones else self._plain.send_digit)(digit, seconds)
            await asyncio.sleep(pause_s)

    def _on_digit(self, digit: str) -> None:
        self._emit(SessionDigit(digit))


def _ignored(_: str) -> None:
    return None


def _tone_reader() -> ToneReader:
    """Loads what few calls need. Blocking."""
    from appliance.media.inband import ToneReader

    return ToneReader()


def _tones_of(digit: str, samples: int) -> bytes:
    """Likewise. Raises ValueError."""
    from appliance.media.inband import tones_of

    return tones_of(digit, samples)


def _is_opus(agreed: StreamFormat) -> bool:
    return agreed.mime_type.lower() == "audio/opus"


def _bind(host: str, *, mux: bool) -> tuple[socket.socket, socket.socket | None]:
    """One socket, or an even port for RTP and the one above for RTCP (RFC 3550 11). Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(BIND_TRIES):
        first = _bound(family, host, 0)
        if mux:
            return first, None
        port = first.getsockname()[1]
        if port % 2 == 0:
            with contextlib.suppress(OSError):
                return first, _bound(family, host, port + 1)
        first.close()
    raise OSError(f"no two ports side by side are free at {host}")


def _bound(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
