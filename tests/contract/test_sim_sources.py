"""What only a simulated board can do: recorded clips, video files, a loudspeaker that writes a file."""

from __future__ import annotations

import io
import threading
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from hw.api import BoardOptions, DeviceFailedError, EncodedFrame, EncoderKind, Kind, VideoMode
from hw.boards import open_board
from hw.sim.pattern import read
from hw.sim.sources import open_source
from tests.contract.boards import LATE_S
from tests.contract.seen import until

CLIP = VideoMode(320, 180, 25, 300_000)


class Frames:
    def __init__(self) -> None:
        self.units: list[EncodedFrame] = []
        self._changed = threading.Condition()

    def __call__(self, unit: EncodedFrame) -> None:
        with self._changed:
            self.units.append(unit)
            self._changed.notify_all()

    def wait(self, count: int, seconds: float = 8.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.units) >= count, seconds), f"{len(self.units)} of {count}"

    def key_of(self, asked_us: int) -> EncodedFrame:
        """The first key frame of what was captured from then on; what is older may still be on its way."""
        def found() -> EncodedFrame | None:
            return next((unit for unit in self.units if unit.keyframe and unit.pts_us > asked_us), None)

        with self._changed:
            self._changed.wait_for(found, 8.0)
        key = found()
        assert key is not None
        return key


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """40 pictures with a key frame every 20, so that a jump is told from a key frame that came by itself."""
    path, source = tmp_path / "clip.mp4", open_source("pattern", CLIP)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = CLIP.width, CLIP.height, "yuv420p"
        stream.options = {"profile": "baseline", "preset": "ultrafast", "tune": "zerolatency", "g": "20"}
        for number in range(40):
            picture = source.picture(number, number * 40_000)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return str(path)


def test_a_clip_is_passed_through_and_says_what_it_is(clip: str) -> None:
    board = open_board("sim", BoardOptions(camera=f"clip:{clip}"))
    try:
        camera, frames = board.camera, Frames()
        assert camera.snapshot(10.0)
        assert camera.encoder is EncoderKind.RECORDED
        shown, levels = threading.Event(), []
        camera.preview(lambda picture: (levels.append(picture.i420[320 * 90 + 160]), shown.set()))
        actual = camera.start(VideoMode(1280, 720, 30), frames)
        assert (actual.width, actual.height, actual.fps) == (320, 180, 25)
        frames.wait(5)
        asked_us = time.monotonic_ns() // 1000
        camera.request_keyframe()
        assert frames.key_of(asked_us).pts_us - asked_us < 300_000, "by itself one comes every 800 ms"
        camera.set_mode(VideoMode(160, 90, 10))
        frames.wait(len(frames.units) + 4)
        assert camera.mode == actual, "encoded already: nothing to change"
        stamps = [unit.pts_us for unit in frames.units]
        assert stamps == sorted(set(stamps))
        shot = Image.open(io.BytesIO(camera.snapshot()))
        assert read(shot.convert("L").tobytes(), *shot.size) is not None

        white = io.BytesIO()
        Image.new("RGB", (320, 180), (255, 255, 255)).save(white, "JPEG")
        assert not shown.is_set(), "a clip comes encoded"
        lent_us = time.monotonic_ns() // 1000
        board.simulation.lend_picture(white.getvalue())
        assert until(lambda: camera.encoder is EncoderKind.SOFTWARE, 5.0)  # while a picture is lent it is encoded here
        assert shown.wait(2.0), "and what is encoded here is raw before"
        assert min(levels) > 200
        assert frames.key_of(lent_us).pts_us - lent_us < 300_000
        camera.stop()
    finally:
        board.close()


def test_the_source_changes_while_the_camera_runs(clip: str) -> None:
    board = open_board("sim", BoardOptions(camera=f"file:{clip}"))
    try:
        camera, frames = board.camera, Frames()
        camera.start(VideoMode(320, 180, 30, 300_000), frames)
        frames.wait(5)
        count = len(frames.units)
        board.simulation.source(Kind.CAMERA, "pattern")
        frames.wait(count + 10)
        camera.stop()
        first = next(n for n, unit in enumerate(frames.units) if n >= count and unit.keyframe)
        decoder = av.CodecContext.create("h264", "r")
        pictures = [f for unit in frames.units[first:] for f in decoder.decode(av.Packet(unit.data))]
        marks = [read(bytes(f.planes[0]), 320, 180, f.planes[0].line_size) for f in pictures]
        stamps = [unit.pts_us // 1000 for unit in frames.units[first:]]
        assert [mark.clock_ms for mark in marks if mark] == stamps[: len(marks)]  # the clock of now, not the film's
    finally:
        board.close()


def test_a_change_of_size_outlives_a_change_of_source(clip: str) -> None:
    board = open_board("sim", BoardOptions(camera=f"file:{clip}"))
    try:
        camera, frames = board.camera, Frames()
        camera.start(VideoMode(320, 180, 30, 300_000), frames)
        frames.wait(5)
        small = VideoMode(160, 90, 10, 100_000)
        camera.set_mode(small)
        frames.wait(10)
        count = len(frames.units)
        board.simulation.source(Kind.CAMERA, "pattern")
        frames.wait(count + 10)
        assert camera.mode == small
        camera.stop()
        first = next(n for n, unit in enumerate(frames.units) if n >= count and unit.keyframe)
        decoder = av.CodecContext.create("h264", "r")
        sizes = {(f.width, f.height) for unit in frames.units[first:] for f in decoder.decode(av.Packet(unit.data))}
        assert sizes == {(160, 90)}
    finally:
        board.close()


def test_a_missing_file_is_told_and_comes_to_life_with_another_source() -> None:
    board, told = open_board("sim", BoardOptions(camera="file:/nowhere.mp4")), threading.Event()
    try:
        board.on_fault(lambda fault: told.set() if fault.active and "/nowhere.mp4" in fault.detail else None)
        frames = Frames()
        began = time.monotonic()
        board.camera.start(CLIP, frames)
        assert time.monotonic() - began < 0.2 + LATE_S
        assert told.wait(5.0)
        board.simulation.source(Kind.CAMERA, "pattern")
        frames.wait(2)
    finally:
        board.close()


def test_the_loudspeaker_writes_what_it_played(tmp_path: Path) -> None:
    path = tmp_path / "played.wav"
    board, done, count = open_board("sim", BoardOptions(speaker=str(path))), threading.Event(), 0

    def exchange(_: object) -> bytes:
        nonlocal count
        count += 1
        if count == 12:
            done.set()
        return bytes([count, 0]) * 480

    try:
        board.audio.start(48_000, 10, exchange)
        assert done.wait(3.0)
    finally:
        board.close()
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (48_000, 1, 2)
        pcm = file.readframes(480 * 10)
    assert pcm == bytes(960) + b"".join(bytes([number, 0]) * 480 for number in range(1, 10))


def test_a_recording_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DeviceFailedError, match="nowhere"):
        open_board("sim", BoardOptions(speaker=str(tmp_path / "nowhere" / "a.wav")))
