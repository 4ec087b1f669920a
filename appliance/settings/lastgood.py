"""A bad settings file never bricks the device: the last good one is kept beside the data and used in its place."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from appliance.durable import replace_file
from appliance.errors import SettingsError
from appliance.places import data_path
from appliance.settings.fields import Shape, fields_of
from appliance.settings.loading import Source, parse, read
from appliance.settings.sections import Settings

__all__ = ["EXIT_CONFIG", "Loaded", "copy_name", "load_or_last_good"]

OTHERS: Final = 1
"""Copies of other versions that are kept: of the one that can be gone back to."""
EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: the exit code of a start that the settings prevent."""

_log = logging.getLogger("edgecall.settings")


class Loaded(NamedTuple):
    """``faults`` is empty when ``settings`` are those of the file; else they are the last good ones."""

    settings: Settings
    faults: tuple[str, ...]


def load_or_last_good(
    path: Path | None = None, data_dir: Path | None = None, *, overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Load the settings file; keep a copy of a good one; in place of a bad one take the last good one.

    Secrets are not copied: the copy names the same files. Raises SettingsError with all faults when the file is
    bad and there is no good copy (leave with EXIT_CONFIG), or the copy cannot be used any more either.
    """
    folder = (data_dir or data_path(environ)).expanduser().absolute()
    try:
        source = read(path, environ)
        settings = parse(source, data_dir=folder, overrides=overrides, environ=environ)
    except SettingsError as error:
        return Loaded(_from_copy(error, folder, overrides, environ), error.faults)
    _keep(folder, source)
    return Loaded(settings, ())


@cache
def copy_name() -> str:
    """Of our copy: it is named by the settings that there are, so that another version, which knows others, has one of
    its own, and going back to it finds what it last took for good."""
    return f"settings.last-good.{hashlib.sha256(repr(_known(Settings)).encode()).hexdigest()[:12]}.toml"


def _known(section: type[Any]) -> list[Any]:
    """What makes one file good and another one not."""
    return [(one.key, one.shape.value, one.minimum, one.maximum, one.choices, one.required,
             one.format and one.format.says,
             _known(one.element) if one.shape in (Shape.SECTION, Shape.SECTIONS) else None)
            for one in fields_of(section)]


def _others(folder: Path) -> list[Path]:
    """Copies of other versions, the newest first. Raises OSError."""
    return sorted((path for path in folder.glob("settings.last-good*.toml") if path.name != copy_name()),
                  key=lambda path: path.stat().st_mtime, reverse=True)


def _from_copy(
    error: SettingsError, folder: Path, overrides: Mapping[str, object] | None, environ: Mapping[str, str],
) -> Settings:
    why: list[str] = []
    for copy in (folder / copy_name(), *_others(folder)):
        try:
            kept = read(copy)
        except SettingsError:
            if copy.exists():
                why.append(f"the last good copy {copy} cannot be read")
            continue
        try:
            return parse(kept, data_dir=folder, overrides=overrides, environ=environ, base=Path(error.path).parent)
        except SettingsError as second:
            why += [f"the last good copy {copy} cannot be used either: {fault}" for fault in second.faults]
    raise SettingsError(error.path, [*error.faults, *why]) from error


def _keep(folder: Path, source: Source) -> None:
    """Write the copy atomically; flash is spared when nothing changed. No file: forget all copies.

    A data folder that cannot be written does not stop a start with good settings; that is a diagnostic of storage.
    """
    copy = folder / copy_name()
    try:
        for old in _others(folder)[0 if source.text is None else OTHERS:]:
            old.unlink(missing_ok=True)
        if source.text is None:
            copy.unlink(missing_ok=True)
            return
        content = source.text.encode()
        if copy.exists() and copy.read_bytes() == content:
            return
        replace_file(copy, content)
    except OSError as error:
        _log.warning("the last good settings could not be kept in %s: %s", folder, error.strerror)
