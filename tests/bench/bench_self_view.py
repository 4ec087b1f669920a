"""What a look at the camera itself costs: by its small raw pictures, beside the ways that there are without them.

    python -m tests.bench.bench_self_view [--board sim] [--quick] [--json FILE]

In turn, on one open camera (1280x720 at 30 a second), each way for a window a round:

* *view of oneself*: the self-view on a screen that draws nothing, by what is sent, decoded again (as of a camera that
  makes H.264 itself), by raw pictures as small as an inset, and as large as for a look at oneself alone;
* *stream*: JPEG five times a second, as ``GET /v1/camera/preview`` has it, by snapshots and by raw pictures.

Processor time of this process and of the camera's, without what both take in the same round while nobody looks; the
encoder is in neither. Prints both sides of each and their ratio; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from appliance.media.camera import CameraFeed
from appliance.media.layout import SELF, Seat
from appliance.media.looks import LARGE, SMALL, Glimpses
from appliance.media.screen import Screen
from appliance.media.self_view import SelfView
from appliance.media.stills import scaled
from hw.api import Board, BoardOptions, Camera, EncoderKind, Fit, Picture, Tile, VideoMode
from hw.boards import open_board
from tests.bench.figures import Figure, table, write
from tests.bench.process import cpu_of_threads

MODE: Final = VideoMode(1280, 720, 30, 1_500_000)
WINDOW_S: Final = 6.0
SETTLE_S: Final = 2.0
PERIOD_S: Final = 0.2
ROUNDS: Final = 5
READY_S: Final = 30.0

OFF, DECODED = "nobody", "view of oneself, decoded"
INSET, ALONE = "view of oneself, raw, 320", "view of oneself, raw, 640"
STILLS, STREAM = "stream of snapshots", "stream of raw pictures, 640"
PAIRS: Final = ((INSET, DECODED), (ALONE, DECODED), (STREAM, STILLS))


class Coded:
    """The camera without its raw pictures."""

    encoder = EncoderKind.CAMERA

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self.start, self.stop, self.snapshot = camera.start, camera.stop, camera.snapshot
        self.request_keyframe, self.set_bitrate = camera.request_keyframe, camera.set_bitrate
        self.set_mode = camera.set_mode

    @property
    def mode(self) -> VideoMode | None:
        return self._camera.mode

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None: ...


class Unseen:
    """A screen that counts what it is given."""

    size = (1280, 720)
    drawn_s = 0.0

    def __init__(self) -> None:
        self.shown = 0

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        self.shown += any(tile.picture is not None for tile in tiles)

    def blank(self) -> None: ...
    def set_brightness(self, percent: int) -> None: ...

    def screenshot(self) -> bytes:
        return b""


class Ends:
    """What all ways share: one camera that stays open, and the pictures that came of it."""

    def __init__(self, board: Board, executor: ThreadPoolExecutor) -> None:
        assert board.camera is not None
        self.camera: Camera = board.camera
        self.loop = asyncio.get_running_loop()
        self.executor = executor
        self.screen = Unseen()
        self.jpegs = 0

    def feed(self, camera: Camera) -> CameraFeed:
        return CameraFeed(camera, MODE, self.loop, self.executor)

    def cpu_s(self) -> tuple[float, float]:
        pid = getattr(self.camera, "pid", None)
        return time.process_time(), 0.0 if pid is None else sum(cpu_of_threads(pid))

    @asynccontextmanager
    async def open(self, camera: Camera) -> AsyncIterator[CameraFeed]:
        feed = self.feed(camera)
        feed.start()
        feed.hold(self, True)
        await feed.settled()
        try:
            yield feed
        finally:
            await feed.close()

    @asynccontextmanager
    async def nobody(self) -> AsyncIterator[None]:
        async with self.open(self.camera):
            yield

    @asynccontextmanager
    async def oneself(self, camera: Camera, width: int) -> AsyncIterator[None]:
        async with self.open(camera) as feed:
            screen = Screen(self.screen)
            screen.arrange([Seat(SELF)], [], Fit.FIT)
            view = SelfView(feed, screen, self.loop)
            view.show(width)
            try:
                yield
            finally:
                await view.close()

    @asynccontextmanager
    async def stream(self, *, raw: bool) -> AsyncIterator[None]:
        async with self.open(self.camera) as feed:
            glimpses = Glimpses(feed.looks, self.loop, self.executor)

            async def still() -> bytes:
                jpeg = await self.loop.run_in_executor(self.executor, self.camera.snapshot)
                return await self.loop.run_in_executor(self.executor, scaled, jpeg, LARGE)

            taking = asyncio.create_task(self._take(glimpses.take if raw else still))
            try:
                yield
            finally:
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
                glimpses.close()

    async def _take(self, take: Callable[[], Awaitable[bytes | None]]) -> None:
        while True:
            due = self.loop.time() + PERIOD_S
            self.jpegs += await take() is not None
            await asyncio.sleep(max(0.0, due - self.loop.time()))

    def ways(self) -> dict[str, Callable[[], AbstractAsyncContextManager[None]]]:
        return {
            OFF: self.nobody, DECODED: lambda: self.oneself(Coded(self.camera), SMALL),
            INSET: lambda: self.oneself(self.camera, SMALL), ALONE: lambda: self.oneself(self.camera, LARGE),
            STILLS: lambda: self.stream(raw=False), STREAM: lambda: self.stream(raw=True),
        }


async def measured(board: Board, rounds: int, window_s: float) -> list[Figure]:
    with ThreadPoolExecutor(2) as executor:
        ends = Ends(board, executor)
        await ends.loop.run_in_executor(executor, ends.camera.snapshot, READY_S)
        ways = ends.ways()
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                async with way():
                    await asyncio.sleep(SETTLE_S)
                    before, seen, begun = ends.cpu_s(), ends.screen.shown + ends.jpegs, time.monotonic()
                    await asyncio.sleep(window_s)
                    after, elapsed = ends.cpu_s(), time.monotonic() - begun
                    costs[name].append(((after[0] - before[0]) / elapsed * 100, (after[1] - before[1]) / elapsed * 100))
                    rates[name].append((ends.screen.shown + ends.jpegs - seen) / elapsed)
    found = []
    for name in ways:
        if name == OFF:
            continue
        spent = [(own - idle[0], camera - idle[1])
                 for (own, camera), idle in zip(costs[name], costs[OFF], strict=True)]
        found += [Figure(f"{name}: all", "% of a core", tuple(own + camera for own, camera in spent)),
                  Figure(f"{name}: of it the camera's process", "% of a core", tuple(camera for _, camera in spent)),
                  Figure(f"{name}: pictures", "1/s", tuple(rates[name]))]
    return found


def ratios(figures: Sequence[Figure]) -> list[str]:
    medians = {one.name: one.median for one in figures}
    return [f"{now}: {medians[f'{now}: all'] / max(0.01, medians[f'{before}: all']):.2f} of {before}"
            for now, before in PAIRS]


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--board", default="sim")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    board = open_board(arguments.board, BoardOptions())
    try:
        figures = await measured(board, 1 if arguments.quick else ROUNDS, 3.0 if arguments.quick else WINDOW_S)
    finally:
        board.close()
    print(table(figures))
    print("\n".join(ratios(figures)))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {"ratios": ratios(figures)})


if __name__ == "__main__":
    asyncio.run(main())
