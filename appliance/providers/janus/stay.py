"""Being in a room of a server, whatever plug-in it is a room of, as a state machine without I/O: what happens comes in,
what is to be done comes out.

One stay is one call. Its connection to the server, its handles and its media may be made anew many times under it:
whatever is lost (the socket, the session at the server, a peer connection, all sound and picture), everything is
dropped and the room is joined again, with a claim of the old session first, so that no ghost of us stays behind.

Order: connect, create (or claim), attach, join; what follows is the plug-in's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from appliance.media.api import (
    SessionBlocked,
    SessionClosed,
    SessionEvent,
    SessionPassed,
    SessionSilent,
    SessionStranded,
    SessionUp,
)
from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import (
    CancelTimer,
    Drop,
    Effect,
    Finish,
    GiveUp,
    Open,
    Ordered,
    Recorded,
    Shut,
    StartTimer,
    TakeAnswer,
    Tell,
    Timer,
    TokenJudged,
    Trickle,
)
from appliance.providers.janus.moderation import Moderation
from appliance.providers.janus.protocol import Fault
from appliance.providers.janus.recording import Recording
from appliance.providers.janus.requests import Asked, Requests, nothing
from appliance.providers.janus.text_room import TextRoom
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = ["Room", "Stay"]

KEEPALIVE_S: Final = 20.0  # a session that says nothing for 60 s is ended by the server
BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds before the room is joined again; the last one repeats: a network that is back is used within it."""
BLOCKED_S: Final = (0.0, 4.0, 14.0, 34.0, 74.0, 294.0)
"""Seconds from the word that no media pass, which takes some 6 s on each connection, until the room is joined again;
the last one repeats: where the network is to blame, another connection is no better."""
GHOSTS: Final = 64  # ids of ours that are remembered: the server keeps one that is lost for a minute


@dataclass(frozen=True, slots=True)
class Room:
    """Which room, and what opens it. ``token`` gives the one for server and room that holds now, ``""`` where there
    is none; ``own_token`` is for the room in its place, ``api_secret`` for the server; ``secret`` lets us moderate the
    room. ``scheme``: by which it was called. ``text``: id of the TextRoom that its data messages go through."""

    id: int | str
    name: str
    pin: str = field(default="", repr=False)
    token: Callable[[], str] = field(default=lambda: "", repr=False)
    own_token: str = field(default="", repr=False)
    api_secret: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    scheme: str = "room"
    text: int | str | None = None

    @property
    def uri(self) -> str:
        return f"{self.scheme}:{self.name}"


