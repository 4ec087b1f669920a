"""The ways into the world of one appliance, put together: direct calls, rooms, telephones and media servers, and what
tries their servers before a call does. What no server is configured for is not loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.clock import Clock
from appliance.link.api import Link
from appliance.media.api import IceServers
from appliance.media.ice_servers import is_of_use
from appliance.media.server_watch import ServerWatch
from appliance.media.studio import Studio
from appliance.network import NetworkWatch
from appliance.providers.api import CallProvider
from appliance.providers.direct.protocol import Party
from appliance.providers.direct.provider import DirectProvider
from appliance.settings import DirectSettings, Settings
from appliance.store import Notes

if TYPE_CHECKING:  # and where they are opened
    from appliance.providers.janus.provider import JanusProvider
    from appliance.providers.janus.token import Token
    from appliance.providers.sip.provider import SipProvider
    from appliance.providers.whip.provider import WhipProvider

__all__ = ["Above", "Ways"]


@dataclass(frozen=True, slots=True)
class Above:
    """The rooms above, which may be made later: none of them is asked before something is served."""

    idle: Callable[[], bool]  # there is no call
    accept_from: Callable[[str], bool]  # whether this device may call directly
    on_duty: Callable[[Sequence[str]], None]  # the identities of those whose page is
    refused: Callable[..., None]  # somebody or something was: why, who, and by which way
    flag: Callable[..., None]  # of the diagnostics
    hide: Callable[..., None]  # of the log
    renewed: Callable[[], None]  # there is a new token for the rooms


class Ways:
    """``open`` once. ``safe``: without media no server is tried, and there are no ``providers``. ``background`` is what
    has to run while they are in use, by name."""

    def __init__(
        self, settings: Settings, studio: Studio, clock: Clock, network: NetworkWatch, notes: Notes, above: Above, *,
        safe: bool,
    ) -> None:
        self._settings = settings
        self._studio = studio
        self._clock = clock
        self._network = network
        self._notes = notes
        self._above = above
        self._safe = safe
        self._ice = _ice(settings.direct)
        self.token: Token | None = None
        self.background: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = []

    async def open(self, link: Link | None) -> None:
        device, direct = self._settings.device, self._settings.direct
        self.direct = DirectProvider(
            Party(device.id, device.name), self._studio, self._clock, ice=self._ice, link=link, peers=direct.peers,
            accept_from=self._above.accept_from, refused=self._above.refused, on_duty=self._above.on_duty)
        self._network.on_change(self.direct.network_changed)
        self.janus = await self._rooms()
        self.sip = self._telephony()
        self.whip = await self._media_servers()
        self._watch_ice()

    @property
    def providers(self) -> tuple[CallProvider, ...]:
        ways: list[CallProvider | None] = [] if self._safe else [self.direct, self.janus, self.sip, self.whip]
        return tuple(one for one in ways if one is not None)

    async def _rooms(self) -> JanusProvider | None:
        janus = self._settings.janus
        if not janus.url:
            return None
        from appliance.providers.janus.provider import JanusProvider
        from appliance.providers.janus.token import Token

        token = await asyncio.to_thread(Token, janus.token, self._clock,
                                        kept=self._settings.data_dir / "janus.token", key=janus.token_key,
                                        flag=self._above.flag, fetched=bool(janus.token_url))
        self.token = token
        self._above.hide([token.text])
        rooms = await asyncio.to_thread(JanusProvider, janus, self._studio, token, ice=self._ice,
                                        idle=self._above.idle, refused=self._above.refused)
        self._network.on_change(rooms.network_changed)
        if janus.token_url:
            await self._fetch_tokens(token)
        if (janus.other_urls or janus.trusted_broker) and not self._safe:
            self.background.append(("janus.probe", rooms.probe.run))
            self._network.on_change(lambda *_: rooms.probe.soon())
        return rooms

    async def _fetch_tokens(self, token: Token) -> None:
        from appliance.providers.janus.token_server import Renewal, TokenServer, tls_of

        janus = self._settings.janus
        server = TokenServer(janus.token_url, self._settings.device.id, await asyncio.to_thread(
            tls_of, janus.ca_file, janus.token_cert_file, janus.token_cert_key_file))
        renewal = Renewal(server.fetch, token, hide=lambda text, forget: self._above.hide([text], [forget]),
                          renewed=self._above.renewed)
        self.background.append(("janus.tokens", renewal.run))

    def _telephony(self) -> SipProvider | None:
        settings, device = self._settings.sip, self._settings.device
        if not settings.accounts:
            return None
        from appliance.providers.sip.provider import SipProvider

        sip = SipProvider(settings, self._studio, self._clock, name=device.name, country=device.country,
                          remember=self._notes.remember, keep=self._notes.write, troubled=self._telephony_lost,
                          refused=lambda why, target: self._above.refused(why, device.id, "sip", target=target),
                          ice=self._ice)
        self._network.on_change(sip.network_changed)
        return sip

    async def _media_servers(self) -> WhipProvider | None:
        settings = self._settings.whip
        if not settings:
            return None
        from appliance.providers.whip.provider import WhipProvider

        servers = await asyncio.to_thread(WhipProvider, settings, self._studio, ice=self._ice, idle=self._above.idle)
        for probe in () if self._safe else servers.probes:
            self.background.append(("whip.probe", probe.run))
            self._network.on_change(lambda *_, probe=probe: probe.soon())
        return servers

    def _watch_ice(self) -> None:
        pool = self._studio.servers(self._ice)
        if not pool.all or self._safe:
            return
        watch = ServerWatch(pool, lambda server: is_of_use(pool, server), self._servers_failing)
        self._network.on_change(watch.network_changed)
        self.background.append(("media.servers", watch.run))

    def _servers_failing(self, failing: Mapping[str, str]) -> None:
        self._above.flag("networkRelaysNotReachable", bool(failing), servers=list(failing),
                         what="; ".join(f"{server}: {why}" for server, why in failing.items()))

    def _telephony_lost(self, troubled: Mapping[str, str]) -> None:
        self._above.flag("sipRegistrationLost", bool(troubled), accounts=list(troubled),
                         what="; ".join(f"{account}: {why}" for account, why in troubled.items()))


def _ice(direct: DirectSettings) -> IceServers:
    return IceServers(
        direct.stun, direct.turn, direct.turn_username, direct.turn_password.reveal(), direct.turn_ca_file,
        direct.turn_secret.reveal())
