"""Files that a power cut leaves whole: what they held before, or what they hold now. Blocking."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

__all__ = ["replace_file"]

_ONE_WRITER: Final = threading.Lock()  # two threads must not write one draft


def replace_file(path: Path, content: bytes) -> None:
    """Replace ``path``, for its owner alone from the first byte on; so is its folder if it is missing. Raises OSError.

    New file, fsync, rename, fsync of the folder: without the last one the rename itself may be lost.
    """
    draft = path.with_name(f".{path.name}.new")
    with _ONE_WRITER:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)  # of a power cut; its mode, or what it points to, is not trusted
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
