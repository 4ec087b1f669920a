"""What a telephone call costs: the daemon beside a baresip, each in a call with another baresip, in the same seconds.

    python -m tests.bench.bench_telephone [--quick] [--json FILE]        (in a network namespace: scripts/netns)

* CPU: all threads of a process, by the kernel's own count, in per cent of one core, over windows of 20 s;
* memory: PSS at the end of each window. The daemon's camera process, which does nothing here, is in neither;
* ratios: the daemon's by baresip's, of the same window; *the call alone* without what the daemon takes idle.

Both send and take a tone, 20 ms a packet, echo cancellation and all other voice processing off; both resample where the
codec asks for it (baresip's sound is of 48 kHz and stereo, the simulated card's mono). Of the measured baresip
those modules are loaded that a call needs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.figures import Figure, table, write
from tests.bench.process import cpu_of_threads, memory
from tests.support.appliance import Appliance
from tests.support.baresip import Baresip, baresip
from tests.support.waiting import until

CODECS: Final = {"PCMU": "PCMU/8000/1", "Opus": "opus/48000/1"}  # baresip knows mono Opus by this name
MODULES: Final = ("g711", "opus", "ausine", "aubridge")
BITRATE: Final = 40_000  # of Opus, which ours has
ALIKE: Final = ("opus_stereo no", "opus_sprop_stereo no", f"opus_bitrate {BITRATE}", "opus_complexity 5")
SETTLE_S: Final = 3.0
AIM: Final = 3.0
SETTINGS: Final = {
    "sip.require_encryption": False, "audio.echo": "none", "audio.noise_suppression": "off", "audio.high_pass": False,
    "audio.half_duplex": "off"}


@dataclass
class Window:
    """``daemon``, ``loop`` (its main thread) and ``baresip``: per cent of a core."""

    daemon: float
    loop: float
    baresip: float
    pss: float
    baresip_pss: float


@dataclass
class Run:
    windows: list[Window] = field(default_factory=list)

    def of(self, name: str) -> tuple[float, ...]:
        return tuple(float(getattr(window, name)) for window in self.windows)


async def watched(door: Appliance, phone: Baresip, count: int, seconds: float, label: str) -> Run:
    run, pids = Run(), (door.process.pid, phone.pid)
    for number in range(count):
        begun, before = time.monotonic(), [cpu_of_threads(pid) for pid in pids]
        await asyncio.sleep(seconds)
        after, took = [cpu_of_threads(pid) for pid in pids], time.monotonic() - begun
        used = [[(now - then) * 100 / took for now, then in zip(*both, strict=True)]
                for both in zip(after, before, strict=True)]
        run.windows.append(Window(
            sum(used[0]), used[0][0], sum(used[1]), *[(await asyncio.to_thread(memory, pid)).pss for pid in pids]))
        print(f"{label} {number + 1} of {count}: {run.windows[-1]}", file=sys.stderr)
    return run


def account(port: int) -> str:
    return ('[[sip.accounts]]\nname = "trunk"\naddress = "sip:door@127.0.0.1"\nregister = false\n'
            f'servers = "127.0.0.1:{port}"\ntransport = "udp"\nkeep_alive = false\n'
            'trusted = ["127.0.0.0/8"]\n')


async def measure(codec: str, count: int, seconds: float) -> tuple[Run, Run]:
    """Idle, and in a call."""
    line = f"<sip:phone@127.0.0.1>;regint=0;audio_codecs={CODECS[codec]};answermode=auto"
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecall-bench-")))
        phones = [await stack.enter_async_context(baresip(folder / name, line, modules=MODULES, config=ALIKE))
                  for name in ("far", "near", "other")]
        door = await stack.enter_async_context(
            Appliance(folder / "door", settings=SETTINGS, tables=account(phones[0].port)))
        await door.until(lambda: door.state("provider").get("providers", {}).get("sip", {}).get(
            "accounts", {}).get("trunk", {}).get("up"), "the trunk")
        await asyncio.sleep(SETTLE_S)
        idle = await watched(door, phones[1], max(1, count // 2), seconds, f"{codec}, idle")
        answer = await door.give("call.dial", to=f"sip:phone@127.0.0.1:{phones[0].port}")
        assert answer["result"] == "done", answer
        await door.call_is("Connected")
        await phones[1].tell("dial", f"sip:phone@127.0.0.1:{phones[2].port}")
        await phones[1].until("CALL_ESTABLISHED")
        await until(lambda: any(f"audio encoder: {CODECS[codec].partition('/')[0]} " in line
                                for line in phones[1].log), f"{codec} at baresip")
        await asyncio.sleep(SETTLE_S)
        return idle, await watched(door, phones[1], count, seconds, f"{codec}, in a call")


def ratios(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    return tuple(one / other for one, other in zip(first, second, strict=True))


def figures_of(codec: str, idle: Run, call: Run) -> list[Figure]:
    rest = Figure("", "", idle.of("daemon")).median
    alone = tuple(value - rest for value in call.of("daemon"))
    return [
        Figure(f"{codec} call, CPU of the daemon", "% of a core", call.of("daemon")),
        Figure("  of it the loop; all else is sound", "% of a core", call.of("loop")),
        Figure("  of it idle, too", "% of a core", idle.of("daemon")),
        Figure(f"{codec} call, CPU of baresip", "% of a core", call.of("baresip")),
        Figure(f"{codec} call, CPU, daemon / baresip", "ratio", ratios(call.of("daemon"), call.of("baresip")), AIM),
        Figure("  the call alone / baresip", "ratio", ratios(alone, call.of("baresip"))),
        Figure(f"{codec} call, PSS of the daemon", "MiB", call.of("pss")),
        Figure(f"{codec} call, PSS of baresip", "MiB", call.of("baresip_pss")),
        Figure(f"{codec} call, PSS, daemon / baresip", "ratio", ratios(call.of("pss"), call.of("baresip_pss")))]


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    count, seconds = (1, 5.0) if arguments.quick else (5, 20.0)
    figures: list[Figure] = []
    for codec in CODECS:
        figures += figures_of(codec, *await measure(codec, count, seconds))
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {"windowS": seconds, "settings": SETTINGS})


if __name__ == "__main__":
    asyncio.run(main())
