"""The update service as a process: its socket, who may ask, and its end.

One JSON line is a request, one line the answer, and the connection ends; ``{"verb": "watch"}`` is answered with the
status now and at each change, for as long as the asker stays. Who asks, the kernel tells (unix(7), SO_PEERCRED): root
and the daemon's user, whatever the mode of the socket lets in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final

from edgecall_image.rauc import Rauc
from edgecall_image.slots import Slots
from edgecall_image.updater import Refused, Updater

__all__ = ["Service", "logs_to_journal", "main"]

log = logging.getLogger(__name__)

DAEMON_USER: Final = "edgecall"
LINE_LIMIT: Final = 65_536
REQUEST_S: Final = 10.0
"""For the line of a request, and for a watcher to take a status."""
REST_S: Final = 60.0
CONNECTIONS: Final = 32
FIRST_PASSED: Final = 3
"""The first descriptor that systemd passes (sd_listen_fds(3))."""
ROOT: Final = 0


class Service:
    """``allowed``: user ids; ``root``: that of the health gate, which alone may say that it has judged. ``serve`` until
    it is cancelled, or nobody needs it."""

    def __init__(self, updater: Updater, allowed: frozenset[int], *, root: int = ROOT) -> None:
        self._updater = updater
        self._allowed = allowed
        self._root = root
        self._open: set[asyncio.Task[None]] = set()
        self._asked = asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        await self._updater.start()
        # not start_unix_server, which removes the path as it closes (Python 3.13): systemd goes on listening there
        server = await asyncio.start_server(self._connected, sock=listener, limit=LINE_LIMIT)
        try:
            await self._until_rest()
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            if self._open:
                await asyncio.wait(self._open)
            await self._updater.stop()

    async def _until_rest(self) -> None:
        """Nobody has asked for REST_S, and nothing goes on: systemd starts us anew for the next one."""
        while True:
            self._asked.clear()
            try:
                async with asyncio.timeout(REST_S):
                    await self._asked.wait()
            except TimeoutError:
                if not self._open and self._updater.at_rest:
                    return

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._asked.set()
        if task is not None:
            self._open.add(task)
        try:
            answer = await self._answered(reader, writer)
            if answer is not None:
                await _send(writer, answer)
                self._updater.answered()
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass  # whoever asked has gone, or we go
        finally:
            self._asked.set()
            if task is not None:
                self._open.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any] | None:
        """None: it was answered already."""
        uid = _uid_of(writer.get_extra_info("socket"))
        try:
            request = await _request(reader)  # first: a connection closed unread loses the answer
            self._admit(uid)
            if request.get("verb") == "watch":
                await self._watch(reader, writer)
                return None
            if request.get("verb") == "refresh" and uid == self._root:
                await self._updater.refresh(str(request.get("step", ""))[:500])
                return {"ok": True, "status": self._updater.status()}
            return {"ok": True, "status": await self._updater.ask(request)}
        except Refused as refused:
            return _refusal(refused)

    def _admit(self, uid: int) -> None:
        """Raises Refused."""
        if uid not in self._allowed:
            raise Refused("notAllowed", "the update service takes requests of the appliance and of root alone")
        if len(self._open) > CONNECTIONS:
            raise Refused("busy", f"more than {CONNECTIONS} others ask")

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The latest status only: who is slow misses steps, never the last one."""
        gone = asyncio.create_task(reader.read(), name="service.gone")
        told: dict[str, Any] | None = None
        try:
            with self._updater.changed() as event:
                while not gone.done():
                    event.clear()
                    now = self._now()
                    if now != told:
                        await _send(writer, now)
                        told = now
                    change = asyncio.create_task(event.wait(), name="service.change")
                    try:
                        await asyncio.wait({gone, change}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        change.cancel()
        finally:
            gone.cancel()

    def _now(self) -> dict[str, Any]:
        try:
            return {"ok": True, "status": self._updater.status()}
        except Refused as refused:
            return _refusal(refused)


def _refusal(refused: Refused) -> dict[str, Any]:
    return {"ok": False, "error": {"code": refused.code, "message": refused.message}}


async def _send(writer: asyncio.StreamWriter, document: dict[str, Any]) -> None:
    writer.write(json.dumps(document).encode() + b"\n")
    async with asyncio.timeout(REQUEST_S):
        await writer.drain()


async def _request(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Raises Refused."""
    try:
        async with asyncio.timeout(REQUEST_S):
            request = json.loads(await reader.readline())
    except TimeoutError:
        raise Refused("badRequest", f"no request came within {REQUEST_S:g} s") from None
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or a line too long
        raise Refused("badRequest", f"a request is one line of JSON, {LINE_LIMIT} bytes at most") from None
    if not isinstance(request, dict):
        raise Refused("badRequest", "a request is an object with a verb")
    return request


def _uid_of(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _passed() -> socket.socket | None:
    """The listening socket that systemd passes; None when it passed none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=FIRST_PASSED)


def logs_to_journal() -> None:
    """Lines on stderr with the level as systemd reads it (sd-daemon(3))."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Levelled("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Levelled(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


async def _until_told(service: Service, listener: socket.socket) -> None:
    task = asyncio.create_task(service.serve(listener), name="service")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(argv: Sequence[str]) -> int:
    """``run service``: no arguments; systemd passes the socket."""
    listener = _passed()
    if argv or listener is None:
        print("the update service takes no arguments, and its socket from systemd: start edgecall-update.socket",
              file=sys.stderr)
        return 2
    logs_to_journal()
    allowed = {ROOT}
    with contextlib.suppress(KeyError):  # without that user there is no daemon
        allowed.add(pwd.getpwnam(DAEMON_USER).pw_uid)
    asyncio.run(_until_told(Service(Updater(Slots(), Rauc()), frozenset(allowed)), listener))
    return 0
