"""The screen of a real board: hands the latest content to the process that draws it (``hw.pi.sdl``), and watches it.

``show`` returns at once. A process that does not draw a picture in time, or ends, is replaced.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from hw.api import DeviceFact, DeviceFailedError, DeviceMissingError, FaultKind, HardwareError, Kind, Tile
from hw.faults import FaultLine
from hw.screen import Content

__all__ = ["Connector", "DisplayConfig", "SdlDisplay", "connectors", "desktop", "open_display", "plugged"]

_log = logging.getLogger("hw.display")

DEVICE: Final = "screen0"

STALL_S: Final = 10.0
"""A picture that is not drawn by then: the graphics driver hangs, and the process is killed. An overloaded machine may
take seconds; a kill would only add to its load."""

INTERVAL_S: Final = 1 / 32
"""From one drawing to the next at the least: nine people send 270 pictures a second, and a screen that is drawn for
each of them shows no more of anybody than one that is drawn 32 times."""

START_S: Final = 30.0
"""The first picture: graphics drivers compile when they start."""

SCREENSHOT_S: Final = 15.0
RETRY_S: Final = 2.0
CLOSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class DisplayConfig:
    """The table ``display`` of a board file.

    ``use``: whether there is a screen: ``auto`` (where one is plugged in), ``required`` (a missing one is a fault from
    the start), ``none``. ``driver``: ``auto``, ``kmsdrm``, ``wayland``, ``x11``. ``connector``: where the screen is
    plugged in, without a desktop; empty: the first that has one. ``rotation``: what is shown is turned by so many
    degrees, clockwise. ``touch``: buttons by their place, ``LEFT TOP WIDTH HEIGHT`` in fractions of the screen as it is
    seen. ``backlight``: which of several.
    """

    use: str = "auto"
    driver: str = "auto"
    connector: str = ""
    rotation: int = 0
    touch: Mapping[str, str] = field(default_factory=dict)
    backlight: str = ""

    def __post_init__(self) -> None:
        faults = []
        if self.use not in ("auto", "required", "none"):
            faults.append(f"use: {self.use!r} is none of auto, required, none")
        if self.driver not in ("auto", "kmsdrm", "wayland", "x11"):
            faults.append(f"driver: {self.driver!r} is none of auto, kmsdrm, wayland, x11")
        if self.connector and self.driver in ("wayland", "x11"):
            faults.append(f"connector: {self.driver} places the window by itself; leave it out")
        if self.rotation not in (0, 90, 180, 270):
            faults.append(f"rotation: {self.rotation} is none of 0, 90, 180, 270")
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


# --- what is said between the two


@dataclass(frozen=True, slots=True)
class Show:
    """``content`` without the pictures that the process has already: ``kept`` has, by their place in it, the place of
    each in the content before."""

    content: Content
    kept: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def after(cls, before: Content, content: Content) -> Show:
        places = {id(tile.picture): place for place, tile in enumerate(before.tiles) if tile.picture is not None}
        kept = {here: places[id(tile.picture)] for here, tile in enumerate(content.tiles) if id(tile.picture) in places}
        tiles = tuple(replace(tile, picture=None) if here in kept else tile for here, tile in enumerate(content.tiles))
        return cls(replace(content, tiles=tiles), kept)

    def whole(self, before: Content) -> Content:
        """For who has ``before``."""
        tiles = tuple(
            replace(tile, picture=before.tiles[self.kept[here]].picture) if here in self.kept else tile
            for here, tile in enumerate(self.content.tiles))
        return replace(self.content, tiles=tiles)


@dataclass(frozen=True, slots=True)
class Dim:
    brightness: int


@dataclass(frozen=True, slots=True)
class Shoot:
    pass


@dataclass(frozen=True, slots=True)
class State:
    """The screen as it is now: open in a size, or why not."""

    open: bool = False
    size: tuple[int, int] = (1280, 720)
    fault: FaultKind | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Touch:
    button: str
    down: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """``seconds``: that it took, without waiting for the screen."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shot:
    png: bytes
    error: HardwareError | None


Message = State | Touch | Drawn | Shot

_ENDED: Final = State(fault=FaultKind.FAILED, note="its process ended")


# --- where there is a screen


