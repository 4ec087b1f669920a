"""A connection for texts alone, with an end of WebRTC that offers it as Janus' TextRoom does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiortc import RTCSessionDescription

from appliance.errors import Refused, SignalingError
from appliance.media.aiortc_seam import PeerConnection
from appliance.media.api import DataMessage, IceServers, SessionClosed, SessionEvent, SessionUp
from appliance.media.data_line import CHANNEL, DataLine
from appliance.media.dscp import Marks
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.servers import ServerPool
from appliance.media.transmission import Transmission
from appliance.media.webrtc import MAX_BUFFERED


class Server:
    """The end that offers, and what it is told on the channel that is opened to it."""

    def __init__(self) -> None:
        self._transmission = Transmission("server")
        self.pc = PeerConnection(
            ServerPool(IceServers()), loopback=True, name="server", wide=self._transmission,
            streams=lambda kind: (RtpSendStream(kind, "server"), RtpReceiveStream(kind, "server")),
            on_arrival=lambda: None, on_error=lambda error: None)
        self.pc.on("datachannel", self._opened)
        self.channel: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.texts: asyncio.Queue[str] = asyncio.Queue()

    def _opened(self, channel: Any) -> None:
        assert channel.label == CHANNEL
        channel.on("message", self.texts.put_nowait)
        self.channel.set_result(channel)

    async def offer(self) -> str:
        self.pc.createDataChannel("of the server")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return str(self.pc.localDescription.sdp)

    async def close(self) -> None:
        await self.pc.close()
        await self._transmission.close()


@asynccontextmanager
async def line() -> AsyncIterator[DataLine]:
    made = DataLine("texts", servers=ServerPool(IceServers()), loopback=True, marks=Marks(0, 0))
    try:
        yield made
    finally:
        await made.close()
        await made.close()


async def test_texts_go_both_ways_in_order_once_the_channel_is_open() -> None:
    server = Server()
    async with line() as ours:
        told: asyncio.Queue[SessionEvent] = asyncio.Queue()

        async def read() -> None:
            async for event in ours.events():
                told.put_nowait(event)

        reading = asyncio.create_task(read())
        with pytest.raises(Refused) as refused:
            ours.require(urgent=True)
        assert refused.value.sub_code == "noDataChannel"
        answer = await ours.answer(await server.offer())
        await server.pc.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
        async with asyncio.timeout(10):
            up = await told.get()
            assert isinstance(up, SessionUp)
            assert up.security["verified"]
            ours.require(urgent=False)
            sent = ["ä" * 10_000, *(str(number) for number in range(20))]
            ours.write(sent)
            assert [await server.texts.get() for _ in sent] == sent
            channel = await server.channel
            channel.send(b"no text")
            channel.send("hello")
            assert await told.get() == DataMessage(CHANNEL, "hello")
            assert ours.messages_dropped == 1

            ours.write(["x" * 60_000] * (MAX_BUFFERED // 60_000 + 2))
            with pytest.raises(Refused) as refused:
                ours.require(urgent=False)
            assert refused.value.sub_code == "dataBacklog"
            ours.require(urgent=True)

            await server.close()
            assert isinstance(await told.get(), SessionClosed)
            await reading
        ours.write(["to nobody"])


@pytest.mark.parametrize("offer", [
    "", "v=0\r\n", "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n",
    "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n",
    "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n"
    "a=fingerprint:sha-256 00\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=sctp-port:ninety\r\n"])
async def test_an_offer_that_cannot_be_used_is_refused(offer: str) -> None:
    async with line() as ours:
        with pytest.raises(SignalingError):
            await ours.answer(offer)
