"""What every ``hw.api.Panel`` promises, for a board's own test to call with its device.

The panel has the buttons ``call`` and ``mute``, the input ``door``, the lamps ``call`` and ``status`` and the relay
``door``. ``late_s`` is what the machine under the board may add to a time.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

import pytest

from hw.api import Panel, Press, PressKind
from tests.contract.seen import until

__all__ = [
    "Fingers",
    "keeps_lamps_in_their_rhythm",
    "lets_no_listener_keep_a_relay_closed",
    "opens_a_relay_by_itself_and_when_told",
    "tells_presses_short_and_long",
]


class Fingers(Protocol):
    """Whoever stands before the panel. ``hw.api.Simulation`` is one."""

    def press(self, button: str, held_s: float) -> None:
        """Down now, up after ``held_s`` seconds, without blocking. Raises KeyError."""

    def set_input(self, name: str, closed: bool) -> None:
        """Raises KeyError."""


def tells_presses_short_and_long(panel: Panel, fingers: Fingers, long_s: float, late_s: float = 0.0) -> None:
    """``long_s``: what the board was opened with. Every edge once, in order, with how long it was down."""
    told: list[Press] = []
    more = threading.Semaphore(0)

    def on_press(press: Press) -> None:
        told.append(press)
        more.release()

    def edges(count: int) -> None:
        for _ in range(count):
            assert more.acquire(timeout=2 * long_s + 1.4 + late_s), told

    panel.listen(on_press)
    fingers.press("call", long_s / 3)
    edges(2)
    fingers.press("call", long_s * 5 / 3)
    edges(2)
    fingers.set_input("door", closed=True)
    edges(1)
    fingers.set_input("door", closed=False)
    edges(1)
    assert [(press.name, press.kind) for press in told] == [
        ("call", PressKind.PRESSED), ("call", PressKind.RELEASED),
        ("call", PressKind.PRESSED), ("call", PressKind.HELD),
        ("door", PressKind.INPUT_ON), ("door", PressKind.INPUT_OFF),
    ]  # fmt: skip
    assert long_s / 6 < told[1].held_s < long_s  # a busy machine lets go late, but short of a long press
    assert long_s <= told[3].held_s < long_s * 5 / 3 + late_s
    panel.listen(lambda press: None)


def keeps_lamps_in_their_rhythm(panel: Panel, late_s: float = 0.0) -> None:
    panel.light("status", [(1.0, True)])
    assert until(lambda: panel.lit("status"), late_s)
    panel.light("status", [(1.0, False)])
    assert until(lambda: not panel.lit("status"), late_s)
    panel.light("call", [(0.06, True), (0.06, False)])
    changes, last, begun = 0, panel.lit("call"), time.monotonic()
    while changes < 8 and time.monotonic() - begun < 10 + late_s:
        panel.light("call", [(0.06, True), (0.06, False)])  # told again with every state: no stumble
        if panel.lit("call") != last:
            last, changes = not last, changes + 1
        time.sleep(0.005)
    assert changes == 8
    assert time.monotonic() - begun > 7 * 0.06 - 0.03
    panel.light("call", [(1.0, False)])
    for wrong in ([], [(0.0, True)]):
        with pytest.raises(ValueError, match="lamp call"):
            panel.light("call", wrong)
    with pytest.raises(KeyError):
        panel.light("disco", [(1.0, True)])
    with pytest.raises(KeyError):
        panel.lit("disco")


def opens_a_relay_by_itself_and_when_told(panel: Panel, late_s: float = 0.0) -> None:
    assert not panel.closed("door")
    began = time.monotonic()
    panel.switch("door", 0.2)
    assert panel.closed("door")
    assert until(lambda: not panel.closed("door"), 2.0 + late_s)
    assert 0.18 <= time.monotonic() - began < 0.4 + late_s
    panel.switch("door", 20.0)
    panel.switch("door", 0.0)
    assert not panel.closed("door")
    for wrong in (-1.0, 31.0, float("nan")):
        with pytest.raises(ValueError, match="relay door"):
            panel.switch("door", wrong)
    with pytest.raises(KeyError):
        panel.switch("gate", 1.0)


def lets_no_listener_keep_a_relay_closed(panel: Panel, fingers: Fingers, late_s: float = 0.0) -> None:
    inside, leave = threading.Event(), threading.Event()

    def on_press(_: Press) -> None:
        inside.set()
        leave.wait(5.0 + late_s)

    panel.listen(on_press)
    fingers.press("mute", 0.05)
    assert inside.wait(2.0 + late_s)
    panel.switch("door", 0.1)
    assert until(lambda: not panel.closed("door"), 1.0 + late_s)
    leave.set()
    panel.listen(lambda press: None)
