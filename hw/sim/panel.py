"""Buttons, inputs, lamps and relays by gpiozero; on the simulated board its pins are mock pins of a factory of our own.

Threads: ``hw.panel`` keeps time (debouncing, lamp patterns, relays that open by themselves), ``hw.press`` delivers
presses, so that a slow listener never keeps a relay closed.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpiozero import DigitalInputDevice, DigitalOutputDevice
from gpiozero.pins.mock import MockFactory

from hw.api import FaultKind, Kind, Press
from hw.sim.buttons import Button, Contact
from hw.sim.faults import FaultLine

__all__ = ["Pins", "SimPanel"]

_log = logging.getLogger("hw.panel")

PRESS_QUEUE: Final = 64
"""Presses that may wait for a slow listener; the newest is dropped and counted."""

MAX_RELAY_S: Final = 30.0
"""No relay of a door stays closed longer, whatever is asked."""


@dataclass(frozen=True, slots=True)
class Pins:
    """Names to GPIO numbers (BCM). Contacts close to ground, lamps and relays are active high."""

    buttons: Mapping[str, int]
    inputs: Mapping[str, int]
    lamps: Mapping[str, int]
    relays: Mapping[str, int]


SIM_PINS: Final = Pins(
    buttons={"call": 17, "mute": 27},
    inputs={"door": 22, "tamper": 23, "hook": 24, "hardware_mute": 25, "talk": 16},
    lamps={"call": 5, "mute": 6, "status": 13, "capture": 19},
    relays={"door": 26},
)


class _Lamp:
    """One lamp with the pattern it repeats."""

    def __init__(self, device: DigitalOutputDevice) -> None:
        self.device = device
        self._pattern: tuple[tuple[float, bool], ...] = ((1.0, False),)
        self._step = 0
        self.due = math.inf

    def show(self, pattern: Sequence[tuple[float, bool]], now: float) -> None:
        pattern = tuple(pattern)
        if pattern == self._pattern:
            return  # asked again with every state: the rhythm goes on undisturbed
        self._pattern, self._step = pattern, -1
        self.due = now
        self.tick(now)

    def tick(self, now: float) -> None:
        if now < self.due:
            return
        self._step = (self._step + 1) % len(self._pattern)
        seconds, lit = self._pattern[self._step]
        self.device.value = lit
        self.due = math.inf if len(self._pattern) == 1 else max(self.due + seconds, now)


class SimPanel:
    """Implements ``hw.api.Panel``; relays are open from the first moment to the last."""

    def __init__(self, long_press_s: float, faults: FaultLine, pins: Pins = SIM_PINS) -> None:
        self._faults = faults
        self._factory: Any = MockFactory()  # ours alone: two boards in one process share no pin
        self._wake = threading.Condition()
        self._relays = {
            name: DigitalOutputDevice(pin, initial_value=False, pin_factory=self._factory)
            for name, pin in pins.relays.items()
        }
        self._open_at = dict.fromkeys(self._relays, math.inf)
        self._lamps = {
            name: _Lamp(DigitalOutputDevice(pin, initial_value=False, pin_factory=self._factory))
            for name, pin in pins.lamps.items()
        }
        self._contacts: dict[str, Contact] = {name: Button(name, long_press_s) for name in pins.buttons}
        self._contacts.update({name: Contact(name) for name in pins.inputs})
        self._pins = {**pins.buttons, **pins.inputs}
        self._names = pins
        self._release_at: dict[str, float] = {}
        self._jammed: set[str] = set()
        self._listener: Callable[[Press], None] | None = None
        self._delivery = threading.RLock()
        self._presses: queue.Queue[Press | None] = queue.Queue(PRESS_QUEUE)
        self.dropped = 0
        self._closing = False
        self._inputs = [self._input(name, pin) for name, pin in self._pins.items()]
        self._timer = threading.Thread(target=self._keep_time, name="hw.panel", daemon=True)
        self._courier = threading.Thread(target=self._deliver, name="hw.press", daemon=True)
        self._timer.start()
        self._courier.start()

    def _input(self, name: str, pin: int) -> DigitalInputDevice:
        device = DigitalInputDevice(pin, pull_up=True, pin_factory=self._factory)
        device.when_activated = lambda: self._edge(name, True)
        device.when_deactivated = lambda: self._edge(name, False)
        return device

    # --- the contract

    @property
    def buttons(self) -> Sequence[str]:
        return tuple(self._names.buttons)

    @property
    def inputs(self) -> Sequence[str]:
        return tuple(self._names.inputs)

    @property
    def lamps(self) -> Sequence[str]:
        return tuple(self._names.lamps)

    @property
    def relays(self) -> Sequence[str]:
        return tuple(self._names.relays)

    def listen(self, on_press: Callable[[Press], None]) -> None:
        with self._delivery:
            self._listener = on_press

    def light(self, lamp: str, pattern: Sequence[tuple[float, bool]]) -> None:
        if not pattern or any(seconds <= 0.0 for seconds, _ in pattern):
            raise ValueError(f"lamp {lamp}: a pattern needs steps longer than 0 s")
        with self._wake:
            shown = self._lamps[lamp]
            if not self._closing:
                shown.show(pattern, time.monotonic())
                self._wake.notify()

    def lit(self, lamp: str) -> bool:
        with self._wake:
            device = self._lamps[lamp].device
            return not device.closed and bool(device.value)

    def switch(self, relay: str, seconds: float) -> None:
        if not 0.0 <= seconds <= MAX_RELAY_S:
            raise ValueError(f"relay {relay}: {seconds} s is outside 0 to {MAX_RELAY_S:g} s")
        with self._wake:
            device = self._relays[relay]
            if self._closing:
                return
            device.value = seconds > 0.0
            self._open_at[relay] = time.monotonic() + seconds if seconds > 0.0 else math.inf
            self._wake.notify()

    def closed(self, relay: str) -> bool:
        with self._wake:
            device = self._relays[relay]
            return not device.closed and bool(device.value)

    def close(self) -> None:
        """Relays open, lamps dark, threads gone."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            for relay in self._relays.values():
                relay.off()
            self._wake.notify()
        with self._delivery:
            self._listener = None
        try:
            self._presses.put(None, timeout=0.5)
        except queue.Full:
            _log.warning("the receiver of presses hangs; its thread is left behind")
        for thread in (self._timer, self._courier):
            if thread is not threading.current_thread():
                thread.join(0.5)
        for device in (*self._inputs, *(lamp.device for lamp in self._lamps.values()), *self._relays.values()):
            device.close()
        self._factory.close()

    # --- hands (Simulation)

    def press(self, button: str, held_s: float) -> None:
        """Drive the pin down now and up after ``held_s`` seconds. Unknown button: KeyError."""
        pin = self._names.buttons[button]
        with self._wake:
            if self._closing:
                return
            self._release_at[button] = time.monotonic() + held_s
        self._factory.pin(pin).drive_low()
        with self._wake:
            self._wake.notify()

    def set_input(self, name: str, closed: bool) -> None:
        pin = self._factory.pin(self._names.inputs[name])
        if closed:
            pin.drive_low()
        else:
            pin.drive_high()

    def jam(self, button: str, jammed: bool) -> None:
        """The button's mechanism is stuck: down for as long as it lasts."""
        pin = self._factory.pin(self._names.buttons[button])
        with self._wake:
            if jammed:
                self._jammed.add(button)
            else:
                self._jammed.discard(button)
        if jammed:
            pin.drive_low()
        else:
            pin.drive_high()

    # --- hw.panel

    def _edge(self, name: str, level: bool) -> None:
        """On gpiozero's thread: hand over, nothing else."""
        with self._wake:
            self._contacts[name].edge(level, time.monotonic())
            self._wake.notify()

    def _keep_time(self) -> None:
        while self._wait():
            with self._wake:
                releases = self._tick(time.monotonic())
            for button in releases:  # outside the lock: the pin calls back into _edge
                self._factory.pin(self._names.buttons[button]).drive_high()

    def _wait(self) -> bool:
        """Until something is due; False when the panel closes."""
        with self._wake:
            if not self._closing:
                self._wake.wait(self._pause(time.monotonic()))
            return not self._closing

    def _pause(self, now: float) -> float | None:
        due = min(
            *self._open_at.values(),
            *(lamp.due for lamp in self._lamps.values()),
            *(contact.due() for contact in self._contacts.values()),
            *self._release_at.values(),
            math.inf,
        )
        return None if due == math.inf else max(0.0, due - now)

    def _tick(self, now: float) -> Sequence[str]:
        for relay, due in self._open_at.items():
            if now >= due:
                self._relays[relay].off()
                self._open_at[relay] = math.inf
        for lamp in self._lamps.values():
            lamp.tick(now)
        for name, contact in self._contacts.items():
            for press in contact.tick(now):
                self._hand_over(press)
            if isinstance(contact, Button):
                self._faults.report(Kind.PANEL, FaultKind.STUCK, f"button:{name}", contact.stuck(now))
        due_releases = [name for name, due in self._release_at.items() if now >= due]
        for name in due_releases:
            del self._release_at[name]
        return [name for name in due_releases if name not in self._jammed]

    def _hand_over(self, press: Press) -> None:
        try:
            self._presses.put_nowait(press)
        except queue.Full:
            self.dropped += 1

    def _deliver(self) -> None:
        while (press := self._presses.get()) is not None:
            with self._delivery:
                if self._listener is None:
                    continue
                try:
                    self._listener(press)
                except Exception:  # outermost frame of the callback
                    _log.exception("receiver of presses failed")
