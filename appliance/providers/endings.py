"""What a leg keeps of what has ended: why, and the last statistics."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Protocol

from appliance.errors import EdgecallError, Refused
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = ["GivenUp", "last_report", "raised", "reason_of"]

log = logging.getLogger(__name__)

GIVEN_UP: Final = 4  # connections whose last statistics nobody has asked for


class Measured(Protocol):
    async def stats(self) -> Sequence[Json]: ...


def reason_of(error: EdgecallError) -> Reason:
    """The end reason that an error of media or signalling stands for, in the error's own words; ``503/provider`` for
    one that is none."""
    known = END_REASONS.get(error.key, END_REASONS["503/provider"])
    return Reason(known.code, known.sub_code, known.category, error.message, known.advice)


def raised(reason: Reason, what: str) -> Refused:
    """The refusal of a command that came to nothing for this reason; ``what``: it was that did not happen."""
    return Refused(f"{what}: {reason.message}", code=reason.code, sub_code=reason.sub_code, category=reason.category)


async def last_report(*parts: Measured) -> Sequence[Json]:
    """What they have measured. A call goes on, and ends, whatever its statistics do: what fails is logged."""
    reports = await asyncio.gather(*(part.stats() for part in parts), return_exceptions=True)
    for report in reports:
        if isinstance(report, BaseException):
            log.error("the last statistics of a call could not be taken; this is a defect", exc_info=report)
    return [one for report in reports if not isinstance(report, BaseException) for one in report]


class GivenUp:
    """The last statistics of connections that a leg has given up, until somebody asks."""

    def __init__(self) -> None:
        self._reports: deque[asyncio.Task[Sequence[Json]]] = deque(maxlen=GIVEN_UP)

    def add(self, report: Coroutine[Any, Any, Sequence[Json]], name: str) -> None:
        self._reports.append(asyncio.create_task(report, name=name))

    async def taken(self) -> Sequence[Sequence[Json]]:
        """Each once, oldest first; not those of which nothing is to be told."""
        taken = list(self._reports)
        self._reports.clear()
        return [report for task in taken if (report := await task)]
