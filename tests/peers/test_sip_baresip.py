"""Calls with a real baresip, the tone of each side verified at the other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.vocabulary import KeyMethod
from tests.support.baresip import Baresip, baresip
from tests.support.house import house, start_of
from tests.support.lag import lateness
from tests.support.lossy_line import lossy_line
from tests.support.sip_device import SipDevice, account, sip_device
from tests.support.waiting import until, until_true

pytestmark = pytest.mark.peer

DEVICE_HERTZ, PHONE_HERTZ = 440, 1000
DIGITS = "0123456789*#ABCD"


@asynccontextmanager
async def phone_and_door(
    folder: Path, codec: str = "opus/48000/2", *, answers: str = "auto", encrypt: bool = False,
    config: Sequence[str] = (), **door: Any
) -> AsyncIterator[tuple[Baresip, SipDevice]]:
    line = f"<sip:phone@127.0.0.1>;regint=0;audio_codecs={codec};answermode={answers}"
    async with (
        baresip(folder / "phone", line, hertz=PHONE_HERTZ, config=config) as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}", **door), hertz=DEVICE_HERTZ, encrypt=encrypt) as made,
    ):
        await made.up()
        yield phone, made


def keys_at(phone: Baresip) -> str:
    return "".join(str(one["param"]) for one in phone.events if one["type"] == "CALL_DTMF_START")


async def call(phone: Baresip, door: SipDevice) -> None:
    await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
    await door.connected()
    await door.hears(PHONE_HERTZ)


@pytest.mark.parametrize("codec", ["opus/48000/2", "G722/16000/1", "PCMA/8000/1", "PCMU/8000/1"])
async def test_we_call_and_both_hear_each_other(tmp_path: Path, codec: str) -> None:
    async with phone_and_door(tmp_path, codec) as (phone, door), lateness() as late:
        begun = asyncio.get_running_loop().time()
        await call(phone, door)
        assert door.when(api.Connected) - begun < 1 + late()
        await phone.hear(DEVICE_HERTZ)
        await door.hang_up()
        await phone.until("CALL_CLOSED")
        assert await door.ended() == "0/local"


@pytest.mark.parametrize("codec", ["opus/48000/2", "PCMU/8000/1"])
async def test_it_calls_us_and_hangs_up(tmp_path: Path, codec: str) -> None:
    async with phone_and_door(tmp_path, codec, trust_caller_id=True) as (phone, door):
        await phone.tell("dial", door.address)
        await phone.until("CALL_ESTABLISHED")
        await door.connected()
        (ring,) = door.rings
        assert (ring.leg.peer.uri, ring.leg.peer.verified) == ("sip:phone@127.0.0.1", True)
        assert "CALL_RINGING" in phone.told
        await door.hears(PHONE_HERTZ)
        await phone.hear(DEVICE_HERTZ)
        await phone.tell("hangup")
        assert await door.ended() == "0/remote"


@pytest.mark.parametrize("we_call", [True, False])
async def test_reports_go_by_the_port_of_the_sound(tmp_path: Path, we_call: bool) -> None:
    async with phone_and_door(tmp_path, config=("rtcp_mux yes",)) as (phone, door):
        if we_call:
            await call(phone, door)
        else:
            await phone.tell("dial", door.address)
            await door.connected()
        leg = door.leg
        assert leg is not None

        async def reported() -> bool:
            report = {one["type"]: one for one in await leg.stats()}
            return "roundTripTime" in report.get("remote-inbound-rtp", {})

        await until_true(reported, "reports of both, one about the other", 15)
        told = "".join(phone.log)
        assert told.count("a=rtcp-mux") >= 2, "in the offer and in the answer"


async def test_a_call_for_nobody_we_are_rings_nowhere(tmp_path: Path) -> None:
    """Not even an answer: scanners find nothing."""
    async with phone_and_door(tmp_path, trusted=("192.0.2.0/24",)) as (phone, door):
        host = door.address.partition("@")[2]
        await phone.tell("dial", f"sip:100@{host}")
        await until(lambda: door.provider.state()["accounts"]["trunk"]["strangers"] > 1, "the INVITE came, twice")
        assert not door.rings
        assert "CALL_RINGING" not in phone.told
        await phone.tell("dial", door.address)
        await phone.until("CALL_ESTABLISHED")


async def test_digits_go_both_ways(tmp_path: Path) -> None:
    async with phone_and_door(tmp_path, "PCMU/8000/1") as (phone, door):
        await call(phone, door)
        assert door.leg is not None
        await door.leg.press(DIGITS, 0.1)
        await until(lambda: keys_at(phone) == DIGITS, f"all digits at baresip: {phone.events}")
        await phone.tell("sndcode", "1")
        await phone.tell("sndcode", "#")
        await until(lambda: [one.digit for one in door.of(api.Pressed)] == ["1", "#"], "digits at the door")
        await phone.hear(DEVICE_HERTZ)


async def test_digits_by_sip_are_understood(tmp_path: Path) -> None:
    async with phone_and_door(tmp_path, "PCMU/8000/1") as (phone, door):
        await call(phone, door)
        assert door.leg is not None
        await door.leg.press(DIGITS, 0.1, KeyMethod.INFO)
        await until(lambda: re.findall("received (?:SIP INFO )?DTMF: '(.)'", "".join(phone.log)) == list(DIGITS),
                    "all at baresip (1.1 words it another way)")
        await phone.hear(DEVICE_HERTZ)


@pytest.mark.parametrize("codec", ["PCMU/8000/1", "opus/48000/2"])
async def test_all_digits_go_both_ways_though_every_thirtieth_packet_is_lost(tmp_path: Path, codec: str) -> None:
    """Three in a hundred, of sound and digits alike."""
    async with (
        baresip(tmp_path / "phone", f"<sip:phone@127.0.0.1>;regint=0;audio_codecs={codec};answermode=auto") as phone,
        lossy_line(phone.port, 0.03) as line,
        sip_device("door", account(f"127.0.0.1:{line.port}")) as door,
    ):
        await door.up()
        await door.dial(f"sip:phone@127.0.0.1:{line.port}")
        await door.connected()
        assert door.leg is not None
        pressing = asyncio.create_task(door.leg.press(DIGITS * 2, 0.1))
        for digit in DIGITS * 2:
            await phone.tell("sndcode", digit)
            await asyncio.sleep(0.2)  # as fast as people
        await pressing
        await until(lambda: keys_at(phone) == DIGITS * 2, f"all digits at baresip: {keys_at(phone)}")
        await until(lambda: "".join(one.digit for one in door.of(api.Pressed)) == DIGITS * 2,
                    f"all digits at the door: {door.of(api.Pressed)}")
        assert line.lost > line.carried * 0.015, f"{line.lost} of {line.carried}"


async def test_we_hold_and_resume(tmp_path: Path) -> None:
    async with phone_and_door(tmp_path) as (phone, door), lateness() as late:
        await call(phone, door)
        await phone.hear(DEVICE_HERTZ)
        assert door.leg is not None
        await door.leg.set_media(api.MediaWanted(False, False, False, False))
        await door.leg.tell(muted=False, held=True, video=False)
        await door.hears_nothing()
        await until(lambda: phone.hears()[1] < -60 or phone.stands(), "nothing of us at baresip")
        await door.leg.set_media(api.MediaWanted(send_video=False, receive_video=False))
        await door.leg.tell(muted=False, held=False, video=False)
        resumed, late_before = asyncio.get_running_loop().time(), late()
        await door.hears(PHONE_HERTZ)
        await phone.hear(DEVICE_HERTZ)
        assert asyncio.get_running_loop().time() - resumed < 2 + late() - late_before
        assert not door.of(api.Ended)


async def test_it_holds_and_resumes(tmp_path: Path) -> None:
    """This baresip decodes nothing any more after a hold of its own, so its receiver reports tell what it got."""
    async with phone_and_door(tmp_path) as (phone, door):
        await call(phone, door)
        await phone.hear(DEVICE_HERTZ)
        await phone.tell("hold")
        await until(lambda: [one.held for one in door.of(api.Held)] == [True], "held")
        await phone.reports(2)
        before = phone.received
        await phone.reports(2)
        assert phone.received - before < 5, "nothing but signs of life"
        await phone.tell("resume", believed=False)  # baresip 1.1 does it, and says that it cannot
        await until(lambda: [one.held for one in door.of(api.Held)] == [True, False], "resumed")
        await door.hears(PHONE_HERTZ)
        await until(lambda: phone.received - before > 50, "sound arrives at baresip again")


@pytest.mark.parametrize("reason", ["487/cancelled", "487/answeredElsewhere"])
async def test_we_give_up_while_it_rings(tmp_path: Path, reason: str) -> None:
    async with phone_and_door(tmp_path, answers="manual") as (phone, door):
        await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
        await until(lambda: door.of(api.Ringing), "it rings")
        await door.hang_up(reason)
        await phone.until("CALL_CLOSED")
        assert await door.ended() == reason


async def test_it_declines(tmp_path: Path) -> None:
    async with phone_and_door(tmp_path, answers="manual") as (phone, door):
        await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
        await phone.until("CALL_INCOMING")
        await phone.tell("hangup")
        assert await door.ended() in ("486/busy", "603/declined")


async def test_a_codec_that_we_lack_is_refused(tmp_path: Path) -> None:
    async with phone_and_door(tmp_path, "PCMU/8000/1", encrypt=True) as (phone, door):
        await phone.tell("dial", door.address)
        closed = await phone.until("CALL_CLOSED")
        assert "488" in str(closed["param"])
        assert not door.rings
        await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
        assert await door.ended() == "488/noCodec"


async def test_the_whole_appliance_calls_and_is_called_by_command(tmp_path: Path) -> None:
    line = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMA/8000/1;answermode=auto"
    async with baresip(tmp_path / "phone", line, hertz=PHONE_HERTZ) as phone:
        tables = ('[[sip.accounts]]\nname = "trunk"\naddress = "sip:door@127.0.0.1"\nregister = false\n'
                  f'servers = "127.0.0.1:{phone.port}"\ntransport = "udp"\n'
                  'trusted = ["127.0.0.0/8"]\ntrust_caller_id = true\n'
                  '[[book]]\nname = "Phone"\nuris = ["sip:phone@127.0.0.1"]\n')
        settings = {"sip.require_encryption": False, "mqtt.enabled": False}
        async with house(await start_of(tmp_path, settings, tables=tables)) as running:
            await running.until(lambda: running.document("provider").get("providers", {}).get("sip", {}).get(
                "accounts", {}).get("trunk", {}).get("up"))
            answer = await running.give("call.dial", to=f"sip:phone@127.0.0.1:{phone.port}")
            assert answer["result"] == "done", answer
            document = running.document("call")
            assert (document["state"], document["kind"], document["security"]["signalling"]) == (
                "Connected", "PSTN", "UDP")
            await phone.hear(DEVICE_HERTZ)
            pressed = await running.give("call.dtmf", digits="12#")
            assert pressed["result"] == "done", pressed
            await until(lambda: phone.told.count("CALL_DTMF_START") == 3, "three digits at baresip")
            await phone.tell("sndcode", "7")
            await running.until(lambda: any(one.type == "call.dtmf.received" and one.data["digit"] == "7"
                                            for one in running.events))
            held = await running.give("call.hold")
            assert held["result"] == "done"
            assert (await running.give("call.resume"))["result"] == "done"
            assert (await running.give("call.hangup"))["result"] == "done"
            await phone.until("CALL_CLOSED")
            await running.until(lambda: running.document("call")["state"] == "Disconnected")

            contact = running.house.ways.sip._accounts[0].agent.contact()  # type: ignore[union-attr]
            await phone.tell("dial", str(contact.uri))
            await running.until(lambda: running.document("call")["state"] == "Incoming")
            assert running.document("call")["callerInfo"]["displayName"] == "Phone"
            assert (await running.give("call.answer"))["result"] == "done"
            await phone.hear(DEVICE_HERTZ)
            await phone.tell("hangup")
            await running.until(lambda: running.document("call")["state"] == "Disconnected")
            assert running.document("call")["endReason"]["subCode"] == "remote"
