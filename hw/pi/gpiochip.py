"""The kernel's GPIO character device, as far as the panel asks it: which chips there are, and who holds which line.

Structures of ``<linux/gpio.h>``, version 2 of the interface (Linux 5.10 on). Lines are taken through gpiozero: outputs
by lgpio, inputs by ``hw.pi.edges``; those of relays by ``hw.pi.relay_guard``, which may import nothing but the standard
library.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hw.api import DeviceBusyError, DeviceDeniedError, DeviceFailedError, DeviceMissingError, HardwareError
from hw.pi.settling import is_settling

__all__ = ["Chip", "LineInfo", "chip_settles", "chips", "find_chip", "keeps_outputs", "line_info", "refused"]

_CHIP_INFO: Final = struct.Struct("32s32sI")
_LINE_INFO: Final = struct.Struct("32s32sIIQ160x16x")
_GET_CHIP_INFO: Final = 2 << 30 | _CHIP_INFO.size << 16 | 0xB4 << 8 | 0x01
_GET_LINE_INFO: Final = 3 << 30 | _LINE_INFO.size << 16 | 0xB4 << 8 | 0x05
_USED: Final = 1 << 0


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip: its node, the kernel's name (``gpiochip0``), the driver's label (``pinctrl-bcm2711``)."""

    path: str
    name: str
    label: str
    lines: int

    @property
    def number(self) -> int:
        """N of ``/dev/gpiochipN``, as lgpio counts."""
        return int(self.path.rpartition("gpiochip")[2])


@dataclass(frozen=True, slots=True)
class LineInfo:
    """One line: its name in the device tree, and whether and by whom it is taken. A line that serves another function
    of the chip (UART, I²C) is used and has no consumer."""

    name: str
    consumer: str
    used: bool


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")


def chips(folder: str = "/dev") -> Sequence[Chip]:
    """All chips that we may open, by number. Raises DeviceDeniedError when there are some and we may open none."""
    found, denied = [], []
    paths = sorted(Path(folder).glob("gpiochip[0-9]*"), key=lambda path: int(path.name.removeprefix("gpiochip")))
    for path in paths:
        if path.is_symlink():
            continue  # Raspberry Pi OS links gpiochip4 to the header's chip of a Pi 5
        try:
            node = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            denied.append(str(path))
            continue
        except OSError:  # it went meanwhile
            continue
        try:
            name, label, lines = _CHIP_INFO.unpack(fcntl.ioctl(node, _GET_CHIP_INFO, bytes(_CHIP_INFO.size)))
        except OSError:
            continue
        finally:
            os.close(node)
        found.append(Chip(str(path), _text(name), _text(label), lines))
    if denied and not found:
        raise DeviceDeniedError(f"GPIO: {', '.join(denied)} may not be opened: add the user to the group gpio")
    return found


def chip_settles(folder: str = "/dev") -> bool:
    """Whether a chip has come so lately that one which may not be opened may be ours in a moment."""
    return any(is_settling(str(path)) for path in Path(folder).glob("gpiochip[0-9]*"))


def find_chip(wanted: str, folder: str = "/dev") -> Chip:
    """The chip whose label, name or node is ``wanted``; with several of one label the first.

    Raises DeviceMissingError, which names those that are there, or DeviceDeniedError.
    """
    there = chips(folder)
    for chip in there:
        if wanted in (chip.label, chip.name, chip.path):
            return chip
    named = ", ".join(f"{chip.name} ({chip.label})" for chip in there) or "none; load its driver or overlay"
    raise DeviceMissingError(f"GPIO: there is no chip {wanted!r}; this machine has {named}")


def line_info(chip: Chip) -> Sequence[LineInfo]:
    """All lines of ``chip`` in order. Raises HardwareError."""
    try:
        node = os.open(chip.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise refused(f"GPIO chip {chip.label} ({chip.path})", error.errno or 0) from error
    try:
        rows = []
        for offset in range(chip.lines):
            asked = _LINE_INFO.pack(b"", b"", offset, 0, 0)
            name, consumer, _, _, flags = _LINE_INFO.unpack(fcntl.ioctl(node, _GET_LINE_INFO, asked))
            rows.append(LineInfo(_text(name), _text(consumer), bool(flags & _USED)))
        return rows
    except OSError as error:
        raise refused(f"GPIO chip {chip.label} ({chip.path})", error.errno or 0) from error
    finally:
        os.close(node)


def refused(what: str, number: int) -> HardwareError:
    """That error number of the kernel about ``what``, a chip or a line, as an error of ours."""
    if number == errno.EBUSY:
        return DeviceBusyError(f"{what}: another program or driver holds it")
    if number in (errno.ENODEV, errno.ENXIO, errno.ENOENT):
        return DeviceMissingError(f"{what}: the chip is gone")
    if number in (errno.EACCES, errno.EPERM):
        return DeviceDeniedError(f"{what} may not be used: add the user to the group gpio")
    return DeviceFailedError(f"{what}: {os.strerror(number)}")


def keeps_outputs(sysfs: str = "/sys") -> bool:
    """Whether the kernel leaves an output as it was when its holder ends, as those of Raspberry Pi boards do unless
    ``dtparam=strict_gpiod`` is set. The parameter is there from May 2024 on (Linux 6.6); without it: False."""
    for path in Path(sysfs, "module").glob("pinctrl_*/parameters/persist_gpio_outputs"):
        try:
            if path.read_text().strip() == "Y":
                return True
        except OSError:
            continue
    return False
