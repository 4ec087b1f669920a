"""The screen of a real board by SDL 2: KMSDRM without a desktop, Wayland or X11 with one.

Everything of SDL happens on ``hw.display``; ``show`` hands over the latest content and returns. Pictures go to the
graphics processor as YUV, words are set by Pillow when they change. A screen that is unplugged is told and drawn on
again when it returns.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFact,
    DeviceFailedError,
    DeviceMissingError,
    FaultKind,
    HardwareError,
    Kind,
    Picture,
    Tile,
)
from hw.host.holders import holders
from hw.pi.backlight import Backlight
from hw.screen import BACKGROUND, Content, Words, encoded, place
from hw.sim.faults import FaultLine

__all__ = ["DisplayConfig", "SdlDisplay", "connected", "open_display"]

_log = logging.getLogger("hw.display")

DEVICE: Final = "screen0"

SCREENSHOT_S: Final = 5.0
STALL_S: Final = 5.0
"""A picture that is not drawn by then: the graphics driver hangs."""

LOOK_S: Final = 1.0
"""Connectors are looked at this often: a cable that is pulled or plugged is noticed within 2 s."""

RETRY_S: Final = 2.0
PUMP_S: Final = 0.03
"""Touches are asked for this often while there are buttons on the screen; a press is told within 50 ms."""

LARGEST: Final = (1920, 1080)
"""More pixels cost every frame and show nothing at 3 m."""


@dataclass(frozen=True, slots=True)
class DisplayConfig:
    """The table ``display`` of a board file.

    ``use``: whether there is a screen: ``auto`` (where one is plugged in), ``required`` (a missing one is a fault from
    the start), ``none``. ``driver``: ``auto``, ``kmsdrm``, ``wayland``, ``x11``. ``touch``: buttons by their place,
    ``LEFT TOP WIDTH HEIGHT`` in fractions of the screen. ``backlight``: which of several.
    """

    use: str = "auto"
    driver: str = "auto"
    touch: Mapping[str, str] = field(default_factory=dict)
    backlight: str = ""

    def __post_init__(self) -> None:
        faults = []
        if self.use not in ("auto", "required", "none"):
            faults.append(f"use: {self.use!r} is none of auto, required, none")
        if self.driver not in ("auto", "kmsdrm", "wayland", "x11"):
            faults.append(f"driver: {self.driver!r} is none of auto, kmsdrm, wayland, x11")
        for name, text in self.touch.items():
            try:
                left, top, width, height = map(float, text.split())
                inside = 0 <= left < left + width <= 1.0001 and 0 <= top < top + height <= 1.0001
            except ValueError:
                inside = False
            if not inside:
                faults.append(f"touch.{name} = {text!r}: LEFT TOP WIDTH HEIGHT, as fractions within the screen")
        if faults:
            raise ValueError("; ".join(faults))

    def touched(self, x: float, y: float) -> str | None:
        """The button at a place, the first named where they overlap."""
        for name, text in self.touch.items():
            left, top, width, height = map(float, text.split())
            if left <= x <= left + width and top <= y <= top + height:
                return name
        return None


def connected(folder: str = "/sys/class/drm") -> Sequence[str] | None:
    """Connectors of all graphics cards with a screen on them; None where no card has a connector."""
    found, any_there = [], False
    for path in sorted(Path(folder).glob("card*-*")):
        try:
            status = (path / "status").read_text().strip()
        except OSError:
            continue
        if "Writeback" not in path.name:
            any_there = True
            if status == "connected":
                found.append(path.name.partition("-")[2])
    return found if any_there else None


def desktop(environ: Mapping[str, str] = os.environ) -> str:
    """The video driver of the desktop we run on; empty without one."""
    return "wayland" if environ.get("WAYLAND_DISPLAY") else "x11" if environ.get("DISPLAY") else ""


def open_display(config: DisplayConfig, faults: FaultLine, press: Callable[[str, bool], None]) -> SdlDisplay | None:
    """The screen of a board file; None where there is nothing to show on. ``press`` takes touched buttons."""
    driver = config.driver if config.driver != "auto" else desktop() or "kmsdrm"
    if config.use == "none" or (config.use == "auto" and driver == "kmsdrm" and connected() is None):
        return None
    try:
        import sdl2  # noqa: F401 - now, off the loop, and not with the first picture
    except ImportError as error:
        raise DeviceFailedError(f"screen: SDL 2 is not there ({error}): install libsdl2-2.0-0 and pysdl2") from error
    return SdlDisplay(config, driver, faults, press)


class SdlDisplay:
    """Implements ``hw.api.Display``."""

    def __init__(self, config: DisplayConfig, driver: str, faults: FaultLine,
                 press: Callable[[str, bool], None]) -> None:
        self._config = config
        self._driver = driver
        self._faults = faults
        self._press = press
        self._wake = threading.Condition()
        self._content = Content()
        self._changed = True
        self._brightness = 100
        self._shots: list[Future[bytes]] = []
        self._closing = False
        self._size = (1280, 720)
        self._fault: FaultKind | None = None
        self._note = ""
        self._seen = config.use == "required"  # a screen that never was there is missed by nobody
        self._open = False
        self._drawing_since: float | None = None
        self._backlight = Backlight(config.backlight)
        self._thread = threading.Thread(target=self._run, name="hw.display", daemon=True)
        self._thread.start()

    # --- the contract

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        self._give(Content(tuple(tiles), banner, hint, dark=False))

    def blank(self) -> None:
        self._give(Content())

    def set_brightness(self, percent: int) -> None:
        if not 1 <= percent <= 100:
            raise ValueError(f"screen: a brightness of {percent} is outside 1 to 100 %")
        with self._wake:
            self._brightness = percent
            self._changed = True
            self._wake.notify()

    def _give(self, content: Content) -> None:
        with self._wake:
            self._content = content
            self._changed = True
            self._wake.notify()
            since = self._drawing_since
        if since is not None:
            self._faults.report(Kind.DISPLAY, FaultKind.STALLED, DEVICE, time.monotonic() - since > STALL_S,
                                f"a picture is not drawn after {STALL_S:g} s: the graphics driver hangs")

    def screenshot(self) -> bytes:
        future: Future[bytes] = Future()
        with self._wake:
            if self._closing:
                raise DeviceFailedError("screen: the board is closed")
            if not self._open:
                raise DeviceMissingError(f"screen: {self._note or 'it is not open yet'}")
            self._shots.append(future)
            self._wake.notify()
        try:
            return future.result(SCREENSHOT_S)
        except FutureTimeoutError as error:
            raise DeviceFailedError(f"screen: it was not drawn within {SCREENSHOT_S:g} s") from error

    def devices(self) -> Sequence[DeviceFact]:
        size = f"{self._size[0]}x{self._size[1]}" if self._open else "nothing connected"
        return [DeviceFact(Kind.DISPLAY, DEVICE, f"Screen by {self._driver} ({size})", present=self._open,
                           note=self._note or ("" if self._open else "no screen is connected"))]

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(2.0)
            if self._thread.is_alive():
                _log.error("the screen's thread does not end: the graphics driver hangs")

    # --- hw.display

    def _run(self) -> None:
        while not self._closing:
            if self._driver == "kmsdrm" and not connected():
                self._lack(DeviceMissingError("no screen is connected: check its cable"))
                self._rest(LOOK_S)
                continue
            try:
                window = _Window(self._driver)
            except HardwareError as error:
                self._lack(error)
                self._rest(RETRY_S)
                continue
            self._size, self._seen = window.size, True
            with self._wake:
                self._open = self._changed = True
            self._tell(None, "")
            _log.info("screen: %s, %dx%d", window.driver, *window.size)
            try:
                lost = self._draw_on(window)
            finally:
                with self._wake:
                    self._open = False
                    shots, self._shots = self._shots, []
                for shot in shots:
                    shot.set_exception(DeviceMissingError("screen: it is gone"))
                window.close()
            if lost:
                self._tell(FaultKind.PULLED, "the screen was unplugged: check its cable")
        self._backlight.set(self._brightness)

    def _draw_on(self, window: _Window) -> bool:
        """Until the board closes (False) or the screen is gone (True)."""
        look_at = time.monotonic() + LOOK_S
        pause = PUMP_S if self._config.touch else LOOK_S / 4
        while True:
            with self._wake:
                if not self._changed and not self._shots and not self._closing:
                    self._wake.wait(pause)
                if self._closing:
                    return False
                changed, self._changed = self._changed, False
                content, brightness = self._content, self._brightness
                shots, self._shots = self._shots, []
                self._drawing_since = time.monotonic() if changed or shots else None
            if changed:
                self._backlight.set(brightness, on=not content.dark)
            if changed or shots:
                self._draw(window, content, shots)
            if not self._pump(window):
                return True
            if self._driver == "kmsdrm" and time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_S
                if not connected():
                    return True

    def _draw(self, window: _Window, content: Content, shots: Sequence[Future[bytes]]) -> None:
        try:
            picture = window.draw(content, read_back=bool(shots))
        except HardwareError as error:
            self._tell(FaultKind.FAILED, str(error))
            for shot in shots:
                shot.set_exception(error)
        else:
            self._tell(None, "")
            for shot in shots:
                shot.set_result(picture)
        with self._wake:
            self._drawing_since = None
        self._faults.report(Kind.DISPLAY, FaultKind.STALLED, DEVICE, False)

    def _pump(self, window: _Window) -> bool:
        """Hand touches on. False: the desktop took the window away."""
        for event in window.events():
            if event is None:
                return False
            x, y, down = event
            button = self._config.touched(x, y)
            for name in self._config.touch:
                if name == button or not down:  # a finger may slide off the button before it lets go
                    self._press(name, down)
        return True

    def _rest(self, seconds: float) -> None:
        with self._wake:
            if not self._closing:
                self._wake.wait_for(lambda: self._closing, seconds)

    def _lack(self, error: HardwareError) -> None:
        kind = next((kind for one, kind in ((DeviceMissingError, FaultKind.MISSING), (DeviceBusyError, FaultKind.BUSY),
                                            (DeviceDeniedError, FaultKind.DENIED)) if isinstance(error, one)),
                    FaultKind.FAILED)
        if kind is FaultKind.MISSING and (not self._seen or self._fault is FaultKind.PULLED):
            return  # nobody misses it, or it is told already
        self._tell(kind, str(error))

    def _tell(self, fault: FaultKind | None, detail: str) -> None:
        if fault is self._fault:
            return
        if self._fault is not None:
            self._faults.report(Kind.DISPLAY, self._fault, DEVICE, False)
        self._fault, self._note = fault, detail
        if fault is not None:
            _log.warning("screen: %s", detail)
            self._faults.report(Kind.DISPLAY, fault, DEVICE, True, detail)


class _Window:
    """One full-screen window of SDL with its renderer and textures. On one thread, from the first call to the last."""

    def __init__(self, driver: str) -> None:
        import sdl2

        self._sdl: Any = sdl2
        self._window: Any = None
        self._renderer: Any = None
        for hint, value in (
            (b"SDL_VIDEODRIVER", {"kmsdrm": b"KMSDRM"}.get(driver, driver.encode())),
            (b"SDL_NO_SIGNAL_HANDLERS", b"1"),  # signals are the daemon's
            (b"SDL_TOUCH_MOUSE_EVENTS", b"0"), (b"SDL_MOUSE_TOUCH_EVENTS", b"1"),  # a mouse is a finger, never twice
            (b"SDL_RENDER_SCALE_QUALITY", b"1"),
        ):
            sdl2.SDL_SetHint(hint, value)
        if sdl2.SDL_InitSubSystem(sdl2.SDL_INIT_VIDEO) != 0:
            raise _refusal(driver, self._error())
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self.driver = sdl2.SDL_GetCurrentVideoDriver().decode()
        self._words = Words(self.size)
        self._shown: tuple[object, ...] | None = None
        self._sheet: Any = None
        self._pictures: list[tuple[Picture, Any]] = []  # as they are in textures

    def _open(self) -> None:
        sdl = self._sdl
        mode = sdl.SDL_DisplayMode()
        sdl.SDL_GetDesktopDisplayMode(0, ctypes.byref(mode))
        flags = sdl.SDL_WINDOW_FULLSCREEN_DESKTOP
        if mode.w > LARGEST[0] or mode.h > LARGEST[1]:
            wanted, closest = sdl.SDL_DisplayMode(0, *LARGEST, 0, None), sdl.SDL_DisplayMode()
            if sdl.SDL_GetClosestDisplayMode(0, ctypes.byref(wanted), ctypes.byref(closest)):
                mode, flags = closest, sdl.SDL_WINDOW_FULLSCREEN
        self._window = sdl.SDL_CreateWindow(b"Edgecall", sdl.SDL_WINDOWPOS_UNDEFINED, sdl.SDL_WINDOWPOS_UNDEFINED,
                                            mode.w, mode.h, flags)
        if not self._window:
            raise DeviceFailedError(f"screen: no window: {self._error()}")
        sdl.SDL_ShowCursor(sdl.SDL_DISABLE)
        self._renderer = sdl.SDL_CreateRenderer(self._window, -1, sdl.SDL_RENDERER_PRESENTVSYNC)
        if not self._renderer:
            raise DeviceFailedError(f"screen: nothing draws: {self._error()}")
        width, height = ctypes.c_int(), ctypes.c_int()
        sdl.SDL_GetRendererOutputSize(self._renderer, ctypes.byref(width), ctypes.byref(height))
        self.size = (width.value, height.value)

    def _error(self) -> str:
        return str(self._sdl.SDL_GetError().decode(errors="replace")) or "SDL does not say why"

    def close(self) -> None:
        sdl = self._sdl
        if self._renderer:
            sdl.SDL_DestroyRenderer(self._renderer)  # and its textures
        if self._window:
            sdl.SDL_DestroyWindow(self._window)
        self._renderer = self._window = None
        sdl.SDL_QuitSubSystem(sdl.SDL_INIT_VIDEO)

    def events(self) -> Sequence[tuple[float, float, bool] | None]:
        """Touches since the last call as (x, y, down) in fractions; None: the window is to be closed."""
        sdl, event = self._sdl, self._sdl.SDL_Event()
        found: list[tuple[float, float, bool] | None] = []
        while sdl.SDL_PollEvent(ctypes.byref(event)):
            if event.type in (sdl.SDL_FINGERDOWN, sdl.SDL_FINGERUP):
                found.append((event.tfinger.x, event.tfinger.y, event.type == sdl.SDL_FINGERDOWN))
            elif event.type == sdl.SDL_QUIT:
                found.append(None)
        return found

    def draw(self, content: Content, *, read_back: bool) -> bytes:
        """Draw and show; with ``read_back`` what was drawn, as PNG, else nothing."""
        sdl, renderer = self._sdl, self._renderer
        sdl.SDL_SetRenderDrawColor(renderer, *((0, 0, 0) if content.dark else BACKGROUND), 255)
        sdl.SDL_RenderClear(renderer)
        if not content.dark:
            self._upload(content)
            for tile, (_, texture) in zip((tile for tile in content.tiles if tile.picture is not None), self._pictures,
                                          strict=True):
                box = place(tile, self.size)
                where = sdl.SDL_Rect(box.left, box.top, box.width, box.height)
                flip = sdl.SDL_FLIP_HORIZONTAL if tile.mirrored else sdl.SDL_FLIP_NONE
                sdl.SDL_RenderCopyEx(renderer, texture, None, ctypes.byref(where), 0.0, None, flip)
            sdl.SDL_RenderCopy(renderer, self._sheet, None, None)
        picture = self._read() if read_back else b""
        sdl.SDL_RenderPresent(renderer)
        return picture

    def _upload(self, content: Content) -> None:
        sdl = self._sdl
        old, self._pictures = self._pictures, []
        for tile in content.tiles:
            if tile.picture is None:
                continue
            kept = old.pop(0) if old else None
            if kept is not None and (kept[0].width, kept[0].height) != (tile.picture.width, tile.picture.height):
                sdl.SDL_DestroyTexture(kept[1])
                kept = None
            if kept is None:
                texture = sdl.SDL_CreateTexture(
                    self._renderer, sdl.SDL_PIXELFORMAT_IYUV, sdl.SDL_TEXTUREACCESS_STREAMING, tile.picture.width,
                    tile.picture.height)
            else:
                texture = kept[1]
            if kept is None or kept[0] is not tile.picture:
                self._fill(texture, tile.picture)
            self._pictures.append((tile.picture, texture))
        for _, texture in old:
            sdl.SDL_DestroyTexture(texture)
        if self._shown != (key := content.without_pictures()):
            self._shown = key
            pixels = self._words.sheet(content).tobytes("raw", "BGRA")
            if self._sheet is None:
                self._sheet = sdl.SDL_CreateTexture(self._renderer, sdl.SDL_PIXELFORMAT_ARGB8888,
                                                    sdl.SDL_TEXTUREACCESS_STATIC, *self.size)
                sdl.SDL_SetTextureBlendMode(self._sheet, sdl.SDL_BLENDMODE_BLEND)
            sdl.SDL_UpdateTexture(self._sheet, None, pixels, self.size[0] * 4)

    def _fill(self, texture: Any, picture: Picture) -> None:
        sdl, width, luma = self._sdl, picture.width, picture.width * picture.height
        at = ctypes.cast(ctypes.c_char_p(picture.i420), ctypes.c_void_p).value or 0
        plane = ctypes.POINTER(ctypes.c_ubyte)
        sdl.SDL_UpdateYUVTexture(
            texture, None, ctypes.cast(at, plane), width, ctypes.cast(at + luma, plane), width // 2,
            ctypes.cast(at + luma + luma // 4, plane), width // 2)

    def _read(self) -> bytes:
        from PIL import Image

        sdl, (width, height) = self._sdl, self.size
        pixels = ctypes.create_string_buffer(width * height * 4)
        if sdl.SDL_RenderReadPixels(self._renderer, None, sdl.SDL_PIXELFORMAT_ARGB8888, pixels, width * 4) != 0:
            raise DeviceFailedError(f"screen: it cannot be read back: {self._error()}")
        image = Image.frombuffer("RGBA", (width, height), pixels.raw, "raw", "BGRA", 0, 1)
        return encoded(image.convert("RGB"), "PNG", compress_level=1)


def _refusal(driver: str, words: str) -> HardwareError:
    """Why SDL got no screen: it does not say, the nodes do."""
    nodes = [str(path) for path in sorted(Path("/dev/dri").glob("card*"))] if driver == "kmsdrm" else []
    if driver == "kmsdrm" and not nodes:
        return DeviceMissingError("there is no graphics card (/dev/dri/card*): load its driver or overlay")
    denied = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if denied:
        return DeviceDeniedError(f"{', '.join(denied)} may not be opened: add the user to the groups video and render")
    others = ", ".join(filter(None, (holders(node) for node in nodes)))
    if others:
        return DeviceBusyError(f"the screen is held by {others}")
    return DeviceFailedError(f"SDL cannot use {driver}: {words}")
