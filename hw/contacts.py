"""What the edges of one contact mean: debounced presses, long presses, stuck buttons. Pure: time is handed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from hw.api import Press, PressKind

__all__ = ["DEBOUNCE_S", "STUCK_S", "Button", "Contact"]

DEBOUNCE_S: Final = 0.02
"""A level counts when it held this long; cheap push buttons bounce for up to 10 ms."""

STUCK_S: Final = 30.0
"""A button held longer is stuck (FaultKind.STUCK)."""


class Contact:
    """Debounces one contact. ``edge`` on every change of level, ``tick`` when ``due`` has come. Seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._level = self._settled = False
        self._changed = 0.0
        self._since = 0.0

    @property
    def closed(self) -> bool:
        return self._settled

    def begin(self, level: bool, now: float) -> None:
        """The level found when watching begins, or begins again. A contact found closed is told as one that closes."""
        self.edge(level, now)

    def edge(self, level: bool, now: float) -> None:
        if level != self._level:
            self._level, self._changed = level, now

    def due(self) -> float:
        """When ``tick`` has something to do; infinity when not before the next edge."""
        return self._changed + DEBOUNCE_S if self._level != self._settled else math.inf

    def tick(self, now: float) -> Sequence[Press]:
        if self._level == self._settled or now < self._changed + DEBOUNCE_S:
            return ()
        self._settled = self._level
        held = self._changed - self._since
        self._since = self._changed
        return self._turned(held)

    def _turned(self, held_s: float) -> Sequence[Press]:
        if self._settled:
            return (Press(self.name, PressKind.INPUT_ON),)
        return (Press(self.name, PressKind.INPUT_OFF, held_s),)


class Button(Contact):
    """A contact people press: PRESSED, then RELEASED, or HELD after ``long_press_s`` and no RELEASED."""

    def __init__(self, name: str, long_press_s: float) -> None:
        super().__init__(name)
        self._long_press_s = long_press_s
        self._held = self._stuck = False

    def begin(self, level: bool, now: float) -> None:
        """A button found down is no press of anybody, and calls nobody: it is told as stuck in its time, and counts
        again from the next press on."""
        self._level = self._settled = self._held = level
        self._changed = self._since = now
        self._stuck = False

    def due(self) -> float:
        if not self._settled:
            return super().due()
        if not self._held:
            return super().due() if self._let_go else min(super().due(), self._since + self._long_press_s)
        return min(super().due(), math.inf if self._stuck else self._since + STUCK_S)

    @property
    def _let_go(self) -> bool:
        """Released in time for a short press, though the contact may still bounce."""
        return not self._level and self._changed < self._since + self._long_press_s

    def tick(self, now: float) -> Sequence[Press]:
        if self._settled and not self._held and not self._let_go and now >= self._since + self._long_press_s:
            self._held = True
            return (Press(self.name, PressKind.HELD, now - self._since), *super().tick(now))
        return super().tick(now)

    def _turned(self, held_s: float) -> Sequence[Press]:
        was_held, self._held = self._held, False
        if self._settled:
            return (Press(self.name, PressKind.PRESSED),)
        return () if was_held else (Press(self.name, PressKind.RELEASED, held_s),)

    def stuck(self, now: float) -> bool:
        """Whether it is held longer than a person would. Looked at after every ``tick``."""
        self._stuck = self._settled and now - self._since >= STUCK_S
        return self._stuck
