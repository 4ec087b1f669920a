"""One call in a room of the VideoRoom plug-in, with its media: what we send, the one connection that receives all the
others, and what is shared."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Protocol

from appliance.errors import Refused, SignalingError
from appliance.media.api import DataLine, Directions, Gallery, Session, SessionClosed, SessionStranded
from appliance.providers import api
from appliance.providers.endings import last_report
from appliance.providers.janus.effects import Carry, Effect, Share, ShareAnswer, Trickle, Unshare, Unwatch, Watch
from appliance.providers.janus.membership import Membership
from appliance.providers.janus.room_leg import JOB_S, Doorkeeper, RoomLeg
from appliance.providers.janus.stay import Room

__all__ = ["Ground", "JanusLeg"]

log = logging.getLogger(__name__)


class Ground(Doorkeeper, Protocol):
    """What the provider gives its legs."""

    def publication(self, wanted: Directions, *, data: bool) -> Session | None: ...

    def gallery(self) -> Gallery: ...

    def shared(self) -> Session | None: ...


class JanusLeg(RoomLeg[Membership]):
    """A Leg (``providers.api``)."""

    def __init__(
        self, leg_id: str, room: Room, ground: Ground, *, me: api.Peer, media: api.MediaWanted, shows: bool,
    ) -> None:
        self._ground = ground
        self._gallery: tuple[int, Gallery] | None = None
        self._shared: tuple[int, Session] | None = None
        super().__init__(leg_id, room, ground, Membership(
            room, me=me, shows=shows, new_transaction=lambda: secrets.token_urlsafe(12),
            monotonic=time.monotonic), media)

    def join(self) -> None:
        media = self._media
        self._carry_out(self._stay.want(hears=media.receive_audio, sees=media.receive_video, view=media.view))
        super().join()

    async def set_media(self, media: api.MediaWanted) -> None:
        self._media = media
        if self._publication is not None:
            self._publication[1].set_directions(self._directions())
        if self._gallery is not None:
            self._gallery[1].set_wanted(audio=media.receive_audio, video=media.receive_video)
        self._carry_out(self._stay.want(hears=media.receive_audio, sees=media.receive_video, view=media.view))
        self._carry_out(self._stay.share(media.content))

    def _do(self, effect: Effect) -> None:
        match effect:
            case Watch():
                self._chores.do(partial(self._watch, effect))
            case Carry():
                self._chores.do(partial(self._carry, effect))
            case Unwatch(generation):
                self._unwatch(generation)
            case Share(generation):
                self._share(generation)
            case ShareAnswer(generation, sdp):
                self._chores.do(partial(self._take_share_answer, generation, sdp))
            case Unshare():
                self._unshare()
            case _:
                super()._do(effect)

    # --- what is sent and received

    def _directions(self) -> Directions:
        return Directions(self._media.send_audio, self._media.send_video, receive_audio=False, receive_video=False)

    def _open_publication(self) -> Session | None:
        if self._media.listens_only:
            return None
        return self._ground.publication(self._directions(), data=not self._stay.text.exists)

    def _say(self, channel: str, payload: str, *, to: Sequence[str], lossy: bool, urgent: bool) -> None:
        if self._publication is None:
            raise Refused("nothing of this device is in the room now, and no data either", sub_code="noDataChannel")
        self._publication[1].send(channel, payload, to=to, lossy=lossy, urgent=urgent)

    async def _watch(self, watch: Watch) -> None:
        if watch.generation != self._stay.generation:
            return
        if self._gallery is None:
            gallery = self._ground.gallery()
            gallery.set_wanted(audio=self._media.receive_audio, video=self._media.receive_video)
            gallery.on_voices = lambda levels: self._carry_out(self._stay.voices(watch.generation, levels))
            gallery.on_absence = lambda: self._carry_out(self._stay.absent(
                watch.generation, gallery.absent, gallery.still, gallery.levels))
            self._gallery = watch.generation, gallery
            self._listen(watch.generation, gallery.events(), watching=True,
                         in_use=lambda: self._gallery is not None and self._gallery[1] is gallery)
        await self._attempt(watch.generation, self._answer(self._gallery[1], watch))

    async def _carry(self, carry: Carry) -> None:
        if self._gallery is not None and self._gallery[0] == carry.generation:
            self._gallery[1].carry(carry.lines)

    async def _answer(self, gallery: Gallery, watch: Watch) -> None:
        answer = await gallery.answer(watch.sdp, watch.lines)
        self._carry_out(self._stay.watched(watch.generation, answer))

    async def _take_candidate(self, one: Trickle) -> None:
        if one.shared:
            if self._shared is not None and self._shared[0] == one.generation:
                await self._shared[1].add_candidate(one.candidate, one.mid, one.line)
        elif not one.watching:
            await super()._take_candidate(one)
        elif self._gallery is not None and self._gallery[0] == one.generation:
            await self._gallery[1].add_candidate(one.candidate)

    def _unwatch(self, generation: int) -> None:
        if self._gallery is not None and self._gallery[0] == generation:
            log.info("what the room sends is to come by another connection")
            gallery, self._gallery = self._gallery[1], None
            self._given_up.add(last_report(gallery), f"janus.stats.watching.{generation}")
            self._chores.spawn(gallery.close(), f"janus.close.{self._id[:12]}")

    # --- what is shared

    def _share(self, generation: int) -> None:
        session = self._ground.shared()
        if session is None:
            self._carry_out(self._stay.sharing_lost(generation))
            return
        self._shared = generation, session

        async def listen() -> None:
            async for event in session.events():
                if isinstance(event, SessionClosed | SessionStranded):
                    self._carry_out(self._stay.sharing_lost(generation))

        self._chores.spawn(listen(), f"janus.shared.{self._id[:12]}")
        self._chores.do(partial(self._offer_share, generation, session))

    async def _offer_share(self, generation: int, session: Session) -> None:
        async def offer() -> None:
            self._carry_out(self._stay.shared(generation, await session.offer()))

        if self._shared is not None and self._shared[1] is session:
            await self._try_to_share(generation, offer())

    async def _take_share_answer(self, generation: int, sdp: str) -> None:
        if self._shared is not None and self._shared[0] == generation:
            await self._try_to_share(generation, self._shared[1].accept_answer(sdp))

    async def _try_to_share(self, generation: int, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(JOB_S):
                await work
        except (SignalingError, Refused, TimeoutError) as error:
            log.warning("nothing can be shared: %s", str(error) or "media took too long over a description")
            self._carry_out(self._stay.sharing_lost(generation))

    def _unshare(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            self._chores.spawn(shared[1].close(), f"janus.close.shared.{self._id[:12]}")

    # --- letting go

    def _drop(self, generation: int) -> None:
        self._unshare()
        super()._drop(generation)

    def _let_go(self) -> None:
        super()._let_go()
        self._gallery = self._shared = None

    def _parts(self) -> Sequence[Session | Gallery]:
        return [*super()._parts(), *([] if self._gallery is None else [self._gallery[1]])]

    def _others(self) -> Sequence[Session | DataLine]:
        return [*super()._others(), *([] if self._shared is None else [self._shared[1]])]
