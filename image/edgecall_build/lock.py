"""What Debian packages a root holds, in exact versions, and how that differs from what was reviewed.

A lock has one line for each package, `NAME ARCHITECTURE VERSION SOURCE SOURCE-VERSION`, sorted by name, and comments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BadLock", "Package", "changes", "main", "read", "write"]


class BadLock(ValueError):
    """A line of a lock is none; the text names file and line."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    name: str
    architecture: str
    version: str
    source: str
    source_version: str

    def __str__(self) -> str:
        return f"{self.name} {self.architecture} {self.version} {self.source} {self.source_version}"


def read(path: Path) -> list[Package]:
    """The packages of a lock, sorted; raises BadLock, and OSError where the file cannot be read."""
    packages = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 5:
            raise BadLock(f"{path}, line {number}: not name, architecture, version, source and its version: {line!r}")
        packages.append(Package(*words))
    if not packages:
        raise BadLock(f"{path} names no package")
    return sorted(packages)


def write(path: Path, packages: Iterable[Package], heading: str) -> None:
    path.write_text("".join([f"# {heading}\n", *(f"{package}\n" for package in sorted(packages))]), encoding="utf-8")


def changes(reviewed: Iterable[Package], found: Iterable[Package]) -> list[str]:
    """A line for each package that came, went or has another version."""
    before = {(package.name, package.architecture): package.version for package in reviewed}
    now = {(package.name, package.architecture): package.version for package in found}
    lines = []
    for name, architecture in sorted(before.keys() | now.keys()):
        old, new = before.get((name, architecture)), now.get((name, architecture))
        if old != new:
            lines.append(f"{name}:{architecture} {old or 'was not there'} -> {new or 'is gone'}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: equal, or written; 3: they differ, as told; 1: a file is no lock."""
    parser = argparse.ArgumentParser(prog="lock", description="Compares what a root holds with a lock, or writes one.")
    parser.add_argument("found", type=Path)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--write", metavar="HEADING", help="write the lock anew")
    given = parser.parse_args(argv)
    try:
        found = read(given.found)
        if given.write:
            write(given.lock, found, given.write)
            return 0
        lines = changes(read(given.lock), found)
    except (OSError, BadLock) as wrong:
        print(f"lock: {wrong}", file=sys.stderr)
        return 1
    for line in lines:
        print(line)
    return 3 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
