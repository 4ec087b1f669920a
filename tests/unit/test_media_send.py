"""What leaves of one stream: sent again once for each request, with header extensions that can be written."""

from __future__ import annotations

import asyncio
import struct
import time
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


async def test_a_packet_named_often_in_one_request_is_sent_again_once() -> None:
    sent: list[tuple[int, int]] = []

    async def send(packet: bytes) -> None:
        sent.append((packet[1] & 0x7F, struct.unpack_from("!H", packet, 2)[0]))

    transmission = Transmission("test")
    stream = RtpSendStream("video", "test", transmission=transmission)
    parameters = RTCRtpSendParameters(codecs=[H264, RTX], rtcp=RTCRtcpParameters(cname="test"))
    stream.start(ssrc=1, rtx_ssrc=2, parameters=parameters, send=send, track=OnePicture())
    await until(lambda: len(sent) == 3)
    nack = RtcpRtpfbPacket(fmt=FEEDBACK["nack"], ssrc=9, media_ssrc=1)
    nack.lost = [sent[0][1]] * 20 + [sent[1][1]]
    stream.on_rtcp(nack)
    await until(lambda: len(sent) >= 5)
    await stream.stop()
    await transmission.close()
    assert [payload_type for payload_type, _ in sent if payload_type in (97, 98)] == [97, 97, 97, 98, 98]
    assert stream.counters.resent_packets == 2


@pytest.mark.parametrize("size", [0, 1, 13, 14, 40, 267, 1200])
async def test_padding_is_never_too_short_for_a_peer_that_takes_it_for_a_retransmission(size: int) -> None:
    """Janus reads a sequence number at its start. Of one byte it wrote over its heap, and died a moment later."""
    sent: list[bytes] = []

    async def send(packet: bytes) -> None:
        sent.append(packet)

    transmission = Transmission("test")
    stream = RtpSendStream("video", "test", transmission=transmission)
    parameters = RTCRtpSendParameters(codecs=[H264, RTX], rtcp=RTCRtcpParameters(cname="test"))
    stream.start(ssrc=1, rtx_ssrc=2, parameters=parameters, send=send, track=OnePicture())
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
