"""Several devices under one identity in a room of a real Janus. From 1.2 on it hands identities on; before (Debian 12),
somebody between adds what it would say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.vocabulary import END_REASONS
from tests.support.janus_between import between
from tests.support.room_device import device, janus
from tests.support.waiting import until

pytestmark = pytest.mark.peer

LEAVE = END_REASONS["0/local"]


async def test_one_identity_is_taken_over_once_in_a_while_and_each_time_is_told(tmp_path: Path) -> None:
    identities: dict[int, Any] = {}
    async with (
        janus(tmp_path) as server, between(server.url, identities=identities) as first,
        between(server.url, identities=identities) as second, between(server.url, identities=identities) as third,
        between(server.url, identities=identities) as fourth,
        device(first.url, "door") as door, device(second.url, "gate") as gate, device(third.url, "twin") as twin,
        device(fourth.url, "third") as other,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        await twin.join(identity="gate")
        await door.sees("Twin")
        assert set(door.members) == set(door.tiles) == {"Twin"}
        assert door.refused == [("takenOver", "gate")]
        await until(lambda: gate.refused == [("takenOver", "gate")], "the one who was there knows it as well")
        await other.join(identity="gate")
        await other.connected()
        await until(lambda: len(identities) == 4, "the server has told of the third")
        await twin.sees("Door")
        assert set(door.members) == {"Twin"}
        assert door.refused == [("takenOver", "gate")]
        assert twin.leg is not None
        await twin.leg.end(LEAVE)
        await door.sees("Third")
        assert set(door.members) == {"Third"}
        assert not any(one.of(api.Ended) for one in (door, gate, other))


async def test_where_no_identities_are_handed_on_both_stand_in_the_roster(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, between(server.url, nameless=True) as way, device(way.url, "door") as door,
        device(server.url, "gate") as gate, device(server.url, "twin") as twin,
    ):
        await door.join()
        await gate.join(identity="gate")
        await twin.join(identity="gate")
        await door.sees("Gate", "Twin")
        assert not door.refused
