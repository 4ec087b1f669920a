"""What every board promises (``hw/api.py``), on each board that opens here. ``auto`` opens with what this machine has.

Camera and sound run in real time, so tests of one board share it and read what one short run delivered.
"""

from __future__ import annotations

import io
import itertools
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import psutil
import pytest
from PIL import Image

from hw.api import (
    AudioBlock,
    Board,
    BoardOptions,
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    EncodedFrame,
    EncoderKind,
    Fault,
    FaultKind,
    HardwareError,
    Kind,
    Simulation,
    Tile,
    VideoMode,
)
from hw.boards import open_board
from hw.sim.pattern import Mark, read
from tests.contract.audio import (
    counts_a_stalled_receiver,
    keeps_volume_in_bounds,
    paces_whole_blocks,
    refuses_a_rate_it_has_not,
)
from tests.contract.board import (
    leaves_nothing_when_closed_at_any_moment,
    tells_every_device,
    tells_its_health,
    uses_what_is_selected,
)
from tests.contract.camera import (
    MODE,
    changes_size_and_rate,
    comes_back_after_its_process_was_killed,
    delivers_constrained_baseline,
    follows_the_bitrate,
    is_not_held_up_by_a_process_that_hangs,
    stops_from_within_its_sink,
    takes_a_picture_when_it_is_stopped,
)
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
from tests.support.film import grey_film

BOARDS = ("sim", "auto")
once = pytest.mark.parametrize("board", ["sim"], indirect=True)
"""For what takes seconds and is the same code on both."""

OPTIONS = BoardOptions(microphone="tone:1000", long_press_s=0.3)


@pytest.fixture(scope="module", params=BOARDS)
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


# --- the board


def test_every_device_is_told(board: Board) -> None:
    tells_every_device(board)


def test_the_board_tells_its_health(board: Board) -> None:
    tells_its_health(board)


@pytest.mark.parametrize("name", BOARDS)
def test_closing_at_any_moment_leaves_nothing(name: str) -> None:
    leaves_nothing_when_closed_at_any_moment(lambda: open_board(name, OPTIONS))


def test_what_is_selected_is_used(board: Board, hands: Simulation, quiet: None) -> None:
    uses_what_is_selected(board)
    for kind in board.choices:
        hands.plug(kind, plugged=True)
    uses_what_is_selected(board)


# --- sound


def test_blocks_come_at_their_pace_whole_and_with_what_was_played(board: Board, quiet: None) -> None:
    assert board.audio is not None
    paces_whole_blocks(board.audio)


def test_a_stalled_receiver_is_counted_and_the_clock_goes_on(board: Board, quiet: None) -> None:
    assert board.audio is not None
    counts_a_stalled_receiver(board.audio)


def test_volume_is_heard(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    loud = b"\x00\x40" * 480
    emitted: list[bytes] = []
    done = threading.Event()

    def tap(pcm: bytes) -> None:
        emitted.append(pcm)
        if len(emitted) == 5:
            done.set()

    board.audio.set_volume(50)
    assert board.audio.volume == 50
    hands.tap_speaker(tap)
    board.audio.start(48_000, 10, lambda block: loud)
    assert done.wait(3.0)
    hands.tap_speaker(None)
    count = len(emitted)
    board.audio.stop()
    board.audio.set_volume(100)
    assert emitted[3] == b"\x00\x20" * 480
    assert len(emitted) == count


def test_volume_is_bounded(board: Board, quiet: None) -> None:
    assert board.audio is not None
    keeps_volume_in_bounds(board.audio)


def test_a_rate_the_card_has_not_is_refused(board: Board, quiet: None) -> None:
    assert board.audio is not None
    refuses_a_rate_it_has_not(board.audio)


# --- camera


def _decoded(units: list[EncodedFrame]) -> list[Mark | None]:
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))] + decoder.decode(None)
    return [read(bytes(f.planes[0]), f.width, f.height, f.planes[0].line_size) for f in frames]


