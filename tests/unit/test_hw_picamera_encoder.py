"""picamera2's encoder as a session: what of it is steered, believed and given back, when it works and when it does not.

Of picamera2's class, which no package index has without libcamera, only what is asked of it is played here; the real
one encodes in the guest (``tests/hil/picamera2/encoder.py``).
"""

from __future__ import annotations

import errno
import queue
import select
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from av.video.frame import VideoFrame

from hw.api import EncoderKind, FaultKind, VideoMode
from hw.camera.x264 import KEYFRAME_S, H264Encoder
from hw.pi.encoder.ladder import CameraEncoder
from hw.pi.encoder.m2m import BITRATE, FORCE_KEY
from hw.pi.encoder.picamera import NODE, PicameraEncoder
from hw.pi.encoder.probe import Found
from hw.pi.encoder.session import SHARED, EncoderError, MemoryRefusedError
from hw.pi.shot import Shot
from hw.pi.v4l2 import Format

MODE = VideoMode(320, 180, 30, 400_000)
FILE = 99
LAYOUT = Format(320, 180, "YU12", 320, 86_400)


class PlayedEncoder:
    """``H264Encoder`` over a node that this file plays: each picture that goes in comes out coded, on its thread."""

    made: list[PlayedEncoder]
    start_fails: OSError | None = None

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.vd: Any = None
        self.bufs: dict[int, Any] = {}
        self.buf_frame: queue.Queue[Any] = queue.Queue()
        self.work: queue.Queue[Any] = queue.Queue()
        self.error: OSError | None = None
        self.stalls = self.stopped = False
        self.coder = H264Encoder(MODE)
        self.made.append(self)

    def start(self) -> None:
        self._running = True
        self.vd = SimpleNamespace(closed=False, close=lambda: None, fileno=lambda: FILE)
        self.thread = threading.Thread(target=self.thread_poll, args=(None,), daemon=True)
        self.thread.start()
        if self.start_fails is not None:
            raise self.start_fails

    def thread_poll(self, buf_available: Any) -> None:
        while self._running or self.buf_frame.qsize() > 0:
            if self.error is not None:
                raise self.error
            try:
                request = self.work.get(timeout=0.02)
            except queue.Empty:
                if not self._running:
                    while self.buf_frame.qsize() > 0:
                        self.buf_frame.get().release()
                continue
            unit = self.coder.encode(VideoFrame(320, 180, "yuv420p"), self._timestamp(request))
            self.buf_frame.get().release()
            if unit is not None:
                self.outputframe(unit.data, unit.keyframe, unit.pts_us)

    def encode(self, stream: str, request: Any) -> None:
        assert stream in request.stream_map
        request.acquire()
        if self.error is not None:
            raise self.error
        self.buf_frame.put(request)
        if not self.stalls:
            self.work.put(request)

    def _timestamp(self, request: Any) -> int:
        raise NotImplementedError

    def outputframe(self, *words: Any) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        self.thread.join()
        self.stopped = True


class Camera:
    """Of which pictures come; counts those that are out."""

    def __init__(self) -> None:
        self.out = 0
        self.pts_us = 0

    def shot(self) -> Shot:
        self.out += 1
        self.pts_us += 33_333
        request = SimpleNamespace(request="libcamera's", stream_map={"main": "stream"})
        return Shot(self.pts_us, lambda: VideoFrame(320, 180, "yuv420p"), file=7, give_back=self._back, source=request)

    def _back(self) -> None:
        self.out -= 1


@pytest.fixture
def controls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    class Fresh(PlayedEncoder):
        made: list[PlayedEncoder] = []  # noqa: RUF012 - of this test

    steered: list[tuple[int, int]] = []
    for name, parts in (("picamera2", {}), ("picamera2.encoders", {}),
                        ("picamera2.encoders.h264_encoder", {"H264Encoder": Fresh})):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**parts))

    def ioctl(node: int, number: int, argument: Any) -> None:
        assert node == FILE
        if hasattr(argument, "id"):
            steered.append((argument.id, argument.value))

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    PlayedEncoder.made = Fresh.made
    yield steered
    PlayedEncoder.start_fails = None


def wait(session: PicameraEncoder, count: int) -> list[Any]:
    units: list[Any] = []
    deadline = time.monotonic() + 10
    while len(units) < count:
        assert time.monotonic() < deadline
        poll = select.poll()
        poll.register(session.file, select.POLLIN)
        poll.poll(1000)
        units += session.collect(0.0)  # at no time has it been silent for too long
    return units


