"""What every board promises of its cameras, and of files and inputs that are shown as if they were one."""

from __future__ import annotations

import io
import itertools
import queue
import subprocess
import sys
from pathlib import Path

import av
import psutil
import pytest
from PIL import Image

from hw.api import (
    Board,
    DeviceBusyError,
    DeviceMissingError,
    EncodedFrame,
    EncoderKind,
    Fault,
    FaultKind,
    Kind,
    Simulation,
    VideoMode,
)
from hw.sim.pattern import Mark, read
from tests.contract.boards import LATE_S, once
from tests.contract.camera import (
    MODE,
    changes_size_and_rate,
    comes_back_after_its_process_was_killed,
    delivers_constrained_baseline,
    follows_the_bitrate,
    gives_small_pictures_of_what_is_sent,
    is_not_held_up_by_a_process_that_hangs,
    shows_small_pictures_again_after_its_process_hung,
    stops_from_within_its_sink,
    takes_a_picture_when_it_is_stopped,
)
from tests.contract.seen import Faults, Frames, Pictures, until
from tests.support.film import grey_film


def _decoded(units: list[EncodedFrame]) -> list[Mark | None]:
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))] + decoder.decode(None)
    return [read(bytes(f.planes[0]), f.width, f.height, f.planes[0].line_size) for f in frames]


def test_frames_are_constrained_baseline_decodable_and_stamped_with_their_capture(board: Board, quiet: None) -> None:
    assert board.camera is not None
    seen = delivers_constrained_baseline(board.camera, EncoderKind.SOFTWARE, LATE_S)
    marks = _decoded(seen.units)
    assert [mark.clock_ms if mark else None for mark in marks] == [(unit.pts_us // 1000) % 2**32 for unit in seen.units]
    counters = [mark.counter for mark in marks if mark]
    assert all(0 < after - before <= 3 for before, after in itertools.pairwise(counters))
    shot = read(Image.open(io.BytesIO(seen.jpeg)).convert("L").tobytes(), 640, 360)
    assert shot is not None
    assert counters[0] <= shot.counter <= counters[-1]


def test_small_pictures_are_of_what_is_sent(board: Board, quiet: None) -> None:
    assert board.camera is not None
    frames, pictures = gives_small_pictures_of_what_is_sent(board.camera, LATE_S)
    sent = _decoded([unit for _, unit in frames.frames[:pictures.seen[-1][0]]])
    for before, picture in pictures.seen:
        mark, newest = read(picture.i420, picture.width, picture.height), sent[before - 1]
        assert mark is not None
        assert newest is not None
        assert mark.counter == newest.counter, "the one that has just left"


@once
def test_small_pictures_end_with_what_ails_the_camera_and_come_again(
    board: Board, hands: Simulation, faults: Faults
) -> None:
    assert board.camera is not None
    frames = Frames()
    pictures = Pictures(frames)
    board.camera.preview(pictures)
    board.camera.start(MODE, frames)
    for name, fault in (("camera.freeze", FaultKind.STALLED), ("camera.unplug", FaultKind.MISSING)):
        pictures.more(2)
        hands.fault(name, active=True)
        faults.wait(Kind.CAMERA, fault, active=True, seconds=4.0)
        count = len(pictures.seen)
        hands.fault(name, active=False)
        faults.wait(Kind.CAMERA, fault, active=False, seconds=4.0)
        pictures.more(2)
        assert pictures.seen[count][0] > pictures.seen[count - 1][0]
    board.camera.preview(None)
    of = [before for before, _ in pictures.seen]
    assert of == sorted(set(of)), "each is of a frame of its own"


@once
def test_bitrate_follows_while_the_stream_goes_on(board: Board, quiet: None) -> None:
    assert board.camera is not None
    follows_the_bitrate(board.camera, LATE_S)


@once
def test_size_and_rate_change_while_the_stream_goes_on(board: Board, quiet: None) -> None:
    assert board.camera is not None
    changes_size_and_rate(board.camera, LATE_S)


def test_snapshot_of_a_stopped_camera(board: Board, quiet: None) -> None:
    assert board.camera is not None
    takes_a_picture_when_it_is_stopped(board.camera, LATE_S)


def test_a_killed_camera_process_is_a_fault_and_the_pictures_come_back(fresh_board: Board) -> None:
    faults = Faults()
    fresh_board.on_fault(faults)
    assert fresh_board.camera is not None
    comes_back_after_its_process_was_killed(fresh_board.camera, faults, LATE_S)


@pytest.mark.parametrize("fresh_board", ["sim"], indirect=True)
def test_a_camera_process_that_hangs_does_not_hold_up_stop(fresh_board: Board) -> None:
    assert fresh_board.camera is not None
    is_not_held_up_by_a_process_that_hangs(fresh_board.camera, LATE_S)


@pytest.mark.parametrize("fresh_board", ["sim"], indirect=True)
def test_small_pictures_come_again_after_the_camera_process_hung(fresh_board: Board) -> None:
    assert fresh_board.camera is not None
    shows_small_pictures_again_after_its_process_hung(fresh_board.camera, LATE_S)


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
    stops_from_within_its_sink(board.camera, LATE_S)


# --- in the place of a camera


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


# --- going and coming


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
