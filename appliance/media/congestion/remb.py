"""What the path carries by REMB and receiver reports, for peers without transport-wide feedback."""

from __future__ import annotations

import math
from typing import Final

from appliance.media.congestion.rates import GROWTH_PER_S, LossBound

__all__ = ["RembEstimate"]

FLOOR_BPS: Final = 30_000  # an estimate below is noise of a peer that has just begun
SELF_LIMITED: Final = 0.75  # of the estimate: who sends less is limited by the picture, not by the path
CAP_S: Final = 8.0  # a REMB beside transport-wide feedback is a wish of the peer; it holds while it is repeated
REPORTS_S: Final = 4.0  # receiver reports come every 0.5 to 5 s
HEADROOM: Final = 1.3  # over what is sent: a bound by loss that is higher says nothing


class RembEstimate:
    """The peer's estimate with a sanity check, bounded by the loss it reports. Pure."""

    def __init__(self) -> None:
        self._told: tuple[float, float] | None = None  # (bits per second, time)
        self._bound = math.inf
        self._loss = LossBound(REPORTS_S)
        self._highest: int | None = None
        self._reported_at = 0.0

    def told(self, bits_per_second: int, sent: float, now: float) -> None:
        """A REMB of the peer, while ``sent`` bits per second leave. Its estimator never exceeds 1.5 times what it
        receives, so an estimate well above what we send says nothing about the path: a still picture must not squeeze
        the encoder for ever."""
        if bits_per_second < FLOOR_BPS:
            return
        self._told = bits_per_second, now
        self._bound = math.inf if sent < SELF_LIMITED * bits_per_second else bits_per_second

    def reported(self, highest: int, fraction_lost: float, sent: float, now: float) -> None:
        """A receiver report: the extended highest sequence number, and the share lost since the last one."""
        before, self._highest = self._highest, highest
        packets = 0 if before is None else highest - before
        since, self._reported_at = now - self._reported_at, now
        if 0 < packets < 0x8000 and 0 < sent < math.inf:
            limit = min(self._bound, HEADROOM * sent)
            lost = round(packets * fraction_lost)
            self._loss.update(packets, lost, sent * since, limit, sent * (1 - fraction_lost), now)

    def fade(self, seconds: float) -> None:
        """Nothing is sent that the peer would report on: for so long more what was told holds less."""
        grown = GROWTH_PER_S**seconds
        self._bound *= grown
        self._loss.value *= grown

    @property
    def bits_per_second(self) -> float:
        """``math.inf`` while nothing is known to limit the path."""
        return min(self._bound, self._loss.value)

    @property
    def loss(self) -> float:
        return self._loss.loss

    def wish(self, now: float) -> float:
        """The most the peer wants to be sent, ``math.inf`` when it did not say so lately."""
        return self._told[0] if self._told is not None and now - self._told[1] < CAP_S else math.inf
