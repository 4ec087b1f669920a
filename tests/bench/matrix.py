"""One table for several systems under several conditions: medians with their spread, and the ratio of two systems."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Row", "matrix"]


@dataclass(frozen=True, slots=True)
class Row:
    measure: str
    unit: str


def matrix(
    results: Mapping[tuple[str, str, str], Sequence[float]], conditions: Sequence[str], rows: Sequence[Row],
    systems: Sequence[str],
) -> str:
    """Markdown. ``results``: (condition, measure, system) -> a value per seed.

    The last column is the first system by the second: the median of the ratios within a seed, in which both saw the
    same network, or of the differences where the second was zero."""
    head = ["condition", "measure", "unit", *systems]
    compared = len(systems) > 1
    if compared:
        head.append(f"{systems[0]} / {systems[1]}")
    lines = [head, ["---"] * 3 + ["--:"] * (len(head) - 3)]
    for condition in conditions:
        for row in rows:
            values = [list(results.get((condition, row.measure, system), ())) for system in systems]
            if not any(values):
                continue
            cells = [condition, row.measure, row.unit, *map(_cell, values)]
            if compared:
                cells.append(_ratio(values[0], values[1]))
            lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "not measured"
    middle = _shown(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_shown(min(values))} to {_shown(max(values))})"


def _ratio(ours: Sequence[float], others: Sequence[float]) -> str:
    pairs = list(zip(ours, others, strict=False))
    if not pairs:
        return ""
    if all(other > 0 for _, other in pairs):
        return f"{statistics.median(one / other for one, other in pairs):.2f}"
    return f"{statistics.median(one - other for one, other in pairs):+.2f} (difference)"


def _shown(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
