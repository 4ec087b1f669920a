"""Holds a statistics report against its schema: every dictionary whole, nothing unknown, references that lead on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jsonschema import Draft202012Validator

from appliance.faces.statistics import dictionary
from appliance.vocabulary import Json
from appliance.webrtc_stats import TYPES, Unit

_CHECKS: Final = {one.key: Draft202012Validator(dictionary(one)) for one in TYPES}
_REFERENCES: Final = {one.key: [m.name for m in one.members if m.unit is Unit.IDENTITY] for one in TYPES}


def row(report: Sequence[Json], type_: str, kind: str = "") -> Json:
    """The one dictionary of a type (and kind)."""
    (found,) = (one for one in report if one["type"] == type_ and kind in ("", one.get("kind")))
    return found


def faults(report: Sequence[Json]) -> list[str]:
    """What is wrong with a report, in words; empty when it is whole."""
    found = []
    ids = [one.get("id") for one in report]
    found += [f"two dictionaries have the id {one}" for one in set(ids) if ids.count(one) > 1]
    for one in report:
        key = one.get("type", "")
        key = key if key in _CHECKS else f"{key}/{one.get('kind')}"
        if key not in _CHECKS:
            found.append(f"unknown type {key}")
            continue
        found += [f"{key} {'.'.join(map(str, error.path))}: {error.message}" for error in _CHECKS[key].iter_errors(one)]
        found += [f"{key}: {name} leads to no dictionary ({one[name]})" for name in _REFERENCES[key]
                  if name in one and one[name] not in ids]
    return found
