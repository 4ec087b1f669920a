"""The data partition takes the rest of the card, and a power cut leaves a table that is whole."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from edgecall_image.device import Device
from edgecall_image.grow import TableError, grow_table
from edgecall_image.layout import LABEL_ID
from tests.support.power import Power

SECTOR = 512
MIB = 2048  # sectors
CARD = 4096 * MIB
RECORDS = (0, 324 * MIB, 1861 * MIB, 3398 * MIB)


def _entry(kind: int, start: int, sectors: int) -> bytes:
    return struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, sectors)


def _record(*entries: bytes, label: int = 0) -> bytes:
    return (b"\0" * 440 + struct.pack("<IH", label, 0) + b"".join(entries)).ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """As image/layout/mbr.cfg lays it out, on a card that is larger."""
    path = tmp_path / "disk"
    extended, end = RECORDS[1], 3652 * MIB
    logical = [(325 * MIB, 1536 * MIB), (1862 * MIB, 1536 * MIB), (3399 * MIB, end - 3399 * MIB)]
    with path.open("wb") as file:
        file.write(_record(_entry(0x0C, 4 * MIB, 64 * MIB), _entry(0x0C, 68 * MIB, 128 * MIB),
                           _entry(0x0C, 196 * MIB, 128 * MIB), _entry(0x05, extended, end - extended), label=LABEL_ID))
        for number, (here, (start, sectors)) in enumerate(zip(RECORDS[1:], logical, strict=True), 1):
            entries = [_entry(0x83, start - here, sectors)]
            if number < len(logical):
                there, end_there = RECORDS[number + 1], sum(logical[number])
                entries.append(_entry(0x05, there - extended, end_there - there))
            file.seek(here * SECTOR)
            file.write(_record(*entries))
        file.truncate(CARD * SECTOR)
    return path


def table(disk: Path) -> dict[int, tuple[int, int]]:
    """As Linux's own tool reads it: start and sectors by number."""
    shown = subprocess.run(["partx", "--show", "--noheadings", "--output", "NR,START,SECTORS", str(disk)],
                           capture_output=True, text=True, check=True)
    rows = [tuple(map(int, line.split())) for line in shown.stdout.splitlines()]
    return {number: (start, sectors) for number, start, sectors in rows}


def grown(disk: Path, sectors: int = CARD) -> bool:
    with Device(disk, writable=True) as device:
        return grow_table(device, sectors)


def test_the_data_partition_ends_where_the_card_does_and_nothing_else_moves(disk: Path) -> None:
    before = table(disk)
    assert grown(disk)
    after = table(disk)
    assert after[7] == (before[7][0], CARD - before[7][0])
    assert {number: place for number, place in after.items() if number not in (4, 7)} == {
        number: place for number, place in before.items() if number not in (4, 7)}
    assert not grown(disk)


def test_a_card_that_is_no_larger_is_not_written(disk: Path) -> None:
    before = disk.stat().st_mtime_ns
    assert not grown(disk, 3652 * MIB + MIB // 2)
    assert disk.stat().st_mtime_ns == before


def test_of_a_card_over_two_tebibytes_what_the_table_can_say_is_used(disk: Path) -> None:
    assert grown(disk, 2**33)
    start, sectors = table(disk)[7]
    assert start + sectors == 2**32 - 1


def test_a_power_cut_leaves_the_old_end_or_the_new_one(disk: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    start = table(disk)[7][0]
    with Device(disk) as device:
        records = {at: device.read(at, SECTOR) for at in (sector * SECTOR for sector in RECORDS)}
    ends = set()
    for cuts in range(7):
        with small.open("wb") as file:
            for at, record in records.items():
                file.seek(at)
                file.write(record)
            file.truncate(CARD * SECTOR)
        power = Power()
        with power.on(cuts):
            grown(small)
        assert power.went == (cuts < 6)  # three sectors, each written and synced
        assert set(table(small)) == set(table(disk))
        ends.add(sum(table(small)[7]))
        grown(small)
        assert table(small)[7] == (start, CARD - start)
    assert ends == {3652 * MIB, CARD}


def test_another_table_is_left_alone(tmp_path: Path, disk: Path) -> None:
    blank = tmp_path / "blank"
    blank.write_bytes(b"\0" * 65536)
    with pytest.raises(TableError, match="another table"):
        grown(blank)
    with disk.open("r+b") as file:
        file.seek(RECORDS[2] * SECTOR + 510)
        file.write(b"\0\0")
    with pytest.raises(TableError, match="no partition 6"):
        grown(disk)
