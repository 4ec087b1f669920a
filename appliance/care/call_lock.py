"""flock(2) that is held while somebody calls: who wants to restart the machine takes it alone, or waits.

Shared, so that nothing of ours ever waits for it; the kernel lets it go with the process, however that ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import Final

from appliance.vocabulary import Json, calling

__all__ = ["CallLock"]

log = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
"""Between two tries while another holds it alone: it restarts the machine, or has found out that it cannot."""
MODE: Final = 0o640


class CallLock:
    """``open`` first; ``on_document`` subscribes to the bulletin. Lives on the loop, and never waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._calling = False
        self._yields = False
        self._held = False
        self._again: asyncio.TimerHandle | None = None

    @property
    def held(self) -> bool:
        return self._held

    async def open(self) -> None:
        """Where the file cannot be made calls go on without it, which is logged."""
        try:
            self._file = await asyncio.to_thread(os.open, self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as error:
            log.warning("%s cannot be opened (%s): a restart of the machine will not wait for the end of a call",
                        self._path, error.strerror)

    def on_document(self, name: str, document: Json, _rev: int) -> None:
        """A subscriber of the bulletin."""
        if name == "call":
            self._calling = calling(document)
            self._settle()

    def yield_to_restart(self, yields: bool) -> None:
        """Let go of it though somebody calls, for a restart that may not wait; or hold it again."""
        self._yields = yields
        self._settle()

    def close(self) -> None:
        """May be called twice."""
        self._forget_timer()
        if self._file is not None:
            os.close(self._file)
        self._file, self._held = None, False

    def _settle(self) -> None:
        self._forget_timer()
        wanted = self._calling and not self._yields
        if self._file is None or wanted == self._held:
            return
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if wanted else fcntl.LOCK_UN) | fcntl.LOCK_NB)
            self._held = wanted
        except BlockingIOError:
            self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._settle)
        except OSError as error:  # ENOLCK
            log.warning("%s cannot be locked (%s): a restart of the machine will not wait for the end of this call",
                        self._path, error.strerror)

    def _forget_timer(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
