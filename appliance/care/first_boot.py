"""What an image found on its card before the daemon started: a first boot file with faults, or one that a device which
is set up refuses. Where there is no image there is nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["NOTHING", "NOTICES", "FirstBoot", "first_boot"]

log = logging.getLogger(__name__)

NOTICES: Final = "EDGECALL_NOTICES"
"""Names the file: a JSON object with the lists ``faults`` and ``refused`` (sections)."""
MAX_BYTES: Final = 1024 * 1024


class FirstBoot(NamedTuple):
    faults: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


NOTHING: Final = FirstBoot()


def first_boot(environ: Mapping[str, str]) -> FirstBoot:
    """A file that is missing or damaged says nothing; the journal has what the image said there."""
    path = environ.get(NOTICES)
    if not path:
        return NOTHING
    try:
        with Path(path).open("rb") as file:
            document = json.loads(file.read(MAX_BYTES))
        return FirstBoot(_texts(document["faults"]), _texts(document["refused"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s of the image cannot be read: %s", path, error)
        return NOTHING


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return tuple(map(str, value))
