"""A user agent (RFC 3261 8): requests of ours with their challenges answered, requests of theirs to whom they are for.

Bytes come in by ``receive``, leave by a ``Wire``, time is a ``Clock``'s. Nothing that arrives raises. Who may call is
decided here (``Identity``): a request outside a dialog is answered when it was sent to our contact, whose user part
nobody can guess, or comes from an address that is trusted; all else is left without a word, and scanners find nothing.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from appliance.providers.sip.body import SDP, description_of
from appliance.providers.sip.digest import ROUNDS, Authenticator, Credentials
from appliance.providers.sip.grammar import Malformed, quoted
from appliance.providers.sip.message import Message, Request, Response, Via, parse
from appliance.providers.sip.transaction import (
    COOKIE,
    ClientInvite,
    ClientRequest,
    ClientTransaction,
    Clock,
    Failure,
    ServerInvite,
    ServerRequest,
    ServerTransaction,
    Timings,
    client_key,
    server_key,
)
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = [
    "ALLOWED", "ANONYMOUS", "ENCRYPTED", "RELIABLE", "SUPPORTED", "Agent", "Exchange", "Hop", "Identity", "Seen",
    "Session", "Wire", "hop_of", "phrase_of", "reason_header",
]

log = logging.getLogger(__name__)

ALLOWED: Final = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY")
RELIABLE: Final = "100rel"
SUPPORTED: Final = frozenset({"timer", RELIABLE, "replaces", "norefersub"})
TRANSACTIONS: Final = 512  # of theirs at a time; more is a flood, and is dropped
FROM_ONE: Final = 128  # of these of one peer: a flood of it leaves the others room
PORTS: Final = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}
ENCRYPTED: Final = ("tls", "wss")
DATAGRAM: Final = 1300  # bytes of a request that still go by UDP on a path nobody has measured (RFC 3261 18.1.1)
VIA: Final = 120  # bytes of the header field that says so
REFUSED_S: Final = 600.0  # for so long who took no connection is sent datagrams, in fragments
REFUSED: Final = 64
AGENT: Final = "Edgecall"
FLOW_FAILED: Final = 430
ANONYMOUS: Final = NameAddr(Uri("sip", "anonymous", "anonymous.invalid"), "Anonymous")

_PHRASES: Final = {
    100: "Trying", 180: "Ringing", 200: "OK", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 420: "Bad Extension",
    422: "Session Interval Too Small", 480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist",
    482: "Loop Detected", 483: "Too Many Hops", 486: "Busy Here", 487: "Request Terminated",
    488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending", 500: "Server Internal Error",
    503: "Service Unavailable", 504: "Server Time-out",
    600: "Busy Everywhere", 603: "Decline",
}


def phrase_of(status: int) -> str:
    return _PHRASES.get(status, "Refused")


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a message goes next, or came from. ``transport``: one of ``PORTS``; ``host``: without brackets. ``name``:
    whose a certificate there must be, where it is not that of the host; of one that came, whose it is, if expected."""

    transport: str
    host: str
    port: int
    name: str = ""

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"


def hop_of(uri: Uri, transport: str) -> Hop:
    """Where an address leads; ``transport``: the way where it names none. Raises Malformed."""
    chosen = uri.transport or transport
    if chosen == "ws" and transport in ENCRYPTED:  # addresses have one word for both (RFC 7118 5)
        chosen = "wss"
    if chosen not in PORTS:
        raise Malformed("an address asks for a transport that is not known here")
    if uri.scheme not in ("sip", "sips"):
        raise Malformed("an address is no sip: address")
    host = uri.params.get("maddr", uri.address)
    return Hop(chosen, host.strip("[]"), uri.port or PORTS[chosen])


Seen = tuple[str, int]
"""Address and port that a server sees us at."""


class Wire(Protocol):
    """The network as the agent needs it."""

    def local(self, hop: Hop) -> tuple[str, int]:
        """Address and port that peers on this way know us by."""

    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        """In order. ``failed`` is called, never from within, when it certainly does not arrive."""

    def probe(self, heard: Callable[[Seen | None], None]) -> None:
        """See ``Flow``."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an agent is. ``address``: of record. ``contact_user``: our secret (decisions K2). ``instance``: URN of this
    device (RFC 5626), empty without. ``server``: where requests outside dialogs go. ``withheld``: who is called is not
    told the address (RFC 3323, 3325)."""

    address: Uri
    contact_user: str
    server: Hop
    display: str = ""
    instance: str = ""
    trusted: Callable[[Hop], bool] = lambda _: False
    withheld: bool = False


