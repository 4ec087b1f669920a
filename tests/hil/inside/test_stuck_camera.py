"""A camera that hangs or is pulled in a call, or an encoder that hangs, on nodes of the kernel: nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest

from appliance.settings import VideoSettings
from hw.api import Board, BoardOptions
from hw.boards import open_board
from hw.camera.owner import ProcessCamera
from tests.hil.devices import Encoder, camera
from tests.support.lag import loop_lag
from tests.support.stuck_camera import BLOCKED_S, lag_in_trouble

# No sound: it goes before all else, and what it takes of the guest's one processor would be taken for the camera's.
MODULES = ["hilenc", "vivid n_devs=1 node_types=0x1"]
pytestmark = pytest.mark.timeout(180)

FREE_S: Final = BLOCKED_S / 2
"""The guest has one processor. Where the loop is late because others have it, and be it for a second, that is not free;
where the loop waits for something, it is, for about half of the time: the call has the rest."""

VIDEO: Final = VideoSettings(width=640, height=360, fps=15)
"""The guest has one processor, for encoder, daemon and peer."""


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    Encoder().calm()
    opened = await asyncio.to_thread(open_board, "pi", BoardOptions(file="generic"))
    assert opened.camera is not None
    await asyncio.to_thread(opened.camera.snapshot, 30.0)  # its process is up
    yield opened
    Encoder().calm()
    if not camera().plugged:
        camera().plug()
    await asyncio.to_thread(opened.close)


def _stop(board: Board) -> None:
    assert isinstance(board.camera, ProcessCamera)
    assert board.camera.pid is not None
    os.kill(board.camera.pid, signal.SIGSTOP)


def _encoder(stall: int) -> Callable[[Board], None]:
    return lambda board: Encoder().__setitem__("stall", stall)


@pytest.mark.parametrize(("trouble", "end"), [
    (_stop, lambda board: None), (lambda board: camera().unplug(), lambda board: camera().plug()),
    (_encoder(1), _encoder(0)),
], ids=["stuck", "pulled", "encoder"])  # fmt: skip
async def test_the_loop_waits_for_no_camera(board: Board, trouble: Callable[[Board], None],
                                            end: Callable[[Board], None]) -> None:
    lag = await lag_in_trouble(board, lambda: trouble(board), lambda: end(board), VIDEO)
    print(lag)
    assert lag.free_s - lag.machine_free_s < FREE_S


async def test_a_loop_that_waits_is_seen() -> None:
    async with loop_lag() as lag:
        await asyncio.sleep(0.05)
        time.sleep(1.5 * BLOCKED_S)  # noqa: ASYNC251 - what is looked for
        await asyncio.sleep(0.05)
    print(lag)
    assert lag.free_s - lag.machine_free_s > FREE_S
