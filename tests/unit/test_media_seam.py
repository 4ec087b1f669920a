"""Each shim of the seam: what stock aiortc does, and what ours does instead."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import struct
from typing import Any

import pylibsrtp
import pytest
from aioice import Connection
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection
from aiortc.codecs import get_capabilities
from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCCertificate, RTCDtlsTransport, RtpRouter, State
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtpCodecParameters,
    RTCRtpDecodingParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpParameters,
    RTCRtpReceiveParameters,
    RTCRtpRtxParameters,
    RTCRtpSendParameters,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack, RTCRtpReceiver
from aiortc.rtp import RtcpByePacket, RtcpPacket, RtcpPsfbPacket, RtcpRtpfbPacket, RtpPacket
from OpenSSL import SSL

from appliance.media import aiortc_seam as seam
from appliance.media import dtls_seam, ice_seam, routing_seam, rtp_seam
from appliance.media.congestion.transport_cc import URI, TransportFeedback
from appliance.media.rtp_receive import RtpReceiveStream
from tests.support.seams import peer_connection


class Named:
    """A receiver or sender; ``asked`` are the sequence numbers that it asked for again."""

    def __init__(self, name: str, *asked: int) -> None:
        self.name = name
        self.asked = asked

    def expects(self, packet: RtpPacket) -> bool:
        return int.from_bytes(packet.payload[:2], "big") in self.asked


def test_other_versions_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rtp_seam.check_versions()
    monkeypatch.setattr(rtp_seam, "version", lambda package: "1.17.0" if package == "aiortc" else "0.13.0")
    with pytest.raises(rtp_seam.UnsupportedVersionError, match=r"aiortc 1\.17\.0 .*'aiortc==1\.16\.\*'"):
        rtp_seam.check_versions()


@pytest.mark.parametrize("router_type", [RtpRouter, routing_seam.Router])
def test_fir_finds_its_sender_in_the_fci(router_type: type[RtpRouter]) -> None:
    router, sender = router_type(), Named("sender")
    router.register_sender(sender, ssrc=1234)  # type: ignore[arg-type]
    fir = RtcpPsfbPacket(fmt=rtp_seam.FEEDBACK["fir"], ssrc=1, media_ssrc=0, fci=struct.pack("!LL", 1234, 7 << 24))
    assert router.route_rtcp(fir) == ({sender} if router_type is routing_seam.Router else set())


@pytest.mark.parametrize("router_type", [RtpRouter, routing_seam.Router])
def test_rtp_finds_its_receiver_by_mid(router_type: type[RtpRouter]) -> None:
    router, receivers = router_type(), [Named("first"), Named("second")]
    for mid, receiver in enumerate(receivers):
        router.register_receiver(receiver, ssrcs=[], payload_types=[96], mid=str(mid))  # type: ignore[arg-type]
    packet = RtpPacket(payload_type=96, ssrc=99)
    packet.extensions.mid = "1"
    assert router.route_rtp(packet) is (receivers[1] if router_type is routing_seam.Router else None)
    packet.extensions.mid = None  # later packets leave it out: the source is known by then
    assert router.route_rtp(packet) is (receivers[1] if router_type is routing_seam.Router else None)


def two_videos(router_type: type[RtpRouter], *asked: int) -> tuple[RtpRouter, Named, Named]:
    """Two receivers with the same payload types, as in a room: 96 media, 97 retransmissions."""
    router, first, second = router_type(), Named("first", *asked), Named("second")
    for mid, receiver in (("0", first), ("1", second)):
        router.register_receiver(receiver, ssrcs=[], payload_types=[96, 97], mid=mid)  # type: ignore[arg-type]
    return router, first, second


def rtp(ssrc: int, *, payload_type: int = 96, payload: bytes = b"", **extensions: str) -> RtpPacket:
    packet = RtpPacket(payload_type=payload_type, ssrc=ssrc, payload=payload)
    for name, value in extensions.items():
        setattr(packet.extensions, name, value)
    return packet


@pytest.mark.parametrize("router_type", [RtpRouter, routing_seam.Router])
def test_a_retransmission_of_an_unknown_source_finds_who_asked_for_it(router_type: type[RtpRouter]) -> None:
    router, first, _ = two_videos(router_type, 0x1234)
    again = rtp(70, payload_type=97, payload=b"\x12\x34data")
    assert router.route_rtp(again) is (first if router_type is routing_seam.Router else None)
    if router_type is routing_seam.Router:
        assert router.route_rtp(rtp(70, payload_type=97, payload=b"\0\1data")) is first, "known from now on"


def test_a_retransmission_that_two_asked_for_is_not_guessed() -> None:
    router, _, second = two_videos(routing_seam.Router, 5)
    second.asked = (5,)
    assert router.route_rtp(rtp(70, payload_type=97, payload=b"\0\5data")) is None
    assert isinstance(router, routing_seam.Router)
    assert router.unrouted == 1


@pytest.mark.parametrize("router_type", [RtpRouter, routing_seam.Router])
def test_a_source_that_names_only_its_rid_finds_its_receiver(router_type: type[RtpRouter]) -> None:
    router, _, second = two_videos(router_type)
    router.route_rtp(rtp(70, mid="1", rtp_stream_id="h"))
    again = rtp(71, payload_type=97, payload=b"\0\1data", repaired_rtp_stream_id="h")
    assert router.route_rtp(again) is (second if router_type is routing_seam.Router else None)
    router.route_rtp(rtp(72, mid="0", rtp_stream_id="h"))
    assert router.route_rtp(rtp(73, rtp_stream_id="h")) is None, "two receivers have it"
    router.unregister_receiver(second)  # type: ignore[arg-type]


def test_a_source_moves_with_its_mid_and_an_unknown_mid_is_for_nobody() -> None:
    router, first, second = two_videos(routing_seam.Router)
    assert router.route_rtp(rtp(70, mid="0")) is first
    assert router.route_rtp(rtp(70, mid="1")) is second
    assert router.route_rtp(rtp(70)) is second
    assert router.route_rtp(rtp(99, mid="7")) is None


def test_sources_that_were_not_signalled_are_bounded() -> None:
    router = routing_seam.Router()
    router.register_receiver(Named("only"), ssrcs=[1], payload_types=[96])  # type: ignore[arg-type]
    for ssrc in range(1000, 2000):
        router.route_rtp(rtp(ssrc, rtp_stream_id=str(ssrc)))
    assert len(router.ssrc_table) <= routing_seam.LEARNED + 1
    assert 1 in router.ssrc_table, "a signalled one stays"
    assert len(router._rids) <= routing_seam.RIDS


class Stream(RtpReceiveStream):
    """Notes what was negotiated."""

    def __init__(self) -> None:
        super().__init__("video", "test")
        self.negotiated: list[Any] = []

    def negotiate(self, parameters: Any) -> None:
        super().negotiate(parameters)
        self.negotiated.append(parameters)


@pytest.mark.parametrize("stock", [True, False])
async def test_a_line_that_is_negotiated_again_brings_other_sources(stock: bool) -> None:
    peer = peer_connection()
    transport, stream = peer.addTransceiver("video").receiver.transport, Stream()
    receiver = RTCRtpReceiver("video", transport) if stock else dtls_seam.Receiver("video", transport, stream)
    codec = RTCRtpCodecParameters(mimeType="video/H264", clockRate=90_000, payloadType=96)
    table = transport._rtp_router.ssrc_table
    for ssrc in (10, 20):
        encoding = RTCRtpDecodingParameters(ssrc=ssrc, payloadType=96, rtx=RTCRtpRtxParameters(ssrc=ssrc + 1))
        receiver._track = RemoteStreamTrack(kind="video")
        await receiver.receive(RTCRtpReceiveParameters(codecs=[codec], encodings=[encoding], muxId="0"))
    if stock:
        assert set(table) == {10}
    else:
        assert all(table[ssrc] is receiver for ssrc in (10, 11, 20, 21)), "media and retransmissions, before and now"
        assert len(stream.negotiated) == 2
    await receiver.stop()
    await peer.close()


def test_rids_are_offered() -> None:
    uris = {extension.uri for extension in get_capabilities("video").headerExtensions}
    assert {uri for _, uri in rtp_seam.STREAM_IDS} <= uris


def test_what_is_negotiated_and_in_which_order() -> None:
    assert get_capabilities("video").codecs[0].mimeType == "video/VP8"  # what would carry our H.264 otherwise
    video = rtp_seam.codec_preferences("video")
    assert [codec.mimeType for codec in video] == ["video/H264", "video/H264", "video/rtx"]
    assert video[0].parameters["profile-level-id"] == "42e01f"
    audio = [codec.mimeType for codec in rtp_seam.codec_preferences("audio")]
    assert audio == ["audio/opus", "audio/G722", "audio/PCMU", "audio/PCMA"]


def test_rsa_peers_find_a_cipher() -> None:
    def ciphers(certificate: RTCCertificate) -> list[str]:
        return SSL.Connection(certificate._create_ssl_context(SRTP_PROFILES)).get_cipher_list()

    assert not any("ECDHE-RSA" in cipher for cipher in ciphers(RTCCertificate.generateCertificate()))
    assert any("ECDHE-RSA" in cipher for cipher in ciphers(dtls_seam.Certificate.generateCertificate()))


async def test_a_bye_does_not_end_a_stream_and_nothing_is_joined() -> None:
    peer = peer_connection()
    transceiver = peer.addTransceiver("video")
    receiver = transceiver.receiver
    assert isinstance(receiver, dtls_seam.Receiver)
    receiver._running = True
    await receiver._handle_rtcp_packet(RtcpByePacket(sources=[1]))
    receiver._handle_disconnect()
    assert receiver._running
    receiver._running = False
    await peer.close()


async def test_all_lines_share_one_transport_with_our_parts() -> None:
    peer = peer_connection()
    audio, video = peer.addTransceiver("audio"), peer.addTransceiver("video")
    peer.createDataChannel("edgecall")
    assert audio.sender.transport is video.sender.transport is peer.sctp.transport
    dtls = audio.sender.transport
    assert isinstance(dtls, dtls_seam.DtlsTransport)
    assert isinstance(dtls._rtp_router, routing_seam.Router)
    assert isinstance(dtls.transport, RTCIceTransport)
    assert isinstance(dtls.transport._connection, ice_seam.IceConnection)
    assert dtls.transport._connection.stun_server is None, "a default STUN server"
    await peer.close()


async def negotiated(offering: RTCPeerConnection, answering: RTCPeerConnection) -> None:
    await offering.setLocalDescription(await offering.createOffer())
    await answering.setRemoteDescription(offering.localDescription)
    await answering.setLocalDescription(await answering.createAnswer())
    await offering.setRemoteDescription(answering.localDescription)


async def connects(*peers: RTCPeerConnection, within_s: float = 10.0) -> bool:
    """Whether all of them do; 1 s is plenty on loopback, where it is about those that never will."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not all(peer.connectionState == "connected" for peer in peers):  # noqa: ASYNC110 - aiortc emits it
                await asyncio.sleep(0.01)
            return True
    return False


