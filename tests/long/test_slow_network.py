"""Ten minutes through a satellite: a round trip of 1.5 s, with the times of consent as they ship."""

from __future__ import annotations

import asyncio

import pytest

from appliance.media import ice_seam
from appliance.media.api import SessionClosed, SessionSilent, SessionUp
from tests.support.impair import Conditions, relay
from tests.support.media_pair import End, marks, pair, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CALL_S = 600
LOOK_S = 5
MINUTE_S = 60
PICTURES = 300
"""In a minute, of 1800. The camera fills a tenth of what the path carries here, so one late report takes the rate down
to that tenth, and at this distance it takes seconds to go up again."""


async def hears(end: End, hertz: float) -> None:
    assert not any(isinstance(event, SessionClosed | SessionSilent) for event in end.told), end.told
    await until(lambda: end.strength(hertz) > 0.15, 15, f"{hertz} Hz")  # the one who tests may be starved of CPU


def sees(end: End, shown: int) -> int:
    """More pictures than the minute before, and in order; returns how many there were."""
    decoded = end.session.video_in.decoded
    assert decoded > shown + PICTURES
    seen = marks(end)
    assert seen == sorted(seen)
    return decoded


async def test_a_round_trip_of_1_5_s_lives_for_ten_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty times as long as consent lasts (RFC 7675: 30 s)."""
    distant = Conditions(delay_s=0.75, jitter_s=0.01, loss=0.0005)
    async with relay(distant, seed=7) as between, pair(between=between) as (caller, callee):
        await caller.event(SessionUp, 20)
        await callee.event(SessionUp, 20)
        shown = [0, 0]
        for looked in range(LOOK_S, CALL_S + 1, LOOK_S):
            await asyncio.sleep(LOOK_S)
            await hears(caller, 1000)
            await hears(callee, 440)
            if looked % MINUTE_S == 0:
                shown = [sees(caller, shown[0]), sees(callee, shown[1])]
        report = await caller.session.stats()
        (path,) = (row for row in report if row["type"] == "candidate-pair")
        assert path["responsesReceived"] > 0.9 * CALL_S / (1.2 * ice_seam.CONSENT_INTERVAL), "consent, all the time"
        assert 1.45 < path["currentRoundTripTime"] < 1.8
    with capsys.disabled():
        print(f"\n  {shown} pictures, round trip {path['currentRoundTripTime']:.2f} s, "
              f"{path['responsesReceived']} checks answered")
