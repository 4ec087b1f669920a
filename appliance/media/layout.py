"""Where on the screen whose picture goes, and how large it has to come for that. Pure: no devices, no clock.

Places are fractions of the screen. A layout seats those who send a picture; who has no seat is not received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import Final, NamedTuple

__all__ = [
    "ALL", "MOST", "PEER", "SELF", "Face", "Layout", "Quality", "Seat", "Shows", "Source", "arrange", "quality_for",
    "spoken",
]

MOST: Final = 9
"""Pictures of people at a time."""

ALL: Final = MOST + 1
"""With the one of content."""

STRIP: Final = 8
"""Small pictures beside a large one of a person."""

STRIP_SHARE: Final = 1 / 5
CONTENT_STRIP_SHARE: Final = 1 / 8
"""Of the screen's longer side what the strip takes; content is read, and has more: nine beside it are smaller than
eight, and take no more of it."""

INSET_SHARE: Final = 1 / 4
INSET_MARGIN: Final = 1 / 50
"""Of the screen, of the view of oneself. It is above: at the foot stand words."""

LOW_LINES: Final = 216
MID_LINES: Final = 432
"""Lines of a seat up to which the quality is enough: 1.2 times the 180 and 360 lines that senders of several have."""


class Layout(StrEnum):
    SPEAKER = "speaker"  # who speaks large, the others small beside
    GRID = "grid"  # all of one size
    PIP = "pip"  # who speaks, and an inset of oneself
    SINGLE = "single"  # who speaks, alone
    CONTENT = "content"  # what is shared large, people small beside
    NONE = "none"  # no picture


class Quality(IntEnum):
    """How large a picture is received, where its sender sends several; one that sends one sends that."""

    OFF = 0
    LOW = 1
    MID = 2
    HIGH = 3


class Shows(Enum):
    """What a picture is of."""

    PERSON = "person"
    CONTENT = "content"  # what a person shares
    SELF = "self"  # what we send


class Source(NamedTuple):
    """Where a picture comes from. ``feed``: the room's id of the person; empty for the only peer of a direct call."""

    feed: str
    shows: Shows = Shows.PERSON


PEER: Final = Source("")
SELF: Final = Source("", Shows.SELF)


