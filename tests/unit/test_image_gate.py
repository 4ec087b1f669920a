"""The health gate, on a clock of its own: what is well is committed, what is not goes back, and nothing in between."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecall_image import gate as gate_module
from edgecall_image import reach
from edgecall_image.daemon import CallLock, Condition, Network, broker_address, broker_answers, condition
from edgecall_image.errors import ImageError
from edgecall_image.gate import LIMIT_S, OFFLINE_AFTER_S, Gate, Unit, judge
from edgecall_image.rauc import Rauc, RaucError
from edgecall_image.record import Job, Record
from edgecall_image.updater import FREE_BYTES
from tests.support.appliance_socket import ApplianceSocket, somebody_calls
from tests.support.fake_rauc import install_fake_rauc
from tests.support.slot_card import Card

READY = Unit("active", 0, 30.0, 30.0)
DEVICES = {"camera": 1, "microphone": 1, "speaker": 1}
ROUTED = Network(frozenset({"IPv4", "IPv6"}), frozenset({"IPv4"}))
CABLE = Network(frozenset({"IPv4"}))
"""An address that was given, and nobody who leads further."""


class World:
    """A device on trial whose parts come up when the test says: each attribute may be a value or a function of the
    seconds since the trial began."""

    def __init__(self, **parts: Any) -> None:
        self.now = 1_000.0
        self.told: list[str] = []
        self.broker_asked = 0
        self.parts: dict[str, Any] = {
            "unit": lambda t: replace(READY, fed_at=20.0 + t) if t >= 10 else Unit("activating", 0, 0, 0),
            "condition": Condition(DEVICES, broker=True, network=ROUTED),
            "before": Condition(DEVICES, broker=True, network=ROUTED),
            "broker": True, "network": True, "free": FREE_BYTES, **parts}

    def part(self, name: str) -> Any:
        part = self.parts[name]
        return part(self.now - 1_000.0) if callable(part) else part

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def broker(self) -> bool | None:
        self.broker_asked += 1
        answer: bool | None = self.part("broker")
        return answer

    def gate(self, clock: Callable[[], float]) -> Gate:
        return Gate(self.part("before"), lambda: self.part("unit"), lambda: self.part("condition"), self.broker,
                    lambda: self.part("network"), lambda: self.part("free"), self.told.append, clock=clock,
                    sleep=self.sleep)

    def run(self) -> tuple[str, float]:
        """What is missing, and after how many seconds."""
        return self.gate(lambda: self.now).run(), self.now - 1_000.0


def test_what_is_well_for_a_minute_passes_at_once() -> None:
    missing, after = World().run()
    assert missing == ""
    assert 70 <= after <= 72


def test_the_watchdog_must_be_fed_and_not_only_live() -> None:
    missing, after = World(unit=replace(READY, fed_at=30.0 + 59)).run()
    assert "watchdog is fed for 60 s" in missing
    assert after == LIMIT_S


def test_a_restart_begins_the_minute_anew() -> None:
    def unit(t: float) -> Unit:
        return Unit("active", 1 if t > 50 else 0, 60.0 if t > 50 else 10.0, 10.0 + t)

    missing, after = World(unit=unit).run()
    assert missing == ""
    assert after >= 110


@pytest.mark.parametrize(("unit", "words"), [
    (Unit("failed", 6, 0, 0), "failed for good"), (Unit("activating", 3, 0, 0), "crashed 3 times")])
def test_what_cannot_become_well_is_not_waited_for(unit: Unit, words: str) -> None:
    missing, after = World(unit=unit).run()
    assert words in missing
    assert after == 0


def test_a_daemon_that_never_gets_ready_runs_out_of_time() -> None:
    missing, after = World(unit=Unit("activating", 0, 0, 0)).run()
    assert "it is activating" in missing
    assert after == LIMIT_S


def test_devices_that_were_there_must_be_there_again() -> None:
    missing, _ = World(condition=Condition({"camera": 1, "microphone": 1}, broker=True, network=ROUTED)).run()
    assert missing == "speaker: 0 of 1 that were there"


def test_devices_may_take_their_time_and_be_more() -> None:
    def told(t: float) -> Condition:
        return Condition({**DEVICES, "screen": 1} if t > 200 else {"microphone": 1}, broker=True,
                         network=ROUTED)

    world = World(condition=told)
    missing, after = world.run()
    assert missing == ""
    assert 200 < after < 205
    assert any("camera" in words for words in world.told)
    assert len(world.told) == len(set(world.told)), "each is told once"


def test_a_daemon_that_says_it_has_failed_is_not_well_unless_it_was_so_before() -> None:
    failed = Condition(DEVICES, broker=True, failed=True, network=ROUTED)
    assert "by its own account" in World(condition=failed).run()[0]
    assert World(condition=failed, before=failed).run()[0] == ""


def test_a_silent_daemon_is_not_well() -> None:
    assert "tells its state" in World(condition=None).run()[0]


def test_room_on_data_is_needed() -> None:
    assert "MiB are free" in World(free=FREE_BYTES - 1).run()[0]
    assert "data partition can be used" in World(free=None).run()[0]


# --- network and broker


def test_a_broker_that_others_reach_must_be_reached() -> None:
    missing, after = World(condition=Condition(DEVICES, broker=False, network=ROUTED)).run()
    assert missing == "the broker is reached"
    assert after == LIMIT_S


def lost(before: Network | None, now: Network | None, **parts: Any) -> tuple[str, float]:
    """A trial of which the broker was reached before, and nobody reaches it now."""
    return World(before=Condition(DEVICES, broker=True, network=before),
                 condition=Condition(DEVICES, broker=False, network=now), broker=False, **parts).run()


def test_a_broker_that_is_away_while_the_network_works_is_no_fault_of_the_new_system() -> None:
    missing, after = lost(ROUTED, ROUTED)
    assert missing == ""
    assert after >= OFFLINE_AFTER_S, "the network may still come up"


def test_a_network_in_which_nobody_answers_is_not_taken_for_a_broker_that_is_away() -> None:
    missing, after = lost(ROUTED, ROUTED, network=False)
    assert missing == "the broker is reached, or shown to be away by a network that works"
    assert after == LIMIT_S
    missing, after = lost(ROUTED, ROUTED, network=lambda t: t > 240)
    assert missing == ""
    assert 240 < after < 245


def test_a_network_without_a_gateway_is_taken_for_what_it_was() -> None:
    missing, after = lost(CABLE, CABLE, network=False)
    assert missing == "", "there is nobody to ask"
    assert after >= OFFLINE_AFTER_S


@pytest.mark.parametrize("broker", [True, None], ids=["the daemon's own broker", "no broker"])
@pytest.mark.parametrize(("now", "words"), [
    (Network(), ["an address of IPv4", "an address of IPv6", "a default gateway of IPv4"]),
    (None, ["an address of IPv4"]),
    (Network(frozenset({"IPv6"}), frozenset({"IPv6"})), ["an address of IPv4", "a default gateway of IPv4"]),
    (Network(ROUTED.addresses), ["a default gateway of IPv4"])])
def test_a_network_that_was_there_must_be_there_again(
        now: Network | None, words: list[str], broker: bool | None) -> None:
    missing, after = World(before=Condition(DEVICES, broker, network=ROUTED),
                           condition=Condition(DEVICES, broker, network=now)).run()
    assert after == LIMIT_S
    for part in words:
        assert f"{part}, as before" in missing


@pytest.mark.parametrize("broker", [True, None], ids=["the daemon's own broker", "no broker"])
def test_where_a_gateway_answered_somebody_must_answer_again(broker: bool | None) -> None:
    """A firewall that lets nothing in leaves addresses and routes as they were."""
    parts = {"before": Condition(DEVICES, broker, network=replace(ROUTED, answered=True)),
             "condition": Condition(DEVICES, broker, network=ROUTED), "broker": None}
    missing, after = World(**parts, network=False).run()
    assert missing == "somebody in the network answers, as before"
    assert after == LIMIT_S
    assert World(**parts, network=lambda t: t > 200).run()[0] == ""
    parts["before"] = Condition(DEVICES, broker, network=ROUTED)
    assert World(**parts, network=False).run()[0] == "", "not each gateway answers"


def test_a_broker_that_is_reached_over_the_network_is_answer_enough() -> None:
    before = Condition(DEVICES, broker=True, network=replace(ROUTED, answered=True))
    assert World(before=before, network=False).run()[0] == ""


def test_a_network_may_take_its_time_and_be_more() -> None:
    more = Network(ROUTED.addresses, ROUTED.addresses)
    missing, after = World(condition=lambda t: Condition(
        DEVICES, broker=t > 100, network=more if t > 90 else Network()), broker=False).run()
    assert missing == ""
    assert 100 < after < 105


@pytest.mark.parametrize("network", [Network(), None])
def test_a_device_without_a_network_stays_one(network: Network | None) -> None:
    """Its cable was pulled, maybe since the daemon last heard its broker."""
    for broker in (True, False, None):
        missing, after = World(before=Condition(DEVICES, broker, network=Network()), broker=False, network=False,
                               condition=Condition(DEVICES, broker and False, network=network)).run()
        assert missing == ""
        assert after < 75


def test_the_version_before_did_not_tell_of_the_network() -> None:
    assert lost(None, ROUTED)[0] == ""
    assert lost(None, CABLE, network=False)[0] == ""
    assert "by a network that works" in lost(None, Network())[0]
    assert "by a network that works" in lost(None, ROUTED, network=False)[0]
    for network in (None, Network(), ROUTED):
        assert World(before=Condition(DEVICES, broker=True),
                     condition=Condition(DEVICES, broker=True, network=network)).run()[0] == ""


def test_the_daemons_own_broker_must_be_reached() -> None:
    for network in (ROUTED, CABLE, Network()):
        missing, _ = World(before=Condition(DEVICES, broker=True, network=network), broker=None,
                           condition=Condition(DEVICES, broker=False, network=network)).run()
        assert missing == "the broker is reached"


def test_a_broker_that_was_not_reached_before_is_not_asked_for() -> None:
    world = World(condition=Condition(DEVICES, broker=False, network=ROUTED),
                  before=Condition(DEVICES, broker=False, network=ROUTED))
    assert world.run()[0] == ""
    assert world.broker_asked == 0


def test_without_knowing_what_was_before_the_broker_is_asked_for() -> None:
    assert World(condition=Condition(DEVICES, broker=False), before=None).run()[0] == "the broker is reached"
    assert World(condition=Condition({}, broker=None), before=None).run()[0] == ""


def test_the_brokers_address_is_the_settings_and_a_connection_the_proof(tmp_path: Path) -> None:
    path = tmp_path / "edgecall.toml"
    assert broker_address(path) is None
    path.write_text("[mqtt]\nport = 1883\n")
    assert broker_address(path) is None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        path.write_text(f"[mqtt]\nhost = '127.0.0.1'\nport = {listener.getsockname()[1]}\n")
        address = broker_address(path)
        assert address is not None
        assert broker_answers(address)
    assert not broker_answers(address)
    for fault in ("[mqtt", "mqtt = 3", "[mqtt]\nhost = 3", "[mqtt]\nhost = 'a'\nport = 99999"):
        path.write_text(fault)
        assert broker_address(path) is None


def test_gateways_are_read_from_the_kernels_tables(tmp_path: Path) -> None:
    assert reach.gateways(tmp_path) == []
    loopback = struct.unpack("=I", socket.inet_aton("127.0.0.1"))[0]
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        f"eth0\t00000000\t{loopback:08X}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        f"eth0\t000200C0\t{loopback:08X}\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "wwan0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0\n")
    nothing, local = "0" * 32, "fe80" + "0" * 27 + "1"
    (tmp_path / "ipv6_route").write_text(
        f"{nothing} 00 {nothing} 00 {local} 00000064 00000001 00000000 00450003     eth0\n"
        f"{nothing} 00 {nothing} 00 20010db8{'0' * 23}1 00000400 00000001 00000000 00000003     eth0\n"
        f"{local} 80 {nothing} 00 {nothing} 00000000 00000001 00000000 80200001       lo\n"
        f"{nothing} 00 {nothing} 00 {nothing} ffffffff 00000001 00000000 00200200       lo\n")
    assert reach.gateways(tmp_path) == ["127.0.0.1", "fe80::1%eth0", "2001:db8::1"]
    assert [reach.family(one) for one in reach.gateways(tmp_path)] == ["IPv4", "IPv6", "IPv6"]
    (tmp_path / "ipv6_route").unlink()
    assert reach.works(tmp_path, tmp_path / "synchronized"), "it answers"


def test_a_time_server_that_was_heard_is_proof_and_an_address_alone_is_none(tmp_path: Path) -> None:
    clock_set = tmp_path / "synchronized"
    assert not reach.works(tmp_path, clock_set)
    clock_set.touch()
    assert reach.works(tmp_path, clock_set)
    assert not reach.answers("fe80::1%nowhere")
    assert not reach.answers("255.255.255.255")


def test_a_connection_that_is_refused_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(reach, "DOMAIN", taken.getsockname()[1])
        assert reach._connects("127.0.0.1")
        taken.listen()
        assert reach._connects("127.0.0.1")


def test_a_broker_on_the_device_proves_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def reached(address: tuple[str, int]) -> bool:
        asked.append(address)
        return True

    monkeypatch.setattr(gate_module.daemon, "broker_answers", reached)
    for host in ("127.0.0.1", "::1", "localhost", "192.0.2.1"):
        monkeypatch.setattr(gate_module.daemon, "broker_address", lambda host=host: (host, 1883))
        assert gate_module._broker() is (True if host == "192.0.2.1" else None)
    assert asked == [("192.0.2.1", 1883)]


# --- what systemd and the daemon say


def test_the_unit_is_read_from_what_systemctl_shows() -> None:
    assert Unit.parse("ActiveState=active\nNRestarts=1\nActiveEnterTimestampMonotonic=21500000\n"
                      "WatchdogTimestampMonotonic=86250000\n") == Unit("active", 1, 21.5, 86.25)
    assert Unit.parse("") == Unit("unknown", 0, 0.0, 0.0)
    assert Unit.parse("ActiveState=failed\nNRestarts=x\nActiveEnterTimestampMonotonic=\n") == Unit("failed", 0, 0, 0)


def test_systemctl_itself_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\n[ "$1" = show ] && [ "$3" = edgecall.service ] && echo ActiveState=active\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert Unit.look().state == "active"
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert Unit.look().state == "unknown"


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[ApplianceSocket]:
    with ApplianceSocket(tmp_path / "edgecall.sock", {"camera": 2, "microphone": 1}, broker=False) as appliance:
        yield appliance


def test_the_daemon_tells_what_is_plugged_in(tmp_path: Path, appliance: ApplianceSocket) -> None:
    found = condition(tmp_path / "edgecall.sock")
    assert found == Condition({"camera": 2, "microphone": 1}, broker=False)
    assert found is not None
    assert Condition.of(found.document()) == found
    appliance.documents["/v1/state/net"]["addresses"] = ["192.0.2.4", "192.0.2.5", "2001:db8::4"]
    found = condition(tmp_path / "edgecall.sock", lambda: ["192.0.2.1"])
    assert found is not None
    assert found.network == ROUTED
    answered = replace(found, network=replace(ROUTED, answered=True))
    for one in (found, answered):
        assert Condition.of(json.loads(json.dumps(one.document()))) == one
    appliance.documents["/v1/health"] = {"status": "failed", "causes": ["safeMode"]}
    failed = condition(tmp_path / "edgecall.sock")
    assert failed is not None
    assert failed.failed


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b"\xff", b'{"devices": 3}', b" " * (5 << 20), None])
def test_a_daemon_that_talks_nonsense_is_no_trouble(
        tmp_path: Path, appliance: ApplianceSocket, answer: bytes | None) -> None:
    appliance.documents["/v1/state/devices"] = answer
    found = condition(tmp_path / "edgecall.sock")
    assert found is None or found.devices == {}


def test_no_daemon_tells_nothing(tmp_path: Path) -> None:
    assert condition(tmp_path / "edgecall.sock") is None
    for document in ({}, {"devices": 3, "broker": None, "failed": False},
                     {"devices": {}, "broker": 3, "failed": False}):
        assert Condition.of(document) is None
    for network in (None, 3, {}, {"addresses": 3, "gateways": []}, {"addresses": []}):
        of = Condition.of({"devices": {}, "broker": True, "failed": False, "network": network})
        assert of == Condition({}, broker=True), "as from the version that did not tell of it"


# --- calls


def test_the_lock_of_a_call_is_respected(tmp_path: Path) -> None:
    lock = tmp_path / "call.lock"
    absent = CallLock.take(lock)
    assert absent is not None, "no daemon, no call"
    with somebody_calls(lock):
        assert CallLock.take(lock) is None
    held = CallLock.take(lock)
    assert held is not None
    with pytest.raises(BlockingIOError), somebody_calls(lock):
        pass
    held.close()
    held.close()
    with somebody_calls(lock):
        pass


def test_what_lies_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    lock = tmp_path / "call.lock"
    os.mkfifo(lock)
    fifo = CallLock.take(lock, wait=True)
    assert fifo is not None, "and it did not wait for a writer"
    lock.unlink()
    (tmp_path / "elsewhere").write_text("")
    lock.symlink_to(tmp_path / "elsewhere")
    link = CallLock.take(lock)
    assert link is not None
    with somebody_calls(tmp_path / "elsewhere"):
        pass


def test_going_back_waits_for_the_end_of_a_call_and_not_for_ever(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "call.lock"
    taken: list[CallLock | None] = []

    class Here(CallLock):
        @classmethod
        def take(cls, path: Path = lock, *, wait: bool = False) -> Any:
            taken.append(super().take(path, wait=wait))
            return taken[-1]

    monkeypatch.setattr(gate_module, "CallLock", Here)
    before = signal.getsignal(signal.SIGALRM)
    over = threading.Event()

    def call() -> None:
        with somebody_calls(lock):
            begun.set()
            over.wait(10)

    begun = threading.Event()
    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(10)
    monkeypatch.setattr(gate_module, "CALL_S", 0.2)
    gate_module._calls_end()
    assert taken == [], "the call goes on, and so does the restart"
    monkeypatch.setattr(gate_module, "CALL_S", 3600.0)
    ends = threading.Timer(0.2, over.set)
    ends.start()
    gate_module._calls_end()
    caller.join()
    ends.join()
    assert len(taken) == 1
    assert taken[0] is not None
    taken[0].close()
    assert signal.getsignal(signal.SIGALRM) == before


# --- the judgement


class Trial:
    """Slot B is up and on trial."""

    def __init__(self, folder: Path) -> None:
        self.card = Card(folder)
        self.record = Record(self.card.place.marks)
        self.program = install_fake_rauc(folder, self.card.place)
        self.card.slots.make_primary("B")
        self.card.slots.ask()
        assert self.card.reboot() == "B"
        self.card.slots.settle()
        self.record.set_job(Job("j-1", "B", "rebooting", version="1.1.0"))
        self.done: list[str] = []

    def judge(self, world: World, rauc: Rauc | None = None) -> bool:
        ticks = itertools.count()
        gate = world.gate(lambda: world.now + next(ticks))
        return judge(gate, self.card.slots, rauc or Rauc(str(self.program)), self.record, "1.1.0",
                     calls_end=lambda: self.done.append("calls"), reboot=lambda: self.done.append("reboot"))


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_a_system_that_is_well_becomes_the_default(trial: Trial) -> None:
    assert trial.judge(World())
    assert (trial.card.chosen(), trial.done) == ("B", [])
    result = trial.record.result()
    assert result is not None
    assert (result.id, result.state, result.version) == ("j-1", "succeeded", "1.1.0")
    assert trial.record.open_job() is None


def test_one_that_is_not_goes_back_after_the_last_call(trial: Trial) -> None:
    assert not trial.judge(World(condition=None))
    assert trial.done == ["calls", "reboot"]
    assert trial.card.reboot() == "A"
    assert trial.card.slots.settle() == "failed", "who comes up marks it"
    assert trial.card.slots.is_bad("B")
    result = trial.record.result()
    assert result is not None
    assert (result.state, result.code) == ("rolledBack", "unhealthy")
    assert "tells its state" in result.message


def test_where_it_cannot_go_back_the_last_resort_still_may(trial: Trial) -> None:
    def no_restart() -> None:
        raise RaucError("failed", "the device does not restart")

    world = World(condition=None)
    with pytest.raises(RaucError):
        judge(world.gate(lambda: world.now), trial.card.slots, Rauc(str(trial.program)), trial.record, "1.1.0",
              calls_end=lambda: None, reboot=no_restart)
    assert "tried.B" in trial.card.marks(), "what edgecall-trial-failed.service looks for"
    assert trial.card.reboot() == "A"
    assert trial.card.slots.settle() == "failed"
    result = trial.record.result()
    assert result is not None
    assert (result.state, result.code) == ("rolledBack", "unhealthy"), "and it is told why"


def test_what_was_missing_is_written_down_before_a_call_is_waited_for(trial: Trial) -> None:
    """The power may go while somebody calls, for an hour."""
    world = World(condition=None)

    def power_goes() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(world.gate(lambda: world.now), trial.card.slots, Rauc(str(trial.program)), trial.record, "1.1.0",
              calls_end=power_goes, reboot=lambda: None)
    result = trial.record.result()
    assert result is not None
    assert (result.state, result.code) == ("rolledBack", "unhealthy")


def test_a_commit_that_comes_true_while_a_call_is_waited_for_is_a_success(trial: Trial) -> None:
    world = World()
    restarted: list[str] = []
    assert judge(world.gate(lambda: world.now), trial.card.slots, Broken(), trial.record, "1.1.0",
                 calls_end=lambda: trial.card.slots.mark_good("B"), reboot=lambda: restarted.append("reboot"))
    result = trial.record.result()
    assert result is not None
    assert (result.id, result.state, restarted) == ("j-1", "succeeded", [])


class Broken(Rauc):
    """RAUC whose service is gone."""

    async def mark(self, state: str, slot: str = "booted") -> None:
        raise RaucError("failed", f"no {state} today")


def test_a_commit_that_fails_goes_back(trial: Trial) -> None:
    assert not trial.judge(World(), Broken())
    assert trial.done == ["calls", "reboot"]
    assert trial.card.reboot() == "A"
    assert trial.card.slots.settle() == "failed"
    result = trial.record.result()
    assert result is not None
    assert "no good today" in result.message


def test_what_the_selector_says_counts_whatever_rauc_says(trial: Trial) -> None:
    class Late(Rauc):
        async def mark(self, state: str, slot: str = "booted") -> None:
            trial.card.slots.mark_good("B")
            raise RaucError("failed", "no answer")

    assert trial.judge(World(), Late())
    assert trial.card.chosen() == "B"


def test_where_it_cannot_be_judged_the_unit_restarts_the_device(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "Slots", lambda: trial.card.slots)
    monkeypatch.setattr(gate_module, "Record", lambda: trial.record)

    def not_now(*_arguments: object, **_named: object) -> bool:
        raise ImageError("the selector cannot be read")

    monkeypatch.setattr(gate_module, "judge", not_now)
    assert gate_module.main([]) == 1
    trial.card.slots.mark_good("B")
    assert gate_module.main([]) == 0, "nothing is on trial"
    assert gate_module.main(["now"]) == 2
