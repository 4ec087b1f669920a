"""The bench's side of ``page_probe.js``: installs it, maps a page's clock to ours, and takes what it kept."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from playwright.async_api import Page

from tests.bench.marks import Sound
from tests.support.browser import Chromium

__all__ = ["Probe"]

SCRIPT: Final = Path(__file__).with_name("page_probe.js").read_text()
ROUNDS: Final = 15


class Probe:
    """One page with the probe in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._offset = 0.0

    @staticmethod
    async def install(browser: Chromium) -> None:
        """Into every page that is opened from now on."""
        await browser.context.add_init_script(SCRIPT)

    async def sync(self) -> float:
        """Find what to add to the page's clock to have ours; returns the bound of its error in seconds.

        Of several questions the one answered fastest counts: the page read its clock somewhere within that time.
        """
        best = float("inf")
        for _ in range(ROUNDS):
            begun = time.monotonic()
            there = await self.page.evaluate("() => performance.now()") / 1000
            ended = time.monotonic()
            if ended - begun < best:
                best = ended - begun
                self._offset = (begun + ended) / 2 - there
        return best / 2

    def ours(self, page_ms: float) -> float:
        """A time of the page on CLOCK_MONOTONIC, in seconds."""
        return page_ms / 1000 + self._offset

    async def forget(self) -> None:
        await self.page.evaluate("() => { bench.marks = {}; }")

    async def marks(self) -> dict[str, float]:
        """On CLOCK_MONOTONIC."""
        told = await self.page.evaluate("() => bench.marks")
        return {name: self.ours(at) for name, at in told.items()}

    async def record(self, *names: str) -> None:
        await self.page.evaluate("(names) => bench.record(names)", list(names))

    async def take(self) -> dict[str, Any]:
        """Sounds as ``Sound``, pictures as they were kept with ``at`` on CLOCK_MONOTONIC."""
        found: dict[str, Any] = {}
        for name, one in (await self.page.evaluate("() => bench.take()")).items():
            if "pcm" in one:
                samples = np.frombuffer(base64.b64decode(one["pcm"]), "<i2").astype(np.float32) / 32768
                # What a track of a microphone delivers has sounded before, what a player takes sounds from now on.
                late = 1 if name.startswith("own") else 0
                starts = [self.ours(at) - late * count / one["rate"]
                          for at, count in zip(one["at"], one["count"], strict=True)]
                found[name] = Sound(samples, starts, one["count"], one["rate"])
            else:
                frames = [(self.ours(now), stamp / 1e6, counter, clock) for now, stamp, counter, clock in one["frames"]]
                found[name] = {**one, "frames": frames, "times": [self.ours(at) for at in one["times"]]}
        return found

    async def transport(self) -> dict[str, Any]:
        """Facts of the page's last peer connection that make the calls comparable."""
        return dict(await self.page.evaluate("""async () => {
          const rows = [...(await bench.pcs.at(-1).getStats()).values()], found = {};
          const codec = (id) => rows.find((row) => row.id === id)?.mimeType;
          for (const row of rows) {
            if (row.type === "outbound-rtp" && row.kind === "video")
              found.out = {codec: codec(row.codecId), width: row.frameWidth, height: row.frameHeight,
                fps: row.framesPerSecond, target: row.targetBitrate, encoder: row.encoderImplementation,
                limit: row.qualityLimitationReason};
            if (row.type === "inbound-rtp" && row.kind === "video")
              found.in = {codec: codec(row.codecId), width: row.frameWidth, height: row.frameHeight,
                fps: row.framesPerSecond, decoder: row.decoderImplementation, lost: row.packetsLost,
                jitterBufferMs: row.jitterBufferDelay / row.jitterBufferEmittedCount * 1000,
                freezes: row.freezeCount};
            if (row.type === "inbound-rtp" && row.kind === "audio")
              found.sound = {jitterBufferMs: row.jitterBufferDelay / row.jitterBufferEmittedCount * 1000,
                concealed: row.concealedSamples / Math.max(1, row.totalSamplesReceived)};
            if (row.type === "candidate-pair" && row.nominated)
              found.roundTripMs = row.currentRoundTripTime * 1000;
          }
          return found;
        }"""))
