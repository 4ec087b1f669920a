"""Session timers (RFC 4028): a call whose other end has vanished without a word is ended, though nothing is sent in it.

Who refreshes asks at half the time; who does not ends the call a little before the time is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.providers.sip.grammar import Malformed, params_of
from appliance.providers.sip.message import Message, Request, Response
from appliance.providers.sip.transaction import Clock, Timer

__all__ = ["SessionTimer"]

INTERVAL_S: Final = 1800
LEAST_S: Final = 90  # less is refused (5)
MOST_S: Final = 86_400
OPTION: Final = "timer"


class SessionTimer:
    """Of one call. ``refresh``: it is for us to ask for a sign of life; ``expired``: the peer has not."""

    def __init__(self, clock: Clock, refresh: Callable[[], None], expired: Callable[[], None]) -> None:
        self._clock = clock
        self._refresh = refresh
        self._expired = expired
        self._least = LEAST_S
        self._seconds: int | None = None
        self._ours = True
        self._timer: Timer | None = None

    # --- requests of ours -------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> None:
        """In an INVITE or UPDATE of ours: how long, and in a call that runs, who refreshes."""
        seconds = max(self._seconds or INTERVAL_S, self._least)
        who = "" if self._seconds is None else f";refresher={'uac' if self._ours else 'uas'}"
        request.headers.set("Session-Expires", f"{seconds}{who}")
        request.headers.set("Min-SE", str(self._least))

    def too_small(self, response: Response) -> bool:
        """Of a 422: whether to ask again, for longer."""
        least = response.number("min-se") or 0
        if not self._least < least <= MOST_S:
            return False
        self._least = least
        return True

    def granted(self, response: Response) -> None:
        """Of a 2xx: what holds from now on; nothing, where the peer knows no session timers."""
        seconds = response.number("session-expires")
        self._run(seconds, ours=_refresher(response) != "uas")

    # --- requests of theirs -----------------------------------------------------------------------------------------

    @staticmethod
    def refusal(request: Request) -> int | None:
        """The least that is taken, where less is asked for by somebody who understands that (422)."""
        seconds = request.number("session-expires")
        knows = OPTION in request.headers.tokens("supported")
        return LEAST_S if knows and seconds is not None and seconds < LEAST_S else None

    def answer(self, request: Request, response: Response) -> None:
        """Into the 2xx to an INVITE or UPDATE of theirs."""
        seconds = request.number("session-expires")
        if seconds is not None:
            seconds = max(seconds, LEAST_S)
            knows = OPTION in request.headers.tokens("supported")
            who = (_refresher(request) or "uac") if knows else "uas"
            response.headers.set("Session-Expires", f"{seconds};refresher={who}")
            if who == "uac":
                response.headers.set("Require", OPTION)
            self._run(seconds, ours=who == "uas")
        else:
            self.stop()

    # --- time -------------------------------------------------------------------------------------------------------

    def _run(self, seconds: int | None, *, ours: bool) -> None:
        self.stop()
        if seconds is None or not 0 < seconds <= MOST_S:
            return
        self._seconds, self._ours = seconds, ours
        due = seconds / 2 if ours else seconds - min(32.0, seconds / 3)
        self._timer = self._clock.call_later(due, self._refresh if ours else self._expired)

    def postpone(self, pause: float) -> None:
        """Our sign of life was not taken now: ask again after so long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._clock.call_later(pause, self._refresh)

    def stop(self) -> None:
        self._seconds = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _refresher(message: Message) -> str:
    _, _, params = message.headers.get("session-expires").partition(";")
    try:
        return params_of(f";{params}").get("refresher", "").lower()
    except Malformed:
        return ""
