"""Who is on duty to answer: in ``state/device``, and the diagnostic when somebody calls and nobody is."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.bulletin import Bulletin
from appliance.care.diagnostics import Diagnostics
from appliance.vocabulary import Json

__all__ = ["Duty"]


class Duty:
    """Lives on the loop. Nobody on duty is no trouble by itself: a call that found nobody is, until somebody comes."""

    def __init__(self, bulletin: Bulletin, diagnostics: Diagnostics) -> None:
        self._bulletin = bulletin
        self._diagnostics = diagnostics
        bulletin.merge("device", onDuty=[])

    def changed(self, names: Sequence[str]) -> None:
        """The names on duty, at every change."""
        self._bulletin.merge("device", onDuty=list(names))
        if names:
            self._diagnostics.flag("nobodyOnDuty", False)

    def on_document(self, name: str, document: Json, _rev: int) -> None:
        """A subscriber of the bulletin."""
        if name != "call" or (document.get("endReason") or {}).get("subCode") != "unreachable":
            return
        called = (document.get("callerInfo") or {}).get("uri", "")
        if called.startswith("operator:") and not self._bulletin.document("device")["onDuty"]:
            self._diagnostics.flag("nobodyOnDuty", True)
