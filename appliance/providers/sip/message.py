"""SIP messages: a parser that takes what the world sends, a serialiser that is strict, and the framing of streams.

``parse`` gives a message whose mandatory header fields are there and can be read, or raises ``Malformed`` and nothing
else: whatever arrives is one message, and never the end of the one who reads it. Unknown header fields are kept in
their order and under their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from appliance.providers.sip.grammar import HOST, TOKEN, Malformed, params_of, params_text, split
from appliance.providers.sip.uri import NameAddr, Uri

__all__ = ["MAX_MESSAGE", "PING", "PONG", "CSeq", "Framer", "Headers", "Message", "Request", "Response", "Via", "parse"]

MAX_MESSAGE: Final = 65_535  # bytes: what a datagram can carry, and more than any message needs
MAX_HEAD: Final = 32 * 1024  # bytes before the body
MAX_FIELDS: Final = 256
MAX_VIAS: Final = 70  # as many as Max-Forwards lets there be
PING: Final = b"\r\n\r\n"  # keep-alive on streams, answered by half of it (RFC 5626 3.5.1)
PONG: Final = b"\r\n"

_COMPACT: Final = {
    "a": "accept-contact", "b": "referred-by", "c": "content-type", "d": "request-disposition",
    "e": "content-encoding", "f": "from", "i": "call-id", "j": "reject-contact", "k": "supported",
    "l": "content-length", "m": "contact", "o": "event", "r": "refer-to", "s": "subject", "t": "to",
    "u": "allow-events", "v": "via", "x": "session-expires", "y": "identity",
}
_ONCE: Final = ("from", "to", "call-id", "cseq", "max-forwards", "content-length")
_REQUEST: Final = re.compile(rf"({TOKEN}) (\S{{1,8192}}) SIP/2\.0", re.IGNORECASE)
_RESPONSE: Final = re.compile(r"SIP/2\.0 ([1-6]\d\d)(?: (.*))?", re.IGNORECASE)
_FIELD_NAME: Final = re.compile(TOKEN)
_VIA: Final = re.compile(
    rf"SIP\s*/\s*2\.0\s*/\s*({TOKEN})\s+({HOST})\s*(?::\s*(\d{{1,5}}))?\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_CSEQ: Final = re.compile(rf"(\d{{1,10}})\s+({TOKEN})")
_NUMBER: Final = re.compile(r"(\d{1,10})\s*(?:[;(].*)?", re.ASCII | re.DOTALL)  # with parameters or a comment
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_LENGTH: Final = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*(\d{1,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Via:
    """One hop a request took; the topmost is where its response goes."""

    transport: str  # in upper case
    host: str
    port: int | None = None
    params: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Via:
        """Raises Malformed."""
        match = _VIA.fullmatch(text.strip())
        if match is None:
            raise Malformed("a Via is not of the form SIP/2.0/transport host;parameters")
        transport, host, port, params = match.groups()
        if port is not None and not 1 <= int(port) <= 65535:
            raise Malformed("the port of a Via is not 1 to 65535")
        return cls(transport.upper(), host, int(port) if port else None, params_of(params or ""))

    @property
    def branch(self) -> str:
        return self.params.get("branch", "")

    @property
    def sent_by(self) -> str:
        """Host and port, in lower case."""
        return f"{self.host.lower()}:{self.port or ''}"

    def __str__(self) -> str:
        port = f":{self.port}" if self.port is not None else ""
        return f"SIP/2.0/{self.transport} {self.host}{port}{params_text(self.params)}"


@dataclass(frozen=True, slots=True)
class CSeq:
    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> CSeq:
        """Raises Malformed."""
        match = _CSEQ.fullmatch(text.strip())
        if match is None or int(match[1]) >= 1 << 31:
            raise Malformed("a CSeq is not a number below 2^31 and a method")
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


class Headers:
    """Header fields in order. Names are found in any case and in their compact form."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Iterable[tuple[str, str]] = ()) -> None:
        self._rows: list[tuple[str, str, str]] = []  # (name to find it by, name as written, value)
        for name, value in rows:
            self.add(name, value)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name, value) for _, name, value in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        key = name.lower()
        return any(row[0] == key for row in self._rows)

    def get(self, name: str, default: str = "") -> str:
        """The first field of this name."""
        key = name.lower()
        return next((row[2] for row in self._rows if row[0] == key), default)

    def all(self, name: str) -> list[str]:
        """Every field of this name, each as it stands."""
        key = name.lower()
        return [row[2] for row in self._rows if row[0] == key]

    def values(self, name: str) -> list[str]:
        """The values of a field that is a list, over several lines or with commas. Raises Malformed."""
        return [part for row in self.all(name) for part in split(row) if part]

    def tokens(self, name: str) -> frozenset[str]:
        """``values`` in lower case and without parameters: option tags, methods."""
        return frozenset(value.partition(";")[0].strip().lower() for value in self.values(name))

    def add(self, name: str, value: str) -> None:
        self._rows.append(self._row(name, value))

    def prepend(self, name: str, value: str) -> None:
        self._rows.insert(0, self._row(name, value))

    def set(self, name: str, value: str) -> None:
        """In the place of all fields of this name."""
        self.drop(name)
        self.add(name, value)

    def drop(self, name: str) -> None:
        key = name.lower()
        self._rows = [row for row in self._rows if row[0] != key]

    def drop_first(self, name: str) -> None:
        """Take one value of a list away: the first."""
        key, rest = name.lower(), self.values(name)[1:]
        at = next((n for n, row in enumerate(self._rows) if row[0] == key), 0)
        self.drop(name)
        self._rows[at:at] = [self._row(name, value) for value in rest]

    def copy(self) -> Headers:
        other = Headers()
        other._rows = list(self._rows)
        return other

    @staticmethod
    def _row(name: str, value: str) -> tuple[str, str, str]:
        if "\r" in value or "\n" in value:  # would begin a field of somebody else's choosing
            raise ValueError(f"the header field {name} must be one line")
        lower = name.lower()
        return _COMPACT.get(lower, lower), name, value


