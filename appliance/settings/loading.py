"""TOML to Settings: every fault found is reported, all at once, in words for the person who must act."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from appliance.errors import SettingsError
from appliance.places import config_path, data_path
from appliance.settings.fields import Field, Shape, fields_of
from appliance.settings.rules import RULES
from appliance.settings.secret import Secret, read_secret
from appliance.settings.sections import Settings

__all__ = ["Source", "default_device_id", "load", "parse"]

MAX_BYTES: Final = 1024 * 1024
"""A larger file is not a settings file; reading stops there."""



@dataclass(frozen=True, slots=True)
class Source:
    """The file as read: ``text`` is None when there is no file and none was named."""

    path: Path
    text: str | None


def load(
    path: Path | None = None, *, data_dir: Path | None = None, overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings of the file at ``path`` (None: where ``places.config_path`` finds one, or none at all).

    ``overrides`` are values by dotted key, such as ``{"board.name": "sim"}``, checked like those of the file.
    Raises SettingsError with all faults.
    """
    return parse(read(path, environ), data_dir=data_dir, overrides=overrides, environ=environ)


def read(path: Path | None, environ: Mapping[str, str] = os.environ) -> Source:
    """Read the file, at most 1 MiB of UTF-8. Raises SettingsError when a file that should be there cannot be.

    Only the place where it is looked for by default may be empty.
    """
    where, named = config_path(environ)
    if path is not None and path.absolute() != where:
        where, named = path.absolute(), True
    try:
        with where.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if not named:
            return Source(where, None)
        raise SettingsError(str(where), ["there is no such file"]) from None
    except OSError as error:
        raise SettingsError(str(where), [f"cannot be read: {error.strerror}"]) from error
    if len(content) > MAX_BYTES:
        raise SettingsError(str(where), ["is larger than 1 MiB: this is no settings file"])
    try:
        return Source(where, content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingsError(str(where), [f"is not UTF-8 text (line {line})"]) from None


def parse(
    source: Source, *, data_dir: Path | None = None, overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ, base: Path | None = None,
) -> Settings:
    """Check a file already read; secrets with relative paths are looked up below ``base`` (the file's folder)."""
    try:
        table = tomllib.loads(source.text or "")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        # ValueError: an impossible date, or an integer of thousands of digits, reaches us from below tomllib
        words = "is nested too deeply" if isinstance(error, RecursionError) else f"is not TOML: {error}"
        raise SettingsError(str(source.path), [words]) from None
    _override(table, overrides or {})
    checker = _Checker(base or source.path.parent, environ)
    settings: Settings = checker.section(Settings, table, "")
    if not _given(table, "device", "id"):
        device = dataclasses.replace(settings.device, id=default_device_id())
        settings = dataclasses.replace(settings, device=device)
    settings = dataclasses.replace(settings, data_dir=(data_dir or data_path(environ)).expanduser().absolute())
    checker.rules(settings)
    if checker.faults:
        raise SettingsError(str(source.path), checker.faults)
    return settings


def default_device_id(host: str | None = None) -> str:
    """``edgecall-<host name>``, made to fit the pattern of device ids."""
    name = (socket.gethostname() if host is None else host).split(".")[0].lower()
    fitting = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    return f"edgecall-{fitting}"[:40].rstrip("-")


def _override(table: dict[str, Any], overrides: Mapping[str, object]) -> None:
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        inner = table.setdefault(section, {})
        if isinstance(inner, dict):  # anything else is a fault of the file, told as such
            inner[name] = value


def _given(table: Mapping[str, Any], section: str, key: str) -> bool:
    inner = table.get(section)
    return isinstance(inner, dict) and key in inner


@dataclass(slots=True)
class _Checker:
    """Builds sections from tables. A value with a fault is replaced by its default, so that the search goes on."""

    base: Path
    environ: Mapping[str, str]
    faults: list[str] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)

    def fault(self, key: str, why: str, value: object = None) -> None:
        self.wrong.add(key)
        self.faults.append(f"{key}{_shown(value)}: {why}")

    def section(self, cls: type[Any], table: Mapping[str, Any], prefix: str) -> Any:
        known = {one.key: one for one in fields_of(cls)}
        for key, value in table.items():
            if key not in known:
                self._unknown(cls, known, key, value, prefix)
        values = {}
        for key, one in known.items():
            path = f"{prefix}{key}"
            if key in table:
                values[one.name] = self._value(one, table[key], path)
            elif one.required:
                self.fault(path, f"is missing. {one.help} Write {key} = {one.example or '…'}")
        return cls(**values)

    def rules(self, settings: Settings) -> None:
        """What must hold between values; silent about what already has a fault of its own."""
        for rule in RULES:
            for key, why in rule(settings):
                if key not in self.wrong:
                    self.fault(key, why)

    def _unknown(self, cls: type[Any], known: Mapping[str, Field], key: str, value: object, prefix: str) -> None:
        path = f"{prefix}{_safe_key(key)}"
        secret = next((one for one in known.values() if one.shape is Shape.SECRET and one.name == key), None)
        if secret is not None:
            self.wrong.add(f"{prefix}{secret.key}")
            self.fault(path, "a secret must not stand in this file. Put it alone into a file that only the service "
                             f"can read (chmod 600) and write {secret.key} = \"/path/of/the/file\", "
                             f"or {secret.key} = \"credential:NAME\" for a systemd credential")
            return
        if cls is Settings and key == "data_dir":
            self.fault(path, "the data folder is not chosen here, because it holds the last good copy of this file: "
                             "use --data or EDGECALL_DATA", value)
            return
        kind = "section" if isinstance(value, dict) or _is_tables(value) else "setting"
        self.fault(path, f"there is no such {kind}.{_suggestion(known, key, prefix)}")

    def _value(self, one: Field, value: object, path: str) -> Any:
        if one.shape is Shape.SECTION:
            if isinstance(value, dict):
                return self.section(one.element, value, f"{path}.")
            self.fault(path, f"must be a section: write [{path}] on a line of its own", value)
            return one.default
        if one.shape is Shape.SECTIONS:
            return self._sections(one, value, path)
        try:
            return self._scalar(one, value)
        except ValueError as error:
            self.fault(path, str(error), None if one.shape is Shape.SECRET else value)
            return one.default

    def _sections(self, one: Field, value: object, path: str) -> Any:
        if not isinstance(value, list) or not _is_tables(value):
            self.fault(path, f"must be a list of sections: write [[{path}]] before each", value)
            return one.default
        if len(value) > one.maximum:
            self.fault(path, f"has {len(value)} entries; at most {one.maximum:g} are allowed")
        # entries are counted from 1, as people do
        return tuple(self.section(one.element, item, f"{path}[{n}].") for n, item in enumerate(value, 1))

    def _scalar(self, one: Field, value: object) -> Any:
        if one.shape is Shape.BOOLEAN:
            if not isinstance(value, bool):
                raise ValueError("must be true or false, without quotes")
            return value
        if one.shape in {Shape.INTEGER, Shape.NUMBER}:
            return _number(one, value)
        if one.shape is Shape.TEXTS:
            return _texts(one, value)
        if not isinstance(value, str):
            raise _WrongTypeError("must be a text in quotes")
        if one.shape is Shape.SECRET:
            return read_secret(value, self.base, self.environ) if value else Secret()
        return _text(one, value)


