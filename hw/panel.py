"""Buttons, inputs and lamps on gpiozero devices: what the simulated panel and the real one have in common.

What keeps time (debouncing, lamp patterns, relays that open by themselves) and what delivers presses is a ``Pace``.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from gpiozero import DigitalOutputDevice, GPIOZeroError, InputDevice, PWMOutputDevice

from hw.api import FaultKind, Kind, Press, PressKind
from hw.contacts import Button, Contact
from hw.faults import FaultLine
from hw.pace import Pace, ThreadPace

__all__ = ["MAX_RELAY_S", "PIN_ERRORS", "Line", "PinPanel", "Relays", "Wiring"]

_log = logging.getLogger("hw.panel")

MAX_RELAY_S: Final = 30.0
"""No relay of a door stays closed longer, whatever is asked."""

PWM_HZ: Final = 200.0
"""Of a dimmed lamp: above what the eye sees flicker, below what keeps a core busy (software makes the pulses)."""

PIN_ERRORS: Final = (GPIOZeroError, OSError)
"""What a pin that fails raises, whatever the factory."""

LATE_S: Final = 0.25
"""How long a line may have another level than its last edge said: the edge still waits to be read. Then it was lost."""

PINS: Final = "pins"  # the source of edges that stands for the GPIO line of a contact

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One GPIO line. ``pin`` is its offset on the chip, on a Raspberry Pi the BCM number.

    ``high``: active at the supply's level, not at ground. ``pulled``: an input is held at the other level by the
    chip's own resistor. ``normally_closed``: a contact that is closed at rest (tamper loops). ``brightness`` of a
    lamp, 0 to 1; below 1 its line is pulsed.
    """

    pin: int
    high: bool = False
    pulled: bool = True
    normally_closed: bool = False
    brightness: float = 1.0


@dataclass(frozen=True, slots=True)
class Wiring:
    """What hangs at which line, by name. A button and a lamp may have one name."""

    buttons: Mapping[str, Line] = field(default_factory=dict)
    inputs: Mapping[str, Line] = field(default_factory=dict)
    lamps: Mapping[str, Line] = field(default_factory=dict)
    relays: Mapping[str, Line] = field(default_factory=dict)


class Relays(Protocol):
    """Relays, each open from the first moment to the last. Any thread."""

    @property
    def names(self) -> Sequence[str]: ...

    def switch(self, relay: str, seconds: float) -> None:
        """Close ``relay`` for ``seconds``, or open it (0). Raises KeyError; HardwareError where it does not move."""

    def closed(self, relay: str) -> bool: ...

    def due(self) -> float:
        """When ``tick`` has something to do (monotonic)."""

    def tick(self, now: float) -> None: ...

    def close(self) -> None:
        """Open them all; within 500 ms."""


class _Lamp:
    """One lamp with the pattern it repeats. Without a device (the chip is gone) the rhythm goes on."""

    def __init__(self) -> None:
        self.device: DigitalOutputDevice | PWMOutputDevice | None = None
        self.brightness = 1.0
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
        seconds, _ = self._pattern[self._step]
        self.due = math.inf if len(self._pattern) == 1 else max(self.due + seconds, now)
        self.write()

    def write(self) -> None:
        """Bring the device to what the pattern says now."""
        lit = self._pattern[self._step][1]
        if isinstance(self.device, PWMOutputDevice):
            self.device.value = self.brightness if lit else 0.0
        elif self.device is not None:
            self.device.value = lit

    @property
    def lit(self) -> bool:
        return self.device is not None and not self.device.closed and bool(self.device.value)


