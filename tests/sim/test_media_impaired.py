"""Two studios call each other through a bad network: what a call must live through."""

from __future__ import annotations

import asyncio
import time

import pytest

from appliance.media import ice_seam
from appliance.media.api import SessionClosed, SessionSilent, SessionSound, SessionUp
from appliance.media.sound import RATE
from tests.support.impair import Conditions, relay
from tests.support.lag import lateness
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


async def measured(end: End, least: float, most: float) -> None:
    """The peer's reports give a round trip in these bounds, in seconds, at least once: one that met a busy moment of
    this machine is longer."""
    found: set[float] = set()
    async with asyncio.timeout(15):
        while not any(least < seconds < most for seconds in found):
            for entry in await end.session.stats():
                if entry["type"] == "remote-inbound-rtp" and "roundTripTime" in entry:
                    found.add(float(entry["roundTripTime"]))
            await asyncio.sleep(0.1)
    assert all(seconds > least for seconds in found), "no answer comes before the network brings it"


async def test_a_round_trip_of_600_ms_is_no_reason_to_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consent checks that give up before the answer can be there end the call after five of them."""
    monkeypatch.setattr(ice_seam, "CONSENT_INTERVAL", 0.25)
    monkeypatch.setattr(ice_seam, "CONSENT_LIFETIME_S", 2.0)
    async with relay(Conditions(delay_s=0.3)) as between, pair(between=between) as (caller, callee):
        await caller.event(SessionUp, 10)
        await callee.event(SessionUp, 10)
        await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15, 15, "tones")
        await asyncio.sleep(4.0)  # twice as long as consent lasts: that nothing ends is what is tested
        for end, hertz in ((caller, 1000), (callee, 440)):
            assert not any(isinstance(event, SessionClosed | SessionSilent) for event in end.told), end.told
            await until(lambda end=end, hertz=hertz: end.strength(hertz) > 0.15, 10, "it still sounds")
        await measured(caller, 0.59, 0.9)


async def test_a_round_trip_of_1_5_s_is_set_up_and_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A satellite, or a queue that somebody else keeps full. The times of consent are six times shorter here, and its
    answers still come more than one check late."""
    monkeypatch.setattr(ice_seam, "CONSENT_INTERVAL", 0.8)
    monkeypatch.setattr(ice_seam, "CONSENT_LIFETIME_S", 5.0)
    async with relay(Conditions(delay_s=0.75)) as between, pair(between=between) as (caller, callee):
        await caller.event(SessionUp, 20)
        await callee.event(SessionUp, 20)
        await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15, 15, "tones")
        await asyncio.sleep(7.0)  # longer than consent lasts: that nothing ends is what is tested
        for end, hertz in ((caller, 1000), (callee, 440)):
            assert not any(isinstance(event, SessionClosed | SessionSilent) for event in end.told), end.told
            await until(lambda end=end, hertz=hertz: end.strength(hertz) > 0.15, 10, "it still sounds")


async def test_a_black_out_is_told_in_time_and_so_is_its_end() -> None:
    async with (
        relay() as between, lateness() as late,
        pair(between=between, first=talker(440), second=talker(1000)) as (caller, callee),
    ):
        await caller.event(SessionUp)
        await callee.event(SessionUp)
        between.change(Conditions(dark=True))
        began, late_before = time.monotonic(), late()
        for end in (caller, callee):
            await end.event(SessionSilent, 10)
        assert time.monotonic() - began < 3.6 + late() - late_before
        between.change(Conditions())
        for end, hertz in ((caller, 1000), (callee, 440)):
            await end.event(SessionSound, 5)
            await until(lambda end=end, hertz=hertz: end.strength(hertz) > 0.08, 10, "the tone is back")
            assert not any(isinstance(event, SessionClosed) for event in end.told)


def losses(end: End) -> tuple[int, int]:
    """The packets of sound that were lost so far, and those of them that were repaired from a copy."""
    assert end.session is not None
    reception = end.session.incoming["audio"].reception
    assert reception is not None
    return reception.lost, end.session.voice_in.counters.repaired * 50 // RATE


async def repaired(end: End) -> None:
    """From now on more than a fifth of what is lost is repaired. Only who was told of losses sends copies."""
    then = losses(end)

    def share() -> float:
        lost, made_good = (now - before for now, before in zip(losses(end), then, strict=True))
        return made_good / lost if lost >= 10 else 0.0

    await until(lambda: share() > 0.2, 20, "sound from copies")


async def test_ten_per_cent_of_loss_leave_the_sound_whole() -> None:
    async with relay(seed=4) as between, pair(between=between, first=talker(440), second=talker(1000)) as both:
        caller, callee = both
        await until(lambda: caller.strength(1000) > 0.08 and callee.strength(440) > 0.08, 15, "tones")
        between.change(Conditions(delay_s=0.02))
        await asyncio.sleep(4.0)  # the length of sound that is judged
        whole = {hertz: filled(end, hertz, 3.5) for end, hertz in ((caller, 1000), (callee, 440))}
        between.change(Conditions(loss=0.1, delay_s=0.02))
        await asyncio.sleep(4.0)
        for end, hertz in ((caller, 1000), (callee, 440)):
            # what waits for a lost packet is silent as well, at this loss most of the time; a busy moment passes
            shares = [filled(end, hertz, 3.5)]
            while shares[-1] <= 0.9 * whole[hertz] and len(shares) < 6:
                await asyncio.sleep(2.0)  # to look is work for the loop that the call needs
                shares.append(filled(end, hertz, 3.5))
            assert shares[-1] > 0.9 * whole[hertz], shares
            await repaired(end)
        for link in (between.left_to_right, between.right_to_left):
            assert link.counters.lost > 20
