"""Two studios call each other through a bad network: what a call must live through."""

from __future__ import annotations

import asyncio
import time

import pytest

from appliance.media import ice_seam
from appliance.media.api import SessionClosed, SessionSilent, SessionSound, SessionUp
from tests.support.impair import Conditions, relay
from tests.support.media_board import HandAudio, HandBoard
from tests.support.media_pair import End, goertzel, pair, until

BLOCKS_S = 100
"""Blocks of the loudspeaker in a second."""


def filled(end: End, hertz: float, seconds: float) -> float:
    """Share of the last seconds, in steps of 20 ms, in which a tone of the other end sounds."""
    assert end.board.audio is not None
    blocks = end.board.audio.played[-round(seconds * BLOCKS_S):]
    steps = [b"".join(blocks[place:place + 2]) for place in range(0, len(blocks) - 1, 2)]
    return sum(goertzel(step, hertz) > 0.02 for step in steps) / len(steps)


def talker(hertz: float) -> HandBoard:
    board = HandBoard()
    board.audio = HandAudio(hertz, swing=0.7)
    return board


async def round_trip(end: End) -> float:
    """Seconds, once the peer's first report has come."""
    async with asyncio.timeout(10):
        while True:
            for entry in await end.session.stats():
                if entry["type"] == "remote-inbound-rtp" and "roundTripTime" in entry:
                    return float(entry["roundTripTime"])
            await asyncio.sleep(0.1)


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
        assert 0.59 < await round_trip(caller) < 0.9


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
    async with relay() as between, pair(between=between, first=talker(440), second=talker(1000)) as (caller, callee):
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
            await until(lambda end=end, hertz=hertz: end.strength(hertz) > 0.08, 3, "the tone is back")
            assert not any(isinstance(event, SessionClosed) for event in end.told)


async def test_ten_per_cent_of_loss_leave_the_sound_whole() -> None:
    async with relay(seed=4) as between, pair(between=between, first=talker(440), second=talker(1000)) as both:
        caller, callee = both
        await until(lambda: caller.strength(1000) > 0.08 and callee.strength(440) > 0.08, what="tones")
        between.change(Conditions(loss=0.1, delay_s=0.02))
        await asyncio.sleep(4.0)  # the length of sound that is judged
        for end, hertz in ((caller, 1000), (callee, 440)):
            assert filled(end, hertz, 3.5) > 0.9  # without repair a tenth of it is missing, and what waits for it
        for link in (between.left_to_right, between.right_to_left):
            assert link.counters.lost > 20
