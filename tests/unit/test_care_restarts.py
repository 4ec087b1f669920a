"""A run that did not stop as asked is told by the next one; a power cut is not one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from appliance.bulletin import Bulletin
from appliance.care.diagnostics import Diagnostics
from appliance.care.duty import Duty
from appliance.care.restarts import HEALTHY_S, Restarts, boot_name
from appliance.errors import StoreError
from tests.support.calls import MemoryRecords
from tests.support.clock import virtual_time


class Machine:
    """A computer with a boot id, and a data folder that outlives its boots."""

    def __init__(self, folder: Path) -> None:
        self.marks = MemoryRecords()
        self._boot_id = folder / "boot_id"
        self.boots("first")

    def boots(self, name: str) -> None:
        self._boot_id.write_text(name)

    async def run(self) -> tuple[Restarts, Diagnostics]:
        diagnostics = Diagnostics(Bulletin("boot-1"))
        restarts = Restarts(self.marks, diagnostics, self._boot_id)
        await restarts.begin()
        return restarts, diagnostics


@virtual_time
async def test_only_a_run_that_did_not_end_under_the_same_boot_was_a_crash(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    restarts, diagnostics = await machine.run()
    assert not diagnostics.raised("watchdogRestarted")
    await restarts.end()
    _, diagnostics = await machine.run()
    assert not diagnostics.raised("watchdogRestarted"), "it had stopped as asked"
    _, diagnostics = await machine.run()
    assert diagnostics.raised("watchdogRestarted"), "it was killed"
    machine.boots("second")
    _, diagnostics = await machine.run()
    assert not diagnostics.raised("watchdogRestarted"), "the power was cut"


@virtual_time
async def test_ten_healthy_minutes_end_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    await machine.run()
    restarts, diagnostics = await machine.run()
    running = asyncio.create_task(restarts.run())
    await asyncio.sleep(HEALTHY_S - 1)
    assert diagnostics.raised("watchdogRestarted")
    await asyncio.sleep(2)
    assert not diagnostics.raised("watchdogRestarted")
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@virtual_time
async def test_a_folder_that_cannot_be_written_does_not_hold_the_stop(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    restarts, _ = await machine.run()

    async def broken(_name: str, _value: str) -> None:
        raise StoreError("the data folder does not answer")

    machine.marks.set = broken  # type: ignore[method-assign]
    await restarts.end()


class HungStore:
    """A data folder that does not answer."""

    async def get(self, _name: str, _default: str | None = None) -> str | None:
        raise StoreError("the data folder does not answer")

    async def set(self, _name: str, _value: str) -> None:
        raise StoreError("the data folder does not answer")

    persistent = True

    async def count(self, _name: str) -> int:
        raise StoreError("the data folder does not answer")


class CountingStore:
    """A store that counts, on the disk or in memory only."""

    def __init__(self, *, persistent: bool) -> None:
        self.persistent = persistent

    async def count(self, _name: str) -> int:
        return 1


@virtual_time
async def test_a_folder_that_hangs_does_not_hold_the_start(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.marks = HungStore()  # type: ignore[assignment]
    _, diagnostics = await machine.run()
    assert not diagnostics.raised("watchdogRestarted")
    first, second = await boot_name(HungStore()), await boot_name(HungStore())
    assert first != second, "two runs never bear one name"
    assert await boot_name(CountingStore(persistent=True)) == "b1"
    in_memory = [await boot_name(CountingStore(persistent=False)) for _ in range(2)]
    assert len({"b1", *in_memory}) == 3, "a count that begins anew with each start names none"


@virtual_time
async def test_nobody_on_duty_is_trouble_when_somebody_called_and_until_somebody_comes() -> None:
    bulletin = Bulletin("boot-1")
    diagnostics = Diagnostics(bulletin)
    duty = Duty(bulletin, diagnostics)
    assert bulletin.document("device")["onDuty"] == []
    with bulletin.subscribed(on_document=duty.on_document):
        def ended(uri: str, reason: str) -> None:
            bulletin.set("call", {"callId": uri + reason, "callerInfo": {"uri": uri}, "endReason": {"subCode": reason}})

        ended("operator:*", "declined")
        ended("device:lobby-2", "unreachable")
        assert not diagnostics.raised("nobodyOnDuty")
        ended("operator:*", "unreachable")
        assert diagnostics.raised("nobodyOnDuty")
        duty.changed(["Lena"])
        await asyncio.sleep(2)
        assert not diagnostics.raised("nobodyOnDuty")
        ended("operator:anna", "unreachable")
        assert not diagnostics.raised("nobodyOnDuty"), "somebody is on duty, only not she"
