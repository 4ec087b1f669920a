"""Data messages of the call: to those who are meant, and from whom they say they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall
from appliance.errors import BadRequest, Refused
from appliance.providers.api import DataReceived

__all__ = ["RESERVED", "Messages"]

log = logging.getLogger(__name__)

MESSAGE_BYTES: Final = 60_000  # UTF-8
RESERVED: Final = frozenset({"door", "state"})
"""Channels of the appliance itself: who wrote there by hand could pass for it at the others."""


class Messages:
    """Lives on the loop."""

    def __init__(self, bulletin: Bulletin) -> None:
        self._bulletin = bulletin

    async def send(
        self, active: ActiveCall, channel: str, payload: str, *, to: Sequence[str], lossy: bool, urgent: bool,
    ) -> None:
        """``to``: ids or identities of those in the roster, none: all. Raises BadRequest (404/notFound,
        413/tooLarge), and Refused where there is no channel or it takes no more."""
        if active.leg is None:
            raise Refused("nobody has answered yet", sub_code="callState")
        if len(payload.encode()) > MESSAGE_BYTES:
            raise BadRequest(f"a data message may have {MESSAGE_BYTES // 1000} KB; shorten it or send it in parts",
                             code=413, sub_code="tooLarge")
        await active.leg.send(channel, payload, to=_found(active, to), lossy=lossy, urgent=urgent)

    def take(self, active: ActiveCall, message: DataReceived) -> None:
        if not active.data_limits.take(message.sender):
            log.debug("a data message is dropped: the peer sends too many", extra={"call_id": active.id})
            return
        sender = active.roster.members.get(message.sender)
        self._bulletin.post(
            "data.received", callId=active.id, channel=message.channel, payload=message.payload, lost=message.lost,
            participantId=None if sender is None else sender.id, rawId=None if sender is None else sender.raw_id)


def _found(active: ActiveCall, names: Sequence[str]) -> Sequence[str]:
    """The ids of those who are meant."""
    ids = {one.raw_id: one.id for one in active.roster} | {one.id: one.id for one in active.roster}
    for name in names:
        if name not in ids:
            raise BadRequest(f"{name!r} is nobody in the call; see state/roster", code=404, sub_code="notFound")
    return [ids[name] for name in names]
