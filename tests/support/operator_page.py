"""An operator at the real /operator page: clicks what a person clicks, measures what a person would see and hear."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from playwright.async_api import Page

from tests.support.appliance import Appliance
from tests.support.browser import EARS, Chromium, Heard, Seen

__all__ = ["STREAM", "Operator"]

STREAM: Final = "document.querySelector('#remote').srcObject"

# A loop inside one evaluation: the page's policy forbids eval, which the driver's own waiting would need.
_WAIT: Final = """async (ms) => {{
  const until = performance.now() + ms;
  while (performance.now() < until) {{
    const found = (() => {{ {body} }})();
    if (found) return found;
    await new Promise((go) => setTimeout(go, 5));
  }}
  return null;
}}"""

_RECORD: Final = """(ears) => {
  const samples = new Float32Array(512);
  window.edgecallLoud = {loud: 0, silent: 0, first: 0};
  setInterval(() => {
    ears().getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
    const now = performance.timeOrigin + performance.now();
    if (power > 1e-5) {
      if (window.edgecallLoud.loud < window.edgecallLoud.silent) window.edgecallLoud.first = now;
      window.edgecallLoud.loud = now;
    } else window.edgecallLoud.silent = now;
  }, 5);
}"""


class Operator:
    """One tab. ``Operator.arrive`` opens the page; ``duty`` clicks *Go on duty*."""

    def __init__(self, browser: Chromium, page: Page) -> None:
        self.browser = browser
        self.page = page

    @classmethod
    async def arrive(cls, browser: Chromium, door: Appliance) -> Operator:
        """A browser without a session takes a fresh address; further tabs of it have the cookie already."""
        page = await browser.open(await door.fresh_address())
        operator = cls(browser, page)
        await operator.until("return !document.querySelector('#duty-on').disabled || "
                             "!document.querySelector('#view-idle').hidden", "the page is connected")
        return operator

    @classmethod
    async def on_duty(cls, browser: Chromium, door: Appliance, count: int = 1) -> Operator:
        operator = await cls.arrive(browser, door)
        await operator.duty()
        await door.on_duty()
        return operator

    async def duty(self) -> None:
        """Until the page could call: it shows that it is on duty before its connection is open."""
        await self.click("duty-on")
        await self.until("return !document.querySelector('#view-idle').hidden && "
                         "!document.querySelector('#call-device').disabled", "on duty, and connected")

    async def click(self, name: str) -> None:
        """A click on the element of this id, as a script's: several tabs cannot all be in front."""
        await self.page.evaluate("(id) => document.getElementById(id).click()", name)

    async def until(self, body: str, what: str, within_s: float = 10.0) -> Any:
        """Wait until the body of a JavaScript function returns something true; what it returned."""
        found = await self.page.evaluate(_WAIT.format(body=body), within_s * 1000)
        assert found, f"not within {within_s} s: {what}; shown: {await self.shown()}; console {self.browser.console}"
        return found

    async def shown(self) -> str:
        return str(await self.page.evaluate("() => document.querySelector('#main').innerText.slice(0, 400)"))

    async def view(self, name: str, within_s: float = 10.0) -> None:
        await self.until(f"return !document.querySelector('#view-{name}').hidden", f"view {name}", within_s)

    async def rings(self, within_s: float = 10.0) -> None:
        await self.view("incoming", within_s)

    async def visitor(self, within_s: float = 5.0) -> tuple[int, int]:
        """Size of the visitor's picture, once it is shown while it rings."""
        size = await self.until(
            "const image = document.querySelector('#visitor');"
            "return !image.hidden && image.naturalWidth ? [image.naturalWidth, image.naturalHeight] : null",
            "the visitor's picture", within_s)
        return int(size[0]), int(size[1])

    async def answer(self) -> None:
        await self.click("answer")
        await self.view("call")

    async def connected(self, within_s: float = 10.0) -> None:
        """The call is up: its controls can be used and the other side's picture moves."""
        await self.until("return !document.querySelector('#view-call').hidden && "
                         "!document.querySelector('#mute').disabled && document.querySelector('#veil').hidden",
                         "connected", within_s)

    async def picture(self, within_s: float = 10.0) -> None:
        await self.until("const video = document.querySelector('#remote');"
                         "return !video.hidden && video.videoWidth > 0 && video.getVideoPlaybackQuality()"
                         ".totalVideoFrames > 0", "a picture", within_s)

    async def frames(self) -> int:
        """Pictures decoded and presented so far."""
        return int(await self.page.evaluate(
            "() => document.querySelector('#remote').getVideoPlaybackQuality().totalVideoFrames"))

    async def sees(self) -> Seen:
        """The picture shown now; a few tries, since one scaled down by the sender may be unreadable for a moment."""
        for _ in range(20):
            seen = await Chromium.sees(self.page)
            if seen.mark is not None:
                return seen
            await asyncio.sleep(0.05)
        raise AssertionError(f"no test picture is shown, but {seen}")

    async def rising(self, within_s: float = 10.0) -> None:
        """The test picture moves on, by its counter: a picture is counted as decoded before it is shown."""
        first = last = (await self.sees()).mark
        deadline = time.monotonic() + within_s
        while last is None or first is None or last.counter <= first.counter:
            assert time.monotonic() < deadline, (first, last)
            await asyncio.sleep(0.1)
            last = (await self.sees()).mark

    async def listen(self) -> None:
        await Chromium.listen(self.page, STREAM)
        await self.page.evaluate(f"() => ({_RECORD})(({EARS})(() => {STREAM}, 512))")

    async def hears(self, hertz: float, within_s: float = 10.0) -> Heard:
        return await Chromium.hears(self.page, hertz, within_s)

    async def silent(self, within_s: float = 5.0) -> Heard:
        return await Chromium.hears_silence(self.page, within_s)

    async def last_loud(self) -> float:
        """Wall clock of the last 10 ms in which anything was heard."""
        return float(await self.page.evaluate("() => window.edgecallLoud.loud")) / 1000

    async def loud_since(self) -> float:
        """Wall clock of the first sound after the last silence."""
        return float(await self.page.evaluate("() => window.edgecallLoud.first")) / 1000

    async def ended(self, within_s: float = 10.0) -> str:
        """The words with which the end of the call is shown."""
        return str(await self.until(
            "return !document.querySelector('#view-idle').hidden && !document.querySelector('#ended').hidden "
            "&& document.querySelector('#ended').innerText", "the end of the call", within_s))

    async def close(self) -> None:
        """Close the tab as a person does: the page is told (pagehide) and may say that it leaves."""
        await self.page.close(run_before_unload=False)
