"""Board files: what is soldered and plugged where, as data (TOML, ``config/boards``). Pure but for reading files.

A file names the models it is for and has one table per part; each part declares its table as a frozen dataclass and
reads it by ``BoardFile.part``, which checks it whole and names every fault at once.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from hw.api import HardwareError

__all__ = ["PARTS", "BoardFile", "BoardFileError", "board_files", "find_board_file", "load_board_file"]

PARTS: Final = ("audio", "camera", "display", "panel")
"""Tables that a board file may have. A part without a table has the defaults of its dataclass."""

FOLDERS: Final = (
    Path("/etc/edgecall/boards"),
    Path(sys.prefix) / "share/edgecall/boards",
    Path(__file__).resolve().parents[2] / "config/boards",
)
"""Where files are looked for: the site's own, those installed with the package, those of a source tree."""

GENERIC: Final = "generic"

Part = TypeVar("Part")


class BoardFileError(HardwareError, ValueError):
    """A board file is missing or wrong. The message has a line per fault and says what is allowed."""


@dataclass(frozen=True, slots=True)
class BoardFile:
    """One board file as it was read. ``models`` are beginnings of the device tree's model."""

    path: str
    title: str = "Computer"
    models: Sequence[str] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def part(self, name: str, shape: type[Part]) -> Part:
        """The table ``name`` as ``shape``, a dataclass whose fields all have defaults.

        Fields are ``bool int float str``, tuples of one of them, or ``Mapping[str, …]`` of one of them. What
        ``shape`` itself refuses with ValueError is told with the file's name. Raises BoardFileError.
        """
        part, faults = self._part(name, shape)
        if part is None:
            raise BoardFileError("\n".join(faults))
        return part

    def check(self, shapes: Mapping[str, type]) -> None:
        """Raises BoardFileError with every fault of the tables that ``shapes`` names."""
        if faults := [fault for name, shape in shapes.items() for fault in self._part(name, shape)[1]]:
            raise BoardFileError("\n".join(faults))

    def _part(self, name: str, shape: type[Part]) -> tuple[Part | None, Sequence[str]]:
        """The part, or None and what is wrong: wrong keys and types, and what ``shape`` says of the rest."""
        table, hints = self.tables.get(name, {}), get_type_hints(shape)
        known = {one.name: hints[one.name] for one in fields(shape)}  # type: ignore[arg-type]
        faults, values = [], {}
        for key, value in table.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                faults.append(f"[{name}] {key}: there is no such key"
                              + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"))
                continue
            try:
                values[key] = _typed(value, known[key])
            except ValueError as error:
                faults.append(f"[{name}] {key}: {error}")
        part = None
        try:
            part = shape(**values)
        except ValueError as error:
            faults.append(f"[{name}] {error}")
        return None if faults else part, [f"board file {self.path}: {fault}" for fault in faults]


_WORDS: Final[Mapping[type, str]] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes",
}


def _typed(value: Any, hint: Any) -> Any:
    """``value`` of TOML as the field's type. Raises ValueError in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"must be a list of {_WORDS[arguments[0]]}")
        return tuple(_typed(one, arguments[0]) for one in value)
    if origin is not None:  # Mapping[str, …]
        if not isinstance(value, dict):
            raise ValueError("must be a table")
        typed = {}
        for key, one in value.items():
            try:
                typed[key] = _typed(one, arguments[1])
            except ValueError as error:
                raise ValueError(f"{key} {error}") from error
        return typed
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"must be {_WORDS[hint]}, not {value!r}")
    return value


def load_board_file(path: str | Path) -> BoardFile:
    """Read and check the frame of a board file; its parts are checked as they are read. Raises BoardFileError."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BoardFileError(f"board file {path} is not there; edgecall doctor --help lists those that are") from error
    except OSError as error:
        raise BoardFileError(f"board file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BoardFileError(f"board file {path}: {error}") from error
    faults, head = [], {}
    for key, hint in (("title", str), ("models", _Texts)):
        try:
            if key in tables:
                head[key] = _typed(tables.pop(key), hint)
        except ValueError as error:
            faults.append(f"{key}: {error}")
    for name, table in tables.items():
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, 1)
            faults.append(f"there is no part {name!r}; "
                          + (f"did you mean [{near[0]}]?" if near else f"there are {', '.join(PARTS)}"))
        elif not isinstance(table, dict):
            faults.append(f"{name}: must be a table, begun by [{name}]")
    if faults:
        raise BoardFileError("\n".join(f"board file {path}: {fault}" for fault in faults))
    return BoardFile(str(path), tables=tables, **head)


_Texts: Final = tuple[str, ...]


def board_files(folders: Sequence[Path] = FOLDERS) -> Mapping[str, Path]:
    """Board files by their names; one of an earlier folder hides its namesake."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def find_board_file(wanted: str, model: str, folders: Sequence[Path] = FOLDERS) -> BoardFile:
    """The board file ``wanted``: a name, or a path (with a slash, or ``.toml`` at its end); empty: the one with the
    longest beginning of ``model``, else ``generic``, else the defaults of all parts. Raises BoardFileError."""
    if "/" in wanted or wanted.endswith(".toml"):
        return load_board_file(wanted)
    found = board_files(folders)
    if wanted:
        if wanted not in found:
            raise BoardFileError(f"there is no board file {wanted!r}; there are {', '.join(sorted(found)) or 'none'}, "
                                 "or name a path")
        return load_board_file(found[wanted])
    best: tuple[int, BoardFile] | None = None
    for path in found.values():
        file = load_board_file(path)
        length = max((len(one) for one in file.models if model.startswith(one)), default=0)
        if length and (best is None or length > best[0]):
            best = length, file
    if best is not None:
        return best[1]
    return load_board_file(found[GENERIC]) if GENERIC in found else BoardFile("(built in)")
