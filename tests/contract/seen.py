"""Sinks that a test can wait on: faults and frames as a board tells them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hw.api import EncodedFrame, Fault, FaultKind, Kind, Picture

__all__ = ["Faults", "Frames", "Pictures", "until"]


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

    def first(self, wanted: Callable[[EncodedFrame], bool], seconds: float = 5.0) -> EncodedFrame:
        def found() -> EncodedFrame | None:
            return next((frame for _, frame in self.frames if wanted(frame)), None)

        with self._changed:
            self._changed.wait_for(found, seconds)
        result = found()
        assert result is not None, f"not among {len(self.frames)}"
        return result


class Pictures:
    """A sink for small raw pictures that can be waited for: each with the number of ``frames`` that came before it."""

    def __init__(self, frames: Frames) -> None:
        self.seen: list[tuple[int, Picture]] = []
        self._frames = frames
        self._changed = threading.Condition()

    def __call__(self, picture: Picture) -> None:
        with self._changed:
            self.seen.append((len(self._frames.frames), picture))
            self._changed.notify_all()

    def more(self, count: int, seconds: float = 5.0) -> list[Picture]:
        """So many that come from now on."""
        begin = len(self.seen)
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= begin + count, seconds), f"{len(self.seen)}"
        return [picture for _, picture in self.seen[begin:]]


def until(condition: Callable[[], object], seconds: float) -> bool:
    """For states that can only be read back (lamps, relays)."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
