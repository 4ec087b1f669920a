"""Parts of the camera: wire, watch, encoder, clip, files."""

from __future__ import annotations

import fcntl
import itertools
import os
import wave
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hw.api import EncodedFrame, FaultKind, Picture, VideoMode
from hw.camera.preview import Preview
from hw.camera.serve import Owner
from hw.camera.watch import STALL_S, START_TIMEOUT_S, FrameWatch
from hw.camera.wire import FRAME, PREVIEW, PREVIEW_HEAD, Unframer, pack
from hw.camera.x264 import MAX_BITRATE, MIN_BITRATE, H264Encoder, jpeg
from hw.sim.pattern import read
from hw.sim.sources import Clip, Lent, SourceError, nal_units, open_source

MODE = VideoMode(320, 180, 30, 400_000)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8), st.integers(1, 97))
def test_wire_cuts_any_stream_into_its_messages(messages: list[tuple[int, bytes]], step: int) -> None:
    stream = b"".join(pack(kind, payload) for kind, payload in messages)
    unframer, found = Unframer(), []
    for at in range(0, len(stream), step):
        found += list(unframer.feed(stream[at : at + step]))
    assert found == messages


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.binary(min_size=5, max_size=40))
def test_wire_refuses_or_waits_but_never_hangs_on_garbage(garbage: bytes) -> None:
    try:
        found = list(Unframer().feed(garbage))
    except ValueError:
        return
    assert len(found) <= len(garbage) // 5


