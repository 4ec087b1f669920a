"""Stands in for a board's firmware: which partition of a card it boots, and what it keeps of the kernel's last words.

Written from the vendor's documentation ("autoboot.txt", "tryboot") and apart from what the image itself has, so that
each of them proves the other. What a real firmware would stumble over is refused here.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Card", "Choice", "Firmware", "Partition", "Unbootable"]

SECTOR: Final = 512
FAT: Final = 0x0C
EXTENDED: Final = 0x05
"""Of the kinds of extended partition the only one that the firmware follows."""
FAT32_CLUSTERS: Final = 65_525
"""A file system of fewer is FAT16 to whoever counts, whatever its name says (Microsoft's FAT specification)."""
AUTOBOOT_BYTES: Final = 512
"""The firmware reads one sector of autoboot.txt."""

_RESTART: Final = re.compile(r"reboot: Restarting system(?: with command '(.*)')?")


class Unbootable(Exception):
    """A board would show nothing but its lamp."""


@dataclass(frozen=True, slots=True)
class Partition:
    """``kind``: the type byte; ``start`` and ``size``: bytes."""

    kind: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Choice:
    """``partition``: by number; ``tried``: for this once; ``cmdline``: what the kernel is told."""

    partition: int
    tried: bool
    cmdline: str


class Card:
    """A disk image with an MBR, seen from outside while nothing runs from it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def partitions(self) -> dict[int, Partition]:
        """By number, as Linux counts them: the extended one is 4, what lies in it begins at 5."""
        found: dict[int, Partition] = {}
        with self.path.open("rb") as file:
            for number, (kind, start, size) in enumerate(_table(file.read(SECTOR), "MBR"), 1):
                if kind:
                    found[number] = Partition(kind, start * SECTOR, size * SECTOR)
            extended = next((one for one in found.values() if one.kind == EXTENDED), None)
            place = extended.start if extended else 0
            number = 5
            while extended and place:
                file.seek(place)
                (kind, start, size), (_, following, _), *_ = _table(file.read(SECTOR), f"partition {number}")
                if kind:
                    found[number] = Partition(kind, place + start * SECTOR, size * SECTOR)
                place = extended.start + following * SECTOR if following else 0
                number += 1
        return found

    def read(self, partition: int, name: str) -> bytes | None:
        """A file in the first folder of a FAT partition; None if there is none."""
        area = self._fat(partition)
        done = self._mtools("mtype", area, f"::{name}", check=False)
        if done.returncode == 0:
            return done.stdout
        if name.lower() in {one.lower() for one in self.names(partition)}:
            raise Unbootable(f"{name} of partition {partition} cannot be read: {done.stderr.decode().strip()}")
        return None

    def names(self, partition: int) -> list[str]:
        """Of the files in the first folder of a FAT partition."""
        listed = self._mtools("mdir", self._fat(partition), "-b", "::").stdout.decode()
        return [line.removeprefix("::/") for line in listed.splitlines() if not line.endswith("/")]

    def put(self, partition: int, name: str, content: bytes) -> None:
        """As a person does whose computer has the card in its reader."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self._mtools("mcopy", self._fat(partition), "-o", file.name, f"::{name}")

    def _fat(self, number: int) -> Partition:
        area = self.partitions().get(number)
        if area is None or area.kind != FAT:
            raise Unbootable(f"partition {number} is no FAT partition (type 0x0c): {area}")
        with self.path.open("rb") as file:
            file.seek(area.start)
            clusters, is_32 = _clusters(file.read(SECTOR), f"partition {number}")
        if is_32 != (clusters >= FAT32_CLUSTERS):
            raise Unbootable(f"partition {number} names itself FAT{'32' if is_32 else '16'} with {clusters} clusters, "
                             f"and the border is {FAT32_CLUSTERS}")
        return area

    def _mtools(self, tool: str, area: Partition, *words: str, check: bool = True,
                ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([tool, "-i", f"{self.path}@@{area.start}", *words], check=check, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=30, env=os.environ | {"MTOOLSRC": os.devnull})


def _table(sector: bytes, what: str) -> list[tuple[int, int, int]]:
    """Type, first sector and number of sectors of the four entries."""
    if sector[510:512] != b"\x55\xaa":
        raise Unbootable(f"{what}: no partition table")
    return [struct.unpack_from("<4xB3xII", sector, 446 + 16 * entry) for entry in range(4)]


def _clusters(sector: bytes, what: str) -> tuple[int, bool]:
    """How many clusters a FAT file system has, by its first sector, and whether that says FAT32."""
    if sector[510:512] != b"\x55\xaa" or (size := int.from_bytes(sector[11:13], "little")) != SECTOR:
        raise Unbootable(f"{what}: no FAT file system with sectors of {SECTOR} bytes")
    a_cluster, reserved, tables = struct.unpack_from("<BHB", sector, 13)
    entries, small = struct.unpack_from("<HH", sector, 17)
    table, = struct.unpack_from("<H", sector, 22)
    large, table_32 = struct.unpack_from("<II", sector, 32)
    data = (small or large) - reserved - tables * (table or table_32) - -(-entries * 32 // size)
    return data // (a_cluster or 1), table == 0


class Firmware:
    """Of one board. What it remembers between two starts is one bit, and a power cut takes it."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self._try = False

    def heard(self, line: str) -> bool:
        """The kernel's console said this: whether it restarts the system. A wish for one trial is kept."""
        found = _RESTART.search(line)
        if found is None:
            return False
        self._try = found[1] is not None and found[1].split() == ["0", "tryboot"]
        return True

    def power_lost(self) -> None:
        self._try = False

    def choose(self) -> Choice:
        """What is booted now. The wish for a trial is used up, whatever comes of it."""
        tried, self._try = self._try, False
        text = self.card.read(1, "autoboot.txt")
        if text is None:
            raise Unbootable("partition 1 has no autoboot.txt, and no system of its own")
        if len(text) > AUTOBOOT_BYTES:
            raise Unbootable(f"autoboot.txt has {len(text)} bytes, and {AUTOBOOT_BYTES} are read")
        values = _values(text.decode("ascii", "replace"), tried)
        if tried and values.get("tryboot_a_b") != "1":
            raise Unbootable("a trial without tryboot_a_b=1 looks for tryboot.txt, which no slot has")
        wanted = values.get("boot_partition", "")
        if not wanted.isdecimal():
            raise Unbootable(f"autoboot.txt names no boot_partition: {text!r}")
        line = self.card.read(int(wanted), "cmdline.txt")
        if line is None:
            raise Unbootable(f"partition {wanted} has no cmdline.txt")
        return Choice(int(wanted), tried, line.decode("ascii").split("\n", 1)[0].strip())


def _values(text: str, tried: bool) -> dict[str, str]:
    """What holds of autoboot.txt: a later line goes before an earlier one, a filter lasts until the next."""
    values: dict[str, str] = {}
    applies = True
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            applies = line == "[all]" or (line == "[tryboot]" and tried)
        elif applies and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            values[name.strip()] = value.strip()
    return values