class Session(Protocol):
    """A call, as far as the agent knows it."""

    @property
    def tag(self) -> str:
        """Ours in its dialog."""

    def receive(self, request: Request, transaction: ServerTransaction) -> None: ...

    def acknowledged(self, request: Request) -> None: ...

    def cancelled(self, request: Request) -> None: ...


class Exchange:
    """One request of ours until its final response, with what it meets on the way: challenges, and being cancelled.

    ``on_response`` gets every response but challenges that were answered; ``on_failure`` the news that none comes.
    ``next_cseq``: numbers a request that is sent again.
    """

    def __init__(
        self, agent: Agent, request: Request, hop: Hop, *, on_response: Callable[[Response], None],
        on_failure: Callable[[Failure], None], next_cseq: Callable[[], int] | None,
    ) -> None:
        self.request = request
        self._agent = agent
        self._hop = hop
        self._way = hop
        self._on_response = on_response
        self._on_failure = on_failure
        self._next_cseq = next_cseq or (lambda: self.request.cseq.number + 1)
        self._rounds = 0
        self._heard = False
        self._over = False
        self._cancelled: str | None = None
        self.transaction = self._begin()

    def _begin(self) -> ClientTransaction:
        self._way = self._agent.way_of(self.request, self._hop)
        return self._agent.begin(self.request, self._way, self._response, self._failure)

    def start(self) -> None:
        self.transaction.start()

    def _response(self, response: Response) -> None:
        if response.status in (401, 407) and self._answer(response):
            return
        if response.status == FLOW_FAILED:
            self._agent.on_flow_failed()
        self._over = self._over or response.final
        if not response.final and not self._heard:
            self._heard = True
            if self._cancelled is not None:
                self._send_cancel(self._cancelled)
        self._on_response(response)

    def _answer(self, response: Response) -> bool:
        """Send the request again with an answer to the challenge; False where that is of no use."""
        authenticator = self._agent.authenticator
        if authenticator is None or self._cancelled is not None or self._rounds >= ROUNDS:
            return False
        again = self.request.copy()
        if not authenticator.retry(again, response):
            return False
        self._rounds += 1
        again.headers.set("CSeq", f"{self._next_cseq()} {again.method}")
        self._send_again(again)
        return True

    def _send_again(self, request: Request) -> None:
        request.headers.drop("via")
        self.request, self._heard = request, False
        self.transaction = self._begin()
        self.transaction.start()

    def _failure(self, failure: Failure) -> None:
        if failure is Failure.TRANSPORT and self._way != self._hop and self._cancelled is None:
            self._agent.refused(self._way)
            self._send_again(self.request.copy())
            return
        self._over = True
        self._on_failure(failure)

    def cancel(self, reason: str = "") -> None:
        """Of an INVITE: ask for its end (RFC 3261 9.1), as soon as somebody has been heard. ``reason``: of RFC 3326."""
        if self._over or self._cancelled is not None:
            return
        self._cancelled = reason
        if self._heard:
            self._send_cancel(reason)

    def _send_cancel(self, reason: str) -> None:
        request = self.request
        cancel = Request(method="CANCEL", target=request.target)
        cancel.headers.add("Via", request.headers.values("via")[0])
        for name in ("Max-Forwards", "From", "To", "Call-ID", "Route"):
            for value in request.headers.all(name):
                cancel.headers.add(name, value)
        cancel.headers.add("CSeq", f"{request.cseq.number} CANCEL")
        if reason:
            cancel.headers.add("Reason", reason)
        self._agent.begin(cancel, self._way, lambda _: None, lambda _: None, stamped=True).start()
        self._agent.clock.call_later(self._agent.timings.patience, self._given_up)

    def _given_up(self) -> None:
        if not self._over:
            self.transaction.failed(Failure.TIMEOUT)


