"""The panel on lines of a GPIO chip and a keypad of the input subsystem: kernel real, contacts simulated."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import evdev
import pytest

from hw import contacts
from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceMissingError,
    Fault,
    FaultKind,
    Kind,
    Press,
    PressKind,
)
from hw.faults import FaultLine
from hw.pi.edges import EVENTS
from hw.pi.gpiochip import chips, find_chip, line_info
from hw.pi.panel import PanelConfig, PiPanel
from hw.pi.pins import load_lgpio
from hw.pi.relay_guard import Relay
from tests.hil.devices import GpioChip

CALL, MUTE, DOOR, TAMPER, STATUS, DIM, LOW, RELAY, GATE = 17, 27, 22, 23, 5, 6, 13, 26, 20
CONFIG = PanelConfig(
    chip="pinctrl-bcm2835", buttons={"call": f"{CALL}", "mute": f"{MUTE}"},
    inputs={"door": f"{DOOR}", "tamper": f"{TAMPER} no-pull normally-closed"},
    lamps={"status": f"{STATUS}", "dim": f"{DIM} 40%", "low": f"{LOW} low"},
    relays={"door": f"{RELAY}", "gate": f"{GATE} low"})
LONG_S = 2.5


class Told:
    """Presses and faults as they come."""

    def __init__(self) -> None:
        self.line = FaultLine()
        self.faults: queue.Queue[Fault] = queue.Queue()
        self.presses: queue.Queue[Press] = queue.Queue()
        self.line.listen(self.faults.put)

    def press(self, seconds: float = 6.0) -> tuple[str, PressKind]:
        press = self.presses.get(timeout=seconds)
        return press.name, press.kind

    def fault(self, kind: FaultKind, active: bool, seconds: float = 5.0) -> Fault:
        end = time.monotonic() + seconds
        seen = []
        while (left := end - time.monotonic()) > 0:
            try:
                fault = self.faults.get(timeout=left)
            except queue.Empty:
                break
            if (fault.kind, fault.fault, fault.active) == (Kind.PANEL, kind, active):
                return fault
            seen.append(fault)
        raise AssertionError(f"no {kind} {active} within {seconds} s, but {seen}")


def _until(condition: object, seconds: float = 5.0) -> bool:
    """For what can only be read back: levels of lines."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


@pytest.fixture
def chip() -> Iterator[GpioChip]:
    made = GpioChip((CALL, MUTE, DOOR, TAMPER, STATUS, DIM, LOW, RELAY, GATE))
    for line in (CALL, MUTE, DOOR):
        made.pull(line, up=True)
    made.pull(TAMPER, up=False)  # the loop of the case is closed; the circuit pulls, since gpio-sim obeys the chip's
    yield made
    made.remove()


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.line.close()


@pytest.fixture
def panel(chip: GpioChip, told: Told) -> Iterator[PiPanel]:
    made = PiPanel(CONFIG, told.line, LONG_S)
    made.listen(told.presses.put)
    assert _until(lambda: made._guarded.running, 20.0)
    yield made
    made.close()


def test_lgpio_is_the_real_one_and_opens_a_chip(chip: GpioChip) -> None:
    lgpio = load_lgpio()
    handle = lgpio.gpiochip_open(int(chip.device.name.removeprefix("gpiochip")))
    assert handle >= 0
    lgpio.gpiochip_close(handle)


def test_every_press_is_told_short_and_long(chip: GpioChip, panel: PiPanel, told: Told) -> None:
    late = []
    for _ in range(20):
        pressed = time.monotonic()
        chip.pull(CALL, up=False)
        assert told.press() == ("call", PressKind.PRESSED)
        late.append(time.monotonic() - pressed)
        chip.pull(CALL, up=True)
        assert told.press() == ("call", PressKind.RELEASED)
    print(f"press to told: median {sorted(late)[10] * 1000:.1f} ms, most {max(late) * 1000:.1f} ms, of which "
          f"{contacts.DEBOUNCE_S * 1000:.0f} ms are debouncing")
    assert sorted(late)[10] < 0.25
    chip.pull(MUTE, up=False)
    assert told.press() == ("mute", PressKind.PRESSED)
    assert told.press() == ("mute", PressKind.HELD)
    chip.pull(MUTE, up=True)
    chip.pull(DOOR, up=False)
    assert told.press() == ("door", PressKind.INPUT_ON)
    chip.pull(TAMPER, up=True)
    assert told.press() == ("tamper", PressKind.INPUT_ON)
    chip.pull(TAMPER, up=False)
    assert told.press() == ("tamper", PressKind.INPUT_OFF)
    assert told.presses.empty()


