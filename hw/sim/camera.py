"""The simulated camera and a second one beside it: what the one camera process is told to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hw.api import DeviceFact, FaultKind, Kind
from hw.camera.owner import ProcessCamera
from hw.faults import FaultLine
from hw.sim.obstacles import obstacle_of
from hw.sim.pair import Pair

__all__ = ["SimCamera"]


class SimCamera(ProcessCamera):
    """Implements ``hw.api.Camera``. Faults are of the first camera; a change to the other opens the sensor anew."""

    def __init__(self, spec: str, faults: FaultLine, *, note: str = "") -> None:
        self._pair = Pair(Kind.CAMERA, "camera", faults, alone=False, note=note)
        self._specs = {self._pair.first: spec, self._pair.second: "pattern"}
        self._of_first: frozenset[str] = frozenset()
        super().__init__(self._pair.first, spec, faults)

    def set_source(self, spec: str) -> None:
        with self._lock:
            self._specs[self._pair.first] = spec
            if self._pair.used != self._pair.second:
                super().set_source(spec)

    def set_physics(self, faults: Iterable[str]) -> None:
        with self._lock:
            self._of_first = frozenset(faults)
            self._pair.obstruct(obstacle_of("camera", [f"camera.{name}" for name in self._of_first]))
            self._become()

    def choose(self, device: str) -> None:
        with self._lock:
            self._pair.select(device)
            self._become()

    def plug(self, plugged: bool, spec: str) -> None:
        with self._lock:
            self._specs[self._pair.second] = spec or self._specs[self._pair.second]
            self._pair.plug(plugged)
            self._become()

    def devices(self) -> Sequence[DeviceFact]:
        gone = self._trouble.active(FaultKind.MISSING)  # a file that is not there, too
        return [replace(fact, present=fact.present and not (gone and fact.used), used=fact.used and not gone)
                for fact in self._pair.devices()]

    def _become(self) -> None:
        used = self._pair.used or self._pair.first
        self._trouble.become(used, {self._pair.told})
        if self._specs[used] != self._spec:
            super().set_source(self._specs[used])
        super().set_physics(self._of_first if used == self._pair.first else ())
