"""One way to a media server, out (WHIP) or in (WHEP): a resource there and a session with it, made anew when lost.

What is lost is repaired by a restart of ICE where the server knows that; else everything goes, the old resource is
deleted as far as that can be, and a new one is asked for, ever slower. Refusals that asking again cannot change end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from appliance.backoff import Backoff
from appliance.errors import Refused, SignalingError
from appliance.media.api import (
    Directions,
    IceServers,
    ServerSession,
    SessionBlocked,
    SessionClosed,
    SessionSilent,
    SessionSound,
    SessionStranded,
    SessionUp,
)
from appliance.providers.endings import GivenUp, last_report, reason_of
from appliance.providers.whip import protocol as wire
from appliance.providers.whip.choice import Choice
from appliance.providers.whip.protocol import Setback
from appliance.providers.whip.resource import Resource
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = ["Way"]

log = logging.getLogger(__name__)

BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Before a new resource is asked for."""
FIRST_WAIT_S: Final = 20.0  # that a server may ask for before there ever was a connection, all together
LEAST_WAIT_S: Final = 0.5  # where a server says that it wants none
FAREWELL_S: Final = 1.0  # of an old resource, before a new one is asked for: many servers take one publisher at a time
TRICKLE_AFTER_S: Final = 0.5  # without a connection: so long the servers that the media server names are not bothered
AGAIN_S: Final = 0.3  # between two tries to reach the server for a restart of ICE
RENEW_AFTER_S: Final = 2.5  # without a connection, where the server does not take further candidates
REPAIR_S: Final = 8.0  # of a path that is lost; then a new resource is quicker
HURRIED_REPAIR_S: Final = 1.5  # where there is another server
FRESH_S: Final = 30.0  # after a repair silence is no fault of the path
GHOSTS: Final = 4  # resources that the server was not told to delete yet

Make = Callable[[Directions, IceServers | None], ServerSession]
"""A session, with the servers that the media server names, where it does."""


