"""The echo canceller in the simulated room: what it takes away, what it does to who talks at the device, what it costs.

    python -m tests.bench.bench_echo [--quick] [--json FILE]

Recorded speech goes through the echo path of the simulated board (delay, loss, reverberation of 300 ms, a loudspeaker
driven into saturation) and through voice processing, as fast as it can be computed. In each of the rooms, which are the
samples: the far end alone for 16 s, both for 10 s, the near end alone for 8 s, then the far end alone again, but by
another path. Compared are the canceller alone, the filters as they are set at first, half duplex alone, and nothing.

* echo left: level of what leaves over level of what was heard, while the far end talks alone (ERLE, its sign turned);
* double talk, 250 Hz to 3.8 kHz in windows of 64 ms: gain of the near talker, where he is 10 dB above the echo in time
  and frequency; and power of what is coherent with him over the power of the rest;
* processor time of one block of 10 ms, on the thread that does it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from appliance.media.canceller import Filters, NoiseSuppression, find_canceller
from appliance.media.echo import DuplexWanted
from appliance.media.sound import BLOCK_BYTES, RATE
from appliance.media.voice import Treatment, VoiceProcessing
from hw.sim.audio import EchoPath
from tests.bench.figures import Figure, write
from tests.bench.speech import SOURCE, speech

Samples = np.ndarray

FAR: Final = SOURCE
NEAR: Final = SOURCE.with_name("priv-callee-options.g722")
FAR_DBFS: Final = -20.0
NEAR_DBFS: Final = -26.0
FLOOR_DBFS: Final = -70.0
REVERBERATION_MS: Final = 300.0

TOGETHER_S, NEAR_ALONE_S, MOVED_S, END_S = 16, 26, 34, 46
SETTLED_S: Final = 1  # of silence before, in which the chain is faded in
BAND: Final = (250.0, 3800.0)
WINDOW: Final = 3072  # 64 ms
CLEARLY: Final = 10.0  # times the echo's power: what is there of the near talker

SYSTEMS: Final = {
    "canceller": Treatment(Filters(aec=True)),
    "as set": Treatment(Filters(aec=True, ns=NoiseSuppression.LOW, highpass=True), DuplexWanted.AUTO),
    "half duplex": Treatment(duplex=DuplexWanted.ON),
    "nothing": Treatment(),
}


MAIN: Final = "canceller"
COST: Final = "us for 10 ms"
TARGETS: Final = {"echo left, 2 to 16 s": -30.0, "changed path, 2 to 12 s": -30.0, "near alone, loss": 1.0, COST: 120.0}


@dataclass(frozen=True)
class Scene:
    name: str
    delay_ms: float
    loss_db: float
    drive_db: float = 0.0


SCENES: Final = (
    Scene("clean", 40, 10), Scene("saturated", 120, 10, 12), Scene("loud", 40, 0),
)


@dataclass(frozen=True)
class Recording:
    """One run of a scene, without the second in which the chain settles: played, near talker alone, heard."""

    played: Samples
    near: Samples
    heard: Samples


def leveled(source: Path, dbfs: float, seconds: int) -> Samples:
    loop = speech(source).astype(float)
    whole = np.tile(loop, -(-seconds * RATE // len(loop)))[: seconds * RATE]
    return whole * (10 ** (dbfs / 20) / np.sqrt(np.mean(loop**2)))


def blocks(samples: Samples) -> Iterator[bytes]:
    pcm = np.clip(samples * 32767, -32768, 32767).astype("<i2").tobytes()
    return (pcm[at : at + BLOCK_BYTES] for at in range(0, len(pcm), BLOCK_BYTES))


def samples(parts: list[bytes]) -> Samples:
    return np.frombuffer(b"".join(parts), "<i2").astype(float) / 32768


def recorded(scene: Scene, place: int) -> Recording:
    played = leveled(FAR, FAR_DBFS, END_S)
    played[NEAR_ALONE_S * RATE : MOVED_S * RATE] = 0
    near = np.zeros(END_S * RATE)
    near[TOGETHER_S * RATE : MOVED_S * RATE] = leveled(NEAR, NEAR_DBFS, MOVED_S - TOGETHER_S)
    floor = np.random.default_rng(place).standard_normal(END_S * RATE) * 10 ** (FLOOR_DBFS / 20)
    path = EchoPath(scene.delay_ms, scene.loss_db)
    path.furnish(REVERBERATION_MS, place=place, drive_db=scene.drive_db)
    heard: list[bytes] = []
    for number, (own, sound) in enumerate(zip(blocks(near + floor), blocks(played), strict=True)):
        if number == MOVED_S * 100:
            path.furnish(REVERBERATION_MS, place=place + 100, drive_db=scene.drive_db)
        heard.append(path.add(own, sound))
    return Recording(played, near, samples(heard))


def treated(run: Recording, scene: Scene, treatment: Treatment) -> tuple[Samples, list[float]]:
    """What leaves, and the processor time of each block in microseconds."""
    voice = VoiceProcessing(Treatment(), find_canceller)
    voice.load()
    voice.set_path(round(scene.delay_ms))
    voice.want(treatment)
    for _ in range(SETTLED_S * 100):
        voice.process(bytes(BLOCK_BYTES), bytes(BLOCK_BYTES))
    left, costs = [], []
    for heard, played in zip(blocks(run.heard), blocks(run.played), strict=True):
        begun = time.thread_time_ns()
        left.append(voice.process(heard, played))
        costs.append((time.thread_time_ns() - begun) / 1000)
    return samples(left), costs


def gain_db(left: Samples, heard: Samples, begin_s: float, end_s: float) -> float:
    part = slice(round(begin_s * RATE), round(end_s * RATE))
    return float(10 * np.log10(np.sum(left[part] ** 2) / np.sum(heard[part] ** 2)))


def double_talk(run: Recording, left: Samples, begin_s: float, end_s: float) -> tuple[float, float]:
    """Gain of the near talker in ``left``, and the ratio of what is coherent with him to what is not, in dB."""
    near, heard, after = (_spectra(one[round(begin_s * RATE) : round(end_s * RATE)])
                          for one in (run.near, run.heard, left))
    own, echo = np.abs(near) ** 2, np.abs(heard - near) ** 2
    his = (own > CLEARLY * echo) & (own > own.mean() / 100)
    cross = np.abs(np.sum(after * near.conj(), 0)) ** 2 / np.sum(own, 0)
    rest = np.sum(np.abs(after) ** 2, 0) - cross
    return (float(10 * np.log10(np.sum(np.abs(after[his]) ** 2) / np.sum(own[his]))),
            float(10 * np.log10(np.sum(cross) / np.sum(rest))))


def _spectra(sound: Samples) -> Samples:
    """Of windows that overlap by half, within the band of speech."""
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    band = (hertz > BAND[0]) & (hertz < BAND[1])
    window, step = np.hanning(WINDOW), WINDOW // 2
    return np.stack([np.fft.rfft(window * sound[at : at + WINDOW])[band]
                     for at in range(0, len(sound) - WINDOW, step)])


def measured(places: range) -> list[Figure]:
    values: dict[tuple[str, str, str], list[float]] = {}
    for scene in SCENES:
        for place in places:
            run = recorded(scene, place)
            for system, treatment in SYSTEMS.items():
                if system == "nothing" or system == MAIN or scene is SCENES[0]:  # the same in all scenes: told once
                    left, costs = treated(run, scene, treatment)
                    for what, value in (judged(run, left) | {COST: float(np.median(costs))}).items():
                        values.setdefault((scene.name, system, what), []).append(value)
    return [Figure(f"{scene}, {system}: {what}", "us" if what == COST else "dB", tuple(samples),
                   TARGETS.get(what) if system == MAIN else None)
            for (scene, system, what), samples in values.items()]


def cells(figures: list[Figure]) -> str:
    """A line for each system in each scene: medians, and the lowest and highest of the rooms."""
    lines: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        case, _, what = figure.name.partition(": ")
        lines.setdefault(case, {})[what] = figure
    measures = list(next(iter(lines.values())))
    rows = [["", *measures], ["---", *["---"] * len(measures)]]
    for case, found in lines.items():
        rows.append([case, *(f"{one.median:.0f}" if one.unit == "us" else
                             f"{_tenths(one.median)} ({_tenths(min(one.samples))} to {_tenths(max(one.samples))})"
                             for one in found.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _tenths(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # no -0.0


def judged(run: Recording, left: Samples) -> dict[str, float]:
    near_gain, over_rest = double_talk(run, left, TOGETHER_S + 1, NEAR_ALONE_S)
    return {
        "echo left, 0 to 2 s": gain_db(left, run.heard, 0, 2),
        "echo left, 2 to 16 s": gain_db(left, run.heard, 2, TOGETHER_S),
        "changed path, 0 to 2 s": gain_db(left, run.heard, MOVED_S, MOVED_S + 2),
        "changed path, 2 to 12 s": gain_db(left, run.heard, MOVED_S + 2, END_S),
        "double talk, near gain": near_gain,
        "near over the rest": over_rest,
        "near alone, loss": -gain_db(left, run.heard, NEAR_ALONE_S + 1, MOVED_S),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one room in place of five")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    for path in (FAR, NEAR):
        if not path.exists():
            print(f"{path} is missing; it comes with Debian's asterisk-core-sounds-en-g722", file=sys.stderr)
            return 1
    figures = measured(range(1, 2 if arguments.quick else 6))
    print(cells(figures))
    if arguments.json:
        write(arguments.json, figures, {"table": cells(figures)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