@dataclass(slots=True)
class Message:
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    @property
    def first_line(self) -> str:
        raise NotImplementedError

    @property
    def via(self) -> Via:
        return Via.parse(next(iter(self.headers.values("via")), ""))

    @property
    def sender(self) -> NameAddr:
        """From."""
        return NameAddr.parse(self.headers.get("from"))

    @property
    def to(self) -> NameAddr:
        return NameAddr.parse(self.headers.get("to"))

    @property
    def call_id(self) -> str:
        return self.headers.get("call-id")

    @property
    def cseq(self) -> CSeq:
        return CSeq.parse(self.headers.get("cseq"))

    def addresses(self, name: str) -> list[NameAddr]:
        """The addresses of a header field that lists them: Contact, Record-Route, Route. Raises Malformed."""
        return [NameAddr.parse(value) for value in self.headers.values(name)]

    @property
    def content_type(self) -> str:
        """In lower case, without parameters."""
        return self.headers.get("content-type").partition(";")[0].strip().lower()

    def number(self, name: str) -> int | None:
        """A header field that is a number of seconds or a count; None where it is not there or is none."""
        match = _NUMBER.fullmatch(self.headers.get(name).strip())
        return int(match[1]) if match else None

    def serialise(self) -> bytes:
        """As it goes over the network, with the Content-Length it has."""
        lines = [self.first_line]
        lines += [f"{name}: {value}" for key, name, value in self.headers._rows if key != "content-length"]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + self.body


@dataclass(slots=True)
class Request(Message):
    method: str = ""
    target: str = ""
    """The Request-URI as written."""
    strict: bool = False
    """Of ours: the Request-URI is that of a router of before RFC 3261, which gets it, whatever Route says."""

    @property
    def first_line(self) -> str:
        return f"{self.method} {self.target} SIP/2.0"

    @property
    def uri(self) -> Uri:
        return Uri.parse(self.target)

    def copy(self) -> Request:
        return Request(self.headers.copy(), self.body, self.method, self.target, self.strict)

    def response(self, status: int, phrase: str, *, tag: str = "") -> Response:
        """A response to it, to be completed (RFC 3261 8.2.6). ``tag``: ours, where the request has none in To."""
        headers = Headers()
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            for value in self.headers.all(name):
                headers.add(name, value)
        if tag and not self.to.tag:
            headers.set("To", str(self.to.tagged(tag)))
        if status != 100:  # a proxy's route stands in what begins a dialog
            for value in self.headers.all("record-route"):
                headers.add("Record-Route", value)
        return Response(headers, b"", status, phrase)


@dataclass(slots=True)
class Response(Message):
    status: int = 0
    phrase: str = ""

    @property
    def first_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.phrase}"

    @property
    def final(self) -> bool:
        return self.status >= 200