@pytest.mark.parametrize("stock", [False, True])
async def test_a_second_line_of_a_kind_has_the_transport_of_the_first(stock: bool) -> None:
    """Stock balances: what it discards is the transport of the second picture."""
    offering = peer_connection()
    answering = RTCPeerConnection(RTCConfiguration(iceServers=[])) if stock else peer_connection()
    for kind in ("audio", "video", "video"):
        offering.addTransceiver(kind)
    await offering.setLocalDescription(await offering.createOffer())
    await answering.setRemoteDescription(offering.localDescription)
    transports = {line.receiver.transport for line in answering.getTransceivers()}
    assert len(transports) == (2 if stock else 1)
    await answering.close()
    await offering.close()


@pytest.mark.parametrize("stock", [False, True])
async def test_data_before_the_first_line_connects(stock: bool) -> None:
    """Stock stops the transport of both as left over, as soon as it is told that they are bundled."""
    bundling = RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
    offering = RTCPeerConnection(bundling) if stock else peer_connection()
    answering = peer_connection()
    offering.createDataChannel("edgecall")
    offering.addTransceiver("audio")
    await negotiated(offering, answering)
    assert await connects(offering, answering, within_s=1.0 if stock else 10.0) is not stock
    await offering.close()
    await answering.close()


@pytest.mark.parametrize("stock", [False, True])
async def test_a_line_described_while_data_alone_connects_begins(monkeypatch: pytest.MonkeyPatch, stock: bool) -> None:
    """A room in which nobody had a picture until now: the second offer comes in the handshake of the first."""
    if stock:
        monkeypatch.delattr(seam.PeerConnection, "_RTCPeerConnection__connect")
    greeting, described, write = asyncio.Semaphore(0), asyncio.Event(), dtls_seam.DtlsTransport._write_ssl

    async def later(transport: dtls_seam.DtlsTransport) -> None:
        greeting.release()
        await described.wait()
        await write(transport)

    monkeypatch.setattr(dtls_seam.DtlsTransport, "_write_ssl", later)
    offering, answering = peer_connection(), peer_connection()
    offering.createDataChannel("edgecall")
    await negotiated(offering, answering)
    for _ in (offering, answering):
        await greeting.acquire()
    line = offering.addTransceiver("video")
    await negotiated(offering, answering)
    described.set()
    assert await connects(offering, answering)
    ends: list[Any] = [line.sender, answering.getTransceivers()[0].receiver]
    for _ in range(10 if stock else 500):
        if all(end._running for end in ends):
            break
        await asyncio.sleep(0.02)
    assert [end._running for end in ends] == [not stock] * 2
    await offering.close()
    await answering.close()


