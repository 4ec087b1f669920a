"""Two simulated devices of one kind: that which the board is made with, and one that is plugged in by hand."""

from __future__ import annotations

from hw.api import DeviceFact, FaultKind, Kind
from hw.faults import FaultLine

__all__ = ["Pair"]


class Pair:
    """Decides which of the two is used, and tells what keeps the other from it. Its user sees to it that one thread at
    a time changes it; ``used`` may be read by any."""

    def __init__(self, kind: Kind, word: str, faults: FaultLine, *, alone: bool = True, note: str = "") -> None:
        """``word``: ``microphone``; ids are made of it. ``alone``: what is wrong with the first one is told here also
        while nothing stands in for it; else its user tells that. ``note`` of the first one, for people."""
        short = {Kind.MICROPHONE: "mic", Kind.SPEAKER: "spk", Kind.CAMERA: "cam"}[kind]
        self.first, self.second = f"{short}0", f"{short}1"
        self.used = self.first  # its id; empty: none can be used
        self._kind, self._word, self._faults, self._alone, self._note = kind, word, faults, alone, note
        self._selected = ""
        self._obstacle: tuple[FaultKind, str] | None = None
        self.told: FaultKind | None = None
        """What is told here of the first one."""
        self._plugged = self._pulled = False

    def select(self, device: str) -> None:
        self._selected = device
        self._settle()

    def plug(self, plugged: bool) -> None:
        """The second one."""
        self._plugged = plugged
        self._settle()

    def obstruct(self, obstacle: tuple[FaultKind, str] | None) -> None:
        """What keeps the first one from being opened, in words too; None: nothing."""
        self._obstacle = obstacle
        self._settle()

    @property
    def obstacle(self) -> tuple[FaultKind, str] | None:
        return self._obstacle

    def _settle(self) -> None:
        there = [self.first] if self._obstacle is None else []
        there += [self.second] if self._plugged else []
        self._pulled = not self._plugged and (self._pulled or self.used == self.second)
        self.used = self._selected if self._selected in there else next(iter(there), "")
        fault, words = self._obstacle or (None, "")
        if fault is FaultKind.MISSING and self.used:  # another is there
            fault = FaultKind.PULLED
        before, self.told = self.told, fault if self._alone or self.used or fault is self.told else None
        if before is not None and before is not self.told:
            self._faults.report(self._kind, before, self.first, False)
        if self.told is not None:
            self._faults.report(self._kind, self.told, self.first, True, words)
        self._faults.report(self._kind, FaultKind.PULLED, self.second, self._pulled, f"the second {self._word} was "
                            "unplugged")
        self._faults.devices_changed()

    def devices(self) -> list[DeviceFact]:
        fault, words = self._obstacle or (None, "")
        facts = [DeviceFact(self._kind, self.first, f"Simulated {self._word}", fault is not FaultKind.MISSING,
                            self.used == self.first, simulated=True, note=words or self._note)]
        if self._plugged or self._pulled:
            facts.append(DeviceFact(self._kind, self.second, f"Second simulated {self._word}", self._plugged,
                                    self.used == self.second, simulated=True))
        return facts
