"""The encoder of a camera: the kernel's while it works, else software, at the size this processor keeps up with."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, EncoderKind, FaultKind, VideoMode
from hw.camera.x264 import H264Encoder
from hw.pi.encoder.m2m import M2mEncoder
from hw.pi.encoder.probe import Found, find_encoder, plugged_encoders
from hw.pi.encoder.session import Driver, EncoderError, EncoderSession, MemoryRefusedError
from hw.pi.patience import aside, within
from hw.pi.shot import Shot
from hw.pi.v4l2 import Format

__all__ = ["AGAIN_S", "CameraEncoder", "affordable", "measure"]

_log = logging.getLogger("hw.encoder")

AGAIN_S: Final = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds until a hardware encoder that failed is proven again; the last one is repeated. Each return may cost the call
the time that a failure takes to be seen."""

HEALTHY_S: Final = 60.0
"""After so long without a failure the pauses begin at the first one again."""

FIND_S: Final = 2.0
"""Of waiting for the proof at the start; a driver that hangs in it is not asked again before it lets go."""

LOOK_S: Final = 1.0
"""While software stands in, an encoder that is plugged in is looked for this often: it waits for no pause."""

DRAIN_S: Final = 0.1

MISSED: Final = ("the H.264 encoder of this board is not there: look for its driver (bcm2835-codec) in lsmod and "
                 "dmesg; software encodes instead")

SHARE: Final = 0.6
"""Of one processor core that software encoding may take; the rest scales, decodes and belongs to the call."""

HEIGHTS: Final = (1080, 720, 540, 480, 360, 240, 180)
SAMPLE: Final = VideoMode(640, 360, 30, 1_000_000)
SAMPLES: Final = 8


def affordable(mode: VideoMode, pixels_per_s: float) -> VideoMode:
    """The largest of the usual sizes, then frame rates, of ``mode``'s shape that can be encoded in software.

    ``pixels_per_s`` is what one core encodes (``measure``). 180 lines at 10 pictures a second are made in any case.
    """
    budget = pixels_per_s * SHARE
    fitting = mode
    for height in (each for each in HEIGHTS if each < mode.height):
        if fitting.width * fitting.height * fitting.fps <= budget:
            return fitting
        width = max(2, round(mode.width * height / mode.height / 2) * 2)
        fitting = replace(mode, width=width, height=height)
    fps = int(budget / (fitting.width * fitting.height))
    return replace(fitting, fps=max(min(10, fitting.fps), min(fps, fitting.fps)))


