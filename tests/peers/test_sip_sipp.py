"""What no telephone does on demand, by scenarios of a real SIPp."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from appliance.providers import api
from appliance.settings import Secret
from appliance.vocabulary import KeyMethod
from tests.support.sip_device import VOICE, account, sip_device
from tests.support.sipp import sipp
from tests.support.waiting import until

pytestmark = pytest.mark.peer


async def test_early_media_are_heard_before_the_answer(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "early", hertz=1000) as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        await until(lambda: door.of(api.EarlyMedia), f"early media; {door.told}")
        await door.hears(1000)
        assert not door.of(api.Accepted)
        await door.connected()
        await asyncio.sleep(1)
        await door.hears(1000)
        assert not door.of(api.Lost), "no gap"
        await door.hang_up()
        await phone.done()


async def test_of_two_that_answer_one_is_taken_and_the_other_hung_up(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "fork") as phone, sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        await door.connected()
        assert len(door.of(api.Accepted)) == 1
        await door.hang_up()
        await phone.done()


async def test_a_session_that_is_not_refreshed_ends_though_its_sound_goes_on(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "expires", hertz=1000) as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        await door.connected()
        await door.hears(1000)
        assert await door.ended() == "410/mediaLost"
        assert 3.5 < door.when(api.Ended) - door.when(api.Accepted) < 5.5, "a third before the six seconds are over"
        await phone.done()


async def test_a_session_that_is_ours_to_refresh_lives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "appliance.providers.sip.account")
    async with (
        sipp(tmp_path, "refreshed", hertz=1000) as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        await door.connected()
        await until(lambda: len(re.findall(r"in 200 of \d+ UPDATE", caplog.text)) == 2, "refreshed twice")
        await door.hears(1000)
        await door.hang_up()
        await phone.done()


async def test_a_cancel_that_crosses_the_answer_becomes_a_bye(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "race") as phone, sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        await until(lambda: door.of(api.Ringing), "it rings")
        await door.hang_up("487/cancelled")
        assert await door.ended() == "487/cancelled"
        await phone.done()
        assert not door.of(api.Accepted)
        assert not door.provider.legs


async def test_a_cancel_that_comes_after_our_answer_changes_nothing(tmp_path: Path) -> None:
    async with sip_device("door", account("127.0.0.1:9")) as door:
        await door.up()
        async with sipp(tmp_path, "late", target=door.address.removeprefix("sip:")) as phone:
            await until(lambda: door.rings, "it rings")
            await door.connected()
            await door.hears(1000)
            await door.hang_up()
            await phone.done()


async def test_a_nonce_that_is_stale_when_the_answer_comes(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "stale") as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}", password=Secret("secret"))) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        assert await door.ended() == "486/busy"
        await phone.done()


async def test_digits_of_a_telephone_that_knows_no_events_are_heard_in_its_sound(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "early", keys="0123456789*#ABCD") as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        await door.connected()
        await until(lambda: "".join(one.digit for one in door.of(api.Pressed)).startswith("0123456789*#ABCD"),
                    f"digits: {door.of(api.Pressed)}")
        assert {one.method for one in door.of(api.Pressed)} == {KeyMethod.TONES}
        await door.hang_up()


async def test_a_redirection_is_followed_to_the_best_of_its_contacts_and_then_to_the_others(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "moved", calls=3) as phone, sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        assert await door.ended() == "486/busy"
        reason = door.of(api.Ended)[0].reason
        assert "Q.850 17" in reason.message
        assert reason.q850 == 17
        assert reason.sip_reason.startswith("Q.850;cause=17")
        await phone.done()


async def test_a_redirection_does_not_lead_past_the_guards(tmp_path: Path) -> None:
    async with (
        sipp(tmp_path, "diverted") as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}"), sip={"allowed_prefixes": ("+49",)}) as door,
    ):
        await door.up()
        await door.dial("sip:phone@127.0.0.1")
        assert await door.ended() == "403/numberBarred"
        assert door.refused == [("numberBarred", "sip:+442079460000@127.0.0.1")]
        await phone.done()


async def test_ringing_that_must_arrive_is_sent_until_it_is_acknowledged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "appliance.providers.sip.account")
    async with sip_device("door", account("127.0.0.1:9")) as door:
        await door.up()
        door.answers = False
        async with sipp(tmp_path, "prack", target=door.address.removeprefix("sip:")) as phone:
            await until(lambda: "in PRACK" in caplog.text, "acknowledged")
            assert caplog.text.count("out 180") == 2
            await door.rings[0].leg.accept(VOICE)
            await door.connected()
            await door.hears(1000)
            await door.hang_up()
            await phone.done()
            assert caplog.text.count("out 180") == 2, "no more of it"


async def test_a_call_without_a_description_is_agreed_on_while_it_rings(tmp_path: Path) -> None:
    """Ours is in the ringing, which has to arrive (RFC 3262 5); theirs comes with its PRACK, and none with the 200."""
    async with sip_device("door", account("127.0.0.1:9")) as door:
        await door.up()
        async with sipp(tmp_path, "prack_answer", target=door.address.removeprefix("sip:")) as phone:
            await until(lambda: door.rings, "it rings")
            await door.connected()
            await door.hears(1000)
            await door.hang_up()
            await phone.done()


async def test_calls_over_a_network_that_loses(tmp_path: Path) -> None:
    """Of what each side sends and gets 5 % is lost, at the telephone."""
    calls = 25
    async with sip_device("door", account("127.0.0.1:9")) as door:
        await door.up()
        target = door.address.removeprefix("sip:")
        loss = ("-lost", "5", "-l", "1", "-r", "5", "-timeout", "60")
        async with sipp(tmp_path, "many", target=target, calls=calls, more=loss) as phone:
            await phone.done(60)
        assert len(door.rings) == calls
        await until(lambda: not door.provider.legs, "nothing is left of them", 40)
        report = door.provider.state()["accounts"]["trunk"]
        assert (report["strangers"], report["malformed"]) == (0, 0)
