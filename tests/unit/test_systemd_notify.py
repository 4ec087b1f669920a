"""The service manager is told the truth, over a real socket, and its watchdog is fed by progress alone."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.care.systemd import Notifier, Watchdog
from tests.support.clock import run_virtual


class ServiceManager:
    """The receiving end of NOTIFY_SOCKET, as systemd has it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notifier(manager: ServiceManager) -> Iterator[Notifier]:
    with closing(Notifier()) as notifier:
        yield notifier


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    path = tmp_path / "notify"
    manager = ServiceManager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield manager
    manager.close()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_life_is_told_in_the_words_of_sd_notify(manager: ServiceManager, notifier: Notifier) -> None:
    notifier.extend(20)
    notifier.ready("idle")
    notifier.status("idle")
    notifier.status("in a call")
    notifier.stopping()
    assert manager.heard() == [
        "EXTEND_TIMEOUT_USEC=20000000", "READY=1\nSTATUS=idle", "STATUS=in a call", "STOPPING=1",
    ]


def test_reloading_carries_the_monotonic_time(manager: ServiceManager, notifier: Notifier) -> None:
    notifier.reloading()
    (message,) = manager.heard()
    word, _, stamp = message.partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert 0 < int(stamp) / 1e6 <= time.monotonic()


def test_a_status_cannot_smuggle_another_assignment_in(manager: ServiceManager, notifier: Notifier) -> None:
    notifier.status("ringing\nWATCHDOG=trigger")
    assert manager.heard() == ["STATUS=ringing"]


def test_without_a_service_manager_nothing_is_said() -> None:
    notifier = Notifier({})
    notifier.ready("idle")
    assert not notifier.present
    assert notifier.watchdog_s is None


def test_a_manager_that_takes_nothing_holds_nobody_up_and_hears_it_later(manager: ServiceManager) -> None:
    with closing(Notifier()) as notifier:
        for number in range(500):  # the kernel keeps 10 by default, systemd sets 512
            notifier.status(f"line {number}")
        notifier.ready("idle")
        notifier.feed()
        notifier.feed()
        assert "READY=1\nSTATUS=idle" not in manager.heard()
        notifier.feed()
        assert manager.heard()[-2:] == ["READY=1\nSTATUS=idle", "WATCHDOG=1"]


def test_a_manager_that_is_gone_is_survived(manager: ServiceManager, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Notifier()) as notifier:
        manager.close()
        notifier.ready("idle")
    assert "cannot be reached: Connection refused" in caplog.text


def test_an_abstract_socket_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind("")  # the kernel picks a name
        name = abstract.getsockname().decode().replace("\0", "@")
        with closing(Notifier({"NOTIFY_SOCKET": name})) as notifier:
            notifier.ready()
        assert abstract.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_counts_only_when_it_means_this_process(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog_s == seconds


def test_the_watchdog_is_fed_while_every_pulse_ticks_and_not_when_one_is_stuck(
    manager: ServiceManager, notifier: Notifier, caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    watchdog = Watchdog(notifier, clock)
    exchange, pacer = watchdog.pulse("audio exchange", 1.0), watchdog.pulse("video pacer", 3.0)
    exchange.tick()
    pacer.tick()
    assert watchdog.look()

    clock.now += 2
    with caplog.at_level(logging.INFO):
        assert not watchdog.look()
        assert not watchdog.look()
    assert watchdog.stuck == {"audio exchange"}
    assert [record.getMessage() for record in caplog.records] == [
        "watchdog: audio exchange is stuck; the watchdog is not fed",
    ]

    exchange.tick()
    assert watchdog.look()
    assert manager.heard() == ["WATCHDOG=1", "WATCHDOG=1"]


def test_what_has_nothing_to_do_is_not_stuck(manager: ServiceManager, notifier: Notifier) -> None:
    clock = Clock()
    watchdog = Watchdog(notifier, clock)
    exchange = watchdog.pulse("audio exchange", 1.0)
    exchange.tick()
    exchange.rest()
    clock.now += 3600
    assert watchdog.look()
    watchdog.release(exchange)
    watchdog.pulse("audio exchange", 1.0)  # the next call's has the same name
    assert manager.heard() == ["WATCHDOG=1"]


def test_work_that_counts_its_turns_is_followed(manager: ServiceManager, notifier: Notifier) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        watchdog = Watchdog(notifier, loop.time)
        turns = 0.0
        following = asyncio.create_task(watchdog.follow("exchange", 2.0, lambda: turns))
        await asyncio.sleep(10)
        assert watchdog.look(), "work that was never begun is not stuck"
        for _ in range(10):
            turns += 1
            await asyncio.sleep(1)
        assert watchdog.look()
        await asyncio.sleep(3)
        assert not watchdog.look()
        assert watchdog.stuck == {"exchange"}
        turns += 1
        await asyncio.sleep(1)
        assert watchdog.look()
        await asyncio.sleep(3)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert watchdog.look(), "what is no longer followed cannot be stuck"

    run_virtual(scenario())


def test_two_pulses_of_one_name_are_a_mistake() -> None:
    watchdog = Watchdog(Notifier({}))
    watchdog.pulse("send", 1.0)
    with pytest.raises(ValueError, match="'send' is watched already"):
        watchdog.pulse("send", 1.0)


def test_one_late_wake_withholds_one_feed(manager: ServiceManager, notifier: Notifier) -> None:
    watchdog = Watchdog(notifier)
    assert not watchdog.look(loop_lag_s=2.5)
    assert watchdog.look(loop_lag_s=0.01)
    assert manager.heard() == ["WATCHDOG=1"]


def test_the_watchdog_is_fed_four_times_within_its_limit(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")

    heard: list[str] = []

    async def a_minute() -> None:
        with closing(Notifier()) as notifier:
            watchdog = Watchdog(notifier, asyncio.get_running_loop().time)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(61):
                    await asyncio.gather(watchdog.run(), listening())

    async def listening() -> None:
        while True:
            heard.extend(manager.heard())
            await asyncio.sleep(1)

    run_virtual(a_minute())
    assert heard == ["WATCHDOG=1"] * 13
