"""A flashed device without the rest of the appliance: its root service (the fake one), and updates run by run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from jsonschema import Draft202012Validator

from appliance.bulletin import Bulletin
from appliance.care.call_lock import CallLock
from appliance.care.diagnostics import Diagnostics
from appliance.care.update import Update
from appliance.care.update_commands import UpdateCommands
from appliance.care.update_service import RootService
from appliance.errors import StoreError
from appliance.faces import jsonschema
from appliance.settings import UpdateSettings
from appliance.vocabulary import VERB, Command, Event, Json, Origin, Scope
from tests.support.root_service import FakeRootService

__all__ = ["NIGHT", "ORIGIN", "SETTINGS", "URL", "Clock", "Run", "Small", "World", "later", "pending"]

ORIGIN: Final = "https://updates.example.org/"
URL: Final = f"{ORIGIN}door/2.0.0.raucb"
SETTINGS: Final = UpdateSettings(origins=(ORIGIN,), call_bitrate=400_000)
NIGHT: Final = datetime(2026, 11, 30, 1, 0, tzinfo=UTC).timestamp()
"""When virtual time begins: one o'clock on a Monday, and local time is UTC."""


def later(seconds: float) -> str:
    """A time so long after the beginning of the test."""
    return (datetime.fromtimestamp(NIGHT, UTC) + timedelta(seconds=seconds)).isoformat()


class Clock:
    set = True

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return NIGHT + self.monotonic() - 1000.0  # where virtual time begins

    def synchronised(self) -> bool:
        return self.set

    def local(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)


class Small:
    """The store's small values. ``failing``: nothing can be written."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.failing = False

    async def get(self, name: str, default: str | None = None) -> str | None:
        return self.values.get(name, default)

    async def set(self, name: str, value: str) -> None:
        if self.failing:
            raise StoreError("the card is full")
        self.values[name] = value


class Parts(Protocol):
    """What outlives a run."""

    @property
    def socket(self) -> Path: ...
    @property
    def lock(self) -> Path: ...
    @property
    def small(self) -> Small: ...
    @property
    def clock(self) -> Clock: ...


class Run:
    """One run of the appliance, from its start to its stop."""

    def __init__(self, world: Parts, name: str, settings: UpdateSettings) -> None:
        self.events: list[Event] = []
        self.kept_events = 0
        self.bulletin = Bulletin(name)
        self.diagnostics = Diagnostics(self.bulletin, wall=world.clock.wall)
        self.lock = CallLock(world.lock)
        self.update = Update(RootService(world.socket), world.small, self.bulletin, self.diagnostics, world.clock,
                             self.lock, settings, settle=self._settle, local_time=world.clock.local)
        self.commands = UpdateCommands(self.update, device_id="door-1", origins=lambda: settings.origins)
        self._names = iter(range(100))

    @asynccontextmanager
    async def living(self) -> AsyncIterator[Run]:
        await self.lock.open()
        await self.update.recall()
        with (self.bulletin.subscribed(on_document=self.lock.on_document),
              self.bulletin.subscribed(on_document=self.update.on_document, on_event=self.events.append)):
            serving = asyncio.create_task(self.update.run(), name="care.update")
            try:
                yield self
            finally:
                serving.cancel()
                await asyncio.wait({serving})
                if not serving.cancelled():
                    serving.result()
                self.diagnostics.close()
                self.lock.close()
        Draft202012Validator(jsonschema.state("update")).validate(self.document)

    async def _settle(self) -> None:
        self.kept_events = len(self.events)

    async def give(self, verb: str, name: str = "", **args: Any) -> Json | None:
        command = Command(name or f"c{next(self._names)}", VERB[verb], args, Origin.MQTT, "boss", Scope.ADMIN)
        return await self.commands.handlers()[verb](command)

    def call(self, state: str, **fields: Any) -> None:
        self.bulletin.set("call", {"state": state, "callId": "call-1", **fields})

    @property
    def document(self) -> Json:
        return self.bulletin.document("update")

    @property
    def told(self) -> list[str]:
        return [event.type for event in self.events if event.type.startswith("update.")]

    def event(self, name: str) -> Json:
        (found,) = [event.data for event in self.events if event.type == name]
        return found

    async def until(self, condition: Callable[[], Any], within_s: float = 5.0) -> None:
        """Looked at whenever a document or an event has come. What is due at a time needs that time."""
        changed = asyncio.Event()
        tell = lambda *_: changed.set()  # noqa: E731
        with self.bulletin.subscribed(on_document=tell, on_event=tell):
            async with asyncio.timeout(within_s):
                while not condition():
                    changed.clear()
                    await changed.wait()


class World:
    """A device whose root service lives on while the appliance comes and goes; ``image``: whether there is one."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "update.sock"
        self.lock = folder / "call.lock"
        self.service = FakeRootService(self.socket, self.lock)
        self.image = True
        self.small = Small()
        self.clock = Clock()
        self._runs = 0

    @asynccontextmanager
    async def run(self, settings: UpdateSettings = SETTINGS) -> AsyncIterator[Run]:
        self._runs += 1
        if self.image:
            await self.service.start()
        try:
            async with Run(self, f"b{self._runs}", settings).living() as run:
                yield run
        finally:
            await self.service.stop()


async def pending(world: World, run: Run, **args: Any) -> None:
    """An update that is installed, and not started yet."""
    await run.give("update.install", name="job-1", url=URL, **args)
    await run.until(lambda: run.document["phase"] == "installing")
    await world.service.installed()
    await run.until(lambda: "update.installed" in run.told)
