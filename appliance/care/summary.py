"""What the media of one call were like: count, sum, average, least and most of each measure. Pure, of constant size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.care.measures import Interval, streams
from appliance.care.quality import Quality
from appliance.vocabulary import Json

__all__ = ["MediaSummary"]

DIGITS: Final = 6  # of what is told: microseconds, millionths


@dataclass(slots=True)
class _Series:
    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)

    def payload(self) -> Json:
        return {"count": self.count, "sum": round(self.total, DIGITS),
                "average": round(self.total / self.count, DIGITS), "minimum": round(self.least, DIGITS),
                "maximum": round(self.most, DIGITS)}


class MediaSummary:
    """Takes the reports of one call in order. Of rates, averages and levels a sample is one report; of counters it is
    what came since the report before, so that ``sum`` is the whole of the call, reconnections included. Level and score
    are of the call as a whole, type ``call``."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str, str], _Series] = {}
        self._before: Sequence[Json] = ()
        self._begun: float | None = None

    def add(self, report: Sequence[Json], quality: Quality | None = None) -> None:
        """One report, and the verdict on the time before it where there is one; an empty report (no connection just
        now) changes nothing."""
        if not report:
            return
        if quality is not None:
            for name, value in (("networkQualityLevel", quality.level), ("mos", quality.mos)):
                self._series.setdefault((name, "", "call", ""), _Series()).add(value)
        for stream in streams(Interval(report, self._before)):
            for name, value in (*stream.gauges.items(), *stream.counts.items()):
                self._series.setdefault((name, stream.direction, stream.kind, stream.codec), _Series()).add(value)
        self._before = report
        if self._begun is None:
            self._begun = report[0]["timestamp"]

    def payload(self) -> Json:
        """``seconds`` between the first and the last report, and the ``metrics``; none of a call without media."""
        seconds = 0.0 if self._begun is None else (self._before[0]["timestamp"] - self._begun) / 1000
        return {
            "seconds": round(seconds, 3),
            "metrics": [
                {"metricName": name, "direction": direction, "type": kind, "codec": codec, **series.payload()}
                for (name, direction, kind, codec), series in self._series.items()],
        }
