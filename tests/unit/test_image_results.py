"""The table of an update's results in docs/image.md: every result and every code that an operator may be told, and no
other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.faces.jsonschema import state
from edgecall_image import installation, rauc

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = ROOT / "image" / "edgecall_image"
CODES: Final = {
    ROOT / "appliance/care/update.py": {"_fail": 1},
    IMAGE / "updater.py": {"Result": 3, "RaucError": 0, "Refused": 0, "_came_to_nothing": 1},
    IMAGE / "outcome.py": {"Result": 3},
    IMAGE / "gate.py": {"Result": 3, "RaucError": 0},
    IMAGE / "installation.py": {"RaucError": 0, "_Failure": 0},
    IMAGE / "rauc.py": {"RaucError": 0},
    IMAGE / "relay.py": {"Failed": 0},
}
"""Calls that make a result, or what becomes one, with the place of the code among their arguments."""


def told(source: Path) -> set[str]:
    return {code for call in ast.walk(ast.parse(source.read_text())) for code in _codes(call, CODES[source]) if code}


def _codes(call: ast.AST, places: dict[str, int]) -> Iterator[str]:
    if not isinstance(call, ast.Call):
        return
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in places and len(call.args) > places[name]:
        argument = call.args[places[name]]
        # of "a" if there else "b", that which is said, and not what is compared
        for part in (argument.body, argument.orelse) if isinstance(argument, ast.IfExp) else (argument,):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def table() -> dict[str, set[str]]:
    """Codes by result."""
    section = (ROOT / "docs/image.md").read_text().partition("### From the request to the result")[2]
    rows = section.partition("| result | code |")[2].partition("\n\n")[0].splitlines()[2:]
    found: dict[str, set[str]] = {}
    result = ""
    for row in rows:
        _, named, codes, *_ = (cell.strip() for cell in row.split("|"))
        result = named.strip("`") or result
        found.setdefault(result, set()).update(re.findall(r"`(\w+)`", codes))
    return found


@pytest.mark.parametrize("source", CODES, ids=lambda path: path.name)
def test_every_code_of_a_result_is_explained(source: Path) -> None:
    codes = told(source)
    assert codes, "none is found: its calls have other names now"
    assert codes <= set().union(*table().values())


def test_so_are_those_that_are_told_by_tables() -> None:
    assert {*rauc._CAUSES, *installation.CODES} <= set().union(*table().values())


def test_no_code_is_explained_that_nobody_tells() -> None:
    assert set().union(*table().values()) == {*rauc._CAUSES, *installation.CODES}.union(*map(told, CODES))


def test_the_results_are_those_of_the_state() -> None:
    (last,) = (one["properties"]["last"] for one in _objects(state("update")) if "last" in one.get("properties", {}))
    assert set(table()) == set(last["properties"]["result"]["enum"])


def _objects(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            yield from _objects(one)
