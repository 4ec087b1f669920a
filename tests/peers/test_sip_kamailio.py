"""Accounts at a real Kamailio, which authenticates, registers and forwards; the other telephone is a baresip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.settings import Secret, SipAccountSettings
from tests.support.baresip import Baresip, baresip
from tests.support.kamailio import PASSWORD, WEBSOCKET, Kamailio, kamailio
from tests.support.ports import free_port
from tests.support.sip_device import SipDevice, sip_device
from tests.support.turnserver import Authority
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DEVICE_HERTZ, PHONE_HERTZ = 440, 1000


def door_at(server: Kamailio, transport: str, folder: Path, **more: Any) -> SipAccountSettings:
    encrypted = transport in ("tls", "wss")
    port = server.tls_port if encrypted else server.port
    tls = {"ca_file": str(folder / "authority.crt")} if encrypted else {}
    return SipAccountSettings(**{
        "name": "pbx", "address": "sip:door@example.test", "servers": (f"127.0.0.1:{port}",), "transport": transport,
        "password": Secret(PASSWORD), "path": WEBSOCKET, **tls, **more})


@asynccontextmanager
async def proxy(folder: Path, address: str = "127.0.0.1", **more: Any) -> AsyncIterator[Kamailio]:
    """With a certificate for ``address``, whose authority is in the folder."""
    authority = Authority(folder)
    async with kamailio(folder / "kamailio", tls=authority.issue(address), **more) as server:
        yield server


@asynccontextmanager
async def phone_at(
    server: Kamailio, folder: Path, codec: str = "PCMA/8000/1", more: str = "", *, answers: str = "auto",
) -> AsyncIterator[Baresip]:
    line = (f'<sip:phone@example.test>;auth_pass={PASSWORD};outbound="sip:127.0.0.1:{server.port}";regint=60;'
            f'audio_codecs={codec};answermode={answers}{more}')
    async with baresip(folder / "phone", line, hertz=PHONE_HERTZ) as phone:
        await until(lambda: any("binding" in line for line in phone.log), "registered")  # its event may come too soon
        yield phone


async def talk(phone: Baresip, door: SipDevice) -> None:
    """Both ways round, each side hears the other."""
    await door.dial("sip:phone@example.test")
    await door.connected()
    await door.hears(PHONE_HERTZ)
    await phone.hear(DEVICE_HERTZ)
    await door.hang_up()
    assert await door.ended() == "0/local"
    await phone.until("CALL_CLOSED")
    phone.events.clear()
    await phone.tell("dial", "sip:door@example.test")
    await phone.until("CALL_ESTABLISHED")
    await door.connected()
    assert door.rings[-1].leg.peer.uri == "sip:phone@example.test"
    await door.hears(PHONE_HERTZ)
    await phone.hear(DEVICE_HERTZ)
    await phone.tell("hangup")
    assert await door.ended() == "0/remote"


@pytest.mark.parametrize(("transport", "algorithm"), [("udp", "SHA-256"), ("tcp", "MD5"), ("ws", "SHA-256")])
async def test_registered_calls_and_called(tmp_path: Path, transport: str, algorithm: str) -> None:
    async with (
        proxy(tmp_path, algorithm=algorithm, free="phone") as server, phone_at(server, tmp_path) as phone,
        sip_device("door", door_at(server, transport, tmp_path), hertz=DEVICE_HERTZ) as door,
    ):
        await door.up()
        await talk(phone, door)
        assert not door.rings[-1].leg.peer.verified, "what is asserted in the clear proves nothing"


async def test_of_two_challenges_together_the_one_that_is_known_is_answered(tmp_path: Path) -> None:
    """The first of them is none that we have (RFC 8760 2.4: the topmost that is supported)."""
    other = 'append_to_reply("{}: Digest realm=\\"$fd\\", nonce=\\"f00\\", algorithm={}, qop=\\"auth\\"\\r\\n");'
    both = [other.format(name, "SHA-512") for name in ("WWW-Authenticate", "Proxy-Authenticate")]
    async with (
        proxy(tmp_path, algorithm="SHA-256", free="phone",
              challenging=f"if (is_method(\"REGISTER\")) {both[0]} else {both[1]}") as server,
        phone_at(server, tmp_path) as phone,
        sip_device("door", door_at(server, "udp", tmp_path), hertz=DEVICE_HERTZ) as door,
    ):
        await door.up()
        await talk(phone, door)


async def test_a_number_that_is_withheld(tmp_path: Path) -> None:
    """Nobody is called who rings at the other side, whatever the server asserts."""
    async with (
        proxy(tmp_path, free="anonymous") as server,
        sip_device("door", door_at(server, "udp", tmp_path, withhold_number=True), hertz=DEVICE_HERTZ) as door,
        sip_device("desk", door_at(server, "udp", tmp_path, address="sip:desk@example.test", trust_caller_id=True),
                   hertz=PHONE_HERTZ) as desk,
    ):
        await door.up()
        await desk.up()
        await door.dial("sip:desk@example.test")
        await door.connected()
        await desk.connected()
        caller = desk.rings[0].leg.peer
        assert (caller.display_name, caller.uri, caller.verified) == (
            "Anonymous", "sip:anonymous@anonymous.invalid", False)
        await desk.hears(DEVICE_HERTZ)
        await door.hears(PHONE_HERTZ)
        await door.hang_up()
        assert await desk.ended() == "0/remote"


@pytest.mark.parametrize("transport", ["tls", "wss"])
async def test_over_tls_with_encrypted_sound(tmp_path: Path, transport: str) -> None:
    async with (
        proxy(tmp_path) as server, phone_at(server, tmp_path, "opus/48000/2", ";mediaenc=srtp-mand") as phone,
        sip_device("door", door_at(server, transport, tmp_path), hertz=DEVICE_HERTZ, encrypt=True) as door,
    ):
        await door.up()
        await talk(phone, door)
        assert door.rings[-1].leg.peer.verified, "asserted over TLS"
        security = door.of(api.Connected)[0].security
        assert security["signalling"] == transport.upper()
        assert security["verified"]
        assert security["srtpCipher"].startswith("AES_CM_128_HMAC_SHA1_")


async def test_in_the_clear_where_encryption_is_required(tmp_path: Path) -> None:
    async with (
        proxy(tmp_path) as server, phone_at(server, tmp_path) as phone,
        sip_device("door", door_at(server, "tls", tmp_path), encrypt=True) as door,
    ):
        await door.up()
        await door.dial("sip:phone@example.test")
        assert await door.ended() == "488/noCodec"
        phone.events.clear()
        await phone.tell("dial", "sip:door@example.test")
        assert "488" in str((await phone.until("CALL_CLOSED"))["param"])
        assert not door.rings


async def test_a_wrong_password_and_a_number_that_does_not_exist(tmp_path: Path) -> None:
    async with proxy(tmp_path) as server:
        async with sip_device("door", door_at(server, "udp", tmp_path, password=Secret("wrong"))) as door:
            await until(lambda: door.troubles, "told")
            assert "does not take name or password (SIP 401)" in door.troubles["pbx"]
        async with sip_device("door", door_at(server, "udp", tmp_path)) as door:
            await door.up()
            await door.dial("tel:+4930123456")
            assert await door.ended() == "404/notFound"


@pytest.mark.parametrize("transport", ["tls", "wss"])
async def test_a_certificate_of_another_name_is_refused(tmp_path: Path, transport: str) -> None:
    async with (
        proxy(tmp_path, "192.0.2.7") as server, sip_device("door", door_at(server, transport, tmp_path)) as door,
    ):
        await until(lambda: door.troubles, "told")
        assert "IP address mismatch" in door.troubles["pbx"]


async def test_a_websocket_at_another_path_is_told(tmp_path: Path) -> None:
    async with proxy(tmp_path) as server, sip_device("door", door_at(server, "ws", tmp_path, path="/other")) as door:
        await until(lambda: door.troubles, "told")
        assert door.troubles["pbx"] == "it is no WebSocket server at /other (HTTP 404)"


async def test_nonces_that_grow_stale_cost_nothing_but_time(tmp_path: Path) -> None:
    async with (
        proxy(tmp_path, nonce_s=1) as server, phone_at(server, tmp_path) as phone,
        sip_device("door", door_at(server, "udp", tmp_path), hertz=DEVICE_HERTZ) as door,
    ):
        await door.up()
        await asyncio.sleep(2)  # longer than a nonce lives
        await door.dial("sip:phone@example.test")
        await door.connected()
        await phone.hear(DEVICE_HERTZ)


@pytest.mark.parametrize("transport", ["tcp", pytest.param("udp", marks=pytest.mark.long)])
async def test_a_second_server_takes_over(tmp_path: Path, transport: str) -> None:
    """Over UDP it is the silence of the first one that tells: a sign of life is asked for each 15 s, for 8 s."""
    async with proxy(tmp_path) as first, kamailio(tmp_path / "second") as second:
        servers = (f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}")
        async with (
            sip_device("door", door_at(first, transport, tmp_path, servers=servers), hertz=DEVICE_HERTZ) as door,
            phone_at(second, tmp_path) as phone,
        ):
            await door.up()
            begun = asyncio.get_running_loop().time()
            await first.stop()
            await until(lambda: door.provider.state()["accounts"]["pbx"]["server"] == 2, "at the second", 30)
            await door.up(3)
            assert asyncio.get_running_loop().time() - begun < (3 if transport == "tcp" else 26)
            await talk(phone, door)


async def test_a_trunk_moves_to_its_second_server(tmp_path: Path) -> None:
    """Nothing is at the first; a call without a word tells that sooner than the signs of life."""
    async with proxy(tmp_path, free="door") as server, phone_at(server, tmp_path) as phone:
        gone = f"127.0.0.1:{free_port()}"
        trunk = door_at(server, "udp", tmp_path, servers=(gone, f"127.0.0.1:{server.port}"), register=False,
                        password=Secret(), trusted=("127.0.0.0/8",))
        async with sip_device("door", trunk, hertz=DEVICE_HERTZ) as door:
            await door.up()
            await door.dial("sip:phone@example.test")
            assert await door.ended() == "480/unreachable"
            await door.dial("sip:phone@example.test")  # at once, as the next target of a plan is
            await door.connected()
            assert door.provider.state()["accounts"]["pbx"]["server"] == 2
            await phone.hear(DEVICE_HERTZ)


async def test_a_registrar_that_hangs_is_left_with_the_first_call(tmp_path: Path) -> None:
    """It has registered us, and then says nothing: the call after that is put through the second one."""
    async with proxy(tmp_path) as first, kamailio(tmp_path / "second") as second, phone_at(second, tmp_path) as phone:
        servers = (f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}")
        async with sip_device("door", door_at(first, "udp", tmp_path, servers=servers), hertz=DEVICE_HERTZ) as door:
            await door.up()
            await first.stop()
            begun = asyncio.get_running_loop().time()
            await door.dial("sip:phone@example.test")
            assert await door.ended() == "480/unreachable"
            await door.dial("sip:phone@example.test")
            await door.connected()
            assert asyncio.get_running_loop().time() - begun < 10
            await phone.hear(DEVICE_HERTZ)


@pytest.mark.long
async def test_a_trunk_that_falls_silent_is_told(tmp_path: Path) -> None:
    async with proxy(tmp_path, free="door") as server:
        trunk = door_at(server, "udp", tmp_path, register=False, trusted=("127.0.0.0/8",))
        async with sip_device("door", trunk) as door:
            await door.up()
            await server.stop()
            await until(lambda: door.troubles.get("pbx") == "the server does not answer", "told", 25)
            with pytest.raises(Refused, match="does not answer"):
                await door.dial("sip:phone@example.test")
            await server.start()
            await door.up(20)


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_a_server_that_dies_and_comes_back(tmp_path: Path, transport: str) -> None:
    """Over a connection it is noticed at once. The nonces are not known any more, which is no wrong password."""
    async with (
        proxy(tmp_path) as server, sip_device("door", door_at(server, transport, tmp_path)) as door,
    ):
        await door.up()
        await server.stop()
        await until(lambda: door.troubles, "told", 3)
        with pytest.raises(Refused, match="not reached"):
            await door.dial("sip:phone@example.test")
        await server.start()
        await door.up(10)
        assert not door.troubles
