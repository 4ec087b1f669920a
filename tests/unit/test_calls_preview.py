"""A look at oneself without a call, on virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.calls.preview import LONGEST_S
from appliance.errors import Refused
from appliance.media.api import Tone
from appliance.media.layout import SELF
from appliance.providers.api import Peer
from hw.api import DeviceMissingError
from tests.support.calls import House, in_room, settle
from tests.support.clock import virtual_time


def shown(house: House) -> bool:
    return [seat.source for seat in house.studio.seats] == [SELF]


@virtual_time
async def test_it_clicks_shows_oneself_alone_and_ends_by_itself(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.give("preview.start")
        assert (shown(house), house.studio.looking, house.studio.tones) == (True, True, [Tone.CAMERA])
        assert house.studio.layout["actual"] == "preview"
        await asyncio.sleep(LONGEST_S - 1)
        await house.give("preview.start")  # longer, without another click
        await asyncio.sleep(LONGEST_S - 1)
        assert (shown(house), house.studio.looking, house.studio.tones) == (True, True, [Tone.CAMERA])
        await asyncio.sleep(2)
        assert (shown(house), house.studio.looking) == (False, False)
        assert house.studio.layout["actual"] == "grid"
        await house.give("preview.start")
        await house.give("preview.stop")
        await house.give("preview.stop")
        assert (shown(house), house.studio.looking) == (False, False)


@virtual_time
async def test_a_call_ends_it_and_in_a_call_there_is_none(tmp_path: Path) -> None:
    async with House(tmp_path, allow_unknown=True) as house:
        await house.give("preview.start")
        house.provider.call_in(Peer("olga", "operator:olga", "Olga"))
        await settle()
        assert (shown(house), house.studio.looking, house.studio.warm) == (False, False, True)
        with pytest.raises(Refused) as refused:
            await house.give("preview.start")
        assert refused.value.key == "409/inCall"
        await house.give("call.reject")
        await settle()
        await house.give("preview.start")
        assert shown(house)
        await in_room(house)
        assert (shown(house), house.studio.looking) == (False, False)


@virtual_time
async def test_what_is_missing_is_said_and_leaves_nothing_open(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        house.studio.blind = True
        with pytest.raises(DeviceMissingError, match="unplugged"):
            await house.give("preview.start")
        assert (shown(house), house.studio.looking, house.studio.tones) == (False, False, [])
        house.studio.shows = False
        with pytest.raises(Refused, match="no screen") as refused:
            await house.give("preview.start")
        assert refused.value.key == "501/FeatureNotSupported"
