"""Which microphone, loudspeaker and camera is used: selected by command, over restarts too, else by the board's order.

What is selected need not be there: the next of the board's order stands in, and it is used again when it returns.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.care.restarts import Marks
from appliance.errors import BadRequest, Refused, StoreError
from appliance.vocabulary import Json
from hw.api import Board, DeviceFact, Kind

__all__ = ["AUTO", "DeviceChoice"]

log = logging.getLogger(__name__)

AUTO: Final = "auto"
"""In place of an id: the board's own order."""

REMEMBERED: Final = "devices.selected"
_GONE: Final = "is selected and not plugged in"


@dataclass(frozen=True, slots=True)
class _Selected:
    """By id; the name is for people while the device is away."""

    id: str
    name: str


class DeviceChoice:
    """``restore`` before the devices are started. ``marks`` keeps what is selected."""

    def __init__(self, board: Board, marks: Marks) -> None:
        self._board = board
        self._marks = marks
        self._selected: dict[Kind, _Selected] = {}
        self._lock = asyncio.Lock()  # two doors at once: what is kept is what is in force

    async def restore(self) -> None:
        """Select what was selected before the restart, as far as this board has a choice."""
        try:
            kept = await self._marks.get(REMEMBERED)
        except StoreError as error:
            log.warning("which devices were selected is not known: %s", error.message)
            return
        for kind, selected in _parse(kept).items():
            if kind in self._board.choices:
                self._selected[kind] = selected
                await asyncio.to_thread(self._board.select, kind, selected.id)

    async def select(self, kind: Kind, device: str) -> Json:
        """Use ``device`` of ``kind`` from now on, ``auto`` or empty text: what the board prefers. Returns what came of
        it. Raises Refused for a kind without a choice, BadRequest for an id that is not there or of another kind, and
        StoreError when it is in force and will be forgotten."""
        if kind not in self._board.choices:
            raise Refused(self._without_choice(kind), code=501, sub_code="FeatureNotSupported", retryable=False)
        found = None if device in ("", AUTO) else self._find(kind, device)
        async with self._lock:
            await asyncio.to_thread(self._board.select, kind, "" if found is None else found.id)
            if found is None:
                self._selected.pop(kind, None)
            else:
                self._selected[kind] = found
            await self._marks.set(REMEMBERED, json.dumps({
                one.value: {"id": selected.id, "name": selected.name} for one, selected in self._selected.items()}))
        return {"kind": kind.value, **self._document(kind, self._board.devices())}

    def _without_choice(self, kind: Kind) -> str:
        others = ", ".join(sorted(one.value for one in self._board.choices))
        return (f"on this board no {kind.value} can be selected"
                + (f"; there is a choice of {others}" if others else "; it has no device to choose from"))

    def _find(self, kind: Kind, device: str) -> _Selected:
        there = [fact for fact in self._board.devices() if fact.present]
        for fact in there:
            if fact.kind is kind and fact.id == device:
                return _Selected(fact.id, fact.name)
        before = self._selected.get(kind)
        if before is not None and before.id == device:  # the same again, while it is away
            return before
        ids = ", ".join(fact.id for fact in there if fact.kind is kind) or "none"
        other = next((fact.kind.value for fact in there if fact.id == device), "")
        if other:
            raise BadRequest(f"{device!r} is a {other} and no {kind.value}; each {kind.value} that is there: {ids}",
                             sub_code="wrongKind")
        raise BadRequest(f"there is no {kind.value} {device!r} now; there are: {ids}; or {AUTO}", code=404,
                         sub_code="notFound")

    # --- telling

    def away(self, devices: Sequence[DeviceFact]) -> Mapping[Kind, str]:
        """Of each kind that has a choice what is selected and not plugged in, in words; empty: nothing is amiss."""
        there = {(fact.kind, fact.id) for fact in devices if fact.present}
        found = {}
        for kind in self._board.choices:
            selected = self._selected.get(kind)
            lost = selected is not None and (kind, selected.id) not in there
            found[kind] = f"{selected.id} ({selected.name}) {_GONE}" if selected is not None and lost else ""
        return found

    def rows(self, devices: Sequence[DeviceFact]) -> list[Json]:
        """Each device; what is selected also when the board does not know it now."""
        known = {(fact.kind, fact.id) for fact in devices}
        lost = [DeviceFact(kind, one.id, one.name, present=False, used=False, note=_GONE)
                for kind, one in self._selected.items() if (kind, one.id) not in known]
        return [self._row(fact) for fact in (*devices, *lost)]

    def _row(self, fact: DeviceFact) -> Json:
        selected = self._selected.get(fact.kind)
        return {"kind": fact.kind.value, "id": fact.id, "name": fact.name, "present": fact.present,
                "selected": selected is not None and selected.id == fact.id, "used": fact.used,
                "simulated": fact.simulated, "note": fact.note}

    def documents(self, devices: Sequence[DeviceFact]) -> Json:
        """By kind that has a choice: what is selected, what is used, and why."""
        return {kind.value: self._document(kind, devices)
                for kind in sorted(self._board.choices, key=lambda kind: kind.value)}

    def _document(self, kind: Kind, devices: Sequence[DeviceFact]) -> Json:
        selected = self._selected.get(kind)
        used = next((fact.id for fact in devices if fact.kind is kind and fact.used and fact.present), None)
        return {"selected": AUTO if selected is None else selected.id, "used": used,
                "why": self._why(kind, used, devices)}

    def _why(self, kind: Kind, used: str | None, devices: Sequence[DeviceFact]) -> str:
        selected = self._selected.get(kind)
        if selected is None:
            there = any(fact.kind is kind and fact.present and fact.listed for fact in devices)
            return ("the first of the board's own order that works" if used is not None
                    else "none of them works" if there else "none is there")
        if used == selected.id:
            return "it is selected"
        if lost := self.away(devices).get(kind):
            return lost
        note = next((fact.note for fact in devices if fact.kind is kind and fact.id == selected.id), "")
        return f"{selected.id} is selected and cannot be used: {note or 'it does not start'}"


def _parse(text: str | None) -> Mapping[Kind, _Selected]:
    """What was kept; nothing of what another version kept."""
    try:
        kept = json.loads(text) if text else {}
        return {Kind(kind): _Selected(str(one["id"]), str(one["name"])) for kind, one in kept.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
