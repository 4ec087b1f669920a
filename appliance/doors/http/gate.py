"""The gate in front of every route: Host, credential, scope, Origin.

A browser sends cookies to us from any page of the world; what stands against that is SameSite=Strict, the exact
Origin, and the Host check, which also ends DNS rebinding: a name that resolves to us is not thereby one of ours.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable
from typing import Final

from aiohttp import web

from appliance.bulletin import Bulletin
from appliance.clock import RateLimit, RateLimits
from appliance.doors.http.auth import Addresses, Caller, Grant, Proof, Session, Sessions, Tokens
from appliance.errors import NotPermitted
from appliance.settings import Settings
from appliance.vocabulary import Category, Scope

__all__ = ["Gate", "is_loopback"]

log = logging.getLogger(__name__)

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WRONG_PER_S: Final = 1.0  # credentials from one address
WRONG_BURST: Final = 10.0
SOURCES: Final = 1024  # addresses that are remembered


def is_loopback(host: str) -> bool:
    """Whether a name or address is a loopback one (RFC 6761 6.3, RFC 5735)."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return False


def _host_of(header: str) -> str:
    """The host of a Host header without its port; IPv6 without brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if header.count(":") == 1 else header.lower()


class Gate:
    """Lets a request in, with its Caller, or raises NotPermitted with the words for whoever must act."""

    def __init__(self, settings: Settings, bulletin: Bulletin, now: Callable[[], float], sessions: Sessions) -> None:
        self.sessions = sessions
        self.addresses = Addresses(now)
        self.tls = False
        self.refusals = 0
        self._device = settings.device.id
        self._names = frozenset(name.lower().rstrip(".") for name in settings.http.names)
        self._tokens = Tokens(settings.http.tokens)
        self._bulletin = bulletin
        # Wrong credentials alone are braked: a flood of guesses cannot lock out its honest neighbour at the same host.
        self._throttle = RateLimits(WRONG_PER_S, WRONG_BURST, now, most=SOURCES)
        self._told = RateLimit(WRONG_PER_S, WRONG_BURST, now)
        hostname = socket.gethostname().lower()
        self._own_names = frozenset({hostname, hostname.partition(".")[0] + ".local"})

    @property
    def cookie(self) -> str:
        """Name of the session cookie. Cookies ignore ports, so two appliances on one host need two names."""
        prefix = "__Host-" if self.tls else ""
        return f"{prefix}edgecall-{self._device}"

    def check_host(self, request: web.Request) -> None:
        """Refuse a Host that is not ours (RFC 9110 15.5.20). The Unix socket has none worth checking."""
        if _unix(request):
            return
        header = request.headers.get("Host", "")
        host = _host_of(header).rstrip(".")
        if is_loopback(host) or host in self._own_names or host in self._names or self._own_address(request, host):
            return
        raise NotPermitted(
            f"{header[:80]!r} is not a name of this appliance. If it should be, add it to http.names in the settings.",
            code=421, sub_code="host")

    def identify(self, request: web.Request) -> Caller | None:
        """Who calls; None without any credential. Raises NotPermitted (401, 429) for a wrong one."""
        if _unix(request):
            return Caller(Grant(_peer_user(request), Scope.ADMIN, "Command line"), Proof.SOCKET, "socket", True)
        loopback = is_loopback(request.remote or "")
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            grant = self._tokens.find(token.strip()) if scheme.lower() == "bearer" else None
            if grant is None:
                raise self._wrong(request, "token", "The token is wrong. Issue a new one and put it into http.tokens.")
            return Caller(grant, Proof.TOKEN, f"token-{grant.name}", loopback)
        session = self.session(request)
        if session is None:
            return None
        return Caller(session.grant, Proof.COOKIE, session.public, loopback)

    def session(self, request: web.Request) -> Session | None:
        """The page session of a request's cookie."""
        secret = request.cookies.get(self.cookie)
        return self.sessions.find(secret) if secret else None

    def admit(self, request: web.Request, need: Scope, *, devices: bool = False) -> Caller:
        """The caller, when it may; state changes and WebSockets by cookie need an exact Origin too.

        ``devices``: also another appliance (scope device). It may call us and nothing else: whoever takes a
        neighbour's token from its case must not open our door or look through our camera.
        """
        caller = self.identify(request)
        if caller is None:
            raise NotPermitted(
                "This needs a token, or a page opened with the address that 'edgecall address' prints.",
                code=401, sub_code="session")
        websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        if caller.proof is Proof.COOKIE and (request.method not in _SAFE or websocket):
            self._check_origin(request)
        if caller.grant.scope is Scope.DEVICE and not devices:
            raise NotPermitted(
                f"{caller.grant.name!r} is another appliance: it may call over /v1/peer and nothing else. Programs and "
                "people need a token of the scope operator or admin.", code=403, sub_code="scope")
        if not caller.grant.scope.permits(need):
            raise NotPermitted(
                f"This needs the scope {need.value}; {caller.grant.name!r} has {caller.grant.scope.value}.",
                code=403, sub_code="scope")
        return caller

    def wrong_address(self, request: web.Request) -> NotPermitted:
        """The refusal of a used, expired or invented address token."""
        return self._wrong(request, "address", "This address was used already or has expired.")

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin", "")
        own = f"{'https' if self.tls else 'http'}://{request.headers.get('Host', '')}"
        if not hmac.compare_digest(origin.encode("utf-8", "replace"), own.encode("utf-8", "replace")):
            self.refusals += 1
            self._tell("origin", request.remote or "")
            raise NotPermitted(
                "A page session changes things only from its own page: the Origin does not match.",
                code=403, sub_code="origin")

    def _wrong(self, request: web.Request, why: str, message: str) -> NotPermitted:
        self.refusals += 1
        source = request.remote or "unknown"
        if not self._throttle.take(source):
            return NotPermitted("Too many wrong credentials from your address. Wait a moment.",
                                code=429, sub_code="tooMany", category=Category.EXPECTED)
        self._tell(why, source)
        return NotPermitted(message, code=401, sub_code=why)

    def _tell(self, why: str, source: str) -> None:
        """One security event per refusal, ten at once and then one a second for all sources together."""
        if self._told.take():
            self._bulletin.post("security.refused", why=why, origin="http", sender=source)
            log.info("refused: wrong %s", why)

    def _own_address(self, request: web.Request, host: str) -> bool:
        transport = request.transport
        name = transport.get_extra_info("sockname") if transport is not None else None
        if not isinstance(name, tuple):
            return False
        with contextlib.suppress(ValueError):
            mine, theirs = (ipaddress.ip_address(str(a).partition("%")[0]) for a in (name[0], host))
            mapped = mine.ipv4_mapped if isinstance(mine, ipaddress.IPv6Address) else None
            return theirs in (mine, mapped)
        return False


def _socket(request: web.Request) -> socket.socket | None:
    transport = request.transport
    return transport.get_extra_info("socket") if transport is not None else None


def _unix(request: web.Request) -> bool:
    sock = _socket(request)
    return sock is not None and sock.family == socket.AF_UNIX


def _peer_user(request: web.Request) -> str:
    """``uid-1000``: the user at the other end, as the kernel tells (unix(7), SO_PEERCRED)."""
    sock = _socket(request)
    if sock is None:
        return "unknown"
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:  # the other side is gone already
        return "unknown"
    return f"uid-{struct.unpack('3i', raw)[1]}"
