"""The database file and what may befall it: damage, a full disk, a card that went read-only."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from appliance.errors import StoreError
from appliance.store.tables import KEEP_ALWAYS, OutboxLimits, Tables

__all__ = ["BALLAST_BYTES", "Disk"]

T = TypeVar("T")
log = logging.getLogger(__name__)

FILE: Final = "edgecall.db"
BALLAST_BYTES: Final = 4 * 1024 * 1024
KEEP_DAMAGED: Final = 3
RETURN_EVERY_S: Final = 30.0
"""In memory, or without the reserve: how often the folder is tried again."""
ROOM: Final = 2
"""Reserves that must be free before one is laid again: else the next rows would need it at once."""


class Disk:
    """The database file and what may befall it. On the store's thread alone."""

    def __init__(self, folder: Path, wall: Callable[[], float], limits: OutboxLimits, ballast: int,
                 tell: Callable[[StoreError | None], None]) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.in_memory = False
        self._wall = wall
        self._limits = limits
        self._ballast_bytes = ballast
        self._tell = tell
        self._tables: Tables | None = None
        self._spent = False  # the ballast is not there: it was given up, or there was no room for it
        self._whole_copy = True  # memory holds all that the file held: it may be written back over it
        self._retry_at = 0.0

    def open(self) -> None:
        try:
            self._tables = self._open_file()
        except sqlite3.DatabaseError as error:
            if _code(error) in _BUSY:
                raise StoreError(
                    f"Another process uses the data folder {self.folder}; "
                    "end it, or give this one a folder of its own (--data).") from error
            self._mend(error)
        except OSError as error:
            self._to_memory(error)

    def open_in_memory(self, why: Exception) -> None:
        """Instead of ``open``, where the folder must not even be looked at: it is not tried again either."""
        self._whole_copy = False
        self._to_memory(why)

    def close(self) -> None:
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):  # what was promised is committed already
                self._tables.db.close()
            self._tables = None

    def do(self, work: Callable[[Tables], T]) -> T:
        """Run ``work`` in one transaction; mend and try again where the medium failed."""
        if self.in_memory and self._whole_copy and time.monotonic() >= self._retry_at:
            self._try_return()
        elif self._spent and not self.in_memory and time.monotonic() >= self._retry_at:
            self._try_refill()
        for last in (False, False, True):
            tables = self._tables
            if tables is None:
                raise StoreError(f"The store {self.path} is not open.")
            try:
                return tables.transaction(work)
            except sqlite3.DatabaseError as error:
                if last or isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                    raise StoreError(f"{self.path}: {error}") from error
                self._mend(error)
        raise AssertionError("unreachable")

    def _open_file(self) -> Tables:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self.path, timeout=1.0, isolation_level=None)
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")  # one daemon per folder; also spares the shared-memory file
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA journal_size_limit=1048576")
            tables = Tables(db, self._wall, self._limits)
            tables.migrate()
            _check(db)
            self.path.chmod(0o600)
            self._lay_ballast()
        except BaseException:
            db.close()
            raise
        return tables

    def _mend(self, error: sqlite3.DatabaseError) -> None:
        code = _code(error)
        if code in _DAMAGE:
            self._move_aside(error)
        elif code == sqlite3.SQLITE_FULL and self._give_up_ballast():
            self._trouble(f"The disk of {self.folder} is full; old rows are thrown away. Free storage.", error)
            if self._tables is not None:
                with contextlib.suppress(sqlite3.DatabaseError):  # the repeated work tells if it did not help
                    self._tables.transaction(lambda tables: tables.prune(KEEP_ALWAYS))
        else:
            self._to_memory(error)

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        self.close()
        try:
            olds = sorted(self.folder.glob(f"{FILE}.damaged-*"), key=lambda old: old.stat().st_mtime)
            for old in olds[: len(olds) - KEEP_DAMAGED + 1]:
                old.unlink()
            number = 1 + max((int(old.suffix.rpartition("-")[2]) for old in olds), default=0)
            target = self.path.with_name(f"{FILE}.damaged-{number}")
            self.path.rename(target)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(FILE + suffix).unlink(missing_ok=True)
            self._tables = self._open_file()
        except (OSError, ValueError, sqlite3.DatabaseError) as again:
            self._whole_copy = False
            self._to_memory(again)
            return
        self._trouble(f"The database was damaged and is kept as {target}; an empty one was begun.", error)

    def _to_memory(self, error: Exception) -> None:
        old, self._tables = self._tables, None
        db = sqlite3.connect(":memory:", isolation_level=None)
        if old is not None:
            try:
                old.db.backup(db)
            except sqlite3.Error:
                self._whole_copy = False
            with contextlib.suppress(sqlite3.Error):  # it failed already
                old.db.close()
        elif self._whole_copy and self.path.exists():
            self._whole_copy = False  # what stands there could not be read: it must not be written over
        self._tables = Tables(db, self._wall, self._limits)
        self._tables.migrate()
        self.in_memory = True
        self._retry_at = time.monotonic() + RETURN_EVERY_S
        self._trouble(f"{self.path} cannot be written: commands, events and call records are kept in memory and lost "
                      "at a restart. Check that the folder is writable and not full.", error)

    def _try_return(self) -> None:
        self._retry_at = time.monotonic() + RETURN_EVERY_S
        assert self._tables is not None  # noqa: S101 - in_memory implies it
        try:
            back = self._open_file()
        except (OSError, sqlite3.DatabaseError):
            return
        try:
            self._tables.db.backup(back.db)
        except sqlite3.Error:
            back.db.close()
            return
        self._tables.db.close()
        self._tables, self.in_memory = back, False
        log.warning("the data folder %s works again; what was kept in memory is written", self.folder)
        if not self._spent:  # else that is told, and stands
            self._tell(None)

    def _try_refill(self) -> None:
        """The disk has room again: the reserve for the next time it is full."""
        self._retry_at = time.monotonic() + RETURN_EVERY_S
        try:
            status = os.statvfs(self.folder)
            if status.f_bavail * status.f_frsize < ROOM * self._ballast_bytes:
                return
            self._fill()
        except OSError as error:
            log.debug("there is still no reserve in %s: %s", self.folder, error)
            return
        log.warning("%s has room again", self.folder)
        self._tell(None)

    def _trouble(self, message: str, cause: Exception) -> None:
        trouble = StoreError(message)
        trouble.__cause__ = cause
        log.error("%s (%s)", message, cause)
        self._tell(trouble)

    def _lay_ballast(self) -> None:
        ballast = self.folder / "ballast"
        if not self._ballast_bytes or (ballast.exists() and ballast.stat().st_size == self._ballast_bytes):
            self._spent = False
            return
        try:
            self._fill()
        except OSError as error:
            self._without_ballast()
            self._trouble(f"{self.folder} has no room for {self._ballast_bytes} bytes in reserve. Free storage.", error)

    def _fill(self) -> None:
        """Raises OSError; nothing is left half filled then."""
        ballast = self.folder / "ballast"
        try:
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._ballast_bytes)
        except OSError:
            ballast.unlink(missing_ok=True)
            raise
        self._spent = False

    def _give_up_ballast(self) -> bool:
        """Whether there was one to give up."""
        try:
            (self.folder / "ballast").unlink()
        except OSError:
            return False
        self._without_ballast()
        return True

    def _without_ballast(self) -> None:
        self._spent = True
        self._retry_at = time.monotonic() + RETURN_EVERY_S


_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: sqlite3.Error) -> int:
    """Primary result code; errors raised by the module itself carry none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _check(db: sqlite3.Connection) -> None:
    """Raises the DatabaseError that SQLite would raise later, at the page that is damaged."""
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(f"quick_check: {verdict}")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
