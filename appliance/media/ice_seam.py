"""The seam to aioice: the ICE agent of a session, made of aioice's with what it lacks.

Consent by RFC 7675, several STUN and TURN servers, TURN over TLS with an authority of one's own, loopback candidates,
marked sockets, bounded queues; further servers while it connects, and restarts (RFC 8445 9).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from aioice import stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import (
    CONSENT_INTERVAL,
    CandidatePair,
    Connection,
    StunProtocol,
    get_host_addresses,
    relayed_candidate,
)
from aioice.turn import TurnTransport
from aioice.utils import random_string

from appliance.media import dscp
from appliance.media.ice_servers import in_words, seen_by
from appliance.media.servers import Server, ServerPool, first_answer

__all__ = ["IceConnection"]

log = logging.getLogger(__name__)

CHECK_AGAIN_S: Final = 1.0  # between two checks of a pair: aioice doubles up to 32 s, which a path that is back waits
CHECKED_AGAIN: Final = 16  # checks that are sent again at once
FOLLOWED_S: Final = 30.0  # from a restart to the peer's new credentials: else the search it has ended was the last
CONSENT_LIFETIME_S: Final = 30.0  # RFC 7675 5.1
CONSENT_OUTSTANDING: Final = 8  # checks still answered for: 30 s at the fastest pace of 4 s
QUESTIONS: Final = 16  # that may be answered still: 4 s of four a second
DATAGRAM: Final = 1500  # bytes: more than any path carries in one piece, and all that libsrtp has room for
RECEIVE_QUEUE: Final = 1024  # datagrams waiting for DTLS: 7 s of 720p; more means the loop stands still
REMOTE_CANDIDATES: Final = 64  # more from one peer are ignored: each costs checks on the network
SOCKET_BUFFER: Final = 262_144  # bytes received while the loop is busy: aioice's own figure
RELAY_BACKLOG: Final = 128 * 1024  # bytes waiting in a TCP connection to a TURN server: 0.7 s of 720p


class Check:
    """One check of a path in use on its way (RFC 7675 5.1); stands in aioice's table of transactions until answered.

    ``on_answer`` is told the round trip in seconds."""

    def __init__(self, key: bytes, on_answer: Callable[[float], None]) -> None:
        self._key = key
        self._on_answer = on_answer
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()

    def response_received(self, message: stun.Message, addr: tuple[str, int]) -> None:
        if message.message_class == stun.Class.RESPONSE and message.check_message_integrity(self._key):
            self._on_answer(self._loop.time() - self._sent_at)


@dataclass(slots=True)
class PathChecks:
    """What the STUN checks of the selected pair tell (W3C RTCIceCandidatePairStats)."""

    consents_sent: int = 0
    answers: int = 0
    requests: int = 0  # of the peer, authenticated
    round_trip_s: float | None = None  # of the latest that was answered
    round_trip_total_s: float = 0.0
    pair_changes: int = 0  # the first selection included

    def answered(self, round_trip_s: float) -> None:
        self.answers += 1
        self.round_trip_s = round_trip_s
        self.round_trip_total_s += round_trip_s


class GuardedProtocol(StunProtocol):
    """What anybody on the network sends to a socket of ours; what cannot be parsed is counted and nothing else."""

    receiver: IceConnection

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        try:
            if self.receiver.aimed and not self.receiver.is_aim(self, data[0], addr[:2]):
                self.receiver.strangers += 1
                return
            if isinstance(data, bytes) and data and 127 < data[0] < 192:  # RFC 7983: media; need not be tried as STUN
                self.receiver.data_received(data, self.local_candidate.component)
                return
            super().datagram_received(data, addr)
        except Exception:
            self.receiver.malformed += 1


def _nobody(_: bytes) -> bool:
    return False


class IceConnection(Connection):
    """aioice's Connection with consent by RFC 7675, servers with fail-over, loopback candidates and bounded queues.

    ``only``: the one address of this machine that is used, for a peer that does no ICE (``aim``). ``beside``: the
    agent of RTP, where this is that of RTCP on ports of its own (component 2): it has the same credentials, and at each
    address the port above, where that is free.
    """

    def __init__(
        self, *, servers: ServerPool, loopback: bool, on_arrival: Callable[[], None], ice_controlling: bool = False,
        marking: int = 0, only: str = "", beside: IceConnection | None = None,
    ) -> None:
        super().__init__(ice_controlling=ice_controlling)
        self._servers = servers
        self._loopback = loopback
        self._on_arrival = on_arrival
        self._marking = marking
        self._only = only
        self._beside = beside
        self._renew_credentials()
        self.aimed = False
        self._found = False  # where the peer is that was aimed at
        self.strangers = 0  # datagrams from where it is not
        self.overflow = 0  # datagrams thrown away because the loop did not take them
        self.stalled = 0  # datagrams thrown away because a TCP connection to a TURN server did not take them
        self.malformed = 0  # datagrams that could not be parsed
        self.take_media: Callable[[bytes], bool] = _nobody
        self.consent_lost = False
        self.checks = PathChecks()
        self._loop = asyncio.get_running_loop()
        self._consented_at = self._loop.time()
        self._questions: list[tuple[dict[bytes, Any], bytes]] = []  # in whose table, by which id
        self._search: asyncio.Task[None] | None = None  # for a path
        self._searches = asyncio.Condition()
        self._former: CandidatePair | None = None  # carries what is sent while a restart looks for another
        self._left: list[StunProtocol] = []  # sockets from before the restart
        self._known: list[Candidate] = []  # the peer's candidates from before it

    # -- gathering

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 0,  # noqa: ASYNC109 - aioice's signature
    ) -> list[Candidate]:
        """Host candidates, then those by STUN and TURN, for which the pool of servers has its own patience."""
        if self._only:
            addresses = [self._only]
        elif self._loopback or not addresses:
            addresses = [*addresses, "127.0.0.1", "::1"]
        hosts: list[StunProtocol] = []
        try:
            for address in addresses:
                protocol = await self._host_protocol(component, address)
                if protocol is not None:
                    hosts.append(protocol)
                    self._protocols.append(protocol)  # at once: who cancels the gathering closes what there is
            reflexive, relay = await asyncio.gather(
                asyncio.gather(*(self._reflexive(protocol) for protocol in hosts)), self._relay(component)
            )
            candidates = [protocol.local_candidate for protocol in hosts]
            candidates += [candidate for candidate in reflexive if candidate is not None]
            if relay is not None:
                self._protocols.append(relay)
                candidates.append(relay.local_candidate)
        finally:
            if self._closing:  # closed meanwhile: aioice has let go of the sockets that it knew then
                for protocol in self._protocols:
                    protocol.transport.close()
                self._protocols.clear()
        self.mark(self._marking)
        return candidates

    async def gather_more(self, servers: ServerPool) -> list[Candidate]:
        """Ask further servers while there is no path yet; what they give is checked with all that is known of the peer.
        """
        self._servers = servers
        hosts = [protocol for protocol in self._protocols if protocol.local_candidate.type == "host"]
        reflexive, relay = await asyncio.gather(
            asyncio.gather(*(self._reflexive(protocol) for protocol in hosts)), self._relay(1))
        candidates = [candidate for candidate in reflexive if candidate is not None]
        if relay is not None and (self._closing or self._check_list_done):
            await relay.close()
        elif relay is not None:
            self._protocols.append(relay)
            candidates.append(relay.local_candidate)
            self.mark(self._marking)
            for remote in self._remote_candidates:
                self._pair_remote_candidate(remote)
            self.sort_check_list()
            if self._early_checks_done:  # else connect() begins with all
                for pair in [one for one in self._check_list if one.protocol is relay]:
                    self.check_start_task(pair)
        self._local_candidates += candidates
        return candidates

    # -- without ICE

    def default(self, address: str) -> Candidate | None:
        """Of ours, for the peer that does no ICE: that at this address of the machine, or the best of its family."""
        own = [one for one in self._local_candidates if one.type == "host" and (":" in one.host) is (":" in address)]
        own.sort(key=lambda one: (one.host != address, -one.priority))
        return next(iter(own), None)

    def aim(self, here: Candidate, host: str, port: int) -> None:
        """The peer does no ICE: it is at this address, or where its first packet comes from (RFC 4961), until it is
        aimed at anew. ``connect`` has nothing to do then."""
        self.aimed, self._found = True, False
        protocol = next((one for one in self._protocols if one.local_candidate is here), None)
        if protocol is not None:
            self._hit(protocol, host, port)

    def _hit(self, protocol: StunProtocol, host: str, port: int) -> None:
        there = Candidate(foundation="aim", component=1, transport="udp", priority=1, host=host, port=port, type="host")
        self._nominated[1] = CandidatePair(protocol, there)

    def is_aim(self, protocol: StunProtocol, first_byte: int | str, addr: tuple[Any, ...]) -> bool:
        """Whether a datagram may be the peer's. What is neither DTLS nor SRTP tells nothing of where it is."""
        pair = self._nominated.get(1)
        if self._found or pair is None or not isinstance(first_byte, int) or first_byte < 20:
            return pair is not None and addr == pair.remote_addr
        self._found = True
        if addr != pair.remote_addr or protocol is not pair.protocol:
            self._hit(protocol, *addr)
        return True

    # -- checks

    async def connect(self) -> None:
        """Raises ConnectionError. A restart meanwhile ends this search; what comes of the next one counts."""
        if self.aimed:
            self._check_list_done = self._early_checks_done = True
            return
        search = own = asyncio.create_task(self._look_for_path(), name="media.search")
        async with self._searches:
            self._search = own
            self._searches.notify_all()
        try:
            await asyncio.wait({search})
            while search.cancelled():
                search = await self._search_after(search)
                await asyncio.wait({search})
        finally:
            own.cancel()
        search.result()

    async def _search_after(self, search: asyncio.Task[None]) -> asyncio.Task[None]:
        """Raises ConnectionError where none is begun."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOWED_S), self._searches:
                await self._searches.wait_for(lambda: self._closing or self._search is not search)
        if self._search is None or self._search is search:
            raise ConnectionError("ICE was restarted, and the other side did not follow")
        return self._search

    async def _look_for_path(self) -> None:
        again = asyncio.create_task(self._check_again(), name="media.checks")
        try:
            await super().connect()
        finally:
            again.cancel()

    async def _check_again(self) -> None:
        while True:
            await asyncio.sleep(CHECK_AGAIN_S)
            waiting = [(protocol, check) for protocol in self._protocols for check in protocol.transactions.values()
                       if isinstance(check, stun.Transaction)]
            for protocol, check in waiting[:CHECKED_AGAIN]:
                protocol.send_stun(check._Transaction__request, check._Transaction__addr)  # type: ignore[attr-defined]

    # -- restart

    async def restart(self) -> list[Candidate]:
        """Begin anew: other credentials, sockets and candidates of ours, nothing of the peer's. What is sent goes by
        the pair that was in use until ``reconnect`` has found another; what arrives is taken from all."""
        tasks = [pair.task for pair in self._check_list if pair.task is not None]
        tasks += [one for one in (self._query_consent_task, self._search) if one is not None and not one.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._former = self.selected() or self._former
        self._left += self._protocols
        self._known = [one for one in self._remote_candidates if one.type != "prflx"] or self._known
        self._protocols, self._local_candidates, self._remote_candidates = [], [], []
        self._check_list, self._check_list_state, self._check_list_done = [], asyncio.Queue(), False
        self._early_checks.clear()
        self._early_checks_done = self._remote_candidates_end = False
        self._nominated.clear()
        self._nominating.clear()
        self._query_consent_task = None
        self._renew_credentials()
        self.remote_username = self.remote_password = None
        addresses = get_host_addresses(use_ipv4=True, use_ipv6=True)
        self._local_candidates = await self.get_component_candidates(1, addresses)
        return self.local_candidates

    async def reconnect(self, username: str, password: str, candidates: Sequence[Candidate], *, lite: bool) -> None:
        """Look for a path with the peer's new credentials; without candidates of its own it has the old ones still.

        Raises ConnectionError.
        """
        self.remote_username, self.remote_password = username, password
        self.remote_is_lite = self.remote_is_lite or lite  # which it stays, told again or not
        for candidate in candidates or self._known:
            await self.add_remote_candidate(candidate)
        await self.add_remote_candidate(None)
        await self.connect()
        self._former = None
        left, self._left = self._left, []
        for protocol in left:
            await protocol.close()

    async def close(self) -> None:
        _forget(self._questions, 0)
        left, self._left, self._former = self._left, [], None
        await super().close()
        async with self._searches:
            self._searches.notify_all()
        for protocol in left:
            await protocol.close()

    async def recvfrom(self) -> tuple[bytes, int]:
        if self._nominated or self._former is None:
            return await super().recvfrom()
        received = await self._queue.get()
        if received is None:
            raise ConnectionError("closed while ICE was restarted")
        return received

    async def _host_protocol(self, component: int, address: str) -> StunProtocol | None:
        for port in dict.fromkeys((self._port_above(address), 0)):
            try:
                transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: GuardedProtocol(self), local_addr=(address, port)
                )
                break
            except OSError as error:
                log.debug("no host candidate on an address: %s", error)
        else:
            return None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        host, port = transport.get_extra_info("sockname")[:2]
        protocol.local_candidate = Candidate(
            foundation=candidate_foundation("host", "udp", host), component=component, transport="udp",
            priority=candidate_priority(component, "host"), host=host, port=port, type="host",
        )
        return protocol

    def _port_above(self, address: str) -> int:
        """That of RTP, where this is for RTCP, else 0."""
        known = self._beside.local_candidates if self._beside is not None else []
        return next(((one.port + 1) % 65536 for one in known if (one.host, one.type) == (address, "host")), 0)

    def _renew_credentials(self) -> None:
        beside = self._beside
        if beside is None:
            self._local_username, self._local_password = random_string(4), random_string(22)
        else:
            self._local_username, self._local_password = beside.local_username, beside.local_password
            self._tie_breaker = beside._tie_breaker

    async def _reflexive(self, protocol: StunProtocol) -> Candidate | None:
        """What a STUN server sees of one of our sockets. From IPv6, which is seldom translated, only a server with such
        an address is asked."""
        address = ipaddress.ip_address(protocol.local_candidate.host)
        servers = [server for server in self._servers.stun if server.is_ipv6 == (address.version == 6)]
        if not servers or address.is_loopback:
            return None

        async def ask(server: Server) -> Candidate:
            return await seen_by(server, protocol)

        return await first_answer(self._servers, servers, ask, discard=_nothing)

    async def _relay(self, component: int) -> StunProtocol | None:
        servers = self._servers.turn
        if not servers:
            return None

        async def ask(server: Server) -> StunProtocol:
            username, password = server.login()
            with in_words():
                _, protocol = await relayed_candidate(
                    component=component, hide_related_address=False, protocol_factory=lambda: GuardedProtocol(self),
                    turn_server=(server.host, server.port),
                    turn_username=username or None, turn_password=password or None,
                    turn_ssl=await self._servers.tls() if server.transport == "tls" else None,  # type: ignore[arg-type]
                    turn_transport="udp" if server.transport == "udp" else "tcp",
                )
            return protocol

        return await first_answer(self._servers, servers, ask, discard=StunProtocol.close)

    # -- marks and addresses

    def mark(self, marking: int) -> None:
        """Mark what leaves by any path from now on with this code point."""
        self._marking = marking
        for protocol in self._protocols:
            if (sock := _carrier(protocol).get_extra_info("socket")) is not None:
                dscp.mark(sock, marking)

    def local_addresses(self) -> Set[str]:
        """The address of this machine that the selected path begins at, or that every possible one does."""
        pair = self.selected()
        protocols = [pair.protocol] if pair is not None else self._protocols
        names = (_carrier(protocol).get_extra_info("sockname") for protocol in protocols)
        return {str(name[0]) for name in names if name}

    async def sendto(self, data: bytes, component: int) -> None:
        pair = self._nominated.get(component) or self._former
        if pair is not None and _backlog(pair.protocol) > RELAY_BACKLOG:
            self.stalled += 1
            return
        if pair is not None and pair is self._former:
            await pair.protocol.send_data(data, pair.remote_addr)
            return
        await super().sendto(data, component)

    # -- what comes in

    async def add_remote_candidate(self, remote_candidate: Candidate | None) -> None:
        if remote_candidate is None and self._remote_candidates_end:
            return  # told twice: harmless, but aioice raises
        if remote_candidate is not None and len(self._remote_candidates) >= REMOTE_CANDIDATES:
            return
        await super().add_remote_candidate(remote_candidate)

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        self._on_arrival()  # called for authenticated requests alone
        self.checks.requests += 1
        if protocol not in self._left:  # those from before a restart are about to go
            super().check_incoming(message, addr, protocol)

    def check_complete(self, pair: CandidatePair) -> None:
        before = self._nominated.get(pair.component)
        super().check_complete(pair)
        self.checks.pair_changes += self._nominated.get(pair.component) is not before

    def data_received(self, data: bytes, component: int) -> None:
        if self._queue.qsize() >= RECEIVE_QUEUE:
            self.overflow += 1
            return
        # others raise in RTCDtlsTransport and in libsrtp, which would end the call
        if 0 < len(data) <= DATAGRAM and not self.take_media(data):
            super().data_received(data, component)

    # -- consent

    async def query_consent(self) -> None:
        """Check every 4 to 6 s, each a new transaction; any valid answer within the last 30 s is consent."""
        if (task := asyncio.current_task()) is not None:
            task.set_name("media.consent")
        if self._closing:  # closed after the last check and before connect() was resumed: it starts this all the same
            return
        self._consented_at = self._loop.time()
        waiting: list[tuple[dict[bytes, Any], bytes]] = []
        try:
            while self._loop.time() - self._consented_at < CONSENT_LIFETIME_S:
                waiting += [self._send_check(pair) for pair in list(self._nominated.values())]
                self.checks.consents_sent += len(self._nominated)
                _forget(waiting, CONSENT_OUTSTANDING)
                await asyncio.sleep(CONSENT_INTERVAL * (0.8 + 0.4 * random.random()))  # noqa: S311 pacing
        finally:
            _forget(waiting, 0)
        self.consent_lost = True
        self._query_consent_task = None
        await self.close()

    def ask(self) -> bool:
        """One check more of the path in use, as those by which it was found (RFC 8445 7.2.2): checks of consent may not
        come more often than every 4 s. Its answer is an arrival, and consent. False: there is none, or none yet after a
        restart."""
        pair = self.selected()
        if pair is None or self._closing:
            return False
        self._questions.append(self._send_check(pair))
        _forget(self._questions, QUESTIONS)
        return True

    def _answered(self, round_trip_s: float) -> None:
        self._consented_at = self._loop.time()
        self.checks.answered(round_trip_s)
        self._on_arrival()

    def _send_check(self, pair: CandidatePair) -> tuple[dict[bytes, Any], bytes]:
        key = (self.remote_password or "").encode()
        request = self.build_request(pair, nominate=False)
        request.add_message_integrity(key)
        table: dict[bytes, Any] = pair.protocol.transactions
        table[request.transaction_id] = Check(key, self._answered)
        pair.protocol.send_stun(request, pair.remote_addr)
        return table, request.transaction_id

    def selected(self) -> CandidatePair | None:
        return next(iter(self._nominated.values()), None)


def _forget(checks: list[tuple[dict[bytes, Any], bytes]], most: int) -> None:
    """Whatever answers any but the last ``most`` of them is too late."""
    late = max(0, len(checks) - most)
    for table, transaction in checks[:late]:
        table.pop(transaction, None)
    del checks[:late]


def _carrier(protocol: StunProtocol) -> asyncio.BaseTransport:
    """The transport whose socket carries the datagrams: a relay's is the one to its TURN server."""
    transport = protocol.transport
    if isinstance(transport, TurnTransport):
        return cast(asyncio.BaseTransport, transport._TurnTransport__inner_protocol.transport)  # type: ignore[attr-defined]
    return transport


def _backlog(protocol: StunProtocol) -> int:
    """Bytes waiting in a stream to a TURN server; a datagram never waits."""
    carrier = _carrier(protocol)
    return carrier.get_write_buffer_size() if isinstance(carrier, asyncio.Transport) else 0


async def _nothing(_: Candidate) -> None:
    """A candidate holds nothing that must be let go."""
