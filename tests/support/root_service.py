"""The root service of a flashed image, as the appliance meets it: its protocol on a real Unix socket, and hands for the
test, which says what becomes of an installation."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.vocabulary import Json

__all__ = ["FakeRootService", "taken_by_a_call"]

AT = "2026-11-30T02:00:{:02}Z"


class FakeRootService:
    """``asked``: every request but ``watch`` and ``status``, in order. ``refuses``: by verb, a code to answer with."""

    def __init__(self, path: Path, lock: Path) -> None:
        self.path = path
        self.asked: list[Json] = []
        self.refuses: dict[str, str] = {}
        self.garbles: bytes | None = None  # sent in place of an answer
        self.dies_at: set[str] = set()  # verbs of which the next request is lost, and nothing done
        self.heedless = False  # a cancel is taken, and has not come true yet
        self.on_restart: Callable[[str], None] = lambda _: None  # told of each restart that is begun, by its verb
        self.watchers = 0
        self.status: Json = {
            "version": "1.0.0", "slot": "A", "trial": False, "phase": "idle", "progress": None, "step": "", "job": None,
            "other": {"version": "0.9.0", "state": "good"}, "result": None}
        self._lock = lock
        self._results = 0
        self._changed = asyncio.Condition()
        self._connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)  # it stays when we stop, as systemd's does
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        self._server = await asyncio.start_server(self._connected, sock=listener)

    async def stop(self) -> None:
        """As when it is killed: the socket is there, and nobody behind it."""
        if self._server is not None:
            self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)

    async def set(self, **fields: Any) -> None:
        self.status = {**self.status, **fields}
        async with self._changed:
            self._changed.notify_all()

    async def end(self, state: str, *, code: str = "", message: str = "", **fields: Any) -> None:
        """The job is over."""
        self._results += 1
        result = {"id": self.status["job"], "state": state, "version": self.status["version"], "code": code,
                  "message": message, "at": AT.format(self._results)}
        await self.set(**{"phase": "idle", "job": None, "progress": None, "trial": False, "result": result, **fields})

    async def installed(self, version: str = "2.0.0") -> None:
        await self.set(phase="pending", progress=None, other={"version": version, "state": "unknown"})

    async def restart(self, slot: str, *, trial: bool, version: str) -> None:
        """The other slot comes up, or the same one again."""
        await self.set(slot=slot, trial=trial, phase="trial" if trial else "idle", version=version)

    def last(self, verb: str) -> Json:
        return next(one for one in reversed(self.asked) if one["verb"] == verb)

    def count(self, verb: str) -> int:
        return sum(one["verb"] == verb for one in self.asked)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            line = await reader.readline()
            if not line:  # whoever asked has gone
                return
            request = json.loads(line)
            if self.garbles is not None:
                writer.write(self.garbles)
            elif request["verb"] in self.dies_at:
                self.dies_at.remove(request["verb"])
                self.asked.append(request)
            elif request["verb"] == "watch":
                await self._watch(reader, writer)
            else:
                writer.write(_line(await self._answer(request)))
            await writer.drain()
        except OSError:
            pass  # the same
        finally:
            del self._connections[task]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.watchers += 1
        gone = asyncio.create_task(reader.read(1))
        told = asyncio.create_task(self._tell(writer))
        try:
            await asyncio.wait({gone, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.watchers -= 1
            for task in (gone, told):
                task.cancel()
            await asyncio.gather(gone, told, return_exceptions=True)

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        sent: Json | None = None
        async with self._changed:
            while True:
                if self.status != sent:
                    sent = self.status
                    writer.write(_line({"ok": True, "status": sent}))
                await self._changed.wait()

    async def _answer(self, request: Json) -> Json:
        verb = request["verb"]
        if verb != "status":
            self.asked.append(request)
        if verb in self.refuses:
            return _error(self.refuses[verb])
        if verb == "install":
            if self.status["phase"] == "installing":
                return {"ok": True, "status": self.status} if self.status["job"] == request["id"] else _error("busy")
            await self.set(phase="installing", progress=0, job=request["id"], result=None)
        elif verb in ("reboot", "back"):
            if not self._nobody_calls():
                return _error("busy")
            if verb == "reboot" and self.status["phase"] != "pending":
                return _error("nothingPending")
            self.on_restart(verb)
            await self.set(phase="rebooting", job=self.status["job"] or request["id"])
        elif verb == "cancel":
            if self.status["phase"] not in ("installing", "pending"):
                return _error("nothingPending")
            if not self.heedless:
                await self.end("failed", code="cancelled", message="cancelled", other={"version": None, "state": "bad"})
        return {"ok": True, "status": self.status}

    def _nobody_calls(self) -> bool:
        try:
            return not taken_by_a_call(self._lock)
        except FileNotFoundError:
            return True


def taken_by_a_call(lock: Path) -> bool:
    """As root looks. Raises FileNotFoundError. Blocking."""
    file = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _line(answer: Json) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _error(code: str) -> Json:
    return {"ok": False, "error": {"code": code, "message": f"refused: {code}"}}
