"""A real WHEP server, that of Meetecho over a real Janus, as a child process (``tests/peers/whep``)."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.support.ports import free_port

__all__ = ["WhepServer"]

HERE: Final = Path(__file__).resolve().parents[1] / "peers" / "whep"
INSTALL_S: Final = 30.0
ANSWER_S: Final = 10.0


class WhepServer:
    """Plays what is published in the rooms of the Janus at ``janus``."""

    def __init__(self, janus: str) -> None:
        self._janus = janus
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    def url(self, endpoint: str) -> str:
        return f"http://127.0.0.1:{self._port}/whep/endpoint/{endpoint}"

    async def start(self) -> None:
        """Until it listens; it knows no endpoint."""
        installing = await asyncio.create_subprocess_exec(  # there is no way out of the test's network namespace
            HERE / "installed", stdout=asyncio.subprocess.PIPE, env={**os.environ, "npm_config_offline": "true"})
        told, _ = await asyncio.wait_for(installing.communicate(), INSTALL_S)
        assert installing.returncode == 0, "the WHEP server is not installed: run tests/peers/whep/installed once"
        self._process = await asyncio.create_subprocess_exec(
            "node", Path(told.decode().strip()) / "server.js", self._janus, str(self._port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        await self._answer(self._process)

    async def create(self, **endpoint: Any) -> None:
        """An endpoint, in the words of ``createEndpoint``."""
        await self._ask(create=endpoint)

    async def subscribers(self) -> int:
        return int((await self._ask(subscribers=True))["subscribers"])

    async def kill(self) -> None:
        """As a crash would end it. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self._answer(self._process)

    @staticmethod
    async def _answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        async with asyncio.timeout(ANSWER_S):
            async for line in process.stdout:
                if line.startswith(b"{"):  # its own log stands between
                    answer: dict[str, Any] = json.loads(line)
                    return answer
        raise AssertionError("the WHEP server has gone; its words are on stderr")
