"""A real SIPp that plays one scenario of ``tests/peers/sipp``."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from appliance.media.sound import audioop
from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["Sipp", "sipp"]

SCENARIOS: Final = Path(__file__).parents[1] / "peers" / "sipp"
HOST: Final = "127.0.0.1"


class Sipp:
    """What is called; ``port`` is where."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process = process

    async def done(self, within_s: float = 10.0) -> None:
        """It has played its scenario to the end, with nothing that was not in it."""
        async with asyncio.timeout(within_s):
            status = await self._process.wait()
        assert status == 0, self.words()

    def words(self) -> str:
        return "\n".join(one.read_text(errors="replace")[-3000:] for one in self.folder.glob("*_errors.log"))


@asynccontextmanager
async def sipp(
    folder: Path, scenario: str, *, hertz: float = 1000.0, calls: int = 1, target: str = "", more: Sequence[str] = (),
    keys: str = "",
) -> AsyncIterator[Sipp]:
    """``target``: whom it calls, ``user@host:port``; without, it is called. ``more``: arguments of its own. ``keys``:
    what it plays are the tones of these digits, in place of one tone."""
    user, _, host = target.rpartition("@")
    calling = ["-s", user, host] if target else []
    await asyncio.to_thread(_write_sound, folder, _digits(keys) if keys else _tone(hertz))
    port = free_port(HOST)
    process = await asyncio.create_subprocess_exec(
        shutil.which("sipp") or "/usr/bin/sipp", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-i", HOST, "-mi", HOST,
        "-p", str(port), "-m", str(calls), "-nostdin", "-trace_err", "-timeout", "30", "-timeout_error",
        *more, *calling, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL)
    try:
        if not target:
            await until(lambda: port in _udp_ports() or process.returncode is not None, "SIPp listens")
        yield Sipp(folder, process, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _udp_ports() -> set[int]:
    """That somebody has in this network namespace."""
    lines = Path("/proc/self/net/udp").read_text().splitlines()[1:]
    return {int(line.split()[1].partition(":")[2], 16) for line in lines}


def _write_sound(folder: Path, samples: array[int]) -> None:
    """As G.711 µ-law."""
    (folder / "tone.ulaw").write_bytes(audioop.lin2ulaw(samples.tobytes(), 2))


def _tone(hertz: float) -> array[int]:
    """For four seconds."""
    return array("h", [int(8000 * math.sin(2 * math.pi * hertz * n / 8000)) for n in range(32_000)])


def _digits(keys: str) -> array[int]:
    """By the table of ITU-T Q.23: 80 ms each, and as long a pause; a second of silence before."""
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
    samples = array("h", bytes(16_000))
    for key in keys:
        place = "123A456B789C*0#D".index(key)
        both = rows[place // 4], columns[place % 4]
        samples.extend(int(sum(5000 * math.sin(2 * math.pi * one * n / 8000) for one in both)) for n in range(640))
        samples.extend([0] * 640)
    return samples
