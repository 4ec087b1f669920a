"""Whatever comes in whatever order, with restarts of both in between: nobody is cut off, and each job ends once."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.care.update_job import IDLE_S
from appliance.errors import EdgecallError
from appliance.settings import UpdateSettings
from appliance.vocabulary import Json
from tests.support.clock import run_virtual
from tests.support.update_world import NIGHT, ORIGIN, URL, Run, World, later

DAY: Final = 86_400.0
SETTINGS: Final = (UpdateSettings(origins=(ORIGIN,)), UpdateSettings(origins=(ORIGIN,), window=("02:00-05:00",)))
ORDER: Final = st.tuples(st.just("install"), st.fixed_dictionaries({}, optional={
    "hold": st.booleans(), "force": st.floats(0, 10_000).map(later), "notBefore": st.floats(0, 10_000).map(later),
    "version": st.sampled_from(["1.0.0", "2.0.0", "3.0.0"])}))
WAIT: Final = st.tuples(st.just("wait"), st.sampled_from([1.0, 59.0, 61.0, 3600.0, 30_000.0]))
STEP: Final = st.one_of(WAIT, ORDER, st.tuples(st.sampled_from([
    "call", "emergency", "hang up", "restart of ours", "clock", "no clock", "interrupted", "failed", "installed",
    "service lost", "cancel", "commit", "back", "come up", "sick"]), st.none()))
SOON: Final = ("wait", 1.0)
BEGUN: Final = st.one_of(  # chance alone seldom comes so far
    st.just([]), ORDER.map(lambda order: [order, SOON]),
    ORDER.map(lambda order: [order, SOON, ("installed", None), SOON]),
    st.just([("call", None), ("install", {}), SOON, ("installed", None), ("hang up", None)]),
    st.just([("install", {}), SOON, *(("interrupted", None), SOON) * 2]))


class Life:
    """A device and everything that happens to it."""

    def __init__(self, folder: Path, settings: UpdateSettings) -> None:
        self.world = World(folder)
        self.world.service.on_restart = self._restarts
        self.settings = settings
        self.taken: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.wrong: list[Any] = []  # restarts at the wrong moment
        self._numbers = iter(range(1000))
        self._quiet_since = 0.0
        self._stack = AsyncExitStack()
        self.run: Run | None = None

    async def begin(self) -> Run:
        self._quiet_since = asyncio.get_running_loop().time()
        self.run = await self._stack.enter_async_context(self.world.run(self.settings))
        return self.run

    async def end(self) -> None:
        assert self.run is not None
        await self._stack.aclose()
        for event in self.run.events:
            if event.type == "update.completed":
                self.ends[event.data["job"]] += 1

    def _restarts(self, verb: str) -> None:
        """The service is asked to; it looks for itself whether anybody calls."""
        assert self.run is not None
        call = self.run.bulletin.document("call")
        job = self.run.update.job
        assert job is not None
        forced = (job.force is not None and self.world.clock.set and self.world.clock.wall() >= job.force
                  and not call.get("isEmergency"))
        now = asyncio.get_running_loop().time()
        quiet = call.get("state", "None") != "Connected" and now - self._quiet_since >= IDLE_S - 0.001
        hour = (self.world.clock.wall() - NIGHT) % DAY / 3600 + 1
        in_window = not self.settings.window or (self.world.clock.set and 2 <= hour < 5)
        if not (forced or (quiet and (in_window or job.when == "now"))):
            self.wrong.append((verb, call, job, hour))

    async def step(self, what: str, how: Any) -> None:
        run, service = self.run, self.world.service
        assert run is not None
        phase = service.status["phase"]
        if what == "wait":
            await asyncio.sleep(how)
        elif what in ("call", "emergency"):
            run.call("Connected", isEmergency=what == "emergency")
            await asyncio.sleep(0.01)  # it is not over in the moment in which it begins
        elif what == "hang up":
            if run.bulletin.document("call").get("state") == "Connected":
                self._quiet_since = asyncio.get_running_loop().time()
            run.call("Disconnected")
        elif what == "restart of ours":
            await self.end()
            await self.begin()
        elif what in ("clock", "no clock"):
            self.world.clock.set = what == "clock"
        elif what in ("interrupted", "failed") and phase == "installing":
            await service.end(what)
        elif what == "installed" and phase == "installing":
            await service.installed()
        elif what == "service lost":
            await service.stop()
            await asyncio.sleep(5)
            await service.start()
        elif what in ("come up", "sick") and phase == "rebooting":
            await self.end()
            await service.end("succeeded" if what == "come up" else "rolledBack")
            await self.begin()
        elif what in ("install", "cancel", "commit", "back"):
            await self._order(f"update.{what}", how or {})

    async def _order(self, verb: str, args: Json) -> None:
        assert self.run is not None
        name = f"job-{next(self._numbers)}"
        if verb == "update.install":
            args = {"url": URL, **args}
        try:
            await self.run.give(verb, name=name, **args)
        except EdgecallError:
            return  # refused: nothing was promised
        if verb in ("update.install", "update.back"):
            self.taken.add(name)

    async def come_to_rest(self) -> None:
        """All obstacles go; what is under way must end."""
        for what in ("clock", "hang up"):
            await self.step(what, None)
        for _ in range(12):
            await self.step("installed", None)
            await self._stirs(DAY)
            for what in ("wait", "commit", "wait", "come up"):
                await self.step(what, 100.0 if what == "wait" else None)
        assert self.run is not None
        assert self.run.update.job is None
        await self.step("wait", DAY)
        await self.end()

    async def _stirs(self, within_s: float) -> None:
        """Until there is no job, or the service does something else. Every 30 s of a day are looked at."""
        run, phase = self.run, self.world.service.status["phase"]
        assert run is not None
        with suppress(TimeoutError):
            await run.until(
                lambda: run.update.job is None or self.world.service.status["phase"] != phase, within_s)


@pytest.mark.timeout(120)  # days of many services are work for a machine that has other things to do
@given(st.sampled_from(SETTINGS), BEGUN, st.lists(STEP, max_size=8))
def test_nobody_is_cut_off_and_each_job_ends_once(
        settings: UpdateSettings, begun: list[tuple[str, Any]], steps: list[tuple[str, Any]]) -> None:
    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            life = Life(Path(folder), settings)
            await life.begin()
            for what, how in [*begun, *steps]:
                await life.step(what, how)
            await life.come_to_rest()
            assert life.wrong == []
            assert set(life.ends) == life.taken
            assert set(life.ends.values()) <= {1}

    run_virtual(live())
