"""Versions by Semantic Versioning 2.0.0, and the oldest one that this system lets itself be replaced by."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from edgecall_image.layout import VERSION_FILE

__all__ = ["SYSTEM_CONF", "Version", "minimum_version", "own_version"]

SYSTEM_CONF: Final = Path("/etc/rauc/system.conf")
UNKNOWN: Final = "unknown"

_NUMBER: Final = r"(0|[1-9]\d*)"
_PATTERN: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """Ordered by precedence: of a release and its pre-releases the release is the newest; build data do not count."""

    numbers: tuple[int, int, int]
    before: tuple[tuple[int, int, str], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        match = _PATTERN.fullmatch(text) if len(text) <= 128 else None
        if match is None:
            raise ValueError(f"{text[:40]!r} is no version like 1.4.2 or 1.5.0-rc.1")
        words = match[4].split(".") if match[4] else []
        if not all(words):
            raise ValueError(f"{text[:40]!r} is no version: it has an empty part after '-'")
        return cls((int(match[1]), int(match[2]), int(match[3])), tuple(
            (0, int(word), "") if word.isdecimal() else (1, 0, word) for word in words))

    def __lt__(self, other: Any) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return (self.numbers, not self.before, self.before) < (other.numbers, not other.before, other.before)


def own_version(path: Path = VERSION_FILE) -> str:
    """Of the system that runs; ``unknown`` where its file is missing."""
    try:
        return path.read_text("utf-8", "replace").strip()[:128] or UNKNOWN
    except OSError:
        return UNKNOWN


def minimum_version(path: Path = SYSTEM_CONF) -> Version | None:
    """``min-bundle-version`` of RAUC's configuration. Raises ValueError where it is no version, and OSError."""
    conf = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        with path.open(encoding="utf-8") as file:
            conf.read_file(file)
    except configparser.Error as error:
        raise ValueError(f"{path} cannot be understood: {error}") from None
    text = conf.get("system", "min-bundle-version", fallback="")
    return Version.parse(text) if text else None
