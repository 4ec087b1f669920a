"""Two studios call each other through a bad network: what a call must live through."""

from __future__ import annotations

import asyncio
import time

import pytest

from appliance.media import ice_seam
from appliance.media.api import SessionClosed, SessionSilent, SessionSound, SessionUp
from tests.support.impair import Conditions, relay
from tests.support.media_pair import pair, until


async def test_a_round_trip_of_600_ms_is_no_reason_to_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consent checks that give up before the answer can be there end the call after five of them."""
    monkeypatch.setattr(ice_seam, "CONSENT_INTERVAL", 0.25)
    monkeypatch.setattr(ice_seam, "CONSENT_LIFETIME_S", 2.0)
    async with relay(Conditions(delay_s=0.3)) as between, pair(between=between) as (caller, callee):
        await caller.event(SessionUp, 10)
        await callee.event(SessionUp, 10)
        await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15, what="tones")
        await asyncio.sleep(4.0)  # twice as long as consent lasts: that nothing ends is what is tested
        for end, hertz in ((caller, 1000), (callee, 440)):
            assert not any(isinstance(event, SessionClosed | SessionSilent) for event in end.told), end.told
            assert end.strength(hertz) > 0.15
        report = await caller.session.stats()
        trip = next(entry["roundTripTime"] for entry in report if entry["type"] == "remote-inbound-rtp")
        assert 0.59 < trip < 0.9


async def test_a_round_trip_of_1_5_s_is_set_up_and_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A satellite, or a queue that somebody else keeps full. The times of consent are six times shorter here, and its
    answers still come more than one check late."""
    monkeypatch.setattr(ice_seam, "CONSENT_INTERVAL", 0.8)
    monkeypatch.setattr(ice_seam, "CONSENT_LIFETIME_S", 5.0)
    async with relay(Conditions(delay_s=0.75)) as between, pair(between=between) as (caller, callee):
        await caller.event(SessionUp, 20)
        await callee.event(SessionUp, 20)
        await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15, 10, "tones")
        await asyncio.sleep(7.0)  # longer than consent lasts: that nothing ends is what is tested
        for end, hertz in ((caller, 1000), (callee, 440)):
            assert not any(isinstance(event, SessionClosed | SessionSilent) for event in end.told), end.told
            assert end.strength(hertz) > 0.15


async def test_a_black_out_is_told_in_time_and_so_is_its_end() -> None:
    async with relay() as between, pair(between=between) as (caller, callee):
        await caller.event(SessionUp)
        await callee.event(SessionUp)
        between.change(Conditions(dark=True))
        began = time.monotonic()
        for end in (caller, callee):
            await end.event(SessionSilent, 4)
        assert time.monotonic() - began < 3.6
        between.change(Conditions())
        for end, hertz in ((caller, 1000), (callee, 440)):
            await end.event(SessionSound, 2)
            await until(lambda end=end, hertz=hertz: end.strength(hertz) > 0.15, 3, "the tone is back")
            assert not any(isinstance(event, SessionClosed) for event in end.told)
