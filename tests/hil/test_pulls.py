"""One call, and devices that are pulled in it and come back: camera, sound, encoder and GPIO chip in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.hil.line import MUTE_BUTTON, MUTE_LAMP, Line, ready_line
from tests.hil.scene import TONE_HERTZ

pytestmark = [
    pytest.mark.lg_feature(["camera", "sound", "panel", "faults"]), pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"), pytest.mark.alone,
]  # fmt: skip

ROUNDS: Final = 5
BACK_S: Final = 2.0
"""From a device's return to its sound or picture at the peer, in the middle of all rounds."""

WAIT_S: Final = 30.0
"""A machine that starves the guest makes single ones slower."""

NO_SCREEN: Final = """
[display]
use = "none"
"""
"""Drawing without a graphics card takes half of the guest's one processor."""


@dataclass(frozen=True, slots=True)
class Cable:
    """What a hand does, as the guest's shell has it, and what the service tells of it."""

    pull: str
    plug: str
    told: tuple[str, ...]


def _bound(driver: str, device: str, *told: str) -> Cable:
    folder = f"/sys/bus/platform/drivers/{driver}"
    return Cable(f"echo {device} >{folder}/unbind", f"echo {device} >{folder}/bind", told)


CAMERA: Final = _bound("vivid", "vivid.0", "cameraUnplugged")
SOUND: Final = _bound("snd_aloop", "snd_aloop.0", "microphoneUnplugged", "speakerUnplugged")
ENCODER: Final = Cable("echo Y >/sys/module/hilenc/parameters/unplug", "echo N >/sys/module/hilenc/parameters/unplug",
                       ("encoderFallback",))
GPIO: Final = Cable("echo 0 >/sys/kernel/config/gpio-sim/pi/live", "echo 1 >/sys/kernel/config/gpio-sim/pi/live",
                    ("panelDisconnected",))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(env: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    async with ready_line(env, tmp_path_factory.mktemp("pulls"), NO_SCREEN) as line:
        yield line


async def _pull(line: Line, cable: Cable) -> None:
    await line.run(cable.pull)
    for name in cable.told:
        standing = await line.service.until(lambda name=name: line.service.raised(name), f"{name} is told", WAIT_S)
        assert standing["detail"]["what"], f"{name} says which device and why"
        assert standing["advice"], f"{name} says what to do"


async def _plug(line: Line, cable: Cable) -> float:
    """When it was."""
    at = time.monotonic()
    await line.run(cable.plug)
    return at


async def _over(line: Line, cable: Cable) -> None:
    for name in cable.told:
        await line.service.until(lambda name=name: not line.service.raised(name), f"{name} is over", WAIT_S)


async def test_devices_pulled_twenty_times_do_not_drop_the_call(line: Line) -> None:
    await line.connected()
    await line.flows()
    call = line.service.documents["call"]["callId"]
    counter = await line.counts(0)
    back: dict[str, list[float]] = {"sound": [], "camera": []}
    for number in range(ROUNDS):
        # --- camera
        await _pull(line, CAMERA)
        at = await _plug(line, CAMERA)
        counter = await line.counts(counter, WAIT_S)
        back["camera"].append(time.monotonic() - at)
        await _over(line, CAMERA)
        # --- sound
        await _pull(line, SOUND)
        await line.at_lobby.silent(WAIT_S)
        at = await _plug(line, SOUND)
        await line.at_lobby.hears(TONE_HERTZ, WAIT_S)
        back["sound"].append(time.monotonic() - at)
        await line.plays(WAIT_S)
        await _over(line, SOUND)
        # --- encoder
        await _pull(line, ENCODER)
        counter = await line.counts(counter, WAIT_S)
        await _plug(line, ENCODER)
        await _over(line, ENCODER)
        counter = await line.counts(counter, WAIT_S)
        # --- buttons and lamps
        await _pull(line, GPIO)
        await _plug(line, GPIO)
        await _over(line, GPIO)
        await line.press(MUTE_BUTTON)
        await line.at_lobby.silent(WAIT_S)
        await line.lamp(MUTE_LAMP, lit=True)
        await line.press(MUTE_BUTTON)
        await line.at_lobby.hears(TONE_HERTZ, WAIT_S)
        await line.lamp(MUTE_LAMP, lit=False)
        # --- and the call
        now = line.service.documents["call"]
        assert (now["callId"], now["state"]) == (call, "Connected"), f"round {number}: {now}"
        assert line.lobby.state("call")["state"] == "Connected"
        print(f"round {number + 1}: {back}")
    assert line.service.documents["diag"]["microphoneUnplugged"]["count"] == ROUNDS
    for what, seconds in back.items():
        assert statistics.median(seconds) < BACK_S, f"{what} at the peer again after {seconds}"
    await line.over()
