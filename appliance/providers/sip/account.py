"""One account: its network, its agent, its registration, and the calls that go through it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Final

from appliance.errors import Refused
from appliance.media.api import Directions, IceServers
from appliance.media.plain_rtp import PlainSession
from appliance.media.studio import Studio
from appliance.media.ways import Place, Protection
from appliance.providers.sip.agent import ENCRYPTED, Agent, Hop, Identity, hop_of
from appliance.providers.sip.digest import Credentials
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.keep_alive import KeepAlive
from appliance.providers.sip.leg import SipLeg
from appliance.providers.sip.listener import Listener
from appliance.providers.sip.locate import locate
from appliance.providers.sip.message import Message, Request
from appliance.providers.sip.offer import Carrier, Negotiation
from appliance.providers.sip.registration import FlowBackoff, Registration, State
from appliance.providers.sip.transaction import ServerInvite
from appliance.providers.sip.transport import Flow, StreamFlow, UdpFlow
from appliance.providers.sip.uri import Uri
from appliance.providers.sip.video_line import Pictures
from appliance.providers.sip.websocket import WebSocketFlow
from appliance.settings import SipAccountSettings
from appliance.tasks import Changes
from appliance.vocabulary import Json

__all__ = ["MOVING_S", "Account", "Tls"]

log = logging.getLogger(__name__)

SERVERS: Final = 16  # of all names of an account
SILENT: Final = "the server does not answer"
MOVING_S: Final = 4.0  # for it to be up at another server
FAREWELL_S: Final = 1.0  # for what is still to be said when the account is left


@dataclass(frozen=True, slots=True)
class Tls:
    """How our connections are encrypted, and those of others to us; None where none are."""

    calling: ssl.SSLContext | None = None
    listening: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: SipAccountSettings) -> Tls:
        """Reads files. Blocking. Raises OSError (``ssl.SSLError`` is one)."""
        if settings.transport not in ENCRYPTED:
            return cls()
        calling = ssl.create_default_context(cafile=settings.ca_file or None)
        listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings.ca_file or None)
        listening.verify_mode = ssl.CERT_OPTIONAL  # who shows none may be let in by its address
        for context in (calling, listening):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if settings.cert_file:
                context.load_cert_chain(settings.cert_file, settings.key_file)
        return cls(calling, listening)


class Account:
    """A ``leg.Ground``. ``contact_user``: the secret half of our contact, the same for ever; ``instance``: URN of this
    device. ``on_invite``: somebody calls; ``on_change``: ``up`` or ``trouble`` is another one; ``admit`` raises
    Refused for who may not be called; ``ice``: servers for paths with DTLS; ``impostor`` is told in whose place
    somebody else has answered."""

    def __init__(
        self, settings: SipAccountSettings, studio: Studio, tls: Tls, *, name: str,
        contact_user: str, instance: str, encrypt: bool,
        on_invite: Callable[[Account, Request, ServerInvite, Hop], None], on_change: Callable[[], None],
        admit: Callable[[Uri], None], ice: IceServers, impostor: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.legs: set[SipLeg] = set()
        self._studio = studio
        self._encrypt = encrypt
        self._on_change = on_change
        self._ice = ice
        self.admit = admit
        self.impostor = impostor
        address = Uri.parse(settings.address)
        self._named = [Uri.parse(f"sip:{one}") for one in settings.servers] or [address]
        self._servers = [hop_of(one, settings.transport) for one in self._named]
        self._at = 0  # which of them is in use
        server = self._servers[0]
        self._networks = [ip_network(one) for one in settings.trusted]
        self._flow = self._make_flow(server, tls)
        password = settings.password.reveal()
        loop = asyncio.get_running_loop()
        self.agent = Agent(
            Identity(address, contact_user, server, settings.display_name or name,
                     instance if settings.register else "", self._trusts, settings.withhold_number),
            self._flow, loop, on_invite=lambda *invite: on_invite(self, *invite),
            credentials=Credentials(settings.username or address.user, password) if password else None,
            trace=_trace)
        self._backoff = FlowBackoff()
        self._registration = Registration(
            self.agent, settings.expires_s, self._registration_changed, on_failure=self._failed_over,
            renew=self._renew_flow, backoff=self._backoff)
        self._alive = KeepAlive(self.agent, self._server_lost, self._server_heard)  # of a trunk
        if not settings.register:
            self.agent.on_flow_failed = self._server_lost
        self._silent = False  # it does not answer
        self.moving = False
        """On its way to another server: up, or known not to be, soon."""
        self._open = False
        self._changes = Changes()
        self._why = ""  # no connection
        self._renew = asyncio.Event()
        self._pause_s = 0.0  # before that
        self._pausing = False
        self._task: asyncio.Task[None] | None = None

    def _make_flow(self, server: Hop, tls: Tls) -> Flow:
        """What leads to the server by its transport."""
        settings, received, broken = self.settings, self._received, self._broken
        if server.transport == "udp":
            return UdpFlow(server, settings.port, received, broken)
        if server.transport in ("ws", "wss"):
            return WebSocketFlow(server, settings.path, tls.calling, received, broken)
        listener = Listener(server.transport, settings.port, tls.listening, settings.trusted_names, received) \
            if settings.port else None
        return StreamFlow(server, tls.calling, received, broken, listener)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"sip.account.{self.settings.name}")

    async def stop(self) -> None:
        """Take the registration back and end what is left; within 2 s."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._registration.stop()
        self._alive.stop()
        if self._open:
            await self._said()
        self.agent.close()
        await self._flow.close()

    async def _said(self) -> None:
        """Wait until all of ours is answered, or for FAREWELL_S."""
        done = asyncio.Event()
        self.agent.on_said = done.set
        if not self.agent.saying:
            return
        try:
            async with asyncio.timeout(FAREWELL_S):
                await done.wait()
        except TimeoutError:
            log.debug("the server of account %s does not say goodbye", self.settings.name)

    async def _run(self) -> None:
        """Open the way to the server, again whenever it is broken."""
        while True:
            await self._patience()
            try:
                if self._at == 0:
                    await self._find_servers()
                await self._flow.open()
            except OSError as error:
                self._opened(False, _words(error))
                if not self._failed_over():
                    self._pause_s = self._backoff.failed()
                continue
            self.moving = self.moving and self.settings.register
            self._opened(True, "")
            if self.settings.register:
                self._registration.start()
            elif self.settings.keep_alive:
                self._alive.start(0.0)
            await self._renew.wait()

    async def _patience(self) -> None:
        """Wait as long as is due, unless something else is wanted meanwhile."""
        pause, self._pause_s = self._pause_s, 0.0
        self._renew.clear()
        if pause:
            self._pausing = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._renew.wait()
            self._pausing = False
            self._renew.clear()

    def hurry(self) -> None:
        """Somebody needs help: the way that would be tried after a pause is tried now."""
        if not self._open:
            self.moving = True
            if self._pausing:
                self._renew.set()

    def _opened(self, opened: bool, why: str) -> None:
        if (opened, why) != (self._open, self._why):
            self._open, self._why = opened, why
            self._changed()

    def _broken(self) -> None:
        self._alive.stop()
        self._registration.suspend()
        self._opened(False, "the server closed the connection")
        self._pause_s = self._backoff.lost()
        self._renew.set()

    def network_changed(self, addresses: frozenset[str]) -> None:
        """Where ours is gone: be known under a new one."""
        if not ip_address(self.media_host).is_loopback and self.media_host not in addresses:
            self._renew.set()

    async def _find_servers(self) -> None:
        """At the start of every round: records may be others."""
        transport = self.settings.transport
        self._servers = [hop for one in self._named for hop in await locate(one, transport)][:SERVERS]
        self._use(0)

    def _next_server(self) -> None:
        """After the last one the first again."""
        self._use((self._at + 1) % len(self._servers))

    def _use(self, number: int) -> None:
        self._at = number
        self._flow.server = server = self._servers[self._at]
        self.agent.identity = replace(self.agent.identity, server=server)

    def _changed(self) -> None:
        self._changes.tell()
        self._on_change()

    def _registration_changed(self) -> None:
        registration = self._registration
        log.info("account %s: %s", self.settings.name, registration.state.value)
        self.moving = self.moving and registration.state is State.TRYING
        self._changed()

    def _failed_over(self) -> bool:
        """The server in use is not there: whether another one is tried at once, which is so but after the last one."""
        self._next_server()
        if self._at:
            self._renew.set()
        elif self.moving:
            self.moving = False
            self._changed()
        return bool(self._at)

    def _renew_flow(self) -> bool:
        """Over UDP the way to the same server is as good as another one."""
        if self.settings.transport == "udp" and len(self._servers) == 1:
            return False
        self._renew.set()
        return True

    def _server_lost(self) -> None:
        """A trunk does not answer: the next one is used, or the same as soon as it does."""
        if not self._silent:
            log.info("account %s: %s", self.settings.name, SILENT)
        self._silent = True
        pause = self._backoff.lost()
        if self._renew_flow():
            self._alive.stop()
            if not self._failed_over():
                self._pause_s = pause
        self._changed()

    def _server_heard(self) -> None:
        self._backoff.heard()
        if self._silent:
            log.info("account %s: the server answers again", self.settings.name)
            self._silent = False
            self._changed()

    def server_silent(self) -> None:
        """It takes no call, or says no word to one: where there is another one, what comes next goes there, but not
        while another call still goes by this one."""
        if len(self.legs) <= 1 and len(self._servers) > 1:
            self.moving = True
            self._opened(False, "")
            self._go_to_next()

    async def settled(self) -> bool:
        """Wait while it is on its way to another server, for MOVING_S at the most; returns whether it is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOVING_S):
                while self.moving and not self.up:
                    await self._changes.next()
        return self.up

    def _go_to_next(self) -> None:
        if len(self._servers) > 1:
            self._alive.stop()
            self._next_server()
            self._renew.set()

    def _received(self, data: bytes, hop: Hop) -> None:
        """The boundary: whatever a message does to us, it is one message."""
        try:
            self.agent.receive(data, hop)
        except Exception:
            log.exception("a message of account %s was not taken; this is a defect", self.settings.name)

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether it can be called through."""
        return self._open and (self._registration.state is State.UP if self.settings.register else not self._silent)

    @property
    def open(self) -> bool:
        """Whether there is a way to the server."""
        return self._open

    @property
    def trouble(self) -> str:
        """Why it is not up, for people; empty while it is, or is about to be for the first time."""
        if not self._open:
            return self._why
        if self._silent:
            return SILENT
        state = self._registration.state
        if state in (State.OFF, State.TRYING, State.UP):
            return ""
        return f"{state.value} (SIP {self._registration.status})" if self._registration.status else state.value

    def document(self) -> Json:
        state = "connected" if not self.settings.register and self._open else self._registration.state.value
        return {"address": self.settings.address, "server": self._at + 1, "up": self.up, "state": self.trouble or state,
                "calls": len(self.legs), "strangers": self.agent.unwanted, "malformed": self.agent.malformed,
                "flooded": self.agent.flooded}

    @property
    def domain(self) -> str:
        return self.agent.identity.address.host.lower()

    def _trusts(self, hop: Hop) -> bool:
        address = ip_address(hop.host)
        return bool(hop.name) or any(address in network for network in self._networks)

    # --- Ground -----------------------------------------------------------------------------------------------------

    @property
    def media_host(self) -> str:
        return self._flow.local(self.agent.identity.server)[0]

    @property
    def signalling(self) -> Json:
        return {"signalling": self.settings.transport.upper()}

    @property
    def carrier(self) -> Carrier:
        return Carrier.ICE if self.settings.encryption == "dtls" else Carrier.PORTS

    @property
    def pictures(self) -> bool:
        return self.settings.video

    def negotiation(
        self, places: Mapping[str, Place], pictures: Pictures | None, *, sending: bool = False, asked: bool = False,
        plain: bool = False,
    ) -> Negotiation:
        wish = self.settings.encryption
        secure = wish == "sdes" or (wish == "auto" and self.settings.transport in ENCRYPTED)
        return Negotiation(self.media_host, places, secure=secure and not plain, insist=self._encrypt and not plain,
                           pictures=pictures, sending=sending, asked=asked)

    def session(self, wanted: Directions, protections: Mapping[str, Protection]) -> PlainSession:
        return self._studio.plain_session(wanted, protections=protections, ice=self._ice)

    def address(self, uri: str) -> Uri:
        try:
            found = Uri.parse(uri)
        except Malformed as error:
            raise Refused(f"{uri!r} is no address that can be called: {error}", code=404,
                          sub_code="notFound") from error
        if found.secure and self.settings.transport not in ENCRYPTED:
            raise Refused(f"{uri} wants TLS all the way, which account {self.settings.name} does not use.",
                          code=488, sub_code="noCodec", retryable=False)
        if found.scheme == "tel":
            found = Uri("sip", found.identity, self.domain, params={"user": "phone"})
        return found

    def leg_over(self, leg: SipLeg) -> None:
        self.legs.discard(leg)


def _trace(direction: str, message: Message, hop: Hop) -> None:
    """What goes over the network, without who and where."""
    if log.isEnabledFor(logging.DEBUG):
        what = message.method if isinstance(message, Request) else message.first_line[8:11]
        log.debug("%s %s of %s over %s", direction, what, message.cseq, hop.transport)


def _words(error: OSError) -> str:
    """For people: without numbers and Python's own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    return os.strerror(error.errno) if error.errno and not isinstance(error, ssl.SSLError | socket.gaierror) \
        else str(error)
