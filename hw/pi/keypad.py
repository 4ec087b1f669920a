"""A keypad of the input subsystem (evdev): its keys press buttons of the panel."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hw.api import FaultKind, Kind
from hw.faults import FaultLine
from hw.host.holders import holders

__all__ = ["KEYS", "Keypad", "keypads"]

_log = logging.getLogger("hw.keypad")

KEYS: Final[Mapping[str, str]] = {
    **{f"KEY_{digit}": str(digit) for digit in range(10)},
    **{f"KEY_KP{digit}": str(digit) for digit in range(10)},
    **{f"KEY_NUMERIC_{digit}": str(digit) for digit in range(10)},
    "KEY_KPASTERISK": "star", "KEY_NUMERIC_STAR": "star", "KEY_NUMERIC_POUND": "hash",
}
"""Buttons that keys press where the board file names no other."""

_KEY_1: Final = 2  # input-event-codes.h

_SET_CLOCK: Final = 1 << 30 | 4 << 16 | ord("E") << 8 | 0xA0  # EVIOCSCLOCKID

LOOK_S: Final = 1.0
"""A keypad that is not there is looked for this often."""


def keypads(sysfs: str = "/sys") -> Sequence[tuple[str, str]]:
    """Node and name of every input device that has a key for the digit 1 (also a whole keyboard), by their numbers."""
    found = []
    for folder in (Path(sysfs) / "class/input").glob("event*"):
        with contextlib.suppress(OSError, ValueError):  # unplugged while we look
            words = (folder / "device/capabilities/key").read_text().split()  # of a long each, the lowest last
            if int(words[-1], 16) >> _KEY_1 & 1:
                name = (folder / "device/name").read_text().strip()
                found.append((int(folder.name.removeprefix("event")), f"/dev/input/{folder.name}", name))
    return [(path, name) for _, path, name in sorted(found)]


class Keypad:
    """Reads one input device on ``hw.keypad`` and holds it alone (EVIOCGRAB), so that no console gets its keys.

    ``wanted``: its node, also a link of ``/dev/input/by-id`` or ``by-path``, or the beginning of its name. ``press``
    takes button, state and the monotonic time of the event; keys that no button belongs to are ignored. Missing, busy,
    denied and pulled are told as faults of ``keypad``; a keypad that comes (back) is used within 1 s.
    """

    def __init__(self, wanted: str, keys: Mapping[str, str], press: Callable[[str, bool, float], None],
                 faults: FaultLine) -> None:
        self._wanted = wanted
        self._keys = keys
        self._press = press
        self._faults = faults
        self._told: FaultKind | None = None
        self._stop_out, self._stop_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="hw.keypad", daemon=True)
        self._thread.start()

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        os.close(self._stop_in)
        thread.join(1.0)
        if not thread.is_alive():
            os.close(self._stop_out)

    # --- hw.keypad

    def _run(self) -> None:
        while True:
            device = self._open()
            if device is None:
                if select.select([self._stop_out], [], [], LOOK_S)[0]:
                    return
                continue
            try:
                self._follow(device)
                return
            except OSError as error:  # ENODEV: pulled
                self._tell(FaultKind.PULLED, f"keypad {device.name} was unplugged ({error.strerror})")
            finally:
                with contextlib.suppress(OSError):
                    device.close()
            for button in dict.fromkeys(self._keys.values()):
                self._press(button, False, time.monotonic())

    def _open(self) -> Any:
        """The device, ours alone; None, and the reason told, where there is none."""
        try:
            import evdev
        except ImportError as error:
            self._tell(FaultKind.MISSING, f"keypad: it needs evdev: pip install evdev ({error})")
            return None
        paths = [self._wanted] if self._wanted.startswith("/") else sorted(map(str, Path("/dev/input").glob("event*")))
        denied = ""
        for path in paths:
            try:
                device = evdev.InputDevice(path)
            except PermissionError:
                denied = path
                continue
            except OSError:
                continue
            if path == self._wanted or device.name.startswith(self._wanted):
                return self._grab(device)
            device.close()
        if denied:
            self._tell(FaultKind.DENIED, f"keypad: {denied} may not be opened: add the user to the group input")
        elif self._told is not FaultKind.PULLED:
            self._tell(FaultKind.MISSING, f"keypad {self._wanted!r} is not there; plug it in, or name another in the "
                       "board file")
        return None

    def _grab(self, device: Any) -> Any:
        try:
            device.grab()
            fcntl.ioctl(device.fd, _SET_CLOCK, struct.pack("i", time.CLOCK_MONOTONIC))
        except OSError as error:
            if error.errno == errno.EBUSY:
                others = holders(device.path) or "a program of another user"
                self._tell(FaultKind.BUSY, f"keypad {device.name} is held by {others}")
            else:
                self._tell(FaultKind.FAILED, f"keypad {device.name}: {error.strerror}")
            device.close()
            return None
        self._tell(None, "")
        _log.info("keypad: %s (%s)", device.name, device.path)
        return device

    def _follow(self, device: Any) -> None:
        """Until told to stop. Raises OSError when the device goes."""
        from evdev import ecodes

        names: Mapping[int, Any] = ecodes.KEY  # a code may have several names
        while True:
            if self._stop_out in select.select([device.fd, self._stop_out], [], [])[0]:
                return
            for event in device.read():
                if event.type != ecodes.EV_KEY or event.value == 2:  # 2: it repeats by itself
                    continue
                name = names.get(event.code, "")
                button = next((self._keys[one] for one in ([name] if isinstance(name, str) else name)
                               if one in self._keys), None)
                if button is not None:
                    self._press(button, event.value == 1, event.timestamp())

    def _tell(self, fault: FaultKind | None, detail: str) -> None:
        if fault is self._told:
            return
        if self._told is not None:
            self._faults.report(Kind.PANEL, self._told, "keypad", False)
        self._told = fault
        if fault is not None:
            _log.warning("%s", detail)
            self._faults.report(Kind.PANEL, fault, "keypad", True, detail)
