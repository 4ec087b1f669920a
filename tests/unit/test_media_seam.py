"""Each shim of the seam: what stock aiortc does, and what ours does instead."""

from __future__ import annotations

import asyncio
import gc
import re
import struct
from pathlib import Path
from typing import Any

import pylibsrtp
import pytest
from aioice import ice, stun
from aioice.candidate import Candidate
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
from appliance.media.api import IceServers
from appliance.media.congestion.transport_cc import URI, TransportFeedback
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.servers import ServerPool


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


def connection(**more: Any) -> ice_seam.IceConnection:
    return ice_seam.IceConnection(**{
        "servers": ServerPool(IceServers()), "loopback": False, "on_arrival": lambda: None, "ice_controlling": True,
        **more})


async def gathered(agent: ice.Connection, addresses: list[str]) -> set[str]:
    try:
        return {candidate.host for candidate in await agent.get_component_candidates(1, addresses)}
    finally:
        await agent.close()


async def test_loopback_is_gathered_when_asked_and_when_there_is_nothing_else() -> None:
    assert await gathered(ice.Connection(ice_controlling=True), []) == set()
    assert "127.0.0.1" in await gathered(connection(), [])
    assert "127.0.0.1" in await gathered(connection(loopback=True), [])


def sockets() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("closed_first", [False, True])
async def test_gathering_cut_short_at_any_step_leaves_no_socket(*, closed_first: bool) -> None:
    before = sockets()
    opened, steps = 0, 0
    while True:
        agent = connection(loopback=True)
        gathering = asyncio.create_task(agent.gather_candidates())
        for _ in range(steps):
            await asyncio.sleep(0)
        opened = max(opened, len(sockets() - before))
        over = gathering.done()
        if closed_first:
            closing = asyncio.create_task(agent.close())
            await asyncio.sleep(0)
        gathering.cancel()
        await asyncio.gather(gathering, return_exceptions=True)
        await (closing if closed_first else agent.close())
        await asyncio.sleep(0)  # a socket is closed by the loop's next turn
        await asyncio.sleep(0)
        assert sockets() <= before, f"after {steps} steps"
        if over:
            break
        steps += 1
    assert steps > 2
    assert opened > 1


async def test_datagrams_that_nobody_takes_are_bounded() -> None:
    agent = connection()
    for _ in range(ice_seam.RECEIVE_QUEUE + 10):
        agent.data_received(b"x", 1)
    assert agent._queue.qsize() == ice_seam.RECEIVE_QUEUE
    assert agent.overflow == 10
    agent.data_received(b"", 1)  # would end RTCDtlsTransport with an IndexError
    await agent.close()


@pytest.mark.parametrize("protocol_type", [ice.StunProtocol, ice_seam.GuardedProtocol])
async def test_a_check_that_breaks_aioice_is_only_counted(protocol_type: type[ice.StunProtocol]) -> None:
    agent = connection()
    agent.remote_username, agent.remote_password = "user", "p" * 22
    agent._early_checks_done = True
    protocol = protocol_type(agent)
    protocol.transport = Nowhere()  # type: ignore[assignment]
    protocol.local_candidate = Candidate("1", 1, "udp", 1, "192.0.2.9", 9, "host")
    check = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    check.attributes["USERNAME"] = f"{agent.local_username}:user"  # authentic, and without its PRIORITY
    check.add_message_integrity(agent.local_password.encode())
    if protocol_type is ice.StunProtocol:
        with pytest.raises(KeyError):
            protocol.datagram_received(bytes(check), ("192.0.2.1", 1))
    else:
        protocol.datagram_received(bytes(check), ("192.0.2.1", 1))
        assert agent.malformed == 1
    await agent.close()


class Nowhere:
    def sendto(self, data: bytes, addr: tuple[str, int]) -> None: ...


async def test_a_stream_to_a_turn_server_that_stalls_holds_no_old_packets() -> None:
    agent, sent = connection(), []

    class Stream(asyncio.Transport):
        def get_write_buffer_size(self) -> int:
            return ice_seam.RELAY_BACKLOG + len(sent)

    class Relayed(Wire):
        transport = Stream()

        async def send_data(self, data: bytes, addr: tuple[str, int]) -> None:
            sent.append(data)

    agent._nominated[1] = Pair(Relayed())  # type: ignore[assignment]
    await agent.send(b"first")
    await agent.send(b"second")
    assert (sent, agent.stalled) == ([b"first"], 1)
    agent._nominated.clear()


