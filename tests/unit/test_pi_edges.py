"""Lines that are read, as the kernel's requests and events have them: its side is played here, on pipes.

That the real one does the same is shown in the guest (tests/hil/inside/test_panel.py)."""

from __future__ import annotations

import errno
import os
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpiozero import GPIOZeroError, InputDevice
from gpiozero.pins.local import LocalPiFactory

from hw.api import DeviceBusyError, DeviceMissingError, Press, PressKind
from hw.contacts import DEBOUNCE_S
from hw.faults import FaultLine
from hw.panel import LATE_S, Line, PinPanel, Wiring
from hw.pi import edges
from hw.pi.edges import Edge, EdgeReader, InputLine
from hw.pi.gpiochip import Chip
from hw.pi.pins import InputPin, _Lines
from hw.sim.panel import PinRelays

# of <linux/gpio.h>, as its macros come out
GET_LINE, SET_CONFIG, GET_VALUES = 0xC250B407, 0xC110B40D, 0xC010B40E
INPUT, RISING, FALLING, PULL_UP, PULL_DOWN, NO_PULL = 1 << 2, 1 << 4, 1 << 5, 1 << 8, 1 << 9, 1 << 10
BOTH = RISING | FALLING


class Kernel:
    """A chip with lines, each a pipe with events; what it was asked for stays readable."""

    def __init__(self, folder: Path) -> None:
        node = folder / "gpiochip0"
        node.touch()
        self.chip = Chip(str(node), "gpiochip0", "pinctrl-test", 54)
        self.flags: dict[int, int] = {}
        self.holders: dict[int, str] = {}
        self.levels: dict[int, bool] = {}
        self.busy: set[int] = set()
        self.gone = False
        self._offsets: dict[int, int] = {}  # of the reader's descriptors
        self._writers: dict[int, int] = {}
        self._numbers: dict[int, int] = {}

    def ioctl(self, descriptor: int, request: int, data: bytes) -> bytes:
        if request == GET_LINE:
            offset, holder = struct.unpack_from("I252x32s", data)
            flags, lines = struct.unpack_from("Q264xI", data, 288)
            assert (lines, len(data)) == (1, 592)
            if offset in self.busy:
                raise OSError(errno.EBUSY, "busy")
            if self.gone:
                raise OSError(errno.ENODEV, "gone")
            if offset in self._writers:
                os.close(self._writers[offset])
            ours, self._writers[offset] = os.pipe()
            self._offsets[ours], self._numbers[offset] = offset, 0
            self.holders[offset], self.flags[offset] = holder.rstrip(b"\0").decode(), flags
            return data[:588] + struct.pack("i", ours)
        if self.gone:
            raise OSError(errno.ENODEV, "gone")
        offset = self._offsets[descriptor]
        if request == SET_CONFIG:
            self.flags[offset], attributes = struct.unpack_from("QI", data)
            assert (attributes, len(data)) == (0, 272)
            return data
        assert request == GET_VALUES
        _, mask = struct.unpack("QQ", data)
        assert mask == 1
        return struct.pack("QQ", int(self.levels.get(offset, True)), mask)

    def edge(self, offset: int, high: bool, *, at: float | None = None, lost: int = 0) -> None:
        """Told unless ``lost`` counts it among those that nobody read in time."""
        self._numbers[offset] += 1 + lost
        self.levels[offset] = high
        nanoseconds = time.monotonic_ns() if at is None else round(at * 1e9)
        number = self._numbers[offset]
        os.write(self._writers[offset], struct.pack("QIIII24x", nanoseconds, 1 if high else 2, offset, number, number))

    def unplug(self) -> None:
        self.gone = True
        while self._writers:
            os.close(self._writers.popitem()[1])


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    monkeypatch.setattr(edges.fcntl, "ioctl", made.ioctl)
    yield made
    made.unplug()


class Factory(LocalPiFactory):  # type: ignore[misc]
    """As that of lgpio has it, without outputs."""

    def __init__(self, chip: Chip) -> None:
        super().__init__()
        self.failures: queue.Queue[Exception] = queue.Queue()
        self.reader = EdgeReader(self.failures.put)
        self._lines = _Lines(chip)
        self.pin_class = lambda factory, info: InputPin(factory, info, chip, f"button {info.number}", self.reader)

    def _get_board_info(self) -> _Lines:
        return self._lines

    def close(self) -> None:
        self.reader.close()
        super().close()


