"""Time and memory of a session between two studios in one process, over loopback.

    python -m tests.bench.bench_media_loop [--quick] [--json FILE]

* up: from the call of ``offer`` to SessionUp of both ends (signalling costs nothing here);
* mouth to ear: from the block that holds a click being handed to the exchange of one board to the exchange of the
  other returning it. What the boards add is not in it: 10 ms of capture and what the sound card buffers;
* exchange: CPU time of one exchange on the audio thread, in and out of a call;
* memory: PSS of the process with all of media imported, open without a session, and in a call (both ends).

Prints medians and the spread; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from appliance.media.api import Directions, IceServers
from appliance.media.studio import Studio
from appliance.media.webrtc import WebRtcSession
from appliance.settings import VideoSettings
from hw.api import AudioBlock
from tests.bench.figures import Figure, table, write
from tests.support.media_board import BLOCK, HandAudio, HandBoard
from tests.support.media_pair import connect, until

CLICK = b"\x00\x60" * 48 + bytes((BLOCK - 48) * 2)
SILENCE = bytes(BLOCK * 2)


class ClickAudio(HandAudio):
    """Silence, and a click when asked; notes when a click leaves and when one is played."""

    def __init__(self) -> None:
        super().__init__()
        self.clicking = threading.Event()
        self.clicked_at = 0.0
        self.heard_at = 0.0
        self.costs: list[float] = []

    def _run(self, exchange: Callable[[AudioBlock], bytes]) -> None:
        due, played = time.monotonic(), SILENCE
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 0.01
            click = self.clicking.is_set()
            if click:
                self.clicking.clear()
                self.clicked_at = time.monotonic()
            begun = time.thread_time()
            played = exchange(AudioBlock(CLICK if click else SILENCE, played))
            self.costs.append(time.thread_time() - begun)
            if not self.heard_at and max(memoryview(played).cast("h")) > 4000:
                self.heard_at = time.monotonic()


def board() -> HandBoard:
    made = HandBoard()
    made.audio = ClickAudio()
    return made


def pss() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


async def clicks(mouth: ClickAudio, ear: ClickAudio, count: int) -> list[float]:
    delays = []
    for _ in range(count):
        ear.heard_at = 0.0
        mouth.clicking.set()
        await until(lambda: ear.heard_at > 0, 2, "click")
        delays.append(ear.heard_at - mouth.clicked_at)
        await asyncio.sleep(0.2)
    return delays


async def set_up(studios: list[Studio]) -> tuple[float, list[WebRtcSession]]:
    sessions = [studio.session(Directions(), ice=IceServers(), loopback=True) for studio in studios]
    begun = time.monotonic()
    await connect(*sessions)
    await until(lambda: all(session.up for session in sessions))
    return time.monotonic() - begun, sessions


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    count, presses = (3, 10) if arguments.quick else (15, 50)
    sys.setswitchinterval(0.001)
    memory = {"imported": round(pss(), 1)}
    boards = [board(), board()]
    studios = [Studio(one, VideoSettings()) for one in boards]
    for studio in studios:
        await studio.open()
    memory["open"] = round(pss(), 1)
    audio = [one.audio for one in boards]
    await asyncio.sleep(1)
    idle = [cost for one in audio for cost in one.costs]
    ups = []
    for _ in range(count):
        seconds, sessions = await set_up(studios)
        ups.append(seconds)
        for session in sessions:
            await session.close()
    _, sessions = await set_up(studios)
    await asyncio.sleep(1)
    for one in audio:
        one.costs.clear()
    delays = await clicks(audio[0], audio[1], presses)
    memory["inCallBothEnds"] = round(pss(), 1)
    in_call = [cost for one in audio for cost in one.costs]
    for studio in studios:
        await studio.close()
    figures = [
        Figure("session up, both ends in one process", "ms", tuple(value * 1000 for value in ups)),
        Figure("mouth to ear, both ends in one process", "ms", tuple(value * 1000 for value in delays)),
        Figure("audio exchange idle, CPU of 10 ms", "us", tuple(value * 1e6 for value in idle)),
        Figure("audio exchange in a call, CPU of 10 ms", "us", tuple(value * 1e6 for value in in_call)),
    ]
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {"pssMiB": memory})


if __name__ == "__main__":
    asyncio.run(main())
