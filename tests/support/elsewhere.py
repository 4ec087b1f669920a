"""A machine of its own on the wire of the test: a network namespace that is reached from the test's own.

    async with elsewhere("10.99.8.2") as machine:       # from ADDRESS, and to it
        Appliance(folder, through=machine.command)      # runs there
        await machine.moves_to("10.99.9.2")             # another address, and the old one is gone
        await machine.moves_to(None)                    # no network

Sockets in the file system are the same on both sides, so an appliance there is commanded as any other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from tests.support.interface import ADDRESS, ip

__all__ = ["Machine", "elsewhere"]

HERE: Final = "away0"  # the end of the wire in the test's namespace
THERE: Final = "eth0"
NETWORKS: Final = ("10.99.8.0/24", "10.99.9.0/24")  # where the machine may be


@dataclass
class Machine:
    """``command``: what a program is started through to run there, as the user of the test."""

    namespace: str
    address: str | None = None

    @property
    def command(self) -> Sequence[str]:
        enter = ("nsenter", f"--net={self.namespace}")
        if os.geteuid() == 0:
            return enter
        user, group = str(os.geteuid()), str(os.getegid())
        return ("sudo", "-n", "--preserve-env", *enter, "setpriv", "--reuid", user, "--regid", group, "--init-groups",
                "--", "env", f"PATH={os.environ['PATH']}", f"HOME={os.environ['HOME']}")

    async def ip(self, line: str) -> None:
        before = () if os.geteuid() == 0 else ("sudo", "-n")
        process = await asyncio.create_subprocess_exec(
            *before, "nsenter", f"--net={self.namespace}", "ip", *line.split())
        assert await process.wait() == 0, f"ip {line}"

    async def moves_to(self, address: str | None) -> None:
        """The new address comes first, with its routes, where there is one; then the old one goes."""
        before, self.address = self.address, address
        if address is not None:
            await self.ip(f"addr add {address}/32 dev {THERE}")
            await self.ip(f"route replace {ADDRESS} dev {THERE} src {address}")
            await self.ip(f"route replace default via {ADDRESS} dev {THERE} onlink src {address}")
        if before is not None:
            await self.ip(f"addr del {before}/32 dev {THERE}")


@asynccontextmanager
async def elsewhere(address: str) -> AsyncIterator[Machine]:
    """A machine with this address of one of NETWORKS."""
    before = () if os.geteuid() == 0 else ("sudo", "-n")
    holder = await asyncio.create_subprocess_exec(
        *before, "unshare", "--net", "sh", "-c", "ip link set lo up && echo $$ && exec cat",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)  # cat ends with its input, when the test does
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        pid = int(await holder.stdout.readline())
        machine = Machine(f"/proc/{pid}/ns/net")
        await ip(f"link add {HERE} type veth peer name {THERE} netns {pid}")
        try:
            await ip(f"link set {HERE} up")
            await machine.ip(f"link set {THERE} up")
            for network in NETWORKS:
                await ip(f"route add {network} dev {HERE} src {ADDRESS}")
            await machine.moves_to(address)
            yield machine
        finally:
            await ip(f"link del {HERE}")  # by hand: with the namespace it would go some time later
    finally:
        holder.stdin.close()
        await holder.wait()
