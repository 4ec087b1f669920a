"""Being in a room, as a state machine without I/O: what happens comes in, what is to be done comes out.

One membership is one call. Its connection to the server, its handles and its media may be made anew many times under
it: whatever is lost (the socket, the session at the server, a peer connection, all sound and picture), everything is
dropped and the room is joined again, with a claim of the old session first, so that no ghost of us stays behind.

Order: connect, create (or claim), attach, join; then publish on this handle, and on a second one subscribe to what is
heard and shown (``subscription``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

from appliance.media.api import OnLine, SessionClosed, SessionEvent, SessionSilent, SessionStranded, SessionUp
from appliance.media.layout import Quality, Shows, Source
from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import (
    CancelTimer,
    Drop,
    Effect,
    Expelled,
    Finish,
    GiveUp,
    Open,
    Publish,
    Shut,
    StartTimer,
    TakeAnswer,
    TakenOver,
    Tell,
    Timer,
    TokenJudged,
    Trickle,
)
from appliance.providers.janus.identities import Identities
from appliance.providers.janus.moderation import Moderation
from appliance.providers.janus.protocol import Fault, Person, Stream
from appliance.providers.janus.requests import Asked, Requests, nothing
from appliance.providers.janus.shares import Shares
from appliance.providers.janus.sharing import Sharing
from appliance.providers.janus.subscription import Subscription
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = ["Membership", "Room"]

KEEPALIVE_S: Final = 20.0  # a session that says nothing for 60 s is ended by the server
BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds before the room is joined again; the last one repeats: a network that is back is used within it."""
GHOSTS: Final = 64  # ids of ours that are remembered: the server keeps one that is lost for a minute
VOICES: Final = 24
PICTURES: Final = 9
SILENT_DB: Final = -127.0
TALKING_DB: Final = -40.0  # what somebody counts with of whom only the server says that they talk
SENDERS: Final = 100  # of data messages: Janus has 150 channels in all for each who listens


@dataclass(frozen=True, slots=True)
class Room:
    """Which room, and what opens it. ``token`` gives the one for server and room that holds now, ``""`` where there
    is none; ``own_token`` is for the room in its place, ``api_secret`` for the server; ``secret`` lets us moderate the
    room."""

    id: int | str
    name: str
    pin: str = field(default="", repr=False)
    token: Callable[[], str] = field(default=lambda: "", repr=False)
    own_token: str = field(default="", repr=False)
    api_secret: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)


