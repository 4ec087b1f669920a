"""Being in a room of the VideoRoom plug-in, as a state machine without I/O: who is there, and what is received of whom.

Once let in we publish on the handle that we joined with, and on a second one subscribe to what is heard and shown
(``subscription``); what we share has a third (``sharing``). The rest of it is that of any ``stay``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final

from appliance.media.api import OnLine
from appliance.media.layout import Quality, Shows, Source
from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import Effect, Publish, StartTimer, TakenOver, Tell, Timer
from appliance.providers.janus.identities import Identities
from appliance.providers.janus.protocol import Person, Stream
from appliance.providers.janus.shares import Shares
from appliance.providers.janus.sharing import Sharing
from appliance.providers.janus.stay import Room, Stay
from appliance.providers.janus.subscription import Subscription
from appliance.vocabulary import END_REASONS, Json

__all__ = ["Membership"]

VOICES: Final = 24
PICTURES: Final = 9  # of people
SHARED: Final = 1  # beside them
SILENT_DB: Final = -127.0
TALKING_DB: Final = -40.0  # what somebody counts with of whom only the server says that they talk
SENDERS: Final = 100  # of data messages: Janus has 150 channels in all for each who listens


class Membership(Stay):
    """See the module. ``new_transaction`` gives unguessable, unique words, ``monotonic`` seconds."""

    DIALECT = wire.VIDEO_ROOM

    def __init__(
        self, room: Room, *, me: api.Peer, shows: bool, new_transaction: Callable[[], str],
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(room, me=me, new_transaction=new_transaction, monotonic=monotonic)
        self._shows = shows
        self._hears, self._sees = True, True
        self._view: Mapping[Source, Quality] | None = None
        self._persons: dict[str, Person] = {}  # by feed, in the order in which they came; we among them
        self._identities = Identities(monotonic)
        self._absent: Set[str] = frozenset()
        self._levels: Mapping[str, int] = {}
        self._subscription = Subscription(
            self._requests, self._persons, seen=self._seen, wanted=self._wanted,
            lost=lambda: self._lose("signalling", END_REASONS["503/provider"]))
        self._sharing = Sharing(self._requests, me, joined=self._know_ourselves)

    # --- what happens -----------------------------------------------------------------------------------------------

    def watched(self, generation: int, sdp: str) -> Sequence[Effect]:
        """Our answer to the server's offer."""
        return [] if self._over else self._subscription.watched(generation, sdp)

    def absent(
        self, generation: int, feeds: Set[str], lines: Set[str] = frozenset(), levels: Mapping[str, int] | None = None,
    ) -> Sequence[Effect]:
        """Of these people nothing arrives, and on these lines of the subscription; ``levels``: how well what the others
        send arrives, by feed."""
        if generation != self.generation or self._over:
            return []
        self._absent, self._levels = feeds, levels or {}
        return [*self._subscription.still(lines), *self._roster()]

    def voices(self, generation: int, levels: Mapping[str, float]) -> Sequence[Effect]:
        """How loud these people are, in dBFS. Of those who are not heard here the server may say that they talk."""
        if generation != self.generation or self._over:
            return []
        found = {person.feed: max(levels.get(person.feed, SILENT_DB), TALKING_DB if person.talking else SILENT_DB)
                 for person in self._people()}
        return [Tell(api.Voices(found))]

    def want(self, *, hears: bool, sees: bool, view: Mapping[Source, Quality] | None = None) -> Sequence[Effect]:
        """What we want to receive from here on. ``view``: whose pictures; None: those of the first."""
        self._hears, self._sees, self._view = hears, sees, view
        return [] if self._over else [*self._subscription.follow(), *self._roster()]

    def share(self, wanted: bool) -> Sequence[Effect]:
        """Whether something of ours is to be shared from here on."""
        return [] if self._over else self._sharing.want(wanted)

    def shared(self, generation: int, sdp: str) -> Sequence[Effect]:
        """The offer of what is shared."""
        return [] if self._over else self._sharing.offered(generation, sdp)

    def sharing_lost(self, generation: int) -> Sequence[Effect]:
        return [] if self._over else self._sharing.lost(generation)

    def token_renewed(self) -> Sequence[Effect]:
        if self._over or not self._linked or not self._me_there:
            return []
        return [*super().token_renewed(), *self._subscription.token_renewed()]

    def timeout(self, timer: Timer) -> Sequence[Effect]:
        if self._over:
            return []
        match timer:
            case Timer.RENEW:
                return [*self._subscription.renew(), *self._roster()]
            case Timer.OFFER:
                return self._subscription.overdue()
            case Timer.FORGIVE:
                return self._subscription.forgive()
            case Timer.INSIST:
                return self._subscription.insist()
            case Timer.TAKE_OVER:
                return [*self._settle(), *self._subscription.follow(), *self._roster()]
            case _:
                return super().timeout(timer)

    # --- in and out -------------------------------------------------------------------------------------------------

    def _join(self, handle: int) -> Sequence[Effect]:
        return self._requests.tell_plugin(handle, {
            **self._door(), "request": "join", "ptype": "publisher", "display": self._me.display_name,
            "metadata": {"identity": self._me.identity}}, self._joined)

    def _joined(self, message: Json) -> Sequence[Effect]:
        data = wire.data_of(message)
        me = wire.me_of(data)
        if me is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        effects = [*self._let_in(me, wire.description_of(data))]
        self._take_persons(data)
        self._persons[self._me_there] = Person(me, self._me.display_name, self._me.identity)
        effects += self._settle()
        private = wire.private_of(data)
        ours = {} if private is None else {"private_id": private}
        self._subscription.begin(self.generation, lambda: {**self._door(), **ours})
        effects += self._roster()
        return [*effects, Publish(self.generation), *self._subscription.follow(),
                *self._sharing.begin(self.generation, self._door)]

    def _publish(self, handle: int, sdp: str) -> Sequence[Effect]:
        self._moderation.publish(sdp)
        return self._requests.tell_plugin(handle, {"request": "publish"}, self._published,
                                          jsep={"type": "offer", "sdp": sdp})

    def _other_handles(self) -> Sequence[int]:
        ours = (self._subscription.handle, self._sharing.handle)
        return [*super()._other_handles(), *(one for one in ours if one is not None)]

    def _drop_handles(self) -> None:
        super()._drop_handles()
        self._subscription.handle = self._sharing.handle = None

    def _forget(self) -> None:
        self._persons.clear()
        self._identities.forget()
        self._subscription.forget()
        self._sharing.forget()
        self._absent, self._levels = frozenset(), {}

    # --- what the server tells --------------------------------------------------------------------------------------

    def _event(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        sender, kind = message.get("sender"), message.get("janus")
        if sender is not None and sender == self._sharing.handle:
            if kind == "trickle":
                return self._trickled(message.get("candidate"), shared=True)
            return self._sharing.lost(self.generation) if kind in ("hangup", "detached") else []
        if sender is None or sender not in (self._publisher, self._subscription.handle):
            return []
        watching = sender == self._subscription.handle
        match kind:
            case "hangup" | "detached":
                return self._hung_up(watching=watching)
            case "trickle":
                return self._trickled(message.get("candidate"), watching=watching)
            case "event" if watching:
                return [*self._subscription.taken_off(dict(message)), *self._roster()]
            case "event":
                return self._room_event(wire.data_of(message))
            case _:
                return []

    def _room_event(self, data: Json) -> Sequence[Effect]:
        kind = data.get("videoroom")
        if kind == "destroyed":
            return self._finish(END_REASONS["0/endedForAll"])
        if data.get("leaving") == "ok":
            removed = data.get("reason") == "kicked"
            return self._finish(END_REASONS["0/removed" if removed else "0/remote"])
        if kind in ("talking", "stopped-talking"):
            self._change(data.get("id"), talking=kind == "talking")
        elif "moderation" in data and str(data.get("id")) == self._me_there:
            return self._moderation.moderated(data.get("mid"), muted=data["moderation"] == "muted")
        elif "moderation" in data:
            self._moderate(data.get("id"), data.get("mid"), muted=data["moderation"] == "muted")
        else:
            self._take_persons(data)
            self._change(data.get("unpublished"), streams=())
            if "id" in data and "display" in data:  # newer servers say beside what else happened whose name it was
                self._change(data["id"], name=wire.name_of(data))
            for word in ("leaving", "kicked"):
                self._persons.pop(str(data.get(word)), None)
        return [*self._settle(), *self._subscription.follow(), *self._roster()]

    def _take_persons(self, data: Json) -> None:
        """Those who are told of now; a publisher whose streams changed is told of again, with all of them."""
        for person in wire.persons(data):
            if person.feed in self._persons or len(self._persons) < wire.PERSONS:
                self._persons[person.feed] = person
                self._subscription.told_of(person.feed)
        for person in wire.attendees(data):
            if len(self._persons) < wire.PERSONS:
                self._persons.setdefault(person.feed, person)

    def _change(self, who: object, **changes: Any) -> None:
        person = self._persons.get(str(who))
        if person is not None:
            self._persons[person.feed] = replace(person, **changes)

    def _moderate(self, who: object, mid: object, *, muted: bool) -> None:
        person = self._persons.get(str(who))
        if person is not None:
            self._change(who, streams=tuple(
                replace(one, muted=muted) if one.mid == mid else one for one in person.streams))

    def _feeds_of(self, who: str) -> Set[str]:
        person = self._persons.get(who)
        shared = None if person is None else Shares(self._persons.values()).of(person)
        return {who} if shared is None else {who, shared[0]}

    def _muting(self, who: int | str) -> Sequence[Json]:
        person = self._persons.get(str(who))
        return [{"request": "moderate", "mid": one.mid, "mute": True}
                for one in (() if person is None else person.streams) if one.kind == "audio" and not one.muted]

    def _hung_up(self, *, watching: bool) -> Sequence[Effect]:
        """The server closed a peer connection; of the subscription that is no loss where nobody was on it."""
        if watching and not self._subscription.lines:
            return self._subscription.hung_up()
        return self._lose("media", END_REASONS["410/mediaLost"])

    # --- who is there -----------------------------------------------------------------------------------------------

    def _settle(self) -> Sequence[Effect]:
        """Others have come or gone: who is shown of those under one identity. What somebody shares is none of them."""
        taken, wait_s = self._identities.settle(one for one in self._persons.values() if not one.only_shares)
        told: list[Effect] = [TakenOver(identity) for identity in taken]
        return told if wait_s is None else [*told, StartTimer(Timer.TAKE_OVER, wait_s)]

    def _people(self, shares: Shares | None = None) -> Sequence[Person]:
        """The others, each once: of an identity that is there twice the one that has it, of ourselves no ghost."""
        shares = shares or Shares(self._persons.values())
        return [person for person in self._persons.values()
                if person.feed not in self._ours and not shares.is_of_another(person)
                and (shares.only(person) or self._identities.shown(person))]

    def _wanted(self) -> Mapping[tuple[str, str], Quality | None]:
        """The streams that are heard or shown, as (feed, MID there), and how large where there is a choice."""
        shares = Shares(self._persons.values())
        people = self._people(shares)
        found: dict[tuple[str, str], Quality | None] = {}
        for kind, codec, most, wanted in (
            ("audio", "opus", VOICES, self._hears), ("video", "h264", PICTURES, self._sees and self._shows),
        ):
            usable = [(person.feed, one) for person in people
                      if (one := person.stream(kind)) is not None and one.codec == codec
                      and (kind == "audio" or self._view is None or Source(person.feed) in self._view)]
            for feed, one in usable[:most] if wanted else ():
                found[feed, one.mid] = self._quality(Source(feed), one)
        content = [(Source(person.feed, Shows.CONTENT), *shared) for person in people
                   if (shared := shares.of(person)) is not None and shared[1].codec == "h264"]
        shown = [one for one in content if self._view is None or one[0] in self._view]
        for source, feed, one in shown[:SHARED] if self._sees and self._shows else ():
            found[feed, one.mid] = self._quality(source, one)
        for person in people[:SENDERS] if not self.text.exists else ():
            data = person.stream("data")
            if data is not None:
                found[person.feed, data.mid] = None
        return found

    def _quality(self, source: Source, stream: Stream) -> Quality | None:
        return self._view.get(source) if self._view is not None and stream.simulcast else None

    def _seen(self, stream: tuple[str, str]) -> OnLine:
        """As whose voice or picture a stream is heard or shown."""
        sender = self._persons.get(stream[0])
        if sender is None or sender.content is None or sender.content.mid != stream[1]:
            return OnLine(stream[0])
        shares = Shares(self._persons.values())
        owner = next((one for one in self._people(shares) if shares.of(one) == (sender.feed, sender.content)), sender)
        return OnLine(owner.feed, Shows.CONTENT)

    def _members(self) -> tuple[api.Member, ...]:
        carried = {feed for feed, _ in self._subscription.lines}
        shares = Shares(self._persons.values())
        return tuple(self._member(person, carried, shares.of(person)) for person in self._people(shares))

    def _member(self, person: Person, carried: Set[str], shared: tuple[str, Stream] | None) -> api.Member:
        voice, picture = person.stream("audio"), person.stream("video")
        away = person.feed in self._absent and person.feed in carried
        return api.Member(
            person.feed, person.identity or person.name, person.name, muted=voice is None or voice.muted,
            speaking=person.talking, video=picture is not None and not picture.muted, away=away,
            receiving=picture is not None and (person.feed, picture.mid) in self._subscription.lines and not away,
            quality=0 if away else self._levels.get(person.feed), content=shared is not None,
            content_receiving=shared is not None and (shared[0], shared[1].mid) in self._subscription.lines)
