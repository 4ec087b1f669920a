"""RTP and RTCP as telephones speak them (RFC 3550): each line on a ``Way`` of its own, with digits beside the sound."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Unpack

from appliance.media.api import Directions, IceServers, SessionDigit, SessionKeyWanted
from appliance.media.dscp import Marks
from appliance.media.dtls_way import DtlsWay
from appliance.media.events import EVENT_MIME, EventPacket, EventReader, packets_of
from appliance.media.h264 import PACKET_MODE, limit_of, parameter_sets_of
from appliance.media.open_ways import OpenWays
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
from appliance.media.servers import ServerPool
from appliance.media.session import Session, SessionParts
from appliance.media.sound import audioop
from appliance.media.source_gate import SourceGate
from appliance.media.transport import StreamFormat, TransportListener
from appliance.media.voice_codecs import NOISE
from appliance.media.ways import CLEAR, Address, OurEnd, Place, Protection, TheirEnd, UdpWay, Way
from appliance.tasks import background, fail_loudly

if TYPE_CHECKING:
    from appliance.media.dtls_seam import CertificateFacts
    from appliance.media.inband import ToneReader

__all__ = ["Line", "PlainSession", "PlainTransport"]

log = logging.getLogger(__name__)

LINEAR: Final = {"audio/pcmu": audioop.ulaw2lin, "audio/pcma": audioop.alaw2lin}
CODED: Final = {"audio/pcmu": audioop.lin2ulaw, "audio/pcma": audioop.lin2alaw}
"""Codecs whose sound carries tones as they are, by the names of their formats."""

@dataclass(frozen=True, slots=True)
class Line:
    """What signalling agreed for one line: the format, where the peer takes RTP and RTCP (None: one port above, or the
    same where RTCP is multiplexed), its end of the association, where there is one, which of our places it was agreed
    for (None: that opened last), and whether RTCP goes by the port of RTP there (RFC 5761; for an association its end
    says so)."""

    format: StreamFormat
    remote: Address
    remote_rtcp: Address | None = None
    their_end: TheirEnd | None = None
    place: Place | None = None
    mux: bool = False


class _Flow:
    """The way of one line and the streams on it."""

    def __init__(self, owner: PlainTransport) -> None:
        self._owner = owner
        self.way: Way | None = None
        self.unrouted = 0
        self.line: Line | None = None
        self.outgoing: RtpSendStream | None = None
        self.incoming: RtpReceiveStream | None = None
        self.codec: RTCRtpCodecParameters | None = None
        self._beside: list[RTCRtpCodecParameters] = []  # telephone events, comfort noise
        self._packed: PacketTimeTrack | None = None  # our voice in packets of the agreed length
        self.ssrc = secrets.randbits(32)
        self._cname = secrets.token_hex(12)  # RFC 7022 4.2
        self._gate = SourceGate()
        self._digits = EventReader()
        self._pressing: int | None = None  # the source whose digits they are
        self._tones: ToneReader | None = None
        self._learning: asyncio.Task[None] | None = None
        self._extensions = HeaderExtensionsMap()

    # -- life

    def agree(self, line: Line, way: Way) -> None:
        """What was agreed, at first or again: the address is learnt anew, and the streams take the formats over."""
        self.line, self.way = line, way
        agreed = line.format
        self.codec = RTCRtpCodecParameters(
            mimeType=agreed.mime_type, clockRate=agreed.clock_rate, channels=agreed.channels,
            payloadType=agreed.payload_type, parameters=dict(agreed.parameters),
        )
        self._beside = [
            RTCRtpCodecParameters(mimeType=kind, clockRate=agreed.clock_rate, payloadType=number)
            for kind, number in ((EVENT_MIME, agreed.event_type), (NOISE, agreed.noise_type)) if number is not None]
        if isinstance(way, UdpWay):
            way.reach(line.remote, line.remote_rtcp, mux=line.mux)
        elif isinstance(way, DtlsWay) and line.their_end is not None:
            way.agree(line.their_end, line.remote, line.remote_rtcp)
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
        codecs = [*([self.codec] if self.codec is not None else []), *self._beside]
        return RTCRtpReceiveParameters(codecs=codecs, rtcp=self._rtcp_parameters())

    def _outgoing_parameters(self) -> RTCRtpSendParameters:
        codecs = [self.codec] if self.codec is not None else []
        return RTCRtpSendParameters(codecs=codecs, rtcp=self._rtcp_parameters())

    def _rtcp_parameters(self) -> RTCRtcpParameters:
        return RTCRtcpParameters(cname=self._cname, mux=self.way is not None and self.way.mux)

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

    # -- in

    def knows(self, payload_type: int) -> bool:
        return self.line is not None and payload_type in _types(self.line.format)

    def take(self, data: bytes, rtcp: bool, *, bundled: bool = False) -> bool:
        """Whether it was of these streams; ``bundled``: RTCP of others is in it. Raises for what cannot be read."""
        taken = self._take_rtcp(data, bundled=bundled) if rtcp else self._take_rtp(data)
        if taken:
            self._owner.arrived(len(data))
        else:
            self.unrouted += 1
        return taken

    def _take_rtp(self, data: bytes) -> bool:
        line, incoming = self.line, self.incoming
        packet = RtpPacket.parse(data, self._extensions)
        if line is None or incoming is None or packet.payload_type not in _types(line.format):
            return False
        if not self._gate.admit(packet.ssrc, packet.sequence_number, time.monotonic()):
            return False
        if line.format.receives:
            incoming.on_rtp(packet, int(time.time() * 1000), len(data) - len(packet.payload))
        if line.format.event_type is None:  # else they come as events, and what sounds like one is none
            if packet.payload_type == line.format.payload_type:
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

    def _take_rtcp(self, data: bytes, *, bundled: bool) -> bool:
        outgoing, incoming = self.outgoing, self.incoming
        packets = RtcpPacket.parse(data)
        if outgoing is None or incoming is None:
            return False
        for packet in packets:
            if isinstance(packet, RtcpRtpfbPacket | RtcpPsfbPacket) and packet.media_ssrc not in (0, self.ssrc):
                continue
            outgoing.on_rtcp(packet)
            if isinstance(packet, RtcpSrPacket) and (not bundled or packet.ssrc == incoming.counters.ssrc):
                incoming.on_rtcp(packet)
        return bool(packets)


class PlainTransport:
    """A ``MediaTransport``. ``open`` gives the ports for a description, or ``associate`` our ends of associations with
    DTLS; ``agree`` takes the peer's, ``start`` begins. Opened again in between, the next agreement is for what is new.

    ``symmetric``: learn the peer's address from its first packet. ``mux``: RTCP on the port of RTP (RFC 5761).
    ``protections``: by kind; a kind without one goes in the clear. ``servers``: for the paths of associations.
    """

    def __init__(
        self, listener: TransportListener, marks: Marks, *, name: str = "", mux: bool = False, symmetric: bool = True,
        protections: Mapping[str, Protection] | None = None, servers: ServerPool | None = None,
    ) -> None:
        self._listener = listener
        self._marks = marks
        self._name = name
        self._mux = mux
        self._symmetric = symmetric
        self._protections = protections or {}
        self._servers = servers or ServerPool(IceServers())
        self.on_digit: Callable[[str], None] = _ignored
        self.on_tones: Callable[[str], None] = _ignored
        self._flows: dict[str, _Flow] = {}
        self._open_ways = OpenWays(name)
        self._closed = False
        self._sent = [0, 0]  # packets, bytes
        self._received = [0, 0]

    async def open(self, host: str, kinds: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """Bind at ``host``: the ports of RTP and RTCP of each kind. Raises OSError."""
        ports = {}
        self._open_ways.begin()
        for kind in kinds:
            way = UdpWay(self._flow(kind).take, protection=self._protections.get(kind, CLEAR),
                         symmetric=self._symmetric)
            self._open_ways.keep(kind, way, self._ways)
            ports[kind] = await way.open(host, mux=self._mux)
            way.mark(self._marks.of(video=kind == "video"))
        return ports

    async def associate(self, host: str, kinds: Sequence[str], *, ice: bool, mux: bool) -> Mapping[str, OurEnd]:
        """Our ends at ``host``, by kind. ``ice``: the peer may do that. ``mux``: it is known to take RTCP on the port
        of RTP. Raises OSError."""
        self._open_ways.begin()
        return {kind: await self._associate(host, kind, ice=ice, mux=mux) for kind in kinds}

    async def _associate(self, host: str, kind: str, *, ice: bool, mux: bool) -> OurEnd:
        def take(data: bytes, rtcp: bool) -> bool:
            return self._share(way, data, rtcp)

        way = DtlsWay(
            take, name=f"{kind} {self._name}", host=host, servers=self._servers, ice=ice, mux=mux,
            loopback=ip_address(host).is_loopback, marking=self._marks.of(video=kind == "video"),
            on_arrival=self._listener.on_arrival, on_state=self._listener.on_state)
        self._flow(kind)
        self._open_ways.keep(kind, way, self._ways)
        return await way.open()

    def _share(self, way: DtlsWay, data: bytes, rtcp: bool) -> bool:
        """In a bundle RTP is of the line that has its payload type, and RTCP may be of each (RFC 9143 9.2)."""
        flows = [flow for flow in self._flows.values() if flow.way is way]
        if len(flows) < 2:
            return bool(flows) and flows[0].take(data, rtcp)
        if rtcp:
            taken = [flow.take(data, rtcp, bundled=True) for flow in flows]
            return any(taken)
        number = data[1] & 0x7F
        return next((flow for flow in flows if flow.knows(number)), flows[0]).take(data, rtcp)

    def _flow(self, kind: str) -> _Flow:
        return self._flows.setdefault(kind, _Flow(self))

    def way(self, kind: str, place: Place | None = None) -> Way | None:
        """That in use, or to a place of ours."""
        flow = self._flows.get(kind)
        return self._open_ways.find(kind, place) if place is not None else flow.way if flow is not None else None

    @property
    def associations(self) -> Sequence[DtlsWay]:
        return [way for way in self._ways if isinstance(way, DtlsWay)]

    async def stay(self) -> None:
        """What was opened since the last agreement is not needed."""
        self._open_ways.stay(self._ways)

    def agree(self, kind: str, line: Line) -> None:
        flow = self._flow(kind)
        way = self._open_ways.find(kind, line.place) or flow.way
        if way is None:
            raise RuntimeError("this line is not open yet")
        flow.agree(line, way)
        self._open_ways.agreed(kind, way, self._ways)

    def start(
        self, kind: str, outgoing: RtpSendStream, incoming: RtpReceiveStream, track: EncodedTrack | None
    ) -> None:
        """Begin to send ``track`` and to hand over what comes, as agreed."""
        self._flows[kind].start(outgoing, incoming, track)

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
        if flow is None or flow.way is None:
            raise ConnectionError("the transport is not open")
        await flow.way.send(packet, rtcp=rtcp)
        self._sent = [self._sent[0] + 1, self._sent[1] + len(packet)]

    def arrived(self, size: int) -> None:
        self._received = [self._received[0] + 1, self._received[1] + size]
        self._listener.on_arrival()

    # -- MediaTransport

    @property
    def _ways(self) -> Sequence[Way]:
        """Those in use, that of the sound first."""
        return list(dict.fromkeys(flow.way for flow in self._flows.values() if flow.way is not None))

    @property
    def malformed(self) -> int:
        return sum(way.malformed for way in self._ways)

    @property
    def strangers(self) -> int:
        return sum(way.strangers for way in self._ways)

    @property
    def unrouted(self) -> int:
        """Packets of no stream: another payload type, a source that is not taken yet."""
        return sum(flow.unrouted for flow in self._flows.values())

    @property
    def state(self) -> str:
        states = {way.state for way in self._ways}
        if self._closed or not states:
            return "closed" if self._closed else "new"
        return next((one for one in ("failed", "connecting") if one in states), "connected")

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
        """Nothing where any line goes in the clear."""
        found = [way.security() for way in self._ways]
        return found[0] if found and all(found) else {}

    def certificates(self) -> Mapping[str, CertificateFacts]:
        """Those of the sound."""
        return self._ways[0].certificates() if self._ways else {}

    def failure(self) -> str:
        return next((why for way in self._ways if (why := way.failure[0])), "")

    @property
    def trouble(self) -> str:
        """Why it failed, for people."""
        return next((words for way in self._ways if (words := way.failure[1])), "")

    def mark(self, marks: Marks, *, video: bool) -> None:
        """Each kind has its own mark, but where they share a way."""
        if len(self._ways) < sum(flow.way is not None for flow in self._flows.values()):
            self._ways[0].mark(marks.of(video=video))

    def local_addresses(self) -> Set[str]:
        return {way.address for way in self._ways if way.address is not None}

    def transport_facts(self) -> dict[str, Any]:
        return {
            **(self._ways[0].facts() if self._ways else {}),
            "packetsSent": self._sent[0], "bytesSent": self._sent[1],
            "packetsReceived": self._received[0], "bytesReceived": self._received[1],
            "malformed": self.malformed, "overflow": 0, "strangers": self.strangers,
        }

    async def close(self) -> None:
        flows, self._flows = list(self._flows.values()), {}
        self._closed = True
        for flow in flows:
            await flow.close()
        await self._open_ways.close()


class PlainSession(Session):
    """A session whose signalling is somebody else's: ``open``, tell the ports, then ``agree`` whenever it is agreed."""

    def __init__(
        self, name: str, *, wanted: Directions, mux: bool = False, symmetric: bool = True,
        protections: Mapping[str, Protection] | None = None, servers: ServerPool | None = None,
        **parts: Unpack[SessionParts],
    ) -> None:
        super().__init__(name, wanted=wanted, **parts)
        self._transport = self._plain = PlainTransport(
            self, parts["marks"], name=name, mux=mux, symmetric=symmetric, protections=protections, servers=servers)
        self._plain.on_digit = self._on_digit
        self._plain.on_tones = lambda digit: self._emit(SessionDigit(digit, heard=True))
        self._pressing = asyncio.Lock()

    async def open(self, host: str, kinds: Sequence[str] = ("audio",)) -> Mapping[str, tuple[int, int]]:
        """Bind at ``host``: the ports of RTP and RTCP of each kind, for our description. Raises OSError."""
        return await self._plain.open(host, kinds)

    async def associate(
        self, host: str, kinds: Sequence[str] = ("audio",), *, ice: bool = True, mux: bool = False,
    ) -> Mapping[str, OurEnd]:
        """Likewise our ends of associations with DTLS. ``ice``: the peer may find paths by ICE; without it ``host`` is
        the address that it uses. ``mux``: it is known to take RTCP on the port of RTP; without it there is a port for
        that until it does. Opened or associated again, what is agreed next is agreed for the new ones."""
        return await self._plain.associate(host, kinds, ice=ice, mux=mux)

    async def stay(self) -> None:
        """What was opened since the last agreement is not needed."""
        await self._plain.stay()

    def association(self, kind: str) -> DtlsWay | None:
        """That in use for a line; None where it has none."""
        way = self._plain.way(kind)
        return way if isinstance(way, DtlsWay) else None

    @property
    def associations(self) -> Sequence[DtlsWay]:
        """Those in use, each once."""
        return self._plain.associations

    def can_agree(self, kind: str, line: Line) -> bool:
        """Whether ``agree`` can take it: for a place of ours that is there, and no other association than there."""
        way = self._plain.way(kind, line.place)
        return way is not None and (
            not isinstance(way, DtlsWay) or line.their_end is None or way.continues(line.their_end))

    @property
    def security(self) -> Mapping[str, str]:
        """Protocol and cipher names; empty where any line goes in the clear, or as long as it is not known."""
        return self._plain.security()

    def on_state(self) -> None:
        if self._plain.state == "failed":
            self._finish(self._plain.failure(), self._plain.trouble)
        else:
            super().on_state()

    def agree(self, lines: Mapping[str, Line]) -> None:
        """What both descriptions agree on, by kind; again with every new one."""
        first = not self.outgoing
        for kind, line in lines.items():
            self._plain.agree(kind, line)
            streams = None if kind in self.outgoing else self._streams(kind)
            if kind == "video":
                self._agree_pictures(line.format)
            if streams is not None:
                self._plain.start(kind, *streams, self.microphone_track if kind == "audio" else self.camera_track)
        if first:
            self._prepare_camera()
            self._described()
            self.on_state()
        elif self._connected_at is not None:
            self._apply()

    def _agree_pictures(self, agreed: StreamFormat) -> None:
        incoming = self.incoming["video"]
        incoming.resends = "nack" in agreed.feedback
        incoming.on_key_wanted = None if "nack pli" in agreed.feedback else self._want_key
        self.video_in.parameter_sets = parameter_sets_of(agreed.parameters.get("sprop-parameter-sets", ""))
        if self.camera_track is not None:
            self.camera_track.take_only(limit_of(agreed.parameters, agreed.bandwidth),
                                        sliced=agreed.parameters.get(PACKET_MODE) == "0")

    def _want_key(self) -> None:
        self._emit(SessionKeyWanted())

    def send_key_frame(self) -> None:
        """The peer asks for one by signalling."""
        if self.camera_track is not None:
            self.camera_track.keyframe_wanted()

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


def _types(agreed: StreamFormat) -> tuple[int | None, ...]:
    """Payload types that the peer may send."""
    return agreed.payload_type, agreed.event_type, agreed.noise_type


def _is_opus(agreed: StreamFormat) -> bool:
    return agreed.mime_type.lower() == "audio/opus"
