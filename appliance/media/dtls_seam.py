"""The seam to aiortc's senders, receivers and DTLS transport: ours stand in their places, and hand on to our streams.

No exception that a packet causes leaves ``DtlsTransport``: only the end of the transport ends its task.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcdtlstransport import (
    RTCCertificate,
    RTCDtlsTransport,
    SRTPProtectionProfile,
    State,
    certificate_digest,
)
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters, RTCRtpSendParameters
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtp import AnyRtcpPacket, RtcpByePacket, RtpPacket, is_rtcp
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from pylibsrtp import Error as SrtpError

from appliance.media.congestion import transport_cc
from appliance.media.routing_seam import Router
from appliance.media.rtp_seam import transport_wide_id
from appliance.media.sctp_seam import DataGate
from appliance.tasks import background, fail_loudly

__all__ = [
    "CIPHERS",
    "Certificate",
    "CertificateFacts",
    "DtlsTransport",
    "Outlet",
    "ReceiveStream",
    "Receiver",
    "SendStream",
    "Sender",
    "TransportWide",
    "hidden",
]

log = logging.getLogger(__name__)

# Stock offers ECDSA alone, which older gateways with RSA certificates cannot answer (aiortc #1434).
CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES128-SHA"
)

RESEND_S: Final = (0.1, 0.2, 0.4)
"""Pauses after which the last datagram of our handshake goes again where nothing has come: OpenSSL waits for a second.
A peer whose ICE ends later than ours throws our greeting away (one join of a room of Janus in fifteen)."""


def hidden(thing: object, owner: type, name: str) -> Any:
    """The double-underscore attribute ``name`` that class ``owner`` keeps in ``thing``."""
    return getattr(thing, f"_{owner.__name__}__{name}")


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
    _RTCDtlsTransport__tx_bytes: int
    _RTCDtlsTransport__tx_packets: int

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

    async def _write_ssl(self) -> None:
        if self.encrypted:
            await super()._write_ssl()
            return
        assert self._ssl is not None  # noqa: S101 - aiortc writes from start() on, which makes it
        with suppress(SSL.Error):  # there is nothing to send
            flight = self._ssl.bio_read(1500)
            await self._send_flight(flight)
            self._send_again_later(flight, self._RTCDtlsTransport__rx_packets, RESEND_S)

    async def _send_flight(self, flight: bytes) -> None:
        await self.transport._send(flight)
        self._RTCDtlsTransport__tx_bytes += len(flight)
        self._RTCDtlsTransport__tx_packets += 1

    def _send_again_later(self, flight: bytes, heard: int, pauses: Sequence[float]) -> None:
        """As it is: what has come all the same, its peer knows by the number of its record (RFC 6347 4.1.2.6)."""
        async def send() -> None:
            with suppress(ConnectionError):
                await self._send_flight(flight)

        def act() -> None:
            if self._state is State.CONNECTING and not self.encrypted and heard == self._RTCDtlsTransport__rx_packets:
                background(send(), name="handshake again", failed=fail_loudly)
                self._send_again_later(flight, heard, pauses[1:])

        if pauses:
            asyncio.get_running_loop().call_later(pauses[0], act)

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

    async def _send_data(self, data: bytes) -> None:
        """To nobody where the connection is over, as a network would. Between the end of DTLS and that of SCTP, which
        waits for the senders, SCTP goes on by its timers and by tasks that nobody waits for: each exception was an
        error in the log."""
        with suppress(ConnectionError):
            await super()._send_data(data)

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
