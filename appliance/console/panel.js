// The front panel's live stream: screen, loudspeaker, and this tab's camera and microphone lent to the board.
// Frames: one type byte, then the payload. 0x01 screen JPEG, 0x02 loudspeaker; 0x11 microphone, 0x12 camera JPEG.

const SCREEN = 0x01, SPEAKER = 0x02, MICROPHONE = 0x11, CAMERA = 0x12;
const PICTURE_MS = 100; // ten pictures a second are lent
const BACKLOG_BYTES = 256 * 1024; // of a connection that does not keep up: skip pictures

/** Events: "screen" (detail: Blob), "level" (detail: 0..1), "change". */
export class PanelStream extends EventTarget {
  constructor() {
    super();
    this.socket = null;
    this.listening = false;
    this.lending = false;
    this.context = null;
    this.player = null;
    this.lent = null;
    this.starting = null;
    this.retry = 0;
  }

  connect() {
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/sim`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      this.retry = 0;
      this.say({ watch: true, listen: this.listening, lend: this.lending });
    };
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.told(JSON.parse(data)) : this.received(data));
    socket.onclose = () => setTimeout(() => this.connect(), Math.min(5000, 500 * 2 ** this.retry++));
  }

  say(words) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(words));
  }

  told({ lend }) {
    if (lend === false && this.lending) this.stopLending("Another tab lends its camera and microphone now.");
  }

  received(buffer) {
    const kind = new Uint8Array(buffer, 0, 1)[0];
    if (kind === SCREEN) this.tell("screen", new Blob([new Uint8Array(buffer, 1)], { type: "image/jpeg" }));
    if (kind === SPEAKER && this.player) {
      const pcm = new Int16Array(buffer.slice(1));
      this.player.port.postMessage(pcm, [pcm.buffer]);
    }
  }

  /** Play the device's loudspeaker here. Call from a click: browsers start sound only then. */
  async setListening(on) {
    if (on && !this.player) {
      await this.audio();
      this.player = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
      this.player.port.onmessage = ({ data }) => this.tell("level", data);
      this.player.connect(this.context.destination);
    }
    this.listening = on;
    if (!on) this.tell("level", 0);
    this.say({ listen: on });
    this.tell("change");
  }

  /**
   * Lend this tab's camera and microphone. Throws the browser's error when it refuses them. Asked again meanwhile (a
   * double click) it is still the one start: a second stream would have nobody to stop it.
   */
  async startLending() {
    if (this.lending) return;
    this.starting ??= this.lend().finally(() => (this.starting = null));
    await this.starting;
  }

  async lend() {
    await this.audio();
    const media = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true },
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 15 } },
    });
    try {
      this.lent = await this.record(media);
    } catch (error) {
      for (const track of media.getTracks()) track.stop();
      throw error;
    }
    for (const track of media.getTracks()) track.onended = () => this.stopLending("The camera or microphone was taken away.");
    this.lending = true;
    this.say({ lend: true });
    this.tell("change");
  }

  /** Take sound and pictures of a stream; returns what stopLending needs. */
  async record(media) {
    const source = this.context.createMediaStreamSource(media);
    const recorder = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0, channelCount: 1,
      channelCountMode: "explicit" });
    recorder.port.onmessage = ({ data }) => this.frame(MICROPHONE, data);
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = media;
    await video.play();
    const canvas = document.createElement("canvas");
    canvas.width = 960; // the shape of the board's camera, so that nothing is letterboxed
    canvas.height = 540;
    source.connect(recorder);
    const timer = setInterval(() => this.picture(video, canvas), PICTURE_MS);
    return { media, source, recorder, timer, video };
  }

  stopLending(why = "") {
    if (!this.lent) return;
    clearInterval(this.lent.timer);
    this.lent.source.disconnect();
    this.lent.recorder.port.onmessage = null;
    for (const track of this.lent.media.getTracks()) {
      track.onended = null;
      track.stop();
    }
    this.lent.video.srcObject = null;
    this.lent = null;
    this.lending = false;
    this.say({ lend: false });
    this.tell("change", why);
  }

  picture(video, canvas) {
    if (!video.videoWidth || this.socket?.bufferedAmount > BACKLOG_BYTES) return;
    const scale = Math.max(canvas.width / video.videoWidth, canvas.height / video.videoHeight);
    const width = video.videoWidth * scale, height = video.videoHeight * scale;
    canvas.getContext("2d").drawImage(video, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
    canvas.toBlob(async (blob) => {
      if (blob && this.lent) this.frame(CAMERA, await blob.arrayBuffer());
    }, "image/jpeg", 0.8);
  }

  frame(kind, payload) {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const frame = new Uint8Array(1 + payload.byteLength);
    frame[0] = kind;
    frame.set(new Uint8Array(payload), 1);
    this.socket.send(frame);
  }

  async audio() {
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: 48000, latencyHint: "interactive" });
      await this.context.audioWorklet.addModule("/console/sound-worklet.js");
    }
    await this.context.resume();
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
