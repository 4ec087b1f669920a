"""The verbs of updates: what they are given is checked here, before anything is kept or asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from appliance.care.update import Update
from appliance.care.update_job import Job, Kind, When
from appliance.errors import BadRequest, NotPermitted
from appliance.intake import Handler
from appliance.settings import formats
from appliance.vocabulary import Command, Json

__all__ = ["UpdateCommands", "is_below"]


class UpdateCommands:
    """``origins``: those of the settings in force. A job is called by the id of its command."""

    def __init__(self, update: Update, *, device_id: str, origins: Callable[[], Sequence[str]]) -> None:
        self._update = update
        self._device_id = device_id
        self._origins = origins

    def handlers(self) -> Mapping[str, Handler]:
        return {"update.install": self._install, "update.status": self._status, "update.commit": self._commit,
                "update.back": self._back, "update.cancel": self._cancel, "device.factoryReset": self._factory_reset}

    async def _install(self, command: Command) -> Json:
        args = command.args
        force, not_before = _moment(args, "force"), _moment(args, "notBefore")
        if force is not None and not_before is not None and force < not_before:
            raise BadRequest("force is earlier than notBefore", sub_code="force")
        url, origins = _checked(args, "url", formats.UPDATE_URL.check), self._origins()
        await self._update.look()  # where there is nothing to update, that is what is to be said
        if not is_below(url, origins):
            raise NotPermitted(f"Updates may come from {' and '.join(origins) or 'nowhere'}: see update.origins of the "
                               "settings.", sub_code="notAllowed")
        when = When.HELD if args.get("hold") else When.WINDOW
        return await self._take_on(command, Job(command.id, url=url, version=args.get("version", ""),
                                                not_before=not_before, force=force, when=when))

    async def _back(self, command: Command) -> Json:
        return await self._take_on(
            command, Job(command.id, Kind.BACK, force=_moment(command.args, "force"), when=When.NOW))

    async def _take_on(self, command: Command, job: Job) -> Json:
        await self._update.take_on(job, origin=command.origin.value, sender=command.sender)
        return self._told()

    async def _status(self, _: Command) -> Json:
        await self._update.look()
        return self._told()

    async def _commit(self, command: Command) -> Json:
        await self._update.hasten(command.id, _moment(command.args, "force"))
        return self._told()

    async def _cancel(self, _: Command) -> Json:
        await self._update.cancel()
        return self._told()

    async def _factory_reset(self, command: Command) -> None:
        if command.args["device"] != self._device_id:
            raise BadRequest(f"This device is {self._device_id}; nothing was done.", sub_code="device")
        await self._update.factory_reset(origin=command.origin.value, sender=command.sender)

    def _told(self) -> Json:
        return {"update": self._update.document()}


def is_below(url: str, origins: Sequence[str]) -> bool:
    """Whether an address is of the same server as one of these, and below its folder."""
    asked = urlsplit(url)
    return any(_server(origin) == _server(url) and asked.path.startswith(urlsplit(origin).path) for origin in origins)


def _server(url: str) -> tuple[str, str | None, int]:
    split = urlsplit(url)
    return split.scheme, split.hostname, split.port or (443 if split.scheme == "https" else 80)


def _checked(args: Mapping[str, Any], name: str, check: Callable[[str], str]) -> str:
    try:
        return check(args[name])
    except ValueError as error:
        raise BadRequest(f"{name} {error}", sub_code=name) from None


def _moment(args: Mapping[str, Any], name: str) -> float | None:
    """Seconds since the epoch."""
    if name not in args:
        return None
    return datetime.fromisoformat(_checked(args, name, formats.MOMENT.check)).timestamp()
