"""Weekly times such as ``Mon-Fri 22:00-06:00``, for do-not-disturb and updates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Window"]

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES: Final = 24 * 60

_WINDOW: Final = re.compile(r"(?:(?P<days>[A-Za-z,\-]+)\s+)?(?P<begin>[0-9]{2}:[0-9]{2})-(?P<end>[0-9]{2}:[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Window:
    """Every week on ``days`` (0 is Monday) from ``begin`` up to, not including, ``end``: minutes of the day.

    An ``end`` at or before ``begin`` is on the next day: the night from Friday belongs to Friday.
    """

    days: frozenset[int]
    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """``[DAYS ]HH:MM-HH:MM``; days are ``Mon``, ``Mon-Fri``, ``Sat,Sun`` or a mix; none means every day.

        Raises ValueError with words that say what is wrong.
        """
        match = _WINDOW.fullmatch(text.strip())
        if match is None:
            raise ValueError("write it as 'Mon-Fri 22:00-06:00', or '22:00-06:00' for every day")
        days = _days(match["days"]) if match["days"] else frozenset(range(7))
        begin, end = _minutes(match["begin"]), _minutes(match["end"])
        if begin == DAY_MINUTES:
            raise ValueError("24:00 can only be the end; begin at 00:00")
        if begin == end:
            raise ValueError("begin and end are the same; a whole day is 00:00-24:00")
        return cls(days, begin, end)

    def covers(self, weekday: int, minute: int) -> bool:
        """Whether it holds on ``weekday`` (0 is Monday) at ``minute`` of the day (local time)."""
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        if weekday in self.days and minute >= self.begin:
            return True
        return (weekday - 1) % 7 in self.days and minute < self.end


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        end = _day(last) if dash else begin
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(days)


def _day(name: str) -> int:
    try:
        return DAYS.index(name.capitalize())
    except ValueError:
        raise ValueError(f"{name!r} is no day; days are {', '.join(DAYS)}") from None


def _minutes(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    total = hours * 60 + minutes
    if minutes > 59 or total > DAY_MINUTES:
        raise ValueError(f"{text} is no time of day")
    return total
