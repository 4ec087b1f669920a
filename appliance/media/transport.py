"""What the engine needs of the thing that carries its packets, and what is agreed for a stream on it.

Two implementations: ``aiortc_seam.PeerConnection`` (ICE, DTLS-SRTP, all lines on one transport) and
``plain_rtp.PlainTransport`` (RTP and RTCP over UDP, each line on ports of its own). Streams and sessions know neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from appliance.media.dscp import Marks

if TYPE_CHECKING:
    from appliance.media.dtls_seam import CertificateFacts

__all__ = ["PACKET_TIMES_MS", "MediaTransport", "StreamFormat", "TransportListener"]

PACKET_TIMES_MS: Final = (10, 60)  # of voice: the least and the most that is asked of anybody


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """One line as agreed by signalling. ``clock_rate`` in Hz is that of the RTP timestamps (8000 for G.722 too).

    ``packet_time_ms``: voice in one packet sent (``a=ptime``); what is received may have any. ``event_type``: payload
    type of telephone events (RFC 4733), ``noise_type`` of comfort noise (RFC 3389), None where there are none.
    ``parameters``: the peer's ``a=fmtp``. ``feedback``: what of RFC 4585 it takes, as ``a=rtcp-fb`` has it (``nack``,
    ``nack pli``, ``ccm fir``). ``bandwidth``: bits per second of payload that it takes at most, 0: any.
    """

    mime_type: str
    payload_type: int
    clock_rate: int
    channels: int = 1
    packet_time_ms: int = 20
    event_type: int | None = None
    noise_type: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    feedback: frozenset[str] = frozenset()
    bandwidth: int = 0
    sends: bool = True
    receives: bool = True

    def __post_init__(self) -> None:
        least, most = PACKET_TIMES_MS
        if not least <= self.packet_time_ms <= most:
            raise ValueError(f"a packet time is {least} to {most} ms, not {self.packet_time_ms}")
        if not 0 <= self.payload_type < 128 or self.payload_type in (self.event_type, self.noise_type):
            raise ValueError(f"no payload type for a stream: {self.payload_type}")

    @property
    def kind(self) -> str:
        """audio or video."""
        return self.mime_type.partition("/")[0]


class TransportListener(Protocol):
    """What a transport tells of itself."""

    def on_arrival(self) -> None:
        """Something of the peer arrived, authentic as far as this transport can tell."""

    def on_state(self) -> None:
        """``state`` may be another one."""


class MediaTransport(Protocol):
    """Carries the streams of one session, from its opening to ``close``."""

    @property
    def state(self) -> str:
        """``new``, ``connecting``, ``connected``, ``failed`` or ``closed`` (W3C RTCPeerConnectionState)."""

    def negotiated(self, kind: str) -> tuple[bool, bool]:
        """Whether ``kind`` is sent and received as agreed so far."""

    def codec(self, kind: str) -> Any:
        """The codec in use (``RTCRtpCodecParameters``: mimeType, clockRate, channels, payloadType), None before."""

    def mid(self, kind: str) -> str | None:
        """Identification of the media line of ``kind`` (RFC 5888), where lines have one."""

    def certificates(self) -> Mapping[str, CertificateFacts]:
        """By side, ``local`` and ``remote``, where there are any."""

    def security(self) -> Mapping[str, str]:
        """Protocol and cipher names; empty where nothing is encrypted, or not yet."""

    def failure(self) -> str:
        """Why it failed, in the words of ``SessionClosed``; empty while it did not."""

    def mark(self, marks: Marks, *, video: bool) -> None:
        """Mark what leaves, by whether pictures do now (``dscp``)."""

    def local_addresses(self) -> Set[str]:
        """The address of this machine that the path begins at; before there is one all that it may begin at."""

    def transport_facts(self) -> dict[str, Any]:
        """Counters for statistics."""

    async def close(self) -> None: ...
