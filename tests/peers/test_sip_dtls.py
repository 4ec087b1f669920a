"""Calls with DTLS-SRTP with a telephone of another make: baresip over UDP, with ICE and without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from tests.support.baresip import Baresip, baresip
from tests.support.sip_device import VOICE, SipDevice, account, sip_device
from tests.support.waiting import until, until_true

pytestmark = pytest.mark.peer

DEVICE_HERTZ, PHONE_HERTZ = 440, 1000


@asynccontextmanager
async def phone_and_door(
    folder: Path, codec: str = "opus/48000/2", *, mux: str = "yes", ice: bool = False, **door: Any
) -> AsyncIterator[tuple[Baresip, SipDevice]]:
    line = f"<sip:phone@127.0.0.1>;regint=0;audio_codecs={codec};answermode=auto;mediaenc=dtls_srtp"
    config = ["module dtls_srtp.so", "module ice.so", f"rtcp_mux {mux}"]
    async with (
        baresip(folder / "phone", f"{line};medianat=ice" if ice else line, hertz=PHONE_HERTZ, config=config) as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}", encryption="dtls", **door), hertz=DEVICE_HERTZ,
                   encrypt=True) as made,
    ):
        await made.up()
        yield phone, made


@pytest.mark.parametrize(("codec", "ice"), [("opus/48000/2", False), ("opus/48000/2", True), ("PCMA/8000/1", False)])
async def test_we_call_hold_and_press_keys(tmp_path: Path, codec: str, ice: bool) -> None:
    async with phone_and_door(tmp_path, codec, ice=ice) as (phone, door):
        await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
        await door.connected()
        (up,) = door.of(api.Connected)
        assert up.security["verified"]
        assert up.security["dtlsRole"] == "server", "it is left to the other side to begin"
        await door.hears(PHONE_HERTZ)
        await phone.hear(DEVICE_HERTZ)
        assert door.leg is not None
        transport = next(one for one in await door.leg.stats() if one["type"] == "transport")
        assert transport["iceState"] == "completed"
        await door.leg.set_media(api.MediaWanted(False, False, False, False))
        await door.leg.tell(muted=False, held=True, video=False)
        await door.hears_nothing()
        await door.leg.set_media(VOICE)
        await door.leg.tell(muted=False, held=False, video=False)
        await door.hears(PHONE_HERTZ)
        await phone.hear(DEVICE_HERTZ)
        assert sum("DTLS-SRTP complete" in line for line in phone.log) == 1, "one handshake"
        await door.leg.press("19#", 0.1)
        await until(lambda: [one["param"] for one in phone.events if one["type"] == "CALL_DTMF_START"]
                    == ["1", "9", "#"], f"digits at baresip: {phone.told}")
        await door.hang_up()
        await phone.until("CALL_CLOSED")


@pytest.mark.parametrize("ice", [False, True])
async def test_it_calls_and_hangs_up(tmp_path: Path, ice: bool) -> None:
    async with phone_and_door(tmp_path, ice=ice, trust_caller_id=True) as (phone, door):
        await phone.tell("dial", door.address)
        await phone.until("CALL_ESTABLISHED")
        await door.connected()
        assert door.of(api.Connected)[0].security["dtlsRole"] == "client"
        await door.hears(PHONE_HERTZ)
        await phone.hear(DEVICE_HERTZ)
        await phone.tell("hold")
        await until(lambda: [one.held for one in door.of(api.Held)] == [True], "held")
        await phone.tell("resume", believed=False)  # baresip 1.1 says that it failed
        await until(lambda: [one.held for one in door.of(api.Held)] == [True, False], "resumed")
        await door.hears(PHONE_HERTZ)
        assert sum("DTLS-SRTP complete" in line for line in phone.log) == 1, "one handshake"
        await phone.tell("hangup")
        assert await door.ended() == "0/remote"


async def both_report(phone: Baresip, door: SipDevice) -> None:
    """Each side has told what it hears of the other."""
    leg = door.leg
    assert leg is not None

    async def reported() -> bool:
        return any(one["type"] == "remote-inbound-rtp" and "roundTripTime" in one for one in await leg.stats())

    await until_true(reported, "a report of the telephone, about one of ours", 15)
    await phone.reports(1)


@pytest.mark.parametrize(("we_call", "ice"), [(True, False), (False, False), (True, True), (False, True)])
async def test_reports_go_by_a_port_of_their_own_where_the_telephone_wants_it(
    tmp_path: Path, we_call: bool, ice: bool,
) -> None:
    async with phone_and_door(tmp_path, mux="no", ice=ice, trust_caller_id=True) as (phone, door):
        if we_call:
            await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
        else:
            await phone.tell("dial", door.address)
        await door.connected()
        await door.hears(PHONE_HERTZ)
        await phone.hear(DEVICE_HERTZ)
        await both_report(phone, door)
        await phone.tell("hold")
        await until(lambda: [one.held for one in door.of(api.Held)] == [True], "held")
        await phone.tell("resume", believed=False)
        await until(lambda: [one.held for one in door.of(api.Held)] == [True, False], "resumed")
        await door.hears(PHONE_HERTZ)
        await phone.hear(DEVICE_HERTZ)
        assert sum("DTLS-SRTP complete" in line for line in phone.log) == 2, "one handshake for each port"
        await door.hang_up()
        await phone.until("CALL_CLOSED")
