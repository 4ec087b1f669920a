"""What the benches with a browser share: the appliance, one browser, the operator at the real page, the same picture.

Both sides send 1280x720 at 30 pictures a second: the appliance its test pattern, the browser the same pattern from a
file. Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hw.sim import pattern
from tests.bench.probe import Probe
from tests.support.appliance import Appliance
from tests.support.browser import Chromium, chromium, tone_wav
from tests.support.operator_page import Operator

__all__ = ["FPS", "LOOP_FRAMES", "Scene", "pictures_of", "scene"]

WIDTH: Final = 1280
HEIGHT: Final = 720
FPS: Final = 30
LOOP_FRAMES: Final = 60


@dataclass(frozen=True, slots=True)
class Scene:
    door: Appliance
    browser: Chromium
    operator: Operator
    probe: Probe | None

    async def call(self) -> None:
        """Button, ring, answer, and the picture on the page."""
        await self.door.press()
        await self.operator.rings()
        await self.operator.answer()
        await self.operator.picture()

    async def hang_up(self) -> None:
        await self.operator.click("hangup")
        await self.operator.ended()
        await self.door.call_is("None", "Disconnected")


def camera_file(path: Path) -> Path:
    """Two seconds of the test picture for the browser's file camera, which plays it in a loop."""
    painter = pattern.PatternPainter(WIDTH, HEIGHT)
    with path.open("wb") as out:
        out.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(LOOP_FRAMES):
            out.write(b"FRAME\n" + b"".join(painter.paint(number, number * 1_000_000 // FPS)))
    return path


@asynccontextmanager
async def scene(
    *, hertz: float = 0.0, sound: Path | None = None, microphone: str = "tone:1000", probed: bool = True,
    program: Sequence[str] = ("-m", "appliance"), environ: dict[str, str] | None = None,
) -> AsyncIterator[Scene]:
    """Everything up, the operator on duty. ``hertz`` or ``sound``: what the browser's microphone hears."""
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as name:
        folder = Path(name)
        sound = sound or tone_wav(folder / "tone.wav", hertz)
        picture = await asyncio.to_thread(camera_file, folder / "camera.y4m")
        flags = [f"--use-file-for-fake-audio-capture={sound}", f"--use-file-for-fake-video-capture={picture}"]
        settings = {"board.microphone": microphone}
        async with (
            Appliance(folder / "door", settings=settings, program=program, environ=environ) as door,
            chromium(camera=False, flags=tuple(flags)) as browser,
        ):
            if probed:
                await Probe.install(browser)
            operator = await Operator.on_duty(browser, door)
            yield Scene(door, browser, operator, Probe(operator.page) if probed else None)


def pictures_of(path: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """What ``marked_appliance`` noted after ``since``."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [row for row in rows if row["at"] > since]
