"""What every board promises (``hw/api.py``) as a whole, of its screen and panel, and of the faults that it tells."""

from __future__ import annotations

import io
import threading
import time

import pytest
from PIL import Image

from hw.api import (
    AudioBlock,
    Board,
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    FaultKind,
    HardwareError,
    Kind,
    Simulation,
    Tile,
)
from hw.boards import open_board
from hw.sim.pattern import read
from tests.contract.board import (
    leaves_nothing_when_closed_at_any_moment,
    tells_every_device,
    tells_its_health,
    uses_what_is_selected,
)
from tests.contract.boards import BOARDS, LATE_S, OPTIONS, once
from tests.contract.camera import MODE
from tests.contract.display import (
    fills_a_tile_with_bars_cut_off_or_stretched,
    keeps_brightness_in_bounds,
    mirrors_a_tile_and_fits_long_words,
    shows_what_it_was_told,
)
from tests.contract.panel import (
    keeps_lamps_in_their_rhythm,
    lets_no_listener_keep_a_relay_closed,
    opens_a_relay_by_itself_and_when_told,
    tells_presses_short_and_long,
)
from tests.contract.seen import Faults, Frames, until

# --- the board


def test_every_device_is_told(board: Board) -> None:
    tells_every_device(board)


def test_the_board_tells_its_health(board: Board) -> None:
    tells_its_health(board, LATE_S)


@pytest.mark.parametrize("name", BOARDS)
def test_closing_at_any_moment_leaves_nothing(name: str) -> None:
    leaves_nothing_when_closed_at_any_moment(lambda: open_board(name, OPTIONS), LATE_S)


def test_what_is_selected_is_used(board: Board, hands: Simulation, quiet: None) -> None:
    uses_what_is_selected(board)
    for kind in board.choices:
        hands.plug(kind, plugged=True)
    uses_what_is_selected(board)


# --- screen


def test_the_screen_shows_what_it_was_told(board: Board, hands: Simulation) -> None:
    assert board.display is not None
    shows_what_it_was_told(board.display)
    jpeg = Image.open(io.BytesIO(hands.screen(320)))
    assert (jpeg.format, jpeg.width) == ("JPEG", 320)


@pytest.mark.parametrize(("name", "error"), [
    ("missing", DeviceMissingError), ("unplug", DevicePulledError), ("busy", DeviceBusyError),
    ("denied", DeviceDeniedError), ("format", DeviceFormatError),
])  # fmt: skip
def test_a_screen_that_cannot_be_drawn_on_says_why_and_shows_the_latest_when_it_can(
    board: Board, hands: Simulation, quiet: None, name: str, error: type[HardwareError]
) -> None:
    assert board.display is not None
    hands.fault(f"screen.{name}", active=True)
    board.display.show([Tile(None)], "Calling")
    with pytest.raises(error, match="screen"):
        board.display.screenshot()
    dark = Image.open(io.BytesIO(hands.screen(320)))
    assert max(high for _, high in dark.getextrema()) < 8
    hands.fault(f"screen.{name}", active=False)
    shown = Image.open(io.BytesIO(board.display.screenshot()))
    assert max(high for _, high in shown.convert("RGB").getextrema()) > 128, "the banner"
    board.display.blank()


def test_a_mirrored_tile_is_mirrored_and_long_words_fit(board: Board) -> None:
    assert board.display is not None
    mirrors_a_tile_and_fits_long_words(board.display)
    fills_a_tile_with_bars_cut_off_or_stretched(board.display)


def test_brightness_is_bounded(board: Board) -> None:
    assert board.display is not None
    keeps_brightness_in_bounds(board.display)


# --- panel


