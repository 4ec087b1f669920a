"""One call with a media server: what is published, what is played, or both, each on a way of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

from appliance.errors import Refused
from appliance.media.api import Directions
from appliance.providers import api
from appliance.providers.chores import Chores
from appliance.providers.endings import last_report
from appliance.providers.facts import Facts
from appliance.providers.two import CallOfTwo
from appliance.providers.whip.choice import Choice
from appliance.providers.whip.way import Make, Way
from appliance.vocabulary import END_REASONS, Json, KeyMethod, Reason

__all__ = ["Ground", "WhipLeg"]

log = logging.getLogger(__name__)

CLOSE_S: Final = 1.0


class Ground(Protocol):
    """What the provider gives its legs."""

    def farewell(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Keep a task that may outlive the leg."""

    def leg_over(self, leg: WhipLeg) -> None: ...


class WhipLeg(CallOfTwo):
    """A Leg (``providers.api``), outgoing only. It is connected when all its ways are, and lost when one of them is.

    ways: servers and maker of sessions, for each."""

    def __init__(
        self, leg_id: str, name: str, ground: Ground, ways: Mapping[Choice, Make], *, media: api.MediaWanted,
    ) -> None:
        self._id = leg_id
        self._ground = ground
        self._peer = api.Peer(name, f"whip:{name}", name)
        self._facts = Facts()
        self._ways = [
            Way(name, choice, make, _directions(media, plays=choice.plays), on_change=self._changed,
                farewell=ground.farewell) for choice, make in ways.items()]
        self._accepted = False
        self._connected = False  # once
        self._lost = False
        self._over = False
        self._last_stats: Sequence[Json] = ()
        self._finishing: asyncio.Task[None] | None = None
        self._chores: Chores[str] = Chores(f"whip.{leg_id[:12]}", lambda: self._finish(END_REASONS["500/internal"]))

    # --- Leg ----------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def peer(self) -> api.Peer:
        return self._peer

    def events(self) -> AsyncIterator[api.LegEvent]:
        return self._facts.read()

    def begin(self) -> None:
        """Accepted and Connected, or Ended, follow."""
        for way in self._ways:
            self._chores.spawn(self._follow(way), f"whip.{'play' if way.plays else 'publish'}.{self._id[:12]}")

    async def ring(self) -> None:
        """Nobody is called by a media server."""

    async def accept(self, media: api.MediaWanted) -> None:
        """Nobody is called by a media server."""

    async def end(self, reason: Reason) -> None:
        self._finish(reason)
        if self._finishing is not None:
            await asyncio.shield(self._finishing)

    async def set_media(self, media: api.MediaWanted) -> None:
        for way in self._ways:
            way.set_directions(_directions(media, plays=way.plays))

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        """A media server has no word for it: those who watch see that nothing comes."""

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        raise Refused("media servers carry no data messages", code=501, sub_code="FeatureNotSupported")

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        raise Refused("a media server knows no keys", code=501, sub_code="FeatureNotSupported")

    async def transfer(self, target: api.Target, *, attended: bool) -> None:
        raise Refused("only telephone calls can be handed on", code=501, sub_code="FeatureNotSupported")

    async def stats(self) -> Sequence[Json]:
        if self._over:
            return self._last_stats
        return [one for way in self._ways for one in await way.stats()]

    async def replaced(self) -> Sequence[Sequence[Json]]:
        return [report for way in self._ways for report in await way.given_up.taken()]

    # --- course -------------------------------------------------------------------------------------------------------

    async def _follow(self, way: Way) -> None:
        self._finish(await way.run())

    def _changed(self) -> None:
        """Of one way, and so perhaps of the call."""
        if self._over:
            return
        if not self._accepted and all(way.answered for way in self._ways):
            self._accepted = True
            self._facts.put(api.Accepted(self._peer))
        up = self._accepted and all(way.up for way in self._ways)
        if up and not self._connected:
            self._connected = True
            self._facts.put(api.Connected(self._ways[0].security))
            if any(way.plays for way in self._ways):
                self._facts.put(api.PeerMedia(video=any(way.shows for way in self._ways)))
        elif up and self._lost:
            self._lost = False
            self._facts.put(api.Recovered())
        elif self._connected and not up and not self._lost:
            self._lost = True
            self._facts.put(api.Lost("media"))

    # --- end ----------------------------------------------------------------------------------------------------------

    def _finish(self, reason: Reason) -> None:
        if not self._over:
            self._over = True
            self._finishing = asyncio.create_task(self._leave(reason), name=f"whip.end.{self._id[:12]}")

    async def _leave(self, reason: Reason) -> None:
        """Say it, let go of media, tell Ended: each with its own deadline."""
        await self._chores.cancel(())
        self._last_stats = await last_report(*self._ways)
        await asyncio.wait([way.leave() for way in self._ways], timeout=CLOSE_S)
        self._facts.put(api.Ended(reason))
        self._ground.leg_over(self)


def _directions(media: api.MediaWanted, *, plays: bool) -> Directions:
    if plays:
        return Directions(False, False, media.receive_audio, media.receive_video)
    return Directions(media.send_audio, media.send_video, False, False)
