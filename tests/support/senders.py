"""Appliances that send recorded pictures into a room, in a process of their own: nine of them and whoever watches them
are more than one interpreter has time for, and on their walls they do not share one either.

    async with senders(server.url, {"P0": "clip:/tmp/0.h264", ...}) as others:
        await others.join("P0")         # connected
        await others.sent("P0")         # pictures
        await others.leave("P0")

Each line of standard input is one deed, as ``join P0``; each line of output says that it is done, and how many.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from appliance.providers import api
from appliance.vocabulary import END_REASONS
from tests.support.room_device import Device, device

__all__ = ["SENDS", "Senders", "senders"]

SENDS: Final = api.MediaWanted(receive_audio=False, receive_video=False)
START_S: Final = 60.0
DONE_S: Final = 30.0
END_S: Final = 10.0
ROOT: Final = Path(__file__).parents[2]


class Senders:
    """By name."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._says, self._hears = process.stdin, process.stdout

    async def join(self, name: str) -> None:
        await self._do(f"join {name}")

    async def leave(self, name: str) -> None:
        await self._do(f"leave {name}")

    async def sent(self, name: str) -> int:
        """Pictures of this time in the room."""
        return await self._do(f"sent {name}")

    async def started(self) -> None:
        await self._told("ready", START_S)

    async def _do(self, deed: str) -> int:
        self._says.write(f"{deed}\n".encode())
        return await self._told(deed, DONE_S)

    async def _told(self, deed: str, seconds: float) -> int:
        try:
            told = (await asyncio.wait_for(self._hears.readline(), seconds)).decode()
        except TimeoutError:
            raise AssertionError(f"{deed}: the senders have not done it within {seconds:g} s") from None
        assert told.startswith(f"{deed} "), f"{deed}: {told.strip() or 'the senders are gone'}"
        return int(told.removeprefix(deed))


@asynccontextmanager
async def senders(url: str, cameras: Mapping[str, str]) -> AsyncIterator[Senders]:
    """``cameras``: the source of each, by name."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.senders", url, *(f"{name}={camera}" for name, camera in cameras.items()),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    try:
        made = Senders(process)
        await made.started()
        yield made
    finally:
        process.stdin.close()  # they end with it
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _obey(one: Device, deed: str) -> int:
    if deed == "sent":
        return next(int(row["framesSent"]) for row in await one.stats()
                    if row["type"] == "outbound-rtp" and row["kind"] == "video")
    if deed == "join":
        await one.join(media=SENDS)
        await one.connected()
    elif deed == "leave":
        assert one.leg is not None, "it is in no room"
        await one.leg.end(END_REASONS["0/local"])
    else:
        raise ValueError(deed)
    return 0


async def _main(url: str, *cameras: str) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncExitStack() as stack:
        known: dict[str, Device] = {}
        for name, _, camera in (one.partition("=") for one in cameras):
            known[name] = await stack.enter_async_context(device(url, name.lower(), camera=camera))
        print("ready 0", flush=True)
        async for line in lines:
            deed, _, name = line.decode().strip().partition(" ")
            print(deed, name, await _obey(known[name], deed), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
