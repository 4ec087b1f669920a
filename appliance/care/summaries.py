"""What a call was like: so far while it goes on; when it is over published, kept with the past calls, and found again
by its id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from appliance.care import acs
from appliance.care.call_quality import LOOK_S, CallQuality
from appliance.errors import Refused
from appliance.intake import Handler
from appliance.vocabulary import Command, Json

__all__ = ["Summaries"]

LOG: Final = "callSummary"


class Summaries:
    """``find`` looks a summary up by the id of its call, None for the last; ``running`` is the record so far of the
    call in progress, None without one or when it is not that id; ``publish`` takes a kind of log and the document, and
    raises StoreError when it cannot be kept for the broker."""

    def __init__(self, quality: CallQuality, find: Callable[[str | None], Awaitable[Json | None]],
                 running: Callable[[str | None], Json | None],
                 publish: Callable[[str, Json], Awaitable[None]]) -> None:
        self._quality = quality
        self._find = find
        self._running = running
        self._publish = publish

    def handlers(self) -> Mapping[str, Handler]:
        return {"call.summary": self._command}

    def media(self, call_id: str, last: Sequence[Sequence[Json]]) -> Json:
        """Metrics of a call that ended; ``last`` are the last reports of its connections that were not asked for yet,
        in order."""
        return _media(self._quality.conclude(call_id, last))

    async def tell(self, summary: Json) -> None:
        await self._publish(LOG, summary)

    async def document(self, call_id: str | None, dialect: str) -> Json:
        """The summary of a call, None for the running one, else the last; of a running one it is what was seen so far.

        Raises Refused(404/notFound) when it is not kept, or not any more.
        """
        record = self._running(call_id)
        if record is not None:
            summary: Json | None = record | {"media": _media(self._quality.so_far(record["callId"]))}
        else:
            summary = await self._find(call_id)
        if summary is None:
            words = ("No call was made yet." if call_id is None else
                     "There is no such call, or its summary is not kept any more; see state/calls.")
            raise Refused(words, code=404, sub_code="notFound", retryable=False)
        if dialect != "acs":
            return summary
        media = summary.pop("media")
        return summary | {"mediaStatsTimeSeries": acs.time_series(media, interval_s=media["intervalSeconds"])}

    async def _command(self, command: Command) -> Json:
        return await self.document(command.args.get("callId"), command.args.get("dialect", "w3c"))


def _media(summary: Json) -> Json:
    return {"intervalSeconds": LOOK_S, **summary}
