"""Data messages of a room through the TextRoom plug-in, as a state machine without I/O.

A room that has no data channels of its own, or one for those who publish alone, may have a TextRoom beside it: a handle
and a connection of their own, on whose data channel the plug-in is spoken to. A frame of ``media.messages`` is the text
of one message there; what is meant for some goes to them alone. A text that is no frame is somebody's chat.

Source: https://janus.conf.meetecho.com/docs/textroom.html, and Janus 1.1.2 as it was seen to answer.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from appliance.errors import Refused
from appliance.media.api import SessionClosed, SessionEvent, SessionStranded, SessionUp
from appliance.media.messages import MESSAGE_LIMIT, Inbound, Outbound
from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import (
    CancelTimer,
    CloseText,
    Effect,
    OpenText,
    StartTimer,
    Tell,
    Timer,
    WriteText,
)
from appliance.providers.janus.requests import Requests, nothing
from appliance.providers.janus.transport import parsed
from appliance.vocabulary import Json

__all__ = ["TextRoom"]

log = logging.getLogger(__name__)

FRAME_LIMIT: Final = 24 * 1024
"""Bytes of a frame: as text within a JSON text it takes twice as many at most, and all of it has to go into 64 KiB."""
PLAIN: Final = "chat"  # the channel of a text that is no frame
ANNOUNCED: Final = "announcement"  # and of what comes from who administers the server
TRY_S: Final = 5.0  # to be let in
AGAIN_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds before it is tried again; the last one repeats
RUNS: Final = 32  # sets of people for whom messages are counted apart: the others must see no gap
PEOPLE: Final = 1000


class TextRoom:
    """Of one stay, for each generation of it anew (``begin``). ``room``: its id, None: there is none; ``others``: names
    of those in the roster by id."""

    def __init__(
        self, requests: Requests, room: int | str | None, me: api.Peer, *, new_word: Callable[[], str],
        monotonic: Callable[[], float], others: Callable[[], Mapping[str, str]],
    ) -> None:
        self._requests = requests
        self._room = room
        self._me = me
        self._new_word = new_word
        self._others = others
        self._inbound = Inbound(monotonic)
        self._outbound: OrderedDict[tuple[str, ...], Outbound] = OrderedDict()  # by who is meant
        self._generation = 0
        self._door: Json | None = None  # what opens the room; None: we are in none
        self._me_there = ""  # our id in the room
        self._username = ""  # and our name in the TextRoom, which is that if it is free
        self._people: dict[str, str] = {}  # display name by user name
        self._attaching = False
        self._joining = ""  # transaction of the request to join
        self._in = False
        self._failures = 0
        self._shut = False  # it is not tried any more
        self._why = ""  # we are not in it
        self.handle: int | None = None

    @property
    def exists(self) -> bool:
        return self._room is not None

    @property
    def takes(self) -> bool:
        """Whether messages can be said there now."""
        return self._in

    def begin(self, generation: int, username: str, door: Json) -> Sequence[Effect]:
        """We are in the room, as ``username``. ``door``: what opens it."""
        self._generation, self._username, self._me_there = generation, username, username
        self._door = {name: door[name] for name in ("pin", "token") if name in door}
        self._failures, self._shut, self._why = 0, False, ""
        return self._open()

    def forget(self) -> None:
        """We are not in the room any more. The handle may be claimed."""
        self._door, self._joining, self._in, self._attaching = None, "", False, False
        self._people.clear()

    def retry(self) -> Sequence[Effect]:
        """Timer.TEXT: it was not let in in time, or is to be tried again."""
        if self._door is None or self._in:
            return []
        waits = self._attaching or self.handle is not None
        return self._fail("it does not answer") if waits else self._open()

    # --- the connection ---------------------------------------------------------------------------------------------

    def _open(self) -> Sequence[Effect]:
        if self._room is None or self._shut:
            return []
        self._attaching = True
        attach = {"janus": "attach", "plugin": wire.TEXT_ROOM.plugin}
        return [StartTimer(Timer.TEXT, TRY_S), *self._requests.ask(attach, self._attached, self._refused)]

    def _attached(self, message: Json) -> Sequence[Effect]:
        handle = wire.new_id(message)
        if not self._attaching:  # so late that it is not waited for any more
            return [] if handle is None else self._detach(handle)
        self._attaching, self.handle = False, handle
        if handle is None:
            return self._fail("it gave no handle")
        return self._requests.tell_plugin(handle, {"request": "setup"}, self._offered, self._refused)

    def _offered(self, message: Json) -> Sequence[Effect]:
        if self.handle is None or message.get("sender") != self.handle:
            return []
        sdp = wire.sdp_of(message, "offer")
        return self._fail("it offers no connection") if sdp is None else [OpenText(self._generation, sdp)]

    def answered(self, generation: int, sdp: str) -> Sequence[Effect]:
        """Our answer to its offer."""
        if generation != self._generation or self.handle is None or self._door is None:
            return []
        return self._requests.tell_plugin(self.handle, {"request": "ack"}, nothing, self._refused,
                                          jsep={"type": "answer", "sdp": sdp})

    def session(self, generation: int, event: SessionEvent) -> Sequence[Effect]:
        """A fact of its connection."""
        if generation != self._generation or self._door is None:
            return []
        match event:
            case SessionUp():
                return self._join()
            case SessionStranded() | SessionClosed():
                return self._fail("its connection is gone")
            case _:
                return []

    def event(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        """The server tells something of the handle."""
        return self._fail("the server closed it") if message.get("janus") in ("hangup", "detached") else []

    def _refused(self, error: Mapping[str, Any]) -> Sequence[Effect]:
        return self._fail(wire.words_of(error)) if self._attaching or self.handle is not None else []

    def _fail(self, words: str) -> Sequence[Effect]:
        """The call goes on without, and it is tried again. ``words``: for who would send something meanwhile."""
        if self._failures == 0:
            log.info("no data messages for now: the TextRoom of the room is lost, or not reached")
        self._why = words
        pause = AGAIN_S[min(self._failures, len(AGAIN_S) - 1)]
        self._failures += 1
        return [*self._close(), StartTimer(Timer.TEXT, pause)]

    def _give_up(self, words: str) -> Sequence[Effect]:
        log.warning("no data messages in this room: its TextRoom does not let this device in, or any more")
        self._shut, self._why = True, words
        return [*self._close(), CancelTimer(Timer.TEXT)]

    def _close(self) -> Sequence[Effect]:
        handle, self.handle = self.handle, None
        self._joining, self._in, self._attaching = "", False, False
        self._people.clear()
        return [] if handle is None else [CloseText(self._generation), *self._detach(handle)]

    def _detach(self, handle: int) -> Sequence[Effect]:
        return self._requests.ask({"janus": "detach", "handle_id": handle}, nothing, nothing)

    # --- what is said there -------------------------------------------------------------------------------------------

    def require(self) -> None:
        """Raises Refused while nothing can be said there."""
        if not self._in:
            why = f": {self._why}" if self._why else ""
            raise Refused(f"the room's TextRoom takes no messages of this device now{why}", sub_code="noDataChannel")

    def messages(self, channel: str, payload: str, to: Sequence[str], *, lossy: bool) -> Sequence[str]:
        """The texts to write for one data message to all, or to those of these ids in the roster. Raises Refused."""
        names = sorted({name for one in to if (name := self._username_of(one))})
        if to and not names:
            raise Refused("nobody of those who are meant is in the room's TextRoom", sub_code="noDataChannel")
        outbound = self._outbound.pop(tuple(names), None) or Outbound(FRAME_LIMIT)
        self._outbound[tuple(names)] = outbound
        if len(self._outbound) > RUNS:
            self._outbound.popitem(last=False)
        try:
            frames = outbound.frames(channel, payload, lossy=lossy)
        except ValueError:
            raise Refused(f"a data message may have {MESSAGE_LIMIT // 1024} KiB; shorten it or send it in parts",
                          code=413, sub_code="tooLarge") from None
        whom = {"tos": names} if names else {}
        return [self._request("message", text=frame, ack=False, **whom)[1] for frame in frames]

    def told(self, generation: int, text: str) -> Sequence[Effect]:
        """The plug-in says something."""
        if generation != self._generation or self._door is None:
            return []
        said = parsed(text)
        if said is None:
            return []
        match said.get(wire.TEXT_ROOM.word):
            case "message":
                return self._received(said)
            case "announcement" if isinstance(said.get("text"), str):
                return [Tell(api.DataReceived(ANNOUNCED, said["text"]))]
            case "success" if self._joining and said.get("transaction") == self._joining:
                return self._joined(said)
            case "error" if self._joining and said.get("transaction") == self._joining:
                return self._not_joined(said)
            case "error" if self._in and said.get("error_code") in wire.NOT_IN_TEXT_ROOM:
                return self._fail(wire.words_of(said))
            case "join":
                self._take_people([said])
            case "leave":
                self._people.pop(str(said.get("username")), None)
            case "kicked" if said.get("username") == self._username:
                return self._give_up("a moderator has removed this device from it")
            case "kicked":
                self._people.pop(str(said.get("username")), None)
            case "destroyed":
                return self._give_up("it was destroyed")
        return []

    def _join(self) -> Sequence[Effect]:
        self._joining, text = self._request("join", username=self._username, display=self._me.display_name,
                                            history=False, **(self._door or {}))
        return [WriteText(self._generation, text)]

    def _joined(self, said: Json) -> Sequence[Effect]:
        if self._failures:
            log.info("the TextRoom of the room takes data messages again")
        self._joining, self._in, self._failures = "", True, 0
        people = said.get("participants")
        self._take_people(people if isinstance(people, list) else [])
        return [CancelTimer(Timer.TEXT)]

    def _not_joined(self, said: Json) -> Sequence[Effect]:
        if said.get("error_code") == wire.USERNAME_TAKEN:  # by a ghost of ours, or by somebody who should not have it
            self._username = f"{self._me_there}-{self._new_word()}"
            return self._join()
        if said.get("error_code") == wire.TEXT_ROOM.malformed and isinstance(self._room, int):
            self._room = str(self._room)  # a server with ids of text says so only now
            return self._join()
        fault, _ = wire.fault_of(said, wire.TEXT_ROOM)
        return self._give_up(wire.words_of(said)) if fault is wire.Fault.REFUSED else self._fail(wire.words_of(said))

    def _received(self, said: Json) -> Sequence[Effect]:
        name, text = said.get("from"), said.get("text")
        if not isinstance(name, str) or not isinstance(text, str) or name == self._username:
            return []  # what we say to all comes back to us too
        sender, malformed = self._member_of(name), self._inbound.malformed
        message = self._inbound.take(text, sender)
        if message is not None:
            return [Tell(api.DataReceived(message.channel, message.payload, message.sender, message.lost))]
        plain = self._inbound.malformed > malformed and len(text.encode(errors="replace")) <= MESSAGE_LIMIT
        return [Tell(api.DataReceived(PLAIN, text, sender))] if plain else []

    def _request(self, kind: str, **more: Any) -> tuple[str, str]:
        """Its transaction, and the text."""
        transaction = self._new_word()
        body = {wire.TEXT_ROOM.word: kind, "transaction": transaction, "room": self._room, **more}
        return transaction, json.dumps(body, ensure_ascii=False, separators=(",", ":"))

    # --- who is who ---------------------------------------------------------------------------------------------------

    def _take_people(self, people: Sequence[object]) -> None:
        for one in people[:PEOPLE]:
            name = one.get("username") if isinstance(one, dict) else None
            if isinstance(one, dict) and isinstance(name, str) and name != self._username and (
                    name in self._people or len(self._people) < PEOPLE):
                display = one.get("display")
                self._people[name] = display if isinstance(display, str) else ""

    def _member_of(self, name: str) -> str:
        """Whose id in the roster this user name stands for: it is that id, or who is called so is the only one."""
        others, display = self._others(), self._people.get(name)
        if name in others or not display:
            return name
        called = [one for one, there in others.items() if there == display and one not in self._people]
        return called[0] if len(called) == 1 else name

    def _username_of(self, member: str) -> str | None:
        if member in self._people:
            return member
        display = self._others().get(member)
        called = [name for name, there in self._people.items() if display and there == display]
        return called[0] if len(called) == 1 and self._member_of(called[0]) == member else None