def _switches() -> dict[str, int]:
    """Voluntary context switches of our threads so far, by their names; those of lgpio's are ``libraries``."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: dict[str, int] = {}
    for task in Path("/proc/self/task").iterdir():
        rows = (task / "status").read_text().splitlines()
        name = names.get(int(task.name), "libraries")
        found[name] = found.get(name, 0) + int(
            next(row.split()[1] for row in rows if row.startswith("voluntary_ctxt_switches")))
    return found


def test_nothing_wakes_before_there_is_an_edge(chip: GpioChip, told: Told) -> None:
    """But for lgpio's thread for pulses, from when the chip is opened; a dimmed lamp would have it run."""
    config = PanelConfig(CONFIG.chip, CONFIG.buttons, CONFIG.inputs, {"status": f"{STATUS}", "low": f"{LOW} low"})
    panel = PiPanel(config, told.line, LONG_S)
    panel.listen(told.presses.put)
    try:
        panel.light("status", [(1.0, True)])
        time.sleep(0.5)
        seconds, before = 10.0, _switches()
        time.sleep(seconds)
        woken = {name: (count - before.get(name, 0)) / seconds for name, count in _switches().items()}
        print("wake-ups a second: " + ", ".join(f"{name} {rate:.1f}" for name, rate in woken.items()))
        assert woken["hw.gpio.edges"] == 0
        assert woken["hw.gpio"] <= 3, "it looks whether the chip is still there"
        assert woken["libraries"] <= 100, "its thread for edges would be over 500"
        chip.pull(CALL, up=False)
        assert told.press() == ("call", PressKind.PRESSED)
    finally:
        panel.close()


def test_edges_that_the_kernel_could_not_keep_are_made_up_for(chip: GpioChip, panel: PiPanel, told: Told) -> None:
    for down in (True, False):
        with panel._lock:  # whoever reads them stands still
            for count in range(2 * EVENTS + 1):
                chip.pull(CALL, up=(count % 2 == 1) == down)
        assert told.press() == ("call", PressKind.PRESSED if down else PressKind.RELEASED)
    assert told.presses.empty()


def test_bounces_are_one_press(
    chip: GpioChip, panel: PiPanel, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "DEBOUNCE_S", 0.4)  # a busy machine bounces slower than a contact
    for _ in range(12):
        chip.pull(CALL, up=False)
        chip.pull(CALL, up=True)
    chip.pull(CALL, up=False)
    assert told.press() == ("call", PressKind.PRESSED)
    for _ in range(12):
        chip.pull(CALL, up=True)
        chip.pull(CALL, up=False)
    chip.pull(CALL, up=True)
    assert told.press() == ("call", PressKind.RELEASED)
    time.sleep(2 * contacts.DEBOUNCE_S)
    assert told.presses.empty()


def test_a_stuck_button_is_told_until_it_is_free(
    chip: GpioChip, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "STUCK_S", 0.8)
    chip.pull(CALL, up=False)  # as the appliance starts: nobody's press
    panel = PiPanel(PanelConfig(chip=CONFIG.chip, buttons={"call": f"{CALL} no-pull"}), told.line, LONG_S)
    panel.listen(told.presses.put)
    try:
        assert told.fault(FaultKind.STUCK, True).device == "button:call"
        chip.pull(CALL, up=True)
        told.fault(FaultKind.STUCK, False)
        assert told.presses.empty()
        chip.pull(CALL, up=False)
        assert told.press() == ("call", PressKind.PRESSED)
    finally:
        panel.close()


def test_levels_of_lamps_are_on_their_lines(chip: GpioChip, panel: PiPanel) -> None:
    assert not chip.value(STATUS)
    assert chip.value(LOW)  # dark
    for lamp in ("status", "dim", "low"):
        panel.light(lamp, [(1.0, True)])
        assert panel.lit(lamp)
    assert chip.value(STATUS)
    assert not chip.value(LOW)
    levels = []
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        levels.append(chip.value(DIM))
        time.sleep(0.0013)
    share = sum(levels) / len(levels)
    print(f"a lamp of 40 % is lit {share:.0%} of the time")
    assert 0.2 < share < 0.6
    panel.light("status", [(0.1, True), (0.1, False)])
    for lit in (False, True, False, True):
        assert _until(lambda lit=lit: chip.value(STATUS) == lit)
    panel.light("dim", [(1.0, False)])
    assert _until(lambda: not any(chip.value(DIM) for _ in range(20)))


