"""The house's own test tools: virtual time jumps, and what a test leaves behind is seen."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time

import pytest

from tests.support.clock import run_virtual, virtual_time
from tests.support.leaks import Belongings, tasks_left


@virtual_time
async def test_an_hour_takes_no_time() -> None:
    loop = asyncio.get_running_loop()
    began, really = loop.time(), time.monotonic()
    order: list[str] = []
    loop.call_later(1800, order.append, "half")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 3600)
    order.append("whole")
    assert order == ["half", "whole"]
    assert loop.time() - began == pytest.approx(3600)
    assert time.monotonic() - really < 1


@virtual_time
async def test_the_clock_stands_still_while_a_thread_works() -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(0.5):  # would run out at once if the clock jumped
        await loop.run_in_executor(None, time.sleep, 0.05)


def test_the_threads_may_take_their_time_to_end() -> None:
    """The loop joins them with a deadline from Python 3.12 on."""
    ended = threading.Event()

    async def leaves_one_at_work() -> None:
        working = threading.Event()

        def work() -> None:
            working.set()
            time.sleep(0.05)
            ended.set()

        job = asyncio.get_running_loop().run_in_executor(None, work)
        await asyncio.to_thread(working.wait)
        job.cancel()

    run_virtual(leaves_one_at_work())
    assert ended.is_set()


def test_a_test_that_waits_for_ever_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.clock.STUCK_S", 0.01)
    with pytest.raises(TimeoutError, match="nothing is scheduled"):
        run_virtual(asyncio.Event().wait())


def test_a_task_left_in_virtual_time_fails_the_test() -> None:
    async def leaves_one() -> None:
        leaves_one.task = asyncio.create_task(asyncio.sleep(3600), name="forgotten")  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="forgotten"):
        run_virtual(leaves_one())


def test_what_is_left_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.leaks.GRACE_S", 0.0)
    before = Belongings.now()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten thread")
    thread.start()
    child = subprocess.Popen(["sleep", "60"])
    reader, writer = os.pipe()
    try:
        left = before.left()
    finally:
        stop.set()
        thread.join()
        child.kill()
        child.wait()
        os.close(reader)
        os.close(writer)
    assert "thread 'forgotten thread'" in left
    assert any(name.startswith(f"child process {child.pid} (") for name in left)
    assert sum("pipe:" in name for name in left) == 2
    assert before.left() == []


async def test_a_task_left_on_the_loop_is_named() -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    assert any("'forgotten'" in name for name in tasks_left(before))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert tasks_left(before) == []
