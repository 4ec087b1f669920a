"""One session of a hardware encoder, whatever drives it: what went in, what came of it, and whether it can be believed.

Nothing here waits but ``drain``, which has a deadline: pictures go in as long as there is room, units are collected
when ``poll`` says so. What goes wrong is told by EncoderError, and the session is then of no use any more.
"""

from __future__ import annotations

import errno
import select
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, FaultKind, VideoMode
from hw.blame import fault_of
from hw.pi.encoder.units import fault_of_unit
from hw.pi.patience import aside, within
from hw.pi.shot import Shot
from hw.pi.v4l2 import Format, refusal

__all__ = [
    "BUFFERS", "MAX_BITRATE", "REFUSALS", "SHARED", "Driver", "EncoderError", "EncoderSession", "MemoryRefusedError",
    "failure", "floor_of",
]  # fmt: skip

BUFFERS: Final = 4
"""Of each side; more only add delay when the encoder is late."""

SHARED: Final = 3
"""Pictures of the camera's memory that it is given at a time: the camera has as many left to write to."""

SILENT_S: Final = 0.8
"""A picture that is not coded by then: the encoder hangs. Known ones take 15 ms. Leaves a second to fall back in."""

LATE_S: Final = 0.25
LATE: Final = BUFFERS + 2
"""So many pictures in a row that took longer: it is too slow. One hold-up makes no more late than it has buffers."""

CLOSE_S: Final = 0.3
"""Drivers wait in STREAMOFF for the picture that is inside: 15 ms, or for ever."""

REFUSALS: Final = frozenset({errno.EINVAL, errno.EFAULT, errno.ENOMEM, errno.EPERM, errno.EOPNOTSUPP})
"""What drivers answer to memory of others that they cannot read, not in one piece for example."""

FAILURES: Final = 3
FAILURES_S: Final = 1.5
"""So many pictures lost or damaged within so many seconds: it is broken. One alone is made good by a key frame."""

MAX_BITRATE: Final = 14_000_000
FLOOR_BITS: Final = 0.005
"""Bits per pixel below which the rate control of known encoders (bcm2835) stalls for seconds: 138 kbit/s at 720p30."""


class EncoderError(Exception):
    """The encoder failed, and why: ``fault`` is what it is told as."""

    def __init__(self, words: str, fault: FaultKind = FaultKind.FAILED) -> None:
        super().__init__(words)
        self.fault = fault


class MemoryRefusedError(EncoderError):
    """The encoder does not read pictures where the camera put them; copies may do."""


def floor_of(mode: VideoMode) -> int:
    """The lowest bit rate that is asked of a hardware encoder at this size and frame rate."""
    return max(50_000, int(mode.width * mode.height * mode.fps * FLOOR_BITS))


@dataclass(frozen=True, slots=True)
class Inside:
    """A picture that was handed over at ``when`` (CLOCK_MONOTONIC, seconds)."""

    when: float
    pts_us: int
    picture: VideoFrame | Shot


