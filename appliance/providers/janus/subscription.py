"""What we receive of a room, as a state machine without I/O: one handle for the sound and pictures of all.

One negotiation runs at a time: the server answers a request that comes during another one later, by its own offer. A
stream of which nothing comes though it should is given back and subscribed anew; where nothing comes of anybody the
connection itself is made anew. Both ever more seldom and without end: whoever sends nothing for long may mean it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

from appliance.media.api import OnLine
from appliance.media.layout import Quality
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import CancelTimer, Carry, Effect, StartTimer, Timer, Unwatch, Watch
from appliance.providers.janus.protocol import Person
from appliance.providers.janus.requests import Answer, Requests, nothing
from appliance.vocabulary import Json

__all__ = ["Subscription"]

RENEW_S: Final = 5.0  # of silence before it is looked whether a stream is to be subscribed anew
RENEWED_AT: Final = frozenset({1, 3, 7, 15, 31})
"""Looks at a silent stream that have it subscribed anew: after 5, 15, 35, 75 and 155 s."""
RENEWED_EVERY: Final = 60
"""Looks between two later ones: five minutes."""

OFFER_S: Final = 10.0  # for an offer that the server owes us, and for our answer to one
FORGIVE_S: Final = 30.0  # until what the server did not give is asked for again

INSIST_S: Final = 1.0
INSISTED: Final = 4
"""Times that a quality is asked for again. The server changes at a key frame, asks the sender for one with each request
and only then, and libwebrtc ignores who asks within 300 ms after another."""

Stream = tuple[str, str]  # (feed, its MID)

_LAYERS: Final = {Quality.LOW: (0, 1), Quality.MID: (1, 2), Quality.HIGH: (2, 2)}
"""Substream and temporal layer of a sender of several, 0 to 2, the highest best; a small picture moves half as fast."""


class Subscription:
    """Of one membership, for each generation of it anew (``begin``).

    persons: those in the room by feed; seen: as who or what a stream is heard or shown; wanted: what is to be received
    now, with the quality where its sender has several; lost: the server made no handle, or owes us an offer.
    """

    def __init__(
        self, requests: Requests, persons: Mapping[str, Person], *,
        seen: Callable[[Stream], OnLine],
        wanted: Callable[[], Mapping[Stream, Quality | None]], lost: Callable[[], Sequence[Effect]],
    ) -> None:
        self._requests = requests
        self._persons = persons
        self._seen = seen
        self._wanted = wanted
        self._lost = lost
        self._generation = 0
        self._door: Callable[[], Json] | None = None  # what a request to join has; None: we are in no room
        self._negotiating = False
        self._attached = False  # the server has a subscription of ours
        self._mids: dict[Stream, str] = {}  # our MID of each
        self._pictures: set[Stream] = set()  # those of them that are no sound
        self._given: dict[Stream, Quality] = {}  # what the server was asked for, of senders of several
        self._insisting: dict[Stream, int] = {}  # times that it was asked for again
        self._switches = True  # the server puts another person on a line without a negotiation
        self._fed: set[Stream] = set()  # those whose data messages come: all on one line
        self._unusable: set[Stream] = set()  # not to be had, until the person is told of again or time has passed
        self._singly = False  # one person at a time: of several the server has refused one, and says not which
        self._still: Set[str] = frozenset()  # our MIDs of which nothing comes
        self._looks: dict[Stream, int] = {}  # at a stream that was silent each time
        self._renewing: set[Stream] = set()  # to be given back
        self._owed = False  # the server has still to make the offer with our last change in it
        self._unanswered = False  # it has made one, of which media have still to make an answer
        self.handle: int | None = None

    @property
    def lines(self) -> Set[Stream]:
        """What the server sends us."""
        return self._mids.keys()

    def begin(self, generation: int, door: Callable[[], Json]) -> None:
        """We are in the room. ``door`` gives its id and what opens it now."""
        self._generation = generation
        self._door = door

    def forget(self) -> None:
        """We are not in the room any more. The handle may be claimed."""
        self._door = None
        self._clear()
        self._unusable.clear()
        self._looks.clear()
        self._switches = True

    def _clear(self) -> None:
        """There is no subscription of ours."""
        self._negotiating = self._attached = self._singly = self._owed = self._unanswered = False
        self._mids.clear()
        self._pictures.clear()
        self._given.clear()
        self._insisting.clear()
        self._fed.clear()
        self._still = frozenset()
        self._renewing.clear()

    def token_renewed(self) -> Sequence[Effect]:
        """Qualities that were refused for the old one are asked for again."""
        self._given.clear()
        return self.follow()

    def told_of(self, feed: str) -> None:
        """This person sends something anew: it is worth a try."""
        self._unusable = {one for one in self._unusable if one[0] != feed}

    def follow(self) -> Sequence[Effect]:
        """Come nearer to what is wanted, by one step."""
        if self._door is None or self._negotiating:
            return []
        self._renewing &= self._mids.keys()
        qualities = self._wanted()
        wanted = qualities.keys() - self._unusable - self._renewing
        self._fed &= wanted  # of who has left nothing comes by itself
        have = self._mids.keys() | self._fed
        if not self._attached:
            if not wanted:
                return []
            self._negotiating = True
            if self.handle is None:
                return self._requests.ask({"janus": "attach", "plugin": wire.VIDEO_ROOM.plugin}, self._handle_made)
            return self._join(self.handle, self._next(wanted))
        if self.handle is None or wanted == have:
            self._singly = False
            return [] if self.handle is None else self._configure(self.handle, qualities)
        self._negotiating = True
        if pairs := self._pairs(have - wanted, wanted - have):
            return self._switch(self.handle, pairs)
        if superfluous := have - wanted:
            return self._change(self.handle, "unsubscribe", superfluous)
        return self._change(self.handle, "subscribe", self._next(wanted - have))

    def still(self, mids: Set[str]) -> Sequence[Effect]:
        """Nothing comes on these lines of ours."""
        first = not self._still
        self._still = mids
        return [StartTimer(Timer.RENEW, RENEW_S)] if mids and first else []

    def renew(self) -> Sequence[Effect]:
        """Look at the silent ones again. Where nothing comes of several at once, or still not of the only one, it may
        be the connection; another disturbs nobody then."""
        flowing = {stream for stream, mid in self._mids.items() if mid not in self._still}
        self._looks = {stream: looks for stream, looks in self._looks.items()
                       if stream not in flowing and stream[0] in self._persons}
        due = set()
        for stream, mid in self._mids.items():
            if mid in self._still and not self._muted(stream):
                looks = self._looks[stream] = self._looks.get(stream, 0) + 1
                if looks in RENEWED_AT or looks % RENEWED_EVERY == 0:
                    due.add(stream)
        several = len({feed for feed, _ in due}) > 1
        if due and not flowing and not self._negotiating and (several or max(map(self._looks.__getitem__, due)) > 1):
            return self._anew()
        self._renewing |= due
        again = [StartTimer(Timer.RENEW, RENEW_S)] if self._still or self._renewing else []
        return [*again, *self.follow()]

    def overdue(self) -> Sequence[Effect]:
        """The server made no offer that it owes us, or we made no answer to one."""
        return self._lost() if self._owed or self._unanswered else []

    def forgive(self) -> Sequence[Effect]:
        """What the server did not give may be to be had now."""
        self._unusable.clear()
        return self.follow()

    def _anew(self) -> Sequence[Effect]:
        """By another handle, and so by another connection."""
        effects: list[Effect] = [Unwatch(self._generation), CancelTimer(Timer.OFFER)]
        if self.handle is not None:
            effects += self._requests.ask({"janus": "detach", "handle_id": self.handle}, nothing, nothing)
        self.handle = None
        self._clear()
        return [*effects, *self.follow()]

    def insist(self) -> Sequence[Effect]:
        """Ask again for the qualities that were asked for last; of one that is there the server does nothing."""
        self._insisting = {one: times + 1 for one, times in self._insisting.items()
                           if times < INSISTED and one in self._given and one in self._mids}
        if self.handle is None or self._door is None or not self._insisting:
            return []
        other = {one: self._given[one] for one in self._insisting}
        return [*self._request(self.handle, other), StartTimer(Timer.INSIST, INSIST_S)]

    def watched(self, generation: int, sdp: str) -> Sequence[Effect]:
        """Our answer to the server's offer."""
        if generation != self._generation or self._door is None or self.handle is None:
            return []
        self._unanswered = False
        in_time: Sequence[Effect] = [] if self._owed else [CancelTimer(Timer.OFFER)]
        return [*in_time, *self._requests.tell_plugin(self.handle, {"request": "start"}, self._started,
                                                      jsep={"type": "answer", "sdp": sdp})]

    def taken_off(self, message: Json) -> Sequence[Effect]:
        """Not of our asking: who is not on a line any more has left, as the room will tell in a moment."""
        before = set(self._mids)
        effects = self._changed(message)
        return [*self._not_to_be_had(before - set(self._mids)), *effects]

    def hung_up(self) -> Sequence[Effect]:
        """The server closed the connection, on which nobody was."""
        return self._anew()

    # --- steps ------------------------------------------------------------------------------------------------------

    def _next(self, missing: Set[Stream]) -> set[Stream]:
        """What is asked for next: all, or what one person sends."""
        first = min(missing)[0]
        return {one for one in missing if not self._singly or one[0] == first}

    def _muted(self, stream: Stream) -> bool:
        """By a moderator: nothing is to come."""
        person = self._persons.get(stream[0])
        return person is None or any(one.mid == stream[1] and one.muted for one in person.streams)

    def _handle_made(self, message: Json) -> Sequence[Effect]:
        self.handle = wire.new_id(message)
        if self.handle is None:
            return self._lost()
        self._negotiating = False
        return self.follow()

    def _join(self, handle: int, streams: set[Stream]) -> Sequence[Effect]:
        door = self._door() if self._door is not None else {}
        body = {**door, "request": "join", "ptype": "subscriber", "streams": self._named(streams)}
        return self._requests.tell_plugin(handle, body, self._given_now(streams), self._refused(streams))

    def _change(self, handle: int, request: str, streams: set[Stream]) -> Sequence[Effect]:
        names: list[Json] = self._named(streams)
        if request == "unsubscribe":
            names = [{"sub_mid": self._mids[one]} for one in sorted(streams)]
        return self._requests.tell_plugin(handle, {"request": request, "streams": names}, self._given_now(streams),
                                          self._refused(streams))

    def _given_now(self, streams: set[Stream]) -> Answer:
        """The server's answer, which does not name those whose data messages are added to the line of others."""

        fed = {one for one in streams if self._kind(one) == "data"}

        def done(message: Json) -> Sequence[Effect]:
            self._fed |= fed
            data = wire.data_of(message)
            if not fed and data.get("videoroom") == "updated" and "streams" not in data:
                return self._anew()  # nothing changed for it: what it has of us is not what we believe
            return self._changed(message)

        return done

    def _pairs(self, superfluous: Set[Stream], missing: Set[Stream]) -> Mapping[Stream, Stream]:
        """Pictures that can take the lines of others. Of who has left the server itself takes the lines away."""
        if not self._switches:
            return {}
        free = sorted(one for one in superfluous & self._pictures if one[0] in self._persons)
        return dict(zip(free, sorted(one for one in missing if self._kind(one) == "video"), strict=False))

    def _kind(self, stream: Stream) -> str:
        person = self._persons.get(stream[0])
        return next((one.kind for one in person.streams if one.mid == stream[1]), "") if person is not None else ""

    def _switch(self, handle: int, pairs: Mapping[Stream, Stream]) -> Sequence[Effect]:
        """Nobody is on those lines until the server has answered: what comes meanwhile is of the one or the other."""
        names = [{**named, "sub_mid": self._mids[old]}
                 for old, new in pairs.items() for named in self._named({new})]
        body = {"request": "switch", "streams": names}
        return [self._carry(one for one in self._mids if one not in pairs),
                *self._requests.tell_plugin(handle, body, self._switched(pairs), self._not_switched)]

    def _switched(self, pairs: Mapping[Stream, Stream]) -> Answer:
        def done(message: Json) -> Sequence[Effect]:
            data = wire.data_of(message)
            if data.get("switched") != "ok":
                return self._not_switched(message)
            if isinstance(data.get("streams"), list):
                self._take_lines(wire.lines_of(data))
            else:
                for old, new in pairs.items():
                    self._mids[new] = self._mids.pop(old)
                    self._pictures = self._pictures - {old} | {new}
            for stream in (*pairs, *pairs.values()):  # the line may have kept the layers of the one before
                self._given.pop(stream, None)
            self._negotiating = False
            return [self._carry(self._mids), *self.follow()]

        return done

    def _not_switched(self, _: Json) -> Sequence[Effect]:
        """One has just left, or the server knows no such thing: by a negotiation, then."""
        self._switches = self._negotiating = False
        return [self._carry(self._mids), *self.follow()]

    def _carry(self, streams: Iterable[Stream]) -> Carry:
        return Carry(self._generation, {self._mids[one]: self._seen(one) for one in streams})

    def _configure(self, handle: int, qualities: Mapping[Stream, Quality | None]) -> Sequence[Effect]:
        """Ask for another quality of those whose seats have changed."""
        other = {one: quality for one, quality in qualities.items()
                 if quality is not None and one in self._mids and self._given.get(one) is not quality}
        if not other:
            return []
        self._given |= other
        self._insisting |= dict.fromkeys(other, 0)
        return [*self._request(handle, other), StartTimer(Timer.INSIST, INSIST_S)]

    def _request(self, handle: int, other: Mapping[Stream, Quality]) -> Sequence[Effect]:
        streams = [{"mid": self._mids[one], "substream": _LAYERS[quality][0], "temporal": _LAYERS[quality][1]}
                   for one, quality in sorted(other.items())]
        return self._requests.tell_plugin(handle, {"request": "configure", "streams": streams}, _settled, _settled)

    def _take_lines(self, lines: Sequence[wire.Line]) -> None:
        self._mids = {(line.feed, line.feed_mid): line.mid for line in lines}
        self._pictures = {(line.feed, line.feed_mid) for line in lines if line.kind == "video"}
        self._given = {one: quality for one, quality in self._given.items() if one in self._mids}

    def _named(self, streams: set[Stream]) -> list[Json]:
        return [{"feed": person.id, "mid": mid} for feed, mid in sorted(streams)
                if (person := self._persons.get(feed)) is not None]

    def _changed(self, message: Json) -> Sequence[Effect]:
        """``attached`` or ``updated``, by our request or because somebody left: who is on which line now."""
        data = wire.data_of(message)
        if data.get("videoroom") not in ("attached", "updated"):
            return []
        self._attached = True
        if "streams" not in data:  # data messages of one more person, on the line that is there
            self._negotiating = False
            return self.follow()
        lines = wire.lines_of(data)
        self._take_lines(lines)
        sdp = wire.sdp_of(message, "offer")
        self._owed = sdp is None
        self._negotiating = self._unanswered = sdp is not None
        in_time = StartTimer(Timer.OFFER, OFFER_S)
        if sdp is None:  # another offer is still under way; the next one has this change in it
            return [in_time]
        on = {line.mid: self._seen((line.feed, line.feed_mid)) for line in lines}
        return [in_time, Watch(self._generation, sdp, on)]

    def _started(self, _: Json) -> Sequence[Effect]:
        self._negotiating = False
        return self.follow()

    def _refused(self, streams: set[Stream]) -> Answer:
        """Who was to be subscribed has just left, or is not to be had: the others are."""

        def failed(_: Json) -> Sequence[Effect]:
            effects: Sequence[Effect] = []
            if len({feed for feed, _ in streams}) > 1:
                self._singly = True
            else:
                effects = self._not_to_be_had(streams)
            self._negotiating = False
            return [*effects, *self.follow()]

        return failed

    def _not_to_be_had(self, streams: set[Stream]) -> Sequence[Effect]:
        first = streams and not self._unusable
        self._unusable |= streams
        return [StartTimer(Timer.FORGIVE, FORGIVE_S)] if first else []


def _settled(_: Json) -> Sequence[Effect]:
    """A quality the server has not, or not any more, is not worth a word: it sends what it has."""
    return []
