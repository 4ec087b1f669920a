"""How sessions over loopback end, at any moment and by any fault, and that they leave nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
import time

import psutil
import pytest

from appliance.media.api import Directions, IceServers, SessionClosed, SessionUp
from tests.support.lag import lateness
from tests.support.media_pair import End, connect, pair, until


async def test_closing_one_end_tells_the_other() -> None:
    async with lateness() as late, pair() as (caller, callee):
        await caller.event(SessionUp)
        began, late_before = time.monotonic(), late()
        await caller.session.close()
        await caller.session.close()
        assert time.monotonic() - began < 1 + late() - late_before
        assert (await caller.event(SessionClosed)).why == "closed"
        assert (await callee.event(SessionClosed)).why == "lost"
        assert caller.studio.state()["sessions"] == 0


@pytest.mark.parametrize("moment", ["made", "offered", "answered", "connecting"])
async def test_closing_at_any_moment_leaves_nothing(moment: str) -> None:
    async with lateness() as late, pair(connected=False) as (caller, callee):
        offer = await caller.session.offer() if moment != "made" else ""
        if moment in ("answered", "connecting"):
            answer = await callee.session.answer(offer)
            if moment == "connecting":
                await caller.session.accept_answer(answer)
                await asyncio.sleep(0.01)
        began, late_before = time.monotonic(), late()
        await caller.session.close()
        await callee.session.close()
        assert time.monotonic() - began < 1 + late() - late_before
        assert [event for event in caller.told if isinstance(event, SessionClosed)] in ([], [SessionClosed("closed")])


async def cycle(caller: End, callee: End) -> None:
    first = caller.studio.session(Directions(), ice=IceServers(), loopback=True)
    second = callee.studio.session(Directions(), ice=IceServers(), loopback=True)
    await connect(first, second)
    await until(lambda: first.up and second.up)
    await first.close()
    await second.close()


def own_threads() -> list[str]:
    """The names of the threads. A pool grows to its fixed size at its own time, so its first worker stands for it; that
    of asyncio is not there before it is needed."""
    names = [thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    return sorted(name for name in names if re.search(r"_[1-9]\d*$", name) is None)


async def test_ten_sessions_leave_nothing() -> None:
    async with pair(connected=False) as (caller, callee):
        await cycle(caller, callee)
        await until(lambda: not caller.board.camera.running and not callee.board.camera.running)
        process = psutil.Process(os.getpid())

        def held() -> tuple[int, int, int]:
            return len(asyncio.all_tasks()), len(own_threads()), process.num_fds()

        before = held()
        for _ in range(10):
            await cycle(caller, callee)
        await until(lambda: not caller.board.camera.running and not callee.board.camera.running)
        gc.collect()
        # on a busy machine one session may still be about its end at either moment; ten that leave something are more
        await until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)), what="no more than one")


async def test_every_task_of_a_session_has_a_name() -> None:
    async with pair() as (caller, _):
        await caller.event(SessionUp)
        names = {task.get_name() for task in asyncio.all_tasks()}
        ours = {name for name in names if not name.startswith(("media.", "Task-"))}
        assert not ours
        unnamed = [
            task for task in asyncio.all_tasks()
            if task.get_name().startswith("Task-") and "appliance" in repr(task.get_coro())
        ]
        assert not unnamed


async def test_a_fault_in_a_send_task_ends_the_session_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (caller, callee):
        await callee.event(SessionUp)
        await until(lambda: callee.session.outgoing["audio"].counters.frames > 5)
        track = callee.session._microphone_track
        assert track is not None

        def captured_at(_packet: object) -> float:
            raise ZeroDivisionError("a fault of ours")

        track.captured_at = captured_at  # type: ignore[method-assign]
        closed = await callee.event(SessionClosed, 2)
        assert closed.why == "internal"
        assert "ZeroDivisionError" in closed.detail
        assert "ZeroDivisionError" in caplog.text
        assert (await caller.event(SessionClosed, 2)).why == "lost"


async def test_a_transport_that_is_slow_to_close_holds_nobody_up_and_is_closed_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(connected=False) as (caller, _):
        real, released, closed = caller.session._transport.close, asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            await released.wait()
            await real()
            closed.set()

        caller.session._transport.close = slow  # type: ignore[method-assign]
        began = time.monotonic()
        await caller.session.close()
        assert time.monotonic() - began < 2.0
        assert caller.studio.state()["sessions"] == 0
        assert "takes longer than" in caplog.text
        released.set()
        await asyncio.wait_for(closed.wait(), 5)


async def test_a_transport_that_fails_to_close_keeps_no_session(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(connected=False) as (caller, _):
        real = caller.session._transport.close

        async def broken() -> None:
            await real()
            raise OSError("gone already")

        caller.session._transport.close = broken  # type: ignore[method-assign]
        await caller.session.close()
        assert caller.studio.state()["sessions"] == 0
        assert "did not close as it should" in caplog.text
