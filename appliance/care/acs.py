"""Statistics under the names and units of Azure Communication Services (MediaStats 2.0.0). Pure.

A view of what ``measures`` found between two reports; without an earlier one there are no rates. Levels are 0..65536,
times milliseconds, rates bits, packets or frames per second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from appliance.care.measures import Interval, Stream, streams
from appliance.vocabulary import Json

__all__ = ["sample", "time_series"]

MILLISECONDS: Final = 1000.0
LEVEL: Final = 65536.0  # of full scale
KEPT_DIGITS: Final = 3


class _Name(NamedTuple):
    acs: str
    factor: float = 1.0


_BOTH: Final = {
    "bitrate": _Name("bitrate"),
    "jitter": _Name("jitterInMs", MILLISECONDS),
    "packetsPerSecond": _Name("packetsPerSecond"),
    "packetsLostPerSecond": _Name("packetsLostPerSecond"),
    "packetsLost": _Name("packetsLost"),
    "roundTripTime": _Name("rttInMs", MILLISECONDS),
}
_NAMES: Final[Mapping[tuple[str, str], Mapping[str, _Name]]] = {
    ("send", "audio"): _BOTH | {
        "packetsSent": _Name("packets"),
        "audioLevel": _Name("audioInputLevel", LEVEL),
    },
    ("receive", "audio"): _BOTH | {
        "packetsReceived": _Name("packets"),
        "audioLevel": _Name("audioOutputLevel", LEVEL),
        "jitterBufferDelay": _Name("jitterBufferDelayInMs", MILLISECONDS),
        "healedShare": _Name("healedRatio"),
    },
    ("send", "video"): _BOTH | {
        "packetsSent": _Name("packets"),
        "sourceFramesPerSecond": _Name("frameRateInput"),
        "sourceWidth": _Name("frameWidthInput"),
        "sourceHeight": _Name("frameHeightInput"),
        "framesEncoded": _Name("framesEncoded"),
        "keyFramesEncoded": _Name("keyFramesEncoded"),
        "framesEncodedPerSecond": _Name("frameRateEncoded"),
        "framesSent": _Name("framesSent"),
        "framesPerSecond": _Name("frameRateSent"),
        "frameWidth": _Name("frameWidthSent"),
        "frameHeight": _Name("frameHeightSent"),
    },
    ("receive", "video"): _BOTH | {
        "packetsReceived": _Name("packets"),
        "jitterBufferDelay": _Name("jitterBufferDelayInMs", MILLISECONDS),
        "framesReceived": _Name("framesReceived"),
        "framesDecoded": _Name("framesDecoded"),
        "keyFramesDecoded": _Name("keyFramesDecoded"),
        "framesDropped": _Name("framesDropped"),
        "framesReceivedPerSecond": _Name("frameRateReceived"),
        "framesPerSecond": _Name("frameRateDecoded"),
        "frameWidth": _Name("frameWidthReceived"),
        "frameHeight": _Name("frameHeightReceived"),
        "longestFreeze": _Name("longestFreezeDurationInMs", MILLISECONDS),
        "totalFreezesDuration": _Name("totalFreezeDurationInMs", MILLISECONDS),
    },
    ("", "transport"): {
        "currentRoundTripTime": _Name("rttInMs", MILLISECONDS),
        "availableOutgoingBitrate": _Name("availableOutgoingBitrate"),
        "availableIncomingBitrate": _Name("availableIncomingBitrate"),
    },
}


def sample(report: Sequence[Json], before: Sequence[Json] = ()) -> Json:
    """A MediaStatsReportSample: ``audio`` and ``video`` with ``send`` and ``receive``, and ``transports``. Counters
    (packets, frames) are those since ``before``, as ACS gives them per sample."""
    found: Json = {kind: {"send": [], "receive": []} for kind in ("audio", "video")}
    found["transports"] = []
    ssrcs = {str(row["id"]): row.get("ssrc") for row in report}
    for stream in streams(Interval(report, before)):
        row = {"id": stream.id, **_renamed(stream)}
        if stream.kind == "transport":
            found["transports"].append(row)
            continue
        row |= {"codecName": stream.codec, "streamId": str(ssrcs[stream.id])}
        found[stream.kind][stream.direction].append(row)
    return found


def _renamed(stream: Stream) -> Json:
    values = {**stream.gauges, **stream.counts}
    return {name.acs: round(values[ours] * name.factor, KEPT_DIGITS)
            for ours, name in _NAMES[stream.direction, stream.kind].items() if ours in values}


def time_series(media: Json, *, interval_s: float) -> list[Json]:
    """The metrics of a summary as rows of CallClientMediaStatsTimeSeries; what ACS has no name for is left out."""
    rows = []
    for metric in media["metrics"]:
        name = _NAMES.get((metric["direction"], metric["type"]), {}).get(metric["metricName"])
        if name is None:
            continue
        rows.append({
            "MetricName": name.acs, "Count": metric["count"],
            **{theirs: round(metric[ours] * name.factor, KEPT_DIGITS) for theirs, ours in (
                ("Sum", "sum"), ("Average", "average"), ("Minimum", "minimum"), ("Maximum", "maximum"))},
            "MediaStreamDirection": {"send": "Outbound", "receive": "Inbound"}.get(metric["direction"], ""),
            "MediaStreamType": metric["type"].capitalize(), "MediaStreamCodec": metric["codec"],
            "AggregationIntervalSeconds": interval_s,
        })
    return rows
