"""The contract of every Protocol of ``hw.api`` on the board ``pi``, opened as the product opens it.

On the test kernel (kernel real, hardware simulated) it is the board of a shipped board file. On a board on the bench it
is its own, with the wires of ``tests.hil.rig`` and a screen, a camera and a sound card plugged in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hw.api import Board, BoardOptions, EncoderKind, Kind
from hw.boards import open_board
from hw.pi.boardfile import find_board_file
from hw.pi.health import identity
from hw.pi.panel import PanelConfig
from tests.contract import audio, camera, display, panel
from tests.contract import board as whole
from tests.contract.seen import Faults, until
from tests.hil.devices import TEST_KERNEL
from tests.hil.machine import Machine, again_where
from tests.hil.rig import LoopedHeader, Rig, SimulatedHeader

MODULES = ["hilenc", "vivid n_devs=1 node_types=0x1", "snd-aloop", "vkms"]
pytestmark = pytest.mark.timeout(120)

LATE_S = 1.5
"""A guest has what other work leaves of one processor."""
OPTIONS = BoardOptions(file="pi-4b" if TEST_KERNEL else "", long_press_s=1.5)
FILE = find_board_file(OPTIONS.file, identity()["model"])
ENCODER = EncoderKind.SOFTWARE if FILE.path.endswith("5.toml") else EncoderKind.HARDWARE


def _open() -> Board:
    """With all its parts up: the tests measure them, and not how long Python imports what they need."""
    board = open_board("pi", OPTIONS)
    try:
        assert board.camera is not None, board.devices()
        board.camera.snapshot(30.0)
        assert until(lambda: any(fact.present for fact in board.devices() if fact.kind is Kind.DISPLAY), 60.0)
    except BaseException:
        board.close()
        raise
    return board


@pytest.fixture(scope="module")
def rig(modules: None) -> Iterator[Rig]:
    chip = FILE.part("panel", PanelConfig).chip
    made = Rig(SimulatedHeader(chip) if TEST_KERNEL else LoopedHeader(chip))
    yield made
    made.close()


@pytest.fixture(scope="module")
def board(rig: Rig) -> Iterator[Board]:
    opened = _open()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def quiet(board: Board) -> Iterator[None]:
    """Whatever a test began ends with it, also when it fails."""
    yield
    assert board.camera is not None
    assert board.audio is not None
    board.camera.stop()
    board.audio.stop()


# --- the board


def test_every_device_is_told(board: Board) -> None:
    whole.tells_every_device(board)
    assert board.simulation is None
    assert board.facts()["boardFile"] == FILE.path


def test_what_is_selected_is_used(board: Board) -> None:
    whole.uses_what_is_selected(board)


def test_the_board_tells_its_health(board: Board) -> None:
    whole.tells_its_health(board, LATE_S)


# --- sound


def test_blocks_come_at_their_pace_whole_and_with_what_was_played(board: Board) -> None:
    sound = board.audio
    assert sound is not None
    again_where(lambda: sound.figures.xruns + sound.figures.dropped > 0,  # a machine that starves the guest is seen to
                lambda: audio.paces_whole_blocks(sound, most_delay_ms=60.0))


def test_a_stalled_receiver_is_counted_and_the_clock_goes_on(board: Board, machine: Machine) -> None:
    sound = board.audio
    assert sound is not None
    machine.while_it_runs(lambda: audio.counts_a_stalled_receiver(sound, ring_ms=120.0))


def test_volume_is_bounded(board: Board) -> None:
    assert board.audio is not None
    audio.keeps_volume_in_bounds(board.audio)


def test_a_rate_the_card_has_not_is_refused(board: Board) -> None:
    assert board.audio is not None
    audio.refuses_a_rate_it_has_not(board.audio)


# --- camera and encoder


def test_frames_are_constrained_baseline_decodable_and_stamped_with_their_capture(board: Board) -> None:
    assert board.camera is not None
    camera.delivers_constrained_baseline(board.camera, ENCODER, LATE_S)


def test_bitrate_follows_while_the_stream_goes_on(board: Board) -> None:
    assert board.camera is not None
    camera.follows_the_bitrate(board.camera, LATE_S)


def test_size_and_rate_change_while_the_stream_goes_on(board: Board) -> None:
    assert board.camera is not None
    camera.changes_size_and_rate(board.camera, LATE_S)


def test_small_pictures_are_of_what_is_sent(board: Board) -> None:
    assert board.camera is not None
    camera.gives_small_pictures_of_what_is_sent(board.camera, LATE_S)


def test_small_pictures_come_again_after_the_camera_process_hung(board: Board) -> None:
    assert board.camera is not None
    camera.shows_small_pictures_again_after_its_process_hung(board.camera, LATE_S * 6)


def test_snapshot_of_a_stopped_camera(board: Board) -> None:
    assert board.camera is not None
    camera.takes_a_picture_when_it_is_stopped(board.camera, LATE_S)


def test_stop_from_within_the_sink(board: Board) -> None:
    assert board.camera is not None
    camera.stops_from_within_its_sink(board.camera, LATE_S)


def test_a_killed_camera_process_is_a_fault_and_the_pictures_come_back(board: Board) -> None:
    faults = Faults()
    board.on_fault(faults)
    assert board.camera is not None
    camera.comes_back_after_its_process_was_killed(board.camera, faults, LATE_S * 6)


def test_a_camera_process_that_hangs_does_not_hold_up_stop(board: Board) -> None:
    assert board.camera is not None
    camera.is_not_held_up_by_a_process_that_hangs(board.camera, LATE_S)


# --- screen


def test_the_screen_shows_what_it_was_told(board: Board) -> None:
    assert board.display is not None
    display.shows_what_it_was_told(board.display)


def test_a_mirrored_tile_is_mirrored_and_long_words_fit(board: Board) -> None:
    assert board.display is not None
    display.mirrors_a_tile_and_fits_long_words(board.display)
    display.fills_a_tile_with_bars_cut_off_or_stretched(board.display)


def test_brightness_is_bounded(board: Board) -> None:
    assert board.display is not None
    display.keeps_brightness_in_bounds(board.display)


# --- panel


def test_presses_are_told_short_and_long(board: Board, rig: Rig) -> None:
    assert board.panel is not None
    panel.tells_presses_short_and_long(board.panel, rig, OPTIONS.long_press_s, LATE_S)


def test_lamps_keep_their_rhythm(board: Board) -> None:
    assert board.panel is not None
    panel.keeps_lamps_in_their_rhythm(board.panel, LATE_S)


def test_a_relay_opens_by_itself_and_at_once_when_told(board: Board) -> None:
    assert board.panel is not None
    panel.opens_a_relay_by_itself_and_when_told(board.panel, LATE_S)


def test_a_slow_listener_keeps_no_relay_closed(board: Board, rig: Rig) -> None:
    assert board.panel is not None
    panel.lets_no_listener_keep_a_relay_closed(board.panel, rig, LATE_S)


def test_lamp_and_relay_are_on_their_wires(board: Board, rig: Rig) -> None:
    assert board.panel is not None
    board.panel.light("status", [(1.0, True)])
    assert until(lambda: rig.sees("status"), LATE_S)
    board.panel.light("status", [(1.0, False)])
    assert until(lambda: not rig.sees("status"), LATE_S)
    assert not rig.sees("door")
    began = time.monotonic()
    board.panel.switch("door", 0.5)
    assert rig.sees("door")
    assert until(lambda: not rig.sees("door"), 2.0 + LATE_S)
    assert time.monotonic() - began > 0.45


# --- last, since it closes the board that the others share


def test_closing_at_any_moment_leaves_nothing(board: Board) -> None:
    board.close()
    whole.leaves_nothing_when_closed_at_any_moment(_open, LATE_S)
