"""Network quality of a call from its W3C statistics: the level 5 to 1 for people, and good, poor, bad for diagnostics.

The level is computed here, whatever carries the call: audio by the mean opinion score of Twilio's preflight test, video
by freezes, frame rate against what is expected and bit rate against what is wanted; the call is as good as its worst
part. Level 0 (broken) is told by the watch while the call reconnects. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.care.measures import Growth, Interval, lost_before_here, lost_on_the_way, made_up
from appliance.vocabulary import Json

__all__ = ["BAD", "GOOD", "POOR", "Judge", "Part", "Quality", "Verdict", "grade_of", "level_of",
           "mos"]

GOOD, POOR, BAD = 1, 2, 3
"""Values of a diagnostic of type quality."""

_POOR: Final = {"jitter": 0.030, "rtt": 0.300, "loss": 0.03}  # seconds, seconds, share over the interval
_BAD: Final = {"jitter": 0.100, "rtt": 0.500, "loss": 0.10}
RELIEF: Final = 0.8  # of a limit, below which it is over: a figure at the border does not flutter
MUTE_BAD_S: Final = 2.0  # without RTP while the peer sends
_LEVELS: Final = ((4.2, 5), (4.0, 4), (3.6, 3), (3.0, 2))
_RATIOS: Final = ((0.9, 5), (0.75, 4), (0.5, 3), (0.25, 2))  # of frame rate, of bit rate
_FREEZES: Final = ((0.0, 5), (0.03, 4), (0.08, 3), (0.20, 2))  # frozen share of the interval, at most
EXPECTED_LOOKS: Final = 6  # the best frame rate of the last looks is what is expected: 30 s


@dataclass(frozen=True, slots=True)
class Part:
    """One direction of one kind over one interval. Bits per second, seconds, share; None: not known."""

    level: int
    actual: float | None = None
    available: float | None = None
    bandwidth_level: int = 5
    jitter: float = 0.0
    rtt: float | None = None
    loss: float = 0.0
    concealed: float = 0.0  # of sound, what was made up although it was not silence

    @property
    def score(self) -> float:
        """Of sound. What came too late is as lost as what did not come, so the worse of both counts."""
        return mos(self.rtt or 0.0, self.jitter, max(self.loss, self.concealed))

    def payload(self) -> Json:
        """As Twilio's NetworkQualityMediaStats has it; ``concealed`` is ours."""
        return {
            "bandwidth": {"actual": _whole(self.actual), "available": _whole(self.available),
                          "level": self.bandwidth_level},
            "latency": {"jitter": round(self.jitter, 4), "rtt": _seconds(self.rtt),
                        "level": level_of(mos(self.rtt or 0.0, self.jitter, 0.0))},
            "fractionLost": {"fractionLost": round(self.loss, 4), "level": level_of(mos(0.0, 0.0, self.loss))},
            "concealed": {"concealed": round(self.concealed, 4), "level": level_of(mos(0.0, 0.0, self.concealed))},
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one direction, ``send`` or ``receive``, suffers from. ``loss`` and ``jitter`` of its worst kind; ``grades``:
    1 good, 2 poor, 3 bad, of each figure; ``silent``: kinds of which nothing comes although the peer sends."""

    direction: str
    loss: float
    jitter: float
    rtt: float | None
    grades: Mapping[str, int]
    silent: tuple[str, ...] = ()

    @property
    def grade(self) -> int:
        """The worst."""
        return BAD if self.silent else max(self.grades.values())

    def detail(self) -> Json:
        """What fell, in words with its limit, and the figures in the units of W3C; nothing of a good one."""
        if self.grade == GOOD:
            return {}
        measured = {"loss": self.loss, "rtt": self.rtt or 0.0, "jitter": self.jitter}
        fallen = [f"{name} {_figure(name, measured[name])} ({_limit(name, measured[name], grade)})"
                  for name, grade in self.grades.items() if grade != GOOD]
        fallen += [f"no {kind} arrives although the other side sends it" for kind in self.silent]
        return {"direction": self.direction, "what": ", ".join(fallen), "fractionLost": round(self.loss, 4),
                "jitter": round(self.jitter, 4), "roundTripTime": _seconds(self.rtt)}


def _limit(name: str, value: float, grade: int) -> str:
    limit, word = (_BAD[name], "bad") if grade == BAD else (_POOR[name], "poor")
    return f"{word} above {_figure(name, limit)}" if value > limit else (
        f"{word} until below {_figure(name, limit * RELIEF)}")


def _figure(name: str, value: float) -> str:
    """For people: a share in per cent, seconds in milliseconds."""
    shown = value * (100 if name == "loss" else 1000)
    return f"{round(shown, 0 if shown >= 100 else 1):g} {'%' if name == 'loss' else 'ms'}"


@dataclass(frozen=True, slots=True)
class Quality:
    """What one interval was like. ``level`` 5 excellent to 1 bad; ``mos`` of the worse direction of sound; ``parts`` by
    kind and direction, only of what flows."""

    send: Verdict
    receive: Verdict
    level: int
    mos: float
    rtt: float | None
    parts: Mapping[tuple[str, str], Part] = field(default_factory=dict)

    def payload(self) -> Json:
        return {"networkQualityLevel": self.level, "mos": round(self.mos, 2), "rtt": _seconds(self.rtt),
                "jitter": round(self.receive.jitter, 4), "fractionLost": round(self.receive.loss, 4),
                "stats": self.stats(3)}

    def stats(self, verbosity: int) -> Json:
        """Levels per kind and direction (from verbosity 2 on), and what they are made of (3)."""
        if verbosity < 2:
            return {}
        found: Json = {}
        for (kind, direction), part in self.parts.items():
            short = "send" if direction == "send" else "recv"
            found.setdefault(kind, {})[short] = part.level
            if verbosity > 2:
                found[kind][f"{short}Stats"] = part.payload()
        return found


def mos(rtt: float, jitter: float, loss: float) -> float:
    """Mean opinion score 1..4.5 from round trip and jitter in seconds and the share lost.

    The formula of Twilio's preflight test.
    """
    latency = (rtt + 2 * jitter) * 1000 + 10
    if latency >= 1000:
        return 1.0
    score = 94.768 - latency / 40 if latency < 160 else 94.768 - (latency - 120) / 10
    score = max(0.0, min(100.0, score - 250 * loss))
    return 1 + 0.035 * score + 7e-6 * score * (score - 60) * (100 - score)


def _whole(bits_per_second: float | None) -> int | None:
    return None if bits_per_second is None else round(bits_per_second)


def _seconds(trip: float | None) -> float | None:
    return None if trip is None else round(trip, 4)


def level_of(score: float) -> int:
    """Level 5 to 1 of a mean opinion score."""
    return next((level for least, level in _LEVELS if score > least), 1)


class Judge:
    """Judges one call, look after look; every report is compared with the one before."""

    def __init__(self) -> None:
        self._before: Sequence[Json] = ()
        self._rates: deque[float] = deque(maxlen=EXPECTED_LOOKS)  # frames received per second
        self._wanted = 0.0  # bits per second of video: the most that was ever aimed at
        self._grades: dict[str, Mapping[str, int]] = {"send": {}, "receive": {}}  # at the last look

    def look(self, report: Sequence[Json]) -> Quality:
        interval = Interval(report, self._before)
        self._before = report
        pair = interval.one("candidate-pair")
        trips = [trip for one in interval.each("remote-inbound-rtp") if (trip := one.get("roundTripTime")) is not None]
        rtt = max(trips) if trips else pair.get("currentRoundTripTime")
        parts: dict[tuple[str, str], Part] = {}
        for out in interval.each("outbound-rtp"):
            silence = out.row["kind"] == "audio" and out.before and not out.by("packetsSent")  # DTX, or mute
            if out.row.get("active", True) and not silence:  # a picture that the network holds back is no silence
                parts[out.row["kind"], "send"] = self._sent(interval, out, rtt, pair)
        for incoming in interval.each("inbound-rtp"):
            if not incoming.before or incoming.by("packetsReceived") or _silent(interval, incoming):
                parts[incoming.row["kind"], "receive"] = self._received(interval, incoming, rtt, pair)
        silent = tuple(str(one.row["kind"]) for one in interval.each("inbound-rtp") if _silent(interval, one))
        scores = [part.score for (kind, _), part in parts.items() if kind == "audio"]
        return Quality(
            send=self._verdict("send", parts, rtt), receive=self._verdict("receive", parts, rtt, silent),
            level=min((part.level for part in parts.values()), default=5),
            mos=min(scores, default=mos(rtt or 0.0, 0.0, 0.0)), rtt=rtt, parts=parts)

    def _verdict(self, direction: str, parts: Mapping[tuple[str, str], Part], rtt: float | None,
                 silent: tuple[str, ...] = ()) -> Verdict:
        own = [part for (_, its), part in parts.items() if its == direction]
        loss = max((part.loss for part in own), default=0.0)
        jitter = max((part.jitter for part in own), default=0.0)
        before = self._grades[direction]
        grades = self._grades[direction] = {
            name: grade_of(name, value, before.get(name, GOOD))
            for name, value in (("loss", loss), ("rtt", rtt or 0.0), ("jitter", jitter))}
        return Verdict(direction, loss, jitter, rtt, grades, silent)

    def _sent(self, interval: Interval, out: Growth, rtt: float | None, pair: Growth) -> Part:
        remote = interval.named(out.row.get("remoteId"))
        jitter, loss = remote.get("jitter") or 0.0, lost_on_the_way(interval, out)
        available, target = pair.get("availableOutgoingBitrate"), out.get("targetBitrate")
        bandwidth, level = 5, level_of(mos(rtt or 0.0, jitter, loss))
        if out.row["kind"] == "video":
            self._wanted = max(self._wanted, target or 0.0)
            if out.row.get("qualityLimitationReason", "bandwidth") == "bandwidth":  # fewer bits by wish are no fault
                bandwidth = _by_ratio(target or 0.0, self._wanted)
            expected = interval.named(out.row.get("mediaSourceId")).get("framesPerSecond") or 0.0
            rate = out.rate("framesSent")
            level = min(bandwidth, _by_ratio(expected if rate is None else rate, expected))
        return Part(level, out.rate("bytesSent", 8), available, bandwidth, jitter, rtt, loss)

    def _received(self, interval: Interval, incoming: Growth, rtt: float | None, pair: Growth) -> Part:
        jitter, loss = incoming.get("jitter") or 0.0, lost_before_here(incoming)
        part = Part(5, incoming.rate("bytesReceived", 8), pair.get("availableIncomingBitrate"), 5, jitter, rtt, loss,
                    made_up(incoming) or 0.0)
        if incoming.row["kind"] == "video":
            return replace(part, level=self._smooth(incoming))
        return replace(part, level=1 if _silent(interval, incoming) else level_of(part.score))

    def _smooth(self, incoming: Growth) -> int:
        """Level of received video: frozen share of the time, and frame rate against the best of late."""
        seconds, frames = incoming.seconds, incoming.by("framesDecoded")
        if not seconds:
            return 5
        # over the time in which pictures were due: a peer that stopped its video meanwhile has not become slower
        rate = frames / (incoming.by("totalInterFrameDelay") or seconds)
        self._rates.append(rate)
        frozen = incoming.by("totalFreezesDuration") / seconds
        smooth = next((level for most, level in _FREEZES if frozen <= most), 1)
        return min(smooth, _by_ratio(rate, max(self._rates)))


def _silent(interval: Interval, incoming: Growth) -> bool:
    """The peer says that it sends, and nothing comes."""
    last = incoming.get("lastPacketReceivedTimestamp")
    quiet = last is not None and incoming.row["timestamp"] - last >= MUTE_BAD_S * 1000
    return quiet and interval.named(incoming.row.get("remoteId")).by("packetsSent") > 0


def _by_ratio(value: float, whole: float) -> int:
    ratio = value / whole if whole else 1.0
    return next((level for least, level in _RATIOS if ratio >= least), 1)


def grade_of(name: str, value: float, before: int = GOOD) -> int:
    """Of one figure, ``loss`` (a share), ``jitter`` or ``rtt`` (seconds); what had fallen has to come clearly back."""
    if value > _BAD[name] * (RELIEF if before == BAD else 1):
        return BAD
    return POOR if value > _POOR[name] * (RELIEF if before != GOOD else 1) else GOOD
