"""Who may call, and be called, now: allow-list, do-not-disturb, lock-down, and the emergency target that none of them
stops. Everything on the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from appliance.calls.book import AddressBook, Entry, Round
from appliance.calls.dnd import DoNotDisturb, Remembered
from appliance.errors import BadRequest, Refused
from appliance.providers.api import Peer
from appliance.settings import CallSettings
from appliance.vocabulary import END_REASONS, Reason

__all__ = ["Admission"]


class Admission:
    """``remembered`` keeps over restarts what was switched by hand; ``changed`` is called when something else holds, by
    hand or by the schedule of do-not-disturb."""

    def __init__(
        self, book: AddressBook, settings: CallSettings, remembered: Remembered, local_time: Callable[[], datetime],
        changed: Callable[[], None],
    ) -> None:
        self.dnd = DoNotDisturb(settings.dnd, remembered, local_time, changed)
        self.locked_down = False
        self._book = book
        self._settings = settings
        self._remembered = remembered
        self._changed = changed

    async def load(self) -> None:
        """Raises StoreError; then both are off."""
        await self.dnd.load()
        self.locked_down = await self._remembered.get("lockDown") == "on"

    def configure(self, settings: CallSettings) -> None:
        self._settings = settings
        self.dnd.configure(settings.dnd)

    async def do_not_disturb(self, on: bool) -> None:
        """Switch it, over restarts too. Beside it stands the schedule of the settings."""
        await self.dnd.switch(on)
        self._changed()

    async def lock_down(self, on: bool) -> None:
        """Nobody but the emergency target is called, or rings; a call in progress goes on. It holds at once, and over
        restarts. Raises StoreError where it does not outlive one."""
        self.locked_down = on
        self._changed()
        await self._remembered.set("lockDown", "on" if on else "off")

    # --- calls of ours ----------------------------------------------------------------------------------------------

    def is_emergency(self, plan: Sequence[Round]) -> bool:
        """Whether it is the emergency target that is called, by whatever name."""
        return bool(plan) and _uris(plan) == self._emergency()

    @staticmethod
    def urgent(plan: Sequence[Round]) -> list[Round]:
        """The plan with each of its targets marked, for the providers."""
        return [replace(one, targets=tuple(replace(target, emergency=True) for target in one.targets)) for one in plan]

    def check(self, plan: Sequence[Round]) -> None:
        """Raises Refused (403/lockedDown) for who may not be called now."""
        if self.locked_down and not self.is_emergency(plan):
            known = END_REASONS["403/lockedDown"]
            raise Refused(f"{known.message} {known.advice}", code=known.code, sub_code=known.sub_code, retryable=False)

    def _emergency(self) -> list[list[str]]:
        if not self._settings.emergency_target:
            return []
        try:
            return _uris(self._book.plan([self._settings.emergency_target], None, self._settings.ring_s))
        except (BadRequest, Refused):  # taken out of the book meanwhile; who calls it is told
            return []

    # --- calls of others --------------------------------------------------------------------------------------------

    def refusal(self, peer: Peer, entry: Entry | None, *, busy: bool) -> Reason | None:
        """Why this caller does not ring. Whom the emergency target stands for calls back when it matters."""
        if not (entry.allowed if entry is not None else self._settings.allow_unknown):
            return END_REASONS["403/notAllowed"]
        if busy:
            return END_REASONS["486/busy"]
        if peer.verified and any(peer.uri in uris for uris in self._emergency()):
            return None
        if self.locked_down:
            return END_REASONS["403/lockedDown"]
        return END_REASONS["480/doNotDisturb"] if self.dnd.now else None


def _uris(plan: Sequence[Round]) -> list[list[str]]:
    return [[target.uri for target in one.targets] for one in plan]
