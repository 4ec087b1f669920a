"""Being in a room, as a state machine without I/O: what happens comes in, what is to be done comes out.

One membership is one call. Its connection to the server, its handles and its media may be made anew many times under
it: whatever is lost (the socket, the session at the server, a peer connection, all sound and picture), everything is
dropped and the room is joined again, with a claim of the old session first, so that no ghost of us stays behind.

Order: connect, create (or claim), attach, join; then publish on this handle, and on a second one subscribe to what is
heard and shown. One negotiation of the subscription runs at a time: the server answers a request that comes during
another one later, by an offer of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from appliance.media.api import OnLine, SessionClosed, SessionEvent, SessionSilent, SessionStranded, SessionUp
from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.protocol import Fault, Person
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = [
    "CancelTimer",
    "Drop",
    "Effect",
    "Finish",
    "Membership",
    "Open",
    "Publish",
    "Room",
    "Send",
    "Shut",
    "StartTimer",
    "TakeAnswer",
    "Tell",
    "Timer",
    "Trickle",
    "Unwatch",
    "Watch",
]

ANSWER_S: Final = 5.0  # for the server to answer a request
KEEPALIVE_S: Final = 20.0  # a session that says nothing for 60 s is ended by the server
BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds before the room is joined again; the last one repeats: a network that is back is used within it."""
VOICES: Final = 24
PICTURES: Final = 9


@dataclass(frozen=True, slots=True)
class Room:
    """Which room, and what opens it. ``token`` is for the server and for the room, where they ask for one."""

    id: int | str
    name: str
    pin: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)


class Timer(Enum):
    ANSWER = "the server answers"
    KEEPALIVE = "tell the server that we are there"
    RETRY = "join again"


# --- what is to be done -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to the server; ``link_up`` or ``link_down`` follows."""


@dataclass(frozen=True, slots=True)
class Shut:
    """Leave the connection, or give up connecting; nothing more of it is told."""


@dataclass(frozen=True, slots=True)
class Send:
    message: Json


@dataclass(frozen=True, slots=True)
class Publish:
    """Offer what we send; ``offered`` follows, or ``nothing_to_send``."""

    generation: int


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    """The server's answer to that offer."""

    generation: int
    sdp: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Answer the server's offer of what we receive; ``watched`` follows. ``lines``: who is on which, by MID."""

    generation: int
    sdp: str
    lines: Mapping[str, OnLine]


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Nothing is received any more: let that connection go."""

    generation: int


@dataclass(frozen=True, slots=True)
class Trickle:
    """A candidate of the server; ``""``: that was the last one."""

    generation: int
    watching: bool
    candidate: str
    mid: str | None
    line: int | None


@dataclass(frozen=True, slots=True)
class Drop:
    """Let both connections of this generation go."""

    generation: int


@dataclass(frozen=True, slots=True)
class Tell:
    event: api.LegEvent


@dataclass(frozen=True, slots=True)
class StartTimer:
    timer: Timer
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class Finish:
    """It is over: say what was sent, let everything go, tell ``Ended``."""

    reason: Reason


Effect = (Open | Shut | Send | Publish | TakeAnswer | Watch | Unwatch | Trickle | Drop | Tell | StartTimer | CancelTimer
          | Finish)
Answer = Callable[[Json], Sequence[Effect]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits. ``failed`` takes an error that only concerns the request itself."""

    done: Answer
    failed: Answer | None = None


