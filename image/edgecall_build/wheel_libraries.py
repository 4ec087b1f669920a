"""The compiled libraries of others that wheels carry, as they were reviewed (``wheel_libraries.toml``).

The source archive of a wheel does not hold them, and few wheels have a bill that names them; some are under the GPL, so
whoever hands out an image owes their sources.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

from edgecall_build.wheels import normalized

__all__ = ["TABLE", "Library", "NotReviewedError", "Wheel", "carried_by", "files_of", "read"]

TABLE: Final = Path(__file__).with_name("wheel_libraries.toml")


class NotReviewedError(ValueError):
    """A wheel carries what nobody has looked at. The text names it, and what to do."""


@dataclass(frozen=True, slots=True)
class Library:
    name: str
    version: str
    """Empty where nothing says it."""
    licence: str
    source: str
    """A web address, or the package URL of a distribution's package."""
    files: tuple[str, ...]
    """The files of the wheel that it is in, up to the hash in their names."""


@dataclass(frozen=True, slots=True)
class Wheel:
    name: str
    version: str
    libraries: tuple[Library, ...]
    recipe: str = ""
    """How they are built, where the wheel's own source does not say so."""


def read(path: Path = TABLE) -> dict[str, Wheel]:
    """The reviewed wheels by name. Raises TypeError, KeyError and ValueError where the table is none."""
    wheels = {}
    for told in tomllib.loads(path.read_text(encoding="utf-8"))["wheel"]:
        libraries = [Library(**library | {"files": tuple(library["files"])}) for library in told.pop("libraries")]
        wheels[told["name"]] = Wheel(**told, libraries=tuple(libraries))
    return wheels


def files_of(distribution: Distribution) -> set[str]:
    """The libraries in a wheel's folder NAME.libs, which are called as upstream calls them up to a hash."""
    return {re.sub(r"(-[0-9a-f]{8})?\.so(\.[0-9.]+)?$", "", file.name) for file in distribution.files or []
            if file.parts[0].endswith(".libs") and ".so" in file.name}


def carried_by(distribution: Distribution, reviewed: dict[str, Wheel]) -> tuple[str, Sequence[Library]]:
    """The recipe and the libraries of others that a wheel carries. Raises NotReviewedError."""
    files = files_of(distribution)
    if not files:
        return "", ()
    name, version = normalized(distribution.name), distribution.version
    wheel = reviewed.get(name)
    if wheel is None or wheel.version != version:
        was = f"was reviewed for {wheel.version}" if wheel else "does not know it"
        raise NotReviewedError(f"{name} {version} carries {', '.join(sorted(files))}, and {TABLE.name} {was}: look at "
                               "what is in it, and write that down there")
    if unknown := files - {file for library in wheel.libraries for file in library.files}:
        raise NotReviewedError(f"{name} {version} carries {', '.join(sorted(unknown))}, which {TABLE.name} does not "
                               "name: look at where that is from, and write it down there")
    return wheel.recipe, [library for library in wheel.libraries if files & set(library.files)]
