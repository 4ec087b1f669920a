"""What is shown to others beside the camera, a file or a capture device: opened, proven by its first picture, given to
whoever sends it, and watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from appliance.media.camera import CameraFeed
from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    EncodedFrame,
    Fault,
    FaultKind,
    HardwareError,
    SharedSource,
    VideoMode,
)

__all__ = ["Content"]

MODE: Final = VideoMode(1280, 720, 5, 600_000)
"""It is read, not watched: sharp, and few pictures."""

FIRST_S: Final = 8.0
"""Until its first picture: a process starts for it, and a slow card is read."""

GONE: Final = (FaultKind.MISSING, FaultKind.PULLED)
FAILING: Final = (FaultKind.BUSY, FaultKind.DENIED, FaultKind.FORMAT, FaultKind.FAILED)
FAILING_S: Final = 5.0
"""Its process is started anew meanwhile, and may do better."""

_ERRORS: Final[dict[FaultKind, type[HardwareError]]] = {
    FaultKind.MISSING: DeviceMissingError, FaultKind.PULLED: DevicePulledError, FaultKind.BUSY: DeviceBusyError,
    FaultKind.DENIED: DeviceDeniedError, FaultKind.FORMAT: DeviceFormatError, FaultKind.FAILED: DeviceFailedError,
}


class Content:
    """One source; ``open`` once, then ``close``. ``feed`` is for the tracks of those who send it.

    ``on_lost``: told once, after ``open``, that nothing of it comes any more, and why.
    """

    def __init__(
        self, source: SharedSource, loop: asyncio.AbstractEventLoop, executor: Executor, *,
        on_lost: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self._source = source
        self._loop = loop
        self._executor = executor
        self._on_lost = on_lost
        self._first: asyncio.Future[None] = loop.create_future()
        self._patience: dict[FaultKind, asyncio.TimerHandle] = {}
        self._over = False
        self.feed = CameraFeed(source, MODE, loop, executor)

    async def open(self) -> None:
        """Until there is a picture. Raises HardwareError by what is wrong (DeviceFormatError of a file that cannot be
        decoded); ``close`` is still to be called."""
        self._source.on_fault(self._told)
        self.feed.watch(self._on_frame)
        self.feed.start()
        self.feed.hold(self, True)
        try:
            async with asyncio.timeout(FIRST_S):
                await self._first
        except TimeoutError as error:
            raise DeviceFailedError(f"it gives no picture within {FIRST_S:g} s") from error
        finally:
            self.feed.watch(None)

    async def close(self) -> None:
        self._end()
        await self.feed.close()
        await self._loop.run_in_executor(self._executor, self._source.close)

    def _end(self) -> None:
        self._over = True
        for timer in self._patience.values():
            timer.cancel()
        self._patience.clear()

    def _on_frame(self, frame: EncodedFrame | None) -> None:
        if frame is not None and not self._first.done():
            self._first.set_result(None)

    def _told(self, fault: Fault) -> None:
        """On a board thread."""
        self._loop.call_soon_threadsafe(self._on_fault, fault)

    def _on_fault(self, fault: Fault) -> None:
        words = fault.detail or "it cannot be decoded"
        timer = self._patience.pop(fault.fault, None)
        if timer is not None:
            timer.cancel()
        if self._over or not fault.active or fault.fault not in (*GONE, *FAILING):
            return
        if not self._first.done():
            self._first.set_exception(_ERRORS[fault.fault](words))
            return
        wait_s = 0.0 if fault.fault in GONE else FAILING_S
        self._patience[fault.fault] = self._loop.call_later(wait_s, self._lose, words)

    def _lose(self, words: str) -> None:
        self._end()
        self._on_lost(words)
