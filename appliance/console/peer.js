/**
 * One page as a peer of the appliance: signalling over /v1/peer, media over one RTCPeerConnection at a time.
 *
 * Plain ES module without dependencies. The messages are those of appliance/providers/direct/protocol.py: the side that
 * accepts makes the SDP offer, the caller answers; after a loss the same side offers again under the same call.
 *
 * Events: `change` (read `state`), `localstream` and `remotestream` (detail: MediaStream or null), `data`
 * (detail: {channel, payload}), `notice` (detail: {code, subCode, message}).
 *
 * What happens to a call when the page goes: `hangup()` ends it. A reload comes back to it. Closing the tab tells the
 * appliance, which ends the call unless the page is back within 5 s. A page that dies, or loses its network, is waited
 * for (`call.reconnect_s`).
 */

const SILENT_MS = 3000; // nothing received on a transport where something is due
const BACK_OFF_MS = [250, 500, 1000, 2000, 4000, 8000]; // WebSocket; each times 0.5 to 1, the last one repeats
const REPAIR_MS = [500, 1000, 2000, 4000]; // the next attempt at a new peer connection; the last one repeats
const JOINS = 4; // connections tried for a call that is not up yet
const SETTLE_MS = 2000; // from the end of the old connection to the newer one being up
const ATTEMPT_MS = 6000; // an attempt that the other side answered may take this long
const REPLACED = 4001; // close code: another tab presented our token
const OUTBOX = 64; // messages that wait for the WebSocket
const FRESH_MS = 30000; // a waiting message older than this is not worth sending
const DATA_LABEL = "edgecall";
const LOSSY_LABEL = "edgecall-lossy"; // where messages may be lost
const MAX_CANDIDATES = 64;

const REASONS = {
  local: [0, "local"], remote: [0, "remote"], cancelled: [487, "cancelled"], declined: [603, "declined"],
  busy: [486, "busy"], elsewhere: [487, "answeredElsewhere"], unreachable: [480, "unreachable"],
  mediaLost: [410, "mediaLost"], iceFailed: [410, "iceFailed"], noCodec: [488, "noCodec"],
  noAnswer: [487, "noAnswer"],
};

const reason = (name) => ({ code: REASONS[name][0], subCode: REASONS[name][1] });

/** What the other side's reason is here: its "local" is our "remote". */
const remoteReason = (told) => (told && told.code !== 0 ? told : reason("remote"));

