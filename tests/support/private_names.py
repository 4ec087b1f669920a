"""Which private names of aiortc and aioice the seam stands on, found in the sources, and whether a version has them.

    python -m tests.support.private_names > names.json            the names that are touched, with the tested versions
    python -m tests.support.private_names --against names.json    with others: exit status 1 when a name is missing

A name is private when it begins with an underscore. It is touched when a seam module uses it (``_name`` of something,
a method that overrides one, a mangled name in a string) and a class of the two packages defines it: as a method, or
by assigning it to ``self``. Nothing is listed by hand, so nothing in the list is stale; names that are common to
several classes are listed with each.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ["changes", "defined", "installed", "missing", "touched", "used"]

MEDIA: Final = Path(__file__).resolve().parents[2] / "appliance" / "media"
PACKAGES: Final = ("aiortc", "aioice")

Names = Mapping[str, Mapping[str, str]]
"""``module.Class`` -> private name -> signature of the method, or "" of an attribute."""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def used(source: str) -> set[str]:
    """Every private name that a module reads, assigns, overrides or writes in a string."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Constant(value=str(name)):
                found.add(name)
    return {name for name in found if _is_private(name) and name.isidentifier()}


def _of_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """(name as seen from outside, signature) of what a class defines."""
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name, args=arguments) | ast.AsyncFunctionDef(name=name, args=arguments):
                signature = f"({ast.unparse(arguments)})"
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                signature = ""
            case _:
                continue
        if _is_private(name):
            yield (f"_{node.name.lstrip('_')}{name}" if name.startswith("__") else name), signature


def defined(source: str) -> dict[str, dict[str, str]]:
    """Private names by class."""
    return {
        node.name: dict(_of_class(node)) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)
    }


def _sources(package: str) -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    for path in sorted(folder.glob("*.py")):
        yield f"{package}.{path.stem}", path.read_text()


def installed() -> dict[str, dict[str, str]]:
    return {
        f"{module}.{name}": names
        for package in PACKAGES for module, source in _sources(package) for name, names in defined(source).items()
    }


def touched(uses: set[str], names: Names) -> dict[str, dict[str, str]]:
    """Of the names of the packages those that are used."""
    found = {owner: {name: own[name] for name in sorted(uses & own.keys())} for owner, own in names.items()}
    return {owner: own for owner, own in found.items() if own}


def missing(wanted: Names, there: Names) -> list[str]:
    """Names that no class defines any more under the same owner."""
    return [f"{owner}.{name}" for owner, own in wanted.items() for name in own if name not in there.get(owner, {})]


def changes(wanted: Names, there: Names) -> list[str]:
    """Methods that are called in another way: worth a look, no fault by itself."""
    return [
        f"{owner}.{name}: was {signature}, is {there[owner][name]}"
        for owner, own in wanted.items() for name, signature in own.items()
        if name in there.get(owner, {}) and there[owner][name] != signature
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--against", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    uses = set().union(*(used(path.read_text()) for path in MEDIA.glob("*_seam.py")))
    if arguments.against is None:
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        json.dump({"versions": versions, "names": touched(uses, installed())}, sys.stdout, indent=1)
        return 0
    wanted, there = json.loads(arguments.against.read_text())["names"], installed()
    gone = missing(wanted, there)
    for line in gone:
        print(f"missing: {line}")
    for line in changes(wanted, there):
        print(f"changed: {line}")
    count = sum(map(len, wanted.values()))
    print(f"{count - len(gone)} of {count} private names are there")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main())