@dataclass(frozen=True, slots=True)
class Connector:
    """A socket for a screen: its graphics card (``/dev/dri/cardN``), its name, and whether a screen is plugged in."""

    card: int
    name: str
    connected: bool


def connectors(folder: str = "/sys/class/drm") -> Sequence[Connector]:
    """Those of all graphics cards, as the kernel counts them."""
    found = []
    for path in Path(folder).glob("card*-*"):
        card, _, name = path.name.removeprefix("card").partition("-")
        try:
            status = (path / "status").read_text().strip()
            number = int((path / "connector_id").read_text())
        except (OSError, ValueError):
            continue  # it goes
        if card.isdecimal() and not name.startswith("Writeback"):
            found.append((int(card), number, Connector(int(card), name, status == "connected")))
    return [connector for _, _, connector in sorted(found, key=lambda one: one[:2])]


def plugged(there: Sequence[Connector], wanted: str = "") -> Connector | None:
    """The connector ``wanted``, or the first, that has a screen."""
    return next((one for one in there if one.connected and wanted in ("", one.name)), None)


def desktop(environ: Mapping[str, str] = os.environ) -> str:
    """The video driver of the desktop we run on; empty without one."""
    return "wayland" if environ.get("WAYLAND_DISPLAY") else "x11" if environ.get("DISPLAY") else ""


def open_display(config: DisplayConfig, faults: FaultLine, press: Callable[[str, bool], None]) -> SdlDisplay | None:
    """The screen of a board file; None where there is nothing to show on. ``press`` takes touched buttons."""
    driver = config.driver if config.driver != "auto" else desktop() or "kmsdrm"
    if config.use == "none" or (config.use == "auto" and driver == "kmsdrm" and not connectors()):
        return None
    return SdlDisplay(config, driver, faults, press)


