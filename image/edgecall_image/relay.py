"""Ranges of a bundle from its server to RAUC, at a rate that can be changed while they flow.

RAUC has no rate limit and gives up after five failures in a row; so it reads from here, over loopback. What we add: a
token bucket for all connections together, patience with a bad line (a range goes on where it broke off), redirections
only to where updates may come from, the server's certificate against the operator's own authority, and the true cause
of a failure, which RAUC's words hide.

A process of its own without privileges, since it reads what strangers send. One JSON line on stdin is the task
(``{"url", "origins", "ca", "rate"}``), further ones ``{"rate": bytes per second or null}`` or ``{"stop": true}``; its
end ends us. On stdout: ``{"url"}`` to read from, ``{"bytes"}`` fetched so far, at most once a second, and ``{"failed":
code, "message", "again"}`` once, where ``again`` says that it may go better another time.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import socket
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from edgecall_image.origins import Origins, OriginsError

__all__ = ["Bundle", "Failed", "Pace", "Part", "Proxy", "main", "serve"]

SILENCE_S: Final = 30.0
"""A server that sends nothing for this long is asked anew."""
FIRST_PATIENCE_S: Final = 15.0
"""For the first bytes: whoever asked wants to know soon that nothing is there."""
PATIENCE_S: Final = 240.0
"""Without one byte, later: the kernel ends a block device that does not answer within 300 s (RAUC's nbd.c)."""
PAUSES_S: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)
"""At once at first: a server ends a connection that was kept whenever it likes."""
CHUNK: Final = 16_384
TOGETHER: Final = 8
"""Connections to the server at once: with HTTP/1.1 each has one range under way. One while the rate is limited."""
LIMITED_BUFFER: Final = 32_768
"""Receive buffer of a limited connection: what the kernel takes from the line without asking us."""
REDIRECTIONS: Final = 5
MINIMUM_RATE: Final = 1024

_RANGE: Final = re.compile(r"bytes=(\d{1,15})-(\d{1,15})")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})


