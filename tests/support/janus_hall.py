"""A stay in a room that is mixed, with the server in the test's hand."""

from __future__ import annotations

from typing import Any

from appliance.media.api import SessionUp
from appliance.providers import api
from appliance.providers.janus.audio_bridge import AudioBridge
from appliance.providers.janus.stay import Room
from appliance.vocabulary import Json
from tests.support.janus_desk import ME, PUBLISHER, Reception

__all__ = ["Hall", "guest"]

HALL = Room(77, "hall", pin="4711", scheme="audio", secret="s3cret")


class Hall(Reception[AudioBridge]):
    """A stay in such a room."""

    def __init__(self, room: Room = HALL) -> None:
        super().__init__(lambda transaction: AudioBridge(
            room, me=ME, new_transaction=transaction, monotonic=lambda: 1000.0))

    def joined(self, *guests: Json, own: int = 1, handle: int = PUBLISHER) -> None:
        self.plugin("join", {"audiobridge": "joined", "room": 77, "id": own, "participants": list(guests)},
                    handle=handle)

    def published(self, handle: int = PUBLISHER) -> None:
        self.run(self.member.offered(self.member.generation, "offer"))
        self.plugin("configure", {"audiobridge": "event", "result": "ok"}, handle=handle,
                    jsep={"type": "answer", "sdp": "answer"})

    def in_room(self, *guests: Json) -> None:
        self.run(self.member.start())
        self.opened()
        self.joined(*guests)
        self.published()
        self.run(self.member.session(self.member.generation, SessionUp({}), watching=False))

    def tells(self, **data: Any) -> None:
        self.says({"audiobridge": "event", "room": 77, **data})

    @property
    def mutes(self) -> list[bool]:
        """What the server was told of our own, since it was looked at last."""
        waiting = [one for one in self.asked if one.get("body", {}).get("request") == "configure"]
        for one in waiting:
            self.asked.remove(one)
        return [one["body"]["muted"] for one in waiting]

    @property
    def members(self) -> list[api.Member]:
        return list(self.told(api.Members)[-1].members)


def guest(number: int, name: str = "", **more: Any) -> Json:
    return {"id": number, "display": name or f"g{number}", "setup": True, "muted": False, **more}
