"""A web server that has one bundle and the faults of real ones: no ranges, cut lines, errors, addresses elsewhere."""

from __future__ import annotations

import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.loopback import ThreadedServer

__all__ = ["BundleServer"]


class BundleServer(ThreadedServer):
    """On loopback, from ``__enter__`` to ``__exit__``. The attributes may be changed while it serves.

    ``ranges``: give byte ranges. ``cut_after``: bytes of each body before the connection breaks. ``fails``: so many
    requests are answered with ``fail_status`` first. ``moved``: an address to send everybody to.
    """

    def __init__(self, content: bytes, *, path: str = "/good.raucb", tls: ssl.SSLContext | None = None) -> None:
        self.content = content
        self.path = path
        self.etag = '"1"'
        self.ranges = True
        self.cut_after: int | None = None
        self.fails = 0
        self.fail_status = 503
        self.moved = ""
        self.asked: list[str] = []
        self.sent = 0
        self._lock = threading.Lock()
        self._tls = tls
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        super().__init__(self._server)

    @property
    def origin(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._server.server_port}/"

    @property
    def url(self) -> str:
        return self.origin + self.path.removeprefix("/")

    def takes(self, requested: str) -> int | None:
        """The status to fail with, or None; counts the request."""
        with self._lock:
            self.asked.append(requested)
            if self.fails > 0:
                self.fails -= 1
                return self.fail_status
            return None

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined at the end: a test leaves no thread
    owner: BundleServer

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """End the connections: those who answer on them are waited for."""
        for connection in list(self._connections):
            try:
                connection.shutdown(2)
            except OSError:
                continue
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client has left."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as real servers do: a body would wait 40 ms for the delayed ACK of its head
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        asked = self.headers.get("Range", "")
        if (status := owner.takes(asked)) is not None:
            self._short(status)
        elif owner.moved:
            self._short(302, Location=owner.moved)
        elif self.path != owner.path:
            self._short(404)
        else:
            self._body(owner, re.fullmatch(r"bytes=(\d+)-(\d+)", asked) if owner.ranges else None)

    def _body(self, owner: BundleServer, match: re.Match[str] | None) -> None:
        total = len(owner.content)
        first, last = (int(match[1]), min(int(match[2]), total - 1)) if match else (0, total - 1)
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        self.send_header("ETag", owner.etag)
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        part = owner.content[first : last + 1]
        if owner.cut_after is not None and len(part) > owner.cut_after:
            part, self.close_connection = part[: owner.cut_after], True
        owner.count(len(part))  # before it leaves: who has it looks at once
        self.wfile.write(part)

    def _short(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
