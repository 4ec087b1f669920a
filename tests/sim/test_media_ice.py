"""ICE restarted under a session: other credentials and sockets, and what stands on them goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from appliance.media.api import IceFragment, SessionClosed, SessionSilent
from tests.support.media_pair import End, marks, pair, until


def path_of(end: End) -> tuple[int, int]:
    """Ports of the selected pair."""
    facts = end.session._pc.transport_facts()
    return facts["local"].port, facts["remote"].port


async def is_a_call(first: End, second: End) -> None:
    await until(lambda: first.strength(1000) > 0.15 and second.strength(440) > 0.15, 10, "tones")
    for end in (first, second):
        shown = end.session.video_in.decoded
        await until(lambda end=end, shown=shown: end.session.video_in.decoded > shown + 10, 10, "pictures")  # type: ignore[misc]


async def test_media_go_on_by_other_sockets() -> None:
    async with pair() as (first, second):
        await is_a_call(first, second)
        before, handshake = path_of(first), first.session._pc.certificates()
        for _ in range(3):
            ours, theirs = await asyncio.gather(first.session.restart_ice(), second.session.restart_ice())
            assert first.session.connected
            assert await asyncio.gather(
                first.session.ice_restarted(theirs), second.session.ice_restarted(ours)) == [True, True]
            assert set(path_of(first)).isdisjoint(before)
            before = path_of(first)
            await is_a_call(first, second)
        counters = marks(second)
        assert all(0 < later - earlier < 10 for earlier, later in pairwise(counters))
        assert first.session._pc.certificates() == handshake
        assert not [event for end in (first, second) for event in end.told
                    if isinstance(event, SessionSilent | SessionClosed)]


async def test_while_the_other_side_is_asked_media_use_the_old_path() -> None:
    async with pair() as (first, second):
        await is_a_call(first, second)
        await first.session.restart_ice()
        await is_a_call(first, second)


async def test_what_cannot_be_used_gives_no_path() -> None:
    theirs = IceFragment("abcd", "q" * 22, ("candidate:1 1 udp 1 127.0.0.1 9 typ host",))
    async with pair() as (first, second):
        await is_a_call(first, second)
        await first.session.restart_ice()
        assert not await first.session.ice_restarted(replace(theirs, candidates=("candidate:nonsense",)))
        await first.session.restart_ice()
        with pytest.raises(TimeoutError):  # nobody is there: who waits cancels it, and lets the session go
            async with asyncio.timeout(0.5):
                await first.session.ice_restarted(theirs)


async def test_closing_in_the_middle_of_a_restart_leaves_nothing() -> None:
    async with pair() as (first, second):
        await is_a_call(first, second)
        await first.session.restart_ice()
        await first.session.close()
        with pytest.raises(ConnectionError):
            await first.session.restart_ice()
        assert not await first.session.ice_restarted(IceFragment("abcd", "q" * 22))
