"""A membership in a room, with the server in the test's hand: what it did, and answers to what it asked last."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from appliance.media.api import OnLine, SessionUp
from appliance.providers import api
from appliance.providers.janus.effects import (
    Effect,
    Send,
    Tell,
    Watch,
)
from appliance.providers.janus.membership import Membership
from appliance.providers.janus.stay import Room, Stay
from appliance.vocabulary import Json

__all__ = ["ME", "OFFER", "PUBLISHER", "WATCHER", "Desk", "Reception", "person"]

ME = api.Peer("door-1", "device:door-1", "Front door", "device", verified=True)
PUBLISHER, WATCHER = 11, 12


def person(number: int, name: str = "", *, codec: str = "h264", **more: Any) -> Json:
    return {"id": number, "display": name or f"p{number}", "streams": [
        {"type": "audio", "mid": "0", "codec": "opus"}, {"type": "video", "mid": "1", "codec": codec}], **more}


S = TypeVar("S", bound=Stay)


class Reception(Generic[S]):
    """A stay in a room, what it did, and answers to what it asked last."""

    def __init__(self, make: Callable[[Callable[[], str]], S]) -> None:
        numbers = itertools.count(1)
        self.member = make(lambda: f"t{next(numbers)}")
        self.done: list[Effect] = []
        self.asked: list[Json] = []

    def run(self, effects: Sequence[Effect]) -> Sequence[Effect]:
        self.done += effects
        self.asked += [effect.message for effect in effects if isinstance(effect, Send)]
        return effects

    def of(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.done if isinstance(effect, kind)]

    def told(self, kind: type[Any]) -> list[Any]:
        return [effect.event for effect in self.of(Tell) if isinstance(effect.event, kind)]

    @property
    def names(self) -> list[str]:
        return [one.display_name for one in self.told(api.Members)[-1].members]

    def answer(self, which: Callable[[Json], bool], **message: Any) -> Sequence[Effect]:
        """Answer the first waiting request of this kind."""
        asked = next(one for one in self.asked if which(one))
        self.asked.remove(asked)
        return self.run(self.member.receive({"janus": "success", "transaction": asked["transaction"], **message}))

    def plugin(
        self, request: str, data: Json, *, handle: int = PUBLISHER, jsep: Json | None = None,
    ) -> Sequence[Effect]:
        return self.answer(
            lambda one: one.get("body", {}).get("request") == request and one["handle_id"] == handle,
            janus="event", sender=handle, plugindata={"data": data}, **({"jsep": jsep} if jsep else {}))

    def says(self, data: Json, *, handle: int = PUBLISHER, jsep: Json | None = None) -> Sequence[Effect]:
        """Of its own accord."""
        return self.run(self.member.receive({"janus": "event", "sender": handle, "plugindata": {"data": data},
                                             **({"jsep": jsep} if jsep else {})}))

    def opened(self, session: int = 5, handle: int = PUBLISHER) -> None:
        """Up to the request to join."""
        self.run(self.member.link_up())
        self.answer(lambda one: one["janus"] == "create", data={"id": session})
        self.answer(lambda one: one["janus"] == "attach", data={"id": handle})


class Desk(Reception[Membership]):
    """A membership in a VideoRoom."""

    def __init__(self, *, shows: bool = True, room: Room | None = None) -> None:
        self.now = 1000.0
        super().__init__(lambda transaction: Membership(
            room or Room(1234, "lobby"), me=ME, shows=shows, new_transaction=transaction, monotonic=lambda: self.now))
        self._lines = itertools.count()

    def joined(self, *persons: Json, attendees: Sequence[Json] = (), handle: int = PUBLISHER, own: int = 1) -> None:
        self.plugin("join", {"videoroom": "joined", "id": own, "private_id": 77, "description": "The lobby",
                             "publishers": list(persons), "attendees": list(attendees)}, handle=handle)

    def published(self, handle: int = PUBLISHER) -> None:
        self.run(self.member.offered(self.member.generation, "offer"))
        self.plugin("publish", {"videoroom": "event", "configured": "ok"}, handle=handle,
                    jsep={"type": "answer", "sdp": "answer"})

    def in_room(self, *persons: Json) -> None:
        self.run(self.member.start())
        self.opened()
        self.joined(*persons)
        self.published()
        self.run(self.member.session(self.member.generation, SessionUp({}), watching=False))
        if persons:
            self.attached()

    def attached(self, handle: int = WATCHER) -> None:
        """The second handle, and everything that is asked of it, down to the started subscription."""
        self.answer(lambda one: one["janus"] == "attach", data={"id": handle})
        self.subscribed(handle)

    def subscribed(self, handle: int = WATCHER) -> None:
        while any(self._is_subscription(one, handle) for one in self.asked):
            asked = next(one for one in self.asked if self._is_subscription(one, handle))
            body = asked["body"]
            if body["request"] == "unsubscribe":
                gone = {one["sub_mid"] for one in body["streams"]}
                self.lines = [one for one in self.lines if one["mid"] not in gone]
            else:
                self.lines = [*(self.lines if body["request"] == "subscribe" else []), *(
                    {"type": "audio" if one["mid"] == "0" else "video", "active": True, "mid": str(next(self._lines)),
                     "feed_id": one["feed"], "feed_mid": one["mid"]} for one in body["streams"])]
            kind = "attached" if body["request"] == "join" else "updated"
            self.plugin(body["request"], {"videoroom": kind, "streams": self.lines}, handle=handle,
                        jsep={"type": "offer", "sdp": "room offer"})
            self.start(handle)

    lines: list[Json]

    def start(self, handle: int = WATCHER) -> None:
        self.run(self.member.watched(self.member.generation, "our answer"))
        self.plugin("start", {"videoroom": "event", "started": "ok"}, handle=handle)

    @staticmethod
    def _is_subscription(message: Json, handle: int) -> bool:
        return message.get("handle_id") == handle and message.get("body", {}).get("request") in (
            "join", "subscribe", "unsubscribe")

    def carried(self) -> list[OnLine]:
        return list(self.of(Watch)[-1].lines.values())


OFFER = "v=0\r\nm=audio 9 X 1\r\na=mid:0\r\nm=video 9 X 2\r\na=mid:1\r\n"
