"""What we share in a room, as a state machine without I/O: a feed of its own, with a handle of its own, which joins as
one more publisher under our name and says of its picture that it is content."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from appliance.providers import api
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.effects import Effect, Share, ShareAnswer, Tell, Unshare
from appliance.providers.janus.requests import Requests, nothing
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = ["Sharing"]

_MID: Final = re.compile(r"^a=mid:(\S+)", re.MULTILINE)


class Sharing:
    """Of one membership, for each generation of it anew (``begin``). joined: told of the feed's id, which is ours."""

    def __init__(self, requests: Requests, me: api.Peer, *, joined: Callable[[str], None]) -> None:
        self._requests = requests
        self._me = me
        self._joined = joined
        self._generation = 0
        self._door: Callable[[], Json] | None = None
        self._wanted = False
        self._joining = False
        self.handle: int | None = None

    def begin(self, generation: int, door: Callable[[], Json]) -> Sequence[Effect]:
        """We are in the room. ``door``: the room and what opens it."""
        self._generation, self._door, self._joining = generation, door, False
        return self.follow()

    def forget(self) -> None:
        """We are not in the room any more. The handle may be claimed."""
        self._door, self._joining = None, False

    def want(self, wanted: bool) -> Sequence[Effect]:
        self._wanted = wanted
        return self.follow()

    def follow(self) -> Sequence[Effect]:
        if self._door is None or self._joining or self._wanted == (self.handle is not None):
            return []
        if not self._wanted:
            return self._stop()
        self._joining = True
        attach = {"janus": "attach", "plugin": wire.VIDEO_ROOM.plugin}
        return self._requests.ask(attach, self._handle_made, self._refused)

    def offered(self, generation: int, sdp: str) -> Sequence[Effect]:
        """What we would send."""
        mid = _MID.search(sdp)
        if generation != self._generation or self.handle is None or self._door is None or mid is None:
            return []
        body = {"request": "publish", "descriptions": [{"mid": mid[1], "description": "content"}]}
        return self._requests.tell_plugin(self.handle, body, self._published, self._refused,
                                          jsep={"type": "offer", "sdp": sdp})

    def lost(self, generation: int) -> Sequence[Effect]:
        """Its connection is gone, or could not be made."""
        if generation != self._generation or self.handle is None or self._door is None:
            return []
        return self._give_up(END_REASONS["410/mediaLost"])

    # --- steps ------------------------------------------------------------------------------------------------------

    def _handle_made(self, message: Json) -> Sequence[Effect]:
        self.handle = wire.new_id(message)
        if self.handle is None or self._door is None:
            return self._give_up(END_REASONS["503/provider"])
        body = {**self._door(), "request": "join", "ptype": "publisher",
                "display": f"{self._me.display_name} (content)", "metadata": {"identity": self._me.identity}}
        return self._requests.tell_plugin(self.handle, body, self._in, self._refused)

    def _in(self, message: Json) -> Sequence[Effect]:
        data = wire.data_of(message)
        me = wire.me_of(data)
        if me is None:
            return self._give_up(END_REASONS["503/provider"])
        self._joined(str(me))
        self._joining = False
        return [Share(self._generation)] if self._wanted else self._stop()

    def _published(self, message: Json) -> Sequence[Effect]:
        sdp = wire.sdp_of(message, "answer")
        return self._give_up(END_REASONS["503/provider"]) if sdp is None else [ShareAnswer(self._generation, sdp)]

    def _refused(self, error: Mapping[str, Any]) -> Sequence[Effect]:
        return self._give_up(wire.fault_of(error)[1])

    def _give_up(self, reason: Reason) -> Sequence[Effect]:
        self._wanted = self._joining = False
        return [*self._stop(), Tell(api.ContentEnded(reason))]

    def _stop(self) -> Sequence[Effect]:
        handle, self.handle = self.handle, None
        if handle is None:
            return []
        return [Unshare(self._generation),
                *self._requests.ask({"janus": "detach", "handle_id": handle}, nothing, nothing)]
