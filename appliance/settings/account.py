"""Settings in force, told to others: shown without secrets, and compared for a reload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appliance.settings.fields import Shape, fields_of
from appliance.settings.secret import Secret
from appliance.settings.sections import Settings
from appliance.vocabulary import Json

__all__ = ["Changes", "changes", "explain"]


def explain(settings: Settings) -> Json:
    """The settings in force as JSON, for ``config.get``; a secret shows only whether it is set (``***``)."""
    return {**_shown(settings), "data_dir": str(settings.data_dir)}


def _shown(section: Any) -> Json:
    shown: Json = {}
    for one in fields_of(type(section)):
        value = getattr(section, one.name)
        if one.shape is Shape.SECTION:
            shown[one.name] = _shown(value)
        elif one.shape is Shape.SECTIONS:
            shown[one.name] = [_shown(item) for item in value]
        else:
            shown[one.name] = _plain(value)
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class Changes:
    """Dotted keys that differ: those that apply while running, and those that wait for the next start."""

    live: tuple[str, ...]
    restart: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.live or self.restart)


def changes(old: Settings, new: Settings) -> Changes:
    """What a reload from ``old`` to ``new`` changes; lists such as ``http.tokens`` count as one key."""
    live: list[str] = []
    restart: list[str] = []
    for section in fields_of(Settings):
        before, after = getattr(old, section.name), getattr(new, section.name)
        if section.shape is not Shape.SECTION:
            if before != after:
                (restart if section.restart else live).append(section.name)
            continue
        for one in fields_of(section.element):
            if getattr(before, one.name) != getattr(after, one.name):
                (restart if one.restart else live).append(f"{section.name}.{one.name}")
    if old.data_dir != new.data_dir:
        restart.append("data_dir")
    return Changes(tuple(live), tuple(restart))
