"""What is known of the slots, on data: a small file for each fact, there or not there, whatever moment the power goes.

======================  ===========================================================================================
``pending.B``           slot B is to be tried, and was not committed yet
``asked.B``             how many times the firmware was asked for that trial (a number)
``tried.B``             the trial came up: left by slot B itself, first of all
``bad.B``               slot B is half written, or its trial failed
``verdict.json``        how the last trial ended, until it was reported
======================  ===========================================================================================
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from edgecall_image.durable import remove_file, replace_file
from edgecall_image.layout import Slot

__all__ = ["Mark", "Marks", "Outcome", "Verdict"]

Mark = Literal["pending", "tried", "bad"]
Outcome = Literal["committed", "failed", "neverStarted"]
"""``failed``: it came up and was left without being committed. ``neverStarted``: asked for, it never came up."""

ASKED: Final = "asked"
VERDICT: Final = "verdict.json"


class Verdict(NamedTuple):
    slot: Slot
    outcome: Outcome
    at: str
    """RFC 3339, by a clock that may not be set yet."""


class Marks:
    """Raises OSError where data cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, mark: Mark, slot: Slot) -> bool:
        return (self._folder / f"{mark}.{slot}").exists()

    def leave(self, mark: Mark, slot: Slot) -> None:
        if not self.has(mark, slot):
            replace_file(self._folder / f"{mark}.{slot}", b"")

    def clear(self, mark: Mark, slot: Slot) -> None:
        remove_file(self._folder / f"{mark}.{slot}")

    def asked(self, slot: Slot) -> int:
        """0 or more; a number that cannot be read counts for many, so that asking has an end."""
        try:
            return max(0, int((self._folder / f"{ASKED}.{slot}").read_bytes()))
        except FileNotFoundError:
            return 0
        except ValueError:
            return 1_000

    def count_asked(self, slot: Slot) -> None:
        replace_file(self._folder / f"{ASKED}.{slot}", b"%d\n" % (self.asked(slot) + 1))

    def uncount_asked(self, slot: Slot) -> None:
        replace_file(self._folder / f"{ASKED}.{slot}", b"%d\n" % max(0, self.asked(slot) - 1))

    def forget_asked(self, slot: Slot) -> None:
        remove_file(self._folder / f"{ASKED}.{slot}")

    def verdict(self) -> Verdict | None:
        try:
            told = json.loads((self._folder / VERDICT).read_bytes())
            verdict = Verdict(told["slot"], told["outcome"], str(told["at"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return verdict if verdict.slot in get_args(Slot) and verdict.outcome in get_args(Outcome) else None

    def judge(self, slot: Slot, outcome: Outcome) -> None:
        verdict = Verdict(slot, outcome, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))
        replace_file(self._folder / VERDICT, json.dumps(verdict._asdict()).encode() + b"\n")

    def forget_verdict(self) -> None:
        remove_file(self._folder / VERDICT)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else changes slots meanwhile, in another process either; the lock ends with its process."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
