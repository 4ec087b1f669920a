"""A real browser as the other end of a call: headless Chromium with devices of known content, and eyes and ears on it.

Camera and microphone are files: a tone of one frequency, and the test picture whose frame counter a machine can read
(``hw/sim/pattern.py``). What the page receives is measured in the page: the frequency by a Fourier transform, the
counter from the pixels of the decoded picture, decoded frames from ``getStats``.

Chromium is a child of ours, not of the driver's, so that a test can kill it as a crash would (``kill``). Everything
lives in one temporary folder and one process group; both are gone after ``close``.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import re
import shutil
import signal
import tempfile
import wave
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, Page, Playwright, async_playwright

from hw.sim import pattern

__all__ = ["EARS", "Chromium", "Heard", "Seen", "chromium", "tone_wav", "wait_for"]

RATE: Final = 48_000
WIDTH: Final = 320
HEIGHT: Final = 192
FPS: Final = 30
START_S: Final = 30.0
FLAGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--remote-debugging-port=0",
    # A background tab's timers run once a second otherwise, and several tabs stand for several people here.
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)

EARS: Final = """
(find, size) => {
  const context = window.edgecallEars ??= new AudioContext({sampleRate: 48000});
  const analyser = context.createAnalyser();
  analyser.fftSize = size;
  analyser.smoothingTimeConstant = 0;
  let track = null, source = null;  // which the browser throws away while its context starts, if nothing refers to it
  return () => {
    const now = find()?.getAudioTracks()[0] ?? null;
    if (now && now !== track) {
      source?.disconnect();
      track = now;
      source = context.createMediaStreamSource(new MediaStream([now]));
      source.connect(analyser);
    }
    return analyser;
  };
}
"""
"""Ears on the sound of the stream that ``find`` finds, also where another one takes its place: gives an analyser."""

_HEAR: Final = """
(ears) => () => {
  const analyser = ears();
  const samples = new Float32Array(4800), bins = new Float32Array(analyser.frequencyBinCount);
  const all = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(all);
  samples.set(all.subarray(all.length - 4800));
  analyser.getFloatFrequencyData(bins);
  let best = 1;
  for (let n = 1; n < bins.length; n++) if (bins[n] > bins[best]) best = n;
  const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
  return {hertz: best * 48000 / analyser.fftSize, dbfs: 10 * Math.log10(power + 1e-12)};
}
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """The strongest frequency of the last third of a second, and the level of the last 100 ms (dB of full scale)."""

    hertz: float
    dbfs: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture as it is shown: its size, and the band of the test picture where it has one."""

    width: int
    height: int
    mark: pattern.Mark | None


def tone_wav(path: Path, hertz: float, seconds: float = 2.0) -> Path:
    """A mono WAV of a sine at -12 dB; ``seconds`` times ``hertz`` should be whole, because it is played in a loop."""
    samples = array("h", (int(8000 * math.sin(2 * math.pi * hertz * n / RATE)) for n in range(int(RATE * seconds))))
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.tobytes())
    return path


def pattern_y4m(path: Path, frames: int = 90) -> Path:
    """The test picture as YUV4MPEG2, for Chromium's file camera; it is played in a loop."""
    painter = pattern.PatternPainter(WIDTH, HEIGHT)
    with path.open("wb") as out:
        out.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(frames):
            out.write(b"FRAME\n" + b"".join(painter.paint(number, number * 1_000_000 // FPS)))
    return path


async def wait_for(page: Page, condition: str, within_s: float = 10.0, arg: Any = None) -> None:
    """Wait until a JavaScript expression of a page is true."""
    await page.wait_for_function(condition, arg=arg, timeout=within_s * 1000, polling=20)


class Chromium:
    """One browser; made by ``chromium()``."""

    def __init__(self, process: asyncio.subprocess.Process, browser: Browser, folder: Path) -> None:
        self._process = process
        self._browser = browser
        self._folder = folder
        self.console: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def context(self) -> BrowserContext:
        return self._browser.contexts[0]

    async def open(self, url: str) -> Page:
        """A new tab, its console kept in ``console``."""
        page = await self.context.new_page()
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        await page.goto(url)
        return page

    async def kill(self) -> None:
        """As the kernel's out-of-memory killer would: no word to anybody."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def freeze(self) -> None:
        """Nothing of it runs, its sockets stay open: a lid that is shut, a machine that swaps."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    async def close(self) -> None:
        with suppress(Exception):  # the driver's connection may be gone with a killed browser; what counts follows
            await self._browser.close()
        await self.kill()
        await asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, self._folder, True)

    # --- what the page receives -------------------------------------------------------------------------------------

    @staticmethod
    async def listen(page: Page, stream: str = "window.remoteStream") -> None:
        """Begin to listen to a stream of the page; ``heard`` measures from then on."""
        await page.evaluate(f"() => {{ window.edgecallHear = ({_HEAR})(({EARS})(() => {stream}, 16384));"
                            "window.edgecallHear(); }")

    @staticmethod
    async def heard(page: Page) -> Heard:
        return Heard(**await page.evaluate("() => window.edgecallHear()"))

    @classmethod
    async def hears(cls, page: Page, hertz: float, within_s: float = 10.0) -> Heard:
        """Wait until the strongest frequency is this one (within 6 Hz) at -40 dB or more."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            heard = await cls.heard(page)
            if abs(heard.hertz - hertz) < 6 and heard.dbfs > -40:
                return heard
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"{hertz} Hz not heard within {within_s} s; the last was {heard}")
            await asyncio.sleep(0.05)

    @classmethod
    async def hears_silence(cls, page: Page, within_s: float = 10.0, dbfs: float = -70.0) -> Heard:
        deadline = asyncio.get_running_loop().time() + within_s
        while (heard := await cls.heard(page)).dbfs > dbfs:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not silent within {within_s} s: {heard}")
            await asyncio.sleep(0.05)
        return heard

    @staticmethod
    async def sees(page: Page, selector: str = "video#remote") -> Seen:
        """The picture a video element shows now."""
        got = await page.evaluate(
            """(selector) => {
              const video = document.querySelector(selector), canvas = document.createElement("canvas");
              const width = canvas.width = video.videoWidth, height = canvas.height = video.videoHeight;
              if (!width) return {width: 0, height: 0, luma: ""};
              const context = canvas.getContext("2d");
              context.drawImage(video, 0, 0);
              const rgba = context.getImageData(0, 0, width, height).data, parts = [];
              for (let n = 0; n < rgba.length; n += 4)
                parts.push(String.fromCharCode(Math.round(.299*rgba[n] + .587*rgba[n+1] + .114*rgba[n+2])));
              return {width, height, luma: btoa(parts.join(""))};
            }""",
            selector,
        )
        width, height = got["width"], got["height"]
        mark = pattern.read(base64.b64decode(got["luma"]), width, height) if width else None
        return Seen(width, height, mark)

    @staticmethod
    async def sees_moving(page: Page, selector: str = "video#remote", within_s: float = 10.0) -> list[int]:
        """The counters of four pictures it shows one after the other, from now on (of the device's test pattern)."""
        loop, seen = asyncio.get_running_loop(), list[int]()
        deadline = loop.time() + within_s
        while len(seen) < 4:
            mark = (await Chromium.sees(page, selector)).mark
            if mark is not None and mark.counter not in seen:
                seen.append(mark.counter)
            if loop.time() > deadline:
                raise AssertionError(f"no moving picture in {selector} within {within_s} s: {seen}")
        return seen

    @staticmethod
    async def frames_decoded(page: Page, peer: str = "window.peer") -> int:
        """Decoded pictures of the call's peer connection (W3C ``framesDecoded``)."""
        return int(
            await page.evaluate(
                f"""async () => {{
                  const stats = await {peer}.stats();
                  let frames = 0;
                  for (const row of stats?.values() ?? [])
                    if (row.type === "inbound-rtp" && row.kind === "video") frames += row.framesDecoded ?? 0;
                  return frames;
                }}"""
            )
        )


@asynccontextmanager
async def chromium(
    hertz: float = 880.0, *, camera: bool = True, flags: tuple[str, ...] = ()
) -> AsyncIterator[Chromium]:
    """A browser whose microphone hears ``hertz`` and whose camera sees the test picture."""
    loop = asyncio.get_running_loop()
    folder = Path(await loop.run_in_executor(None, tempfile.mkdtemp, None, "edgecall-browser-"))
    program = shutil.which("chromium") or "/usr/bin/chromium"
    sources = [f"--use-file-for-fake-audio-capture={await loop.run_in_executor(None, _tone, folder, hertz)}"]
    if camera:
        picture = await loop.run_in_executor(None, pattern_y4m, folder / "camera.y4m")
        sources.append(f"--use-file-for-fake-video-capture={picture}")
    process = await asyncio.create_subprocess_exec(
        program, *FLAGS, *sources, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        start_new_session=True, env={**os.environ, "HOME": str(folder)})
    driver: Playwright | None = None
    try:
        address, drain = await _devtools(process)
        driver = await async_playwright().start()
        browser = Chromium(process, await driver.chromium.connect_over_cdp(address), folder)
        try:
            yield browser
        finally:
            await browser.close()
            await drain
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if driver is not None:
            await driver.stop()
        await loop.run_in_executor(None, shutil.rmtree, folder, True)


def _tone(folder: Path, hertz: float) -> Path:
    return tone_wav(folder / "microphone.wav", hertz)


async def _devtools(process: asyncio.subprocess.Process) -> tuple[str, asyncio.Task[None]]:
    """The address Chromium prints when it is ready, and the task that reads on (a full pipe would stop it)."""
    errors = process.stderr
    assert errors is not None
    said: list[str] = []
    async with asyncio.timeout(START_S):
        async for line in errors:
            said.append(line.decode(errors="replace"))
            found = re.search(r"DevTools listening on (ws://\S+)", said[-1])
            if found:
                return found[1], asyncio.create_task(_drain(errors), name="browser.stderr")
    raise AssertionError(f"Chromium did not start: {''.join(said[-20:])}")


async def _drain(errors: asyncio.StreamReader) -> None:
    while await errors.read(65536):
        pass
