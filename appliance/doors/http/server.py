"""The HTTP door: one application on TCP and on a Unix socket, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from appliance import places
from appliance.bulletin import Bulletin
from appliance.doors.http.auth import Grant, Sessions
from appliance.doors.http.camera import CameraStream
from appliance.doors.http.commands import Commands
from appliance.doors.http.events import EventStreams
from appliance.doors.http.gate import Gate, is_loopback
from appliance.doors.http.listen import bind_tcp, bind_unix
from appliance.doors.http.metrics import Metrics
from appliance.doors.http.pages import SECURITY_HEADERS, Pages
from appliance.doors.http.peer import PeerSockets
from appliance.doors.http.ports import Ports
from appliance.doors.http.replies import json_reply, reply
from appliance.doors.http.routes import Routes, address_grant
from appliance.doors.http.sim import SimStream
from appliance.doors.http.tls import server_context
from appliance.errors import EdgecallError, SettingsError
from appliance.faces.envelope import refusal
from appliance.intake import Submit
from appliance.settings import Settings
from appliance.vocabulary import MAX_PAYLOAD, Answer, Category, Result
from hw.api import HardwareError

__all__ = ["HttpDoor"]

log = logging.getLogger(__name__)

_wire = logging.getLogger(f"{__name__}.wire")
_wire.setLevel(logging.CRITICAL)
"""aiohttp logs a traceback for every line of garbage that a stranger sends; our own failures are logged in
``_answered``, before aiohttp sees them."""

SHUTDOWN_S: Final = 1.0
"""What a request still running gets at stop; streams are closed before."""

KEEPALIVE_S: Final = 75.0

CONNECTIONS_LIMIT: Final = 256

REQUEST_S: Final = 15.0
"""A connection whose request is not complete to the end of its headers by then is closed; aiohttp waits for ever."""

SWEEP_S: Final = 5.0

KEEP_SESSIONS_S: Final = 300.0
"""Between two writings of the times of last use: a power failure makes an idle session at most so much older."""

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpDoor:
    """REST, events, console, signalling and metrics. All on the loop; ``start`` once, ``stop`` at any moment."""

    def __init__(
        self, settings: Settings, submit: Submit, bulletin: Bulletin, *, ports: Ports,
        socket_path: Path | None = None, now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``socket_path``: the command line's socket, by default where ``places`` says. Raises SettingsError for
        tokens that cannot be used."""
        data = settings.data_dir.expanduser()
        self.socket_path = socket_path or places.socket_path(data)
        self.fingerprint = ""
        self._http = settings.http
        self._bulletin = bulletin
        self._secrets = data / "secrets"
        self._sessions = Sessions(self._secrets / "http-sessions.json", now, wall)
        self._saving = asyncio.Lock()
        self._gate = Gate(settings, bulletin, now, self._sessions)
        self._pages = Pages()
        self._events = EventStreams(bulletin, settings.device.id)
        self._peers = PeerSockets(ports.attach)
        self._sim = SimStream(ports.simulation)
        self._camera = CameraStream(ports, bulletin)
        self._metrics = Metrics(bulletin, settings.device.id)
        self._routes = Routes(
            settings.device, bulletin, ports, self._gate, self._pages, Commands(submit, bulletin), self._events,
            self._peers, self._camera, self._sim, self._metrics, self._address, self._keep_sessions)
        self._runner: web.AppRunner | None = None
        self._counting = contextlib.ExitStack()
        self._port = settings.http.port
        self._outward = ""
        self._tcp: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._tending: asyncio.Task[None] | None = None
        self._waiting: dict[web.RequestHandler, float] = {}  # loop time since when for a request
        self._stopping = False

    @property
    def port(self) -> int:
        """The TCP port really bound."""
        return self._port

    def address(self) -> str:
        """A fresh one-time address of the device page."""
        return self._address(address_grant(), "/")

    async def start(self) -> None:
        """Listen. Raises PortBusyError (with the holder) or SettingsError; then nothing is left behind."""
        await asyncio.to_thread(self._pages.load)
        try:
            await asyncio.to_thread(self._sessions.load)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("page sessions of the last run are lost, addresses must be opened anew: %s", error)
        context = None
        if self._http.cert_file or self._http.key_file or not is_loopback(self._http.listen):
            context, self.fingerprint = await asyncio.to_thread(server_context, self._http, self._secrets)
            self._gate.tls = True
            self._outward = await asyncio.to_thread(_outward_address)
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_PAYLOAD)
        app.on_response_prepare.append(self._prepare)
        self._routes.install(app)
        self._counting.enter_context(self._bulletin.subscribed(on_event=self._metrics.event))
        self._runner = web.AppRunner(app, access_log=None, logger=_wire, shutdown_timeout=SHUTDOWN_S,
                                     keepalive_timeout=KEEPALIVE_S)
        try:
            await self._runner.setup()
            tcp = await asyncio.to_thread(bind_tcp, self._http.listen, self._http.port)
            self._port = tcp.getsockname()[1]
            await self._serve(tcp, context)
            commands = await self._serve_commands(self._runner)
        except BaseException:
            await self.stop()
            raise
        self._tending = asyncio.create_task(self._tend_sessions(), name="http.sessions")
        log.info("listening on %s port %d%s", self._http.listen, self._port,
                 f" and {self.socket_path}" if commands else "")
        if self.fingerprint:
            log.info("certificate fingerprint SHA-256 %s", self.fingerprint)

    async def _serve_commands(self, runner: web.AppRunner) -> bool:
        """The socket of the command line; whether there is one. A folder that cannot be written costs it alone."""
        try:
            unix = await asyncio.to_thread(bind_unix, self.socket_path)
        except SettingsError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            log.error("no commands by the command line: %s", error)  # noqa: TRY400 - words for people, no traceback
            return False
        await web.SockSite(runner, unix).start()
        return True

    async def stop(self) -> None:
        """Close streams and sockets within 2 s; may be called twice."""
        self._stopping = True
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._tcp is not None:
            self._tcp.close()
        self._events.close()
        self._camera.close()
        await asyncio.gather(self._peers.close(), self._sim.close())
        await runner.cleanup()
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
            await self._keep_at_last()
        self._counting.close()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.socket_path.unlink)

    async def _serve(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Accept on TCP, a bounded number of connections: strangers must not use up our file descriptors. The
        command line's socket is apart, so the owner gets in all the same."""
        server = self._runner.server if self._runner is not None else None
        if server is None:
            raise RuntimeError("the runner is not set up")

        def connection() -> asyncio.BaseProtocol:
            return server() if len(server.connections) < CONNECTIONS_LIMIT else _Full()

        self._tcp = await asyncio.get_running_loop().create_server(
            connection, sock=sock, ssl=context, ssl_handshake_timeout=REQUEST_S if context is not None else None)
        self._sweep(server)

    def _sweep(self, server: web.Server) -> None:
        """Close connections that have been waiting for their request for too long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._waiting = {protocol: self._waiting.get(protocol, now) for protocol in server.connections}
        for protocol, since in self._waiting.items():
            if since < now - REQUEST_S:
                protocol.force_close()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, server)

    def _address(self, grant: Grant, page: str) -> str:
        suffix = "" if page == "/" else f"&next={page}"
        return f"{self._base()}/enter?token={self._gate.addresses.issue(grant)}{suffix}"

    def _base(self) -> str:
        host = self._http.listen
        if self._http.names:
            host = self._http.names[0]
        elif host in {"", "0.0.0.0", "::"}:  # noqa: S104 - recognised, not bound
            host = self._outward
        if ":" in host:
            host = f"[{host}]"
        return f"{'https' if self._gate.tls else 'http'}://{host}:{self._port}"

    async def _tend_sessions(self) -> None:
        """End idle sessions, and write down when the others were used last."""
        while True:
            await asyncio.sleep(KEEP_SESSIONS_S)
            self._sessions.expire()
            if self._sessions.changed:
                await self._keep_sessions()

    async def _keep_at_last(self) -> None:
        """A data folder that hangs does not hold up the stop."""
        if not self._sessions.changed:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                await self._keep_sessions()
        except TimeoutError:
            log.warning("page sessions were not kept: the data folder does not answer")

    async def _keep_sessions(self) -> None:
        """Write the sessions down. A data folder that cannot be written costs only their survival of a restart."""
        async with self._saving:
            try:
                await asyncio.to_thread(self._sessions.save, self._sessions.dump())
            except OSError as error:
                log.warning("page sessions cannot be kept over a restart: %s", error)

    @staticmethod
    async def _prepare(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(SECURITY_HEADERS)
        response.headers["Server"] = "edgecall"
        response.headers.setdefault("Cache-Control", "no-store")

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        self._waiting[request.protocol] = math.inf
        try:
            response = await self._answered(request, handler)
        finally:
            self._waiting[request.protocol] = asyncio.get_running_loop().time() + KEEPALIVE_S
        resource = request.match_info.route.resource
        self._metrics.request(request.method if request.method in _METHODS else "other",
                              resource.canonical if resource is not None else "unknown", response.status)
        return response

    async def _answered(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        """The handler's response, or what its exception means; the outermost frame of every request."""
        if self._stopping:
            return reply(refusal("", _SHUTTING_DOWN, self._bulletin.rev))
        try:
            self._gate.check_host(request)
            return await handler(request)
        except web.HTTPException as error:
            sub_code = error.reason[:1].lower() + error.reason[1:].replace(" ", "")
            refused = json_reply(Answer("", Result.REJECTED, error.status, sub_code, Category.EXPECTED,
                                        _WORDS.get(error.status, error.reason), self._bulletin.rev).payload(),
                                 error.status)
            if "Allow" in error.headers:  # RFC 9110 15.5.6
                refused.headers["Allow"] = error.headers["Allow"]
            return refused
        except (EdgecallError, HardwareError) as error:
            return self._refused(request, refusal("", error, self._bulletin.rev))
        except ConnectionError:
            raise  # the client is gone: aiohttp ends the request without a word
        except Exception as error:
            log.exception("a request failed; this is a defect")
            return reply(refusal("", error, self._bulletin.rev))

    def _refused(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        """People get a page, programs get JSON."""
        if "text/html" in request.headers.get("Accept", "") and not request.path.startswith("/v1/"):
            return self._pages.notice(answer.code, "This page cannot be shown", answer.message)
        return reply(answer)


class _Full(asyncio.Protocol):
    """Closes a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


_SHUTTING_DOWN: Final = EdgecallError("The appliance is shutting down.", code=503, sub_code="shutdown")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WORDS: Final = {404: "There is nothing at this address; GET /v1/openapi.json lists all that there are.",
                 405: "This address does not take this method; the header Allow names those that it takes."}


def _outward_address() -> str:
    """The address of ours that leads outside; connecting a UDP socket asks the routing table and sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
        except OSError:  # no route: the name is the best we know
            return socket.gethostname()
        return str(probe.getsockname()[0])
