"""Orders to the updater: what is refused, what is the same again, giving up, going back and the factory reset."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.errors import BadRequest, NotPermitted, Refused
from appliance.settings import UpdateSettings
from appliance.vocabulary import Json
from tests.support.clock import virtual_time
from tests.support.update_world import SETTINGS, URL, World, later, pending

VERBS = ("update.install", "update.status", "update.commit", "update.back", "update.cancel", "device.factoryReset")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("verb", VERBS)
@virtual_time
async def test_without_an_image_each_verb_says_so(world: World, verb: str) -> None:
    world.image = False
    async with world.run() as run:
        await run.until(lambda: run.document["supported"] is False)
        with pytest.raises(Refused) as refused:
            await run.give(verb, url=URL, device="door-1")
        assert refused.value.key == "501/FeatureNotSupported"
        assert not refused.value.retryable
        assert run.told == []


@pytest.mark.parametrize(("args", "wrong"), [
    ({"url": "https://updates.example.com/door.raucb"}, NotPermitted),
    ({"url": "https://updates.example.org:8443/door.raucb"}, NotPermitted),
    ({"url": "https://updates.example.org.example.com/door.raucb"}, NotPermitted),
    ({"url": "http://updates.example.org/door.raucb"}, BadRequest),
    ({"url": "https://boss@updates.example.org/door.raucb"}, BadRequest),
    ({"url": "https://updates.example.org/../door.raucb"}, BadRequest),
    ({"url": "https://updates.example.org/%2e%2e/door.raucb"}, BadRequest),
    ({"url": "https://updates.example.org/a b"}, BadRequest),
    ({"url": "https://updates.example.org/ü"}, BadRequest),
    ({"url": "/data/door.raucb"}, BadRequest),
    ({"url": URL, "force": "tomorrow"}, BadRequest),
    ({"url": URL, "force": "2026-12-24T18:00:00"}, BadRequest),
    ({"url": URL, "notBefore": "2026-12-24"}, BadRequest),
    ({"url": URL, "force": later(10), "notBefore": later(20)}, BadRequest),
    ({"url": URL, "version": "1.0.0"}, Refused),  # which runs
])
@virtual_time
async def test_what_is_wrong_is_refused_and_nothing_is_asked(
        world: World, args: Json, wrong: type[Exception]) -> None:
    async with world.run() as run:
        with pytest.raises(wrong):
            await run.give("update.install", **args)
        await asyncio.sleep(1)
        assert world.service.asked == []
        assert run.document["job"] is None
        assert "update" not in world.small.values


@virtual_time
async def test_without_origins_nothing_is_allowed(world: World) -> None:
    async with world.run(UpdateSettings()) as run:
        with pytest.raises(NotPermitted, match=r"from nowhere: see update\.origins"):
            await run.give("update.install", url=URL)


@virtual_time
async def test_one_update_at_a_time_and_the_same_order_again_is_the_same(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.give("update.install", name="job-1", url=URL)  # begun before a crash, and recovered
        with pytest.raises(Refused) as refused:
            await run.give("update.install", name="job-2", url=URL)
        assert refused.value.sub_code == "busy"
        with pytest.raises(Refused) as refused:
            await run.give("update.back")
        assert refused.value.sub_code == "busy"
        await asyncio.sleep(1)
        assert world.service.count("install") == 1
        assert run.told.count("update.requested") == 1


@virtual_time
async def test_an_update_that_waits_can_be_given_up(world: World) -> None:
    async with world.run() as run:
        with pytest.raises(Refused) as refused:
            await run.give("update.cancel")
        assert refused.value.sub_code == "nothingPending"
        await run.give("update.install", name="job-1", url=URL, notBefore=later(3600))
        await run.give("update.cancel")
        assert run.event("update.completed")["result"] == "cancelled"
        await asyncio.sleep(7200)
        assert world.service.asked == []
        assert not run.diagnostics.raised("updateFailed")


@pytest.mark.parametrize("installed", [False, True])
@virtual_time
async def test_so_can_one_that_is_being_installed_or_waits_for_the_restart(world: World, installed: bool) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
        if installed:
            await world.service.installed()
            await run.until(lambda: run.document["phase"] == "pending")
        await run.give("update.cancel")
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["result"] == "cancelled"
        await asyncio.sleep(100)
        assert run.told.count("update.completed") == 1
        assert world.service.count("reboot") == 0


@virtual_time
async def test_a_trial_judges_itself(world: World) -> None:
    async with world.run() as run:
        await pending(world, run)
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
        await world.service.restart("B", trial=True, version="2.0.0")
        for verb, why in (("update.commit", "trial"), ("update.cancel", "tooLate")):
            with pytest.raises(Refused) as refused:
                await run.give(verb)
            assert refused.value.sub_code == why
        assert world.service.asked[-1]["verb"] == "reboot"


@pytest.mark.parametrize("job", ["theirs", None])
@virtual_time
async def test_what_somebody_else_installed_is_started_by_commit(world: World, job: str | None) -> None:
    async with world.run() as run:
        with pytest.raises(Refused) as refused:
            await run.give("update.commit")
        assert refused.value.sub_code == "nothingPending"
        await world.service.set(phase="pending", job=job, other={"version": "2.0.0", "state": "unknown"})
        await asyncio.sleep(100)
        assert world.service.asked == []
        await run.give("update.commit")
        await run.until(lambda: run.document["phase"] == "rebooting", 1)
        await world.service.set(job="theirs")
        await world.service.end("succeeded", slot="B", version="2.0.0")
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["job"] == "theirs"
        await asyncio.sleep(100)
        assert run.told == ["update.restarting", "update.completed"]
        assert run.document["job"] is None


@virtual_time
async def test_what_was_to_be_started_and_is_gone_has_failed(world: World) -> None:
    async with world.run() as run:
        await world.service.set(phase="pending")
        run.call("Connected")
        await run.give("update.commit")
        await world.service.set(phase="idle")
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["code"] == "nothingPending"
        assert world.service.asked == []


@pytest.mark.parametrize("told_by_service", [True, False])
@pytest.mark.parametrize(("slot", "result"), [("B", "succeeded"), ("A", "rolledBack")])
@virtual_time
async def test_going_back_waits_like_a_restart_and_is_told_by_whichever_runs(
        world: World, slot: str, result: str, told_by_service: bool) -> None:
    window = UpdateSettings(origins=SETTINGS.origins, window=("Tue 02:00-05:00",))
    async with world.run(window) as run:
        run.call("Connected")
        await run.give("update.back", name="job-1")
        await asyncio.sleep(100)
        assert run.document["waitsFor"] == ["call"]
        run.call("Disconnected")
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
        assert run.told == ["update.requested", "update.restarting"]
    version = "0.9.0" if slot == "B" else "1.0.0"
    if told_by_service:
        await world.service.end(result, slot=slot, version=version)
    else:
        other = {"version": "0.9.0" if slot == "A" else "1.0.0", "state": "bad" if slot == "A" else "good"}
        await world.service.set(slot=slot, phase="idle", job=None, version=version, other=other)
    async with world.run(window) as then:
        await then.until(lambda: then.document["last"])
        told = then.event("update.completed")
        assert (told["job"], told["kind"], told["result"]) == ("job-1", "back", result)
        assert (told["version"], told["running"]) == ("0.9.0", version)
        assert world.service.asked == [{"verb": "back", "id": "job-1"}]


@virtual_time
async def test_going_back_is_asked_for_again_where_the_service_died_at_it(world: World) -> None:
    world.service.dies_at.add("back")
    async with world.run() as run:
        await run.give("update.back", name="job-1")
        await run.until(lambda: run.document["phase"] == "rebooting", 200)
        assert world.service.asked == 2 * [{"verb": "back", "id": "job-1"}]
        assert run.told == ["update.requested", "update.restarting"]


@virtual_time
async def test_going_back_is_asked_for_again_where_nobody_knows_of_a_trial(world: World) -> None:
    """The power went before the service had written down that it would."""
    async with world.run() as run:
        await run.give("update.back", name="job-1")
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
    for _ in range(2):
        await world.service.set(phase="idle", job=None)
        async with world.run() as run:
            await run.until(lambda: run.document["phase"] == "rebooting", 61)
            assert run.told == ["update.restarting"]
    await world.service.set(phase="idle", job=None)
    async with world.run() as run:
        await run.until(lambda: run.document["last"], 61)
        told = run.event("update.completed")
        assert (told["job"], told["result"], told["code"]) == ("job-1", "failed", "interrupted")
    assert world.service.asked == 3 * [{"verb": "back", "id": "job-1"}]


@virtual_time
async def test_going_back_that_was_interrupted_is_done_again(world: World) -> None:
    async with world.run() as run:
        await run.give("update.back", name="job-1")
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
    await world.service.end("interrupted", code="interrupted")
    async with world.run() as run:
        await run.until(lambda: run.document["phase"] == "rebooting", 61)
        await world.service.end("succeeded", slot="B", version="0.9.0")
        await run.until(lambda: run.document["last"])
        told = run.event("update.completed")
        assert (told["job"], told["kind"], told["result"]) == ("job-1", "back", "succeeded")


@virtual_time
async def test_what_was_cancelled_is_not_tried_by_a_service_that_forgot_it(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
        world.service.heedless = True
        await run.give("update.cancel")
        assert run.document["phase"] == "installing"
        world.service.heedless = False  # it is started anew, and finds the installation done
        await world.service.installed()
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["result"] == "cancelled"
        await asyncio.sleep(100)
        assert world.service.count("reboot") == 0
        assert world.service.count("cancel") == 2


@pytest.mark.parametrize("phase", ["idle", "pending"])
@virtual_time
async def test_what_was_cancelled_is_not_begun_anew(world: World, phase: str) -> None:
    """The service knows nothing of it any more, or of whose the slot is that waits."""
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
        world.service.heedless = True
        await run.give("update.cancel")
        await world.service.set(phase=phase, job=None)
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["result"] == "cancelled"
        await asyncio.sleep(100)
        assert (world.service.count("install"), run.told.count("update.completed")) == (1, 1)
        assert world.service.count("cancel") == 1 + (phase == "pending")


@virtual_time
async def test_a_failed_update_is_told_though_its_slot_is_still_to_be_tried(world: World) -> None:
    async with world.run() as run:
        await run.give("update.install", name="job-1", url=URL)
        await run.until(lambda: run.document["phase"] == "installing")
        await world.service.end("failed", code="failed", phase="pending")
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["result"] == "failed"
        await asyncio.sleep(100)
        assert [one["verb"] for one in world.service.asked] == ["install"]


@virtual_time
async def test_what_was_to_be_started_of_somebody_else_can_be_cancelled(world: World) -> None:
    async with world.run() as run:
        await world.service.set(phase="pending", job=None, other={"version": "2.0.0", "state": "unknown"})
        run.call("Connected")
        await run.give("update.commit")
        await run.give("update.cancel")
        await world.service.set(phase="idle", result=None)
        await run.until(lambda: run.document["last"])
        assert run.event("update.completed")["result"] == "cancelled"
        assert [one["verb"] for one in world.service.asked] == ["cancel"]


@virtual_time
async def test_what_waits_and_belongs_to_nobody_is_trouble_after_a_day(world: World) -> None:
    async with world.run() as run:
        await world.service.set(phase="pending", job="theirs", other={"version": "2.0.0", "state": "unknown"})
        await asyncio.sleep(86_000)
        assert not run.diagnostics.raised("updatePending")
        await asyncio.sleep(500)
        assert run.diagnostics.raised("updatePending")
        await run.give("update.cancel")
        await asyncio.sleep(1)
        assert not run.diagnostics.raised("updatePending")


@virtual_time
async def test_a_device_that_does_not_restart_is_not_asked_to_without_end(world: World) -> None:
    async with world.run() as run:
        await pending(world, run)
        for _ in range(5):
            await run.until(lambda: run.document["phase"] == "rebooting", 61)
            await world.service.set(phase="pending")
            await run.until(lambda: run.document["phase"] == "pending")
        assert asyncio.get_running_loop().time() >= 1000 + 60 + 4 * 30
        assert run.told.count("update.restarting") == 5


@virtual_time
async def test_going_back_too_far_is_refused_by_the_service_and_told(world: World) -> None:
    world.service.refuses["back"] = "tooOld"
    async with world.run() as run:
        await run.give("update.back", name="job-1")
        await run.until(lambda: run.document["last"], 61)
        assert run.event("update.completed")["code"] == "tooOld"
        await world.service.set(other={"version": "0.9.0", "state": "bad"})
        with pytest.raises(Refused) as refused:
            await run.give("update.back")
        assert refused.value.sub_code == "noOther"


@virtual_time
async def test_a_factory_reset_names_the_device_and_disturbs_no_call(world: World) -> None:
    async with world.run() as run:
        with pytest.raises(BadRequest, match="This device is door-1"):
            await run.give("device.factoryReset", device="door-2")
        run.call("Connected")
        with pytest.raises(Refused) as refused:
            await run.give("device.factoryReset", device="door-1")
        assert refused.value.sub_code == "inCall"
        run.call("Disconnected")
        assert world.service.asked == []
        await run.give("device.factoryReset", device="door-1")
        assert world.service.asked == [{"verb": "factoryReset"}]
        assert run.event("device.factoryReset") == {"origin": "mqtt", "sender": "boss"}
