"""Two appliances call each other with DTLS-SRTP; what crosses the network may be changed on its way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.vocabulary import Json
from tests.support.sip_device import VOICE, SipDevice, face_to_face
from tests.support.waiting import until, until_true

DOOR_HERTZ, DESK_HERTZ = 440, 1000
HELD = api.MediaWanted(False, False, False, False)


def two(**desk: Any) -> AbstractAsyncContextManager[tuple[SipDevice, SipDevice]]:
    return face_to_face(door={"encryption": "dtls"}, desk=desk, encrypt=True)


async def call(door: SipDevice, desk: SipDevice) -> None:
    await door.dial("sip:desk@127.0.0.1")
    await door.connected()
    await desk.connected()
    await both_hear(door, desk)


async def both_hear(door: SipDevice, desk: SipDevice) -> None:
    await door.hears(DESK_HERTZ)
    await desk.hears(DOOR_HERTZ)


async def hold(device: SipDevice, *, held: bool) -> None:
    assert device.leg is not None
    await device.leg.set_media(HELD if held else VOICE)
    await device.leg.tell(muted=False, held=held, video=False)


async def held_at(device: SipDevice, held: bool) -> None:
    await until(lambda: [one.held for one in device.of(api.Held)][-1:] == [held], f"held: {held}")


async def report(device: SipDevice, kind: str) -> Json:
    assert device.leg is not None
    return next(one for one in await device.leg.stats() if one["type"] == kind)


def known(device: SipDevice) -> set[str]:
    """Fingerprints of the certificates of the association in use."""
    return {one.fingerprint for session in device.studio._sessions
            for one in session._transport.certificates().values()}


def muxed(device: SipDevice) -> bool:
    """Whether reports go by the port of the sound."""
    (way,) = [way for session in device.studio._sessions for way in session.associations]
    return bool(way.mux)


def between(device: SipDevice, change: Callable[[bytes], bytes]) -> None:
    """Somebody changes what it sends; no length may become another one."""
    flow = device.provider._accounts[0]._flow
    send = flow.send
    flow.send = lambda data, hop, failed: send(change(data), hop, failed)  # type: ignore[method-assign]


async def test_a_call_its_holds_digits_and_its_end_by_one_association() -> None:
    async with two() as (door, desk):
        await call(door, desk)
        (up,) = door.of(api.Connected)
        assert up.security["verified"]
        assert up.security["tlsVersion"] == "DTLSv1.2"
        assert up.security["srtpCipher"].startswith("SRTP_AEAD_AES_")
        transport = await report(door, "transport")
        assert (transport["dtlsState"], transport["iceState"]) == ("connected", "completed")
        before = known(door)
        assert before == known(desk)
        assert len(before) == 2
        for device, other in ((door, desk), (desk, door)):
            await hold(device, held=True)
            await held_at(other, True)
            await other.hears_nothing()
            await hold(device, held=False)
            await both_hear(door, desk)
        assert known(door) == before, "no handshake but the first"
        assert door.leg is not None
        await door.leg.press("12#", 0.1)
        await until(lambda: [one.digit for one in desk.of(api.Pressed)] == ["1", "2", "#"], "digits at the desk")
        assert not desk.of(api.Pressed)[0].encrypted, "whoever changes the signalling can be in between"
        await desk.hang_up()
        assert await door.ended() == "0/remote"
        assert not door.of(api.Lost)
        assert (await report(door, "transport"))["packetsReceived"] > 5, "the last statistics are kept"


async def test_a_certificate_that_signalling_does_not_announce_ends_the_call() -> None:
    async with two() as (door, desk):
        between(desk, lambda data: re.sub(rb"(?<=a=fingerprint:sha-256 )..", b"00", data))
        await door.dial("sip:desk@127.0.0.1")
        assert await door.ended() == "488/dtls"
        (end,) = door.of(api.Ended)
        assert "certificate of the other side is not the one" in end.reason.message
        assert "listen in between" in end.reason.advice
        assert door.refused == [("wrongFingerprint", "desk")]
        assert await desk.ended() == "0/remote"


async def test_another_association_in_the_call_has_other_certificates() -> None:
    """As when a PBX puts somebody else in the place of who was called."""
    async with two() as (door, desk):
        await call(door, desk)
        before = known(door)
        renamed: list[bytes] = []

        def change(data: bytes) -> bytes:
            if not renamed and (found := re.search(rb"a=tls-id:(\w+)", data)):
                renamed.append(found[1])
            return data.replace(renamed[0], renamed[0][::-1]) if renamed else data

        between(desk, change)
        await hold(desk, held=True)
        await held_at(door, True)
        await hold(desk, held=False)
        await held_at(door, False)

        def anew() -> bool:
            now = known(door)
            return bool(now) and now == known(desk) and not before & now

        await until(anew, "both sides have made new ones")
        await both_hear(door, desk)
        assert not door.of(api.Ended)


def without(*names: bytes) -> Callable[[bytes], bytes]:
    """A network that knows nothing of these attributes."""
    def change(data: bytes) -> bytes:
        for name in names:
            data = data.replace(b"\r\na=" + name, b"\r\na=x" + name[1:])
        return data

    return change


async def reported(device: SipDevice) -> None:
    """The other side has told what it has received."""
    leg = device.leg
    assert leg is not None

    async def found() -> bool:
        return any(one["type"] == "remote-inbound-rtp" and "roundTripTime" in one for one in await leg.stats())

    await until_true(found, f"a report at {device.name}", 15)


def ports() -> int:
    """UDP sockets of this process."""
    mine = {str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()}
    rows = [row.split() for name in ("udp", "udp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return sum(f"socket:[{row[9]}]" in mine for row in rows)


@pytest.mark.parametrize("ice", [True, False])
async def test_reports_go_by_a_port_of_their_own_where_the_other_side_knows_no_better(ice: bool) -> None:
    async with two() as (door, desk):
        before = ports()
        for device in (door, desk):
            between(device, without(b"rtcp-mux", *(() if ice else (b"ice-",))))
        await call(door, desk)
        certificates = known(door)
        assert not muxed(door)
        await reported(door)
        await reported(desk)
        for device, other in ((door, desk), (desk, door)):
            await hold(device, held=True)
            await held_at(other, True)
            await hold(device, held=False)
            await both_hear(door, desk)
        assert known(door) == certificates == known(desk), "no handshake but the first ones"
        await desk.hang_up()
        assert await door.ended() == "0/remote"
        await until(lambda: ports() == before, "all ports are given back")


async def test_who_takes_reports_elsewhere_in_the_call_is_sent_them_there() -> None:
    """As when a PBX puts an older telephone in the place of who was called."""
    async with two() as (door, desk):
        await call(door, desk)
        assert muxed(door)
        before, older = known(door), without(b"rtcp-mux")
        for device in (door, desk):
            between(device, older)
        await hold(desk, held=True)
        await held_at(door, True)
        await hold(desk, held=False)
        await held_at(door, False)
        await until(lambda: known(door) == known(desk) and not before & known(door), "another association")
        await both_hear(door, desk)
        assert not muxed(door)
        await reported(door)
        await reported(desk)
        assert not door.of(api.Ended)


async def test_who_refuses_the_profile_with_feedback_is_offered_the_one_without() -> None:
    offers: list[bytes] = []

    def change(data: bytes) -> bytes:
        offers.extend(re.findall(rb"m=audio \d+ (\S+)", data))
        return data.replace(b"RTP/SAVPF", b"RTP/XAVPF")

    async with two() as (door, desk):
        between(door, change)
        await call(door, desk)
        assert list(dict.fromkeys(offers)) == [b"UDP/TLS/RTP/SAVPF", b"UDP/TLS/RTP/SAVP"], "by TCP and by UDP"
        await hold(desk, held=True)
        await held_at(door, True)
        await desk.hang_up()
        assert await door.ended() == "0/remote"
        between(door, lambda data: data.replace(b"RTP/SAVP", b"RTP/XAVP"))
        await door.dial("sip:desk@127.0.0.1")
        assert await door.ended() == "488/noCodec", "that is all that can be done"


async def test_what_comes_of_nothing_leaves_the_call_as_it_was() -> None:
    """An offer of another association, with no codec that is known."""
    async with two() as (door, desk):
        await call(door, desk)
        before = known(door)

        def change(data: bytes) -> bytes:
            if not data.startswith(b"INVITE sip:"):
                return data
            data = re.sub(rb"a=tls-id:....", b"a=tls-id:abcd", data)
            return re.sub(rb"(m=audio \d+ \S+ )(\d[\d ]+)", lambda found: found[1] + b"7" * len(found[2]), data)

        between(desk, change)
        await hold(desk, held=True)
        await hold(desk, held=False)
        await both_hear(door, desk)
        await hold(door, held=True)
        await hold(door, held=False)
        await both_hear(door, desk)
        assert known(door) == before


async def test_a_call_that_is_ended_at_any_moment() -> None:
    async with two() as (door, desk):
        for turns in range(0, 600, 25):
            await door.dial("sip:desk@127.0.0.1")
            for _ in range(turns):
                await asyncio.sleep(0)
            await door.hang_up()
            assert await door.ended() == "0/local"
            await until(lambda: not desk.provider.legs and not door.provider.legs, "both are free")


@pytest.mark.parametrize("encryption", ["sdes", "none"])
async def test_other_offers_are_as_the_account_says(encryption: str) -> None:
    """Of keys in unencrypted signalling nothing is proven."""
    async with two(encryption=encryption) as (door, desk):
        offers: list[bytes] = []

        def keep(data: bytes) -> bytes:
            offers.append(data)
            return data

        between(desk, keep)
        await desk.dial("sip:door@127.0.0.1")
        if encryption == "none":
            assert await desk.ended() == "488/noCodec"
            assert b"RTP/AVP" in offers[0]
        else:
            await desk.connected()
            await both_hear(door, desk)
            assert b"RTP/SAVP" in offers[0]
            assert b"a=crypto:" in offers[0]
