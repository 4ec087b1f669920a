"""Settings while the appliance runs: reload by verb or SIGHUP, what is in force, what was refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.bulletin import Bulletin
from appliance.care.diagnostics import Diagnostics
from appliance.errors import BadRequest, SettingsError
from appliance.intake import Handler
from appliance.settings import Loaded, Settings, changes, explain
from appliance.vocabulary import Command, Json

__all__ = ["Configuration"]

log = logging.getLogger(__name__)


class Configuration:
    """``load`` reads the file (blocking); ``apply`` gives new settings to the rooms that take them while running.
    ``first_boot``: what an image found wrong in a first boot file; told as faults of the settings until the next start.
    """

    def __init__(self, loaded: Loaded, path: Path | None, bulletin: Bulletin, diagnostics: Diagnostics,
                 load: Callable[[], Loaded], apply: Callable[[Settings], None], *,
                 first_boot: tuple[str, ...] = ()) -> None:
        self.settings = loaded.settings
        self._path = path
        self._bulletin = bulletin
        self._diagnostics = diagnostics
        self._load = load
        self._apply = apply
        self._waiting: tuple[str, ...] = ()
        self._version = 1
        self._first_boot = tuple(f"first boot file: {fault}" for fault in first_boot)
        self._tell(loaded.faults)

    def handlers(self) -> Mapping[str, Handler]:
        return {"config.reload": self._reload_verb, "config.get": self._get}

    async def reload(self) -> tuple[str, ...]:
        """Read again. Returns the faults; with any, the settings in force stay."""
        try:
            loaded = await asyncio.to_thread(self._load)
        except SettingsError as error:
            self._tell(error.faults)
            return error.faults
        if loaded.faults:
            self._tell(loaded.faults)
            return loaded.faults
        difference = changes(self.settings, loaded.settings)
        self.settings = loaded.settings
        self._waiting = tuple(sorted({*self._waiting, *difference.restart}))
        if difference.live:
            self._apply(loaded.settings)
        self._version += bool(difference)
        self._tell(())
        self._bulletin.post("config.changed", applied=list(difference.live), needRestart=list(self._waiting))
        return ()

    async def _reload_verb(self, _: Command) -> Json:
        faults = await self.reload()
        if faults:
            raise BadRequest("the settings file has errors and the settings in force stay: " + "; ".join(faults),
                             sub_code="settings")
        return {"version": self._version, "needRestart": list(self._waiting)}

    async def _get(self, _: Command) -> Json:
        return {"settings": explain(self.settings)}

    def _tell(self, of_file: tuple[str, ...]) -> None:
        faults = (*of_file, *self._first_boot)
        self._diagnostics.flag("configRejected", bool(faults), errors=list(faults))
        self._bulletin.set("config", {
            "path": None if self._path is None else str(self._path), "version": self._version,
            "errors": list(faults), "needRestart": list(self._waiting)})
        if of_file:
            log.error("the settings file was refused: %s", "; ".join(of_file))
        if faults:
            self._bulletin.post("config.changed", applied=[], errors=list(faults))
