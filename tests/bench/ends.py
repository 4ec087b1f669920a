"""The ends of a call in the media bench, all with the same hands: a process of ours or stock's, or a browser's page."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import psutil
from aiohttp import web

from appliance.media.sdp import START_KBPS
from tests.bench.pictures import Row
from tests.bench.probe import Probe
from tests.bench.scene import FPS, LOOP_FRAMES, camera_file
from tests.bench.speech import resampled
from tests.support.browser import Chromium, chromium

__all__ = ["Browsers", "End", "Taken", "Voice", "Wish", "browsers", "page_end", "python_end"]

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = Path(__file__).with_name("page_pair.html").read_text()
PROBE: Final = Path(__file__).with_name("page_probe.js").read_text()
ANSWER_S: Final = 60.0
RATE: Final = 48_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an end does. ``camera``: the test picture, encoded as it comes, or a clip that was encoded before (a page
    encodes always). ``watched``: a page carries the probe, which costs."""

    sends: bool = True
    receives: bool = True
    camera: str = "pattern"
    width: int = 1280
    height: int = 720
    watched: bool = True


@dataclass(frozen=True, slots=True)
class Voice:
    """Samples at 48 kHz, -1 to 1, and the monotonic time of the first."""

    begin: float
    samples: np.ndarray


@dataclass(frozen=True, slots=True)
class Taken:
    """What an end has seen and heard while recording. ``captured``: when each counter of its own camera was, for a
    camera whose pictures do not carry the true clock."""

    pictures: list[Row]  # those whose mark could be read
    times: list[float]  # of all pictures
    heard: Voice | None
    played: Voice | None
    captured: dict[int, list[float]]
    painting: float = 0.0  # seconds between the clock in a picture and its encoder, which no camera takes


class End(Protocol):
    async def offer(self) -> str: ...

    async def answer(self, sdp: str) -> str: ...

    async def accept(self, sdp: str) -> None: ...

    async def up(self) -> None: ...

    async def record(self, *, pictures: bool, sound: bool) -> None: ...

    async def take(self) -> Taken: ...

    async def numbers(self) -> dict[str, float]:
        """Totals so far: members of webrtc-stats, and ``cpu`` in seconds of processor time."""


# --- a process ------------------------------------------------------------------------------------------------------


class _Python:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def offer(self) -> str:
        return str(await self._ask(do="offer"))

    async def answer(self, sdp: str) -> str:
        return str(await self._ask(do="answer", sdp=sdp))

    async def accept(self, sdp: str) -> None:
        await self._ask(do="accept", sdp=sdp)

    async def up(self) -> None:
        await self._ask(do="up")

    async def record(self, *, pictures: bool, sound: bool) -> None:
        await self._ask(do="record", pictures=pictures, sound=sound)

    async def take(self) -> Taken:
        told = await self._ask(do="take")
        voices = [Voice(one["begin"], np.frombuffer(base64.b64decode(one["pcm"]), "<i2").astype(np.float32) / 32768)
                  for one in (told["heard"], told["played"])]
        rows = [(at, counter, clock) for at, counter, clock in told["pictures"]]
        return Taken(rows, told["times"], *(voice if len(voice.samples) else None for voice in voices), {},
                     told["painting"])

    async def numbers(self) -> dict[str, float]:
        return dict(await self._ask(do="numbers"))

    async def _ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_S)
        if not line:
            raise RuntimeError(f"the end has gone at {command['do']}; its words are above")
        return json.loads(line)

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def python_end(engine: str, wish: Wish, speech: Path) -> AsyncIterator[End]:
    """``engine``: ours or stock."""
    words = ["--camera", wish.camera, "--size", f"{wish.width}x{wish.height}"]
    words += ["--sends", "--speech", str(speech)] if wish.sends else []
    words += ["--receives"] if wish.receives else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.media_end", engine, *words, cwd=ROOT, limit=1 << 27,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    end = _Python(process)
    try:
        yield end
    finally:
        await end.close()


# --- a page ---------------------------------------------------------------------------------------------------------


