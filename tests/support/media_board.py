"""A board in the test's hand: sound paced by a real clock thread, H.264 made by the test, everything readable."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import av

from hw.api import (
    AudioBlock,
    AudioFigures,
    DeviceFact,
    EncodedFrame,
    EncoderKind,
    Fault,
    Kind,
    Panel,
    Picture,
    Simulation,
    Tile,
    VideoMode,
)

RATE = 48_000
BLOCK = 480


class ClockedAudio:
    """The clock thread of a sound card; what it hears and does with what is played is ``_run``'s, in a subclass."""

    volume = 50
    echoes = False
    figures = AudioFigures()

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def set_volume(self, percent: int) -> None:
        self.volume = percent

    def start(self, rate: int, block_ms: int, exchange: Callable[[AudioBlock], bytes]) -> None:
        assert (rate, block_ms) == (RATE, 10)
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(exchange,), name="hw.audio", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1)
            self._thread = None

    def _run(self, exchange: Callable[[AudioBlock], bytes]) -> None:
        raise NotImplementedError


class HandAudio(ClockedAudio):
    """Hears a tone of ``hertz``; keeps what was played.

    ``swing`` (0 to 1): how far its amplitude falls four times a second, as a voice's does. A steady tone is no voice:
    with discontinuous transmission little of it is sent.
    """

    def __init__(self, hertz: float = 440.0, *, swing: float = 0.0) -> None:
        super().__init__()
        self.hertz = hertz
        self.swing = swing
        self.played: list[bytes] = []

    def _run(self, exchange: Callable[[AudioBlock], bytes]) -> None:
        due, sample, played = time.monotonic(), 0, bytes(BLOCK * 2)
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 0.01
            peak = 8000 * (1 - self.swing * (0.5 - 0.5 * math.cos(2 * math.pi * 4 * sample / RATE)))
            heard = array(
                "h", [int(peak * math.sin(2 * math.pi * self.hertz * (sample + n) / RATE)) for n in range(BLOCK)]
            ).tobytes()
            sample += BLOCK
            played = exchange(AudioBlock(heard, played))
            self.played.append(played)


class HandCamera:
    """Encodes a moving grey picture with libx264; records what is asked of it."""

    encoder = EncoderKind.SOFTWARE

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.bitrates: list[int] = []
        self.modes: list[VideoMode] = []
        self.starts = 0
        self.key_frames = 0
        self._force = False
        self.looks: Callable[[Picture], None] | None = None
        self.side = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self.starts += 1
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(sink,), name="hw.camera", daemon=True)
        self._thread.start()
        return VideoMode(160, 96, 30, mode.bitrate)

    def request_keyframe(self) -> None:
        self.asked.append(time.monotonic())
        self._force = True

    def set_bitrate(self, bits_per_second: int) -> None:
        self.bitrates.append(bits_per_second)

    def set_mode(self, mode: VideoMode) -> None:
        self.modes.append(mode)

    @property
    def mode(self) -> VideoMode | None:
        return VideoMode(160, 96, 30) if self._thread is not None else None

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        encoder = av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 1280, 720, "yuvj420p", Fraction(1, 1)
        return b"".join(bytes(p) for p in encoder.encode(av.VideoFrame(1280, 720, "yuvj420p")))

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None:
        self.looks, self.side = sink, side

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1)
            self._thread = None

    def _run(self, sink: Callable[[EncodedFrame], None]) -> None:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = 160, 96, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30, 1)
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "100000", "forced-idr": "1"}
        encoder.profile = "Baseline"
        encoder.thread_count = 1
        number, due = 0, time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / 30
            frame = av.VideoFrame(160, 96, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number * 7 % 256]) * plane.buffer_size)
            frame.pts = number
            if self._force:
                self._force = False
                frame.pict_type = av.video.frame.PictureType.I
            number += 1
            captured = time.monotonic_ns() // 1000
            for packet in encoder.encode(frame):
                self.key_frames += packet.is_keyframe
                sink(EncodedFrame(bytes(packet), captured, packet.is_keyframe))
            looks = self.looks
            if looks is not None and number % 2:
                looks(Picture(160, 96, b"".join(bytes(memoryview(plane)[:plane.width * plane.height])
                                                for plane in frame.planes)))


class HandDisplay:
    size = (640, 360)
    drawn_s = 0.0

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.tiles: Sequence[Tile] = ()
        self.banner = ""

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        self.tiles, self.banner = tiles, banner
        self.pictures += [tile.picture for tile in tiles if tile.picture is not None]

    def blank(self) -> None:
        self.tiles = ()

    def set_brightness(self, percent: int) -> None: ...

    def screenshot(self) -> bytes:
        return b""


class HandBoard:
    panel: Panel | None = None
    simulation: Simulation | None = None
    choices: frozenset[Kind] = frozenset()

    def __init__(self, hertz: float = 440.0, *, audio: bool = True, camera: bool = True) -> None:
        self.audio = HandAudio(hertz) if audio else None
        self.camera = HandCamera() if camera else None
        self.display = HandDisplay()

    def facts(self) -> Mapping[str, str]:
        return {}

    def devices(self) -> Sequence[DeviceFact]:
        return ()

    def select(self, kind: Kind, device: str) -> None:
        raise ValueError(f"{device}: there is no choice of {kind.value}")

    def on_fault(self, sink: Callable[[Fault], None]) -> None: ...

    def on_devices(self, sink: Callable[[], None]) -> None: ...

    def close(self) -> None: ...
