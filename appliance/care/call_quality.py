"""Quality of the call in progress: every five seconds a look at its statistics becomes diagnostics, a level in
``state/net``, an event when the level changes, and a part of the summary told after the call.

A level falls at once and rises when two looks in a row were better: an event for every breath of the network would
wear the flash and nobody's eyes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from appliance.bulletin import Bulletin
from appliance.care.diagnostics import Diagnostics
from appliance.care.quality import GOOD, Judge, Quality
from appliance.care.summary import MediaSummary
from appliance.vocabulary import CallState, Json

__all__ = ["LOOK_S", "CallQuality"]

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
FIRST_S: Final = 1.0  # after a connection is there: both ends have reported once
KEPT: Final = 4  # summaries of calls that ended and were not asked for yet
BROKEN: Final = 0  # level while reconnecting
_LIVE: Final = frozenset({CallState.CONNECTED, CallState.LOCAL_HOLD, CallState.REMOTE_HOLD})


class CallQuality:
    """``run`` serves until cancelled. ``stats``: the W3C dictionaries of the call, empty without one; ``replaced``: the
    last ones of its connections that were given up since it was asked; ``verbosity``: 0 no events, 1 the level, 2 with
    levels per kind and direction, 3 with what they are made of."""

    def __init__(self, bulletin: Bulletin, diagnostics: Diagnostics, stats: Callable[[], Awaitable[Sequence[Json]]],
                 replaced: Callable[[], Awaitable[Sequence[Sequence[Json]]]],
                 verbosity: Callable[[], int] = lambda: 1) -> None:
        self._bulletin = bulletin
        self._diagnostics = diagnostics
        self._stats = stats
        self._replaced = replaced
        self._verbosity = verbosity
        self._judge = Judge()
        self._call: str | None = None
        self._watching = False  # a connection of that call
        self._failing = False
        self._level: int | None = None
        self._better = False  # the look before was better than the level told
        self._summaries: dict[str, MediaSummary] = {}
        self._reports: deque[Sequence[Json]] = deque(maxlen=2)
        self._changed = asyncio.Event()
        self._state = CallState.NONE
        self.quality: Quality | None = None
        """Of the call in progress, at the last look."""

    async def run(self) -> None:
        with self._bulletin.subscribed(on_document=self._on_document):
            while True:
                self._changed.clear()
                try:
                    pause = await self._look()
                    self._failing = False
                except Exception:  # a call must not end because its statistics have a defect
                    pause = LOOK_S
                    log.log(logging.DEBUG if self._failing else logging.ERROR,
                            "a look at the quality of the call failed; this is a defect", exc_info=True)
                    self._failing = True
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def earlier(self, now: Sequence[Json], least_s: float = 1.0) -> Sequence[Json]:
        """The latest report of this call that is at least so much older than ``now``; empty without one."""
        for report in reversed(self._reports):
            if now and report and now[0]["timestamp"] - report[0]["timestamp"] >= least_s * 1000:
                return report
        return ()

    def so_far(self, call_id: str) -> Json:
        """What the media of a call in progress were like up to the last look."""
        return (self._summaries.get(call_id) or MediaSummary()).payload()

    def conclude(self, call_id: str, last: Sequence[Sequence[Json]]) -> Json:
        """What the media of a call that ended were like; ``last`` are the last reports of its connections that were not
        seen yet, in order. It is told once."""
        summary = self._summaries.pop(call_id, None) or MediaSummary()
        for report in last:
            summary.add(report)
        return summary.payload()

    def _on_document(self, name: str, document: Json, _: int) -> None:
        if name == "call" and document.get("state") != self._state.value:
            self._state = CallState(document.get("state", "None"))
            if self._state in _LIVE or self._state is CallState.RECONNECTING or self._call is not None:
                self._changed.set()

    async def _look(self) -> float:
        """Seconds until the next look is due."""
        call = self._bulletin.document("call")
        state = self._state = CallState(call.get("state", "None"))
        if state in _LIVE or state is CallState.RECONNECTING:
            for last in await self._replaced():
                self._summary(call["callId"]).add(last)
        if state is CallState.RECONNECTING:
            self._forget()
            self._tell(call["callId"], BROKEN, {})
            return LOOK_S
        if state not in _LIVE:
            self._forget()
            self._call = self._level = None
            self._bulletin.merge("net", networkQualityLevel=None)
            return LOOK_S
        if self._call != call["callId"]:
            self._forget()
            self._call, self._level = call["callId"], None
        if not self._watching:
            self._watching = True
            return FIRST_S
        report = list(await self._stats())
        if not report:
            return LOOK_S
        self._reports.append(report)
        quality = self.quality = self._judge.look(report)
        self._summary(call["callId"]).add(report, quality)
        if len(self._reports) > 1:  # how the first second went says little: both ends have just begun
            self._diagnostics.quality("networkSendQuality", quality.send.grade, **quality.send.detail())
            self._diagnostics.quality("networkReceiveQuality", quality.receive.grade, **quality.receive.detail())
        self._tell(call["callId"], self._steady(quality.level), quality.stats(self._verbosity()))
        return LOOK_S

    def _forget(self) -> None:
        """What was seen belongs to a connection that is gone."""
        self.quality, self._watching = None, False
        self._judge, self._better = Judge(), False
        self._reports.clear()
        for name in ("networkSendQuality", "networkReceiveQuality"):
            self._diagnostics.quality(name, GOOD)

    def _steady(self, level: int) -> int:
        """The level to tell, given that of the latest look."""
        told = self._level
        if told is None or told == BROKEN or level <= told:
            self._better = False
            return level
        rises, self._better = self._better, not self._better
        return level if rises else told

    def _tell(self, call_id: str, level: int, stats: Json) -> None:
        self._bulletin.merge("net", networkQualityLevel=level)
        if level != self._level and self._verbosity() > 0:
            self._bulletin.post("net.networkQualityLevelChanged", callId=call_id, level=level, stats=stats)
        self._call, self._level = call_id, level

    def _summary(self, call_id: str) -> MediaSummary:
        while len(self._summaries) >= KEPT and call_id not in self._summaries:
            del self._summaries[next(iter(self._summaries))]
        return self._summaries.setdefault(call_id, MediaSummary())
