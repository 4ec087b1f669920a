"""What leaves of one stream: sent again once for each request, with header extensions that can be written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import av
import pytest
from aiortc.rtcrtpparameters import (
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import RtcpRtpfbPacket, RtpPacket

from appliance.media.rtp_seam import FEEDBACK
from appliance.media.rtp_send import EncodedTrack, RtpSendStream
from appliance.media.transmission import Transmission
from tests.support.media_pair import until

H264 = RTCRtpCodecParameters("video/H264", 90_000, payloadType=97)
RTX = RTCRtpCodecParameters("video/rtx", 90_000, payloadType=98, parameters={"apt": 97})
OPUS = RTCRtpCodecParameters("audio/opus", 48_000, channels=2, payloadType=111)
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"


class OnePicture(EncodedTrack):
    """An access unit of three packets, and nothing after it."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._given = False

    async def recv(self) -> av.Packet[Any]:
        if self._given:
            await asyncio.Event().wait()
        self._given = True
        packet = av.Packet(b"\0\0\0\1\x65" + bytes(3000))
        packet.pts, packet.time_base = 0, Fraction(1, 90_000)
        return packet

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return time.monotonic()


class Talk(EncodedTrack):
    """Voice that comes when it is ``said``."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._said = asyncio.Queue[int]()
        self._number = 0

    def say(self, packets: int) -> None:
        for _ in range(packets):
            self._said.put_nowait(self._number)
            self._number += 1

    async def recv(self) -> av.Packet[Any]:
        packet = av.Packet(b"voice")
        packet.pts, packet.time_base = 960 * await self._said.get(), Fraction(1, 48_000)
        return packet

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return time.monotonic()


def keeping(sent: list[bytes]) -> Callable[[bytes], Awaitable[None]]:
    """A way on which RTP is kept, and the reports are not: they come by the clock."""
    async def send(packet: bytes) -> None:
        if not 192 <= packet[1] <= 223:  # RFC 5761 section 4
            sent.append(packet)

    return send


def number_of(packet: bytes) -> int:
    return RtpPacket.parse(packet).sequence_number


async def test_voice_is_marked_where_it_begins_and_begins_again() -> None:
    """RFC 3551 4.1. aiortc marks each packet of sound, so that gateways take each for a new spurt of talk."""
    sent: list[bytes] = []

    transmission, talk = Transmission("test"), Talk()
    stream = RtpSendStream("audio", "test", transmission=transmission)
    stream.start(ssrc=1, rtx_ssrc=2, parameters=RTCRtpSendParameters(codecs=[OPUS]), send=keeping(sent), track=talk)
    talk.say(3)
    await until(lambda: len(sent) == 3)
    stream.paused()
    talk.say(2)
    await until(lambda: len(sent) == 5)
    await stream.stop()
    await transmission.close()
    assert [RtpPacket.parse(packet).marker for packet in sent] == [1, 0, 0, 1, 0]


async def test_a_packet_named_often_in_one_request_is_sent_again_once() -> None:
    sent: list[bytes] = []

    transmission = Transmission("test")
    stream = RtpSendStream("video", "test", transmission=transmission)
    parameters = RTCRtpSendParameters(codecs=[H264, RTX], rtcp=RTCRtcpParameters(cname="test"))
    stream.start(ssrc=1, rtx_ssrc=2, parameters=parameters, send=keeping(sent), track=OnePicture())
    await until(lambda: len(sent) == 3)
    nack = RtcpRtpfbPacket(fmt=FEEDBACK["nack"], ssrc=9, media_ssrc=1)
    nack.lost = [number_of(sent[0])] * 20 + [number_of(sent[1])]
    stream.on_rtcp(nack)
    await until(lambda: len(sent) == 5)
    await stream.stop()
    await transmission.close()
    assert [RtpPacket.parse(packet).payload_type for packet in sent] == [97, 97, 97, 98, 98]
    assert stream.counters.resent_packets == 2


@pytest.mark.parametrize("size", [0, 1, 13, 14, 40, 267, 1200])
async def test_padding_is_never_too_short_for_a_peer_that_takes_it_for_a_retransmission(size: int) -> None:
    """Janus reads a sequence number at its start. Of one byte it wrote over its heap, and died a moment later."""
    sent: list[bytes] = []

    transmission = Transmission("test")
    stream = RtpSendStream("video", "test", transmission=transmission)
    parameters = RTCRtpSendParameters(codecs=[H264, RTX], rtcp=RTCRtcpParameters(cname="test"))
    stream.start(ssrc=1, rtx_ssrc=2, parameters=parameters, send=keeping(sent), track=OnePicture())
    await until(lambda: len(sent) == 3)
    outbound = stream._padding(size)
    await stream.stop()
    await transmission.close()
    assert outbound is not None
    padded = RtpPacket.parse(outbound.data)
    assert (padded.ssrc, padded.payload_type, padded.payload) == (2, 98, b"")
    assert 3 <= padded.padding_size <= 255
    assert outbound.data[12:14] == sent[2][2:4]


def test_extensions_that_only_the_two_byte_form_could_hold_are_left_out() -> None:
    """Of a peer that numbers its extensions beyond 14 (RFC 8285 4.2); a call failed by it."""
    async def nowhere(_: bytes) -> None: ...

    def negotiated(number: int) -> RTCRtpSendParameters:
        return RTCRtpSendParameters(
            codecs=[H264], muxId="0", headerExtensions=[RTCRtpHeaderExtensionParameters(number, MID)])

    stream = RtpSendStream("video", "test")
    stream.start(ssrc=1, rtx_ssrc=2, parameters=negotiated(15), send=nowhere, track=None)
    assert stream._extensions(None) == b""
    stream.negotiate(negotiated(14))
    assert stream._extensions(None) == bytes.fromhex("bede0001") + b"\xe00\0\0"


class Pictures(EncodedTrack):
    """Access units that are given to it."""

    kind = "video"

    def __init__(self, *units: bytes) -> None:
        super().__init__()
        self._units = list(units)

    async def recv(self) -> av.Packet[Any]:
        if not self._units:
            await asyncio.Event().wait()
        packet = av.Packet(self._units.pop(0))
        packet.pts, packet.time_base = 0, Fraction(1, 90_000)
        return packet

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return time.monotonic()


class Asking:
    """A Feedback."""

    def __init__(self) -> None:
        self.losses = 0

    def keyframe_wanted(self) -> None: ...

    def lost(self) -> None:
        self.losses += 1


async def test_without_fragments_each_unit_goes_alone_and_what_is_too_large_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent: list[bytes] = []

    start, asking = b"\0\0\0\1", Asking()
    large = start + b"\x65" + b"\x11" * 3000
    small = start + b"\x67\x42\x01" + start + b"\x65" + b"\x11" * 1200 + start + b"\x65" + b"\x12" * 900
    transmission = Transmission("test")
    stream = RtpSendStream("video", "test", asking, transmission)
    codec = RTCRtpCodecParameters("video/H264", 90_000, payloadType=96, parameters={"packetization-mode": "0"})
    stream.start(ssrc=1, rtx_ssrc=0, parameters=RTCRtpSendParameters(codecs=[codec], rtcp=RTCRtcpParameters("test")),
                 send=keeping(sent), track=Pictures(*[large] * 5, small))
    await until(lambda: len(sent) == 3)
    await stream.stop()
    await transmission.close()
    assert [packet[12] & 0x1F for packet in sent[:3]] == [7, 5, 5]
    assert [len(packet) for packet in sent[:3]] == [15, 1213, 913]
    assert [packet[1] >> 7 for packet in sent[:3]] == [0, 0, 1], "the marker is on the last one"
    assert (asking.losses, stream.counters.too_large, stream.counters.frames) == (5, 5, 1)
    assert caplog.text.count("too large for packets without fragments") == 1
