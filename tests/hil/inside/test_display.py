"""The screen by SDL 2 and KMSDRM on vkms, a screen of the kernel that nobody sees, and a touch panel of uinput."""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import evdev
import pytest
from PIL import Image, ImageChops, ImageStat

from hw.api import BoardOptions, DeviceMissingError, Fault, FaultKind, Kind, Picture, Press, PressKind, Tile
from hw.boards import open_board
from hw.faults import FaultLine
from hw.pi.display import DisplayConfig, SdlDisplay, open_display
from hw.sim.display import SimDisplay
from tests.hil import drm
from tests.hil.machine import Machine

MODULES = ["vkms"]
pytestmark = pytest.mark.timeout(180)  # software renders, on one core that others may want too
CONNECTOR = Path("/sys/class/drm/card0-Virtual-1/status")
PLUG_S = 2.0
"""In which a screen that is pulled is told, and one that returns is drawn on (docs/hardware.md)."""
GREEN, VIOLET = (145, 54, 34), (60, 200, 160)  # as Y, Cb, Cr


def _flat(colour: tuple[int, int, int], width: int = 320, height: int = 180) -> Picture:
    size = width * height
    return Picture(width, height, bytes((colour[0],)) * size + bytes((colour[1],)) * (size // 4) +
                   bytes((colour[2],)) * (size // 4))


class Told:
    def __init__(self) -> None:
        self.line = FaultLine()
        self.faults: queue.Queue[Fault] = queue.Queue()
        self.touches: queue.Queue[tuple[str, bool]] = queue.Queue()
        self.line.listen(self.faults.put)

    def press(self, button: str, down: bool) -> None:
        self.touches.put((button, down))

    def fault(self, kind: FaultKind, active: bool, seconds: float = 40.0) -> Fault:
        end, seen = time.monotonic() + seconds, []
        while (left := end - time.monotonic()) > 0:
            try:
                fault = self.faults.get(timeout=left)
            except queue.Empty:
                break
            if (fault.kind, fault.fault, fault.active) == (Kind.DISPLAY, kind, active):
                return fault
            seen.append(fault)
        raise AssertionError(f"no {kind} {active} within {seconds} s, but {seen}")


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.line.close()


def _until_open(display: SdlDisplay, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not display.devices()[0].present:
        assert time.monotonic() < end, display.devices()
        time.sleep(0.02)


@pytest.fixture
def display(told: Told) -> Iterator[SdlDisplay]:
    made = open_display(DisplayConfig(use="required", driver="kmsdrm"), told.line, told.press)
    assert made is not None
    _until_open(made)
    yield made
    made.close()


def _shown(display: SdlDisplay, degrees: int = 0) -> Image.Image:
    """What is drawn, which the kernel scans out once the page was flipped, ``degrees`` clockwise; upright again."""
    drawn = Image.open(io.BytesIO(display.screenshot()))
    end = time.monotonic() + 20.0
    while True:
        seen = drm.scanned_out().rotate(degrees, expand=True)
        assert seen.size == drawn.size == display.size
        if ImageChops.difference(seen, drawn).getbbox() is None:
            return seen
        assert time.monotonic() < end, "the kernel scans out something else than what was drawn"
        time.sleep(0.05)


def test_the_kernel_scans_out_what_the_appliance_shows(display: SdlDisplay) -> None:
    simulated = SimDisplay(display.size)
    contents: list[tuple[list[Tile], str, str]] = [
        ([Tile(_flat(GREEN), 0.0, 0.0, 0.5, 0.5, label="Anna"), Tile(_flat(VIOLET), 0.5, 0.0, 0.5, 0.5),
          Tile(None, 0.0, 0.5, 0.5, 0.5)], "Incoming call", "Reception"),
        ([Tile(_flat(VIOLET, 640, 360))], "", ""),
        ([], "Front door", "Press the button to call"),
    ]
    for content in contents:
        display.show(*content)
        simulated.show(*content)
        seen, meant = _shown(display), Image.open(io.BytesIO(simulated.screenshot()))
        assert max(ImageStat.Stat(ImageChops.difference(seen, meant)).mean) < 2.0
    display.blank()
    assert _shown(display).getextrema() == ((0, 0), (0, 0), (0, 0))
    simulated.close()


def test_a_mirrored_picture_is_mirrored(display: SdlDisplay) -> None:
    luma = (bytes((235,)) * 32 + bytes((16,)) * 32) * 64
    display.show([Tile(Picture(64, 64, luma + bytes((128,)) * 2048), mirrored=True)])
    seen, (width, height) = _shown(display), display.size
    assert seen.getpixel((width // 2 - height // 4, height // 2)) < (40, 40, 40)
    assert seen.getpixel((width // 2 + height // 4, height // 2)) > (215, 215, 215)


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_turned_screen_shows_everything_turned(told: Told, degrees: int) -> None:
    display = open_display(DisplayConfig(use="required", driver="kmsdrm", connector="Virtual-1", rotation=degrees),
                           told.line, told.press)
    assert display is not None
    try:
        _until_open(display)
        simulated = SimDisplay(display.size)
        luma = (bytes((235,)) * 160 + bytes((16,)) * 160) * 180  # bright on the left
        one = Picture(320, 180, luma + bytes((128,)) * 28800)
        for tiles, banner, hint in (([Tile(one, h=0.5, label="Anna"), Tile(one, 0.0, 0.5, 1.0, 0.5, mirrored=True)],
                                     "Calling …", "Reception"), ([], "Front door", "Press the button to call")):
            display.show(tiles, banner, hint)
            simulated.show(tiles, banner, hint)
            upright = _shown(display, degrees)
            meant = Image.open(io.BytesIO(simulated.screenshot()))
            assert max(ImageStat.Stat(ImageChops.difference(upright, meant)).mean) < 2.0
        simulated.close()
    finally:
        display.close()


def test_a_connector_that_there_is_not_is_told_with_those_that_there_are(told: Told) -> None:
    display = open_display(DisplayConfig(driver="kmsdrm", connector="HDMI-A-9"), told.line, told.press)
    assert display is not None
    try:
        assert told.fault(FaultKind.FAILED, True).detail == "there is no connector 'HDMI-A-9'; there are Virtual-1"
    finally:
        display.close()


def test_nobody_waits_for_a_slow_screen(display: SdlDisplay) -> None:
    """Software renders here, at a few pictures a second; the latest content wins."""
    longest = 0.0
    for number in range(60):
        picture = _flat((16 + number, 128, 128), 640, 360)
        began = time.monotonic()
        display.show([Tile(picture)])
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.005)
    display.show([Tile(_flat(GREEN, 640, 360))])
    width, height = display.size
    assert _shown(display).getpixel((width // 2, height // 2))[1] > 150
    print(f"longest show(): {longest * 1000:.1f} ms")
    assert longest < 0.2


def test_a_screen_that_is_unplugged_is_told_and_drawn_on_again(
    display: SdlDisplay, told: Told, machine: Machine
) -> None:
    display.show([Tile(_flat(GREEN))], "Hello")
    _shown(display)
    for _ in range(3):
        watch = machine.stopwatch()
        CONNECTOR.write_text("off")
        assert "unplugged" in told.fault(FaultKind.PULLED, True).detail
        watch.within(PLUG_S, "told that it was unplugged")
        assert not display.devices()[0].present
        with pytest.raises(DeviceMissingError):
            display.screenshot()
        display.show([], "Meanwhile")
        watch = machine.stopwatch()
        CONNECTOR.write_text("on")
        told.fault(FaultKind.PULLED, False)
        display.screenshot()
        watch.within(PLUG_S, "drawn on again")
        assert _shown(display).getextrema() != ((0, 0), (0, 0), (0, 0))
        assert told.faults.empty()


def test_no_screen_is_missed_only_where_one_is_required(told: Told) -> None:
    CONNECTOR.write_text("off")
    try:
        quiet = open_display(DisplayConfig(driver="kmsdrm"), told.line, told.press)
        assert quiet is not None
        time.sleep(0.5)
        assert told.faults.empty()
        quiet.close()
        loud = open_display(DisplayConfig(use="required", driver="kmsdrm"), told.line, told.press)
        assert loud is not None
        told.fault(FaultKind.MISSING, True)
        loud.close()
    finally:
        CONNECTOR.write_text("on")


def test_a_screen_that_another_program_holds_is_busy_until_it_lets_go(told: Told) -> None:
    node = os.open("/dev/dri/card0", os.O_RDWR)
    drm.take_master(node)
    display = open_display(DisplayConfig(use="required", driver="kmsdrm"), told.line, told.press)
    assert display is not None
    try:
        assert f"({os.getpid()})" in told.fault(FaultKind.BUSY, True).detail
        drm.drop_master(node)
        os.close(node)
        told.fault(FaultKind.BUSY, False)
        _until_open(display)
    finally:
        display.close()


DENIED = """
import queue
from hw.pi.display import DisplayConfig, open_display
from hw.faults import FaultLine
line, told = FaultLine(), queue.Queue()
line.listen(told.put)
display = open_display(DisplayConfig(use="required", driver="kmsdrm"), line, print)
fault = told.get(timeout=60)
print(fault.fault.value, fault.detail)
display.close()
"""


def test_a_card_that_may_not_be_opened_is_denied() -> None:
    card = Path("/dev/dri/card0")
    card.chmod(0o600)
    os.chown(card, 65534, 65534)
    without = "--bounding-set=-dac_override,-dac_read_search"  # root that modes of files hold for
    try:
        told = subprocess.run(["setpriv", without, sys.executable, "-c", DENIED], stdout=subprocess.PIPE, text=True,
                              check=True, timeout=80).stdout
    finally:
        os.chown(card, 0, 0)
    assert told == "denied /dev/dri/card0 may not be opened: add the user to the groups video and render\n"


def _process() -> int:
    """The process that draws."""
    return next(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline")
                if b"hw.pi.sdl" in path.read_bytes())


def test_a_process_that_hangs_or_dies_is_replaced(
    display: SdlDisplay, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hw.pi.display.STALL_S", 2.0)
    display.show([Tile(_flat(GREEN))], "Hello")
    _shown(display)
    for number, fault in ((signal.SIGSTOP, FaultKind.STALLED), (signal.SIGKILL, FaultKind.FAILED)):
        process = _process()
        os.kill(process, number)
        display.show([Tile(_flat(VIOLET))], "Still here")
        told.fault(fault, True)
        told.fault(fault, False, 60.0)
        _until_open(display)
        assert _process() != process
        width, height = display.size
        assert _shown(display).getpixel((width // 2, height // 2))[2] > 150


def test_the_daemon_stays_light(display: SdlDisplay) -> None:
    display.show([], "Front door", "Press the button to call")
    display.screenshot()
    maps = Path(f"/proc/{os.getpid()}/maps").read_text()
    assert "libSDL2" not in maps
    assert "libLLVM" not in maps
    text = Path(f"/proc/{_process()}/smaps_rollup").read_text()
    print("the screen's process: " + next(line for line in text.splitlines() if line.startswith("Pss:")))


# --- touch, on the whole board

WIDE = evdev.AbsInfo(0, 0, 1023, 0, 0, 0)


@pytest.fixture
def devices_are_announced() -> Iterator[None]:
    """SDL takes input devices that udev has announced."""
    udev = subprocess.Popen(["/lib/systemd/systemd-udevd"])
    try:
        end = time.monotonic() + 20.0
        while subprocess.run(["udevadm", "control", "--ping"], check=False, capture_output=True).returncode != 0:
            assert time.monotonic() < end, "systemd-udevd does not come up"
            time.sleep(0.1)
        yield
    finally:
        udev.terminate()
        udev.wait()


@pytest.mark.parametrize("degrees", [0, 180])
def test_a_finger_on_the_screen_presses_a_button(tmp_path: Path, devices_are_announced: None, degrees: int) -> None:
    file = tmp_path / "board.toml"
    file.write_text(f'[display]\nuse = "required"\ndriver = "kmsdrm"\nrotation = {degrees}\n'
                    'touch = { mute = "0 0.75 1 0.25", call = "0 0 1 1" }\n')
    codes = evdev.ecodes
    pad = evdev.UInput({codes.EV_KEY: [codes.BTN_TOUCH], codes.EV_ABS: [
        (codes.ABS_X, WIDE), (codes.ABS_Y, WIDE), (codes.ABS_MT_SLOT, evdev.AbsInfo(0, 0, 9, 0, 0, 0)),
        (codes.ABS_MT_TRACKING_ID, evdev.AbsInfo(0, 0, 65535, 0, 0, 0)), (codes.ABS_MT_POSITION_X, WIDE),
        (codes.ABS_MT_POSITION_Y, WIDE)]}, name="Touch panel", input_props=[codes.INPUT_PROP_DIRECT])
    subprocess.run(["udevadm", "trigger", "--action=add", "--subsystem-match=input"], check=True)
    subprocess.run(["udevadm", "settle", "--timeout=20"], check=True)
    presses: queue.Queue[Press] = queue.Queue()

    def touch(y: int, tracking: int) -> None:
        for code, value in ((codes.ABS_MT_SLOT, 0), (codes.ABS_MT_TRACKING_ID, tracking),
                            (codes.ABS_MT_POSITION_X, 500), (codes.ABS_MT_POSITION_Y, 1023 - y if degrees else y)):
            pad.write(codes.EV_ABS, code, value)
        pad.write(codes.EV_KEY, codes.BTN_TOUCH, 1)
        pad.syn()

    def lift() -> None:
        pad.write(codes.EV_ABS, codes.ABS_MT_TRACKING_ID, -1)
        pad.write(codes.EV_KEY, codes.BTN_TOUCH, 0)
        pad.syn()

    board = open_board("pi", BoardOptions(file=str(file), long_press_s=0.8))
    try:
        assert isinstance(board.display, SdlDisplay)
        _until_open(board.display)
        assert board.panel is not None
        assert list(board.panel.buttons) == ["mute", "call"]
        board.panel.listen(presses.put)
        board.display.show([], "Front door", "Touch to call")
        board.display.screenshot()
        for y, tracking, name in ((300, 1, "call"), (900, 2, "mute")):
            touch(y, tracking)
            press = presses.get(timeout=30)
            assert (press.name, press.kind) == (name, PressKind.PRESSED)
            lift()
            press = presses.get(timeout=30)
            assert (press.name, press.kind) == (name, PressKind.RELEASED)
        touch(300, 3)
        assert [presses.get(timeout=30).kind for _ in range(2)] == [PressKind.PRESSED, PressKind.HELD]
        lift()
    finally:
        board.close()
        pad.close()
