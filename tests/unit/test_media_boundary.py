"""What peers and strangers send, in every form of wrong: only our errors are raised, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from typing import Any

import pytest
from aiortc import rtcsctptransport
from aiortc.rtcsctptransport import (
    DataChunk,
    ForwardTsnChunk,
    HeartbeatChunk,
    InitAckChunk,
    InitChunk,
    RTCSctpTransport,
    SackChunk,
    crc32c,
    parse_packet,
)
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import SignalingError
from appliance.media import ice_seam, sctp_seam, sdp
from appliance.media.aiortc_seam import candidate_from_sdp
from appliance.media.api import DataMessage
from appliance.media.messages import Inbound
from tests.support.mutation import mutated
from tests.support.seams import connection, peer_connection

CANDIDATE = "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ srflx raddr 10.0.0.1 rport 9 generation 0 ufrag abcd"


def test_candidates_to_check_are_those_over_udp_to_somebody() -> None:
    assert sdp.usable_candidate(CANDIDATE)
    assert sdp.usable_candidate("a=" + CANDIDATE.replace("192.0.2.1", "2001:db8::1"))
    assert sdp.usable_candidate(CANDIDATE.replace("192.0.2.1", "0f2c-4a.local"))
    for other in ("224.0.0.1", "0.0.0.0", "::", "door.example.org"):
        assert not sdp.usable_candidate(CANDIDATE.replace("192.0.2.1", other))
    assert not sdp.usable_candidate(CANDIDATE.replace(" udp ", " tcp ") + " tcptype active")
    assert not sdp.usable_candidate(CANDIDATE.replace(":1 1 ", ":1 2 "))


@pytest.mark.parametrize("change", [
    ("5000", "0"), ("5000", "65536"), ("2130706431", "4294967296"), (" typ ", " "), ("rport 9", "rport x"),
    ("candidate:1", "candidate:"), ("192.0.2.1", "192.0.2.1\r\na=x"),
])
def test_what_is_no_candidate_is_told_so(change: tuple[str, str]) -> None:
    with pytest.raises(SignalingError):
        sdp.usable_candidate(CANDIDATE.replace(*change))


@given(st.one_of(st.text(max_size=200), st.integers(0, 2**32).map(
    lambda seed: mutated(CANDIDATE.encode(), random.Random(seed)).decode("latin-1"))))
async def test_a_candidate_is_refused_or_can_be_paired(text: str) -> None:
    agent = connection()
    try:
        if sdp.usable_candidate(text):
            parsed = candidate_from_sdp(text.strip().removeprefix("a=").removeprefix("candidate:"))
            assert 0 < parsed.port < 65536
            struct.pack("!L", parsed.priority)
    except SignalingError:
        pass
    await agent.close()


def test_lines_that_cannot_be_checked_are_left_out_of_a_description() -> None:
    section = sdp.Section("audio", 9, "UDP/TLS/RTP/SAVPF", ["96"], [
        "a=mid:0", "a=" + CANDIDATE, "a=candidate:nonsense", "a=" + CANDIDATE.replace("192.0.2.1", "224.0.0.1")])
    sdp._only_usable_candidates(section)
    assert section.lines == ["a=mid:0", "a=" + CANDIDATE]
    section.lines = [f"a={CANDIDATE.replace('5000', str(port))}" for port in range(1, 200)]
    sdp._only_usable_candidates(section)
    assert len(section.lines) == sdp.MAX_CANDIDATES


def test_the_largest_description_takes_no_time_worth_telling() -> None:
    """64 KiB of what is dearest: payload types that each ask for their parameters."""
    rows = "".join(f"a=rtpmap:{n % 128} H264/90000\r\n" for n in range(2400))
    began = time.process_time()
    with pytest.raises(SignalingError):
        sdp.admit_offer(f"v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n{rows}")
    assert time.process_time() - began < 0.2


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_a_data_message_is_ours_or_nothing(message: str | bytes) -> None:
    Inbound(lambda: 0.0).take(message)


def test_half_a_surrogate_pair_is_no_data_message() -> None:
    inbound = Inbound(lambda: 0.0)
    assert inbound.take('{"channel": "chat", "payload": "\\ud83d\\ude00"}') == DataMessage("chat", "\U0001f600")
    assert inbound.take('{"channel": "chat", "payload": "\\ud83d"}') is None
    assert inbound.take('{"channel": "\\ude00", "payload": "."}') is None
    assert inbound.malformed == 2


# --- datagrams --------------------------------------------------------------------------------------------------------


async def test_datagrams_of_no_possible_length_are_not_handed_on() -> None:
    """libsrtp's ValueError for a long one would end the call, whoever sent it."""
    agent = connection()
    for size in (0, ice_seam.DATAGRAM + 1, 65_000):
        agent.data_received(b"\x80" * size, 1)
    assert agent._queue.empty()
    agent.data_received(b"\x80" * ice_seam.DATAGRAM, 1)
    assert agent._queue.qsize() == 1
    await agent.close()


