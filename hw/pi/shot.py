"""A picture where its camera put it: for who copies it, and for an encoder that reads it there (DMABUF)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from av.video.frame import VideoFrame

__all__ = ["Shot"]


class Shot:
    """One picture. The camera does not write there again until each holder has closed it: there are few such places."""

    def __init__(
        self, pts_us: int, copy: Callable[[], VideoFrame | None], *, file: int = -1,
        small: Callable[[], VideoFrame | None] = lambda: None, give_back: Callable[[], None] = lambda: None,
        source: Any = None,
    ) -> None:  # fmt: skip
        """``file``: a DMABUF descriptor of its memory, which is the camera's; -1: there is none. ``source``: the
        request of picamera2 that it came with, if it did."""
        self.pts_us, self.file, self.source = pts_us, file, source
        self._copy, self._small, self._give_back = copy, small, give_back
        self._copied: VideoFrame | None = None
        self._holders = 1
        self._lock = threading.Lock()

    def picture(self) -> VideoFrame | None:
        """A copy, made once; None: it is damaged. Only while it is held."""
        if self._copied is None:
            self._copied = self._copy()
        return self._copied

    def small(self) -> VideoFrame | None:
        """A copy of the small picture beside it; None: there is none. Only while it is held."""
        return self._small()

    def at_least(self, width: int) -> VideoFrame | None:
        """The less work: the small picture where it is so wide, else the picture. Only while it is held."""
        small = self._small()
        return small if small is not None and small.width >= width else self.picture()

    def keep(self) -> Shot:
        """One holder more, on any thread."""
        with self._lock:
            assert self._holders > 0  # noqa: S101 - the camera may have written there since
            self._holders += 1
        return self

    def close(self) -> None:
        """One holder less, on any thread; the last one gives it back."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._give_back()
