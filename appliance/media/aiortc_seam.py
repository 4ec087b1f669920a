"""The seam to aiortc: the peer connection, made of our own parts.

Every private name of aiortc that Edgecall touches stands here or in ``dtls_seam``, ``association_seam``, ``rtp_seam``,
``routing_seam`` and ``sctp_seam``, those of aioice in ``ice_seam``.

What is used as it is: ICE checks, DTLS, SCTP, the SDP parser, the RTP and RTCP codecs. What is replaced, and why:

========================  ==========================================================================================
``Sender``, ``Receiver``  stock ones ignore key-frame requests and REMB for encoded frames, mark every audio packet,
                          join the decoder thread inside the loop and queue without limit
``IceConnection``         consent of RFC 7675 (30 s since the last valid answer; stock closes a healthy call when the
                          round trip is over 500 ms), servers with fail-over (``ice_seam``)
``DtlsTransport``         tells of every authenticated arrival, survives malformed RTCP, RSA cipher suites,
                          transport-wide feedback (stock reads format 15 as if it were NACK), drops data for a peer
                          that is gone (stock raises in tasks that nobody waits for)
``Router``                FIR by its FCI, RTP by MID and RID, retransmissions of unknown sources (``routing_seam``)
``PeerConnection``        builds all of these, bundles always, connects what was described while it connected, names its
                          tasks, tells of failures
========================  ==========================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from aioice.candidate import Candidate
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport, candidate_from_aioice
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.sdp import candidate_from_sdp

from appliance.media.api import IceFragment
from appliance.media.dscp import Marks
from appliance.media.dtls_seam import (
    Certificate,
    CertificateFacts,
    DtlsTransport,
    Receiver,
    ReceiveStream,
    Sender,
    SendStream,
    TransportWide,
    hidden,
)
from appliance.media.ice_seam import IceConnection
from appliance.media.servers import ServerPool

__all__ = ["Gatherer", "PeerConnection", "candidate_from_sdp", "path_facts"]


def hide(thing: object, owner: type, name: str, value: object) -> None:
    setattr(thing, f"_{owner.__name__}__{name}", value)


class Gatherer(RTCIceGatherer):
    """``agent`` is ours. ``only``, ``beside``: see ``IceConnection``."""

    def __init__(
        self, servers: ServerPool, *, loopback: bool, marking: int, on_arrival: Callable[[], None], only: str = "",
        beside: IceConnection | None = None,
    ) -> None:
        super().__init__(iceServers=[])
        self.agent = IceConnection(
            servers=servers, loopback=loopback, marking=marking, on_arrival=on_arrival, only=only, beside=beside)
        self._connection = self.agent

    def hand_media(self, take: Callable[[bytes], bool]) -> None:
        """``take`` is given each datagram first, and says whether it was its."""
        self.agent.take_media = take


class PeerConnection(RTCPeerConnection):
    """RTCPeerConnection made of the parts above: MAX_BUNDLE, no default STUN server, named tasks.

    ``streams(kind)`` gives the SendStream and ReceiveStream of a new transceiver; ``on_arrival`` is called for every
    authenticated packet; ``on_error`` when connecting failed inside aiortc without a state to tell it; ``wide`` gets
    the transport-wide feedback.
    """

    def __init__(
        self, servers: ServerPool, *, loopback: bool, name: str, marking: int = 0,
        streams: Callable[[str], tuple[SendStream, ReceiveStream]],
        on_arrival: Callable[[], None], on_error: Callable[[Exception], None], wide: TransportWide | None = None,
    ) -> None:
        # A peer that bundles but not the second line of a kind breaks every other policy (aiortc #1, bridges).
        super().__init__(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        hide(self, RTCPeerConnection, "certificates", [Certificate.generateCertificate()])
        self._servers = servers
        self._loopback = loopback
        self._marking = marking
        self._name = name
        self._streams = streams
        self._on_arrival = on_arrival
        self._on_error = on_error
        self._wide = wide
        self._connecting: set[asyncio.Task[Any]] = set()
        self._one_by_one = asyncio.Lock()

    async def close(self) -> None:
        """Close and see the connecting tasks end; aiortc forgets them, and the transports when one line has lost its
        own to a description that does not hold together."""
        transports = list(hidden(self, RTCPeerConnection, "dtlsTransports"))
        try:
            await super().close()
        finally:
            for dtls in transports:
                await dtls.stop()
                await dtls.transport.stop()
        tasks = self._connecting - {asyncio.current_task()}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=0.2)
            for task in late:
                task.cancel()

    async def _RTCPeerConnection__connect(self) -> None:  # noqa: N802
        task = _name_task(f"media.connect {self._name}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        try:
            async with self._one_by_one:  # aiortc passes over lines described while the DTLS of others is on its way
                await RTCPeerConnection._RTCPeerConnection__connect(self)  # type: ignore[attr-defined]
        except Exception as error:  # aiortc would leave it in a forgotten task
            self._on_error(error)

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802
        gatherer = Gatherer(
            self._servers, loopback=self._loopback, marking=self._marking, on_arrival=self._on_arrival
        )
        ice = RTCIceTransport(gatherer)
        dtls = DtlsTransport(ice, hidden(self, RTCPeerConnection, "certificates"), self._on_arrival, self._wide)
        gatherer.hand_media(dtls.take_media)
        gatherer.on("statechange", hidden(self, RTCPeerConnection, "updateIceGatheringState"))
        ice.on("statechange", hidden(self, RTCPeerConnection, "updateIceConnectionState"))
        ice.on("statechange", hidden(self, RTCPeerConnection, "updateConnectionState"))
        dtls.on("statechange", hidden(self, RTCPeerConnection, "updateConnectionState"))
        hidden(self, RTCPeerConnection, "iceTransports").add(ice)
        hidden(self, RTCPeerConnection, "dtlsTransports").add(dtls)
        return dtls

    def _RTCPeerConnection__createTransceiver(  # noqa: N802
        self, direction: str, kind: str, sender_track: MediaStreamTrack | None = None
    ) -> RTCRtpTransceiver:
        transceivers = hidden(self, RTCPeerConnection, "transceivers")
        sctp = hidden(self, RTCPeerConnection, "sctp")
        if transceivers:
            dtls = transceivers[0].receiver.transport
        elif sctp:
            dtls = sctp.transport
            sctp._bundled = True  # else its transport, which is the line's too, is stopped as one that is left over
        else:
            dtls = self._RTCPeerConnection__createDtlsTransport()
        outgoing, incoming = self._streams(kind)
        transceiver = RTCRtpTransceiver(
            direction=direction, kind=kind,
            sender=Sender(sender_track or kind, dtls, outgoing), receiver=Receiver(kind, dtls, incoming),
        )
        transceiver.receiver._set_rtcp_ssrc(transceiver.sender._ssrc)
        transceiver.sender._stream_id = hidden(self, RTCPeerConnection, "stream_id")
        transceiver._bundled = bool(transceivers or sctp)
        transceivers.append(transceiver)
        return transceiver

    @property
    def _dtls(self) -> DtlsTransport | None:
        return next(iter(hidden(self, RTCPeerConnection, "dtlsTransports")), None)

    @property
    def _ice(self) -> IceConnection | None:
        dtls = self._dtls
        connection = dtls.transport._connection if dtls is not None else None
        return connection if isinstance(connection, IceConnection) else None

    def ask(self) -> bool:
        """Have the peer show that it is there; its answer is an arrival. False: there is no path to ask it by."""
        return self._ice is not None and self._ice.ask()

    @property
    def round_trip_s(self) -> float | None:
        """By the latest check that was answered; None before."""
        return self._ice.checks.round_trip_s if self._ice is not None else None

    @property
    def state(self) -> str:
        """``connectionState`` by the name that every transport has."""
        return str(self.connectionState)

    def negotiated(self, kind: str) -> tuple[bool, bool]:
        """Whether ``kind`` is sent and received by the descriptions exchanged so far."""
        for transceiver in self.getTransceivers():
            if transceiver.kind == kind:
                direction = transceiver.currentDirection or "inactive"
                return direction in ("sendrecv", "sendonly"), direction in ("sendrecv", "recvonly")
        return False, False

    def codec(self, kind: str) -> RTCRtpCodecParameters | None:
        """The codec in use for ``kind``, once negotiated."""
        for transceiver in self.getTransceivers():
            if transceiver.kind == kind and transceiver.currentDirection and transceiver._codecs:
                return transceiver._codecs[0]
        return None

    def mid(self, kind: str) -> str | None:
        """Identification of the media line of ``kind`` (RFC 5888), once described."""
        return next((one.mid for one in self.getTransceivers() if one.kind == kind), None)

    def receiving(self) -> Mapping[str, ReceiveStream]:
        """The stream of each line that has a MID, by it."""
        return {one.mid: one.receiver.stream for one in self.getTransceivers()
                if one.mid is not None and isinstance(one.receiver, Receiver)}

    def security(self) -> dict[str, str]:
        return self._dtls.security() if self._dtls is not None else {}

    def mark(self, marks: Marks, *, video: bool) -> None:
        """One mark for all: the lines share the transport."""
        if self._ice is not None:
            self._ice.mark(marks.of(video=video))

    def local_addresses(self) -> Set[str]:
        """The address of this machine that the path in use begins at; before there is one all that were gathered."""
        return self._ice.local_addresses() if self._ice is not None else frozenset()

    async def gather_more(self, servers: ServerPool) -> IceFragment | None:
        """Candidates by further servers; None: none found, or there is a path already."""
        found = await self._ice.gather_more(servers) if self._ice is not None else []
        return self._fragment(found) if found else None

    async def restart_ice(self) -> IceFragment:
        """Other credentials and candidates of ours, for the peer to be told; DTLS and media stay as they are."""
        if self._ice is None:
            raise ConnectionError("there is no transport to restart")
        return self._fragment(await self._ice.restart())

    async def ice_restarted(self, theirs: IceFragment) -> None:
        """What the peer has told in return. Raises ConnectionError when no path is found, ValueError for a candidate
        that is none."""
        if self._ice is None:
            raise ConnectionError("there is no transport to restart")
        candidates = [Candidate.from_sdp(one.removeprefix("candidate:")) for one in theirs.candidates]
        await self._ice.reconnect(theirs.username, theirs.password, candidates, lite=theirs.lite)

    def _fragment(self, candidates: Sequence[Candidate]) -> IceFragment:
        ice = self._ice
        username, password = (ice.local_username, ice.local_password) if ice is not None else ("", "")
        return IceFragment(username, password, tuple(f"candidate:{one.to_sdp()}" for one in candidates))

    def certificates(self) -> Mapping[str, CertificateFacts]:
        """Those of the handshake by side, ``local`` and ``remote``; empty before it."""
        return self._dtls.certificates() if self._dtls is not None else {}

    def failure(self) -> str:
        """Which part failed: ``iceFailed``, ``dtls``, ``lost`` (consent ran out), or ``""``."""
        ice, dtls = self._ice, self._dtls
        if ice is not None and ice.consent_lost:
            return "lost"
        if dtls is not None and dtls.state == "failed":
            return "dtls"
        if dtls is not None and dtls.transport.state == "failed":
            return "iceFailed"
        return ""

    def transport_facts(self) -> dict[str, Any]:
        """Counters and the selected candidate pair, for statistics."""
        dtls, ice = self._dtls, self._ice
        if dtls is None or ice is None:
            return {}
        return {
            "bytesSent": hidden(dtls, RTCDtlsTransport, "tx_bytes"),
            "bytesReceived": hidden(dtls, RTCDtlsTransport, "rx_bytes"),
            "packetsSent": hidden(dtls, RTCDtlsTransport, "tx_packets"),
            "packetsReceived": hidden(dtls, RTCDtlsTransport, "rx_packets"),
            "malformed": dtls.malformed + ice.malformed, "overflow": ice.overflow + ice.stalled,
            **path_facts(dtls, ice),
        }


def path_facts(dtls: RTCDtlsTransport, ice: IceConnection) -> dict[str, Any]:
    """The association and the pair of candidates that carries it, for statistics."""
    facts: dict[str, Any] = {
        "iceRole": dtls.transport.role, "iceState": dtls.transport.state, "dtlsState": dtls.state,
        "checks": ice.checks, "discardedOnSend": ice.stalled,
        "localUsername": ice.local_username, "remoteUsername": ice.remote_username,
    }
    pair = ice.selected()
    if pair is not None:
        facts["local"] = candidate_from_aioice(pair.local_candidate)
        facts["remote"] = candidate_from_aioice(pair.remote_candidate)
    return facts


def _name_task(name: str) -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only inside a task")
    task.set_name(name)
    return task
