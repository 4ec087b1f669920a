"""The table ``camera`` of a board file, and what its words mean. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, TypeVar

__all__ = ["WHOLE", "Area", "CameraConfig", "area_of", "config_of", "ranked", "seen"]

USES: Final = ("auto", "required", "none")
ENCODERS: Final = ("auto", "hardware", "software", "picamera2")
TURNS: Final = (0, 90, 180, 270)
FOCUS: Final = ("auto", "fixed")


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in fractions of a picture."""

    left: float
    top: float
    width: float
    height: float


WHOLE: Final = Area(0.0, 0.0, 1.0, 1.0)


def area_of(text: str) -> Area:
    """``LEFT TOP WIDTH HEIGHT`` in fractions. Raises ValueError in words."""
    try:
        left, top, width, height = (float(word) for word in text.split())
    except ValueError as error:
        raise ValueError(f"{text!r} is not LEFT TOP WIDTH HEIGHT in fractions of the picture") from error
    if not (left >= 0 and top >= 0 and width > 0 and height > 0 and left + width <= 1 and top + height <= 1):
        raise ValueError(f"{text!r} is not inside the picture, which is 0 0 1 1")
    return Area(left, top, width, height)


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """The table ``camera`` of a board file.

    ``use``: whether there is a camera: ``auto`` (where one is plugged in), ``required`` (a missing one is a fault from
    the start), ``none``. ``devices``: ids or names, the first that is there is taken; empty: CSI first, then USB.
    ``rotation`` clockwise in degrees. ``zoom``: the part of the picture that is used; ``masks``: what is never shown,
    both as ``LEFT TOP WIDTH HEIGHT`` in fractions of the picture without zoom. ``encoder``: ``auto``, ``hardware`` (the
    board has one, and it is missed where it is not there), ``software``, or ``picamera2``: as ``hardware``, and what
    a CSI camera gives is encoded by picamera2's own class where it leaves as it is.
    ``focus``: ``auto``, or ``fixed`` at ``focus_distance_m`` (0: infinity). ``exposure_us``: 0 is automatic.
    """

    use: str = "auto"
    devices: tuple[str, ...] = ()
    rotation: int = 0
    zoom: str = ""
    masks: tuple[str, ...] = ()
    encoder: str = "auto"
    focus: str = "auto"
    focus_distance_m: float = 0.0
    exposure_us: int = 0

    def __post_init__(self) -> None:
        faults = []
        for name, value, allowed in (
            ("use", self.use, USES), ("encoder", self.encoder, ENCODERS), ("focus", self.focus, FOCUS),
        ):  # fmt: skip
            if value not in allowed:
                faults.append(f"{name}: {value!r} is none of {', '.join(allowed)}")
        if self.rotation not in TURNS:
            faults.append(f"rotation: {self.rotation} is none of 0, 90, 180, 270")
        for name, text in (("zoom", self.zoom), *(("masks", mask) for mask in self.masks)):
            try:
                if text or name == "masks":
                    area_of(text)
            except ValueError as error:
                faults.append(f"{name}: {error}")
        if self.focus_distance_m < 0 or not 0 <= self.exposure_us <= 1_000_000:
            faults.append("focus_distance_m and exposure_us are not negative, and no exposure is longer than 1 000 000")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def part(self) -> Area:
        """The zoom."""
        return area_of(self.zoom) if self.zoom else WHOLE

    @property
    def hidden(self) -> list[Area]:
        """The masks, in fractions of the part that is used; none of those outside it."""
        return [area for mask in self.masks if (area := seen(area_of(mask), self.part)) is not None]

    @property
    def untouched(self) -> bool:
        """Whether pictures leave as the sensor gives them, so that a camera may encode them by itself."""
        return self.encoder != "software" and not (self.rotation or self.masks) and self.part == WHOLE

    def text(self) -> str:
        """For ``config_of`` in the camera's process."""
        return json.dumps(asdict(self))


class Named(Protocol):
    """A camera that is plugged in."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


AnyNamed = TypeVar("AnyNamed", bound=Named)


def ranked(there: Sequence[AnyNamed], wanted: Sequence[str], selected: str = "") -> list[AnyNamed]:
    """Best first: the one with the id ``selected``, then those of ``wanted`` (ids, or beginnings of names) in its
    order. Without such a list all, as they were found."""
    places = []
    for one in there:
        at = next((at for at, want in enumerate(wanted) if want == one.id or one.name.startswith(want)), None)
        if selected and one.id == selected:
            places.append((-1, one))
        elif at is not None or not wanted:
            places.append((at or 0, one))
    places.sort(key=lambda place: place[0])  # stable: of one place in the order found
    return [one for _, one in places]


def config_of(text: str) -> CameraConfig:
    values: dict[str, Any] = json.loads(text)
    for key in ("devices", "masks"):
        values[key] = tuple(values[key])
    return CameraConfig(**values)


def seen(area: Area, part: Area) -> Area | None:
    """``area`` in fractions of ``part``, cut at its borders; None: nothing of it is in there."""
    left, top = max(area.left, part.left), max(area.top, part.top)
    right = min(area.left + area.width, part.left + part.width)
    bottom = min(area.top + area.height, part.top + part.height)
    if right <= left or bottom <= top:
        return None
    return Area((left - part.left) / part.width, (top - part.top) / part.height,
                (right - left) / part.width, (bottom - top) / part.height)
