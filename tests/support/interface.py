"""The interface of the test's network namespace (scripts/netns), to be changed and put back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from appliance.network import Network, NetworkWatch
from tests.support.waiting import until

__all__ = ["ADDRESS", "INTERFACE", "changed_network", "ip", "watching"]

INTERFACE: Final = "edge0"
ADDRESS: Final = "10.99.0.1"
GATEWAY: Final = "10.99.0.2"


async def ip(line: str) -> None:
    """``ip LINE``: as root, for which scripts/netns has asked already."""
    before = [] if os.geteuid() == 0 else ["sudo", "-n"]
    process = await asyncio.create_subprocess_exec(*before, "ip", *line.split())
    assert await process.wait() == 0, f"ip {line}"


@asynccontextmanager
async def changed_network() -> AsyncIterator[None]:
    """Whatever the test does to the interface is undone."""
    try:
        yield
    finally:
        await ip("link set lo up")
        await ip(f"link set {INTERFACE} up")
        await ip(f"addr flush dev {INTERFACE} scope global")
        await ip(f"addr add {ADDRESS}/24 dev {INTERFACE}")
        await ip(f"route replace default via {GATEWAY}")


@asynccontextmanager
async def watching(*told: Callable[[Network, Network], None]) -> AsyncIterator[NetworkWatch]:
    """The watch of the network, which has looked and tells these."""
    watch = NetworkWatch()
    for one in told:
        watch.on_change(one)
    task = asyncio.create_task(watch.run(), name="network")
    await until(lambda: watch.now is not None, what="the first look")
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
