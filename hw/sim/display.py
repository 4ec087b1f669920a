"""The simulated screen: keeps what is to be shown and draws it when somebody looks.

Drawing happens on ``hw.display``: pictures are scaled by FFmpeg's swscale, words set by Pillow, which is imported
when the first word is needed. While nobody looks, ``show`` costs a reference.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from hw.api import DeviceFailedError, Picture, Tile

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

__all__ = ["SimDisplay"]

DRAW_DEADLINE_S: Final = 5.0

BACKGROUND: Final = (13, 17, 23)
SURFACE: Final = (22, 28, 38)
INK: Final = (240, 244, 248)
FAINT: Final = (148, 160, 174)
ACCENT: Final = (64, 156, 255)

BANNER_SHARE: Final = 0.095
"""Height of the banner's letters over the screen's: 3 m need 1.2 cm capitals, that is this share of a 7 inch screen."""

HINT_SHARE: Final = 0.045

FONTS: Final = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
)


@dataclass(frozen=True, slots=True)
class _Content:
    tiles: tuple[Tile, ...] = ()
    banner: str = ""
    hint: str = ""
    dark: bool = True


class SimDisplay:
    """Implements ``hw.api.Display``."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._content = _Content()  # latest wins; replaced whole, so no lock
        self._fonts: dict[int, FreeTypeFont] = {}
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._closed = False

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        self._content = _Content(tuple(tiles), banner, hint, dark=False)

    def blank(self) -> None:
        self._content = _Content()

    def screenshot(self) -> bytes:
        return self._draw(lambda: _encoded(self._render(), "PNG", compress_level=1))

    def jpeg(self, width: int) -> bytes:
        """The screen as JPEG, ``width`` pixels wide (16 to 1920)."""
        if not 16 <= width <= 1920:
            raise ValueError(f"screen: a width of {width} is outside 16 to 1920 pixels")

        def draw() -> bytes:
            screen = self._render()
            return _encoded(screen.resize((width, max(1, round(width * screen.height / screen.width)))), "JPEG")

        return self._draw(draw)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=True, cancel_futures=True)

    def _draw(self, job: Callable[[], bytes]) -> bytes:
        with self._lock:
            if self._closed:
                raise DeviceFailedError("screen: the board is closed")
            if self._worker is None:  # at the first look: a device that nobody looks at has no such thread
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="hw.display")
            future: Future[bytes] = self._worker.submit(job)
        try:
            return future.result(DRAW_DEADLINE_S)
        except FutureTimeoutError as error:
            future.cancel()
            raise DeviceFailedError(f"screen: it was not drawn within {DRAW_DEADLINE_S:g} s") from error

    # --- on hw.display

    def _render(self) -> Image:
        from PIL import Image, ImageDraw

        content, (width, height) = self._content, self._size
        if content.dark:
            return Image.new("RGB", self._size, (0, 0, 0))
        screen = Image.new("RGB", self._size, BACKGROUND)
        draw = ImageDraw.Draw(screen)
        for tile in content.tiles:
            self._tile(screen, draw, tile, self._strip(content))
        if content.banner or content.hint:
            if content.tiles:
                self._caption(screen, content)
            else:
                self._poster(draw, content, width, height)
        return screen

    def _tile(self, screen: Image, draw: ImageDraw, tile: Tile, strip: int) -> None:
        width, height = self._size
        left, top = round(tile.x * width), round(tile.y * height)
        wide, high = max(2, round(tile.w * width)), max(2, round(tile.h * height))
        if tile.picture is None:
            draw.rectangle((left, top, left + wide - 1, top + high - 1), fill=SURFACE)
            radius = min(wide, high) // 6
            x, y = left + wide // 2, top + high // 2
            draw.ellipse((x - radius // 2, y - radius, x + radius // 2, y), fill=FAINT)
            draw.pieslice((x - radius, y + radius // 6, x + radius, y + 2 * radius), 180, 360, fill=FAINT)
        else:
            picture = _image(tile.picture, wide, high, mirrored=tile.mirrored)
            screen.paste(picture, (left + (wide - picture.width) // 2, top + (high - picture.height) // 2))
        if tile.label:
            size = max(12, min(round(high * 0.07), round(height * HINT_SHARE)))
            # At the tile's foot, but above the strip of a caption.
            foot = min(top + high, height - strip)
            self._words(draw, tile.label, left + size // 2, max(top, foot - round(size * 1.9)), size)

    def _strip(self, content: _Content) -> int:
        """Height of the caption over pictures, in pixels."""
        if not content.banner and not content.hint:
            return 0
        height = self._size[1]
        return round(height * BANNER_SHARE * 0.72 * 1.6) + (round(height * HINT_SHARE * 1.7) if content.hint else 0)

    def _caption(self, screen: Image, content: _Content) -> None:
        """Over pictures: a strip at the foot that leaves faces free."""
        from PIL import Image, ImageDraw

        width, height = self._size
        letters, small = round(height * BANNER_SHARE * 0.72), round(height * HINT_SHARE)
        high = self._strip(content)
        box = (0, height - high, width, height)
        strip = Image.blend(screen.crop(box), Image.new("RGB", (width, high), (0, 0, 0)), 0.66)
        screen.paste(strip, box)
        draw = ImageDraw.Draw(screen)
        draw.rectangle((0, height - high, width, height - high + max(2, height // 240)), fill=ACCENT)
        self._centred(draw, content.banner, height - high + round(letters * 0.25), letters, INK)
        if content.hint:
            self._centred(draw, content.hint, height - round(small * 1.75), small, (206, 214, 224))

    def _poster(self, draw: ImageDraw, content: _Content, width: int, height: int) -> None:
        """No picture: the words are the screen."""
        letters, small = round(height * BANNER_SHARE), round(height * HINT_SHARE)
        middle = height // 2
        self._centred(draw, content.banner, middle - letters, letters, INK)
        bar = width // 16
        top = middle + letters // 2
        draw.rectangle((width // 2 - bar, top, width // 2 + bar, top + height // 160), fill=ACCENT)
        self._centred(draw, content.hint, middle + round(letters * 0.95), small, FAINT)

    def _centred(self, draw: ImageDraw, words: str, y: int, size: int, colour: tuple[int, int, int]) -> None:
        if not words:
            return
        font = self._font(size)
        room = self._size[0] * 0.94
        length = draw.textlength(words, font=font)
        if length > room:  # smaller before shorter
            font = self._font(max(12, int(size * max(0.5, room / length))))
            words = _shortened(draw, words, font, room)
            length = draw.textlength(words, font=font)
        draw.text(((self._size[0] - length) / 2, y), words, font=font, fill=colour)

    def _words(self, draw: ImageDraw, words: str, x: int, y: int, size: int) -> None:
        """A name on a dark plate."""
        font = self._font(size)
        words = _shortened(draw, words, font, self._size[0] - x - size)
        length = draw.textlength(words, font=font)
        draw.rounded_rectangle((x, y, x + length + size, y + size * 1.5), radius=size // 3, fill=(0, 0, 0))
        draw.text((x + size / 2, y + size * 0.16), words, font=font, fill=INK)

    def _font(self, size: int) -> FreeTypeFont:
        if size not in self._fonts:
            from PIL import ImageFont

            path = next((path for path in FONTS if Path(path).is_file()), None)
            # Pillow brings a font of its own (Aileron) for systems without DejaVu.
            font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
            self._fonts[size] = cast("FreeTypeFont", font)
        return self._fonts[size]


def _shortened(draw: ImageDraw, words: str, font: FreeTypeFont, room: float) -> str:
    if draw.textlength(words, font=font) <= room:
        return words
    while words and draw.textlength(words + "…", font=font) > room:
        words = words[:-1]
    return words + "…"


def _image(picture: Picture, wide: int, high: int, *, mirrored: bool) -> Image:
    """``picture`` scaled to fit into ``wide`` by ``high`` pixels, its shape kept."""
    from av.video.frame import VideoFrame
    from PIL import Image, ImageOps

    frame = VideoFrame(picture.width, picture.height, "yuv420p")
    offset = 0
    half = (picture.width // 2, picture.height // 2)
    for plane, (width, height) in zip(frame.planes, ((picture.width, picture.height), half, half), strict=True):
        pad = bytes(plane.line_size - width)
        data = picture.i420[offset : offset + width * height]
        plane.update(b"".join(data[y * width : (y + 1) * width] + pad for y in range(height)) if pad else data)
        offset += width * height
    share = min(wide / picture.width, high / picture.height)
    scaled = frame.reformat(
        width=max(2, round(picture.width * share) // 2 * 2), height=max(2, round(picture.height * share) // 2 * 2),
        format="rgb24", src_colorspace="ITU709" if picture.height >= 720 else "ITU601",
    )  # fmt: skip
    plane = scaled.planes[0]
    image = Image.frombuffer("RGB", (scaled.width, scaled.height), bytes(plane), "raw", "RGB", plane.line_size, 1)
    return ImageOps.mirror(image) if mirrored else image


def _encoded(image: Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
