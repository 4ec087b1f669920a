"""A real WHIP server, that of Meetecho over a real Janus, as a child process: Debian's simple-whip-server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.another_debian import folder_of
from tests.support.ports import free_port

__all__ = ["SimpleWhip"]

START_S: Final = 15.0


class SimpleWhip:
    """Publishes into the rooms of the Janus at ``janus``. ``strict``: it wants the tags of RFC 9725 in PATCH. It runs
    from ``folder``, where its settings stand beside it."""

    def __init__(self, folder: Path, janus: str, *, strict: bool = False) -> None:
        self._folder = folder
        self._settings = {"janus": {"address": janus}, "port": free_port(), "rest": "/whip", "allowTrickle": True,
                          "strictETags": strict, "iceServers": []}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._settings['port']}/whip"

    def url(self, endpoint: str) -> str:
        return f"{self._url}/endpoint/{endpoint}"

    async def start(self) -> None:
        """Until it listens; it knows no endpoint."""
        root = await folder_of("sid", "janus", "simple-whip-server")
        program = root / "usr" / "share" / "simple-whip-server" / "src"
        for name in ("server.js", "whip-janus.js"):
            await asyncio.to_thread(shutil.copy, program / name, self._folder / name)
        (self._folder / "config.js").write_text(f"module.exports = {json.dumps(self._settings)};\n")
        modules = [root / "usr/share/nodejs", *root.glob("usr/lib/*/nodejs")]
        self._process = await asyncio.create_subprocess_exec(
            "node", "server.js", cwd=self._folder, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_PATH": ":".join(map(str, modules))})
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            async for line in self._process.stdout:
                if b"started!" in line:
                    return
        raise AssertionError("the WHIP server has gone; its words are on stderr")

    async def create(self, **endpoint: Any) -> None:
        """An endpoint, in the words of its ``POST /create``."""
        async with aiohttp.ClientSession() as http, http.post(f"{self._url}/create", json=endpoint) as answer:
            assert answer.status == 200, await answer.text()

    async def publishing(self) -> list[str]:
        """The endpoints that somebody publishes to."""
        async with aiohttp.ClientSession() as http, http.get(f"{self._url}/endpoints") as answer:
            return [one["id"] for one in await answer.json() if one.get("enabled")]

    async def kill(self) -> None:
        """As a crash would end it. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
