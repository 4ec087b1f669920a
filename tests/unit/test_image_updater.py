"""The update service over its real socket, with a program that speaks as RAUC does, on a card of files."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from appliance.care.update_service import Phase, RootService, ServiceRefusedError
from edgecall_image import installation, updater
from edgecall_image.rauc import Rauc
from edgecall_image.record import Record
from edgecall_image.service import Service
from edgecall_image.updater import Updater
from tests.support.appliance_socket import ApplianceSocket, somebody_calls
from tests.support.bundle_server import BundleServer
from tests.support.fake_rauc import bundle
from tests.support.update_device import Device
from tests.support.waiting import until

GOOD = bundle("1.1.0")


@pytest.fixture
def server() -> Iterator[BundleServer]:
    with BundleServer(GOOD) as server:
        yield server


@pytest.fixture
def device(tmp_path: Path, server: BundleServer) -> Device:
    device = Device(tmp_path, (server.origin,))
    device.version["B"] = "1.1.0"
    return device


@pytest.fixture
def appliance(device: Device) -> Iterator[ApplianceSocket]:
    with ApplianceSocket(device.paths.daemon) as appliance:
        yield appliance


async def test_a_device_at_rest(device: Device) -> None:
    async with device.up():
        assert await device.ask("status") == {
            "version": "1.0.0", "slot": "A", "trial": False, "phase": "idle", "progress": None, "step": "", "job": None,
            "other": {"version": None, "state": "unknown"}, "result": None}


async def test_an_update_from_request_to_commit(
        device: Device, server: BundleServer, appliance: ApplianceSocket) -> None:
    device.rauc(wait_for=str(go := device.folder / "go"))
    async with device.up():
        seen = []
        async with device.watched() as told:
            first = await anext(told)
            assert first["phase"] == "idle"
            await device.ask("install", url=server.url, id="j-1", rateLimit=None)
            async for status in told:
                seen.append(status)
                if "Verifying signature" in status["step"]:  # who watches is told the latest alone
                    go.touch()
                if status["phase"] == "pending":
                    break
        assert {one["phase"] for one in seen} == {"installing", "pending"}
        progress = [one["progress"] for one in seen if one["progress"] is not None]
        assert progress == sorted(progress)
        assert progress[-1] == 100
        assert any("Verifying signature" in one["step"] for one in seen)
        assert (seen[-1]["job"], seen[-1]["result"]) == ("j-1", None)
        assert seen[-1]["other"] == {"version": "1.1.0", "state": "good"}
        assert device.card.chosen() == "A", "nothing is changed until it is found well"

        status = await device.ask("reboot")
        assert status["phase"] == "rebooting"
        await until(device.reboots.exists, "the restart, after the answer")
    job = device.record.open_job()
    assert job is not None
    assert job.before == {"devices": {"microphone": 1, "camera": 1}, "broker": None, "failed": False, "network": None}

    assert device.boots() == "B"
    async with device.up():
        status = await device.ask("status")
        assert (status["version"], status["slot"], status["trial"], status["phase"]) == ("1.1.0", "B", True, "trial")
        assert status["other"]["version"] == "1.0.0"
        for verb in ("install", "reboot", "back", "factoryReset", "cancel"):
            assert (await device.ask(verb, url=server.url, id="j-2"))["code"] == "busy"
        assert await asyncio.to_thread(device.judged)
        assert (await device.ask("refresh"))["phase"] == "idle"
        status = await device.ask("status")
    assert (status["phase"], status["trial"], status["job"]) == ("idle", False, None)
    assert status["result"]["state"] == "succeeded"
    assert (status["result"]["id"], status["result"]["version"]) == ("j-1", "1.1.0")
    assert device.card.chosen() == "B"
    assert not device.restarted


async def test_a_system_that_is_not_well_goes_back_and_the_old_one_says_why(
        device: Device, server: BundleServer, appliance: ApplianceSocket) -> None:
    async with device.up():
        await device.installs(server)
        await device.ask("reboot")
    assert device.boots() == "B"
    appliance.devices(microphone=1)
    assert not await asyncio.to_thread(device.judged)
    assert device.restarted
    assert device.boots() == "A"
    async with device.up():
        status = await device.ask("status")
    assert (status["phase"], status["slot"], status["other"]) == ("idle", "A", {"version": "1.1.0", "state": "bad"})
    result = status["result"]
    assert (result["id"], result["state"], result["code"], result["version"]) == (
        "j-1", "rolledBack", "unhealthy", "1.1.0")
    assert "camera: 0 of 1" in result["message"]


async def test_a_trial_that_was_cut_is_reported_by_the_old_system(device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
        await device.ask("reboot")
    assert device.boots() == "B"
    device.power_cut()
    async with device.up():
        status = await device.ask("status")
    assert (status["result"]["state"], status["result"]["code"]) == ("rolledBack", "trialFailed")
    assert status["other"]["state"] == "bad"
    assert device.card.slots.verdict() is None, "it is told once"


async def test_a_trial_that_never_came_up_is_asked_for_again_and_then_reported(
        device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
    for _ in range(3):
        async with device.up():
            assert (await device.ask("status"))["phase"] == "pending"
            assert (await device.ask("reboot"))["phase"] == "rebooting"
        device.power_cut()  # the firmware loses the request
    async with device.up():
        status = await device.ask("status")
    assert (status["phase"], status["result"]["code"]) == ("idle", "neverStarted")
    assert status["result"]["state"] == "rolledBack"


async def test_a_cut_in_the_installation_leaves_the_old_system_and_says_so(
        device: Device, server: BundleServer) -> None:
    device.rauc(wait_for=str(device.folder / "never"))
    async with device.up():
        await device.ask("install", url=server.url, id="j-1")
        async with device.watched() as told:
            async for status in told:
                if "Verifying" in status["step"]:
                    break
    device.power_cut()
    async with device.up():
        status = await device.ask("status")
        assert (status["phase"], status["result"]["state"]) == ("idle", "interrupted")
        device.rauc()
        assert (await device.installs(server))["phase"] == "pending", "the same one again"


async def test_a_cut_after_the_last_write_of_an_installation_loses_nothing(
        device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
    job = device.record.open_job()
    assert job is not None
    device.record.set_job(updater.replace(job, stage="installing", version=None))  # as before the last one
    device.power_cut()
    async with device.up():
        status = await device.ask("status")
    assert (status["phase"], status["job"], status["other"]["version"]) == ("pending", "j-1", "1.1.0")


async def test_a_cut_after_the_commit_is_a_success(device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
        await device.ask("reboot")
    assert device.boots() == "B"
    device.card.slots.mark_good("B")
    device.power_cut()
    async with device.up():
        status = await device.ask("status")
    assert (status["slot"], status["phase"], status["result"]["state"]) == ("B", "idle", "succeeded")


@pytest.mark.parametrize(("content", "scenario", "code"), [
    (bundle("1.1.0", signer="somebody"), {}, "signature"),
    (bundle("0.9.0"), {}, "tooOld"),
    (bundle("1.1.0", compatible="edgecall-rpi-arm64"), {}, "incompatible"),
    (GOOD, {"full": True}, "noSpace"),
])
async def test_what_rauc_refuses_is_told_with_its_cause(
        device: Device, server: BundleServer, content: bytes, scenario: dict[str, Any], code: str) -> None:
    server.content = content
    device.rauc(**scenario)
    async with device.up():
        status = await device.installs(server)
    assert (status["phase"], status["result"]["state"], status["result"]["code"]) == ("idle", "failed", code)
    assert device.card.slots.pending() is None


async def test_a_server_without_ranges_and_one_without_the_bundle(device: Device, server: BundleServer) -> None:
    async with device.up():
        server.ranges = False
        assert (await device.installs(server))["result"]["code"] == "noRange"
        server.ranges, server.path = True, "/renamed.raucb"
        status = await device.ask("install", url=server.origin + "good.raucb", id="j-2")
        status = await device.until("idle")
        assert status["result"]["code"] == "network"
        assert "404" in status["result"]["message"]


async def test_a_refused_bundle_leaves_the_other_system_to_go_back_to(device: Device, server: BundleServer) -> None:
    (device.card.place.marks / "version.B").write_text("1.0.5")
    server.content = bundle("1.1.0", signer="somebody")
    async with device.up():
        status = await device.installs(server)
        assert status["other"] == {"version": "1.0.5", "state": "good"}
        server.content = GOOD
        device.rauc(full=True)
        status = await device.installs(server, "j-2")
        assert status["other"] == {"version": None, "state": "bad"}, "half written"
        assert (await device.ask("back"))["code"] == "failed"


async def test_rauc_that_does_something_else_is_waited_for(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "PAUSES_S", (0.05,))
    device.rauc(busy=True)
    async with device.up():
        await device.ask("install", url=server.url, id="j-1")
        async with device.watched() as told:
            async for status in told:
                if "waits" in status["step"]:
                    device.rauc()
                if status["phase"] == "pending":
                    break


async def test_patience_with_the_network_ends(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "GIVE_UP_S", 0.0)
    device.rauc(busy=True)
    async with device.up():
        assert (await device.installs(server))["result"]["code"] == "busy"


@pytest.mark.parametrize("says", [
    "", "no JSON", "[]", "3", '{"url": "file:///data/evil.raucb"}', '{"url": "--handler-args=x"}', '{"url": 3}',
    '{"failed": "succeeded"}', '{"failed": ["network"]}', "x" * 100_000])
async def test_what_fetches_the_bundle_is_not_trusted(device: Device, server: BundleServer, says: str) -> None:
    """It reads what strangers send: taken over it can spoil an update, and no more."""
    device.relay = ("sh", "-c", f"cat >/dev/null & printf '%s\\n' '{says}'; sleep 0.1")
    async with device.up():
        result = (await device.installs(server))["result"]
        assert (result["state"], result["code"]) == ("failed", "failed")
        assert "ended at once" in result["message"]


async def test_what_does_not_move_any_more_is_given_up(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "STALL_S", 1.5)
    device.rauc(silent=True)
    async with device.up():
        assert "moved" in (await device.installs(server))["result"]["message"]


async def test_nobody_restarts_a_device_in_a_call(device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
        with somebody_calls(device.paths.call_lock):
            for verb in ("reboot", "factoryReset"):
                assert (await device.ask(verb))["code"] == "busy"
            assert (await device.ask("status"))["phase"] == "pending"
        assert not device.reboots.exists()
        assert (await device.ask("reboot"))["phase"] == "rebooting"
        with pytest.raises(BlockingIOError), device.paths.call_lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # no call begins any more
        assert (await device.ask("reboot"))["code"] == "busy"


async def test_a_restart_that_fails_gives_the_calls_back(device: Device, server: BundleServer) -> None:
    device.reboot_fails = True
    async with device.up():
        await device.installs(server)
        with somebody_calls(device.paths.call_lock):
            pass
        assert (await device.ask("reboot"))["phase"] == "rebooting"
        assert (await device.until("pending"))["job"] == "j-1"
        assert not device.card.requested, "the next restart may be for another reason"
        with somebody_calls(device.paths.call_lock):
            assert (await device.ask("reboot"))["code"] == "busy"


async def test_an_installation_is_cancelled_and_nothing_is_tried(device: Device, server: BundleServer) -> None:
    device.rauc(wait_for=str(device.folder / "never"))
    async with device.up():
        assert (await device.ask("cancel"))["code"] == "nothingPending"
        await device.ask("install", url=server.url, id="j-1")
        async with device.watched() as told:
            async for status in told:
                if "Verifying" in status["step"]:
                    break
        status = await device.ask("cancel")
        assert (status["phase"], status["job"]) == ("idle", None)
        assert (status["result"]["state"], status["result"]["code"]) == ("failed", "cancelled")
        device.rauc()
        await device.installs(server, "j-2")
        assert device.card.slots.pending() == "B"
        status = await device.ask("cancel")
        assert (status["phase"], status["result"]["code"]) == ("idle", "cancelled")
        assert device.card.slots.pending() is None
    assert device.boots() == "A"


async def test_a_cancel_that_rauc_does_not_heed_is_told_when_it_has_come_true(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "GENTLY_S", 0.1)
    (device.card.place.marks / "version.B").write_text("1.0.5")
    device.rauc(heedless_until=str(go := device.folder / "go"))
    async with device.up():
        await device.ask("install", url=server.url, id="j-1")
        async with device.watched() as told:
            async for status in told:
                if "Copying" in status["step"]:
                    break
        for _ in range(2):
            status = await device.ask("cancel")
            assert (status["phase"], status["job"], status["result"]) == ("installing", "j-1", None)
        assert (await device.ask("install", url=server.url, id="j-2"))["code"] == "busy"
        go.touch()
        status = await device.until("idle")
        assert (status["job"], status["result"]["state"], status["result"]["code"]) == (None, "failed", "cancelled")
        assert device.card.slots.pending() is None
        assert status["other"] == {"version": None, "state": "unknown"}, "it is written over"
        assert (await device.ask("back"))["code"] == "failed"
    assert device.boots() == "A"


async def test_a_cancel_comes_in_time_until_the_installation_is_told(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow(_self: Updater) -> dict[str, Any]:
        reached.set()
        await go.wait()
        return {}

    monkeypatch.setattr(Updater, "_condition", slow)
    async with device.up():
        await device.ask("install", url=server.url, id="j-1")
        await reached.wait()
        cancel = asyncio.create_task(device.ask("cancel"), name="test.cancel")
        async with device.watched() as told:
            async for status in told:
                if status["step"] == "is cancelled":
                    break
        go.set()
        status = await cancel
        assert (status["phase"], status["job"], status["result"]["code"]) == ("idle", None, "cancelled")
        assert device.card.slots.pending() is None


async def test_what_somebody_took_back_at_the_device_is_told_as_withdrawn_and_done_again_when_asked(
        device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
        device.card.slots.make_primary("A")
        asked = len(server.asked)
        status = await device.ask("install", url=server.url, id="j-1")
        assert (status["phase"], status["job"], len(server.asked)) == ("idle", None, asked)
        assert (status["result"]["id"], status["result"]["code"]) == ("j-1", "withdrawn")
        assert (await device.installs(server))["phase"] == "pending"
        device.card.slots.mark_bad("B")
        assert (await device.ask("status"))["result"]["code"] == "withdrawn"
        await device.installs(server, "j-2")
    device.card.slots.mark_bad("B")
    async with device.up():
        status = await device.ask("status")
        assert (status["result"]["id"], status["result"]["state"], status["result"]["code"]) == (
            "j-2", "failed", "withdrawn")


async def test_an_old_version_is_not_taken_for_the_one_that_was_written_over_it(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power went before RAUC was asked what it has written, and RAUC does not answer then."""
    async with device.up():
        await device.installs(server)
    job = device.record.open_job()
    assert job is not None
    device.record.set_job(updater.replace(job, stage="installing", version=None))
    (device.card.place.marks / "version.B").write_text("1.0.5")
    device.power_cut()

    async def silent(_self: Rauc, _slot: str) -> None:
        raise updater.RaucError("failed", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Rauc, "version_in", silent)
        async with device.up():
            status = await device.ask("status")
            assert (status["phase"], status["job"], status["other"]["version"]) == ("pending", "j-1", None)
    async with device.up():
        assert (await device.ask("status"))["other"]["version"] == "1.1.0"


