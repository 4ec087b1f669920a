"""Where the servers of a domain are (RFC 3263 4): its NAPTR records name the SRV records for a transport, and these the
servers, in the order that they want (RFC 3403, 2782)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from appliance.providers.sip.agent import Hop, hop_of
from appliance.providers.sip.description import is_address
from appliance.providers.sip.uri import Uri

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = ["locate"]

log = logging.getLogger(__name__)

SERVICES: Final = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
"""Of SRV, where no NAPTR record names another."""
NAPTR_SERVICES: Final = {"udp": "SIP+D2U", "tcp": "SIP+D2T", "tls": "SIPS+D2T"}
LOOKUP_S: Final = 3.0  # of all records of one domain
LEAST_S: Final = 0.5  # for any of them
MOST: Final = 8
NAMES: Final = 4  # of SRV records that are asked for


@dataclass(frozen=True, slots=True)
class _Record:
    priority: int
    weight: int
    port: int
    target: str


async def locate(uri: Uri, transport: str, resolver: Resolver | None = None) -> list[Hop]:
    """The servers of this address, best first; never none. With a port, of an IP address, or over WebSockets, which
    have a URL in place of records, it is the server itself; so is a domain without records. The transport is not for
    the records to choose: they must not lead from TLS to another. Its own name is what a certificate must have,
    whatever they say (RFC 5922)."""
    itself = hop_of(uri, transport)
    if uri.port is not None or is_address(itself.host) or itself.transport not in SERVICES:
        return [itself]
    records = await asyncio.to_thread(_look_up, itself.host, itself.transport, resolver)
    found = [Hop(itself.transport, one.target, one.port, itself.host) for one in records[:MOST]]
    return found or [itself]


def _ordered(records: list[_Record]) -> list[_Record]:
    """By priority, and within one by chance, in proportion to the weights."""
    ordered: list[_Record] = []
    for priority in sorted({one.priority for one in records}):
        left = [one for one in records if one.priority == priority]
        while left:
            chosen = random.choices(left, [one.weight or 0.1 for one in left])[0]  # noqa: S311 - spreads load
            left.remove(chosen)
            ordered.append(chosen)
    return ordered


def _look_up(domain: str, transport: str, resolver: Resolver | None) -> list[_Record]:
    """Of the first NAPTR record that leads anywhere, else of the usual name. Blocking."""
    import dns.resolver

    asking = _Asking(resolver or dns.resolver.Resolver())
    names = asking.services(domain, NAPTR_SERVICES[transport])[:NAMES]
    usual = f"{SERVICES[transport]}.{domain}"
    for name in names or [usual]:
        if records := asking.servers(name):
            return _ordered(records)
    return []


class _Asking:
    """One look-up with its deadline; an answer that does not come is none."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._until = time.monotonic() + LOOKUP_S

    def _records(self, name: str, kind: str) -> list[Any]:
        import dns.exception

        left = max(LEAST_S, self._until - time.monotonic())
        try:
            return list(self._resolver.resolve(name, kind, lifetime=left, search=False))
        except (dns.exception.DNSException, UnicodeError) as error:
            log.debug("no %s records: %s", kind, type(error).__name__)
            return []

    def services(self, domain: str, service: str) -> list[str]:
        """Names of SRV records for a service, by NAPTR."""
        found = [one for one in self._records(domain, "NAPTR")
                 if one.flags.lower() == b"s" and one.service.upper() == service.encode()]
        found.sort(key=lambda one: (one.order, one.preference))
        return [one.replacement.to_text(omit_final_dot=True) for one in found if one.replacement.to_text() != "."]

    def servers(self, name: str) -> list[_Record]:
        return [_Record(one.priority, one.weight, one.port, one.target.to_text(omit_final_dot=True))
                for one in self._records(name, "SRV") if one.port and one.target.to_text() != "."]
