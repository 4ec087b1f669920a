"""Tasks that nobody awaits: their unexpected end is told at once, instead of when they are thrown away.
And waiting for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Changes", "background", "fail_loudly"]


def background(
    work: Coroutine[Any, Any, None], *, name: str, failed: Callable[[Exception], None]
) -> asyncio.Task[None]:
    """Run ``work`` as a task; ``failed`` is told on the loop of the exception it ends by. A cancelled one is silent."""
    task = asyncio.get_running_loop().create_task(work, name=name)

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            failed(error)

    task.add_done_callback(ended)
    return task


def fail_loudly(error: Exception) -> None:
    """Where nobody has asked to be told: the loop's exception handler says it."""
    raise error


class Changes:
    """Whoever waits for something to change, to look at it then. On the loop; one before ``next`` is not told."""

    def __init__(self) -> None:
        self._coming = asyncio.Event()

    def tell(self) -> None:
        """Something is another one."""
        told, self._coming = self._coming, asyncio.Event()
        told.set()

    async def next(self) -> None:
        await self._coming.wait()