@pytest.fixture
def factory(kernel: Kernel) -> Iterator[Factory]:
    made = Factory(kernel.chip)
    yield made
    made.close()


class Standing:
    """A panel with a button, and what it tells."""

    def __init__(self, factory: Factory) -> None:
        self.faults = FaultLine()
        self.presses: queue.Queue[Press] = queue.Queue()
        wiring = Wiring(buttons={"call": Line(17)}, inputs={"door": Line(22, high=True)})
        self.panel = PinPanel(wiring, PinRelays({}, factory), self.faults, long_press_s=5.0,
                              trouble=factory.failures.put)
        self.panel.attach(factory)
        self.panel.listen(self.presses.put)

    def told(self) -> Press:
        return self.presses.get(timeout=3)


@pytest.fixture
def standing(kernel: Kernel, factory: Factory) -> Iterator[Standing]:
    kernel.levels[22] = False
    made = Standing(factory)
    yield made
    made.panel.close()
    made.faults.close()


def test_lines_are_asked_for_as_the_board_file_has_them(kernel: Kernel, standing: Standing) -> None:
    assert kernel.flags == {17: INPUT | BOTH | PULL_UP, 22: INPUT | BOTH | PULL_DOWN}
    assert kernel.holders == {17: "edgecall button 17", 22: "edgecall button 22"}
    standing.panel.detach()
    assert kernel.flags == {17: INPUT | PULL_UP, 22: INPUT | PULL_DOWN}


def test_a_press_is_as_long_as_the_kernel_saw_it(kernel: Kernel, standing: Standing) -> None:
    now = time.monotonic()
    kernel.edge(17, False, at=now - 0.75)
    kernel.edge(17, True, at=now - 0.25)
    assert standing.told() == Press("call", PressKind.PRESSED)
    released = standing.told()
    assert (released.kind, released.held_s) == (PressKind.RELEASED, pytest.approx(0.5, abs=1e-6))
    kernel.edge(22, True)
    assert standing.told() == Press("door", PressKind.INPUT_ON)


class Hand(EdgeReader):
    """Tells what it is given, as the thread of a busy machine does: late, and one edge at a time."""

    def __init__(self) -> None:
        self.told: dict[InputLine, Callable[[Edge], None]] = {}

    def watch(self, line: InputLine, told: Callable[[Edge], None]) -> None:
        self.told[line] = told

    def leave(self, line: InputLine) -> None:
        del self.told[line]

    def close(self) -> None: ...


class HandPace:
    """Time stands still, and what is due is done when asked."""

    def __init__(self) -> None:
        self.time = 10.0
        self.presses: list[Press] = []

    def now(self) -> float:
        return self.time

    def run(self, act: Callable[[], float | None], deliver: Callable[[Press], None]) -> None:
        self.act = act

    def nudge(self) -> None: ...

    def tell(self, press: Press) -> bool:
        self.presses.append(press)
        return True

    def stop(self) -> None: ...


@pytest.fixture
def by_hand(kernel: Kernel, factory: Factory) -> Iterator[tuple[Callable[[Edge], None], HandPace]]:
    factory.reader.close()
    factory.reader, pace, faults = Hand(), HandPace(), FaultLine()
    panel = PinPanel(Wiring(buttons={"call": Line(17)}), PinRelays({}, factory), faults, long_press_s=5.0, pace=pace)
    panel.attach(factory)
    panel.listen(lambda _: None)
    (told,) = factory.reader.told.values()
    yield told, pace
    panel.close()
    faults.close()


def test_a_short_press_that_is_read_late_is_one_though_its_second_edge_still_waits(
    kernel: Kernel, by_hand: tuple[Callable[[Edge], None], HandPace],
) -> None:
    told, pace = by_hand
    kernel.levels[17] = True  # let go again, before anybody has read that it was down
    told(Edge(9.25, False))
    assert pace.act() == LATE_S
    assert pace.presses == []
    pace.time += LATE_S / 2
    told(Edge(9.75, True))
    pace.act()
    assert pace.presses == [Press("call", PressKind.PRESSED), Press("call", PressKind.RELEASED, 0.5)]
    assert pace.act() is None