const random = (bytes) => {
  const values = crypto.getRandomValues(new Uint8Array(bytes));
  return btoa(String.fromCharCode(...values)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
};

export class Peer extends EventTarget {
  #url; #socket = null; #connection = "lost"; #closed = true; #attempt = 0; #retry = 0;
  #outbox = []; #token = ""; #me = { you: "", device: "", displayName: "" }; #onDuty = [];
  #duty = false; #wantsDuty = false; #displayName = ""; #local = null; #without = {}; #call = null; #notice = null;
  #taking = null;
  #visible = () => { if (!this.#closed && !this.#socket) this.#open(); };
  #leave = () => this.#leaving();
  #show = (event) => { if (event.persisted && !this.#closed && !this.#socket) this.#open(); };

  constructor(url = "/v1/peer") {
    super();
    this.#url = url;
  }

  /** Snapshot of everything a page draws. A new object at every `change`. */
  get state() {
    return {
      connection: this.#connection, duty: this.#duty, onDuty: [...this.#onDuty], device: { ...this.#me },
      devices: { audio: this.#has("audio"), video: this.#has("video"), without: { ...this.#without } },
      call: this.#call ? this.#call.view() : null, notice: this.#notice,
    };
  }

  /** The WebSocket, kept open until close(). */
  connect() {
    if (!this.#closed) return;
    this.#closed = false;
    const kept = this.#kept();
    this.#token = kept.token || "";
    this.#wantsDuty = Boolean(kept.duty);
    this.#displayName = kept.displayName || "";
    addEventListener("pagehide", this.#leave);
    addEventListener("pageshow", this.#show);
    addEventListener("online", this.#visible);
    document.addEventListener("visibilitychange", this.#visible);
    this.#open();
  }

  /** Leave for good: hangs up, goes off duty, lets the devices go. */
  close() {
    if (this.#closed) return;
    this.hangup();
    this.goOffDuty();
    this.#closed = true;
    clearTimeout(this.#retry);
    removeEventListener("pagehide", this.#leave);
    removeEventListener("pageshow", this.#show);
    removeEventListener("online", this.#visible);
    document.removeEventListener("visibilitychange", this.#visible);
    const socket = this.#socket;
    this.#socket = null;
    this.#flush(socket);
    socket?.close(1000);
    this.#connection = "lost";
    this.#forget();
    this.#changed();
  }

  /**
   * Take calls here. Must come from a click: it takes the devices and unlocks sound. Without a camera, or without any
   * device, duty begins all the same and `state.devices.without` says why.
   */
  async goOnDuty(displayName = "") {
    this.#displayName = displayName || this.#displayName;
    await this.#devices();
    this.#duty = true;
    this.#wantsDuty = true;
    this.#say("duty", { on: true, displayName: this.#displayName });
    this.#keep();
    this.#changed();
    return this.state.devices;
  }

  goOffDuty() {
    if (this.#duty || this.#wantsDuty) this.#say("duty", { on: false, displayName: this.#displayName });
    this.#duty = false;
    this.#wantsDuty = false;
    if (!this.#live()) this.#release();
    this.#keep();
    this.#changed();
  }

  /** Call the appliance. Returns the call id. Takes the devices first where they are not taken. */
  async call(to = "") {
    if (this.#live()) throw new Error("there is a call already");
    const call = new Call(this.#host(), { callId: `page-${random(12)}`, direction: "Outgoing", to });
    this.#call = call; // before the devices, so that a second click does not call twice
    this.#changed();
    await this.#devices();
    if (this.#call === call && !call.over) call.invite();
    return call.callId;
  }

  async answer(callId) {
    const call = this.#call;
    if (!call || call.callId !== callId || call.state !== "Incoming") return;
    await this.#devices();
    if (this.#call === call && call.state === "Incoming") await call.accept();
  }

  reject(callId, why = "declined") {
    if (this.#call?.callId === callId && this.#call.state === "Incoming") this.#call.end(reason(why), "reject");
  }

  hangup() {
    if (this.#live()) this.#call.hangup();
  }

  setMuted(muted) { this.#call?.set({ muted: Boolean(muted) }); }

  setVideo(video) { this.#call?.set({ video: Boolean(video) }); }

  setHold(held) { this.#call?.set({ held: Boolean(held) }); }

  /** A data message; false when the channel is not open. */
  send(channel, text) { return this.#call?.sendData(channel, text) ?? false; }

  /** W3C statistics of the call's peer connection, null without one. */
  async stats() { return this.#call?.stats() ?? null; }

  get localStream() { return this.#local; }

  // --- connection ---------------------------------------------------------------------------------------------------

  #open() {
    clearTimeout(this.#retry);
    this.#connection = this.#attempt === 0 ? "connecting" : this.#connection;
    const address = new URL(this.#url, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onopen = () => this.#send(socket, "hello", { client: "page", token: this.#token, device: "",
      displayName: this.#displayName });
    socket.onmessage = (event) => { if (socket === this.#socket) this.#heard(event.data); };
    socket.onclose = (event) => { if (socket === this.#socket) this.#lost(event.code); };
    this.#changed();
  }

  #lost(code) {
    this.#socket = null;
    if (this.#closed) return;
    this.#connection = "lost";
    if (code === REPLACED) this.#token = ""; // a duplicated tab took our place: be a page of our own
    const pause = BACK_OFF_MS[Math.min(this.#attempt, BACK_OFF_MS.length - 1)] * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.#open(), pause);
    this.#call?.signalling(false);
    this.#changed();
  }

  #heard(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // only our own appliance speaks here; what it did not finish is of no use
    }
    switch (message.type) {
      case "welcome": return this.#welcome(message);
      case "onDuty": this.#onDuty = message.names; return this.#changed();
      case "error": return this.#refused(message);
      case "invite": return this.#invited(message);
      default:
        if (this.#call && this.#call.callId === message.callId) this.#call.receive(message);
    }
  }

  #welcome(message) {
    const kept = this.#call ? null : this.#kept().call; // before anything here is kept in its place
    this.#connection = "open";
    this.#attempt = 0;
    this.#token = message.token;
    this.#me = { you: message.you, device: message.device, displayName: message.displayName };
    if (this.#duty) this.#say("duty", { on: true, displayName: this.#displayName });
    else if (this.#wantsDuty) this.#again();
    this.#flush(this.#socket);
    this.#comeBack(new Map(message.calls.map((call) => [call.callId, call.generation])), kept, message.resumed);
    this.#keep();
    this.#changed();
  }

  /** Duty of before a reload: the devices are permitted already, so no click is needed. */
  async #again() {
    try {
      await this.goOnDuty();
    } catch (error) {
      this.#tell({ code: 403, subCode: "devices", message: String(error.message || error) });
    }
  }

  async #comeBack(alive, kept, resumed) {
    if (this.#call && !this.#call.over) {
      if (alive.has(this.#call.callId) || this.#call.unsent) this.#call.signalling(true);
      else this.#call.finish(reason(resumed ? "remote" : "mediaLost")); // it ended while we were away
      return;
    }
    if (!kept || this.#call || !alive.has(kept.callId)) return;
    if (kept.unanswered) { // our ring does not outlive its page
      this.#say("cancel", { callId: kept.callId, reason: reason("cancelled") });
      return;
    }
    const call = new Call(this.#host(), { ...kept, generation: alive.get(kept.callId), resumed: true });
    this.#call = call;
    call.resume(); // before the devices: the appliance may have a new offer on its way already
    this.#changed();
    await this.#devices();
    if (this.#call === call && !call.over) await call.ready();
  }

  #refused(message) {
    this.#tell({ code: message.code, subCode: message.subCode, message: message.message });
  }

  #tell(notice) {
    this.#notice = notice;
    this.dispatchEvent(new CustomEvent("notice", { detail: notice }));
    this.#changed();
  }

  #invited(message) {
    if (this.#live()) {
      const mine = this.#call;
      if (mine.callId === message.callId) return;
      if (mine.state !== "Connecting" && mine.state !== "Ringing" || mine.direction !== "Outgoing") {
        this.#say("reject", { callId: message.callId, reason: reason("busy") });
      } else if (this.#me.you > this.#me.device) {
        // Both dialled: the call of the lexically smaller id lives, and is answered at once; no end is shown.
        mine.yieldTo(message);
      }
      return;
    }
    this.#call = new Call(this.#host(), { callId: message.callId, direction: "Incoming", peer: message.caller,
      peerMuted: !message.media.audio, peerVideo: message.media.video });
    this.#say("ringing", { callId: message.callId });
    this.#changed();
  }

  #leaving() {
    // Sent even as the page goes: the browser flushes what is handed to an open WebSocket. A reload is back in time.
    if (this.#socket?.readyState === WebSocket.OPEN) this.#send(this.#socket, "leaving", {});
    this.#keep();
  }

  #say(type, fields) {
    if (this.#connection === "open" && this.#socket?.readyState === WebSocket.OPEN) {
      this.#send(this.#socket, type, fields);
      return;
    }
    if (type === "duty") return; // said again after every welcome
    this.#outbox.push([Date.now(), type, fields]);
    if (this.#outbox.length > OUTBOX) this.#outbox.shift();
  }

  #flush(socket) {
    if (socket?.readyState !== WebSocket.OPEN) return;
    const waiting = this.#outbox.filter(([since]) => Date.now() - since < FRESH_MS);
    this.#outbox = [];
    for (const [, type, fields] of waiting) this.#send(socket, type, fields);
  }

  #send(socket, type, fields) {
    socket.send(JSON.stringify({ v: 1, type, nonce: random(16), ts: Date.now() / 1000, ...fields }));
  }

  // --- devices ------------------------------------------------------------------------------------------------------

  #has(kind) {
    return Boolean(this.#local?.getTracks().some((track) => track.kind === kind && track.readyState === "live"));
  }

  /** Camera and microphone, or one of them, or none with the reason. What is missing is asked for again each time. */
  #devices() {
    if (this.#has("audio") && this.#has("video")) return Promise.resolve();
    this.#taking ??= this.#take().finally(() => { this.#taking = null; });
    return this.#taking;
  }

  async #take() {
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const video = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
    this.#without = {};
    let stream = new MediaStream();
    if (!navigator.mediaDevices) {
      this.#without = { audio: "insecure", video: "insecure" }; // browsers give devices only to https and loopback
    } else {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ audio, video });
      } catch {
        for (const [kind, wanted] of [["audio", { audio }], ["video", { video }]]) {
          try {
            for (const track of (await navigator.mediaDevices.getUserMedia(wanted)).getTracks()) stream.addTrack(track);
          } catch (error) {
            this.#without[kind] = error.name; // NotAllowedError, NotFoundError, NotReadableError
          }
        }
      }
    }
    this.#release();
    this.#local = stream;
    this.#call?.applyTracks();
    this.dispatchEvent(new CustomEvent("localstream", { detail: stream }));
  }

  #release() {
    if (!this.#local) return;
    for (const track of this.#local.getTracks()) track.stop();
    this.#local = null;
    this.dispatchEvent(new CustomEvent("localstream", { detail: null }));
  }

  // --- between a call and its page ----------------------------------------------------------------------------------

  #live() { return Boolean(this.#call && !this.#call.over); }

  #host() {
    return {
      say: (type, fields) => this.#say(type, fields),
      connected: () => this.#connection === "open",
      stream: () => this.#local,
      me: () => ({ identity: this.#me.you, displayName: this.#displayName || this.#me.you }),
      sends: () => ({ audio: this.#has("audio"), video: this.#has("video") }),
      appliance: () => ({ identity: this.#me.device, displayName: this.#me.displayName }),
      remote: (stream) => this.dispatchEvent(new CustomEvent("remotestream", { detail: stream })),
      data: (message) => this.dispatchEvent(new CustomEvent("data", { detail: message })),
      changed: () => { this.#keep(); this.#changed(); },
      over: () => { if (!this.#duty) this.#release(); },
    };
  }

  #changed() { this.dispatchEvent(new Event("change")); }

  #key() { return `edgecall.peer.${this.#url}`; }

  #kept() {
    try {
      return JSON.parse(sessionStorage.getItem(this.#key())) || {};
    } catch {
      return {}; // storage is refused, or holds what is not ours
    }
  }

  #keep() {
    const call = this.#live() ? this.#call.memory() : null;
    try {
      sessionStorage.setItem(this.#key(), JSON.stringify({ token: this.#token, duty: this.#wantsDuty,
        displayName: this.#displayName, call }));
    } catch {
      // Storage may be refused (private mode, quota): the call works, only a reload does not come back to it.
    }
  }

  #forget() {
    try {
      sessionStorage.removeItem(this.#key());
    } catch {
      // refused storage holds nothing either
    }
  }
}

/** One call. `offers`: this side accepted, so it makes the offers. */
class Call {
  #host; #state; #offers; #generation; #active = null; #attempts = new Map(); #early = []; #timer = 0; #tries = 0;
  #seq = 0; #peerSeq = -1; #picture = null; #invited = false; #remote = null; #everUp = false; #watched = true;

  constructor(host, { callId, direction, to = "", peer = null, offers = false, generation = -1, resumed = false,
    since = null, muted = false, held = false, video = true, peerMuted = false, peerHeld = false,
    peerVideo = false }) {
    this.#host = host;
    this.callId = callId;
    this.direction = direction;
    this.to = to;
    this.peer = peer ?? host.appliance();
    this.#offers = offers;
    this.#generation = generation;
    this.#everUp = resumed;
    this.#state = resumed ? "Reconnecting" : direction === "Incoming" ? "Incoming" : "Connecting";
    this.#seq = resumed ? Date.now() : 0; // rises over a reload too
    Object.assign(this, { since, muted, held, video, peerMuted, peerHeld, peerVideo, reason: null });
  }

  get state() {
    if (this.#state !== "Connected") return this.#state;
    if (this.held) return "LocalHold";
    return this.peerHeld ? "RemoteHold" : "Connected";
  }

  get over() { return this.#state === "Disconnected"; }

  /** The generation whose connection is in use. */
  get #carrying() { return [...this.#attempts].find(([, attempt]) => attempt === this.#active)?.[0] ?? -1; }

  /** The invitation still waits for the WebSocket. */
  get unsent() { return !this.#invited && this.direction === "Outgoing"; }

  view() {
    return { callId: this.callId, direction: this.direction, state: this.state, peer: this.peer,
      picture: this.#picture, muted: this.muted, held: this.held, video: this.video, peerMuted: this.peerMuted,
      peerHeld: this.peerHeld, peerVideo: this.peerVideo, since: this.since, reason: this.reason };
  }

  /** What a reloaded page needs to come back, or to take its unanswered ring back. */
  memory() {
    if (this.over) return null;
    if (!this.#everUp) return this.#invited ? { callId: this.callId, unanswered: true } : null;
    return { callId: this.callId, direction: this.direction, peer: this.peer, offers: this.#offers, since: this.since,
      muted: this.muted, held: this.held, video: this.video, peerMuted: this.peerMuted, peerHeld: this.peerHeld,
      peerVideo: this.peerVideo };
  }

  // --- what the page does -------------------------------------------------------------------------------------------

  invite() {
    if (this.#offers) return; // glare was faster: the appliance's call is answered already
    this.#invited = true;
    this.#say("invite", { caller: this.#host.me(), media: this.#sends(), to: this.to });
    this.#host.changed();
  }

  async accept() {
    this.#offers = true;
    this.#state = "Connecting";
    this.#host.changed();
    await this.#offer();
  }

  /** Back after a reload: our media are gone. */
  resume() {
    this.#say("resume", {});
    this.#repeat();
  }

  /** The devices are here again. */
  async ready() {
    this.#repeat();
    if (this.#state === "Reconnecting") await this.#repair();
  }

  yieldTo(invite) {
    this.callId = invite.callId;
    this.peer = invite.caller;
    this.peerMuted = !invite.media.audio;
    this.peerVideo = invite.media.video;
    return this.accept();
  }

  hangup() {
    if (this.#state === "Incoming") this.end(reason("declined"), "reject");
    else if (this.direction === "Outgoing" && !this.#offers && !this.#attempts.size && !this.#everUp) {
      this.end(reason("local"), "cancel");
    } else this.end(reason("local"), "bye");
  }

  /** End it and say so. */
  end(why, type = "bye") {
    if (this.over) return;
    const told = type === "cancel" ? reason("cancelled") : why;
    this.#say(type, { reason: { code: told.code, subCode: told.subCode } });
    this.finish(why);
  }

  /** It is over. */
  finish(why) {
    if (this.over) return;
    this.#state = "Disconnected";
    this.reason = why;
    clearTimeout(this.#timer);
    for (const attempt of this.#attempts.values()) attempt.close();
    this.#attempts.clear();
    this.#active = null;
    if (this.#picture) URL.revokeObjectURL(this.#picture);
    this.#picture = null;
    this.#shown(null);
    this.#host.over();
    this.#host.changed();
  }

  set(wanted) {
    if (this.over) return;
    Object.assign(this, wanted);
    this.applyTracks();
    if (this.#state !== "Incoming" && this.#state !== "Ringing") this.#repeat();
    this.#host.changed();
  }

  /** The local tracks as they are wanted, in every peer connection. */
  applyTracks() {
    for (const attempt of this.#attempts.values()) attempt.applyTracks(this.#tracks());
  }

  sendData(channel, payload) { return this.#active?.sendData(channel, payload) ?? false; }

  async stats() { return this.#active ? this.#active.pc.getStats() : null; }

  /** The WebSocket is gone, or is back. */
  signalling(up) {
    if (up && this.#state === "Reconnecting") {
      this.#tries = 0;
      this.#repair();
    }
  }

  // --- what the appliance says --------------------------------------------------------------------------------------

  receive(message) {
    if (this.over) return;
    switch (message.type) {
      case "ringing":
        if (this.#state === "Connecting" && !this.#attempts.size) this.#become("Ringing");
        break;
      case "picture": this.#show(message.jpeg); break;
      case "accept":
        this.peerMuted = !message.media.audio;
        this.peerVideo = message.media.video;
        this.peer = { ...this.peer, displayName: message.peer.displayName || this.peer.displayName };
        if (!this.#offers && !this.#attempts.size) this.#answer(0, message.sdp);
        break;
      case "answer": this.#attempts.get(0)?.take(message.sdp); break;
      case "reanswer":
        if (message.generation === this.#generation && this.#attempts.has(message.generation)) {
          this.#attempts.get(message.generation).take(message.sdp);
          if (this.#state === "Reconnecting") this.#again(ATTEMPT_MS);
        }
        break;
      case "reoffer":
        if (!this.#offers && message.generation > this.#generation) this.#answer(message.generation, message.sdp);
        break;
      case "settle": this.#settle(message.generation); break;
      case "lost":
        if (this.#offers && this.#state === "Connected" && message.generation >= this.#carrying) this.#lost();
        break;
      case "move": this.#move(message.generation); break;
      case "resume": this.#resumed(); break;
      case "candidate": this.#candidate(message); break;
      case "update": this.#updated(message); break;
      case "cancel": this.finish(message.reason.code === 487 ? message.reason : reason("cancelled")); break;
      case "answeredElsewhere": this.finish(reason("elsewhere")); break;
      case "reject": this.finish(message.reason.code ? message.reason : reason("declined")); break;
      case "bye": this.finish(remoteReason(message.reason)); break;
      default: break; // of a newer appliance
    }
  }

  #updated({ seq, muted, held, video, watching = true }) {
    if (seq <= this.#peerSeq) return;
    this.#peerSeq = seq;
    Object.assign(this, { peerMuted: muted, peerHeld: held, peerVideo: video });
    if (watching !== this.#watched) {
      this.#watched = watching;
      this.applyTracks();
    }
    this.#host.changed();
  }

  #show(jpeg) {
    if (this.#state !== "Incoming") return;
    const bytes = Uint8Array.from(atob(jpeg), (char) => char.charCodeAt(0));
    if (this.#picture) URL.revokeObjectURL(this.#picture);
    this.#picture = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
    this.#host.changed();
  }

  // --- peer connections ---------------------------------------------------------------------------------------------

  async #offer() {
    this.#generation += 1;
    const generation = this.#generation;
    const attempt = this.#open(generation);
    attempt.prepare(this.#tracks());
    const sdp = await attempt.offer();
    if (!this.#attempts.has(generation)) return; // replaced meanwhile
    if (generation === 0) {
      this.#say("accept", { sdp, peer: this.#host.me(), media: this.#sends() });
      this.#repeat();
    } else this.#say("reoffer", { generation, sdp });
    attempt.trickle();
  }

  async #answer(generation, offer) {
    if (this.#state === "Ringing") this.#become("Connecting");
    this.#dropStale();
    this.#generation = generation;
    const attempt = this.#open(generation);
    let sdp;
    try {
      sdp = await attempt.answer(offer, () => this.#tracks());
    } catch {
      if (this.#attempts.get(generation) !== attempt) return; // closed meanwhile
      this.#drop(generation);
      if (!this.#everUp) this.end(reason("noCodec"));
      return;
    }
    if (!this.#attempts.has(generation)) return;
    if (generation === 0) {
      this.#say("answer", { sdp });
      this.#repeat();
    } else {
      this.#say("reanswer", { generation, sdp });
      if (this.#state === "Reconnecting") this.#again(ATTEMPT_MS); // asked again sooner it would give up what is up there
    }
    attempt.trickle();
  }

  #open(generation) {
    const attempt = new Attempt({
      up: () => this.#up(generation),
      failed: () => this.#failed(generation),
      silent: () => { if (this.#active === attempt && this.#state === "Connected") this.#lost(); },
      sound: () => { if (this.#active === attempt && this.#state === "Reconnecting") this.#sound(generation); },
      due: () => !this.held && !this.peerHeld && (!this.peerMuted || this.peerVideo),
      candidate: (fields) => this.#say("candidate", { generation, ...fields }),
      data: (message) => this.#host.data(message),
    });
    this.#attempts.set(generation, attempt);
    const early = this.#early.filter((message) => message.generation === generation);
    this.#early = this.#early.filter((message) => message.generation > generation);
    for (const message of early) attempt.take_candidate(message);
    return attempt;
  }

  #candidate(message) {
    const attempt = this.#attempts.get(message.generation);
    if (attempt) attempt.take_candidate(message);
    else if (message.generation > this.#generation && this.#early.length < MAX_CANDIDATES) this.#early.push(message);
  }

  #up(generation) {
    const attempt = this.#attempts.get(generation);
    if (!attempt || this.over) return;
    for (const other of [...this.#attempts.keys()]) if (other !== generation) this.#drop(other);
    clearTimeout(this.#timer);
    this.#tries = 0;
    this.#active = attempt;
    this.#everUp = true;
    this.since ??= Date.now();
    this.#shown(attempt.remote);
    this.#become("Connected");
  }

  #failed(generation) {
    this.#drop(generation);
    if (!this.#everUp) this.end(reason("iceFailed"));
    else if (this.#state === "Connected" && !this.#active) {
      if (!this.#attempts.size) this.#lost();
      else this.#after(SETTLE_MS, () => { if (!this.#active && this.#state === "Connected") this.#lost(); });
    }
  }

  /** What there is still carries, and the appliance knows a better path: a new connection beside it. While the first one
   * is being built the appliance's network has changed: a new one in its place. */
  #move(generation) {
    const attempt = this.#attempts.get(generation);
    if (!this.#offers || !attempt || generation !== this.#generation) return;
    if (this.#state === "Connected" && attempt === this.#active) this.#offer();
    else if (!this.#everUp && generation < JOINS - 1) {
      this.#dropStale();
      this.#offer();
    }
  }

  #lost() {
    this.#tries = 0;
    this.#become("Reconnecting");
    this.#repair();
  }

  /** The next attempt, or the request for one; waits for the WebSocket where that is gone too. */
  async #repair() {
    clearTimeout(this.#timer);
    if (this.#state !== "Reconnecting" || !this.#host.connected()) return;
    this.#again(REPAIR_MS[Math.min(this.#tries, REPAIR_MS.length - 1)]);
    this.#tries += 1;
    if (!this.#offers) {
      this.#say("lost", { generation: Math.max(this.#generation, 0) });
      return;
    }
    this.#dropStale();
    await this.#offer();
  }

  #again(ms) { this.#after(ms, () => this.#repair()); }

  #after(ms, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, ms);
  }

  #sound(generation) {
    clearTimeout(this.#timer);
    if (this.#offers && this.#attempts.size > 1) {
      for (const other of [...this.#attempts.keys()]) if (other !== generation) this.#drop(other);
      this.#say("settle", { generation });
    }
    this.#become("Connected");
  }

  #settle(generation) {
    if (this.#offers) return;
    if (!this.#attempts.has(generation)) {
      this.#say("lost", { generation });
      return;
    }
    for (const other of [...this.#attempts.keys()]) if (other !== generation) this.#drop(other);
  }

  #resumed() {
    if (!this.#everUp) return;
    for (const other of [...this.#attempts.keys()]) this.#drop(other);
    this.#peerSeq = -1;
    this.#repeat();
    this.#lost();
  }

  #dropStale() {
    for (const [generation, attempt] of [...this.#attempts]) if (attempt !== this.#active) this.#drop(generation);
  }

  #drop(generation) {
    const attempt = this.#attempts.get(generation);
    this.#attempts.delete(generation);
    if (this.#active === attempt) this.#active = null;
    attempt?.close();
  }

  // --- small things -------------------------------------------------------------------------------------------------

  #become(state) {
    this.#state = state;
    this.#host.changed();
  }

  #shown(stream) {
    if (this.#remote === stream) return;
    this.#remote = stream;
    this.#host.remote(stream);
  }

  #say(type, fields) { this.#host.say(type, { callId: this.callId, ...fields }); }

  #repeat() {
    this.#seq += 1;
    const { audio, video } = this.#sends(); // without a microphone as well: sound that never comes must not be waited for
    this.#say("update", { seq: this.#seq, muted: !audio, held: this.held, video });
  }

  #sends() {
    const has = this.#host.sends();
    return { audio: has.audio && !this.muted, video: has.video && this.video };
  }

  #tracks() {
    const stream = this.#host.stream();
    const find = (kind) => stream?.getTracks().find((track) => track.kind === kind) ?? null;
    const audio = find("audio");
    if (audio) audio.enabled = !this.muted && !this.held; // silence is sent, so the line stays alive
    return { audio, video: this.video && !this.held && this.#watched ? find("video") : null };
  }
}

/** One RTCPeerConnection of a call: a generation. */
class Attempt {
  #tell; #transceivers = {}; #trickles = false; #waiting = []; #candidates = []; #described = false; #channel = null;
  #heard = -1; #heardAt = performance.now(); #silent = false; #watch = 0; #closed = false; #taken = 0; #wasUp = false;

  constructor(tell) {
    this.#tell = tell;
    // No ICE servers: the appliance is reached on its own addresses, or relays by its own TURN candidates.
    this.pc = new RTCPeerConnection({ iceServers: [], bundlePolicy: "max-bundle" });
    this.remote = new MediaStream();
    this.pc.ontrack = ({ track }) => this.remote.addTrack(track);
    this.pc.onicecandidate = ({ candidate }) => this.#gathered(candidate);
    this.pc.ondatachannel = ({ channel }) => { if ([DATA_LABEL, LOSSY_LABEL].includes(channel.label)) this.#adopt(channel); };
    this.pc.onconnectionstatechange = () => this.#changed();
  }

  /** For an offer: one audio and one video line, each both ways where there is a device. */
  prepare(tracks) {
    this.#adopt(this.pc.createDataChannel(DATA_LABEL));
    for (const kind of ["audio", "video"]) {
      const transceiver = this.pc.addTransceiver(kind, { direction: "sendrecv" });
      this.#transceivers[kind] = transceiver;
      prefer(transceiver, kind);
    }
    this.applyTracks(tracks);
  }

  async offer() {
    await this.pc.setLocalDescription(await this.pc.createOffer());
    return this.pc.localDescription.sdp;
  }

  async answer(offer, tracks) {
    await this.pc.setRemoteDescription({ type: "offer", sdp: offer });
    for (const transceiver of this.pc.getTransceivers()) {
      const kind = transceiver.receiver.track.kind;
      if (this.#transceivers[kind]) continue;
      this.#transceivers[kind] = transceiver;
      transceiver.direction = "sendrecv"; // both ways, so that video can start later without a new negotiation
      prefer(transceiver, kind);
    }
    await this.applyTracks(tracks());
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    this.#describe();
    return this.pc.localDescription.sdp;
  }

  async take(answer) {
    try {
      await this.pc.setRemoteDescription({ type: "answer", sdp: answer });
    } catch {
      if (!this.#closed) this.#tell.failed();
      return;
    }
    this.#describe();
  }

  async applyTracks(tracks) {
    await Promise.all(Object.entries(this.#transceivers).map(([kind, transceiver]) =>
      transceiver.sender.track === tracks[kind] ? null : transceiver.sender.replaceTrack(tracks[kind])));
  }

  /** Our description is on its way: candidates may follow. */
  trickle() {
    this.#trickles = true;
    for (const candidate of this.#waiting.splice(0)) this.#gathered(candidate);
  }

  take_candidate(message) {
    if (this.#taken >= MAX_CANDIDATES) return;
    this.#taken += 1;
    if (this.#described) this.#add(message);
    else this.#candidates.push(message);
  }

  sendData(channel, payload) {
    if (this.#channel?.readyState !== "open") return false;
    this.#channel.send(JSON.stringify({ channel, payload }));
    return true;
  }

  close() {
    this.#closed = true;
    clearInterval(this.#watch);
    this.pc.close();
  }

  #gathered(candidate) {
    if (!this.#trickles) {
      this.#waiting.push(candidate);
      return;
    }
    this.#tell.candidate(candidate
      ? { candidate: candidate.candidate, mid: candidate.sdpMid, line: candidate.sdpMLineIndex }
      : { candidate: "", mid: null, line: null });
  }

  #describe() {
    this.#described = true;
    for (const message of this.#candidates.splice(0)) this.#add(message);
  }

  #add({ candidate, mid, line }) {
    const init = candidate ? { candidate, sdpMid: mid, sdpMLineIndex: line } : null;
    this.pc.addIceCandidate(init).catch(() => {}); // a candidate of a closed connection, or of a network we lack
  }

  #adopt(channel) {
    if (channel.label === DATA_LABEL) this.#channel = channel;
    let parts = []; // of a message in several frames, which come in order; what is torn is dropped
    channel.onmessage = ({ data }) => {
      try {
        const { channel: label, payload, part = 0, of = 1 } = JSON.parse(data);
        if (typeof label !== "string" || typeof payload !== "string") return;
        parts = part === 0 ? [payload] : parts.length === part ? [...parts, payload] : [];
        if (parts.length === of) this.#tell.data({ channel: label, payload: parts.join("") });
      } catch {
        // not a message of ours
      }
    };
  }

  #changed() {
    if (this.#closed) return;
    if (this.pc.connectionState === "connected" && !this.#wasUp) {
      this.#wasUp = true;
      this.#heardAt = performance.now();
      this.#watch = setInterval(() => this.#listen(), 500);
      this.#tell.up();
    } else if (this.pc.connectionState === "failed") this.#tell.failed();
  }

  /** Bytes received on the transport tell life; RTCP, data and consent count too. */
  async #listen() {
    const stats = await this.pc.getStats();
    if (this.#closed) return;
    let heard = 0;
    for (const row of stats.values()) if (row.type === "transport") heard += row.bytesReceived;
    const now = performance.now();
    if (heard !== this.#heard || !this.#tell.due()) {
      this.#heard = heard;
      this.#heardAt = now;
      if (this.#silent) {
        this.#silent = false;
        this.#tell.sound();
      }
    } else if (!this.#silent && now - this.#heardAt >= SILENT_MS - 500) {
      this.#silent = true;
      this.#tell.silent();
    }
  }
}

/** H.264 with its repair where the browser has it: the appliance passes its camera's H.264 through. */
function prefer(transceiver, kind) {
  const wanted = kind === "video" ? /^video\/(h264|rtx)$/i : /^audio\/opus$/i;
  const codecs = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  const kept = codecs.filter(({ mimeType, sdpFmtpLine = "" }) => wanted.test(mimeType)
    && !(/h264/i.test(mimeType) && /packetization-mode=0/.test(sdpFmtpLine)));
  if (kept.some(({ mimeType }) => !/rtx/i.test(mimeType))) transceiver.setCodecPreferences?.(kept);
}
