"""The panel of the simulated board: mock pins of a factory of our own, relays on them, and hands for the test."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gpiozero import DigitalOutputDevice
from gpiozero.pins.mock import MockFactory, MockPin
from gpiozero.pins.pi import PiPin

from hw.faults import FaultLine
from hw.pace import Pace, ThreadPace
from hw.panel import Line, PinPanel, Wiring

__all__ = ["SIM_WIRING", "PinRelays", "SimPanel"]

_CONTACT_PINS: Final = {"door": 22, "tamper": 23, "hook": 24, "hardware_mute": 25, "talk": 16}
_LAMP_PINS: Final = {"call": 5, "mute": 6, "status": 13, "capture": 19}

SIM_WIRING: Final = Wiring(
    buttons={"call": Line(17), "mute": Line(27)},
    inputs={name: Line(pin) for name, pin in _CONTACT_PINS.items()},
    lamps={name: Line(pin, high=True) for name, pin in _LAMP_PINS.items()},
    relays={"door": Line(26, high=True)},
)


class PinRelays:
    """Implements ``hw.panel.Relays`` on pins of this process, by the clock of the panel."""

    def __init__(self, lines: Mapping[str, Line], factory: Any, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._closed = False
        self._relays = {
            name: DigitalOutputDevice(line.pin, active_high=line.high, initial_value=False, pin_factory=factory)
            for name, line in lines.items()
        }
        self._open_at = dict.fromkeys(self._relays, math.inf)

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._relays)

    def switch(self, relay: str, seconds: float) -> None:
        with self._lock:
            if not self._closed:
                self._relays[relay].value = seconds > 0.0
                self._open_at[relay] = self._now() + seconds if seconds > 0.0 else math.inf

    def closed(self, relay: str) -> bool:
        with self._lock:
            device = self._relays[relay]
            return not device.closed and bool(device.value)

    def due(self) -> float:
        with self._lock:
            return min(self._open_at.values(), default=math.inf)

    def tick(self, now: float) -> None:
        with self._lock:
            for relay, due in self._open_at.items():
                if now >= due:
                    self._relays[relay].off()
                    self._open_at[relay] = math.inf

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                for device in self._relays.values():
                    device.off()
                    device.close()


class _Pin(MockPin):  # type: ignore[misc]
    """Tells its edges by the clock of its factory; the mock's own is always the machine's."""

    def _call_when_changed(self) -> None:
        PiPin._call_when_changed(self, self.factory.ticks(), self._state)


class SimPanel(PinPanel):
    """Implements ``hw.api.Panel``, and has hands (``hw.api.Simulation``)."""

    def __init__(self, long_press_s: float, faults: FaultLine, wiring: Wiring = SIM_WIRING,
                 pace: Pace | None = None) -> None:
        pace = pace or ThreadPace()
        self._factory: Any = MockFactory(pin_class=_Pin)  # ours alone: two boards in one process share no pin
        self._factory.ticks = pace.now
        self._release_at: dict[str, float] = {}
        self._jammed: set[str] = set()
        super().__init__(wiring, PinRelays(wiring.relays, self._factory, pace.now), faults, long_press_s=long_press_s,
                         pace=pace)
        self.attach(self._factory)

    def close(self) -> None:
        super().close()
        self._factory.close()

    def press(self, button: str, held_s: float) -> None:
        """Drive the pin down now and up after ``held_s`` seconds. Unknown button: KeyError."""
        pin = self._wiring.buttons[button].pin
        with self._lock:
            if self._closing:
                return
            self._release_at[button] = self._pace.now() + held_s
        self._factory.pin(pin).drive_low()
        with self._lock:
            self._pace.nudge()

    def set_input(self, name: str, closed: bool) -> None:
        pin = self._factory.pin(self._wiring.inputs[name].pin)
        if closed:
            pin.drive_low()
        else:
            pin.drive_high()

    def jam(self, button: str, jammed: bool) -> None:
        """The button's mechanism is stuck: down for as long as it lasts."""
        pin = self._factory.pin(self._wiring.buttons[button].pin)
        with self._lock:
            if jammed:
                self._jammed.add(button)
            else:
                self._jammed.discard(button)
        if jammed:
            pin.drive_low()
        else:
            pin.drive_high()

    def _due_chore(self) -> float:
        return min((super()._due_chore(), *self._release_at.values()))

    def _chores(self, now: float) -> None:
        super()._chores(now)
        with self._lock:
            due = [name for name, at in self._release_at.items() if now >= at]
            for name in due:
                del self._release_at[name]
            let_go = [name for name in due if name not in self._jammed]
        for button in let_go:  # the pin calls back into the panel
            self._factory.pin(self._wiring.buttons[button].pin).drive_high()
