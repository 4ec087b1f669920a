"""What moderators of a room do, as a state machine without I/O: to us, and with the room's secret we to others.

A moderator mutes a stream of ours at the server, which then hands it on to nobody. Everybody is sent away one by one:
to destroy the room would end it for everyone too, and leave none to come back to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import Effect, Ordered, Tell
from appliance.providers.janus.requests import Answer, Requests
from appliance.vocabulary import END_REASONS, Category, Json, Reason

__all__ = ["Moderation"]

AT_ONCE: Final = 16  # requests in one go: the connection holds some hundred messages that wait

_NOT_OURS: Final = Reason(
    403, "roomSecret", Category.EXPECTED, "The server does not take the secret of the room.",
    "Check secret_file of the room in the settings.")


class Moderation:
    """Of one membership. ``room``: its id; ``secret``: what lets us moderate, empty without."""

    def __init__(self, requests: Requests, room: int | str, secret: str, dialect: wire.Dialect) -> None:
        self._requests = requests
        self._room = room
        self._secret = secret
        self._dialect = dialect
        self._kinds: Mapping[str, str] = {}  # of our streams, by MID
        self._barred: set[str] = set()
        self._pending = 0  # answers to come
        self._orders: deque[Json] = deque()  # requests that follow those
        self._handle = 0
        self._refusal: Reason | None = None

    # --- what is done to us -----------------------------------------------------------------------------------------

    def publish(self, sdp: str) -> None:
        """What we send is that of this offer, anew."""
        self._kinds = wire.kinds_of(sdp)

    def moderated(self, mid: object, *, muted: bool) -> Sequence[Effect]:
        """A moderator mutes a stream of ours at the server, or lets it go."""
        kind = self._kinds.get(mid) if isinstance(mid, str) else None
        return [] if kind is None else self.bar(kind, muted=muted)

    def bar(self, kind: str, *, muted: bool) -> Sequence[Effect]:
        """What we send of this kind is handed on to nobody, or again."""
        if (kind in self._barred) is muted:
            return []
        self._barred ^= {kind}
        return [self._tell()]

    def forget(self) -> Sequence[Effect]:
        """We are not in the room any more; who joins again is not moderated."""
        answer: list[Effect] = [Ordered(END_REASONS["503/provider"])] if self._pending else []
        self._pending = 0
        self._orders.clear()
        self._kinds = {}
        if not self._barred:
            return answer
        self._barred.clear()
        return [*answer, self._tell()]

    def _tell(self) -> Effect:
        return Tell(api.Moderated(audio="audio" in self._barred, video="video" in self._barred))

    # --- what we do -------------------------------------------------------------------------------------------------

    @property
    def may_order(self) -> bool:
        return bool(self._secret)

    def order(self, handle: int, me: str, orders: Callable[[int | str], Sequence[Json]]) -> Sequence[Effect]:
        """Do to everybody but ``me`` what ``orders`` says of each, requests without room and secret; Ordered follows.
        One after the other: nothing happens while one is not done."""
        if self._pending:
            return []
        self._pending, self._refusal, self._handle = 1, None, handle
        return self._requests.tell_plugin(handle, {"request": "listparticipants", "room": self._room},
                                          self._listed(me, orders), self._not_listed)

    def _listed(self, me: str, orders: Callable[[int | str], Sequence[Json]]) -> Answer:
        def listed(message: Json) -> Sequence[Effect]:
            there = [who for who in wire.listed(wire.data_of(message)) if str(who) != me]
            self._orders.extend({**order, "id": who} for who in there for order in orders(who))
            return self._answered()

        return listed

    def _not_listed(self, error: Json) -> Sequence[Effect]:
        self._refusal = wire.fault_of(error, self._dialect)[1]
        return self._answered()

    def _done(self, _: Json) -> Sequence[Effect]:
        return self._answered()

    def _not_done(self, error: Json) -> Sequence[Effect]:
        if error.get("error_code", error.get("code")) != self._dialect.gone:
            self._refusal = replace(_NOT_OURS, message=f"{_NOT_OURS.message} It says: {wire.words_of(error)}")
        return self._answered()

    def _answered(self) -> Sequence[Effect]:
        self._pending -= 1
        effects: list[Effect] = []
        while self._orders and self._pending < AT_ONCE:
            self._pending += 1
            body = {**self._orders.popleft(), "room": self._room, "secret": self._secret}
            effects += self._requests.tell_plugin(self._handle, body, self._done, self._not_done)
        return effects if self._pending else [Ordered(self._refusal)]
