"""The cameras of a board: which are plugged in, which one is used, and what keeps the others from it.

Pure but for the fault line; its user sees to it that one thread at a time is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hw.api import DeviceFact, FaultKind, Kind
from hw.faults import FaultLine
from hw.pi.camera.config import ranked

__all__ = ["KnownCameras"]


class Plugged(NamedTuple):
    id: str
    name: str


class KnownCameras:
    """``wanted`` is the board file's list. ``selected`` is the id of the one that is preferred to it; empty: none."""

    def __init__(self, wanted: Sequence[str], faults: FaultLine) -> None:
        self.selected = ""
        self._wanted = wanted
        self._faults = faults
        self._there: tuple[Plugged, ...] = ()
        self._using = ""  # id of the camera that was opened last
        self._names: dict[str, str] = {}  # of all that were ever there
        self._refused: dict[str, tuple[FaultKind, str]] = {}  # by id: what keeps it from being used, in words too
        self._gone: set[str] = set()  # of those, the ones that are not plugged in

    def plugged(self, cameras: Sequence[tuple[str, str]]) -> None:
        """Ids and names of all that are plugged in now. Of one that is gone it is told that it is gone, if it was
        pulled in use; of one that is back nothing."""
        self._there = tuple(Plugged(*one) for one in cameras)
        self._names |= dict(cameras)
        self._compare()

    def using(self, camera: str) -> None:
        """It was opened."""
        self._using = camera
        self._admit(camera)

    def refused(self, camera: str, fault: FaultKind, words: str) -> None:
        """Another stands in for it."""
        self._admit(camera)
        self._refused[camera] = fault, words
        self._faults.report(Kind.CAMERA, fault, camera, True, words)
        self._compare()

    def refusal(self, camera: str) -> FaultKind | None:
        """What is told here of it."""
        return self._refused.get(camera, (None, ""))[0]

    def closed(self) -> None:
        """Nobody tries any more: nobody would know when what keeps one from being used is over."""
        for camera in [one for one, (fault, _) in self._refused.items() if fault is not FaultKind.PULLED]:
            self._admit(camera)

    def _compare(self) -> None:
        there = {one.id for one in self._there}
        for camera, (fault, _) in list(self._refused.items()):
            if camera not in there and fault is FaultKind.PULLED:
                self._gone.add(camera)
            elif camera not in there or camera in self._gone:
                self._admit(camera)

    def _admit(self, camera: str) -> None:
        fault, _ = self._refused.pop(camera, (None, ""))
        self._gone.discard(camera)
        if fault is not None:
            self._faults.report(Kind.CAMERA, fault, camera, False)

    def facts(self, *, running: bool, note: str) -> list[DeviceFact]:
        """Each that is plugged in, and those that were pulled in use; none where nothing can be used. ``note``: of the
        one that is used."""
        best = next(iter(ranked(self._there, self._wanted, self.selected)), None)
        kept = running and any(one.id == self._using for one in self._there)
        used = self._using if kept else "" if best is None else best.id
        notes = {camera: words for camera, (_, words) in self._refused.items()} | {used: note}
        return [
            *(DeviceFact(Kind.CAMERA, one.id, one.name, used=one.id == used, note=notes.get(one.id, ""))
              for one in self._there),
            *(DeviceFact(Kind.CAMERA, camera, self._names.get(camera, camera), present=False, used=False,
                         note=notes[camera]) for camera in sorted(self._gone)),
        ]
