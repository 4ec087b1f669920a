"""What a leg is told to do, each with a deadline: a provider that hangs must not hold the call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from appliance.calls.errands import Errands
from appliance.errors import EdgecallError
from appliance.providers.api import Leg
from appliance.vocabulary import END_REASONS, Reason

__all__ = ["Orders"]

log = logging.getLogger(__name__)

DEADLINE_S: Final = 5.0


class Orders:
    """``failed`` is told of the leg that did not do it, and why."""

    def __init__(self, errands: Errands, failed: Callable[[Leg, Reason], None]) -> None:
        self._errands = errands
        self._failed = failed

    def give(self, leg: Leg, work: Coroutine[Any, Any, None], what: str) -> None:
        """``what``: a word for it."""
        self._errands.begin(self._carry_out(leg, work, what), f"call.{what}[{leg.id}]")

    async def _carry_out(self, leg: Leg, work: Coroutine[Any, Any, None], what: str) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await work
        except EdgecallError as error:
            log.warning("%s failed: %s", what, error.message)
            self._failed(leg, Reason(error.code, error.sub_code, error.category, error.message))
        except TimeoutError:
            log.warning("%s did not finish in %.0f s", what, DEADLINE_S)
            self._failed(leg, END_REASONS["408/setupTimeout"])
