"""Board files: what is soldered and plugged where, as data (TOML, ``config/boards``). Pure but for reading files.

A file names the models it is for and has one table per part; each part declares its table as a frozen dataclass and
reads it by ``BoardFile.part``, which checks it whole. All faults of a file are told at once, of its head and of every
part; only what is no TOML hides the rest, since nothing can be read of it.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from hw.api import HardwareError

__all__ = ["PARTS", "BoardFile", "BoardFileError", "Judge", "board_files", "find_board_file", "load_board_file"]

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
            raise self.refusal(faults)
        return part

    def faults(self, shapes: Mapping[str, type]) -> list[str]:
        """What is wrong with the tables that ``shapes`` names."""
        return [fault for name, shape in shapes.items() for fault in self._part(name, shape)[1]]

    def refusal(self, faults: Sequence[str]) -> BoardFileError:
        """``faults`` with the file's name, to be raised."""
        return BoardFileError("\n".join(f"board file {self.path}: {fault}" for fault in faults))

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
            typed, wrong = _typed(value, known[key])
            if wrong:
                faults.append(f"[{name}] {key}: {'; '.join(wrong)}")
            if typed is not None:
                values[key] = typed
        part = None
        try:
            part = shape(**values)
        except ValueError as error:
            faults.append(f"[{name}] {error}")
        return None if faults else part, faults


_WORDS: Final[Mapping[type, str]] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes",
}


def _typed(value: Any, hint: Any) -> tuple[Any, Sequence[str]]:
    """``value`` of TOML as the field's type, and what is wrong with it; of a list or table the value is of what is
    right in it, and else None."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            return None, [f"must be a list of {_WORDS[arguments[0]]}"]
        right, faults = _each_typed({f"number {at}": one for at, one in enumerate(value, 1)}, arguments[0])
        return tuple(right.values()), faults
    if origin is not None:  # Mapping[str, …]
        return _each_typed(value, arguments[1]) if isinstance(value, dict) else (None, ["must be a table"])
    if hint is float and type(value) is int:
        return float(value), ()
    if type(value) is not hint:
        return None, [f"must be {_WORDS[hint]}, not {value!r}"]
    return value, ()


def _each_typed(values: Mapping[str, Any], hint: Any) -> tuple[dict[str, Any], Sequence[str]]:
    right, faults = {}, []
    for name, one in values.items():
        typed, wrong = _typed(one, hint)
        faults += [f"{name} {fault}" for fault in wrong]
        if not wrong:
            right[name] = typed
    return right, faults


Judge = Callable[[BoardFile], Sequence[str]]
"""What is wrong with the parts of a file, each fault in words."""


def nothing_more(_file: BoardFile) -> Sequence[str]:
    """A judge that finds nothing."""
    return ()


def load_board_file(path: str | Path, judge: Judge = nothing_more) -> BoardFile:
    """Read a board file and check its head; its parts are checked as they are read. Raises BoardFileError: for a wrong
    head with what ``judge`` finds in the parts too."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BoardFileError(f"board file {path} is not there; edgecall doctor --help lists those that are") from error
    except OSError as error:
        raise BoardFileError(f"board file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BoardFileError(f"board file {path}: {error}") from error
    faults, head, parts = [], {}, {}
    for key, hint in (("title", str), ("models", _Texts)):
        if key not in tables:
            continue
        typed, wrong = _typed(tables.pop(key), hint)
        if wrong:
            faults.append(f"{key}: {'; '.join(wrong)}")
        else:
            head[key] = typed
    for name, table in tables.items():
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, 1)
            faults.append(f"there is no part {name!r}; "
                          + (f"did you mean [{near[0]}]?" if near else f"there are {', '.join(PARTS)}"))
        elif not isinstance(table, dict):
            faults.append(f"{name}: must be a table, begun by [{name}]")
        else:
            parts[name] = table
    file = BoardFile(str(path), tables=parts, **head)
    if faults:
        raise file.refusal([*faults, *judge(file)])
    return file


_Texts: Final = tuple[str, ...]


def board_files(folders: Sequence[Path] = FOLDERS) -> Mapping[str, Path]:
    """Board files by their names; one of an earlier folder hides its namesake."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def find_board_file(
    wanted: str, model: str, folders: Sequence[Path] = FOLDERS, judge: Judge = nothing_more
) -> BoardFile:
    """The board file ``wanted``: a name, or a path (with a slash, or ``.toml`` at its end); empty: the one with the
    longest beginning of ``model``, else ``generic``, else the defaults of all parts. Raises BoardFileError, as
    ``load_board_file`` does."""
    if "/" in wanted or wanted.endswith(".toml"):
        return load_board_file(wanted, judge)
    found = board_files(folders)
    if wanted:
        if wanted not in found:
            raise BoardFileError(f"there is no board file {wanted!r}; there are {', '.join(sorted(found)) or 'none'}, "
                                 "or name a path")
        return load_board_file(found[wanted], judge)
    best: tuple[int, BoardFile] | None = None
    for path in found.values():
        file = load_board_file(path, judge)
        length = max((len(one) for one in file.models if model.startswith(one)), default=0)
        if length and (best is None or length > best[0]):
            best = length, file
    if best is not None:
        return best[1]
    return load_board_file(found[GENERIC], judge) if GENERIC in found else BoardFile("(built in)")
