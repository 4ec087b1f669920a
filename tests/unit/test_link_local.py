"""The broker of the first minute: a real mosquitto, who may log in to it, and that it is gone when it should be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from appliance.link.local import LocalBroker, LocalBrokerError
from appliance.settings import MqttSettings, MqttUserSettings, Secret
from appliance.vocabulary import ROOT
from tests.support.broker import Client

HERE = f"{ROOT}/door-1"
DESK = MqttUserSettings("desk", "operator", Secret("desk's own"))
BOSS = MqttUserSettings("boss", "admin", Secret("boss's own"))


@asynccontextmanager
async def running(data: Path, *users: MqttUserSettings) -> AsyncIterator[tuple[LocalBroker, MqttSettings]]:
    broker = LocalBroker(data, "door-1", users=users)
    try:
        yield broker, await broker.start()
    finally:
        await broker.stop()


def secret(broker: LocalBroker, user: str) -> str:
    return broker.password_file(user).read_text().strip()


async def log_in(settings: MqttSettings, name: str, password: str) -> int:
    """The broker's answer to a log-in, 0 when it lets in (MQTT 5, CONNACK reason code)."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[int] = loop.create_future()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"{name}-tries", protocol=paho.MQTTv5)
    client.username_pw_set(name, password)

    def told(_client: object, _user: object, _flags: object, code: object, _properties: object) -> None:
        loop.call_soon_threadsafe(lambda: answered.done() or answered.set_result(code.value))

    client.on_connect = told
    client.connect_async(settings.host, settings.port, 10)
    client.loop_start()
    try:
        async with asyncio.timeout(10):
            return await answered
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
        client.on_connect = None


async def test_the_users_of_the_settings_may_what_their_scope_says_and_no_more(data_dir: Path) -> None:
    async with (
        running(data_dir, DESK, BOSS) as (_, settings),
        Client(settings.port, "door-1", "door-1", settings.password.reveal()) as device,
        Client(settings.port, "desk", password="desk's own") as desk,
        Client(settings.port, "boss", password="boss's own") as boss,
    ):
        await device.subscribe(f"{HERE}/cmd/#")
        await desk.subscribe("#", f"{HERE}/state/+", f"{HERE}/cmd/#")
        for verb in ("config.reload", "book.put", "call.hangup"):
            await desk.publish(f"{HERE}/cmd/{verb}", f"desk {verb}")
        await desk.publish(f"{HERE}/state/call", "forged")
        await boss.publish(f"{HERE}/cmd/config.reload", "boss config.reload")
        await device.until(lambda seen: seen.payload == b"boss config.reload")
        assert [seen.payload for seen in device.seen] == [b"desk call.hangup", b"boss config.reload"]
        await device.publish(f"{HERE}/state/call", "true")
        await desk.until(lambda seen: seen.topic.endswith("state/call"))
        assert {seen.payload for seen in desk.seen} == {b"true"}, "nobody's commands, nobody's forged state"


async def test_passwords_decide_who_is_let_in(data_dir: Path) -> None:
    async with running(data_dir, DESK) as (broker, settings):
        assert await log_in(settings, "desk", "desk's own") == 0
        assert await log_in(settings, "operator", secret(broker, "operator")) == 0
        assert await log_in(settings, "desk", secret(broker, "operator")) >= 0x80
        assert await log_in(settings, "nobody", "desk's own") >= 0x80
        for kept in (broker.password_file("admin"), data_dir / "broker" / "passwords"):
            assert kept.stat().st_mode & 0o777 == 0o600
        assert not broker.password_file("desk").exists(), "a password of the settings is written nowhere"
        assert "desk's own" not in "".join(one.read_text() for one in (data_dir / "broker").iterdir() if one.is_file()
                                           and one.suffix != ".db")


async def test_a_user_of_the_settings_takes_the_place_of_the_own_one_of_the_same_name(data_dir: Path) -> None:
    async with running(data_dir) as (broker, settings):
        made = secret(broker, "admin")
        port = settings.port
    async with running(data_dir, MqttUserSettings("admin", "operator", Secret("chosen"))) as (broker, settings):
        assert settings.port == port, "what people noted down goes on working"
        assert await log_in(settings, "admin", "chosen") == 0
        assert await log_in(settings, "admin", made) >= 0x80
        async with (Client(settings.port, "door-1", "door-1", settings.password.reveal()) as device,
                    Client(settings.port, "admin", password="chosen") as admin):
            await device.subscribe(f"{HERE}/cmd/#")
            await admin.publish(f"{HERE}/cmd/config.reload", "no")
            await admin.publish(f"{HERE}/cmd/call.hangup", "yes")
            await device.until(lambda seen: seen.payload == b"yes")
            assert len(device.seen) == 1


async def test_it_comes_back_when_it_dies_and_says_so(data_dir: Path) -> None:
    ready = asyncio.Event()
    broker = LocalBroker(data_dir, "door-1", on_ready=ready.set)
    try:
        settings = await broker.start()
        first = broker.pid
        assert first is not None
        assert ready.is_set()
        ready.clear()
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(10):
            await ready.wait()
        assert broker.pid not in (None, first)
        assert await log_in(settings, "door-1", settings.password.reveal()) == 0
    finally:
        await broker.stop()
    assert broker.pid is None


async def test_it_ends_with_a_daemon_that_is_killed(data_dir: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from appliance.link.local import LocalBroker\n"
        "async def main():\n"
        "    broker = LocalBroker(pathlib.Path(sys.argv[1]), 'door-1')\n"
        "    await broker.start()\n"
        "    print(broker.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n")
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(data_dir), stdout=asyncio.subprocess.PIPE)
    assert daemon.stdout is not None
    async with asyncio.timeout(20):
        broker = os.pidfd_open(int(await daemon.stdout.readline()))
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(broker, gone.set)  # readable when the process has ended: pidfd_open(2)
        try:
            daemon.kill()
            await daemon.wait()
            await gone.wait()
        finally:
            asyncio.get_running_loop().remove_reader(broker)
            os.close(broker)


async def test_a_device_named_as_a_user_is_told_to_choose_another_name(data_dir: Path) -> None:
    with pytest.raises(LocalBrokerError, match=r"'operator' .* Choose another device\.id"):
        await LocalBroker(data_dir, "operator").start()


async def test_a_folder_that_cannot_be_written_is_named(data_dir: Path) -> None:
    (data_dir / "broker").write_text("a file in its place")
    with pytest.raises(LocalBrokerError, match="cannot be written"):
        await LocalBroker(data_dir, "door-1").start()


async def test_without_mosquitto_the_words_say_what_to_do(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.link.local.shutil.which", lambda *_args, **_more: None)
    with pytest.raises(LocalBrokerError, match="apt-get install mosquitto"):
        await LocalBroker(data_dir, "door-1").start()