@dataclass(frozen=True, slots=True)
class Face:
    """Somebody who may be shown. ``video``, ``content``: what there is of it; ``level``: network quality, 0 to 5;
    ``identity``: what stays when that one joins anew, empty where it is not known."""

    feed: str
    label: str = ""
    video: bool = True
    content: bool = False
    speaking: bool = False
    muted: bool = False
    away: bool = False
    level: int | None = None
    identity: str = ""

    @property
    def who(self) -> str:
        """By which that one is known again."""
        return self.identity or self.feed


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one picture, in fractions of the screen. Later seats lie over earlier ones."""

    source: Source
    x: float = 0.0
    y: float = 0.0
    w: float = 1.0
    h: float = 1.0


def arrange(
    layout: Layout, faces: Sequence[Face], *, order: Sequence[str] = (), size: tuple[int, int] = (1280, 720),
    most: int = ALL,
) -> tuple[Seat, ...]:
    """Who sits where. ``faces`` in the order in which they came, ``order`` the feeds of those who speak or have spoken,
    the latest first; ``most`` pictures of others at the most, content among them. Layouts for one who speaks take the
    first of ``order`` that has a picture, else the first face; the layout of content is that of the speaker while
    nothing is shared."""
    feeds, shared = [face.feed for face in faces if face.video], _shared(faces, order)
    if layout is Layout.CONTENT and shared is not None:  # which is a picture, too
        beside = _seated(feeds, order, min(MOST, most - 1))
        share = min(CONTENT_STRIP_SHARE, 1 / max(1, len(beside)))
        return _beside(Source(shared, Shows.CONTENT), beside, share, size)
    people = _seated(feeds, order, min(MOST, most))
    if not people or layout is Layout.NONE:
        return ()
    first = next((feed for feed in order if feed in people), people[0])
    match layout:
        case Layout.GRID:
            return _grid(people, size)
        case Layout.SINGLE:
            return (Seat(Source(first)),)
        case Layout.PIP:
            left = 1 - INSET_SHARE - INSET_MARGIN
            return Seat(Source(first)), Seat(SELF, left, INSET_MARGIN * size[0] / size[1], INSET_SHARE, INSET_SHARE)
        case _:
            others = [feed for feed in people if feed != first]
            return _beside(Source(first), others[:STRIP], STRIP_SHARE, size)


def spoken(order: Sequence[str], faces: Sequence[Face]) -> tuple[str, ...]:
    """The order for ``arrange`` after ``order``: who begins to speak comes first, but nobody takes the place of one who
    speaks still; who is gone is forgotten."""
    speaking = [face.feed for face in faces if face.speaking]
    known = [feed for feed in order if any(face.feed == feed for face in faces)]
    held = known[:1] if known and known[0] in speaking else []
    new = [feed for feed in speaking if feed not in held]
    return (*held, *sorted(new, key=lambda feed: known.index(feed) if feed in known else len(known)),
            *(feed for feed in known if feed not in held and feed not in new))


def quality_for(seat: Seat, size: tuple[int, int], most_lines: int = 0) -> Quality:
    """The least quality that fills the seat on a screen of this size, or one of ``most_lines`` (0: no limit)."""
    lines = min(seat.h * size[1], seat.w * size[0] * 9 / 16)
    lines = min(lines, most_lines) if most_lines else lines
    return Quality.LOW if lines <= LOW_LINES else Quality.MID if lines <= MID_LINES else Quality.HIGH


def _seated(feeds: Sequence[str], order: Sequence[str], most: int) -> list[str]:
    """Those for whom there is room: the first who came, but whoever spoke last has a seat, that of the one who came
    last among those who did not."""
    if len(feeds) <= most:
        return list(feeds)
    speaking = [feed for feed in order if feed in feeds][:most]
    quiet = [feed for feed in feeds if feed not in speaking][: most - len(speaking)]
    return [feed for feed in feeds if feed in speaking or feed in quiet]


def _shared(faces: Sequence[Face], order: Sequence[str]) -> str | None:
    """Whose content is shown where several share: of the one who spoke last, else of the one who came last."""
    sharing = [face.feed for face in faces if face.content]
    return next((feed for feed in order if feed in sharing), sharing[-1] if sharing else None)


def _grid(people: Sequence[str], size: tuple[int, int]) -> tuple[Seat, ...]:
    """Rows and columns that leave pictures of 16:9 the most room; a last row that is not full is centred."""
    count = len(people)
    columns = max(range(1, count + 1), key=lambda one: (
        round(min(size[0] / (16 * one), size[1] / (9 * -(-count // one))), 6), one))
    rows = -(-count // columns)
    seats = []
    for number, feed in enumerate(people):
        row, column = divmod(number, columns)
        in_row = min(columns, count - row * columns)
        seats.append(Seat(Source(feed), (column + (columns - in_row) / 2) / columns, row / rows, 1 / columns, 1 / rows))
    return tuple(seats)


def _beside(large: Source, small: Sequence[str], share: float, size: tuple[int, int]) -> tuple[Seat, ...]:
    """One large, the others in a strip: at the right, on an upright screen at the foot. Alone it has it all."""
    if not small:
        return (Seat(large),)
    upright = size[1] > size[0]
    length = 1 / max(len(small), round(1 / share))
    if upright:
        return Seat(large, h=1 - share), *(
            Seat(Source(feed), number * length, 1 - share, length, share) for number, feed in enumerate(small))
    return Seat(large, w=1 - share), *(
        Seat(Source(feed), 1 - share, number * length, share, length) for number, feed in enumerate(small))
