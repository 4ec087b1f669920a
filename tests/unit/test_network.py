"""What the kernel's list of links, addresses and routes amounts to."""

from __future__ import annotations

import ipaddress
import socket
import struct

from appliance.network import DefaultRoute, Network, _messages, _network

UP, CARRIER = 0x1, 0x40


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def link(index: int, flags: int = UP | CARRIER) -> bytes:
    return message(16, struct.pack("=BxHiII", 0, 1, index, flags, 0))


def address(text: str, index: int, *, flags: int = 0, scope: int = 0, peer: str = "") -> bytes:
    ip = ipaddress.ip_address(text)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    attributes = attribute(1, ipaddress.ip_address(peer).packed if peer else ip.packed)
    if peer:
        attributes += attribute(2, ip.packed)
    return message(20, struct.pack("=BBBBI", family, 24, flags, scope, index) + attributes)


def route(gateway: str, index: int, metric: int = 0, *, prefix: int = 0, table: int = 254) -> bytes:
    ip = ipaddress.ip_address(gateway)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    return message(24, struct.pack("=BBBBBBBBI", family, prefix, 0, 0, table, 3, 0, 1, 0)
                   + attribute(4, struct.pack("=I", index)) + attribute(5, ip.packed)
                   + attribute(6, struct.pack("=I", metric)))


def network(*messages: bytes) -> Network:
    return _network(list(_messages(b"".join(messages))))


def test_addresses_are_those_that_a_call_can_begin_at() -> None:
    found = network(
        link(2), link(3, UP), address("10.0.0.5", 2), address("192.168.7.2", 2, peer="192.168.7.1"),
        address("2001:db8::5", 2), address("2001:db8::6", 2, flags=0x40), address("fe80::1", 2, scope=253),
        address("127.0.0.1", 2, scope=254), address("10.1.0.5", 3),
    )
    assert found.addresses == {"10.0.0.5", "192.168.7.2", "2001:db8::5"}


def test_the_default_route_is_the_best_one_that_has_a_carrier() -> None:
    found = network(
        link(2), link(3), link(4, UP), route("10.0.0.1", 2, 600), route("10.1.0.1", 3, 100), route("10.2.0.1", 4, 1),
        route("10.9.0.1", 3, 0, prefix=8), route("10.8.0.1", 3, 0, table=255), route("fe80::1", 2, 1024),
    )
    assert found.default("10.0.0.5") == DefaultRoute(3, "10.1.0.1")
    assert found.default("2001:db8::5") == DefaultRoute(2, "fe80::1")
    assert network(link(2)).default("10.0.0.5") is None


def test_what_is_no_message_ends_the_list() -> None:
    """A length of zero would be read for ever."""
    assert list(_messages(link(2) + bytes(16) + link(3))) == list(_messages(link(2)))
    assert network(link(2) + b"\x10") == network(link(2))
