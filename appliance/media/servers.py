"""The STUN and TURN servers of settings: which are tried first, and how long is waited for them.

The ICE agent asks for one server of each kind. They stand in the order of the settings; one that did not answer stands
behind the others for a while. ``server_watch`` asks them outside of calls, so that a dead one is known before a call
would wait for it, and how long a living one takes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from appliance.errors import SettingsError
from appliance.media.api import IceServers

__all__ = ["Server", "ServerPool", "first_answer", "why"]

log = logging.getLogger(__name__)
T = TypeVar("T")

SET_BACK_S: Final = 120.0  # for so long a server that did not answer is tried last
HEAD_START_S: Final = 0.4  # of a server before the next one is asked as well: TURN over TLS at 80 ms needs as much
STUN_S: Final = 1.0  # an offer waits for gathering at most so long
TURN_S: Final = 3.0  # for a TURN server: TLS and the allocation take five round trips
DOWN_S: Final = 0.5  # where none of them answered the last time
LOGIN_S: Final = 24 * 3600.0
"""A login that is made of a secret ends after so long. A relay that was made with one goes on: its server looks at the
time when the relay is asked for."""
KNOWN_S: Final = 0.7  # the least for servers of which is known how long they take, which may be three times as long

_URL: Final = re.compile(
    r"(?P<scheme>stun|turns?):(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:?/@]+)(:(?P<port>\d{1,5}))?"
    r"(\?transport=(?P<transport>udp|tcp))?"
)


@dataclass(frozen=True, slots=True)
class Server:
    """One server. ``transport``: udp, tcp or tls."""

    scheme: str
    host: str
    port: int
    transport: str
    username: str = ""
    password: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    def login(self, wall: Callable[[], float] = time.time) -> tuple[str, str]:
        """User name and password for a connection that is made now. Of a secret: ``END:USER`` and the HMAC-SHA1 of
        that, as servers with ``use-auth-secret`` take it (draft-uberti-behave-turn-rest-00)."""
        if not self.secret:
            return self.username, self.password
        user = f"{wall() + LOGIN_S:.0f}:{self.username or 'edgecall'}"
        code = hmac.digest(self.secret.encode(), user.encode(), hashlib.sha1)
        return user, base64.b64encode(code).decode()

    @property
    def is_ipv6(self) -> bool:
        """Whether ``host`` is an IPv6 address; a name is asked over IPv4."""
        return ":" in self.host

    @classmethod
    def parse(cls, url: str, username: str = "", password: str = "", secret: str = "") -> Server:
        """``stun:HOST[:PORT]`` (RFC 7064), ``turn:HOST[:PORT][?transport=udp|tcp]`` and ``turns:`` (RFC 7065).

        Raises ValueError.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError(f"{url!r} is not stun:HOST[:PORT] or turn:HOST[:PORT][?transport=tcp]")
        scheme, transport = match["scheme"], match["transport"]
        if (scheme == "stun" and transport) or (scheme == "turns" and transport == "udp"):
            raise ValueError(f"{url!r}: this transport is not served by {scheme}:")
        port = int(match["port"] or (5349 if scheme == "turns" else 3478))
        if not 0 < port < 65536:
            raise ValueError(f"{url!r}: a port is 1 to 65535")
        kind = "tls" if scheme == "turns" else transport or "udp"
        return cls(scheme, match["host"].strip("[]"), port, kind, username, password, secret)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}:{host}:{self.port}" + (f" ({self.transport})" if self.scheme != "stun" else "")