def test_presses_are_told_short_and_long(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.panel is not None
    tells_presses_short_and_long(board.panel, hands, OPTIONS.long_press_s, LATE_S)
    for wrong in (lambda: hands.press("bell", 1.0), lambda: hands.set_input("bell", closed=True)):
        with pytest.raises(KeyError):
            wrong()


def test_lamps_keep_their_rhythm(board: Board) -> None:
    assert board.panel is not None
    keeps_lamps_in_their_rhythm(board.panel, LATE_S)


def test_a_relay_opens_by_itself_and_at_once_when_told(board: Board) -> None:
    assert board.panel is not None
    opens_a_relay_by_itself_and_when_told(board.panel, LATE_S)


def test_a_slow_listener_keeps_no_relay_closed(board: Board, hands: Simulation) -> None:
    assert board.panel is not None
    lets_no_listener_keep_a_relay_closed(board.panel, hands, LATE_S)


def test_two_boards_share_no_pin(board: Board) -> None:
    other = open_board("sim", OPTIONS)
    try:
        assert board.panel is not None
        assert other.panel is not None
        other.panel.switch("door", 5.0)
        other.panel.light("status", [(1.0, True)])
        assert other.panel.closed("door")
        assert not board.panel.closed("door")
        assert not board.panel.lit("status")
    finally:
        other.close()


# --- faults of the hardware, caused physically and told by what was noticed


def test_unknown_faults_and_sources_are_named(board: Board, hands: Simulation) -> None:
    with pytest.raises(KeyError, match=r"camera\.freeze"):
        hands.fault("camera.melt", active=True)
    assert set(hands.faults) >= {"camera.freeze", "mic.unplug", "speaker.stall", "button.stuck"}
    with pytest.raises(ValueError, match="pattern"):
        hands.source(Kind.CAMERA, "webcam")
    with pytest.raises(DeviceMissingError):
        hands.source(Kind.MICROPHONE, "wav:/nowhere.wav")
    with pytest.raises(ValueError, match="display"):
        hands.source(Kind.DISPLAY, "pattern")


AT_ONCE = [
    ("mic.unplug", Kind.MICROPHONE, FaultKind.MISSING),
    ("mic.busy", Kind.MICROPHONE, FaultKind.BUSY),
    ("mic.osMute", Kind.MICROPHONE, FaultKind.MUTED),
    ("speaker.unplug", Kind.SPEAKER, FaultKind.MISSING),
    ("speaker.busy", Kind.SPEAKER, FaultKind.BUSY),
    ("speaker.mute", Kind.SPEAKER, FaultKind.MUTED),
    ("speaker.zeroVolume", Kind.SPEAKER, FaultKind.ZERO_VOLUME),
    ("camera.unplug", Kind.CAMERA, FaultKind.MISSING),
    ("camera.busy", Kind.CAMERA, FaultKind.BUSY),
    *((f"{word}.{name}", kind, fault) for name, fault in (("denied", FaultKind.DENIED), ("format", FaultKind.FORMAT))
      for word, kind in (("mic", Kind.MICROPHONE), ("speaker", Kind.SPEAKER), ("camera", Kind.CAMERA),
                         ("screen", Kind.DISPLAY))),
    ("screen.missing", Kind.DISPLAY, FaultKind.MISSING),
    ("screen.unplug", Kind.DISPLAY, FaultKind.PULLED),
    ("screen.busy", Kind.DISPLAY, FaultKind.BUSY),
]


@pytest.mark.parametrize(("name", "kind", "fault"), AT_ONCE)
def test_what_the_system_tells_is_told_also_outside_calls(
    board: Board, hands: Simulation, faults: Faults, name: str, kind: Kind, fault: FaultKind
) -> None:
    hands.fault(name, active=True)
    told = faults.wait(kind, fault, active=True, seconds=2.0)
    assert told.device in {fact.id for fact in board.devices() if fact.kind is kind}
    late = Faults()
    board.on_fault(late)
    late.wait(kind, fault, active=True, seconds=1.0)
    there = fault not in (FaultKind.MISSING, FaultKind.PULLED)
    assert [fact.present for fact in board.devices() if fact.kind is kind] == [there]
    hands.fault(name, active=False)
    late.wait(kind, fault, active=False, seconds=3.0)


@once
def test_slow_faults_of_camera_and_microphone_side_by_side(board: Board, hands: Simulation, faults: Faults) -> None:
    assert board.camera is not None
    assert board.audio is not None
    hands.source(Kind.MICROPHONE, "speech")
    board.audio.start(48_000, 10, lambda block: b"")
    frames = Frames()
    board.camera.start(MODE, frames)
    frames.wait(5)
    rounds = [
        ("camera.timeout", FaultKind.START_TIMED_OUT, 6.0, "mic.silence", FaultKind.SILENT, 6.0),
        ("camera.freeze", FaultKind.STALLED, 2.0, "mic.clip", FaultKind.CLIPPING, 2.5),
        ("camera.slow", FaultKind.SLOW, 4.0, "mic.noise", FaultKind.NOISY, 2.5),
        ("camera.black", FaultKind.COVERED, 2.0, "speaker.stall", FaultKind.STALLED, 3.0),
    ]
    for camera_name, camera_fault, camera_s, sound_name, sound_fault, sound_s in rounds:
        sound_kind = Kind.SPEAKER if sound_name.startswith("speaker") else Kind.MICROPHONE
        began = time.monotonic()
        hands.fault(camera_name, active=True)
        hands.fault(sound_name, active=True)
        faults.wait(Kind.CAMERA, camera_fault, active=True, seconds=camera_s + LATE_S, since=began)
        faults.wait(sound_kind, sound_fault, active=True, seconds=sound_s + LATE_S, since=began)
        ended = time.monotonic()
        hands.fault(camera_name, active=False)
        hands.fault(sound_name, active=False)
        faults.wait(Kind.CAMERA, camera_fault, active=False, seconds=3.0, since=ended)
        faults.wait(sound_kind, sound_fault, active=False, seconds=3.0, since=ended)
        frames.wait(len(frames.frames) + 2, seconds=2.0)
    board.camera.stop()
    board.audio.stop()
    hands.source(Kind.MICROPHONE, "tone:1000")
    told = {(fault.kind, fault.fault) for fault in faults.all()}
    expected = {(Kind.CAMERA, row[1]) for row in rounds}
    expected |= {(Kind.MICROPHONE, row[4]) for row in rounds[:3]} | {(Kind.SPEAKER, FaultKind.STALLED)}
    assert told == expected  # and nothing that was not there
    assert {(fault.kind, fault.device) for fault in faults.all()} <= {(fact.kind, fact.id) for fact in board.devices()}


def test_heat_and_weak_supply_are_told() -> None:
    sim = open_board("sim", OPTIONS)
    try:
        assert sim.simulation is not None
        assert sim.health().throttled is False
        sim.simulation.fault("thermal", active=True, value=91.0)
        sim.simulation.fault("power.undervoltage", active=True)
        sim.simulation.fault("storage.full", active=True)
        assert sim.health().temperature_c == 91.0
        assert (sim.health().throttled, sim.health().undervoltage, sim.health().storage_full) == (True, True, True)
        sim.simulation.fault("thermal", active=False)
        assert sim.health().throttled is False
    finally:
        sim.close()


def test_a_lent_microphone_and_camera_replace_the_own_ones(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.camera is not None
    assert board.audio is not None
    lent = b"\x11\x01" * 4800
    heard: list[bytes] = []
    got = threading.Event()

    def exchange(block: AudioBlock) -> bytes:
        heard.append(block.heard)
        if block.heard == lent[:960]:
            got.set()
        return b""

    board.audio.start(48_000, 10, exchange)
    hands.lend_audio(lent)
    assert got.wait(2.0)
    board.audio.stop()
    white = io.BytesIO()
    Image.new("RGB", (320, 240), (255, 255, 255)).save(white, "JPEG")
    hands.lend_picture(white.getvalue())
    camera = board.camera

    def seen() -> Image.Image:
        return Image.open(io.BytesIO(camera.snapshot())).convert("L")

    snapshot = seen()
    assert snapshot.getpixel((snapshot.width // 2, snapshot.height // 2)) > 240
    assert snapshot.getpixel((4, snapshot.height // 2)) < 30  # 4:3 in 16:9 has bars
    assert until(lambda: read((own := seen()).tobytes(), own.width, own.height) is not None, 8.0), "nothing is lent now"
