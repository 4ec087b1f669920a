"""Network quality of a call from its W3C statistics. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.vocabulary import Json

__all__ = ["BAD", "GOOD", "POOR", "Quality", "judge", "mos"]

GOOD, POOR, BAD = 1, 2, 3
"""Values of a diagnostic of type quality."""

_POOR: Final = {"jitter": 0.030, "rtt": 0.300, "loss": 0.03}  # seconds, seconds, share over the interval
_BAD: Final = {"jitter": 0.100, "rtt": 0.500, "loss": 0.10}
_LEVELS: Final = ((4.2, 5), (4.0, 4), (3.6, 3), (3.0, 2))


@dataclass(frozen=True, slots=True)
class Quality:
    """What one interval was like. ``level`` 5 excellent to 1 bad; ``send`` and ``receive`` 1 good, 2 poor, 3 bad."""

    send: int
    receive: int
    level: int
    mos: float
    rtt: float | None
    jitter: float
    loss: float

    def payload(self) -> Json:
        return {"networkQualityLevel": self.level, "mos": round(self.mos, 2), "rtt": self.rtt,
                "jitter": round(self.jitter, 4), "fractionLost": round(self.loss, 4)}


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


def judge(now: Iterable[Json], before: Iterable[Json]) -> Quality:
    """Compare two samples of the same call; the first one is judged alone (``before`` empty)."""
    after, earlier = _by_id(now), _by_id(before)
    sent, received = _worst(after, earlier, "remote-inbound-rtp"), _worst(after, earlier, "inbound-rtp")
    trips = [float(s["roundTripTime"]) for s in after.values() if s.get("roundTripTime") is not None]
    rtt = max(trips) if trips else None
    score = mos(rtt or 0.0, received["jitter"], received["loss"])
    level = next((level for least, level in _LEVELS if score > least), 1)
    return Quality(_grade({**sent, "rtt": rtt or 0.0}), _grade({**received, "rtt": rtt or 0.0}), level, score, rtt,
                   received["jitter"], received["loss"])


def _by_id(stats: Iterable[Json]) -> dict[str, Json]:
    return {str(one.get("id")): one for one in stats}


def _worst(after: Mapping[str, Json], earlier: Mapping[str, Json], kind: str) -> dict[str, float]:
    """The worst jitter and loss of the streams of one type; counters are compared with the sample before."""
    worst = {"jitter": 0.0, "loss": 0.0}
    for key, one in after.items():
        if one.get("type") != kind:
            continue
        worst["jitter"] = max(worst["jitter"], float(one.get("jitter") or 0.0))
        worst["loss"] = max(worst["loss"], _loss(one, earlier.get(key, {})))
    return worst


def _loss(one: Mapping[str, Any], before: Mapping[str, Any]) -> float:
    lost = max(0, int(one.get("packetsLost") or 0) - int(before.get("packetsLost") or 0))
    came = int(one.get("packetsReceived") or 0) - int(before.get("packetsReceived") or 0)
    if came > 0 or lost > 0:
        return lost / (lost + max(0, came))
    return float(one.get("fractionLost") or 0.0)


def _grade(measured: Mapping[str, float]) -> int:
    if any(measured[name] > limit for name, limit in _BAD.items()):
        return BAD
    return POOR if any(measured[name] > limit for name, limit in _POOR.items()) else GOOD
