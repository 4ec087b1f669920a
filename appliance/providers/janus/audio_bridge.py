"""Being in a room of the AudioBridge plug-in, as a state machine without I/O.

The server mixes: there is one connection, which brings the sound of all the others and takes ours, however many there
are. Who is there, who is muted and who talks, the server tells; it knows no identities (no ``metadata`` of a join).
Source: https://janus.conf.meetecho.com/docs/audiobridge.html, and Janus 1.1.2 as it was seen to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from appliance.media.api import SessionBlocked, SessionEvent
from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import Effect, Publish, StartTimer, Tell, Timer
from appliance.providers.janus.protocol import Guest
from appliance.providers.janus.requests import nothing
from appliance.providers.janus.stay import Room, Stay
from appliance.vocabulary import END_REASONS, Json

__all__ = ["AudioBridge"]

TALKING_DB: Final = -40.0  # what somebody counts with who talks: how loud, the server does not say
SILENT_DB: Final = -127.0
VOICES_S: Final = 0.25  # between two tellings of who talks, as of rooms in which it is measured
QUIET: Final = 4  # of them after the last one has fallen silent


class AudioBridge(Stay):
    """See the module. ``new_transaction`` gives unguessable, unique words, ``monotonic`` seconds."""

    DIALECT = wire.AUDIO_BRIDGE

    def __init__(
        self, room: Room, *, me: api.Peer, new_transaction: Callable[[], str], monotonic: Callable[[], float],
    ) -> None:
        super().__init__(room, me=me, new_transaction=new_transaction, monotonic=monotonic)
        self._guests: dict[str, Guest] = {}  # by id, in the order in which they came; not we
        self._muted = False  # as we want it
        self._said: bool | None = None  # as the server was told; None: it was not yet
        self._barred = {"alone": False, "room": False}  # what a moderator has muted: us, and everybody
        self._suspended = False  # by a moderator: nothing is to come
        self._quiet = QUIET

    def mute(self, muted: bool) -> Sequence[Effect]:
        """Whether we are to be heard, from here on."""
        self._muted = muted
        return [] if self._over else self._say()

    def timeout(self, timer: Timer) -> Sequence[Effect]:
        return self._voices() if timer is Timer.VOICES and not self._over else super().timeout(timer)

    @property
    def may_record(self) -> bool:
        """Nobody there could be told of it but through a TextRoom."""
        return self.text.exists and super().may_record

    # --- in and out -------------------------------------------------------------------------------------------------

    def session(self, generation: int, event: SessionEvent, *, watching: bool) -> Sequence[Effect]:
        if isinstance(event, SessionBlocked) and self._suspended:
            return []
        return super().session(generation, event, watching=watching)

    def _join(self, handle: int) -> Sequence[Effect]:
        return self._requests.tell_plugin(handle, {
            **self._door(), "request": "join", "display": self._me.display_name, "muted": self._muted}, self._joined)

    def _joined(self, message: Json) -> Sequence[Effect]:
        data = wire.data_of(message)
        me = wire.me_of(data, self.DIALECT)
        if me is None:
            return self._lose("signalling", END_REASONS["503/provider"])
        effects = [*self._let_in(me, "")]
        self._take_guests(data)
        return [*effects, *self._roster(), *self._voices(), Publish(self.generation)]

    def _publish(self, handle: int, sdp: str) -> Sequence[Effect]:
        self._said = self._muted
        return self._requests.tell_plugin(handle, {"request": "configure", "muted": self._muted}, self._published,
                                          jsep={"type": "offer", "sdp": sdp})

    def _say(self) -> Sequence[Effect]:
        """Our mute, where the server knows another one."""
        if self._publisher is None or self._said in (None, self._muted):
            return []
        self._said = self._muted
        return self._requests.tell_plugin(self._publisher, {"request": "configure", "muted": self._muted}, nothing)

    def _forget(self) -> None:
        self._guests.clear()
        self._said = None
        self._barred = dict.fromkeys(self._barred, False)
        self._suspended = False
        self._quiet = QUIET

    # --- what the server tells --------------------------------------------------------------------------------------

    def _event(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        if self._publisher is None or message.get("sender") != self._publisher:
            return []
        match message.get("janus"):
            case "hangup" | "detached":
                return self._lose("media", END_REASONS["410/mediaLost"])
            case "trickle":
                return self._trickled(message.get("candidate"))
            case "event":
                return self._room_event(wire.data_of(message))
            case _:
                return []

    def _room_event(self, data: Json) -> Sequence[Effect]:
        kind = data.get(self.DIALECT.word)
        if kind == "destroyed":
            return self._finish(END_REASONS["0/endedForAll"])
        if self._me_there and self._me_there == str(data.get("kicked")):
            return self._finish(END_REASONS["0/removed"])
        if kind in ("talking", "stopped-talking"):
            return [*self._talks(data.get("id"), kind == "talking"), *self._roster()]
        for word in ("leaving", "kicked"):
            self._guests.pop(str(data.get(word)), None)
        effects = [*self._take_guests(data)]
        if any(one.speaks for one in self._guests.values()):
            effects += self._voices()  # whoever is not muted any more may have talked all along
        if isinstance(data.get("muted"), bool):
            effects += self._moderated("room", muted=data["muted"])
        return [*effects, *self._roster()]

    def _take_guests(self, data: Json) -> Sequence[Effect]:
        """Those who are told of now; we among them only when a moderator has muted us, or lets us go."""
        effects: list[Effect] = []
        for guest in wire.guests(data):
            known = self._guests.get(guest.feed)
            if guest.feed == self._me_there:
                self._suspended = guest.suspended
                effects += self._moderated("alone", muted=guest.muted)
            elif guest.feed not in self._ours and (known is not None or len(self._guests) < wire.PERSONS):
                talking = known is not None and known.talking if guest.talking is None else guest.talking
                self._guests[guest.feed] = replace(guest, talking=talking)
        return effects

    def _moderated(self, what: str, *, muted: bool) -> Sequence[Effect]:
        """What is told of our mute is by a moderator's doing, unless it is what we have asked for. The server lets us
        go with all that we said before, so it is said again."""
        if muted and what == "alone" and self._said:
            return []
        self._barred[what] = muted
        if not muted and what == "room":
            self._barred["alone"] = False
        effects = [*self._moderation.bar("audio", muted=any(self._barred.values()))]
        if not muted and self._said is not None:
            self._said = False
            effects += self._say()
        return effects

    def _muting(self, who: int | str) -> Sequence[Json]:
        return [{"request": "mute"}]

    def _talks(self, who: object, talking: bool) -> Sequence[Effect]:
        guest = self._guests.get(str(who))
        if guest is None:
            return []
        self._guests[guest.feed] = replace(guest, talking=talking)
        self._quiet = 0
        return self._voices()

    def _voices(self) -> Sequence[Effect]:
        """Who talks now; told again until it has been quiet for a while."""
        talking = any(one.speaks for one in self._guests.values())
        self._quiet = 0 if talking else self._quiet + 1
        if self._quiet > QUIET:
            return []
        levels = {one.feed: TALKING_DB if one.speaks else SILENT_DB for one in self._guests.values()}
        return [Tell(api.Voices(levels)), StartTimer(Timer.VOICES, VOICES_S)]

    def _members(self) -> tuple[api.Member, ...]:
        return tuple(api.Member(one.feed, one.name, one.name, muted=one.muted, speaking=one.speaks,
                                connecting=not one.ready) for one in self._guests.values())
