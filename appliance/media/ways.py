"""What carries the packets of one line over the network, for ``plain_rtp``: here UDP ports of its own, RTP beside RTCP;
another one is ``dtls_way.DtlsWay``, with DTLS and ICE.

The peer is where its description says, or where its first packet comes from: it may be behind a translator that its
description knows nothing of. From then on its address is locked until the next description. ``Protection`` is where
SRTP comes in (its keys are signalling's: RFC 4568).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from appliance.media import dscp
from appliance.media.api import IceFragment

if TYPE_CHECKING:
    from appliance.media.dtls_seam import CertificateFacts

__all__ = ["CLEAR", "STRANGER", "Address", "OurEnd", "Place", "Protection", "TheirEnd", "UdpWay", "Way"]

DATAGRAM: Final = 1500  # bytes
BIND_TRIES: Final = 64

STRANGER: Final = "the certificate of the other side is not the one that its description names"
"""Why an association failed that somebody stands between, by all that is known."""

Address = tuple[str, int]


class Protection(Protocol):
    """What is done to packets on their way; ``rtcp`` tells the two kinds apart, which SRTP counts by themselves."""

    def protect(self, packet: bytes, *, rtcp: bool) -> bytes: ...

    def unprotect(self, packet: bytes, *, rtcp: bool) -> bytes:
        """Raises ValueError for what is not authentic."""

    def security(self) -> Mapping[str, str]: ...


class _Clear:
    def protect(self, packet: bytes, *, rtcp: bool) -> bytes:
        return packet

    def unprotect(self, packet: bytes, *, rtcp: bool) -> bytes:
        return packet

    def security(self) -> Mapping[str, str]:
        return {}


CLEAR: Final[Protection] = _Clear()


@dataclass(frozen=True, slots=True)
class OurEnd:
    """What our description says of a line with DTLS: where it is without ICE, the fingerprint of our certificate
    (SHA-256, RFC 8122), the name of the association (RFC 8842 4), and what ICE needs; None where the peer does none.
    ``rtcp``: a port of its own for RTCP, at the same address; 0: there is none."""

    address: Address
    fingerprint: str
    tls_id: str
    ice: IceFragment | None
    rtcp: int = 0


@dataclass(frozen=True, slots=True)
class TheirEnd:
    """What both descriptions say of the peer's end of it. ``fingerprints``: algorithm and value. ``client``: it begins
    the handshake. ``tls_id``: of the association, where it is told. ``ice``: None where it does none. ``controlling``:
    we nominate the path (RFC 8445 6.1.1). ``mux``: RTCP goes beside RTP (RFC 5761); else it has an association of its
    own, with the same certificates."""

    fingerprints: frozenset[tuple[str, str]]
    client: bool
    tls_id: str
    ice: IceFragment | None
    controlling: bool
    mux: bool = True


Place = tuple[int, int] | OurEnd
"""Where we take a line by our description: ports of RTP and RTCP, or our end of an association with DTLS."""


class Way(Protocol):
    """Of one line. It hands on what came, in the clear, to a function that says whether it was of any use."""

    @property
    def malformed(self) -> int:
        """Packets that were not authentic, or could not be read."""

    @property
    def strangers(self) -> int:
        """Packets from where the peer is not."""

    def carries(self, place: Place) -> bool:
        """Whether it is the way to this place of ours."""

    @property
    def state(self) -> str:
        """``connecting``, ``connected`` or ``failed``, once it is known where the peer is."""

    @property
    def failure(self) -> tuple[str, str]:
        """Why it failed, in the words of ``SessionClosed``."""

    @property
    def mux(self) -> bool:
        """RTCP goes beside RTP on one port (RFC 5761)."""

    @property
    def address(self) -> str | None:
        """Of this machine."""

    def security(self) -> Mapping[str, str]: ...

    def certificates(self) -> Mapping[str, CertificateFacts]:
        """By side, ``local`` and ``remote``, where there are any."""

    def facts(self) -> dict[str, Any]:
        """What there is to be told of it beside counters, for statistics."""

    def mark(self, marking: int) -> None: ...

    async def send(self, packet: bytes, *, rtcp: bool) -> None:
        """Raises ConnectionError when it is not open."""

    async def close(self) -> None: ...


class _Port(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._received(data, (str(addr[0]), int(addr[1])))


class UdpWay:
    """A ``Way``. ``take`` raises for what cannot be read."""

    def __init__(
        self, take: Callable[[bytes, bool], bool], *, protection: Protection, symmetric: bool = True,
    ) -> None:
        self._take = take
        self._protection = protection
        self._symmetric = symmetric
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None  # the same one where there is one for both
        self.ports = (0, 0)
        self.mux = False
        self._to_rtp: Address | None = None
        self._to_rtcp: Address | None = None
        self._locked = False
        self._locked_rtcp = False
        self.malformed = 0
        self.strangers = 0
        self.state = "connected"
        self.failure = ("", "")

    async def open(self, host: str, *, mux: bool) -> tuple[int, int]:
        """The ports of RTP and RTCP. Raises OSError."""
        loop = asyncio.get_running_loop()
        first, second = _bind(host, mux=mux)
        try:
            self._rtp, _ = await loop.create_datagram_endpoint(lambda: _Port(self._on_rtp_port), sock=first)
        except BaseException:  # given up meanwhile: of the first one asyncio lets go itself
            if second is not None:
                second.close()
            raise
        self._rtcp, self.mux = self._rtp, mux
        if second is not None:
            self._rtcp, _ = await loop.create_datagram_endpoint(lambda: _Port(self._on_rtcp_port), sock=second)
        self.ports = self._rtp.get_extra_info("sockname")[1], self._rtcp.get_extra_info("sockname")[1]
        return self.ports

    def carries(self, place: Place) -> bool:
        return place == self.ports

    def reach(self, remote: Address, remote_rtcp: Address | None, *, mux: bool = False) -> None:
        """Where the peer is by its description, at first or again: its address is learnt anew. ``mux``: both sides take
        RTCP beside RTP, and the port for it lies idle."""
        host, port = remote
        self.mux = mux or self._rtcp is self._rtp
        self._to_rtp = remote
        self._to_rtcp = remote_rtcp or (host, port if self.mux else port + 1)
        self._locked = self._locked_rtcp = not self._symmetric

    @property
    def address(self) -> str | None:
        name = self._rtp.get_extra_info("sockname") if self._rtp is not None else None
        return str(name[0]) if name else None

    def security(self) -> Mapping[str, str]:
        return self._protection.security()

    def certificates(self) -> Mapping[str, CertificateFacts]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}

    def mark(self, marking: int) -> None:
        for port in (self._rtp, self._rtcp):
            if port is not None:
                dscp.mark(port.get_extra_info("socket"), marking)

    async def send(self, packet: bytes, *, rtcp: bool) -> None:
        port, to = (self._rtcp, self._to_rtcp) if rtcp and not self.mux else (self._rtp, self._to_rtp)
        if port is None or to is None or port.is_closing():
            raise ConnectionError("the transport is not open")
        port.sendto(self._protection.protect(packet, rtcp=rtcp), to)

    async def close(self) -> None:
        for port in (self._rtp, self._rtcp):
            if port is not None:
                port.close()

    # -- in

    def _on_rtp_port(self, data: bytes, addr: Address) -> None:
        rtcp = self.mux and len(data) > 1 and 192 <= data[1] <= 223  # RFC 5761 4
        self._received(data, addr, rtcp=rtcp)

    def _on_rtcp_port(self, data: bytes, addr: Address) -> None:
        self._received(data, addr, rtcp=True)

    def _received(self, data: bytes, addr: Address, *, rtcp: bool) -> None:
        """The boundary: whatever a packet does to us, it is one packet."""
        if self._to_rtp is None or len(data) > DATAGRAM or not self._is_peer(addr, rtcp=rtcp):
            self.strangers += 1
            return
        try:
            taken = self._take(self._protection.unprotect(data, rtcp=rtcp), rtcp)
        except Exception:
            self.malformed += 1
            return
        if taken:
            self._lock(addr, rtcp=rtcp)

    def _is_peer(self, addr: Address, *, rtcp: bool) -> bool:
        if rtcp and not self.mux:
            if self._locked_rtcp:
                return addr == self._to_rtcp
            return not self._locked or self._to_rtp is None or addr[0] == self._to_rtp[0]
        return not self._locked or addr == self._to_rtp

    def _lock(self, addr: Address, *, rtcp: bool) -> None:
        """Symmetric RTP (RFC 4961): from here on this is where the peer is."""
        if rtcp and not self.mux:
            self._to_rtcp, self._locked_rtcp = addr, True
        elif not self._locked:
            self._to_rtp, self._locked = addr, True
            if self.mux:
                self._to_rtcp = addr


def _bind(host: str, *, mux: bool) -> tuple[socket.socket, socket.socket | None]:
    """One socket, or an even port for RTP and the one above for RTCP (RFC 3550 11). Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(BIND_TRIES):
        first = _bound(family, host, 0)
        if mux:
            return first, None
        port = first.getsockname()[1]
        if port % 2 == 0:
            with contextlib.suppress(OSError):
                return first, _bound(family, host, port + 1)
        first.close()
    raise OSError(f"no two ports side by side are free at {host}")


def _bound(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
