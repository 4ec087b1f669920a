"""The store as its users see it: awaited from the loop, done on one thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from appliance.errors import StoreError
from appliance.store.disk import BALLAST_BYTES, Disk
from appliance.store.tables import Entry, Gap, OutboxLimits, Row
from appliance.vocabulary import Json

__all__ = ["Store"]

T = TypeVar("T")
log = logging.getLogger(__name__)

DEFAULT_LIMITS: Final = OutboxLimits()
WAIT_S: Final = 10.0
"""Longest wait for one operation. A dying SD card can hold a write for ever; callers must go on."""
QUEUE_LIMIT: Final = 1024


class Store:
    """``open`` first. Every other method awaits the store's thread, at most WAIT_S, else raises StoreError."""

    def __init__(
        self, folder: Path, *, wall: Callable[[], float] = time.time, limits: OutboxLimits = DEFAULT_LIMITS,
        ballast: int = BALLAST_BYTES,
    ) -> None:
        self._make_disk: Callable[[], Disk] = functools.partial(
            Disk, folder, wall, limits, ballast, self._told_by_thread)
        self._disk = self._make_disk()
        self._on_trouble: list[Callable[[StoreError | None], None]] = []
        self._on_enqueue: list[Callable[[], None]] = []
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE_LIMIT)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stuck = False
        self._disk_trouble: StoreError | None = None
        self._trouble: StoreError | None = None

    @property
    def trouble(self) -> StoreError | None:
        return self._trouble

    @property
    def persistent(self) -> bool:
        """False while everything lies in memory only."""
        return not self._disk.in_memory

    async def open(self) -> None:
        """Start the thread and open the database. Raises StoreError only when another process holds the folder.

        A folder that does not answer is left alone until the next start: this run keeps everything in memory.
        """
        if self._thread is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._begin()
        try:
            await self._ask(self._disk.open)
        except StoreError as error:
            if self._stuck:
                await self._go_on_without(error)
                return
            await self.close()
            raise

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, args=(self._jobs, self._disk), name="store", daemon=True)
        self._thread.start()

    async def _go_on_without(self, hangs: StoreError) -> None:
        """The thread that waits for the folder is given up; should it come back, it closes what it opened."""
        self._jobs.put_nowait(None)
        self._jobs, self._disk, self._stuck = queue.Queue(QUEUE_LIMIT), self._make_disk(), False
        self._begin()
        await self._ask(lambda: self._disk.open_in_memory(hangs))

    async def close(self) -> None:
        """Finish what is queued and close, within 3 s. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        await asyncio.to_thread(thread.join, 3.0)
        if thread.is_alive():
            log.error("the store's thread did not end within 3 s; the data folder %s hangs", self._disk.folder)

    def on_trouble(self, tell: Callable[[StoreError | None], None]) -> None:
        """Told on the loop of a new trouble, at once of one there is already, and None when all is well again."""
        self._on_trouble.append(tell)
        if self._trouble is not None:
            tell(self._trouble)

    def on_enqueue(self, tell: Callable[[], None]) -> None:
        """Told on the loop when rows were committed to the outbox."""
        self._on_enqueue.append(tell)

    # --- journal

    async def admit(self, entry: Entry, first: bytes | None = None) -> Entry | None:
        """Write ``entry``; None when it is new, else what stands there under its id (nothing is changed then).
        ``first``: answer queued under ``entry.reply`` in the same transaction."""
        found = await self._ask(lambda: self._disk.do(lambda db: db.admit(entry, first)))
        self._tell_enqueued(found is None and first is not None and entry.reply is not None)
        return found

    async def start(self, command_id: str) -> None:
        """Mark begun; from now on a crash leaves its fate unknown."""
        await self._ask(lambda: self._disk.do(lambda db: db.start(command_id)))

    async def finish(self, command_id: str, answer: bytes) -> None:
        """Write the final answer, and queue it under the entry's ``reply``, in one transaction."""
        self._tell_enqueued(await self._ask(lambda: self._disk.do(lambda db: db.finish(command_id, answer))))

    async def command(self, command_id: str) -> Entry | None:
        return await self._ask(lambda: self._disk.do(lambda db: db.command(command_id)))

    async def unfinished(self) -> list[Entry]:
        """Commands without a final answer, oldest first: after a start, those that a crash interrupted."""
        return await self._ask(lambda: self._disk.do(lambda db: db.unfinished()))

    # --- outbox

    async def enqueue(self, topic: str, payload: bytes, *, expiry_s: float | None = None,
                      precious: bool = False) -> None:
        """Append; committed on return. When full the oldest rows go, ``precious`` ones (answers) last."""
        await self._ask(lambda: self._disk.do(lambda db: db.enqueue(topic, payload, expiry_s, precious)))
        self._tell_enqueued(True)

    async def outbox(self, limit: int, after: int = 0) -> tuple[list[Row], Gap | None]:
        """The oldest rows with seq above ``after``; and the gap before them, if rows were thrown away."""
        return await self._ask(lambda: self._disk.do(lambda db: db.outbox(limit, after)))

    async def sent(self, seqs: Sequence[int]) -> None:
        """Forget rows the broker acknowledged."""
        await self._ask(lambda: self._disk.do(lambda db: db.sent(seqs)))

    async def gap_told(self, dropped: int) -> None:
        """The marker over ``dropped`` rows reached the broker (more may have gone since: they stay marked)."""
        await self._ask(lambda: self._disk.do(lambda db: db.gap_told(dropped)))

    async def cut(self, seq: int) -> int:
        """A connection ended while this row was under way; returns how many have now."""
        return await self._ask(lambda: self._disk.do(lambda db: db.cut(seq)))

    async def quarantine(self, seq: int, why: str) -> None:
        """Set a row aside that cannot be delivered; the last KEEP_QUARANTINED are kept for people to look at."""
        await self._ask(lambda: self._disk.do(lambda db: db.quarantine(seq, why)))

    async def backlog(self) -> tuple[int, int]:
        """Rows waiting, and rows in quarantine."""
        return await self._ask(lambda: self._disk.do(lambda db: db.backlog()))

    # --- calls and small values

    async def add_call(self, record: Json) -> None:
        """Append one record of a call that ended."""
        text = json.dumps(record, ensure_ascii=True)
        await self._ask(lambda: self._disk.do(lambda db: db.add_call(text)))

    async def calls(self, limit: int = 20) -> list[Json]:
        """The newest records, newest first."""
        return [json.loads(text) for text in await self._ask(lambda: self._disk.do(lambda db: db.calls(limit)))]

    async def add_summary(self, call_id: str, summary: Json) -> None:
        """Keep what a call that ended was like; the newest KEEP_SUMMARIES are kept."""
        text = json.dumps(summary, ensure_ascii=True, separators=(",", ":"))
        await self._ask(lambda: self._disk.do(lambda db: db.add_summary(call_id, text)))

    async def summary(self, call_id: str | None = None) -> Json | None:
        """Of that call, or of the last one; None when it is not kept."""
        text = await self._ask(lambda: self._disk.do(lambda db: db.summary(call_id)))
        return None if text is None else json.loads(text)

    async def get(self, name: str, default: str | None = None) -> str | None:
        found = await self._ask(lambda: self._disk.do(lambda db: db.get(name)))
        return default if found is None else found

    async def set(self, name: str, value: str) -> None:
        await self._ask(lambda: self._disk.do(lambda db: db.set(name, value)))

    async def count(self, name: str) -> int:
        """Add one to a counter and return it (``boot``)."""
        return await self._ask(lambda: self._disk.do(lambda db: db.count(name)))

    # --- the thread

    @staticmethod
    def _run(jobs: queue.Queue[Callable[[], None] | None], disk: Disk) -> None:
        try:
            while (job := jobs.get()) is not None:
                job()
        finally:
            disk.close()

    async def _ask(self, work: Callable[[], T]) -> T:
        loop = self._loop
        if loop is None or self._thread is None:
            raise StoreError(f"The store {self._disk.path} is not open.")
        if self._stuck:
            raise self._hangs()
        future: asyncio.Future[T] = loop.create_future()
        jobs = self._jobs

        def settle(result: T | None, error: BaseException | None) -> None:
            if jobs is self._jobs:
                self._answers(True)
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            result: T | None = None
            failed: BaseException | None = None
            try:
                result = work()
            except Exception as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(settle, result, failed)

        try:
            jobs.put_nowait(job)
        except queue.Full as error:
            raise self._hangs() from error
        try:
            async with asyncio.timeout(WAIT_S):
                return await future
        except TimeoutError as error:
            self._answers(False)
            raise self._hangs() from error

    def _answers(self, well: bool) -> None:
        if well is not self._stuck:
            return
        self._stuck = not well
        self._tell_trouble()
        self._tell_enqueued(well)  # what was given up may have been written after all

    def _hangs(self) -> StoreError:
        return StoreError(f"The data folder {self._disk.folder} does not answer; check the card or disk.")

    def _told_by_thread(self, trouble: StoreError | None) -> None:
        assert self._loop is not None  # noqa: S101 - set before the thread starts
        with contextlib.suppress(RuntimeError):  # the loop closed meanwhile
            self._loop.call_soon_threadsafe(self._disk_told, trouble)

    def _disk_told(self, trouble: StoreError | None) -> None:
        self._disk_trouble = trouble
        self._tell_trouble()

    def _tell_trouble(self) -> None:
        self._trouble = self._hangs() if self._stuck else self._disk_trouble
        for tell in tuple(self._on_trouble):
            tell(self._trouble)

    def _tell_enqueued(self, any_rows: bool) -> None:
        if any_rows:
            for tell in tuple(self._on_enqueue):
                tell()