def test_a_small_picture_is_left_out_while_what_came_before_is_not_read_and_no_frame_waits_for_it() -> None:
    read_end, write_end = os.pipe()
    room = fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 256 * 1024)
    owner, picture = Owner(write_end), Picture(320, 180, bytes(320 * 180 * 3 // 2))
    try:
        for number in range(6):
            owner.preview(7, picture)
            owner.frame(7, EncodedFrame(b"unit", number, False))
        messages = list(Unframer().feed(os.read(read_end, room)))
        kinds = [kind for kind, _ in messages]
        assert kinds.count(FRAME) == 6
        assert kinds[:2] == [PREVIEW, FRAME]
        assert 1 <= kinds.count(PREVIEW) <= 3
        owner.preview(7, picture)
        ((kind, payload),) = Unframer().feed(os.read(read_end, room))
        assert (kind, PREVIEW_HEAD.unpack_from(payload)) == (PREVIEW, (7, 320, 180)), "it is read again"
        assert payload[PREVIEW_HEAD.size:] == picture.i420
    finally:
        os.close(read_end)
        os.close(write_end)


class Shown(Owner):
    def __init__(self) -> None:
        super().__init__(-1)
        self.pictures: list[Picture] = []

    def preview(self, generation: int, picture: Picture) -> None:
        self.pictures.append(picture)


@pytest.mark.parametrize(("fps", "shown"), [(10, 20), (15, 30), (20, 30), (30, 30), (60, 30)])
def test_of_two_seconds_thirty_pictures_are_shown_at_most_and_each_once(fps: int, shown: int) -> None:
    preview, due = Preview(Shown()), []
    assert not preview.due(1_000_000), "nobody looks"
    preview.want(320)
    for number in range(2 * fps):
        at = 1_000_000 + number * 1_000_000 // fps + number % 3 * 2_000  # sensors are not that regular
        due += [at] if preview.due(at) else []
        assert not preview.due(at)
    assert abs(len(due) - shown) <= 2
    preview.want(0)
    assert not preview.due(9_000_000)


@pytest.mark.parametrize(("mode", "wanted", "size"), [
    ((1280, 720), 320, (320, 180)), ((1280, 720), 333, (332, 188)), ((720, 1280), 320, (180, 320)),
    ((320, 180), 640, (320, 180)), ((1920, 1080), 640, (640, 360)), ((854, 480), 320, (320, 180)),
])
def test_a_small_picture_has_the_shape_of_what_is_sent_and_no_padding(
    mode: tuple[int, int], wanted: int, size: tuple[int, int]
) -> None:
    owner, picture = Shown(), VideoFrame(*mode, "yuv420p")
    for plane, (left, right) in zip(picture.planes, ((40, 200), (90, 160), (160, 90)), strict=True):
        line = (bytes([left]) * (plane.width // 2)).ljust(plane.width, bytes([right]))
        plane.update(line.ljust(plane.line_size, b"\0") * plane.height)
    preview = Preview(owner)
    preview.want(wanted)
    preview.show(1, picture, VideoMode(*mode))
    (small,) = owner.pictures
    (width, height), at = (small.width, small.height), small.width * small.height
    assert (width, height, len(small.i420)) == (*size, at * 3 // 2)
    for start, line, lines, (left, right) in (
        (0, width, height, (40, 200)), (at, width // 2, height // 2, (90, 160)),
        (at + at // 4, width // 2, height // 2, (160, 90)),
    ):
        for row in (0, lines // 2, lines - 1):
            cells = small.i420[start + row * line : start + (row + 1) * line]
            assert (cells[2], cells[-3]) == (left, right)


def test_watch_tells_a_late_start_and_takes_it_back() -> None:
    watch = FrameWatch(30, 100.0)
    assert watch.faults(100.0 + START_TIMEOUT_S - 0.01) == frozenset()
    assert watch.faults(100.0 + START_TIMEOUT_S) == {FaultKind.START_TIMED_OUT}
    watch.frame(106.0)
    assert watch.faults(106.1) == frozenset()


def test_watch_tells_a_standstill_that_opening_anew_does_not_cure() -> None:
    watch = FrameWatch(30, 0.0)
    for number in range(90):
        watch.frame(number / 30)
    last = 89 / 30
    assert watch.faults(last + STALL_S - 0.01) == frozenset()
    assert watch.faults(last + STALL_S) == {FaultKind.STALLED}
    watch.reopened(last + STALL_S + 0.1)
    assert watch.faults(last + STALL_S + 0.2) == {FaultKind.STALLED}
    watch.frame(last + 3)
    assert watch.faults(last + 3) == frozenset()


def test_watch_tells_a_low_rate_without_fluttering() -> None:
    watch = FrameWatch(30, 0.0)
    now = 0.0

    def run(fps: float, seconds: float) -> list[bool]:
        """Whether it is told to be slow, look by look."""
        nonlocal now
        found = []
        for _ in range(round(fps * seconds)):
            now += 1 / fps
            watch.frame(now)
            faults = watch.faults(now)
            assert faults <= {FaultKind.SLOW}
            found.append(bool(faults))
        return found

    def edges(found: list[bool]) -> int:
        return sum(a != b for a, b in itertools.pairwise(found))

    assert not any(run(30, 3))
    told = run(10, 6)
    assert told[-1] and edges(told) == 1
    assert watch.rate == pytest.approx(10, abs=1)
    assert all(run(18, 3)), "above where it began, below where it ends"
    over = run(30, 3)
    assert not over[-1] and edges(over) == 1, "told within 3 s"
    assert not any(run(18, 3))
    for _ in range(5):
        assert not any(run(8, 1.2) + run(30, 1.5)), "a breath is not told"


def test_watch_keeps_a_low_rate_through_a_change_of_what_is_wanted_until_it_is_better() -> None:
    watch, now, told = FrameWatch(30, 0.0), 0.0, []
    for wanted in (30, 15, 30, 30):  # the steps of a call that has little to send
        watch.retimed(wanted)
        for _ in range(7 * 5):
            now += 1 / 5
            watch.frame(now)
            told.append(FaultKind.SLOW in watch.faults(now))
    assert sum(a != b for a, b in itertools.pairwise(told)) == 1, "one edge: it was slow all the time"
    watch.retimed(5)
    for _ in range(5 * 5):
        now += 1 / 5
        watch.frame(now)
        told.append(FaultKind.SLOW in watch.faults(now))
    assert not told[-1], "as fast as is wanted now"


def _pictures(count: int) -> list[VideoFrame]:
    source = open_source("pattern", MODE)
    return [source.picture(number, number * 33_333) for number in range(count)]


def test_encoder_gives_key_frames_on_demand_with_parameter_sets_and_nothing_else_in_between() -> None:
    encoder = H264Encoder(MODE)
    keys = []
    for number, picture in enumerate(_pictures(30)):
        if number in (7, 20):
            encoder.force_keyframe()
        unit = encoder.encode(picture, number * 33_333)
        assert unit is not None
        types = [kind for kind, _ in nal_units(unit.data)]
        assert unit.keyframe == (5 in types) == (7 in types) == (8 in types)
        if unit.keyframe:
            keys.append(number)
            sps = next(body for kind, body in nal_units(unit.data) if kind == 7)
            assert (sps[1], sps[2] & 0x40, sps[3]) == (66, 0x40, 20)  # constrained baseline, level 2.0
    assert keys == [0, 7, 20]


@pytest.mark.parametrize("target", [150_000, 900_000])
def test_encoder_follows_a_far_target_at_the_next_picture_and_keeps_the_time_line(target: int) -> None:
    encoder = H264Encoder(MODE)
    pictures = _pictures(30)
    stamps = [encoder.encode(picture, n * 33_333) for n, picture in enumerate(pictures[:10])]
    assert encoder.set_bitrate(target) == target
    stamps += [encoder.encode(picture, n * 33_333) for n, picture in enumerate(pictures[10:], start=10)]
    assert [unit.pts_us for unit in stamps if unit] == [n * 33_333 for n in range(30)]


def test_encoder_clamps_what_it_would_not_survive() -> None:
    encoder = H264Encoder(MODE)
    assert encoder.set_bitrate(1) == MIN_BITRATE
    assert encoder.set_bitrate(10**9) == MAX_BITRATE


def _record(path: Path, *, codec: str = "libx264", profile: str = "baseline", pictures: int = 12) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = MODE.width, MODE.height, "yuv420p"
        if codec == "libx264":
            stream.options = {"profile": profile, "preset": "ultrafast", "g": "5", "tune": "zerolatency"}
            if profile == "main":
                stream.options = {"profile": "main", "preset": "medium"}
        for number, picture in enumerate(_pictures(pictures)):
            picture.pts, picture.time_base = number, Fraction(1, 30)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.h264"])
def test_a_clip_is_passed_through_as_annex_b_and_jumps_to_the_next_key_frame(tmp_path: Path, name: str) -> None:
    _record(tmp_path / name)
    clip = Clip(str(tmp_path / name))
    assert (clip.mode.width, clip.mode.height) == (320, 180)
    units = [clip.unit(n) for n in range(12)]
    assert [n for n, unit in enumerate(units) if unit.keyframe] == [0, 5, 10]
    for unit in units:
        types = [kind for kind, _ in nal_units(unit.data)]
        assert unit.data.startswith((b"\0\0\1", b"\0\0\0\1"))
        assert unit.keyframe == (7 in types) == (8 in types)
    clip.unit(0)
    clip.jump()
    assert clip.unit(0).data == units[5].data
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))] + decoder.decode(None)
    marks = [read(bytes(frame.planes[0]), 320, 180, frame.planes[0].line_size) for frame in frames]
    assert [mark.counter for mark in marks if mark] == list(range(12))


def test_clips_that_a_browser_may_refuse_are_refused_with_the_reason(tmp_path: Path) -> None:
    _record(tmp_path / "main.mp4", profile="main")
    with pytest.raises(SourceError, match="constrained baseline"):
        Clip(str(tmp_path / "main.mp4"))
    _record(tmp_path / "mpeg4.mp4", codec="mpeg4")
    with pytest.raises(SourceError, match="not H"):
        Clip(str(tmp_path / "mpeg4.mp4"))
    with pytest.raises(SourceError, match="not there") as missing:
        Clip(str(tmp_path / "none.mp4"))
    assert missing.value.why == "missing"


def test_a_file_plays_at_its_own_speed_and_loops(tmp_path: Path) -> None:
    _record(tmp_path / "film.mp4")
    source = open_source(f"file:{tmp_path / 'film.mp4'}", MODE)
    marks = []
    for number in range(15):
        picture = source.picture(number, 1_000_000 + number * 66_667)  # half the film's rate: every second picture
        marks.append(read(bytes(picture.planes[0]), 320, 180, picture.planes[0].line_size))
    source.close()
    counters = [mark.counter for mark in marks if mark]
    assert len(counters) == 15
    steps = {(after - before) % 12 for before, after in itertools.pairwise(counters)}
    assert steps <= {1, 2, 3}
    assert counters[0] < 2
    assert counters[7] < counters[4]  # it began again


def test_a_lent_picture_is_fitted_counts_for_a_second_and_garbage_counts_for_nothing() -> None:
    lent = Lent()
    source = open_source("pattern", VideoMode(640, 360))
    from hw.camera.x264 import jpeg

    lent.offer(jpeg(source.picture(9, 5_000_000)), 10)
    picture = lent.picture(MODE, 500_000)
    assert picture is not None
    assert (picture.width, picture.height, picture.format.name) == (320, 180, "yuv420p")
    mark = read(bytes(picture.planes[0]), 320, 180, picture.planes[0].line_size)
    assert mark is not None
    assert mark.counter == 9
    assert lent.picture(MODE, 1_000_010) is None
    lent.offer(b"\xff\xd8 no picture", 2_000_000)
    assert lent.picture(MODE, 2_000_001) is None


@pytest.mark.parametrize("spec", ["webcam", "file:", "file:/proc/self/status", "clip:"])
def test_unknown_sources_are_named(spec: str) -> None:
    with pytest.raises(SourceError, match=r"camera|^file "):
        open_source(spec, MODE)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("empty.png", b"", "is damaged, or neither picture nor video"),
    ("words.png", b"words" * 100, "is damaged, or neither picture nor video"),
    ("zeros.mp4", bytes(5000), "is damaged, or neither picture nor video"),
    ("plan.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is of a kind that cannot be decoded here"),
])
def test_what_is_wrong_with_a_file_is_told_in_words_for_people(
    tmp_path: Path, name: str, content: bytes, words: str,
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words) as refused:
        open_source(f"file:{tmp_path / name}", MODE).picture(0, 0)
    assert refused.value.why == "format"
    assert "Errno" not in str(refused.value)
    assert "avcodec" not in str(refused.value)


def test_a_picture_that_was_cut_off_and_a_file_of_sound_are_no_pictures(tmp_path: Path) -> None:
    Image.effect_noise((640, 400), 90).save(tmp_path / "plan.png")
    whole = (tmp_path / "plan.png").read_bytes()
    (tmp_path / "plan.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="is damaged"):
        open_source(f"file:{tmp_path / 'plan.png'}", MODE).picture(0, 0)
    with wave.open(str(tmp_path / "bell.wav"), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(1600))
    with pytest.raises(SourceError, match="has no picture in it"):
        open_source(f"file:{tmp_path / 'bell.wav'}", MODE)


def test_a_rate_that_is_asked_anew_is_judged_anew() -> None:
    watch = FrameWatch(30, 0.0)
    for number in range(90):
        watch.frame(number / 30)
    watch.retimed(10)
    for number in range(1, 60):
        watch.frame(3.0 + number / 10)
        assert watch.faults(3.0 + number / 10) == frozenset()
    watch.retimed(30)
    for number in range(1, 60):
        watch.frame(8.9 + number / 10)
        last = watch.faults(8.9 + number / 10)
    assert FaultKind.SLOW in last
    assert FaultKind.STALLED in watch.faults(14.8 + STALL_S), "a standstill is seen across the change"


def test_a_lent_picture_takes_the_size_that_is_asked_now() -> None:
    lent = Lent()
    lent.offer(jpeg(VideoFrame(64, 36, "yuv420p")), 0)
    for width, height in ((320, 180), (160, 90)):
        picture = lent.picture(VideoMode(width, height, 15, 100_000), 10)
        assert picture is not None
        assert (picture.width, picture.height) == (width, height)