def test_where_an_edge_was_lost_and_none_follows_the_level_counts(
    kernel: Kernel, by_hand: tuple[Callable[[Edge], None], HandPace],
) -> None:
    told, pace = by_hand
    kernel.levels[17] = False
    told(Edge(9.25, False))
    pace.act()
    assert pace.presses == [Press("call", PressKind.PRESSED)]
    kernel.levels[17] = True  # and no edge tells of it
    pace.time = 9.25 + 5.0
    assert pace.act() == LATE_S
    pace.time += LATE_S
    pace.act()
    pace.time += DEBOUNCE_S
    pace.act()
    assert [press.kind for press in pace.presses] == [PressKind.PRESSED, PressKind.HELD]
    assert pace.act() is None, "and it is not down any more"


def test_where_edges_were_lost_the_level_is_read_again(kernel: Kernel) -> None:
    line = InputLine(kernel.chip, 17, "button call")
    assert line.edges() == ()
    kernel.edge(17, False, at=1.0)
    kernel.edge(17, True, at=2.0)
    assert line.edges() == [Edge(1.0, False), Edge(2.0, True)]
    kernel.edge(17, False, at=3.0, lost=5)
    kernel.levels[17] = True
    *told, last = line.edges()
    assert told == [Edge(3.0, False)]
    assert last.high is True
    assert last.at == pytest.approx(time.monotonic(), abs=1.0)
    kernel.edge(17, False, at=4.0)
    assert line.edges() == [Edge(4.0, False)], "and from there on they are counted again"
    line.close()
    line.close()


def test_a_chip_that_goes_is_told_for_every_line_and_wakes_nobody_again(kernel: Kernel, standing: Standing,
                                                                         factory: Factory) -> None:
    kernel.unplug()
    for _ in range(2):
        failure = factory.failures.get(timeout=3)
        assert isinstance(failure, OSError)
        assert failure.errno == errno.ENODEV
    (reader,) = (thread for thread in threading.enumerate() if thread.name == "hw.gpio.edges")
    assert comes_to_rest(reader)
    standing.panel.detach()
    with pytest.raises(DeviceMissingError, match="button 17, line 17 of pinctrl-test: the chip is gone"):
        standing.panel.attach(factory)


def comes_to_rest(thread: threading.Thread) -> bool:
    """Soon there are 50 ms for which it takes no processor at all."""
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    for _ in range(60):
        before = time.clock_gettime(clock)
        time.sleep(0.05)
        if time.clock_gettime(clock) == before:
            return True
    return False


def test_a_line_that_somebody_else_took_meanwhile_is_busy(kernel: Kernel, factory: Factory) -> None:
    kernel.busy.add(17)
    with pytest.raises(DeviceBusyError, match="button 17, line 17 of pinctrl-test: another program or driver holds it"):
        InputDevice(17, pull_up=True, pin_factory=factory)


def ignored(ticks: float, state: int) -> None:
    """An edge."""


def test_nothing_of_a_closed_factory_is_left(kernel: Kernel) -> None:
    def own() -> tuple[int, bool]:
        threads = {thread.name for thread in threading.enumerate()}
        return len(list(Path("/proc/self/fd").iterdir())), "hw.gpio.edges" in threads

    InputLine(kernel.chip, 17, "button call").close()  # the end that is written to stays
    before = own()
    for _ in range(3):
        factory = Factory(kernel.chip)
        device = InputDevice(17, pull_up=True, pin_factory=factory)
        device.pin.when_changed = ignored
        device.close()
        factory.close()
        factory.close()
    assert own() == before


@pytest.mark.parametrize(("name", "value"), [
    ("function", "output"), ("pull", "sideways"), ("edges", "rising"), ("state", 1), ("bounce", 0.1),
    ("frequency", 50)])
def test_what_an_input_cannot_do_is_refused(kernel: Kernel, factory: Factory, name: str, value: Any) -> None:
    with InputDevice(17, pull_up=True, pin_factory=factory) as device:
        pin = device.pin
        with pytest.raises(GPIOZeroError):
            setattr(pin, name, value)
        assert (pin.function, pin.pull, pin.edges) == ("input", "up", "both")
    with pytest.raises(GPIOZeroError, match="GPIO17 is closed"):
        pin.state  # noqa: B018
    pin.function = "input"
    assert pin.state is True
