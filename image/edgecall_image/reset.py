"""The held button: asked by the first process, before there is anything but the root, whether to forget everything.

The button of the board file is down when Linux starts, stays so for ten seconds, and is let go within the next ten: a
button that is stuck, or a wire that has come off, resets nothing. GPIO character device, ``<linux/gpio.h>``, version 2.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from edgecall_image.layout import SYSTEM_FACTS

__all__ = ["BOARDS", "BUTTONS", "Button", "GpioLine", "Line", "find_button", "is_held", "main"]

HOLD_S: Final = 10.0
"""So long it has to be down: nobody leans on a button for that long by mistake while the power comes back."""
LET_GO_S: Final = 10.0

BUTTONS: Final = ("call", "mute", "none")
"""What ``[system] reset_button`` may name."""
BOARDS: Final = (Path("/etc/edgecall/boards"), Path("/usr/lib/edgecall/share/edgecall/boards"),
                 Path("/usr/share/edgecall/boards"))
MODEL: Final = Path("/sys/firmware/devicetree/base/model")

_CHIP_INFO: Final = struct.Struct("32s32sI")  # name, label, lines
_REQUEST: Final = struct.Struct("I252x32sQI260xII20xi")  # offset, consumer, flags, attributes, lines, events, node
_VALUES: Final = struct.Struct("QQ")  # bits, mask
_EVENT_SIZE: Final = 48
_GET_CHIP_INFO: Final = 2 << 30 | _CHIP_INFO.size << 16 | 0xB4 << 8 | 0x01
_GET_LINE: Final = 3 << 30 | _REQUEST.size << 16 | 0xB4 << 8 | 0x07
_GET_VALUES: Final = 3 << 30 | _VALUES.size << 16 | 0xB4 << 8 | 0x0E
_ACTIVE_LOW, _INPUT, _BOTH_EDGES = 1 << 1, 1 << 2, 1 << 4 | 1 << 5
_PULL_UP, _PULL_DOWN, _NO_PULL = 1 << 8, 1 << 9, 1 << 10


class Button(NamedTuple):
    """A line of a GPIO chip, as a board file describes it (docs/hardware.md, "Panel")."""

    chip: str
    line: int
    flags: int
    """As the kernel takes them: active where the button is down."""


class Line(Protocol):
    def is_down(self) -> bool: ...

    def wait_edge(self, seconds: float) -> bool:
        """Whether it went up or down within that time."""

    def close(self) -> None: ...


def main(argv: Sequence[str]) -> int:
    """``reset``: exit status 0 when a factory reset is asked for, 1 when not, whatever the reason."""
    if not MODEL.exists():  # no board file is for it
        return 1
    try:
        button = find_button(_wanted(SYSTEM_FACTS), MODEL.read_text().rstrip("\0"))
        if button is None:
            return 1
        with closing(GpioLine(button)) as line:
            return 0 if is_held(line, time.monotonic) else 1
    except (OSError, ValueError) as error:
        print(f"edgecall: the button for a factory reset is not looked at: {error}")
        return 1


def is_held(line: Line, monotonic: Callable[[], float]) -> bool:
    """Blocks for as long as it is down, twenty seconds at most."""
    if not line.is_down():
        return False
    print(f"edgecall: a button is down: kept for {HOLD_S:.0f} s and let go then, it resets this device", flush=True)
    if not _stays_down(line, monotonic() + HOLD_S, monotonic):
        return False
    print(f"edgecall: let go within {LET_GO_S:.0f} s to reset this device", flush=True)
    return not _stays_down(line, monotonic() + LET_GO_S, monotonic)


def _stays_down(line: Line, until: float, monotonic: Callable[[], float]) -> bool:
    while (left := until - monotonic()) > 0:
        if line.wait_edge(left) and not line.is_down():
            return False
    return line.is_down()


def find_button(name: str, model: str, folders: Sequence[Path] = BOARDS) -> Button | None:
    """The button ``name`` of the board file for ``model``; None where it has none, and ``none`` is no button's name. A
    board file that cannot be read is passed over; raises ValueError for a line that is none."""
    best: tuple[int, Mapping[str, Any]] = (0, {})
    for path in (path for folder in folders for path in sorted(folder.glob("*.toml"))):
        try:
            board = tomllib.loads(path.read_text(encoding="utf-8"))
            length = max((len(one) for one in board.get("models", ()) if model.startswith(one)), default=0)
        except (OSError, ValueError, TypeError) as error:
            print(f"edgecall: board file {path}: {error}")
            continue
        if length > best[0]:
            best = length, board
    panel = best[1].get("panel", {})
    text = panel.get("buttons", {}).get(name)
    if text is None:
        return None
    number, *words = text.split()
    flags = _INPUT | _BOTH_EDGES
    if ("high" in words) == ("normally-closed" in words):
        flags |= _ACTIVE_LOW
    flags |= _NO_PULL if "no-pull" in words else _PULL_DOWN if "high" in words else _PULL_UP
    return Button(str(panel.get("chip", "")), int(number), flags)


def _wanted(facts: Path) -> str:
    """The button that the operator chose; what cannot be read chose none of his own."""
    try:
        wanted = json.loads(facts.read_bytes())["system"]["reset_button"]
    except (OSError, ValueError, KeyError, TypeError):
        return BUTTONS[0]
    return wanted if isinstance(wanted, str) else BUTTONS[0]


class GpioLine:
    """Raises OSError where it cannot be taken or fails."""

    def __init__(self, button: Button) -> None:
        node = os.open(_chip(button.chip), os.O_RDWR | os.O_CLOEXEC)
        try:
            asked = _REQUEST.pack(button.line, b"edgecall factory reset", button.flags, 0, 1, 16, 0)
            self._line: int = _REQUEST.unpack(fcntl.ioctl(node, _GET_LINE, asked))[-1]
        finally:
            os.close(node)

    def is_down(self) -> bool:
        return bool(_VALUES.unpack(fcntl.ioctl(self._line, _GET_VALUES, _VALUES.pack(0, 1)))[0])

    def wait_edge(self, seconds: float) -> bool:
        if not select.select([self._line], [], [], seconds)[0]:
            return False
        os.read(self._line, _EVENT_SIZE * 16)
        return True

    def close(self) -> None:
        os.close(self._line)


def _chip(label: str) -> Path:
    for path in sorted(Path("/dev").glob("gpiochip*")):
        node = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            name, of_driver, _ = _CHIP_INFO.unpack(fcntl.ioctl(node, _GET_CHIP_INFO, bytes(_CHIP_INFO.size)))
        finally:
            os.close(node)
        if label.encode() in (name.rstrip(b"\0"), of_driver.rstrip(b"\0"), str(path).encode()):
            return path
    raise FileNotFoundError(f"there is no GPIO chip {label!r}")
