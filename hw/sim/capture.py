"""The simulated HDMI input: what is connected to it, what ails it, and who shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final

from hw.api import DeviceBusyError, DeviceFact, DeviceMissingError, Kind
from hw.faults import FaultLine
from hw.shared import ShownCapture
from hw.sim.obstacles import obstacle_of

__all__ = ["SimCapture"]

DEVICE: Final = "hdmi0"


class SimCapture:
    """One at a time shows it. Any thread."""

    def __init__(self, faults: FaultLine) -> None:
        self._faults = faults
        self._lock = threading.Lock()
        self._spec = "pattern"
        self._physics: frozenset[str] = frozenset()
        self._shown: ShownCapture | None = None

    def capture(self, device: str) -> ShownCapture:
        """Raises DeviceMissingError and DeviceBusyError."""
        with self._lock:
            if device != DEVICE or "hdmi.unplug" in self._physics:
                raise DeviceMissingError(f"there is no capture device {device!r}; plug it in, or name one of "
                                         f"state/devices ({DEVICE})")
            if self._shown is not None:
                raise DeviceBusyError(f"the capture device {device} is shown already")
            self._shown = ShownCapture(device, self._spec, self._faults, on_close=self._free)
            self._shown.set_physics(self._physics)
        self._faults.devices_changed()
        return self._shown

    def _free(self) -> None:
        with self._lock:
            self._shown = None
        self._faults.devices_changed()

    def set_source(self, spec: str) -> None:
        with self._lock:
            self._spec = spec
            if self._shown is not None:
                self._shown.set_source(spec)

    def set_physics(self, faults: Iterable[str]) -> None:
        """``hdmi.unplug``, ``hdmi.busy``, ``hdmi.noSignal``: those in force from now on."""
        with self._lock:
            self._physics = frozenset(faults)
            if self._shown is not None:
                self._shown.set_physics(self._physics)
        self._faults.devices_changed()

    def devices(self) -> Sequence[DeviceFact]:
        with self._lock:
            obstacle = obstacle_of("hdmi", self._physics)
            return [DeviceFact(Kind.CAPTURE, DEVICE, "Simulated HDMI input", "hdmi.unplug" not in self._physics,
                               self._shown is not None, simulated=True, note=obstacle[1] if obstacle else "")]
