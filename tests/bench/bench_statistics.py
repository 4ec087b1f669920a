"""What statistics cost the loop: one report of a live call, and what is made of it.

    python -m tests.bench.bench_statistics [--quick] [--json FILE]

Two studios in one process are in a call with sound, picture and data channel. CPU time of the loop's thread:

* report: the W3C dictionaries of one session;
* judge: network quality of a report against the one before;
* sum up: a report into the summary of its call;
* as ACS: the view in the names of Azure Communication Services;
* encode: the report as JSON text, whose size is in the note.

A second of ``stats.subscribe`` is a report and its text, and a fifth of what a look at the call's quality takes, which
is every five seconds with a subscriber or without. Prints medians and the spread; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from typing import Final

from appliance.care import acs
from appliance.care.call_quality import LOOK_S
from appliance.care.quality import Judge
from appliance.care.summary import MediaSummary
from appliance.vocabulary import Json
from tests.bench.figures import Figure, table, write
from tests.support.media_pair import pair, until

PAUSE_S: Final = 0.05  # between two reports: counters grow, caches cool
TARGET_MS: Final = 1.0  # a thousandth of the loop
LOOKS_PER_S: Final = 1 / LOOK_S


def cost(work: Callable[[], object], samples: list[float]) -> None:
    begun = time.thread_time()
    work()
    samples.append((time.thread_time() - begun) * 1000)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    count = 40 if arguments.quick else 400
    spent: dict[str, list[float]] = {name: [] for name in ("report", "judge", "sum up", "as ACS", "encode")}
    judge, summary, size = Judge(), MediaSummary(), 0
    async with pair() as (caller, _):
        await until(lambda: all(one.counters.reports for one in caller.session.outgoing.values()), 10, "reports")
        before: list[Json] = []
        for _ in range(count):
            await asyncio.sleep(PAUSE_S)
            begun = time.thread_time()
            report = list(await caller.session.stats())
            spent["report"].append((time.thread_time() - begun) * 1000)
            cost(lambda now=report: judge.look(now), spent["judge"])  # type: ignore[misc]
            cost(lambda now=report: summary.add(now), spent["sum up"])  # type: ignore[misc]
            cost(lambda now=report, then=before: acs.sample(now, then), spent["as ACS"])  # type: ignore[misc]
            cost(lambda now=report: json.dumps(now, separators=(",", ":")), spent["encode"])  # type: ignore[misc]
            before, size = report, len(json.dumps(report, separators=(",", ":")))
    second = tuple(
        reported + encoded + (reported + judged + summed) * LOOKS_PER_S
        for reported, judged, summed, _, encoded in zip(*spent.values(), strict=True))
    figures = [Figure("a second of stats.subscribe, CPU", "ms", second, TARGET_MS)]
    figures += [
        Figure(f"statistics: {name}, CPU", "ms", tuple(samples), note=f"{size} bytes" if name == "encode" else "")
        for name, samples in spent.items()]
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {"bytes": size})


if __name__ == "__main__":
    asyncio.run(main())
