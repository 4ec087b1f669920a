"""The files and links that an image has beside Debian's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["OVERLAY", "UNITS", "links"]

OVERLAY: Final = Path(__file__).parents[2] / "image" / "overlay" / "common"
UNITS: Final = OVERLAY / "usr" / "lib" / "systemd" / "system"


def links(folder: str = "usr/lib/systemd/system") -> dict[str, str]:
    """What each link below a folder of the root says, by its path in there."""
    lines = OVERLAY.with_suffix(".links").read_text().splitlines()
    pairs = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return {link.removeprefix(f"{folder}/"): target for link, target in pairs.items() if link.startswith(f"{folder}/")}
