"""A media server for tests: WHIP and WHEP over HTTP, whose media are a browser's own peer connections.

    async with chromium(880) as browser, media_server(browser) as server:
        server.publish, server.play          # the endpoints
        server.requests                      # what came, in order
        server.script["POST"].append(...)    # answers given instead of the right ones, each once

What is published there is decoded by the browser; what is played from there is the browser's camera and microphone.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from playwright.async_api import Page

from tests.support.browser import Chromium
from tests.support.loopback import served_page
from tests.support.ports import free_port

__all__ = ["MediaServer", "Request", "media_server"]

SDP: Final = "application/sdp"
FRAGMENT: Final = "application/trickle-ice-sdpfrag"

_HTML = """<!doctype html><meta charset="utf-8"><title>media server</title><body>
<script>
window.sessions = {};
async function gathered(pc) {
  while (pc.iceGatheringState !== "complete")
    await new Promise((go) => pc.addEventListener("icegatheringstatechange", go, { once: true }));
  return pc.localDescription.sdp;
}
async function devices() {
  return window.media ??= await navigator.mediaDevices.getUserMedia({ video: true,
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
}
function session(id, configuration) {
  const pc = new RTCPeerConnection(configuration ?? { iceServers: [] }), stream = new MediaStream();
  pc.addEventListener("track", ({ track }) => {
    stream.addTrack(track);
    let video = document.querySelector("video");
    video ?? document.body.append(video = Object.assign(document.createElement("video"), { autoplay: true }));
    video.srcObject = window.remoteStream = stream;
  });
  return sessions[id] = pc;
}
window.server = {
  async answer(id, offer, plays, configuration) {
    const pc = session(id, configuration);
    await devices();  // who may use them is told real addresses, not names for multicast DNS
    await pc.setRemoteDescription({ type: "offer", sdp: offer });
    if (plays) for (const track of (await devices()).getTracks()) pc.addTrack(track, await devices());
    await pc.setLocalDescription();
    return gathered(pc);
  },
  async offer(id) {
    const pc = session(id);
    for (const track of (await devices()).getTracks())
      pc.addTransceiver(track, { direction: "sendonly", streams: [media] });
    await pc.setLocalDescription();
    return gathered(pc);
  },
  accept: (id, answer) => sessions[id].setRemoteDescription({ type: "answer", sdp: answer }),
  candidate: (id, candidate) => sessions[id].addIceCandidate({ candidate, sdpMLineIndex: 0 }),
  async restart(id, username, password, candidates) {
    const pc = sessions[id];
    let first = true;
    const sdp = pc.remoteDescription.sdp.replace(/a=(candidate|end-of-candidates).*\\r\\n/g, "")
      .replace(/a=ice-ufrag:.*/g, `a=ice-ufrag:${username}`)
      .replace(/a=ice-pwd:.*\\r\\n/g, (line) => {
        const own = first ? candidates.map((one) => `a=${one}\\r\\n`).join("") : "";
        first = false;
        return `a=ice-pwd:${password}\\r\\n${own}`;
      });
    await pc.setRemoteDescription({ type: "offer", sdp });
    await pc.setLocalDescription();
    return gathered(pc);
  },
  close(id) { sessions[id]?.close(); delete sessions[id]; },
};
</script>"""


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    status: int = 0


@dataclass
class Scripted:
    """An answer that is given instead of the right one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


class MediaServer:
    """``token``: asked for where it is set. ``link``: ``Link`` fields of each answer to an offer. ``restarts``: whether
    it can restart ICE; ``counters``: it offers itself (``201`` or ``406``); ``configuration``: of its peer connections;
    ``forgets``: candidates of an offer are lost on the way to its media."""

    def __init__(self, page: Page, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.page = page
        self.host = host
        self._context = context
        self.port = free_port()
        self.token = ""
        self.link: list[str] = []
        self.restarts = True
        self.counters = 0
        self.configuration: Mapping[str, Any] | None = None
        self.forgets = False
        self.requests: list[Request] = []
        self.script: dict[str, deque[Scripted]] = {"POST": deque(), "PATCH": deque(), "DELETE": deque()}
        self.sessions: dict[str, str] = {}  # id -> entity tag
        self.hold = asyncio.Event()  # answers to offers wait for it
        self.hold.set()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._context else ''}://{self.host}:{self.port}"

    @property
    def publish(self) -> str:
        return f"{self.url}/whip/door?key=1"

    @property
    def play(self) -> str:
        return f"{self.url}/whep/desk"

    def of(self, method: str) -> list[Request]:
        return [one for one in self.requests if one.method == method]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True, ssl_context=self._context).start()

    async def stop(self) -> None:
        """As a crash would: sessions are not told, and not known any more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self.sessions.clear()

    async def _handle(self, request: web.Request) -> web.Response:
        kept = Request(request.method, request.path_qs, dict(request.headers), await request.text())
        self.requests.append(kept)
        response = await self._answer(request, kept)
        kept.status = response.status
        return response

    async def _answer(self, request: web.Request, kept: Request) -> web.Response:
        script = self.script.get(request.method)
        if script:
            scripted = script.popleft()
            return web.Response(status=scripted.status, headers=scripted.headers, text=scripted.body or None)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        kind, _, name = request.path.strip("/").partition("/")
        if request.method == "POST" and kind in ("whip", "whep"):
            return await self._create(kept, plays=kind == "whep")
        if kind != "session" or name not in self.sessions:
            return web.Response(status=404)
        if request.method == "PATCH":
            return await self._patch(name, kept)
        if request.method == "DELETE":
            del self.sessions[name]
            await self.page.evaluate("(id) => server.close(id)", name)
            return web.Response()
        return web.Response(status=405)

    async def _create(self, request: Request, *, plays: bool) -> web.Response:
        if request.headers.get("Content-Type") != SDP:
            return web.Response(status=415)
        await self.hold.wait()
        name, tag = secrets.token_urlsafe(12), f'"{secrets.token_hex(4)}"'
        if plays and self.counters:
            sdp = await self.page.evaluate("(id) => server.offer(id)", name)
        else:
            offer = re.sub(r"a=candidate:.*\r\n", "", request.body) if self.forgets else request.body
            sdp = await self.page.evaluate("(args) => server.answer(...args)", [name, offer, plays, self.configuration])
        self.sessions[name] = tag
        response = web.Response(status=self.counters or 201, body=sdp.encode(), content_type=SDP, headers={
            "Location": f"../session/{name}", "ETag": tag, "Accept-Patch": FRAGMENT})
        for link in self.link:
            response.headers.add("Link", link)
        return response

    async def _patch(self, name: str, request: Request) -> web.Response:
        if request.headers.get("Content-Type") == SDP:
            await self.page.evaluate("(args) => server.accept(...args)", [name, request.body])
            return web.Response(status=204)
        match = request.headers.get("If-Match")
        if match is None:
            return web.Response(status=428)
        candidates = re.findall(r"(?m)^a=(candidate:.*?)\r?$", request.body)
        if match == "*":
            if not self.restarts:
                return web.Response(status=405)
            username, password = (re.findall(rf"(?m)^a=ice-{one}:(.*?)\r?$", request.body)[0]
                                  for one in ("ufrag", "pwd"))
            answer = await self.page.evaluate("(args) => server.restart(...args)",
                                              [name, username, password, candidates])
            tag = self.sessions[name] = f'"{secrets.token_hex(4)}"'
            lines = [line for line in answer.splitlines()
                     if line.startswith(("a=ice-ufrag:", "a=ice-pwd:", "a=candidate:"))]
            return web.Response(body="\r\n".join([*lines, ""]).encode(), content_type=FRAGMENT, headers={"ETag": tag})
        if match != self.sessions[name]:
            return web.Response(status=412)
        for candidate in candidates:
            await self.page.evaluate("(args) => server.candidate(...args)", [name, candidate])
        return web.Response(status=204)


@asynccontextmanager
async def media_server(
    browser: Chromium, host: str = "127.0.0.1", context: ssl.SSLContext | None = None,
) -> AsyncIterator[MediaServer]:
    async with served_page(_HTML) as address:
        page = await browser.open(address)
        server = MediaServer(page, host, context)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
            await server.page.close()
