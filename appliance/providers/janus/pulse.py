"""Whether the server of a room is there, where no media tell it: of who watches a room in which nobody is there is
nothing but the connection that messages go by, and that is silent for long when it is cut."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.media.inquiry import Inquiry
from appliance.vocabulary import Json

__all__ = ["Pulse"]

LOOK_S: Final = 0.25
LATE_S: Final = 1.0  # a look so much too late: our own loop stood still, and what came meanwhile is not read yet
ROUND_TRIPS: Final = 4.0
"""That an answer has: what is lost of a stream is sent again after one more at the soonest, and then twice that."""
KEPT: Final = 64  # questions whose answers tell the round trip


class Pulse:
    """Of one connection to a server. ``send`` sends to it; ``needed`` says whether nothing else would tell."""

    def __init__(self, send: Callable[[Json], None], needed: Callable[[], bool]) -> None:
        self._send = send
        self._needed = needed
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._inquiry = Inquiry(round_trips=ROUND_TRIPS)
        self._asked: dict[str, float] = {}  # transaction -> when
        self._round_trip_s: float | None = None

    def heard(self, message: Mapping[str, Any]) -> bool:
        """The server said this; whether it is an answer that nobody else waits for."""
        self._heard_at = self._loop.time()
        self._inquiry.heard()
        transaction = message.get("transaction")
        asked_at = self._asked.pop(transaction, None) if isinstance(transaction, str) else None
        if asked_at is not None:
            self._round_trip_s = self._heard_at - asked_at
        return asked_at is not None

    async def stopped(self) -> None:
        """Returns when answers to what was asked should have come long since."""
        while True:
            due = self._loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            now = self._loop.time()
            if not self._needed():
                self._heard_at = now
                self._inquiry.heard()
            elif now - due > LATE_S:
                self._heard_at = max(self._heard_at, now - LOOK_S)
                self._inquiry.heard()
            if self._inquiry.in_vain(now, self._round_trip_s):
                return
            if self._inquiry.due(now, self._heard_at):
                self._ask(now)

    def _ask(self, now: float) -> None:
        transaction = secrets.token_urlsafe(12)
        self._asked[transaction] = now
        if len(self._asked) > KEPT:
            del self._asked[next(iter(self._asked))]
        self._inquiry.asked(now)
        self._send({"janus": "ping", "transaction": transaction})
