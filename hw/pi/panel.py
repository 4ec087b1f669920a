"""The panel of a real board: buttons, inputs and lamps by gpiozero, relays by their guard, keypad by evdev."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFact,
    DeviceFailedError,
    DeviceMissingError,
    FaultKind,
    HardwareError,
    Kind,
)
from hw.faults import FaultLine
from hw.panel import PIN_ERRORS, Line, PinPanel, Wiring
from hw.pi.gpiochip import Chip, chip_settles, find_chip, line_info
from hw.pi.keypad import KEYS, Keypad
from hw.pi.pins import load_lgpio, pin_factory, refusal
from hw.pi.relays import GuardedRelays

__all__ = ["PanelConfig", "PiPanel", "open_panel"]

_log = logging.getLogger("hw.panel")

LOOK_S: Final = 0.5
"""The chip is looked after this often: one that goes is told, one that returns is taken, within a second."""

PATIENCE_S: Final = 5.0
"""A chip that fails, and a line that somebody else holds, are tried again this often."""

DEVICE: Final = "panel0"


@dataclass(frozen=True, slots=True)
class PanelConfig:
    """The table ``panel`` of a board file.

    Lines are texts: the number of the line, then words. ``17`` closes to ground and is pulled up by the chip; ``high``:
    active at the supply's level; ``no-pull``: the circuit has its own resistor; ``normally-closed``: closed at rest;
    ``40%``: brightness of a lamp. Lamps and relays are ``high`` unless ``low`` is said.
    """

    chip: str = ""
    buttons: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    lamps: Mapping[str, str] = field(default_factory=dict)
    relays: Mapping[str, str] = field(default_factory=dict)
    keypad: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [fault for _, group in _GROUPS for name, text in getattr(self, group).items()
                  if (fault := _fault(group, name, text))]
        faults += _doubles(self.wiring)
        if not self.chip and any(getattr(self, group) for _, group in _GROUPS):
            faults.append('chip: name the GPIO chip of the lines, as "pinctrl-bcm2711" (gpiodetect lists them)')
        if self.keys and not self.keypad:
            faults.append("keys: name the keypad that they are of")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def wiring(self) -> Wiring:
        return Wiring(**{group: {name: _line(group, text) for name, text in getattr(self, group).items()
                                 if not _fault(group, name, text)} for _, group in _GROUPS})

    @property
    def key_map(self) -> Mapping[str, str]:
        """Keys of the keypad to buttons; empty without one."""
        return {**KEYS, **self.keys} if self.keypad else {}


_GROUPS: Final = (("button", "buttons"), ("input", "inputs"), ("lamp", "lamps"), ("relay", "relays"))
_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "buttons": frozenset({"high", "low", "no-pull", "normally-closed"}),
    "inputs": frozenset({"high", "low", "no-pull", "normally-closed"}),
    "lamps": frozenset({"high", "low"}),
    "relays": frozenset({"high", "low"}),
}


def _brightness(group: str, word: str) -> bool:
    return group == "lamps" and word.endswith("%") and word[:-1].isdecimal() and 1 <= int(word[:-1]) <= 100


def _fault(group: str, name: str, text: str) -> str:
    """What is wrong with one line, in words; empty: nothing."""
    number, *words = text.split() or [""]
    where = f"{group}.{name} = {text!r}"
    if not name or set(name) & set(" :"):
        return f"{where}: a name has neither blanks nor colons"
    if not number.isdecimal():
        return f"{where}: begins with the number of the line"
    wrong = [word for word in words if word not in _WORDS[group] and not _brightness(group, word)]
    if wrong:
        more = " or a brightness like 40%" if group == "lamps" else ""
        named = f"{', '.join(map(repr, wrong))} {'is' if len(wrong) == 1 else 'are'}"
        return f"{where}: {named} none of {', '.join(sorted(_WORDS[group]))}{more}"
    if {"high", "low"} <= set(words):
        return f"{where}: either high or low"
    return ""


def _line(group: str, text: str) -> Line:
    number, *words = text.split()
    output = group in ("lamps", "relays")
    return Line(
        int(number), high="high" in words or (output and "low" not in words), pulled="no-pull" not in words,
        normally_closed="normally-closed" in words,
        brightness=next((int(word[:-1]) / 100 for word in words if word.endswith("%")), 1.0))


def _names(wiring: Wiring) -> Mapping[int, Sequence[str]]:
    """Who hangs at which line, for people."""
    found: dict[int, list[str]] = {}
    for word, group in _GROUPS:
        for name, line in getattr(wiring, group).items():
            found.setdefault(line.pin, []).append(f"{word} {name}")
    return found


def _doubles(wiring: Wiring) -> list[str]:
    return [f"line {pin} is given twice: {' and '.join(names)}"
            for pin, names in _names(wiring).items() if len(names) > 1]


def open_panel(config: PanelConfig, faults: FaultLine, long_press_s: float, touched: Sequence[str] = ()) -> PiPanel:
    """The panel of a board file; it may have no more than the buttons ``touched`` on the screen, or nothing at all."""
    return PiPanel(config, faults, long_press_s, touched)


class PiPanel(PinPanel):
    """Implements ``hw.api.Panel``.

    A chip that is missing or goes is told as a fault and looked for; when it is there, lamps take up their rhythm
    and relays are open. A line that somebody else holds is told with its holder, and the rest goes on without it.
    """

    def __init__(self, config: PanelConfig, faults: FaultLine, long_press_s: float,
                 touched: Sequence[str] = ()) -> None:
        wiring = config.wiring
        self._config = config
        self._lined = _names(wiring)
        self._read = {line.pin: self._lined[line.pin][0]
                      for line in (*wiring.buttons.values(), *wiring.inputs.values())}
        self._line_faults: dict[tuple[FaultKind, str], str] = {}
        self._fault: FaultKind | None = None
        self._chip_fault = ""
        self._factory: Any = None
        self._chip: Chip | None = None
        self._chip_node = -1
        self._look = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._broken: Exception | None = None
        self._busy: set[int] = set()  # lines that somebody else holds
        self._patience = 0.0  # until when what failed or is busy is left alone
        self._keypad: Keypad | None = None
        self._guarded = GuardedRelays(wiring.relays, self._relay_failed)
        super().__init__(wiring, self._guarded, faults, long_press_s=long_press_s,
                         trouble=self._pin_failed, other_buttons=[*touched, *dict.fromkeys(config.key_map.values())])
        self._watcher: threading.Thread | None = None
        if config.chip:
            self._take_chip()
            self._watcher = threading.Thread(target=self._watch, name="hw.gpio", daemon=True)
            self._watcher.start()
        if config.keypad:
            self._keypad = Keypad(config.keypad, config.key_map, self._key, faults)

    def _key(self, button: str, down: bool, at: float) -> None:
        self.press_from("keypad", button, down, at)

    def devices(self) -> Sequence[DeviceFact]:
        if not (self._config.chip or self.buttons):
            return []
        what = f"GPIO {self._config.chip}" if self._config.chip else ""
        name = " and ".join(filter(None, (what, self._config.keypad and f"keypad {self._config.keypad}")))
        with self._lock:
            present = not self._config.chip or self._chip is not None
            note = "; ".join(dict.fromkeys((*filter(None, (self._chip_fault,)), *self._line_faults.values())))
        return [DeviceFact(Kind.PANEL, DEVICE, name or "Touch screen", present=present, note=note)]

    def close(self) -> None:
        if self._keypad is not None:
            self._keypad.close()
        if self._closing:
            return
        super().close()
        self._wake_watcher()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(1.0)
        self._drop_chip()
        os.close(self._look)

    # --- hw.gpio

    def _watch(self) -> None:
        while not self._watched_long_enough():
            if self._chip is None:
                if self._fault is not FaultKind.FAILED or time.monotonic() >= self._patience:
                    self._take_chip()
            elif not self._chip_answers() or self._broken:
                self._lose_chip()
            elif self._wiring.relays and not self._guarded.running:
                self._start_relays(self._chip)
            elif self._busy and time.monotonic() >= self._patience:
                self._look_at_busy_lines(self._chip)

    def _watched_long_enough(self) -> bool:
        """Waits for the next look, which a chip that goes brings on (Linux 6.7); True when the panel closes."""
        waiting = select.poll()
        waiting.register(self._look, select.POLLIN)
        if self._chip_node >= 0:
            waiting.register(self._chip_node, 0)  # POLLERR and POLLHUP are always told
        waiting.poll(LOOK_S * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._look)
        return self._closing

    def _wake_watcher(self) -> None:
        with contextlib.suppress(OSError):  # closed
            os.eventfd_write(self._look, 1)

    def _take_chip(self) -> None:
        """Take the lines. What is in the way is told as a fault."""
        try:
            chip = find_chip(self._config.chip)
            taken = self._taken(chip)
            self._pin_errors = (*PIN_ERRORS, load_lgpio().error)  # not before: lgpio's thread stays for good
            self._broken = None
            factory = pin_factory(chip, self._read, self._pin_failed)
            try:
                self.attach(factory, taken)
                self._chip_node = os.open(chip.path, os.O_RDWR | os.O_CLOEXEC)
            except BaseException as error:
                self.detach()
                with contextlib.suppress(*self._pin_errors):
                    factory.close()
                if isinstance(error, self._pin_errors) and not isinstance(error, HardwareError):
                    raise refusal(chip, error) from error
                raise
        except HardwareError as error:
            if not (isinstance(error, DeviceDeniedError) and chip_settles()):  # else the next look takes it
                self._tell_chip(error)
            return
        with self._lock:
            self._chip, self._factory = chip, factory
            self._busy, self._patience = taken, time.monotonic() + PATIENCE_S
        self._tell_chip(None)
        _log.info("panel: %s (%s)", chip.label, chip.path)
        if self._wiring.relays:
            self._start_relays(chip)

    def _taken(self, chip: Chip) -> set[int]:
        """Lines that somebody else holds, each told. Raises DeviceFailedError for one that the chip has not."""
        lines = line_info(chip)
        taken = set()
        for pin, names in self._lined.items():
            if pin >= len(lines):
                raise DeviceFailedError(
                    f"{' and '.join(names)}: {chip.label} has lines 0 to {len(lines) - 1}, not {pin}")
            info = lines[pin]
            device = f"{DEVICE}/{names[0].replace(' ', ':')}"
            holder = f"{info.consumer!r}" if info.consumer else "another function of the chip (UART, I2C, SPI …)"
            if info.used:
                taken.add(pin)
            self._tell_line(FaultKind.BUSY, device, info.used, f"{names[0]}: line {pin} ({info.name or 'no name'}) of "
                            f"{chip.label} is held by {holder}: end that, or wire the {names[0]} to another line")
        return taken

    def _look_at_busy_lines(self, chip: Chip) -> None:
        """Take all lines anew when one that was held is free; not while a relay is closed, which would open."""
        self._patience = time.monotonic() + PATIENCE_S
        try:
            lines = line_info(chip)
        except HardwareError:
            return  # told at the next look
        if any(not lines[pin].used for pin in self._busy) and not any(map(self.closed, self.relays)):
            self._drop_chip()
            self._take_chip()

    def _chip_answers(self) -> bool:
        try:
            there = Path(self._config.chip if self._chip is None else self._chip.path).stat()
            return os.fstat(self._chip_node).st_rdev == there.st_rdev
        except OSError:
            return False

    def _lose_chip(self) -> None:
        label, broken = self._config.chip, self._broken
        gone = not self._chip_answers() or (isinstance(broken, OSError) and broken.errno == errno.ENODEV)
        self._patience = time.monotonic() + PATIENCE_S
        self._drop_chip()
        self._tell_chip(DeviceMissingError(f"GPIO chip {label} is gone") if gone
                        else DeviceFailedError(f"GPIO chip {label} stopped answering: {broken}"),
                        FaultKind.PULLED if gone else None)

    def _drop_chip(self) -> None:
        self.detach()
        self._guarded.stop()
        with self._lock:
            factory, self._factory, self._chip = self._factory, None, None
        if self._chip_node >= 0:
            os.close(self._chip_node)
            self._chip_node = -1
        if factory is not None:
            with contextlib.suppress(*self._pin_errors):
                factory.close()

    def _start_relays(self, chip: Chip) -> None:
        for name in self._wiring.relays:
            for kind in (FaultKind.BUSY, FaultKind.FAILED, FaultKind.DENIED):
                self._tell_line(kind, f"{DEVICE}/relay:{name}", False, "")
        try:
            self._guarded.start(chip)
        except HardwareError as error:
            for name in self._wiring.relays:
                self._relay_failed(name, error)

    # --- facts, from any thread

    def _pin_failed(self, error: Exception) -> None:
        self._broken = error
        self._wake_watcher()

    def _relay_failed(self, name: str, error: HardwareError) -> None:
        kind = _kind(error)
        if kind is FaultKind.MISSING:  # told for the chip as a whole
            self._wake_watcher()
            return
        self._tell_line(kind, f"{DEVICE}/relay:{name}", True, str(error))

    def _tell_line(self, kind: FaultKind, device: str, active: bool, detail: str) -> None:
        with self._lock:
            if active:
                self._line_faults[kind, device] = detail
            else:
                self._line_faults.pop((kind, device), None)
        self._faults.report(Kind.PANEL, kind, device, active, detail)

    def _tell_chip(self, error: HardwareError | None, kind: FaultKind | None = None) -> None:
        fault = None if error is None else kind or _kind(error)
        if self._fault is FaultKind.PULLED and fault is FaultKind.MISSING:
            return  # still gone
        if self._fault is not None and self._fault is not fault:
            self._faults.report(Kind.PANEL, self._fault, DEVICE, False)
        if fault is not None and self._fault is not fault:
            _log.warning("panel: %s", error)
            self._faults.report(Kind.PANEL, fault, DEVICE, True, str(error))
        self._fault, self._chip_fault = fault, str(error or "")


def _kind(error: HardwareError) -> FaultKind:
    for one, kind in ((DeviceMissingError, FaultKind.MISSING), (DeviceBusyError, FaultKind.BUSY),
                      (DeviceDeniedError, FaultKind.DENIED)):
        if isinstance(error, one):
            return kind
    return FaultKind.FAILED
