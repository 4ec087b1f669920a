"""Which encoder the camera process uses: the board's own where there is one that works, else software that the
processor can afford. A hardware encoder that fails is replaced within the same picture, and tried again later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, EncoderKind, VideoMode
from hw.camera.x264 import H264Encoder
from hw.pi.encoder import EncoderFault, HardwareEncoder, hardware_encoders
from hw.sim.sources import nal_units

__all__ = ["BoardEncoder", "affordable", "probe", "software_speed"]

_log = logging.getLogger("hw.encoder")

RETRY_S: Final = (10.0, 30.0, 120.0, 600.0)
"""Pauses before a hardware encoder that failed is tried again; the last one is repeated. Each try costs a key frame."""

HEALTHY_S: Final = 60.0
"""After this long without a fault the pauses begin at the first one again."""

LADDER: Final = ((1920, 1080), (1280, 720), (960, 540), (640, 360), (480, 270), (320, 180))
"""Sizes that a software encoder is taken back to, in pixels."""

RATES: Final = (30, 24, 20, 15)
SHARE: Final = 0.6
"""Of one core: what the software encoder may take, beside sound, network and what else the board does."""

PROBE: Final = VideoMode(640, 360, 30, 1_000_000)

Tell = Callable[[EncoderKind, str], None]


def _grey(mode: VideoMode, shade: int = 128) -> VideoFrame:
    picture = VideoFrame(mode.width, mode.height, "yuv420p")
    for plane, value in zip(picture.planes, (shade, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return picture


def probe(path: str, mode: VideoMode = PROBE) -> str:
    """Have the encoder at ``path`` encode a picture. Empty when it did, with headers, as baseline; else the reason."""
    try:
        encoder = HardwareEncoder(path, mode)
    except EncoderFault as error:
        return str(error)
    try:
        frame = encoder.encode(_grey(mode), 0)
    except EncoderFault as error:
        return str(error)
    finally:
        encoder.close()
    units = list(nal_units(frame.data)) if frame is not None else []
    headers = [unit for kind, unit in units if kind == 7]
    if frame is None or not frame.keyframe or not headers:
        return f"{path}: does not begin with a key frame and its headers"
    if headers[0][1] != 66:  # H.264 A.2.1
        return f"{path}: encodes profile {headers[0][1]} and cannot be told to use baseline (66)"
    return ""


def software_speed(pictures: int = 12) -> float:
    """Macroblocks a second that the software encoder does on one core of this board, on moving pictures; 0.1 to 1 s."""
    mode = PROBE
    encoder = H264Encoder(mode)
    frames = []
    for number in range(pictures):
        picture = _grey(mode)
        plane = picture.planes[0]
        wave = bytes((column * 7 + number * 5) % 220 + 16 for column in range(plane.line_size))
        plane.update(b"".join(wave[row % 64 :] + wave[: row % 64] for row in range(plane.height)))
        frames.append(picture)
    begun = time.perf_counter()
    for number, picture in enumerate(frames):
        encoder.encode(picture, number * 33_333)
    return _blocks(mode) * pictures / (time.perf_counter() - begun)


def _blocks(mode: VideoMode) -> int:
    return -(-mode.width // 16) * -(-mode.height // 16)


def affordable(mode: VideoMode, speed: float) -> VideoMode:
    """The largest mode, ``mode`` at most, that an encoder of ``speed`` macroblocks a second does in SHARE of a core.
    The frame rate goes first down to 15, then the size; the lowest step is given in any case. Pure."""
    budget = speed * SHARE
    sizes = [(mode.width, mode.height), *(size for size in LADDER if size[1] < mode.height and size[0] < mode.width)]
    smallest = mode
    for width, height in sizes:
        for fps in (mode.fps, *(rate for rate in RATES if rate < mode.fps)):
            smallest = replace(mode, width=width, height=height, fps=fps)
            if _blocks(smallest) * fps <= budget:
                return smallest
    return smallest


class BoardEncoder:
    """Same door as ``hw.camera.x264.H264Encoder``, over whichever encoder works. Used by one thread.

    ``tell`` is called with the kind at once and at each change, and with the reason while software stands in for a
    hardware encoder that is there and does not work.
    """

    _speed: float | None = None  # of this board: measured once in a process
    _failed: dict[str, tuple[int, float]] = {}  # noqa: RUF012 - of the board, not of one size: node -> (times, until)

    def __init__(
        self, mode: VideoMode, tell: Tell, *, now: Callable[[], float] = time.monotonic,
        paths: Callable[[], Sequence[str]] = hardware_encoders,
    ) -> None:  # fmt: skip
        self._asked = mode
        self._tell = tell
        self._now = now
        self._paths = paths
        self._encoder: HardwareEncoder | H264Encoder
        self._reason = ""
        self._since = now()
        self._told: tuple[EncoderKind, str] | None = None
        self._encoder = self._choose()

    # --- which

    @property
    def kind(self) -> EncoderKind:
        return EncoderKind.HARDWARE if isinstance(self._encoder, HardwareEncoder) else EncoderKind.SOFTWARE

    @property
    def mode(self) -> VideoMode:
        """What pictures it takes: smaller than asked where the processor would not keep up."""
        return self._mode

    def _choose(self) -> HardwareEncoder | H264Encoder:
        reason = ""
        for path in self._paths():
            _, until = self._failed.get(path, (0, 0.0))
            if self._now() < until:
                reason = reason or self._reason or f"{path}: failed a short while ago"
                continue
            try:
                encoder = HardwareEncoder(path, self._asked)
            except EncoderFault as error:
                reason = str(error)
                self._blame(path)
                continue
            self._mode, self._since = self._asked, self._now()
            self._say(EncoderKind.HARDWARE, "")
            return encoder
        return self._software(reason)

    def _software(self, reason: str) -> H264Encoder:
        if BoardEncoder._speed is None:
            BoardEncoder._speed = software_speed()
            _log.info("software encoder: %.0f macroblocks a second", BoardEncoder._speed)
        self._mode = affordable(self._asked, BoardEncoder._speed)
        self._reason = reason
        self._say(EncoderKind.SOFTWARE, reason)
        return H264Encoder(self._mode)

    def _blame(self, path: str) -> None:
        times, _ = self._failed.get(path, (0, 0.0))
        if self._now() - self._since > HEALTHY_S:
            times = 0
        self._failed[path] = times + 1, self._now() + RETRY_S[min(times, len(RETRY_S) - 1)]

    def _say(self, kind: EncoderKind, reason: str) -> None:
        if (kind, reason) != self._told:
            self._told = kind, reason
            self._tell(kind, reason)

    def due(self) -> bool:
        """Whether a hardware encoder that failed may be tried again: a new BoardEncoder does."""
        return self.kind is EncoderKind.SOFTWARE and any(
            self._now() >= until for path, (_, until) in self._failed.items() if path in self._paths()
        )

    # --- as any encoder

    @property
    def bitrate(self) -> int:
        return self._encoder.bitrate

    def force_keyframe(self) -> None:
        self._guarded(self._encoder.force_keyframe)

    def set_bitrate(self, bits_per_second: int) -> int:
        self._asked = replace(self._asked, bitrate=bits_per_second)
        self._guarded(lambda: self._encoder.set_bitrate(bits_per_second))
        return self._encoder.bitrate

    def encode(self, picture: VideoFrame, pts_us: int) -> EncodedFrame | None:
        """The access unit of one picture of ``mode``'s size.

        When the hardware fails at it, software encodes it as a key frame; None where that affords smaller ones only.
        """
        try:
            return self._encoder.encode(picture, pts_us)
        except EncoderFault as error:
            self._fall_back(error)
            if (picture.width, picture.height) != (self._mode.width, self._mode.height):
                return None
            return self._encoder.encode(picture, pts_us)

    def close(self) -> None:
        if isinstance(self._encoder, HardwareEncoder):
            self._encoder.close()

    def _guarded(self, steer: Callable[[], object]) -> None:
        try:
            steer()
        except EncoderFault as error:
            self._fall_back(error)

    def _fall_back(self, error: EncoderFault) -> None:
        failed = self._encoder
        assert isinstance(failed, HardwareEncoder), error  # noqa: S101 - the other one raises no such fault
        _log.warning("hardware encoder: %s; software takes over", error)
        self._blame(failed.path)
        # Stopping a stream waits in the kernel for the picture in work: for ever, where the encoder has stalled.
        threading.Thread(target=failed.close, name="hw.encoder.close", daemon=True).start()
        self._encoder = self._software(str(error))
