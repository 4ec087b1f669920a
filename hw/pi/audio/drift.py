"""How much faster one sound card runs than another, by a level that should stand still. Pure: no clock, no card."""

from __future__ import annotations

from typing import Final

__all__ = ["Drift"]

FAST: Final = 1.2
SLOW: Final = 0.12
"""Bandwidths of the loop in rad/s: to catch a drift within seconds, and to hold it without following jitter."""

SMOOTH: Final = 5.0
"""The level is smoothed this many times faster than the loop answers: drivers report it in steps of whole periods."""

ASTRAY_S: Final = 0.003
HOME_S: Final = 0.001
CALM_S: Final = 4.0
"""Fast from an error above the first on, until it was below the second for so long; beyond what the driver's steps
explain."""

MOST_PPM: Final = 12_000.0
MOST_DRIFT_PPM: Final = 7_000.0
"""Bending at most, and what of it two clocks can be apart: a pause of the machine must not be learnt as drift."""

LEARNT_S: Final = 0.006
"""Errors beyond are not the clocks': they are bent away, and nothing is learnt of them."""


class Drift:
    """A loop of second order, critically damped: ``ppm`` more samples per block keep the level at its target.

    The level is the sound between the exchange and the loudspeaker, in seconds; it rises where the loudspeaker is
    slower than what paces the exchange.
    """

    def __init__(self, block_s: float, grain_s: float = 0.0) -> None:
        """``grain_s``: steps in which the driver may tell its level."""
        self._block_s = block_s
        self._astray_s, self._home_s = ASTRAY_S + grain_s, HOME_S + grain_s / 2
        self._smoothed: float | None = None
        self._integral = 0.0
        self._fast = True
        self._calm_s = 0.0

    @property
    def ppm(self) -> float:
        """What the loudspeaker's clock is found to be faster by, in millionths."""
        return self._integral * 1e6

    @property
    def settled(self) -> bool:
        return not self._fast

    def restart(self) -> None:
        """The level was set to its target; what is known of the clocks stays."""
        self._smoothed = None

    def update(self, error_s: float) -> float:
        """One block: by how much the level is above its target; returns the correction in millionths, above 0 for
        more samples."""
        width = FAST if self._fast else SLOW
        if self._smoothed is None:
            self._smoothed = error_s
        self._smoothed += (error_s - self._smoothed) * min(1.0, SMOOTH * width * self._block_s)
        error = self._smoothed
        self._pace(abs(error))
        learnt = error if abs(error) < LEARNT_S else 0.0
        self._integral = _within(self._integral - width * width * learnt * self._block_s, MOST_DRIFT_PPM * 1e-6)
        return _within(self._integral - 2 * width * error, MOST_PPM * 1e-6) * 1e6

    def _pace(self, error_s: float) -> None:
        if error_s > self._astray_s:
            self._fast, self._calm_s = True, 0.0
        elif self._fast:
            self._calm_s = self._calm_s + self._block_s if error_s < self._home_s else 0.0
            self._fast = self._calm_s < CALM_S


def _within(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
