"""On which terms the device is in a room, as its settings say: the role, and when the room is open. Pure.

They are kept here, before anything is asked of the room's server, whose own rules stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from appliance.clock import rfc3339
from appliance.errors import Refused
from appliance.providers.api import MediaWanted, Target
from appliance.settings import JanusRoomSettings
from appliance.vocabulary import END_REASONS, Reason, Role

__all__ = ["FREE", "ROOMS", "HouseRules", "Terms", "admit", "rules_of", "terms_of"]

ROOMS: Final = ("room", "audio")
"""Schemes of targets; of the second one sound is all there is."""

_SOUND_ALONE: Final = "this room carries sound alone"

@dataclass(frozen=True, slots=True)
class Terms:
    """``opens`` and ``closes``: wall clock in seconds, None without a limit. ``sound_alone``: the room has no pictures,
    and no data messages unless it has a TextRoom (``texts``)."""

    role: Role = Role.ATTENDEE
    opens: float | None = None
    closes: float | None = None
    sound_alone: bool = False
    texts: bool = False

    @property
    def lacks(self) -> Mapping[str, str]:
        """Capabilities that the room does not have, and why."""
        if not self.sound_alone:
            return {}
        pictures = dict.fromkeys(("turnVideoOn", "shareScreen"), _SOUND_ALONE)
        if self.texts:
            return pictures
        return {**pictures, "raiseHand": f"{_SOUND_ALONE}, and no data messages",
                "startRecording": f"{_SOUND_ALONE}, and no data messages, so that nobody could be told of it"}

    def closed(self, wall: float) -> Reason | None:
        """Why nobody may be in the room at ``wall``; None while it is open."""
        early = self.opens is not None and wall < self.opens
        if not early and (self.closes is None or wall < self.closes):
            return None
        if early:
            words = f"The room is not open yet; it opens at {rfc3339(self.opens or 0.0)}."
        else:
            words = f"The room is closed since {rfc3339(self.closes or 0.0)}."
        return replace(END_REASONS["403/outsideSchedule"], message=words)

    def permit(self, media: MediaWanted) -> MediaWanted:
        """What of ``media`` the room and the role may have: a consumer hears and sees, and sends nothing."""
        if self.sound_alone:
            media = replace(media, send_video=False, receive_video=False)
        if self.role is not Role.CONSUMER:
            return media
        return replace(media, send_audio=False, send_video=False, listens_only=True)


FREE: Final = Terms()
"""Of a room that the settings do not name, and of whom else is called."""

SOUND_ALONE: Final = Terms(sound_alone=True)
"""The same, of a room by whose address it is known."""

HouseRules = Mapping[str, Terms]
"""By URI of the target."""


def rules_of(rooms: Sequence[JanusRoomSettings]) -> HouseRules:
    """The terms of the rooms by name and by id; an id that stands there twice has those of the first."""
    by_id, by_name = dict[str, Terms](), dict[str, Terms]()
    for room in rooms:
        audio = room.kind == "audio"
        terms = Terms(Role(room.role.capitalize()), _moment(room.valid_from), _moment(room.valid_until), audio,
                      bool(room.text_id))
        by_id.setdefault(f"{'audio' if audio else 'room'}:{room.id}", terms)
        by_name |= dict.fromkeys([f"room:{room.name}", *([f"audio:{room.name}"] if audio else ())], terms)
    return by_id | by_name


def terms_of(rules: HouseRules, uri: str) -> Terms:
    """The terms of what is called by ``uri``."""
    return rules.get(uri, SOUND_ALONE if uri.startswith("audio:") else FREE)


def admit(rules: HouseRules, target: Target, wall: float) -> Terms:
    """The terms on which ``target`` is called now. Raises Refused (403/outsideSchedule)."""
    terms = terms_of(rules, target.uri)
    reason = terms.closed(wall)
    if reason is not None:
        raise Refused(reason.message, code=reason.code, sub_code=reason.sub_code, category=reason.category)
    return terms


def _moment(text: str) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
