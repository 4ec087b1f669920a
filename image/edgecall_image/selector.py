"""``autoboot.txt`` of the selector partition: which boot partition the firmware takes, and which when asked to try.

It is always one of two texts of one length, within one sector, and changes by that sector alone: whatever moment the
power goes, the firmware finds the one or the other. Where anything else stands there, nothing is written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from edgecall_image.device import Device
from edgecall_image.errors import ImageError
from edgecall_image.fat import File, Volume
from edgecall_image.layout import BOOT_PARTITION, SLOTS, Slot, other

__all__ = ["NAME", "TEXT", "Selector", "SelectorError"]

NAME: Final = "autoboot.txt"
TEXT: Final[dict[Slot, bytes]] = {
    slot: (f"[all]\ntryboot_a_b=1\nboot_partition={BOOT_PARTITION[slot]}\n"
           f"[tryboot]\nboot_partition={BOOT_PARTITION[other(slot)]}\n").encode()
    for slot in SLOTS
}
"""By the default slot. The firmware reads at most 512 bytes (Raspberry Pi documentation, "autoboot.txt")."""


class SelectorError(ImageError):
    """What stands in ``autoboot.txt`` is not of ours, or it is missing."""


class Selector:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Slot:
        """The default slot. Raises SelectorError, FatError, DeviceError."""
        with Device(self.path) as device:
            return self._read(Volume(device))[1]

    def write(self, slot: Slot) -> None:
        """Make it the default. Raises SelectorError, FatError, DeviceError; the sector holds the one or the other
        then as well."""
        with Device(self.path, writable=True) as device:
            file, default = self._read(Volume(device))
            if default != slot:
                device.write(file.sectors[0], TEXT[slot].ljust(file.sector_size, b"\n"))

    def _read(self, volume: Volume) -> tuple[File, Slot]:
        file = volume.find(NAME)
        if file is None:
            raise SelectorError(f"{NAME} is missing on {self.path}: no slot can be chosen. "
                                "Put it back on another computer, or flash again")
        content = volume.read(file)
        for slot, text in TEXT.items():
            if content.rstrip(b"\n") == text.rstrip(b"\n") and len(text) <= file.size <= file.sector_size:
                return file, slot
        raise SelectorError(f"{NAME} on {self.path} is {_quoted(content)}, which this system did not write: nothing is "
                            f"changed. Make it {_quoted(TEXT['A'])} or {_quoted(TEXT['B'])}, of one length")


def _quoted(content: bytes) -> str:
    shown = ascii(content.decode("ascii", "replace"))
    return shown if len(shown) <= 200 else f"{shown[:200]}… ({len(content)} bytes)"


def main(arguments: list[str]) -> int:
    """Print the text for a new image."""
    if arguments not in [["A"], ["B"]]:
        print("usage: selector A|B", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(TEXT["A" if arguments == ["A"] else "B"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
