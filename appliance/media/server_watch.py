"""Asks the STUN and TURN servers of settings outside of calls, and tells which of them cannot be used.

A call that has to find out by itself that a server is dead waits seconds for it. A server is asked soon after the
start, when the network has changed, when a call had no answer of it, and now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from appliance.media.servers import Server, ServerPool, why
from appliance.network import Network

__all__ = ["ServerWatch"]

EVERY_S: Final = 300.0  # a server that answers: a thousand devices ask it three times a second
AGAIN_S: Final = 30.0  # one that does not: so long is it unused after it came back
PATIENCE_S: Final = 5.0  # nobody waits for this answer
CONFIRM_S: Final = 2.0  # one lost answer is not told


class ServerWatch:
    """``run`` serves until cancelled; ``ask`` raises for a server of no use.

    ``told``: the servers that cannot be used and why, both in words; after the first look, and when it changes.
    """

    def __init__(self, pool: ServerPool, ask: Callable[[Server], Awaitable[None]],
                 told: Callable[[Mapping[str, str]], None]) -> None:
        self._pool = pool
        self._ask = ask
        self._told = told
        self._failing: dict[Server, str] = {}
        self._said: dict[str, str] | None = None
        self._online = True
        self._due: dict[Server, float] = {}  # loop time; missing: now
        self._wake = asyncio.Event()
        pool.on_failure = self._look_soon

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if self._online:
                due = [server for server in self._pool.all if self._due.get(server, 0.0) <= loop.time()]
                await asyncio.gather(*(self._look(server) for server in due))
                self._tell()
            next_at = min((self._due.get(server, 0.0) for server in self._pool.all), default=0.0)
            try:
                async with asyncio.timeout_at(max(next_at, loop.time()) if self._online else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def network_changed(self, _before: Network, now: Network) -> None:
        """What was known is of another network; without one nobody answers, which is told elsewhere."""
        self._pool.moved()
        self._online = bool(now.addresses)
        self._due.clear()
        self._wake.set()

    def _look_soon(self, server: Server) -> None:
        """A call had no answer of it."""
        if server not in self._failing:
            self._due.pop(server, None)
            self._wake.set()

    def _tell(self) -> None:
        failing = {str(server): self._failing[server] for server in self._pool.all if server in self._failing}
        if failing != self._said:
            self._said = failing
            self._told(failing)

    async def _look(self, server: Server) -> None:
        loop = asyncio.get_running_loop()
        self._due[server] = loop.time() + EVERY_S
        for last in (False, True):
            began = loop.time()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._ask(server)
            except Exception as error:  # whatever a server answers: the next look is the way back
                if last:
                    self._failing[server] = why(error)
                    self._pool.failed(server, error)
                    self._due[server] = loop.time() + AGAIN_S
                    self._tell()  # the slowest of them may take ten seconds more
                else:
                    await asyncio.sleep(CONFIRM_S)
            else:
                self._failing.pop(server, None)
                self._pool.answered(server, loop.time() - began)
                return
