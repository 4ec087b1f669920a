"""Two appliances with real media: called over a broker in memory, heard and seen at the other end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from appliance.media.api import IceServers
from appliance.media.studio import Studio
from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.provider import DirectProvider
from appliance.settings import VideoSettings
from appliance.vocabulary import END_REASONS
from tests.support.direct_parts import LoopClock, MemoryBroker, Told
from tests.support.lag import lateness
from tests.support.media_board import HandBoard
from tests.support.media_pair import goertzel, until
from tests.support.reports import faults, row


@dataclass
class End:
    board: HandBoard
    provider: DirectProvider
    studio: Studio
    incoming: list[api.IncomingCall]

    def hears(self, hertz: float) -> float:
        """Amplitude of one frequency in the last 200 ms of the loudspeaker."""
        assert self.board.audio is not None
        return goertzel(b"".join(self.board.audio.played[-20:]), hertz)


@asynccontextmanager
async def two() -> AsyncIterator[tuple[MemoryBroker, End, End]]:
    """``alpha`` hears 440 Hz, ``bravo`` 1000 Hz."""
    broker = MemoryBroker()
    ends = []
    for name, hertz in (("alpha", 440.0), ("bravo", 1000.0)):
        board = HandBoard(hertz)
        studio = Studio(board, VideoSettings())
        await studio.open()
        provider = DirectProvider(
            wire.Party(name, name.title()), studio, LoopClock(), ice=IceServers(), link=broker.link(name), peers=(),
            accept_from=lambda _: True, refused=lambda _why, _sender: None, on_duty=lambda _names: None)
        incoming: list[api.IncomingCall] = []
        await provider.start(incoming.append)
        ends.append(End(board, provider, studio, incoming))
    try:
        yield broker, ends[0], ends[1]
    finally:
        for end in ends:
            await end.provider.stop()
            await end.studio.close()


async def call(alpha: End, bravo: End, call_id: str = "call-0001") -> tuple[Told, Told]:
    me = api.Peer("alpha", "device:alpha", "Alpha", "device", True)
    leg = await alpha.provider.dial(api.Target("device", "bravo"), call_id=call_id, caller=me,
                                    media=api.MediaWanted())
    mine = Told.of(leg)
    await until(lambda: bool(bravo.incoming))
    theirs = Told.of(bravo.incoming[0].leg)
    await bravo.incoming[0].leg.ring()
    await bravo.incoming[0].leg.accept(api.MediaWanted())
    await until(lambda: "Connected" in mine.kinds and "Connected" in theirs.kinds, 10.0, "connected")
    return mine, theirs


async def test_both_appliances_hear_and_see_each_other() -> None:
    async with two() as (_broker, alpha, bravo):
        mine, theirs = await call(alpha, bravo)
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 10.0, "tones")
        await until(lambda: len(alpha.board.display.pictures) > 5 and len(bravo.board.display.pictures) > 5)
        await mine.leg.send("text", "hello")
        await until(lambda: api.DataReceived("text", "hello", theirs.leg.id) in theirs.events)
        await theirs.leg.end(END_REASONS["0/local"])
        await until(lambda: mine.ended == "0/remote" and theirs.ended == "0/local")


@pytest.mark.parametrize("first", ["word", "connection"])
async def test_the_last_statistics_outlive_the_call_whatever_ends_first(first: str) -> None:
    async with two() as (_broker, alpha, bravo):
        mine, theirs = await call(alpha, bravo)
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 10.0, "tones")
        if first == "connection":
            (session,) = alpha.studio._sessions
            await session.close()
            await until(lambda: "Lost" in theirs.kinds or "Lost" in mine.kinds, 10.0, "lost")
        await mine.leg.end(END_REASONS["0/local"])
        await until(lambda: theirs.ended == "0/remote" and mine.ended == "0/local")
        for told in (mine, theirs):
            report = await told.leg.stats()
            assert faults(report) == []
            for kind in ("audio", "video"):
                assert row(report, "outbound-rtp", kind)["packetsSent"] > 0
                assert row(report, "inbound-rtp", kind)["packetsReceived"] > 0


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_a_connection_that_dies_is_rebuilt_and_heard_again(who: str) -> None:
    """The peer connection of one side closes without a word of signalling, as when its media is torn down. The other
    side may have the new one before it misses the old one."""
    async with two() as (_broker, alpha, bravo):
        mine, theirs = await call(alpha, bravo)
        victim = alpha if who == "caller" else bravo
        (session,) = victim.studio._sessions
        await session.close()
        hurt, other = (mine, theirs) if who == "caller" else (theirs, mine)
        await until(lambda: "Recovered" in hurt.kinds, 10.0, "recovered")
        await until(lambda: other.kinds.count("Lost") == other.kinds.count("Recovered"), 10.0, "at the other side")
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 10.0, "tones")
        await until(lambda: len(alpha.studio._sessions) == len(bravo.studio._sessions) == 1, 5.0, "one each")
        await mine.leg.end(END_REASONS["0/local"])
        await until(lambda: theirs.ended == "0/remote")


async def test_silence_is_told_within_3_s_and_the_same_call_goes_on() -> None:
    async with lateness() as late, two() as (_broker, alpha, bravo):
        mine, theirs = await call(alpha, bravo)
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 10.0, "tones")
        (session,) = alpha.studio._sessions
        connection = session._pc._ice
        assert connection is not None
        began, late_before = time.monotonic(), late()
        connection.data_received = lambda _data, _component: None  # type: ignore[method-assign]
        connection.request_received = lambda *_: None  # type: ignore[method-assign]
        await until(lambda: api.Lost("media") in mine.events, 10.0, "told")
        assert 2.5 < time.monotonic() - began < 3.6 + late() - late_before
        lost = time.monotonic()
        await until(lambda: "Recovered" in mine.kinds and "Recovered" in theirs.kinds, 5.0, "recovered")
        assert time.monotonic() - lost < 5.0
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 10.0, "tones")
        assert mine.kinds.count("Connected") == 1, "the call is the same"


async def test_ten_calls_leave_nothing() -> None:
    async with two() as (_broker, alpha, bravo):
        tasks = len(asyncio.all_tasks())
        for number in range(10):
            mine, theirs = await call(alpha, bravo, f"call-{number:04}")
            await mine.leg.end(END_REASONS["0/local"])
            assert theirs.task is not None
            await theirs.task
            bravo.incoming.clear()
        # A leg tells its end at once, before its session has closed: callers wait for nothing.
        await until(lambda: not alpha.studio._sessions and not bravo.studio._sessions, what="sessions closed")
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 2, what="tasks gone")  # one sender per endpoint stays
