"""Power that goes at a chosen write, and takes along what was not on the medium by then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest

__all__ = ["HOLDS", "Hold", "Power"]

Hold = Literal["everything", "synced"]
"""What the medium keeps: all that was asked of it, or only what an fsync made last (of a file its content, of a folder
which names are in it)."""
HOLDS: Final[tuple[Hold, Hold]] = ("everything", "synced")

Content = bytes | dict[str, "Content"] | None
"""Of a file; of a folder; of what is not there."""

WRITES: Final = ("write", "pwrite", "fsync", "replace", "unlink")


class _Cut(BaseException):
    """Passes every handler: after it nothing runs."""


class Power:
    """Watches the system calls that change the files and folders ``places``, as long as it is ``on``."""

    def __init__(self, *places: Path) -> None:
        self._places = places
        self._kept: dict[Path, Content] = {}
        self._dirty: set[Path] = set()
        self._left = -1
        self._busy = False
        self.went = False
        """Whether the power went in the last ``on``."""

    @contextmanager
    def on(self, writes: int = -1, hold: Hold = "synced") -> Iterator[None]:
        """For so many writes, then it goes; negative: until the end of the block. What was not synced is lost there as
        well: what a call did is to last once it returned."""
        self._left, self.went = writes, False
        for place in self._places:
            self._keep(place)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name in WRITES:
                    patch.setattr(os, name, self._watched(name, getattr(os, name)))
                yield
        except _Cut:
            self.went = True
        if hold == "synced":
            for place, kept in self._kept.items():
                _restore(place, kept)
        self._dirty.clear()

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if self._busy:
                return call(*arguments, **named)
            if self._left == 0:
                raise _Cut
            self._left -= 1
            result = None if name == "fsync" else call(*arguments, **named)  # the medium is ours: no disk is waited for
            self._busy = True
            self._note(name, arguments)
            self._busy = False
            return result
        return watched

    def _note(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "replace":
            if Path(arguments[0]) in self._dirty:
                self._dirty.add(Path(arguments[1]))
            return
        if name == "unlink":
            return
        path = Path(f"/proc/self/fd/{arguments[0]}").readlink()
        if name != "fsync":
            self._dirty.add(path)
            return
        self._dirty.discard(path)
        if path in self._places:
            self._keep(path)

    def _keep(self, place: Path) -> None:
        content = self._kept[place] = _content(place)
        for path in self._dirty:
            if isinstance(content, dict) and path.parent == place and path.exists():
                content[path.name] = b""


def _content(place: Path) -> Content:
    if place.is_dir():
        return {path.name: _content(path) for path in place.iterdir()}
    return place.read_bytes() if place.exists() else None


def _restore(place: Path, content: Content) -> None:
    """Touches nothing but what is otherwise."""
    if isinstance(content, dict):
        place.mkdir(exist_ok=True)
        for path in place.iterdir():
            if path.name not in content:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, one in content.items():
            _restore(place / name, one)
    elif content is not None and _content(place) != content:
        place.write_bytes(content)
