"""Trunks that call in by a connection of their own, over TCP and TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.settings import SipAccountSettings
from tests.support.baresip import Baresip, baresip
from tests.support.ports import free_port
from tests.support.sip_device import account, sip_device
from tests.support.sipp import sipp
from tests.support.turnserver import Authority
from tests.support.waiting import until

pytestmark = pytest.mark.peer

PHONE = "127.0.0.9"  # whose certificate is for this address


def trunk(folder: Path, **more: Any) -> tuple[SipAccountSettings, str]:
    """Over TLS, at a server that is not there; and what a baresip has to show."""
    authority = Authority(folder)
    certificate, key = authority.issue("127.0.0.1")
    theirs = folder / "phone.pem"
    theirs.write_bytes(b"".join(one.read_bytes() for one in authority.issue(PHONE)))
    return account(f"127.0.0.1:{free_port()}", **{
        "transport": "tls", "port": free_port(), "ca_file": str(authority.file), "cert_file": str(certificate),
        "key_file": str(key), "trusted": (), "trusted_names": (PHONE,), **more}), str(theirs)


async def dial(phone: Baresip, settings: SipAccountSettings) -> None:
    await phone.tell("dial", f"sip:door@127.0.0.1:{settings.port};transport=tls")


def caller(folder: Path, config: list[str]) -> Any:
    line = "<sip:phone@127.0.0.1;transport=tls>;regint=0;audio_codecs=PCMA/8000/1;mediaenc=srtp-mand"
    return baresip(folder / "phone", line, hertz=1000, config=config)


async def test_a_call_over_a_connection_of_theirs(tmp_path: Path) -> None:
    """The server of the account is not there at all: nothing but their connection leads to them."""
    port = free_port()
    async with sip_device("door", account(f"127.0.0.1:{free_port()}", transport="tcp", port=port)) as door:
        await until(lambda: door.troubles, "it listens all the same")
        async with sipp(tmp_path, "caller", target=f"door@127.0.0.1:{port}", more=("-t", "t1")) as phone:
            await until(lambda: door.rings, "it rings")
            await door.connected()
            await door.hears(1000)
            await door.hang_up()
            await phone.done()
        report = door.provider.state()["accounts"]["trunk"]
        assert (report["strangers"], report["malformed"]) == (0, 0)


async def test_over_tls_by_the_name_in_its_certificate(tmp_path: Path) -> None:
    settings, certificate = trunk(tmp_path)
    async with (
        caller(tmp_path, [f"sip_certificate {certificate}"]) as phone,
        sip_device("door", settings, encrypt=True) as door,
    ):
        await until(lambda: door.troubles, "it listens all the same")
        await dial(phone, settings)
        await phone.until("CALL_ESTABLISHED")
        await door.connected()
        security = door.of(api.Connected)[0].security
        assert (security["signalling"], security["verified"]) == ("TLS", True)
        await door.hears(1000)
        await phone.hear(440)
        await door.hang_up()
        await phone.until("CALL_CLOSED")


@pytest.mark.parametrize("shown", ["nothing", "of another"])
async def test_over_tls_without_the_name_nobody_is_there(tmp_path: Path, shown: str) -> None:
    settings, certificate = trunk(tmp_path, trusted_names=("127.0.0.8",))
    config = [] if shown == "nothing" else [f"sip_certificate {certificate}"]
    async with caller(tmp_path, config) as phone, sip_device("door", settings, encrypt=True) as door:
        await until(lambda: door.troubles, "it listens all the same")
        await dial(phone, settings)
        await until(lambda: door.provider.state()["accounts"]["trunk"]["strangers"], "the INVITE came")
        assert not door.rings
        assert "CALL_RINGING" not in phone.told


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with sip_device("door", account(f"127.0.0.1:{free_port()}", transport="tcp", port=port)) as door:
        await until(lambda: door.troubles, "told")
        assert door.troubles["trunk"] == f"calls cannot come in by port {port}: Address already in use"
    taken.close()


async def test_certificates_that_do_not_belong_together_are_told(tmp_path: Path) -> None:
    _, certificate = trunk(tmp_path)
    wrong, _ = trunk(tmp_path, key_file=certificate)
    async with sip_device("door", wrong, encrypt=True) as door:
        assert "its certificates cannot be used" in door.troubles["trunk"]
        assert "sip" in door.provider.state()["capabilities"]