class _WrongTypeError(ValueError):
    """Another type than the setting has, in words."""


def _number(one: Field, value: object) -> int | float:
    whole = one.shape is Shape.INTEGER
    if whole and isinstance(value, float):
        raise _WrongTypeError("must be a whole number, without point or exponent")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongTypeError("must be a whole number, without quotes" if whole else "must be a number, without quotes")
    if not one.minimum <= value <= one.maximum:  # written so that nan is refused too
        raise ValueError(f"must be {one.limits}")
    return value if whole else float(value)


def _text(one: Field, value: str) -> str:
    if not value:
        if one.default or one.required:
            raise ValueError("must not be empty")
        return value
    if not value.isprintable():
        raise ValueError("must not hold control characters")
    if one.choices:
        if value in one.choices:
            return value
        near = difflib.get_close_matches(value.lower(), one.choices, 1)
        raise ValueError(f"must be one of {', '.join(one.choices)}." + (f" Did you mean '{near[0]}'?" if near else ""))
    if not one.minimum <= len(value) <= one.maximum:
        raise ValueError(f"must have {one.minimum:g} to {one.maximum:g} characters")
    return one.format.check(value) if one.format is not None else value


def _texts(one: Field, value: object) -> tuple[str, ...]:
    if one.alone and isinstance(value, str):
        value = [value] if value else []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _WrongTypeError('must be a list of texts, such as ["a", "b"]')
    if len(value) > one.maximum:
        raise ValueError(f"has {len(value)} entries; at most {one.maximum:g} are allowed")
    checked, wrong = [], []
    for item in value:
        if not item or not item.isprintable() or len(item) > 512:
            wrong.append(f"'{_cut(item)}': an entry must have 1 to 512 characters and no control characters")
            continue
        try:
            checked.append(one.format.check(item) if one.format is not None else item)
        except ValueError as error:
            wrong.append(f"'{_cut(item)}': {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(checked)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value) and bool(value)


def _suggestion(known: Mapping[str, Field], key: str, prefix: str) -> str:
    near = difflib.get_close_matches(key.lower(), list(known), 1)
    if near:
        return f" Did you mean '{near[0]}'?"
    homes = [
        section.key for section in fields_of(Settings)
        if section.element is not None and any(one.key == key for one in fields_of(section.element))
    ]
    if homes and prefix.rstrip(".") not in homes:
        return f" It belongs into [{homes[0]}]"
    return f" Known here: {', '.join(known)}"


def _shown(value: object) -> str:
    """`` = value`` as it may be shown: short and printable. Callers pass None for what may be a secret."""
    if value is None:
        return ""
    if isinstance(value, dict | list) and not all(isinstance(item, str | int | float) for item in value):
        return ""
    return f" = {_cut(repr(value))}"


def _cut(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= 60 else f"{printable[:57]}..."


def _safe_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key) else f"'{_cut(key)}'"
