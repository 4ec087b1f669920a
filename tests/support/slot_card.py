"""A card with two slots as files, and the firmware that boots it: what it reads there, it reads by its own eyes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edgecall_image.layout import Slot
from edgecall_image.selector import TEXT
from edgecall_image.slots import Place, Slots
from tests.support.fat_images import write_fat

__all__ = ["Card"]

SLOT_OF: Final[dict[bytes, Slot]] = {b"2": "A", b"3": "B"}


class Card:
    """Booted from slot A, which is the default, with nothing to be tried."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder / "p1", folder / "marks", folder / "cmdline", folder / "run" / "reboot-param")
        write_fat(self.place.selector, {"bootcode.bin": b"x" * 600, "autoboot.txt": TEXT["A"]})
        self._text_at = self.place.selector.read_bytes().index(TEXT["A"])
        self.place.marks.mkdir()
        self.place.request.parent.mkdir()
        self.start("A")

    @property
    def slots(self) -> Slots:
        return Slots(self.place)

    @property
    def requested(self) -> bool:
        """Whether a reboot now would ask the firmware for a trial."""
        return self.place.request.exists() and self.place.request.read_text().strip() == "0 tryboot"

    def marks(self) -> set[str]:
        """Names of what lies there, without drafts that a power cut left."""
        return {path.name for path in self.place.marks.iterdir() if not path.name.startswith(".")}

    def chosen(self, *, tried: bool = False) -> Slot:
        """What the firmware boots; AssertionError where it would find neither of the two texts."""
        with self.place.selector.open("rb") as file:
            file.seek(self._text_at)
            sector = file.read(512)
        assert sector.rstrip(b"\n\0") in {text.rstrip(b"\n") for text in TEXT.values()}, sector
        default, other = re.findall(rb"boot_partition=(\d)", sector)
        return SLOT_OF[other if tried else default]

    def start(self, slot: Slot) -> None:
        """A kernel comes up with what it is told of its slot; a request does not outlive the one before."""
        self.place.command_line.write_text(f"init=/usr/lib/edgecall-image/init rauc.slot={slot} ro quiet\n")
        self.place.request.unlink(missing_ok=True)

    def reboot(self) -> Slot:
        """As asked for; returns the slot that came up."""
        slot = self.chosen(tried=self.requested)
        self.start(slot)
        return slot

    def power_cycle(self) -> Slot:
        slot = self.chosen()
        self.start(slot)
        return slot