def test_pictures_go_through_its_class_and_back_to_the_camera(controls: list[tuple[int, int]]) -> None:
    session, camera = PicameraEncoder(NODE, MODE, LAYOUT), Camera()
    played, = PlayedEncoder.made
    assert played.settings == {"bitrate": 400_000, "iperiod": 30 * KEYFRAME_S, "framerate": 30,
                               "enable_sps_framerate": True, "profile": "constrained baseline"}
    asked: Any = played
    assert (asked.size, asked.stride, asked.format) == ((320, 180), 320, "YUV420")
    for _ in range(10):
        assert session.room
        session.share(camera.shot())
        unit, = wait(session, 1)
        assert unit.pts_us == camera.pts_us
    assert camera.out == 0
    session.force_keyframe()
    assert session.set_bitrate(100) == 50_000
    assert controls == [(BITRATE, 50_000)], "the key frame is asked for with the next picture"
    session.share(camera.shot())
    wait(session, 1)
    session.share(camera.shot())
    wait(session, 1)
    assert controls == [(BITRATE, 50_000), (FORCE_KEY, 1)]
    assert session.close()
    assert played.stopped
    assert session.close(), "twice"


def test_one_that_hangs_holds_three_pictures_and_gives_them_back(controls: list[tuple[int, int]]) -> None:
    session, camera = PicameraEncoder(NODE, MODE, LAYOUT), Camera()
    PlayedEncoder.made[0].stalls = True
    begun = time.monotonic()
    while session.room:
        session.share(camera.shot())
    assert camera.out == SHARED
    assert session.collect(begun) == []
    with pytest.raises(EncoderError, match=r"by picamera2 has not answered for 0\.8 s") as told:
        session.collect(time.monotonic() + 1)
    assert told.value.fault is FaultKind.STALLED
    assert len(session.uncoded) == SHARED, "for who takes over"
    session.close()
    assert camera.out == 0


@pytest.mark.parametrize("where", ["thread", "picture"])
def test_one_that_is_unplugged_ends_nobody_s_thread_unseen(controls: list[tuple[int, int]], where: str) -> None:
    session, camera = PicameraEncoder(NODE, MODE, LAYOUT), Camera()
    session.share(camera.shot())
    wait(session, 1)
    played = PlayedEncoder.made[0]
    played.error = OSError(errno.ENODEV, "No such device")
    played.thread.join()
    shot = camera.shot()
    with pytest.raises(EncoderError, match="is not there") as told:
        if where == "thread":
            wait(session, 1)
        else:
            session.share(shot)
    assert told.value.fault is FaultKind.PULLED
    session.close()
    assert camera.out == 1, "it is the caller's still"
    shot.close()
    assert camera.out == 0


def test_where_it_does_not_do_our_own_driver_or_software_does(controls: list[tuple[int, int]]) -> None:
    with pytest.raises(EncoderError, match=r'at /dev/video11 alone, .* is /dev/video12: set encoder = "auto"'):
        PicameraEncoder("/dev/video12", MODE, LAYOUT)
    PlayedEncoder.start_fails = OSError(errno.EINVAL, "Invalid argument")
    with pytest.raises(MemoryRefusedError, match="does not start: Invalid argument"):
        PicameraEncoder(NODE, MODE, LAYOUT)
    PlayedEncoder.start_fails = OSError(errno.EBUSY, "Device or resource busy")
    told: list[tuple[EncoderKind, str, FaultKind]] = []
    encoder = CameraEncoder(lambda *words: told.append(words), find=lambda: Found(NODE), speed=lambda: 1e9,
                            nodes=frozenset)
    encoder.open(MODE, LAYOUT, PicameraEncoder)
    assert (told[-1][0], told[-1][2]) == (EncoderKind.SOFTWARE, FaultKind.BUSY)
    PlayedEncoder.start_fails = None
    assert all(not one.thread.is_alive() for one in PlayedEncoder.made), "none is left behind"
    encoder.close()


def test_a_stall_is_left_for_software_with_what_it_swallowed(controls: list[tuple[int, int]]) -> None:
    now = [time.monotonic()]
    told: list[tuple[EncoderKind, str, FaultKind]] = []
    encoder = CameraEncoder(lambda *words: told.append(words), find=lambda: Found(NODE), speed=lambda: 1e9,
                            nodes=frozenset, clock=lambda: now[0])
    encoder.open(MODE, LAYOUT, PicameraEncoder)
    PlayedEncoder.made[0].stalls = True
    camera = Camera()
    assert encoder.shares
    for _ in range(2):
        encoder.share(camera.shot())
    now[0] += 1.0
    units = encoder.collect()
    assert [unit.pts_us for unit in units] == [33_333, 66_666]
    assert units[0].keyframe
    assert (told[-1][0], told[-1][2]) == (EncoderKind.SOFTWARE, FaultKind.STALLED)
    encoder.close()
