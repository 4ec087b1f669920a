"""The seam to aiortc: every private name of its that Edgecall touches stands here or in ``routing_seam`` and
``sctp_seam``, those of aioice in ``ice_seam``.

What is used as it is: ICE checks, DTLS, SCTP, the SDP parser, the RTP and RTCP codecs. What is replaced, and why:

========================  ==========================================================================================
``Sender``, ``Receiver``  stock ones ignore key-frame requests and REMB for encoded frames, mark every audio packet,
                          join the decoder thread inside the loop and queue without limit
``IceConnection``         consent of RFC 7675 (30 s since the last valid answer; stock closes a healthy call when the
                          round trip is over 500 ms), servers with fail-over (``ice_seam``)
``DtlsTransport``         tells of every authenticated arrival, survives malformed RTCP, RSA cipher suites,
                          transport-wide feedback (stock reads format 15 as if it were NACK)
``Router``                FIR by its FCI, RTP by MID and RID, retransmissions of unknown sources (``routing_seam``)
``PeerConnection``        builds all of these, bundles always, names its tasks, tells of failures
========================  ==========================================================================================

Private names change without notice, so other versions than those tested are refused at start.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Protocol

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection
from aiortc.codecs import CODECS, HEADER_EXTENSIONS, depayload, get_capabilities, is_rtx
from aiortc.codecs.h264 import H264Encoder
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rate import RemoteBitrateEstimator
from aiortc.rtcdtlstransport import (
    RTCCertificate,
    RTCDtlsTransport,
    SRTPProtectionProfile,
    State,
    certificate_digest,
)
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport, candidate_from_aioice
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtcpParameters,
    RTCRtpCodecCapability,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpParameters,
    RTCRtpReceiveParameters,
    RTCRtpSendParameters,
)
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    HeaderExtensionsMap,
    RtcpByePacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    RtpPacket,
    clamp_packets_lost,
    is_rtcp,
    pack_remb_fci,
    unpack_remb_fci,
    unwrap_rtx,
)
from aiortc.sdp import candidate_from_sdp
from cryptography.hazmat.primitives.serialization import Encoding
from pylibsrtp import Error as SrtpError

from appliance.media.congestion import transport_cc
from appliance.media.dscp import Marks
from appliance.media.ice_seam import IceConnection
from appliance.media.routing_seam import Router
from appliance.media.sctp_seam import DataGate
from appliance.media.servers import ServerPool
from appliance.tasks import background, fail_loudly

__all__ = [
    "CIPHERS",
    "FEEDBACK",
    "ONE_BYTE_ID",
    "AnyRtcpPacket",
    "CertificateFacts",
    "HeaderExtensionsMap",
    "MediaStreamTrack",
    "Outlet",
    "PeerConnection",
    "RTCRtcpParameters",
    "RTCRtpCodecParameters",
    "RTCRtpReceiveParameters",
    "RTCRtpSendParameters",
    "ReceiveStream",
    "RemoteBitrateEstimator",
    "RtcpPacket",
    "RtcpPsfbPacket",
    "RtcpReceiverInfo",
    "RtcpRrPacket",
    "RtcpRtpfbPacket",
    "RtcpSdesPacket",
    "RtcpSenderInfo",
    "RtcpSourceInfo",
    "RtcpSrPacket",
    "RtpPacket",
    "SendStream",
    "TransportWide",
    "UnsupportedVersionError",
    "candidate_from_sdp",
    "check_versions",
    "clamp_packets_lost",
    "codec_preferences",
    "depayload",
    "h264_payloads",
    "is_rtx",
    "pack_remb_fci",
    "transport_wide_id",
    "unpack_remb_fci",
    "unwrap_rtx",
]

log = logging.getLogger(__name__)

TESTED: Final = {"aiortc": "1.16.", "aioice": "0.13."}
ONE_BYTE_ID: Final = 14  # the highest id of the one-byte form (RFC 8285 4.2), which is the only one we write
TRANSPORT_WIDE_ID: Final = 4  # of the header extension, in our offers; free in aiortc's own numbering
STREAM_IDS: Final = (
    (5, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"), (6, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"),
)

# Stock offers ECDSA alone, which older gateways with RSA certificates cannot answer (aiortc #1434).
CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES128-SHA"
)



class UnsupportedVersionError(ImportError):
    """The installed aiortc or aioice is not one whose internals are known."""


# What we tell of our own Opus decoder (RFC 7587 6.1); stock says nothing, so that peers send no FEC. Pauses (usedtx)
# are understood and not asked for: encoders take a steady sound, an alarm or a hum, for noise and send nothing of it.
OPUS_FORMAT: Final = {"minptime": 10, "useinbandfec": 1}


def check_versions() -> None:
    """Raise UnsupportedVersionError, naming what is installed and what is needed."""
    for package, tested in TESTED.items():
        installed = version(package)
        if not installed.startswith(tested):
            raise UnsupportedVersionError(
                f"{package} {installed} is installed, but Edgecall is built on internals of {package} {tested}*: "
                f"install it with  pip install '{package}=={tested}*'"
            )


check_versions()

for _codec in CODECS["audio"]:
    if _codec.mimeType == "audio/opus":
        _codec.parameters = dict(OPUS_FORMAT)

# INFO lines of aioice are addresses of people, for every check; DEBUG ones of aiortc hold the passwords of ICE.
for _talkative in ("aioice", "aiortc"):
    logging.getLogger(_talkative).setLevel(logging.WARNING)


def hidden(thing: object, owner: type, name: str) -> Any:
    """The double-underscore attribute ``name`` that class ``owner`` keeps in ``thing``."""
    return getattr(thing, f"_{owner.__name__}__{name}")


def hide(thing: object, owner: type, name: str, value: object) -> None:
    setattr(thing, f"_{owner.__name__}__{name}", value)


def h264_payloads(access_unit: bytes) -> list[bytes]:
    """RTP payloads of one Annex-B access unit: single NAL, STAP-A and FU-A (RFC 6184, packetization-mode 1)."""
    return H264Encoder._packetize(H264Encoder._split_bitstream(access_unit))


def codec_preferences(kind: str) -> list[RTCRtpCodecCapability]:
    """Opus before G.722 and G.711 (RFC 7874 3), or constrained baseline and baseline H.264 with retransmission.

    Without this VP8 stands first and H.264 packets would leave under its payload type without any error.
    """
    codecs = get_capabilities(kind).codecs
    if kind == "audio":
        return [codec for codec in codecs if codec.mimeType in ("audio/opus", "audio/G722", "audio/PCMU", "audio/PCMA")]
    profiles = {"42e01f": 0, "42001f": 1}
    h264 = [codec for codec in codecs if codec.parameters.get("profile-level-id") in profiles]
    h264.sort(key=lambda codec: profiles[str(codec.parameters["profile-level-id"])])
    return h264 + [codec for codec in codecs if codec.mimeType == "video/rtx"]


def _offer_transport_wide() -> None:
    """Put transport-wide feedback into what aiortc offers and accepts, for sound and picture alike."""
    for kind in ("audio", "video"):
        if not any(extension.uri == transport_cc.URI for extension in HEADER_EXTENSIONS[kind]):
            HEADER_EXTENSIONS[kind].append(
                RTCRtpHeaderExtensionParameters(id=TRANSPORT_WIDE_ID, uri=transport_cc.URI)
            )
            for codec in CODECS[kind]:
                if not is_rtx(codec):
                    codec.rtcpFeedback.append(RTCRtcpFeedback(type="transport-cc"))


_offer_transport_wide()


def _offer_stream_ids() -> None:
    """Accept the RIDs of a room that sends neither SSRCs nor a MID with its retransmissions (RFC 8852)."""
    for number, uri in STREAM_IDS:
        if not any(extension.uri == uri for extension in HEADER_EXTENSIONS["video"]):
            HEADER_EXTENSIONS["video"].append(RTCRtpHeaderExtensionParameters(id=number, uri=uri))


_offer_stream_ids()


def transport_wide_id(parameters: RTCRtpParameters) -> int | None:
    """Id of the header extension that carries the transport-wide sequence number, when both sides do transport-cc."""
    if not any(feedback.type == "transport-cc" for codec in parameters.codecs for feedback in codec.rtcpFeedback):
        return None
    ids = (each.id for each in parameters.headerExtensions if each.uri == transport_cc.URI)
    return next((number for number in ids if 1 <= number <= ONE_BYTE_ID), None)


# --- what a stream of ours looks like to aiortc -----------------------------------------------------------------------


class SendStream(Protocol):
    """One outgoing RTP stream."""

    def start(
        self, *, ssrc: int, rtx_ssrc: int, parameters: RTCRtpSendParameters,
        send: Callable[[bytes], Awaitable[None]], track: MediaStreamTrack | None,
    ) -> None: ...

    def on_rtcp(self, packet: AnyRtcpPacket) -> None: ...

    def enable(self, enabled: bool) -> None: ...

    async def stop(self) -> None: ...


class ReceiveStream(Protocol):
    """One incoming RTP stream."""

    def start(
        self, *, rtcp_ssrc: int, parameters: RTCRtpReceiveParameters, send: Callable[[bytes], Awaitable[None]],
    ) -> None: ...

    def on_rtp(self, packet: RtpPacket, arrival_ms: int, overhead: int = 12) -> None:
        """A packet of this stream; ``overhead``: its bytes of header, extensions and padding."""

    def on_rtcp(self, packet: AnyRtcpPacket) -> None: ...

    def negotiate(self, parameters: RTCRtpReceiveParameters) -> None:
        """The descriptions were exchanged again."""

    def expects(self, packet: RtpPacket) -> bool:
        """Whether a packet of unknown source is a retransmission that was asked for."""

    async def stop(self) -> None: ...


class TransportWide(Protocol):
    """What one transport's feedback is handed to, both ways."""

    def report_as(self, ssrc: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        """The peer does transport-cc: what arrives is to be reported to it, from ``ssrc``."""

    def on_packet(self, sequence: int, ssrc: int) -> None:
        """A packet with this transport-wide sequence number arrived just now."""

    def on_feedback(self, fci: bytes) -> None:
        """The peer reports what arrived; the body may be anything."""


class Outlet:
    """RTCP and retransmissions of one stream on their way out, without making the receiving wait.

    At most ``LIMIT`` groups wait (only TURN over TCP ever waits); more are dropped and counted. ``failed`` is told of
    an exception of our own code.
    """

    LIMIT: Final = 64

    def __init__(
        self, send: Callable[[bytes], Awaitable[None]], name: str, *, failed: Callable[[Exception], None] = fail_loudly
    ) -> None:
        self._send = send
        self._failed = failed
        self._name = f"media.feedback {name}"
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def put(self, packets: list[bytes]) -> None:
        if len(self._tasks) >= self.LIMIT:
            self.dropped += 1
            return
        task = background(self._deliver(packets), name=self._name, failed=self._failed)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, packets: list[bytes]) -> None:
        try:
            for packet in packets:
                await self._send(packet)
        except ConnectionError:
            log.debug("feedback is not sent: the transport is gone")


