"""Small values that a restart does not forget, for those who cannot wait for the disk."""

from __future__ import annotations

import asyncio
import logging

from appliance.errors import StoreError
from appliance.store.service import Store
from appliance.tasks import background, fail_loudly

__all__ = ["Notes"]

log = logging.getLogger(__name__)


class Notes:
    """Lives on the loop. What cannot be kept is logged, and everybody goes on without."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due: dict[str, str] = {}  # the latest of each name, not written yet
        self._task: asyncio.Task[None] | None = None

    async def remember(self, name: str, value: str) -> str:
        """What is kept under a name; ``value`` from now on where there is nothing yet."""
        try:
            kept = await self._store.get(name)
            if not kept:
                await self._store.set(name, value)
        except StoreError as error:
            log.warning("%s is not kept over a restart: %s", name, error.message)
            return value
        return kept or value

    def write(self, name: str, value: str) -> None:
        """Keep another value, soon. Of several in a row the last one is written, so that a flood of them is as many
        writes as the disk takes."""
        self._due[name] = value
        if self._task is None or self._task.done():
            self._task = background(self._write(), name="store.notes", failed=fail_loudly)

    async def _write(self) -> None:
        while self._due:
            name = next(iter(self._due))
            value = self._due.pop(name)
            try:
                await self._store.set(name, value)
            except StoreError as error:
                log.warning("%s is not kept over a restart: %s", name, error.message)

    async def close(self) -> None:
        """Until all is written; the store says when it gives up. May be called twice."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
