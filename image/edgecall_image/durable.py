"""Files on data that a power cut leaves whole: what they held before, or what they hold now. Blocking."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["remove_file", "replace_file"]


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace ``path``; makes its folder, for root alone, if it is missing. One writer at a time. Raises OSError.

    New file, fsync, rename, fsync of the folder: without the last one the rename itself may be lost.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)  # of a power cut; its mode, or what it points to, is not trusted
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # whatever our umask is
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(path)
    _sync(path.parent)


def remove_file(path: Path) -> None:
    """Does nothing where there is none. Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
