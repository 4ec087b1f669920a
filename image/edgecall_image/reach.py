"""Whether anything outside of this device is reached, where that is not told by the broker: default gateways, as the
kernel's tables in /proc have them, and an answer of one."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["a_gateway_answers", "answers", "family", "gateways", "is_own", "works"]

ANSWER_S: Final = 3.0
"""A neighbour that has not answered the kernel's third question by then is not there."""
DOMAIN: Final = 53
"""A port that many a router serves. Refused is as good: that is an answer too."""
TABLES: Final = Path("/proc/net")
CLOCK_SET: Final = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd has heard a time server since this start."""
_UP_GATEWAY: Final = 0x3  # RTF_UP | RTF_GATEWAY


def works(tables: Path = TABLES, clock_set: Path = CLOCK_SET) -> bool:
    """Has anybody outside answered, by IP and through our own firewall? Blocking, twice ANSWER_S a gateway."""
    return clock_set.exists() or a_gateway_answers(tables)


def a_gateway_answers(tables: Path = TABLES) -> bool:
    """Not each does, to us. Blocking, twice ANSWER_S a gateway."""
    return any(map(answers, gateways(tables)))


def family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def is_own(host: str) -> bool:
    """This device, which is reached without any network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def gateways(tables: Path = TABLES) -> list[str]:
    """Their addresses, link-local ones with their interface; of tables that cannot be read none."""
    return [*_gateways4(_rows(tables / "route")), *_gateways6(_rows(tables / "ipv6_route"))]


def answers(address: str) -> bool:
    """To an echo request or a connection. Where only its link layer does, our firewall may keep all else from us."""
    return _echoes(address) or _connects(address)


def _rows(path: Path) -> Iterator[list[str]]:
    with contextlib.suppress(OSError):
        yield from (line.split() for line in path.read_text("ascii").splitlines())


def _gateways4(rows: Iterable[list[str]]) -> Iterator[str]:
    """Of lines with interface, destination, gateway, flags, three counts and mask; numbers as the CPU has them."""
    for row in rows:
        if len(row) >= 8 and row[1] == row[7] == "00000000" and int(row[3], 16) & _UP_GATEWAY == _UP_GATEWAY:
            yield socket.inet_ntoa(struct.pack("=I", int(row[2], 16)))


def _gateways6(rows: Iterable[list[str]]) -> Iterator[str]:
    """Of lines with destination, its prefix, source, its prefix, next hop, three numbers, flags and interface."""
    for row in rows:
        if len(row) >= 10 and set(row[0]) == {"0"} and row[1] == "00" and int(row[8], 16) & _UP_GATEWAY == _UP_GATEWAY:
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[4]))
            yield f"{address}%{row[9]}" if address.startswith("fe80:") else address


def _echoes(address: str) -> bool:
    """By a socket of ICMP that needs no privilege (icmp(7), net.ipv4.ping_group_range): the kernel fills in the rest,
    and hands us nothing but the reply."""
    kind, protocol, request = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128) if family(address) == "IPv6"
        else (socket.AF_INET, socket.IPPROTO_ICMP, 8))
    try:
        where = socket.getaddrinfo(address, None, kind, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]
        with socket.socket(kind, socket.SOCK_DGRAM, protocol) as icmp:
            icmp.settimeout(ANSWER_S)
            icmp.connect(where)
            icmp.send(struct.pack("!BBHHH", request, 0, 0, 0, 1))
            return bool(icmp.recv(64))
    except OSError:
        return False


def _connects(address: str) -> bool:
    try:
        socket.create_connection((address, DOMAIN), ANSWER_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
