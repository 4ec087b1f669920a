"""Parts of the media engine's seam, each made alone."""

from __future__ import annotations

from typing import Any

from appliance.media import aiortc_seam as seam
from appliance.media import dtls_seam, ice_seam
from appliance.media.api import IceServers
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.servers import ServerPool

__all__ = ["connection", "peer_connection"]


def connection(**more: Any) -> ice_seam.IceConnection:
    return ice_seam.IceConnection(**{
        "servers": ServerPool(IceServers()), "loopback": False, "on_arrival": lambda: None, "ice_controlling": True,
        **more})


def peer_connection(wide: dtls_seam.TransportWide | None = None) -> seam.PeerConnection:
    return seam.PeerConnection(
        ServerPool(IceServers()), loopback=True, name="test", wide=wide,
        streams=lambda kind: (RtpSendStream(kind, "test"), RtpReceiveStream(kind, "test")),
        on_arrival=lambda: None, on_error=lambda error: None,
    )