class PinPanel:
    """Implements ``hw.api.Panel``. ``attach`` it to a factory of pins; ``detach`` it when the chip is gone.

    ``trouble`` hears of every pin that fails, on any thread, and must not call back. ``other_buttons`` are those that
    have no line and are pressed by ``press_from`` alone (keypad, touch). ``pace``: threads of its own, unless told.
    """

    def __init__(
        self, wiring: Wiring, relays: Relays, faults: FaultLine, *, long_press_s: float,
        trouble: Callable[[Exception], None] = lambda _: None,
        other_buttons: Sequence[str] = (), pace: Pace | None = None,
    ) -> None:
        self._wiring = wiring
        self._relays = relays
        self._faults = faults
        self._pin_errors: tuple[type[Exception], ...] = PIN_ERRORS
        self._trouble = trouble
        self._pace = pace or ThreadPace()
        self._lock = threading.RLock()
        self._lamps = {name: _Lamp() for name in wiring.lamps}
        buttons = dict.fromkeys((*wiring.buttons, *other_buttons))
        self._contacts: dict[str, Contact] = {name: Button(name, long_press_s) for name in buttons}
        self._contacts.update({name: Contact(name) for name in wiring.inputs})
        self._buttons = tuple(buttons)
        self._down: dict[str, set[str]] = {name: set() for name in self._contacts}  # what holds each down
        self._late: dict[str, float] = {}  # until when an edge of each is waited for that its level tells of
        self._pins: dict[str, InputDevice] = {}
        self._on_change: dict[str, Callable[[float, int], None]] = {}  # gpiozero holds them by weak references
        self._listener: Callable[[Press], None] | None = None
        self._witnesses: dict[str, Callable[[bool], None]] = {}
        self._delivery = threading.RLock()
        self.dropped = 0
        self._closing = False
        self._pace.run(self._act, self._deliver)

    # --- pins

    def attach(self, factory: Any, without: Collection[int] = ()) -> None:
        """Take the lines of the wiring, but for those of the pins ``without``. Raises what the factory raises; then
        nothing is held."""
        with self._lock:
            try:
                for name, line in self._wiring.lamps.items():
                    if line.pin in without:
                        continue
                    lamp = self._lamps[name]
                    lamp.device, lamp.brightness = _output(line, factory), line.brightness
                    lamp.write()
                for name, line in {**self._wiring.buttons, **self._wiring.inputs}.items():
                    if line.pin in without:
                        continue
                    self._pins[name] = self._input(name, line, factory)
                    level = self._level(name)
                    self._hold(name, PINS, level)
                    self._contacts[name].begin(level, self._pace.now())
                    self._testify(name)
            except BaseException:
                self._release()
                raise
            self._pace.nudge()

    def detach(self) -> None:
        """Let the lines go. Contacts stay as they were, buttons count as released."""
        with self._lock:
            self._release()
            now = self._pace.now()
            for name in self._wiring.buttons:
                self._hold(name, PINS, False)
                if not self._down[name]:
                    self._contacts[name].begin(False, now)
            self._pace.nudge()

    def _release(self) -> None:
        contacts = list(self._pins.values())
        lamps = [lamp.device for lamp in self._lamps.values() if lamp.device is not None]
        self._pins.clear()
        self._late.clear()
        for lamp in self._lamps.values():
            lamp.device = None
        for contact in contacts:
            # close() of a device leaves the callback of its pin
            self._on_pin(lambda contact=contact: setattr(contact.pin, "when_changed", None), None)  # type: ignore[misc]
        for device in (*contacts, *lamps):
            self._on_pin(device.close, None)

    def _input(self, name: str, line: Line, factory: Any) -> InputDevice:
        how = {"pull_up": not line.high} if line.pulled else {"pull_up": None, "active_state": line.high}
        device = InputDevice(line.pin, pin_factory=factory, **how)

        def changed(ticks: float, state: int) -> None:
            """On the factory's thread, with the time at which the kernel saw the edge: hand over, nothing else."""
            with self._lock:
                if self._pins.get(name) is device:  # and not let go meanwhile
                    self.press_from(PINS, name, (bool(state) == line.high) != line.normally_closed, ticks)

        self._on_change[name] = changed
        device.pin.edges = "both"
        device.pin.when_changed = changed
        return device

    def _level(self, name: str) -> bool:
        """Whether the contact is closed now, as its line says."""
        line = self._wiring.buttons.get(name) or self._wiring.inputs[name]
        return bool(self._pins[name].is_active) != line.normally_closed

    def _on_pin(self, act: Callable[[], T], otherwise: T) -> T:
        try:
            return act()
        except self._pin_errors as error:
            self._trouble(error)
            return otherwise

    # --- the contract

    @property
    def buttons(self) -> Sequence[str]:
        return self._buttons

    @property
    def inputs(self) -> Sequence[str]:
        return tuple(self._wiring.inputs)

    @property
    def lamps(self) -> Sequence[str]:
        return tuple(self._wiring.lamps)

    @property
    def relays(self) -> Sequence[str]:
        return self._relays.names

    def listen(self, on_press: Callable[[Press], None]) -> None:
        with self._delivery, self._lock:
            self._listener = on_press
            for name in self._wiring.inputs:
                if self._contacts[name].closed:
                    self._hand_over(Press(name, PressKind.INPUT_ON))

    def witness(self, name: str, sink: Callable[[bool], None]) -> None:
        """Tell ``sink`` whether the input ``name`` is closed: now, and at once when it changes, beside the listener and
        not behind a slow one. It must return fast and not call back. Unknown input: KeyError."""
        with self._lock:
            self._witnesses[self._contacts[name].name] = sink
            self._testify(name)

    def _testify(self, name: str) -> None:
        if name in self._witnesses:
            self._witnesses[name](self._contacts[name].closed)

    def light(self, lamp: str, pattern: Sequence[tuple[float, bool]]) -> None:
        if not pattern or any(seconds <= 0.0 for seconds, _ in pattern):
            raise ValueError(f"lamp {lamp}: a pattern needs steps longer than 0 s")
        with self._lock:
            shown = self._lamps[lamp]
            if not self._closing:
                self._on_pin(lambda: shown.show(pattern, self._pace.now()), None)
                self._pace.nudge()

    def lit(self, lamp: str) -> bool:
        with self._lock:
            return self._on_pin(lambda: self._lamps[lamp].lit, False)

    def switch(self, relay: str, seconds: float) -> None:
        if relay not in self._relays.names:
            raise KeyError(relay)
        if not 0.0 <= seconds <= MAX_RELAY_S:
            raise ValueError(f"relay {relay}: {seconds} s is outside 0 to {MAX_RELAY_S:g} s")
        if self._closing:
            return
        self._relays.switch(relay, seconds)
        with self._lock:
            self._pace.nudge()

    def closed(self, relay: str) -> bool:
        return self._relays.closed(relay)

    def close(self) -> None:
        """Relays open, lamps dark, threads gone."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._pace.nudge()
        self._relays.close()
        with self._delivery:
            self._listener = None
        self._pace.stop()
        with self._lock:
            self._release()

    # --- edges, from any thread

    def press_from(self, source: str, button: str, down: bool, at: float | None = None) -> None:
        """A line, a key or a finger presses or lets go of ``button``, ``at`` that monotonic time (now). Unknown button:
        KeyError."""
        with self._lock:
            contact = self._contacts[button]
            if not self._closing:
                now = self._pace.now()
                at = now if at is None else min(at, now)
                if source == PINS:
                    self._late.pop(button, None)
                for press in contact.tick(at):  # on a busy machine two edges may come at once, long after they were
                    self._hand_over(press)
                self._hold(button, source, down)
                contact.edge(bool(self._down[button]), at)
                self._pace.nudge()

    def _hold(self, name: str, source: str, down: bool) -> None:
        if down:
            self._down[name].add(source)
        else:
            self._down[name].discard(source)

    # --- time

    def _act(self) -> float | None:
        """What is due; then the seconds until something is."""
        with self._lock:
            if self._closing:
                return None
            self._tick(self._pace.now())
        self._chores(self._pace.now())
        with self._lock:
            due = min((self._due_chore(), *(lamp.due for lamp in self._lamps.values()),
                       *(max(contact.due(), self._late.get(name, 0.0)) for name, contact in self._contacts.items())))
        return None if due == math.inf else max(0.0, due - self._pace.now())

    def _due_chore(self) -> float:
        """When ``_chores`` has something to do."""
        return self._relays.due()

    def _chores(self, now: float) -> None:
        """What is due and may call back into the panel: without its lock."""
        self._relays.tick(now)

    def _tick(self, now: float) -> None:
        for lamp in self._lamps.values():
            self._on_pin(lambda lamp=lamp: lamp.tick(now), None)  # type: ignore[misc]
        for name, contact in self._contacts.items():
            if now >= contact.due() and name in self._pins:
                if not self._edges_came(name, now):
                    continue
                contact.edge(bool(self._down[name]), now)
            for press in contact.tick(now):
                self._testify(name)
                self._hand_over(press)
            if isinstance(contact, Button):
                self._faults.report(Kind.PANEL, FaultKind.STUCK, f"button:{name}", contact.stuck(now))

    def _edges_came(self, name: str, now: float) -> bool:
        """Whether the line's level is that of its last edge. Where it is not, the next edge still waits to be read and
        knows its time, without which a short press would be none; one that a busy kernel dropped does not come, and
        the level counts in its place."""
        level = self._on_pin(lambda: self._level(name), False)
        if level != (PINS in self._down[name]) and now < self._late.setdefault(name, now + LATE_S):
            return False
        self._late.pop(name, None)
        self._hold(name, PINS, level)
        return True

    def _hand_over(self, press: Press) -> None:
        if self._listener is not None and not self._pace.tell(press):
            self.dropped += 1

    def _deliver(self, press: Press) -> None:
        with self._delivery:
            if self._listener is None:
                return
            try:
                self._listener(press)
            except Exception:  # outermost frame of the callback
                _log.exception("receiver of presses failed")


def _output(line: Line, factory: Any) -> DigitalOutputDevice | PWMOutputDevice:
    if line.brightness < 1.0:
        return PWMOutputDevice(line.pin, active_high=line.high, frequency=PWM_HZ, pin_factory=factory)
    return DigitalOutputDevice(line.pin, active_high=line.high, initial_value=False, pin_factory=factory)