class Way:
    """``on_change``: ``answered`` or ``up`` is another. ``farewell`` keeps a task that outlives us."""

    def __init__(
        self, name: str, choice: Choice, make: Make, wanted: Directions, *, on_change: Callable[[], None],
        farewell: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self.name = name
        self.answered = False  # once
        self.up = False
        self.security: Json = {}
        self.given_up = GivenUp()
        self._choice = choice
        self._make = make
        self._wanted = wanted
        self._on_change = on_change
        self._farewell = farewell
        self._session: ServerSession | None = None
        self._resource: Resource | None = None
        self._creating: asyncio.Task[Resource] | None = None
        self._news: asyncio.Task[None] | None = None
        self._servers: IceServers | None = None
        self._was_up = False
        self._repaired_at = -FRESH_S
        self._knew_servers = False  # those that the media server names, in the last attempt
        self._backoff = Backoff(BACK_OFF_S)
        self._ghosts: deque[Resource] = deque(maxlen=GHOSTS)

    @property
    def plays(self) -> bool:
        return self._choice.plays

    @property
    def shows(self) -> bool:
        """A picture is played."""
        return self.plays and self._session is not None and self._session.negotiated("video")[1]

    def set_directions(self, wanted: Directions) -> None:
        self._wanted = wanted
        if self._session is not None:
            self._session.set_directions(wanted)

    # --- course -------------------------------------------------------------------------------------------------------

    async def run(self) -> Reason:
        """Until it is over for good; returns why."""
        patience = FIRST_WAIT_S
        while True:
            wait_s: float | None = None
            try:
                reason = await self._attempt_once()
            except Setback as setback:
                reason = setback.reason
                if setback.final:
                    return reason
                wait_s = None if setback.wait_s is None else max(setback.wait_s, LEAST_WAIT_S)
            if not self._was_up and wait_s is not None and wait_s <= patience:
                patience -= wait_s
                await self._let_go(wait_s)
                continue
            unused = reason.key == "410/iceFailed" and self._servers is not None and not self._knew_servers
            if not self._was_up and not unused:
                return reason
            if not self._backoff.failures:
                log.info("the media server %s is lost: %s", self.name, reason.message)
            self._lose()
            await self._let_go(max(self._backoff.failed(), wait_s or 0.0))

    async def _attempt_once(self) -> Reason:
        """A new resource and a session with it, until that is lost."""
        self._knew_servers = self._servers is not None
        try:
            session = self._session = self._make(self._wanted, self._servers)
            offer = await session.offer()
            self._creating = asyncio.create_task(self._choice.create(offer), name=f"whip.create.{self.name}")
            try:
                resource = self._resource = await asyncio.shield(self._creating)
            finally:
                if self._creating.done():
                    self._creating = None
            self._servers = resource.servers or self._servers
            session = await self._agree(session, resource)
        except (SignalingError, Refused) as error:
            raise Setback(reason_of(error), final=isinstance(error, Refused)) from error
        if not self.answered:
            self.answered = True
            self._on_change()
        self._news = asyncio.create_task(self._tell_news(session, resource), name=f"whip.trickle.{self.name}")
        try:
            return await self._live(session, resource)
        finally:
            await self._no_news()

    async def _no_news(self) -> None:
        news, self._news = self._news, None
        if news is None:
            return
        news.cancel()
        for fault in await asyncio.gather(news, return_exceptions=True):
            if isinstance(fault, Exception):
                log.error("candidates were not told of; this is a defect", exc_info=fault)

    async def _agree(self, session: ServerSession, resource: Resource) -> ServerSession:
        """Answer taken, or given: a server may offer itself, for which a session of its own is needed."""
        if not resource.offered:
            await session.accept_answer(resource.sdp)
            return session
        self._farewell(session.close(), f"whip.close.{self.name}")
        session = self._session = self._make(self._wanted, self._servers)
        await resource.answer(await session.answer(resource.sdp))
        return session

    async def _tell_news(self, session: ServerSession, resource: Resource) -> None:
        """Where there is no path soon, ask the servers that the media server names, and tell it what they give. Its own
        candidates are all in its description (RFC 9725 4.3.2)."""
        try:
            if resource.servers is not None and not (self._knew_servers or resource.offered):
                await asyncio.sleep(TRICKLE_AFTER_S)
                fragment = await session.gather_more(resource.servers)
                if fragment is not None and not await resource.trickle(wire.text_of(fragment, session.description)):
                    await asyncio.sleep(RENEW_AFTER_S)
                    if not session.connected:
                        await session.close()  # the next offer has them from the beginning
            if "a=candidate:" in resource.sdp:
                await session.add_candidate("", None, 0)
        except (Setback, SignalingError) as error:
            log.info("the media server was not told of further candidates: %s", error)

    async def _live(self, session: ServerSession, resource: Resource) -> Reason:
        """Until it is lost; returns why. Raises Setback where another network came before there was a path."""
        async for event in session.events():
            match event:
                case SessionUp(security):
                    self._come_up(security)
                case SessionSound():
                    self._come_up(self.security)
                case SessionStranded() if not session.connected:
                    raise Setback(END_REASONS["410/mediaLost"], wait_s=0.0)
                case SessionSilent() if not (session.connected or self._was_up):
                    pass  # a server that was never reached is given time
                case SessionSilent() | SessionStranded():
                    if isinstance(event, SessionSilent) or event.gone:
                        self._lose()
                    fresh = isinstance(event, SessionSilent) and self._is_freshly_repaired()
                    if fresh or not await self._repair(session, resource):
                        return END_REASONS["410/mediaLost"]
                    if self._was_up:
                        self._come_up(self.security)
                case SessionBlocked(before=True):  # the path carries checks and reports: another may carry media too
                    self._lose()
                    return END_REASONS["410/mediaLost"]
                case SessionClosed(why):
                    return END_REASONS[_ENDS.get(why, "410/mediaLost")]
                case _:
                    pass
        return END_REASONS["410/mediaLost"]

    def _is_freshly_repaired(self) -> bool:
        """Then it is not the path: the server has nothing to send, and says so when it is asked anew."""
        return asyncio.get_running_loop().time() - self._repaired_at < FRESH_S

    async def _repair(self, session: ServerSession, resource: Resource) -> bool:
        """Restart ICE: the session goes on by another path. False: the server cannot, or none was found."""
        if not resource.patchable or not session.connected:
            return False
        await self._no_news()  # of the ICE session that was
        try:
            async with asyncio.timeout(HURRIED_REPAIR_S if self._choice.several else REPAIR_S):
                fragment = await session.restart_ice()
                answer = await _ask_until_reached(
                    resource, wire.text_of(fragment, session.description), others=self._choice.several)
                if answer is None or not await session.ice_restarted(wire.fragment_of(answer)):
                    return False
        except (Setback, SignalingError, ConnectionError, TimeoutError) as error:
            words = str(error) or "no answer in time"
            log.info("the path to the media server %s is not repaired: %s", self.name, words)
            if isinstance(error, TimeoutError) or (isinstance(error, Setback) and error.refused):
                self._choice.unreached()
            return False
        self._repaired_at = asyncio.get_running_loop().time()
        return True

    def _come_up(self, security: Json) -> None:
        if self._backoff.failures:
            log.info("the media server %s is there again", self.name)
        self.up = self._was_up = True
        self.security = security
        self._backoff.succeeded()
        self._on_change()

    def _lose(self) -> None:
        if self.up:
            self.up = False
            self._on_change()

    # --- end ----------------------------------------------------------------------------------------------------------

    async def _let_go(self, pause_s: float) -> None:
        """Of what was, and wait. What is left of us at the server goes first, as far as it can be told."""
        begun = asyncio.get_running_loop().time()
        session, self._session = self._session, None
        if session is not None:
            self.given_up.add(last_report(session), f"whip.stats.{self.name}")
            self._farewell(session.close(), f"whip.close.{self.name}")
        if self._resource is not None:
            self._ghosts.append(self._resource)
        self._resource = self._creating = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._bury()
        await asyncio.sleep(max(0.0, pause_s - (asyncio.get_running_loop().time() - begun)))

    async def _bury(self) -> None:
        for ghost in tuple(self._ghosts):
            if await ghost.delete():
                self._ghosts.remove(ghost)

    def leave(self) -> asyncio.Task[None]:
        """Close the session and delete the resource, also one whose answer has not come yet: a task that goes on
        without us."""
        return self._farewell(self._leave(self._session, self._creating), f"whip.leave.{self.name}")

    async def _leave(self, session: ServerSession | None, creating: asyncio.Task[Resource] | None) -> None:
        closing = [] if session is None else [asyncio.create_task(session.close(), name=f"whip.close.{self.name}")]
        if creating is not None:
            with contextlib.suppress(Setback):
                self._resource = await creating
        if self._resource is not None:
            self._ghosts.append(self._resource)
        await self._bury()
        await asyncio.gather(*closing)

    async def stats(self) -> Sequence[Json]:
        return [] if self._session is None else await self._session.stats()


_ENDS: Final = {"iceFailed": "410/iceFailed", "closed": "410/iceFailed", "dtls": "488/dtls",
                "oneWayMedia": "410/oneWayMedia", "internal": "500/internal"}


async def _ask_until_reached(resource: Resource, fragment: str, *, others: bool) -> str | None:
    """The network that broke the path may keep the server from being asked, too. Where there are others to go to, one
    that is reached and does not listen is not waited for."""
    while True:
        try:
            return await resource.restart(fragment)
        except Setback as setback:
            if setback.status is not None or (others and setback.refused):
                raise
            await asyncio.sleep(AGAIN_S)
