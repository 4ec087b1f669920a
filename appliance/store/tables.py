"""The tables of the store and their rules: what is kept, how long, in which order."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

__all__ = ["Entry", "Gap", "JournalState", "OutboxLimits", "Row", "Tables"]

T = TypeVar("T")

KEEP_COMMANDS: Final = 10_000
KEEP_COMMANDS_S: Final = 7 * 86_400.0
KEEP_ALWAYS: Final = 1_000
"""Newest commands kept whatever their age: when a clock without battery jumps by years, age means nothing."""
KEEP_CALLS: Final = 10_000
KEEP_SUMMARIES: Final = 1_000  # of about 10 kB
KEEP_QUARANTINED: Final = 100
PRUNE_EVERY: Final = 256  # admissions

_SCHEMA: Final = (
    # Additive only: the version before must read what this one writes, or going back is impossible.
    """
    CREATE TABLE commands (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, verb TEXT NOT NULL, digest TEXT NOT NULL,
        args TEXT NOT NULL, origin TEXT NOT NULL, sender TEXT NOT NULL, scope TEXT NOT NULL, ts REAL, ttl_s REAL,
        state TEXT NOT NULL, answer BLOB, reply TEXT, taken REAL NOT NULL);
    CREATE INDEX commands_open ON commands (seq) WHERE state <> 'final';
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL, expires REAL,
        precious INTEGER NOT NULL, written REAL NOT NULL, cuts INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE quarantine (
        seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, why TEXT NOT NULL, moved REAL NOT NULL);
    CREATE TABLE gap (one INTEGER PRIMARY KEY CHECK (one = 1), dropped INTEGER NOT NULL, first REAL NOT NULL,
        last REAL NOT NULL);
    CREATE TABLE calls (seq INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL);
    CREATE TABLE small (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
    """
    CREATE TABLE summaries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, call TEXT NOT NULL UNIQUE, summary TEXT NOT NULL);
    """,
)