class _Page:
    def __init__(self, browser: Chromium, probe: Probe, wish: Wish) -> None:
        self._browser = browser
        self._probe = probe
        self._page = probe.page
        self._wish = wish
        self._options = {
            "send": wish.sends, "receive": wish.receives, "processing": wish.sends and wish.receives,
            "shown": wish.watched, "width": wish.width, "height": wish.height, "steady": False,
        }

    async def offer(self) -> str:
        return str(await self._page.evaluate("(wish) => meeting.offer(wish)", self._options))

    async def answer(self, sdp: str) -> str:
        return str(await self._page.evaluate("([sdp, wish]) => meeting.answer(sdp, wish)", [sdp, self._options]))

    async def accept(self, sdp: str) -> None:
        await self._page.evaluate("(sdp) => meeting.take(sdp)", sdp)

    async def up(self) -> None:
        async with asyncio.timeout(ANSWER_S):
            await self._page.evaluate("() => meeting.up()")

    async def record(self, *, pictures: bool, sound: bool) -> None:
        await self._probe.sync()
        kinds = [kind for kind, wanted in (("video", pictures), ("audio", sound)) if wanted]
        sides = [side for side, does in (("own", self._wish.sends), ("far", self._wish.receives)) if does]
        await self._probe.record(*(f"{side}.{kind}" for side in sides for kind in kinds))

    async def take(self) -> Taken:
        kept = await self._probe.take()
        far = kept.get("far.video", {"frames": [], "times": []})
        voices = []
        for name in ("own.audio", "far.audio"):
            sound = kept.get(name)
            voices.append(Voice(float(np.median(_begins(sound))), resampled(sound.samples, sound.rate, RATE))
                          if sound is not None else None)
        captured: dict[int, list[float]] = {}
        for _, stamp, counter, _ in kept.get("own.video", {"frames": []})["frames"]:
            captured.setdefault(int(counter), []).append(stamp)
        rows = [(at, int(counter), int(clock)) for at, _, counter, clock in far["frames"]]
        return Taken(rows, far["times"], voices[0], voices[1], captured)

    async def close(self) -> None:
        await self._page.close()

    async def numbers(self) -> dict[str, float]:
        told = dict(await self._page.evaluate("() => meeting.numbers()"))
        return told | {"cpu": await asyncio.to_thread(tree_cpu_s, self._browser.pid)}


def _begins(sound: Any) -> np.ndarray:
    """When the first sample was, by each block: the blocks are even, the script that notes them is not."""
    places = np.concatenate(([0], np.cumsum(sound.counts)[:-1]))
    return np.asarray(sound.starts) - places / sound.rate


def tree_cpu_s(pid: int) -> float:
    """Processor time of a process and all below it."""
    top = psutil.Process(pid)
    total = 0.0
    for process in (top, *top.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class Browsers:
    """Two browsers, one for each end, so that the processor time of each is its own."""

    def __init__(self, browsers: list[Chromium], address: str) -> None:
        self._browsers = browsers
        self._address = address

    async def open(self, side: int, wish: Wish) -> _Page:
        query = "?probe" if wish.watched else ""
        page = await self._browsers[side].open(f"{self._address}{query}")
        await page.evaluate("(kbps) => meeting.startAt(kbps)", START_KBPS)
        return _Page(self._browsers[side], Probe(page), wish)


@asynccontextmanager
async def browsers(folder: Path, speech: Path) -> AsyncIterator[Browsers]:
    async def page(request: web.Request) -> web.Response:
        probe = '<script src="/probe.js"></script>' if "probe" in request.query else ""
        return web.Response(text=probe + PAGE, content_type="text/html")

    async def script(_: web.Request) -> web.Response:
        return web.Response(text=PROBE, content_type="text/javascript")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/probe.js", script)
    runner = web.AppRunner(app, access_log=None)
    picture = await asyncio.to_thread(camera_file, folder / "camera.y4m")
    flags = (f"--use-file-for-fake-audio-capture={speech}", f"--use-file-for-fake-video-capture={picture}")
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        two = [await stack.enter_async_context(chromium(camera=False, flags=flags)) for _ in range(2)]
        yield Browsers(two, f"http://127.0.0.1:{runner.addresses[0][1]}/")


@asynccontextmanager
async def page_end(both: Browsers, side: int, wish: Wish) -> AsyncIterator[End]:
    page = await both.open(side, wish)
    try:
        yield page
    finally:
        await page.close()


CAMERA_LOOP_S: Final = LOOP_FRAMES / FPS
