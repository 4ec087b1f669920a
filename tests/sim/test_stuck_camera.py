"""A camera that hangs, dies or is pulled in a call on the simulated board: its process waits, and nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest

from hw.api import BoardOptions
from hw.sim.board import SimBoard
from tests.support.lag import loop_lag
from tests.support.stuck_camera import BLOCKED_S, lag_in_trouble

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def board() -> AsyncIterator[SimBoard]:
    opened = await asyncio.to_thread(SimBoard, BoardOptions(microphone="silence"))
    yield opened
    await asyncio.to_thread(opened.close)


def _signal(number: int) -> Callable[[SimBoard], None]:
    def send(board: SimBoard) -> None:
        pid = board.camera.pid
        assert pid is not None
        os.kill(pid, number)

    return send


def _fault(name: str, active: bool) -> Callable[[SimBoard], None]:
    return lambda board: board.simulation.fault(name, active)


@pytest.mark.parametrize(("trouble", "end"), [
    (_signal(signal.SIGSTOP), lambda board: None), (_signal(signal.SIGKILL), lambda board: None),
    (_fault("camera.unplug", True), _fault("camera.unplug", False)),
    (_fault("camera.freeze", True), _fault("camera.freeze", False)),
], ids=["stuck", "dead", "pulled", "frozen"])  # fmt: skip
async def test_the_loop_waits_for_no_camera(board: SimBoard, trouble: Callable[[SimBoard], None],
                                            end: Callable[[SimBoard], None]) -> None:
    lag = await lag_in_trouble(board, lambda: trouble(board), lambda: end(board))
    print(lag)
    assert lag.loop_s < BLOCKED_S + lag.machine_s


async def test_a_loop_that_waits_is_seen() -> None:
    async with loop_lag() as lag:
        await asyncio.sleep(0.05)
        time.sleep(0.3)  # noqa: ASYNC251 - what is looked for
        await asyncio.sleep(0.05)
    assert lag.loop_s > 0.2
    assert lag.machine_s < lag.loop_s
