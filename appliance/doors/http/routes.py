"""Which address answers what, and who may ask."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from appliance.bulletin import Bulletin
from appliance.doors.http.auth import Caller, Grant, Proof, Session
from appliance.doors.http.camera import CameraStream
from appliance.doors.http.commands import Commands, read_body, read_object
from appliance.doors.http.events import EventStreams
from appliance.doors.http.gate import Gate
from appliance.doors.http.metrics import CONTENT_TYPE, Metrics
from appliance.doors.http.pages import Pages
from appliance.doors.http.peer import PeerSockets
from appliance.doors.http.ports import Ports
from appliance.doors.http.replies import json_reply
from appliance.doors.http.sim import SimStream
from appliance.errors import BadRequest, NotPermitted, Refused
from appliance.settings import DeviceSettings
from appliance.vocabulary import (
    DIAGNOSTICS,
    DIALECTS,
    DOCUMENTS,
    END_REASONS,
    ID_PATTERN,
    SAMPLE_S,
    VOLATILE,
    Scope,
)

__all__ = ["Routes", "address_grant"]

_PAGES: Final = {"/": "device.html", "/operator": "operator.html"}
_PEOPLE: Final = (Scope.OPERATOR, Scope.ADMIN)
"""Scopes of pages; an appliance opens none."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Served = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


def address_grant(name: str = "operator", scope: Scope = Scope.ADMIN, display_name: str = "") -> Grant:
    """What a printed address gives. The one who can print it holds the appliance: admin unless told otherwise."""
    return Grant(name, scope, display_name or name.replace("-", " ").title())


