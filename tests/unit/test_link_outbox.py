"""The outbox pump against a broker that does not take the marker of a gap (the rest of it: tests/peers)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.link.connection import Connection
from appliance.link.outbox import OutboxPump
from appliance.store import Gap, OutboxLimits, Store

GAP = "edgecall/v1/door/log/gap"


class Broker:
    """A live connection whose broker answers the marker with ``gap_code`` and takes everything else."""

    def __init__(self, gap_code: int | None) -> None:
        self.gap_code = gap_code
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.taken: list[bytes] = []
        self.markers = 0

    def fits(self, _topic: str, _payload: bytes) -> bool:
        return True

    async def publish(self, topic: str, payload: bytes, **_: Any) -> int | None:
        if topic == GAP:
            self.markers += 1
            return self.gap_code
        self.taken.append(payload)
        return 0

    def abandon(self, why: str) -> None:
        self.ended.set_result(why)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Two rows wait, one before them was thrown away."""
    made = Store(tmp_path, ballast=0, limits=OutboxLimits(count=2))
    await made.open()
    for payload in (b"thrown away", b"a", b"b"):
        await made.enqueue("t", payload)
    yield made
    await made.close()


async def pump(store: Store, broker: Broker) -> tuple[OutboxPump, asyncio.Task[None]]:
    made = OutboxPump(store, GAP, lambda: 1.0, lambda _topic, _why: None)
    return made, asyncio.create_task(made.run(cast("Connection", broker)))


async def gap(store: Store) -> Gap | None:
    return (await store.outbox(1))[1]


async def test_a_marker_that_is_not_acknowledged_ends_the_connection_and_stays(store: Store) -> None:
    broker = Broker(None)
    _, running = await pump(store, broker)
    async with asyncio.timeout(20):
        await running
    assert broker.ended.done(), "or the pump would be started again at once, for ever"
    assert (broker.markers, broker.taken) == (1, [])
    assert await gap(store) is not None


async def test_a_marker_that_is_refused_stays_and_the_rest_flows(store: Store) -> None:
    broker = Broker(0x97)
    made, running = await pump(store, broker)
    async with asyncio.timeout(20):
        await made.idle.wait()
    assert broker.taken == [b"a", b"b"] and not broker.ended.done()
    assert broker.markers == 1, "once for each connection"
    told = await gap(store)
    assert told is not None and told.dropped == 1
    running.cancel()
    await asyncio.wait({running})


async def test_a_marker_that_is_taken_is_forgotten(store: Store) -> None:
    broker = Broker(0)
    made, running = await pump(store, broker)
    async with asyncio.timeout(20):
        await made.idle.wait()
    assert broker.taken == [b"a", b"b"] and await gap(store) is None
    running.cancel()
    await asyncio.wait({running})