@pytest.mark.parametrize("stock", [False, True])
async def test_a_greeting_that_is_lost_goes_again_before_a_second_is_over(
    monkeypatch: pytest.MonkeyPatch, stock: bool,
) -> None:
    if stock:
        monkeypatch.delattr(dtls_seam.DtlsTransport, "_write_ssl")
    greetings: list[bytes] = []
    send = Connection.send

    async def lossy(connection: Connection, data: bytes) -> None:
        if data[0] == 22 and data[13] == 1:  # a ClientHello (RFC 6347 4.3.2)
            greetings.append(data)
            if len(greetings) == 1:
                return
        await send(connection, data)

    monkeypatch.setattr(Connection, "send", lossy)
    offering, answering = peer_connection(), peer_connection()
    offering.createDataChannel("edgecall")
    await negotiated(offering, answering)
    assert await connects(offering, answering)
    assert (greetings[0] == greetings[1]) is not stock, "OpenSSL's has a number of its own, and comes after a second"
    await offering.close()
    await answering.close()


async def test_what_was_answered_is_not_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each datagram of a handshake, as if its pause were over only now."""
    sent: list[bytes] = []
    waiting: list[tuple[dtls_seam.DtlsTransport, bytes, int]] = []
    send, later = Connection.send, dtls_seam.DtlsTransport._send_again_later

    async def counting(connection: Connection, data: bytes) -> None:
        if data[0] == 22:
            sent.append(data)
        await send(connection, data)

    def held(transport: dtls_seam.DtlsTransport, flight: bytes, heard: int, pauses: object) -> None:
        waiting.append((transport, flight, heard))

    monkeypatch.setattr(Connection, "send", counting)
    monkeypatch.setattr(dtls_seam.DtlsTransport, "_send_again_later", held)
    offering, answering = peer_connection(), peer_connection()
    offering.createDataChannel("edgecall")
    await negotiated(offering, answering)
    assert await connects(offering, answering)
    before = list(sent)
    assert {flight for _, flight, _ in waiting} >= set(before)
    for transport, flight, heard in waiting:
        later(transport, flight, heard, (0.0,))
    await asyncio.sleep(0.01)
    assert sent == before
    await offering.close()
    await answering.close()


async def test_the_transport_is_closed_although_a_line_has_lost_its_own() -> None:
    """As aiortc leaves it after a description whose lines and bundle name each other differently."""
    peer = peer_connection()
    line = peer.addTransceiver("audio")
    dtls = line.receiver.transport
    await peer.setLocalDescription(await peer.createOffer())
    line.receiver.setTransport(None)
    with pytest.raises(AttributeError):
        await peer.close()
    assert dtls.transport.state == "closed"


@pytest.mark.parametrize("stock", [False, True])
async def test_data_for_a_peer_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, stock: bool) -> None:
    """A server closes DTLS: until our senders have stopped the association does not know, and sends by its timer and
    by tasks."""
    if stock:
        monkeypatch.setattr(dtls_seam.DtlsTransport, "_send_data", RTCDtlsTransport._send_data)
    lost = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    one, other = peer_connection(), peer_connection()
    line, stopped = one.addTransceiver("audio"), asyncio.Event()
    other.addTransceiver("audio")
    stop_line = line.stop

    async def stop_late() -> None:
        await stopped.wait()
        await stop_line()

    monkeypatch.setattr(line, "stop", stop_late)
    channel = one.createDataChannel("edgecall")
    await one.setLocalDescription(await one.createOffer())
    await other.setRemoteDescription(one.localDescription)
    await other.setLocalDescription(await other.createAnswer())
    await one.setRemoteDescription(other.localDescription)
    async with asyncio.timeout(10):
        while channel.readyState != "open":  # noqa: ASYNC110 - what aiortc emits does not say so to a coroutine
            await asyncio.sleep(0.01)
        assert other.sctp is not None
        assert one.sctp is not None
        await other.sctp.transport.stop()
        while one.sctp.transport.state != "closed":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert one.sctp.state == "connected"
    channel.send("nobody hears this")
    await asyncio.sleep(0.05)
    one.sctp._t3_cancel()
    one.sctp._t3_expired()
    await asyncio.sleep(0.05)
    stopped.set()
    await one.close()
    await other.close()
    gc.collect()
    await asyncio.sleep(0)
    assert bool(lost) is stock, lost


async def test_a_line_that_was_closed_while_it_connected_does_not_begin() -> None:
    """aiortc's own task of connecting goes on after the close, and starts both."""
    peer = peer_connection()
    line = peer.addTransceiver("audio")
    assert isinstance(line.sender, dtls_seam.Sender)
    assert isinstance(line.receiver, dtls_seam.Receiver)
    await peer.close()
    codec = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=48_000, channels=2, payloadType=96)
    running = asyncio.all_tasks()
    await line.sender.send(RTCRtpSendParameters(codecs=[codec]))
    await line.receiver.receive(RTCRtpReceiveParameters(codecs=[codec]))
    assert asyncio.all_tasks() == running
    assert not (line.sender._running or line.receiver._running)