async def test_a_restart_that_never_comes_is_taken_back(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "REBOOT_S", 0.1)
    async with device.up():
        await device.installs(server)
        for _ in range(4):
            assert (await device.ask("reboot"))["phase"] == "rebooting"
            assert (await device.until("pending"))["job"] == "j-1"
            assert not device.card.requested
            with somebody_calls(device.paths.call_lock):
                pass
    device.power_cut()
    async with device.up():
        assert (await device.ask("status"))["phase"] == "pending", "it was never asked for, and has not failed"


async def test_a_service_that_is_started_anew_before_the_restart_takes_its_request_back(
        device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
    for _ in range(4):
        async with device.up():
            await device.ask("reboot")
        assert device.card.requested
    async with device.up():
        assert (await device.ask("status"))["phase"] == "pending"
    assert not device.card.requested
    assert device.boots() == "A"
    async with device.up():
        assert (await device.ask("status"))["phase"] == "pending"


async def test_what_nobody_here_installed_is_told_each_time(
        device: Device, server: BundleServer, appliance: ApplianceSocket) -> None:
    for ending in ("rolledBack", "succeeded"):
        device.card.slots.make_primary("B")
        async with device.up():
            assert (await device.ask("reboot"))["phase"] == "rebooting"
        assert device.boots() == "B"
        if ending == "succeeded":
            assert await asyncio.to_thread(device.judged)
        else:
            device.power_cut()
        async with device.up():
            result = (await device.ask("status"))["result"]
            assert (result["id"], result["state"]) == ("restart", ending)


async def test_what_the_network_was_is_kept_for_the_judgement(
        device: Device, server: BundleServer, appliance: ApplianceSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    appliance.documents["/v1/state/net"]["addresses"] = ["192.0.2.4"]
    for answers in (True, False):
        monkeypatch.setattr(updater.reach, "a_gateway_answers", lambda answers=answers: answers)
        async with device.up():
            await device.installs(server, f"j-{answers}")
        job = device.record.open_job()
        assert job is not None
        assert (job.before["network"]["addresses"], job.before["network"]["answered"]) == (["IPv4"], answers)


async def test_going_back_is_a_trial_too(device: Device, server: BundleServer) -> None:
    async with device.up():
        assert (await device.ask("back"))["code"] == "failed", "nobody knows what is there"
        await device.installs(server)
        await device.ask("reboot")
    assert device.boots() == "B"
    device.card.slots.mark_good("B")
    device.power_cut()
    async with device.up():
        device.paths.system_conf.write_text("[system]\nmin-bundle-version=1.0.1\n")
        assert (await device.ask("back", id="b-1"))["code"] == "tooOld"
        device.paths.system_conf.write_text("[system]\nmin-bundle-version=1.0.0\n")
        with somebody_calls(device.paths.call_lock):
            assert (await device.ask("back", id="b-1"))["code"] == "busy"
        assert not device.card.requested
        assert (await device.ask("back", id="b-1"))["phase"] == "rebooting"
    assert device.boots() == "A"
    async with device.up():
        status = await device.ask("status")
        assert (status["phase"], status["job"], status["version"]) == ("trial", "b-1", "1.0.0")
    with ApplianceSocket(device.paths.daemon):
        assert await asyncio.to_thread(device.judged)
    assert device.card.chosen() == "A"


async def test_a_factory_reset_leaves_the_slots_alone(device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
        assert (await device.ask("factoryReset"))["phase"] == "rebooting"
    assert (device.card.place.marks / "factory-reset").exists()
    assert not device.card.requested
    assert device.card.slots.pending() is None
    assert device.boots() == "A"


async def test_going_back_with_no_room_to_write_it_down_leaves_nothing_to_be_tried(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    (device.card.place.marks / "version.B").write_text("1.0.5")
    real = Record.set_job

    def full_at(stage: str) -> None:
        def full(self: Record, job: Any) -> None:
            if job.stage == stage:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(self, job)

        monkeypatch.setattr(Record, "set_job", full)

    async with device.up():
        for stage in ("installing", "rebooting"):
            full_at(stage)
            assert (await device.ask("back", id="b-1"))["code"] == "noSpace"
            status = await device.ask("status")
            assert (status["phase"], status["job"], status["result"]) == ("idle", None, None)
            assert (device.card.slots.pending(), device.card.requested) == (None, False)
        full_at("never")
        assert (await device.ask("back", id="b-1"))["phase"] == "rebooting"
    assert device.boots() == "B"


async def test_going_back_does_not_pass_over_an_update_that_waits(device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
        error = await device.ask("back", id="b-1")
        assert (error["code"], "cancel it first" in error["message"]) == ("busy", True)
        assert (await device.ask("status"))["job"] == "j-1"


async def test_going_back_twice_under_one_name_is_two_ways_back(device: Device, appliance: ApplianceSocket) -> None:
    for slot in ("B", "A"):
        (device.card.place.marks / f"version.{slot}").write_text(f"1.0.{slot == 'B':d}")
        async with device.up():
            assert (await device.ask("back"))["phase"] == "rebooting"
        assert device.boots() == slot
        async with device.up():
            status = await device.ask("status")
            assert (status["phase"], status["job"]) == ("trial", "back")
        assert await asyncio.to_thread(device.judged)


async def test_a_factory_reset_that_does_not_restart_is_taken_back(device: Device) -> None:
    device.reboot_fails = True
    async with device.up():
        assert (await device.ask("factoryReset"))["phase"] == "rebooting"
        await device.until("idle")
    assert not (device.card.place.marks / "factory-reset").exists()


async def test_the_rate_of_a_running_installation_changes(device: Device, server: BundleServer) -> None:
    server.content = bundle("1.1.0", filler=400_000)
    async with device.up():
        await device.ask("install", url=server.url, id="j-1", rateLimit=2_000)
        async with device.watched() as told:
            async for status in told:
                if "Copying" in status["step"]:
                    break
        sent = server.sent
        assert sent < 100_000
        await device.ask("rate", rateLimit=None)
        assert (await device.until("pending"))["job"] == "j-1", "at the old rate 200 s"
        assert server.sent >= 400_000
        assert (await device.ask("rate", rateLimit=9_000))["phase"] == "pending"


async def test_the_same_job_is_done_once(device: Device, server: BundleServer) -> None:
    async with device.up():
        await device.installs(server)
        asked = len(server.asked)
        assert (await device.ask("install", url=server.url, id="j-1"))["phase"] == "pending"
        assert len(server.asked) == asked
        status = await device.installs(server, "j-2")  # another one takes its place
        assert (status["phase"], status["job"]) == ("pending", "j-2")
        assert (status["result"]["id"], status["result"]["code"]) == ("j-1", "replaced")


async def test_an_address_that_is_not_the_operators_is_refused(device: Device, server: BundleServer) -> None:
    async with device.up():
        with BundleServer(GOOD) as other:
            error = await device.ask("install", url=other.url, id="j-1")
            assert error["code"] == "notAllowed"
            assert "update.origins" in error["message"]
            assert other.asked == []
        device.paths.settings.write_text("[update\n")
        assert (await device.ask("install", url=server.url, id="j-1"))["code"] == "notAllowed"
    assert device.record.job() is None


async def test_what_cannot_be_written_down_is_not_tried(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Record.set_job

    def full(self: Record, job: Any) -> None:
        if job.stage == "pending":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, job)

    monkeypatch.setattr(Record, "set_job", full)
    async with device.up():
        status = await device.installs(server)
        assert (status["phase"], status["job"], status["result"]["state"]) == ("idle", None, "failed")
    assert device.card.slots.pending() is None


async def test_a_result_that_cannot_be_written_down_is_told_all_the_same(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Record, _result: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server.ranges = False
    async with device.up():
        with monkeypatch.context() as patch:
            patch.setattr(Record, "end", full)
            assert (await device.installs(server))["result"]["code"] == "noRange"
            assert (await device.ask("status"))["result"]["code"] == "noRange"
    async with device.up():
        status = await device.ask("status")
        assert (status["phase"], status["result"]["state"]) == ("idle", "interrupted")


async def test_without_room_on_data_nothing_begins(
        device: Device, server: BundleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "FREE_BYTES", 1 << 60)
    async with device.up():
        assert (await device.ask("install", url=server.url, id="j-1"))["code"] == "noSpace"
    assert server.asked == []


@pytest.mark.parametrize("request_", [
    {"url": 3}, {"id": ""}, {"id": "x" * 129}, {"id": "a\nb"}, {"id": None}, {"rateLimit": "fast"}, {"rateLimit": 0},
    {"rateLimit": True}, {"rateLimit": 1e6}, {"rateLimit": -5000}, {"verb": "uninstall"}, {"verb": None}, {"verb": []}])
async def test_what_is_not_understood_does_nothing(
        device: Device, server: BundleServer, request_: dict[str, Any]) -> None:
    async with device.up():
        error = await device.send(json.dumps(
            {"verb": "install", "url": server.url, "id": "j-1"} | request_).encode() + b"\n")
        assert error["code"] == "badRequest"
        assert (await device.ask("status"))["phase"] == "idle"
    assert server.asked == []


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"[]\n", b"3\n", b"\xff\n", b"", b'{"verb": "status"',
                                  b"[" * 60_000 + b"\n", b"x" * 70_000 + b"\n"])
async def test_what_is_no_request_is_answered(device: Device, line: bytes) -> None:
    async with device.up():
        assert (await device.send(line))["code"] == "badRequest"


async def test_nobody_else_is_served(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecall_image.service._uid_of", lambda _socket: 12_345)
    async with device.up():
        assert (await device.ask("status"))["code"] == "notAllowed"
        assert (await device.ask("factoryReset"))["code"] == "notAllowed"
    assert not device.reboots.exists()


async def test_who_may_ask_may_not_say_that_a_system_is_well(device: Device) -> None:
    device.judge_uid = os.getuid() + 1
    async with device.up():
        assert (await device.ask("refresh", step="all is well"))["code"] == "badRequest"
        assert (await device.ask("status"))["step"] == ""


async def test_the_daemons_own_client_understands_it(device: Device, server: BundleServer) -> None:
    client = RootService(device.socket)
    async with device.up():
        assert (await client.ask("status")).phase is Phase.IDLE
        async with aclosing(client.watch()) as told:
            await client.ask("install", url=server.url, id="j-1", rateLimit=None)
            phases = []
            async for status in told:
                phases.append(status.phase)
                if status.phase is Phase.PENDING:
                    break
        assert phases[-2] is Phase.INSTALLING
        assert (status.job, status.other, status.result) == ("j-1", {"version": "1.1.0", "state": "good"}, None)
        with pytest.raises(ServiceRefusedError) as caught:
            await client.ask("install", url="https://elsewhere.example/x", id="j-2", rateLimit=None)
        assert (caught.value.code, caught.value.sub_code) == (403, "notAllowed")
        result = (await client.ask("cancel")).result
        assert result is not None
        assert (result.state, result.code) == ("failed", "cancelled")
        assert (await client.ask("rate", rateLimit=64_000)).phase is Phase.IDLE


async def test_a_damaged_selector_is_said_and_nothing_is_done(device: Device, server: BundleServer) -> None:
    content = device.card.place.selector.read_bytes()
    device.card.place.selector.write_bytes(content.replace(b"tryboot_a_b=1", b"tryboot_a_b=7"))
    async with device.up():
        for verb in ("status", "install", "reboot"):
            error = await device.ask(verb, url=server.url, id="j-1")
            assert error["code"] == "failed"
            assert "autoboot.txt" in error["message"]
        async with device.watched() as told:
            assert (await anext(told))["error"]["code"] == "failed"
        device.card.place.selector.write_bytes(content)
        assert (await device.ask("reboot"))["code"] == "nothingPending"
        assert (await device.ask("status"))["phase"] == "idle"


async def test_the_service_rests_when_nobody_needs_it(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecall_image.service.REST_S", 0.05)
    update = Updater(device.card.slots, Rauc(), device.paths)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(device.socket))
        listener.listen()
        await asyncio.wait_for(Service(update, frozenset({os.getuid()})).serve(listener), 10)
        assert device.socket.is_socket(), "systemd goes on listening there"
