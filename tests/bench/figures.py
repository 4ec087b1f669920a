"""The arithmetic of the benches: medians and percentiles, targets, the report and its table.

A bench hands over samples; what is said about them is computed here and nowhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["REPORT_SCHEMA", "Figure", "figure_from", "percentile", "report", "table", "write"]

Json = dict[str, Any]


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the samples lie, linear between neighbours (the usual type 7).

    Raises ValueError without samples or outside 0 to 1.
    """
    if not samples or not 0.0 <= share <= 1.0:
        raise ValueError(f"percentile: {len(samples)} samples and share {share}")
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured, its samples, and the target where the project has set one.

    ``target``: met when the median is below it. ``note``: what a reader must know to not misread the number.
    """

    name: str
    unit: str
    samples: tuple[float, ...] = field(repr=False)
    target: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return percentile(self.samples, 0.5)

    @property
    def p95(self) -> float:
        return percentile(self.samples, 0.95)

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        return None if self.target is None else self.median < self.target

    def payload(self) -> Json:
        return {
            "name": self.name, "unit": self.unit, "n": len(self.samples), "median": _rounded(self.median),
            "p95": _rounded(self.p95), "min": _rounded(min(self.samples)), "max": _rounded(max(self.samples)),
            "target": self.target, "met": self.met, "note": self.note,
            "samples": [_rounded(value) for value in self.samples],
        }


def figure_from(payload: Json) -> Figure:
    """The figure of a payload; what was computed is computed again."""
    return Figure(payload["name"], payload["unit"], tuple(payload["samples"]), payload["target"], payload["note"])


def _rounded(value: float) -> float:
    """Four significant digits: more than any of these figures repeats to."""
    return 0.0 if value == 0 else round(value, 3 - math.floor(math.log10(abs(value))))


def report(machine: Json, benches: dict[str, Json]) -> Json:
    """The JSON document of one run: ``benches`` maps a name to ``{"figures": [...], "detail": {...}}``."""
    return {"schema": 1, "machine": machine, "benches": benches}


_NUMBER_OR_NULL: Final = {"type": ["number", "null"]}

REPORT_SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["schema", "machine", "benches"],
    "additionalProperties": False,
    "properties": {
        "schema": {"const": 1},
        "machine": {
            "type": "object",
            "required": ["cpu", "cores", "memoryMiB", "kernel", "system", "python", "versions", "commit", "dirty",
                         "scheduler", "loadBefore", "quiet", "started"],
            "properties": {
                "cpu": {"type": "string"}, "cores": {"type": "integer", "minimum": 1},
                "memoryMiB": {"type": "integer"}, "kernel": {"type": "string"}, "system": {"type": "string"},
                "python": {"type": "string"}, "commit": {"type": "string"}, "dirty": {"type": "boolean"},
                "versions": {"type": "object", "additionalProperties": {"type": "string"}},
                "scheduler": {"type": "string"}, "quiet": {"type": "boolean"}, "started": {"type": "string"},
                "busyBefore": {"type": "number"}, "architecture": {"type": "string"},
                "virtual": {"type": "boolean"},
                "loadBefore": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
            },
        },
        "benches": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["figures"],
                "properties": {
                    "figures": {"type": "array", "items": {
                        "type": "object",
                        "required": ["name", "unit", "n", "median", "p95", "min", "max", "target", "met", "samples"],
                        "properties": {
                            "name": {"type": "string"}, "unit": {"type": "string"},
                            "n": {"type": "integer", "minimum": 1}, "target": _NUMBER_OR_NULL,
                            "met": {"type": ["boolean", "null"]}, "note": {"type": "string"},
                            "samples": {"type": "array", "items": {"type": "number"}, "minItems": 1},
                            **{key: {"type": "number"} for key in ("median", "p95", "min", "max")},
                        },
                    }},
                    "detail": {"type": "object"},
                    "error": {"type": "string"},
                },
            },
        },
    },
}


def table(figures: Sequence[Figure], *, markdown: bool = False) -> str:
    """The rows as aligned text, or as a Markdown table for ``docs/benchmarks.md``."""
    head = ("measure", "median", "p95", "N", "unit", "target", "met")
    rows = [(one.name, _shown(one.median), _shown(one.p95), str(len(one.samples)), one.unit,
             "" if one.target is None else f"< {one.target:g}",
             {None: "", True: "yes", False: "NO"}[one.met]) for one in figures]
    if markdown:
        lines = [head, ("---", "--:", "--:", "--:", "---", "--:", "---"), *rows]
        return "\n".join("| " + " | ".join(row) + " |" for row in lines)
    wide = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    right = {1, 2, 3, 5}
    return "\n".join(
        "  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(row, wide, strict=True))).rstrip()
        for row in (head, tuple("-" * width for width in wide), *rows))


def _shown(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write(path: str, figures: Sequence[Figure], detail: Json) -> None:
    """What a single bench hands to the command that ran it."""
    payload = {"figures": [one.payload() for one in figures], "detail": detail}
    Path(path).write_text(json.dumps(payload, indent=1) + "\n")
