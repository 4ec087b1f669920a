"""The hashes of a root's blocks, for the boot partition of a card that is flashed: see ``edgecall_image.flashed``."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from edgecall_image.flashed import CHUNK, FACTS_FILE, INDEX_FILE, Facts

__all__ = ["main", "missing", "write"]

DIFFERENT: Final = 64
"""Blocks of a boot partition that may differ: tables, folder and the slot's own command line."""


def write(root: Path, out: Path, compatible: str, version: str) -> None:
    """Two files into the folder ``out``. Raises FlashedError for a root whose size is no multiple of CHUNK."""
    whole, index = hashlib.sha256(), bytearray()
    for chunk in _chunks(root):
        whole.update(chunk)
        index += hashlib.sha256(chunk).digest()
    facts = Facts(compatible, version, whole.hexdigest(), root.stat().st_size)
    content = json.dumps(asdict(facts)).encode() + b"\n"
    Facts.parse(content)
    (out / FACTS_FILE).write_bytes(content)
    (out / INDEX_FILE).write_bytes(index)


def missing(bundled: Path, flashed: Path) -> int:
    """Blocks of a bundle's boot partition that the flashed one does not have, whatever their place."""
    there = {bytes(CHUNK), *_chunks(flashed)}
    return sum(chunk not in there for chunk in _chunks(bundled))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flashed", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    hashing = verbs.add_parser("hash", help="write the hashes of a root")
    hashing.add_argument("root", type=Path, help="the file system")
    hashing.add_argument("out", type=Path, help="the folder")
    hashing.add_argument("--compatible", required=True)
    hashing.add_argument("--version", required=True)
    checking = verbs.add_parser("check", help="whether an update would fetch boot files that the card has")
    checking.add_argument("bundled", type=Path)
    checking.add_argument("flashed", type=Path)
    wanted = parser.parse_args(arguments)
    if wanted.verb == "hash":
        write(wanted.root, wanted.out, wanted.compatible, wanted.version)
    elif (count := missing(wanted.bundled, wanted.flashed)) > DIFFERENT:
        print(f"{count} blocks of {wanted.bundled} are not in {wanted.flashed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
