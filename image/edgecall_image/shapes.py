"""What may stand in a table of a first boot file, and what is wrong with one: all faults, in words, without secrets."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Shape", "Table", "a_list", "a_table", "a_text", "checked", "tables"]

Table = Mapping[str, Any]
Rule = Callable[[str], str]
"""What is wrong with a text; empty: nothing."""
Check = Callable[[Any, str], Iterator[str]]
"""The faults of a value under a dotted key."""
Shape = Check | type[bool]

MOST: int = 64
"""Entries of a list."""


def checked(table: Table, shapes: Mapping[str, Shape], key: str, *, required: Sequence[str] = ()) -> Iterator[str]:
    """The faults of ``table``, which stands under ``key``; unknown keys are faults, with the name that was meant."""
    for name, value in table.items():
        where = f"{key}.{name}"
        shape = shapes.get(name)
        if shape is None:
            near = difflib.get_close_matches(name, shapes, 1)
            yield f"{where}: there is no such key; " + (f"did you mean {near[0]}?" if near else
                                                       f"there are {', '.join(shapes)}")
        elif shape is bool:
            if not isinstance(value, bool):
                yield f"{where}: must be true or false"
        else:
            yield from shape(value, where)
    for name in required:
        if name not in table:
            yield f"{key}.{name}: is missing"


def a_text(rule: Rule, *, secret: bool = False) -> Check:
    def check(value: Any, key: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{key}: must be a text in quotes"
        elif why := rule(value):
            yield f"{key}: {why}" if secret else f"{key} = {value!r:.80}: {why}"

    return check


def a_list(rule: Rule) -> Check:
    def check(value: Any, key: str) -> Iterator[str]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            yield f"{key}: must be a list of texts in quotes"
        elif len(value) > MOST:
            yield f"{key}: has {len(value)} entries, and {MOST} are allowed"
        else:
            yield from (f"{key}: {one!r:.80} {why}" for one in value if (why := rule(one)))

    return check


def a_table(check_table: Callable[[Table, str], Iterator[str]]) -> Check:
    def check(value: Any, key: str) -> Iterator[str]:
        if isinstance(value, dict):
            yield from check_table(value, key)
        else:
            yield f"{key}: must be a table, begun by [{key}]"

    return check


def tables(check_table: Callable[[Table, str], Iterator[str]]) -> Check:
    def check(value: Any, key: str) -> Iterator[str]:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            yield f"{key}: must be a list of tables, each begun by [[{key}]]"
        elif len(value) > MOST:
            yield f"{key}: has {len(value)} entries, and {MOST} are allowed"
        else:
            for number, one in enumerate(value, 1):
                yield from check_table(one, f"{key}[{number}]")

    return check
