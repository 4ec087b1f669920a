"""The network of this machine as the kernel tells it (rtnetlink(7)): addresses in use and default routes.

A connection does not notice by itself that the address it begins at is gone, or that another way out is better now.
The kernel's notices are taken only as a sign to look: it does not tell of every route that goes with an interface.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

__all__ = ["DefaultRoute", "Network", "NetworkWatch", "is_cut_off", "read_network"]

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.2  # notices come in swarms: an address, its routes, the link
RETRY_S: Final = 10.0  # after the kernel refused to tell
READ_S: Final = 2.0
BUFFER: Final = 65_536

# <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_addr.h>, <net/if.h>
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_LINK: Final = struct.Struct("=BxHiII")  # family, device type, index, flags, changed
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix, flags, scope, interface
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, prefix, source prefix, TOS, table, origin, scope, type, flags
_ERROR, _DONE = 2, 3
_NEW_LINK, _GET_LINK = 16, 18
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_NEW_ROUTE, _GET_ROUTE = 24, 26
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links; addresses and routes of IPv4 and IPv6
_RUNNING: Final = 0x1 | 0x40  # IFF_UP and IFF_RUNNING: there is a carrier
_TENTATIVE: Final = 0x40  # an IPv6 address that may still turn out to be somebody else's
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 4, 5, 6
_MAIN, _UNICAST = 254, 1
_LINK_LOCAL, _HOST = 253, 254  # scopes


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """The preferred way out of one address family. ``gateway`` is empty where the interface alone leads there."""

    interface: int
    gateway: str


@dataclass(frozen=True, slots=True)
class Network:
    """``addresses``: global ones of interfaces with a carrier, as text."""

    addresses: frozenset[str] = frozenset()
    ipv4: DefaultRoute | None = None
    ipv6: DefaultRoute | None = None

    def default(self, address: str) -> DefaultRoute | None:
        """The way out of packets from ``address``."""
        return self.ipv6 if ":" in address else self.ipv4


def is_cut_off(address: str, addresses: Set[str]) -> bool:
    """Whether what begins at this address of ours is cut off, where only these are left. Loopback and link-local ones,
    which are never listed, are not."""
    host = ip_address(address.partition("%")[0])
    return str(host) not in addresses and not host.is_loopback and not host.is_link_local


async def read_network() -> Network:
    """Ask the kernel for everything. Raises OSError."""
    loop = asyncio.get_running_loop()
    messages: list[tuple[int, bytes]] = []
    with _netlink(groups=0) as sock:
        async with asyncio.timeout(READ_S):
            for request in (_GET_LINK, _GET_ADDRESS, _GET_ROUTE):
                await loop.sock_sendall(sock, _HEADER.pack(_HEADER.size + 4, request, _DUMP, request, 0) + bytes(4))
                done = False
                while not done:
                    for kind, body in _messages(await loop.sock_recv(sock, BUFFER)):
                        done = done or kind == _DONE
                        if kind == _ERROR:
                            raise OSError(-struct.unpack_from("=i", body)[0], "the kernel refuses to list the network")
                        messages.append((kind, body))
    return _network(messages)


class NetworkWatch:
    """Tells ``changed(before, now)`` on the loop soon after the network is another one; ``now`` is the latest state."""

    def __init__(self) -> None:
        self.now: Network | None = None  # not looked yet
        self._told: list[Callable[[Network, Network], None]] = []

    def on_change(self, changed: Callable[[Network, Network], None]) -> None:
        self._told.append(changed)

    async def run(self) -> None:
        """Watch until cancelled."""
        complained = False
        while True:
            try:
                await self._watch()
            except (OSError, TimeoutError) as error:
                if not complained:
                    log.warning("changes of the network are not noticed at once: %s", error)
                complained = True
                await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        with _netlink(_GROUPS) as sock:
            self._take(await read_network())  # after the socket is there: nothing falls between
            while True:
                try:
                    await loop.sock_recv(sock, BUFFER)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # more notices than fit: a notice as well
                        raise
                await asyncio.sleep(SETTLE_S)
                _drain(sock)
                self._take(await read_network())

    def _take(self, now: Network) -> None:
        before, self.now = self.now, now
        if before is not None and before != now:
            log.info("the network has changed: %d addresses", len(now.addresses))
            for changed in tuple(self._told):
                changed(before, now)


def _netlink(groups: int) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def _drain(sock: socket.socket) -> None:
    """Throw away the notices that have come; one that did not fit (ENOBUFS) is one too."""
    for _ in range(1024):
        try:
            sock.recv(BUFFER)
        except BlockingIOError:
            return
        except OSError:
            continue


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message in what one ``recv`` gave."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def _network(messages: list[tuple[int, bytes]]) -> Network:
    """What a complete list of links, addresses and routes amounts to."""
    running = {
        index for kind, body in messages if kind == _NEW_LINK
        for _, _, index, flags, _ in [_LINK.unpack_from(body)] if flags & _RUNNING == _RUNNING
    }
    addresses = frozenset(
        text for kind, body in messages if kind == _NEW_ADDRESS if (text := _usable_address(body, running))
    )
    routes = [found for kind, body in messages if kind == _NEW_ROUTE if (found := _default_route(body, running))]
    best = {
        family: min((metric, route.interface, route.gateway, route) for of, metric, route in routes if of == family)[-1]
        for family in {of for of, _, _ in routes}
    }
    return Network(addresses, best.get(socket.AF_INET), best.get(socket.AF_INET6))


def _usable_address(body: bytes, running: set[int]) -> str:
    family, _, flags, scope, interface = _ADDRESS.unpack_from(body)
    if interface not in running or scope in (_LINK_LOCAL, _HOST) or flags & _TENTATIVE:
        return ""
    attributes = _attributes(body, _ADDRESS.size)
    return _text(family, attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS) or b"")


def _default_route(body: bytes, running: set[int]) -> tuple[int, int, DefaultRoute] | None:
    """(family, metric, route), None for a route to somewhere in particular."""
    family, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    if prefix or table != _MAIN or kind != _UNICAST:
        return None
    attributes = _attributes(body, _ROUTE.size)
    interface = _number(attributes.get(_RTA_OIF))
    if interface not in running:
        return None
    metric = _number(attributes.get(_RTA_PRIORITY))
    return family, metric, DefaultRoute(interface, _text(family, attributes.get(_RTA_GATEWAY, b"")))


def _number(packed: bytes | None) -> int:
    return int.from_bytes(packed or b"", sys.byteorder)


def _text(family: int, packed: bytes) -> str:
    sizes: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
    return socket.inet_ntop(family, packed) if len(packed) == sizes.get(family) else ""
