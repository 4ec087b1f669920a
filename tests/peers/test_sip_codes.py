"""Keys pressed at a real telephone close the relay of the whole appliance, without a broker."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.doors.codes import WRONG
from appliance.vocabulary import Json
from tests.peers.test_sip_kamailio import phone_at, proxy
from tests.support.baresip import Baresip, baresip
from tests.support.house import Running, house, start_of
from tests.support.kamailio import PASSWORD, Kamailio
from tests.support.waiting import until

pytestmark = pytest.mark.peer

PIN = "47110839"  # long enough to stand in no other number of a log
RULE = '[[door.codes]]\nname = "{name}"\nrelay = "door"\nseconds = 1.0\ndirection = "both"\npeers = ["Phone"]\n{more}'
BOOK = '[[book]]\nname = "Phone"\nuris = ["{uri}"]\n'


@asynccontextmanager
async def appliance(folder: Path, tables: str, *, encrypt: bool, **more: str | int) -> AsyncIterator[Running]:
    settings = {"sip.require_encryption": encrypt, "mqtt.enabled": False,
                **{name.replace("__", "."): value for name, value in more.items()}}
    async with house(await start_of(folder, settings, tables=tables)) as running:
        await running.until(lambda: any(
            one["up"] for one in running.document("provider").get("providers", {}).get("sip", {}).get(
                "accounts", {}).values()))
        yield running


def pin_in(folder: Path) -> str:
    path = folder / "door.pin"
    path.write_text(PIN)
    path.chmod(0o600)
    return f'pin_file = "{path}"\n'


def encrypted_account(folder: Path, server: Kamailio) -> str:
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    return ('[[sip.accounts]]\nname = "pbx"\naddress = "sip:door@example.test"\ntrust_caller_id = true\n'
            f'servers = "127.0.0.1:{server.tls_port}"\nca_file = "{folder}/authority.crt"\n'
            f'password_file = "{password}"\n')


async def press(phone: Baresip, keys: str) -> None:
    for key in keys:
        await phone.tell("sndcode", key)


def of(running: Running, kind: str) -> list[Json]:
    return [one.data for one in running.events if one.type == kind]


async def opened(running: Running, rule: str) -> None:
    await running.until(lambda: (rule, "done") in [(one["rule"], one["result"]) for one in of(running, "door.code")])
    await running.until(lambda: [one["closed"] for one in of(running, "io.relay")][-2:] == [True, False])
    assert [one["sender"] for one in of(running, "io.relay")][-2:] == [rule, ""]
    running.events.clear()


async def test_with_tls_and_srtp_the_pin_opens_and_another_one_does_not(tmp_path: Path) -> None:
    async with (
        proxy(tmp_path) as server,
        phone_at(server, tmp_path, more=";mediaenc=srtp-mand") as phone,
        appliance(tmp_path, encrypted_account(tmp_path, server) + BOOK.format(uri="sip:phone@example.test")
                  + RULE.format(name="caretaker", more=pin_in(tmp_path)), encrypt=True) as running,
    ):
        await phone.tell("dial", "sip:door@example.test")
        await running.until(lambda: running.document("call").get("state") == "Incoming")
        assert (await running.give("call.answer"))["result"] == "done"
        await press(phone, "4711#")
        await running.until(lambda: of(running, "door.code"))
        (told,) = of(running, "door.code")
        assert (told["result"], told["subCode"]) == ("rejected", "wrongPin")
        assert [one["why"] for one in of(running, "security.refused")] == ["wrongPin"]
        assert of(running, "io.relay") == []
        await press(phone, PIN + "#")
        await running.until(lambda: any(one["result"] == "done" for one in of(running, "door.code")))
        assert all(one["digit"] is None for one in of(running, "call.dtmf.received"))
        assert PIN not in json.dumps([one.data for one in running.events if one.type != "call.dtmf.received"])
        await opened(running, "caretaker")
        await phone.tell("hangup")


async def test_without_encryption_only_the_rule_that_says_so_opens(tmp_path: Path) -> None:
    line = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMA/8000/1;answermode=auto"
    async with (
        baresip(tmp_path / "phone", line) as phone,
        appliance(tmp_path, (
            '[[sip.accounts]]\nname = "trunk"\naddress = "sip:door@127.0.0.1"\nregister = false\n'
            f'servers = "127.0.0.1:{phone.port}"\ntransport = "udp"\ntrusted = ["127.0.0.0/8"]\n'
            + BOOK.format(uri=f"sip:phone@127.0.0.1:{phone.port}")
            + RULE.format(name="caretaker", more=pin_in(tmp_path))
            + RULE.format(name="reception", more='code = "*5"\nwithout_pin = true\nallow_plain = true\n')),
            encrypt=False) as running,
    ):
        assert (await running.give("call.dial", to="Phone"))["result"] == "done"
        await press(phone, PIN + "#")
        await running.until(lambda: of(running, "door.code"))
        (told,) = of(running, "door.code")
        assert (told["rule"], told["code"], told["subCode"]) == ("caretaker", 403, "notEncrypted")
        assert "allow_plain" in told["message"]
        await press(phone, "*5")
        await opened(running, "reception")
        await running.give("call.hangup")
        await until(lambda: "CALL_CLOSED" in phone.told, "hung up")


async def test_whoever_guesses_is_locked_out_and_told_and_a_restart_forgets_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    line = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMA/8000/1;answermode=auto"
    async with baresip(tmp_path / "phone", line) as phone:
        tables = ('[[sip.accounts]]\nname = "trunk"\naddress = "sip:door@127.0.0.1"\nregister = false\n'
                  f'servers = "127.0.0.1:{phone.port}"\ntransport = "udp"\ntrusted = ["127.0.0.0/8"]\n'
                  + BOOK.format(uri=f"sip:phone@127.0.0.1:{phone.port}")
                  + RULE.format(name="caretaker", more=pin_in(tmp_path) + "allow_plain = true\n"))
        async with appliance(tmp_path, tables, encrypt=False, sip__calls_per_target=2) as running:
            assert (await running.give("call.dial", to="Phone"))["result"] == "done"
            await press(phone, "0000#" * WRONG)
            await running.until(lambda: running.raised("tamper"), 30)
            assert "caretaker" in running.document("diag")["tamper"]["detail"]["what"]
            await press(phone, PIN + "#")
            await running.until(lambda: of(running, "door.code")[-1]["subCode"] == "locked")
            assert [one["subCode"] for one in of(running, "door.code")] == ["wrongPin"] * WRONG + ["locked"]
            assert of(running, "io.relay") == []
            await running.give("call.hangup")
        phone.events.clear()
        async with appliance(tmp_path, tables, encrypt=False, sip__calls_per_target=2) as running:
            await running.until(lambda: running.raised("tamper"))
            assert (await running.give("call.dial", to="Phone"))["result"] == "done"
            await press(phone, PIN + "#")
            await running.until(lambda: of(running, "door.code"))
            assert [one["subCode"] for one in of(running, "door.code")] == ["locked"]
            assert of(running, "io.relay") == []
            await running.give("call.hangup")
            answer = await running.give("call.dial", to="Phone")
            assert (answer["code"], answer["subCode"]) == (429, "callLimit"), "the third one in this hour"
    assert PIN not in caplog.text