def test_relays_are_open_at_the_start_and_after_their_time(chip: GpioChip, panel: PiPanel) -> None:
    assert not chip.value(RELAY)
    assert chip.value(GATE)  # open, of one that closes on a low level
    consumers = {info.consumer for info in line_info(find_chip(CONFIG.chip)) if info.used}
    assert {"edgecall door", "edgecall gate"} <= consumers
    panel.switch("door", 2.0)
    panel.switch("gate", 20.0)
    assert (chip.value(RELAY), chip.value(GATE)) == (True, False)
    assert panel.closed("door")
    assert _until(lambda: not chip.value(RELAY), 5.0)
    assert _until(lambda: not panel.closed("door"), 2.0)
    panel.switch("gate", 0.0)
    assert chip.value(GATE)
    assert not panel.closed("gate")
    panel.switch("door", 20.0)
    panel.close()
    assert not chip.value(RELAY)


DAEMON = f"""
import sys, time
from hw.pi.panel import PanelConfig, PiPanel
from hw.faults import FaultLine
panel = PiPanel(PanelConfig(chip="pinctrl-bcm2835", relays={{"door": "{RELAY}"}}), FaultLine(), 1.0)
panel.switch("door", 30.0)
print("closed", flush=True)
time.sleep(60)
"""


def test_a_relay_opens_when_the_daemon_is_killed(chip: GpioChip) -> None:
    """Opened by the guard, and not by the kernel that takes the line back: that leaves it at its pull, which is up."""
    chip.pull(RELAY, up=True)
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == b"closed\n"
    assert chip.value(RELAY)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))  # to see the moment between opening and letting go
    try:
        killed = time.monotonic()
        daemon.send_signal(signal.SIGKILL)
        opened = _until(lambda: not chip.value(RELAY), 3.0)
        took = time.monotonic() - killed
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        daemon.wait()
        daemon.stdout.close()
    assert opened
    print(f"kill to open relay: {took * 1000:.0f} ms")
    assert _until(lambda: not any(info.used for info in line_info(find_chip(CONFIG.chip))))


def test_a_guard_that_is_killed_is_told_and_replaced(chip: GpioChip, panel: PiPanel, told: Told) -> None:
    panel.switch("door", 20.0)
    assert panel._guarded._guard is not None
    panel._guarded._guard.kill()
    told.fault(FaultKind.FAILED, True)
    assert not panel.closed("door")
    told.fault(FaultKind.FAILED, False)
    assert _until(lambda: panel._guarded.running)
    assert not chip.value(RELAY)
    panel.switch("door", 20.0)
    assert chip.value(RELAY)


def test_a_line_that_is_taken_is_told_with_its_holder_and_the_rest_works(chip: GpioChip, told: Told) -> None:
    node = os.open(chip.device, os.O_RDWR)
    other = [Relay(node, "heater", CALL, True), Relay(node, "pump", RELAY, True)]
    panel = PiPanel(CONFIG, told.line, LONG_S)
    panel.listen(told.presses.put)
    try:
        faults = {fault.device: fault for fault in (told.fault(FaultKind.BUSY, True) for _ in range(2))}
        assert "button call: line 17 (GPIO17) of pinctrl-bcm2835 is held by 'edgecall heater'" in (
            faults["panel0/button:call"].detail)
        assert "held by 'edgecall pump'" in faults["panel0/relay:door"].detail
        assert "heater" in panel.devices()[0].note
        chip.pull(MUTE, up=False)
        assert told.press() == ("mute", PressKind.PRESSED)
        with pytest.raises(DeviceBusyError, match="relay door, line 26"):
            panel.switch("door", 1.0)
        panel.switch("gate", 2.0)
        assert not chip.value(GATE)
        for relay in other:
            os.close(relay._line)
        healed = {told.fault(FaultKind.BUSY, False, 10.0).device for _ in range(2)}
        assert healed == {"panel0/button:call", "panel0/relay:door"}
        assert _until(lambda: panel._chip is not None and not panel._busy and panel._guarded.running)
        chip.pull(CALL, up=False)
        while told.press() != ("call", PressKind.PRESSED):
            pass
        panel.switch("door", 20.0)
        assert chip.value(RELAY)
    finally:
        panel.close()
        os.close(node)


def test_a_line_the_chip_has_not_is_told(chip: GpioChip, told: Told) -> None:
    panel = PiPanel(PanelConfig(chip=CONFIG.chip, buttons={"call": "99"}), told.line, LONG_S)
    assert "has lines 0 to 53, not 99" in told.fault(FaultKind.FAILED, True).detail
    panel.close()


def test_another_chip_is_missing_with_those_that_are_there(chip: GpioChip) -> None:
    with pytest.raises(DeviceMissingError, match=r"no chip 'pinctrl-rp1'; this machine has gpiochip\d+ .pinctrl-bcm"):
        find_chip("pinctrl-rp1")


