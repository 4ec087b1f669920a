"""The board itself: heat, supply, storage, links, read where the kernel and the firmware tell.

``hw.health`` looks twice a second (at links and storage every 3 s), so that ``BoardHealth.now`` costs nothing: a sensor
on a bus that hangs holds this thread alone. What a board cannot tell is None.
"""

from __future__ import annotations

import array
import fcntl
import itertools
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hw.api import Health, Link

__all__ = ["BoardHealth", "Held", "identity", "look", "throttled_bits"]

LOOK_S: Final = 0.5
HOLD_S: Final = 1.0
"""What has ended is believed after it stayed away for so long: at its limit the firmware slows down and lets go many
times a second. With the time between looks a fact that is over is told within 3 s."""

WHOLE: Final = 6
"""One look in so many is at links, wear and feed as well: every 3 s."""

UNDERVOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
"""GET_THROTTLED of the Raspberry Pi's firmware, the bits of now."""

_GET_THROTTLED: Final = 0x00030046
_MAILBOX: Final = 3 << 30 | struct.calcsize("P") << 16 | 100 << 8  # _IOWR(100, 0, char *)
_COOLERS: Final = ("cpufreq", "thermal-cpufreq", "Processor")

POE_AT_UA: Final = 4_000_000
"""The PoE+ HAT's driver tells 5 A of an 802.3at source (class 4) and 2.5 A of an 802.3af one (classes 0 to 3)."""


class Held:
    """Raised at once, over when it stayed away for ``HOLD_S``. None: cannot be told."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, active: bool | None, now: float) -> bool | None:
        if active:
            self._last = now
        return None if active is None else now - self._last < HOLD_S


def throttled_bits(node: str = "/dev/vcio") -> int | None:
    """What the Raspberry Pi's firmware says of its supply and speed; None where it is not asked or does not answer."""
    try:
        mailbox = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # size, request, tag, size of its value, request, value (the mask of sticky bits to clear: none), end
        message = array.array("I", (28, 0, _GET_THROTTLED, 4, 0, 0, 0))
        fcntl.ioctl(mailbox, _MAILBOX, message)
        return message[5] if message[1] == 0x80000000 else None
    except OSError:
        return None
    finally:
        os.close(mailbox)


def look(root: str = "/", bits: Callable[[], int | None] = throttled_bits, *, before: Health | None = None) -> Health:
    """One look at the machine whose ``/sys`` and ``/proc`` are below ``root``. Blocking.

    With the look ``before`` at heat and supply alone; what changes slowly is taken from there.
    """
    top, now = Path(root), bits()
    celsius = _temperature(top)
    alarms = [_number(path.with_name("in0_lcrit_alarm")) for path in top.glob("sys/class/hwmon/hwmon*/name")
              if _text(path) == "rpi_volt"]  # holds a dip for 2 s, which two looks might miss
    low = None if now is None and not alarms else bool(now and now & UNDERVOLTAGE) or any(alarms)
    if now is None:
        states = [_number(path.with_name("cur_state")) for path in top.glob("sys/class/thermal/cooling_device*/type")
                  if _text(path).startswith(_COOLERS)]
        slow = any(states) if states else None
    else:  # slowed down for lack of supply is told as that
        slow = bool(now & SOFT_LIMIT) or (bool(now & (CAPPED | THROTTLED)) and not low)
    if before is not None:
        return replace(before, temperature_c=celsius, throttled=slow, undervoltage=low)
    return Health(temperature_c=celsius, throttled=slow, undervoltage=low, storage_wear=_wear(top), links=_links(top),
                  supply=_supply(top))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdecimal() else None


def _temperature(top: Path) -> float | None:
    """Of the processor where a zone is called so, else of the first."""
    zones = sorted(top.glob("sys/class/thermal/thermal_zone*"), key=lambda zone: (
        not _text(zone / "type").startswith(("cpu", "x86_pkg", "soc")), int(zone.name.removeprefix("thermal_zone"))))
    milli = next((value for zone in zones if (value := _number(zone / "temp")) is not None), None)
    return None if milli is None else milli / 1000


def _wear(top: Path) -> float | None:
    """Used life of the eMMC that is worn most, 0 to 1 (JEDEC JESD84-B51, in tenths). Cards do not tell."""
    worst: float | None = None
    for path in top.glob("sys/block/mmcblk*/device/life_time"):
        try:
            steps = [int(word, 16) for word in _text(path).split()]
        except ValueError:
            continue
        if any(steps):
            worst = max(worst or 0.0, min(max(steps), 10) / 10)
        if _text(path.with_name("pre_eol_info")) in ("0x02", "0x03"):  # 80 and 90 % of the spare blocks are used up
            worst = 1.0
    return worst


def _links(top: Path) -> Sequence[Link]:
    """Network interfaces with hardware behind them."""
    signal = {}
    for row in _text(top / "proc/net/wireless").splitlines()[2:]:
        name, _, rest = row.partition(":")
        columns = rest.split()
        if len(columns) > 2 and columns[2].rstrip(".").lstrip("-").isdecimal():
            signal[name.strip()] = int(columns[2].rstrip("."))
    found = []
    for path in sorted(top.glob("sys/class/net/*/device")):
        folder = path.parent
        up = _text(folder / "carrier") == "1"
        speed = _number(folder / "speed") if up else None
        found.append(Link(folder.name, up, speed if speed and speed > 0 else None,
                          signal.get(folder.name) if up else None))
    return found


def _supply(top: Path) -> str:
    """How it is fed, for people; empty where the board does not tell."""
    for path in sorted(top.glob("sys/class/power_supply/*poe*")):
        most = _number(path / "current_max")
        if _text(path / "online") != "0" and most is not None:
            return "PoE, class 4 (802.3at)" if most >= POE_AT_UA else "PoE, classes 0 to 3 (802.3af)"
    try:  # what a Raspberry Pi 5 has agreed on with its supply, milliamperes at 5 V
        milli = int.from_bytes((top / "proc/device-tree/chosen/power/max_current").read_bytes(), "big")
    except OSError:
        return ""
    return f"USB-C, 5 V, {milli / 1000:g} A"


def identity(root: str = "/") -> dict[str, str]:
    """Model and serial number by the device tree, else by the firmware's tables, as far as we may read them."""
    top = Path(root)
    serial = _text(top / "proc/device-tree/serial-number") or next(
        (line.partition(":")[2].strip() for line in _text(top / "proc/cpuinfo").splitlines()
         if line.startswith("Serial")), "") or _text(top / "sys/class/dmi/id/product_serial")
    model = _text(top / "proc/device-tree/model") or _text(top / "sys/class/dmi/id/product_name") or "Computer"
    return {"model": model, **({"serial": serial} if serial else {})}


class BoardHealth:
    """The latest look, held against fluttering."""

    def __init__(self, look_now: Callable[[Health | None], Health] = lambda before: look(before=before)) -> None:
        self._look = look_now
        self._slow, self._low = Held(), Held()
        self._latest = Health()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hw.health", daemon=True)
        self._thread.start()

    def now(self) -> Health:
        return self._latest

    def close(self) -> None:
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _run(self) -> None:
        for number in itertools.count():
            seen, at = self._look(self._latest if number % WHOLE else None), time.monotonic()
            self._latest = replace(seen, throttled=self._slow(seen.throttled, at),
                                   undervoltage=self._low(seen.undervoltage, at))
            if self._stop.wait(LOOK_S):
                return
