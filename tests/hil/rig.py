"""Hands for a whole board as its product board file wires it.

On the test kernel they are what simulates the pins; on a board on the bench, wires from other pins of its own header
(docs/hil.md, "The rig for a real board").
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final, Protocol

from hw.pi.gpiochip import find_chip
from hw.pi.pins import load_lgpio
from tests.hil.devices import GpioChip

__all__ = ["DRIVEN", "READ", "Header", "LoopedHeader", "Rig", "SimulatedHeader"]

DRIVEN: Final[Mapping[str, int]] = {"call": 17, "mute": 27, "door": 22}
"""Contacts to ground, by the lines that every board file in ``config/boards`` gives them."""

READ: Final[Mapping[str, int]] = {"status": 13, "door": 26}
"""The lamp and the relay."""

WIRES: Final[Mapping[int, int]] = {17: 4, 27: 7, 22: 8, 13: 9, 26: 10}
"""From each of those lines through 1 kΩ to one that no board file uses and that has no function while SPI is off.

Contacts are driven by lines that are pulled up before Linux starts, and relays read by one that is pulled down.
"""


class Header(Protocol):
    """The lines of a board from the other side."""

    def drive(self, line: int, *, down: bool) -> None:
        """Connect ``line`` to ground, or let it be pulled up."""

    def level(self, line: int) -> bool: ...

    def close(self) -> None: ...


class SimulatedHeader:
    """Of the test kernel. Makes the chip with ``label``, which a board opens afterwards."""

    def __init__(self, label: str) -> None:
        self._chip = GpioChip({*DRIVEN.values(), *READ.values()}, label=label)
        for line in DRIVEN.values():
            self.drive(line, down=False)

    def drive(self, line: int, *, down: bool) -> None:
        self._chip.pull(line, up=not down)

    def level(self, line: int) -> bool:
        return self._chip.value(line)

    def close(self) -> None:
        self._chip.remove()


class LoopedHeader:
    """Of a board with the wires of ``WIRES``, on the chip with ``label``. Raises HardwareError."""

    def __init__(self, label: str) -> None:
        self._lgpio: Any = load_lgpio()
        self._handle = self._lgpio.gpiochip_open(find_chip(label).number)
        for line in DRIVEN.values():
            self._lgpio.gpio_claim_output(self._handle, WIRES[line], 1)
        for line in READ.values():
            self._lgpio.gpio_claim_input(self._handle, WIRES[line])

    def drive(self, line: int, *, down: bool) -> None:
        self._lgpio.gpio_write(self._handle, WIRES[line], int(not down))

    def level(self, line: int) -> bool:
        return bool(self._lgpio.gpio_read(self._handle, WIRES[line]))

    def close(self) -> None:
        self._lgpio.gpiochip_close(self._handle)


class Rig:
    """Whoever stands before the panel (``tests.contract.panel.Fingers``)."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._timers = ExitStack()

    def press(self, button: str, held_s: float) -> None:
        line = DRIVEN[button]
        self._header.drive(line, down=True)
        self._later(held_s, lambda: self._header.drive(line, down=False))

    def set_input(self, name: str, closed: bool) -> None:
        self._header.drive(DRIVEN[name], down=closed)

    def sees(self, name: str) -> bool:
        """Whether the wire of the lamp or relay is high."""
        return self._header.level(READ[name])

    def close(self) -> None:
        """Waits for the fingers to leave the buttons."""
        self._timers.close()
        self._header.close()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        timer.start()
        self._timers.callback(timer.join)
