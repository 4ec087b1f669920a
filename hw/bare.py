"""A board without devices: the safe mode of an appliance whose hardware keeps it from starting."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence

from hw.api import BoardOptions, DeviceFact, DeviceMissingError, Fault, Health, Kind
from hw.shared import ShownFile

__all__ = ["BareBoard"]


class BareBoard:
    """Implements ``hw.api.Board``; every device is None."""

    audio = None
    camera = None
    display = None
    panel = None
    simulation = None
    choices: frozenset[Kind] = frozenset()

    def __init__(self, _options: BoardOptions) -> None:
        pass

    def share(self, path: str) -> ShownFile:
        return ShownFile(path)

    def capture(self, device: str) -> ShownFile:
        raise DeviceMissingError(f"this board has no capture device {device!r}")

    def facts(self) -> Mapping[str, str]:
        return {"board": "none", "model": "No devices (safe mode)", "machine": platform.machine(),
                "kernel": platform.release()}

    def devices(self) -> Sequence[DeviceFact]:
        return ()

    def select(self, kind: Kind, device: str) -> None:
        raise ValueError(f"this board has no {kind.value}: {device!r} cannot be selected")

    def health(self) -> Health:
        return Health()

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        """There is nothing that could fail."""

    def on_devices(self, sink: Callable[[], None]) -> None:
        """There is nothing that could come."""

    def close(self) -> None:
        """There is nothing to close."""
