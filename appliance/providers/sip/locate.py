"""Where the servers of a domain are (RFC 3263 4.2): by its SRV records, in the order that those want (RFC 2782)."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from appliance.providers.sip.agent import Hop, hop_of
from appliance.providers.sip.description import is_address
from appliance.providers.sip.uri import Uri

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = ["locate"]

log = logging.getLogger(__name__)

SERVICES: Final = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
LOOKUP_S: Final = 3.0
MOST: Final = 8


@dataclass(frozen=True, slots=True)
class _Record:
    priority: int
    weight: int
    port: int
    target: str


async def locate(uri: Uri, transport: str, resolver: Resolver | None = None) -> list[Hop]:
    """The servers of this address, best first; never none. With a port, or of an IP address, it is the server itself;
    so is a domain without records. Its name is what a certificate must have, whatever its records say (RFC 5922)."""
    itself = hop_of(uri, transport)
    if uri.port is not None or is_address(itself.host):
        return [itself]
    records = await asyncio.to_thread(_ask, f"{SERVICES[itself.transport]}.{itself.host}", resolver)
    found = [Hop(itself.transport, one.target, one.port, itself.host) for one in _ordered(records)[:MOST]]
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


def _ask(name: str, resolver: Resolver | None) -> list[_Record]:
    """Blocking; an answer that does not come is none."""
    import dns.exception
    import dns.resolver

    try:
        answer = (resolver or dns.resolver.Resolver()).resolve(name, "SRV", lifetime=LOOKUP_S, search=False)
    except dns.exception.DNSException as error:
        log.debug("no SRV records: %s", type(error).__name__)
        return []
    return [_Record(one.priority, one.weight, one.port, one.target.to_text(omit_final_dot=True)) for one in answer
            if one.port and one.target.to_text() != "."]
