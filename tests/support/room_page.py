"""A page that joins a Janus room as people do: publishes its camera and microphone, and watches everybody else."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from tests.support.loopback import served_page

__all__ = ["SIGNALLING", "room_page"]

SIGNALLING = """class Janus {
  constructor(url) {
    this.asked = new Map();
    this.handles = new Map();
    this.queue = Promise.resolve();
    this.socket = new WebSocket(url, "janus-protocol");
    this.socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    this.open = new Promise((ok, bad) => { this.socket.onopen = ok; this.socket.onerror = bad; });
  }
  take(message) {
    if (message.janus === "ack") return;
    const asked = this.asked.get(message.transaction);
    if (asked) { this.asked.delete(message.transaction); asked(message); }
    else this.handles.get(message.sender)?.(message);
  }
  ask(message) {
    const transaction = crypto.randomUUID();
    return new Promise((done) => {
      this.asked.set(transaction, done);
      this.socket.send(JSON.stringify({ session_id: this.session, ...message, transaction }));
    });
  }
  async begin() {
    await this.open;
    this.session = (await this.ask({ janus: "create" })).data.id;
    this.alive = setInterval(() => this.ask({ janus: "keepalive" }), 3000);
  }
  async attach(take, plugin = "janus.plugin.videoroom") {
    const handle = (await this.ask({ janus: "attach", plugin })).data.id;
    this.handles.set(handle, take);
    return (body, jsep) => this.ask({ janus: "message", handle_id: handle, body, jsep });
  }
}

function gathered(pc) {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && done());
  });
}
"""
"""A session with Janus: ``Janus`` with ``begin``, ``ask`` and ``attach``, and ``gathered``."""

PAGE = """<!doctype html><meta charset="utf-8"><title>room</title><body>
<script type="module">
""" + SIGNALLING + """
const LAYERS = [{ rid: "h", maxBitrate: 500000 }, { rid: "m", scaleResolutionDownBy: 2, maxBitrate: 200000 },
  { rid: "l", scaleResolutionDownBy: 4, maxBitrate: 80000 }];