class Membership:
    """See the module. ``new_transaction`` gives unguessable, unique words."""

    def __init__(
        self, room: Room, *, me: api.Peer, shows: bool, new_transaction: Callable[[], str],
    ) -> None:
        self._room = room
        self._me = me
        self._shows = shows
        self._new_transaction = new_transaction
        self._hears, self._sees = True, True
        self._over = False
        self._linked = False
        self._asked: dict[str, _Asked] = {}
        self._session: int | None = None
        self._publisher: int | None = None  # handle
        self._watcher: int | None = None
        self._former: set[str] = set()  # our own earlier ids: ghosts
        self._me_there: str = ""  # our id in the room
        self._private: Any = None
        self._accepted = False
        self._connected = False  # once
        self._lost = False
        self._attempt = 0
        self.generation = 0
        self._persons: dict[str, Person] = {}  # by feed, in the order in which they came
        self._absent: Set[str] = frozenset()
        self._told: tuple[api.Member, ...] = ()
        self._negotiating = False  # of the subscription
        self._watching = False  # the server has attached our subscription
        self._lines: dict[tuple[str, str], str] = {}  # (feed, its MID) -> our MID
        self._unusable: set[tuple[str, str]] = set()  # not to be had, until the person is told of again
        self._singly = False  # one person at a time: of several the server has refused one, and says not which

    # --- what happens -----------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self._over

    def start(self) -> Sequence[Effect]:
        return [Open()]

    def link_up(self) -> Sequence[Effect]:
        self._linked = True
        if self._session is not None:
            return self._ask({"janus": "claim", "session_id": self._session}, self._claimed, self._not_claimed)
        return self._create()

    def link_down(self, words: str) -> Sequence[Effect]:
        """The connection could not be made, or is gone."""
        if self._over:
            return []
        reason = replace(END_REASONS["503/provider"], message=f"The room server is not reached: {words}")
        return self._lose("signalling", reason)

    def receive(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        """A message of the server."""
        if self._over or not self._linked:
            return []
        if message.get("janus") == "ack":
            return self._acknowledged(message)
        transaction = message.get("transaction")
        asked = self._asked.pop(transaction, None) if isinstance(transaction, str) else None
        effects: list[Effect] = [CancelTimer(Timer.ANSWER)] if asked is not None and not self._asked else []
        data = _data(message)
        error = message.get("error") if message.get("janus") == "error" else data if "error_code" in data else None
        if isinstance(error, dict):
            return [*effects, *self._refused(error, asked)]
        if asked is not None:
            return [*effects, *asked.done(dict(message))]
        return [*effects, *self._event(message)]

    def offered(self, generation: int, sdp: str) -> Sequence[Effect]:
        """What we would send."""
        if generation != self.generation or self._over or self._publisher is None:
            return []
        return self._tell_plugin(self._publisher, {"request": "publish"}, self._published,
                                 jsep={"type": "offer", "sdp": sdp})

    def nothing_to_send(self, generation: int) -> Sequence[Effect]:
        """There is neither microphone nor camera: being there is all."""
        return self._up({}) if generation == self.generation and not self._over else []

    def watched(self, generation: int, sdp: str) -> Sequence[Effect]:
        """Our answer to the server's offer."""
        if generation != self.generation or self._over or self._watcher is None:
            return []
        return self._tell_plugin(self._watcher, {"request": "start"}, self._started,
                                 jsep={"type": "answer", "sdp": sdp})

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

    def absent(self, generation: int, feeds: Set[str]) -> Sequence[Effect]:
        """Of these people nothing arrives."""
        if generation != self.generation:
            return []
        self._absent = feeds
        return self._roster()

    def want(self, *, hears: bool, sees: bool) -> Sequence[Effect]:
        """What we want to receive from here on."""
        self._hears, self._sees = hears, sees
        return [*self._subscribe(), *self._roster()]

    def end(self, reason: Reason) -> Sequence[Effect]:
        return self._finish(reason)

    def timeout(self, timer: Timer) -> Sequence[Effect]:
        if self._over:
            return []
        match timer:
            case Timer.ANSWER:
                return self.link_down("it does not answer")
            case Timer.RETRY:
                return [Open()]
            case Timer.KEEPALIVE if self._session is not None:
                return [*self._ask({"janus": "keepalive"}, _nothing), StartTimer(Timer.KEEPALIVE, KEEPALIVE_S)]
            case _:
                return []

    # --- session and handles ----------------------------------------------------------------------------------------

    def _create(self) -> Sequence[Effect]:
        self._session = None
        return self._ask({"janus": "create"}, self._created)

    def _created(self, message: Json) -> Sequence[Effect]:
        self._session = _new_id(message)
        if self._session is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        return self._attach_publisher()

    def _claimed(self, _: Json) -> Sequence[Effect]:
        """Of the old handles nobody hears any more; the room is told that they are gone before we come again."""
        old = [handle for handle in (self._publisher, self._watcher) if handle is not None]
        self._publisher = self._watcher = None
        detached: list[Effect] = []
        for handle in old:
            detached += self._ask({"janus": "detach", "handle_id": handle}, _nothing, _nothing)
        return [*detached, *self._attach_publisher()]

    def _not_claimed(self, _: Json) -> Sequence[Effect]:
        self._publisher = self._watcher = None
        return self._create()

    def _attach_publisher(self) -> Sequence[Effect]:
        return [StartTimer(Timer.KEEPALIVE, KEEPALIVE_S),
                *self._ask({"janus": "attach", "plugin": wire.PLUGIN}, self._publisher_attached)]

    def _publisher_attached(self, message: Json) -> Sequence[Effect]:
        self._publisher = _new_id(message)
        if self._publisher is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        return self._tell_plugin(self._publisher, {
            **self._door(), "request": "join", "ptype": "publisher", "display": self._me.display_name,
            "metadata": {"identity": self._me.identity}}, self._joined)

    def _door(self) -> Json:
        room = self._room
        return {"room": room.id, **({"pin": room.pin} if room.pin else {}),
                **({"token": room.token} if room.token else {})}

    def _joined(self, message: Json) -> Sequence[Effect]:
        data = _data(message)
        if data.get("videoroom") != "joined":
            return self._lose("signalling", END_REASONS["503/provider"])
        self._me_there, self._private = str(data.get("id")), data.get("private_id")
        self._former.add(self._me_there)
        effects: list[Effect] = []
        if not self._accepted:
            self._accepted = True
            effects.append(Tell(api.Accepted(api.Peer(
                self._room.name, f"room:{self._room.name}", str(data.get("description") or self._room.name)[:64]))))
        self._take_persons(data)
        effects += self._roster()
        return [*effects, Publish(self.generation), *self._subscribe()]

    def _published(self, message: Json) -> Sequence[Effect]:
        sdp = _sdp(message, "answer")
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
        if kind == "timeout" and message.get("session_id") == self._session:
            self._session = None
            return self._lose("signalling", END_REASONS["503/provider"])
        if sender is None or sender not in (self._publisher, self._watcher):
            return []
        watching = sender == self._watcher
        match kind:
            case "hangup" | "detached":
                return self._hung_up(watching=watching)
            case "trickle":
                return self._trickled(message.get("candidate"), watching=watching)
            case "event":
                return self._taken_off(dict(message)) if watching else self._room_event(_data(message))
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
        elif "moderation" in data:
            self._moderate(data.get("id"), data.get("mid"), muted=data["moderation"] == "muted")
        else:
            self._take_persons(data)
            self._change(data.get("unpublished"), streams=())
            for word in ("leaving", "kicked"):
                self._persons.pop(str(data.get(word)), None)
        return [*self._subscribe(), *self._roster()]

    def _take_persons(self, data: Json) -> None:
        """Those who are told of now; a publisher whose streams changed is told of again, with all of them."""
        for person in wire.persons(data):
            self._persons[person.feed] = person
            self._unusable = {one for one in self._unusable if one[0] != person.feed}
        for person in wire.attendees(data):
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
        if watching and not self._lines:
            return self._unwatch()
        return self._lose("media", END_REASONS["410/mediaLost"])

    def _trickled(self, candidate: object, *, watching: bool) -> Sequence[Effect]:
        if not isinstance(candidate, dict):
            return []
        if candidate.get("completed") is True:
            return [Trickle(self.generation, watching, "", None, 0)]
        words, mid, line = candidate.get("candidate"), candidate.get("sdpMid"), candidate.get("sdpMLineIndex")
        if not isinstance(words, str):
            return []
        return [Trickle(self.generation, watching, words, mid if isinstance(mid, str) else None,
                        line if isinstance(line, int) else None)]

    # --- subscription -----------------------------------------------------------------------------------------------

    def _people(self) -> Sequence[Person]:
        """The others, each once: of an identity that is there twice the newest, of ourselves no ghost."""
        newest: dict[str, Person] = {}
        for person in self._persons.values():
            own = person.feed in self._former or (person.identity and person.identity == self._me.identity)
            if not own:
                newest[person.identity or f"#{person.feed}"] = person
        return list(newest.values())

    def _wanted(self) -> set[tuple[str, str]]:
        """The streams that are heard or shown, as (feed, MID there)."""
        people = self._people()
        found: list[tuple[str, str]] = []
        for kind, codec, most, wanted in (
            ("audio", "opus", VOICES, self._hears), ("video", "h264", PICTURES, self._sees and self._shows),
        ):
            usable = [(person.feed, one.mid) for person in people
                      if (one := person.stream(kind)) is not None and one.codec == codec]
            found += usable[:most] if wanted else []
        return {one for one in found if one not in self._unusable}

    def _subscribe(self) -> Sequence[Effect]:
        """Bring the subscription in line with what is wanted, one step at a time."""
        if self._over or not self._me_there or self._negotiating:
            return []
        wanted, have = self._wanted(), set(self._lines)
        if not self._watching:
            if not wanted:
                return []
            self._negotiating = True
            wanted = self._next(wanted)
            if self._watcher is None:
                return self._ask({"janus": "attach", "plugin": wire.PLUGIN}, self._watcher_attached)
            return self._join_as_subscriber(wanted)
        if self._watcher is None or wanted == have:
            self._singly = False
            return []
        self._negotiating = True
        if superfluous := have - wanted:
            return self._change_subscription("unsubscribe", superfluous)
        return self._change_subscription("subscribe", self._next(wanted - have))

    def _next(self, missing: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """What is asked for next: all, or what one person sends."""
        first = min(missing)[0]
        return {one for one in missing if one[0] == first} if self._singly else missing

    def _watcher_attached(self, message: Json) -> Sequence[Effect]:
        self._watcher = _new_id(message)
        if self._watcher is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        self._negotiating = False
        return self._subscribe()

    def _join_as_subscriber(self, wanted: set[tuple[str, str]]) -> Sequence[Effect]:
        if self._watcher is None:
            return []
        body = {**self._door(), "request": "join", "ptype": "subscriber", "private_id": self._private,
                "streams": self._named(wanted)}
        return self._tell_plugin(self._watcher, body, self._subscription, self._not_subscribed(wanted))

    def _change_subscription(self, request: str, streams: set[tuple[str, str]]) -> Sequence[Effect]:
        if self._watcher is None:
            return []
        names: list[Json] = self._named(streams)
        if request == "unsubscribe":
            names = [{"sub_mid": self._lines[one]} for one in sorted(streams)]
        return self._tell_plugin(self._watcher, {"request": request, "streams": names}, self._subscription,
                                 self._not_subscribed(streams))

    def _named(self, streams: set[tuple[str, str]]) -> list[Json]:
        return [{"feed": person.id, "mid": mid} for feed, mid in sorted(streams)
                if (person := self._persons.get(feed)) is not None]

    def _subscription(self, message: Json) -> Sequence[Effect]:
        """``attached`` or ``updated``, by our request or because somebody left: who is on which line now."""
        data = _data(message)
        if data.get("videoroom") not in ("attached", "updated"):
            return []
        self._watching = True
        lines = wire.lines_of(data)
        self._lines = {(line.feed, line.feed_mid): line.mid for line in lines}
        sdp = _sdp(message, "offer")
        if sdp is None:  # another offer is still under way; the next one has this change in it
            self._negotiating = False
            return self._roster()
        self._negotiating = True
        names = {person.feed: person.name for person in self._persons.values()}
        on = {line.mid: OnLine(line.feed, names.get(line.feed, "")) for line in lines}
        return [Watch(self.generation, sdp, on), *self._roster()]

    def _taken_off(self, message: Json) -> Sequence[Effect]:
        """Not of our asking: who is not on a line any more has left, as the room will tell in a moment."""
        before = set(self._lines)
        effects = self._subscription(message)
        self._unusable |= before - set(self._lines)
        return effects

    def _started(self, _: Json) -> Sequence[Effect]:
        self._negotiating = False
        return self._subscribe()

    def _not_subscribed(self, streams: set[tuple[str, str]]) -> Answer:
        """Who was to be subscribed has just left, or is not to be had: the others are."""

        def failed(_: Json) -> Sequence[Effect]:
            if len({feed for feed, _ in streams}) > 1:
                self._singly = True
            else:
                self._unusable |= streams
            self._negotiating = False
            return self._subscribe()

        return failed

    def _unwatch(self) -> Sequence[Effect]:
        effects: list[Effect] = [Unwatch(self.generation)]
        if self._watcher is not None:
            effects += self._ask({"janus": "detach", "handle_id": self._watcher}, _nothing, _nothing)
        self._watcher, self._watching, self._negotiating = None, False, False
        return [*effects, *self._subscribe()]

    # --- the roster -------------------------------------------------------------------------------------------------

    def _roster(self) -> Sequence[Effect]:
        """Tell who is there, when that is another list than the one told last."""
        carried = {feed for feed, _ in self._lines}
        members = tuple(self._member(person, carried) for person in self._people())
        if members == self._told:
            return []
        self._told = members
        return [Tell(api.Members(members))]

    def _member(self, person: Person, carried: Set[str]) -> api.Member:
        voice, picture = person.stream("audio"), person.stream("video")
        away = person.feed in self._absent and person.feed in carried
        return api.Member(
            person.feed, person.identity or person.name, person.name, muted=voice is None or voice.muted,
            speaking=person.talking, video=picture is not None and not picture.muted, away=away,
            receiving=picture is not None and (person.feed, picture.mid) in self._lines and not away)

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, body: Json, done: Answer, failed: Answer | None = None) -> Sequence[Effect]:
        transaction = self._new_transaction()
        self._asked[transaction] = _Asked(done, failed)
        message = {**body, "transaction": transaction}
        if self._session is not None:
            message.setdefault("session_id", self._session)
        if self._room.token:
            message["token"] = self._room.token
        if self._room.secret:
            message["apisecret"] = self._room.secret
        return [Send(message), StartTimer(Timer.ANSWER, ANSWER_S)]

    def _tell_plugin(
        self, handle: int, body: Json, done: Answer, failed: Answer | None = None, *, jsep: Json | None = None,
    ) -> Sequence[Effect]:
        message = {"janus": "message", "handle_id": handle, "body": body}
        return self._ask(message | ({"jsep": jsep} if jsep is not None else {}), done, failed)

    def _acknowledged(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        """Of a keep-alive that is all; of other requests the answer follows."""
        transaction = message.get("transaction")
        asked = self._asked.get(transaction) if isinstance(transaction, str) else None
        if asked is None or asked.done is not _nothing:
            return []
        del self._asked[str(transaction)]
        return [] if self._asked else [CancelTimer(Timer.ANSWER)]

    def _refused(self, error: Json, asked: _Asked | None) -> Sequence[Effect]:
        if asked is not None and asked.failed is not None:
            return asked.failed(error)
        fault, reason = wire.fault_of(error)
        if fault is Fault.STALE:
            self._session = None
        if fault is Fault.REFUSED or not self._connected:
            return self._finish(reason)
        return self._lose("signalling", reason)  # a ghost of ours may hold the last place

    # --- loss and end -----------------------------------------------------------------------------------------------

    def _lose(self, cause: str, reason: Reason) -> Sequence[Effect]:
        """Everything goes, and the room is joined again; a room that was never reached is given up."""
        if not self._connected:
            return self._finish(reason)
        told: list[Effect] = [] if self._lost else [Tell(api.Lost(cause))]
        self._lost = True
        effects: list[Effect] = [*told, *self._forget()]
        pause = BACK_OFF_S[min(self._attempt, len(BACK_OFF_S) - 1)]
        self._attempt += 1
        return [*effects, *self._roster(), StartTimer(Timer.RETRY, pause)]

    def _forget(self) -> Sequence[Effect]:
        """All but the session and its handles, which may be claimed."""
        generation = self.generation
        self.generation += 1
        self._linked = self._negotiating = self._watching = False
        self._asked.clear()
        self._me_there = ""
        self._persons.clear()
        self._lines.clear()
        self._unusable.clear()
        self._singly = False
        self._absent = frozenset()
        return [Drop(generation), Shut(), CancelTimer(Timer.ANSWER), CancelTimer(Timer.KEEPALIVE)]

    def _finish(self, reason: Reason) -> Sequence[Effect]:
        if self._over:
            return []
        goodbye: Sequence[Effect] = []
        if self._linked and self._session is not None:
            goodbye = self._ask({"janus": "destroy"}, _nothing)[:1]
        self._over = True
        return [*goodbye, *(CancelTimer(timer) for timer in Timer), Finish(reason)]


def _nothing(_: Json) -> Sequence[Effect]:
    return []


def _data(message: Mapping[str, Any]) -> Json:
    """What the plug-in says."""
    plugin = message.get("plugindata")
    data = plugin.get("data") if isinstance(plugin, dict) else None
    return data if isinstance(data, dict) else {}


def _new_id(message: Mapping[str, Any]) -> int | None:
    """Of the session or handle that was made."""
    data = message.get("data")
    made = data.get("id") if isinstance(data, dict) else None
    return made if isinstance(made, int) and not isinstance(made, bool) else None


def _sdp(message: Mapping[str, Any], kind: str) -> str | None:
    jsep = message.get("jsep")
    if not isinstance(jsep, dict) or jsep.get("type") != kind:
        return None
    sdp = jsep.get("sdp")
    return sdp if isinstance(sdp, str) else None
