"""Flows to a registrar that dies without a word, on real sockets: noticed by keep-alives, closed, and made anew."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers.sip import flow_watch
from appliance.providers.sip.message import PING, PONG, Framer, Request, parse
from appliance.providers.sip.registration import FlowBackoff
from appliance.providers.sip.stun import is_stun
from appliance.vocabulary import END_REASONS
from tests.support.ports import free_port
from tests.support.sip_device import SipDevice, account, sip_device
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep-alives every second, with two for the answer."""
    monkeypatch.setattr(flow_watch, "SHORTEST_S", 1.0)
    monkeypatch.setattr(flow_watch, "ANSWER_S", 2.0)


def accepted(request: Request) -> bytes:
    response = request.response(200, "OK", tag="r")
    if request.method == "REGISTER":
        for contact in request.headers.values("contact"):
            response.headers.add("Contact", contact)
        response.headers.add("Require", "outbound")
        response.headers.add("Flow-Timer", "1")
    return response.serialise()


@dataclass
class Registrar:
    """Over TCP. ``deaf``: it answers no keep-alive; ``dead``: nothing, but its connections stand."""

    deaf: bool = False
    dead: bool = False
    pings: int = 0
    registers: list[list[Request]] = field(default_factory=list)  # of each connection
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    closed: int = 0
    invites: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.registers.append([])
        mine, framer = self.registers[-1], Framer()
        while data := await reader.read(65536):
            for one in framer.feed(data):
                self.pings += one == PING
                if one == PING and not self.deaf and not self.dead:
                    writer.write(PONG)
                elif one not in (PING, PONG):
                    request = parse(one)
                    assert isinstance(request, Request)
                    if request.method == "REGISTER":
                        mine.append(request)
                    self.invites += request.method == "INVITE"
                    if not self.dead:
                        writer.write(accepted(request))
        self.closed += 1
        writer.close()


@asynccontextmanager
async def registered() -> AsyncIterator[tuple[Registrar, SipDevice]]:
    registrar = Registrar()
    server = await asyncio.start_server(registrar.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = account(f"127.0.0.1:{port}", transport="tcp", register=True)
    async with server, sip_device("door", settings) as door:
        await door.up()
        yield registrar, door
    await until(lambda: registrar.closed == len(registrar.writers), "closed")


async def test_a_connection_whose_keep_alives_are_answered_stands() -> None:
    async with registered() as (registrar, door):
        await until(lambda: registrar.pings >= 3, "keep-alives")
        assert len(registrar.writers) == 1
        assert not door.troubles


async def test_one_that_carries_nothing_any_more_is_closed_and_made_anew() -> None:
    async with registered() as (registrar, door):
        await until(lambda: registrar.pings >= 2, "keep-alives")
        registrar.deaf = True
        await until(lambda: len(registrar.writers) == 2, "another connection", 15)
        await until(lambda: registrar.closed == 1, "the first one is closed")
        await until(lambda: registrar.registers[1], "registered by it")
        registrar.deaf = False
        await door.up()
        contacts = [requests[0].addresses("contact")[0].params for requests in registrar.registers[:2]]
        assert contacts[0]["reg-id"] == contacts[1]["reg-id"] == "1"
        assert contacts[0]["+sip.instance"] == contacts[1]["+sip.instance"]
        ids = {(one.call_id, one.cseq.number) for requests in registrar.registers for one in requests}
        assert len({call_id for call_id, _ in ids}) == 1
        assert len(ids) == sum(map(len, registrar.registers)), "each a request of its own"


async def test_one_that_dies_is_told_and_asked_again_by_new_connections_until_it_is_back() -> None:
    async with registered() as (registrar, door):
        registrar.dead = True
        await until(lambda: "does not answer" in door.troubles.get("trunk", ""), f"lost; {door.troubles}", 15)
        await until(lambda: len(registrar.writers) >= 3, "asked again", 20)
        assert "does not answer" in door.troubles["trunk"], "told all the time"
        registrar.dead = False
        await until(lambda: not door.troubles, f"back; {door.troubles}", 20)
        await door.up()


class Datagrams(asyncio.DatagramProtocol):
    """A registrar over UDP, behind whose translator a device has the port ``seen``."""

    def __init__(self) -> None:
        self.seen = 40000
        self.probes = 0
        self.registers: list[Request] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if is_stun(data):
            self.probes += 1
            xored = self.seen ^ 0x2112, 0xCB007105 ^ 0x2112A442
            self.transport.sendto(struct.pack("!HH16sHHBBHI", 0x0101, 12, data[4:20], 0x20, 8, 0, 1, *xored), addr)
            return
        request = parse(data)
        assert isinstance(request, Request)
        if request.method == "REGISTER" and request.via.branch not in {one.via.branch for one in self.registers}:
            self.registers.append(request)  # and not what is sent again for want of an answer
        self.transport.sendto(accepted(request), addr)


async def test_over_udp_a_translator_that_has_forgotten_us_is_noticed_at_once() -> None:
    transport, registrar = await asyncio.get_running_loop().create_datagram_endpoint(
        Datagrams, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    settings = account(f"127.0.0.1:{port}", register=True)
    async with sip_device("door", settings) as door:
        await door.up()
        await until(lambda: registrar.probes >= 2, "keep-alives")
        assert len(registrar.registers) == 1
        registrar.seen = 40001
        await until(lambda: len(registrar.registers) == 2, "registered anew")
        await door.up()
        probes = registrar.probes
        await until(lambda: registrar.probes >= probes + 2, "keep-alives")
        assert len(registrar.registers) == 2
    transport.close()


async def test_an_emergency_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlowBackoff, "failed", lambda _: 600.0)
    port, registrar = free_port(), Registrar()
    async with sip_device("door", account(f"127.0.0.1:{port}", transport="tcp", register=True)) as door:
        await until(lambda: door.troubles, "nobody is there")
        with pytest.raises(Refused, match="not reached"):
            await door.dial("sip:help@127.0.0.1", emergency=True)
        async with await asyncio.start_server(registrar.serve, "127.0.0.1", port):
            with pytest.raises(Refused, match="not reached"):
                await door.dial("sip:help@127.0.0.1")
            assert not registrar.writers, "what is no emergency waits"
            leg = await door.dial("sip:help@127.0.0.1", emergency=True)
            await until(lambda: registrar.invites, "the help point is called")
            await leg.end(END_REASONS["0/local"])
            await door.provider.stop()  # from Python 3.12.1 on a server that is left waits for its connections
    await until(lambda: registrar.closed == len(registrar.writers), "closed")