async def test_a_packet_that_breaks_its_handler_does_not_end_the_call(caplog: pytest.LogCaptureFixture) -> None:
    peer = peer_connection()
    dtls = peer.addTransceiver("audio").sender.transport

    class Breaks:
        async def _handle_rtcp_packet(self, packet: Any) -> None:
            raise struct.error("short")

    dtls._rtp_router.senders[5] = Breaks()
    bad = bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=5))
    await dtls._handle_rtcp_data(bad)
    await dtls._handle_rtcp_data(bad)
    assert dtls.malformed == 2
    assert len(caplog.records) == 1, "told once, then counted"
    await peer.close()


async def test_media_is_taken_as_the_socket_gives_it() -> None:
    """Stock puts each packet into a queue and wakes a task for it."""
    peer = peer_connection()
    receiver = peer.addTransceiver("video").receiver
    dtls = receiver.transport
    assert isinstance(dtls, dtls_seam.DtlsTransport)
    ice_agent = dtls.transport._connection
    taken: list[int] = []
    receiver._running = True
    receiver.stream.on_rtp = lambda packet, arrival, overhead: taken.append(packet.sequence_number)  # type: ignore[method-assign]
    dtls._rtp_router.register_receiver(receiver, ssrcs=[9], payload_types=[96])
    good, forged = (RtpPacket(payload_type=96, sequence_number=n, ssrc=9, payload=b"x").serialize() for n in (1, 2))

    class Srtp:
        def unprotect(self, data: bytes) -> bytes:
            if data == forged:
                raise pylibsrtp.Error("authentication failure")
            return data

    ice_agent.data_received(good, 1)
    assert ice_agent._queue.qsize() == 1, "before the handshake it waits for it"
    dtls._rx_srtp, dtls._state = Srtp(), State.CONNECTED  # type: ignore[assignment]
    for data in (good, forged, b"\x80"):
        ice_agent.data_received(data, 1)
    assert taken == [1]
    assert ice_agent._queue.qsize() == 1
    assert dtls.malformed == 1, "one byte is no packet"
    ice_agent.data_received(bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=5)), 1)
    assert ice_agent._queue.qsize() == 2, "reports go by the task"
    receiver._running = False
    await peer.close()


