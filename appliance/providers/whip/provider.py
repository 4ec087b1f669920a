"""The provider ``whip``: media servers of ``[[whip]]``, called as ``whip:NAME``.

What an entry names decides what the call is: publishing (``publish``), playing (``play``), or both at once. There is no
connection to a server outside of calls.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

import aiohttp
from yarl import URL

from appliance.errors import Refused
from appliance.media.api import Directions, IceServers, ServerSession, Studio
from appliance.providers import api
from appliance.providers.endpoints import Endpoints
from appliance.providers.probe import Probe
from appliance.providers.whip.choice import Choice
from appliance.providers.whip.leg import WhipLeg
from appliance.providers.whip.resource import Endpoint, open_http, round_trip
from appliance.providers.whip.way import Make
from appliance.settings import Secret, WhipSettings
from appliance.settings.formats import is_loopback
from appliance.tasks import background
from appliance.vocabulary import END_REASONS, Json

__all__ = ["WhipProvider"]

log = logging.getLogger(__name__)

SCHEME: Final = "whip"
FAREWELL_S: Final = 0.8  # of what is still being told to servers when the appliance stops


class WhipProvider:
    """A CallProvider (``providers.api``). Construction reads each ``ca_file``. ``idle``: there is no call at all.
    ``probes``: of the ways that have several servers."""

    def __init__(
        self, servers: Sequence[WhipSettings], studio: Studio, *, ice: IceServers,
        idle: Callable[[], bool] = lambda: True,
    ) -> None:
        self._servers = {one.name: one for one in servers}
        self._tls = {one.name: ssl.create_default_context(cafile=one.ca_file) for one in servers if one.ca_file}
        self._endpoints = {  # by name and whether it is played
            (one.name, plays): Endpoints(urls, one.choose, monotonic=time.monotonic)
            for one in servers for plays, urls in ((False, (one.publish, *one.other_publish)),
                                                   (True, (one.play, *one.other_play))) if urls[0]}
        self.probes = [
            Probe(endpoints, partial(round_trip, tls=self._tls.get(name)), idle=lambda: not self._legs and idle())
            for (name, _), endpoints in self._endpoints.items() if len(endpoints.urls) > 1]
        self._studio = studio
        self._ice = ice
        self._http: aiohttp.ClientSession | None = None
        self._legs: set[WhipLeg] = set()
        self._farewells: set[asyncio.Task[None]] = set()

    # --- CallProvider -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "whip"

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset({SCHEME})

    async def start(self, on_incoming: Callable[[api.IncomingCall], None]) -> None:
        """Nobody is called by a media server."""

    async def stop(self) -> None:
        await asyncio.gather(*(leg.end(END_REASONS["503/shutdown"]) for leg in tuple(self._legs)))
        if self._farewells:
            _, late = await asyncio.wait(self._farewells, timeout=FAREWELL_S)
            for task in late:
                log.warning("a media server was not told in time that the call is over")
                task.cancel()
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def reachable(self, target: api.Target) -> bool | None:
        return None if target.address in self._servers else False

    async def dial(self, target: api.Target, *, call_id: str, caller: api.Peer, media: api.MediaWanted) -> WhipLeg:
        server = self._servers.get(target.address)
        if target.scheme != SCHEME or server is None:
            raise Refused(f"There is no media server {target.address!r} in [[whip]].", code=404, sub_code="notFound")
        ways = self._ways(server, media)
        if not ways:
            raise Refused("There is nothing to publish: this device has neither microphone nor camera, or is only to "
                          "listen; and nothing to play there.", code=501, sub_code="FeatureNotSupported")
        leg = WhipLeg(uuid.uuid4().hex, server.name, self, ways, media=media)
        self._legs.add(leg)
        leg.begin()
        return leg

    def state(self) -> Json:
        return {
            "servers": [{"name": one.name, "publishes": bool(one.publish), "plays": bool(one.play),
                         **self._selected(one.name)} for one in self._servers.values()],
            "calls": len(self._legs),
            "capabilities": {SCHEME: {"isPresent": True, "reason": "Capable"}},
        }

    def _selected(self, name: str) -> Json:
        """Of the ways that have several servers."""
        ways = {"play" if plays else "publish": endpoints.state()
                for (owner, plays), endpoints in self._endpoints.items() if owner == name and len(endpoints.urls) > 1}
        return {"ways": ways} if ways else {}

    def _ways(self, server: WhipSettings, media: api.MediaWanted) -> dict[Choice, Make]:
        ways: dict[Choice, Make] = {}
        if server.publish and self._studio.sends and not media.listens_only:
            choice, loopback = self._choice(server, server.token, plays=False)
            ways[choice] = partial(self._publication, loopback)
        if server.play:
            choice, loopback = self._choice(server, server.play_token or server.token, plays=True)
            ways[choice] = partial(self._playback, loopback)
        return ways

    def _choice(self, server: WhipSettings, token: Secret, *, plays: bool) -> tuple[Choice, bool]:
        """And whether one of its servers is on this machine."""
        http = self._http = self._http or open_http()
        tls, endpoints = self._tls.get(server.name), self._endpoints[server.name, plays]

        def make(url: str) -> Endpoint:
            return Endpoint(http, url, token, tls, plays=plays)

        return Choice(endpoints, make, plays=plays), any(is_loopback(URL(url).host or "") for url in endpoints.urls)

    def _publication(self, loopback: bool, wanted: Directions, servers: IceServers | None) -> ServerSession:
        session = self._studio.publication(wanted, ice=self._joined(servers), loopback=loopback)
        if session is None:
            raise Refused("This device has neither microphone nor camera to publish.", code=501,
                          sub_code="FeatureNotSupported")
        return session

    def _playback(self, loopback: bool, wanted: Directions, servers: IceServers | None) -> ServerSession:
        return self._studio.playback(wanted, ice=self._joined(servers), loopback=loopback)

    def _joined(self, servers: IceServers | None) -> IceServers:
        """Those that the media server names, before those of the settings; TURN has one login, so of TURN servers
        either."""
        if servers is None:
            return self._ice
        turn = servers if servers.turn else self._ice
        return IceServers((*servers.stun, *self._ice.stun), turn.turn, turn.username, turn.password,
                          "" if servers.turn else self._ice.ca_file)

    # --- Ground -------------------------------------------------------------------------------------------------------

    def farewell(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = background(work, name=name, failed=_failed)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)
        return task

    def leg_over(self, leg: WhipLeg) -> None:
        self._legs.discard(leg)
        for (name, _), endpoints in self._endpoints.items():
            if not any(one.peer.identity == name for one in self._legs):
                endpoints.release()
        if not self._legs and any(endpoints.failing for endpoints in self._endpoints.values()):
            for probe in self.probes:
                probe.soon()


def _failed(error: Exception) -> None:
    log.error("a call with a media server was not left as it should be; this is a defect", exc_info=error)
