"""Binding requests of STUN, as keep-alives beside SIP on one UDP port (RFC 5626 4.4.2 and 8; RFC 8489). Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["TRANSACTION", "binding_request", "is_stun", "seen_address"]

TRANSACTION: Final = 12  # bytes of a transaction's id
_COOKIE: Final = 0x2112A442
_HEADER: Final = struct.Struct("!HHI12s")
_REQUEST: Final = 0x0001
_SUCCESS: Final = 0x0101
_MAPPED: Final = 0x0001
_XOR_MAPPED: Final = 0x0020


def is_stun(data: bytes) -> bool:
    """A message of SIP begins with a letter, one of STUN with two bits of 0."""
    return len(data) >= _HEADER.size and not data[0] & 0xC0 and data[4:8] == _COOKIE.to_bytes(4, "big")


def binding_request(transaction: bytes) -> bytes:
    return _HEADER.pack(_REQUEST, 0, _COOKIE, transaction)


def seen_address(data: bytes, transaction: bytes) -> tuple[str, int] | None:
    """Whence a server has seen this request come; None for what is no answer to it."""
    if not is_stun(data):
        return None
    kind, length, _, answered = _HEADER.unpack_from(data)
    if kind != _SUCCESS or answered != transaction or length > len(data) - _HEADER.size:
        return None
    mask = data[4 : _HEADER.size]
    at, end, found = _HEADER.size, _HEADER.size + length, None
    while at + 4 <= end:
        name, size = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : min(at + 4 + size, end)]
        if name == _XOR_MAPPED:
            return _address(value, mask)
        if name == _MAPPED:
            found = _address(value, bytes(len(mask)))
        at += 4 + size + -size % 4
    return found


def _address(value: bytes, mask: bytes) -> tuple[str, int] | None:
    if len(value) not in (8, 20):
        return None
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(mask[:2], "big")
    host = bytes(one ^ other for one, other in zip(value[4:], mask, strict=False))
    return str(IPv4Address(host) if len(host) == 4 else IPv6Address(host)), port