class Sender(RTCRtpSender):
    """RTCRtpSender that hands the sending to a SendStream."""

    def __init__(self, track_or_kind: MediaStreamTrack | str, transport: RTCDtlsTransport, stream: SendStream) -> None:
        self.stream = stream
        self._running = False
        self._ended = False
        super().__init__(track_or_kind, transport)

    @property
    def _enabled(self) -> bool:
        return self._allowed

    @_enabled.setter
    def _enabled(self, enabled: bool) -> None:  # set by the transceiver from the negotiated direction
        self._allowed = enabled
        self.stream.enable(enabled)

    async def send(self, parameters: RTCRtpSendParameters) -> None:
        if self._running or self._ended:  # closed while it was connecting: aiortc goes on to start it
            return
        self._running = True
        self.transport._register_rtp_sender(self, parameters)
        self.stream.start(
            ssrc=self._ssrc, rtx_ssrc=self._rtx_ssrc, parameters=parameters,
            send=self.transport._send_rtp, track=self.track,
        )

    async def stop(self) -> None:
        self._ended = True
        if self._running:
            self._running = False
            await self.stream.stop()  # its BYE still passes the transport
            self.transport._unregister_rtp_sender(self)

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        self.stream.on_rtcp(packet)


class Receiver(RTCRtpReceiver):
    """RTCRtpReceiver that hands the receiving to a ReceiveStream: no decoder thread to join, no endless queue."""

    def __init__(self, kind: str, transport: RTCDtlsTransport, stream: ReceiveStream) -> None:
        super().__init__(kind, transport)
        self.stream = stream
        self._running = False
        self._ended = False
        self._report_ssrc = 0

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        if self._running:  # negotiated again: perhaps with other sources on this line
            self.stream.negotiate(parameters)
            self._register(parameters)
            return
        if self._ended:
            return
        self._running = True
        wide = self.transport.wide if isinstance(self.transport, DtlsTransport) else None
        if wide is not None and transport_wide_id(parameters) is not None:
            wide.report_as(self._report_ssrc, self.transport._send_rtp)
        self.stream.start(rtcp_ssrc=self._report_ssrc, parameters=parameters, send=self.transport._send_rtp)
        self._register(parameters)

    def _register(self, parameters: RTCRtpReceiveParameters) -> None:
        self.transport._register_rtp_receiver(self, parameters)
        for encoding in parameters.encodings:
            if encoding.rtx is not None:  # stock forgets it, and its packets where payload types are shared
                self.transport._rtp_router.ssrc_table[encoding.rtx.ssrc] = self

    def expects(self, packet: RtpPacket) -> bool:
        return self._enabled and self._running and self.stream.expects(packet)

    async def stop(self) -> None:
        self._ended = True
        if self._running:
            self._running = False
            self.transport._unregister_rtp_receiver(self)
            await self.stream.stop()

    def _set_rtcp_ssrc(self, ssrc: int) -> None:
        self._report_ssrc = ssrc

    def _handle_disconnect(self) -> None:
        """The transport is gone; the session tells and closes. Nothing is joined here."""

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        # A BYE does not end the stream: a call ends by signalling, and a peer may come back with a new SSRC.
        if not isinstance(packet, RtcpByePacket):
            self.stream.on_rtcp(packet)

    def take(self, packet: RtpPacket, arrival_time_ms: int, overhead: int) -> None:
        if self._enabled and self._running:
            self.stream.on_rtp(packet, arrival_time_ms, overhead)


