"""What is wrong with the camera in use, told by the id of that camera."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Final

from hw.api import FaultKind, Kind
from hw.faults import FaultLine

__all__ = ["ENCODER", "CameraTrouble"]

ENCODER: Final = "encoder0"
"""The device that a FALLBACK is told of: it is the board's, whichever camera is used."""


class CameraTrouble:
    """One camera at a time: what was wrong with the one before is over when another is used, since nobody looks after
    it any more. Any thread."""

    def __init__(self, device: str, line: FaultLine) -> None:
        """``device``: its id, or what it is called until one is known."""
        self.device = device
        self._line = line
        self._lock = threading.Lock()
        self._told: set[FaultKind] = set()

    def report(self, fault: FaultKind, active: bool, detail: str = "") -> None:
        with self._lock:
            (self._told.add if active else self._told.discard)(fault)
            self._line.report(Kind.CAMERA, fault, self.device, active, detail)

    def fallback(self, active: bool, detail: str, cause: FaultKind) -> None:
        """Software encodes instead of the hardware, with which ``cause`` is wrong."""
        self._line.report(Kind.CAMERA, FaultKind.FALLBACK, ENCODER, active, detail, cause)

    def active(self, fault: FaultKind) -> bool:
        return self._line.active(Kind.CAMERA, fault, self.device)

    def become(self, device: str, keep: Collection[FaultKind | None] = ()) -> None:
        """``device`` is used from now on. ``keep``: what somebody else goes on telling of the one before."""
        with self._lock:
            if device == self.device:
                return
            before, self.device = self.device, device
            told, self._told = self._told, set()
            for fault in told.difference(keep):
                self._line.report(Kind.CAMERA, fault, before, False)
