"""Files in the root folder of a FAT partition: found, read, and overwritten in place, without mounting it.

A mounted VFAT rewrites the folder's entry with every change, and a power cut in between takes the file along. What the
firmware must always find, or an operator will read on another computer, is changed in the file's own sectors alone;
neither table nor folder is touched, so its length stays. FAT16 and FAT32 with long names (Microsoft, "FAT: General
Overview of On-Disk Format", 1.03).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from edgecall_image.device import Device
from edgecall_image.errors import ImageError

__all__ = ["FatError", "File", "Volume"]

ENTRY: Final = 32  # bytes of a folder's entry
LABEL, FOLDER, LONG_NAME = 0x08, 0x10, 0x0F  # attributes
DELETED: Final = 0xE5
LAST_PART: Final = 0x40
REPAIR: Final = "the file system is damaged; repair it on another computer, or flash again"
FEWEST_16: Final = 4085
"""Clusters: with fewer it is FAT12."""


class FatError(ImageError):
    """Not a FAT file system that is understood, or one that is damaged."""


class File(NamedTuple):
    name: str
    size: int
    """Bytes, as the folder says."""
    sectors: tuple[int, ...]
    """Where each of its sectors begins, in bytes from the start of the partition: all that it has been given, so that
    what lies behind its end can be overwritten too."""
    sector_size: int


class Volume:
    """The file system of an open partition. Raises FatError, and DeviceError where it cannot be read."""

    def __init__(self, device: Device) -> None:
        self._device = device
        boot = device.read(0, 512)
        told: tuple[int, ...] = struct.unpack_from("<HBHBHHBHHHIIIHHI", boot, 11)
        (self._sector, per_cluster, reserved, tables, self._root_entries, small, _, table_16, _, _, _, large,
         table_32, flags, _, self._root_cluster) = told
        if (boot[510:] != b"\x55\xaa" or self._sector not in {512, 1024, 2048, 4096} or not per_cluster or not tables
                or not reserved or not (table_16 or table_32)):
            raise FatError(f"{device.path} holds no FAT file system: it has to be flashed again")
        self._wide = not table_16  # FAT32, as Linux tells it; the firmware counts clusters
        table = table_16 or table_32
        chosen = flags & 0x0F if self._wide and flags & 0x80 else 0  # 0x80: only one of the tables is kept up
        self._table = (reserved + chosen * table) * self._sector
        self._root = (reserved + tables * table) * self._sector
        root_sectors = -(-self._root_entries * ENTRY // self._sector)
        data_sectors = (small or large) - reserved - tables * table - root_sectors
        self._data = self._root + root_sectors * self._sector
        self._cluster_size = per_cluster * self._sector
        self._clusters = data_sectors // per_cluster
        if not self._wide and self._clusters < FEWEST_16:
            raise FatError(f"{device.path} is FAT12, or damaged: FAT32 and FAT16 are understood")

    def find(self, name: str) -> File | None:
        """In the root folder, by its long or short name in any case; None where there is none of this name."""
        for names, attributes, first, size in self._entries():
            if name.casefold() in names:
                if attributes & FOLDER:
                    raise FatError(f"{name} on {self._device.path} is a folder, and should be a file")
                return File(name, size, tuple(self._given(name, first, size)), self._sector)
        return None

    def read(self, file: File) -> bytes:
        return b"".join(self._device.read(offset, self._sector) for offset in file.sectors)[: file.size]

    def overwrite(self, file: File, content: bytes, pad: bytes = b"\n") -> None:
        """Content, then padding to the end of its last sector, a sector at a time: a power cut leaves sectors of old
        and of new. Raises FatError before anything is written where the content is longer than the file."""
        if len(content) > file.size:
            raise FatError(f"{file.name} on {self._device.path} has room for {file.size} bytes, not for {len(content)}")
        whole = content + pad * (len(file.sectors) * self._sector - len(content))
        for number, offset in enumerate(file.sectors):
            self._device.write(offset, whole[number * self._sector : (number + 1) * self._sector])

    def _given(self, name: str, first: int, size: int) -> Iterator[int]:
        clusters = list(self._chain(first)) if size else []
        if len(clusters) * self._cluster_size < size:
            raise FatError(f"{name} on {self._device.path} is shorter than its {size} bytes: {REPAIR}")
        for cluster in clusters:
            yield from range(self._place(cluster), self._place(cluster) + self._cluster_size, self._sector)

    def _chain(self, cluster: int) -> Iterator[int]:
        """All clusters of a file or folder. FatError where the table is damaged."""
        width, end, bad = (4, 0x0FFFFFF8, 0x0FFFFFF7) if self._wide else (2, 0xFFF8, 0xFFF7)
        seen = set()
        while 2 <= cluster < self._clusters + 2 and cluster != bad and cluster not in seen:
            seen.add(cluster)
            yield cluster
            raw = self._device.read(self._table + cluster * width, width)
            cluster = int.from_bytes(raw, "little") & 0x0FFFFFFF  # the upper four bits of 32 are not its own
            if cluster >= end:
                return
        raise FatError(f"the table of {self._device.path} leads astray: {REPAIR}")

    def _place(self, cluster: int) -> int:
        return self._data + (cluster - 2) * self._cluster_size

    def _folder(self) -> Iterator[bytes]:
        if self._wide:
            for cluster in self._chain(self._root_cluster):
                yield self._device.read(self._place(cluster), self._cluster_size)
        else:
            yield self._device.read(self._root, self._root_entries * ENTRY)

    def _entries(self) -> Iterator[tuple[set[str], int, int, int]]:
        """Of each file and folder its names, attributes, first cluster and size."""
        parts: dict[int, bytes] = {}
        for block in self._folder():
            for raw in (block[at : at + ENTRY] for at in range(0, len(block), ENTRY)):
                if not raw[0]:
                    return
                if raw[11] & 0x3F == LONG_NAME and raw[0] != DELETED:
                    parts = ({} if raw[0] & LAST_PART else parts) | {raw[0] & 0x1F: raw}
                    continue
                if raw[0] != DELETED and not raw[11] & LABEL:
                    high, low, size = struct.unpack_from("<20xH4xHI", raw)
                    first = high << 16 | low if self._wide else low
                    yield {_short_name(raw), _long_name(parts, raw)} - {""}, raw[11], first, size
                parts = {}


def _short_name(raw: bytes) -> str:
    stem, extension = (raw[part].decode("cp437").rstrip() for part in (slice(8), slice(8, 11)))
    return f"{stem}.{extension}".rstrip(".").casefold()


def _long_name(parts: dict[int, bytes], raw: bytes) -> str:
    """Empty where the parts are not of this entry, as after a change by a system that knows short names only."""
    checksum = 0
    for letter in raw[:11]:
        checksum = ((checksum >> 1 | checksum << 7) + letter) & 0xFF
    if sorted(parts) != list(range(1, len(parts) + 1)) or any(part[13] != checksum for part in parts.values()):
        return ""
    text = b"".join(part[1:11] + part[14:26] + part[28:32] for _, part in sorted(parts.items()))
    return text.decode("utf-16-le", "replace").partition("\0")[0].casefold()
