"""A page with one peer connection and no signalling: descriptions go through the test, which may change them.

It does what an ordinary application does: camera and microphone, every codec that the browser has in the browser's own
order, descriptions with all candidates.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page

from tests.support.browser import Chromium
from tests.support.loopback import served_page

__all__ = ["MediaPage", "media_page"]

_HTML = """<!doctype html>
<meta charset="utf-8">
<title>Peer</title>
<video id="remote" autoplay playsinline></video>
<script>
window.remoteStream = new MediaStream();
const pc = new RTCPeerConnection({ iceServers: [] });
pc.addEventListener("track", ({ track }) => {
  remoteStream.addTrack(track);
  document.querySelector("#remote").srcObject = remoteStream;
});
async function described() {
  await pc.setLocalDescription();
  while (pc.iceGatheringState !== "complete")
    await new Promise((go) => pc.addEventListener("icegatheringstatechange", go, { once: true }));
  return pc.localDescription.sdp;
}
async function devices() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: true,
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const offered = pc.getTransceivers().filter(({ mid }) => mid !== null);
  for (const track of stream.getTracks())
    offered.length ? pc.addTrack(track, stream) : pc.addTransceiver(track, { streams: [stream] });
}
window.peer = {
  stats: () => pc.getStats(),
  /** With a line that only this browser understands, if asked for: the first, since its tracks come later. */
  async offer(foreign) {
    if (foreign) {
      const line = pc.addTransceiver("video", { direction: "recvonly" });
      line.setCodecPreferences(RTCRtpReceiver.getCapabilities("video").codecs
        .filter(({ mimeType }) => mimeType === `video/${foreign}`));
    }
    await devices();
    return described();
  },
  async answer(sdp) {
    await pc.setRemoteDescription({ type: "offer", sdp });
    await devices();
    return described();
  },
  accept: (sdp) => pc.setRemoteDescription({ type: "answer", sdp }),
};
</script>
"""


class MediaPage:
    def __init__(self, page: Page) -> None:
        self.page = page

    async def offer(self, *, foreign: str = "") -> str:
        """``foreign``: the name of a codec; a line with nothing else goes first."""
        return str(await self.page.evaluate("(foreign) => peer.offer(foreign)", foreign))

    async def answer(self, sdp: str) -> str:
        return str(await self.page.evaluate("(sdp) => peer.answer(sdp)", sdp))

    async def accept(self, sdp: str) -> None:
        await self.page.evaluate("(sdp) => peer.accept(sdp)", sdp)


@asynccontextmanager
async def media_page(browser: Chromium) -> AsyncIterator[MediaPage]:
    async with served_page(_HTML) as address:
        page = await browser.open(address)
        yield MediaPage(page)
        await page.close()
