"""Where things are on an appliance's card: partitions, slots, folders. One layout for every board and every test.

The table is an MBR with a fixed label id, since the boot ROM of a Pi 3 wants one and ``PARTUUID=edca1101-05`` is then
the same slot on a card, eMMC, NVMe, virtio and User Mode Linux. The selector partition holds ``autoboot.txt``, by which
the firmware takes one of two boot partitions (Raspberry Pi documentation, "autoboot.txt").
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

__all__ = [
    "BOOT_PARTITION", "BY_PARTUUID", "CALL_LOCK", "DATA", "DATA_PARTITION", "LABEL_ID", "MARKS", "PROVISIONED",
    "ROOT_PARTITION", "SELECTOR_PARTITION", "SETTINGS", "SLOTS", "SOCKET", "SYSTEM_FACTS", "VERSION_FILE", "Slot",
    "other", "partition",
]

Slot = Literal["A", "B"]
SLOTS: Final[tuple[Slot, Slot]] = ("A", "B")

LABEL_ID: Final = 0xEDCA1101
BY_PARTUUID: Final = Path("/dev/disk/by-partuuid")
SELECTOR_PARTITION: Final = 1
BOOT_PARTITION: Final[dict[Slot, int]] = {"A": 2, "B": 3}
ROOT_PARTITION: Final[dict[Slot, int]] = {"A": 5, "B": 6}
DATA_PARTITION: Final = 7

DATA: Final = Path("/data")
"""Where the data partition is mounted: all that outlives an update."""
MARKS: Final = DATA / "update"
"""What is known of the slots, a small file for each fact (``marks``)."""
SETTINGS: Final = DATA / "config" / "edgecall.toml"
"""The operator's settings, which the daemon reads; made at first boot."""
SYSTEM_FACTS: Final = DATA / "config" / "system.json"
"""What the first boot file said of system and network, which each boot applies (``facts``)."""
PROVISIONED: Final = DATA / "config" / "provisioned"
"""Stands there once a first boot file was taken over."""

SOCKET: Final = Path("/run/edgecall-update/socket")
"""Where the daemon asks the root service for an update."""
CALL_LOCK: Final = Path("/run/edgecall/call.lock")
"""flock(2): the daemon holds it shared while anybody calls; who reboots holds it alone."""
VERSION_FILE: Final = Path("/usr/lib/edgecall-image/version")
"""One line: the version of the system in this root (semantic versioning)."""


def other(slot: Slot) -> Slot:
    return "B" if slot == "A" else "A"


def partition(number: int) -> Path:
    """The device of a partition, whatever the disk is called here."""
    return BY_PARTUUID / f"{LABEL_ID:08x}-{number:02x}"