class EncoderSession(ABC):
    """One session at the node ``path``, for ``mode``."""

    close_s = CLOSE_S

    def __init__(self, path: str, mode: VideoMode, layout: Format | None) -> None:
        """``layout``: pictures are handed over where they lie, as it says, by ``share`` and not by ``encode``."""
        self.mode, self.layout = mode, layout
        self._path, self._name = path, f"encoder {path}"
        self._pending: deque[Inside] = deque()
        self._damaged: list[Inside] = []  # since the last unit that was whole
        self._error: EncoderError | None = None
        self._failures: deque[float] = deque()
        self._late = 0
        self._want_key = False
        self._taken = False  # a picture was, from the camera's memory
        self._closing: Future[None] | None = None

    @property
    @abstractmethod
    def file(self) -> int:
        """The descriptor that wakes for ``collect`` (POLLIN)."""

    @property
    @abstractmethod
    def room(self) -> bool:
        """Whether a picture can go in. One that cannot is skipped before it was coded, which no decoder notices.

        Raises EncoderError.
        """

    @abstractmethod
    def encode(self, picture: VideoFrame, pts_us: int) -> None:
        """Hand over a picture in YUV 4:2:0 (planar) of the session's size, while there is ``room``.

        Raises EncoderError.
        """

    @abstractmethod
    def share(self, shot: Shot) -> None:
        """Hand over a picture where it lies, while there is ``room``; it is closed here when it is coded.

        Raises EncoderError, MemoryRefusedError where it is not read there, and the shot is the caller's still.
        """

    @abstractmethod
    def set_bitrate(self, bits_per_second: int) -> int:
        """Follow a new target; returns the target after clamping."""

    @abstractmethod
    def _gather(self, units: list[EncodedFrame], now: float) -> None:
        """Add what is coded by now, each through ``_unit``. Raises EncoderError."""

    @abstractmethod
    def _finish(self) -> None:
        """No picture more comes. Raises OSError."""

    @abstractmethod
    def _ending(self) -> Callable[[], None]:
        """What is left to give back to the driver, which may hang in it."""

    def force_keyframe(self) -> None:
        """The next picture that goes in is an IDR."""
        self._want_key = True

    def collect(self, now: float) -> list[EncodedFrame]:
        """What is coded by now (``time.monotonic``). Raises EncoderError when the encoder has failed, and there is
        nothing more to collect."""
        if self._error is not None:
            raise self._error
        units: list[EncodedFrame] = []
        try:
            self._gather(units, now)
            self._judge(now)
        except EncoderError as error:
            if not units:
                raise
            self._error = error
        return units

    def _judge(self, now: float) -> None:
        if len(self._failures) >= FAILURES:
            raise EncoderError(f"{self._name}: {len(self._failures)} pictures of a second and a half came damaged")
        if self._late >= LATE:
            raise EncoderError(f"{self._name} takes over {LATE_S * 1000:.0f} ms for each picture")
        if self._pending and now - self._pending[0].when > SILENT_S:
            raise EncoderError(f"{self._name} has not answered for {SILENT_S:g} s", FaultKind.STALLED)

    @property
    def uncoded(self) -> list[tuple[VideoFrame, int]]:
        """The pictures that went in and came to nothing so far, oldest first, with their times: for who takes over."""
        found = []
        for one in (*self._damaged, *self._pending):
            picture = one.picture.picture() if isinstance(one.picture, Shot) else one.picture
            if picture is not None:
                found.append((picture, one.pts_us))
        return found

    def due_s(self, now: float) -> float | None:
        """Seconds until ``collect`` has a failure to tell; None while nothing is inside."""
        if self._error is not None:
            return 0.0
        return max(0.0, self._pending[0].when + SILENT_S - now) if self._pending else None

    def _went_in(self, pts_us: int, picture: VideoFrame | Shot) -> None:
        self._pending.append(Inside(time.monotonic(), pts_us, picture))

    def _unit(self, data: bytes, pts_us: int, now: float, *, key: bool, wrong: bool = False) -> EncodedFrame | None:
        """One that came; None where it is of no use. ``wrong``: the driver says so."""
        done = []
        while self._pending and self._pending[0].pts_us <= pts_us:
            done.append(self._pending.popleft())
            self._late = self._late + 1 if now - done[-1].when > LATE_S else 0
        while self._failures and now - self._failures[0] > FAILURES_S:
            self._failures.popleft()
        if wrong or fault_of_unit(data):
            self._failures.append(now)
            self._damaged += done
            self.force_keyframe()  # what follows refers to what is lost
            return None
        let_go((*self._damaged, *done))
        self._damaged.clear()
        inside = [one for one in done if one.pts_us == pts_us]
        dwell_us = round((now - inside[-1].when) * 1e6) if inside else None
        return EncodedFrame(data, pts_us, key, dwell_us=dwell_us)

    # --- the end

    def drain(self, seconds: float) -> list[EncodedFrame]:
        """What is still inside, waiting ``seconds`` at most: encoders of the field lose their last pictures."""
        units: list[EncodedFrame] = []
        deadline = time.monotonic() + seconds
        try:
            self._finish()
            while self._pending and (left := deadline - time.monotonic()) > 0:
                poll = select.poll()
                poll.register(self.file, select.POLLIN)
                poll.poll(left * 1000)
                units += self.collect(time.monotonic())
        except (OSError, EncoderError):
            return units  # it is given up either way
        return units

    def close(self) -> bool:
        """Give everything back, at any moment. False: the driver hangs in it, and is left to itself (``closed``)."""
        if self._closing is None:
            self._closing = aside("hw.encoder.close", self._ending())
            # What the driver still reads is of no use, and a camera with four places has none left to write to.
            let_go((*self._damaged, *self._pending))
            self._damaged.clear()
            self._pending.clear()
            with suppress(TimeoutError):
                within(self.close_s, "hw.encoder.close", self._closing)
        return self.closed

    @property
    def closed(self) -> bool:
        """Whether the driver has let go of it."""
        return self._closing is not None and self._closing.done()


Driver = Callable[[str, VideoMode, Format], EncoderSession]
"""Begins a session at a node, for pictures where the camera puts them. Raises EncoderError."""


def failure(name: str, path: str, error: OSError, *, running: bool = False) -> EncoderError:
    """``running``: it was open, so that one which is not there any more was unplugged."""
    told = refusal(name, path, error)
    fault = fault_of(told)
    return EncoderError(str(told), FaultKind.PULLED if running and fault is FaultKind.MISSING else fault)


def let_go(pictures: Iterable[Inside]) -> None:
    for one in pictures:
        if isinstance(one.picture, Shot):
            one.picture.close()
