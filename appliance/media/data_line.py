"""A connection without media: one data channel to a server, which offers the connection and takes texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from aiortc import RTCDataChannel, RTCSessionDescription

from appliance.errors import EdgecallError, Refused, SignalingError
from appliance.media import sdp
from appliance.media.aiortc_seam import PeerConnection
from appliance.media.api import DataMessage
from appliance.media.dscp import Marks
from appliance.media.life import MAX_EVENTS, MediaLife
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.servers import ServerPool
from appliance.media.transmission import Transmission
from appliance.media.webrtc import MAX_BUFFERED, RESERVE

__all__ = ["DataLine"]

log = logging.getLogger(__name__)

CHANNEL: Final = "JanusDataChannel"
"""Janus opens none itself: it answers on the one that is opened, and this is the name of the one it would open."""


class DataLine(MediaLife):
    """``media.api.DataLine``; made by ``Studio``."""

    def __init__(self, name: str, *, servers: ServerPool, loopback: bool, marks: Marks) -> None:
        super().__init__(name)
        self.transmission = Transmission(name)
        self._transport = self._pc = PeerConnection(
            servers, loopback=loopback, name=name, marking=marks.of(video=False), streams=self._streams,
            on_arrival=self.on_arrival, on_error=self._on_connect_error, wide=self.transmission,
        )
        self._pc.on("connectionstatechange", self.on_state)
        self._channel: RTCDataChannel | None = None
        self.messages_dropped = 0

    async def answer(self, offer: str) -> str:
        try:
            admitted = sdp.admit_data_offer(offer)
            sdp.require_dtls(admitted)
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=admitted, type="offer"))
            self._channel = channel = self._pc.createDataChannel(CHANNEL)
            channel.on("open", self._maybe_up)
            channel.on("message", self._on_message)
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except EdgecallError:
            raise
        except Exception as error:  # whatever the text of a peer does inside aiortc, it is the text that is bad
            raise SignalingError(f"the server's offer cannot be used ({type(error).__name__})", sub_code="badSdp"
                                 ) from error
        self._described()
        return self._pc.localDescription.sdp

    def require(self, *, urgent: bool) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open":
            raise Refused("the data channel to the server is not open", sub_code="noDataChannel")
        if channel.bufferedAmount > MAX_BUFFERED + (RESERVE if urgent else 0):
            raise Refused("the server does not take data as fast as it is sent", sub_code="dataBacklog")

    def write(self, texts: Sequence[str]) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            for text in texts:
                self._channel.send(text)

    def _on_message(self, text: str | bytes) -> None:
        if isinstance(text, bytes) or len(self._events) >= MAX_EVENTS:
            self.messages_dropped += 1
        else:
            self._emit(DataMessage(CHANNEL, text))

    # -- life

    def _streams(self, kind: str) -> tuple[RtpSendStream, RtpReceiveStream]:
        raise SignalingError(f"the server offers {kind} on a connection for data", sub_code="badSdp")

    def _due(self) -> bool:
        """Nothing: whether the server is there is judged by consent alone (RFC 7675)."""
        return False

    def _maybe_up(self) -> None:
        open_now = self._channel is not None and self._channel.readyState == "open"
        if self._connected_at is not None and open_now and not self._up and not self._ended:
            self._be_up()

    def _on_connected(self) -> None:
        """Nothing to do: the channel opens next."""

    def _look(self, now: float) -> None:
        """Nothing to look after."""

    def _release(self) -> None:
        """Nothing to let go of."""

    async def _end_streams(self, deadline_s: float) -> None:
        await self.transmission.close()

    def _on_connect_error(self, error: Exception) -> None:
        log.warning("connecting failed inside the media stack: %s", type(error).__name__, exc_info=error)
        self._finish("dtls", f"{type(error).__name__}: {error}")
