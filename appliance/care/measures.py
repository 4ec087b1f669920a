"""What happened between two reports of a call: per stream, rates and averages under W3C names and in SI units. Pure.

Counters of webrtc-stats only grow; what people and judges ask for is what they grew by. A stream whose SSRC is another
than before, or whose counters begin again, is a new one (a reconnection), and grew from nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.vocabulary import Json

__all__ = ["Growth", "Interval", "Stream", "lost_before_here", "lost_on_the_way", "made_up", "streams"]


@dataclass(frozen=True, slots=True)
class Growth:
    """One dictionary of the later report beside the same of the earlier one, ``{}`` where there is none."""

    row: Json
    before: Json

    def get(self, name: str) -> float | None:
        """The value of ``name`` now."""
        value = self.row.get(name)
        return None if value is None else float(value)

    def by(self, name: str) -> float:
        """What ``name`` grew by; 0 for what is not there."""
        return max(0.0, float(self.row.get(name) or 0) - float(self.before.get(name) or 0))

    @property
    def seconds(self) -> float | None:
        """Between the two; None when there is only one."""
        if not self.before:
            return None
        return max(0.0, float(self.row["timestamp"] - self.before["timestamp"]) / 1000)

    def rate(self, name: str, factor: float = 1.0) -> float | None:
        """Growth of ``name`` per second."""
        seconds = self.seconds
        return None if not seconds or name not in self.row else self.by(name) * factor / seconds

    def average(self, total: str, count: str) -> float | None:
        """Growth of the sum ``total`` per growth of ``count``."""
        times = self.by(count)
        return self.by(total) / times if times and total in self.row else None


NOTHING: Final = Growth({}, {})


class Interval:
    """Two reports of the same call, the earlier one empty at first."""

    def __init__(self, now: Sequence[Json], before: Sequence[Json] = ()) -> None:
        self._now = {str(row.get("id")): row for row in now}
        self._before = {str(row.get("id")): row for row in before}

    def each(self, type_: str) -> Iterator[Growth]:
        """Every dictionary of a type."""
        return (self._of(key, row) for key, row in self._now.items() if row.get("type") == type_)

    def one(self, type_: str, kind: str = "") -> Growth:
        """The first dictionary of a type (and kind); an empty one where there is none."""
        return next((one for one in self.each(type_) if kind in ("", one.row.get("kind"))), NOTHING)

    def named(self, key: Any) -> Growth:
        """The dictionary with this id; an empty one where there is none."""
        row = self._now.get(str(key))
        return NOTHING if row is None else self._of(str(key), row)

    def _of(self, key: str, row: Json) -> Growth:
        before = self._before.get(key, {})
        same = row.get("ssrc") == before.get("ssrc") and all(
            row.get(name, 0) >= before.get(name, 0) for name in ("packetsReceived", "packetsSent", "bytesSent"))
        return Growth(row, before if same else {})


@dataclass(frozen=True, slots=True)
class Stream:
    """One direction of one kind. ``gauges`` are samples (rates, averages, levels), ``counts`` what was added."""

    direction: str  # send or receive; empty for the transport
    kind: str  # audio, video, transport
    codec: str
    id: str
    gauges: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)


def streams(interval: Interval) -> list[Stream]:
    """Every stream of the later report, and the transport."""
    found = [_sent(interval, one) for one in interval.each("outbound-rtp")]
    found += [_received(interval, one) for one in interval.each("inbound-rtp")]
    found += [_transport(one) for one in interval.each("candidate-pair")]
    return found


def lost_on_the_way(interval: Interval, out: Growth) -> float:
    """Share of what the peer reported on in the interval that it reported as lost, 0..1. Not of what was sent in it:
    a report comes later, and the picture may have been stopped meanwhile."""
    remote = interval.named(out.row.get("remoteId"))
    lost = remote.by("packetsLost")
    return lost / (lost + remote.by("packetsReceived")) if lost else 0.0


def lost_before_here(incoming: Growth) -> float:
    """Share of an inbound stream that did not come, 0..1. Repaired packets are lost ones too."""
    lost, came = incoming.by("packetsLost"), incoming.by("packetsReceived")
    came -= incoming.by("retransmittedPacketsReceived")
    return lost / (lost + max(0.0, came)) if lost else 0.0


def made_up(incoming: Growth) -> float | None:
    """Share of the sound played that was not there in time and not silence either, 0..1; None while none is played."""
    samples = incoming.by("totalSamplesReceived")
    audible = incoming.by("concealedSamples") - incoming.by("silentConcealedSamples")
    return min(1.0, max(0.0, audible) / samples) if samples else None


def _sent(interval: Interval, out: Growth) -> Stream:
    kind = str(out.row["kind"])
    remote, source = interval.named(out.row.get("remoteId")), interval.named(out.row.get("mediaSourceId"))
    gauges = {
        "bitrate": out.rate("bytesSent", 8),
        "packetsPerSecond": out.rate("packetsSent"),
        "fractionLost": lost_on_the_way(interval, out) if remote.row else None,
        "jitter": remote.get("jitter"),
        "roundTripTime": remote.get("roundTripTime"),
        "packetSendDelay": out.average("totalPacketSendDelay", "packetsSent"),
        "targetBitrate": out.get("targetBitrate"),
        "packetsLostPerSecond": remote.rate("packetsLost"),
    }
    counts = {"packetsSent": out.by("packetsSent"), "bytesSent": out.by("bytesSent"),
              "retransmittedPacketsSent": out.by("retransmittedPacketsSent"), "nackCount": out.by("nackCount"),
              "packetsLost": remote.by("packetsLost")}
    if kind == "audio":
        gauges["audioLevel"] = source.get("audioLevel")
        gauges["echoReturnLoss"] = source.get("echoReturnLoss")
        gauges["echoReturnLossEnhancement"] = source.get("echoReturnLossEnhancement")
    else:
        gauges |= {
            "framesPerSecond": out.rate("framesSent"),
            "framesEncodedPerSecond": out.rate("framesEncoded"),
            "frameWidth": out.get("frameWidth"), "frameHeight": out.get("frameHeight"),
            "sourceFramesPerSecond": source.get("framesPerSecond"),
            "sourceWidth": source.get("width"), "sourceHeight": source.get("height"),
            "encodeTime": out.average("totalEncodeTime", "framesEncoded"),
        }
        counts |= {name: out.by(name) for name in
                   ("framesSent", "framesEncoded", "keyFramesEncoded", "pliCount", "firCount")}
        counts |= _limitations(out)
    return Stream("send", kind, _codec(interval, out), str(out.row["id"]), _known(gauges), counts)


def _received(interval: Interval, incoming: Growth) -> Stream:
    kind = str(incoming.row["kind"])
    gauges = {
        "bitrate": incoming.rate("bytesReceived", 8),
        "packetsPerSecond": incoming.rate("packetsReceived"),
        "fractionLost": lost_before_here(incoming),
        "jitter": incoming.get("jitter"),
        **{name: incoming.average(name, "jitterBufferEmittedCount") for name in (
            "jitterBufferDelay", "jitterBufferTargetDelay", "jitterBufferMinimumDelay")},
        "packetsLostPerSecond": incoming.rate("packetsLost"),
    }
    counts = {name: incoming.by(name) for name in (
        "packetsReceived", "bytesReceived", "packetsLost", "packetsDiscarded", "nackCount",
        "retransmittedPacketsReceived")}
    if kind == "audio":
        samples = incoming.by("totalSamplesReceived")
        concealed = incoming.by("concealedSamples")
        gauges["audioLevel"] = incoming.get("audioLevel")
        gauges["concealedShare"] = min(1.0, concealed / samples) if samples else None
        gauges["healedShare"] = made_up(incoming)
        counts |= {name: incoming.by(name) for name in (
            "concealedSamples", "concealmentEvents", "insertedSamplesForDeceleration",
            "removedSamplesForAcceleration")}
    else:
        freezes, frozen = incoming.by("freezeCount"), incoming.by("totalFreezesDuration")
        gauges |= {
            "framesPerSecond": incoming.rate("framesDecoded"),
            "framesReceivedPerSecond": incoming.rate("framesReceived"),
            "frameWidth": incoming.get("frameWidth"), "frameHeight": incoming.get("frameHeight"),
            "decodeTime": incoming.average("totalDecodeTime", "framesDecoded"),
            "processingDelay": incoming.average("totalProcessingDelay", "framesDecoded"),
            "longestFreeze": frozen if freezes <= 1 else None,  # of several in one interval nobody knows the longest
        }
        counts |= {name: incoming.by(name) for name in (
            "framesReceived", "framesDecoded", "keyFramesDecoded", "framesDropped", "freezeCount",
            "totalFreezesDuration", "pauseCount", "totalPausesDuration", "pliCount")}
    return Stream("receive", kind, _codec(interval, incoming), str(incoming.row["id"]), _known(gauges), counts)


def _transport(pair: Growth) -> Stream:
    gauges = {name: pair.get(name) for name in (
        "currentRoundTripTime", "availableOutgoingBitrate", "availableIncomingBitrate")}
    gauges |= {"sentBitrate": pair.rate("bytesSent", 8), "receivedBitrate": pair.rate("bytesReceived", 8)}
    counts = {name: pair.by(name) for name in ("packetsSent", "packetsReceived", "bytesSent", "bytesReceived")}
    return Stream("", "transport", "", str(pair.row["id"]), _known(gauges), counts)


def _codec(interval: Interval, one: Growth) -> str:
    return str(interval.named(one.row.get("codecId")).row.get("mimeType", "")).rpartition("/")[2]


def _limitations(out: Growth) -> dict[str, float]:
    """Seconds for which each reason held quality down, but for ``none``."""
    now, before = out.row.get("qualityLimitationDurations", {}), out.before.get("qualityLimitationDurations", {})
    return {f"qualityLimitedBy{reason.capitalize()}": max(0.0, seconds - before.get(reason, 0.0))
            for reason, seconds in now.items() if reason != "none"}


def _known(gauges: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in gauges.items() if value is not None}
