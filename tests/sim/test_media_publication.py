"""With a server that says nothing by itself: it is asked, so its end is known soon, and its life not doubted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from appliance.media.api import (
    Directions,
    IceServers,
    SessionBlocked,
    SessionClosed,
    SessionPassed,
    SessionSilent,
    SessionSound,
    SessionUp,
)
from appliance.media.hearing import UNHEARD_S
from appliance.media.studio import Studio
from appliance.settings import VideoSettings
from tests.support.impair import Conditions, Relay, relay
from tests.support.lag import lateness
from tests.support.media_board import HandBoard
from tests.support.media_pair import End, connect
from tests.support.rough_way import is_media

SENDS = Directions(receive_audio=False, receive_video=False)
RECEIVES = Directions(send_audio=False, send_video=False)
SOUND = Directions(send_video=False, receive_video=False)


@asynccontextmanager
async def publishing(
    between: Relay, *, plays: bool = False, mixes: bool = False, reports: bool = False,
) -> AsyncIterator[tuple[End, End]]:
    """Who publishes, or only plays, or does both with a server that ``mixes`` sound; the server answers checks, and
    says nothing else from then on, unless it ``reports``."""
    board, other = HandBoard(440), HandBoard(1000)
    studio, server = Studio(board, VideoSettings()), Studio(other, VideoSettings())
    await studio.open()
    await server.open()
    wanted, theirs = (SOUND, SOUND) if mixes else (RECEIVES, SENDS) if plays else (SENDS, RECEIVES)
    session = studio.conversation(wanted, ice=IceServers(), loopback=True, speaks=True) if mixes else (
        studio.playback if plays else studio.publication)(wanted, ice=IceServers(), loopback=True)
    assert session is not None
    here = End(board, studio, session)
    there = End(other, server, server.session(theirs, ice=IceServers(), loopback=True))
    listening = [asyncio.create_task(end.listen()) for end in (here, there)]
    try:
        await connect(here.session, there.session, between)
        await here.event(SessionUp)
        await there.event(SessionUp)
        ice = there.session._pc._ice
        assert ice is not None

        async def nothing(data: bytes, component: int) -> None: ...

        if not reports:
            ice.sendto = nothing  # type: ignore[method-assign]
            assert ice._query_consent_task is not None
            ice._query_consent_task.cancel()  # nor does it check our consent
        yield here, there
    finally:
        await studio.close()
        await server.close()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def test_a_server_that_only_answers_is_not_doubted() -> None:
    async with relay(seed=3) as between, publishing(between) as (here, _):
        between.change(Conditions(loss=0.1, delay_s=0.03))
        ice = here.session._pc._ice
        assert ice is not None
        answers = ice.checks.answers
        await asyncio.sleep(12)
        assert ice.checks.answers > answers + 6
        assert not any(isinstance(event, SessionSilent | SessionClosed) for event in here.told), here.told


async def test_its_end_is_known_within_three_seconds_and_its_return_at_once() -> None:
    async with relay() as between, lateness() as late, publishing(between) as (here, _):
        await asyncio.sleep(2)
        between.change(Conditions(dark=True))
        began, late_before = time.monotonic(), late()
        await here.event(SessionSilent, 10)
        assert time.monotonic() - began < 3.3 + late() - late_before
        between.change(Conditions())
        await here.event(SessionSound, 1)


@pytest.mark.parametrize(("mixes", "sent"), [(False, True), (True, True), (True, False)])
async def test_that_no_media_pass_is_told_though_the_server_reports(mixes: bool, sent: bool) -> None:
    """And that they do again. A path that carries a part of them is no such one."""
    async with relay(seed=5) as between, publishing(between, mixes=mixes, reports=True) as (here, _):
        await here.event(SessionPassed)
        here.told.clear()
        link = between.left_to_right if sent else between.right_to_left
        passes = link.send
        link.send = lambda now, packet: None if is_media(packet) else passes(now, packet)  # type: ignore[method-assign]
        began = time.monotonic()
        assert await here.event(SessionBlocked, 15) == SessionBlocked(before=True)
        assert time.monotonic() - began > UNHEARD_S - 2
        assert not any(isinstance(event, SessionSilent | SessionPassed) for event in here.told), here.told
        link.send = passes  # type: ignore[method-assign]
        await here.event(SessionPassed, 10)
        here.told.clear()
        between.change(Conditions(loss=0.3))
        await asyncio.sleep(UNHEARD_S + 2)
        assert not any(isinstance(event, SessionBlocked) for event in here.told), here.told


async def test_who_sends_nothing_asks_as_well() -> None:
    async with relay() as between, lateness() as late, publishing(between) as (here, _):
        here.session.set_directions(Directions(False, False, False, False))
        await asyncio.sleep(4)
        assert not any(isinstance(event, SessionSilent) for event in here.told), "it answers"
        between.change(Conditions(dark=True))
        began, late_before = time.monotonic(), late()
        await here.event(SessionSilent, 10)
        assert time.monotonic() - began < 3.3 + late() - late_before
        between.change(Conditions())
        await here.event(SessionSound, 1)


async def test_who_only_plays_and_is_owed_nothing_asks() -> None:
    """A server that has nothing to play owes its answers."""
    async with relay() as between, lateness() as late, publishing(between, plays=True) as (here, _):
        here.session.peer_sends(audio=False, video=False)
        await asyncio.sleep(4)
        assert not any(isinstance(event, SessionSilent) for event in here.told), "it answers"
        between.change(Conditions(dark=True))
        began, late_before = time.monotonic(), late()
        await here.event(SessionSilent, 10)
        assert time.monotonic() - began < 3.3 + late() - late_before
