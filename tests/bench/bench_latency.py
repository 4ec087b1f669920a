"""Capture to decoded picture and mouth to ear, beside the same call between two Chromium pages in the same run.

    python -m tests.bench.bench_latency [--quick] [--json FILE]     (in a network namespace: scripts/netns)

Two calls in turn, some rounds of each, over the loopback of one machine and in one browser:

* ours: the appliance on the simulated board and the operator page;
* pages: two tabs with one RTCPeerConnection each: the same codecs, constraints, picture, sounds and start bitrate.

Both are 1280x720 at 30 pictures a second and Opus, both ways. Picture: from the capture time (the clock that is drawn
into the appliance's picture before it is encoded; for a page the browser's own capture stamp of the frame with that
counter) to the moment the receiving track delivers the decoded picture: to a page's track processor, or, at the
appliance, to its screen. Sound: a sweep once a second (``marks``), from the moment it has reached the microphone
(a page: after the browser's own voice processing) to the moment the player takes it: a page's track, or the
simulated loudspeaker.

The appliance's picture contains what its simulated camera takes to paint it, which a camera does not, and a software
encoder; both are measured beside. Not in these figures: a network, real cameras, microphones, sound cards and
displays, whose own delays add to both calls alike. The browser's microphone and player tick every 10 ms, and what
wakes a page's script adds to its figures: ours have that at one end, the pages' at both.

Chromium gives its sound and pictures a higher scheduling class where the system permits it (as root: nice -8, and
SCHED_RR for sound), the appliance has what it was started with: on a busy machine that favours the pages.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiohttp import web

from appliance.media.sdp import START_KBPS
from hw.api import VideoMode
from tests.bench.figures import Figure, table, write
from tests.bench.marks import PERIOD_S, Sound, by_counter, delays, moments, sweep_wav
from tests.bench.probe import Probe
from tests.bench.scene import FPS, LOOP_FRAMES, Scene, pictures_of, scene
from tests.support.appliance import Panel

RATE: Final = 48_000
BLOCK: Final = RATE // 100
LOOP_S: Final = LOOP_FRAMES / FPS
WRAP_MS: Final = 1 << 32

MEETING: Final = Path(__file__).with_name("page_pair.html").read_text()


# --- ours -----------------------------------------------------------------------------------------------------------


async def our_call(stage: Scene, panel: Panel, pictures: Path, warm: float, seconds: float) -> dict[str, Any]:
    """Samples in seconds of one call of the appliance with the operator page."""
    assert stage.probe is not None
    probe = stage.probe
    await stage.call()
    await asyncio.sleep(warm)
    error = await probe.sync()
    await probe.record("far.video", "far.audio", "own.audio", "own.video")
    begun = asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)
    kept = await probe.take()
    facts = await probe.transport()
    await stage.hang_up()
    far = kept["far.video"]
    down = [at - _clock_near(clock, at) for at, _, _, clock in far["frames"]]
    shown = [(row["at"], row["counter"]) for row in await asyncio.to_thread(pictures_of, pictures, begun)
             if row["counter"] is not None]
    loudspeaker = heard_since(panel, begun)
    ticks = [count * PERIOD_S for count in range(ceil(begun / PERIOD_S), int((begun + seconds) / PERIOD_S))]
    return {
        "pictureOut": down, "pictureIn": by_counter(kept["own.video"]["frames"], shown, LOOP_S),
        "soundOut": delays(ticks, moments(kept["far.audio"])),
        "soundIn": delays(moments(kept["own.audio"]), moments(loudspeaker)),
        "facts": facts | {"unread": far["unread"], "clockErrorMs": round(error * 1000, 2)},
    }


def _clock_near(clock_ms: int, now: float) -> float:
    """The time of a picture's 32-bit clock, in seconds, for a picture that is not older than weeks."""
    return now - ((int(now * 1000) - clock_ms) % WRAP_MS) / 1000 - (now * 1000 % 1) / 1000


def heard_since(panel: Panel, since: float) -> Sound:
    """What the loudspeaker played; a message may carry several blocks, of which the last begins as it arrives."""
    arrived = [(at, samples) for at, samples in panel.sound if at >= since]
    return Sound(
        np.concatenate([samples for _, samples in arrived]),
        [at - (len(samples) - BLOCK) / RATE for at, samples in arrived], [len(samples) for _, samples in arrived])


# --- pages ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def meeting(stage: Scene) -> AsyncIterator[list[Probe]]:
    """Two tabs of the same browser, of an origin of their own, in a call with each other."""
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=MEETING, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    pages: list[Probe] = []
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        pages = [Probe(await stage.browser.open(f"http://127.0.0.1:{port}/")) for _ in range(2)]
        one, two = (probe.page for probe in pages)
        await asyncio.gather(*(probe.page.evaluate("(kbps) => meeting.startAt(kbps)", START_KBPS) for probe in pages))
        offer = await one.evaluate("() => meeting.offer()")
        answer = await two.evaluate("(offer) => meeting.answer(offer)", offer)
        await one.evaluate("(answer) => meeting.take(answer)", answer)
        await asyncio.gather(*(probe.page.evaluate("() => meeting.up()") for probe in pages))
        yield pages
    finally:
        for probe in pages:
            await probe.page.close()
        await runner.cleanup()


