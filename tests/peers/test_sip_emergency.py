"""The emergency target of the whole appliance is a real telephone, which encrypts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.test_sip_codes import BOOK, appliance, encrypted_account
from tests.peers.test_sip_kamailio import phone_at, proxy

pytestmark = pytest.mark.peer

DEVICE_HERTZ = 440


async def test_it_is_reached_though_it_encrypts_nothing_and_the_device_is_locked_down(tmp_path: Path) -> None:
    async with (
        proxy(tmp_path) as server,
        phone_at(server, tmp_path) as phone,
        appliance(tmp_path, encrypted_account(tmp_path, server) + BOOK.format(uri="sip:phone@example.test"),
                  encrypt=True, sip__calls_per_hour=1, call__emergency_target="Phone") as running,
    ):
        refused = await running.give("call.dial", to="sip:phone@EXAMPLE.test")
        assert (refused["code"], refused["subCode"]) == (488, "noCodec"), "an ordinary call is not made unencrypted"
        assert (await running.give("lockdown.set", on=True))["result"] == "done"
        locked = await running.give("call.dial", to="sip:other@example.test")
        assert (locked["code"], locked["subCode"]) == (403, "lockedDown")
        answer = await running.give("call.dial", to="Phone")
        assert answer["result"] == "done", answer
        call = running.document("call")
        assert (call["state"], call["isEmergency"], call["security"]["verified"]) == ("Connected", True, False)
        await phone.hear(DEVICE_HERTZ)
        assert (await running.give("call.hangup"))["result"] == "done"
        await phone.until("CALL_CLOSED")