class SdlDisplay:
    """Implements ``hw.api.Display``.

    Threads: ``hw.display`` hands over content, one at a time, and replaces the process; ``hw.screen`` hears it.
    """

    def __init__(self, config: DisplayConfig, driver: str, faults: FaultLine,
                 press: Callable[[str, bool], None]) -> None:
        self._config = config
        self._driver = driver
        self._faults = faults
        self._press = press
        self._wake = threading.Condition()
        self._content = Content()
        self._brightness = 100
        self._shots_wanted = 0
        self._shots: list[Shot] = []
        self._state = State()
        self._drawn = self._owed = 0  # answers, counted: those that came and those that are due
        self._drawn_s = 0.0
        self._given, self._dimmed = self._content, self._brightness  # as the process has them
        self._ended = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hw.display", daemon=True)
        self._thread.start()

    # --- the contract

    @property
    def size(self) -> tuple[int, int]:
        return self._state.size

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        self._give(Content(tuple(tiles), banner, hint, dark=False))

    def blank(self) -> None:
        self._give(Content())

    def _give(self, content: Content) -> None:
        with self._wake:
            self._content = content
            self._wake.notify_all()

    def set_brightness(self, percent: int) -> None:
        if not 1 <= percent <= 100:
            raise ValueError(f"screen: a brightness of {percent} is outside 1 to 100 %")
        with self._wake:
            self._brightness = percent
            self._wake.notify_all()

    def screenshot(self) -> bytes:
        with self._wake:
            if self._closing:
                raise DeviceFailedError("screen: the board is closed")
            if not self._state.open:
                raise DeviceMissingError(f"screen: {self._state.note or 'it is not open'}")
            self._shots_wanted += 1
            self._wake.notify_all()
            if not self._wake.wait_for(lambda: bool(self._shots), SCREENSHOT_S):
                self._shots_wanted = 0
                raise DeviceFailedError(f"screen: it was not drawn within {SCREENSHOT_S:g} s")
            shot = self._shots.pop()
        if shot.error is not None:
            raise shot.error
        return shot.png

    @property
    def drawn_s(self) -> float:
        return self._drawn_s

    def devices(self) -> Sequence[DeviceFact]:
        state = self._state
        size = f"{state.size[0]}x{state.size[1]}" if state.open else "nothing connected"
        return [DeviceFact(Kind.DISPLAY, DEVICE, f"Screen by {self._driver} ({size})", present=state.open,
                           note=state.note or ("" if state.open else "no screen is connected"))]

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(3 * CLOSE_S)

    # --- hw.display

    def _run(self) -> None:
        while (failed := self._with_process()) is not None:
            self._become(failed)
            with self._wake:
                if self._wake.wait_for(lambda: self._closing, RETRY_S):
                    break
        self._become(State())

    def _with_process(self) -> State | None:
        """Start the process and feed it until it fails, or the board closes (None)."""
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))))
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "hw.pi.sdl", str(theirs.fileno())], pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
                    process_group=0)  # a Ctrl-C in the terminal is the daemon's to answer
        except OSError as error:
            ours.close()
            return State(fault=FaultKind.FAILED, note=f"its process cannot be started: {error}")
        # A process that is stopped takes no picture: nor may it hold us, beyond what its socket holds.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(STALL_S), 0))
        line = Connection(ours.detach())
        self._ended = False
        self._given, self._dimmed = Content(), 100
        reader = threading.Thread(target=self._hear, args=(line,), name="hw.screen", daemon=True)
        reader.start()
        try:
            line.send((self._config, self._driver))
            return self._feed(line)
        except BlockingIOError:
            return State(fault=FaultKind.STALLED, note=f"its process takes no picture for {STALL_S:g} s")
        except OSError:
            return _ENDED
        finally:
            _end(process, line)
            reader.join(CLOSE_S)

    def _feed(self, line: Connection) -> State | None:
        limit, next_at = START_S, 0.0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._ended or self._work())
                pause = next_at - time.monotonic()
                if pause > 0:
                    self._wake.wait_for(lambda: self._closing or self._ended or self._shots_wanted, pause)
                next_at = time.monotonic() + INTERVAL_S
                if self._closing:
                    return None
                if self._ended:
                    return _ENDED
                work, self._owed = self._work(), self._drawn
                self._owed += len(work)
                self._given, self._dimmed, self._shots_wanted = self._content, self._brightness, 0
            for message in work:
                line.send(message)
            with self._wake:
                if not self._wake.wait_for(lambda: self._ended or self._closing or self._drawn >= self._owed, limit):
                    return State(fault=FaultKind.STALLED,
                                 note=f"a picture is not drawn after {limit:g} s: the graphics driver hangs")
                if self._state.open:
                    limit = STALL_S

    def _work(self) -> list[Show | Dim | Shoot]:
        """What the process has not been told yet."""
        work: list[Show | Dim | Shoot] = (
            [Show.after(self._given, self._content)] if self._content is not self._given else [])
        if self._brightness != self._dimmed:
            work.append(Dim(self._brightness))
        return work + [Shoot()] * self._shots_wanted

    def _hear(self, line: Connection) -> None:
        """On hw.screen."""
        try:
            while True:
                message: Message = line.recv()
                if isinstance(message, State):
                    self._become(message)
                elif isinstance(message, Touch):
                    self._press(message.button, message.down)
                elif isinstance(message, Drawn):
                    self._drawn_s += message.seconds
                with self._wake:
                    self._drawn += isinstance(message, Drawn | Shot)
                    if isinstance(message, Shot):
                        self._shots.append(message)
                    self._wake.notify_all()
        except (EOFError, OSError):
            for button in self._config.touch:
                self._press(button, False)
            with self._wake:
                self._ended = True
                self._wake.notify_all()

    def _become(self, state: State) -> None:
        with self._wake:
            before, self._state = self._state, state
            self._wake.notify_all()
        if before.fault is not None and before.fault is not state.fault:
            self._faults.report(Kind.DISPLAY, before.fault, DEVICE, False)
        if state.fault is not None and before.fault is not state.fault:
            _log.warning("screen: %s", state.note)
            self._faults.report(Kind.DISPLAY, state.fault, DEVICE, True, state.note)
        if state.open and not before.open:
            _log.info("screen: %s, %dx%d", self._driver, *state.size)


def _end(process: subprocess.Popen[bytes], line: Connection) -> None:
    """Close the connection, which ends the process; one that hangs is killed."""
    with socket.socket(fileno=os.dup(line.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)  # wakes our own reader too, which close() would not
    try:
        process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        _log.error("the process of the screen hangs; it is killed")
        process.kill()
        try:
            process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            # In an uninterruptible driver call: nothing can end it. Popen's bookkeeping reaps it later.
            _log.error("the screen's process %d survives SIGKILL: its driver hangs", process.pid)
    line.close()
