"""A partition, read and written without a file system between: one sector at a time, through to the medium."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from edgecall_image.errors import ImageError

__all__ = ["Device", "DeviceError"]

EVERYWHERE: Final = ("nsenter", "--target=1", "--mount")
"""RAUC's unit has mounts of its own, and what is unmounted there alone is still mounted for everybody else."""
UMOUNT_S: Final = 30
"""Seconds, for a slow card that has much to write."""


class DeviceError(ImageError):
    """A partition is missing, busy, too short, or fails."""


class Device:
    """Used as a context manager, and only within.

    For writing, nobody may have the partition mounted, since its own copy of the sectors would come over ours: the
    kernel refuses O_EXCL then, and it is unmounted first. A regular file stands for a partition as well.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._flags = os.O_CLOEXEC | (os.O_RDWR | os.O_EXCL if writable else os.O_RDONLY)
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._descriptor = self._opened()
        except OSError as error:
            raise DeviceError(f"{self.path} cannot be opened: {error.strerror}") from error
        return self

    def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes. Raises DeviceError."""
        try:
            content = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise DeviceError(f"{self.path} cannot be read at byte {offset}: {error.strerror}") from error
        if len(content) < length:
            raise DeviceError(f"{self.path} ends within the {length} bytes at {offset}")
        return content

    def write(self, offset: int, sector: bytes) -> None:
        """One whole sector: the medium takes it as one or not at all. On it once this returns. Raises DeviceError."""
        try:
            written = os.pwrite(self._descriptor, sector, offset)
            os.fsync(self._descriptor)
        except OSError as error:
            raise DeviceError(f"{self.path} cannot be written at byte {offset}: {error.strerror}") from error
        if written < len(sector):
            raise DeviceError(f"{self.path} ends within the sector at byte {offset}")

    def _opened(self) -> int:
        try:
            return os.open(self.path, self._flags)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        command = [*EVERYWHERE, "umount", "--all-targets", str(self.path)]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=UMOUNT_S).stderr.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        try:
            return os.open(self.path, self._flags)
        except OSError as error:
            raise DeviceError(f"{self.path} is mounted or in use and must not be while it is written: "
                              f"{said or error.strerror}") from error