def measure() -> float:
    """Pixels a second that one core encodes; takes 0.1 s on a Pi 4. Processor time, so that load does not count."""
    pictures = []
    for n in range(2):
        picture = VideoFrame(SAMPLE.width, SAMPLE.height, "yuv420p")
        for at, plane in enumerate(picture.planes):
            texture = bytes((x * (7 + at) ^ x >> 5) + n * 40 & 0xFF for x in range(4093))  # a prime: no line repeats
            plane.update((texture * (plane.buffer_size // len(texture) + 1))[: plane.buffer_size])
        pictures.append(picture)
    encoder = H264Encoder(SAMPLE)
    encoder.encode(pictures[0], 0)  # tables are made and the key frame is over
    begin = time.thread_time()
    for n in range(1, SAMPLES + 1):
        encoder.encode(pictures[n % 2], n * 33_333)
    return SAMPLES * SAMPLE.width * SAMPLE.height / max(1e-6, time.thread_time() - begin)


class CameraEncoder:
    """One encoder for one camera, from picture to access unit.

    ``told`` hears who encodes, why not the hardware (empty words while nothing is wrong), and what that is told as.
    Hardware that fails is left for software, which begins with the pictures that it swallowed; it is proven again in
    the background, after pauses that grow, and taken back between two pictures. With each change ``mode`` may change:
    at most to what was asked. ``expected``: the board has hardware, and where there is none that is told as well.
    """

    def __init__(
        self, told: Callable[[EncoderKind, str, FaultKind], None], *, hardware: bool = True, expected: bool = False,
        find: Callable[[], Found] = find_encoder, nodes: Callable[[], Set[object]] = plugged_encoders,
        speed: Callable[[], float] = measure, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._told, self._find, self._nodes, self._clock = told, find, nodes, clock
        self._seen: Set[object] = frozenset()  # encoders at the last look, while software stands in
        self._look_at = 0.0
        self._trial: Future[Found] | None = None
        self._stuck: EncoderSession | None = None  # the driver hangs in closing it
        self._attempts = 0
        self._again_at = self._since = 0.0
        self._found = self._look() if hardware else Found()
        if expected and self._found == Found():
            self._found = Found("", MISSED, FaultKind.MISSING)
        if self._found.reason:
            self._later()
        self._speed = speed()  # before it is needed: a fall back has no time for it
        _log.info("software encoder: %.1f million pixels a second", self._speed / 1e6)
        self._hardware: EncoderSession | None = None
        self._driver: Driver = M2mEncoder
        self._software: H264Encoder | None = None
        self._mode = VideoMode()
        self._asked = VideoMode()
        self._layout: Format | None = None
        self._ready: list[EncodedFrame] = []
        self._tell()

    def _tell(self) -> None:
        self._told(self.kind, self._found.reason, self._found.fault)

    @property
    def kind(self) -> EncoderKind:
        return EncoderKind.HARDWARE if self._found.path else EncoderKind.SOFTWARE

    @property
    def mode(self) -> VideoMode:
        """What it makes: at most what it was opened for."""
        return self._mode

    def open(self, mode: VideoMode, layout: Format | None = None, driver: Driver = M2mEncoder) -> VideoMode:
        """Begin, or go on in another mode from a key frame on. Returns what it really makes.

        ``layout``: how the camera's pictures lie in memory that can be shared, where they are of that mode; ``driver``
        encodes them, and what has to be copied our own.
        """
        self._shut(drain=True)
        self._asked, self._layout, self._driver = mode, layout, driver
        self._begin()
        return self._mode

    def _begin(self) -> None:
        if self._found.path:
            try:
                self._hardware = self._session(self._found.path)
                self._mode = self._asked
            except EncoderError as error:
                self._give_up(error)
        if self._hardware is None:
            self._open_software()

    def _session(self, path: str) -> EncoderSession:
        if self._layout is not None:
            try:
                return self._driver(path, self._asked, self._layout)
            except MemoryRefusedError as error:
                self._copy_from_now_on(error)
        return M2mEncoder(path, self._asked)

    def _copy_from_now_on(self, error: MemoryRefusedError) -> None:
        _log.info("%s: pictures are copied", error)
        self._layout = None

    def _open_software(self) -> None:
        self._mode = affordable(self._asked, self._speed)
        if self._mode != self._asked:
            _log.info("software encoder: %dx%d at %d pictures a second is what this processor keeps up with",
                      self._mode.width, self._mode.height, self._mode.fps)
        self._software = H264Encoder(self._mode)

    # --- leaving the hardware, and coming back

    def _look(self) -> Found:
        self._trial = aside("hw.encoder.find", self._find)
        try:
            found = within(FIND_S, "hw.encoder.find", self._trial)
        except TimeoutError as error:
            return Found("", f"encoder: {error}", FaultKind.STALLED)
        self._trial = None
        return found

    def _give_up(self, error: EncoderError) -> None:
        _log.warning("%s: pictures are encoded in software", error)
        if self._clock() - self._since >= HEALTHY_S:
            self._attempts = 0
        self._found = Found("", f"{error}; software encodes instead", error.fault)
        self._seen, self._look_at = self._nodes(), self._clock() + LOOK_S
        self._later()
        self._release()
        self._tell()

    def _later(self) -> None:
        self._again_at = self._clock() + AGAIN_S[min(self._attempts, len(AGAIN_S) - 1)]
        self._attempts += 1

    def _release(self) -> bool:
        """Close the session. False: its driver hangs."""
        session, self._hardware = self._hardware, None
        if session is None or session.close():
            return True
        self._stuck = session
        return False

    def _fall_back(self, error: EncoderError) -> None:
        """On in software, with what the hardware has swallowed."""
        assert self._hardware is not None  # noqa: S101
        swallowed = self._hardware.uncoded
        self._give_up(error)
        self._open_software()
        for picture, pts_us in swallowed:
            self._encode_software(picture, pts_us)

    @property
    def proving(self) -> bool:
        """Whether a proof is under way."""
        return self._trial is not None

    def recover(self) -> None:
        """Prove the hardware that failed again, when it is time to, and take it back. Never waits."""
        trial = self._trial
        if trial is None:
            held = self._stuck is not None and not self._stuck.closed
            if self._found.path or not self._found.reason or held:
                return
            if self._clock() >= self._again_at or self._plugged_in():
                self._stuck = None
                self._trial = aside("hw.encoder.find", self._find)
            return
        if not trial.done():
            return
        self._trial, found = None, trial.result()
        if not found.path:
            _log.info("encoder: still of no use: %s", found.reason or "it is gone")
            self._later()
            return
        self._found, self._since = found, self._clock()
        _log.info("encoder %s works again", found.path)
        self._tell()
        if self._software is not None:
            self._software = None
            self._begin()

    def _plugged_in(self) -> bool:
        """Whether an encoder has come since the last look."""
        if self._clock() < self._look_at:
            return False
        self._look_at = self._clock() + LOOK_S
        seen, self._seen = self._seen, self._nodes()
        return not self._seen <= seen

    # --- pictures

    @property
    def shares(self) -> bool:
        """Whether pictures go in by ``share``, where they lie."""
        return self._hardware is not None and self._hardware.layout is not None

    def share(self, shot: Shot) -> None:
        """Hand over a picture where it lies; it is closed here. What does not read it there is given a copy."""
        if self._hardware is not None:
            try:
                if self._hardware.room:
                    self._hardware.share(shot)
                else:
                    shot.close()
                return
            except MemoryRefusedError as error:
                self._copy_from_now_on(error)
                if self._release():
                    self._begin()
                else:
                    self._give_up(error)
                    self._open_software()
            except EncoderError as error:
                self._fall_back(error)
        picture = shot.picture()
        shot.close()
        if picture is not None:
            self.encode(_sized(picture, self._mode), shot.pts_us)

    def encode(self, picture: VideoFrame, pts_us: int) -> None:
        """Hand over a picture (planar 4:2:0, best in the size of ``mode``); what is coded comes by ``collect``."""
        if self._hardware is not None:
            try:
                if self._hardware.room:
                    self._hardware.encode(_sized(picture, self._mode), pts_us)
                return
            except EncoderError as error:
                self._fall_back(error)
        self._encode_software(picture, pts_us)

    def _encode_software(self, picture: VideoFrame, pts_us: int) -> None:
        if self._software is not None:
            unit = self._software.encode(_sized(picture, self._mode), pts_us)
            if unit is not None:
                self._ready.append(unit)

    def collect(self) -> Sequence[EncodedFrame]:
        """What is coded by now. Falls back when the hardware failed, or hangs."""
        if self._hardware is not None:
            try:
                self._ready += self._hardware.collect(self._clock())
            except EncoderError as error:
                self._fall_back(error)
        ready, self._ready = self._ready, []
        return ready

    def files(self) -> Sequence[tuple[int, int]]:
        """What wakes for ``collect``."""
        return () if self._hardware is None else ((self._hardware.file, select.POLLIN),)

    def wait_s(self) -> float | None:
        """Seconds after which ``collect`` is due, whatever comes; None: nothing is awaited."""
        return None if self._hardware is None else self._hardware.due_s(self._clock())

    def force_keyframe(self) -> None:
        for encoder in (self._hardware, self._software):
            if encoder is not None:
                encoder.force_keyframe()

    def set_bitrate(self, bits_per_second: int) -> None:
        self._asked = replace(self._asked, bitrate=bits_per_second)
        self._mode = replace(self._mode, bitrate=bits_per_second)
        for encoder in (self._hardware, self._software):
            if encoder is not None:
                encoder.set_bitrate(bits_per_second)

    def _shut(self, *, drain: bool) -> None:
        self._software = None
        if self._hardware is None:
            return
        if drain:
            self._ready += self._hardware.drain(DRAIN_S)
        if not self._release():
            self._give_up(EncoderError(f"encoder {self._found.path}: the driver hangs in closing it",
                                       FaultKind.STALLED))

    def close(self) -> None:
        """No drain: nobody waits for the last picture of a camera that is closed."""
        self._shut(drain=False)
        self._ready.clear()


def _sized(picture: VideoFrame, mode: VideoMode) -> VideoFrame:
    """``picture`` in planar 4:2:0 of the size of ``mode``: the encoder has changed since it was made."""
    if (picture.width, picture.height, picture.format.name) == (mode.width, mode.height, "yuv420p"):
        return picture
    return picture.reformat(mode.width, mode.height, "yuv420p")
