"""The panel of a real board without the board: lines as text, logic on mock pins, the relay's guard, refusals."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin
from gpiozero.pins.pi import PiBoardInfo

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceMissingError,
    Fault,
    FaultKind,
    HardwareError,
    Kind,
    Press,
    PressKind,
)
from hw.contacts import DEBOUNCE_S, STUCK_S, Button
from hw.faults import FaultLine
from hw.panel import Line, PinPanel, Wiring
from hw.pi import panel as pi_panel
from hw.pi.boardfile import BoardFile, BoardFileError, board_files, load_board_file
from hw.pi.gpiochip import Chip, chip_settles, find_chip
from hw.pi.panel import PanelConfig, open_panel
from hw.pi.pins import load_lgpio, refusal
from hw.pi.relays import GuardedRelays
from hw.sim.panel import PinRelays

# --- lines as text


def test_lines_are_read_with_their_words() -> None:
    config = PanelConfig(
        chip="pinctrl-bcm2711", buttons={"call": "17", "bell": "4 high"},
        inputs={"tamper": "23 no-pull normally-closed"}, lamps={"call": "5 40%", "mute": "6 low"},
        relays={"door": "26", "gate": "0 low"})
    wiring = config.wiring
    assert wiring.buttons == {"call": Line(17), "bell": Line(4, high=True)}
    assert wiring.inputs == {"tamper": Line(23, pulled=False, normally_closed=True)}
    assert wiring.lamps == {"call": Line(5, high=True, brightness=0.4), "mute": Line(6)}
    assert wiring.relays == {"door": Line(26, high=True), "gate": Line(0)}


@pytest.mark.parametrize(("table", "words"), [
    ({"buttons": {"call": "17", "mute": "17"}}, "line 17 is given twice: button call and button mute"),
    ({"buttons": {"call": "17"}, "lamps": {"call": "17"}}, "line 17 is given twice: button call and lamp call"),
    ({"buttons": {"call": "seventeen"}}, "buttons.call = 'seventeen': begins with the number of the line"),
    ({"buttons": {"call": ""}}, "begins with the number"),
    ({"buttons": {"call": "17 hihg"}}, "'hihg' is none of high, low, no-pull, normally-closed"),
    ({"buttons": {"call": "17 40%"}}, "'40%' is none of"),
    ({"lamps": {"call": "5 140%"}}, "'140%' is none of high, low or a brightness"),
    ({"relays": {"door": "26 high low"}}, "either high or low"),
    ({"relays": {"front door": "26"}}, "neither blanks nor colons"),
    ({"chip": "", "buttons": {"call": "17"}}, "name the GPIO chip"),
    ({"keys": {"KEY_ENTER": "call"}}, "name the keypad"),
    ({"buttons": {"call": 17}}, r"buttons: call must be a text in quotes, not 17"),
])
def test_a_wrong_line_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(BoardFileError, match=words):
        BoardFile("b.toml", tables={"panel": {"chip": "x", **table}}).part("panel", PanelConfig)


def test_every_shipped_board_file_holds() -> None:
    files = {name: load_board_file(path) for name, path in board_files().items()}
    assert set(files) == {"zero-2-w", "pi-3b-plus", "pi-4b", "pi-5", "cm4", "cm5", "generic"}
    for name, file in files.items():
        config = file.part("panel", PanelConfig)
        assert bool(config.chip) == bool(file.models) == (name != "generic")


CHIPS = {"BCM2837": "pinctrl-bcm2835", "BCM2711": "pinctrl-bcm2711", "BCM2712": "pinctrl-rp1"}


@pytest.mark.parametrize(("name", "revision"), [
    ("zero-2-w", 0x902120), ("pi-3b-plus", 0xA020D3), ("pi-4b", 0xC03114), ("pi-5", 0xC04170), ("cm4", 0xA03140),
    ("cm5", 0xC04170),  # the Pi 5's, of the same chip: gpiozero does not know the module
])
def test_lines_of_a_board_file_are_on_its_header_and_off_the_buses(name: str, revision: int) -> None:
    """As gpiozero knows the header of that revision; codecs and other boards on top keep their buses."""
    official = PiBoardInfo.from_revision(revision)
    header = {pin.name for pin in official.headers["J8"].pins.values()}
    config = load_board_file(board_files()[name]).part("panel", PanelConfig)
    lines = {line.pin for group in (config.wiring.buttons, config.wiring.inputs, config.wiring.lamps,
                                    config.wiring.relays) for line in group.values()}
    assert {f"GPIO{line}" for line in lines} <= header
    assert not lines & {0, 1, 2, 3, 14, 15, 18, 19, 20, 21}  # identity of HATs, I2C, serial port, I2S
    assert all(9 <= line.pin <= 27 for line in config.wiring.relays.values())  # pulled down before Linux runs
    assert config.chip == CHIPS[official.soc]


def test_a_board_without_a_panel_has_an_empty_one() -> None:
    faults = FaultLine()
    panel = open_panel(PanelConfig(), faults, 1.0)
    assert not (panel.buttons or panel.inputs or panel.lamps or panel.relays or panel.devices())
    panel.close()
    faults.close()


# --- logic


def test_a_button_found_down_is_no_press_but_stuck_in_its_time() -> None:
    button = Button("call", 1.0)
    button.begin(True, 0.0)
    assert button.due() == STUCK_S
    assert button.tick(5.0) == ()
    assert button.stuck(STUCK_S)
    button.edge(False, 40.0)
    assert button.tick(40.0 + DEBOUNCE_S) == ()
    assert not button.stuck(40.1)
    button.edge(True, 50.0)
    assert [press.kind for press in button.tick(50.0 + DEBOUNCE_S)] == [PressKind.PRESSED]


class WiredPin(MockPWMPin):  # type: ignore[misc]
    """A mock pin whose circuit is stronger than its pull: the tamper loop (23) and the door's contact (22) are closed,
    and somebody leans on the button (17)."""

    def _set_pull(self, value: str) -> None:
        super()._set_pull(value)
        if self.info.name in {"GPIO17", "GPIO22", "GPIO23"}:
            self.drive_low()


class Panel:
    """A panel on mock pins, with what it told."""

    def __init__(self, pin_class: type[MockPWMPin]) -> None:
        self.factory = MockFactory(pin_class=pin_class)
        self.faults = FaultLine()
        self.told: queue.Queue[Press] = queue.Queue()
        self.wiring = Wiring(
            buttons={"call": Line(17)}, inputs={"door": Line(22), "tamper": Line(23, normally_closed=True)},
            lamps={"call": Line(5, high=True, brightness=0.4), "mute": Line(6)}, relays={"gate": Line(26)})
        relays = PinRelays(self.wiring.relays, self.factory)
        self.panel = PinPanel(self.wiring, relays, self.faults, long_press_s=0.3, other_buttons=["call", "star"])
        self.panel.attach(self.factory)

    def kinds(self, count: int) -> list[tuple[str, PressKind]]:
        told = [self.told.get(timeout=3) for _ in range(count)]
        return [(press.name, press.kind) for press in told]


@pytest.fixture
def mock(request: pytest.FixtureRequest) -> Iterator[Panel]:
    made = Panel(getattr(request, "param", MockPWMPin))
    yield made
    made.panel.close()
    made.faults.close()
    made.factory.close()


@pytest.mark.parametrize("mock", [WiredPin], indirect=True)
def test_what_is_closed_at_the_start_is_told_and_a_held_button_is_not(mock: Panel) -> None:
    end = time.monotonic() + 3
    while not mock.panel._contacts["door"].closed and time.monotonic() < end:
        time.sleep(0.005)
    mock.panel.listen(mock.told.put)
    assert mock.kinds(1) == [("door", PressKind.INPUT_ON)]
    mock.factory.pin(23).drive_high()  # the loop opens
    assert mock.kinds(1) == [("tamper", PressKind.INPUT_ON)]
    mock.factory.pin(17).drive_high()
    mock.factory.pin(23).drive_low()
    assert mock.kinds(1) == [("tamper", PressKind.INPUT_OFF)]  # and nothing of the button


def test_a_witness_hears_of_its_input_while_the_listener_sleeps(mock: Panel) -> None:
    heard: queue.Queue[bool] = queue.Queue()
    awake = threading.Event()
    mock.panel.listen(lambda _: awake.wait(5) and None)
    mock.panel.witness("door", heard.put)
    assert heard.get(timeout=3) is False
    mock.factory.pin(22).drive_low()
    assert heard.get(timeout=3) is True
    mock.factory.pin(22).drive_high()
    assert heard.get(timeout=3) is False
    awake.set()
    with pytest.raises(KeyError):
        mock.panel.witness("window", heard.put)


def test_line_and_keypad_press_one_button(mock: Panel) -> None:
    mock.panel.listen(mock.told.put)
    assert list(mock.panel.buttons) == ["call", "star"]
    mock.panel.press_from("keypad", "call", True)
    pressed = mock.kinds(3)
    assert set(pressed) == {("tamper", PressKind.INPUT_ON), ("call", PressKind.PRESSED), ("call", PressKind.HELD)}
    mock.factory.pin(17).drive_low()
    mock.panel.press_from("keypad", "call", False)  # the line still holds it
    mock.factory.pin(17).drive_high()
    now = time.monotonic()
    with mock.panel._lock:  # it does not look between them, however long this machine takes
        mock.panel.press_from("keypad", "star", True, now)
        mock.panel.press_from("keypad", "star", False, now)  # shorter than a bounce: nothing
        mock.panel.press_from("keypad", "star", True, now)
    assert mock.kinds(2) == [("star", PressKind.PRESSED), ("star", PressKind.HELD)]
    with pytest.raises(KeyError):
        mock.panel.press_from("keypad", "hash", True)


def test_edges_that_come_late_and_at_once_are_a_press_all_the_same(mock: Panel) -> None:
    """A busy machine: what counts is when they were."""
    mock.panel.listen(mock.told.put)
    now = time.monotonic()
    mock.panel.press_from("keypad", "star", True, now - 0.2)
    mock.panel.press_from("keypad", "star", False, now - 0.1)
    mock.panel.press_from("keypad", "star", True, 1.8e9)  # by the time of day: now
    came = [mock.told.get(timeout=3) for _ in range(5)]  # one is the tamper loop's
    told = [press for press in came if press.name == "star"]
    assert [press.kind for press in told] == [
        PressKind.PRESSED, PressKind.RELEASED, PressKind.PRESSED, PressKind.HELD]
    assert told[1].held_s == pytest.approx(0.1)


def test_lamps_are_dimmed_and_take_up_their_rhythm_when_the_chip_returns(mock: Panel) -> None:
    panel = mock.panel
    panel.light("call", [(1.0, True)])
    panel.light("mute", [(1.0, True)])
    assert mock.factory.pin(5).state == pytest.approx(0.4)
    assert mock.factory.pin(6).state == 0
    assert panel.lit("call")
    panel.detach()
    assert not panel.lit("call")
    panel.light("mute", [(1.0, False)])
    panel.attach(mock.factory)
    assert panel.lit("call")
    assert mock.factory.pin(5).state == pytest.approx(0.4)
    assert mock.factory.pin(6).state == 1
    panel.detach()
    panel.attach(mock.factory, without={5, 17})
    assert not panel.lit("call")


def test_a_relay_that_closes_on_low_is_open_at_the_start(mock: Panel) -> None:
    assert mock.factory.pin(26).state == 1
    mock.panel.switch("gate", 20.0)
    assert mock.factory.pin(26).state == 0
    mock.panel.close()
    assert not mock.panel.closed("gate")


def test_a_pin_that_fails_is_told_and_harms_nobody(mock: Panel) -> None:
    broken: list[Exception] = []
    mock.panel._trouble = broken.append
    mock.factory.pin(6).close()
    mock.panel._lamps["mute"].device.close()  # type: ignore[union-attr]
    mock.panel.light("mute", [(1.0, True)])
    assert len(broken) == 1
    assert not mock.panel.lit("mute")


# --- the guard of the relays, on a file that is no chip


def test_a_line_that_cannot_be_taken_is_told_and_does_not_move(tmp_path: Path) -> None:
    node = tmp_path / "gpiochip0"
    node.touch()
    failed: list[tuple[str, HardwareError]] = []
    relays = GuardedRelays({"door": Line(26, high=True)}, lambda name, error: failed.append((name, error)))
    with pytest.raises(DeviceFailedError, match="nothing holds its line"):
        relays.switch("door", 1.0)
    relays.start(Chip(str(node), "gpiochip0", "no-chip", 54))
    assert relays.running
    assert [name for name, _ in failed] == ["door"]
    with pytest.raises(DeviceFailedError, match="relay door, line 26 of no-chip: Inappropriate ioctl"):
        relays.switch("door", 1.0)
    assert not relays.closed("door")
    relays.close()
    relays.close()
    assert not relays.running


def test_a_guard_that_dies_is_told(tmp_path: Path) -> None:
    node = tmp_path / "gpiochip0"
    node.touch()
    failed: queue.Queue[tuple[str, HardwareError]] = queue.Queue()
    relays = GuardedRelays({"door": Line(26)}, lambda name, error: failed.put((name, error)))
    relays.start(Chip(str(node), "gpiochip0", "no-chip", 54))
    failed.get(timeout=3)
    assert relays._guard is not None
    relays._guard.kill()
    name, error = failed.get(timeout=3)
    assert (name, str(error)) == ("door", "relay door: the process that holds it ended")
    assert not relays.running
    relays.start(Chip(str(node), "gpiochip0", "no-chip", 54))
    assert relays.running
    relays.close()


def test_a_guard_without_a_chip_does_not_start(tmp_path: Path) -> None:
    relays = GuardedRelays({"door": Line(26)}, lambda name, error: None)
    with pytest.raises(DeviceFailedError, match="ended as it began"):
        relays.start(Chip(str(tmp_path / "gpiochip9"), "gpiochip9", "no-chip", 54))
    assert not relays.running


# --- refusals


def test_the_empty_stub_of_lgpio_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = ModuleType("lgpio")
    stub.__file__ = "/site-packages/lgpio.py"
    monkeypatch.setitem(sys.modules, "lgpio", stub)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceFailedError, match=r"/site-packages/lgpio.py is the empty stub .*python3-lgpio"):
        load_lgpio()
    monkeypatch.setitem(sys.modules, "lgpio", None)
    with pytest.raises(DeviceFailedError, match="not installed"):
        load_lgpio()


@pytest.mark.parametrize(("text", "error"), [
    ("GPIO busy", DeviceBusyError), ("can not open gpiochip", DeviceMissingError),
    ("bad GPIO read", DeviceMissingError),
    ("no permission to access file", DeviceDeniedError), ("GPIO poll failed", DeviceFailedError),
])
def test_the_words_of_lgpio_become_errors(text: str, error: type[Exception]) -> None:
    told = refusal(Chip("/dev/gpiochip0", "gpiochip0", "pinctrl-rp1", 54), RuntimeError(text))
    assert type(told) is error
    assert "pinctrl-rp1" in str(told)


def test_a_chip_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DeviceMissingError, match="no chip 'pinctrl-rp1'; this machine has none"):
        find_chip("pinctrl-rp1", str(tmp_path))


def test_a_missing_chip_is_a_fault_and_the_panel_opens() -> None:
    faults = FaultLine()
    told: queue.Queue[Fault] = queue.Queue()
    faults.listen(told.put)
    panel = open_panel(PanelConfig(chip="no-such-chip", relays={"door": "26"}, lamps={"call": "5"}), faults, 1.0)
    fault = told.get(timeout=3)
    assert (fault.kind, fault.fault, fault.active) == (Kind.PANEL, FaultKind.MISSING, True)
    assert not panel.devices()[0].present
    panel.light("call", [(1.0, True)])
    with pytest.raises(DeviceFailedError):
        panel.switch("door", 1.0)
    panel.close()
    faults.close()


def test_a_chip_that_returned_just_now_is_not_told_as_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """udev gives its node to our group a moment after the kernel has made it; until then it is still gone."""
    looks: list[Exception] = [DeviceMissingError("none"), *2 * [DeviceDeniedError("new")], DeviceDeniedError("old")]
    asked: list[str] = []

    def find(_: str) -> Chip:
        error = looks.pop(0) if len(looks) > 1 else looks[0]
        asked.append(str(error))
        raise error

    monkeypatch.setattr(pi_panel, "LOOK_S", 0.01)
    monkeypatch.setattr(pi_panel, "find_chip", find)
    monkeypatch.setattr(pi_panel, "chip_settles", lambda: asked[-1] == "new")
    faults = FaultLine()
    told: queue.Queue[Fault] = queue.Queue()
    faults.listen(told.put)
    panel = open_panel(PanelConfig(chip="pinctrl-rp1", lamps={"call": "5"}), faults, 1.0)
    heard = [told.get(timeout=3) for _ in range(3)]
    panel.close()
    faults.close()
    assert [(fault.fault, fault.active, fault.detail) for fault in heard] == [
        (FaultKind.MISSING, True, "none"), (FaultKind.MISSING, False, ""), (FaultKind.DENIED, True, "old")]
    assert asked[:4] == ["none", "new", "new", "old"]


def test_only_a_chip_that_came_lately_settles(tmp_path: Path) -> None:
    assert not chip_settles(str(tmp_path))
    node = tmp_path / "gpiochip0"
    node.touch()
    assert chip_settles(str(tmp_path))
    os.utime(node, (0, time.time() - 60))
    assert not chip_settles(str(tmp_path))
