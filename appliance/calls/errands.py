"""What the controller sets going and does not wait for: each is named, kept until it ends, and ended at the stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from appliance.errors import StoreError

__all__ = ["Errands"]

log = logging.getLogger(__name__)


class Errands:
    """Everything on the loop. One that fails is a defect, and logged as that."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._storing: set[asyncio.Task[None]] = set()  # those of them that write records

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._begin(work, name)

    def store(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A record; begun in the order of these calls, which the store keeps."""
        task = self._begin(_stored(work, name), name)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def stop(self, record_s: float) -> None:
        """Records are stored within ``record_s``; the rest is cancelled. May be called twice."""
        if self._storing:  # or the next start tells the end of this call once more
            _, late = await asyncio.wait(self._storing, timeout=record_s)
            for task in late:
                log.warning("%s was not stored in time at shutdown", task.get_name())
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed; this is a defect", task.get_name(), exc_info=task.exception())


async def _stored(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except StoreError as error:
        log.warning("%s is not stored: %s", name, error.message)
