"""One call in a room of the AudioBridge plug-in, with its media: one connection of sound, both ways."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Protocol

from appliance.errors import Refused
from appliance.media.api import Directions, Session
from appliance.providers import api
from appliance.providers.janus.audio_bridge import AudioBridge
from appliance.providers.janus.room_leg import Doorkeeper, RoomLeg
from appliance.providers.janus.stay import Room

__all__ = ["AudioGround", "AudioLeg"]


class AudioGround(Doorkeeper, Protocol):
    """What the provider gives its legs."""

    def conversation(self, wanted: Directions, *, speaks: bool) -> Session: ...


class AudioLeg(RoomLeg[AudioBridge]):
    """A Leg (``providers.api``)."""

    def __init__(
        self, leg_id: str, room: Room, ground: AudioGround, *, me: api.Peer, media: api.MediaWanted,
    ) -> None:
        self._ground = ground
        self._silent = False  # muted or on hold, as the others are told
        super().__init__(leg_id, room, ground, AudioBridge(
            room, me=me, new_transaction=lambda: secrets.token_urlsafe(12), monotonic=time.monotonic), media)

    def join(self) -> None:
        self._mute()
        super().join()

    async def set_media(self, media: api.MediaWanted) -> None:
        self._media = media
        if self._publication is not None:
            self._publication[1].set_directions(self._directions())
        self._mute()

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        self._silent = muted or held
        self._mute()

    def _say(self, channel: str, payload: str, *, to: Sequence[str], lossy: bool, urgent: bool) -> None:
        raise Refused("this room carries sound alone, and no data messages; where it has a TextRoom, name it in the "
                      "settings (text_id)", code=501, sub_code="FeatureNotSupported", retryable=False)

    def _mute(self) -> None:
        self._carry_out(self._stay.mute(self._silent or not self._media.send_audio))

    def _directions(self) -> Directions:
        media = self._media
        return Directions(media.send_audio, send_video=False, receive_audio=media.receive_audio, receive_video=False)

    def _open_publication(self) -> Session | None:
        return self._ground.conversation(self._directions(), speaks=not self._media.listens_only)
