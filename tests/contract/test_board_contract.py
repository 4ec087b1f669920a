"""What every board promises (``hw/api.py``), on each board that opens here. ``auto`` opens with what this machine has.

Camera and sound run in real time, so tests of one board share it and read what one short run delivered.
"""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import av
import psutil
import pytest
from PIL import Image

from hw.api import (
    AudioBlock,
    Board,
    BoardOptions,
    DeviceBusyError,
    DeviceFailedError,
    DeviceMissingError,
    EncodedFrame,
    EncoderKind,
    Fault,
    FaultKind,
    Kind,
    Picture,
    Press,
    PressKind,
    Simulation,
    Tile,
    VideoMode,
)
from hw.boards import open_board
from hw.sim.pattern import Mark, read
from hw.sim.sources import nal_units
from tests.contract.audio import counts_a_stalled_receiver, paces_whole_blocks
from tests.support.leaks import Belongings

BOARDS = ("sim", "auto")
once = pytest.mark.parametrize("board", ["sim"], indirect=True)
"""For what takes seconds and is the same code on both."""

MODE = VideoMode(640, 360, 30, 800_000)
OPTIONS = BoardOptions(microphone="tone:1000", long_press_s=0.3)


class Faults:
    """Collects faults and waits for one."""

    def __init__(self) -> None:
        self._told: list[tuple[float, Fault]] = []
        self._changed = threading.Condition()

    def __call__(self, fault: Fault) -> None:
        with self._changed:
            self._told.append((time.monotonic(), fault))
            self._changed.notify_all()

    def wait(self, kind: Kind, fault: FaultKind, active: bool, seconds: float, since: float = 0.0) -> Fault:
        def found() -> Fault | None:
            for at, told in self._told:
                if at >= since and (told.kind, told.fault, told.active) == (kind, fault, active):
                    return told
            return None

        with self._changed:
            assert self._changed.wait_for(found, seconds), f"no {kind} {fault} {active} in {seconds} s: {self._told}"
        result = found()
        assert result is not None
        return result

    def all(self) -> list[Fault]:
        with self._changed:
            return [fault for _, fault in self._told]


class Frames:
    """A sink for encoded frames that can be waited for."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, EncodedFrame]] = []
        self._changed = threading.Condition()

    def __call__(self, frame: EncodedFrame) -> None:
        with self._changed:
            self.frames.append((time.monotonic(), frame))
            self._changed.notify_all()

    def wait(self, count: int, seconds: float = 5.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.frames) >= count, seconds), f"{len(self.frames)} of {count}"


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


@pytest.fixture
def faults(board: Board, quiet: None) -> Faults:
    told = Faults()
    board.on_fault(told)
    return told


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """For states that can only be read back (lamps, relays)."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


# --- the board


def test_every_device_is_told(board: Board) -> None:
    assert {fact.kind for fact in board.devices()} == set(Kind)
    assert all(fact.id and fact.name and fact.present for fact in board.devices())
    assert board.facts()["model"]
    assert board.health().temperature_c is None or board.health().temperature_c > -40


@pytest.mark.parametrize("name", BOARDS)
def test_closing_at_any_moment_leaves_nothing(name: str) -> None:
    open_board(name, OPTIONS).close()  # what Python itself opens once is open now
    before = Belongings.now()
    half = open_board(name, OPTIONS)
    half.close()  # its camera process has not even come up
    used = open_board(name, OPTIONS)
    assert used.camera is not None
    assert used.audio is not None
    assert used.panel is not None
    assert used.display is not None
    frames = Frames()
    used.camera.start(MODE, frames)
    used.audio.start(48_000, 10, lambda block: block.heard)
    used.panel.switch("door", 20.0)
    used.display.screenshot()
    frames.wait(1, 10.0)
    began = time.monotonic()
    used.close()
    assert time.monotonic() - began < 3.0
    used.close()
    count = len(frames.frames)
    assert not used.panel.closed("door")
    assert before.left() == []
    assert len(frames.frames) == count
    with pytest.raises(DeviceFailedError):
        used.camera.snapshot()


