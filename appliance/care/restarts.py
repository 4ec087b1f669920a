"""Whether the last run ended as asked: the diagnostic ``watchdogRestarted`` after a crash, a kill or a hang.

A mark in the store says under which boot of the machine the appliance runs; a stop takes it away. A mark of the same
boot that stands at the start is a run that did not get to stop; one of another boot is a power cut or a reboot, which
tells nothing of the appliance.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Final, Protocol

from appliance.care.diagnostics import Diagnostics
from appliance.errors import StoreError

__all__ = ["Restarts", "boot_name"]

log = logging.getLogger(__name__)

MARK: Final = "running"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
HEALTHY_S: Final = 600.0
"""Ten healthy minutes end the diagnostic, as they end the count of failures."""


class Marks(Protocol):
    """Small values that outlive a crash (the store)."""

    async def get(self, name: str, default: str | None = None) -> str | None: ...

    async def set(self, name: str, value: str) -> None: ...


class Counters(Protocol):
    """Counters that outlive a restart (the store)."""

    @property
    def persistent(self) -> bool: ...

    async def count(self, name: str) -> int: ...


async def boot_name(counters: Counters) -> str:
    """What this run is called in all that it tells: no two runs of a device bear one name."""
    try:
        count = await counters.count("boot")
        if counters.persistent:
            return f"b{count}"
        why = "the count lies in memory"
    except StoreError as error:
        why = error.message
    log.warning("this start is not counted: %s", why)
    return f"b-{secrets.token_hex(4)}"


class Restarts:
    """``begin`` once the store is open, ``run`` until cancelled, ``end`` last of all in a stop."""

    def __init__(self, marks: Marks, diagnostics: Diagnostics, boot_id: Path = BOOT_ID) -> None:
        self._marks = marks
        self._diagnostics = diagnostics
        self._boot_id = boot_id

    async def begin(self) -> None:
        """Look at the mark of the last run, and leave one of this."""
        boot = await asyncio.to_thread(self._boot_id.read_text, "ascii")
        try:
            if await self._marks.get(MARK) == boot:
                log.warning("the last run did not stop as asked: a crash, a kill or a hang")
                self._diagnostics.flag("watchdogRestarted", True)
            await self._marks.set(MARK, boot)
        except StoreError as error:
            log.warning("whether this run stops as asked will not be known: %s", error.message)

    async def run(self) -> None:
        await asyncio.sleep(HEALTHY_S)
        self._diagnostics.flag("watchdogRestarted", False)
        await asyncio.Event().wait()  # a background task that ends is a defect

    async def end(self) -> None:
        try:
            await self._marks.set(MARK, "")
        except StoreError as error:
            log.warning("this stop will look like a crash at the next start: %s", error.message)
