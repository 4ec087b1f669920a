"""The seam to aiortc's RTP router: which receiver a packet belongs to, whatever the peer signalled.

Stock routes by SSRC and payload type alone: a room that does not signal SSRCs, or changes them in a call, shows black,
and retransmissions are dropped as soon as two receivers share a payload type.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Protocol

from aiortc.rtcdtlstransport import RtpRouter
from aiortc.rtp import RTCP_PSFB_FIR, AnyRtcpPacket, RtcpPsfbPacket, RtpPacket

__all__ = ["ArrivalNotes", "Router"]

LEARNED: Final = 256  # sources that were not signalled; the oldest is forgotten, so that a peer cannot fill memory
RIDS: Final = 64


class ArrivalNotes(Protocol):
    def on_packet(self, sequence: int, ssrc: int) -> None:
        """A packet with this transport-wide sequence number arrived just now."""


class Router(RtpRouter):
    """RTP by SSRC, MID, RID and payload type (RFC 8843 9.2, RFC 8852), a retransmission of an unknown source by what
    was asked for (RFC 4588 5.3), FIR by its FCI (RFC 5104 4.3.1.2).

    Receivers answer ``expects(packet)``. ``notes`` hears of transport-wide sequence numbers, also of packets that
    belong to nobody.
    """

    def __init__(self, notes: ArrivalNotes | None = None) -> None:
        super().__init__()
        self.unrouted = 0  # packets that belong to nobody
        self._notes = notes
        self._learned: dict[int, None] = {}
        self._rids: dict[str, set[Any]] = {}

    def route_rtcp(self, packet: AnyRtcpPacket) -> Any:
        recipients = super().route_rtcp(packet)
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_FIR:
            for offset in range(0, len(packet.fci) - 7, 8):
                sender = self.senders.get(struct.unpack_from("!L", packet.fci, offset)[0])
                if sender is not None:
                    recipients.add(sender)
        return recipients

    def route_rtp(self, packet: RtpPacket) -> Any:
        extensions = packet.extensions
        if self._notes is not None and extensions.transport_sequence_number is not None:
            self._notes.on_packet(extensions.transport_sequence_number, packet.ssrc)
        receiver = self.ssrc_table.get(packet.ssrc)
        rid = extensions.rtp_stream_id or extensions.repaired_rtp_stream_id
        if extensions.mid is not None:
            receiver = self._learn(packet.ssrc, self.mid_table.get(extensions.mid))
        elif receiver is None:
            receiver = self._learn(packet.ssrc, self._by_rid(rid) or self._by_payload_type(packet))
        if receiver is None:
            self.unrouted += 1
        elif rid is not None and (rid in self._rids or len(self._rids) < RIDS):
            self._rids.setdefault(rid, set()).add(receiver)
        return receiver

    def unregister_receiver(self, receiver: Any) -> None:
        super().unregister_receiver(receiver)
        for receivers in self._rids.values():
            receivers.discard(receiver)

    def _learn(self, ssrc: int, receiver: Any) -> Any:
        if receiver is not None and self.ssrc_table.get(ssrc) is not receiver:
            if ssrc not in self.ssrc_table:
                self._learned[ssrc] = None
            self.ssrc_table[ssrc] = receiver
            if len(self._learned) > LEARNED:
                oldest = next(iter(self._learned))
                del self._learned[oldest]
                self.ssrc_table.pop(oldest, None)
        return receiver

    def _by_rid(self, rid: str | None) -> Any:
        """The only receiver that was ever sent this RID: it is unique within a media section, not beyond."""
        receivers = self._rids.get(rid, set()) if rid is not None else set()
        return next(iter(receivers)) if len(receivers) == 1 else None

    def _by_payload_type(self, packet: RtpPacket) -> Any:
        receivers = self.payload_type_table.get(packet.payload_type, set())
        if len(receivers) != 1:
            receivers = {receiver for receiver in receivers if receiver.expects(packet)}  # type: ignore[attr-defined]
        return next(iter(receivers)) if len(receivers) == 1 else None