class ServerPool:
    """The servers of one setting, shared by all sessions that use it. Lives on the loop."""

    def __init__(self, servers: IceServers, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises SettingsError for an address that is none."""
        self._monotonic = monotonic
        self._ca_file = servers.ca_file
        self._context: ssl.SSLContext | None = None
        self._set_back: dict[Server, float] = {}
        self._took: dict[Server, float] = {}
        self.on_failure: Callable[[Server], None] = _nobody
        try:
            self._stun = [Server.parse(_with_scheme(url, "stun")) for url in servers.stun]
            self._turn = [
                Server.parse(_with_scheme(url, "turn"), servers.username, servers.password, servers.secret)
                for url in servers.turn
            ]
        except ValueError as error:
            raise SettingsError("direct.stun, direct.turn", [str(error)]) from error

    @property
    def all(self) -> Sequence[Server]:
        """In the order of the settings."""
        return [*self._stun, *self._turn]

    @property
    def stun(self) -> Sequence[Server]:
        """In the order to try them."""
        return self._ordered(self._stun)

    @property
    def turn(self) -> Sequence[Server]:
        return self._ordered(self._turn)

    def patience(self, servers: Sequence[Server]) -> float:
        """Seconds that gathering may take with these, in the order to try them."""
        usable = [server for server in servers if not self._is_set_back(server)]
        if not usable:
            return DOWN_S
        limit = STUN_S if servers[0].scheme == "stun" else TURN_S
        took = [self._took.get(server, limit) for server in usable]
        return min(limit, HEAD_START_S * (len(usable) - 1) + max(KNOWN_S, 3 * max(took)))

    def head_start(self, servers: Sequence[Server]) -> float:
        """Seconds that each of these has before the next one is asked as well."""
        return 0.0 if all(self._is_set_back(server) for server in servers) else HEAD_START_S

    def answered(self, server: Server, took_s: float) -> None:
        self._took[server] = took_s
        if self._set_back.pop(server, None) is not None:
            log.info("%s answers again", server)

    def failed(self, server: Server, error: BaseException) -> None:
        if server not in self._set_back:
            log.warning("%s cannot be used: %s", server, why(error))
        self._set_back[server] = self._monotonic() + SET_BACK_S
        self.on_failure(server)

    def moved(self) -> None:
        """The network is another one: how long they take is not known any more. A dead one is waited for no longer
        than before, since a call that moves has no time to lose."""
        self._took.clear()

    async def tls(self) -> ssl.SSLContext:
        """For TURN over TLS: certificate and name are checked, against the authority of the settings or the system's.

        Raises OSError when that file cannot be read.
        """
        if self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_file or None)
        return self._context

    def _is_set_back(self, server: Server) -> bool:
        return self._set_back.get(server, 0.0) > self._monotonic()

    def _ordered(self, servers: list[Server]) -> Sequence[Server]:
        return sorted(servers, key=self._is_set_back)


async def first_answer(
    pool: ServerPool, servers: Sequence[Server], ask: Callable[[Server], Coroutine[Any, Any, T]], *,
    discard: Callable[[T], Awaitable[None]],
) -> T | None:
    """Ask the servers in order, each with a head start before the next; the first answer wins, the rest is cancelled.

    ``discard`` lets go of an answer that came a moment too late. None when no server answered in time.
    """
    loop = asyncio.get_running_loop()
    deadline, head_start = loop.time() + pool.patience(servers), pool.head_start(servers)
    waiting = deque(servers)
    asked: dict[asyncio.Task[T], Server] = {}
    began: dict[Server, float] = {}
    answers: list[tuple[Server, T]] = []
    try:
        while not answers and (waiting or asked) and loop.time() < deadline:
            if waiting:
                server = waiting.popleft()
                began[server] = loop.time()
                asked[asyncio.create_task(ask(server), name=f"media.gather {server}")] = server
            left = deadline - loop.time()
            await asyncio.wait(
                asked, timeout=min(left, head_start) if waiting else left, return_when=asyncio.FIRST_COMPLETED
            )
            answers += _answered(pool, asked, began)
        winner, chosen = answers.pop(0) if answers else (None, None)
        for server in servers[: servers.index(winner) if winner is not None else len(servers)]:
            if server in asked.values():
                pool.failed(server, TimeoutError())
        return chosen
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        for _, late in [*answers, *_answered(pool, asked, began)]:
            await discard(late)


def why(error: BaseException) -> str:
    """Why a server is of no use, in words."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case socket.gaierror():
            return "its name is not found"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message}); see turn_ca_file"
        case ConnectionRefusedError():
            return "nobody listens at its port"
        case OSError(strerror=str(words)):
            return words
        case _:
            return str(error) or type(error).__name__


def _answered(
    pool: ServerPool, asked: dict[asyncio.Task[T], Server], began: Mapping[Server, float],
) -> list[tuple[Server, T]]:
    """What the servers have answered; what failed is told, and both are asked no longer."""
    now = asyncio.get_running_loop().time()
    answers = []
    for task in [task for task in asked if task.done() and not task.cancelled()]:
        server = asked.pop(task)
        error = task.exception()
        if error is None:
            pool.answered(server, now - began[server])
            answers.append((server, task.result()))
        else:
            pool.failed(server, error)
    return answers


def _nobody(_: Server) -> None:
    return None


def _with_scheme(address: str, scheme: str) -> str:
    return address if address.startswith((f"{scheme}:", f"{scheme}s:")) else f"{scheme}:{address}"
