"""The appliance's side of updates and the image's root service, which are built apart, meet over their socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.errors import Refused
from appliance.settings import UpdateSettings
from appliance.vocabulary import Json
from tests.support.appliance_socket import ApplianceSocket
from tests.support.bundle_server import BundleServer
from tests.support.fake_rauc import bundle
from tests.support.update_device import Device
from tests.support.update_world import Clock, Run, Small

PAST = "2026-01-01T00:00:00Z"
"""A date that forces: nobody waits for a quiet minute."""


class Now(Clock):
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def local(self) -> datetime:
        return datetime.now(UTC)


class World:
    """A device of both: what ``update_world.Run`` needs, beside the real service."""

    def __init__(self, folder: Path, server: BundleServer) -> None:
        self.device = Device(folder, (server.origin,))
        self.device.version["B"] = "1.1.0"
        self.socket, self.lock = self.device.socket, self.device.paths.call_lock
        self.small, self.clock = Small(), Now()
        self.settings = UpdateSettings(origins=(server.origin,))
        self._boots = 0

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Run]:
        self._boots += 1
        async with self.device.up():
            run = Run(self, f"b{self._boots}", self.settings)
            async with run.living():
                yield run


@pytest.fixture
def server() -> Iterator[BundleServer]:
    with BundleServer(bundle("1.1.0")) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, server: BundleServer) -> Iterator[World]:
    world = World(tmp_path, server)
    with ApplianceSocket(world.device.paths.daemon):
        yield world


async def told(run: Run) -> Json:
    await run.until(lambda: run.document["last"], 20)
    return run.event("update.completed")


async def test_a_good_update_and_back_again(world: World, server: BundleServer) -> None:
    async with world.up() as run:
        assert await run.give("update.install", name="job-1", url=server.url, version="1.1.0", force=PAST)
        await run.until(lambda: run.document["phase"] == "rebooting", 30)
        assert run.told == ["update.requested", "update.started", "update.installed", "update.restarting"]
    assert world.device.boots() == "B"
    async with world.up() as new:
        await new.until(lambda: new.document["phase"] == "trial", 20)
        assert await asyncio.to_thread(world.device.judged)
        assert (await world.device.ask("refresh"))["phase"] == "idle"
        completed = await told(new)
        assert (completed["job"], completed["result"], completed["running"]) == ("job-1", "succeeded", "1.1.0")
        await new.give("update.back", name="job-2", force=PAST)
        await new.until(lambda: new.document["phase"] == "rebooting", 20)
    assert world.device.boots() == "A"
    async with world.up() as old:
        await old.until(lambda: old.document["phase"] == "trial", 20)
        assert await asyncio.to_thread(world.device.judged)
        assert (await world.device.ask("refresh"))["phase"] == "idle"
        await old.until(lambda: old.told == ["update.completed"], 20)
        completed = old.event("update.completed")
        assert (completed["job"], completed["kind"], completed["result"]) == ("job-2", "back", "succeeded")
        assert (completed["version"], completed["running"]) == ("1.0.0", "1.0.0")


async def test_a_trial_that_was_cut(world: World, server: BundleServer) -> None:
    async with world.up() as run:
        await run.give("update.install", name="job-1", url=server.url, force=PAST)
        await run.until(lambda: run.document["phase"] == "rebooting", 30)
    assert world.device.boots() == "B"
    world.device.power_cut()
    async with world.up() as old:
        completed = await told(old)
        assert (completed["result"], completed["version"], completed["running"]) == ("rolledBack", "1.1.0", "1.0.0")
        assert old.diagnostics.raised("updateFailed")


async def test_an_installation_that_is_cut_is_done_again(world: World, server: BundleServer) -> None:
    world.device.rauc(wait_for=str(world.device.folder / "never"))
    async with world.up() as run:
        await run.give("update.install", name="job-1", url=server.url, hold=True)
        await run.until(lambda: "Verifying" in run.document["step"], 20)
    world.device.power_cut()
    world.device.rauc()
    async with world.up() as again:
        await again.until(lambda: again.document["phase"] == "pending", 30)
        await again.until(lambda: again.document["waitsFor"] == ["idle", "commit"])
        assert again.document["job"]["attempt"] == 2
        await again.give("update.cancel")
        completed = await told(again)
        assert (completed["job"], completed["result"]) == ("job-1", "cancelled")
        await again.until(lambda: again.document["phase"] == "idle")


async def test_a_call_is_not_cut_off_and_slows_it_down(world: World, server: BundleServer) -> None:
    world.device.rauc(wait_for=str(world.device.folder / "go"))
    async with world.up() as run:
        await run.give("update.install", name="job-1", url=server.url)
        await run.until(lambda: run.document["phase"] == "installing", 20)
        run.call("Connected")
        (world.device.folder / "go").touch()
        await run.until(lambda: run.document["waitsFor"] == ["call"], 20)
        assert (await world.device.ask("reboot"))["code"] == "busy"  # by the lock
        run.call("Disconnected")
        assert (await world.device.ask("reboot"))["phase"] == "rebooting"


@pytest.mark.parametrize(("content", "code"), [
    (bundle("1.1.0", signer="somebody"), "signature"), (bundle("0.9.0"), "tooOld"),
    (bundle("1.1.0", compatible="another"), "incompatible"),
])
async def test_what_is_refused_is_told_with_its_cause(
        world: World, server: BundleServer, content: bytes, code: str) -> None:
    server.content = content
    async with world.up() as run:
        await run.give("update.install", name="job-1", url=server.url)
        completed = await told(run)
        assert (completed["result"], completed["code"], completed["running"]) == ("failed", code, "1.0.0")


async def test_what_the_settings_do_not_allow_root_does_not_fetch(world: World, server: BundleServer) -> None:
    world.device.paths.settings.write_text("[update]\norigins = []\n")  # the daemon's are older
    async with world.up() as run:
        await run.give("update.install", name="job-1", url=server.url)
        completed = await told(run)
        assert (completed["result"], completed["code"]) == ("failed", "notAllowed")
    assert server.asked == []


async def test_there_is_nothing_to_go_back_to_on_a_new_device(world: World) -> None:
    async with world.up() as run:
        with pytest.raises(Refused):
            await run.give("update.commit")
        await run.give("update.back", name="job-1", force=PAST)
        completed = await told(run)
        assert (completed["kind"], completed["result"]) == ("back", "failed")
