"""Exponential back-off with jitter: how long to wait before what failed is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Backoff", "doubling"]

LEAST_SHARE: Final = 0.5  # of a step; up to 1, so that not all devices of a site come at one moment


def doubling(first_s: float, most_s: float) -> tuple[float, ...]:
    """Steps in seconds, ``first_s * 2**n`` from n = 0 until ``most_s``, which is the last. Both positive,
    ``first_s <= most_s``."""
    steps = [first_s]
    while steps[-1] < most_s:
        steps.append(min(2.0 * steps[-1], most_s))
    return tuple(steps)


class Backoff:
    """Of one thing that is tried again and again. The wait after failure n, from 1, is

        steps_s[min(n, len(steps_s)) - 1] * uniform(0.5, 1.0)

    seconds; ``steps_s``: at least one. ``uniform``: as ``random.uniform``.
    """

    def __init__(self, steps_s: Sequence[float], uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._steps_s = tuple(steps_s)
        self._uniform = uniform
        self.failures = 0
        """Since the last success; not counted further than there are steps."""

    def failed(self) -> float:
        """Count a failure; the seconds until the next try."""
        self._count()
        return self._jittered(self._steps_s[self.failures - 1])

    def failed_for_long(self) -> float:
        """As ``failed``, of what will not mend soon: the last step at once."""
        self._count()
        return self._jittered(self._steps_s[-1])

    def succeeded(self) -> None:
        """Begin with the first step again."""
        self.failures = 0

    def _count(self) -> None:
        self.failures = min(self.failures + 1, len(self._steps_s))

    def _jittered(self, step_s: float) -> float:
        return step_s * self._uniform(LEAST_SHARE, 1.0)
