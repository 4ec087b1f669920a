"""Updates, against the root service's protocol on a real socket: the good way, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from appliance.care.update import LOOK_S
from appliance.errors import Refused, StoreError
from tests.support.clock import virtual_time
from tests.support.update_world import URL, World, pending


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- the good way ---------------------------------------------------------------------------------------------------


@virtual_time
async def test_an_update_is_installed_started_and_told_once_by_the_system_that_runs_then(world: World) -> None:
    service, loop = world.service, asyncio.get_running_loop()
    began = loop.time()
    async with world.run() as run:
        answer = await run.give("update.install", name="job-1", url=f"{URL}?key=hush", version="2.0.0")
        assert answer is not None
        assert answer["update"]["job"]["url"] == URL  # what may be secret in it is shown to nobody
        await run.until(lambda: run.document["phase"] == "installing")
        assert service.asked == [{"verb": "install", "url": f"{URL}?key=hush", "id": "job-1", "rateLimit": None}]
        await service.set(progress=40, step="Copying image")
        await run.until(lambda: run.document["progress"] == 40)
        await service.installed()
        await run.until(lambda: run.document["waitsFor"] == ["idle"])
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
        assert loop.time() - began == pytest.approx(60, abs=0.1)
        assert run.told == ["update.requested", "update.started", "update.installed", "update.restarting"]
        assert run.event("update.installed")["version"] == "2.0.0"
        assert run.event("update.restarting") == {"job": "job-1", "version": "2.0.0", "forced": False}
    await service.restart("B", trial=True, version="2.0.0")
    async with world.run() as new:
        await new.until(lambda: new.document["phase"] == "trial")
        assert new.document["job"]["id"] == "job-1"
        assert new.told == []
        await service.end("succeeded")
        await new.until(lambda: new.document["last"])
        assert new.told == ["update.completed"]
        assert new.event("update.completed") == {
            "job": "job-1", "kind": "install", "result": "succeeded", "version": "2.0.0", "running": "2.0.0",
            "code": "", "message": ""}
        assert new.kept_events == 1  # before the job is forgotten
        assert new.document["job"] is None
        assert not new.diagnostics.raised("updateFailed")
    async with world.run() as later_run:
        await later_run.until(lambda: later_run.document["phase"] == "idle")
        await asyncio.sleep(2 * LOOK_S)
        assert later_run.told == []
        assert later_run.document["last"]["result"] == "succeeded"


@virtual_time
async def test_a_sick_system_is_reported_by_the_one_before_it(world: World) -> None:
    async with world.run() as run:
        await pending(world, run)
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
    await world.service.end("rolledBack", code="unhealthy", message="no camera", slot="A", version="1.0.0")
    async with world.run() as old:
        await old.until(lambda: old.document["last"])
        told = old.event("update.completed")
        assert (told["result"], told["version"], told["running"]) == ("rolledBack", "2.0.0", "1.0.0")
        assert old.diagnostics.raised("updateFailed")
        assert old.bulletin.document("diag")["updateFailed"]["detail"] == {"what": "no camera"}
        await pending(world, old)  # the next one takes its place
        assert not old.diagnostics.raised("updateFailed")


@virtual_time
async def test_at_rest_the_service_is_let_go(world: World) -> None:
    async with world.run() as run:
        await run.until(lambda: run.document["supported"])
        await asyncio.sleep(1)
        assert world.service.watchers == 0
        await pending(world, run)
        assert world.service.watchers == 1
        await world.service.end("failed", code="failed", message="no")
        await run.until(lambda: run.document["last"])
        await asyncio.sleep(1)
        assert world.service.watchers == 0


# --- what goes wrong ------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_restart_of_ours_in_between_changes_nothing(world: World) -> None:
    async with world.run() as run:
        run.call("Connected")
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
    async with world.run() as again:
        await again.until(lambda: again.document["phase"] == "installing")
        await asyncio.sleep(1)
        assert world.service.last("rate")["rateLimit"] is None  # the call is over: it crashed with us
        await world.service.installed()
        await again.until(lambda: again.document["phase"] == "rebooting", 61)
        assert world.service.count("install") == 1
        assert again.told == ["update.installed", "update.restarting"]


@virtual_time
async def test_what_a_power_cut_interrupts_is_done_again_and_given_up_in_the_end(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        for attempt in (1, 2, 3):
            await run.until(lambda n=attempt: run.document["job"]["attempt"] == n)
            assert run.document["phase"] == "installing"
            assert world.service.count("install") == attempt
            await world.service.end("interrupted", message="the power was cut")
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["result"] == "failed"
        await asyncio.sleep(100)
        assert world.service.count("install") == 3


@virtual_time
async def test_what_the_service_has_forgotten_is_asked_again(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
        await world.service.set(phase="idle", job=None)
        await run.until(lambda: run.document["job"]["attempt"] == 2)
        assert world.service.count("install") == 2


@pytest.mark.parametrize("code", ["notAllowed", "noSpace", "failed"])
@virtual_time
async def test_what_the_service_refuses_has_failed(world: World, code: str) -> None:
    world.service.refuses["install"] = code
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["last"])
        told = run.event("update.completed")
        assert (told["job"], told["result"], told["code"]) == ("job-1", "failed", code)
        assert run.document["job"] is None


@virtual_time
async def test_a_busy_service_is_waited_for(world: World) -> None:
    await world.service.set(phase="installing", job="of-somebody-else")
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["waitsFor"] == ["service"])
        await world.service.end("succeeded")
        await run.until(lambda: run.document["phase"] == "installing" and run.document["job"]["attempt"] == 1)
        assert run.event("update.completed")["job"] == "of-somebody-else"


@virtual_time
async def test_a_bundle_of_another_version_is_not_started(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL, version="2.0.0")
        await run.until(lambda: run.document["phase"] == "installing")
        await world.service.installed("1.9.9")
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["code"] == "otherVersion"
        assert world.service.count("cancel") == 1
        await asyncio.sleep(100)
        assert run.told.count("update.completed") == 1
        assert world.service.count("reboot") == 0


@virtual_time
async def test_a_service_that_dies_is_found_again(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
        await world.service.stop()
        await run.until(lambda: run.document["phase"] == "unknown")
        assert run.document["waitsFor"] == ["service"]
        with pytest.raises(Refused) as refused:
            await run.give("update.status")
        assert refused.value.key == "503/updateService"
        await asyncio.sleep(500)
        await world.service.start()
        await run.until(lambda: run.document["phase"] == "installing", 2 * LOOK_S)


@pytest.mark.parametrize("line", [
    b"\n", b"hello\n", b"[]\n", b"null\n", b'{"ok": true}\n', b'{"ok": true, "status": {"phase": "asleep"}}\n',
    b'{"ok": false, "error": "no"}\n', b'{"ok": true, "status": {"version": "1", "slot": "A", "trial": 0, '
    b'"phase": "idle", "progress": "x"}}\n', b"\xff\xfe\n", b"x" * 100_000 + b"\n", b"[" * 60_000 + b"\n", b"",
])
@virtual_time
async def test_a_service_that_talks_nonsense_is_lost_and_harms_nobody(world: World, line: bytes) -> None:
    world.service.garbles = line
    async with world.run() as run:
        await run.until(lambda: run.document["supported"])
        with pytest.raises(Refused) as refused:
            await run.give("update.install", url=URL)
        assert refused.value.key == "503/updateService"
        world.service.garbles = None
        await run.until(lambda: run.document["phase"] == "idle", 2 * LOOK_S)


@virtual_time
async def test_a_crash_before_it_is_forgotten_tells_it_again_under_the_same_id(world: World) -> None:
    async with world.run() as run:
        await pending(world, run)
        before = dict(world.small.values)
        await world.service.end("succeeded")
        await run.until(lambda: run.document["last"])
        (first,) = [event for event in run.events if event.type == "update.completed"]
    world.small.values = before
    async with world.run() as again:
        await again.until(lambda: again.document["last"])
        (second,) = [event for event in again.events if event.type == "update.completed"]
        assert second.id == first.id
        assert second.data == first.data


@virtual_time
async def test_what_a_restart_would_forget_is_not_taken_on(world: World) -> None:
    async with world.run() as run:
        world.small.failing = True
        with pytest.raises(StoreError):
            await run.give("update.install", url=URL)
        await asyncio.sleep(1)
        assert world.service.asked == []
        assert run.told == []


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"job": {"id": 5, "kind": "leap"}, "last": null, "told": ""}',
                                  '{"job": {}, "last": null, "told": ""}', '{"job": null, "last": 3, "told": ""}'])
@virtual_time
async def test_what_cannot_be_read_of_the_last_run_is_forgotten(world: World, kept: str) -> None:
    world.small.values["update"] = kept
    async with world.run() as run:
        await pending(world, run)


@virtual_time
async def test_what_a_later_version_has_kept_is_read(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
    kept = json.loads(world.small.values["update"])
    kept["job"]["mood"] = kept["mood"] = "good"
    world.small.values["update"] = json.dumps(kept)
    async with world.run() as again:
        await again.until(lambda: again.document["phase"] == "installing")
        assert again.document["job"]["id"] == "job-1"
