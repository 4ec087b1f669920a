"""A page that is a telephone: JsSIP (``tests/peers/jssip``) over a WebSocket, with the sound of the browser."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.support.loopback import served_page

__all__ = ["jssip_page"]

HERE: Final = Path(__file__).resolve().parents[1] / "peers" / "jssip"
INSTALL_S: Final = 30.0

PAGE: Final = """<!doctype html><meta charset="utf-8"><title>telephone</title><body>
<video id="remote" autoplay playsinline muted></video>
<script src="/jssip.js"></script>
<script type="module">
const phone = (window.phone = { told: [], digits: [], policy: "balanced" });
const media = (video) => ({ mediaConstraints: { audio: true, video }, pcConfig: { bundlePolicy: phone.policy } });

function adopt(session) {
  phone.session = session;
  const watch = (pc) => pc.addEventListener("track", ({ track }) => {
    const stream = new MediaStream([track]);
    if (track.kind === "video") document.querySelector("video").srcObject = stream;
    else {
      window.remoteStream = stream;
      phone.speaker = Object.assign(new Audio(), { autoplay: true, srcObject: stream });
    }
  });
  if (session.connection) watch(session.connection);
  session.on("peerconnection", ({ peerconnection }) => watch(peerconnection));
  for (const what of ["confirmed", "hold", "unhold", "reinvite"])
    session.on(what, ({ originator }) => phone.told.push(originator ? `${what} ${originator}` : what));
  for (const what of ["ended", "failed"])
    session.on(what, ({ originator, cause }) => phone.told.push(`${what} ${originator} ${cause}`));
  session.on("newDTMF", ({ originator, dtmf }) => originator === "remote" && phone.digits.push(dtmf.tone));
}

phone.start = (url, uri, password, video, policy) => new Promise((done, bad) => {
  Object.assign(phone, { video, policy });
  phone.ua = new JsSIP.UA({ sockets: [new JsSIP.WebSocketInterface(url)], uri, password });
  phone.ua.on("registered", () => done());
  phone.ua.on("registrationFailed", ({ cause }) => bad(new Error(cause)));
  phone.ua.on("newRTCSession", ({ originator, session }) => {
    adopt(session);
    if (originator === "remote") session.answer(media(phone.video));
  });
  phone.ua.start();
});
phone.call = (uri) => { phone.ua.call(uri, media(phone.video)); };
phone.transports = async () => {
  const report = await phone.session.connection.getStats();
  return [...report.values()].filter((one) => one.type === "transport" && one.dtlsState === "connected").length;
};
phone.port = async () => { // where the path in use begins
  const report = await phone.session.connection.getStats();
  const transport = [...report.values()].find((one) => one.type === "transport");
  const pair = report.get(transport.selectedCandidatePairId);
  return pair && report.get(pair.remoteCandidateId)?.port;
};
phone.fingerprints = async () => {
  const report = await phone.session.connection.getStats();
  return [...report.values()].filter((one) => one.type === "certificate").map((one) => one.fingerprint).sort();
};
</script>"""


@asynccontextmanager
async def jssip_page() -> AsyncIterator[str]:
    """The address of the page: there are ``phone.start(url, uri, password, video, policy)``, ``phone.call(uri)``,
    ``phone.session``, and what is told of it in ``phone.told``. It answers by itself."""
    installing = await asyncio.create_subprocess_exec(  # there is no way out of the test's network namespace
        HERE / "installed", stdout=asyncio.subprocess.PIPE, env={**os.environ, "npm_config_offline": "true"})
    told, _ = await asyncio.wait_for(installing.communicate(), INSTALL_S)
    assert installing.returncode == 0, "JsSIP is not installed: run tests/peers/jssip/installed once"
    script = Path(told.decode().strip())

    async def library(_: web.Request) -> web.FileResponse:
        return web.FileResponse(script)

    app = web.Application()
    app.router.add_get("/jssip.js", library)
    async with served_page(PAGE, app) as address:
        yield address
