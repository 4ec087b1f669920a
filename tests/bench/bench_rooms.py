"""A room of a real Janus: from the join to the first that is sent, and to the first that is received.

    python -m tests.bench.bench_rooms [--quick] [--json FILE]        (in a network namespace: scripts/netns)

Janus, the appliance that joins, and one that is in the room already, all on this machine. The clock starts before the
connection to the server is made. *Sent*: the first packet of the camera's picture has left, looked for every 5 ms.
*Received*: the first decoded picture of the other is handed to the screen. *Shown to the other*: the first decoded
picture of the one that joins is handed to the other's screen.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.providers import api
from appliance.vocabulary import END_REASONS
from hw.api import Tile
from tests.bench.figures import Figure, table, write
from tests.support.media_board import HandDisplay
from tests.support.room_device import Device, device, janus
from tests.support.waiting import until

LOOK_S: Final = 0.005
GOAL_MS: Final = 300.0
APART_S: Final = 1.0  # between two joins: the one before is all put away


async def first_sent(one: Device) -> float:
    """Loop time of the look that saw it."""
    found: list[float] = []
    assert one.leg is not None
    while not found:
        rows = await one.leg.stats()
        if any(row["type"] == "outbound-rtp" and row["kind"] == "video" and row["packetsSent"] for row in rows):
            found.append(asyncio.get_running_loop().time())
        else:
            await asyncio.sleep(LOOK_S)
    return found[0]


async def first_shown(one: Device, label: str) -> float:
    """Loop time at which the first picture with this label is handed to the screen."""
    loop, screen = asyncio.get_running_loop(), one.board.display
    assert isinstance(screen, HandDisplay)
    shown: asyncio.Future[float] = loop.create_future()
    show = screen.show

    def watching(tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        show(tiles, banner, hint)
        screen.pictures.clear()
        if not shown.done() and any(tile.label == label and tile.picture is not None for tile in tiles):
            shown.set_result(loop.time())

    screen.show = watching  # type: ignore[method-assign]
    try:
        return await shown
    finally:
        screen.show = show  # type: ignore[method-assign]


async def one_join(door: Device, gate: Device) -> dict[str, float]:
    """Milliseconds."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await door.join()
    async with asyncio.timeout(10):
        sent, received, other = await asyncio.gather(
            first_sent(door), first_shown(door, "Gate"), first_shown(gate, "Door"))
    found = {"connected": door.when(api.Connected) - begun, "sent": sent - begun, "received": received - begun,
             "other": other - begun}
    assert door.leg is not None
    await door.leg.end(END_REASONS["0/local"])
    await door.ended()
    await until(lambda: "Door" not in gate.tiles and "Gate" not in door.tiles, "it has left")
    await asyncio.sleep(APART_S)
    return {name: value * 1000 for name, value in found.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    count = 3 if arguments.quick else 20
    joins: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as folder:
        async with (janus(Path(folder)) as server, device(server.url, "gate", 880, height=360) as gate,
                    device(server.url, "door", 440, height=360) as door):
            await gate.join()
            await gate.connected()
            await one_join(door, gate)  # loads what is loaded once
            for number in range(count):
                joins.append(await one_join(door, gate))
                print(f"join {number + 1} of {count}: {joins[-1]}", file=sys.stderr)

    def samples(name: str) -> tuple[float, ...]:
        return tuple(one[name] for one in joins)

    figures = [
        Figure("room: join to first picture sent", "ms", samples("sent"), GOAL_MS),
        Figure("room: join to first picture received", "ms", samples("received"), GOAL_MS),
        Figure("room: join to connected", "ms", samples("connected")),
        Figure("room: join to first picture shown to the other", "ms", samples("other")),
    ]
    print(table(figures))
    if arguments.json:
        write(arguments.json, figures, {"peers": "Janus and another appliance, on the same machine"})


if __name__ == "__main__":
    asyncio.run(main())
