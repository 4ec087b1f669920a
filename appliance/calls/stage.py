"""Who is on the screen: from roster and layout to the places there, and to what is received for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from appliance.calls.roster import Roster
from appliance.media.api import Studio
from appliance.media.layout import (
    ALL,
    PEER,
    SELF,
    Face,
    Layout,
    Quality,
    Seat,
    Shows,
    Source,
    arrange,
    quality_for,
    spoken,
)
from appliance.vocabulary import Json, ParticipantState
from hw.api import Fit

__all__ = ["Stage", "faces_in_room", "faces_of_peer"]


class Stage:
    """One call after the other; everything on the loop. ``on_view``: what is to be received has changed.

    A layout chosen in a call holds until its end, one chosen without until the next start. What somebody begins to
    share is shown by itself, until it ends or a layout is chosen meanwhile.
    """

    def __init__(self, studio: Studio, layout: Layout = Layout.GRID, fit: Fit = Fit.FIT) -> None:
        self._studio = studio
        self._configured = self._standing = layout, fit
        self._chosen: tuple[Layout, Fit] | None = None  # for the call
        self._by_itself = False  # the layout of content, because somebody has begun to share
        self._faces: Sequence[Face] = ()
        self._order: Sequence[str] = ()
        self._asked: dict[str, Quality] = {}  # by who they are, of whom somebody has asked for a quality
        self._most = self._allowed = ALL
        self._lines = 0
        self._preview = False
        self.view: Mapping[Source, Quality] = {}
        """What is received, and how large."""
        self.on_view: Callable[[], None] = _nobody
        self._arrange()

    # --- what is wanted

    def configure(self, layout: Layout, fit: Fit) -> None:
        """The settings: others than before stand from now on; a call in progress keeps what was chosen for it."""
        if (layout, fit) != self._configured:
            self._configured = self._standing = layout, fit
            self._arrange()

    def choose(self, layout: Layout | None, fit: Fit | None, *, in_call: bool) -> None:
        """None: as it is."""
        before = self._chosen if in_call and self._chosen is not None else self._standing
        wanted = layout or before[0], fit or before[1]
        if in_call:
            self._chosen = wanted
        else:
            self._standing = wanted
        if layout is not None:
            self._by_itself = False
        self._arrange()

    def limit(self, most: int) -> None:
        """So many pictures of others at the most, content among them, from now on."""
        self._most = most
        self._arrange()

    def allow(self, most: int, lines: int) -> None:
        """What somebody limits it to, whatever the board carries: so many pictures, and lines of each; 0: no limit."""
        self._allowed, self._lines = most or ALL, lines
        self._arrange()

    def preview(self, shown: bool) -> None:
        """Ourselves alone, while there is nobody else."""
        self._preview = shown
        self._arrange()

    def ask(self, feed: str, quality: Quality | None) -> None:
        """How this one is received from now on; None: by the size of the seat."""
        who = next((face.who for face in self._faces if face.feed == feed), feed)
        if quality is None:
            self._asked.pop(who, None)
        else:
            self._asked[who] = quality
        self._arrange()

    # --- who is there

    def cast(self, faces: Sequence[Face], ranking: Sequence[str] = (), *, away: bool = False) -> None:
        """All who may be shown, in the order in which they came; ``ranking``: who has the floor, where it is known,
        before those who have spoken. ``away``: it is we who are not there, and what was asked of others holds."""
        shared = any(face.content for face in self._faces)
        order = spoken(self._order, faces)
        self._faces, self._order = faces, (*ranking, *(feed for feed in order if feed not in ranking))
        if not away:
            there = {face.who for face in faces}
            self._asked = {who: quality for who, quality in self._asked.items() if who in there}
        if not shared and any(face.content for face in faces):
            self._by_itself = True
        self._arrange()

    def clear(self) -> None:
        """The call is over."""
        self._chosen, self._by_itself = None, False
        self.cast(())

    # --- what comes of it

    @property
    def wanted(self) -> tuple[Layout, Fit]:
        return self._chosen or self._standing

    @property
    def layout(self) -> Layout:
        """The one in force."""
        wanted, shared = self.wanted[0], any(face.content for face in self._faces)
        if shared and self._by_itself and wanted is not Layout.NONE:
            return Layout.CONTENT
        return Layout.SPEAKER if wanted is Layout.CONTENT and not shared else wanted

    def document(self) -> Json:
        """Wanted beside actual."""
        actual = "preview" if self._preview and not self._faces else self.layout.value
        return {"wanted": self.wanted[0].value, "actual": actual, "fit": self.wanted[1].value}

    def _arrange(self) -> None:
        size = self._studio.screen_size
        faces = [replace(face, video=False, content=False) if self._asked.get(face.who) is Quality.OFF else face
                 for face in self._faces]
        seats = arrange(self.layout, faces, order=self._order, size=size, most=min(self._most, self._allowed))
        if self._preview and not faces:
            seats = (Seat(SELF),)
        self._studio.arrange(seats, faces, self.wanted[1], self.document())
        view = {seat.source: self._quality(seat, size) for seat in seats if seat.source.shows is not Shows.SELF}
        if view != self.view:
            self.view = view
            self.on_view()

    def _quality(self, seat: Seat, size: tuple[int, int]) -> Quality:
        who = next((face.who for face in self._faces if face.feed == seat.source.feed), "")
        asked = self._asked.get(who) if seat.source.shows is Shows.PERSON else None
        return quality_for(seat, size, self._lines) if asked is None else asked


def faces_in_room(roster: Roster) -> list[Face]:
    return [Face(one.id, one.display_name, video=one.video, content=one.content, speaking=one.speaking,
                 muted=one.silent, away=one.state is ParticipantState.RECONNECTING, level=one.quality,
                 identity=one.raw_id)
            for one in roster]


def faces_of_peer(roster: Roster, participant_id: str) -> list[Face]:
    """The only other one of a direct call. Its name stands in the words of the screen already."""
    one = roster.members.get(participant_id)
    return [] if one is None else [
        Face(PEER.feed, muted=one.silent, away=one.state is ParticipantState.RECONNECTING, level=one.quality)]


def _nobody() -> None:
    return None
