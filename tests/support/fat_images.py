"""FAT file systems for tests: written by hand, with what no tool makes (small, scattered, wide sectors)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_fat"]

END = 0x0FFFFFFF


def write_fat(path: Path, files: Mapping[str, bytes], *, wide: bool = True, sector: int = 512, per_cluster: int = 1,
              scattered: bool = False) -> None:
    """A file system with these files in its root folder: FAT32 (``wide``) or FAT16. ``scattered``: no two clusters of a
    file lie side by side, and those of a file lie backwards."""
    clusters = 200 if wide else 5_000
    width, reserved, entries = (4, 32, 0) if wide else (2, 1, 512)
    table_sectors = -(-(clusters + 2) * width // sector)
    root = (reserved + 2 * table_sectors) * sector
    data = root + entries * 32
    total = data // sector + clusters * per_cluster
    size = per_cluster * sector
    image = bytearray(total * sector)
    table = [0x0FFFFFF8, END] + [0] * clusters
    free = list(range(10, clusters, 2)) if scattered else list(range(10, clusters))

    def laid(content: bytes) -> int:
        chain = [free.pop(0) for _ in range(-(-len(content) // size))]
        if scattered:
            chain.reverse()
        for number, cluster in enumerate(chain):
            at = data + (cluster - 2) * size
            image[at : at + size] = content[number * size : (number + 1) * size].ljust(size, b"\0")
            table[cluster] = chain[number + 1] if number + 1 < len(chain) else END
        return chain[0] if chain else 0

    folder = _entry(b"EDGECALL   ", 0x08, 0, 0)
    for number, (name, content) in enumerate(files.items()):
        folder += _named(name, number, laid(content), len(content))
    if wide:
        root_cluster = laid(folder)
    else:
        root_cluster = 0
        image[root : root + len(folder)] = folder
    for copy in range(2):
        at = (reserved + copy * table_sectors) * sector
        encoded = b"".join((value & (1 << 8 * width) - 1).to_bytes(width, "little") for value in table)
        image[at : at + len(encoded)] = encoded
    image[:11] = b"\xeb\x3c\x90EDGECALL"
    struct.pack_into("<HBHBHHBHHHIIIHHI", image, 11, sector, per_cluster, reserved, 2, entries, 0, 0xF8,
                     0 if wide else table_sectors, 32, 8, 0, total, table_sectors if wide else 0, 0, 0, root_cluster)
    image[510:512] = b"\x55\xaa"
    path.write_bytes(image)


def _named(name: str, number: int, cluster: int, size: int) -> bytes:
    """As an operator's computer writes it: a long name wherever it is not eight and three capitals."""
    stem, _, extension = name.partition(".")
    if len(stem) <= 8 and len(extension) <= 3:
        return _entry(f"{stem.upper():<8}{extension.upper():<3}".encode(), 0x20, cluster, size)
    short = f"{stem.upper()[:6]}~{number}{extension.upper()[:3]:<3}".encode()
    checksum = 0
    for letter in short:
        checksum = ((checksum >> 1 | checksum << 7) + letter) & 0xFF
    parts = [name[at : at + 13] for at in range(0, len(name), 13)]
    folder = b""
    for place, part in reversed(list(enumerate(parts, 1))):
        text = part.encode("utf-16-le")
        text = (text + b"\0\0").ljust(26, b"\xff") if len(part) < 13 else text
        first = place | (0x40 if place == len(parts) else 0)
        folder += struct.pack("<B10sBBB12sH4s", first, text[:10], 0x0F, 0, checksum, text[10:22], 0, text[22:])
    return folder + _entry(short, 0x20, cluster, size)


def _entry(short: bytes, attributes: int, cluster: int, size: int) -> bytes:
    return struct.pack("<11sB8xH4xHI", short, attributes, cluster >> 16, cluster & 0xFFFF, size)
