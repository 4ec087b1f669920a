"""What the board's screen shows: the latest picture of everybody who has a seat, with marks, and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from appliance.media.layout import MOST, PEER, SELF, Face, Layout, Seat, Shows, Source, arrange
from appliance.vocabulary import Json
from hw.api import Display, Fit, Picture, Tile

__all__ = ["Screen"]

_UNSEEN: Final = (1280, 720)
"""The size where there is no screen: nothing is drawn in it."""


class Screen:
    """Everything on the loop. Without an ``arrange`` all pictures stand in a grid."""

    def __init__(self, display: Display | None) -> None:
        self._display = display
        self._pictures: dict[object, tuple[Source, Picture]] = {}
        self._seats: Sequence[Seat] | None = None
        self._faces: Mapping[str, Face] = {}
        self._fit = Fit.FIT
        self._banner = ""
        self._hint = ""
        self._dark = False

    @property
    def present(self) -> bool:
        """Whether there is anything to show pictures on."""
        return self._display is not None

    @property
    def size(self) -> tuple[int, int]:
        return _UNSEEN if self._display is None else self._display.size

    @property
    def pictures(self) -> int:
        return len(self._pictures)

    def text(self, banner: str, hint: str = "") -> None:
        if self._dark or (banner, hint) != (self._banner, self._hint):
            self._banner, self._hint = banner, hint
            self._show()

    def blank(self) -> None:
        """Dark until the next text or picture."""
        self._dark = True
        if self._display is not None:
            self._display.blank()

    def arrange(self, seats: Sequence[Seat] | None, faces: Sequence[Face], fit: Fit) -> None:
        """Who sits where from now on, and what is known of them. None: everybody of whom there is a picture."""
        known = {face.feed: face for face in faces}
        if (seats, known, fit) != (self._seats, self._faces, self._fit):
            self._seats, self._faces, self._fit = seats, known, fit
            if not self._dark:
                self._show()

    def picture(self, owner: object, picture: Picture | None, source: Source = PEER) -> None:
        """The latest picture that ``owner`` receives, and of what it is; None removes it."""
        if picture is not None:
            self._pictures[owner] = source, picture
        elif self._pictures.pop(owner, None) is None:
            return
        self._show()

    def document(self) -> Json:
        """Who sits where, for ``state/media``."""
        return {"seats": [] if self._seats is None or self._display is None else [
            {"participantId": seat.source.feed, "shows": seat.source.shows.value,
             "x": round(seat.x, 4), "y": round(seat.y, 4), "w": round(seat.w, 4), "h": round(seat.h, 4)}
            for seat in self._seats]}

    # --- private

    def _show(self) -> None:
        self._dark = False
        if self._display is not None:
            self._display.show(self._everybody() if self._seats is None else self._seated(self._seats), self._banner,
                               self._hint)

    def _everybody(self) -> Sequence[Tile]:
        pictures = [picture for _, picture in self._pictures.values()][:MOST]
        seats = arrange(Layout.GRID, [Face(str(number)) for number in range(len(pictures))], size=self.size)
        return [Tile(picture, seat.x, seat.y, seat.w, seat.h)
                for picture, seat in zip(pictures, seats, strict=True)]

    def _seated(self, seats: Sequence[Seat]) -> Sequence[Tile]:
        """While nobody's picture has come the words have the screen, but for a look at oneself alone."""
        there = dict(self._pictures.values())
        others = [seat for seat in seats if seat.source != SELF]
        if not any(seat.source in there for seat in others or seats):
            return ()
        return [self._tile(seat, there.get(seat.source)) for seat in seats
                if seat.source in there or seat.source != SELF]

    def _tile(self, seat: Seat, picture: Picture | None) -> Tile:
        shows, face = seat.source.shows, self._faces.get(seat.source.feed)
        if shows is Shows.SELF:
            return Tile(picture, seat.x, seat.y, seat.w, seat.h, mirrored=True, fit=self._fit)
        if face is None:
            return Tile(picture, seat.x, seat.y, seat.w, seat.h, fit=self._fit)
        if shows is Shows.CONTENT:  # it is read: nothing of it is cut off
            return Tile(picture, seat.x, seat.y, seat.w, seat.h, face.label, away=face.away)
        return Tile(picture, seat.x, seat.y, seat.w, seat.h, face.label, fit=self._fit, muted=face.muted,
                    away=face.away, bars=face.level)
