"""What is kept of calls: the last ones, the records of all, which one was up, and what their media were like."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall
from appliance.calls.errands import Errands
from appliance.errors import StoreError
from appliance.vocabulary import END_REASONS, Direction, Json, Reason

__all__ = ["Conclusion", "Ledger", "Records"]

log = logging.getLogger(__name__)

LAST_CALLS: Final = 20  # in state/calls


class Records(Protocol):
    """What outlives a restart: past calls, do-not-disturb, and which call was up."""

    async def add_call(self, record: Json) -> None: ...

    async def calls(self, limit: int) -> list[Json]: ...

    async def add_summary(self, call_id: str, summary: Json) -> None: ...

    async def get(self, name: str, default: str | None = None) -> str | None: ...

    async def set(self, name: str, value: str) -> None: ...


class Conclusion(Protocol):
    """What is made of the statistics of a call when it is over."""

    def media(self, call_id: str, last: Sequence[Sequence[Json]]) -> Json:
        """What the media were like; ``last`` are the last reports of its connections that were not told yet, in order;
        the report of a call without media is empty."""

    async def tell(self, summary: Json) -> None:
        """Publish the record of the call with its ``media``. Raises StoreError."""


class Ledger:
    """Lives on the loop; what it stores is one of the ``errands``."""

    def __init__(self, records: Records, bulletin: Bulletin, errands: Errands, conclusion: Conclusion | None) -> None:
        self._records = records
        self._bulletin = bulletin
        self._errands = errands
        self._conclusion = conclusion
        self._history: list[Json] = []

    async def load(self) -> None:
        """Raises StoreError; then past calls are not known."""
        self._history = await self._records.calls(LAST_CALLS)

    def publish(self) -> None:
        self._bulletin.set("calls", {"calls": self._history})

    async def report_interrupted(self) -> None:
        """A call that was up when the appliance died gets its end told, once."""
        try:
            call_id = await self._records.get("active_call")
            if not call_id:
                return
            reason = END_REASONS["410/deviceFault.restart"]
            self._bulletin.post("call.ended", callId=call_id, reason=reason.payload(), durationMs=None)
            await self._records.set("active_call", "")
        except StoreError as error:
            log.warning("the next start tells whether this one cut a call: %s", error.message)

    def begun(self, active: ActiveCall) -> None:
        """It is connected: a crash from here on cuts it."""
        self._errands.store(self._records.set("active_call", active.id), "call.remember")

    def ended(self, active: ActiveCall, record: Json, reason: Reason) -> None:
        """Tell it, and keep ``record``."""
        self._history = [record, *self._history][:LAST_CALLS]
        self.publish()
        self._bulletin.post("call.ended", callId=active.id, reason=reason.payload(), durationMs=record["durationMs"])
        incoming = active.call.direction is Direction.INCOMING
        if incoming and active.call.connected is None and reason.sub_code in ("noAnswer", "cancelled"):
            self._bulletin.post("call.missed", callId=active.id, reason=reason.payload(),
                                callerInfo=None if active.peer is None else active.peer.payload())
        self._errands.store(self._records.add_call(record), "call.record")
        self._errands.store(self._records.set("active_call", ""), "call.forget")
        if self._conclusion is not None:
            self._errands.store(self._conclude(active, record, self._conclusion), "call.summary")

    async def _conclude(self, active: ActiveCall, record: Json, conclusion: Conclusion) -> None:
        last = [*await active.leg.replaced(), await active.leg.stats()] if active.leg is not None else []
        summary = {**record, "media": conclusion.media(active.id, last)}
        await self._records.add_summary(active.id, summary)
        await conclusion.tell(summary)