# --- sound


def test_blocks_come_at_their_pace_whole_and_with_what_was_played(board: Board, quiet: None) -> None:
    assert board.audio is not None
    paces_whole_blocks(board.audio)


def test_a_stalled_receiver_is_counted_and_the_clock_goes_on(board: Board, quiet: None) -> None:
    assert board.audio is not None
    counts_a_stalled_receiver(board.audio)


def test_volume_is_heard_and_bounded(board: Board, hands: Simulation, quiet: None) -> None:
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
    for wrong in (-1, 101):
        with pytest.raises(ValueError, match="volume"):
            board.audio.set_volume(wrong)


def test_a_rate_the_card_has_not_is_refused(board: Board, quiet: None) -> None:
    assert board.audio is not None
    with pytest.raises(DeviceFailedError, match="48000 Hz"):
        board.audio.start(11_025, 10, lambda block: b"")


# --- camera


def _decoded(units: list[EncodedFrame]) -> list[Mark | None]:
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))] + decoder.decode(None)
    return [read(bytes(f.planes[0]), f.width, f.height, f.planes[0].line_size) for f in frames]


def test_frames_are_constrained_baseline_decodable_and_stamped_with_their_capture(board: Board, quiet: None) -> None:
    camera = board.camera
    assert camera is not None
    assert camera.encoder is EncoderKind.SOFTWARE
    frames = Frames()
    began = time.monotonic()
    assert camera.start(MODE, frames) == MODE
    assert time.monotonic() - began < 0.2
    with pytest.raises(DeviceBusyError):
        camera.start(MODE, frames)
    frames.wait(20)
    jpeg = camera.snapshot()
    frames.wait(25)
    camera.request_keyframe()
    asked = len(frames.frames)
    frames.wait(asked + 4)
    stopping = time.monotonic()
    camera.stop()
    assert time.monotonic() - stopping < 0.5
    camera.stop()
    count = len(frames.frames)

    assert frames.frames[0][0] - began < 0.5
    units = [unit for _, unit in frames.frames]
    stamps = [unit.pts_us for unit in units]
    assert stamps == sorted(set(stamps))
    assert all(0 <= at * 1e6 - unit.pts_us < 200_000 for at, unit in frames.frames)
    for unit in units:
        types = [kind for kind, _ in nal_units(unit.data)]
        assert unit.data.startswith(b"\0\0\0\1")
        assert unit.keyframe == (5 in types) == (7 in types) == (8 in types)
        for kind, body in nal_units(unit.data):
            if kind == 7:
                assert (body[1], body[2] & 0x40) == (66, 0x40)  # constrained baseline
                assert body[3] <= 31  # level 3.1
    keys = [number for number, unit in enumerate(units) if unit.keyframe]
    assert keys[0] == 0
    assert any(asked <= key <= asked + 2 for key in keys)

    marks = _decoded(units)
    assert [mark.clock_ms if mark else None for mark in marks] == [(stamp // 1000) % 2**32 for stamp in stamps]
    counters = [mark.counter for mark in marks if mark]
    assert all(0 < after - before <= 3 for before, after in itertools.pairwise(counters))
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.size == (640, 360)
    shot = read(picture.convert("L").tobytes(), 640, 360)
    assert shot is not None
    assert counters[0] <= shot.counter <= counters[-1]
    assert len(frames.frames) == count  # none came after stop()


@once
def test_bitrate_follows_while_the_stream_goes_on(board: Board, quiet: None) -> None:
    camera = board.camera
    assert camera is not None
    mode, frames = VideoMode(640, 360, 30, 2_000_000), Frames()
    camera.start(mode, frames)

    def rate_of_a_second() -> float:
        start = len(frames.frames)
        frames.wait(start + 30)
        part = [unit for _, unit in frames.frames[start : start + 30]]
        return sum(len(unit.data) * 8 for unit in part) * 1e6 * 29 / 30 / (part[-1].pts_us - part[0].pts_us)

    frames.wait(15)
    high = rate_of_a_second()
    camera.set_bitrate(300_000)
    frames.wait(len(frames.frames) + 15)  # 500 ms
    low = rate_of_a_second()
    camera.stop()
    assert high > 1_200_000
    assert low < 450_000
    stamps = [unit.pts_us for _, unit in frames.frames]
    assert all(0 < after - before < 250_000 for before, after in itertools.pairwise(stamps))


@once
def test_size_and_rate_change_while_the_stream_goes_on(board: Board, quiet: None) -> None:
    camera = board.camera
    assert camera is not None
    camera.set_mode(VideoMode(320, 180, 15, 100_000))
    assert camera.mode is None, "stopped: nothing to change"
    frames = Frames()
    camera.start(MODE, frames)
    frames.wait(15)
    small = VideoMode(320, 180, 15, 150_000)
    began = time.monotonic()
    camera.set_mode(small)
    assert time.monotonic() - began < 0.05
    assert camera.mode == small
    frames.wait(45)
    camera.set_bitrate(120_000)
    assert camera.mode == replace(small, bitrate=120_000)
    frames.wait(50)
    back = time.monotonic()
    camera.set_mode(MODE)
    frames.wait(70)
    camera.stop()
    assert camera.mode is None

    decoder = av.CodecContext.create("h264", "r")
    sizes = []
    for at, unit in frames.frames:
        (picture,) = decoder.decode(av.Packet(unit.data))
        sizes.append((at, unit, picture.width))
    assert [width for width, _ in itertools.groupby(width for *_, width in sizes)] == [640, 320, 640]
    changes = [after for before, after in itertools.pairwise(sizes) if after[2] != before[2]]
    for asked, (at, unit, _) in zip((began, back), changes, strict=True):
        assert unit.keyframe
        assert at - asked < 0.5
    steps = [after[1].pts_us - before[1].pts_us for before, after in itertools.pairwise(sizes) if after[2] == 320]
    assert 55_000 < sorted(steps)[len(steps) // 2] < 78_000, "15 a second"


def test_snapshot_of_a_stopped_camera(board: Board) -> None:
    assert board.camera is not None
    jpeg = board.camera.snapshot()
    assert Image.open(io.BytesIO(jpeg)).size == (640, 360)


def test_a_killed_camera_process_is_a_fault_and_the_pictures_come_back(fresh_board: Board) -> None:
    camera, faults = fresh_board.camera, Faults()
    fresh_board.on_fault(faults)
    assert camera is not None
    frames = Frames()
    camera.start(MODE, frames)
    frames.wait(3)
    pid = getattr(camera, "pid", None)
    assert pid in {child.pid for child in psutil.Process().children()}
    os.kill(pid, signal.SIGKILL)
    fault = faults.wait(Kind.CAMERA, FaultKind.FAILED, active=True, seconds=2.0)
    assert "died" in fault.detail
    count = len(frames.frames)
    frames.wait(count + 3, seconds=8.0)
    assert frames.frames[count][1].keyframe
    faults.wait(Kind.CAMERA, FaultKind.FAILED, active=False, seconds=1.0)
    camera.stop()


@pytest.mark.parametrize("fresh_board", ["sim"], indirect=True)
def test_a_camera_process_that_hangs_does_not_hold_up_stop(fresh_board: Board) -> None:
    camera = fresh_board.camera
    assert camera is not None
    frames = Frames()
    camera.start(MODE, frames)
    frames.wait(1)
    pid = getattr(camera, "pid", None)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    camera.stop()
    assert time.monotonic() - began < 0.5
    assert _wait(lambda: not psutil.pid_exists(pid), 2.0)
    assert camera.snapshot(8.0)  # a new one has taken its place


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
    assert _wait(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 3.0)


def test_stop_from_within_the_sink(board: Board, quiet: None) -> None:
    camera = board.camera
    assert camera is not None
    stopped, count = threading.Event(), 0

    def sink(_: EncodedFrame) -> None:
        nonlocal count
        count += 1
        camera.stop()
        stopped.set()

    camera.start(MODE, sink)
    assert stopped.wait(5.0)
    assert camera.snapshot()  # the pipe was read beyond
    assert count == 1


# --- screen


def _flat(luma: int, blue: int, red: int, width: int = 64, height: int = 36) -> Picture:
    size = width * height
    return Picture(width, height, bytes([luma]) * size + bytes([blue]) * (size // 4) + bytes([red]) * (size // 4))


def _screen(board: Board) -> Image.Image:
    assert board.display is not None
    shot = Image.open(io.BytesIO(board.display.screenshot()))
    assert shot.format == "PNG"
    assert shot.size == board.display.size
    return shot.convert("RGB")


def test_the_screen_shows_what_it_was_told(board: Board, hands: Simulation) -> None:
    display = board.display
    assert display is not None
    red, blue = _flat(81, 90, 240), _flat(41, 240, 110)
    display.show([Tile(red, 0.0, 0.0, 0.5, 0.5), Tile(blue, 0.5, 0.0, 0.5, 0.5, label="Anna")])
    shot = _screen(board)
    width, height = shot.size
    left, right = shot.getpixel((width // 4, height // 4)), shot.getpixel((width * 3 // 4, height // 4))
    assert left[0] > 200
    assert left[2] < 60
    assert right[2] > 200
    assert right[0] < 60
    assert max(shot.getpixel((width // 2, height * 3 // 4))) < 60
    display.show([], "Calling the front desk", "Please wait")
    words = _screen(board).convert("L").point(lambda value: 255 if value > 200 else 0)
    box = words.getbbox()
    assert box is not None
    assert box[3] - box[1] > height * 0.05  # letters of that height are read at 3 m
    assert box[2] - box[0] > width * 0.4
    jpeg = Image.open(io.BytesIO(hands.screen(320)))
    assert (jpeg.format, jpeg.width) == ("JPEG", 320)
    display.blank()
    assert _screen(board).getextrema() == ((0, 0), (0, 0), (0, 0))


def test_a_mirrored_tile_is_mirrored_and_long_words_fit(board: Board) -> None:
    display = board.display
    assert display is not None
    half = (bytes([235]) * 32 + bytes([16]) * 32) * 36
    picture = Picture(64, 36, half + bytes([128]) * (2 * 32 * 18))
    display.show([Tile(picture, mirrored=True)], "W" * 200, "x" * 500)
    shot = _screen(board).convert("L")
    assert shot.getpixel((shot.width // 8, shot.height // 8)) < 50
    assert shot.getpixel((shot.width * 7 // 8, shot.height // 8)) > 200


# --- panel


def test_presses_are_told_short_and_long(board: Board, hands: Simulation, quiet: None) -> None:
    panel = board.panel
    assert panel is not None
    told: list[Press] = []
    more = threading.Semaphore(0)

    def on_press(press: Press) -> None:
        told.append(press)
        more.release()

    panel.listen(on_press)
    hands.press("call", 0.1)
    assert more.acquire(timeout=2)
    assert more.acquire(timeout=2)
    hands.press("call", 0.5)
    assert more.acquire(timeout=2)
    assert more.acquire(timeout=2)
    hands.set_input("door", closed=True)
    assert more.acquire(timeout=2)
    hands.set_input("door", closed=False)
    assert more.acquire(timeout=2)
    assert [(press.name, press.kind) for press in told] == [
        ("call", PressKind.PRESSED), ("call", PressKind.RELEASED),
        ("call", PressKind.PRESSED), ("call", PressKind.HELD),
        ("door", PressKind.INPUT_ON), ("door", PressKind.INPUT_OFF),
    ]  # fmt: skip
    assert 0.05 < told[1].held_s < 0.3  # a busy machine lets go late, but short of a long press
    assert 0.3 <= told[3].held_s < 0.5
    for wrong in (lambda: hands.press("bell", 1.0), lambda: hands.set_input("bell", closed=True)):
        with pytest.raises(KeyError):
            wrong()


def test_lamps_keep_their_rhythm(board: Board) -> None:
    panel = board.panel
    assert panel is not None
    panel.light("status", [(1.0, True)])
    assert panel.lit("status")
    panel.light("status", [(1.0, False)])
    assert not panel.lit("status")
    panel.light("call", [(0.06, True), (0.06, False)])
    changes, last, begun = 0, panel.lit("call"), time.monotonic()
    while changes < 8 and time.monotonic() - begun < 10:
        panel.light("call", [(0.06, True), (0.06, False)])  # told again with every state: no stumble
        if panel.lit("call") != last:
            last, changes = not last, changes + 1
        time.sleep(0.005)
    assert changes == 8
    assert time.monotonic() - begun > 7 * 0.06 - 0.03
    panel.light("call", [(1.0, False)])
    for wrong in ([], [(0.0, True)]):
        with pytest.raises(ValueError, match="lamp call"):
            panel.light("call", wrong)
    with pytest.raises(KeyError):
        panel.light("disco", [(1.0, True)])
    with pytest.raises(KeyError):
        panel.lit("disco")


def test_a_relay_opens_by_itself_and_at_once_when_told(board: Board) -> None:
    panel = board.panel
    assert panel is not None
    assert not panel.closed("door")
    began = time.monotonic()
    panel.switch("door", 0.2)
    assert panel.closed("door")
    assert _wait(lambda: not panel.closed("door"), 2.0)
    assert 0.18 <= time.monotonic() - began < 0.4
    panel.switch("door", 20.0)
    panel.switch("door", 0.0)
    assert not panel.closed("door")
    for wrong in (-1.0, 31.0, float("nan")):
        with pytest.raises(ValueError, match="relay door"):
            panel.switch("door", wrong)
    with pytest.raises(KeyError):
        panel.switch("gate", 1.0)


def test_a_slow_listener_keeps_no_relay_closed(board: Board, hands: Simulation) -> None:
    panel = board.panel
    assert panel is not None
    inside, leave = threading.Event(), threading.Event()

    def on_press(_: Press) -> None:
        inside.set()
        leave.wait(5.0)

    panel.listen(on_press)
    hands.press("mute", 0.05)
    assert inside.wait(2.0)
    panel.switch("door", 0.1)
    assert _wait(lambda: not panel.closed("door"), 1.0)
    leave.set()
    panel.listen(lambda press: None)


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
    assert set(hands.faults) >= {"camera.freeze", "mic.unplug", "speaker.stall", "thermal", "button.stuck"}
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
]


@pytest.mark.parametrize(("name", "kind", "fault"), AT_ONCE)
def test_what_the_system_tells_is_told_also_outside_calls(
    board: Board, hands: Simulation, faults: Faults, name: str, kind: Kind, fault: FaultKind
) -> None:
    hands.fault(name, active=True)
    faults.wait(kind, fault, active=True, seconds=2.0)
    late = Faults()
    board.on_fault(late)
    late.wait(kind, fault, active=True, seconds=1.0)
    assert [fact.present for fact in board.devices() if fact.kind is kind] == [fault is not FaultKind.MISSING]
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
    assert _wait(lambda: len(blocks) > 3, 2.0)
    hands.fault("mic.unplug", active=True)
    faults.wait(Kind.MICROPHONE, FaultKind.MISSING, active=True, seconds=2.0)
    assert _wait(lambda: any(block.missed > 30 for _, block in blocks), 2.0)
    gap = next(number for number, (_, block) in enumerate(blocks) if block.missed > 30)
    assert 0.3 < blocks[gap][0] - blocks[gap - 1][0] < 0.6
    count = len(blocks)
    assert _wait(lambda: len(blocks) > count + 5, 1.0)
    assert blocks[-1][1].heard == bytes(960)
    hands.fault("mic.unplug", active=False)
    assert _wait(lambda: any(blocks[-1][1].heard), 1.0)
    board.audio.stop()


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
    with pytest.raises(ValueError, match="echo path"):
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
