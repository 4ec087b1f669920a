"""Two appliances call each other over SIP, with no server between; nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.providers.sip.message import Request, parse
from appliance.vocabulary import KeyMethod
from tests.support.ports import free_port
from tests.support.sip_device import VOICE, SipDevice, account, face_to_face, sip_device
from tests.support.waiting import until, until_true

HELD = api.MediaWanted(False, False, False, False)


@asynccontextmanager
async def two(*, answers: bool = True) -> AsyncIterator[tuple[SipDevice, SipDevice]]:
    async with face_to_face() as (door, desk):
        desk.answers = answers
        yield door, desk


async def call(door: SipDevice, desk: SipDevice) -> None:
    await door.dial("sip:desk@127.0.0.1")
    await door.connected()
    await desk.connected()


async def test_keys_by_sip_are_told_as_that() -> None:
    async with two() as (door, desk):
        await call(door, desk)
        assert door.leg is not None
        await door.leg.press("12d", 0.1, KeyMethod.INFO)
        await until(lambda: [one.digit for one in desk.of(api.Pressed)] == ["1", "2", "D"], "digits at the desk")
        assert {one.method for one in desk.of(api.Pressed)} == {KeyMethod.INFO}
        await door.hang_up()
        with pytest.raises(Refused):
            await door.leg.press("1", 0.1, KeyMethod.INFO)


async def test_a_call_its_digits_its_holds_and_its_end() -> None:
    async with two() as (door, desk):
        await call(door, desk)
        await door.hears(1000)
        await desk.hears(440)
        assert door.leg is not None
        assert desk.leg is not None
        leg = door.leg

        async def received() -> bool:
            report = {one["type"]: one for one in await leg.stats()}
            return bool(report["inbound-rtp"]["packetsReceived"] > 5)

        await until_true(received, "packets in the statistics")
        await asyncio.gather(door.leg.press("12#", 0.1), desk.leg.press("*9", 0.1))
        await until(lambda: [one.digit for one in desk.of(api.Pressed)] == ["1", "2", "#"], "digits at the desk")
        await until(lambda: [one.digit for one in door.of(api.Pressed)] == ["*", "9"], "digits at the door")
        assert {one.method for one in door.of(api.Pressed)} == {KeyMethod.EVENTS}
        await door.leg.press("3", 0.1, KeyMethod.INFO)
        with pytest.raises(Refused, match="bends the tones"):
            await door.leg.press("3", 0.1, KeyMethod.TONES)
        await desk.leg.press("3", 0.1)
        await until(lambda: len(door.of(api.Pressed)) == 3, "another one at the door")
        assert len(desk.of(api.Pressed)) == 3, "who sends each key in two ways is heard once"

        await door.leg.set_media(HELD)
        await door.leg.tell(muted=False, held=True, video=False)
        await until(lambda: [one.held for one in desk.of(api.Held)] == [True], "held")
        await desk.hears_nothing()
        await desk.leg.set_media(HELD)
        await desk.leg.tell(muted=False, held=True, video=False)
        await until(lambda: [one.held for one in door.of(api.Held)] == [True], "both hold")
        await door.leg.set_media(VOICE)
        await door.leg.tell(muted=False, held=False, video=False)
        await desk.leg.set_media(VOICE)
        await desk.leg.tell(muted=False, held=False, video=False)
        await until(lambda: [one.held for one in door.of(api.Held)] == [True, False]
                    and [one.held for one in desk.of(api.Held)] == [True, False], "both resumed")
        await door.hears(1000)
        await desk.hears(440)
        assert not door.of(api.Lost)
        assert not desk.of(api.Lost)

        await desk.hang_up()
        assert await door.ended() == "0/remote"
        assert await desk.ended() == "0/local"
        assert any(one["type"] == "inbound-rtp" for one in await door.leg.stats()), "the last statistics are kept"


@pytest.mark.parametrize(("by_caller", "reason", "told"), [
    (True, "487/cancelled", "487/cancelled"), (True, "487/answeredElsewhere", "487/answeredElsewhere"),
    (False, "486/busy", "486/busy"), (False, "603/declined", "603/declined"),
    (False, "487/noAnswer", "480/unreachable"), (False, "480/doNotDisturb", "480/unreachable")])
async def test_a_call_that_is_not_answered(by_caller: bool, reason: str, told: str) -> None:
    async with two(answers=False) as (door, desk):
        await door.dial("sip:desk@127.0.0.1")
        await until(lambda: door.of(api.Ringing), "it rings")
        (ending, other) = (door, desk) if by_caller else (desk, door)
        await ending.hang_up(reason)
        assert await ending.ended() == reason
        assert await other.ended() == told


async def test_a_call_that_is_ended_at_any_moment() -> None:
    async with two() as (door, desk):
        for turns in range(0, 40, 4):
            await door.dial("sip:desk@127.0.0.1")
            for _ in range(turns):
                await asyncio.sleep(0)
            await door.hang_up()
            assert await door.ended() == "0/local"
            await until(lambda: not desk.provider.legs and not door.provider.legs, "both are free")


async def test_a_second_call_waits_and_a_third_is_busy() -> None:
    async with two(answers=False) as (door, desk):
        for _ in range(3):
            await door.dial("sip:desk@127.0.0.1")
        assert await door.ended() == "486/busy"
        assert len(desk.rings) == 2


async def test_nobody_there() -> None:
    port = free_port()
    async with sip_device("door", account(f"127.0.0.1:{port}")) as door:
        await door.up()
        begun = asyncio.get_running_loop().time()
        await door.dial("sip:desk@127.0.0.1")
        assert await door.ended() == "480/unreachable"
        assert 3.5 < door.when(api.Ended) - begun < 5.5
        with pytest.raises(Refused, match="no address"):
            await door.dial("sip:desk@")


async def test_two_at_once() -> None:
    """Each takes the other's call: telephones have no glare, only two calls."""
    async with two(answers=False) as (door, desk):
        await asyncio.gather(door.dial("sip:desk@127.0.0.1"), desk.dial("sip:door@127.0.0.1"))
        await until(lambda: door.rings and desk.rings, "both ring")


class Busy(asyncio.DatagramProtocol):
    """A server that takes no calls now."""

    def __init__(self) -> None:
        self.invites: set[str] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = parse(data)
        assert isinstance(request, Request)
        if request.method == "INVITE":
            self.invites.add(request.call_id)
            self.transport.sendto(request.response(503, "Service Unavailable", tag="busy").serialise(), addr)


@asynccontextmanager
async def busy_server() -> AsyncIterator[tuple[Busy, str]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(Busy, local_addr=("127.0.0.1", 0))
    try:
        yield server, f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    finally:
        transport.close()


async def test_a_server_that_takes_no_calls_is_passed_by() -> None:
    """And each is asked once, where none takes any."""
    here, there = free_port(), free_port()
    async with (
        busy_server() as (busy, address), busy_server() as (busy_too, address_too),
        sip_device("door", account("", port=here, servers=(address, f"127.0.0.1:{there}")), hertz=440) as door,
        sip_device("desk", account(f"127.0.0.1:{here}", port=there), hertz=1000) as desk,
        sip_device("gate", account("", servers=(address, address_too))) as gate,
    ):
        await door.up()
        await door.dial("sip:desk@127.0.0.1")
        await door.connected()
        await desk.hears(440)
        assert len(busy.invites) == 1
        await gate.up()
        await gate.dial("sip:desk@127.0.0.1")
        assert await gate.ended() == "503/provider"
        assert (len(busy.invites), len(busy_too.invites)) == (2, 1)