def test_a_chip_that_may_not_be_opened_is_denied(chip: GpioChip) -> None:
    chip.device.chmod(0o600)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            chips()
        except DeviceDeniedError as error:
            os._exit(7 if "add the user to the group gpio" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_chip_that_goes_is_told_and_taken_again_when_it_returns(chip: GpioChip, panel: PiPanel, told: Told) -> None:
    panel.light("status", [(1.0, True)])
    panel.switch("door", 20.0)
    for _ in range(2):
        gone = time.monotonic()
        chip.unplug()
        assert "gone" in told.fault(FaultKind.PULLED, True, 2.0).detail
        print(f"pulled to told: {(time.monotonic() - gone) * 1000:.0f} ms")
        assert not panel.devices()[0].present
        assert not panel.lit("status")
        assert not panel.closed("door")
        panel.light("status", [(1.0, True)])
        with pytest.raises(DeviceFailedError):
            panel.switch("door", 1.0)
        chip.plug()
        for line in (CALL, MUTE, DOOR):
            chip.pull(line, up=True)
        told.fault(FaultKind.PULLED, False, 3.0)
        assert panel.devices()[0].present
        assert _until(lambda: chip.value(STATUS))
        assert _until(lambda: panel._guarded.running)
        assert not chip.value(RELAY)
        chip.pull(CALL, up=False)
        assert _until(lambda: told.press() == ("call", PressKind.PRESSED))
        chip.pull(CALL, up=True)
        while told.press() != ("call", PressKind.RELEASED):
            pass
        panel.switch("door", 20.0)
        assert chip.value(RELAY)


# --- keypad

KEYS = [evdev.ecodes.KEY_1, evdev.ecodes.KEY_0, evdev.ecodes.KEY_KPASTERISK, evdev.ecodes.KEY_ENTER, evdev.ecodes.KEY_A]


def _pad() -> evdev.UInput:
    return evdev.UInput({evdev.ecodes.EV_KEY: KEYS}, name="Door Keypad 12")


def _type(pad: evdev.UInput, key: int, held_s: float = 0.05) -> None:
    pad.write(evdev.ecodes.EV_KEY, key, 1)
    pad.syn()
    time.sleep(held_s)
    pad.write(evdev.ecodes.EV_KEY, key, 0)
    pad.syn()


def test_keys_press_buttons_and_a_keypad_may_come_and_go(told: Told) -> None:
    panel = PiPanel(PanelConfig(keypad="Door Keypad", keys={"KEY_ENTER": "call"}), told.line, LONG_S)
    panel.listen(told.presses.put)
    try:
        told.fault(FaultKind.MISSING, True)
        for turn in range(2):
            pad = _pad()
            told.fault(FaultKind.PULLED if turn else FaultKind.MISSING, False)
            for key, name in ((KEYS[0], "1"), (KEYS[1], "0"), (KEYS[2], "star"), (KEYS[3], "call")):
                _type(pad, key)
                assert told.press() == (name, PressKind.PRESSED)
                assert told.press() == (name, PressKind.RELEASED)
            _type(pad, KEYS[4])  # no button's
            _type(pad, KEYS[3], LONG_S + 0.2)
            assert told.press() == ("call", PressKind.PRESSED)
            assert told.press() == ("call", PressKind.HELD)
            pad.write(evdev.ecodes.EV_KEY, KEYS[0], 1)
            pad.syn()
            assert told.press() == ("1", PressKind.PRESSED)
            pad.close()  # pulled while a key is down
            assert "was unplugged" in told.fault(FaultKind.PULLED, True).detail
            assert told.press() == ("1", PressKind.RELEASED)
        assert told.presses.empty()
    finally:
        panel.close()


def test_a_keypad_that_another_program_holds_is_busy_until_it_lets_go(told: Told) -> None:
    pad = _pad()
    other = evdev.InputDevice(pad.device.path)
    other.grab()
    panel = PiPanel(PanelConfig(keypad=pad.device.path), told.line, LONG_S)
    panel.listen(told.presses.put)
    try:
        assert f"({os.getpid()})" in told.fault(FaultKind.BUSY, True).detail
        other.ungrab()
        told.fault(FaultKind.BUSY, False)
        _type(pad, KEYS[0])
        assert told.press() == ("1", PressKind.PRESSED)
    finally:
        panel.close()
        other.close()
        pad.close()


def test_nothing_of_a_closed_panel_is_left(chip: GpioChip, told: Told) -> None:
    def own() -> tuple[int, set[str]]:
        lines = {info.consumer for info in line_info(find_chip(CONFIG.chip)) if info.used}
        return len(list(Path("/proc/self/fd").iterdir())), lines

    PiPanel(CONFIG, told.line, LONG_S).close()
    before = own()
    for _ in range(5):
        panel = PiPanel(CONFIG, told.line, LONG_S)
        panel.switch("door", 20.0)
        panel.close()
        panel.close()
    assert own() == before
    assert before[1] == set()