async def test_feedback_waiting_for_the_transport_is_bounded() -> None:
    stuck = asyncio.Event()

    async def send(data: bytes) -> None:
        await stuck.wait()

    outlet = dtls_seam.Outlet(send, "test")
    for _ in range(dtls_seam.Outlet.LIMIT + 5):
        outlet.put([b"x"])
    assert outlet.dropped == 5
    await outlet.stop()


async def test_transport_wide_feedback_is_offered_for_sound_and_picture() -> None:
    peer = peer_connection()
    for kind in ("audio", "video"):
        peer.addTransceiver(kind).setCodecPreferences(rtp_seam.codec_preferences(kind))
    offer = (await peer.createOffer()).sdp
    for section in offer.split("m=")[1:]:
        assert f"a=extmap:{rtp_seam.TRANSPORT_WIDE_ID} {URI}" in section
        assert re.search(r"a=rtcp-fb:\d+ transport-cc", section)
    await peer.close()


class Wide:
    """Notes what the transport hands over."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.packets: list[tuple[int, int]] = []

    def report_as(self, ssrc: int, send: Any) -> None: ...

    def on_packet(self, sequence: int, ssrc: int) -> None:
        self.packets.append((sequence, ssrc))

    def on_feedback(self, fci: bytes) -> None:
        self.bodies.append(fci)


async def test_transport_wide_feedback_is_not_read_as_a_nack() -> None:
    feedback = TransportFeedback(7, 1, 0, (300, None, 310))
    (misread,) = RtcpPacket.parse(feedback.packet(1, 5))
    assert isinstance(misread, RtcpRtpfbPacket)
    assert misread.lost, "stock takes its body for lost packets"
    wide = Wide()
    peer = peer_connection(wide=wide)
    dtls = peer.addTransceiver("audio").sender.transport
    seen: list[Any] = []

    class Sender:
        async def _handle_rtcp_packet(self, packet: Any) -> None:
            seen.append(packet)

    dtls._rtp_router.senders[5] = Sender()
    nack = RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=5, lost=[9])
    await dtls._handle_rtcp_data(bytes(nack) + feedback.packet(1, 5))
    assert seen == [nack]
    assert TransportFeedback.parse(wide.bodies[0]) == feedback
    packet = RtpPacket(payload_type=1, ssrc=99)
    packet.extensions.transport_sequence_number = 1234
    assert dtls._rtp_router.route_rtp(packet) is None
    assert wide.packets == [(1234, 99)], "also of packets that are nobody's"


async def test_peers_are_told_that_copies_are_understood() -> None:
    """Stock says nothing of Opus, so that nobody sends FEC (RFC 7587 6.1: its default is 0)."""
    peer = peer_connection()
    peer.addTransceiver("audio")
    offer = await peer.createOffer()
    assert "minptime=10;useinbandfec=1" in offer.sdp
    await peer.close()


@pytest.mark.parametrize(("number", "found"), [(1, 1), (14, 14), (15, None), (200, None)])
def test_an_id_that_does_not_fit_one_byte_is_not_used(number: int, found: int | None) -> None:
    parameters = RTCRtpParameters(
        codecs=[RTCRtpCodecParameters("video/H264", 90_000, rtcpFeedback=[RTCRtcpFeedback("transport-cc")])],
        headerExtensions=[RTCRtpHeaderExtensionParameters(number, URI)],
    )
    assert rtp_seam.transport_wide_id(parameters) == found
    parameters.codecs[0].rtcpFeedback.clear()
    assert rtp_seam.transport_wide_id(parameters) is None, "numbers that nobody reports on"