class JournalState(StrEnum):
    ADMITTED = "admitted"  # taken, not begun
    STARTED = "started"  # begun; after a crash its fate is unknown
    FINAL = "final"  # answered


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the journal. ``digest``: hash of its args; ``args``: their JSON, empty once it is final.
    ``reply``: topic its answers are queued under, None for doors that answer themselves."""

    id: str
    verb: str
    digest: str
    args: str
    origin: str
    sender: str
    scope: str
    ts: float | None
    ttl_s: float | None
    state: JournalState = JournalState.ADMITTED
    answer: bytes | None = None
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One message of the outbox. ``expires``: wall clock, None for never. ``cuts``: connections that ended on it."""

    seq: int
    topic: str
    payload: bytes
    expires: float | None
    cuts: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows thrown away because the outbox was full: how many, written between ``first`` and ``last`` (wall)."""

    dropped: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    count: int = 10_000
    size: int = 8 * 1024 * 1024  # payload bytes


class Tables:
    """The tables and their rules; every method runs inside ``transaction``."""

    def __init__(self, db: sqlite3.Connection, wall: Callable[[], float], limits: OutboxLimits) -> None:
        self.db = db
        self._wall = wall
        self._limits = limits
        self._admitted = 0
        self._waiting: tuple[int, int] | None = None  # rows and bytes of the outbox, None: to be counted

    def migrate(self) -> None:
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        for number, script in enumerate(_SCHEMA[version:], version + 1):
            self.db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")

    def transaction(self, work: Callable[[Tables], T]) -> T:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            result = work(self)
            self.db.execute("COMMIT")
        except BaseException:
            self._waiting = None
            with contextlib.suppress(sqlite3.OperationalError):  # SQLite rolled back by itself (full, I/O error)
                self.db.execute("ROLLBACK")
            raise
        return result

    def admit(self, entry: Entry, first: bytes | None) -> Entry | None:
        found = self.command(entry.id)
        if found is not None:
            return found
        self.db.execute(
            f"INSERT INTO commands ({_ENTRY}, taken) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (entry.id, entry.verb, entry.digest, entry.args, entry.origin, entry.sender, entry.scope, entry.ts,
             entry.ttl_s, entry.state.value, entry.answer, entry.reply, self._wall()),
        )
        if first is not None and entry.reply is not None:
            self.enqueue(entry.reply, first, None, True)
        self._admitted += 1
        if self._admitted % PRUNE_EVERY == 0:
            self.prune(KEEP_COMMANDS)
        return None

    def start(self, command_id: str) -> None:
        self.db.execute("UPDATE commands SET state = 'started' WHERE id = ? AND state = 'admitted'", (command_id,))

    def finish(self, command_id: str, answer: bytes) -> bool:
        """Whether a row went to the outbox. A second final changes nothing: the first one is the answer."""
        found = self.command(command_id)
        if found is None or found.state is JournalState.FINAL:
            return False
        self.db.execute("UPDATE commands SET state = 'final', answer = ?, args = '' WHERE id = ?", (answer, command_id))
        if found.reply is None:
            return False
        self.enqueue(found.reply, answer, None, True)
        return True

    def command(self, command_id: str) -> Entry | None:
        row = self.db.execute(f"SELECT {_ENTRY} FROM commands WHERE id = ?", (command_id,)).fetchone()  # noqa: S608
        return None if row is None else _entry(row)

    def unfinished(self) -> list[Entry]:
        rows = self.db.execute(f"SELECT {_ENTRY} FROM commands WHERE state <> 'final' ORDER BY seq")  # noqa: S608
        return [_entry(row) for row in rows]

    def prune(self, keep: int) -> None:
        (newest,) = self.db.execute("SELECT COALESCE(MAX(seq), 0) FROM commands").fetchone()
        self.db.execute("DELETE FROM commands WHERE state = 'final' AND seq <= ?", (newest - keep,))
        self.db.execute("DELETE FROM commands WHERE state = 'final' AND seq <= ? AND taken < ?",
                        (newest - KEEP_ALWAYS, self._wall() - KEEP_COMMANDS_S))

    def enqueue(self, topic: str, payload: bytes, expiry_s: float | None, precious: bool) -> None:
        now = self._wall()
        self.db.execute(
            "INSERT INTO outbox (topic, payload, expires, precious, written) VALUES (?, ?, ?, ?, ?)",
            (topic, payload, None if expiry_s is None else now + expiry_s, int(precious), now))
        count, size = self._count()
        count, size = count + 1, size + len(payload)
        while count > self._limits.count or size > self._limits.size:
            seq, length, written = self.db.execute(
                "SELECT seq, LENGTH(payload), written FROM outbox ORDER BY precious, seq LIMIT 1").fetchone()
            self.db.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
            self.db.execute(
                "INSERT INTO gap VALUES (1, 1, ?, ?) ON CONFLICT (one) DO UPDATE SET dropped = dropped + 1,"
                " first = MIN(first, excluded.first), last = MAX(last, excluded.last)", (written, written))
            count, size = count - 1, size - length
        self._waiting = count, size

    def _count(self) -> tuple[int, int]:
        """Rows and bytes before this transaction's insert; counted once, then kept."""
        if self._waiting is not None:
            return self._waiting
        count, size, last = self.db.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(payload)), 0), MAX(seq) FROM outbox").fetchone()
        (length,) = self.db.execute("SELECT LENGTH(payload) FROM outbox WHERE seq = ?", (last,)).fetchone()
        return count - 1, size - length

    def outbox(self, limit: int, after: int) -> tuple[list[Row], Gap | None]:
        rows = self.db.execute(
            "SELECT seq, topic, payload, expires, cuts FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        gap = self.db.execute("SELECT dropped, first, last FROM gap").fetchone()
        return [Row(*row) for row in rows], None if gap is None else Gap(*gap)

    def sent(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            row = self.db.execute("DELETE FROM outbox WHERE seq = ? RETURNING LENGTH(payload)", (seq,)).fetchone()
            if row is not None and self._waiting is not None:
                count, size = self._waiting
                self._waiting = count - 1, size - row[0]

    def gap_told(self, dropped: int) -> None:
        self.db.execute("UPDATE gap SET dropped = dropped - ?", (dropped,))
        self.db.execute("DELETE FROM gap WHERE dropped <= 0")

    def cut(self, seq: int) -> int:
        row = self.db.execute("UPDATE outbox SET cuts = cuts + 1 WHERE seq = ? RETURNING cuts", (seq,)).fetchone()
        return 0 if row is None else int(row[0])

    def quarantine(self, seq: int, why: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO quarantine SELECT seq, topic, payload, ?, ? FROM outbox WHERE seq = ?",
                        (why, self._wall(), seq))
        self.db.execute(
            "DELETE FROM quarantine WHERE seq NOT IN (SELECT seq FROM quarantine ORDER BY seq DESC LIMIT ?)",
            (KEEP_QUARANTINED,))
        self.sent([seq])

    def backlog(self) -> tuple[int, int]:
        (waiting,) = self.db.execute("SELECT COUNT(*) FROM outbox").fetchone()
        (aside,) = self.db.execute("SELECT COUNT(*) FROM quarantine").fetchone()
        return waiting, aside

    def add_call(self, record: str) -> None:
        self.db.execute("INSERT INTO calls (record) VALUES (?)", (record,))
        self.db.execute("DELETE FROM calls WHERE seq <= (SELECT MAX(seq) FROM calls) - ?", (KEEP_CALLS,))

    def calls(self, limit: int) -> list[str]:
        return [text for (text,) in self.db.execute("SELECT record FROM calls ORDER BY seq DESC LIMIT ?", (limit,))]

    def add_summary(self, call_id: str, summary: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO summaries (call, summary) VALUES (?, ?)", (call_id, summary))
        self.db.execute("DELETE FROM summaries WHERE seq <= (SELECT MAX(seq) FROM summaries) - ?", (KEEP_SUMMARIES,))

    def summary(self, call_id: str | None) -> str | None:
        row = self.db.execute(
            "SELECT summary FROM summaries WHERE ? IS NULL OR call = ? ORDER BY seq DESC LIMIT 1",
            (call_id, call_id)).fetchone()
        return None if row is None else str(row[0])

    def get(self, name: str) -> str | None:
        row = self.db.execute("SELECT value FROM small WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set(self, name: str, value: str) -> None:
        self.db.execute("INSERT INTO small VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                        (name, value))

    def count(self, name: str) -> int:
        value = int(self.get(name) or 0) + 1
        self.set(name, str(value))
        return value


_ENTRY: Final = "id, verb, digest, args, origin, sender, scope, ts, ttl_s, state, answer, reply"


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(
        id=row[0], verb=row[1], digest=row[2], args=row[3], origin=row[4], sender=row[5], scope=row[6], ts=row[7],
        ttl_s=row[8], state=JournalState(row[9]), answer=row[10], reply=row[11],
    )