class Membership:
    """See the module. ``new_transaction`` gives unguessable, unique words, ``monotonic`` seconds."""

    def __init__(
        self, room: Room, *, me: api.Peer, shows: bool, new_transaction: Callable[[], str],
        monotonic: Callable[[], float],
    ) -> None:
        self._room = room
        self._me = me
        self._shows = shows
        self._hears, self._sees = True, True
        self._view: Mapping[Source, Quality] | None = None
        self._over = False
        self._linked = False
        self._requests = Requests(new_transaction, token=room.token, secret=room.api_secret)
        self._moderation = Moderation(self._requests, room.id, room.secret)
        self._publisher: int | None = None  # handle
        self._ours: dict[str, None] = {}  # our own ids, the earlier ones too: ghosts
        self._me_there: str = ""  # our id in the room
        self._accepted = False
        self._connected = False  # once
        self._lost = False
        self._attempt = 0
        self.generation = 0
        self._persons: dict[str, Person] = {}  # by feed, in the order in which they came; we among them
        self._identities = Identities(monotonic)
        self._absent: Set[str] = frozenset()
        self._levels: Mapping[str, int] = {}
        self._told: tuple[api.Member, ...] = ()
        self._subscription = Subscription(
            self._requests, self._persons, seen=self._seen, wanted=self._wanted,
            lost=lambda: self._lose("signalling", END_REASONS["503/provider"]))
        self._sharing = Sharing(self._requests, me, joined=self._know_ourselves)

    # --- what happens -----------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self._over

    def start(self) -> Sequence[Effect]:
        return [Open()]

    def link_up(self, *, same: bool = True) -> Sequence[Effect]:
        """``same``: with the server of the last time, which may have our session still."""
        self._linked = True
        if self._requests.session is not None and same:
            return self._requests.ask({"janus": "claim"}, self._claimed, self._not_claimed)
        return self._create()

    def link_down(self, words: str, *, elsewhere: bool = False) -> Sequence[Effect]:
        """The connection could not be made, or is gone. ``elsewhere``: another server is to be tried, at once."""
        if self._over:
            return []
        if elsewhere:
            return [*self._let_go("signalling"), Open()]
        reason = replace(END_REASONS["503/provider"], message=f"The room server is not reached: {words}")
        return self._lose("signalling", reason)

    def receive(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        """A message of the server."""
        if self._over or not self._linked:
            return []
        if message.get("janus") == "ack":
            return self._requests.acknowledged(message)
        asked, effects = self._requests.answered(message)
        data = wire.data_of(message)
        error = message.get("error") if message.get("janus") == "error" else data if "error_code" in data else None
        if isinstance(error, dict) or (asked is not None and message.get("janus") == "error"):
            return [*effects, *self._refused(error if isinstance(error, dict) else {}, asked)]
        if asked is not None:
            return [*effects, *asked.done(dict(message)), *self._roster()]
        return [*effects, *self._event(message)]

    def offered(self, generation: int, sdp: str) -> Sequence[Effect]:
        """What we would send."""
        if generation != self.generation or self._over or self._publisher is None:
            return []
        self._moderation.publish(sdp)
        return self._requests.tell_plugin(self._publisher, {"request": "publish"}, self._published,
                                          jsep={"type": "offer", "sdp": sdp})

    def nothing_to_send(self, generation: int) -> Sequence[Effect]:
        """There is neither microphone nor camera: being there is all."""
        return self._up({}) if generation == self.generation and not self._over else []

    def watched(self, generation: int, sdp: str) -> Sequence[Effect]:
        """Our answer to the server's offer."""
        return [] if self._over else self._subscription.watched(generation, sdp)

    def media_failed(self, generation: int, reason: Reason) -> Sequence[Effect]:
        """No offer or answer could be made of what the server said."""
        if generation != self.generation or self._over:
            return []
        return self._lose("media", reason)

    def session(self, generation: int, event: SessionEvent, *, watching: bool) -> Sequence[Effect]:
        """A fact of one of the two connections."""
        if generation != self.generation or self._over:
            return []
        match event:
            case SessionUp(security):
                return [] if watching else self._up(security)
            case SessionSilent() | SessionStranded():
                return self._lose("media", END_REASONS["410/mediaLost"])
            case SessionClosed(why):
                key = {"iceFailed": "410/iceFailed", "dtls": "488/dtls"}.get(why, "410/mediaLost")
                return self._lose("media", END_REASONS[key])
            case _:
                return []

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

    @property
    def me_there(self) -> str:
        """Our id in the room; empty while we are not."""
        return self._me_there

    @property
    def may_expel(self) -> bool:
        return self._moderation.may_expel and bool(self._me_there)

    def expel(self) -> Sequence[Effect]:
        """Send everybody else away; Expelled follows."""
        if self._over or self._publisher is None or not self._me_there:
            return [Expelled(END_REASONS["503/provider"])]
        return self._moderation.expel(self._publisher, self._me_there)

    def token_renewed(self) -> Sequence[Effect]:
        """There is another token: what the server refused for the old one is asked again."""
        if self._over or not self._linked or not self._me_there:
            return []
        return [*self._requests.resume(), *self._subscription.token_renewed(), *self.timeout(Timer.KEEPALIVE)]

    def end(self, reason: Reason) -> Sequence[Effect]:
        return self._finish(reason)

    def timeout(self, timer: Timer) -> Sequence[Effect]:
        if self._over:
            return []
        match timer:
            case Timer.ANSWER:
                return [GiveUp("it does not answer")]
            case Timer.RENEW:
                return self._subscription.renew()
            case Timer.INSIST:
                return self._subscription.insist()
            case Timer.TAKE_OVER:
                return [*self._settle(), *self._subscription.follow(), *self._roster()]
            case Timer.RETRY:
                return [Open()]
            case Timer.KEEPALIVE if self._requests.session is not None:
                return [*self._requests.ask({"janus": "keepalive"}, nothing), StartTimer(Timer.KEEPALIVE, KEEPALIVE_S)]
            case _:
                return []

    # --- session and handles ----------------------------------------------------------------------------------------

    def _create(self) -> Sequence[Effect]:
        self._requests.session = self._publisher = self._subscription.handle = self._sharing.handle = None
        return self._requests.ask({"janus": "create"}, self._created)

    def _created(self, message: Json) -> Sequence[Effect]:
        self._requests.session = wire.new_id(message)
        if self._requests.session is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        return [TokenJudged(), *self._attach_publisher()]

    def _claimed(self, _: Json) -> Sequence[Effect]:
        """Of the old handles nobody hears any more; the room is told that they are gone before we come again."""
        held = (self._publisher, self._subscription.handle, self._sharing.handle)
        old = [handle for handle in held if handle is not None]
        self._publisher = self._subscription.handle = self._sharing.handle = None
        detached: list[Effect] = []
        for handle in old:
            detached += self._requests.ask({"janus": "detach", "handle_id": handle}, nothing, nothing)
        return [*detached, *self._attach_publisher()]

    def _not_claimed(self, _: Json) -> Sequence[Effect]:
        return self._create()

    def _attach_publisher(self) -> Sequence[Effect]:
        return [StartTimer(Timer.KEEPALIVE, KEEPALIVE_S),
                *self._requests.ask({"janus": "attach", "plugin": wire.PLUGIN}, self._publisher_attached)]

    def _publisher_attached(self, message: Json) -> Sequence[Effect]:
        self._publisher = wire.new_id(message)
        if self._publisher is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        return self._requests.tell_plugin(self._publisher, {
            **self._door(), "request": "join", "ptype": "publisher", "display": self._me.display_name,
            "metadata": {"identity": self._me.identity}}, self._joined)

    def _know_ourselves(self, feed: str) -> None:
        self._ours[feed] = None
        if len(self._ours) > GHOSTS:
            del self._ours[next(iter(self._ours))]

    def _door(self) -> Json:
        room = self._room
        token = room.own_token or room.token()
        return {"room": room.id, **({"pin": room.pin} if room.pin else {}), **({"token": token} if token else {})}

    def _joined(self, message: Json) -> Sequence[Effect]:
        data = wire.data_of(message)
        me = wire.me_of(data)
        if me is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        self._me_there = str(me)
        self._know_ourselves(self._me_there)
        effects: list[Effect] = []
        if not self._accepted:
            self._accepted = True
            effects.append(Tell(api.Accepted(api.Peer(
                self._room.name, f"room:{self._room.name}", (wire.description_of(data) or self._room.name)[:64]))))
        self._take_persons(data)
        self._persons[self._me_there] = Person(me, self._me.display_name, self._me.identity)
        effects += self._settle()
        private = wire.private_of(data)
        ours = {} if private is None else {"private_id": private}
        self._subscription.begin(self.generation, lambda: {**self._door(), **ours})
        effects += self._roster()
        return [*effects, Publish(self.generation), *self._subscription.follow(),
                *self._sharing.begin(self.generation, self._door)]

    def _published(self, message: Json) -> Sequence[Effect]:
        sdp = wire.sdp_of(message, "answer")
        if sdp is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        return [TakeAnswer(self.generation, sdp)]

    def _up(self, security: Json) -> Sequence[Effect]:
        self._attempt = 0
        if self._lost:
            self._lost = False
            return [Tell(api.Recovered())]
        if self._connected:
            return []
        self._connected = True
        return [Tell(api.Connected(security))]

    # --- what the server tells --------------------------------------------------------------------------------------

    def _event(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        sender, kind = message.get("sender"), message.get("janus")
        if kind == "timeout" and message.get("session_id") == self._requests.session:
            self._requests.session = None
            return self._lose("signalling", END_REASONS["503/provider"])
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

    def _hung_up(self, *, watching: bool) -> Sequence[Effect]:
        """The server closed a peer connection; of the subscription that is no loss where nobody was on it."""
        if watching and not self._subscription.lines:
            return self._subscription.hung_up()
        return self._lose("media", END_REASONS["410/mediaLost"])

    def _trickled(self, candidate: object, *, watching: bool = False, shared: bool = False) -> Sequence[Effect]:
        if not isinstance(candidate, dict):
            return []
        if candidate.get("completed") is True:
            return [Trickle(self.generation, watching, "", None, 0, shared)]
        words, mid, line = candidate.get("candidate"), candidate.get("sdpMid"), candidate.get("sdpMLineIndex")
        if not isinstance(words, str):
            return []
        return [Trickle(self.generation, watching, words, mid if isinstance(mid, str) else None,
                        line if isinstance(line, int) else None, shared)]

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
        for source, feed, one in shown[:PICTURES] if self._sees and self._shows else ():
            found[feed, one.mid] = self._quality(source, one)
        for person in people[:SENDERS]:
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

    def _roster(self) -> Sequence[Effect]:
        """Tell who is there, when that is another list than the one told last."""
        carried = {feed for feed, _ in self._subscription.lines}
        shares = Shares(self._persons.values())
        members = tuple(self._member(person, carried, shares.of(person)) for person in self._people(shares))
        if members == self._told:
            return []
        self._told = members
        return [Tell(api.Members(members))]

    def _member(self, person: Person, carried: Set[str], shared: tuple[str, Stream] | None) -> api.Member:
        voice, picture = person.stream("audio"), person.stream("video")
        away = person.feed in self._absent and person.feed in carried
        return api.Member(
            person.feed, person.identity or person.name, person.name, muted=voice is None or voice.muted,
            speaking=person.talking, video=picture is not None and not picture.muted, away=away,
            receiving=picture is not None and (person.feed, picture.mid) in self._subscription.lines and not away,
            quality=0 if away else self._levels.get(person.feed), content=shared is not None,
            content_receiving=shared is not None and (shared[0], shared[1].mid) in self._subscription.lines)

    # --- loss and end -----------------------------------------------------------------------------------------------

    def _refused(self, error: Json, asked: Asked | None) -> Sequence[Effect]:
        fault, reason = wire.fault_of(error)
        if reason.key == "401/token":
            return self._token_refused(error, reason, asked)
        if asked is not None and asked.failed is not None:
            return asked.failed(error)
        if fault is Fault.STALE:
            self._requests.session = None
        if fault is Fault.REFUSED or not self._connected:
            return self._finish(reason)
        return self._lose("signalling", reason)  # a ghost of ours may hold the last place

    def _token_refused(self, error: Json, reason: Reason, asked: Asked | None) -> Sequence[Effect]:
        """While we are in the room, the call goes on for as long as the server lets it."""
        judged = TokenJudged(wire.words_of(error))
        if not self._me_there or not self._connected:
            return [judged, *self._finish(reason)]
        if asked is not None:
            self._requests.hold(asked)
        return [judged]

    def _lose(self, cause: str, reason: Reason) -> Sequence[Effect]:
        """Everything goes, and the room is joined again; a room that was never reached is given up."""
        if not self._connected:
            return self._finish(reason)
        pause = BACK_OFF_S[min(self._attempt, len(BACK_OFF_S) - 1)]
        self._attempt += 1
        return [*self._let_go(cause), StartTimer(Timer.RETRY, pause)]

    def _let_go(self, cause: str) -> Sequence[Effect]:
        """Of all but the session and its handles, which may be claimed."""
        told: list[Effect] = [Tell(api.Lost(cause))] if self._connected and not self._lost else []
        self._lost = self._connected
        generation = self.generation
        self.generation += 1
        self._linked = False
        self._me_there = ""
        self._persons.clear()
        self._identities.forget()
        self._subscription.forget()
        self._sharing.forget()
        self._absent, self._levels = frozenset(), {}
        return [*told, *self._moderation.forget(), Drop(generation), Shut(), *self._requests.forget(),
                CancelTimer(Timer.KEEPALIVE), CancelTimer(Timer.TAKE_OVER), CancelTimer(Timer.RENEW),
                CancelTimer(Timer.INSIST), *self._roster()]

    def _finish(self, reason: Reason) -> Sequence[Effect]:
        if self._over:
            return []
        goodbye: Sequence[Effect] = []
        if self._linked and self._requests.session is not None:
            goodbye = self._requests.ask({"janus": "destroy"}, nothing)[:1]
        self._over = True
        return [*goodbye, *(CancelTimer(timer) for timer in Timer), Finish(reason)]
