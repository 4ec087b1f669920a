"""The copyright file of the daemon's Debian package: its template, and a line for each Python package in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from edgecall_build.bom import python_licences

__all__ = ["lines", "main"]

PLACE = "@PACKAGES@"
OURS = "edgecall"


def lines(site: Path) -> list[str]:
    """`NAME VERSION: LICENCE` of every distribution in a folder but ours, by name."""
    found = sorted(distributions(path=[str(site)]), key=lambda each: each.name.lower())
    return [f"{each.name} {each.version}: {', '.join(python_licences(each)) or 'see its texts'}"
            for each in found if each.name != OURS]


def main(words: Sequence[str] | None = None) -> int:
    """Prints the filled template. Returns the exit code: 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python3 -m edgecall_build.copyright", description=__doc__)
    parser.add_argument("template", type=Path)
    parser.add_argument("site", type=Path, help="the folder of Python packages")
    asked = parser.parse_args(words)
    listed = lines(asked.site)
    if not listed:
        print(f"edgecall_build.copyright: {asked.site} holds no Python packages", file=sys.stderr)
        return 1
    print(asked.template.read_text(encoding="utf-8").replace(PLACE, "\n".join(f" {line}" for line in listed)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
