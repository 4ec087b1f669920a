"""A kiosk: the room of ``call.auto_join`` is joined at the start, and again whenever it is lost.

Armed from the start. It stays so while this device is offline, while another call goes on, and while the room is not
to be had for a reason that passes; nothing is tried meanwhile that cannot come to anything. It ends when somebody
decides so (the room is left by hand, a moderator removes the device or ends the call for everyone) and on what waiting
does not mend (a wrong PIN, no such room, not invited). ``room.join`` of that room, another room in the settings, a
token in place of one that was refused, or a start arms it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from enum import Enum
from typing import Final

from appliance.backoff import Backoff, doubling
from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall
from appliance.calls.controller import CallController
from appliance.calls.dialling import reason_of
from appliance.errors import EdgecallError
from appliance.providers.api import MediaWanted
from appliance.vocabulary import Json, Reason

__all__ = ["AutoJoin", "Verdict", "verdict"]

log = logging.getLogger(__name__)

FIRST_S: Final = 1.0  # pause after the first failure
LONGEST_S: Final = 60.0  # and after the sixth: a server that is back is joined within a minute
NETWORK_S: Final = 1.0  # devices of one switch that is back do not all come at the same moment


class Verdict(Enum):
    """What the end of a call in the room means for the next one."""

    AGAIN = "it may work in a moment: ever slower"
    LATER = "it takes somebody else's doing: at the slowest"
    NOT = "somebody decided so, or waiting does not mend it"


_PASSING: Final = frozenset({408, 410, 480, 496, 500, 503})
_OTHERS: Final = frozenset({"403/roomFull", "403/outsideSchedule", "403/lockedDown", "0/emergency", "488/dtls"})


def verdict(reason: Reason) -> Verdict:
    if reason.code in _PASSING or reason.key == "487/noAnswer":
        return Verdict.AGAIN
    return Verdict.LATER if reason.key in _OTHERS else Verdict.NOT


class AutoJoin:
    """Lives on the loop. ``jitter`` gives numbers from 0 to 1."""

    def __init__(self, controller: CallController, bulletin: Bulletin, target: str, *, jitter: random.Random) -> None:
        self._controller = controller
        self._bulletin = bulletin
        self._jitter = jitter
        self._target = target
        self._armed = bool(target)
        self._backoff = Backoff(doubling(FIRST_S, LONGEST_S), jitter.uniform)
        self._due = 0.0  # loop time; not before it
        self._why: str | None = None  # how the last try ended
        self._online = True
        self._wake = asyncio.Event()
        controller.on_over = self._over

    def configure(self, target: str) -> None:
        """Another room of the settings; the one it is in now is not left."""
        if target != self._target:
            self._target, self._armed = target, bool(target)
            self._backoff.succeeded()
            self._due, self._why = 0.0, None
            self._tell()

    def mended(self, key: str) -> None:
        """What ended the last try, a reason with this key, is not so any more."""
        if self._target and not self._armed and self._why == key:
            self._backoff.succeeded()
            self._armed, self._due = True, 0.0
            self._tell()
            self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        with self._bulletin.subscribed(on_document=self._on_document):
            self._online = self._bulletin.document("net").get("online") is not False
            self._tell()
            while True:
                self._wake.clear()
                pause = self._due - self._now()
                if self._ready and pause <= 0:
                    self._join()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause if self._ready else None):
                        await self._wake.wait()

    @property
    def _ready(self) -> bool:
        return self._armed and self._online and self._controller.idle

    def _join(self) -> None:
        try:
            plan = self._controller.book.plan([self._target], None, self._controller.ring_s)
            self._controller.dial(plan, MediaWanted(), unattended=True)
        except EdgecallError as error:
            self._ended(reason_of(error))

    def _over(self, active: ActiveCall) -> None:
        if self._target in {target.uri for one in active.plan for target in one.targets}:
            if active.call.connected is not None:
                self._backoff.succeeded()
            if active.call.reason is not None:
                self._ended(active.call.reason)
        self._wake.set()

    def _ended(self, reason: Reason) -> None:
        found = verdict(reason)
        if found is Verdict.NOT:
            log.log(logging.WARNING if reason.code else logging.INFO,
                    "the room is not joined by itself any more: %s", reason.message)
        elif not self._backoff.failures:
            log.info("the room is joined again as soon as it can be: %s", reason.key)
        self._armed, self._why = found is not Verdict.NOT, reason.key
        waiting = self._backoff.failed_for_long if found is Verdict.LATER else self._backoff.failed
        self._due = self._now() + waiting()
        self._tell()

    def _on_document(self, name: str, document: Json, _rev: int) -> None:
        if name == "call":
            self._on_call(document)
        elif name == "net":
            online = document.get("online") is not False
            if online and not self._online:
                self._backoff.succeeded()
                self._due = self._now() + NETWORK_S * self._jitter.random()
            self._online = online
            self._wake.set()

    def _on_call(self, call: Json) -> None:
        """Somebody has joined the room by hand: it is kept from here on."""
        there = call.get("state") == "Connected" and (call.get("callerInfo") or {}).get("uri") == self._target
        if there and not self._armed:
            self._armed = True
            self._tell()

    def _tell(self) -> None:
        self._bulletin.merge("device", autoJoin={
            "target": self._target, "isArmed": self._armed, "lastEnd": self._why} if self._target else None)
        self._wake.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
