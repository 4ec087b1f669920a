"""Pages and appliances that came over our own WebSocket ``/v1/peer``, and who of them is on duty.

A connection begins with ``hello``; ``welcome`` answers it with a token of this page. A page that comes back with its
token (reload, broken socket) is the same endpoint again and finds its calls. After its socket is gone an endpoint
waits: 5 s when it has no call, or said that it is leaving (then its calls end as hung up: the tab was closed);
otherwise as long as a call of it lives, which is ended by the controller's reconnect time.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from appliance.clock import Clock
from appliance.errors import SignalingError
from appliance.handover import PeerChannel, PeerIdentity
from appliance.providers.api import Peer
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.endpoint import Endpoint, Switchboard
from appliance.vocabulary import Scope

__all__ = ["Pages"]

log = logging.getLogger(__name__)

PAGES_PER_NAME: Final = 8
PAGES: Final = 64
HELLO_S: Final = 10.0
"""A connection that says nothing for this long is closed."""
POLICY: Final = 1008
REPLACED: Final = 4001
"""WebSocket close code of a connection whose token was presented by a newer one: do not come back with it."""


class _Socket:
    """A Wire over a PeerChannel."""

    def __init__(self, channel: PeerChannel) -> None:
        self._channel = channel

    async def send(self, text: str, expiry_s: int) -> bool:
        try:
            await self._channel.send(text)
        except ConnectionError:
            return False
        return True

    async def close(self, code: int, reason: str) -> None:
        await self._channel.close(code, reason)


class _Page:
    """One endpoint with its token, duty and time of grace."""

    def __init__(self, token: str, identity: PeerIdentity, endpoint: Endpoint) -> None:
        self.token = token
        self.identity = identity
        self.endpoint = endpoint
        self.duty = False
        self.leaving = False
        self.grace: asyncio.TimerHandle | None = None


class Pages:
    """See the module. ``ring_too`` is told of a page that goes on duty, with its operator's name."""

    def __init__(self, me: wire.Party, switchboard: Switchboard, clock: Clock, *,
                 on_duty: Callable[[Sequence[str]], None], ring_too: Callable[[Endpoint, str], None],
                 grace_s: float) -> None:
        self._me = me
        self._switchboard = switchboard
        self._clock = clock
        self._on_duty = on_duty
        self._ring_too = ring_too
        self._grace_s = grace_s
        self._pages: dict[str, _Page] = {}  # by endpoint key
        self._names: tuple[str, ...] = ()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def names(self) -> Sequence[str]:
        """Display names of those on duty, each once."""
        return self._names

    def on_duty(self, name: str) -> Sequence[Endpoint]:
        """Endpoints on duty by this name; ``*``: all."""
        return [page.endpoint for page in self._pages.values()
                if page.duty and name in ("*", page.identity.name)]

    async def attach(self, channel: PeerChannel) -> None:
        """Speak with one peer until it is gone (a PeerAttach)."""
        texts = aiter(channel)
        try:
            async with asyncio.timeout(HELLO_S):
                first = await anext(texts, None)
        except TimeoutError:
            await channel.close(POLICY, "no hello")
            return
        if first is None:
            return
        page = await self._enter(channel, first)
        if page is None:
            return
        socket = _Socket(channel)
        await self._welcome(page, socket)
        try:
            async for text in texts:
                if not page.endpoint.receive(text):
                    await channel.close(POLICY, "too many messages, or none that can be read")
                    break
        finally:
            self._left(page, socket)

    async def close(self) -> None:
        """Let go of all. May be called twice."""
        self._closed = True
        for page in tuple(self._pages.values()):
            self._forget(page)
        if self._closing:
            await asyncio.gather(*self._closing)

    # --- coming and going -------------------------------------------------------------------------------------------

    async def _enter(self, channel: PeerChannel, first: str) -> _Page | None:
        identity = channel.identity
        try:
            hello = wire.parse(first).signal
        except SignalingError as error:
            self._switchboard.refused(error.message, identity.name)
            await channel.close(POLICY, "hello expected")
            return None
        if not isinstance(hello, wire.Hello):
            self._switchboard.refused("a connection that does not begin with hello", identity.name)
            await channel.close(POLICY, "hello expected")
            return None
        page = self._known(hello.token, identity)
        if page is not None:
            return page
        same = sum(1 for other in self._pages.values() if other.identity.name == identity.name)
        if self._closed or same >= PAGES_PER_NAME or len(self._pages) >= PAGES:
            self._switchboard.refused("too many connections of one name, or at all", identity.name)
            await channel.close(POLICY, "too many connections")
            return None
        return self._new(hello, identity)

    def _known(self, token: str, identity: PeerIdentity) -> _Page | None:
        for page in self._pages.values():
            if token and hmac.compare_digest(page.token, token):
                if page.identity.name == identity.name:
                    return page
                self._switchboard.refused("the token of another's connection", identity.name)
        return None

    def _new(self, hello: wire.Hello, identity: PeerIdentity) -> _Page:
        appliance = identity.scope is Scope.DEVICE
        scheme, kind = ("lan", "device") if appliance else ("operator", "voip")
        peer = Peer(identity.name, f"{scheme}:{identity.name}", identity.display_name or identity.name, kind,
                    verified=True)
        token = secrets.token_urlsafe(24)
        endpoint = Endpoint(f"page:{secrets.token_hex(8)}", peer, self._switchboard, self._clock,
                            loopback=identity.loopback, pictures=not appliance, on_signal=self._on_signal,
                            on_idle=self._idle)
        endpoint.device = hello.device if appliance else ""
        page = _Page(token, identity, endpoint)
        self._pages[endpoint.key] = page
        return page

    async def _welcome(self, page: _Page, socket: _Socket) -> None:
        resumed = page.grace is not None or page.endpoint.up or bool(page.endpoint.calls)
        if page.grace is not None:
            page.grace.cancel()
            page.grace = None
        page.leaving = False
        calls = tuple(wire.LiveCall(call_id, party.generation)
                      for call_id, party in page.endpoint.calls.items() if not party.over)[:16]
        await socket.send(wire.pack(wire.Welcome(self._me.identity, self._me.display_name, page.identity.name,
                                                 page.token, resumed, calls), ts=self._clock.wall()), 0)
        await socket.send(wire.pack(wire.OnDuty(self._names), ts=self._clock.wall()), 0)
        replaced = page.endpoint.attach(socket)
        if replaced is not None:
            await replaced.close(REPLACED, "replaced by a newer connection")

    def _left(self, page: _Page, socket: _Socket) -> None:
        if not page.endpoint.detach(socket) and page.endpoint.up:
            return  # replaced
        if self._pages.get(page.endpoint.key) is not page:
            return
        if page.leaving:
            self._set_duty(page, False)
        if page.grace is None:
            page.grace = asyncio.get_running_loop().call_later(self._grace_s, self._grace_over, page)

    def _grace_over(self, page: _Page) -> None:
        page.grace = None
        self._set_duty(page, False)
        page.endpoint.gone(left=page.leaving)
        if not page.endpoint.calls:
            self._forget(page)

    def _idle(self, endpoint: Endpoint) -> None:
        page = self._pages.get(endpoint.key)
        if page is not None and not endpoint.up and page.grace is None:
            self._forget(page)

    def _forget(self, page: _Page) -> None:
        self._pages.pop(page.endpoint.key, None)
        if page.grace is not None:
            page.grace.cancel()
            page.grace = None
        task = asyncio.create_task(page.endpoint.close(), name="direct.page.close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._tell_duty()

    # --- duty -------------------------------------------------------------------------------------------------------

    def _on_signal(self, endpoint: Endpoint, signal: wire.Signal) -> None:
        page = self._pages.get(endpoint.key)
        if page is None:
            return
        match signal:
            case wire.Leaving():
                page.leaving = True
            case wire.Duty(on=on, display_name=name):
                if page.identity.scope is Scope.DEVICE:
                    endpoint.post(wire.ErrorSignal(403, "scope", "An appliance cannot be on duty."))
                    return
                endpoint.peer = Peer(page.identity.name, endpoint.peer.uri,
                                     name or page.identity.display_name or page.identity.name, "voip", verified=True)
                self._set_duty(page, on)
            case _:
                endpoint.post(wire.ErrorSignal(400, "signaling", f"{signal.TYPE} is not for the appliance."))

    def _set_duty(self, page: _Page, on: bool) -> None:
        before, page.duty = page.duty, on
        self._tell_duty()
        if on and not before:
            self._ring_too(page.endpoint, page.identity.name)

    def _tell_duty(self) -> None:
        names = tuple(sorted({page.endpoint.peer.display_name for page in self._pages.values() if page.duty}))
        if names == self._names:
            return
        self._names = names
        for page in self._pages.values():
            if page.endpoint.up:
                page.endpoint.post(wire.OnDuty(names))
        self._on_duty(names)
