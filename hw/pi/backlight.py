"""The backlight of a panel (``/sys/class/backlight``): brightness and off."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

__all__ = ["Backlight"]

_log = logging.getLogger("hw.display")

POWER_OFF: Final = "4"  # FB_BLANK_POWERDOWN
POWER_ON: Final = "0"


class Backlight:
    """The backlight ``name``, or the only one; without one (HDMI) nothing happens. Blocking: not on the loop."""

    def __init__(self, name: str = "", folder: str = "/sys/class/backlight") -> None:
        there = sorted(Path(folder).glob(name or "*"))
        self._path = there[0] if there else None
        self._quiet = False
        if name and not there:
            _log.warning("screen: there is no backlight %r in %s", name, folder)

    @property
    def name(self) -> str:
        return "" if self._path is None else self._path.name

    def set(self, percent: int, *, on: bool = True) -> None:
        """``percent`` of the brightest, at least the dimmest step that still shows something; or off."""
        if self._path is None:
            return
        try:
            brightest = int((self._path / "max_brightness").read_text())
            if on:
                (self._path / "brightness").write_text(str(max(1, round(brightest * percent / 100))))
            (self._path / "bl_power").write_text(POWER_ON if on else POWER_OFF)
            self._quiet = False
        except (OSError, ValueError) as error:
            if not self._quiet:
                _log.warning("screen: the backlight %s cannot be set: %s; the udev rule of the package gives the group "
                             "video its files", self.name, error)
            self._quiet = True
