"""Lets the data partition, the last one, have the rest of the card: at first boot, and whenever a card has become
larger.

Each step is one sector, and whichever were done the table is whole: first the extended partition may reach further,
then the link to the data partition says so, then the partition itself. The file system is grown while it is mounted,
which the kernel keeps in its journal. What is already so costs some reads. MBR with logical partitions (a chain of
extended boot records, each with an entry for its partition and a link to the next).
"""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgecall_image.device import Device, DeviceError
from edgecall_image.errors import ImageError
from edgecall_image.layout import DATA, DATA_PARTITION, LABEL_ID

__all__ = ["TableError", "grow_table", "main"]

log = logging.getLogger(__name__)

SECTOR: Final = 512
ENTRIES: Final = 446  # bytes before the four entries of a boot record
ENTRY: Final = 16
EXTENDED: Final = {0x05, 0x0F}
FIRST_LOGICAL: Final = 5
MOST: Final = 0xFFFFFFFF
"""Sectors that a partition of an MBR can begin at or have: 2 TiB of a larger card are used."""
LEFT_OVER: Final = 2048
"""Sectors at the end of the card that are not worth growing for: 1 MiB."""
STEP_S: Final = 300.0


class TableError(ImageError):
    """The table of partitions is not an appliance's."""


def grow_table(disk: Device, sectors: int) -> bool:
    """Make the last logical partition end where ``disk`` does, which has so many sectors of 512 bytes. Returns whether
    anything was written. Raises TableError, and DeviceError where the disk cannot be read or written."""
    table = disk.read(0, SECTOR)
    if table[510:] != b"\x55\xaa" or struct.unpack_from("<I", table, 440)[0] != LABEL_ID:
        raise TableError(f"{disk.path} has another table of partitions than an appliance's")
    slot = next((slot for slot in range(4) if _kind(table, slot) in EXTENDED), None)
    if slot is None:
        raise TableError(f"{disk.path} has no extended partition")
    first, _ = _place(table, slot)
    end = min(sectors, first + MOST, MOST)
    link, before, before_at = 0, b"", 0  # where the data partition's record is, from ``first``; the one that says so
    for number in range(FIRST_LOGICAL, DATA_PARTITION):
        before_at, before = first + link, _record(disk, first + link, number)
        link, _ = _place(before, 1)
        if not link:
            raise TableError(f"{disk.path} has no partition {number + 1}")
    record = _record(disk, first + link, DATA_PARTITION)
    if any(_place(record, 1)):
        raise TableError(f"{disk.path} has a partition behind its data partition")
    start, length = _place(record, 0)
    if end - (first + link + start + length) < LEFT_OVER:
        return False
    _write_length(disk, 0, table, slot, end - first)
    _write_length(disk, before_at, before, 1, end - first - link)
    _write_length(disk, first + link, record, 0, end - first - link - start)
    return True


def _record(disk: Device, sector: int, number: int) -> bytes:
    record = disk.read(sector * SECTOR, SECTOR)
    if record[510:] != b"\x55\xaa":
        raise TableError(f"{disk.path} has no partition {number}")
    return record


def _write_length(disk: Device, sector: int, record: bytes, entry: int, length: int) -> None:
    at = ENTRIES + entry * ENTRY + 12
    disk.write(sector * SECTOR, record[:at] + struct.pack("<I", length) + record[at + 4 :])


def _kind(record: bytes, entry: int) -> int:
    return record[ENTRIES + entry * ENTRY + 4]


def _place(record: bytes, entry: int) -> tuple[int, int]:
    """Where it starts, and how many sectors it has."""
    start, length = struct.unpack_from("<II", record, ENTRIES + entry * ENTRY + 8)
    return start, length


def main(argv: Sequence[str], run: Callable[[Sequence[str]], None] | None = None) -> int:
    """``grow``: the partition that /data is on. Exit status 1 where it could not be grown; it is used as it is."""
    run = run or _run
    number = DATA.stat().st_dev
    partition = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    disk = partition.parent
    node = Path("/dev") / disk.name
    try:
        with _Shared(node) as device:
            grown = grow_table(device, int((disk / "size").read_text()))
        if grown:
            run(["partx", "--update", "--nr", str(DATA_PARTITION), str(node)])
            log.info("the data partition reaches to the end of %s", node)
        run(["resize2fs", str(Path("/dev") / partition.name)])
    except (ImageError, OSError, subprocess.SubprocessError) as error:
        print(f"edgecall: the data partition is not grown: {error}", file=sys.stderr)
        return 1
    return 0


class _Shared(Device):
    """The disk itself, whose partitions are in use: its own sectors are in nobody's copy."""

    def __enter__(self) -> _Shared:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"{self.path} cannot be opened: {error.strerror}") from error
        return self


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=STEP_S, check=False)
    if result.returncode:
        raise TableError(f"{command[0]}: {result.stderr.strip()}")