class Failed(Exception):
    """It makes no sense to go on. ``code`` as the update's result tells it; ``again``: later it may."""

    def __init__(self, code: str, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.again = again


class _Passing(Exception):
    """Worth another try."""


class Pace:
    """A token bucket by debt: whoever has taken bytes waits until they are due. Any thread."""

    def __init__(self, rate: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due = clock()
        self._rate = rate

    @property
    def rate(self) -> int | None:
        """Bytes per second; None: as fast as it goes."""
        return self._rate

    def set(self, rate: int | None) -> None:
        with self._changed:
            self._rate = rate
            self._due = self._clock()
            self._changed.notify_all()

    def owed_s(self, count: int) -> float:
        """``count`` bytes were taken: seconds until they are due."""
        with self._changed:
            now = self._clock()
            if self._rate is None:
                return 0.0
            self._due = max(self._due, now) + count / self._rate
            return self._due - now

    def take(self, count: int) -> None:
        """Waits until ``count`` bytes are due, or the rate changes."""
        seconds = self.owed_s(count)
        if seconds > 0:
            with self._changed:
                self._changed.wait(seconds)


@dataclass(frozen=True, slots=True)
class Part:
    """A range as the server gives it: ``last`` may be less than asked for, at the end of the file."""

    first: int
    last: int
    total: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Proxy:
    """Tunnels by CONNECT (RFC 9110, 9.3.6); ``headers`` may hold a password."""

    host: str
    port: int
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self | None:
        """By ``https_proxy``; None where there is none, or it is no address."""
        try:
            split = urlsplit(environ.get("https_proxy", ""))
            port = split.port or 8080
        except ValueError:
            return None
        if split.scheme != "http" or not split.hostname:
            return None
        login = f"{unquote(split.username or '')}:{unquote(split.password or '')}".encode()
        headers = {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"} if split.username else {}
        return cls(split.hostname, port, headers)


@dataclass
class Bundle:
    """The file at its server, from any thread."""

    url: str
    origins: Origins
    pace: Pace
    trust: ssl.SSLContext | None = None
    proxy: Proxy | None = None
    counted: Callable[[int], None] = lambda _count: None
    clock: Callable[[], float] = time.monotonic
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.target = self.url
        self.failure: Failed | None = None
        self._identity: tuple[int, str | None] | None = None
        self._idle: list[tuple[str, http.client.HTTPConnection]] = []
        self._free = threading.Condition()
        self._open = 0

    def read(self, first: int, last: int) -> Iterator[Part | bytes]:
        """The part, then its bytes. Raises Failed; from then on at once."""
        if self.failure is not None:
            raise self.failure
        try:
            yield from self._patiently(first, last)
        except Failed as failure:
            self.failure = self.failure or failure
            raise

    def _patiently(self, first: int, last: int) -> Iterator[Part | bytes]:
        at, told, tries = first, False, 0
        deadline = self.clock() + (FIRST_PATIENCE_S if self._identity is None else PATIENCE_S)
        while True:
            try:
                for one in self._once(at, last):
                    if isinstance(one, bytes):
                        at += len(one)
                        deadline, tries = self.clock() + PATIENCE_S, 0
                        yield one
                    else:
                        last = min(last, one.last)
                        if not told:
                            told = True
                            yield one
                if at > last:
                    return
            except _Passing as trouble:
                pause = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
                if self.clock() + pause > deadline:
                    raise Failed("network", str(trouble), again=True) from trouble
                tries += 1
                if self.stopped.wait(pause):
                    raise Failed("network", "the update was given up") from trouble

    def _once(self, first: int, last: int) -> Iterator[Part | bytes]:
        """As far as one connection carries. Raises _Passing and Failed."""
        for _ in range(REDIRECTIONS + 1):
            target = urlsplit(self.target)
            server = f"{target.scheme}://{target.netloc}"
            connection = self._borrow(target, server)
            whole = False
            try:
                response = self._ask(connection, target, first, last)
                part = self._part(response, first)
                if part is None:
                    continue
                yield part
                yield from self._body(response, part.last - first + 1)
                whole = response.length == 0 and not response.will_close
                if whole:
                    response.close()
                return
            except ssl.SSLCertVerificationError as error:
                raise _Passing(f"the certificate of {server} is not trusted ({error.verify_message}): check "
                               "update.ca_file, and whether the clock is right") from error
            except (OSError, http.client.HTTPException) as error:
                raise _Passing(f"{server} cannot be read: {str(error) or type(error).__name__}") from error
            finally:
                self._give_back(server, connection, whole=whole)
        raise _Passing("the server keeps sending us elsewhere")

    def _body(self, response: http.client.HTTPResponse, left: int) -> Iterator[bytes]:
        while left:
            if self.failure is not None:
                raise self.failure
            chunk = response.read1(min(left, CHUNK))
            if not chunk:
                raise _Passing("the server ended in the middle of a range")
            left -= len(chunk)
            self.counted(len(chunk))
            yield chunk
            self.pace.take(len(chunk))

    def _ask(self, connection: http.client.HTTPConnection, target: SplitResult, first: int,
             last: int) -> http.client.HTTPResponse:
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        connection.request("GET", path, headers={
            "Range": f"bytes={first}-{last}", "Accept-Encoding": "identity", "User-Agent": "edgecall-update"})
        if connection.sock is not None and self.pace.rate is not None:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LIMITED_BUFFER)
        return connection.getresponse()

    def _part(self, response: http.client.HTTPResponse, first: int) -> Part | None:
        """None: it is at another address, which ``target`` names now. Raises _Passing and Failed."""
        status = response.status
        if status in _MOVED:
            self._follow(response.headers.get("Location", ""))
            return None
        if status in _PASSING:
            raise _Passing(f"the server answers {status} {response.reason}")
        if status == 200:
            raise Failed("noRange", "the server gives no byte ranges (RFC 9110, 14): it cannot be streamed from there")
        if status != 206 and self.target != self.url:
            self.target = self.url  # an address that we were sent to may be good for a while only
            return None
        if status != 206:
            raise Failed("network", f"the server answers {status} {response.reason}")
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != first or int(match[2]) < first:
            raise Failed("noRange", "the server gives other byte ranges than it is asked for")
        etag = response.headers.get("ETag", "")
        identity = (int(match[3]), etag if etag.startswith('"') else None)
        self._identity = self._identity or identity
        if identity != self._identity:
            raise Failed("failed", "the bundle was replaced at its server while it was fetched; install it again")
        return Part(first, int(match[2]), int(match[3]), {
            name: response.headers[name] for name in ("ETag", "Date", "Last-Modified") if name in response.headers})

    def _follow(self, location: str) -> None:
        try:
            target = urljoin(self.target, location)
            self.origins.check(target)
        except (ValueError, OriginsError) as error:
            raise Failed("notAllowed", f"the server sends us elsewhere: {error}") from None
        self.target = target

    def stop(self) -> None:
        """The update is given up: from now on there is no bundle."""
        self.failure = self.failure or Failed("cancelled", "the update was given up")
        self.close()

    # --- connections

    def _borrow(self, target: SplitResult, server: str) -> http.client.HTTPConnection:
        with self._free:
            self._free.wait_for(lambda: self._open < (TOGETHER if self.pace.rate is None else 1))
            self._open += 1
            while self._idle:
                other, connection = self._idle.pop()
                if other == server:
                    return connection
                connection.close()
        host, port = target.hostname or "", _port(target)
        if target.scheme == "http":  # this machine alone
            return http.client.HTTPConnection(host, port, timeout=SILENCE_S)
        if self.proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=SILENCE_S, context=self.trust)
        tunnel = http.client.HTTPSConnection(
            self.proxy.host, self.proxy.port, timeout=SILENCE_S, context=self.trust)
        tunnel.set_tunnel(host, port, self.proxy.headers)
        return tunnel

    def _give_back(self, server: str, connection: http.client.HTTPConnection, *, whole: bool) -> None:
        with self._free:
            self._open -= 1
            if whole and not self.stopped.is_set():
                self._idle.append((server, connection))
            else:
                connection.close()
            self._free.notify_all()

    def rate_changed(self) -> None:
        """Waiting ones look again; connections whose buffer is of another rate go."""
        with self._free:
            for _, connection in self._idle:
                connection.close()
            self._idle.clear()
            self._free.notify_all()

    def close(self) -> None:
        """Idle connections go; what is read ends with its next byte or pause."""
        self.stopped.set()
        self.pace.set(None)
        self.rate_changed()


def _port(target: SplitResult) -> int:
    return target.port or (443 if target.scheme == "https" else 80)


class _Door(ThreadingHTTPServer):
    """Loopback only. ``secret``: the path, so that no other user of this machine reads through us."""

    daemon_threads = True

    def __init__(self, bundle: Bundle, failed: Callable[[Failed], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.bundle = bundle
        self.failed = failed
        self.secret = f"/{secrets.token_urlsafe(16)}/bundle.raucb"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.secret}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """RAUC has gone away: nothing to tell."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the end of each range waits until RAUC acknowledges its head: 40 ms
    timeout = PATIENCE_S + SILENCE_S
    server: _Door

    def do_GET(self) -> None:
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not secrets.compare_digest(self.path, self.server.secret) or match is None or int(match[1]) > int(match[2]):
            self._refuse()
            return
        begun = False
        try:
            for one in self.server.bundle.read(int(match[1]), int(match[2])):
                if isinstance(one, Part):
                    begun = True
                    self._begin(one)
                else:
                    self.wfile.write(one)
        except Failed as failure:
            self.server.failed(failure)
            self.close_connection = True
            if not begun:
                self._refuse()

    def _begin(self, part: Part) -> None:
        self.send_response_only(206)
        for name, value in part.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Range", f"bytes {part.first}-{part.last}/{part.total}")
        self.send_header("Content-Length", str(part.last - part.first + 1))
        self.end_headers()

    def _refuse(self) -> None:
        """404: RAUC tries no second time."""
        self.send_response_only(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each of some thousand ranges would wear the card."""


class _Report:
    """Lines on stdout, from any thread."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = 0
        self._told_at = clock()
        self._failed = False

    def tell(self, **document: object) -> None:
        self._write(json.dumps(document) + "\n")

    def counted(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            if self._clock() - self._told_at >= 1.0:
                self._told_at = self._clock()
                self.tell(bytes=self._bytes)

    def failed(self, failure: Failed) -> None:
        with self._lock:
            if not self._failed:
                self._failed = True
                self.tell(failed=failure.code, message=failure.message, again=failure.again)


@dataclass(frozen=True, slots=True)
class _Task:
    url: str
    origins: Origins
    ca: str | None
    rate: int | None

    @classmethod
    def read(cls, line: str) -> Self:
        """From our parent, which has checked all of it."""
        task = json.loads(line)
        return cls(task["url"], Origins(tuple(task["origins"])), task["ca"], task["rate"])


def serve(lines: Iterator[str], write: Callable[[str], None]) -> int:
    """The whole life of the process; ``lines`` as they come from stdin."""
    task = _Task.read(next(lines))
    report = _Report(write)
    pace = Pace(task.rate)
    trust = None
    if task.url.startswith("https:"):
        try:
            trust = ssl.create_default_context(cadata=task.ca)
        except (ssl.SSLError, ValueError) as error:
            report.failed(Failed("failed", f"update.ca_file holds no certificates: {error}"))
            return 1
    bundle = Bundle(task.url, task.origins, pace, trust, Proxy.of(os.environ), report.counted)
    with _Door(bundle, report.failed) as door:
        thread = threading.Thread(target=door.serve_forever, name="relay.door", kwargs={"poll_interval": 0.2})
        thread.start()
        report.tell(url=door.address)
        for line in lines:
            told = json.loads(line)
            if "stop" in told:
                bundle.stop()
            else:
                pace.set(told["rate"])
                bundle.rate_changed()
        bundle.close()
        door.shutdown()
        thread.join()
    return 0


def main(argv: Sequence[str]) -> int:
    """``run relay``: no arguments."""
    if argv:
        print("relay takes no arguments: it is started by the update service", file=sys.stderr)
        return 2

    def write(line: str) -> None:
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:  # our parent is gone: stdin tells it too
            os._exit(1)

    status = serve(iter(sys.stdin.readline, ""), write)
    os._exit(status)  # connections of RAUC that are still open have threads that nobody waits for
