"""The partition table of a built disk: read from its sectors, mended, and held against the layout.

genimage marks the extended partition and each link of its chain as 0x0f. The firmware of a Pi follows 0x05 alone, and
Linux follows both.
"""

from __future__ import annotations

import argparse
import itertools
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from edgecall_image import layout

__all__ = ["LINK", "SIZES_MIB", "Partition", "Table", "WrongTable", "check", "main", "mend", "read"]

SECTOR: Final = 512
SIGNATURE: Final = b"\x55\xaa"
ENTRIES: Final = 446  # where the four entries of a table begin in its sector
LABEL: Final = 440
FAT32, LINUX, LINK, LINK_LBA = 0x0C, 0x83, 0x05, 0x0F
LONGEST_CHAIN: Final = 16  # links; ours has three, and a damaged one may lead in a circle

SIZES_MIB: Final = {1: 64, 2: 128, 3: 128, 5: 1536, 6: 1536}
"""Of the partitions that no first boot grows."""
TYPES: Final = {1: FAT32, 2: FAT32, 3: FAT32, 4: LINK, 5: LINUX, 6: LINUX, 7: LINUX}


class WrongTable(ValueError):
    """The disk has no partition table, or not that of the layout. The text names each difference."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry: where its sectors are on the disk, and where its entry is (both in bytes)."""

    number: int
    type: int
    active: bool
    start: int
    size: int
    entry: int


@dataclass(frozen=True, slots=True)
class Table:
    label: int
    partitions: tuple[Partition, ...]
    links: tuple[int, ...]
    """Where the types of the extended partition and of its chain's links are, in bytes from the disk's begin."""


def read(disk: BinaryIO) -> Table:
    """The table of a disk and the chain of its logical partitions.

    Raises WrongTable where a sector of it bears no signature or the chain does not end.
    """
    first = _sector(disk, 0)
    partitions, links, extended = [], [], None
    for number in range(1, 5):
        part = _entry(first, 0, number - 1, number, 0)
        if part.size == 0:
            continue
        partitions.append(part)
        if part.type in (LINK, LINK_LBA):
            extended = part.start
            links.append(part.entry + 4)
    at, number = extended, 5
    while at is not None:
        if number - 5 >= LONGEST_CHAIN:
            raise WrongTable(f"the chain of logical partitions has more than {LONGEST_CHAIN} links")
        sector = _sector(disk, at)
        partitions.append(_entry(sector, at, 0, number, at))
        following = _entry(sector, at, 1, 0, extended or 0)
        at, number = None, number + 1
        if following.size:
            at = following.start
            links.append(following.entry + 4)
    return Table(struct.unpack_from("<I", first, LABEL)[0], tuple(partitions), tuple(links))


def _sector(disk: BinaryIO, at: int) -> bytes:
    disk.seek(at)
    sector = disk.read(SECTOR)
    if len(sector) < SECTOR or not sector.endswith(SIGNATURE):
        raise WrongTable(f"no partition table in the sector at byte {at}")
    return sector


def _entry(sector: bytes, at: int, index: int, number: int, base: int) -> Partition:
    offset = ENTRIES + 16 * index
    active, kind, start, size = struct.unpack_from("<B3xB3xII", sector, offset)
    return Partition(number, kind, active == 0x80, base + start * SECTOR, size * SECTOR, at + offset)


def mend(disk: BinaryIO) -> int:
    """Marks the extended partition and its chain as 0x05; how many bytes had to change."""
    changed = 0
    for at in read(disk).links:
        disk.seek(at)
        if disk.read(1) != bytes([LINK]):
            disk.seek(at)
            disk.write(bytes([LINK]))
            changed += 1
    return changed


def check(table: Table) -> None:
    """Holds a table against the layout; raises WrongTable with all that differs."""
    wrong = []
    if table.label != layout.LABEL_ID:
        wrong.append(f"the label id is {table.label:08x}, not {layout.LABEL_ID:08x}")
    found = {part.number: part for part in table.partitions}
    if sorted(found) != sorted(TYPES):
        wrong.append(f"there are partitions {sorted(found)}, not {sorted(TYPES)}")
    for number, part in found.items():
        if part.type != TYPES.get(number, part.type):
            wrong.append(f"partition {number} is of type {part.type:#04x}, not {TYPES[number]:#04x}")
        if number in SIZES_MIB and part.size != SIZES_MIB[number] << 20:
            wrong.append(f"partition {number} has {part.size} bytes, not {SIZES_MIB[number]} MiB")
        if part.active != (number == layout.SELECTOR_PARTITION):
            wrong.append(f"partition {number} is {'' if part.active else 'not '}marked to boot from")
    filled = [part for part in table.partitions if part.type not in (LINK, LINK_LBA)]
    for before, after in itertools.pairwise(sorted(filled, key=lambda part: part.start)):
        if before.start + before.size > after.start:
            wrong.append(f"partitions {before.number} and {after.number} overlap")
    if wrong:
        raise WrongTable("; ".join(wrong))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="disk", description="Mends and checks the partition table of a built disk.")
    parser.add_argument("disk", type=Path)
    path = parser.parse_args(argv).disk
    try:
        with path.open("r+b") as disk:
            mend(disk)
            table = read(disk)
        check(table)
    except (OSError, WrongTable) as wrong:
        print(f"disk: {path}: {wrong}", file=sys.stderr)
        return 1
    for part in table.partitions:
        print(f"{part.number} {part.type:#04x} {part.start} {part.size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
