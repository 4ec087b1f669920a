"""The house as a whole on the simulated board: it opens, lives through what is missing, and leaves nothing behind.

That nothing is left (tasks, threads, processes, descriptors) is asserted after every test of this folder.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from appliance import house as house_module
from appliance.bulletin import Bulletin
from appliance.calls.book import AddressBook
from appliance.care.diagnostics import Diagnostics
from appliance.care.first_boot import FirstBoot
from appliance.faces import jsonschema
from appliance.faces.cloudevents import cloud_event
from appliance.house import POISON_SHOWN_S, House
from appliance.store import Store
from appliance.store import disk as disk_module
from appliance.store import service as service_module
from hw.api import Board, BoardOptions, DeviceMissingError
from hw.boards import open_board
from tests.support.clock import virtual_time
from tests.support.house import Manager, Running, house, start_of

QUIET = {"mqtt.enabled": False}


def keeps_the_schema(running: Running) -> None:
    """Every document and event of the running appliance is one of the published schema."""
    for name, document in running.house.bulletin.snapshot().documents.items():
        Draft202012Validator(jsonschema.state(name)).validate(document)
    for event in running.events:
        body = json.loads(json.dumps(cloud_event(event, "door-1", running.house.bulletin.boot)))
        Draft202012Validator(jsonschema.event(event.type)).validate(body)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(found.path))
    yield found
    found.close()


async def test_a_relay_that_cannot_be_used_is_told_before_a_call_needs_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        url = f"turn:127.0.0.1:{taken.getsockname()[1]}?transport=tcp"
        secret = tmp_path / "turn"
        secret.write_text("secret")
        secret.chmod(0o600)
        login = {"direct.turn_username": "door", "direct.turn_password_file": str(secret)}
        async with house(await start_of(tmp_path, QUIET | {"direct.turn": url} | login)) as running:
            await running.until(lambda: running.raised("networkRelaysNotReachable"))
            told = running.document("diag")["networkRelaysNotReachable"]
            assert told["detail"]["servers"] == [url.removesuffix("?transport=tcp") + " (tcp)"]
            assert told["detail"]["what"].endswith("nobody listens at its port")
            await running.until(lambda: "networkRelaysNotReachable" in running.document("health").get("causes", []))
            keeps_the_schema(running)


async def test_it_opens_says_ready_serves_and_closes(tmp_path: Path, manager: Manager) -> None:
    async with house(await start_of(tmp_path, QUIET)) as running:
        await running.until(lambda: running.document("health").get("clock"))
        *before, ready = manager.told()[:5]
        assert before == ["EXTEND_TIMEOUT_USEC=30000000"] * 4, "a slow board is not stopped while its start goes on"
        assert ready == "READY=1\nSTATUS=call: None"
        assert running.document("device") | {"id": "door-1", "board": "sim", "safeMode": False, "onDuty": []} == (
            running.document("device"))
        names = {"device", "call", "roster", "media", "devices", "diag", "net", "provider", "io", "calls", "health",
                 "config"}
        await running.until(lambda: names <= set(running.house.bulletin.snapshot().documents))
        keeps_the_schema(running)
        status, health = await running.ask("GET", "/v1/health")
        assert (status, health["clock"].endswith("synchronised"), health["pssBytes"] > 0) == (200, True, True)
        assert [row["type"] for row in (await running.ask("GET", "/v1/stats"))[1]["stats"]] == ["x-device"]
        assert 'edgecall_health{status="' in (await running.ask("GET", "/metrics"))[1]
        assert (await running.give("devices.volume", percent=40))["result"] == "done"
        await running.until(lambda: running.document("devices")["volume"] == 40)
    assert [event.type for event in running.events][-1] == "device.stopping"
    assert running.events[-1].data == {"reason": "asked"}
    assert manager.told()[-1] == "STOPPING=1"


async def test_a_press_with_nobody_on_duty_says_so_on_the_device(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, QUIET)) as running:
        assert (await running.give("sim.press", button="call", seconds=0.1))["result"] == "done"
        await running.until(lambda: running.document("call")["state"] == "Disconnected")
        assert running.document("call")["endReason"]["subCode"] == "unreachable"
        assert running.document("call")["callerInfo"]["displayName"] == "Operators"
        await running.until(lambda: running.raised("nobodyOnDuty"))
        keeps_the_schema(running)
        running.house.duty.changed(["Lena"])
        await running.until(lambda: running.document("diag")["nobodyOnDuty"]["value"] is False)
        assert running.document("device")["onDuty"] == ["Lena"]


async def test_the_ways_into_the_world_are_told_and_kept_current(tmp_path: Path) -> None:
    settings = QUIET | {"direct.fleet": ["lobby-2"]}
    async with house(await start_of(tmp_path, settings)) as running:
        await running.until(lambda: running.document("provider"))
        direct = running.document("provider")["providers"]["direct"]
        assert direct["connection"] == {"broker": "none"}
        assert direct["capabilities"]["operator"] == {"isPresent": False, "reason": "nobodyOnDuty"}
        assert direct["capabilities"]["device"] == {"isPresent": False, "reason": "noBroker"}
        assert (direct["onDuty"], direct["calls"], direct["peers"]) == ([], 0, {})


def with_faults(*names: str) -> Board:
    def opened(name: str, options: BoardOptions) -> Board:
        board = open_board(name, options)
        assert board.simulation is not None
        for fault in names:
            board.simulation.fault(fault, True)
        return board

    return opened  # type: ignore[return-value]


@pytest.mark.parametrize(("fault", "diagnostic"), [
    ("mic.busy", "microphoneBusy"), ("mic.unplug", "noMicrophoneDevicesEnumerated"), ("speaker.busy", "speakerBusy"),
    ("camera.unplug", "noCameraDevicesEnumerated")])
async def test_a_part_of_the_board_that_is_not_there_is_a_diagnostic_until_it_is(
        tmp_path: Path, manager: Manager, fault: str, diagnostic: str) -> None:
    async with house(await start_of(tmp_path, QUIET, board=with_faults(fault))) as running:
        await running.until(lambda: running.raised(diagnostic))
        assert any(words.startswith("READY=1") for words in manager.told())
        assert diagnostic in (await running.ask("GET", "/v1/state/diag"))[1]
        assert (await running.give("sim.fault", fault=fault, active=False))["result"] == "done"
        await running.until(lambda: not running.raised(diagnostic))


async def test_a_selected_device_is_missed_after_a_restart_and_used_when_it_comes(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, QUIET)) as running:
        assert (await running.give("sim.plug", device="microphone", source="tone:880"))["result"] == "done"
        answer = await running.give("devices.select", kind="microphone", id="mic1")
        assert (answer["result"], answer["data"]["choice"]["used"]) == ("done", "mic1")
        refused = await running.give("devices.select", kind="microphone", id="spk0")
        assert (refused["result"], refused["code"], refused["subCode"]) == ("rejected", 400, "wrongKind")
        await running.until(lambda: running.document("devices"))
        keeps_the_schema(running)
    async with house(await start_of(tmp_path, QUIET)) as running:
        await running.until(lambda: running.raised("microphoneUnplugged"))
        assert running.document("devices")["choice"]["microphone"] | {"why": ""} == {
            "selected": "mic1", "used": "mic0", "why": ""}
        keeps_the_schema(running)
        assert (await running.give("sim.plug", device="microphone"))["result"] == "done"
        await running.until(lambda: not running.raised("microphoneUnplugged"))
        assert running.document("devices")["choice"]["microphone"]["used"] == "mic1"


async def test_a_board_that_cannot_be_opened_ends_the_start_in_words(tmp_path: Path) -> None:
    def missing(name: str, options: BoardOptions) -> Board:
        raise DeviceMissingError("there is no panel at /dev/gpiochip0")

    with pytest.raises(DeviceMissingError, match="gpiochip0"):
        async with House(await start_of(tmp_path, QUIET, board=missing)):
            pass


async def test_a_port_that_is_taken_ends_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        start = await start_of(tmp_path, QUIET | {"http.port": taken.getsockname()[1]})
        with pytest.raises(Exception, match="port"):
            async with House(start):
                pass


async def test_without_its_broker_it_runs_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "broker").write_text("in the way")
    async with house(await start_of(tmp_path)) as running:
        await running.until(lambda: running.raised("mqttDisconnected"))
        assert "cannot be written" in running.document("diag")["mqttDisconnected"]["detail"]["why"]
        assert (await running.give("call.dial", to="device:lobby-2"))["code"] == 480


async def test_with_its_broker_it_is_connected_and_tells_its_start_and_its_end(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path)) as running:
        await running.until(lambda: running.document("net").get("brokerConnected"))
        await running.until(lambda: running.document("provider")["providers"]["direct"]["connection"]
                            == {"broker": "connected"})
        assert not running.raised("mqttDisconnected")


async def test_safe_mode_has_no_media_and_everything_else(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, QUIET, safe=True)) as running:
        assert running.document("device")["safeMode"] is True
        await running.until(lambda: running.document("health").get("status") == "failed")
        assert (await running.ask("GET", "/v1/health"))[0] == 503
        await running.until(lambda: running.document("provider") == {"providers": {}})
        assert (await running.give("call.dial", to="operator:*"))["code"] == 501
        assert (await running.give("book.put", name="Anna", uris=["device:anna-1"]))["result"] == "done"
        assert (await running.give("io.set", relay="door", seconds=1))["subCode"] == "FeatureNotSupported"


async def test_a_data_folder_that_cannot_be_written_is_a_diagnostic_and_calls_go_on(tmp_path: Path) -> None:
    start = await start_of(tmp_path, QUIET)
    (tmp_path / "data" / "edgecall.db").mkdir()  # root writes everywhere, but not a database into a folder
    async with house(start) as running:
        await running.until(lambda: running.raised("storageReadOnly"))
        assert (await running.give("devices.volume", percent=30))["result"] == "done"


async def test_a_run_that_was_killed_is_told_by_the_next_one_and_a_stop_is_not(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, QUIET)) as running:
        assert not running.raised("watchdogRestarted")
    async with house(await start_of(tmp_path, QUIET)) as running:
        assert not running.raised("watchdogRestarted"), "the last run stopped as asked"
        left = await running.house.store.get("running")
    store = Store(tmp_path / "data")
    await store.open()
    await store.set("running", left or "")  # as a kill would have left it
    await store.close()
    async with House(await start_of(tmp_path, QUIET)) as opened:
        assert opened.diagnostics.raised("watchdogRestarted")


async def test_what_happened_before_the_broker_was_there_waits_for_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    await store.open()
    await store.set("active_call", "call-9")  # as a kill in a call leaves it
    await store.close()
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # a broker that never answers
        settings = {"mqtt.host": "127.0.0.1", "mqtt.port": deaf.getsockname()[1]}
        async with house(await start_of(tmp_path, settings)) as running:
            came = asyncio.Event()
            running.house.store.on_enqueue(came.set)
            async with asyncio.timeout(10):
                came.clear()
                while len(rows := (await running.house.store.outbox(9))[0]) < 2:
                    await came.wait()
                    came.clear()
    told = [json.loads(row.payload) for row in rows]
    assert [one["type"] for one in told] == ["edgecall.device.booted", "edgecall.call.ended"]
    assert told[1]["data"]["callId"] == "call-9"
    assert told[1]["data"]["reason"]["subCode"] == "deviceFault.restart"


async def test_a_first_boot_file_that_was_refused_is_a_security_event(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        settings = {"mqtt.host": "127.0.0.1", "mqtt.port": deaf.getsockname()[1]}
        start = await start_of(tmp_path, settings, first_boot=FirstBoot((), ("mqtt", "call")))
        async with house(start) as running:
            came = asyncio.Event()
            running.house.store.on_enqueue(came.set)

            async def outbox() -> dict[str, Any]:
                rows, _ = await running.house.store.outbox(9)
                return {one["type"]: one["data"] for one in map(json.loads, (row.payload for row in rows))}

            async with asyncio.timeout(10):
                while "edgecall.security.refused" not in (told := await outbox()):
                    await came.wait()
                    came.clear()
    assert told["edgecall.security.refused"] == {
        "why": "firstBootFile", "origin": "card", "sender": "card", "sections": "mqtt, call"}


async def test_a_background_task_that_ends_ends_the_appliance_with_its_error(tmp_path: Path) -> None:
    async with House(await start_of(tmp_path, QUIET)) as opened:
        async def broken() -> None:
            raise RuntimeError("a defect")

        opened._background.append(("care.broken", broken))
        told = []
        with (opened.bulletin.subscribed(on_event=told.append), pytest.raises(RuntimeError, match="a defect")):
            await asyncio.wait_for(opened.serve(), 20)
        assert told[-1].type == "device.stopping"
        assert told[-1].data == {"reason": "failed"}


async def test_settings_are_read_again_and_a_bad_file_changes_nothing(tmp_path: Path, manager: Manager) -> None:
    async with house(await start_of(tmp_path, QUIET)) as running:
        text = running.config.read_text()
        running.config.write_text(text + '[call]\nbutton_target = "device:lobby-2"\n')
        await running.house.reload()
        assert running.house.settings.call.button_target == "device:lobby-2"
        assert running.document("config")["version"] == 2
        running.config.write_text(text + "[call]\nring_s = 1\n")
        await running.house.reload()
        assert running.house.settings.call.button_target == "device:lobby-2"
        assert running.raised("configRejected")
        assert "ring_s" in running.document("config")["errors"][0]
        assert manager.told()[-1].startswith("READY=1"), "systemd hears of the end of a reload, good or bad"


async def test_it_opens_on_a_data_folder_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    waiting: list[threading.Thread] = []

    def hang(_disk: disk_module.Disk) -> None:
        waiting.append(threading.current_thread())
        release.wait()
        raise OSError("the card is gone")

    monkeypatch.setattr(disk_module.Disk, "_open_file", hang)
    monkeypatch.setattr(AddressBook, "load", lambda _book, _path: release.wait())
    monkeypatch.setattr(service_module, "WAIT_S", 1.0)
    monkeypatch.setattr(house_module, "BOOK_S", 1.0)
    try:
        async with house(await start_of(tmp_path, QUIET)) as running:
            await running.until(lambda: running.document("diag").get("storageReadOnly", {}).get("value"))
            assert (await running.give("devices.volume", percent=40))["result"] == "done"
            keeps_the_schema(running)
    finally:
        release.set()
        for thread in waiting:
            await asyncio.to_thread(thread.join, 20)


async def test_it_opens_on_a_data_folder_that_hangs_once_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                      ) -> None:
    release, real = threading.Event(), disk_module.Disk.do

    def hang(disk: disk_module.Disk, work: Any) -> Any:
        release.wait()
        return real(disk, work)

    monkeypatch.setattr(disk_module.Disk, "do", hang)
    monkeypatch.setattr(service_module, "WAIT_S", 1.0)
    try:
        async with house(await start_of(tmp_path, QUIET)) as running:
            await running.until(lambda: running.document("diag").get("storageReadOnly", {}).get("value"))
            assert (await running.give("devices.volume", percent=40))["result"] == "done"
            keeps_the_schema(running)
            monkeypatch.setattr(service_module, "WAIT_S", 10.0)
            release.set()
            await running.until(lambda: not running.document("diag")["storageReadOnly"]["value"])
            assert running.house.store.persistent
    finally:
        release.set()


@virtual_time
async def test_a_message_that_was_set_aside_is_no_trouble_for_ever(tmp_path: Path) -> None:
    appliance = House(await start_of(tmp_path, QUIET))
    appliance.diagnostics = Diagnostics(Bulletin("boot-1"))
    appliance._poison("edgecall/v1/door-1/event/x", "refused")
    assert appliance.diagnostics.raised("eventQueueBacklog")
    await asyncio.sleep(POISON_SHOWN_S + 1)
    assert not appliance.diagnostics.raised("eventQueueBacklog")
