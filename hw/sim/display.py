"""The simulated screen: keeps what is to be shown and draws it when somebody looks.

Drawing happens on ``hw.display``: pictures are scaled by FFmpeg's swscale, words set by Pillow, which is imported
when the first word is needed. While nobody looks, ``show`` costs a reference.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Final

from hw.api import DeviceFact, DeviceFailedError, FaultKind, Kind, Picture, Tile
from hw.blame import error_of
from hw.faults import FaultLine
from hw.screen import BACKGROUND, Box, Content, Words, cut, encoded, place

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SimDisplay"]

DEVICE: Final = "screen0"
DRAW_DEADLINE_S: Final = 5.0


class SimDisplay:
    """Implements ``hw.api.Display``."""

    def __init__(self, size: tuple[int, int], faults: FaultLine | None = None) -> None:
        self._size = size
        self._faults = faults
        self._obstacle: tuple[FaultKind, str] | None = None
        self._content = Content()  # latest wins; replaced whole, so no lock
        self._brightness = 100
        self._words = Words(size)
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._closed = False
        self._drawn_s = 0.0

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        self._content = Content(tuple(tiles), banner, hint, dark=False)

    def blank(self) -> None:
        self._content = Content()

    def set_brightness(self, percent: int) -> None:
        if not 1 <= percent <= 100:
            raise ValueError(f"screen: a brightness of {percent} is outside 1 to 100 %")
        self._brightness = percent

    @property
    def drawn_s(self) -> float:
        """Of the times that somebody looked."""
        return self._drawn_s

    def obstruct(self, obstacle: tuple[FaultKind, str] | None) -> None:
        """What keeps it from being drawn on from now on, in words too; None: nothing."""
        before, self._obstacle = self._obstacle, obstacle
        if self._faults is None:
            return
        if before is not None and before != obstacle:
            self._faults.report(Kind.DISPLAY, before[0], DEVICE, False)
        if obstacle is not None:
            self._faults.report(Kind.DISPLAY, obstacle[0], DEVICE, True, obstacle[1])
        self._faults.devices_changed()

    def device(self, note: str = "") -> DeviceFact:
        """``note`` of one that is drawn on, for people."""
        fault, words = self._obstacle or (None, note)
        return DeviceFact(Kind.DISPLAY, DEVICE, "Simulated screen", fault not in (FaultKind.MISSING, FaultKind.PULLED),
                          fault is None, simulated=True, note=words)

    def screenshot(self) -> bytes:
        if self._obstacle is not None:
            raise error_of(self._obstacle[0])(f"screen: {self._obstacle[1]}")
        return self._draw(lambda: encoded(self._render(), "PNG", compress_level=1))

    def jpeg(self, width: int) -> bytes:
        """The screen as JPEG, ``width`` pixels wide (16 to 1920), as bright as it is set."""
        if not 16 <= width <= 1920:
            raise ValueError(f"screen: a width of {width} is outside 16 to 1920 pixels")

        def draw() -> bytes:
            screen = self._render()
            if self._brightness < 100:
                share = self._brightness / 100
                screen = screen.point(lambda value: value * share)
            return encoded(screen.resize((width, max(1, round(width * screen.height / screen.width)))), "JPEG")

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
        begun = time.perf_counter()
        try:
            return self._composed()
        finally:
            self._drawn_s += time.perf_counter() - begun

    def _composed(self) -> Image:
        from PIL import Image

        content = self._content
        if content.dark or self._obstacle is not None:
            return Image.new("RGB", self._size, (0, 0, 0))
        screen = Image.new("RGB", self._size, BACKGROUND)
        for tile in content.tiles:
            if tile.picture is not None:
                box = place(tile, self._size)
                part = cut(tile, self._size)
                screen.paste(_image(tile.picture, box, part, mirrored=tile.mirrored), (box.left, box.top))
        sheet = self._words.sheet(content)
        screen.paste(sheet, (0, 0), sheet)
        return screen


def _image(picture: Picture, box: Box, part: Box | None, *, mirrored: bool) -> Image:
    """``part`` of the picture, or all of it, scaled to the size of ``box``."""
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
    width, height = box.width, box.height
    if part is not None:
        width = round(picture.width * box.width / part.width)
        height = round(picture.height * box.height / part.height)
    scaled = frame.reformat(
        width=width, height=height, format="rgb24",
        src_colorspace="ITU709" if picture.height >= 720 else "ITU601",
    )  # fmt: skip
    plane = scaled.planes[0]
    image = Image.frombuffer("RGB", (scaled.width, scaled.height), bytes(plane), "raw", "RGB", plane.line_size, 1)
    if part is not None:
        left, top = (width - box.width) // 2, (height - box.height) // 2
        image = image.crop((left, top, left + box.width, top + box.height))
    return ImageOps.mirror(image) if mirrored else image
