"""The appliance on the board ``pi``: its panel and its screen are kernel devices, pressed, pulled and read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from hw.pi.display import SdlDisplay
from tests.hil import drm
from tests.hil.devices import GpioChip
from tests.support.house import Running, house, start_of

MODULES = ["vkms"]
CONNECTOR = Path("/sys/class/drm/card0-Virtual-1/status")
CALL, TAMPER, STATUS, RELAY = 17, 23, 13, 26
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
    made = GpioChip((CALL, TAMPER, STATUS, RELAY))
    for line in (CALL, TAMPER):
        made.pull(line, up=True)
    yield made
    made.remove()


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
