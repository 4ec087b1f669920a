"""The servers of a domain, as a name server on loopback tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from appliance.providers.sip.agent import Hop
from appliance.providers.sip.locate import locate
from appliance.providers.sip.uri import Uri

RECORDS: Mapping[str, tuple[str, ...]] = {
    "_sip._udp.example.org.": ("20 0 5060 last.example.org.", "10 60 5061 one.example.org.",
                               "10 20 5062 two.example.org."),
    "_sips._tcp.example.org.": ("0 0 5061 edge.example.org.",),
    "_sip._tcp.example.org.": ("0 0 0 .",),
    "_sips._tcp.hosted.example.": ("0 0 5071 sbc.hosted.example.",),
    "_sip._udp.hosted.example.": ("0 0 5070 sbc.hosted.example.",),
    "_sip._udp.example.com.": ("0 0 5060 usual.example.com.",),
}
NAPTR: Mapping[str, tuple[str, ...]] = {
    "example.com.": ('20 10 "s" "SIPS+D2T" "" _sips._tcp.hosted.example.',
                     '10 50 "s" "SIPS+D2T" "" _sips._tcp.gone.example.',
                     '10 20 "s" "sip+d2u" "" _sip._udp.hosted.example.',
                     '5 10 "u" "SIPS+D2T" "!^.*$!sip:info@example.com!" .',
                     '5 10 "s" "E2U+sip" "" _sips._tcp.elsewhere.example.'),
}


class NameServer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append(f"{kind} {name}")
        response = dns.message.make_response(query)
        records = {"SRV": RECORDS, "NAPTR": NAPTR}[kind].get(name)
        if records is not None:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if not self.silent:
            self._transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[tuple[NameServer, dns.resolver.Resolver]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0))
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    try:
        yield server, resolver
    finally:
        transport.close()


async def test_records_go_by_priority_and_then_by_weight() -> None:
    async with name_server() as (_, resolver):
        first = []
        for _ in range(60):
            hops = await locate(Uri.parse("sip:door@example.org"), "udp", resolver)
            assert {one.host for one in hops[:2]} == {"one.example.org", "two.example.org"}
            assert hops[2] == Hop("udp", "last.example.org", 5060, "example.org")
            first.append(hops[0].host)
        assert 30 < first.count("one.example.org") < 59, "three quarters of all, by its weight"


async def test_each_transport_has_its_service_and_the_name_stays_that_of_the_domain() -> None:
    async with name_server() as (_, resolver):
        assert await locate(Uri.parse("sip:door@example.org"), "tls", resolver) == [
            Hop("tls", "edge.example.org", 5061, "example.org")]


async def test_the_records_of_a_transport_may_be_elsewhere() -> None:
    """NAPTR, in its order; those for something else than a service of ours, and other transports, are passed over."""
    async with name_server() as (server, resolver):
        uri = Uri.parse("sip:door@example.com")
        assert await locate(uri, "tls", resolver) == [Hop("tls", "sbc.hosted.example", 5071, "example.com")]
        assert server.asked == ["NAPTR example.com.", "SRV _sips._tcp.gone.example.", "SRV _sips._tcp.hosted.example."]
        assert await locate(uri, "udp", resolver) == [Hop("udp", "sbc.hosted.example", 5070, "example.com")]
        assert await locate(uri, "tcp", resolver) == [Hop("tcp", "example.com", 5060)], "never another transport"


@pytest.mark.parametrize(("address", "transport", "expected", "asks"), [
    ("sip:door@example.org:5070", "udp", Hop("udp", "example.org", 5070), False),
    ("sip:door@192.0.2.1", "udp", Hop("udp", "192.0.2.1", 5060), False),
    ("sip:door@[2001:db8::1]", "tcp", Hop("tcp", "2001:db8::1", 5060), False),
    ("sip:door@example.net", "tls", Hop("tls", "example.net", 5061), True),
    ("sip:door@example.org", "tcp", Hop("tcp", "example.org", 5060), True)])
async def test_what_has_no_records_is_the_server_itself(
    address: str, transport: str, expected: Hop, asks: bool
) -> None:
    async with name_server() as (server, resolver):
        assert await locate(Uri.parse(address), transport, resolver) == [expected]
        assert bool(server.asked) is asks


async def test_a_name_server_that_says_nothing_is_no_reason_to_give_up() -> None:
    async with name_server() as (server, resolver):
        server.silent = True
        begun = asyncio.get_running_loop().time()
        assert await locate(Uri.parse("sip:door@example.org"), "udp", resolver) == [Hop("udp", "example.org", 5060)]
        assert asyncio.get_running_loop().time() - begun < 5