def parse(data: bytes) -> Request | Response:
    """One whole message: a datagram, or what ``Framer`` cut out of a stream. Raises Malformed."""
    if len(data) > MAX_MESSAGE:
        raise Malformed(f"a message is larger than {MAX_MESSAGE} bytes")
    data = data.lstrip(b"\r\n")
    end = _HEAD_END.search(data)
    head = data[: end.start()] if end else data.rstrip(b"\r\n")
    if len(head) > MAX_HEAD:
        raise Malformed(f"the header of a message is larger than {MAX_HEAD} bytes")
    first, *lines = head.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")
    headers = _headers(lines)
    body = _body(headers, data[end.end() :] if end else b"")
    message: Request | Response
    if match := _RESPONSE.fullmatch(first):
        message = Response(headers, body, int(match[1]), match[2] or "")
    elif match := _REQUEST.fullmatch(first):
        message = Request(headers, body, match[1], match[2])
    else:
        raise Malformed("the first line is neither a request nor a status of SIP/2.0")
    _check(message)
    return message


def _headers(lines: Iterable[str]) -> Headers:
    rows: list[list[str]] = []
    for line in lines:
        if "\r" in line:
            raise Malformed("a header field has a lone carriage return")
        if line[:1] in (" ", "\t"):
            if not rows:
                raise Malformed("the first header field is a continuation")
            rows[-1][1] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.rstrip()
        if not colon or _FIELD_NAME.fullmatch(name) is None:
            raise Malformed("a header field has no name, or no colon behind it")
        rows.append([name, value.strip()])
    if len(rows) > MAX_FIELDS:
        raise Malformed(f"a message has more than {MAX_FIELDS} header fields")
    return Headers((name, value.strip()) for name, value in rows)


def _body(headers: Headers, rest: bytes) -> bytes:
    """What Content-Length says; of a datagram without it all that is left (RFC 3261 18.3)."""
    text = headers.get("content-length")
    if "content-length" not in headers:
        return rest
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Malformed("Content-Length is no number")
    if int(text) > len(rest):
        raise Malformed("the body is shorter than Content-Length says")
    return rest[: int(text)]


def _check(message: Request | Response) -> None:
    """The mandatory header fields, once each and readable (RFC 3261 8.1.1), so that who uses them need not ask."""
    headers = message.headers
    counts: dict[str, int] = {}
    for key, _, _ in headers._rows:
        counts[key] = counts.get(key, 0) + 1
    for name in _ONCE:
        if counts.get(name, 0) > 1:
            raise Malformed(f"{name} stands there twice")
    if not message.call_id:
        raise Malformed("there is no Call-ID")
    if len(headers.values("via")) > MAX_VIAS:
        raise Malformed("the message has gone through too many hops")
    _ = message.via, message.sender, message.to
    cseq = message.cseq
    if isinstance(message, Request) and cseq.method != message.method:
        raise Malformed("the method of CSeq is not that of the request")
    if "max-forwards" in headers and message.number("max-forwards") is None:
        raise Malformed("Max-Forwards is no number")


class Framer:
    """Cuts a stream into messages by Content-Length (RFC 3261 18.3)."""

    def __init__(self) -> None:
        self._half = False  # a PONG has been told that may become a PING
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Whole messages, in order; ``PING`` for a keep-alive that wants an answer, ``PONG`` for that. Raises Malformed
        where the stream cannot be cut any further: then the connection is of no use any more."""
        self._buffer += data
        found = []
        while (one := self._next()) is not None:
            found.append(one)
        return found

    def _next(self) -> bytes | None:
        buffer = self._buffer
        while buffer.startswith((b"\r", b"\n")):
            half, self._half = self._half, False
            if buffer.startswith(PING):
                del buffer[: len(PING)]
                return PING
            if PING.startswith(buffer):  # a pong, or what may become a ping
                self._half = buffer.startswith(PONG)
                return PONG if self._half and not half else None
            pong = buffer.startswith(PONG)
            del buffer[: len(PONG) if pong else 1]
            if pong and not half:
                return PONG
        end = _HEAD_END.search(buffer, 0, MAX_HEAD + 4)
        if end is None:
            if len(buffer) > MAX_HEAD:
                raise Malformed(f"the header of a message is larger than {MAX_HEAD} bytes")
            return None
        length = _LENGTH.search(buffer, 0, end.start())
        if length is None:
            raise Malformed("a message on a stream has no Content-Length")
        whole = end.end() + int(length[1])
        if whole > MAX_MESSAGE:
            raise Malformed(f"a message is larger than {MAX_MESSAGE} bytes")
        if len(buffer) < whole:
            return None
        message = bytes(buffer[:whole])
        del buffer[:whole]
        return message