@given(st.integers(0, 2**32))
async def test_stun_from_anybody_raises_nothing(seed: int) -> None:
    chance = random.Random(seed)
    agent = connection()
    agent.remote_username, agent.remote_password = "user", "p" * 22
    protocol = ice_seam.GuardedProtocol(agent)
    protocol.local_candidate = ice_seam.Candidate("1", 1, "udp", 1, "192.0.2.9", 9, "host")
    check = ice_seam.stun.Message(
        message_method=ice_seam.stun.Method.BINDING, message_class=ice_seam.stun.Class.REQUEST)
    check.attributes["USERNAME"] = f"{agent.local_username}:user"
    check.attributes["PRIORITY"] = 1
    check.add_message_integrity(agent.local_password.encode())
    protocol.transport = Silent()  # type: ignore[assignment]
    protocol.datagram_received(mutated(bytes(check), chance), ("192.0.2.1", 1))
    await agent.close()


class Silent:
    def sendto(self, data: bytes, addr: tuple[str, int]) -> None: ...


# --- SCTP -------------------------------------------------------------------------------------------------------------


def packet(tag: int, *chunks: Any) -> bytes:
    body = b"".join(bytes(chunk) for chunk in chunks)
    head = struct.pack("!HHL", 5000, 5000, tag)
    return head + struct.pack("<L", crc32c(head + bytes(4) + body)) + body


def sealed(data: bytes) -> bytes:
    """With its checksum made right again."""
    if len(data) < 12:
        return data
    return data[:8] + struct.pack("<L", crc32c(data[:8] + bytes(4) + data[12:])) + data[12:]


def test_a_parameter_of_no_length_is_an_error_and_no_endless_loop() -> None:
    init = InitChunk()
    data = packet(0, init)[:12] + struct.pack("!BBH", 1, 0, 24) + bytes(init.body) + bytes(4)
    with pytest.raises(ValueError, match="length of 0"):
        parse_packet(sealed(data))
    assert rtcsctptransport.decode_params is sctp_seam.decode_params


def chunks() -> list[bytes]:
    data = DataChunk()
    data.tsn, data.user_data, data.protocol = 7, b"hello", 51
    forward = ForwardTsnChunk()
    forward.cumulative_tsn, forward.streams = 5, [(1, 2)]
    sack = SackChunk()
    sack.gaps = [(1, 2)]
    heartbeat = HeartbeatChunk()
    heartbeat.params = [(1, b"1234")]
    opened = DataChunk(flags=3)
    opened.tsn, opened.protocol = 8, 50
    opened.user_data = struct.pack("!BBHLHH", 3, 0, 0, 0, 4, 0) + b"chat"
    return [bytes(one) for one in (data, forward, sack, heartbeat, opened, InitChunk(), InitAckChunk())]


async def association() -> tuple[Any, RTCSctpTransport, sctp_seam.DataGate, Any]:
    """One that takes what it gets, at an established connection that goes nowhere."""
    peer = peer_connection()
    peer.createDataChannel("edgecall")
    sctp = peer.sctp
    assert sctp is not None
    dtls = sctp.transport
    sctp._association_state = sctp.State.ESTABLISHED
    sctp._last_received_tsn, sctp._remote_port = 6, 5000

    async def nowhere(_: bytes) -> None: ...

    dtls._send_data = nowhere
    return peer, sctp, sctp_seam.DataGate(sctp, dtls._guard), dtls


@given(st.integers(0, 2**32))
async def test_any_packet_of_an_authentic_peer_is_survived(seed: int) -> None:
    chance = random.Random(seed)
    peer, sctp, gate, _ = await association()
    for _ in range(20):
        whole = packet(sctp._local_verification_tag, *chance.sample(chunks(), chance.randint(1, 3)))
        async with asyncio.timeout(2):
            await gate._handle_data(sealed(mutated(whole, chance, keep=12)))
    await peer.close()


async def test_a_message_without_end_is_bounded() -> None:
    peer, sctp, gate, _ = await association()
    for n in range(5000):
        piece = DataChunk(flags=2 if n == 0 else 0)
        piece.tsn, piece.user_data, piece.protocol = 7 + n, b"x", 51
        await gate._handle_data(packet(sctp._local_verification_tag, piece))
    assert sum(len(stream.reassembly) for stream in sctp._inbound_streams.values()) == sctp_seam.PIECES + 1
    assert gate.refused > 2000
    await peer.close()


async def test_channels_without_number_are_bounded() -> None:
    peer, sctp, gate, _ = await association()
    for n in range(sctp_seam.CHANNELS + 50):
        opened = DataChunk(flags=3)
        opened.tsn, opened.stream_id, opened.protocol = 7 + n, 2 * n + 2, 50
        opened.user_data = struct.pack("!BBHLHH", 3, 0, 0, 0, 4, 0) + b"chat"
        await gate._handle_data(packet(sctp._local_verification_tag, opened))
    assert len(sctp._data_channels) == sctp_seam.CHANNELS + 1
    await peer.close()


async def test_an_exception_in_receiving_is_counted_and_the_end_of_the_transport_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer, _, _, dtls = await association()
    for error, survives in ((AssertionError("aiortc's"), True), (ConnectionError("gone"), False)):
        async def receive(error: Exception = error) -> bytes:
            raise error

        monkeypatch.setattr(dtls.transport, "_recv", receive)
        dtls._ssl = Handshake()
        if survives:
            await dtls._recv_next()
            assert dtls.malformed == 1
        else:
            with pytest.raises(ConnectionError):
                await dtls._recv_next()
    dtls._ssl = None
    await peer.close()


class Handshake:
    def DTLSv1_get_timeout(self) -> None:  # noqa: N802 - OpenSSL's name
        return None