class Stay(ABC):
    """See the module. ``new_transaction`` gives unguessable, unique words, ``monotonic`` seconds. Who derives from it
    does what one plug-in alone has."""

    DIALECT: ClassVar[wire.Dialect]

    def __init__(
        self, room: Room, *, me: api.Peer, new_transaction: Callable[[], str], monotonic: Callable[[], float],
    ) -> None:
        self._room = room
        self._me = me
        self._over = False
        self._linked = False
        self._requests = Requests(new_transaction, token=room.token, secret=room.api_secret)
        self._moderation = Moderation(self._requests, room.id, room.secret, self.DIALECT)
        self._recording = Recording(self._requests, room.id, room.secret, self.DIALECT)
        self._publisher: int | None = None  # the handle that we join with
        self._was_in: int | None = None  # the server's session in which we have been in the room
        self._ours: dict[str, None] = {}  # our own ids, the earlier ones too: ghosts
        self._me_there: str = ""  # our id in the room
        self._accepted = False
        self._connected = False  # once
        self._lost = False
        self._attempt = 0
        self._blocked = 0  # connections in a row that were given up because no media passed
        self.generation = 0
        self._told: tuple[api.Member, ...] = ()
        self.text = TextRoom(self._requests, room.text, me, new_word=new_transaction, monotonic=monotonic,
                             others=lambda: {one.id: one.display_name for one in self._told})

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
        if message.get("janus") == "timeout" and message.get("session_id") == self._requests.session:
            self._requests.session = None
            return self._lose("signalling", END_REASONS["503/provider"])
        sender = message.get("sender")
        if sender is not None and sender == self.text.handle:
            return [*effects, *self.text.event(message)]
        return [*effects, *self._event(message)]

    def offered(self, generation: int, sdp: str) -> Sequence[Effect]:
        """What we would send."""
        if generation != self.generation or self._over or self._publisher is None:
            return []
        return self._publish(self._publisher, sdp)

    def nothing_to_send(self, generation: int) -> Sequence[Effect]:
        """There is neither microphone nor camera: being there is all."""
        return self._up({}) if generation == self.generation and not self._over else []

    def media_failed(self, generation: int, reason: Reason) -> Sequence[Effect]:
        """No offer or answer could be made of what the server said."""
        if generation != self.generation or self._over:
            return []
        return self._lose("media", reason)

    def session(self, generation: int, event: SessionEvent, *, watching: bool) -> Sequence[Effect]:
        """A fact of a connection: of the one that only receives (``watching``), or of the one that we publish on."""
        if generation != self.generation or self._over:
            return []
        match event:
            case SessionUp(security):
                return [] if watching else self._up(security)
            case SessionSilent() if not self._connected:  # a room that was never reached is given time
                return []
            case SessionSilent() | SessionStranded():
                return self._lose("media", END_REASONS["410/mediaLost"])
            case SessionBlocked(before) if before or self._blocked:  # else it may be none that reports
                pause = BLOCKED_S[min(self._blocked, len(BLOCKED_S) - 1)]
                return [StartTimer(Timer.BLOCKED, pause)]
            case SessionPassed():
                self._blocked = 0
                return [CancelTimer(Timer.BLOCKED)]
            case SessionClosed(why):
                key = {"iceFailed": "410/iceFailed", "dtls": "488/dtls"}.get(why, "410/mediaLost")
                return self._lose("media", END_REASONS[key])
            case _:
                return []

    @property
    def reached(self) -> bool:
        """The call has been connected once: what is lost from then on is looked for again."""
        return self._connected

    @property
    def me_there(self) -> str:
        """Our id in the room; empty while we are not."""
        return self._me_there

    @property
    def may_order(self) -> bool:
        """Whether we moderate the room."""
        return self._moderation.may_order and bool(self._me_there)

    def expel(self, who: str | None = None) -> Sequence[Effect]:
        """Send one of the roster away, or everybody else; Ordered follows."""
        feeds = None if who is None else self._feeds_of(who)
        return self._order(lambda one: [{"request": "kick"}] if feeds is None or str(one) in feeds else [])

    def silence(self, who: str | None = None) -> Sequence[Effect]:
        """Mute one of the roster, or everybody else; Ordered follows."""
        return self._order(lambda one: self._muting(one) if who in (None, str(one)) else [])

    def _order(self, orders: Callable[[int | str], Sequence[Json]]) -> Sequence[Effect]:
        if self._over or self._publisher is None or not self._me_there:
            return [Ordered(END_REASONS["503/provider"])]
        return self._moderation.order(self._publisher, self._me_there, orders)

    def _feeds_of(self, who: str) -> Set[str]:
        """Their ids in the room, of what they share too."""
        return {who}

    @abstractmethod
    def _muting(self, who: int | str) -> Sequence[Json]:
        """The requests that mute them."""

    @property
    def may_record(self) -> bool:
        return self._recording.possible and bool(self._me_there)

    @property
    def recording(self) -> bool:
        return self._recording.on and not self._over

    def record(self, *, on: bool) -> Sequence[Effect]:
        """Have the room recorded at the server, or no longer; Recorded follows."""
        if self._over or self._publisher is None or not self._me_there:
            return [Recorded(END_REASONS["503/provider"])]
        return self._recording.want(self._publisher, on=on)

    def token_renewed(self) -> Sequence[Effect]:
        """There is another token: what the server refused for the old one is asked again."""
        if self._over or not self._linked or not self._me_there:
            return []
        return [*self._requests.resume(), *self.timeout(Timer.KEEPALIVE)]

    def end(self, reason: Reason) -> Sequence[Effect]:
        return self._finish(reason)

    def timeout(self, timer: Timer) -> Sequence[Effect]:
        if self._over:
            return []
        match timer:
            case Timer.ANSWER:
                return [GiveUp("it does not answer")]
            case Timer.RETRY:
                return [Open()]
            case Timer.BLOCKED:
                self._blocked += 1
                return self._lose("media", END_REASONS["410/mediaLost"])
            case Timer.TEXT:
                return self.text.retry()
            case Timer.KEEPALIVE if self._requests.session is not None:
                return [*self._requests.ask({"janus": "keepalive"}, nothing), StartTimer(Timer.KEEPALIVE, KEEPALIVE_S)]
            case _:
                return []

    # --- what the plug-in alone has -----------------------------------------------------------------------------------

    @abstractmethod
    def _join(self, handle: int) -> Sequence[Effect]:
        """Ask to be let in."""

    @abstractmethod
    def _publish(self, handle: int, sdp: str) -> Sequence[Effect]:
        """Offer what we send."""

    @abstractmethod
    def _event(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        """The server tells something that nobody has asked for."""

    @abstractmethod
    def _members(self) -> tuple[api.Member, ...]:
        """Who is there."""

    @abstractmethod
    def _forget(self) -> None:
        """We are not in the room any more. Handles may be claimed."""

    def _other_handles(self) -> Sequence[int]:
        """Beside the one that we join with."""
        return () if self.text.handle is None else (self.text.handle,)

    def _drop_handles(self) -> None:
        """They are not ours any more."""
        self._publisher = self.text.handle = None

    # --- session and handles ----------------------------------------------------------------------------------------

    def _create(self) -> Sequence[Effect]:
        self._requests.session = None
        self._drop_handles()
        return self._requests.ask({"janus": "create"}, self._created)

    def _created(self, message: Json) -> Sequence[Effect]:
        self._requests.session = wire.new_id(message)
        if self._requests.session is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        return [TokenJudged(), *self._attach_publisher()]

    def _claimed(self, _: Json) -> Sequence[Effect]:
        """Of the old handles nobody hears any more; the room is told that they are gone before we come again."""
        old = [*([] if self._publisher is None else [self._publisher]), *self._other_handles()]
        self._drop_handles()
        detached: list[Effect] = []
        for handle in old:
            detached += self._requests.ask({"janus": "detach", "handle_id": handle}, nothing, nothing)
        return [*detached, *self._attach_publisher()]

    def _not_claimed(self, _: Json) -> Sequence[Effect]:
        return self._create()

    def _attach_publisher(self) -> Sequence[Effect]:
        return [StartTimer(Timer.KEEPALIVE, KEEPALIVE_S),
                *self._requests.ask({"janus": "attach", "plugin": self.DIALECT.plugin}, self._publisher_attached)]

    def _publisher_attached(self, message: Json) -> Sequence[Effect]:
        self._publisher = wire.new_id(message)
        if self._publisher is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        return self._join(self._publisher)

    def _door(self) -> Json:
        """The room and what opens it."""
        room = self._room
        token = room.own_token or room.token()
        return {"room": room.id, **({"pin": room.pin} if room.pin else {}), **({"token": token} if token else {})}

    def _let_in(self, me: int | str, title: str) -> Sequence[Effect]:
        """We are in the room, as ``me``."""
        self._was_in = self._requests.session
        self._me_there = str(me)
        self._know_ourselves(self._me_there)
        effects = [*self.text.begin(self.generation, self._me_there, self._door())]
        if self._accepted:
            return effects if self._publisher is None else [*effects, *self._recording.again(self._publisher)]
        self._accepted = True
        room = self._room
        return [Tell(api.Accepted(api.Peer(room.name, room.uri, (title or room.name)[:64]))), *effects]

    def _know_ourselves(self, feed: str) -> None:
        self._ours[feed] = None
        if len(self._ours) > GHOSTS:
            del self._ours[next(iter(self._ours))]

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

    def _roster(self) -> Sequence[Effect]:
        """Tell who is there, when that is another list than the one told last."""
        members = self._members()
        if members == self._told:
            return []
        self._told = members
        return [Tell(api.Members(members))]

    # --- loss and end -----------------------------------------------------------------------------------------------

    def _refused(self, error: Json, asked: Asked | None) -> Sequence[Effect]:
        again = None if asked is None else wire.as_text(asked.body, error, self.DIALECT)
        if asked is not None and again is not None:
            return self._requests.ask(again, asked.done, asked.failed)
        fault, reason = wire.fault_of(error, self.DIALECT)
        if reason.key == "401/token":
            return self._token_refused(error, reason, asked)
        if asked is not None and asked.failed is not None:
            return asked.failed(error)
        if reason.key == "404/noSuchRoom" and self._requests.session is not None and (
                self._requests.session == self._was_in):  # the end of our connection overtook the word of the room's
            return self._finish(END_REASONS["0/endedForAll"])
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
        self._forget()
        self.text.forget()
        return [*told, *self._moderation.forget(), *self._recording.forget(), Drop(generation), Shut(),
                *self._requests.forget(),
                *(CancelTimer(timer) for timer in Timer if timer not in (Timer.ANSWER, Timer.RETRY)), *self._roster()]

    def _finish(self, reason: Reason) -> Sequence[Effect]:
        if self._over:
            return []
        goodbye: Sequence[Effect] = []
        if self._linked and self._requests.session is not None:
            goodbye = self._recording.end(self._publisher) or self._requests.ask({"janus": "destroy"}, nothing)[:1]
        self._over = True
        self.text.forget()
        return [*goodbye, *(CancelTimer(timer) for timer in Timer), Finish(reason)]
