"""RTP over plain UDP: sources, addresses, packet times, protection; and what is no packet."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import pylibsrtp
import pytest

from appliance.media.dscp import Marks
from appliance.media.inband import tones_of
from appliance.media.opus import OpusDecoder, OpusEncoder
from appliance.media.packet_time import PacketTimeTrack, join_opus
from appliance.media.plain_rtp import Line, PlainTransport
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import EncodedTrack, RtpSendStream
from appliance.media.sound import audioop
from appliance.media.source_gate import SourceGate
from appliance.media.transport import StreamFormat
from appliance.media.voice_codecs import Noise
from appliance.media.ways import CLEAR, Protection
from appliance.providers.sip.offer import Negotiation
from appliance.providers.sip.sdes import MediaProtection
from tests.support.media_pair import until

VOICE = StreamFormat("audio/PCMU", 0, 8000)


def test_a_new_source_is_taken_after_two_packets_in_sequence() -> None:
    gate = SourceGate()
    assert gate.admit(1, 100, 0.0)
    assert [gate.admit(2, 50, 5.0), gate.admit(3, 60, 5.0), gate.admit(2, 51, 5.0)] == [False] * 3, "strays"
    assert gate.admit(1, 101, 5.1)
    assert [gate.admit(2, 65535, 6.0), gate.admit(2, 0, 6.02)] == [False, True]
    assert not gate.admit(1, 102, 6.1), "the former one's last packets"
    assert not gate.admit(1, 103, 6.2), "at most one change a second"
    assert gate.admit(1, 104, 7.1)


def test_what_cannot_be_agreed_is_refused() -> None:
    for wrong in ({"packet_time_ms": 5}, {"packet_time_ms": 80}, {"payload_type": 128}, {"event_type": 0}):
        with pytest.raises(ValueError, match=r"packet time|payload type"):
            StreamFormat(**{"mime_type": "audio/PCMU", "payload_type": 0, "clock_rate": 8000, **wrong})


# --- packet times -----------------------------------------------------------------------------------------------------


class Source(EncodedTrack):
    """Packets of 20 ms, then nothing more."""

    kind = "audio"

    def __init__(self, packets: list[tuple[int, bytes]], clock_rate: int) -> None:
        super().__init__()
        self._packets = packets
        self._clock_rate = clock_rate

    async def recv(self) -> av.Packet[Any]:
        if not self._packets:
            await asyncio.Event().wait()
        pts, data = self._packets.pop(0)
        packet = av.Packet(data)
        packet.pts, packet.time_base = pts, Fraction(1, self._clock_rate)
        return packet

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return (packet.pts or 0) / self._clock_rate


async def taken(track: PacketTimeTrack, count: int) -> list[tuple[int, bytes]]:
    async with asyncio.timeout(1):
        packets = [await track.recv() for _ in range(count)]
    return [(packet.pts or 0, bytes(packet)) for packet in packets]


@pytest.mark.parametrize("milliseconds", [10, 20, 30, 40, 60])
async def test_the_bytes_of_a_telephone_codec_are_cut_anew(milliseconds: int) -> None:
    voice = bytes(range(240)) * 4
    source = Source([(n * 160, voice[n * 160 : n * 160 + 160]) for n in range(6)], 8000)
    packets = await taken(PacketTimeTrack(source, milliseconds, 8000, opus=False), 120 // milliseconds)
    assert b"".join(data for _, data in packets) == voice[:960]
    assert [pts for pts, _ in packets] == [n * milliseconds * 8 for n in range(120 // milliseconds)]
    assert {len(data) for _, data in packets} == {milliseconds * 8}


async def test_nothing_is_joined_over_a_gap() -> None:
    source = Source([(0, b"a" * 160), (480, b"b" * 160), (640, b"c" * 160)], 8000)
    assert await taken(PacketTimeTrack(source, 40, 8000, opus=False), 2) == [
        (0, b"a" * 160), (480, b"b" * 160 + b"c" * 160)]


@pytest.mark.parametrize("milliseconds", [40, 50, 60])
async def test_opus_frames_are_joined_to_one_packet_that_every_decoder_reads(milliseconds: int) -> None:
    encoder, frames = OpusEncoder(32_000), -(-milliseconds // 20)
    sound = [struct.pack("<960h", *((n * 37 + i * 91) % 9000 for i in range(960))) for n in range(2 * frames)]
    encoded = [encoder.encode(pcm) for pcm in sound]
    alone = OpusDecoder()
    expected = b"".join(alone.decode(packet) for packet in encoded)
    source = Source([(n * 960, packet) for n, packet in enumerate(encoded)], 48_000)
    packets = await taken(PacketTimeTrack(source, milliseconds, 48_000, opus=True), 2)
    assert [pts for pts, _ in packets] == [0, frames * 960]
    decoder = OpusDecoder()
    assert b"".join(decoder.decode(data) for _, data in packets) == expected


def test_long_opus_frames_have_a_length_of_two_bytes() -> None:
    first, second = b"\x7c" + bytes(700), b"\x7c" + b"\x01" * 300
    joined = join_opus([first, second])
    assert joined[:2] == bytes([0x7F, 0x82])
    assert joined[2] + 4 * joined[3] == 700
    assert joined[4:] == first[1:] + second[1:]


# --- the transport ----------------------------------------------------------------------------------------------------


class Heard:
    """Listens, and is the sink of the received voice."""

    def __init__(self) -> None:
        self.arrivals = 0
        self.packets: list[tuple[int, bytes]] = []

    def on_arrival(self) -> None:
        self.arrivals += 1

    def on_state(self) -> None: ...

    def put(self, timestamp: int, data: bytes, arrival: float) -> None:
        self.packets.append((timestamp, data))

    def use(self, decoder: Any, clock_rate: int) -> None: ...

    def restart(self) -> None: ...


@asynccontextmanager
async def receiving(
    line: Line | None = None, **more: Any
) -> AsyncIterator[tuple[Heard, PlainTransport, tuple[int, int]]]:
    heard = Heard()
    transport = PlainTransport(heard, Marks(), **more)
    ports = await transport.open("127.0.0.1", ["audio"])
    transport.agree("audio", line or Line(VOICE, ("127.0.0.1", 9)))
    transport.start("audio", RtpSendStream("audio", "test"), RtpReceiveStream("audio", "test", audio=heard), None)
    try:
        yield heard, transport, ports["audio"]
    finally:
        await transport.close()
        await asyncio.sleep(0)


def rtp(sequence: int, ssrc: int = 7, *, payload_type: int = 0, payload: bytes = b"\xff" * 160) -> bytes:
    return struct.pack("!BBHLL", 0x80, payload_type, sequence, sequence * 160, ssrc) + payload


@asynccontextmanager
async def peers(count: int) -> AsyncIterator[list[socket.socket]]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


async def settled(heard: Heard, transport: PlainTransport, packets: int) -> None:
    """Everything sent so far has been looked at."""
    def seen() -> int:
        return heard.arrivals + transport.strangers + transport.malformed + transport.unrouted

    await until(lambda: seen() >= packets, 2, "packets")


async def test_rtp_has_an_even_port_and_rtcp_the_next_or_the_same() -> None:
    async with receiving() as (_, _, (first, second)):
        assert (first % 2, second) == (0, first + 1)
    async with receiving(mux=True) as (_, _, (first, second)):
        assert first == second


async def test_the_peer_is_where_its_first_packet_comes_from_and_nobody_else_is() -> None:
    async with receiving() as (heard, transport, (port, _)), peers(2) as (peer, stranger):
        peer.sendto(rtp(1), ("127.0.0.1", port))
        await settled(heard, transport, 1)
        stranger.sendto(rtp(2), ("127.0.0.1", port))
        peer.sendto(rtp(2, payload=b"\x7f" * 160), ("127.0.0.1", port))
        await settled(heard, transport, 3)
        assert [data[:1] for _, data in heard.packets] == [b"\xff", b"\x7f"]
        assert transport.strangers == 1
        await transport.send(rtp(9, transport._flows["audio"].ssrc))
        assert await asyncio.get_running_loop().sock_recv(peer, 2000) == rtp(9, transport._flows["audio"].ssrc)
        transport.agree("audio", Line(VOICE, ("127.0.0.1", 9)))  # a new description: it may have moved
        stranger.sendto(rtp(3), ("127.0.0.1", port))
        await settled(heard, transport, 4)
        assert len(heard.packets) == 3


async def test_without_symmetry_the_peer_is_where_its_description_says() -> None:
    async with peers(2) as (peer, stranger):
        line = Line(VOICE, peer.getsockname())
        async with receiving(line, symmetric=False) as (heard, transport, (port, _)):
            stranger.sendto(rtp(1), ("127.0.0.1", port))
            peer.sendto(rtp(2), ("127.0.0.1", port))
            await settled(heard, transport, 2)
            assert (len(heard.packets), transport.strangers) == (1, 1)


async def test_digits_of_another_source_are_digits_whatever_its_timestamps() -> None:
    line = Line(StreamFormat("audio/PCMU", 0, 8000, event_type=101), ("127.0.0.1", 9))
    async with receiving(line) as (heard, transport, (port, _)), peers(1) as (peer,):
        pressed: list[str] = []
        transport.on_digit = pressed.append
        for number, (sequence, ssrc, digit) in enumerate(((9000, 7, 1), (10, 8, 2), (11, 8, 2), (20, 8, 3)), 1):
            peer.sendto(rtp(sequence, ssrc, payload_type=101, payload=bytes((digit, 10, 1, 0))), ("127.0.0.1", port))
            await settled(heard, transport, number)
        assert pressed == ["1", "2", "3"], "the first packet of a new source is not believed yet"


async def test_comfort_noise_is_taken_as_that_and_no_tone_is_looked_for_in_it() -> None:
    line = Line(StreamFormat("audio/PCMU", 0, 8000, noise_type=13), ("127.0.0.1", 9))
    async with receiving(line) as (heard, transport, (port, _)), peers(1) as (peer,):
        tones: list[str] = []
        transport.on_tones = tones.append
        peer.sendto(rtp(1), ("127.0.0.1", port))
        peer.sendto(rtp(2, payload_type=13, payload=b"\x32\x80"), ("127.0.0.1", port))
        await settled(heard, transport, 2)
        assert [(type(data), bytes(data)) for _, data in heard.packets] == [
            (bytes, b"\xff" * 160), (Noise, b"\x32\x80")]
        await until(lambda: transport._flows["audio"]._tones is not None, 5, "ears for tones")
        digit = audioop.lin2ulaw(tones_of("5", 8 * 160), 2)
        for number in range(8):  # by the type of noise the very tones of a digit are no digit
            peer.sendto(rtp(3 + number, payload_type=13, payload=digit[number * 160 : number * 160 + 160]),
                        ("127.0.0.1", port))
        await settled(heard, transport, 10)
        assert not tones
        for number in range(16):
            voice = digit[number * 160 : number * 160 + 160] if number < 8 else b"\xff" * 160
            peer.sendto(rtp(11 + number, payload=voice), ("127.0.0.1", port))
        await settled(heard, transport, 26)
        assert tones == ["5"]


@pytest.mark.parametrize("mux", [True, False])
async def test_reports_arrive_on_their_port(mux: bool) -> None:
    async with receiving(mux=mux) as (heard, transport, (_, port)), peers(1) as (peer,):
        peer.sendto(struct.pack("!BBHLQLLL", 0x80, 200, 6, 7, 1 << 32, 160, 1, 160), ("127.0.0.1", port))
        await settled(heard, transport, 1)
        incoming = transport._flows["audio"].incoming
        assert incoming is not None
        assert incoming.counters.reports == 1


async def test_reports_go_by_the_port_of_the_sound_where_that_is_agreed() -> None:
    async with peers(2) as (peer, idle):
        line = Line(VOICE, peer.getsockname(), idle.getsockname(), mux=True)
        async with receiving(line) as (_, transport, (port, _)):
            report = struct.pack("!BBHLQLLL", 0x80, 200, 6, 7, 1 << 32, 160, 1, 160)
            peer.sendto(report, ("127.0.0.1", port))
            flow = transport._flows["audio"]
            assert flow.incoming is not None
            counters = flow.incoming.counters
            await until(lambda: counters.reports == 1, 2, "a report")
            ours = struct.pack("!BBHL", 0x80, 201, 1, flow.ssrc)
            await transport.send(ours)
            assert await asyncio.get_running_loop().sock_recv(peer, 2000) == ours
            transport.agree("audio", Line(VOICE, peer.getsockname(), idle.getsockname()))  # and no longer
            await transport.send(ours)
            assert await asyncio.get_running_loop().sock_recv(idle, 2000) == ours


async def test_what_is_no_packet_of_the_line_is_only_counted() -> None:
    async with receiving() as (heard, transport, (port, rtcp)), peers(1) as (peer,):
        for bad in (b"", b"\x80", b"\x80\xc8\x00\xff", b"\x16\xfe\xfd", b"\xbf\x00" + bytes(10), bytes(1501)):
            peer.sendto(bad, ("127.0.0.1", port))
            peer.sendto(bad, ("127.0.0.1", rtcp))
        await settled(heard, transport, 12)
        assert heard.arrivals == 0, "garbage is no sign of life, and moves no address"
        peer.sendto(rtp(1, payload_type=99), ("127.0.0.1", port))
        peer.sendto(rtp(1), ("127.0.0.1", port))
        await settled(heard, transport, 14)
        assert len(heard.packets) == 1
        assert transport.malformed >= 8


class Srtp(Protection):
    """As a later signalling with keys in it would bring it (RFC 4568)."""

    def __init__(self, out: bytes, into: bytes) -> None:
        def session(key: bytes, direction: int) -> pylibsrtp.Session:
            return pylibsrtp.Session(pylibsrtp.Policy(
                key=key, ssrc_type=direction, srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80))

        self._out = session(out, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        self._in = session(into, pylibsrtp.Policy.SSRC_ANY_INBOUND)

    def protect(self, packet: bytes, *, rtcp: bool) -> bytes:
        return bytes(self._out.protect_rtcp(packet) if rtcp else self._out.protect(packet))

    def unprotect(self, packet: bytes, *, rtcp: bool) -> bytes:
        try:
            return bytes(self._in.unprotect_rtcp(packet) if rtcp else self._in.unprotect(packet))
        except pylibsrtp.Error as error:
            raise ValueError(str(error)) from error

    def security(self) -> Mapping[str, str]:
        return {"srtpCipher": "SRTP_AES128_CM_SHA1_80"}


async def test_a_protection_stands_between_the_line_and_the_wire() -> None:
    keys = bytes(range(30)), bytes(range(30, 60))
    async with (
        receiving(protections={"audio": Srtp(*keys)}) as (heard, transport, (port, _)), peers(2) as (peer, stranger),
    ):
        assert transport.security() == {"srtpCipher": "SRTP_AES128_CM_SHA1_80"}
        stranger.sendto(rtp(1), ("127.0.0.1", port))
        await settled(heard, transport, 1)
        assert (transport.malformed, len(heard.packets)) == (1, 0), "what is not authentic latches nothing"
        other = Srtp(keys[1], keys[0])
        peer.sendto(other.protect(rtp(1), rtcp=False), ("127.0.0.1", port))
        await settled(heard, transport, 2)
        assert len(heard.packets) == 1
        own = rtp(5, transport._flows["audio"].ssrc)
        await transport.send(own)
        wire = await asyncio.get_running_loop().sock_recv(peer, 2000)
        assert wire != own
        assert other.unprotect(wire, rtcp=False) == own
    assert CLEAR.security() == {}


async def test_another_key_and_another_source_in_the_call() -> None:
    """As after a transfer behind an exchange (RFC 3264 8): both descriptions and keys anew, on the same ports."""
    here = MediaProtection()
    async with (
        receiving(protections={"audio": here}) as (heard, transport, (port, _)), peers(1) as (peer,),
    ):
        mine = Negotiation("127.0.0.1", {"audio": (port, port + 1)}, insist=True)

        def agree() -> MediaProtection:
            """What the other side protects with from now on."""
            theirs = Negotiation("127.0.0.1", {"audio": peer.getsockname()[1:] * 2}, secure=True)
            answer, agreed = mine.answer(theirs.offer())
            here.agree(agreed["audio"].keys)
            made = MediaProtection()
            made.agree(theirs.take_answer(answer)["audio"].keys)
            transport.agree("audio", Line(VOICE, peer.getsockname()))
            return made

        async def exchanged(protection: MediaProtection, ssrc: int, sequence: int, heard_then: int) -> None:
            before = heard.arrivals + transport.malformed + transport.unrouted
            for number in range(3):
                packet = rtp(sequence + number, ssrc)
                peer.sendto(protection.protect(packet, rtcp=False), ("127.0.0.1", port))
            await settled(heard, transport, before + 3)
            assert len(heard.packets) == heard_then
            own = rtp(sequence, transport._flows["audio"].ssrc)
            await transport.send(own)
            wire = await asyncio.get_running_loop().sock_recv(peer, 2000)
            assert protection.unprotect(wire, rtcp=False) == own

        there = agree()
        await exchanged(there, 7, 65_000, 3)
        former, there = there, agree()
        peer.sendto(former.protect(rtp(65_003), rtcp=False), ("127.0.0.1", port))
        await settled(heard, transport, 4)
        assert (transport.malformed, len(heard.packets)) == (1, 3), "the former key opens nothing any more"
        await exchanged(there, 8, 100, 5)  # the first packet of a new source is not believed yet
