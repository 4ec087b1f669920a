"""The media engine beside stock aiortc and Chromium, through the same bad network in the same run.

    python -m tests.bench.bench_media [--quick] [--part NAME ...] [--condition NAME ...] [--seeds N] [--first N]
                                    [--json FILE]         under scripts/netns
    python -m tests.bench.bench_media --merge FILE ...        one table of what several runs have written

Three systems, each calling itself through one relay (``tests/support/impair.py``): ours, stock aiortc, and two headless
Chromiums. All send 1280x720 at 30 a second and recorded speech from a mouth to an ear. The systems take turns within
each seed, so that what else the machine does hits all alike; the seed decides what the relay loses.

    loss   0, 2, 5 and 10 % of the packets lost in both directions, and 2 % in bursts of five; round trip 40 ms
    trip   a round trip of 600 ms
    caps   700, 300 and 100 kbit/s with a queue of 250 ms, each released again; towards the ear only
    cpu    sending, receiving, a call both ways, and nine received streams of 640x360; without the relay

Prints a table of medians over the seeds with the lowest and the highest; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.bench.ends import CAMERA_LOOP_S, Browsers, End, Taken, Wish, browsers, page_end, python_end
from tests.bench.figures import Figure, percentile, write
from tests.bench.judge import capped, frozen_s, regained_s
from tests.bench.matrix import Row, matrix
from tests.bench.speech import delays, quality, speech_wav
from tests.support.impair import Burst, Conditions, Relay, relay

SYSTEMS: Final = ("ours", "chromium", "stock")
HOST: Final = "10.99.0.1"  # of scripts/netns: a browser knows no path over loopback
NEAR: Final = Conditions(delay_s=0.02)
LOSSES: Final = {
    "no loss": NEAR,
    "2 % loss": Conditions(delay_s=0.02, loss=0.02),
    "5 % loss": Conditions(delay_s=0.02, loss=0.05),
    "10 % loss": Conditions(delay_s=0.02, loss=0.10),
    "2 % in bursts of 5": Conditions(delay_s=0.02, loss=Burst.of(0.02, length=5)),
}
FAR: Final = {"600 ms round trip": Conditions(delay_s=0.3)}
CAPS: Final = (700_000, 300_000, 100_000)
QUEUE_MS: Final = 250.0
SAMPLE_S: Final = 0.1
PARTS: Final = ("loss", "trip", "caps", "cpu")
WAITING: Final = ("jitterBufferEmittedCount", "jitterBufferDelay")

Results = dict[tuple[str, str, str], list[float]]
"""(condition, measure, system) -> one value per seed."""


class Stage:
    """Where the ends come from, and how long everything takes."""

    def __init__(self, both: Browsers | None, wav: Path, *, quick: bool) -> None:
        self._both = both
        self._wav = wav
        self.warm_s = 3.0
        self.window_s = 9.0 if quick else 12.0
        self.cap_s, self.release_s = (8.0, 6.0) if quick else (15.0, 12.0)
        self.cpu_s = 4.0 if quick else 10.0

    def end(self, system: str, side: int, wish: Wish) -> AbstractAsyncContextManager[End]:
        if system == "chromium":
            assert self._both is not None, "no browser was started"
            return page_end(self._both, side, wish)
        return python_end(system, wish, self._wav)

    @asynccontextmanager
    async def call(
        self, mouth: tuple[str, Wish], ear: tuple[str, Wish], between: Relay | None = None, *, count: int = 1,
    ) -> AsyncIterator[tuple[End, End]]:
        """``count`` connections from one to the other, all up."""
        async with self.end(mouth[0], 0, mouth[1]) as one, self.end(ear[0], 1, ear[1]) as other:
            for _ in range(count):
                offer = await one.offer()
                if between is None:
                    await one.accept(await other.answer(offer))
                else:
                    await one.accept(between.from_right(await other.answer(between.from_left(offer))))
            await asyncio.gather(one.up(), other.up())
            yield one, other


MOUTH: Final = Wish(receives=False)
EAR: Final = Wish(sends=False)


# --- loss and distance ----------------------------------------------------------------------------------------------


async def impaired(stage: Stage, system: str, conditions: Conditions, seed: int) -> dict[str, float]:
    """The call is set up without loss, over the distance that is asked for."""
    async with (
        relay(replace(conditions, loss=0.0), seed=seed, host=HOST) as between,
        stage.call((system, MOUTH), (system, EAR), between) as (mouth, ear),
    ):
        await asyncio.sleep(stage.warm_s)
        between.change(conditions)
        await asyncio.sleep(1.0)
        before = await ear.numbers()
        await mouth.record(pictures=True, sound=True)
        await ear.record(pictures=True, sound=True)
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(stage.window_s)
        ended = asyncio.get_running_loop().time()
        after = await ear.numbers()  # before what was kept is taken, which keeps an end too busy to send or to play
        spoken, heard = await mouth.take(), await ear.take()
    late = [delay * 1000 for delay in latencies(spoken, heard)]
    found = {"frozen": frozen_s(heard.times, begun, ended) / (ended - begun) * 100,
             "pictures": len(heard.times) / (ended - begun), "concealed": concealed(before, after)}
    found |= waits(before, after)
    if late:
        found |= {f"picture p{share}": percentile(late, share / 100) for share in (50, 95, 99)}
    if spoken.heard is not None and heard.played is not None:
        said, got = spoken.heard, heard.played
        ways = await asyncio.to_thread(delays, said.samples, got.samples, got.begin - said.begin)
        if ways:
            delay = statistics.median(ways)
            found["mouth to ear"] = delay * 1000
            score = await asyncio.to_thread(quality, said.samples, got.samples, got.begin - said.begin, delay)
            found |= {"speech": score} if score is not None else {}
    return found


def latencies(spoken: Taken, heard: Taken) -> list[float]:
    """Seconds from the capture of each picture to its arrival."""
    if not spoken.captured:
        return [at - _near(clock, at) - spoken.painting for at, _, clock in heard.pictures]
    found = []
    for at, counter, _ in heard.pictures:
        before = [stamp for stamp in spoken.captured.get(counter, ()) if 0 <= at - stamp < CAMERA_LOOP_S * 0.9]
        if before:
            found.append(at - max(before))
    return found


def _near(clock_ms: int, now: float) -> float:
    """The time of a picture's 32-bit clock, in seconds."""
    return now - ((int(now * 1000) - clock_ms) % (1 << 32)) / 1000 - now * 1000 % 1 / 1000