def test_frames_are_constrained_baseline_decodable_and_stamped_with_their_capture(board: Board, quiet: None) -> None:
    assert board.camera is not None
    seen = delivers_constrained_baseline(board.camera, EncoderKind.SOFTWARE)
    marks = _decoded(seen.units)
    assert [mark.clock_ms if mark else None for mark in marks] == [(unit.pts_us // 1000) % 2**32 for unit in seen.units]
    counters = [mark.counter for mark in marks if mark]
    assert all(0 < after - before <= 3 for before, after in itertools.pairwise(counters))
    shot = read(Image.open(io.BytesIO(seen.jpeg)).convert("L").tobytes(), 640, 360)
    assert shot is not None
    assert counters[0] <= shot.counter <= counters[-1]


@once
def test_bitrate_follows_while_the_stream_goes_on(board: Board, quiet: None) -> None:
    assert board.camera is not None
    follows_the_bitrate(board.camera)


@once
def test_size_and_rate_change_while_the_stream_goes_on(board: Board, quiet: None) -> None:
    assert board.camera is not None
    changes_size_and_rate(board.camera)


def test_snapshot_of_a_stopped_camera(board: Board, quiet: None) -> None:
    assert board.camera is not None
    takes_a_picture_when_it_is_stopped(board.camera)


def test_a_killed_camera_process_is_a_fault_and_the_pictures_come_back(fresh_board: Board) -> None:
    faults = Faults()
    fresh_board.on_fault(faults)
    assert fresh_board.camera is not None
    comes_back_after_its_process_was_killed(fresh_board.camera, faults)


@pytest.mark.parametrize("fresh_board", ["sim"], indirect=True)
def test_a_camera_process_that_hangs_does_not_hold_up_stop(fresh_board: Board) -> None:
    assert fresh_board.camera is not None
    is_not_held_up_by_a_process_that_hangs(fresh_board.camera)


def test_the_camera_process_dies_with_the_daemon() -> None:
    words = (
        "import sys, hw.api, hw.boards\n"
        "board = hw.boards.open_board('sim', hw.api.BoardOptions())\n"
        "board.camera.start(hw.api.VideoMode(), lambda frame: None)\n"
        "print(board.camera.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        assert psutil.pid_exists(pid)
        daemon.kill()
        daemon.wait(5.0)
    assert until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 3.0)


def test_stop_from_within_the_sink(board: Board, quiet: None) -> None:
    assert board.camera is not None
    stops_from_within_its_sink(board.camera)


# --- screen


def test_a_file_is_shown_in_the_place_of_a_camera(board: Board, tmp_path: Path) -> None:
    with pytest.raises(DeviceMissingError, match=r"there is no file"):
        board.share(str(tmp_path / "plan.png"))
    Image.new("L", (640, 400), 180).save(tmp_path / "plan.png")
    shared = board.share(str(tmp_path / "plan.png"))
    frames = Frames()
    try:
        shared.start(VideoMode(1280, 720, 5, 400_000), frames)
        frames.wait(4)
        asked = len(frames.frames)
        shared.request_keyframe()
        frames.wait(asked + 2)
    finally:
        shared.close()
        shared.close()
    units = [unit for _, unit in frames.frames]
    assert any(unit.keyframe for unit in units[asked:])
    assert 150_000 < (units[3].pts_us - units[0].pts_us) / 3 < 250_000
    decoder = av.CodecContext.create("h264", "r")
    picture = next(one for unit in units for one in decoder.decode(av.Packet(unit.data)))
    grey = picture.to_image().convert("L")
    assert abs(grey.getpixel((640, 360)) - 180) < 8
    assert grey.getpixel((20, 360)) < 30  # bars: nothing is cut off


@once
def test_what_an_hdmi_input_receives_is_shown_beside_the_camera(
    board: Board, hands: Simulation, faults: Faults, tmp_path: Path,
) -> None:
    assert board.camera is not None
    with pytest.raises(DeviceMissingError, match="hdmi0"):
        board.capture("hdmi7")
    Image.new("L", (640, 360), 180).save(tmp_path / "slide.png")
    hands.source(Kind.CAPTURE, f"file:{tmp_path / 'slide.png'}")
    camera, frames, own = Frames(), Frames(), Faults()
    board.camera.start(MODE, camera)
    shared = board.capture("hdmi0")
    try:
        with pytest.raises(DeviceBusyError, match="shown already"):
            board.capture("hdmi0")
        shared.on_fault(own)
        shared.start(VideoMode(1280, 720, 5, 400_000), frames)
        assert until(lambda: abs(_grey(frames) - 180) < 8, 8.0), _grey(frames)
        hands.fault("hdmi.noSignal", active=True)
        faults.wait(Kind.CAPTURE, FaultKind.NO_SIGNAL, active=True, seconds=2.0)
        assert until(lambda: _grey(frames) < 24, 3.0), _grey(frames)
        hands.fault("hdmi.noSignal", active=False)
        faults.wait(Kind.CAPTURE, FaultKind.NO_SIGNAL, active=False, seconds=2.0)
        assert until(lambda: abs(_grey(frames) - 180) < 8, 3.0), _grey(frames)
        hands.fault("hdmi.unplug", active=True)
        assert "unplugged" in own.wait(Kind.CAMERA, FaultKind.PULLED, active=True, seconds=2.0).detail
        (fact,) = [one for one in board.devices() if one.kind is Kind.CAPTURE]
        assert (fact.id, fact.present) == ("hdmi0", False)
        seen = len(camera.frames)
        camera.wait(seen + 5)  # it is no matter to the camera
    finally:
        hands.fault("hdmi.unplug", active=False)
        shared.close()
        board.camera.stop()
        hands.source(Kind.CAPTURE, "pattern")
    again = board.capture("hdmi0")  # it is free
    shared.close()
    with pytest.raises(DeviceBusyError, match="shown already"):  # and closing twice has not freed it again
        board.capture("hdmi0")
    again.close()
    assert {fault.kind for fault in faults.all()} == {Kind.CAPTURE}


def _grey(frames: Frames) -> float:
    """Of the middle of the last picture; 0 before there is one."""
    decoder, picture = av.CodecContext.create("h264", "r"), None
    for _, unit in list(frames.frames):
        picture = next(iter(decoder.decode(av.Packet(unit.data))), picture)
    return 0.0 if picture is None else float(picture.to_image().convert("L").getpixel((640, 360)))


def test_what_is_no_picture_is_told_when_it_is_shown(board: Board, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    shared, told = board.share(str(tmp_path / "notes.txt")), queue.SimpleQueue[Fault]()
    try:
        shared.on_fault(told.put)
        shared.start(VideoMode(1280, 720, 5, 400_000), lambda _: None)
        fault = told.get(timeout=10)
        while not fault.active:
            fault = told.get(timeout=10)
        assert fault.fault is FaultKind.FORMAT
        assert "neither picture nor video" in fault.detail
    finally:
        shared.close()


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
    tells_presses_short_and_long(board.panel, hands, OPTIONS.long_press_s)
    for wrong in (lambda: hands.press("bell", 1.0), lambda: hands.set_input("bell", closed=True)):
        with pytest.raises(KeyError):
            wrong()


def test_lamps_keep_their_rhythm(board: Board) -> None:
    assert board.panel is not None
    keeps_lamps_in_their_rhythm(board.panel)


def test_a_relay_opens_by_itself_and_at_once_when_told(board: Board) -> None:
    assert board.panel is not None
    opens_a_relay_by_itself_and_when_told(board.panel)


def test_a_slow_listener_keeps_no_relay_closed(board: Board, hands: Simulation) -> None:
    assert board.panel is not None
    lets_no_listener_keep_a_relay_closed(board.panel, hands)


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
        faults.wait(Kind.CAMERA, camera_fault, active=True, seconds=camera_s, since=began)
        faults.wait(sound_kind, sound_fault, active=True, seconds=max(0.1, sound_s), since=began)
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


def test_unplugged_in_use_the_camera_comes_back_by_itself(board: Board, hands: Simulation, faults: Faults) -> None:
    assert board.camera is not None
    frames = Frames()
    board.camera.start(MODE, frames)
    frames.wait(2)
    hands.fault("camera.unplug", active=True)
    faults.wait(Kind.CAMERA, FaultKind.MISSING, active=True, seconds=2.0)
    with pytest.raises(DeviceMissingError, match="unplugged"):
        board.camera.snapshot()
    count = len(frames.frames)
    hands.fault("camera.unplug", active=False)
    frames.wait(count + 3, seconds=3.0)
    assert frames.frames[count][1].keyframe
    board.camera.stop()
    assert {fault.fault for fault in faults.all()} == {FaultKind.MISSING}


def test_unplugged_in_use_the_microphone_is_replaced_by_a_null_clock(
    board: Board, hands: Simulation, faults: Faults
) -> None:
    assert board.audio is not None
    blocks: list[tuple[float, AudioBlock]] = []

    def exchange(block: AudioBlock) -> bytes:
        blocks.append((time.monotonic(), block))
        return b""

    board.audio.start(48_000, 10, exchange)
    assert until(lambda: len(blocks) > 3, 2.0)
    hands.fault("mic.unplug", active=True)
    faults.wait(Kind.MICROPHONE, FaultKind.MISSING, active=True, seconds=2.0)
    assert until(lambda: any(block.missed > 30 for _, block in blocks), 2.0)
    gap = next(number for number, (_, block) in enumerate(blocks) if block.missed > 30)
    assert 0.3 < blocks[gap][0] - blocks[gap - 1][0] < 0.6
    count = len(blocks)
    assert until(lambda: len(blocks) > count + 5, 1.0)
    assert blocks[-1][1].heard == bytes(960)
    hands.fault("mic.unplug", active=False)
    assert until(lambda: any(blocks[-1][1].heard), 1.0)
    board.audio.stop()


def test_the_selected_microphone_is_heard_and_another_while_it_is_away(
    board: Board, hands: Simulation, faults: Faults
) -> None:
    assert board.audio is not None
    blocks: list[AudioBlock] = []

    def exchange(block: AudioBlock) -> bytes:
        blocks.append(block)
        return b""

    def crossings() -> float:
        """Of zero within 100 ms: twice the frequency, over ten."""
        heard = struct.unpack("<4800h", b"".join(block.heard for block in blocks[-10:]))
        return sum(one < 0 <= other or other < 0 <= one for one, other in itertools.pairwise(heard))

    def hears(hertz: int) -> bool:
        del blocks[:]
        return until(lambda: len(blocks) > 12 and abs(crossings() - hertz / 5) < 10, 2.0)

    board.audio.start(48_000, 10, exchange)
    assert hears(1000)
    with pytest.raises(DeviceFailedError, match="radio"):
        hands.plug(Kind.MICROPHONE, plugged=True, spec="radio")
    hands.plug(Kind.MICROPHONE, plugged=True, spec="tone:300")
    assert hears(1000), "plugged in, and nobody has asked for it"
    board.select(Kind.MICROPHONE, "mic1")
    assert hears(300)
    hands.plug(Kind.MICROPHONE, plugged=False)
    faults.wait(Kind.MICROPHONE, FaultKind.PULLED, active=True, seconds=2.0)
    assert hears(1000)
    hands.fault("mic.unplug", active=True)
    assert faults.wait(Kind.MICROPHONE, FaultKind.MISSING, active=True, seconds=2.0).device == "mic0"
    hands.plug(Kind.MICROPHONE, plugged=True)
    faults.wait(Kind.MICROPHONE, FaultKind.PULLED, active=False, seconds=2.0)
    faults.wait(Kind.MICROPHONE, FaultKind.MISSING, active=False, seconds=2.0)
    assert hears(300)
    hands.fault("mic.unplug", active=False)
    assert hears(300)
    board.select(Kind.MICROPHONE, "")
    assert hears(1000)
    board.audio.stop()


def test_the_selected_loudspeaker_plays_where_the_other_is_mute(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    emitted: list[bytes] = []
    hands.tap_speaker(emitted.append)
    hands.fault("speaker.mute", active=True)
    board.audio.start(48_000, 10, lambda block: b"\x00\x10" * 480)
    assert until(lambda: len(emitted) > 5, 2.0)
    assert not any(map(any, emitted))
    hands.plug(Kind.SPEAKER, plugged=True)
    board.select(Kind.SPEAKER, "spk1")
    assert until(lambda: any(emitted[-1]), 2.0)
    hands.plug(Kind.SPEAKER, plugged=False)
    assert until(lambda: not any(emitted[-1]), 2.0)
    with pytest.raises(ValueError, match="speaker"):
        hands.plug(Kind.SPEAKER, plugged=True, spec="tone:300")


def test_the_selected_camera_is_seen_in_the_same_stream(
    board: Board, hands: Simulation, faults: Faults, tmp_path: Path
) -> None:
    assert board.camera is not None
    hands.plug(Kind.CAMERA, plugged=True, spec=f"file:{grey_film(tmp_path / 'grey.mp4')}")
    frames = Frames()

    def sees(pattern: bool) -> bool:
        """In a key frame, within 2 s."""
        count = len(frames.frames)

        def now() -> bool:
            keys = [frame for _, frame in frames.frames[count:] if frame.keyframe]
            return bool(keys) and (_decoded(keys[-1:])[0] is not None) is pattern

        return until(now, 2.0)

    board.camera.start(MODE, frames)
    frames.wait(3, seconds=5.0)
    board.select(Kind.CAMERA, "cam1")
    assert sees(pattern=False)
    hands.plug(Kind.CAMERA, plugged=False)
    faults.wait(Kind.CAMERA, FaultKind.PULLED, active=True, seconds=2.0)
    assert sees(pattern=True)
    hands.plug(Kind.CAMERA, plugged=True)
    assert sees(pattern=False)
    hands.fault("camera.busy", active=True)
    board.select(Kind.CAMERA, "cam0")
    faults.wait(Kind.CAMERA, FaultKind.BUSY, active=True, seconds=2.0)
    count = len(frames.frames)
    frames.wait(count + 3, seconds=2.0)
    hands.fault("camera.busy", active=False)
    assert sees(pattern=True)
    board.camera.stop()
    assert {(fault.fault, fault.device) for fault in faults.all()} == {
        (FaultKind.PULLED, "cam1"), (FaultKind.BUSY, "cam0")}


def test_the_echo_path_is_physical(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    hands.source(Kind.MICROPHONE, "silence")
    hands.fault("echo.delayMs", active=True, value=20.0)
    hands.fault("echo.erlDb", active=True, value=6.0206)
    blocks: list[AudioBlock] = []
    done = threading.Event()

    def exchange(block: AudioBlock) -> bytes:
        blocks.append(block)
        if len(blocks) == 12:
            done.set()
        return (b"\x00\x20" if len(blocks) == 5 else b"\0\0") * 480

    board.audio.start(48_000, 10, exchange)
    assert done.wait(2.0)
    board.audio.stop()
    loud = [number for number, block in enumerate(blocks) if max(memoryview(block.heard).cast("h")) > 100]
    played = [number for number, block in enumerate(blocks) if any(block.played)]
    assert [number + 2 for number in played] == loud  # 20 ms are two blocks
    assert abs(max(memoryview(blocks[loud[0]].heard).cast("h")) - 0x1000) <= 2
    with pytest.raises(ValueError, match=r"echo\.delayMs: -5 is outside 0 to 1000 ms"):
        hands.fault("echo.delayMs", active=True, value=-5.0)
    for name in ("echo.delayMs", "echo.erlDb"):
        hands.fault(name, active=False)
    hands.source(Kind.MICROPHONE, "tone:1000")


def test_the_room_of_the_echo_path_rings_saturates_and_changes(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    hands.source(Kind.MICROPHONE, "silence")

    def answer(peak: bytes) -> list[int]:
        """What one loud sample makes the microphone hear in the next 200 ms."""
        heard: list[bytes] = []
        done = threading.Event()

        def exchange(block: AudioBlock) -> bytes:
            heard.append(block.heard)
            if len(heard) == 25:
                done.set()
            return peak + bytes(958) if len(heard) == 3 else bytes(960)

        board.audio.start(48_000, 10, exchange)
        assert done.wait(3.0)
        board.audio.stop()
        return list(memoryview(b"".join(heard)).cast("h"))

    hands.fault("echo.erlDb", active=True, value=0.0)
    hands.fault("echo.delayMs", active=True, value=20.0)
    assert board.audio.echoes
    plain = answer(b"\xff\x7f")
    assert sum(abs(value) > 3 for value in plain) == 1
    hands.fault("echo.roomMs", active=True, value=200.0)
    ringing = answer(b"\xff\x7f")
    assert sum(abs(value) > 3 for value in ringing) > 1000
    hands.fault("echo.moved", active=True)
    assert answer(b"\xff\x7f") != ringing
    hands.fault("echo.roomMs", active=False)
    hands.fault("echo.moved", active=False)
    hands.fault("echo.distortion", active=True, value=20.0)
    assert max(answer(b"\xff\x7f")) < 4000, "a tenth of full scale is all that gets through"
    with pytest.raises(ValueError, match="room"):
        hands.fault("echo.roomMs", active=True, value=5000.0)
    for name in ("echo.delayMs", "echo.erlDb", "echo.distortion"):
        hands.fault(name, active=False)
    assert not board.audio.echoes
    hands.source(Kind.MICROPHONE, "tone:1000")


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
    snapshot = Image.open(io.BytesIO(board.camera.snapshot())).convert("L")
    assert snapshot.getpixel((snapshot.width // 2, snapshot.height // 2)) > 240
    assert snapshot.getpixel((4, snapshot.height // 2)) < 30  # 4:3 in 16:9 has bars
