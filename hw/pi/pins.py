"""Pins of a GPIO chip for gpiozero, by lgpio. Loaded only where a panel has lines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hw.api import DeviceBusyError, DeviceDeniedError, DeviceFailedError, DeviceMissingError, HardwareError
from hw.pi.gpiochip import Chip

__all__ = ["load_lgpio", "pin_factory", "refusal"]

INSTALL: Final = "install Debian's python3-lgpio, or lgpio>=0.2.2 with pip (needs swig, python3-dev, liblgpio-dev)"


def load_lgpio() -> ModuleType:
    """The module lgpio. Raises DeviceFailedError where it is missing, or is the empty stub 0.0.0.2 of the index."""
    if not os.access(Path.cwd(), os.W_OK):
        raise DeviceFailedError("GPIO: lgpio writes its notification pipe into the working directory, and "
                                f"{Path.cwd()} is not writable: start in another")
    pipes = set(Path.cwd().glob(".lgd-nfy*"))
    try:
        import lgpio
    except ImportError as error:
        raise DeviceFailedError(f"GPIO: the Python module lgpio is not installed: {INSTALL}") from error
    for pipe in set(Path.cwd().glob(".lgd-nfy*")) - pipes:
        pipe.unlink()  # both its ends are open by now
    if not hasattr(lgpio, "gpiochip_open"):
        raise DeviceFailedError(
            f"GPIO: {lgpio.__file__} is the empty stub of lgpio (0.0.0.2): uninstall it and {INSTALL}")
    module: ModuleType = lgpio
    return module


class _Lines:
    """Every line of the chip as a pin, where gpiozero knows those of the Raspberry Pi's header only."""

    def __init__(self, chip: Chip) -> None:
        from gpiozero import PinInfo

        self._pins = [
            PinInfo(number=line, name=f"GPIO{line}", names=frozenset({line, f"GPIO{line}"}), pull="", row=line, col=1,
                    interfaces=frozenset({"gpio"}))
            for line in range(chip.lines)
        ]

    def find_pin(self, name: int | str) -> Iterator[tuple[None, Any]]:
        offset = int(str(name).removeprefix("GPIO"))
        if offset < len(self._pins):
            yield None, self._pins[offset]


def pin_factory(chip: Chip) -> Any:
    """A factory of gpiozero for ``chip``; close it. Raises HardwareError."""
    lgpio = load_lgpio()
    from gpiozero.pins.lgpio import LGPIOFactory, LGPIOPin

    class LinePin(LGPIOPin):  # type: ignore[misc]
        def output_with_state(self, state: bool) -> None:
            # In one step: gpiozero's two would show a lamp or relay that is active low for a moment.
            lgpio.gpio_claim_output(self.factory._handle, self._number, int(state))

        # Letting go of a line whose chip is gone is no failure; gpiozero would leave its device half closed over it.
        def close(self) -> None:
            with contextlib.suppress(lgpio.error):
                super().close()

        def _disable_event_detect(self) -> None:
            with contextlib.suppress(lgpio.error):
                super()._disable_event_detect()

        def _set_frequency(self, value: float | None) -> None:
            with contextlib.suppress(*(() if value else (lgpio.error,))):
                super()._set_frequency(value)

    class LineFactory(LGPIOFactory):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(chip=chip.number)
            self.pin_class = LinePin

        def _get_board_info(self) -> _Lines:
            return lines

    lines = _Lines(chip)
    try:
        return LineFactory()
    except lgpio.error as error:
        raise refusal(chip, error) from error


def refusal(chip: Chip, error: Exception) -> HardwareError:
    """lgpio tells what happened by its texts alone: as an error of ours."""
    text, name = str(error).strip("'\""), f"GPIO chip {chip.label}"
    if "busy" in text:
        return DeviceBusyError(f"{name}: a line is held by another program: {text}")
    if "permission" in text or "not permitted" in text:
        return DeviceDeniedError(f"{name} may not be opened: add the user to the group gpio")
    if "can not open" in text or "bad GPIO" in text:
        return DeviceMissingError(f"{name} ({chip.path}) is gone: {text}")
    return DeviceFailedError(f"{name}: {text}")
