"""A room recorded at its server by our word, as a state machine without I/O.

The server writes what everybody sends, of those who come later too, into the folder ``rec_dir`` of the room, until it
is told to stop; it tells nobody of it, so the appliances of a room tell each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import Effect, Recorded, Tell
from appliance.providers.janus.requests import Answer, Requests, nothing
from appliance.vocabulary import END_REASONS, Category, Json, Reason

__all__ = ["Recording"]

_REFUSED: Final = Reason(
    403, "roomSecret", Category.EXPECTED, "The server does not take the secret of the room.",
    "Check secret_file of the room in the settings.")


class Recording:
    """Of one stay. ``room``: its id; ``secret``: what lets us moderate it, empty without."""

    def __init__(self, requests: Requests, room: int | str, secret: str, dialect: wire.Dialect) -> None:
        self._requests = requests
        self._room = room
        self._secret = secret
        self._dialect = dialect
        self._asked = False
        self.on = False

    @property
    def possible(self) -> bool:
        return bool(self._secret)

    def want(self, handle: int, *, on: bool) -> Sequence[Effect]:
        """Recorded follows."""
        self._asked = True
        return self._ask(handle, self._done(on=on), self._failed, on=on)

    def again(self, handle: int) -> Sequence[Effect]:
        """We are in the room again: its server may be another one, or have begun anew."""
        return self._ask(handle, nothing, self._lost, on=True) if self.on else []

    def end(self, handle: int | None) -> Sequence[Effect]:
        """We are sent away: nothing more is recorded by our word. In place of the end of the session, which would
        overtake it and comes with that of the connection."""
        return self._ask(handle, nothing, nothing, on=False)[:1] if self.on and handle is not None else []

    def forget(self) -> Sequence[Effect]:
        """No answer comes any more."""
        asked, self._asked = self._asked, False
        return [Recorded(END_REASONS["503/provider"])] if asked else []

    def _ask(self, handle: int, done: Answer, failed: Answer, *, on: bool) -> Sequence[Effect]:
        body = {"request": "enable_recording", "room": self._room, "secret": self._secret, "record": on}
        return self._requests.tell_plugin(handle, body, done, failed)

    def _done(self, *, on: bool) -> Answer:
        def done(_: Json) -> Sequence[Effect]:
            changed, self.on, self._asked = on is not self.on, on, False
            return [*([Tell(api.Recording(on))] if changed else []), Recorded()]

        return done

    def _failed(self, error: Json) -> Sequence[Effect]:
        self._asked = False
        return [Recorded(self._reason(error))]

    def _lost(self, error: Json) -> Sequence[Effect]:
        self.on = False
        return [Tell(api.Recording(False, self._reason(error)))]

    def _reason(self, error: Json) -> Reason:
        _, reason = wire.fault_of(error, self._dialect)
        if reason.key == "403/notInvited":
            return replace(_REFUSED, message=f"{_REFUSED.message} It says: {wire.words_of(error)}")
        return reason
