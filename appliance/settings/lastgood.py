"""A bad settings file never bricks the device: the last good one is kept beside the data and used in its place."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from appliance.durable import replace_file
from appliance.errors import SettingsError
from appliance.places import data_path
from appliance.settings.loading import Source, parse, read
from appliance.settings.sections import Settings

__all__ = ["EXIT_CONFIG", "LAST_GOOD", "Loaded", "load_or_last_good"]

LAST_GOOD: Final = "settings.last-good.toml"
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
    copy = folder / LAST_GOOD
    try:
        source = read(path, environ)
        settings = parse(source, data_dir=folder, overrides=overrides, environ=environ)
    except SettingsError as error:
        return Loaded(_from_copy(copy, error, folder, overrides, environ), error.faults)
    _keep(copy, source)
    return Loaded(settings, ())


def _from_copy(
    copy: Path, error: SettingsError, folder: Path, overrides: Mapping[str, object] | None, environ: Mapping[str, str],
) -> Settings:
    try:
        kept = read(copy)
    except SettingsError:
        if copy.exists():
            raise SettingsError(error.path, [*error.faults, f"the last good copy {copy} cannot be read"]) from error
        raise error from None
    try:
        return parse(kept, data_dir=folder, overrides=overrides, environ=environ, base=Path(error.path).parent)
    except SettingsError as second:
        why = [f"the last good copy {copy} cannot be used either: {fault}" for fault in second.faults]
        raise SettingsError(error.path, [*error.faults, *why]) from error


def _keep(copy: Path, source: Source) -> None:
    """Write the copy atomically; flash is spared when nothing changed. No file: forget the old copy.

    A data folder that cannot be written does not stop a start with good settings; that is a diagnostic of storage.
    """
    try:
        if source.text is None:
            copy.unlink(missing_ok=True)
            return
        content = source.text.encode()
        if copy.exists() and copy.read_bytes() == content:
            return
        replace_file(copy, content)
    except OSError as error:
        _log.warning("the last good settings could not be kept in %s: %s", copy.parent, error.strerror)