class Wire:
    """A StunProtocol that goes nowhere; answers with the key when told to."""

    def __init__(self) -> None:
        self.transactions: dict[bytes, Any] = {}
        self.sent: list[stun.Message] = []

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        self.sent.append(message)

    async def close(self) -> None: ...

    def answer(self, key: bytes, number: int = -1) -> None:
        request = self.sent[number]
        waiting = self.transactions.get(request.transaction_id)
        response = stun.Message(
            message_method=stun.Method.BINDING, message_class=stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        response.add_message_integrity(key)
        if waiting is not None:
            waiting.response_received(stun.parse_message(bytes(response)), ("192.0.2.1", 1))


class Pair:
    component = 1
    remote_addr = ("192.0.2.1", 1)

    def __init__(self, protocol: Wire) -> None:
        self.protocol = protocol


class Hours:
    """Replaces asyncio.sleep and loop.time inside the consent loop: time passes by sleeping alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: Any) -> None:
        self.now = 1000.0
        loop = asyncio.get_running_loop()
        real = asyncio.sleep

        async def sleep(seconds: float) -> None:
            self.now += seconds
            each(self.now)
            await real(0)

        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(ice_seam.asyncio, "sleep", sleep)


async def consent(
    monkeypatch: pytest.MonkeyPatch, each: Any
) -> tuple[ice_seam.IceConnection, Wire, float, list[float]]:
    arrivals: list[float] = []
    agent = connection(on_arrival=lambda: arrivals.append(1))
    agent.remote_username, agent.remote_password = "user", "p" * 22
    wire = Wire()
    agent._nominated[1] = Pair(wire)  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        hours = Hours(patch, lambda now: each(wire, now))
        task = asyncio.create_task(agent.query_consent())
        await task
    return agent, wire, hours.now - 1000.0, arrivals


async def test_consent_ends_30_s_after_the_last_valid_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"p" * 22

    def each(wire: Wire, now: float) -> None:
        if now < 1100:
            wire.answer(key)
        wire.answer(b"q" * 22)  # of somebody else: no consent

    agent, wire, lasted, arrivals = await consent(monkeypatch, each)
    assert 124 < lasted < 138
    assert agent.consent_lost
    assert arrivals
    assert not wire.transactions, "transactions are left in aioice's table"


async def test_an_answer_may_take_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock aioice counts an answer after 500 ms as lost and closes a call with that round trip after 30 s."""

    def each(wire: Wire, now: float) -> None:
        if now < 1600 and len(wire.sent) > 1:
            wire.answer(b"p" * 22, -2)  # of the check before: 4 to 6 s late

    _, _, lasted, _ = await consent(monkeypatch, each)
    assert lasted > 600


async def test_consent_checks_measure_the_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    def each(wire: Wire, now: float) -> None:
        if now < 1020 and len(wire.sent) > 1:
            wire.answer(b"p" * 22, -2)

    agent, wire, _, _ = await consent(monkeypatch, each)
    checks = agent.checks
    assert checks.consents_sent == len(wire.sent)
    assert 2 <= checks.answers <= 4
    assert checks.round_trip_s is not None
    assert 8 <= checks.round_trip_s <= 12, "answered when two more checks were due"
    assert checks.round_trip_total_s == pytest.approx(checks.round_trip_s * checks.answers, rel=0.3)


async def test_a_change_of_the_selected_pair_is_counted() -> None:
    agent = connection()
    pairs = []
    for port in (1, 2):
        candidate = ice.Candidate("1", 1, "udp", port, "192.0.2.1", port, "host")
        wire = Wire()
        wire.local_candidate = candidate  # type: ignore[attr-defined]
        pair = ice.CandidatePair(wire, candidate)  # type: ignore[arg-type]
        pair.state, pair.nominated = ice.CandidatePair.State.SUCCEEDED, True
        pairs.append(pair)
    for pair in (pairs[0], pairs[0], pairs[1]):
        agent.check_complete(pair)
    assert agent.checks.pair_changes == 2
    assert agent.selected() is pairs[1]
    await agent.close()


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


def peer_connection(wide: dtls_seam.TransportWide | None = None) -> seam.PeerConnection:
    return seam.PeerConnection(
        ServerPool(IceServers()), loopback=True, name="test", wide=wide,
        streams=lambda kind: (RtpSendStream(kind, "test"), RtpReceiveStream(kind, "test")),
        on_arrival=lambda: None, on_error=lambda error: None,
    )


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
