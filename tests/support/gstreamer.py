"""GStreamer's webrtcbin as a peer of a test: a child process with the system's Python (``gst_end.py``)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["HERTZ", "GStreamer", "Received", "gstreamer"]

HERTZ: Final = 1000.0  # what it sends
SYSTEM_PYTHON: Final = "/usr/bin/python3"  # Debian's, for which python3-gi is built
ROOT: Final = Path(__file__).resolve().parents[2]
ANSWER_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Received:
    """What came out of its decoders: pictures so far, the first luma of the last 30, the last sound (48 kHz mono)."""

    frames: int
    lumas: list[int]
    sound: bytes
    state: str


class GStreamer:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def offer(self) -> str:
        return str((await self._ask(do="offer"))["sdp"])

    async def answer(self, sdp: str) -> str:
        return str((await self._ask(do="answer", sdp=sdp))["sdp"])

    async def accept(self, sdp: str) -> None:
        await self._ask(do="accept", sdp=sdp)

    async def received(self) -> Received:
        told = await self._ask(do="report")
        return Received(told["frames"], told["lumas"], base64.b64decode(told["sound"]), told["state"])

    async def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_S)
        assert line, "GStreamer's end has gone; its words are on stderr"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def gstreamer() -> AsyncIterator[GStreamer]:
    process = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON, "-m", "tests.support.gst_end", cwd=ROOT, limit=1 << 20,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GST_DEBUG": os.environ.get("GST_DEBUG", "1")},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    end = GStreamer(process)
    try:
        yield end
    finally:
        await end.close()
