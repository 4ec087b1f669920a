"""Do-not-disturb schedule: ``"Mon-Fri 22:00-06:00"`` in local time. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final

__all__ = ["QuietHours", "is_quiet", "parse_quiet"]

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM: Final = re.compile(r"^(?:([a-z]{3})(?:-([a-z]{3}))?\s+)?(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})$")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From ``start`` to ``end`` on ``days`` (Monday is 0); an end not after the start is on the next day."""

    days: frozenset[int]
    start: time
    end: time

    def covers(self, moment: datetime) -> bool:
        now = moment.time()
        if self.start < self.end:
            return moment.weekday() in self.days and self.start <= now < self.end
        if now >= self.start:
            return moment.weekday() in self.days
        return now < self.end and (moment - timedelta(days=1)).weekday() in self.days


def parse_quiet(text: str) -> QuietHours:
    """Parse one line; no days means every day, ``24:00`` is the end of the day. Raises ValueError with the form."""
    match = _FORM.match(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not of the form 'Mon-Fri 22:00-06:00'")
    first, last, *clock = match.groups()
    try:
        start_day = _DAYS.index(first) if first else 0
        end_day = _DAYS.index(last) if last else (start_day if first else 6)
        start, end = _at(clock[0], clock[1]), _at(clock[2], clock[3])
    except ValueError as error:
        raise ValueError(f"{text!r}: days are Mon to Sun, times 00:00 to 24:00") from error
    span = (end_day - start_day) % 7
    return QuietHours(frozenset((start_day + n) % 7 for n in range(span + 1)), start, end)


def _at(hours: str, minutes: str) -> time:
    return time() if (hours, minutes) == ("24", "00") else time(int(hours), int(minutes))


def is_quiet(schedule: Sequence[QuietHours], moment: datetime) -> bool:
    """Whether any line covers ``moment`` (local wall clock)."""
    return any(hours.covers(moment) for hours in schedule)