async def page_call(stage: Scene, warm: float, seconds: float) -> dict[str, Any]:
    """Samples in seconds of one call between two pages, one way."""
    async with meeting(stage) as (mouth, ear):
        await asyncio.sleep(warm)
        error = max(await mouth.sync(), await ear.sync())
        await asyncio.gather(mouth.record("own.video", "own.audio"), ear.record("far.video", "far.audio"))
        await asyncio.sleep(seconds)
        spoken, heard = await asyncio.gather(mouth.take(), ear.take())
        facts = await ear.transport()
    seen = [(at, int(counter)) for at, _, counter, _ in heard["far.video"]["frames"]]
    return {
        "picture": by_counter(spoken["own.video"]["frames"], seen, LOOP_S),
        "sound": delays(moments(spoken["own.audio"]), moments(heard["far.audio"])),
        "facts": facts | {"unread": heard["far.video"]["unread"], "clockErrorMs": round(error * 1000, 2)},
    }


def camera_costs(count: int = 90) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Milliseconds that the simulated camera takes to paint a picture, and its encoder to encode it."""
    from hw.camera.x264 import H264Encoder
    from hw.sim.sources import open_source

    mode = VideoMode()
    source, encoder = open_source("pattern", mode), H264Encoder(mode)
    painted, encoded = [], []
    for number in range(count):
        begun = time.monotonic()
        picture = source.picture(number, int(begun * 1e6))
        between = time.monotonic()
        encoder.encode(picture, int(begun * 1e6))
        painted.append((between - begun) * 1000)
        encoded.append((time.monotonic() - between) * 1000)
        time.sleep(1 / mode.fps)  # as cold as the caches are in a call
    source.close()
    return tuple(painted), tuple(encoded)


# --- both -----------------------------------------------------------------------------------------------------------


def figures_of(ours: Sequence[dict[str, Any]], pages: Sequence[dict[str, Any]]) -> list[Figure]:
    """A ratio is of the medians of one round; its spread is that of the rounds."""
    def ms(rounds: Sequence[dict[str, Any]], name: str) -> tuple[float, ...]:
        return tuple(value * 1000 for one in rounds for value in one[name])

    def ratio(ours_name: str, pages_name: str) -> tuple[float, ...]:
        return tuple(statistics.median(one[ours_name]) / statistics.median(other[pages_name])
                     for one, other in zip(ours, pages, strict=True))

    return [
        Figure("picture, device to page", "ms", ms(ours, "pictureOut")),
        Figure("picture, page to device", "ms", ms(ours, "pictureIn")),
        Figure("picture, page to page", "ms", ms(pages, "picture")),
        Figure("picture, device to page / page to page", "ratio", ratio("pictureOut", "picture")),
        Figure("picture, page to device / page to page", "ratio", ratio("pictureIn", "picture")),
        Figure("mouth to ear, device to page", "ms", ms(ours, "soundOut")),
        Figure("mouth to ear, page to device", "ms", ms(ours, "soundIn")),
        Figure("mouth to ear, page to page", "ms", ms(pages, "sound")),
        Figure("mouth to ear, device to page / page to page", "ratio", ratio("soundOut", "sound")),
        Figure("mouth to ear, page to device / page to page", "ratio", ratio("soundIn", "sound")),
    ]


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rounds, warm, seconds = (1, 6.0, 6.0) if arguments.quick else (5, 8.0, 15.0)
    ours: list[dict[str, Any]] = []
    pages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as name:
        folder = Path(name)
        pictures = folder / "pictures"
        sound = sweep_wav(folder / "marks.wav")
        async with scene(
            sound=sound, microphone=f"wav:{sound}", program=("-m", "tests.bench.marked_appliance"),
            environ={"EDGECALL_BENCH_PICTURES": str(pictures)},
        ) as stage, stage.door.panel() as panel:
            for number in range(rounds):
                ours.append(await our_call(stage, panel, pictures, warm, seconds))
                pages.append(await page_call(stage, warm, seconds))
                for label, one in (("ours", ours[-1]), ("pages", pages[-1])):
                    shown = {key: (round(statistics.median(value) * 1000, 1), len(value))
                             for key, value in one.items() if key != "facts" and value}
                    print(f"round {number + 1} of {rounds}, {label}: {shown} {one['facts']}", file=sys.stderr)
    painted, encoded = await asyncio.to_thread(camera_costs)
    figures = figures_of(ours, pages)
    figures[1:1] = [Figure("  of it: painting the test picture", "ms", painted),
                    Figure("  of it: encoding it (x264)", "ms", encoded)]
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {
            "windowS": seconds, "ours": [one["facts"] for one in ours], "pages": [one["facts"] for one in pages]})


if __name__ == "__main__":
    asyncio.run(main())