# --- ICE --------------------------------------------------------------------------------------------------------------


class Gatherer(RTCIceGatherer):
    def __init__(self, servers: ServerPool, *, loopback: bool, marking: int, on_arrival: Callable[[], None]) -> None:
        super().__init__(iceServers=[])
        self._agent = IceConnection(servers=servers, loopback=loopback, marking=marking, on_arrival=on_arrival)
        self._connection = self._agent

    def hand_media(self, take: Callable[[bytes], bool]) -> None:
        """``take`` is given each datagram first, and says whether it was its."""
        self._agent.take_media = take


# --- DTLS and SRTP ----------------------------------------------------------------------------------------------------


class Certificate(RTCCertificate):
    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> Any:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(CIPHERS)
        return context




@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A certificate as W3C RTCCertificateStats has it."""

    fingerprint: str
    algorithm: str
    base64: str  # DER


class DtlsTransport(RTCDtlsTransport):
    """Tells of each authenticated packet; a packet that cannot be parsed is counted and never ends the call."""

    _RTCDtlsTransport__rx_bytes: int
    _RTCDtlsTransport__rx_packets: int

    def __init__(
        self, transport: RTCIceTransport, certificates: list[RTCCertificate], on_arrival: Callable[[], None],
        wide: TransportWide | None = None,
    ) -> None:
        super().__init__(transport, certificates)
        self._rtp_router = Router(wide)
        self.wide = wide
        self._on_arrival = on_arrival
        self._certificates: dict[str, CertificateFacts] = {}
        self._security: dict[str, str] = {}
        self.malformed = 0

    async def _recv_next(self) -> None:
        """The outermost boundary of what comes from the network: only the end of the transport ends its task."""
        try:
            await super()._recv_next()
        except ConnectionError:
            raise
        except Exception as error:
            self._note_malformed(error)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        await self._guard(self._handle_compound(data))

    async def _handle_compound(self, data: bytes) -> None:
        if self.wide is not None:
            data, bodies = transport_cc.split_compound(data)
            for fci in bodies:
                self.wide.on_feedback(fci)
        await super()._handle_rtcp_data(data)

    def take_media(self, data: bytes) -> bool:
        """A datagram as the socket gives it. RTP is handled at once: on the way through aioice's queue and aiortc's
        task each packet costs a turn of the loop and five coroutines. False: it is for that task."""
        srtp = self._rx_srtp
        if srtp is None or self._state != State.CONNECTED or not 127 < data[0] < 192 or is_rtcp(data):
            return False
        self._RTCDtlsTransport__rx_bytes += len(data)
        self._RTCDtlsTransport__rx_packets += 1
        try:
            plain = srtp.unprotect(data)
        except SrtpError:
            return True  # not from the peer, or twice
        self._take_rtp(plain, int(time.time() * 1000))
        return True

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        self._take_rtp(data, arrival_time_ms)

    def _take_rtp(self, data: bytes, arrival_time_ms: int) -> None:
        self._on_arrival()
        try:
            packet = RtpPacket.parse(data, self._rtp_header_extensions_map)
            receiver = self._rtp_router.route_rtp(packet)
            if isinstance(receiver, Receiver):
                receiver.take(packet, arrival_time_ms, len(data) - len(packet.payload))
        except Exception as error:
            self._note_malformed(error)

    def _register_data_receiver(self, receiver: Any) -> None:
        super()._register_data_receiver(DataGate(receiver, self._guard))

    def _unregister_data_receiver(self, receiver: Any) -> None:
        self._data_receiver = None

    async def _guard(self, handling: Awaitable[None]) -> None:
        """Handle what came authenticated. An exception would end RTCDtlsTransport's task and with it the call (seen:
        struct.error on bad RTCP)."""
        self._on_arrival()
        try:
            await handling
        except Exception as error:
            self._note_malformed(error)

    def _note_malformed(self, error: Exception) -> None:
        self.malformed += 1
        if self.malformed == 1:
            log.warning("a packet from the peer could not be handled; further ones are only counted", exc_info=error)

    def certificates(self) -> Mapping[str, CertificateFacts]:
        """By side, ``local`` and ``remote``; empty before the handshake."""
        if not self._certificates and self._ssl is not None and self._state == State.CONNECTED:
            certificates = {"local": hidden(self, RTCDtlsTransport, "local_certificate")._cert,
                            "remote": self._ssl.get_peer_certificate(as_cryptography=True)}
            self._certificates = {
                side: CertificateFacts(
                    certificate_digest(certificate, "sha-256"), "sha-256",
                    base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii"))
                for side, certificate in certificates.items()}
        return self._certificates

    def security(self) -> dict[str, str]:
        """Cipher names by IANA/OpenSSL, empty before the handshake."""
        if not self._security and self._ssl is not None and self._state == State.CONNECTED:
            self._security = {
                "tlsVersion": self._ssl.get_protocol_version_name(),
                "dtlsCipher": self._ssl.get_cipher_name() or "",
                "srtpCipher": self._ssl.get_selected_srtp_profile().decode(),
                "dtlsRole": self._role,
            }
        return self._security


# --- the peer connection ----------------------------------------------------------------------------------------------


class PeerConnection(RTCPeerConnection):
    """RTCPeerConnection made of the parts above: MAX_BUNDLE, no default STUN server, named tasks.

    ``streams(kind)`` gives the SendStream and ReceiveStream of a new transceiver; ``on_arrival`` is called for every
    authenticated packet; ``on_error`` when connecting failed inside aiortc without a state to tell it; ``wide`` gets
    the transport-wide feedback.
    """

    def __init__(
        self, servers: ServerPool, *, loopback: bool, name: str, marking: int = 0,
        streams: Callable[[str], tuple[SendStream, ReceiveStream]],
        on_arrival: Callable[[], None], on_error: Callable[[Exception], None], wide: TransportWide | None = None,
    ) -> None:
        # A peer that bundles but not the second line of a kind breaks every other policy (aiortc #1, bridges).
        super().__init__(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        hide(self, RTCPeerConnection, "certificates", [Certificate.generateCertificate()])
        self._servers = servers
        self._loopback = loopback
        self._marking = marking
        self._name = name
        self._streams = streams
        self._on_arrival = on_arrival
        self._on_error = on_error
        self._wide = wide
        self._connecting: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Close and see the connecting tasks end; aiortc forgets them."""
        await super().close()
        tasks = self._connecting - {asyncio.current_task()}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=0.2)
            for task in late:
                task.cancel()

    async def _RTCPeerConnection__connect(self) -> None:  # noqa: N802
        task = _name_task(f"media.connect {self._name}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        try:
            await RTCPeerConnection._RTCPeerConnection__connect(self)  # type: ignore[attr-defined]
        except Exception as error:  # aiortc would leave it in a forgotten task
            self._on_error(error)

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802
        gatherer = Gatherer(
            self._servers, loopback=self._loopback, marking=self._marking, on_arrival=self._on_arrival
        )
        ice = RTCIceTransport(gatherer)
        dtls = DtlsTransport(ice, hidden(self, RTCPeerConnection, "certificates"), self._on_arrival, self._wide)
        gatherer.hand_media(dtls.take_media)
        gatherer.on("statechange", hidden(self, RTCPeerConnection, "updateIceGatheringState"))
        ice.on("statechange", hidden(self, RTCPeerConnection, "updateIceConnectionState"))
        ice.on("statechange", hidden(self, RTCPeerConnection, "updateConnectionState"))
        dtls.on("statechange", hidden(self, RTCPeerConnection, "updateConnectionState"))
        hidden(self, RTCPeerConnection, "iceTransports").add(ice)
        hidden(self, RTCPeerConnection, "dtlsTransports").add(dtls)
        return dtls

    def _RTCPeerConnection__createTransceiver(  # noqa: N802
        self, direction: str, kind: str, sender_track: MediaStreamTrack | None = None
    ) -> RTCRtpTransceiver:
        transceivers = hidden(self, RTCPeerConnection, "transceivers")
        sctp = hidden(self, RTCPeerConnection, "sctp")
        if transceivers:
            dtls = transceivers[0].receiver.transport
        elif sctp:
            dtls = sctp.transport
        else:
            dtls = self._RTCPeerConnection__createDtlsTransport()
        outgoing, incoming = self._streams(kind)
        transceiver = RTCRtpTransceiver(
            direction=direction, kind=kind,
            sender=Sender(sender_track or kind, dtls, outgoing), receiver=Receiver(kind, dtls, incoming),
        )
        transceiver.receiver._set_rtcp_ssrc(transceiver.sender._ssrc)
        transceiver.sender._stream_id = hidden(self, RTCPeerConnection, "stream_id")
        transceiver._bundled = bool(transceivers or sctp)
        transceivers.append(transceiver)
        return transceiver

    @property
    def _dtls(self) -> DtlsTransport | None:
        return next(iter(hidden(self, RTCPeerConnection, "dtlsTransports")), None)

    @property
    def _ice(self) -> IceConnection | None:
        dtls = self._dtls
        connection = dtls.transport._connection if dtls is not None else None
        return connection if isinstance(connection, IceConnection) else None

    @property
    def state(self) -> str:
        """``connectionState`` by the name that every transport has."""
        return str(self.connectionState)

    def negotiated(self, kind: str) -> tuple[bool, bool]:
        """Whether ``kind`` is sent and received by the descriptions exchanged so far."""
        for transceiver in self.getTransceivers():
            if transceiver.kind == kind:
                direction = transceiver.currentDirection or "inactive"
                return direction in ("sendrecv", "sendonly"), direction in ("sendrecv", "recvonly")
        return False, False

    def codec(self, kind: str) -> RTCRtpCodecParameters | None:
        """The codec in use for ``kind``, once negotiated."""
        for transceiver in self.getTransceivers():
            if transceiver.kind == kind and transceiver.currentDirection and transceiver._codecs:
                return transceiver._codecs[0]
        return None

    def mid(self, kind: str) -> str | None:
        """Identification of the media line of ``kind`` (RFC 5888), once described."""
        return next((one.mid for one in self.getTransceivers() if one.kind == kind), None)

    def security(self) -> dict[str, str]:
        return self._dtls.security() if self._dtls is not None else {}

    def mark(self, marks: Marks, *, video: bool) -> None:
        """One mark for all: the lines share the transport."""
        if self._ice is not None:
            self._ice.mark(marks.of(video=video))

    def local_addresses(self) -> Set[str]:
        """The address of this machine that the path in use begins at; before there is one all that were gathered."""
        return self._ice.local_addresses() if self._ice is not None else frozenset()

    def certificates(self) -> Mapping[str, CertificateFacts]:
        """Those of the handshake by side, ``local`` and ``remote``; empty before it."""
        return self._dtls.certificates() if self._dtls is not None else {}

    def failure(self) -> str:
        """Which part failed: ``iceFailed``, ``dtls``, ``lost`` (consent ran out), or ``""``."""
        ice, dtls = self._ice, self._dtls
        if ice is not None and ice.consent_lost:
            return "lost"
        if dtls is not None and dtls.state == "failed":
            return "dtls"
        if dtls is not None and dtls.transport.state == "failed":
            return "iceFailed"
        return ""

    def transport_facts(self) -> dict[str, Any]:
        """Counters and the selected candidate pair, for statistics."""
        dtls, ice = self._dtls, self._ice
        if dtls is None or ice is None:
            return {}
        facts: dict[str, Any] = {
            "bytesSent": hidden(dtls, RTCDtlsTransport, "tx_bytes"),
            "bytesReceived": hidden(dtls, RTCDtlsTransport, "rx_bytes"),
            "packetsSent": hidden(dtls, RTCDtlsTransport, "tx_packets"),
            "packetsReceived": hidden(dtls, RTCDtlsTransport, "rx_packets"),
            "iceRole": dtls.transport.role, "iceState": dtls.transport.state, "dtlsState": dtls.state,
            "malformed": dtls.malformed + ice.malformed, "overflow": ice.overflow + ice.stalled, "checks": ice.checks,
            "discardedOnSend": ice.stalled,
            "localUsername": ice.local_username, "remoteUsername": ice.remote_username,
        }
        pair = ice.selected()
        if pair is not None:
            facts["local"] = candidate_from_aioice(pair.local_candidate)
            facts["remote"] = candidate_from_aioice(pair.remote_candidate)
        return facts


def _name_task(name: str) -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only inside a task")
    task.set_name(name)
    return task


FEEDBACK: Final = {
    "pli": RTCP_PSFB_PLI,
    "fir": RTCP_PSFB_FIR,
    "app": RTCP_PSFB_APP,
    "nack": RTCP_RTPFB_NACK,
}
"""Feedback message types (RFC 4585 6.2.1, 6.3.1; RFC 5104 4.3.1)."""