def concealed(before: dict[str, float], after: dict[str, float]) -> float:
    """Per cent of the sound that was played in between."""
    total = after.get("totalSamplesReceived", 0) - before.get("totalSamplesReceived", 0)
    return 100.0 * (after.get("concealedSamples", 0) - before.get("concealedSamples", 0)) / total if total else 100.0


def waits(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Milliseconds that sound waited in its buffer in between; empty of what does not tell."""
    emitted, waited = (after.get(name, 0) - before.get(name, 0) for name in WAITING)
    return {"sound waits": waited / emitted * 1000} if emitted else {}


# --- caps -----------------------------------------------------------------------------------------------------------


async def under_caps(stage: Stage, system: str, seed: int) -> dict[str, dict[str, float]]:
    """One call through all caps, each released again; what was measured by the name of the cap."""
    loop = asyncio.get_running_loop()
    samples: list[tuple[float, int, int, int]] = []
    found: dict[str, dict[str, float]] = {}
    phases: dict[int, tuple[float, float, float, float]] = {}
    heard: dict[int, tuple[dict[str, float], dict[str, float]]] = {}

    async def watch(between: Relay) -> None:
        counters = between.left_to_right.counters
        while True:
            samples.append((loop.time(), counters.arrived_bytes, counters.sent, counters.overflowed))
            await asyncio.sleep(SAMPLE_S)

    async with (
        relay(NEAR, seed=seed, host=HOST) as between,
        stage.call((system, MOUTH), (system, EAR), between) as (mouth, ear),
    ):
        watching = asyncio.create_task(watch(between))
        try:
            await asyncio.sleep(stage.warm_s + 5.0)  # from the start bitrate to what the sender is content with
            await mouth.record(pictures=True, sound=False)
            await ear.record(pictures=True, sound=False)
            for rate in CAPS:
                counters = between.left_to_right.counters
                bytes_before, at = counters.arrived_bytes, loop.time()
                await asyncio.sleep(3.0)
                normal = (counters.arrived_bytes - bytes_before) * 8 / (loop.time() - at)
                numbers = await ear.numbers()
                begun = loop.time()
                between.change(left_to_right=Conditions(delay_s=0.02, rate_bps=rate, queue_ms=QUEUE_MS))
                await asyncio.sleep(stage.cap_s)
                heard[rate] = (numbers, await ear.numbers())
                released = loop.time()
                between.change(left_to_right=NEAR)
                await asyncio.sleep(stage.release_s)
                phases[rate] = (normal, begun, released, loop.time())
            spoken, seen = await mouth.take(), await ear.take()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    for rate, (normal, begun, released, ended) in phases.items():
        cap = capped(samples, rate, begun, released)
        middle = (begun + released) / 2
        part = Taken([row for row in seen.pictures if middle <= row[0] < released], [], None, None, {})
        late = [delay * 1000 for delay in latencies(spoken, part)]
        found[f"cap of {rate // 1000} kbit/s"] = {
            "used": cap.used * 100, "settled": cap.settled_s, "dropped": cap.dropped * 100,
            "regained": regained_s(samples, normal, released, ended),
            "pictures": sum(middle <= at < released for at in seen.times) / (released - middle),
            "frozen": frozen_s(seen.times, begun, released) / (released - begun) * 100,
            "concealed": concealed(*heard[rate]),
        } | ({"picture p95": percentile(late, 0.95)} if late else {})
    return found


# --- processor time -------------------------------------------------------------------------------------------------


async def busy(stage: Stage, end: End) -> dict[str, float]:
    """Per cent of a core over a window, and decoded pictures a second."""
    loop = asyncio.get_running_loop()
    before, begun = await end.numbers(), loop.time()
    await asyncio.sleep(stage.cpu_s)
    after, ended = await end.numbers(), loop.time()
    frames = after.get("framesDecoded", 0) - before.get("framesDecoded", 0)
    found = {"cpu": (after["cpu"] - before["cpu"]) / (ended - begun) * 100}
    return found | ({"decoded": frames / (ended - begun)} if frames else {})


async def processor(stage: Stage, system: str) -> dict[str, dict[str, float]]:
    clip = Wish(camera="clip", watched=False)
    mouth, ear = Wish(camera="clip", watched=False, receives=False), Wish(watched=False, sends=False)
    small = Wish(camera="clip", watched=False, receives=False, width=640, height=360)
    found: dict[str, dict[str, float]] = {}

    async def case(
        name: str, one: tuple[str, Wish], other: tuple[str, Wish], *, which: int, count: int = 1,
    ) -> None:
        async with stage.call(one, other, count=count) as ends:
            await asyncio.sleep(stage.warm_s + 2.0)
            found[name] = await busy(stage, ends[which])

    await case("sending 720p30 and speech", (system, mouth), ("ours", ear), which=0)
    await case("receiving 720p30 and speech", ("ours", mouth), (system, ear), which=1)
    await case("both ways", (system, clip), (system, clip), which=1)
    await case("nine received, 360p30 and speech", ("ours", small), (system, ear), which=1, count=9)
    return found


# --- all ------------------------------------------------------------------------------------------------------------

LATENCY: Final = [
    Row("picture p50", "ms"), Row("picture p95", "ms"), Row("picture p99", "ms"), Row("frozen", "% of time"),
    Row("pictures", "1/s"), Row("mouth to ear", "ms"), Row("sound waits", "ms"), Row("concealed", "% of sound"),
    Row("speech", "MOS-LQO"),
]
CAPPED: Final = [
    Row("used", "% of the cap"), Row("settled", "s"), Row("dropped", "% of packets"), Row("picture p95", "ms"),
    Row("pictures", "1/s"), Row("frozen", "% of time"), Row("concealed", "% of sound"), Row("regained", "s"),
]
BUSY: Final = [Row("cpu", "% of a core"), Row("decoded", "1/s")]


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be given more than once; all by default")
    parser.add_argument("--condition", action="append", choices=[*LOSSES, *FAR],
                        help="of loss and distance, only this; may be given more than once")
    parser.add_argument("--seeds", type=int, default=0, help="how many; 5 by default, 1 with --quick")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="may be given more than once")
    parser.add_argument("--json")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first seed")
    parser.add_argument("--merge", nargs="+", type=Path, metavar="FILE", help="measure nothing, print these runs")
    arguments = parser.parse_args()
    if arguments.merge:
        print(tables(await asyncio.to_thread(merged, arguments.merge), SYSTEMS))
        return
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # the browsers end with it
    parts, systems = arguments.part or PARTS, arguments.system or SYSTEMS
    networks = (LOSSES if "loss" in parts else {}) | (FAR if "trip" in parts else {})
    networks = {name: one for name, one in networks.items() if name in (arguments.condition or networks)}
    seeds = arguments.seeds or (1 if arguments.quick else 5)
    results: Results = defaultdict(list)
    failures: list[str] = []

    def note(system: str, found: dict[str, dict[str, float]], seed: int) -> None:
        for condition, measures in found.items():
            for measure, value in measures.items():
                results[condition, measure, system].append(value)
            shown = {measure: round(value, 2) for measure, value in measures.items()}
            print(f"seed {seed}, {condition}, {system}: {shown}", file=sys.stderr, flush=True)

    async def attempt(system: str, name: str, seed: int, work: Any) -> None:
        try:
            note(system, await work, seed)
        except (TimeoutError, RuntimeError, AssertionError) as error:
            failures.append(f"{name}, {system}, seed {seed}: {type(error).__name__}: {str(error)[:200]}")
            print(failures[-1], file=sys.stderr, flush=True)

    async def named(condition: str, work: Any) -> dict[str, dict[str, float]]:
        return {condition: await work}

    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as name:
        folder = Path(name)
        wav = await asyncio.to_thread(speech_wav, folder / "speech.wav")
        async with AsyncExitStack() as stack:
            both = await stack.enter_async_context(browsers(folder, wav)) if "chromium" in systems else None
            stage = Stage(both, wav, quick=arguments.quick)
            for seed in range(arguments.first, arguments.first + seeds):
                for condition, conditions in networks.items():
                    for system in systems:
                        work = named(condition, impaired(stage, system, conditions, seed))
                        await attempt(system, condition, seed, work)
                for system in systems if "caps" in parts else ():
                    await attempt(system, "caps", seed, under_caps(stage, system, seed))
                for system in systems if "cpu" in parts else ():
                    await attempt(system, "cpu", seed, processor(stage, system))
    text = tables(results, systems)
    print(text)
    for failure in failures:
        print(f"NOT MEASURED: {failure}")
    if arguments.json:
        figures = [Figure(f"{condition}: {measure}, {system}", UNITS[measure], tuple(values))
                   for (condition, measure, system), values in results.items()]
        await asyncio.to_thread(write, arguments.json, figures, {
            "table": text, "failures": failures, "firstSeed": arguments.first, "seeds": seeds,
            "results": [[*key, values] for key, values in results.items()]})


def merged(files: Sequence[Path]) -> Results:
    """What several runs have written, as one; the same seeds for all systems are the caller's business."""
    results: Results = defaultdict(list)
    for path in files:
        for condition, measure, system, values in json.loads(path.read_text())["detail"]["results"]:
            results[condition, measure, system] += values
    return results


UNITS: Final = {row.measure: row.unit for row in (*LATENCY, *CAPPED, *BUSY)}


def tables(results: Results, systems: Sequence[str]) -> str:
    """Markdown; one table for each kind of measurement that was made."""
    conditions = list(dict.fromkeys(condition for condition, _, _ in results))
    kinds = (("Loss and distance", LATENCY, lambda name: name in LOSSES | FAR),
             ("Caps", CAPPED, lambda name: name.startswith("cap of")),
             ("Processor time", BUSY, lambda name: name not in LOSSES | FAR and not name.startswith("cap of")))
    texts = []
    for title, rows, belongs in kinds:
        chosen = [condition for condition in conditions if belongs(condition)]
        if chosen:
            texts.append(f"**{title}**\n\n{matrix(results, chosen, rows, systems)}")
    return "\n\n".join(texts)


if __name__ == "__main__":
    asyncio.run(main())
