"""Programs of another Debian suite than the host's, from a folder that ``tests/peers/suite`` makes once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

__all__ = ["command_in", "folder_of", "libraries_in"]

SUITE: Final = Path(__file__).resolve().parents[1] / "peers" / "suite"
FIND_S: Final = 30.0  # no more than a look: scripts/test has made it


async def folder_of(suite: str, *packages: str) -> Path:
    """The folder with these packages of that suite."""
    finding = await asyncio.create_subprocess_exec(SUITE, suite, *packages, stdout=asyncio.subprocess.PIPE)
    told, _ = await asyncio.wait_for(finding.communicate(), FIND_S)
    assert finding.returncode == 0, f"run tests/peers/suite {suite} {' '.join(packages)} once"
    return Path(told.decode().strip())


def libraries_in(folder: Path) -> Path:
    """Where its libraries are, those of this machine's architecture."""
    return next((folder / "usr" / "lib").glob("*-linux-gnu*"))


def command_in(folder: Path, program: str) -> list[str]:
    """What starts a program there, such as usr/bin/janus: by the loader and the libraries there. Not by ``lib64``,
    whose link leads to the loader of the host: with a C library of another version it ends in a smashed stack."""
    triplet = libraries_in(folder).name
    places = [folder / place / triplet for place in ("lib", "usr/lib")]  # newer suites have the second alone
    loader = next(found for place in places for found in place.glob("ld-linux-*.so.*"))
    return [str(loader), "--library-path", ":".join(map(str, places)), str(folder / program)]
