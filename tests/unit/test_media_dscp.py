"""Marks of packets, read by who receives them."""

from __future__ import annotations

import socket

import pytest

from appliance.media.dscp import Marks, mark


def received_mark(family: int, host: str, dscp: int) -> int:
    """The traffic class of a datagram sent from a socket that is marked so."""
    level, ask, kind = (
        (socket.IPPROTO_IP, socket.IP_RECVTOS, socket.IP_TOS) if family == socket.AF_INET
        else (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, socket.IPV6_TCLASS))
    with socket.socket(family, socket.SOCK_DGRAM) as receiver, socket.socket(family, socket.SOCK_DGRAM) as sender:
        receiver.bind((host, 0))
        receiver.settimeout(2)
        receiver.setsockopt(level, ask, 1)
        mark(sender, dscp)
        sender.sendto(b"x", receiver.getsockname())
        _, ancillary, _, _ = receiver.recvmsg(16, 64)
    (found,) = [data for at, what, data in ancillary if (at, what) == (level, kind)]
    return found[0]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_what_leaves_is_marked(family: int, host: str) -> None:
    assert received_mark(family, host, Marks().of(video=False)) == 0xB8  # EF
    assert received_mark(family, host, Marks().of(video=True)) == 0x88  # AF41
    assert received_mark(family, host, 0) == 0


def test_a_socket_that_takes_no_mark_is_left_alone() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        mark(sock, 46)
