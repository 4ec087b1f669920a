"""A keypad where Python lacks what reads it; the real ones are in the guest (``tests/hil/inside/test_panel.py``)."""

from __future__ import annotations

import sys
import threading

import pytest

from hw.api import Fault, FaultKind, Kind
from hw.faults import FaultLine
from hw.pi.keypad import KEYS, Keypad


def test_without_evdev_the_reason_is_told_and_the_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evdev", None)
    told: list[Fault] = []
    heard = threading.Event()

    def listen(fault: Fault) -> None:
        told.append(fault)
        heard.set()

    line = FaultLine()
    line.listen(listen)
    keypad = Keypad("/dev/input/event0", KEYS, lambda *_: None, line)
    try:
        assert heard.wait(5)
        assert (told[0].kind, told[0].fault, told[0].active) == (Kind.PANEL, FaultKind.MISSING, True)
        assert "pip install evdev" in told[0].detail
    finally:
        keypad.close()
        line.close()
