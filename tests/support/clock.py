"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing else is to be done.

    @virtual_time
    async def test_a_ring_that_nobody_answers_ends_after_30_s():
        started = asyncio.get_running_loop().time()
        ...
        assert asyncio.get_running_loop().time() - started == 30   # and took a millisecond

``asyncio.sleep``, ``wait_for``, ``timeout`` and ``call_later`` all follow; pass ``loop.time`` as the clock of what
takes one. Real input still works, but the clock does not wait for it: a test with sockets, threads or child
processes that must answer within a deadline needs real time. While a job of ``run_in_executor`` runs the clock
stands still. Async fixtures live on pytest's own loop: make what the test needs inside it.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualLoop", "run_virtual", "virtual_time"]

T = TypeVar("T")

STUCK_S = 5.0
"""Real seconds without anything to do and without a timer: the test waits for what cannot come."""


class _Jumping(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0  # not 0: a clock that begins at 0 hides `if deadline:` mistakes
        self.jobs = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if self.jobs:  # a thread of the executor works in real time and wakes us when it is done
            return super().select(timeout)
        if ready := super().select(0):
            return ready
        if timeout is None:
            if ready := super().select(STUCK_S):
                return ready
            raise TimeoutError("virtual time: nothing is scheduled and nothing comes: the test waits for ever")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` is virtual: it begins at 1000 and moves only by jumps to the next timer."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *timeout: float | None) -> None:
        """From Python 3.12 on with a deadline, to which the clock would jump while the threads still end."""
        self._jumping.jobs += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._jumping.jobs -= 1

    def _job_done(self, _future: asyncio.Future[Any]) -> None:
        self._jumping.jobs -= 1


def run_virtual(test: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; fails when a task is left over."""

    async def alone() -> T:
        result = await test
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left running: {sorted(task.get_name() for task in left)}"
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(alone())


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Decorates an async test: it runs on a VirtualLoop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs))

    return run
