"""What a screen shows, and how it looks: words, plates and places of pictures, the same on every board. Needs Pillow.

The rule of sizes: half of normal sight reads capitals of 10 minutes of arc. For a banner at 3 m that is 9 mm, a tenth
of the shorter side of a 7 inch screen, and no banner is smaller: one that is too long goes on in further lines. Hints
and names are for who stands at the device: a thirtieth, which is as much at 1 m.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from hw.api import Fit, Tile

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

__all__ = ["BACKGROUND", "Box", "Content", "Words", "cut", "encoded", "inked", "place", "turned", "upright"]

BACKGROUND: Final = (13, 17, 23)
SURFACE: Final = (22, 28, 38)
INK: Final = (240, 244, 248)
FAINT: Final = (148, 160, 174)
ACCENT: Final = (64, 156, 255)
WARNING: Final = (255, 112, 96)
CLEAR: Final = (0, 0, 0, 0)
VEIL: Final = (0, 0, 0, 168)
"""Behind a caption over pictures: white letters stay readable over white."""

BANNER_SHARE: Final = 0.16
"""Size of the banner's letters over the screen's shorter side; capitals are 0.73 of it."""

READABLE_SHARE: Final = 0.14
"""The smallest letters of a banner, and those over pictures."""

CAPITALS: Final = 0.729
LOWER_CAPITALS: Final = 0.69
"""Height of capitals over the size of letters, of DejaVu and of the font that takes its place."""

HINT_SHARE: Final = 0.045
"""Letters of hints and names."""

NAME_LEAST: Final = 0.028
NAME_OF_TILE: Final = 0.14
"""Names of small tiles: of the tile's height, but no smaller than this share of the screen's shorter side."""

BARS: Final = 5
AWAY: Final = "Reconnecting …"

LINE: Final = 1.17
"""From line to line over the size of letters."""

CAPTION_SHARE: Final = 1 / 3
"""Of the screen's height the lines of a caption take no more: above it are faces."""

FONTS: Final = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
)


@dataclass(frozen=True, slots=True)
class Content:
    """What ``Display.show`` was told last; dark after ``blank``."""

    tiles: tuple[Tile, ...] = ()
    banner: str = ""
    hint: str = ""
    dark: bool = True

    def without_pictures(self) -> tuple[object, ...]:
        """What the words depend on: equal as long as only pictures change."""
        return (self.dark, self.banner, self.hint,
                *((replace(tile, picture=None), tile.picture is None) for tile in self.tiles))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: int
    top: int
    width: int
    height: int


