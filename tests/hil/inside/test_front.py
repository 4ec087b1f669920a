"""The appliance on the board ``pi``: its panel and its screen are kernel devices, pressed, pulled and read back."""

from __future__ import annotations

import asyncio
import math
import queue
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from hw.api import AudioBlock, BoardOptions
from hw.boards import open_board
from hw.pi.display import SdlDisplay
from tests.hil import drm
from tests.hil.devices import GpioChip
from tests.support.house import Running, house, start_of

MODULES = ["vkms", "snd-aloop index=0 id=Cable pcm_substreams=1"]
CONNECTOR = Path("/sys/class/drm/card0-Virtual-1/status")
CALL, TAMPER, STATUS, RELAY = 17, 23, 13, 26
DOOR, HOOK, MUTE, MUTED = 22, 24, 25, 6
BOARD = """
[panel]
chip = "pinctrl-bcm2835"
buttons = { call = "17" }
inputs = { tamper = "23" }
lamps = { status = "13" }
relays = { door = "26" }

[display]
use = "required"
driver = "kmsdrm"
"""


@pytest.fixture
def chip() -> Iterator[GpioChip]:
    made = GpioChip((CALL, TAMPER, STATUS, RELAY, DOOR, HOOK, MUTE, MUTED))
    for line in (CALL, TAMPER, DOOR, HOOK, MUTE):
        made.pull(line, up=True)
    yield made
    made.remove()


CONTACTS = """
[panel]
chip = "pinctrl-bcm2835"
inputs = { door = "22 no-pull", hook = "24", hardware_mute = "25" }
lamps = { mute = "6" }

[display]
use = "none"

[audio]
microphones = ["alsa:Cable/1"]
speakers = ["alsa:Cable"]
volume = 100
"""


def _plug(state: str) -> None:
    CONNECTOR.write_text(state)


async def _until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """For what the kernel shows and nobody tells."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _shows(running: Running, other_than: Image.Image | None = None) -> Image.Image:
    """Words on the kernel's screen, other than those before."""
    display = running.house.board.display
    assert isinstance(display, SdlDisplay)
    await _until(lambda: display.devices()[0].present)
    seen: list[Image.Image] = []

    def changed() -> bool:
        try:
            seen.append(drm.scanned_out())
        except LookupError:
            return False
        return (240, 244, 248) in {colour for _, colour in seen[-1].getcolors(1 << 20)} and seen[-1] != other_than

    await _until(changed)
    return seen[-1]


@pytest.mark.timeout(240)
async def test_the_front_of_the_appliance(chip: GpioChip, tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text(BOARD)
    start = await start_of(tmp_path, {"board.name": "pi", "board.file": str(file)}, local_broker=False)
    async with house(start) as running:
        await running.until(lambda: "devices" in running.document("devices"))
        assert {one["id"]: one["present"] for one in running.document("devices")["devices"]}["panel0"]
        idle = await _shows(running)
        await _until(lambda: chip.value(STATUS))

        chip.pull(CALL, up=False)
        await running.until(lambda: any(event.type == "io.pressed" for event in running.events))
        chip.pull(CALL, up=True)
        await _shows(running, other_than=idle)  # nobody is on duty: said where somebody stands

        answer = await running.give("io.set", relay="door", seconds=8)
        assert answer["result"] == "done"
        assert chip.value(RELAY)
        assert running.document("io")["relays"]["door"]["closed"]
        await _until(lambda: not chip.value(RELAY))
        await running.until(lambda: not running.document("io")["relays"]["door"]["closed"])

        chip.pull(TAMPER, up=False)
        await running.until(lambda: running.raised("tamper"))
        chip.pull(TAMPER, up=True)
        await running.until(lambda: not running.raised("tamper"))

        chip.unplug()
        await running.until(lambda: running.raised("panelDisconnected"))
        assert "pinctrl-bcm2835 is gone" in running.document("diag")["panelDisconnected"]["detail"]["what"]
        refused = await running.give("io.set", relay="door", seconds=2)
        assert (refused["result"], refused["code"]) == ("failed", 410)
        chip.plug()
        for line in (CALL, TAMPER):
            chip.pull(line, up=True)
        await running.until(lambda: not running.raised("panelDisconnected"))
        await _until(lambda: chip.value(STATUS))

        _plug("off")
        await running.until(lambda: running.raised("displayDisconnected"))
        _plug("on")
        await running.until(lambda: not running.raised("displayDisconnected"))
        await _shows(running)


@pytest.mark.timeout(120)
async def test_door_hook_and_mute_line(chip: GpioChip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.doors.panel.HOOK_S", 1.0)
    file = tmp_path / "board.toml"
    file.write_text(CONTACTS)
    chip.pull(DOOR, up=False)  # closed; the chip would take our pull-up for the contact
    start = await start_of(tmp_path, {"board.name": "pi", "board.file": str(file), "board.door_open_s": 1},
                           local_broker=False)
    async with house(start) as running:
        def closed(name: str) -> bool:
            return bool(running.document("io").get("inputs", {}).get(name, {}).get("closed"))

        await running.until(lambda: closed("door"))
        assert not running.raised("doorOpenTooLong")
        chip.pull(DOOR, up=True)
        await running.until(lambda: running.raised("doorOpenTooLong"))
        chip.pull(DOOR, up=False)
        await running.until(lambda: not running.raised("doorOpenTooLong"))

        chip.pull(HOOK, up=False)  # lifted, and put beside
        await running.until(lambda: closed("hook") and running.raised("handsetOffHook"))
        chip.pull(HOOK, up=True)
        await running.until(lambda: not closed("hook") and not running.raised("handsetOffHook"))

        chip.pull(MUTE, up=False)
        await running.until(lambda: closed("hardware_mute"))
        await _until(lambda: chip.value(MUTED))
        chip.pull(MUTE, up=True)
        await _until(lambda: not chip.value(MUTED))


TONE = array("h", [round(9000 * math.sin(2 * math.pi * n / 48)) for n in range(480)]).tobytes()


@pytest.mark.timeout(60)
def test_the_mute_line_silences_the_microphone_whatever_is_asked(chip: GpioChip, tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text(CONTACTS)
    blocks: queue.Queue[bytes] = queue.Queue()

    def exchange(block: AudioBlock) -> bytes:
        blocks.put(block.heard)
        return TONE

    def hears(loud: bool, blocks_on_end: int = 1) -> None:
        end, count = time.monotonic() + 20.0, 0
        while count < blocks_on_end:
            heard = blocks.get(timeout=5.0)
            count = count + 1 if (max(memoryview(heard).cast("h")) > 3000 if loud else not any(heard)) else 0
            assert time.monotonic() < end, f"{loud}"

    board = open_board("pi", BoardOptions(file=str(file)))
    try:
        assert board.audio is not None
        board.audio.start(48_000, 10, exchange)
        hears(True)
        chip.pull(MUTE, up=False)
        hears(False, 50)  # one alone may be of a loudspeaker that ran empty
        board.audio.set_volume(100)
        for _ in range(50):
            assert not any(blocks.get(timeout=5.0))
        chip.pull(MUTE, up=True)
        hears(True)
    finally:
        board.close()
