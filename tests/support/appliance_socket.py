"""The daemon as root meets it: its Unix socket with the state that it tells, and its lock while somebody calls."""

from __future__ import annotations

import fcntl
import json
import os
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.support.loopback import ThreadedServer

__all__ = ["ApplianceSocket", "somebody_calls"]


class ApplianceSocket(ThreadedServer):
    """From ``__enter__`` to ``__exit__``. ``documents`` by route may be changed while it serves; bytes are sent as they
    are, and a route that is missing answers 404."""

    def __init__(self, path: Path, devices: dict[str, int] | None = None, *, broker: bool | None = None) -> None:
        self.documents: dict[str, Any] = {}
        self.devices(**({"microphone": 1, "camera": 1} if devices is None else devices))
        self.net(broker)
        self.documents["/v1/health"] = {"status": "ok", "causes": []}
        server = _Server(str(path), _Handler)
        server.owner = self
        super().__init__(server)

    def devices(self, **counts: int) -> None:
        rows = [{"kind": kind, "id": f"{kind}-{number}", "present": True} for kind, count in counts.items()
                for number in range(count)]
        gone = {"kind": "camera", "id": "gone", "present": False}
        self.documents["/v1/state/devices"] = {"devices": [*rows, gone]}

    def net(self, broker: bool | None) -> None:
        self.documents["/v1/state/net"] = {"online": True, "brokerConnected": broker}

class _Server(socketserver.ThreadingUnixStreamServer):
    owner: ApplianceSocket

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has left."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        document = self.server.owner.documents.get(self.path)
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        failed = isinstance(document, dict) and document.get("status") == "failed"
        self.send_response_only(404 if document is None else 503 if failed else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def somebody_calls(lock: Path) -> Iterator[None]:
    """As the daemon holds it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
