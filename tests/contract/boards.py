"""The boards that open here, and how: ``auto`` opens with what this machine has."""

from __future__ import annotations

import pytest

from hw.api import BoardOptions

__all__ = ["BOARDS", "LATE_S", "OPTIONS", "once"]

BOARDS = ("sim", "auto")
once = pytest.mark.parametrize("board", ["sim"], indirect=True)
"""For what takes seconds and is the same code on both."""

LATE_S = 0.5
"""What the other programs of this machine may add to a time that the contract limits."""

OPTIONS = BoardOptions(microphone="tone:1000", long_press_s=0.3)
