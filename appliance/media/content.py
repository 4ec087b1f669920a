"""A picture or video file that is shown to others: opened, proven by its first picture, given to whoever sends it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Final

from appliance.media.camera import CameraFeed
from hw.api import DeviceFailedError, EncodedFrame, Fault, SharedFile, VideoMode

__all__ = ["Content"]

MODE: Final = VideoMode(1280, 720, 5, 600_000)
"""It is read, not watched: sharp, and few pictures."""

FIRST_S: Final = 8.0
"""Until its first picture: a process starts for it, and a slow card is read."""


class Content:
    """One file; ``open`` once, then ``close``. ``feed`` is for the tracks of those who send it."""

    def __init__(self, file: SharedFile, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._file = file
        self._loop = loop
        self._executor = executor
        self._first: asyncio.Future[None] = loop.create_future()
        self.feed = CameraFeed(file, MODE, loop, executor)

    async def open(self) -> None:
        """Until there is a picture. Raises HardwareError; ``close`` is still to be called."""
        self._file.on_fault(self._told)
        self.feed.watch(self._on_frame)
        self.feed.start()
        self.feed.hold(self, True)
        try:
            async with asyncio.timeout(FIRST_S):
                await self._first
        except TimeoutError as error:
            raise DeviceFailedError(f"the file gives no picture within {FIRST_S:g} s") from error
        finally:
            self.feed.watch(None)

    async def close(self) -> None:
        await self.feed.close()
        await self._loop.run_in_executor(self._executor, self._file.close)

    def _on_frame(self, frame: EncodedFrame | None) -> None:
        if frame is not None and not self._first.done():
            self._first.set_result(None)

    def _told(self, fault: Fault) -> None:
        """On a board thread."""
        self._loop.call_soon_threadsafe(self._on_fault, fault)

    def _on_fault(self, fault: Fault) -> None:
        if fault.active and not self._first.done():
            self._first.set_exception(DeviceFailedError(fault.detail or "the file cannot be decoded"))
