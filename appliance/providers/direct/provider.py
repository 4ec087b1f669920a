"""The provider ``direct``: calls between appliances and with the appliance's own page, without a room server.

Targets: ``operator:*`` (everybody on duty on our page, ringing together), ``operator:<name>``, ``device:<id>`` (over
the broker), ``lan:<peer>`` (over the other appliance's WebSocket). Whether a caller may ring, whether we are busy or
not to be disturbed is the controller's decision; here stand the limits that hold for everybody, and glare.

**Glare.** Both sides dial each other at once: the call from the lexically smaller id lives. The larger side's leg
turns into the callee of the other's call and answers it at once (its user has asked for just that); the smaller side
drops the other's invitation. Neither controller sees a second call or an end; the larger side's is told the id its
call goes on under.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from appliance.clock import Clock, RateLimits
from appliance.errors import Refused
from appliance.handover import PeerAttach
from appliance.link.api import Link
from appliance.media.api import Directions, IceServers, Session, Studio
from appliance.network import Network
from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.dialog import Dialog, Timings
from appliance.providers.direct.endpoint import Endpoint
from appliance.providers.direct.fleet import Fleet
from appliance.providers.direct.lan import LanPeers
from appliance.providers.direct.leg import DirectLeg
from appliance.providers.direct.pages import Pages
from appliance.settings import PeerSettings
from appliance.vocabulary import END_REASONS, CallKind, Json
from hw.api import HardwareError

__all__ = ["DirectProvider"]

log = logging.getLogger(__name__)

INVITES_PER_MINUTE: Final = 10
CALLS_PER_PEER: Final = 2
"""One call, and one that waits or rings."""
CALLERS_REMEMBERED: Final = 256
PICTURE_WIDTHS: Final = (480, 320, 240)
"""The first one whose JPEG fits a message."""


class DirectProvider:
    """A CallProvider (``providers.api``). ``me``: device id and name of this appliance.

    ``accept_from``: whether signalling of a device id is taken (address book, ``direct.fleet``). ``refused`` is told
    (why, sender) of what was refused for a security reason, ``on_duty`` the names on duty at every change.
    """

    def __init__(
        self, me: wire.Party, studio: Studio, clock: Clock, *, ice: IceServers, link: Link | None,
        peers: Sequence[PeerSettings], accept_from: Callable[[str], bool], refused: Callable[[str, str], None],
        on_duty: Callable[[Sequence[str]], None], timings: Timings | None = None,
    ) -> None:
        self._me = me
        self._studio = studio
        self._clock = clock
        self._ice = ice
        self._refused = refused
        self._timings = timings or Timings()
        self._legs: set[DirectLeg] = set()
        self._invites = RateLimits(INVITES_PER_MINUTE / 60, INVITES_PER_MINUTE, clock.monotonic,
                                   most=CALLERS_REMEMBERED)
        self._pictures: dict[DirectLeg, asyncio.Task[None]] = {}
        self._on_incoming: Callable[[api.IncomingCall], None] | None = None
        self._pages = Pages(me, self, clock, on_duty=on_duty, ring_too=self._ring_too, grace_s=self._timings.grace_s)
        self._fleet = Fleet(me.identity, self, clock, link, accept_from) if link is not None else None
        self._lan = LanPeers(me, self, clock, peers)

    # --- CallProvider -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "direct"

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset({"device", "lan", "operator"})

    @property
    def attach(self) -> PeerAttach:
        """To mount under ``/v1/peer``."""
        return self._pages.attach

    @property
    def on_duty(self) -> Sequence[str]:
        return self._pages.names

    async def start(self, on_incoming: Callable[[api.IncomingCall], None]) -> None:
        self._on_incoming = on_incoming
        if self._fleet is not None:
            self._fleet.start()

    async def stop(self) -> None:
        self._on_incoming = None
        await asyncio.gather(*(leg.end(END_REASONS["503/shutdown"]) for leg in tuple(self._legs)))
        await asyncio.gather(self._pages.close(), self._lan.close(),
                             *([self._fleet.close()] if self._fleet is not None else []))

    def reachable(self, target: api.Target) -> bool | None:
        match target.scheme:
            case "operator":
                return bool(self._pages.on_duty(target.address))
            case "device":
                return None if self._fleet is not None and self._fleet.connected else False
            case "lan":
                return True if self._lan.connected(target.address) else None
            case _:
                return False

    async def dial(self, target: api.Target, *, call_id: str, caller: api.Peer, media: api.MediaWanted) -> DirectLeg:
        endpoints = self._endpoints(target)
        placeholder = api.Peer(target.address, target.uri, "", "unknown") if len(endpoints) != 1 else endpoints[0].peer
        dialog = Dialog(call_id, me=wire.Party(caller.identity, caller.display_name),
                        sends=wire.Sends(media.send_audio, media.send_video), timings=self._timings)
        leg = DirectLeg(uuid.uuid4().hex, dialog, self, self._make_session, media, to=target.uri,
                        placeholder=placeholder)
        self._legs.add(leg)
        leg.invite(endpoints)
        if media.send_video and target.scheme == "operator":
            self._pictures[leg] = asyncio.create_task(self._show_visitor(leg), name=f"direct.picture.{call_id[:12]}")
        return leg

    def state(self) -> Json:
        broker = "none" if self._fleet is None else "connected" if self._fleet.connected else "lost"
        return {
            "connection": {"broker": broker},
            "onDuty": list(self._pages.names),
            "peers": {name: {"connected": self._lan.connected(name)} for name in self._lan.names},
            "calls": len(self._legs),
            "capabilities": {
                "operator": _able(bool(self._pages.names), "nobodyOnDuty"),
                "device": _able(broker == "connected", "mqttDisconnected" if self._fleet else "noBroker"),
                "lan": _able(bool(self._lan.names), "noPeersConfigured"),
            },
        }

    def _endpoints(self, target: api.Target) -> Sequence[Endpoint]:
        match target.scheme:
            case "operator":
                return self._operators(target.address)
            case "device":
                if self._fleet is None or not self._fleet.connected:
                    raise Refused("The other device is called over the broker, which is not connected.", code=480,
                                  sub_code="unreachable")
                return [self._fleet.endpoint(target.address)]
            case "lan":
                return [self._lan.endpoint(target.address)]
            case _:
                raise Refused(f"Nobody is called by {target.scheme}: here.", code=404, sub_code="notFound")

    def _operators(self, name: str) -> Sequence[Endpoint]:
        found = self._pages.on_duty(name)
        if not found:
            reason = END_REASONS["480/unreachable"]
            raise Refused("Nobody is on duty. Open the operator page and go on duty.", code=reason.code,
                          sub_code=reason.sub_code, category=reason.category)
        return found

    def _make_session(self, wanted: Directions, loopback: bool) -> Session:
        return self._studio.session(wanted, ice=self._ice, loopback=loopback)

    def network_changed(self, _before: Network, now: Network) -> None:
        """Signalling that goes through a network which is gone is made anew at once."""
        self._lan.network_changed(now.addresses)

    # --- the visitor's picture --------------------------------------------------------------------------------------

    async def _show_visitor(self, leg: DirectLeg) -> None:
        """Decisions D4: the ring went out before; the picture follows."""
        try:
            jpeg = await self._picture()
        except HardwareError as error:
            log.warning("no picture of the visitor: %s", error)
            return
        if jpeg is None:
            log.warning("the picture of the visitor does not fit a message")
            return
        for endpoint in leg.endpoints.values():
            if endpoint.pictures:
                leg.show_picture(jpeg, endpoint)

    async def _picture(self) -> bytes | None:
        for width in PICTURE_WIDTHS:
            jpeg = await self._studio.snapshot(width)
            if len(jpeg) <= wire.PICTURE_BYTES:
                return jpeg
        return None

    def _ring_too(self, endpoint: Endpoint, name: str) -> None:
        """Somebody went on duty while an operator's call rings."""
        for leg in tuple(self._legs):
            if leg.to in ("operator:*", f"operator:{name}") and leg.ring_too(endpoint):
                self._pictures[leg] = asyncio.create_task(self._show_visitor(leg), name="direct.picture.late")

    # --- Switchboard ------------------------------------------------------------------------------------------------

    def refused(self, why: str, sender: str) -> None:
        log.warning("signalling refused: %s", why)
        self._refused(why, sender)

    def invited(self, endpoint: Endpoint, invite: wire.Invite) -> None:
        caller = endpoint.peer.identity
        if not self._invites.take(caller):
            self._turn_away(endpoint, invite, 403, "notAllowed", "more than 10 calls in a minute")
            return
        if self._glare(endpoint, invite):
            return
        if any(leg.call_id == invite.call_id for leg in self._legs):
            self._turn_away(endpoint, invite, 403, "notAllowed", "a call id that is another's")
            return
        if len(endpoint.calls) >= CALLS_PER_PEER or self._calls_of(caller) >= CALLS_PER_PEER:
            self._turn_away(endpoint, invite, 486, "busy", "")
            return
        if self._on_incoming is None:
            self._turn_away(endpoint, invite, 503, "shutdown", "")
            return
        dialog = Dialog.incoming(invite, endpoint.key, endpoint.peer, me=self._me, timings=self._timings)
        leg = DirectLeg(uuid.uuid4().hex, dialog, self, self._make_session, api.MediaWanted())
        leg.invited_by(endpoint)
        self._legs.add(leg)
        kind = CallKind.LAN if endpoint.peer.uri.startswith("lan:") else CallKind.P2P
        self._on_incoming(api.IncomingCall(invite.call_id, leg, kind, {"to": invite.to}))

    def _calls_of(self, identity: str) -> int:
        return sum(1 for leg in self._legs if not leg.calling and leg.peer.identity == identity)

    def _turn_away(self, endpoint: Endpoint, invite: wire.Invite, code: int, sub_code: str, why: str) -> None:
        if why:
            self.refused(why, endpoint.peer.identity)
        endpoint.post(wire.Reject(invite.call_id, wire.Cause(code, sub_code)))
        endpoint.forget(invite.call_id, END_REASONS[f"{code}/{sub_code}"])

    def _glare(self, endpoint: Endpoint, invite: wire.Invite) -> bool:
        """Whether the caller is one whom we are calling: then only one call lives, and it is settled here."""
        leg = next((leg for leg in self._legs if leg.calling and self._calls(leg, endpoint)), None)
        if leg is None:
            return False
        theirs = endpoint.device or endpoint.peer.identity
        if self._me.identity < theirs:
            endpoint.forget(invite.call_id, END_REASONS["487/answeredElsewhere"])
        else:
            leg.yield_to(invite, endpoint)
        return True

    @staticmethod
    def _calls(leg: DirectLeg, endpoint: Endpoint) -> bool:
        """Whether a leg rings the one behind this endpoint. An appliance on the LAN calls over its own connection, so
        its proven name must be the one we know it by; what it says of itself is no proof."""
        if endpoint.key in leg.endpoints:
            return True
        return any(other.key.startswith("lan:") and endpoint.peer.uri.startswith("lan:")
                   and endpoint.peer.identity in (other.peer.identity, other.device)
                   for other in leg.endpoints.values())

    # --- Owner ------------------------------------------------------------------------------------------------------

    def leg_over(self, leg: DirectLeg) -> None:
        self._legs.discard(leg)
        picture = self._pictures.pop(leg, None)
        if picture is not None:
            picture.cancel()

    @property
    def legs(self) -> Mapping[str, DirectLeg]:
        """Live legs by call id, for diagnostics."""
        return {leg.call_id: leg for leg in self._legs}


def _able(present: bool, why_not: str) -> Json:
    return {"isPresent": present, "reason": "Capable" if present else why_not}
