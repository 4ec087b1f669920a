"""Pins of a GPIO chip for gpiozero: outputs by lgpio, inputs by the kernel's own line request."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from gpiozero import DeviceClosed, PinInfo, PinInvalidEdges, PinInvalidFunction, PinInvalidPull
from gpiozero.pins.local import LocalPiPin

from hw.api import DeviceBusyError, DeviceDeniedError, DeviceFailedError, DeviceMissingError, HardwareError
from hw.pi.edges import BIAS, Edge, EdgeReader, InputLine
from hw.pi.gpiochip import Chip, refused

__all__ = ["InputPin", "load_lgpio", "pin_factory", "refusal"]

INSTALL: Final = "install Raspberry Pi OS' python3-lgpio, or by pip lgpio>=0.2.2 (PYPI=1; swig, gcc, python3-dev)"


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
        self._pins = [
            PinInfo(number=line, name=f"GPIO{line}", names=frozenset({line, f"GPIO{line}"}), pull="", row=line, col=1,
                    interfaces=frozenset({"gpio"}))
            for line in range(chip.lines)
        ]

    def find_pin(self, name: int | str) -> Iterator[tuple[None, Any]]:
        offset = int(str(name).removeprefix("GPIO"))
        if offset < len(self._pins):
            yield None, self._pins[offset]


class InputPin(LocalPiPin):  # type: ignore[misc]
    """A pin that is read, ``name`` to people. ``function = "input"`` takes its line, ``close`` lets it go; both edges
    are told with the time at which the kernel saw them, on the thread of ``reader``.

    Raises HardwareError where the line cannot be taken, OSError where it fails, else GPIOZeroError.
    """

    def __init__(self, factory: Any, info: PinInfo, chip: Chip, name: str, reader: EdgeReader) -> None:
        super().__init__(factory, info)
        self._chip, self._name, self._reader = chip, name, reader
        self._line: InputLine | None = None
        self._pull = "floating"

    def close(self) -> None:
        self.when_changed = None
        line, self._line, self._pull = self._line, None, "floating"
        if line is not None:
            line.close()

    @property
    def _open(self) -> InputLine:
        if self._line is None:
            raise DeviceClosed(f"{self!r} is closed")
        return self._line

    def _get_function(self) -> str:
        return "input"

    def _set_function(self, value: str) -> None:
        if value != "input":
            raise PinInvalidFunction(f"{self!r} is an input, and no {value}")
        if self._line is None:
            self._line = InputLine(self._chip, self._number, self._name)

    def _get_state(self) -> bool:
        return self._open.level()

    def _get_pull(self) -> str:
        return self._pull

    def _set_pull(self, value: str) -> None:
        if value not in BIAS:
            raise PinInvalidPull(f"{value!r} is no pull of {self!r}")
        self._open.configure(value, edges=self._when_changed is not None)
        self._pull = value

    def _get_edges(self) -> str:
        return "both"

    def _set_edges(self, value: str) -> None:
        if value != "both":
            raise PinInvalidEdges(f"{self!r} tells both edges, and not {value!r} alone")

    def _enable_event_detect(self) -> None:
        self._open.configure(self._pull, edges=True)
        self._reader.watch(self._open, self._told)

    def _disable_event_detect(self) -> None:
        if self._line is None:
            return
        self._reader.leave(self._line)
        with contextlib.suppress(OSError):  # of a chip that is gone
            self._line.configure(self._pull, edges=False)
            self._line.edges()  # those that still wait are nobody's

    def _told(self, edge: Edge) -> None:
        changed = self._when_changed  # a weak reference, which another thread may take away
        if changed is not None and (tell := changed()) is not None:
            tell(edge.at, int(edge.high))


def pin_factory(chip: Chip, inputs: Mapping[int, str], failed: Callable[[Exception], None]) -> Any:
    """A factory of gpiozero for ``chip``; close it. ``inputs``: the lines that are read, with their names. ``failed``
    hears, on any thread, of one whose edges no longer come. Raises HardwareError."""
    lgpio = load_lgpio()
    from gpiozero.pins.lgpio import LGPIOFactory, LGPIOPin

    class OutputPin(LGPIOPin):  # type: ignore[misc]
        def output_with_state(self, state: bool) -> None:
            # In one step: gpiozero's two would show a lamp or relay that is active low for a moment.
            lgpio.gpio_claim_output(self.factory._handle, self._number, int(state))

        # Letting go of a line whose chip is gone is no failure; gpiozero would leave its device half closed over it.
        def close(self) -> None:
            with contextlib.suppress(lgpio.error):
                super().close()

        def _set_frequency(self, value: float | None) -> None:
            with contextlib.suppress(*(() if value else (lgpio.error,))):
                super()._set_frequency(value)

    class LineFactory(LGPIOFactory):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(chip=chip.number)
            self._reader = EdgeReader(failed)
            self.pin_class = self._pin

        def _pin(self, factory: Any, info: PinInfo) -> InputPin | OutputPin:
            if info.number in inputs:
                return InputPin(factory, info, chip, inputs[info.number], self._reader)
            return OutputPin(factory, info)

        def close(self) -> None:
            self._reader.close()
            super().close()

        def _get_board_info(self) -> _Lines:
            return lines

    lines = _Lines(chip)
    try:
        return LineFactory()
    except lgpio.error as error:
        raise refusal(chip, error) from error


def refusal(chip: Chip, error: Exception) -> HardwareError:
    """The kernel's error, or lgpio's, which tells what happened by its texts alone, as an error of ours."""
    text, name = str(error).strip("'\""), f"GPIO chip {chip.label}"
    if isinstance(error, OSError):
        return refused(name, error.errno or 0)
    if "busy" in text:
        return DeviceBusyError(f"{name}: a line is held by another program: {text}")
    if "permission" in text or "not permitted" in text:
        return DeviceDeniedError(f"{name} may not be opened: add the user to the group gpio")
    if "can not open" in text or "bad GPIO" in text:
        return DeviceMissingError(f"{name} ({chip.path}) is gone: {text}")
    return DeviceFailedError(f"{name}: {text}")
