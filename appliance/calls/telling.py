"""What the Snapshot and the events tell of the call, and what the Snapshot tells of the device and who may call it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall, no_call
from appliance.calls.admission import Admission
from appliance.calls.book import AddressBook
from appliance.calls.capabilities import Standing
from appliance.vocabulary import CallState, Json

__all__ = ["Telling"]

BOOK_SHOWN: Final = 100  # entries in state/device


class Telling:
    """Everything on the loop. ``missing``: why the device lacks a capability, by its name."""

    def __init__(
        self, bulletin: Bulletin, admission: Admission, book: AddressBook, missing: Mapping[str, str],
        hardware_muted: Callable[[], bool],
    ) -> None:
        self._bulletin = bulletin
        self._admission = admission
        self._book = book
        self._missing = missing
        self._hardware_muted = hardware_muted

    # --- documents --------------------------------------------------------------------------------------------------

    def call(self, active: ActiveCall) -> None:
        self._bulletin.set("call", self._document(active))

    def no_call(self) -> None:
        """Before the first one."""
        self._bulletin.set("call", no_call(self.standing().document()))
        self._bulletin.set("roster", {"callId": None, "participants": []})

    def device(self) -> None:
        dnd = self._admission.dnd
        self._bulletin.merge("device", doNotDisturb=dnd.on, doNotDisturbNow=dnd.now,
                             lockedDown=self._admission.locked_down, hardwareMuted=self._hardware_muted(),
                             addressBook=[entry.payload() for entry in self._book.entries()[:BOOK_SHOWN]])

    def record(self, active: ActiveCall) -> Json:
        """Of the call as it would be if it ended now."""
        record = self._document(active) | {"durationMs": active.duration_ms(_now())}
        del record["capabilities"]  # of the device, and of now
        return record

    def standing(self, active: ActiveCall | None = None) -> Standing:
        """What the device may do, in the call or without one."""
        if active is None:
            return Standing(hardware_muted=self._hardware_muted(), missing=self._missing)
        return active.standing(hardware_muted=self._hardware_muted(), missing=self._missing)

    # --- events -----------------------------------------------------------------------------------------------------

    def stepped(self, active: ActiveCall, before: CallState) -> None:
        if not active.idle_try:
            self._bulletin.post("call.stateChanged", callId=active.id,
                                **{"from": before.value, "to": active.call.state.value})

    def started(self, active: ActiveCall) -> None:
        peer = active.peer
        self._bulletin.post("call.started", callId=active.id, direction=active.call.direction.value,
                            peer=None if peer is None else peer.payload())

    def lost(self, active: ActiveCall) -> None:
        active.lost_at = _now()
        self._bulletin.post("media.reconnecting", callId=active.id, cause="media")

    def back(self, active: ActiveCall) -> None:
        seconds = 0.0 if active.lost_at is None else _now() - active.lost_at
        active.lost_at = None
        self._bulletin.post("media.reconnected", callId=active.id, seconds=round(seconds, 3))

    def _document(self, active: ActiveCall) -> Json:
        return active.document(_now(), hardware_muted=self._hardware_muted(),
                               capabilities=self.standing(active).document())


def _now() -> float:
    return asyncio.get_running_loop().time()