class Agent:
    """See the module. ``on_invite``: an INVITE that may be taken, with its transaction, to become a Session."""

    def __init__(
        self, identity: Identity, wire: Wire, clock: Clock, *, on_invite: Callable[[Request, ServerInvite, Hop], None],
        credentials: Credentials | None = None, timings: Timings | None = None,
        trace: Callable[[str, Message, Hop], None] = lambda *_: None,
    ) -> None:
        self.identity = identity
        self.clock = clock
        self.timings = timings or Timings()
        self.authenticator = Authenticator(credentials) if credentials is not None else None
        self.route: Sequence[NameAddr] = ()  # of requests outside dialogs: Service-Route, outbound proxy
        self.public: Seen | None = None  # if that is another address than ours
        self.outbound = True  # the registrar may be told which of our flows this is (RFC 5626)
        self.keeps_flow = False  # it knows them: who calls us in a dialog comes by this one
        self.on_flow_failed: Callable[[], None] = lambda: None  # a proxy has lost it
        self.on_said: Callable[[], None] = lambda: None  # no request of ours is without an answer
        self.malformed = 0
        self.unwanted = 0  # requests of strangers
        self.flooded = 0  # requests of those who have too many under way
        self._wire = wire
        self._on_invite = on_invite
        self._trace = trace
        self._clients: dict[tuple[str, str], ClientTransaction] = {}
        self._servers: dict[tuple[str, ...], ServerTransaction] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        self._inviting: dict[ServerTransaction, Session] = {}
        self._refused: dict[Hop, float] = {}  # who took no connection, until when that counts
        self._peers: Counter[str] = Counter()  # how many of ``_servers`` are of each address
        self._secret = identity.contact_user.encode()

    # --- out --------------------------------------------------------------------------------------------------------

    def exchange(
        self, request: Request, *, on_response: Callable[[Response], None], on_failure: Callable[[Failure], None],
        next_cseq: Callable[[], int] | None = None, in_dialog: bool = False,
    ) -> Exchange:
        """Send a request and see it through. Raises Malformed where its address leads nowhere."""
        hop = self._next_hop(request, in_dialog=in_dialog)
        if not in_dialog:
            for one in self.route:
                request.headers.add("Route", str(one))
        request.headers.set("User-Agent", AGENT)
        if self.authenticator is not None:
            self.authenticator.prepare(request)
        exchange = Exchange(self, request, hop, on_response=on_response, on_failure=on_failure, next_cseq=next_cseq)
        exchange.start()
        return exchange

    def request(self, method: str, target: Uri, to: NameAddr, call_id: str, tag: str, cseq: int = 1) -> Request:
        """A request outside a dialog, from our address; only the network is told it where that is withheld."""
        me = NameAddr(self.identity.address, self.identity.display)
        hidden = self.identity.withheld and method == "INVITE"
        sender = (ANONYMOUS if hidden else me).tagged(tag)
        request = Request(method=method, target=str(target))
        for name, value in (("Max-Forwards", "70"), ("From", str(sender)), ("To", str(to)), ("Call-ID", call_id),
                            ("CSeq", f"{cseq} {method}")):
            request.headers.add(name, value)
        if hidden:
            request.headers.add("P-Preferred-Identity", str(me))
            request.headers.add("Privacy", "id")
        return request

    def begin(
        self, request: Request, hop: Hop, on_response: Callable[[Response], None],
        on_failure: Callable[[Failure], None], *, stamped: bool = False,
    ) -> ClientTransaction:
        """A client transaction, to be started. ``stamped``: the request has its Via (a CANCEL has its INVITE's)."""
        if not stamped:
            self._stamp(request, hop)
        kind: type[ClientInvite | ClientRequest] = ClientInvite if request.method == "INVITE" else ClientRequest
        made: ClientTransaction
        made = kind(request, self.clock, self.timings, reliable=hop.reliable, on_response=on_response,
                    on_failure=on_failure, send=lambda message: self._send(
                        message, hop, lambda: made.failed(Failure.TRANSPORT)))
        key = client_key(request)
        self._clients[key] = made

        def ended() -> None:
            self._clients.pop(key, None)
            self._see_what_is_said()

        made.on_end = ended
        return made

    def send_ack(self, request: Request) -> Callable[[], None]:
        """Send the ACK of a 2xx (13.2.2.4), and return what sends it again. Raises Malformed."""
        hop = self._next_hop(request, in_dialog=True)
        way = self.way_of(request, hop)
        self._stamp(request, way)

        def send() -> None:
            self._send(request, way, failed)

        def failed() -> None:
            nonlocal way
            if way != hop:
                self.refused(way)
                way = hop
                request.headers.drop_first("via")
                self._stamp(request, way)
                send()

        send()
        return send

    def way_of(self, request: Request, hop: Hop) -> Hop:
        """The hop by a connection, where a request might not fit into one packet (RFC 3261 18.1.1)."""
        if hop.reliable or len(request.serialise()) + VIA <= DATAGRAM:
            return hop
        way = replace(hop, transport="tcp")
        return way if self.clock.time() >= self._refused.get(way, 0.0) else hop

    def refused(self, way: Hop) -> None:
        """There is no connection to be had: what is too large goes there as a datagram, for now."""
        log.debug("%s:%d takes no connection: what is large goes as a datagram", way.host, way.port)
        if len(self._refused) >= REFUSED:
            self._refused.clear()
        self._refused[way] = self.clock.time() + REFUSED_S

    def contact(self, hop: Hop | None = None, *, registered: bool = False) -> NameAddr:
        """Where we are reached. ``registered``: with what tells a registrar that it is the same one again."""
        hop = hop or self.identity.server
        host, port = self.public or self._wire.local(hop)
        told = "ws" if hop.transport == "wss" else hop.transport
        params = {} if told == "udp" else {"transport": told}
        if self.keeps_flow and not registered:
            params["ob"] = ""
        uri = Uri("sip", self.identity.contact_user, f"[{host}]" if ":" in host else host, port, params)
        instance = self.identity.instance if registered else ""
        flow = {"reg-id": "1"} if self.outbound else {}
        return NameAddr(uri, "", {"+sip.instance": f"<{instance}>", **flow} if instance else {})

    def probe(self, heard: Callable[[Seen | None], None]) -> None:
        self._wire.probe(heard)

    def _next_hop(self, request: Request, *, in_dialog: bool) -> Hop:
        routes = request.addresses("route") if in_dialog else list(self.route)
        server = self.identity.server
        if routes and not request.strict:
            return hop_of(routes[0].uri, server.transport)
        return hop_of(request.uri, server.transport) if in_dialog else server

    def _stamp(self, request: Request, hop: Hop) -> None:
        host, port = self._wire.local(hop)
        branch = COOKIE + secrets.token_hex(12)
        params = {"rport": "", "branch": branch} if hop.transport == "udp" else {"branch": branch}
        if request.method == "REGISTER":
            params["keep"] = ""  # we would keep the flow alive (RFC 6223)
        via = Via(hop.transport.upper(), f"[{host}]" if ":" in host else host, port, params)
        request.headers.prepend("Via", str(via))

    def _send(self, message: Message, hop: Hop, failed: Callable[[], None]) -> None:
        self._trace("out", message, hop)
        self._wire.send(message.serialise(), hop, failed)

    # --- in ---------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, hop: Hop) -> None:
        """Whatever arrived from there."""
        words = data.lstrip(b"\r\n\0 ")
        if not words:  # a keep-alive
            return
        # what is neither a response nor names our contact is a stranger's: it costs next to nothing
        if not words.startswith(b"SIP/") and self._secret not in words and not self.identity.trusted(hop):
            self.unwanted += 1
            return
        try:
            message = parse(data)
            if isinstance(message, Response):
                self._response(message, hop)
            else:
                self._request(message, hop)
        except Malformed as error:
            self.malformed += 1
            log.debug("a message is left out: %s", error)

    def _response(self, response: Response, hop: Hop) -> None:
        transaction = self._clients.get(client_key(response))
        if transaction is not None:
            self._trace("in", response, hop)
            transaction.receive(response)
            self._see_what_is_said()

    def _request(self, request: Request, hop: Hop) -> None:
        via = _came_from(request, hop)
        key = server_key(request)
        transaction = self._servers.get(key)
        if transaction is not None:
            transaction.receive(request)
            return
        session = self._sessions.get((request.call_id, request.to.tag)) if request.to.tag else None
        if request.method == "ACK":
            if session is not None:
                self._trace("in", request, hop)
                session.acknowledged(request)
            return
        if session is None and not self._admitted(request, hop):
            self.unwanted += 1
            return
        if len(self._servers) >= TRANSACTIONS or self._peers[hop.host] >= FROM_ONE:
            self.flooded += 1
            return
        self._trace("in", request, hop)
        transaction = self._serve(request, hop, via, key)
        try:
            if request.method == "CANCEL":
                self._cancel(request, transaction)
            elif session is not None:
                session.receive(request, transaction)
            else:
                self._outside(request, transaction, hop)
        except Malformed:
            self.respond(transaction, 400)  # a transaction without a final response has no end
            raise

    def _admitted(self, request: Request, hop: Hop) -> bool:
        return request.uri.user == self.identity.contact_user or self.identity.trusted(hop)

    def _serve(self, request: Request, hop: Hop, via: Via, key: tuple[str, ...]) -> ServerTransaction:
        back = hop if hop.reliable or "rport" in via.params else Hop("udp", hop.host, via.port or PORTS["udp"])
        kind: type[ServerInvite | ServerRequest] = ServerInvite if request.method == "INVITE" else ServerRequest
        made = kind(request, self.clock, self.timings, reliable=hop.reliable,
                    send=lambda message: self._send(message, back, lambda: None))
        self._servers[key] = made
        self._peers[hop.host] += 1

        def ended() -> None:
            self._inviting.pop(made, None)
            if self._servers.pop(key, None) is not None:
                self._peers[hop.host] -= 1
                if not self._peers[hop.host]:
                    del self._peers[hop.host]

        made.on_end = ended
        return made

    def _cancel(self, request: Request, transaction: ServerTransaction) -> None:
        via = request.via
        invite = self._servers.get((via.branch, via.sent_by, "INVITE"))
        session = self._inviting.get(invite) if invite is not None else None
        tag = session.tag if session is not None else ""  # that of the INVITE's response (9.2)
        self.respond(transaction, 200 if invite is not None else 481, tag=tag)
        if session is not None:
            session.cancelled(request)

    def _outside(self, request: Request, transaction: ServerTransaction, hop: Hop) -> None:
        """A request that belongs to no dialog of ours (8.2)."""
        required = request.headers.tokens("require") - SUPPORTED
        if request.to.tag:
            self.respond(transaction, 481)
        elif self._merged(request, transaction):
            self.respond(transaction, 482)
        elif request.method not in ALLOWED:
            self.respond(transaction, 405, ("Allow", ", ".join(ALLOWED)))
        elif request.uri.scheme not in ("sip", "sips", "tel"):
            self.respond(transaction, 416)
        elif required:
            self.respond(transaction, 420, ("Unsupported", ", ".join(sorted(required))))
        elif request.method == "OPTIONS":
            self.respond(transaction, 200, ("Allow", ", ".join(ALLOWED)), ("Accept", SDP),
                         ("Supported", ", ".join(sorted(SUPPORTED))))
        elif request.method == "INVITE" and description_of(request) is None:
            self.respond(transaction, 415, ("Accept", SDP), ("Accept-Encoding", "identity"))
        elif request.method == "REFER":  # only who talks with us may send us on
            self.respond(transaction, 403)
        elif isinstance(transaction, ServerInvite):
            self._on_invite(request, transaction, hop)
        else:
            self.respond(transaction, 481)

    def _merged(self, request: Request, transaction: ServerTransaction) -> bool:
        """The same request came another way already (8.2.2.2)."""
        same = request.sender.tag, request.call_id, request.cseq
        return any(other is not transaction and (other.request.sender.tag, other.request.call_id, other.request.cseq)
                   == same for other in self._servers.values())

    def respond(self, transaction: ServerTransaction, status: int, *fields: tuple[str, str], tag: str = "") -> None:
        """A response without more than these header fields."""
        named = "" if status == 100 else tag or secrets.token_hex(8)  # 100 comes from nobody in particular
        response = transaction.request.response(status, phrase_of(status), tag=named)
        for name, value in fields:
            response.headers.add(name, value)
        transaction.respond(response)

    # --- calls ------------------------------------------------------------------------------------------------------

    def adopt(self, session: Session, call_id: str, tag: str, invite: ServerTransaction | None = None) -> None:
        """Requests with this Call-ID and our tag in To are the session's, and the CANCEL of its INVITE."""
        self._sessions[call_id, tag] = session
        if invite is not None:
            self._inviting[invite] = session

    def forget(self, call_id: str, tag: str) -> None:
        self._sessions.pop((call_id, tag), None)

    @property
    def busy(self) -> int:
        """Transactions and sessions that are not over."""
        return len(self._clients) + len(self._servers) + len(self._sessions)

    @property
    def saying(self) -> int:
        """Requests of ours that are not answered yet."""
        return sum(one.waiting for one in self._clients.values())

    def _see_what_is_said(self) -> None:
        if not self.saying:
            self.on_said()

    def close(self) -> None:
        """End every transaction without another word."""
        for transaction in (*self._clients.values(), *self._servers.values()):
            transaction.end()
        self._sessions.clear()


def _came_from(request: Request, hop: Hop) -> Via:
    """Note in the topmost Via where the request really came from (18.2.1, RFC 3581)."""
    via = request.via
    changed = dict(via.params)
    if "rport" in changed:
        changed["rport"] = str(hop.port)
    if via.host.strip("[]").lower() != hop.host.lower() or "rport" in changed:
        changed["received"] = hop.host
    noted = Via(via.transport, via.host, via.port, changed)
    request.headers.drop_first("via")
    request.headers.prepend("Via", str(noted))
    return noted


def reason_header(status: int, text: str) -> str:
    """RFC 3326, for a CANCEL or BYE."""
    return f"SIP;cause={status};text={quoted(text)}"
