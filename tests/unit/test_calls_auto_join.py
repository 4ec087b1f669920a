"""The kiosk's room, on virtual time: when it is joined again, how often, and what ends that."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from appliance.calls.auto_join import AutoJoin, Verdict, verdict
from appliance.calls.terms import Terms
from appliance.providers.api import Ended
from appliance.vocabulary import END_REASONS, Json
from tests.support.calls import House, ScriptedLeg, settle
from tests.support.clock import virtual_time

ROOM = "room:1234"


@asynccontextmanager
async def kiosk(folder: Path, *, online: bool = True, rules: dict[str, Terms] | None = None) -> AsyncIterator[House]:
    async with House(folder, rules=rules) as house:
        house.bulletin.set("net", {"online": online})
        one = AutoJoin(house.controller, house.bulletin, ROOM, jitter=random.Random(1))
        task = asyncio.create_task(one.run(), name="test.autoJoin")
        await settle()
        try:
            yield house
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def told(house: House) -> Json:
    found: Json = house.bulletin.document("device")["autoJoin"]
    return found


async def up(house: House, number: int) -> ScriptedLeg:
    """The leg of this number, connected."""
    assert len(house.provider.legs) == number
    leg = house.provider.legs[-1]
    leg.up()
    await settle()
    assert house.call["state"] == "Connected"
    return leg


async def refused(house: House, key: str) -> None:
    house.provider.legs[-1].peer_does(Ended(END_REASONS[key]))
    await settle()


def test_every_reason_is_judged() -> None:
    found = {key: verdict(reason) for key, reason in END_REASONS.items()}
    for key in ("496/networkLost", "410/mediaLost", "503/provider", "480/unreachable", "408/setupTimeout",
                "487/noAnswer"):
        assert found[key] is Verdict.AGAIN
    for key in ("403/roomFull", "403/outsideSchedule"):
        assert found[key] is Verdict.LATER
    for key in ("0/local", "0/removed", "0/endedForAll", "487/cancelled", "401/token", "403/wrongPin",
                "403/notInvited", "404/noSuchRoom"):
        assert found[key] is Verdict.NOT


@virtual_time
async def test_the_room_is_joined_at_the_start_and_again_when_it_is_lost(tmp_path: Path) -> None:
    async with kiosk(tmp_path) as house:
        await up(house, 1)
        assert told(house) == {"target": ROOM, "isArmed": True, "lastEnd": None}
        await refused(house, "410/mediaLost")
        assert told(house) == {"target": ROOM, "isArmed": True, "lastEnd": "410/mediaLost"}
        assert len(house.provider.legs) == 1
        await asyncio.sleep(1.0)
        await up(house, 2)


@virtual_time
async def test_a_server_that_is_away_is_asked_ever_more_seldom_and_not_written_of(tmp_path: Path) -> None:
    async with kiosk(tmp_path) as house:
        loop = asyncio.get_running_loop()
        tried = [loop.time()]
        for number in range(1, 12):
            assert len(house.provider.legs) == number
            await refused(house, "503/provider")
            house.provider.dialled.clear()
            await house.provider.dialled.wait()
            tried.append(loop.time())
        pauses = [later - before for before, later in pairwise(tried)]
        assert 0.5 <= pauses[0] <= 1
        assert all(30 <= pause <= 60 for pause in pauses[7:])
        assert max(pauses[7:]) - min(pauses[7:]) > 1  # not all devices at the same moment
        assert not house.posted("call.stateChanged")
        assert not house.posted("call.ended")
        assert not house.records.past
        await up(house, 12)
        assert [one["to"] for one in house.posted("call.stateChanged")] == ["Connected"]
        await refused(house, "410/mediaLost")
        assert [record["endReason"]["subCode"] for record in house.records.past] == ["mediaLost"]
        await asyncio.sleep(1.0)  # and quick again
        await up(house, 13)


@virtual_time
@pytest.mark.parametrize("key", ["0/removed", "0/endedForAll", "403/wrongPin", "404/noSuchRoom", "401/token"])
async def test_what_waiting_does_not_mend_ends_it(tmp_path: Path, key: str) -> None:
    async with kiosk(tmp_path) as house:
        await refused(house, key)
        assert told(house) == {"target": ROOM, "isArmed": False, "lastEnd": key}
        await asyncio.sleep(7200)
        assert len(house.provider.legs) == 1


@virtual_time
async def test_left_by_hand_it_is_let_be_until_somebody_joins_again(tmp_path: Path) -> None:
    async with kiosk(tmp_path) as house:
        await up(house, 1)
        await house.give("room.leave")
        await settle()
        assert told(house) == {"target": ROOM, "isArmed": False, "lastEnd": "0/local"}
        await asyncio.sleep(7200)
        assert len(house.provider.legs) == 1
        joining = house.giving("room.join", target="1234")
        await settle()
        await up(house, 2)
        await joining
        assert told(house)["isArmed"]
        await refused(house, "496/networkLost")
        await asyncio.sleep(1.0)
        await up(house, 3)


@virtual_time
async def test_hung_up_while_it_joins_is_left_by_hand_too(tmp_path: Path) -> None:
    async with kiosk(tmp_path) as house:
        assert house.call["state"] == "Connecting"
        await house.give("call.hangup")
        await settle()
        assert told(house) == {"target": ROOM, "isArmed": False, "lastEnd": "487/cancelled"}


@virtual_time
async def test_offline_it_stays_armed_and_tries_nothing(tmp_path: Path) -> None:
    async with kiosk(tmp_path, online=False) as house:
        await asyncio.sleep(86_400)
        assert not house.provider.legs
        assert told(house)["isArmed"]
        house.bulletin.set("net", {"online": True})
        await asyncio.sleep(1.0)
        await up(house, 1)


@virtual_time
async def test_another_call_is_not_disturbed(tmp_path: Path) -> None:
    async with kiosk(tmp_path, online=False) as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await settle()
        leg = await up(house, 1)
        await dialling
        house.bulletin.set("net", {"online": True})
        await asyncio.sleep(600)
        assert len(house.provider.legs) == 1
        leg.peer_does(Ended(END_REASONS["0/remote"]))
        await asyncio.sleep(1.0)
        assert house.provider.targets[-1].uri == ROOM
        await up(house, 2)


@virtual_time
async def test_a_room_that_is_not_open_yet_is_joined_when_it_opens(tmp_path: Path) -> None:
    async with kiosk(tmp_path, rules={ROOM: Terms(opens=1000.0)}) as house:
        await asyncio.sleep(3600)
        assert not house.provider.legs
        assert told(house) == {"target": ROOM, "isArmed": True, "lastEnd": "403/outsideSchedule"}
        house.wall = 1000.0
        async with asyncio.timeout(60):
            await house.provider.dialled.wait()
        await up(house, 1)


@virtual_time
async def test_another_room_of_the_settings_is_armed(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        one = AutoJoin(house.controller, house.bulletin, "", jitter=random.Random(1))
        task = asyncio.create_task(one.run(), name="test.autoJoin")
        await settle()
        assert house.bulletin.document("device")["autoJoin"] is None
        one.configure("room:desk")
        await settle()
        assert house.provider.targets[-1].uri == "room:desk"
        one.configure("")
        assert not house.studio.warm  # the camera opens with the room, not with each try
        await refused(house, "503/provider")
        await asyncio.sleep(600)
        assert len(house.provider.legs) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
