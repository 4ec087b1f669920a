"""A page that joins an AudioBridge room of Janus as people do: one connection, its microphone out, the mix in."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from tests.support.room_page import SIGNALLING, room_page

__all__ = ["audio_page"]

PAGE = """<!doctype html><meta charset="utf-8"><title>audio room</title><body>
<script type="module">
""" + SIGNALLING + """
class Person {
  constructor(url, room, name) {
    Object.assign(this, { room, name, janus: new Janus(url), others: {}, told: [] });
  }
  async join(more) {
    await this.janus.begin();
    this.bridge = await this.janus.attach((message) => this.hear(message.plugindata?.data ?? {}),
      "janus.plugin.audiobridge");
    const answered = await this.bridge({ request: "join", room: this.room, display: this.name, ...more });
    const joined = answered.plugindata.data;
    if (joined.error) throw new Error(joined.error);
    this.id = joined.id;
    this.hear(joined);
    this.media = await navigator.mediaDevices.getUserMedia({ audio: true });
    const pc = (this.pc = new RTCPeerConnection());
    pc.ontrack = ({ track }) => {
      this.stream = new MediaStream([track]);
      this.speaker = Object.assign(new Audio(), { autoplay: true, srcObject: this.stream });
    };
    pc.addTransceiver(this.media.getAudioTracks()[0], { direction: "sendrecv" });
    await pc.setLocalDescription();
    await gathered(pc);
    const answer = await this.bridge({ request: "configure" }, { type: "offer", sdp: pc.localDescription.sdp });
    await pc.setRemoteDescription(answer.jsep);
  }
  hear(data) {
    this.told.push(data);
    for (const one of data.participants ?? []) this.others[one.id] = one;
    for (const word of ["leaving", "kicked"]) delete this.others[data[word]];
  }
  /** The TextRoom beside it, as a program that knows nothing of frames speaks there. */
  async text(room, username, more = {}) {
    const ask = await this.janus.attach(() => {}, "janus.plugin.textroom");
    const offer = await ask({ request: "setup" });
    const pc = (this.textPc = new RTCPeerConnection());
    await pc.setRemoteDescription(offer.jsep);
    const channel = pc.createDataChannel("JanusDataChannel");
    const open = new Promise((done) => { channel.onopen = done; });
    await pc.setLocalDescription();
    await gathered(pc);
    await ask({ request: "ack" }, { type: "answer", sdp: pc.localDescription.sdp });
    await open;
    this.said = [];
    const joined = new Promise((done) => {
      channel.onmessage = ({ data }) => {
        const told = JSON.parse(data);
        if (told.textroom === "message") this.said.push(told);
        if (told.textroom === "success" || told.textroom === "error") done(told);
      };
    });
    this.say = (text, whom = {}) => channel.send(
      JSON.stringify({ textroom: "message", transaction: "m", room, text, ack: false, ...whom }));
    channel.send(JSON.stringify({ textroom: "join", transaction: "j", room, username, display: this.name, ...more }));
    return await joined;
  }
  /** What the server says of the one of this name; undefined when nobody is called so. */
  of(name) { return Object.values(this.others).find((one) => one.display === name); }
  configure(body) { return this.bridge({ request: "configure", ...body }); }
  async leave() {
    await this.janus.ask({ janus: "destroy" });
    clearInterval(this.janus.alive);
    this.janus.socket.close();
    this.pc?.close();
    this.textPc?.close();
    this.media?.getTracks().forEach((track) => track.stop());
  }
}

window.people = {};
window.enter = async (url, room, name, more = {}) => {
  await (window.people[name] = new Person(url, room, name)).join(more);
};
window.exit = async (name) => { await window.people[name].leave(); delete window.people[name]; };
</script>"""


def audio_page() -> AbstractAsyncContextManager[str]:
    """The address of the page: there are ``enter(url, room, name, {pin})``, ``exit(name)`` and ``people[name]``, with
    the mix as ``stream`` and ``text(room, username)``."""
    return room_page(PAGE)
