"""The seam to aiortc's DTLS and aioice for a line that others describe: one association (RFC 5763, 5764) on one port,
over a path that ICE finds (RFC 8445), or where the peer is by its description.

It goes on while descriptions name the same certificates, whatever else they change; for another one a new
``Association`` is made (RFC 8842 3.1).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, Final

from aioice.candidate import Candidate
from aiortc.rtcdtlstransport import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    State,
    certificate_digest,
)
from aiortc.rtcicetransport import RTCIceParameters, RTCIceTransport

from appliance.media.aiortc_seam import Gatherer, path_facts
from appliance.media.api import IceFragment
from appliance.media.dtls_seam import Certificate, CertificateFacts, DtlsTransport
from appliance.media.ice_seam import IceConnection
from appliance.media.servers import ServerPool
from appliance.media.ways import STRANGER, Address, OurEnd, Place, TheirEnd
from appliance.tasks import background

__all__ = ["Association"]

log = logging.getLogger(__name__)

NO_HANDSHAKE: Final = "the DTLS handshake came to nothing"


class _Dtls(DtlsTransport):
    """Hands on RTP and RTCP as they are, in the clear; keeps why a handshake came to nothing."""

    def __init__(
        self, transport: RTCIceTransport, certificates: list[RTCCertificate], on_arrival: Callable[[], None],
        take: Callable[[bytes, bool], bool],
    ) -> None:
        super().__init__(transport, certificates, on_arrival)
        self._take = take
        self.trouble = NO_HANDSHAKE

    def _take_rtp(self, data: bytes, arrival_time_ms: int) -> None:
        try:
            self._take(data, False)
        except Exception as error:
            self._note_malformed(error)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        try:
            self._take(data, True)
        except Exception as error:
            self._note_malformed(error)

    def _validate_peer_identity(self, remoteParameters: RTCDtlsParameters) -> None:  # noqa: N803
        self.trouble = STRANGER  # before its state is told
        super()._validate_peer_identity(remoteParameters)
        if self._state is not State.FAILED:
            self.trouble = NO_HANDSHAKE


class Association:
    """``open`` gives our end for a description, ``agree`` takes theirs and begins. What it tells is told as in
    ``ways.Way``.

    ``ice``: the peer may do ICE; without it only ``host`` of this machine is used, which otherwise comes first.
    ``beside``: the association of RTP, open, where this is that of RTCP on a port of its own: it shows the same
    certificate.
    ``take``: see ``UdpWay``; ``on_arrival`` is told of authentic checks of the path; ``on_state``: ``state`` may be
    another one.
    """

    def __init__(
        self, take: Callable[[bytes, bool], bool], *, name: str, host: str, servers: ServerPool, loopback: bool,
        ice: bool, marking: int, on_arrival: Callable[[], None], on_state: Callable[[], None],
        beside: Association | None = None,
    ) -> None:
        self._name = name
        self._host = host
        self._does_ice = ice
        self._on_state = on_state
        self._component = 1 if beside is None else 2
        self._certificate: RTCCertificate = (
            Certificate.generateCertificate() if beside is None else beside._certificate)
        self._tls_id = secrets.token_hex(16)
        self._gatherer = Gatherer(
            servers, loopback=loopback, marking=marking, on_arrival=on_arrival, only="" if ice else host,
            beside=None if beside is None else beside._agent)
        self._agent: IceConnection = self._gatherer.agent
        self._agent.ice_controlling = True  # as who offers is: the peer may check before its answer is here
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = _Dtls(self._ice, [self._certificate], on_arrival, take)
        self._gatherer.hand_media(self._dtls.take_media)
        self._ice.on("statechange", self._changed)
        self._dtls.on("statechange", self._changed)
        self._theirs: TheirEnd | None = None
        self._remote: Address | None = None
        self._here: Candidate | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._naming: asyncio.Task[None] | None = None  # of the paths that they may be reached by
        self._broken = ""  # by a fault of ours, or of what the peer says
        self._closed = False

    async def open(self) -> OurEnd:
        """Raises OSError where the machine has no port, or no address of the kind."""
        await self._gatherer.gather()
        return self._our_end()

    def _our_end(self) -> OurEnd:
        agent = self._agent
        self._here = agent.default(self._host)
        if self._here is None:
            raise OSError(f"no port is free at {self._host}")
        candidates = tuple(f"candidate:{self._told(one).to_sdp()}" for one in agent.local_candidates)
        return OurEnd(
            (self._here.host, self._here.port), certificate_digest(self._certificate._cert, "sha-256"), self._tls_id,
            IceFragment(agent.local_username, agent.local_password, candidates) if self._does_ice else None)

    def _told(self, one: Candidate) -> Candidate:
        """As descriptions have it: the agent of each component knows but one (RFC 8445 5.1.2.1)."""
        told = copy(one)
        told.component, told.priority = self._component, one.priority + 1 - self._component
        return told

    def _candidates(self, fragment: IceFragment) -> list[Candidate]:
        """Theirs for this component, as the agent has it."""
        found = [Candidate.from_sdp(one.removeprefix("candidate:")) for one in fragment.candidates]
        found = [one for one in found if one.component == self._component]
        for one in found:
            one.component = 1
        return found

    async def restart_ice(self) -> OurEnd:
        """Other credentials and candidates of ours, for a peer that looks for another path; the association stays. So
        does one whose first path is not found yet: it comes by the next."""
        if self._naming is not None:  # a name of the local network that is found now is of a path that is given up
            self._naming.cancel()
        await self._agent.restart()
        return self._our_end()

    def carries(self, place: Place) -> bool:
        return isinstance(place, OurEnd) and place.tls_id == self._tls_id

    # -- what is agreed

    def continues(self, theirs: TheirEnd) -> bool:
        """Whether this is the association still with what they say now, or can become it (RFC 8842 3.1)."""
        now = self._theirs
        return now is None or (
            (now.fingerprints, now.client, now.tls_id, now.ice is None)
            == (theirs.fingerprints, theirs.client, theirs.tls_id, theirs.ice is None))

    def restarts(self, theirs: TheirEnd) -> bool:
        """Whether they look for another path (RFC 8445 9)."""
        now = self._theirs
        return now is not None and now.ice is not None and theirs.ice is not None and (
            (now.ice.username, now.ice.password) != (theirs.ice.username, theirs.ice.password))

    def agree(self, theirs: TheirEnd, remote: Address) -> None:
        """``remote``: where they are by their description, if they do no ICE. It must be one that this ``continues``.
        """
        first, restarts = self._theirs is None, self.restarts(theirs)
        moved = theirs.ice is None and remote != self._remote
        self._theirs, self._remote = theirs, remote
        if moved and self._here is not None:
            self._agent.aim(self._here, *remote)
        if first:
            self._begin("dtls", self._connect(theirs))
        elif restarts and theirs.ice is not None:
            self._naming = self._begin("ice", self._reconnect(theirs.ice))

    def _begin(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = background(work, name=f"media.{what} {self._name}", failed=self._failed)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _connect(self, theirs: TheirEnd) -> None:
        fragment = theirs.ice
        parameters = RTCIceParameters()
        if fragment is not None:
            # else it stays: early checks may have settled a conflict of roles, and a path is nominated but once
            if not (theirs.controlling or fragment.lite):
                self._agent.ice_controlling = False
            parameters = RTCIceParameters(fragment.username, fragment.password, fragment.lite)
        self._dtls._set_role("server" if theirs.client else "client")
        # beside the checks: a name of the local network may take long to be found, or never be
        candidates = [] if fragment is None else self._candidates(fragment)
        self._naming = self._begin("candidates", self._tell(candidates))
        await self._ice.start(parameters)
        if self._ice.state == "completed":
            await self._dtls.start(RTCDtlsParameters([RTCDtlsFingerprint(*one) for one in theirs.fingerprints]))

    async def _tell(self, candidates: Sequence[Candidate]) -> None:
        await asyncio.gather(*(self._agent.add_remote_candidate(one) for one in candidates))
        await self._agent.add_remote_candidate(None)

    async def _reconnect(self, fragment: IceFragment) -> None:
        try:
            await self._agent.reconnect(
                fragment.username, fragment.password, self._candidates(fragment), lite=fragment.lite)
        except ConnectionError as error:
            log.info("no other path was found: %s", error)  # consent runs out where the former one is gone

    def _failed(self, error: Exception) -> None:
        log.error("an association could not be made", exc_info=error)
        self._broken = f"{type(error).__name__}: {error}"
        self._on_state()

    def _changed(self) -> None:
        if not self._closed:
            self._on_state()

    # -- as a way

    @property
    def state(self) -> str:
        """Who ends it in good order (a DTLS alert) ends the call by signalling, which may come later."""
        if self._broken or "failed" in (self._ice.state, self._dtls.state):
            return "failed"
        return "connected" if self._dtls.state in ("connected", "closed") else "connecting"

    @property
    def failure(self) -> tuple[str, str]:
        if self._broken:
            return "internal", self._broken
        if self._agent.consent_lost:
            return "lost", "the path to the other side is gone"
        if self._dtls.state == "failed":
            return "dtls", self._dtls.trouble
        return ("iceFailed", "no path to the other side was found") if self._ice.state == "failed" else ("", "")

    @property
    def malformed(self) -> int:
        return self._dtls.malformed + self._agent.malformed

    @property
    def strangers(self) -> int:
        return self._agent.strangers

    @property
    def address(self) -> str | None:
        return next(iter(self._agent.local_addresses()), None)

    def security(self) -> Mapping[str, str]:
        return self._dtls.security()

    def certificates(self) -> Mapping[str, CertificateFacts]:
        return self._dtls.certificates()

    def facts(self) -> dict[str, Any]:
        return path_facts(self._dtls, self._agent)

    def mark(self, marking: int) -> None:
        self._agent.mark(marking)

    async def send(self, packet: bytes) -> None:
        """To nobody while there is no association (yet), as a network would."""
        if self._closed:
            raise ConnectionError("the transport is not open")
        with suppress(ConnectionError):
            await self._dtls._send_rtp(packet)

    async def close(self) -> None:
        self._closed = True
        connecting = list(self._connecting)
        for task in connecting:
            task.cancel()
        await self._dtls.stop()
        await self._ice.stop()
        await self._agent.close()  # of one that was never begun aiortc knows nothing
        # only now: asyncio.wait_for (before Python 3.12), which a handshake waits in, may lose a cancellation to a
        # datagram of the same moment, and then the end of the socket is what ends it
        await asyncio.gather(*connecting, return_exceptions=True)
