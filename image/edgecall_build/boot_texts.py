"""The texts that a board is started by: held against what firmware, kernel and first boot read of them, before they are
laid into file systems, and read back from those.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgecall_image import layout
from edgecall_image.device import Device
from edgecall_image.errors import ImageError
from edgecall_image.fat import Volume
from edgecall_image.firstfile import NAME, parsed
from edgecall_image.selector import Selector

__all__ = ["WrongTextError", "command_line_faults", "example_faults", "firmware_faults", "main", "read_back"]

COMMAND_LINE, FIRMWARE, EXAMPLE = "cmdline.txt", "config.txt", f"{NAME}.example"
WORDS: Final = (f"root=PARTUUID={layout.LABEL_ID:08x}-@ROOT@", "rauc.slot=@SLOT@", "ro", "rootfstype=ext4",
                "init=/usr/lib/edgecall-image/init")
"""Of the kernel's command line, before a slot is named in it."""
SETTINGS: Final = ("arm_64bit=1", "auto_initramfs=1", "camera_auto_detect=1", "dtoverlay=vc4-kms-v3d")
"""Of the firmware's settings."""
LONGEST_SETTING: Final = 98
"""Characters of a line that firmware reads (Raspberry Pi documentation, "config.txt")."""


class WrongTextError(ValueError):
    """A text is not what it has to be. The words name each difference."""


def command_line_faults(text: str) -> list[str]:
    """Of a slot's command line before the slot is named in it."""
    if text.count("\n") != 1 or not text.endswith("\n"):
        return [f"{COMMAND_LINE} is not one line, and the firmware reads the first"]
    words = text.split()
    faults = [f"{COMMAND_LINE} has no {word}" for word in WORDS if word not in words]
    if not any(re.fullmatch(r"panic=[1-9]\d*", word) for word in words):
        faults.append(f"{COMMAND_LINE} has no panic=SECONDS: after a panic the other slot has its turn")
    return faults + [f"{COMMAND_LINE} has {word}, which nobody fills in" for word in words
                     if "@" in word and word not in WORDS]


def firmware_faults(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    faults = [f"{FIRMWARE} has no {setting}" for setting in SETTINGS if setting not in lines]
    for line in lines:
        if not re.fullmatch(r"[a-z0-9_]+=[a-z0-9=,-]+", line):
            faults.append(f"{FIRMWARE} has {line!r}, which is no setting: NAME=VALUE, without blanks")
        elif len(line) > LONGEST_SETTING:
            faults.append(f"{FIRMWARE} has a line of {len(line)} characters, and {LONGEST_SETTING} are read: {line!r}")
    return faults


def example_faults(content: bytes) -> list[str]:
    """Of the example of a first boot file: as first boot would find them in it, were it saved by its name."""
    first = parsed(content)
    faults = first.faults or (("asks for nothing",) if first.is_blank else ())
    return [f"{EXAMPLE}: {fault}" for fault in faults]


def read_back(folder: Path, example: bytes) -> None:
    """What the file systems of an image that are made in a folder say of slot A. Raises WrongTextError, ImageError."""
    faults = []
    slot = Selector(folder / "selector.vfat").read()
    if slot != "A":
        faults.append(f"selector.vfat has slot {slot} start, and A alone is filled")
    if _content(folder / "selector.vfat", EXAMPLE) != example:
        faults.append(f"selector.vfat has another {EXAMPLE} than was laid into it")
    words = _content(folder / "boot_a.vfat", COMMAND_LINE).decode("ascii", "replace").split()
    for word in WORDS[:2]:
        named = word.replace("@ROOT@", f"{layout.ROOT_PARTITION['A']:02x}").replace("@SLOT@", "A")
        if named not in words:
            faults.append(f"boot_a.vfat has a {COMMAND_LINE} without {named}")
    if faults:
        raise WrongTextError("; ".join(faults))


def _content(path: Path, name: str) -> bytes:
    with Device(path) as device:
        volume = Volume(device)
        file = volume.find(name)
        if file is None:
            raise WrongTextError(f"{path.name} holds no {name}")
        return volume.read(file)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="boot_texts", description="Holds texts of an image against their readers.")
    parser.add_argument("--example", type=Path, required=True, help="of a first boot file")
    parser.add_argument("--boot", type=Path, help="the folder of a slot's boot files")
    parser.add_argument("--firmware", action="store_true", help="there are the firmware's settings among them")
    parser.add_argument("--made", type=Path, help="the folder with selector.vfat and boot_a.vfat")
    given = parser.parse_args(argv)
    try:
        faults = example_faults(given.example.read_bytes())
        if given.boot:
            faults += command_line_faults((given.boot / COMMAND_LINE).read_text(encoding="utf-8"))
        if given.boot and given.firmware:
            faults += firmware_faults((given.boot / FIRMWARE).read_text(encoding="utf-8"))
        if faults:
            raise WrongTextError("\n  ".join(faults))
        if given.made:
            read_back(given.made, given.example.read_bytes())
    except (OSError, ValueError, ImageError) as wrong:
        print(f"boot_texts: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
