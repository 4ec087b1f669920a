"""Accounts at a real Asterisk, which authenticates, registers, and stands between all that talk through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.settings import MeetingSettings, Secret, SipAccountSettings
from appliance.vocabulary import KeyMethod
from tests.support.asterisk import (
    ASKS_HERTZ,
    DIGITS,
    PASSWORD,
    PIN,
    PLAIN_DTLS,
    SAYS_HERTZ,
    WEBRTC,
    Asterisk,
    asterisk,
)
from tests.support.sip_device import SipDevice, sip_device
from tests.support.turnserver import Authority
from tests.support.waiting import until, until_true

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

DOOR_HERTZ, DESK_HERTZ, THIRD_HERTZ = 440, 700, 1500


def at(server: Asterisk, name: str, transport: str = "udp", **more: Any) -> SipAccountSettings:
    port = server.tls_port if transport == "tls" else server.port
    return SipAccountSettings(**{
        "name": "pbx", "address": f"sip:{name}@127.0.0.1", "servers": (f"127.0.0.1:{port}",), "transport": transport,
        "password": Secret(PASSWORD), "trust_caller_id": True, **more})


@asynccontextmanager
async def house(folder: Path, *names: str) -> AsyncIterator[tuple[Asterisk, list[SipDevice]]]:
    """Up to three devices of ours, which say 440, 700, and 1500 Hz."""
    async with asterisk(folder, *names) as server, AsyncExitStack() as stack:
        devices = []
        for name, hertz in zip(names, (DOOR_HERTZ, DESK_HERTZ, THIRD_HERTZ), strict=False):
            devices.append(await stack.enter_async_context(sip_device(name, at(server, name), hertz=hertz)))
            await devices[-1].up()
        yield server, devices


async def hang_up(device: SipDevice, server: Asterisk) -> None:
    await device.hang_up()
    assert await device.ended() == "0/local"
    await server.free()


@pytest.mark.parametrize("codec", ["opus", "g722", "alaw", "ulaw"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_sound_comes_back_and_comes_in(tmp_path: Path, transport: str, codec: str) -> None:
    tls = Authority(tmp_path).issue("127.0.0.1") if transport == "tls" else None
    more = {"ca_file": str(tmp_path / "authority.crt")} if tls is not None else {}
    async with asterisk(tmp_path / "asterisk", "door", codecs=codec, tls=tls) as server:
        settings = at(server, "door", transport, **more)
        async with sip_device("door", settings, hertz=DOOR_HERTZ, encrypt=tls is not None) as door:
            await door.up()
            await door.dial("sip:echo@127.0.0.1")
            await door.connected()
            await door.hears(DOOR_HERTZ)
            security = door.of(api.Connected)[0].security
            assert security["signalling"] == transport.upper()
            assert ("srtpCipher" in security) is (tls is not None)
            await hang_up(door, server)
            await server.tell("channel originate PJSIP/door extension tone@house")
            await until(lambda: door.rings, "a call comes in")
            await door.connected()
            await door.hears(SAYS_HERTZ)
            await hang_up(door, server)
            assert not door.provider.legs


@pytest.mark.parametrize("codec", ["opus", "alaw"])
async def test_sound_with_dtls_comes_back_and_comes_in(tmp_path: Path, codec: str) -> None:
    tls = Authority(tmp_path).issue("127.0.0.1")
    async with asterisk(tmp_path / "asterisk", "door", codecs=codec, tls=tls, sound=WEBRTC) as server:
        settings = at(server, "door", "tls", ca_file=str(tmp_path / "authority.crt"), encryption="dtls")
        async with sip_device("door", settings, hertz=DOOR_HERTZ, encrypt=True) as door:
            await door.up()
            await door.dial("sip:echo@127.0.0.1")
            await door.connected()
            await door.hears(DOOR_HERTZ)
            security = door.of(api.Connected)[0].security
            assert security["tlsVersion"].startswith("DTLS")
            await hang_up(door, server)
            await server.tell("channel originate PJSIP/door extension keys@house")
            await until(lambda: door.rings, "a call comes in")
            await door.connected()
            await until(lambda: len(door.of(api.Pressed)) >= len(DIGITS), f"keys; {door.of(api.Pressed)}", 20)
            assert all(one.encrypted for one in door.of(api.Pressed))
            await hang_up(door, server)


async def test_reports_come_by_a_port_of_their_own(tmp_path: Path) -> None:
    """As exchanges have it that know DTLS and neither ICE nor RFC 5761."""
    tls = Authority(tmp_path).issue("127.0.0.1")
    async with asterisk(tmp_path / "asterisk", "door", codecs="alaw", tls=tls, sound=PLAIN_DTLS) as server:
        settings = at(server, "door", "tls", ca_file=str(tmp_path / "authority.crt"), encryption="dtls")
        async with sip_device("door", settings, hertz=DOOR_HERTZ, encrypt=True) as door:
            await door.up()
            await door.dial("sip:echo@127.0.0.1")
            await door.connected()
            await door.hears(DOOR_HERTZ)
            await reported(door)
            await hang_up(door, server)
            await server.tell("channel originate PJSIP/door extension tone@house")
            await until(lambda: door.rings, "a call comes in")
            await door.connected()
            await door.hears(SAYS_HERTZ)
            await reported(door)
            await hang_up(door, server)


async def reported(door: SipDevice) -> None:
    """Asterisk has told what it has received."""
    leg = door.leg
    assert leg is not None

    async def found() -> bool:
        return any(one["type"] == "remote-inbound-rtp" and "roundTripTime" in one for one in await leg.stats())

    await until_true(found, "a report of Asterisk", 20)


async def test_a_wrong_password(tmp_path: Path) -> None:
    async with (
        asterisk(tmp_path, "door", algorithms="SHA-256") as server,
        sip_device("door", at(server, "door", password=Secret("wrong"))) as door,
    ):
        await until(lambda: "password" in door.troubles.get("pbx", ""), f"refused; {door.troubles}")


async def test_keys_of_all_kinds_arrive(tmp_path: Path) -> None:
    async with house(tmp_path, "door") as (_, [door]):
        await door.dial("sip:keys@127.0.0.1")
        await door.connected()
        await until(lambda: len(door.of(api.Pressed)) >= len(DIGITS), f"keys; {door.of(api.Pressed)}", 20)
        assert [(one.digit, one.method) for one in door.of(api.Pressed)] == [
            (digit, KeyMethod.EVENTS) for digit in DIGITS]


async def test_a_pin_opens_a_conference_in_which_both_are_heard(tmp_path: Path) -> None:
    async with house(tmp_path, "door", "desk") as (server, [door, desk]):
        for device, tries in ((door, ("1234", PIN)), (desk, (PIN,))):
            await device.dial("sip:meeting@127.0.0.1")
            await device.connected()
            assert device.leg is not None
            for pin in tries:
                await device.hears(ASKS_HERTZ)
                await device.hears_nothing()
                await device.leg.press(f"{pin}#", 0.1)
                await server.said(f"pressed {pin}")
        await door.hears(DESK_HERTZ)
        await desk.hears(DOOR_HERTZ)
        await desk.hang_up()
        await hang_up(door, server)


async def test_held_and_resumed_through_it(tmp_path: Path) -> None:
    """What the desk does is told to the door by a re-INVITE of Asterisk."""
    async with house(tmp_path, "door", "desk") as (server, [door, desk]):
        await door.dial("sip:desk@127.0.0.1")
        await door.connected()
        await desk.connected()
        await door.hears(DESK_HERTZ)
        await desk.hears(DOOR_HERTZ)
        assert desk.leg is not None
        assert desk.rings[0].leg.peer.uri == "sip:door@127.0.0.1"
        await desk.leg.tell(muted=False, held=True, video=False)
        await until(lambda: door.of(api.Held) == [api.Held(True)], f"held; {door.told}")
        await desk.hears_nothing()
        await desk.leg.tell(muted=False, held=False, video=False)
        await until(lambda: door.of(api.Held) == [api.Held(True), api.Held(False)], f"resumed; {door.told}")
        await door.hears(DESK_HERTZ)
        await desk.hears(DOOR_HERTZ)
        await hang_up(door, server)
        assert await desk.ended() == "0/remote"


@pytest.mark.parametrize("attended", [False, True])
async def test_we_hand_a_call_on(tmp_path: Path, attended: bool) -> None:
    async with house(tmp_path, "door", "desk", "third") as (server, [door, desk, third]):
        await door.dial("sip:desk@127.0.0.1")
        await door.connected()
        await desk.connected()
        assert door.leg is not None
        await door.leg.transfer(api.Target("sip", "third@127.0.0.1"), attended=attended)
        await third.connected()
        await door.hang_up("0/transferred")
        assert await door.ended() == "0/transferred"
        await third.hears(DESK_HERTZ, 30)
        await desk.hears(THIRD_HERTZ, 30)
        assert not door.provider.legs
        await hang_up(third, server)
        assert await desk.ended() == "0/remote"


async def test_to_nobody_and_the_call_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path, "door", "desk") as (server, [door, desk]):
        await door.dial("sip:desk@127.0.0.1")
        await door.connected()
        assert door.leg is not None
        with pytest.raises(Refused, match="not handed on"):
            await door.leg.transfer(api.Target("sip", "0@127.0.0.1"), attended=False)
        await door.hears(DESK_HERTZ)
        await desk.hears(DOOR_HERTZ)
        await hang_up(door, server)


async def test_it_sends_us_on(tmp_path: Path) -> None:
    """By REFER; the same call goes on with somebody else."""
    async with house(tmp_path, "door") as (server, [door]):
        await door.dial("sip:sent@127.0.0.1")
        await door.connected()
        await until(lambda: door.of(api.Transferred), "sent on")
        await door.hears(SAYS_HERTZ)
        await server.said("Executing [tone@house:1]")
        assert not any("transferred FAILURE" in line for line in server.log)
        await hang_up(door, server)


@pytest.mark.parametrize(("pressed", "entered"), [(PIN, True), ("1234", False)])
async def test_a_meeting_that_asks_again_is_not_entered(tmp_path: Path, pressed: str, entered: bool) -> None:
    """It asks with a voice, and never hangs up."""
    board = MeetingSettings(name="board", number="sip:hall@127.0.0.1", profile="digits", digits=f"w{pressed}#")
    async with (
        asterisk(tmp_path, "door") as server,
        sip_device("door", at(server, "door"), hertz=DOOR_HERTZ, sip={"meetings": (board,)}) as door,
    ):
        await door.up()
        await door.dial("meeting:board")
        if entered:
            await door.connected(60)
            assert door.of(api.EarlyMedia)
            await hang_up(door, server)
        else:
            assert await door.ended(90) == "403/wrongMeetingId"
            assert not door.of(api.Accepted)
            await server.free()
        assert sum(f"User entered '{pressed}'" in line for line in server.log) == (1 if entered else 2)
