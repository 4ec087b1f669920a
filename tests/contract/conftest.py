"""A board, its hands, and what it tells of faults.

Camera and sound run in real time, so tests of one board share it and read what one short run delivered.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hw.api import Board, Kind, Simulation
from hw.boards import open_board
from tests.contract.boards import BOARDS, OPTIONS
from tests.contract.seen import Faults


@pytest.fixture(scope="session", params=BOARDS)
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    opened = open_board(request.param, OPTIONS)
    try:
        assert opened.camera is not None
        assert opened.display is not None
        opened.camera.snapshot(10.0)  # its process is up: the tests measure the camera and not the import of PyAV
        opened.display.screenshot()  # its thread is there
        yield opened
    finally:
        opened.close()


@pytest.fixture(params=BOARDS)
def fresh_board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """A board for tests that kill its process: the new one must not count as left behind."""
    opened = open_board(request.param, OPTIONS)
    try:
        assert opened.camera is not None
        opened.camera.snapshot(10.0)
        yield opened
    finally:
        opened.close()


@pytest.fixture
def hands(board: Board) -> Simulation:
    assert isinstance(board.simulation, Simulation)
    return board.simulation


@pytest.fixture
def quiet(board: Board, hands: Simulation, nothing_left: None) -> Iterator[None]:
    """Whatever a test began on the shared board ends with it, also when it fails."""
    yield
    assert board.camera is not None
    assert board.audio is not None
    board.camera.stop()
    board.audio.stop()
    hands.tap_speaker(None)
    for name in hands.faults:
        hands.fault(name, active=False)
    hands.source(Kind.MICROPHONE, OPTIONS.microphone)
    for kind in board.choices:
        board.select(kind, "")
        for plugged in (True, False):  # as if none had been pulled in use
            hands.plug(kind, plugged=plugged)


@pytest.fixture
def faults(board: Board, quiet: None) -> Faults:
    told = Faults()
    board.on_fault(told)
    return told
