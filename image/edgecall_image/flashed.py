"""What RAUC would know of a card, had it installed what was flashed: the hashes of the blocks in each slot.

Of an update RAUC fetches the blocks that neither slot has. To know those it reads and hashes both slots, whole,
wherever it did not install them itself: three gigabytes before the first update begins, which take a small board
minutes. ``image/build`` puts the hashes of slot A on A's boot partition (``edgecall_build.flashed``); here they are
laid where RAUC keeps its own, before it runs for the first time on this data partition, as they would lie there after
an installation (RAUC 1.15, src/hash_index.c and src/status_file.c). They are a hint and no more: RAUC hashes each
block that it takes. Run by ``edgecall-flashed.service``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from edgecall_image.device import Device
from edgecall_image.durable import replace_file
from edgecall_image.errors import ImageError
from edgecall_image.fat import Volume
from edgecall_image.layout import BOOT_PARTITION, DATA, ROOT_PARTITION, SLOTS, VERSION_FILE, Slot, other, partition
from edgecall_image.slots import Slots
from edgecall_image.versions import own_version

__all__ = ["CHUNK", "FACTS_FILE", "INDEX_FILE", "Facts", "FlashedError", "Place", "lay", "main"]

CHUNK: Final = 4096
"""Bytes that RAUC hashes as one."""
HASH: Final = 32
FACTS_FILE: Final = "flashed.json"
INDEX_FILE: Final = "flashed.idx"
"""SHA-256 of each CHUNK, one behind the other, as RAUC's ``block-hash-index``."""
FACTS_LIMIT: Final = 4096
ROOT_LIMIT: Final = 4 << 30
NAMES: Final = "rootfs", "boot"
"""Classes of RAUC's slots (image/rauc/system.conf.in); their numbers are those of SLOTS."""
EMPTY: Final = hashlib.sha256(bytes(CHUNK)).digest()


class FlashedError(ImageError):
    """What the boot partition tells of its root is not understood."""


def _partitions(numbers: Mapping[Slot, int]) -> Mapping[Slot, Path]:
    return {slot: partition(number) for slot, number in numbers.items()}


class Place(NamedTuple):
    """Where things are; tests have their own."""

    roots: Mapping[Slot, Path] = _partitions(ROOT_PARTITION)
    boots: Mapping[Slot, Path] = _partitions(BOOT_PARTITION)
    rauc: Path = DATA / "rauc"
    version: Path = VERSION_FILE

    @property
    def status(self) -> Path:
        """RAUC's own file, which it makes when it first runs."""
        return self.rauc / "central.raucs"


@dataclass(frozen=True, slots=True)
class Facts:
    """Of the root that was flashed. ``size``: bytes of its file system, which ``sha256`` is of."""

    compatible: str
    version: str
    sha256: str
    size: int

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Raises FlashedError for what does not fit into RAUC's file as it is."""
        try:
            told: Any = json.loads(content)
            facts = cls(**told)
            right = (re.fullmatch(r"[\w.-]{1,100}", facts.compatible, re.ASCII)
                     and re.fullmatch(r"[\w.+-]{1,100}", facts.version, re.ASCII)
                     and re.fullmatch(r"[0-9a-f]{64}", facts.sha256)
                     and type(facts.size) is int and 0 < facts.size <= ROOT_LIMIT and not facts.size % CHUNK)
        except (ValueError, TypeError, RecursionError) as error:
            raise FlashedError(f"{FACTS_FILE} is not understood: {error}") from None
        if not right:
            raise FlashedError(f"{FACTS_FILE} is not understood: {told}")
        return facts


def lay(slot: Slot, place: Place | None = None) -> bool:
    """Before RAUC runs. ``slot``: the one that is booted. False where there is nothing to lay: RAUC knows already, or
    this system came by an update. Raises FlashedError, FatError, DeviceError, and OSError for data."""
    place = place or Place()
    if place.status.exists():
        return False
    with Device(place.boots[slot]) as device:
        volume = Volume(device)
        told, hashes = volume.find(FACTS_FILE), volume.find(INDEX_FILE)
        if told is None or hashes is None:
            return False
        facts = Facts.parse(volume.read(told) if told.size <= FACTS_LIMIT else b"")
        if hashes.size != facts.size // CHUNK * HASH:
            raise FlashedError(f"{INDEX_FILE} has {hashes.size} bytes, and is of {facts.size // CHUNK} blocks")
        index = volume.read(hashes)
    if facts.version != own_version(place.version):
        raise FlashedError(f"{FACTS_FILE} is of {facts.version}, which is not what runs")
    lines = [_group("rootfs", slot), f"bundle.compatible={facts.compatible}", f"bundle.version={facts.version}",
             "status=ok", f"sha256={facts.sha256}", f"size={facts.size}"]
    _keep(place, "rootfs", slot, facts.sha256, index)
    for name, devices in zip(NAMES, (place.roots, place.boots), strict=True):
        if _is_empty(devices[other(slot)]):  # its first block is all that has to be known of it
            _keep(place, name, other(slot), EMPTY.hex(), EMPTY)
            lines += [_group(name, other(slot)), f"sha256={EMPTY.hex()}", f"size={CHUNK}"]
    replace_file(place.status, "\n".join([*lines, ""]).encode())
    return True


def _group(name: str, slot: Slot) -> str:
    return f"[slot.{name}.{SLOTS.index(slot)}]"


def _keep(place: Place, name: str, slot: Slot, digest: str, index: bytes) -> None:
    replace_file(place.rauc / _group(name, slot).strip("[]") / f"hash-{digest}" / "block-hash-index", index)


def _is_empty(path: Path) -> bool:
    """Never written: a file system has something in its first 4 KiB."""
    with Device(path) as device:
        return not any(device.read(0, CHUNK))


def main(arguments: list[str]) -> int:
    """0: laid, or nothing to lay. 1: RAUC has to find out by itself, and why."""
    if arguments:
        print("usage: flashed", file=sys.stderr)
        return 2
    try:
        if lay(Slots().booted()):
            print("<6>RAUC is told of the system that was flashed, and need not hash it", file=sys.stderr)
    except (ImageError, OSError) as error:
        print(f"<4>RAUC has to hash the slots by itself: {error}", file=sys.stderr)
        return 1
    return 0
