"""A camera that hangs or is pulled in a call, or an encoder that hangs, on nodes of the kernel: nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from hw.api import Board, BoardOptions
from hw.boards import open_board
from hw.camera.owner import ProcessCamera
from tests.hil.devices import Encoder, camera
from tests.support.stuck_camera import BLOCKED_S, lag_in_trouble

MODULES = ["hilenc", "vivid n_devs=1 node_types=0x1", "snd-aloop"]
pytestmark = pytest.mark.timeout(120)

GUEST_S = 0.3
"""The machine under the guest may be busy with something else for as long, and only for the loop."""


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
    lag = await lag_in_trouble(board, lambda: trouble(board), lambda: end(board))
    print(f"loop late by {lag.loop_s * 1000:.0f} ms at most, the guest by {lag.machine_s * 1000:.0f} ms")
    assert lag.loop_s < BLOCKED_S + GUEST_S + lag.machine_s, lag.stacks
