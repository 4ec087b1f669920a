"""Partition tables of cards, as genimage makes them, and what it never makes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

__all__ = ["MIB", "entry", "sector", "write_card"]

MIB: Final = 1 << 20


def entry(kind: int, start: int, size: int, *, active: bool = False) -> bytes:
    """``start`` and ``size`` in MiB."""
    return struct.pack("<B3xB3xII", 0x80 if active else 0, kind, start * MIB // 512, size * MIB // 512)


def sector(*entries: bytes, label: int = 0) -> bytes:
    return (b"\0" * 440 + struct.pack("<IH", label, 0) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa").ljust(512)


def write_card(path: Path, link: int = 5, label: int = 0xEDCA1101, root_b: int = 1536, boot_b_at: int = 196) -> None:
    """A disk as genimage makes it of layout/mbr.cfg: 4 MiB, selector, two boot slots, and three logical partitions."""
    parts = [entry(0x0C, 4, 64, active=True), entry(0x0C, 68, 128), entry(0x0C, boot_b_at, 128), entry(link, 324, 3331)]
    with path.open("wb") as found:
        found.write(sector(*parts, label=label))
        for at, size, following in ((324, 1536, 1537), (1861, root_b, 3074), (3398, 256, 0)):
            found.seek(at * MIB)
            more = [entry(link, following, 1537)] if following else []
            found.write(sector(entry(0x83, 1, size), *more))