def _see_other(target: str) -> web.Response:
    return web.Response(status=303, headers={"Location": target})


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers of all routes. Those given a Caller have passed the gate."""

    device: DeviceSettings
    bulletin: Bulletin
    ports: Ports
    gate: Gate
    pages: Pages
    commands: Commands
    events: EventStreams
    peers: PeerSockets
    camera: CameraStream
    sim: SimStream
    metrics: Metrics
    address: Callable[[Grant, str], str]
    keep_sessions: Callable[[], Awaitable[None]]

    def install(self, app: web.Application) -> None:
        operator, admin = Scope.OPERATOR, Scope.ADMIN
        app.router.add_routes([
            web.get("/", self._page), web.get("/operator", self._page), web.get("/enter", self._enter),
            web.get("/console/{name}", self._file), web.get("/favicon.ico", self._icon),
            web.get("/v1/health", self._health),
            web.post("/v1/cmd/{verb}", self._gated(operator, self.commands.post, "wait")),
            web.get("/v1/state", self._gated(operator, self._state)),
            web.get(f"/v1/state/{VOLATILE}", self._gated(operator, self._stats, "dialect")),
            web.get("/v1/state/{name}", self._gated(operator, self._document)),
            web.get("/v1/events", self._gated(operator, self._events, VOLATILE, "dialect"), allow_head=False),
            web.get("/v1/session", self._gated(operator, self._session)),
            web.delete("/v1/session", self._gated(operator, self._sign_out)),
            web.post("/v1/address", self._gated(admin, self._address)),
            web.get("/v1/stats", self._gated(operator, self._stats, "dialect")),
            web.get("/v1/calls/{call}/summary", self._gated(operator, self._summary, "dialect")),
            web.get("/v1/camera/snapshot", self._gated(operator, self._snapshot), allow_head=False),
            web.get("/v1/camera/preview", self._gated(operator, self._preview), allow_head=False),
            web.get("/v1/openapi.json", self._gated(operator, self._openapi)),
            web.get("/metrics", self._gated(operator, self._metrics)),
            web.get("/v1/peer", self._gated(operator, self._peer, "page", devices=True), allow_head=False),
            web.get("/v1/sim", self._gated(operator, self._sim), allow_head=False),
        ])

    def _gated(self, need: Scope, handler: Served, *query: str, devices: bool = False) -> Handler:
        """``query``: the parameters that the route takes; others are refused, for a misspelt one would change nothing
        and say nothing."""
        async def admitted(request: web.Request) -> web.StreamResponse:
            caller = self.gate.admit(request, need, devices=devices)
            _check_query(request, query)
            return await handler(request, caller)

        return admitted

    # --- pages ------------------------------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if self.gate.session(request) is None:
            return self.pages.notice(
                401, "Open this page with a fresh address",
                "This browser has no session with the appliance, or it has expired. On the appliance, this command "
                "prints an address that opens the page once:", "edgecall address")
        return self.pages.serve(request, _PAGES[request.path])

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        """Exchange the one-time token of a printed address for a session cookie."""
        target = request.query.get("next", "/")
        target = target if target in _PAGES else "/"
        grant = self.gate.addresses.redeem(request.query.get("token", ""))
        if grant is None:
            if self.gate.session(request) is not None:  # the same address, opened again by the same browser
                return _see_other(target)
            refusal = self.gate.wrong_address(request)
            return self.pages.notice(refusal.code, "This address is used up",
                                     f"{refusal.message} On the appliance, this command prints a fresh one:",
                                     "edgecall address")
        secret = self.gate.sessions.open(grant)
        await self.keep_sessions()
        direct = request.headers.get("Sec-Fetch-Site", "none") in {"none", "same-origin"}
        response = _see_other(target) if direct else self.pages.arrived(target)
        response.set_cookie(self.gate.cookie, secret, path="/", httponly=True, samesite="Strict",
                            secure=self.gate.tls, max_age=30 * 24 * 3600)
        return response

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return self.pages.serve(request, request.match_info["name"])

    async def _icon(self, request: web.Request) -> web.StreamResponse:
        return self.pages.serve(request, "icon.svg")

    # --- session ----------------------------------------------------------------------------------------------------

    async def _session(self, _request: web.Request, caller: Caller) -> web.StreamResponse:
        """Who the caller is, what this device is, and the vocabulary's words for its page."""
        return json_reply({
            "name": caller.grant.name, "displayName": caller.grant.display_name, "scope": caller.grant.scope.value,
            "device": {"id": self.device.id, "name": self.device.name},
            "simulation": self.ports.simulation is not None, "calls": self.ports.attach is not None,
            "words": {
                "diagnostics": {d.name: {"message": d.message, "advice": d.advice} for d in DIAGNOSTICS.values()},
                "reasons": {key: reason.payload() for key, reason in END_REASONS.items()},
            },
        })

    async def _sign_out(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        if caller.proof is not Proof.COOKIE:
            raise Refused("Only a page session can be ended.", code=409, sub_code="noSession")
        self.gate.sessions.end(request.cookies[self.gate.cookie])
        await self.keep_sessions()
        await self.peers.close(caller.session, "signed out")
        await self.sim.close(caller.session, "signed out")
        self.camera.close(caller.session)
        response = json_reply({})
        response.del_cookie(self.gate.cookie, path="/", secure=self.gate.tls, httponly=True, samesite="Strict")
        return response

    async def _address(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Print a fresh one-time address: ``{name?, displayName?, scope?, page?}``, never above the asker's scope."""
        wish = read_object(await read_body(request))
        name, page = wish.get("name", "operator"), wish.get("page", "/")
        shown, scope = wish.get("displayName", ""), wish.get("scope", Scope.ADMIN.value)
        unknown = wish.keys() - {"name", "displayName", "scope", "page"}
        if unknown:
            raise BadRequest(f"Unknown: {', '.join(sorted(unknown))}. Known: name, displayName, scope, page.")
        if not isinstance(name, str) or not re.fullmatch(ID_PATTERN, name) or name == self.device.id:
            raise BadRequest("name has 3 to 40 of a-z, 0-9 and '-', and is not the device's id.")
        if not isinstance(shown, str) or len(shown) > 64:
            raise BadRequest("displayName has at most 64 characters.")
        if page not in _PAGES or scope not in _PEOPLE:
            raise BadRequest(f"page is one of {', '.join(_PAGES)}; scope one of {', '.join(_PEOPLE)}.")
        if not caller.grant.scope.permits(Scope(scope)):
            raise NotPermitted("An address cannot give more than its asker has.")
        return json_reply({"address": self.address(address_grant(name, Scope(scope), shown), page)})

    # --- what is known ----------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.StreamResponse:
        """Status for anybody (a load balancer has no token), causes for those who may know."""
        health = self.ports.health()
        status = 503 if health.get("status") == "failed" else 200
        caller = self.gate.identify(request)
        if caller is None or caller.grant.scope is Scope.DEVICE:
            health = {"status": health.get("status")}
        return json_reply(health, status)

    async def _state(self, _request: web.Request, _caller: Caller) -> web.StreamResponse:
        snapshot = self.bulletin.snapshot()
        return json_reply({"rev": snapshot.rev, "boot": self.bulletin.boot, "documents": dict(snapshot.documents)})

    async def _document(self, request: web.Request, _caller: Caller) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in DOCUMENTS:
            raise BadRequest(f"There is no state {name[:40]!r}. Known: {', '.join(DOCUMENTS)}.",
                             code=404, sub_code="notFound")
        return json_reply(self.bulletin.document(name))

    async def _events(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        with self._lease(request, caller) as session, self._following(request):
            return await self.events.serve(request, None if session is None else session.on_end)

    def _following(self, request: web.Request) -> AbstractContextManager[None]:
        """``?quality=SECONDS&dialect=``: samples of statistics for as long as the stream lasts."""
        asked = request.query.get(VOLATILE)
        if asked is None:
            if "dialect" in request.query:
                raise BadRequest(f"dialect is that of the samples: ask for them with {VOLATILE}=SECONDS.",
                                 sub_code="dialect")
            return nullcontext()
        least, most = SAMPLE_S
        if not re.fullmatch(r"[0-9]{1,4}", asked, re.ASCII) or not least <= int(asked) <= most:
            raise BadRequest(f"{VOLATILE} is a whole number of seconds between samples, {least} to {most}.",
                             sub_code=VOLATILE)
        return self.ports.follow(int(asked), _dialect(request))

    async def _stats(self, request: web.Request, _caller: Caller) -> web.StreamResponse:
        return json_reply(await self.ports.report(_dialect(request)))

    async def _summary(self, request: web.Request, _caller: Caller) -> web.StreamResponse:
        call_id = request.match_info["call"]
        return json_reply(await self.ports.summary(None if call_id == "last" else call_id, _dialect(request)))

    async def _snapshot(self, _request: web.Request, _caller: Caller) -> web.StreamResponse:
        with _a_camera():
            picture = await self.ports.snapshot()
        return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "no-store"})

    async def _openapi(self, _request: web.Request, _caller: Caller) -> web.StreamResponse:
        if self.ports.openapi is None:
            raise web.HTTPNotFound
        return web.Response(text=json.dumps(self.ports.openapi(), indent=2), content_type="application/json")

    async def _metrics(self, _request: web.Request, _caller: Caller) -> web.StreamResponse:
        streams = {"events": len(self.events), "peers": len(self.peers), "panels": len(self.sim),
                   "cameras": len(self.camera)}
        text = await self.metrics.text(self.ports.health(), await self.ports.stats(), streams)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    # --- streams ----------------------------------------------------------------------------------------------------

    async def _peer(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        with self._lease(request, caller):
            return await self.peers.serve(request, caller)

    async def _preview(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        with self._lease(request, caller), _a_camera():
            return await self.camera.serve(request, caller.session)

    async def _sim(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        with self._lease(request, caller):
            return await self.sim.serve(request, caller.session)

    @contextmanager
    def _lease(self, request: web.Request, caller: Caller) -> Iterator[Session | None]:
        """Keep a page's session alive while one of its streams is open."""
        session = self.gate.session(request) if caller.proof is Proof.COOKIE else None
        if session is None:
            yield None
            return
        session.leases += 1
        try:
            yield session
        finally:
            session.leases -= 1
            session.used = self.gate.sessions.now()


@contextmanager
def _a_camera() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Refused(str(error) or "There is no camera.", code=503, sub_code="noCamera") from error


def _check_query(request: web.Request, known: Sequence[str]) -> None:
    """Raises BadRequest for a parameter that the route does not take, or that is given twice."""
    for name in request.query:
        if name not in known:
            takes = f"Known here: {', '.join(known)}." if known else "This address takes none."
            raise BadRequest(f"There is no query parameter {name[:40]!r}. {takes}", sub_code="query")
        if len(request.query.getall(name)) > 1:
            raise BadRequest(f"The query parameter {name} is given more than once.", sub_code="query")


def _dialect(request: web.Request) -> str:
    """Names and units asked for by ``?dialect=``. Raises BadRequest."""
    dialect = request.query.get("dialect", DIALECTS[0])
    if dialect not in DIALECTS:
        raise BadRequest(f"There is no dialect {dialect[:40]!r}. Known: {', '.join(DIALECTS)}.", sub_code="dialect")
    return dialect
