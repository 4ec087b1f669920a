"""What a leg has to do beside its signalling: jobs one after the other, tasks beside them, and timers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from typing import Any, Final, Generic, TypeVar

__all__ = ["Chores"]

log = logging.getLogger(__name__)

JOBS: Final = 512
"""64 candidates per connection cannot fill it: more waiting means that media hang."""

T = TypeVar("T", bound=Hashable)


class Chores(Generic[T]):
    """Of one leg. ``T`` names its timers.

    name: of the worker, e.g. ``direct.media.1a2b``. failed: a job or task ended by a fault of ours, or too many jobs
    wait; it is in the log already. Everything on the loop.
    """

    def __init__(self, name: str, failed: Callable[[], None]) -> None:
        self._name = name
        self._failed = failed
        self._jobs: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(JOBS)
        self._worker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[T, asyncio.TimerHandle] = {}

    def do(self, job: Callable[[], Awaitable[None]]) -> None:
        """After all that was given before: so media of one leg never overtake themselves."""
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            log.exception("media of a call do not keep up with its signalling")
            self._failed()
            return
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name=self._name)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """At once, beside the jobs."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def start_timer(self, timer: T, seconds: float, due: Callable[[T], object]) -> None:
        """Anew where it runs already."""
        self.cancel_timer(timer)
        self._timers[timer] = asyncio.get_running_loop().call_later(seconds, due, timer)

    def cancel_timer(self, timer: T) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    async def stop_jobs(self, within_s: float) -> None:
        """No job is begun any more, and the one that runs is cancelled."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker], timeout=within_s)

    async def cancel(self, others: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel ``others`` and the tasks, and see them end; what failed among them is logged."""
        rest: tuple[asyncio.Task[Any], ...] = (*others, *self._tasks)
        for task in rest:
            task.cancel()
        for result in await asyncio.gather(*rest, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("a call did not end cleanly", exc_info=result)

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                await job()
            except Exception:
                log.exception("media of a call failed")
                self._failed()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("media of a call failed", exc_info=task.exception())
            self._failed()
