"""Who holds a device node: by the open file descriptors under /proc, as far as we may see them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["holders"]


def holders(node: str, proc: str = "/proc") -> str:
    """``name (pid)`` of every process that has ``node`` open, comma-separated; empty when none is visible.

    Processes of other users are invisible without privilege: then a busy device has no name.
    """
    found = []
    for process in sorted(Path(proc).glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            links = list((process / "fd").iterdir())
            name = (process / "comm").read_text().strip()
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
        if any(_target(link) == node for link in links):
            found.append(f"{name} ({process.name})")
    return ", ".join(found)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""
