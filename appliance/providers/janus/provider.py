"""The provider ``janus``: rooms of a Janus server, or of one of several, joined as ``room:NAME`` or ``audio:NAME``.

NAME is one of ``janus.rooms`` with its PIN, or the id of a room at the server: of VideoRoom, and with ``audio:`` of
AudioBridge. There is a connection to a server only
while a room is joined, and where there are several, now and then while there is no call.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from yarl import URL

from appliance.errors import Refused
from appliance.media.api import DataLine, Directions, Gallery, IceServers, Session, Studio
from appliance.network import Network
from appliance.providers import api
from appliance.providers.endpoints import Endpoints
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.audio_leg import AudioLeg
from appliance.providers.janus.echo import SENT, echoed
from appliance.providers.janus.leg import JanusLeg
from appliance.providers.janus.link import JanusLink
from appliance.providers.janus.mqtt import Broker, Topics
from appliance.providers.janus.probe import round_trip
from appliance.providers.janus.room_leg import RoomLeg
from appliance.providers.janus.stay import Room
from appliance.providers.janus.token import Token
from appliance.providers.janus.transport import Channel
from appliance.providers.janus.websocket import WebSockets
from appliance.providers.probe import Probe
from appliance.settings import JanusRoomSettings, JanusSettings
from appliance.settings.formats import is_loopback
from appliance.vocabulary import END_REASONS, Json

__all__ = ["JanusProvider"]

VIDEO: Final = "room"
AUDIO: Final = "audio"


class JanusProvider:
    """A CallProvider that Echoes (``providers.api``). Construction reads ``janus.ca_file``. ``idle``: there is no call
    at all; ``refused``: told of what goes against security, why and by whom."""

    def __init__(
        self, settings: JanusSettings, studio: Studio, token: Token, *, ice: IceServers,
        idle: Callable[[], bool] = lambda: True, refused: Callable[[str, str], None] = lambda _why, _sender: None,
    ) -> None:
        self._settings = settings
        self._studio = studio
        self._token = token
        self._refused = refused
        token.on_change = self._token_renewed
        self._ice = ice
        self._rooms = {one.name: one for one in settings.rooms}
        self._sockets = WebSockets(
            ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else None)
        self._broker = Broker(
            Topics(settings.mqtt_requests, settings.mqtt_answers, settings.mqtt_status), settings.mqtt_username,
            settings.mqtt_password, settings.ca_file, settings.mqtt_cert_file, settings.mqtt_key_file)
        self._endpoints = Endpoints((settings.url, *settings.other_urls), settings.choose, monotonic=time.monotonic)
        self.probe = Probe(self._endpoints, partial(round_trip, self._connect), idle=lambda: not self._legs and idle())
        self._legs: set[RoomLeg[Any]] = set()

    # --- CallProvider -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "janus"

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset({VIDEO, AUDIO})

    async def start(self, on_incoming: Callable[[api.IncomingCall], None]) -> None:
        """Nobody is called by a room."""
        self._token.start()

    async def stop(self) -> None:
        await asyncio.gather(*(leg.end(END_REASONS["503/shutdown"]) for leg in tuple(self._legs)))
        self._token.stop()
        await self._sockets.close()

    def network_changed(self, _before: Network, now: Network) -> None:
        """Whoever is in a room by an address that is gone is told at once: of one who is there alone nothing else is
        missed for long."""
        for leg in tuple(self._legs):
            leg.network_changed(now.addresses)

    def reachable(self, target: api.Target) -> bool | None:
        return None if target.scheme in self.schemes else False

    async def dial(self, target: api.Target, *, call_id: str, caller: api.Peer, media: api.MediaWanted) -> RoomLeg[Any]:
        if target.scheme not in self.schemes or not target.address:
            raise Refused(f"Nobody is called by {target.scheme}: here.", code=404, sub_code="notFound")
        if self._token.expired:
            reason = END_REASONS["401/token"]
            raise Refused(reason.message, code=reason.code, sub_code=reason.sub_code, retryable=False)
        known = self._known(target)
        room, leg_id = self._room(target, known), uuid.uuid4().hex
        leg: RoomLeg[Any]
        if target.scheme == AUDIO or (known is not None and known.kind == AUDIO):
            leg = AudioLeg(leg_id, room, self, me=caller, media=media)
        else:
            leg = JanusLeg(leg_id, room, self, me=caller, media=media, shows=self._studio.shows)
        self._legs.add(leg)
        leg.join()
        return leg

    def state(self) -> Json:
        return {
            **self._endpoints.state(),
            "token": self._token.state(),
            "rooms": sorted(self._rooms),
            "calls": len(self._legs),
            "capabilities": {scheme: {"isPresent": True, "reason": "Capable"} for scheme in (VIDEO, AUDIO)},
        }

    async def echo(self, seconds: float) -> api.Echo:
        if not self._studio.sends:
            raise Refused("this board has neither microphone nor camera: nothing could come back", code=501,
                          sub_code="NotCapable", retryable=False)
        url, token, secret = self._endpoints.selected, self._token.text, self._settings.api_secret.reveal()
        found = await echoed(
            self._connect, url, lambda: self._studio.session(SENT, ice=self._ice, loopback=self._loopback()), seconds,
            keys={**({"token": token} if token else {}), **({"apisecret": secret} if secret else {})})
        if found.reached_s is None and found.failure is not None:
            self._endpoints.failed(url, found.failure.message)
        return found

    def _known(self, target: api.Target) -> JanusRoomSettings | None:
        """By its name, or by its id: rooms of the two kinds may have the same."""
        named = self._rooms.get(target.address)
        if named is not None and (target.scheme == VIDEO or named.kind == AUDIO):
            return named
        kind = AUDIO if target.scheme == AUDIO else "video"
        return next((one for one in self._settings.rooms if (one.id, one.kind) == (target.address, kind)), None)

    def _room(self, target: api.Target, known: JanusRoomSettings | None) -> Room:
        return Room(
            wire.room_id(known.id if known is not None else target.address), target.address,
            pin=target.pin or (known.pin.reveal() if known is not None else ""),
            token=lambda: self._token.text, api_secret=self._settings.api_secret.reveal(),
            secret=known.secret.reveal() if known is not None else "",
            own_token=known.token.reveal() if known is not None else "", scheme=target.scheme,
            text=wire.room_id(known.text_id) if known is not None and known.text_id else None)

    # --- Ground -----------------------------------------------------------------------------------------------------

    def publication(self, wanted: Directions, *, data: bool) -> Session | None:
        return self._studio.publication(wanted, ice=self._ice, loopback=self._loopback(), data=data)

    def data_line(self) -> DataLine:
        return self._studio.data_line(ice=self._ice, loopback=self._loopback())

    def conversation(self, wanted: Directions, *, speaks: bool) -> Session:
        return self._studio.conversation(wanted, ice=self._ice, loopback=self._loopback(), speaks=speaks)

    def gallery(self) -> Gallery:
        return self._studio.gallery(ice=self._ice, loopback=self._loopback())

    def shared(self) -> Session | None:
        return self._studio.shared(ice=self._ice, loopback=self._loopback())

    def link(
        self, name: str, *, on_up: Callable[[bool], None], on_message: Callable[[Json], None],
        on_down: Callable[[str, bool], None], alone: Callable[[], bool],
    ) -> JanusLink:
        return JanusLink(self._connect, self._endpoints, name, on_up=on_up, on_message=on_message, on_down=on_down,
                         alone=alone)

    def token_judged(self, refused: str) -> None:
        self._token.judged(refused)

    def taken_over(self, identity: str) -> None:
        self._refused("takenOver", identity)

    def leg_over(self, leg: RoomLeg[Any]) -> None:
        self._legs.discard(leg)
        if not self._legs:
            self._endpoints.release()
            if self._endpoints.failing:
                self.probe.soon()

    async def _connect(self, url: str) -> Channel:
        connect = self._broker.connect if URL(url).scheme in ("mqtt", "mqtts") else self._sockets.connect
        return await connect(url)

    def _token_renewed(self) -> None:
        for leg in tuple(self._legs):
            leg.token_renewed()

    def _loopback(self) -> bool:
        return is_loopback(URL(self._endpoints.selected).host or "")
