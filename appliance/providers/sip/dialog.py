"""The state two ends share from the first response with a tag on (RFC 3261 12): who, where to, by which route, in which
order."""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.message import Headers, Message, Request, Response
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["Dialog"]


@dataclass(slots=True)
class Dialog:
    """``local`` and ``remote`` with their tags; ``target``: the peer's Contact; ``route``: proxies that want to stay on
    the way, nearest first."""

    call_id: str
    local: NameAddr
    remote: NameAddr
    target: Uri
    route: list[NameAddr] = field(default_factory=list)
    local_cseq: int = 0
    remote_cseq: int | None = None

    @classmethod
    def of_response(cls, request: Request, response: Response) -> Dialog:
        """Our INVITE was answered with this (12.1.2). Raises Malformed."""
        route = list(reversed(response.addresses("record-route")))
        return cls(response.call_id, request.sender, response.to, _target(response) or request.uri, route,
                   request.cseq.number)

    @classmethod
    def of_request(cls, request: Request, tag: str) -> Dialog:
        """An INVITE of theirs, which we answer with this tag (12.1.1). Raises Malformed."""
        target = _target(request)
        if target is None:
            raise Malformed("an INVITE has no Contact")
        return cls(request.call_id, request.to.tagged(tag), request.sender, target, request.addresses("record-route"),
                   0, request.cseq.number)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.call_id, self.local.tag, self.remote.tag

    def next_cseq(self) -> int:
        self.local_cseq += 1
        return self.local_cseq

    def request(self, method: str, cseq: int | None = None) -> Request:
        """A request within the dialog (12.2.1.1), without Via. ``cseq``: of an ACK, that of its INVITE."""
        route, target, strict = self.route, str(self.target), False
        if route and "lr" not in route[0].uri.params:  # a strict router of before RFC 3261: its address is the target
            target, route, strict = str(route[0].uri), [*route[1:], NameAddr(self.target)], True
        headers = Headers([("Max-Forwards", "70"), ("From", str(self.local)), ("To", str(self.remote)),
                           ("Call-ID", self.call_id), ("CSeq", f"{cseq or self.next_cseq()} {method}")])
        for one in route:
            headers.add("Route", str(one))
        return Request(headers, b"", method, target, strict)

    def in_order(self, request: Request) -> bool:
        """Whether a request of the peer comes after those that were taken; then it is (12.2.2)."""
        number = request.cseq.number
        if self.remote_cseq is not None and number <= self.remote_cseq:
            return False
        self.remote_cseq = number
        return True

    def refresh(self, message: Message) -> None:
        """INVITE and UPDATE and their 2xx may move the peer. Raises Malformed."""
        self.target = _target(message) or self.target

    def confirm(self, response: Response) -> None:
        """The route as the 2xx tells it; an early one may have been another (13.2.2.4). Raises Malformed."""
        self.route = list(reversed(response.addresses("record-route")))
        self.refresh(response)


def _target(message: Message) -> Uri | None:
    contacts = message.headers.values("contact")
    if not contacts or contacts[0] == "*":
        return None
    uri = NameAddr.parse(contacts[0]).uri
    if uri.scheme not in ("sip", "sips"):
        raise Malformed("a Contact is no sip: address")
    return uri
