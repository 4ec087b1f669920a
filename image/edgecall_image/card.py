"""Files of the selector partition as an operator sees them, read and overwritten in place; it is never mounted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgecall_image.device import Device
from edgecall_image.fat import Volume

__all__ = ["Card"]

SECTOR: Final = 512
"""Bytes that are written as one on every medium."""


class Card:
    """Each call opens the partition anew. Raises ImageError: DeviceError or FatError."""

    def __init__(self, partition: Path) -> None:
        self._partition = partition

    def read(self, name: str, limit: int) -> bytes | None:
        """``limit`` bytes and one more at most; None where there is no such file."""
        with Device(self._partition) as device:
            volume = Volume(device)
            file = volume.find(name)
            if file is None:
                return None
            needed = file.sectors[: -(-(limit + 1) // file.sector_size)]
            return volume.read(file._replace(sectors=needed))[: limit + 1]

    def write(self, name: str, content: bytes) -> bool:
        """Put ``content`` and empty lines where the file is, up to its end, if anything differs; what is too long is
        cut. Returns False where there is no such file."""
        with Device(self._partition) as device:
            volume = Volume(device)
            file = volume.find(name)
            if file is None:
                return False
            content = content[: file.size]
            if volume.read(file) == content.ljust(file.size, b"\n"):
                return True
        with Device(self._partition, writable=True) as device:
            Volume(device).overwrite(file, content)
        return True

    def empty(self, name: str, was: bytes, note: bytes) -> None:
        """Overwrite a file that holds ``was``, or what a power cut left of overwriting it, with ``note`` where it has
        room for it, and empty lines. One that somebody has changed meanwhile stays."""
        now = self.read(name, len(was))
        if now is None or len(now) != len(was):
            return
        note = note if len(note) <= len(was) else b""
        then = note.ljust(len(was), b"\n")
        parts = (slice(at, at + SECTOR) for at in range(0, len(was), SECTOR))
        if all(now[part] in (was[part], then[part]) for part in parts):
            self.write(name, note)
