"""The screen's process: SDL 2 by KMSDRM without a desktop, Wayland or X11 with one. ``python -m hw.pi.sdl FD``.

A process of its own, because a graphics driver (Mesa with LLVM) weighs as much as the whole daemon, and may hang where
nothing but a kill helps. It takes ``Show``, ``Shoot`` and ``Dim`` from the connection FD, and tells ``State``,
``Touch``, ``Drawn`` and ``Shot`` (``hw.pi.display``); it ends when the connection does.

Threads: the main one serves the connection; everything of SDL happens on ``hw.sdl``. Pictures go to the graphics
processor as YUV, words are set by Pillow when they change. A screen that was unplugged is drawn on when it returns.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    FaultKind,
    HardwareError,
    Picture,
)
from hw.blame import fault_of
from hw.host.holders import holders
from hw.pi.backlight import Backlight
from hw.pi.display import (
    Connector,
    Dim,
    DisplayConfig,
    Drawn,
    Message,
    Shoot,
    Shot,
    Show,
    State,
    Touch,
    connectors,
    plugged,
)
from hw.screen import BACKGROUND, Box, Content, Words, cut, encoded, inked, place, turned, upright

_log = logging.getLogger("hw.display")

LOOK_S: Final = 1.0
"""Connectors are looked at this often: a cable that is pulled or plugged is noticed within 2 s."""

AGAIN_S: Final = 0.3
"""What changed last is drawn once more after this time: just after a mode was set a flip may be lost (seen on vkms: one
time in ten), and words would not be there until the next ones."""

EXIT_S: Final = 0.4
RETRY_S: Final = 2.0
PUMP_S: Final = 0.03
"""Touches are asked for this often while there are buttons on the screen; a press is told within 50 ms."""

_SET_MASTER: Final = ord("d") << 8 | 0x1E  # DRM_IOCTL_SET_MASTER

LARGEST: Final = (1920, 1080)
"""More pixels cost every frame and show nothing at 3 m."""


class Screen:
    """Draws the latest content where there is something to draw on; ``tell`` hears what happens, on any thread."""

    def __init__(self, config: DisplayConfig, driver: str, tell: Callable[[Message], None]) -> None:
        self._config = config
        self._driver = driver
        self._tell = tell
        self._wake = threading.Condition()
        self._content = Content()
        self._changed = True
        self._brightness = 100
        self._shoot = False
        self._shot: bytes | HardwareError = b""
        self._closing = False
        self.drawn_s = 0.0
        """That drawing has taken in all, without waiting for the screen."""
        self._state = State()
        self._seen = config.use == "required"  # a screen that never was there is missed by nobody
        self._backlight = Backlight(config.backlight)
        self._thread = threading.Thread(target=self._run, name="hw.sdl", daemon=True)
        self._thread.start()

    def show(self, content: Content) -> None:
        """Returns when it is drawn, or there is nothing to draw on."""
        with self._wake:
            self._content, self._changed = content, True
            self._settle()

    def dim(self, brightness: int) -> None:
        with self._wake:
            self._brightness, self._changed = brightness, True
            self._settle()

    def shoot(self) -> bytes:
        """What is shown, as PNG. Raises HardwareError."""
        with self._wake:
            self._shoot, self._shot = True, DeviceMissingError(f"screen: {self._state.note or 'it is not open'}")
            self._settle()
            self._shoot = False
            return self._taken()

    def _taken(self) -> bytes:
        if isinstance(self._shot, HardwareError):
            raise self._shot
        return self._shot

    def _settle(self) -> None:
        self._wake.notify_all()
        self._wake.wait_for(lambda: not (self._state.open and (self._changed or self._shoot)))

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(EXIT_S)

    # --- hw.sdl

    def _run(self) -> None:
        try:
            self._look_after()
        except Exception:  # outermost frame of the thread: a process that cannot draw makes way for a new one
            _log.exception("screen: a fault of its own")
            os._exit(1)

    def _look_after(self) -> None:
        while not self._stopping():
            try:
                window = _Window(self._driver, self._plugged(), self._config.rotation)
            except DeviceMissingError as error:
                self._lack(error)
                self._rest(LOOK_S)
                continue
            except HardwareError as error:
                self._lack(error)
                self._rest(RETRY_S)
                continue
            self._seen = True
            with self._wake:
                self._changed = True
            self._become(State(open=True, size=window.size))
            if self._draw_on(window):
                self._become(State(fault=FaultKind.PULLED, note="the screen was unplugged: check its cable"))
            window.close()
        self._backlight.set(self._brightness)

    def _plugged(self) -> Connector | None:
        """Where the screen is; None on a desktop, which decides that. Raises HardwareError where there is none."""
        if self._driver != "kmsdrm":
            return None
        there, wanted = connectors(), self._config.connector
        if wanted and wanted not in (names := [one.name for one in there]):
            raise DeviceFailedError(f"there is no connector {wanted!r}; there are {', '.join(names) or 'none'}")
        if (found := plugged(there, wanted)) is None:
            raise DeviceMissingError(f"no screen is connected{wanted and ' at '}{wanted}: check its cable")
        return found

    def _stopping(self) -> bool:
        with self._wake:
            return self._closing

    def _draw_on(self, window: _Window) -> bool:
        """Until it closes (False) or the screen is gone (True)."""
        look_at, again_at = time.monotonic() + LOOK_S, math.inf
        pause = PUMP_S if self._config.touch else LOOK_S / 4
        while True:
            with self._wake:
                if not (self._changed or self._shoot or self._closing):
                    self._wake.wait(pause)
                if self._closing:
                    return False
                content, brightness, shoot, work = self._content, self._brightness, self._shoot, self._changed
            now = time.monotonic()
            if work or shoot or now >= again_at:
                self._draw(window, content, brightness, shoot)
                again_at = now + AGAIN_S if work else math.inf
            if not self._pump(window):
                return True
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_S
                if window.connector is not None and window.connector not in connectors():
                    return True

    def _draw(self, window: _Window, content: Content, brightness: int, shoot: bool) -> None:
        self._backlight.set(brightness, on=not content.dark)
        shot: bytes | HardwareError
        try:
            shot = window.draw(content, read_back=shoot)
            self.drawn_s += window.drew_s
        except HardwareError as error:
            shot = error
            self._become(State(open=True, size=window.size, fault=FaultKind.FAILED, note=str(error)))
        else:
            self._become(State(open=True, size=window.size))
        with self._wake:
            self._changed = self._content is not content or self._brightness != brightness
            if shoot:
                self._shoot, self._shot = False, shot
            self._wake.notify_all()

    def _pump(self, window: _Window) -> bool:
        """Hand touches on. False: the desktop took the window away."""
        for event in window.events():
            if event is None:
                return False
            x, y, down = event
            button = self._config.touched(x, y)
            for name in self._config.touch:
                if name == button or not down:  # a finger may slide off the button before it lets go
                    self._tell(Touch(name, down))
        return True

    def _rest(self, seconds: float) -> None:
        with self._wake:
            if not self._closing:
                self._wake.wait_for(lambda: self._closing, seconds)

    def _lack(self, error: HardwareError) -> None:
        kind = fault_of(error)
        if kind is FaultKind.MISSING and (not self._seen or self._state.fault is FaultKind.PULLED):
            return  # nobody misses it, or it is told already
        self._become(State(fault=kind, note=str(error)))

    def _become(self, state: State) -> None:
        with self._wake:
            if state == self._state:
                return
            self._state = state
            self._wake.notify_all()
        self._tell(state)


class _Window:
    """One full-screen window of SDL with its renderer and textures. On one thread, from the first call to the last."""

    def __init__(self, driver: str, connector: Connector | None, rotation: int) -> None:
        import sdl2

        self.connector = connector
        self._rotation = rotation
        self._number = 0  # SDL counts the screens of one card, in the order of their connectors
        if connector is not None:
            lit = [one for one in connectors() if (one.card, one.connected) == (connector.card, True)]
            if connector not in lit:
                raise DeviceMissingError(f"screen: {connector.name} was unplugged as it was opened")
            self._number = lit.index(connector)
            _ask_for(connector.card)
        self._sdl: Any = sdl2
        self._window: Any = None
        self._renderer: Any = None
        for hint, value in (
            (b"SDL_VIDEODRIVER", {"kmsdrm": b"KMSDRM"}.get(driver, driver.encode())),
            (b"SDL_NO_SIGNAL_HANDLERS", b"1"),  # signals are the daemon's
            (b"SDL_TOUCH_MOUSE_EVENTS", b"0"), (b"SDL_MOUSE_TOUCH_EVENTS", b"1"),  # a mouse is a finger, never twice
            (b"SDL_RENDER_SCALE_QUALITY", b"1"),
            (b"SDL_KMSDRM_DEVICE_INDEX", str(connector.card).encode() if connector else b""),
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
        self._inked: list[Box] = []  # where the sheet has anything
        self.drew_s = 0.0  # that the last drawing took

    def _open(self) -> None:
        sdl, number = self._sdl, self._number
        mode = sdl.SDL_DisplayMode()
        sdl.SDL_GetDesktopDisplayMode(number, ctypes.byref(mode))
        flags = sdl.SDL_WINDOW_FULLSCREEN_DESKTOP
        if mode.w > LARGEST[0] or mode.h > LARGEST[1]:
            wanted, closest = sdl.SDL_DisplayMode(0, *LARGEST, 0, None), sdl.SDL_DisplayMode()
            if sdl.SDL_GetClosestDisplayMode(number, ctypes.byref(wanted), ctypes.byref(closest)):
                mode, flags = closest, sdl.SDL_WINDOW_FULLSCREEN
        where = sdl.SDL_WINDOWPOS_UNDEFINED_DISPLAY(number)
        self._window = sdl.SDL_CreateWindow(b"Edgecall", where, where, mode.w, mode.h, flags)
        if not self._window:
            raise DeviceFailedError(f"screen: no window: {self._error()}")
        sdl.SDL_ShowCursor(sdl.SDL_DISABLE)
        self._renderer = sdl.SDL_CreateRenderer(self._window, -1, sdl.SDL_RENDERER_PRESENTVSYNC)
        if not self._renderer:
            raise DeviceFailedError(f"screen: nothing draws: {self._error()}")
        width, height = ctypes.c_int(), ctypes.c_int()
        sdl.SDL_GetRendererOutputSize(self._renderer, ctypes.byref(width), ctypes.byref(height))
        self._panel = (width.value, height.value)
        self.size = self._panel if self._rotation in (0, 180) else self._panel[::-1]

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
                found.append((*upright(event.tfinger.x, event.tfinger.y, self._rotation),
                              event.type == sdl.SDL_FINGERDOWN))
            elif event.type == sdl.SDL_QUIT:
                found.append(None)
        return found

    def draw(self, content: Content, *, read_back: bool) -> bytes:
        """Draw and show; with ``read_back`` what was drawn, as PNG, else nothing."""
        sdl, renderer, begun = self._sdl, self._renderer, time.perf_counter()
        sdl.SDL_SetRenderDrawColor(renderer, *((0, 0, 0) if content.dark else BACKGROUND), 255)
        sdl.SDL_RenderClear(renderer)
        if not content.dark:
            self._upload(content)
            for tile, (_, texture) in zip((tile for tile in content.tiles if tile.picture is not None), self._pictures,
                                          strict=True):
                box = turned(place(tile, self.size), self.size, self._rotation)
                where = sdl.SDL_Rect(box.left, box.top, box.width, box.height)
                flip = sdl.SDL_FLIP_HORIZONTAL if tile.mirrored else sdl.SDL_FLIP_NONE
                part = cut(tile, self.size)
                of = None if part is None else ctypes.byref(sdl.SDL_Rect(part.left, part.top, part.width, part.height))
                sdl.SDL_RenderCopyEx(renderer, texture, of, ctypes.byref(where), float(self._rotation), None, flip)
            for ink in self._inked:
                where = sdl.SDL_Rect(ink.left, ink.top, ink.width, ink.height)
                sdl.SDL_RenderCopy(renderer, self._sheet, ctypes.byref(where), ctypes.byref(where))
        self.drew_s = time.perf_counter() - begun
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
            sheet = self._words.sheet(content)
            if self._rotation:
                sheet = sheet.rotate(-self._rotation, expand=True)
            self._inked = inked(sheet)
            pixels = sheet.tobytes("raw", "BGRA")
            if self._sheet is None:
                self._sheet = sdl.SDL_CreateTexture(self._renderer, sdl.SDL_PIXELFORMAT_ARGB8888,
                                                    sdl.SDL_TEXTUREACCESS_STATIC, *self._panel)
                sdl.SDL_SetTextureBlendMode(self._sheet, sdl.SDL_BLENDMODE_BLEND)
            sdl.SDL_UpdateTexture(self._sheet, None, pixels, self._panel[0] * 4)

    def _fill(self, texture: Any, picture: Picture) -> None:
        sdl, width, luma = self._sdl, picture.width, picture.width * picture.height
        at = ctypes.cast(ctypes.c_char_p(picture.i420), ctypes.c_void_p).value or 0
        plane = ctypes.POINTER(ctypes.c_ubyte)
        sdl.SDL_UpdateYUVTexture(
            texture, None, ctypes.cast(at, plane), width, ctypes.cast(at + luma, plane), width // 2,
            ctypes.cast(at + luma + luma // 4, plane), width // 2)

    def _read(self) -> bytes:
        from PIL import Image

        sdl, (width, height) = self._sdl, self._panel
        pixels = ctypes.create_string_buffer(width * height * 4)
        if sdl.SDL_RenderReadPixels(self._renderer, None, sdl.SDL_PIXELFORMAT_ARGB8888, pixels, width * 4) != 0:
            raise DeviceFailedError(f"screen: it cannot be read back: {self._error()}")
        image = Image.frombuffer("RGBA", (width, height), pixels.raw, "raw", "BGRA", 0, 1)
        if self._rotation:
            image = image.rotate(self._rotation, expand=True)
        return encoded(image.convert("RGB"), "PNG", compress_level=1)


def _ask_for(card: int) -> None:
    """Raises HardwareError where somebody else drives the graphics card: SDL does not ask when it is told which."""
    try:
        node = os.open(f"/dev/dri/card{card}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(node, _SET_MASTER)
        finally:
            os.close(node)  # and it is nobody's again
    except OSError as error:
        raise _refusal("kmsdrm", str(error)) from error


def without_mode(folder: str = "/sys/class/drm") -> Sequence[str]:
    """Connectors with a screen of which the kernel knows no mode: it tells none, or its EDID is not read. To be asked
    when SDL has looked in vain, since looking is what makes the kernel read it."""
    found = []
    for one in connectors(folder):
        with suppress(OSError):  # it goes
            modes = (Path(folder) / f"card{one.card}-{one.name}" / "modes").read_text()
            if one.connected and not modes.strip():
                found.append(one.name)
    return found


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
        return DeviceBusyError(f"the screen is held by {others}: end it")
    if driver == "kmsdrm" and (modeless := without_mode()):
        return DeviceFormatError(f"the screen at {', '.join(modeless)} names no size that it can be driven in "
                                 f"({words}): try another cable, or name one with video= on the kernel's command line")
    return DeviceFailedError(f"SDL cannot use {driver}: {words}")


def main(descriptor: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    line, sending = Connection(descriptor), threading.Lock()

    def tell(message: Message) -> None:
        with sending:
            line.send(message)

    try:
        config, driver = line.recv()
        tell(State())
        try:
            import sdl2  # noqa: F401
        except ImportError as error:
            tell(State(fault=FaultKind.FAILED, note=f"SDL 2 is not there ({error}): install libsdl2-2.0-0 and pysdl2"))
            line.recv()
            return
        screen, shown = Screen(config, driver, tell), Content()
        try:
            while True:
                match line.recv():
                    case Show() as show:
                        before, shown = screen.drawn_s, show.whole(shown)
                        screen.show(shown)
                        tell(Drawn(screen.drawn_s - before))
                    case Dim(brightness):
                        screen.dim(brightness)
                        tell(Drawn())
                    case Shoot():
                        try:
                            tell(Shot(screen.shoot(), None))
                        except HardwareError as error:
                            tell(Shot(b"", error))
        finally:
            screen.close()
    except (EOFError, OSError):  # the daemon is gone, or wants us to go
        os._exit(0)  # a driver that starts or hangs would hold an orderly end; the kernel takes the screen back


if __name__ == "__main__":
    main(int(sys.argv[1]))
