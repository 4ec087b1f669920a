"""The way of picture and sound through one board, by the stages that the daemon exports, and what each costs.

    python -m tests.bench.bench_devices [--board pi] [--file BOARD_FILE] [--quick] [--json FILE]

``scripts/bench --only devices`` runs it on the simulated board, ``scripts/hil --bench`` (``--guest``) inside the guest
on kernel devices; on a Raspberry Pi it is run as above, without a daemon beside it. It needs loopback and no browser.

* *Sound*, on the board alone: from a block with a click that the receiver returns to the block in which it comes
  in from the microphone. That needs a way between them: the simulated board's echo path (without delay), the wire of
  the sound loop, on a board a loudspeaker that its microphone hears.
* *Idle*: the daemon with this board, its embedded broker, and nothing to do. Wake-ups are voluntary context switches
  of all its threads.
* *In a call* with another appliance (simulated board, one picture a second, same machine): ``x-device`` of
  ``GET /v1/stats``, five times a second; then, with nobody asking, ``edgecall_stage_cpu_seconds_total`` over windows of
  10 s, of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from hw.api import AudioBlock, BoardOptions
from hw.boards import open_board
from hw.pi.boardfile import find_board_file
from hw.pi.health import identity
from hw.pi.panel import PanelConfig
from tests.bench import machine
from tests.bench.__main__ import publish
from tests.bench.figures import Figure, table, write
from tests.bench.process import cpu_s, memory
from tests.hil.devices import TEST_KERNEL
from tests.hil.rig import SimulatedHeader
from tests.support.appliance import Appliance
from tests.support.ports import free_port

STAGES: Final = {
    "encoderDwell": "picture in the encoder",
    "captureToFirstPacketLatency": "capture to first packet",
    "captureToSendLatency": "capture to last packet",
    "audioLoopDelay": "sound, microphone to loudspeaker, as told",
}
"""Members of ``x-device``, and what they are to a reader."""

BOOT: Final = Path(__file__).resolve().parents[1] / "hil" / "boot"
MODULES: Final = ("hilenc", "vivid n_devs=1 node_types=0x1", "snd-aloop", "vkms")
PLACE: Final = ("<!-- figures of devices in the guest, written by scripts/hil --bench --publish -->",
                "<!-- end of figures of devices in the guest -->")

SIZES: Final = {"sim": (1280, 720), "pi": (1280, 720)}
GUEST_SIZE: Final = (640, 360)
"""One processor is the device under test, its peer and the bench."""

FPS: Final = 30
BLOCK: Final = 480
CLICK: Final = array("h", [24_000] * 48 + [0] * (BLOCK - 48)).tobytes()
SILENCE: Final = bytes(BLOCK * 2)
LOUD: Final = 4000
BETWEEN_BLOCKS: Final = 50
WINDOW_S: Final = 10
START_S: Final = 90.0  # in a guest on a machine with other work
LEAST_SHARE: Final = 0.05
"""Per cent of a core under which a stage is not worth a row."""


class Clicker:
    """A receiver of sound that clicks and listens for it. Runs on ``hw.audio``."""

    def __init__(self, count: int) -> None:
        self.delays: list[float] = []
        self.over = threading.Event()
        self._count, self._block, self._clicked_at = count, 0, math.nan

    def __call__(self, block: AudioBlock) -> bytes:
        now = time.monotonic()
        self._block += 1
        if not math.isnan(self._clicked_at) and max(memoryview(block.heard).cast("h")) > LOUD:
            self.delays.append(now - self._clicked_at)
            self._clicked_at = math.nan
            if len(self.delays) == self._count:
                self.over.set()
        if self._block % BETWEEN_BLOCKS:
            return SILENCE
        self._clicked_at = now
        return CLICK


def sound_loop(board_name: str, file: str, count: int) -> tuple[float, ...]:
    """Milliseconds from click to click. Raises AssertionError where it is not heard."""
    options = BoardOptions(microphone="silence", file=file, echo_delay_ms=0.0, echo_loss_db=1.0)
    board = open_board(board_name, options)
    try:
        assert board.audio is not None, f"no sound: {board.devices()}"
        clicker = Clicker(count)
        board.audio.set_volume(100)
        board.audio.start(48_000, 10, clicker)
        heard = clicker.over.wait(count * BETWEEN_BLOCKS * 0.01 * 2 + 20)
        board.audio.stop()
        assert heard, f"{len(clicker.delays)} of {count} clicks came back: does the microphone hear the loudspeaker?"
        return tuple(value * 1000 for value in clicker.delays)
    finally:
        board.close()


def switches(pid: int) -> int:
    """Voluntary context switches of all threads so far."""
    found = 0
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        found += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", path.read_text(), re.MULTILINE)[1])  # type: ignore[index]
    return found


async def stages(door: Appliance) -> Mapping[str, float]:
    async with door.http.get("http://edgecall/metrics") as response:
        text = await response.text()
    return {name: float(value) for name, value in
            re.findall(r'^edgecall_stage_cpu_seconds_total\{stage="([^"]+)"\} (\S+)', text, re.MULTILINE)}


@contextmanager
def devices(board: str, file: str) -> Iterator[str]:
    """The board file to use. On the test kernel, with the chip that it names, and the microphone at the other end of
    the wire that the loudspeaker plays into (``snd-aloop``)."""
    if board != "pi" or not TEST_KERNEL:
        yield file
        return
    found = find_board_file(file, identity()["model"])
    rig = SimulatedHeader(found.part("panel", PanelConfig).chip)
    try:
        with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as folder:
            wired = Path(folder) / Path(found.path).name
            wired.write_text(re.sub(r"^microphones = .*$", 'microphones = ["alsa:Loopback/1"]',
                                    Path(found.path).read_text(), flags=re.MULTILINE))
            yield str(wired)
    finally:
        rig.close()


async def idle(door: Appliance, windows: int) -> list[Figure]:
    pid = door.process.pid
    pss, rss, cpu, wakes = [], [], [], []
    for _ in range(windows):
        begun, before, woken = time.monotonic(), cpu_s(pid), switches(pid)
        for _ in range(WINDOW_S):
            await asyncio.sleep(1)
            found = await asyncio.to_thread(memory, pid)
            pss.append(found.pss)
            rss.append(found.rss)
        taken = time.monotonic() - begun
        cpu.append((cpu_s(pid) - before) / taken * 100)
        wakes.append((switches(pid) - woken) / taken)
    return [
        Figure("daemon idle, PSS", "MiB", tuple(pss), 100),
        Figure("daemon idle, RSS (PSS is never above it)", "MiB", tuple(rss)),
        Figure("daemon idle, CPU", "% of a core", tuple(cpu)),
        Figure("daemon idle, wake-ups", "1/s", tuple(wakes)),
    ]


async def in_a_call(door: Appliance, lobby: Appliance, seconds: int, windows: int) -> list[Figure]:
    told = await door.give("call.dial", to="lan:lobby", wait=5)
    await lobby.call_is("Incoming", within_s=30)
    answer = await lobby.give("call.answer", wait=30)
    assert answer["result"] == "done", (told, answer)
    await asyncio.gather(door.call_is("Connected", within_s=30), lobby.call_is("Connected", within_s=30))
    await asyncio.sleep(5)  # until the rate has settled
    samples: defaultdict[str, list[float]] = defaultdict(list)
    rates: list[float] = []
    sent, begun = 0, time.monotonic()
    for _ in range(seconds * 5):
        await asyncio.sleep(0.2)
        rows = {(one["type"], one.get("kind")): one for one in (await door.get("/v1/stats"))["stats"]}
        device, stream = rows["x-device", None], rows["outbound-rtp", "video"]
        if stream["framesSent"] == sent:
            continue  # it tells of the picture before still
        if sent:
            rates.append((stream["framesSent"] - sent) / (time.monotonic() - begun))
        sent, begun = stream["framesSent"], time.monotonic()
        for name in STAGES:
            if name in device:
                samples[name].append(device[name] * 1000)
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(windows):
        begun, before = time.monotonic(), await stages(door)
        await asyncio.sleep(WINDOW_S)
        after, taken = await stages(door), time.monotonic() - begun
        for name, value in after.items():
            shares[name].append((value - before.get(name, 0.0)) / taken * 100)
    await door.give("call.hangup")
    return [
        *(Figure(f"{name}: {words}", "ms", tuple(samples[name])) for name, words in STAGES.items() if samples[name]),
        *([Figure("pictures sent", "1/s", tuple(rates))] if rates else []),
        *(Figure(f"CPU in a call, {name}", "% of a core", tuple(values)) for name, values in
          sorted(shares.items(), key=lambda item: -max(item[1])) if max(values) >= LEAST_SHARE),
    ]


async def measure(board: str, file: str, *, quick: bool) -> list[Figure]:
    width, height = GUEST_SIZE if TEST_KERNEL else SIZES[board]
    settings: dict[str, Any] = {"video.width": width, "video.height": height, "video.fps": FPS}
    windows = 1 if quick else 3
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as name:
        folder = Path(name)
        token, port = folder / "token", free_port()
        token.write_text(secrets.token_urlsafe(24))
        token.chmod(0o600)
        peer = f'[[direct.peers]]\nname = "lobby"\nurl = "http://127.0.0.1:{port}"\ntoken_file = "{token}"\n'
        known = (f'[[http.tokens]]\nname = "door-1"\nscope = "device"\ntoken_file = "{token}"\n'
                 '[[book]]\nname = "Door"\nuris = ["lan:door-1"]\n')
        door = Appliance(folder / "door", tables=peer, start_s=START_S, settings=settings | {
            "board.name": board, "mqtt.enabled": True, "board.microphone": "speech",
            **({"board.file": file} if file else {})})
        lobby = Appliance(folder / "lobby", device="lobby-2", tables=known, start_s=START_S, settings={
            "board.name": "sim", "board.microphone": "speech", "board.screen": "320x180", "video.width": 160,
            "video.height": 120, "video.fps": 1, "http.port": port})
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(door)
            await asyncio.sleep(2 if quick else 10)
            figures = await idle(door, windows)
            await stack.enter_async_context(lobby)
            return figures + await in_a_call(door, lobby, 4 if quick else 20, windows)


def where(board: str, file: str) -> str:
    """What the figures stand on, for a reader."""
    facts = identity()
    what = {"sim": "simulated board", "pi": facts["model"]}[board]
    if TEST_KERNEL:
        what = f"User Mode Linux guest, kernel real, hardware simulated, board file {file or 'as found'}, one processor"
    size = GUEST_SIZE if TEST_KERNEL else SIZES[board]
    return (f"{what}; {size[0]}x{size[1]} at {FPS} a second; Linux {platform.release()}, "
            f"Python {platform.python_version()}")


def shown(figures: Sequence[Figure], what: str) -> str:
    return f"{what[0].upper()}{what[1:]}.\n\n{table(figures, markdown=True)}"


def in_the_guest(*, quick: bool, published: bool) -> int:
    """Run it inside the guest and give its table here. Returns its exit status."""
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as out:
        words = [str(BOOT), "--out", out, *(word for module in MODULES for word in ("--load", module)), "--",
                 sys.executable, "-m", "tests.bench.bench_devices", "--board", "pi", "--file", "pi-4b",
                 "--json", "/hil/figures.json", *(["--quick"] if quick else [])]
        status = subprocess.run(words, cwd=BOOT.parents[2], check=False).returncode
        if status:
            return status
        text = json.loads((Path(out) / "figures.json").read_text())["detail"]["table"]
    facts = machine.facts()
    text = f"{machine.described(facts)}\n\n{text}"
    print(f"{text}\n\n{machine.noise(facts)}")
    if published:
        publish(text, between=PLACE)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--board", choices=SIZES, default="sim")
    parser.add_argument("--file", default="", help="board file of pi; else it is chosen by the model")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--guest", action="store_true", help="inside the guest, on kernel devices")
    parser.add_argument("--publish", action="store_true", help="with --guest: put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    board, file, quick = arguments.board, arguments.file, arguments.quick
    if arguments.guest:
        return in_the_guest(quick=quick, published=arguments.publish)
    with devices(board, file) as used:
        loop = Figure("sound loop: click to click, on the board alone", "ms",
                      sound_loop(board, used, 5 if quick else 50))
        figures = [loop, *asyncio.run(measure(board, used, quick=quick))]
    text = shown(figures, where(board, file))
    print(text)
    if arguments.json:
        write(arguments.json, figures, {"table": text, "stages": dict(STAGES), "load": os.getloadavg()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
