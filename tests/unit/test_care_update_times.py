"""When an update is installed and the device restarts: calls and their lock, windows, dates, and what passes them."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from appliance.care.update import LOOK_S, STALE_S
from appliance.settings import UpdateSettings
from tests.support.clock import virtual_time
from tests.support.update_world import NIGHT, SETTINGS, URL, World, later, pending


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@virtual_time
async def test_in_a_call_it_comes_slowly_and_the_restart_waits_a_minute_after_its_end(world: World) -> None:
    service, loop = world.service, asyncio.get_running_loop()
    async with world.run() as run:
        await asyncio.sleep(100)
        run.call("Connected")
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
        assert service.last("install")["rateLimit"] == 50_000  # bytes, of 400 kbit/s
        run.call("Disconnected")
        await asyncio.sleep(1)
        assert service.last("rate") == {"verb": "rate", "rateLimit": None}
        run.call("Incoming")
        await asyncio.sleep(1)
        assert service.last("rate")["rateLimit"] == 50_000
        run.call("Connected")
        await service.installed()
        await run.until(lambda: run.document["waitsFor"] == ["call"])
        await asyncio.sleep(1000)
        assert service.count("reboot") == 0
        run.call("Disconnected")
        ended = loop.time()
        await asyncio.sleep(50)
        assert run.document["waitsFor"] == ["idle"]
        run.call("Connecting")
        await asyncio.sleep(5)
        run.call("None")
        ended = loop.time()
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
        assert loop.time() - ended == pytest.approx(60, abs=0.1)
        assert service.count("install") == service.count("reboot") == 1


@virtual_time
async def test_the_window_is_waited_for(world: World) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with world.run(UpdateSettings(origins=SETTINGS.origins, window=("Mon 02:00-05:00",))) as run:
        await pending(world, run)
        assert run.document["waitsFor"] == ["idle", "window"]
        await asyncio.sleep(3000)
        assert run.document["waitsFor"] == ["window"]
        await run.until(lambda: run.document["phase"] == "rebooting", 700)
        assert 0 <= loop.time() - began - 3600 <= LOOK_S


@virtual_time
async def test_a_new_window_holds_at_once(world: World) -> None:
    async with world.run(UpdateSettings(origins=SETTINGS.origins, window=("Tue 02:00-05:00",))) as run:
        await pending(world, run)
        await asyncio.sleep(100)
        run.update.configure(SETTINGS)
        await run.until(lambda: run.document["phase"] == "rebooting", 1)


@virtual_time
async def test_without_a_clock_no_window_is_open_and_commit_passes_it(world: World) -> None:
    world.clock.set = False
    async with world.run(UpdateSettings(origins=SETTINGS.origins, window=("00:00-24:00",))) as run:
        await pending(world, run, force=later(0))
        await asyncio.sleep(7200)
        assert run.document["waitsFor"] == ["clock"]
        assert await run.give("update.commit")
        await run.until(lambda: run.document["phase"] == "rebooting", 1)


@virtual_time
async def test_what_is_held_waits_for_the_word(world: World) -> None:
    async with world.run() as run:
        await pending(world, run, hold=True)
        await asyncio.sleep(2 * STALE_S)
        assert run.document["waitsFor"] == ["commit"]
        assert not run.diagnostics.raised("updatePending")  # somebody wanted it so
        await run.give("update.commit")
        await run.until(lambda: run.document["phase"] == "rebooting", 1)


@virtual_time
async def test_one_that_waits_for_a_day_is_told_as_trouble(world: World) -> None:
    async with world.run() as run:
        run.call("Connected")
        await pending(world, run)
        await asyncio.sleep(STALE_S - LOOK_S)
        assert not run.diagnostics.raised("updatePending")
        await asyncio.sleep(2 * LOOK_S)
        assert run.bulletin.document("diag")["updatePending"]["detail"] == {"what": "it waits for: call"}
        run.call("Disconnected")
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
        await asyncio.sleep(1)
        assert not run.diagnostics.raised("updatePending")


@virtual_time
async def test_a_date_forces_it_in_a_call(world: World) -> None:
    async with world.run() as run:
        run.call("Connected")
        await pending(world, run, force=later(7200))
        await asyncio.sleep(7000)
        assert run.lock.held
        await run.until(lambda: run.document["phase"] == "rebooting", 300)
        assert world.clock.wall() >= NIGHT + 7200
        assert not run.lock.held
        assert run.event("update.restarting")["forced"] is True


@virtual_time
async def test_nothing_forces_it_in_an_emergency_call(world: World) -> None:
    async with world.run() as run:
        run.call("Connected", isEmergency=True)
        await pending(world, run, force=later(0))
        await asyncio.sleep(7200)
        assert run.document["waitsFor"] == ["call"]
        assert run.lock.held
        run.call("Disconnected")
        await run.until(lambda: run.document["phase"] == "rebooting", 1)


@virtual_time
async def test_a_forced_restart_that_is_refused_leaves_the_call_its_lock(
        world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.service.refuses["reboot"] = "busy"
    async with world.run() as run:
        run.call("Connected")
        await pending(world, run, force=later(0))
        await asyncio.sleep(100)
        assert run.lock.held
        assert run.document["waitsFor"] == ["service"]
        assert caplog.text.count("refused: busy") == 1  # and it was tried more often
        assert world.service.count("reboot") > 2
        del world.service.refuses["reboot"]
        await run.until(lambda: run.document["phase"] == "rebooting", 2 * LOOK_S)


@virtual_time
async def test_a_forced_restart_that_does_not_happen_gives_the_call_its_lock_back(world: World) -> None:
    async with world.run() as run:
        run.call("Connected")
        await pending(world, run, force=later(0))
        await run.until(lambda: run.document["phase"] == "rebooting")
        assert not run.lock.held
        world.service.refuses["reboot"] = "failed"
        await world.service.set(phase="pending")
        await run.until(lambda: run.document["waitsFor"] == ["service"])
        assert run.lock.held


@virtual_time
async def test_nothing_begins_before_its_date(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", url=URL, notBefore=later(3600))
        await asyncio.sleep(3500)
        assert run.document["waitsFor"] == ["date"]
        assert run.document["phase"] == "waiting"
        assert world.service.asked == []
        await run.until(lambda: run.document["phase"] == "installing", 200)


# --- the lock -------------------------------------------------------------------------------------------------------


@virtual_time
async def test_the_lock_is_held_from_the_first_ring_to_the_end(world: World) -> None:
    async with world.run() as run:
        assert not run.lock.held
        for state in ("Incoming", "Connecting", "Ringing", "Connected", "LocalHold", "Reconnecting", "Disconnecting"):
            run.call(state)
            assert run.lock.held, state
        run.call("Disconnected")
        assert not run.lock.held


@virtual_time
async def test_a_call_that_comes_when_a_restart_holds_the_lock_takes_it_when_that_came_to_nothing(
        world: World) -> None:
    async with world.run() as run:
        file = await asyncio.to_thread(os.open, world.lock, os.O_RDONLY)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.call("Incoming")
        assert not run.lock.held
        os.close(file)
        await asyncio.sleep(2)
        assert run.lock.held


@virtual_time
async def test_where_the_file_cannot_be_made_calls_go_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.lock = world.lock.parent / "missing" / "call.lock"
    async with world.run() as run:
        run.call("Connected")
        assert not run.lock.held
        assert "will not wait for the end of a call" in caplog.text
