"""What we receive of a room, as a state machine without I/O: one handle for the sound and pictures of all.

One negotiation runs at a time: the server answers a request that comes during another one later, by its own offer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from appliance.media.api import OnLine
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import Effect, Unwatch, Watch
from appliance.providers.janus.protocol import Person
from appliance.providers.janus.requests import Answer, Requests, nothing
from appliance.vocabulary import Json

__all__ = ["Subscription"]

Stream = tuple[str, str]  # (feed, its MID)


class Subscription:
    """Of one membership, for each generation of it anew (``begin``).

    persons: those in the room by feed; wanted: what is to be received now; lost: the server made no handle.
    """

    def __init__(
        self, requests: Requests, persons: Mapping[str, Person], *, wanted: Callable[[], Set[Stream]],
        lost: Callable[[], Sequence[Effect]],
    ) -> None:
        self._requests = requests
        self._persons = persons
        self._wanted = wanted
        self._lost = lost
        self._generation = 0
        self._door: Json | None = None  # what a request to join has; None: we are in no room
        self._negotiating = False
        self._attached = False  # the server has a subscription of ours
        self._mids: dict[Stream, str] = {}  # our MID of each
        self._unusable: set[Stream] = set()  # not to be had, until the person is told of again
        self._singly = False  # one person at a time: of several the server has refused one, and says not which
        self.handle: int | None = None

    @property
    def lines(self) -> Set[Stream]:
        """What the server sends us."""
        return self._mids.keys()

    def begin(self, generation: int, door: Json) -> None:
        """We are in the room. ``door``: the room and what opens it."""
        self._generation = generation
        self._door = door

    def forget(self) -> None:
        """We are not in the room any more. The handle may be claimed."""
        self._door = None
        self._negotiating = self._attached = self._singly = False
        self._mids.clear()
        self._unusable.clear()

    def told_of(self, feed: str) -> None:
        """This person sends something anew: it is worth a try."""
        self._unusable = {one for one in self._unusable if one[0] != feed}

    def follow(self) -> Sequence[Effect]:
        """Come nearer to what is wanted, by one step."""
        if self._door is None or self._negotiating:
            return []
        wanted, have = self._wanted() - self._unusable, set(self._mids)
        if not self._attached:
            if not wanted:
                return []
            self._negotiating = True
            if self.handle is None:
                return self._requests.ask({"janus": "attach", "plugin": wire.PLUGIN}, self._handle_made)
            return self._join(self.handle, self._next(wanted))
        if self.handle is None or wanted == have:
            self._singly = False
            return []
        self._negotiating = True
        if superfluous := have - wanted:
            return self._change(self.handle, "unsubscribe", superfluous)
        return self._change(self.handle, "subscribe", self._next(wanted - have))

    def watched(self, generation: int, sdp: str) -> Sequence[Effect]:
        """Our answer to the server's offer."""
        if generation != self._generation or self._door is None or self.handle is None:
            return []
        return self._requests.tell_plugin(self.handle, {"request": "start"}, self._started,
                                          jsep={"type": "answer", "sdp": sdp})

    def taken_off(self, message: Json) -> Sequence[Effect]:
        """Not of our asking: who is not on a line any more has left, as the room will tell in a moment."""
        before = set(self._mids)
        effects = self._changed(message)
        self._unusable |= before - set(self._mids)
        return effects

    def hung_up(self) -> Sequence[Effect]:
        """The server closed the connection, on which nobody was."""
        effects: list[Effect] = [Unwatch(self._generation)]
        if self.handle is not None:
            effects += self._requests.ask({"janus": "detach", "handle_id": self.handle}, nothing, nothing)
        self.handle, self._attached, self._negotiating = None, False, False
        return [*effects, *self.follow()]

    # --- steps ------------------------------------------------------------------------------------------------------

    def _next(self, missing: Set[Stream]) -> set[Stream]:
        """What is asked for next: all, or what one person sends."""
        first = min(missing)[0]
        return {one for one in missing if not self._singly or one[0] == first}

    def _handle_made(self, message: Json) -> Sequence[Effect]:
        self.handle = wire.new_id(message)
        if self.handle is None:
            return self._lost()
        self._negotiating = False
        return self.follow()

    def _join(self, handle: int, streams: set[Stream]) -> Sequence[Effect]:
        body = {**(self._door or {}), "request": "join", "ptype": "subscriber", "streams": self._named(streams)}
        return self._requests.tell_plugin(handle, body, self._changed, self._refused(streams))

    def _change(self, handle: int, request: str, streams: set[Stream]) -> Sequence[Effect]:
        names: list[Json] = self._named(streams)
        if request == "unsubscribe":
            names = [{"sub_mid": self._mids[one]} for one in sorted(streams)]
        return self._requests.tell_plugin(handle, {"request": request, "streams": names}, self._changed,
                                          self._refused(streams))

    def _named(self, streams: set[Stream]) -> list[Json]:
        return [{"feed": person.id, "mid": mid} for feed, mid in sorted(streams)
                if (person := self._persons.get(feed)) is not None]

    def _changed(self, message: Json) -> Sequence[Effect]:
        """``attached`` or ``updated``, by our request or because somebody left: who is on which line now."""
        data = wire.data_of(message)
        if data.get("videoroom") not in ("attached", "updated"):
            return []
        self._attached = True
        lines = wire.lines_of(data)
        self._mids = {(line.feed, line.feed_mid): line.mid for line in lines}
        sdp = wire.sdp_of(message, "offer")
        if sdp is None:  # another offer is still under way; the next one has this change in it
            self._negotiating = False
            return []
        self._negotiating = True
        on = {line.mid: OnLine(line.feed) for line in lines}
        return [Watch(self._generation, sdp, on)]

    def _started(self, _: Json) -> Sequence[Effect]:
        self._negotiating = False
        return self.follow()

    def _refused(self, streams: set[Stream]) -> Answer:
        """Who was to be subscribed has just left, or is not to be had: the others are."""

        def failed(_: Json) -> Sequence[Effect]:
            if len({feed for feed, _ in streams}) > 1:
                self._singly = True
            else:
                self._unusable |= streams
            self._negotiating = False
            return self.follow()

        return failed