def turned(box: Box, size: tuple[int, int], degrees: int) -> Box:
    """Where ``box`` of an upright screen of ``size`` has to be for being in its place once it is turned about its own
    middle, with the screen: 0, 90, 180 or 270 degrees clockwise. Width and height stay as they are, and both are even.
    """
    middle = box.left + box.width // 2, box.top + box.height // 2
    x, y = {0: middle, 90: (size[1] - middle[1], middle[0]), 180: (size[0] - middle[0], size[1] - middle[1]),
            270: (middle[1], size[0] - middle[0])}[degrees]
    return Box(x - box.width // 2, y - box.height // 2, box.width, box.height)


def upright(x: float, y: float, degrees: int) -> tuple[float, float]:
    """A place of a turned screen as a place of the upright one, both in fractions."""
    return {0: (x, y), 90: (y, 1 - x), 180: (1 - x, 1 - y), 270: (1 - y, x)}[degrees]


@dataclass(frozen=True, slots=True)
class _Lines:
    """A banner as it is set: the size of its letters in pixels, and its lines."""

    size: int
    words: list[str]


def _outer(tile: Tile, size: tuple[int, int]) -> Box:
    return Box(round(tile.x * size[0]), round(tile.y * size[1]),
               max(2, round(tile.w * size[0])), max(2, round(tile.h * size[1])))


def place(tile: Tile, size: tuple[int, int]) -> Box:
    """Where the picture of ``tile`` goes on a screen of ``size``, in even numbers: in the middle with its shape kept,
    or everywhere."""
    box, picture = _outer(tile, size), tile.picture
    if picture is None:
        return box
    if tile.fit is not Fit.FIT:
        return Box(box.left, box.top, max(2, box.width // 2 * 2), max(2, box.height // 2 * 2))
    share = min(box.width / picture.width, box.height / picture.height)
    wide = max(2, round(picture.width * share) // 2 * 2)
    high = max(2, round(picture.height * share) // 2 * 2)
    return Box(box.left + (box.width - wide) // 2, box.top + (box.height - high) // 2, wide, high)


def cut(tile: Tile, size: tuple[int, int]) -> Box | None:
    """The part of its picture that ``tile`` shows, in pixels of the picture; None: all of it."""
    picture = tile.picture
    if picture is None or tile.fit is not Fit.CROP:
        return None
    box = _outer(tile, size)
    share = max(box.width / picture.width, box.height / picture.height)
    wide = min(picture.width, max(2, round(box.width / share) // 2 * 2))
    high = min(picture.height, max(2, round(box.height / share) // 2 * 2))
    return Box((picture.width - wide) // 4 * 2, (picture.height - high) // 4 * 2, wide, high)


class Words:
    """Sets the words of a screen of one size. One thread at a time."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._fonts: dict[int, FreeTypeFont] = {}

    def sheet(self, content: Content) -> Image:
        """All but the pictures, to be laid over them: RGBA of the screen's size, clear where pictures show."""
        from PIL import Image, ImageDraw

        sheet = Image.new("RGBA", self.size, (0, 0, 0, 0))
        draw = ImageDraw.Draw(sheet)
        if content.tiles:
            banner = self._set(draw, content.banner, READABLE_SHARE, self.size[1] * CAPTION_SHARE)
            strip = self._strip(banner, content.hint)
            for tile in content.tiles:
                self._tile(draw, tile, strip)
            if strip:
                self._caption(draw, banner, content.hint, strip)
        else:
            self._poster(draw, content)
        return sheet

    def _share(self, share: float) -> int:
        """Pixels of a share of the shorter side."""
        return round(min(self.size) * share)

    @property
    def _room(self) -> float:
        return self.size[0] * 0.94

    def _set(self, draw: ImageDraw, words: str, share: float, room: float) -> _Lines:
        """``words`` in one line as large as ``share``, or smaller, as long as it is readable; else in as many lines as
        ``room`` pixels have. Only for a single word that is longer than a line they are smaller."""
        least, singles = self._share(READABLE_SHARE), words.replace(" …", "\N{NO-BREAK SPACE}…").split(" ")

        def fitting(size: int, text: str) -> int:
            length = draw.textlength(text, font=self._font(size))
            return size if length <= self._room else int(size * self._room / length)

        size = max(least, fitting(self._share(share), words))
        for word in singles:
            size = max(12, min(size, fitting(size, word)))
        font = self._font(size)
        lines: list[str] = []
        for word in singles:
            if lines and draw.textlength(f"{lines[-1]} {word}", font=font) <= self._room:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        most = max(1, int(room / (least * LINE)))
        if len(lines) > most:
            lines = [*lines[: most - 1], _shortened(draw, " ".join(lines[most - 1 :]), font, self._room)]
        return _Lines(size, [line for line in lines if line])

    def _tile(self, draw: ImageDraw, tile: Tile, strip: int) -> None:
        box = _outer(tile, self.size)
        whole = (box.left, box.top, box.left + box.width - 1, box.top + box.height - 1)
        if tile.picture is not None:
            draw.rectangle(whole, fill=VEIL if tile.away else CLEAR)  # of a tile below nothing shows through
        else:
            draw.rectangle(whole, fill=SURFACE)
            radius = min(box.width, box.height) // 6
            x, y = box.left + box.width // 2, box.top + box.height // 2
            draw.ellipse((x - radius // 2, y - radius, x + radius // 2, y), fill=FAINT)
            draw.pieslice((x - radius, y + radius // 6, x + radius, y + 2 * radius), 180, 360, fill=FAINT)
        size = max(12, self._share(NAME_LEAST), min(round(box.height * NAME_OF_TILE), self._share(HINT_SHARE)))
        if tile.label or tile.muted:
            # At the tile's foot, but above the strip of a caption.
            foot = min(box.top + box.height, self.size[1] - strip)
            self._plate(draw, tile, box, max(box.top, foot - round(size * 1.9)), size)
        if tile.bars is not None:
            self._bars(draw, tile.bars, box, size)
        if tile.away:
            words = _shortened(draw, AWAY, self._font(size), box.width * 0.94)
            length = draw.textlength(words, font=self._font(size))
            draw.text((box.left + (box.width - length) / 2, box.top + box.height / 2 - size), words,
                      font=self._font(size), fill=INK)

    def _strip(self, banner: _Lines, hint: str) -> int:
        """Height of the caption over pictures, in pixels."""
        if not banner.words and not hint:
            return 0
        letters, small = self._share(READABLE_SHARE), self._share(HINT_SHARE)
        more = round(max(0, len(banner.words) - 1) * banner.size * LINE)
        return round(letters * 1.45) + more + (round(small * 1.7) if hint else 0)

    def _caption(self, draw: ImageDraw, banner: _Lines, hint: str, high: int) -> None:
        """Over pictures: a strip at the foot that leaves faces free."""
        width, height = self.size
        letters, small = self._share(READABLE_SHARE), self._share(HINT_SHARE)
        draw.rectangle((0, height - high, width, height), fill=VEIL)
        draw.rectangle((0, height - high, width, height - high + max(2, height // 240)), fill=ACCENT)
        self._lines(draw, banner, height - high + round(letters * 0.17))
        if hint:
            self._centred(draw, hint, height - round(small * 1.75), small, (206, 214, 224))

    def _poster(self, draw: ImageDraw, content: Content) -> None:
        """No picture: the words are the screen."""
        if not content.banner and not content.hint:
            return
        width, height = self.size
        small = self._share(HINT_SHARE)
        banner = self._set(draw, content.banner, BANNER_SHARE, height * 0.94 - 5 * small)
        letters = self._share(BANNER_SHARE)
        more = round(max(0, len(banner.words) - 1) * banner.size * LINE)
        middle = (height + more) // 2
        self._lines(draw, banner, middle - more - letters)
        bar = width // 16
        top = middle + letters // 2
        draw.rectangle((width // 2 - bar, top, width // 2 + bar, top + height // 160), fill=ACCENT)
        self._centred(draw, content.hint, middle + round(letters * 0.95), small, FAINT)

    def _lines(self, draw: ImageDraw, banner: _Lines, y: int) -> None:
        for number, words in enumerate(banner.words):
            self._centred(draw, words, y + round(number * banner.size * LINE), banner.size, INK)

    def _centred(self, draw: ImageDraw, words: str, y: int, size: int, colour: tuple[int, int, int]) -> None:
        """One line, in the middle; one that is too long becomes smaller, down to half, and is then shortened."""
        if not words:
            return
        font = self._font(size)
        length = draw.textlength(words, font=font)
        if length > self._room:
            font = self._font(max(12, int(size * max(0.5, self._room / length))))
            words = _shortened(draw, words, font, self._room)
            length = draw.textlength(words, font=font)
        draw.text(((self.size[0] - length) / 2, y), words, font=font, fill=colour)

    def _plate(self, draw: ImageDraw, tile: Tile, box: Box, y: int, size: int) -> None:
        """A name on a dark plate, before it a crossed microphone of who is muted."""
        x, font = box.left + size // 2, self._font(size)
        icon = size if tile.muted else 0
        words = _shortened(draw, tile.label, font, box.width - 2 * size - icon) if tile.label else ""
        length = draw.textlength(words, font=font)
        draw.rounded_rectangle((x, y, x + icon + length + size, y + size * 1.5), radius=size // 3, fill=(0, 0, 0))
        draw.text((x + icon + size / 2, y + size * 0.16), words, font=font, fill=INK)
        if tile.muted:
            left, thick = x + size // 2, max(2, size // 10)
            draw.rounded_rectangle((left + size * 0.2, y + size * 0.25, left + size * 0.5, y + size * 0.8),
                                   radius=size * 0.15, fill=WARNING)
            draw.arc((left + size * 0.05, y + size * 0.45, left + size * 0.65, y + size * 0.98), 0, 180, fill=WARNING,
                     width=thick)
            draw.line((left + size * 0.35, y + size * 0.98, left + size * 0.35, y + size * 1.2), fill=WARNING,
                      width=thick)
            draw.line((left, y + size * 0.2, left + size * 0.7, y + size * 1.2), fill=WARNING, width=thick)

    def _bars(self, draw: ImageDraw, level: int, box: Box, size: int) -> None:
        """How good somebody's network is, at the upper right."""
        step, high = max(3, size // 4), size
        left, top = box.left + box.width - step * BARS - size, box.top + size // 2
        draw.rounded_rectangle((left - size // 3, top - size // 4, left + step * BARS + size // 4, top + high * 1.2),
                               radius=size // 3, fill=VEIL)
        for number in range(BARS):
            x, y = left + number * step, top + high * (1 - (number + 1) / BARS)
            colour = FAINT if number >= level else WARNING if level <= 2 else INK
            draw.rectangle((x, y if number < level else top + high * 0.9, x + step - 2, top + high), fill=colour)

    def _font(self, size: int) -> FreeTypeFont:
        if size not in self._fonts:
            from PIL import ImageFont

            path = next((path for path in FONTS if Path(path).is_file()), None)
            # Pillow brings a font of its own (Aileron) for systems without DejaVu; its capitals are a little lower.
            font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size * CAPITALS / LOWER_CAPITALS)
            self._fonts[size] = cast("FreeTypeFont", font)
        return self._fonts[size]


BANDS: Final = 24


def inked(sheet: Image) -> list[Box]:
    """Where something is drawn, in bands from above: what lies over pictures is mostly nothing, and nothing need not be
    laid over them for every picture."""
    found = []
    for number in range(BANDS):
        top, foot = (sheet.height * one // BANDS for one in (number, number + 1))
        box = sheet.crop((0, top, sheet.width, foot)).getbbox()
        if box is not None:
            found.append(Box(box[0], top + box[1], box[2] - box[0], box[3] - box[1]))
    return found


def _shortened(draw: ImageDraw, words: str, font: FreeTypeFont, room: float) -> str:
    if draw.textlength(words, font=font) <= room:
        return words
    while words and draw.textlength(words + "…", font=font) > room:
        words = words[:-1]
    return words + "…"


def encoded(image: Image, kind: str, **options: int) -> bytes:
    """``image`` as a file of that kind (PNG, JPEG)."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
