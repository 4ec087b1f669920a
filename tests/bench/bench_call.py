"""Button to ringing, and answer to first media each way, at the real operator page in Chromium.

    python -m tests.bench.bench_call [--quick] [--json FILE]        (in a network namespace: scripts/netns)

Ring: from the press of the button at the front, which acts as it goes down, to the page's ringing view, by
the page's own clock: when it is there, and when the frame that paints it begins. The press is ``sim.press``, whose
command is in the figure.

First media: from the click on *Answer*, camera and microphone granted before, to

* device to page: the first decoded frame and the first 10 ms louder than -40 dB that the page's tracks deliver;
* page to device: the first decoded picture handed to the screen (``marked_appliance``), and the first 10 ms at the
  simulated loudspeaker in which the browser's tone (2500 Hz, not the ringing tone) is louder than -40 dB.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.bench.figures import Figure, table, write
from tests.bench.scene import Scene, pictures_of, scene
from tests.support.appliance import Panel

HERTZ: Final = 2500
RATE: Final = 48_000
BLOCK: Final = RATE // 100
BETWEEN_S: Final = 3.5
"""Between two visitors: a second press within 3 s of the first does not call, and the call before is all put away."""
LOUD_DBFS: Final = -40.0
CLICK: Final = """() => {
  bench.marks = {click: performance.now()};
  const shown = () => { bench.marks["far.shown"] ??= performance.now(); };
  document.querySelector("#remote").requestVideoFrameCallback(shown);
  document.querySelector("#answer").click();
}"""


def first_tone(panel: Panel, since: float) -> float | None:
    """When the loudspeaker began to play the browser's tone: the start of that block, as it sounds from then on."""
    window = np.hanning(BLOCK)
    probe = np.exp(-2j * np.pi * HERTZ * np.arange(BLOCK) / RATE) * window
    for arrived, samples in panel.sound:
        if arrived < since:
            continue
        for place in range(0, len(samples) - BLOCK + 1, BLOCK):
            peak = 2 * abs(np.dot(samples[place:place + BLOCK], probe)) / window.sum()
            if 20 * np.log10(peak / 2**0.5 + 1e-9) > LOUD_DBFS:
                return float(arrived - (len(samples) - BLOCK - place) / RATE)
    return None


async def one_call(stage: Scene, panel: Panel, pictures: Path) -> dict[str, float]:
    """One call's figures in milliseconds."""
    assert stage.probe is not None
    probe, operator, door = stage.probe, stage.operator, stage.door
    error = await probe.sync()
    await probe.forget()
    pressed = time.monotonic()
    await door.press()
    await operator.rings()
    size = await operator.visitor()
    marks = await probe.marks()
    found = {"ring": marks["ring"] - pressed, "ringPainted": marks["ring.painted"] - pressed,
             "clockError": error, "visitorWidth": size[0] / 1000}
    await operator.page.evaluate(CLICK)
    await operator.connected()
    await operator.picture()
    marks = await probe.marks()
    click = marks["click"]

    async def until(fits: Any, what: str) -> Any:
        deadline = time.monotonic() + 10
        while (value := await fits()) is None:
            assert time.monotonic() < deadline, f"{what} did not come; {await probe.marks()}\n{door.log()}"
            await asyncio.sleep(0.05)
        return value

    async def marked(name: str) -> float | None:
        return (await probe.marks()).get(name)

    async def tone() -> float | None:
        return first_tone(panel, click)

    async def picture() -> float | None:
        rows = await asyncio.to_thread(pictures_of, pictures, click)
        return float(rows[0]["at"]) if rows else None

    for name, fits in (
        ("pageFrame", lambda: marked("far.video.frame")), ("pageShown", lambda: marked("far.shown")),
        ("pageSound", lambda: marked("far.audio.loud")), ("deviceSound", tone), ("deviceFrame", picture),
    ):
        found[name] = await until(fits, name) - click
    found["pageFrame"] = min(found["pageFrame"], found["pageShown"])  # two looks at one picture: both after decoding
    await asyncio.sleep(0.5)
    await stage.hang_up()
    return {name: value * 1000 for name, value in found.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    count = 3 if arguments.quick else 15
    calls: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as folder:
        pictures = Path(folder) / "pictures"
        async with scene(
            hertz=HERTZ, program=("-m", "tests.bench.marked_appliance"),
            environ={"EDGECALL_BENCH_PICTURES": str(pictures)},
        ) as stage, stage.door.panel() as panel:
            for number in range(count):
                await asyncio.sleep(BETWEEN_S)
                calls.append(await one_call(stage, panel, pictures))
                shown = {name: round(value, 1) for name, value in calls[-1].items()}
                print(f"call {number + 1} of {count}: {shown}", file=sys.stderr)

    def samples(name: str) -> tuple[float, ...]:
        return tuple(call[name] for call in calls)

    figures = [
        Figure("button to ringing at the operator", "ms", samples("ringPainted"), 150),
        Figure("answer to first frame, device to page", "ms", samples("pageFrame"), 500),
        Figure("answer to first sound, device to page", "ms", samples("pageSound"), 500),
        Figure("answer to first frame, page to device", "ms", samples("deviceFrame"), 500),
        Figure("answer to first sound, page to device", "ms", samples("deviceSound"), 500),
        Figure("answer to first frame shown on the page", "ms", samples("pageShown")),
    ]
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {
            "ringInDocumentMs": [round(value, 1) for value in samples("ring")],
            "clockErrorMs": [round(value, 2) for value in samples("clockError")]})


if __name__ == "__main__":
    asyncio.run(main())
