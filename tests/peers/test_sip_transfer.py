"""Calls that are handed on, through a real Kamailio: to and by a real baresip, and to and by a real SIPp."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.providers.sip.refer import Replaces
from appliance.providers.sip.transfer import TransferableLeg
from tests.peers.test_sip_kamailio import PHONE_HERTZ, door_at, phone_at, proxy
from tests.support.baresip import Baresip
from tests.support.kamailio import Kamailio
from tests.support.sip_device import SipDevice, sip_device
from tests.support.sipp import sipp
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DOOR_HERTZ, DESK_HERTZ = 440, 700


@asynccontextmanager
async def device(server: Kamailio, folder: Path, name: str, hertz: int) -> AsyncIterator[SipDevice]:
    settings = door_at(server, "udp", folder, address=f"sip:{name}@example.test")
    async with sip_device(name, settings, hertz=hertz) as made:
        await made.up()
        yield made


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[tuple[SipDevice, SipDevice, Baresip]]:
    """A door and a desk of ours, and a telephone."""
    async with (
        proxy(folder, free="phone") as server, phone_at(server, folder) as phone,
        device(server, folder, "door", DOOR_HERTZ) as door, device(server, folder, "desk", DESK_HERTZ) as desk,
    ):
        yield door, desk, phone


async def hand_on(device: SipDevice, who: str, *, attended: bool = False) -> None:
    assert device.leg is not None
    await device.leg.transfer(api.Target("sip", f"{who}@example.test"), attended=attended)


async def test_we_hand_a_telephone_on(tmp_path: Path) -> None:
    async with house(tmp_path) as (door, desk, phone):
        await door.dial("sip:phone@example.test")
        await door.connected()
        await hand_on(door, "desk")
        await desk.connected()
        await door.hang_up("0/transferred")
        assert await door.ended() == "0/transferred"
        await desk.hears(PHONE_HERTZ)
        await phone.hear(DESK_HERTZ)
        assert desk.rings[0].leg.peer.uri == "sip:phone@example.test"


async def test_to_nobody_and_the_call_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as (door, desk, phone):
        await door.dial("sip:phone@example.test")
        await door.connected()
        with pytest.raises(Refused, match="not handed on") as refused:
            await hand_on(door, "nobody")
        assert refused.value.key == "404/notFound"
        await door.hears(PHONE_HERTZ)
        await phone.hear(DOOR_HERTZ)
        assert not door.of(api.Ended)
        assert not desk.rings


async def test_a_telephone_hands_us_on(tmp_path: Path) -> None:
    async with house(tmp_path) as (door, desk, phone):
        await door.dial("sip:phone@example.test")
        await door.connected()
        leg = door.leg
        assert leg is not None
        await phone.tell("transfer", "sip:desk@example.test")
        await until(lambda: door.of(api.Transferred), f"handed on; {door.told}")
        assert door.of(api.Transferred)[0].peer.uri == "sip:desk@example.test"
        await phone.until("CALL_CLOSED")
        await desk.connected()
        await desk.hears(DOOR_HERTZ)
        await door.hears(DESK_HERTZ)
        assert len(await leg.replaced()) == 1, "the statistics of the call before"
        assert leg.peer.identity == "desk"
        await desk.hang_up()
        assert await door.ended() == "0/remote"
        assert not door.provider.legs


async def test_a_caller_that_nobody_vouches_for_sends_us_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "appliance.providers.sip.account")
    async with house(tmp_path) as (door, desk, phone):
        await phone.tell("dial", "sip:door@example.test")
        await door.connected()
        await phone.tell("transfer", "sip:desk@example.test")
        await until(lambda: "out 403" in caplog.text, "refused")
        await phone.until("TRANSFER_FAILED")
        assert await door.ended() == "0/remote", "this baresip hangs up then"
        assert not desk.rings
        assert not door.of(api.Transferred)


async def test_only_to_somebody_who_has_answered(tmp_path: Path) -> None:
    """Attended: the desk, ours, takes the place of the door at the third, ours too."""
    async with (
        proxy(tmp_path) as server, device(server, tmp_path, "door", DOOR_HERTZ) as door,
        device(server, tmp_path, "desk", DESK_HERTZ) as desk, device(server, tmp_path, "third", 1500) as third,
    ):
        await desk.dial("sip:door@example.test")
        await desk.connected()
        await hand_on(door, "third", attended=True)
        await door.hang_up("0/transferred")
        await until(lambda: desk.of(api.Transferred) and third.of(api.Transferred), "both go on")
        assert third.of(api.Transferred)[0].peer.uri == "sip:desk@example.test"
        assert desk.of(api.Transferred)[0].peer.uri == "sip:third@example.test"
        await desk.hears(1500)
        await third.hears(DESK_HERTZ)
        assert len(third.rings) == 1, "it has rung once"
        assert not door.provider.legs
        await third.hang_up()
        assert await desk.ended() == "0/remote"


async def test_who_does_not_want_it_leaves_the_call_where_it_is(tmp_path: Path) -> None:
    async with house(tmp_path) as (door, desk, phone):
        desk.answers = False
        await door.dial("sip:phone@example.test")
        await door.connected()
        handing = asyncio.ensure_future(hand_on(door, "desk", attended=True))
        await until(lambda: desk.rings, "the desk rings")
        await desk.hang_up("603/declined")
        with pytest.raises(Refused) as refused:
            await handing
        assert refused.value.key == "603/declined"
        await door.hears(PHONE_HERTZ)
        await phone.hear(DOOR_HERTZ)
        assert not door.of(api.Ended)


async def test_somebody_takes_the_place_of_the_other_side(tmp_path: Path) -> None:
    """Replaces: only the call that it names, with both its tags."""
    async with house(tmp_path) as (door, _, phone):
        await door.dial("sip:phone@example.test")
        await door.connected()
        leg = door.leg
        assert isinstance(leg, TransferableLeg)
        dialog = leg._leg.call.dialog
        assert dialog is not None
        named = Replaces(dialog.call_id, dialog.local.tag, dialog.remote.tag)
        target = door.address.removeprefix("sip:")
        wrong = Replaces(dialog.call_id, dialog.local.tag, "wrong")
        async with sipp(tmp_path, "stranger", target=target, more=("-key", "replaces", str(wrong))) as stranger:
            await stranger.done()
        assert not door.of(api.Transferred)
        keys = ("-key", "replaces", str(named))
        async with sipp(tmp_path, "replaces", hertz=1300, target=target, more=keys) as other:
            await until(lambda: door.of(api.Transferred), f"taken over; {door.told}")
            await phone.until("CALL_CLOSED")
            await door.hears(1300)
            assert not door.rings, "nothing rings"
            await door.hang_up()
            await other.done()


@pytest.mark.parametrize("early_only", [False, True])
async def test_somebody_takes_the_place_of_who_has_not_answered_yet(tmp_path: Path, early_only: bool) -> None:
    """Only at the end that calls: whoever rings is not to be picked up by others so (RFC 3891 3)."""
    async with house(tmp_path) as (door, desk, _):
        desk.answers = False
        await door.dial("sip:desk@example.test")
        await until(lambda: door.of(api.Ringing) and desk.rings, f"it rings; {door.told}")
        leg, rung = door.leg, desk.rings[0].leg
        assert isinstance(leg, TransferableLeg) and isinstance(rung, TransferableLeg)
        dialog = rung._leg.call._dialog_with(leg._leg.call.tag)
        assert dialog is not None
        at_desk = Replaces(dialog.call_id, dialog.local.tag, dialog.remote.tag, early_only)
        async with sipp(tmp_path, "stranger", target=desk.address.removeprefix("sip:"),
                        more=("-key", "replaces", str(at_desk))) as stranger:
            await stranger.done()
        assert not desk.of(api.Ended)
        at_door = Replaces(dialog.call_id, dialog.remote.tag, dialog.local.tag, early_only)
        async with sipp(tmp_path, "replaces", hertz=1300, target=door.address.removeprefix("sip:"),
                        more=("-key", "replaces", str(at_door))) as other:
            await door.connected()
            told = [type(event) for _, event in door.told if not isinstance(event, api.EarlyMedia)]
            assert told[-3:] == [api.Accepted, api.Transferred, api.Connected]
            assert await desk.ended() == "487/cancelled"
            await door.hears(1300)
            await door.hang_up()
            await other.done()
        assert not door.provider.legs


async def test_who_has_answered_is_not_replaced_where_only_an_early_call_is_meant(tmp_path: Path) -> None:
    async with house(tmp_path) as (door, _, phone):
        await door.dial("sip:phone@example.test")
        await door.connected()
        leg = door.leg
        assert isinstance(leg, TransferableLeg)
        dialog = leg._leg.call.dialog
        assert dialog is not None
        named = Replaces(dialog.call_id, dialog.local.tag, dialog.remote.tag, early_only=True)
        async with sipp(tmp_path, "busy", target=door.address.removeprefix("sip:"),
                        more=("-key", "replaces", str(named))) as other:
            await other.done()
        assert not door.of(api.Transferred)
        await phone.hear(DOOR_HERTZ)