class Person {
  constructor(url, room, name, sends) {
    Object.assign(this, { room, name, sends, janus: new Janus(url), others: {}, lines: {}, videos: {}, streams: {} });
    this.renegotiation = Promise.resolve();
  }
  async join() {
    await this.janus.begin();
    this.publisher = await this.janus.attach((message) => this.heard(message.plugindata?.data ?? {}));
    const joined = await this.publisher({ request: "join", ptype: "publisher", room: this.room, display: this.name });
    const data = joined.plugindata.data;
    if (data.error) throw new Error(data.error);
    this.id = data.id;
    if (this.sends.nothing) return this.heard(data);
    this.media = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    const pc = (this.out = new RTCPeerConnection());
    for (const track of await this.tracks()) {
      const sendEncodings = track.kind === "video" && this.sends.simulcast ? LAYERS : undefined;
      const line = pc.addTransceiver(track, { direction: "sendonly", streams: [this.media], sendEncodings });
      if (track.kind === "video") this.h264(line);
    }
    await pc.setLocalDescription();
    await gathered(pc);
    const answer = await this.publisher({ request: "publish" }, { type: "offer", sdp: pc.localDescription.sdp });
    if (answer.plugindata.data.error) throw new Error(answer.plugindata.data.error);
    await pc.setRemoteDescription(answer.jsep);
    this.heard(data);
  }
  async tracks() {
    if (!this.sends.simulcast) return this.media.getTracks();
    const video = Object.assign(document.createElement("video"), { muted: true, srcObject: this.media });
    await video.play();
    const canvas = Object.assign(document.createElement("canvas"), { width: 1024, height: 576 });
    const context = canvas.getContext("2d");
    this.painting = setInterval(() => context.drawImage(video, 0, 0, 1024, 576), 66);
    const [track] = canvas.captureStream(15).getVideoTracks();
    track.contentHint = "detail"; // a busy machine sends fewer pictures, not smaller ones
    return [...this.media.getAudioTracks(), track];
  }
  heard(data) {
    this.last = data;
    for (const one of data.publishers ?? []) {
      const known = this.others[one.id];
      this.others[one.id] = one.display;
      if (known || Object.keys(this.others).length > (this.sends.most ?? Infinity)) continue;
      this.renegotiation = this.renegotiation.then(() => this.watch(one));
    }
    if (data.leaving) delete this.others[data.leaving];
  }
  async watch(person) {
    const streams = person.streams.filter(({ type }) => type !== "data").map(({ mid }) => ({ feed: person.id, mid }));
    if (!this.subscriber) {
      this.in = new RTCPeerConnection();
      this.in.ontrack = ({ track, transceiver }) => this.show(transceiver.mid, track);
      this.subscriber = await this.janus.attach((message) => {
        if (message.jsep) this.renegotiation = this.renegotiation.then(() => this.answer(message));
      });
      const offer = await this.subscriber({ request: "join", ptype: "subscriber", room: this.room, streams });
      if (offer.jsep) await this.answer(offer);
    } else {
      const offer = await this.subscriber({ request: "subscribe", streams });
      if (offer.jsep) await this.answer(offer);
    }
  }
  async answer(message) {
    for (const line of message.plugindata.data.streams ?? []) this.lines[line.mid] = line.feed_display;
    await this.in.setRemoteDescription(message.jsep);
    await this.in.setLocalDescription();
    await gathered(this.in);
    await this.subscriber({ request: "start" }, { type: "answer", sdp: this.in.localDescription.sdp });
    for (const line of this.in.getTransceivers()) this.show(line.mid, line.receiver.track);
  }
  show(mid, track) {
    const name = this.lines[mid];
    if (!name) return;
    const stream = (this.streams[name] ??= new MediaStream());
    if (!stream.getTracks().includes(track)) {
      for (const old of stream.getTracks()) if (old.kind === track.kind) stream.removeTrack(old);
      stream.addTrack(track);
    }
    if (!this.videos[name]) {
      const video = (this.videos[name] = document.createElement("video"));
      Object.assign(video, { autoplay: true, playsInline: true, id: name.replaceAll(" ", "-"), srcObject: stream });
      document.body.append(video);
    }
  }
  /** A picture of stripes and a line of words, as a second one beside the camera's, at five a second. */
  async share(words) {
    const canvas = (this.canvas = Object.assign(document.createElement("canvas"), { width: 1280, height: 720 }));
    const context = canvas.getContext("2d");
    let at = 0;
    this.shared = setInterval(() => {
      context.fillStyle = "white";
      context.fillRect(0, 0, 1280, 720);
      context.fillStyle = "black";
      context.font = "bold 40px sans-serif";
      for (let line = 0; line < 12; line++) context.fillText(words, 40, 70 + 55 * line);
      context.fillRect(at = (at + 40) % 1240, 690, 40, 20);
    }, 200);
    const [track] = canvas.captureStream(5).getVideoTracks();
    track.contentHint = "text";
    const line = this.out.addTransceiver(track, { direction: "sendonly" });
    this.h264(line);
    await this.out.setLocalDescription();
    const descriptions = [{ mid: line.mid, description: "screen" }];
    await this.publisher({ request: "configure", descriptions }, { type: "offer", sdp: this.out.localDescription.sdp })
      .then((answer) => this.out.setRemoteDescription(answer.jsep));
    this.sharing = line;
  }
  async unshare() {
    clearInterval(this.shared);
    this.sharing.stop();
    await this.out.setLocalDescription();
    await this.publisher({ request: "configure" }, { type: "offer", sdp: this.out.localDescription.sdp })
      .then((answer) => this.out.setRemoteDescription(answer.jsep));
  }
  h264(line) {
    line.setCodecPreferences(RTCRtpSender.getCapabilities("video").codecs.filter(
      (codec) => codec.mimeType === "video/H264" && codec.sdpFmtpLine.includes("42e01f")
        && codec.sdpFmtpLine.includes("packetization-mode=1") || codec.mimeType === "video/rtx"));
  }
  async leave() {
    await this.janus.ask({ janus: "destroy" });
    clearInterval(this.janus.alive);
    clearInterval(this.painting);
    clearInterval(this.shared);
    this.janus.socket.close();
    this.out?.close();
    this.in?.close();
    this.media?.getTracks().forEach((track) => track.stop());
  }
  stats() { return this.in?.getStats(); }
  async sent() {
    for (const row of (await this.out.getStats()).values())
      if (row.type === "outbound-rtp" && row.kind === "video") return row.framesSent ?? 0;
    return 0;
  }
  /** Of each quality what is sent: pictures so far, lines, and what keeps the browser from more. */
  async layers() {
    const rows = [...(await this.out.getStats()).values()].filter((row) => row.type === "outbound-rtp" && row.rid);
    return Object.fromEntries(rows.map((row) => [row.rid, {
      pictures: row.framesSent ?? 0, lines: row.frameHeight ?? 0, target: row.targetBitrate ?? 0,
      limit: row.qualityLimitationReason, active: row.active, keys: row.keyFramesEncoded, plis: row.pliCount }]));
  }
}

window.people = {};
window.enter = async (url, room, name, sends = {}) => {
  await (window.people[name] = new Person(url, room, name, sends)).join();
};
window.sent = (name) => window.people[name].sent();
window.layers = (name) => window.people[name].layers();
window.exit = async (name) => { await window.people[name].leave(); delete window.people[name]; };
</script>"""


def room_page(text: str = PAGE) -> AbstractAsyncContextManager[str]:
    """The address of the page: there are ``enter(url, room, name, {simulcast, nothing, most})``, ``exit(name)`` and
    ``people[name]``. ``nothing`` is sent; ``most`` others are watched. ``text``: of another page."""
    return served_page(text)
