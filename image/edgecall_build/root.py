"""What must hold of the root of an image before it goes onto a card, whatever was changed to get there."""

from __future__ import annotations

import argparse
import fnmatch
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["NoFileSystemError", "faults", "main", "used_mib"]

LIMIT_MIB: Final = 900
"""Of a slot's 1536: a root grows with each release, and the file system itself takes some."""
UNITS: Final = ("usr/lib/systemd", "etc/systemd")
PROGRAMS: Final = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
KEYS: Final = ("etc", "root", "home")
LOOKED_AT: Final = 65_536
"""Bytes of a file: keys in PEM have some thousand."""
SUPERBLOCK, MAGIC = 1024, 0xEF53


class NoFileSystemError(ValueError):
    """Not an ext4 file system."""


def faults(root: Path, authority: bytes, *, with_ssh: bool = False) -> list[str]:
    """Each that a folder has as the root of an image that trusts this authority alone. Links are not followed out of
    it: they lead elsewhere on a device."""
    found = []
    if who := [*_open_accounts(root)]:
        found.append(f"these have a password, or need none: {' '.join(who)}")
    servers = [path for path in _files(root, PROGRAMS) if fnmatch.fnmatch(path.name, "sshd*")
               or fnmatch.fnmatch(path.name, "dropbear*")]
    if servers and not with_ssh:
        found.append(f"there is a server of SSH: {_named(root, servers)}")
    if marking := [path for path in _files(root, UNITS) if "mark-good" in path.name or b"mark-good" in _begin(path)]:
        found.append(f"something else than the health gate marks a slot good: {_named(root, marking)}")
    if not os.access(root / "usr/lib/edgecall-image/init", os.X_OK):
        found.append("there is no usr/lib/edgecall-image/init that can be run")
    if not any(path.name == "edgecall.service" and path.parent.name.endswith(".wants")
               for path in _files(root, [f"{folder}/system" for folder in UNITS])):
        found.append("edgecall.service is not enabled")
    if _begin(root / "etc/rauc/ca.pem") != authority:
        found.append("etc/rauc/ca.pem is not that of the keys that were named")
    if _begin(root / "etc/machine-id"):
        found.append("etc/machine-id names a machine")
    if private := [path for path in _files(root, KEYS) if _is_private(root, path)]:
        found.append(f"there is a private key: {_named(root, private)}")
    return found


def _open_accounts(root: Path) -> Iterator[str]:
    for name, closed in (("etc/shadow", ("!", "*")), ("etc/passwd", ("!", "*", "x"))):
        for line in (root / name).read_text(encoding="utf-8").splitlines():
            who, _, rest = line.partition(":")
            if not rest.startswith(closed):
                yield who


def _is_private(root: Path, path: Path) -> bool:
    return (path.is_relative_to(root / "etc/ssl/private") or b"PRIVATE KEY-----" in _begin(path)
            or any(fnmatch.fnmatch(path.name, name) for name in ("ssh_host_*_key", "dropbear_*_host_key")))


def _files(root: Path, folders: Sequence[str]) -> Iterator[Path]:
    """And links."""
    for name in folders:
        if not (root / name).is_symlink():
            for folder, _, names in sorted(os.walk(root / name)):
                yield from (Path(folder, each) for each in sorted(names))


def _begin(path: Path) -> bytes:
    """Nothing of what is no file."""
    if path.is_symlink() or not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(LOOKED_AT)


def _named(root: Path, paths: Sequence[Path]) -> str:
    return ", ".join(str(path.relative_to(root)) for path in paths[:5])


def used_mib(disk: BinaryIO) -> int:
    """What an ext4 file system has in use, itself included. Raises NoFileSystemError."""
    disk.seek(SUPERBLOCK)
    block = disk.read(1024)
    if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != MAGIC:
        raise NoFileSystemError("holds no ext4 file system")
    total, free, size = (struct.unpack_from("<I", block, at)[0] for at in (0x4, 0xC, 0x18))
    return int((total - free) * (1024 << size) >> 20)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="root", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    folder = commands.add_parser("folder", help="what must hold of its files")
    folder.add_argument("root", type=Path)
    folder.add_argument("--authority", type=Path, required=True, help="ca.pem of the keys")
    folder.add_argument("--with-ssh", action="store_true", help="root may log in by SSH")
    size = commands.add_parser("size", help="what its file system has in use, in MiB")
    size.add_argument("file", type=Path)
    size.add_argument("--limit", type=int, default=LIMIT_MIB, help="in MiB")
    given = parser.parse_args(argv)
    try:
        if given.command == "folder":
            wrong = faults(given.root, given.authority.read_bytes(), with_ssh=given.with_ssh)
        else:
            with given.file.open("rb") as disk:
                used = used_mib(disk)
            print(used)
            wrong = [f"it takes {used} MiB, and {given.limit} are allowed"] if used > given.limit else []
    except (OSError, ValueError) as error:
        print(f"root: {error}", file=sys.stderr)
        return 1
    for line in wrong:
        print(f"root: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
