"""What is sent, played and shown in a call: as it is wanted, as far as hold, role, moderator, screen and the mute line
of the board let it be."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from appliance.calls.active import ActiveCall
from appliance.calls.errands import Errands
from appliance.calls.orders import Orders
from appliance.calls.preview import Preview
from appliance.calls.stage import Stage, faces_in_room, faces_of_peer
from appliance.media.api import Studio
from appliance.media.ladder import Constraints
from appliance.media.layout import PEER, Layout
from appliance.providers.api import Leg, MediaWanted
from appliance.vocabulary import CallKind, Json, MutedBy

__all__ = ["CallMedia", "VideoLimits"]


class CallMedia:
    """Lives on the loop. ``current``: the call that has the screen."""

    def __init__(
        self, studio: Studio, orders: Orders, errands: Errands, current: Callable[[], ActiveCall | None],
    ) -> None:
        self._studio = studio
        self._orders = orders
        self._errands = errands
        self._current = current
        self._warm = False
        self.hardware_muted = False  # by the line of the board
        self.stage = Stage(studio)
        self.limits = VideoLimits(studio, self.stage)
        self.preview = Preview(studio, self.stage, idle=lambda: not _live(current()))
        self.stage.on_view = self._look

    def apply(self, active: ActiveCall) -> None:
        over = not active.call.live
        if not over:
            self.preview.stop()
        if over:
            self.limits.call_over()
        self._studio.mute(self.hardware_muted if over else self.is_muted(active))
        self._studio.mute_incoming(not over and active.incoming_muted)
        self.keep_warm(active)
        if not over:
            self._on_leg(active, lambda leg: leg.set_media(self.wanted(active)), "media")

    def tell(self, active: ActiveCall) -> None:
        """The other side, of our own mute, hold and video."""
        active.to_say.set()
        muted, held, video = self.is_muted(active), active.call.local_hold, active.permitted.send_video
        self._on_leg(active, lambda leg: leg.tell(muted=muted, held=held, video=video), "tell")

    def is_muted(self, active: ActiveCall) -> bool:
        return active.muted_by(hardware=self.hardware_muted) is not MutedBy.NOBODY

    def wanted(self, active: ActiveCall) -> MediaWanted:
        """Of the leg now. What is not shown is not received."""
        wanted, view, room = active.in_force, self.stage.view, active.call.kind is CallKind.ROOM
        sees = self._studio.shows and (self.stage.layout is not Layout.NONE if room else PEER in view)
        return replace(wanted, receive_video=wanted.receive_video and sees, view=view if room else None,
                       content=active.content and not active.held)

    def keep_warm(self, active: ActiveCall) -> None:
        """The camera is open before anybody is sent anything, but only until then: after that the leg's media hold it,
        so that hold and ``video.stop`` really close it; and not for a call that nobody waits for."""
        before = active.call.live and active.call.connected is None
        warm = before and active.permitted.send_video and not active.unattended
        if warm is not self._warm:
            self._warm = warm
            self._errands.begin(self._studio.warm_camera(warm), "call.warmCamera" if warm else "call.coolCamera")
        if before and not active.unattended:
            self.preview.stop()

    def show_content(self, active: ActiveCall, *, on: bool, closing: bool = True) -> None:
        """What the studio shares is shown to the others, or no longer, and then it is closed, unless ``closing`` is
        left to who calls."""
        if active.content and not on and closing:
            self._errands.begin(self._studio.unshare(), "call.unshare")
        active.content = on

    def cast(self, active: ActiveCall) -> None:
        """The roster of the call has changed."""
        if active.call.kind is CallKind.ROOM:
            self.stage.cast(faces_in_room(active.roster), active.speakers.ranking, away=active.lost_at is not None)
        elif active.leg is not None:
            self.stage.cast(faces_of_peer(active.roster, active.leg.id))

    def _look(self) -> None:
        """Other pictures are to be received."""
        active = self._current()
        if active is not None and active.leg is not None and active.call.live:
            self.apply(active)

    def _on_leg(self, active: ActiveCall, act: Callable[[Leg], Coroutine[Any, Any, None]], what: str) -> None:
        if active.leg is not None:
            self._orders.give(active.leg, act(active.leg), what)


def _live(active: ActiveCall | None) -> bool:
    return active is not None and active.call.live


class VideoLimits:
    """What the picture is limited to, in the form of ``video.constraints``: until further notice, and for one call."""

    def __init__(self, studio: Studio, stage: Stage) -> None:
        self._studio = studio
        self._stage = stage
        self._standing: Constraints | None = None  # what holds again after a call that has its own

    def take(self, wish: Mapping[str, Any]) -> Json:
        """Take the limits that ``wish`` names, in and out of calls; returns all that hold, and what they come to."""
        if self._standing is not None:
            self._standing = self._standing.changed(wish)
        self._limit(self._studio.constraints.changed(wish))
        return self._studio.limits()

    def begin_call_with(self, wish: Mapping[str, Any]) -> None:
        """Take them until ``call_over``."""
        self._standing = self._standing or self._studio.constraints
        self._limit(self._studio.constraints.changed(wish))

    def call_over(self) -> None:
        standing, self._standing = self._standing, None
        if standing is not None:
            self._limit(standing)

    def _limit(self, constraints: Constraints) -> None:
        self._studio.constrain(constraints)
        self._stage.allow(constraints.receive_videos, constraints.receive_height)
