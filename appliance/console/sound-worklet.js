// Audio thread of the front panel: plays the board's loudspeaker, records this tab's microphone. 48 kHz mono.

const START = 2880; // samples buffered before playing (60 ms): rides out the jitter of the socket
const LIMIT = 14400; // 300 ms: whatever is older is thrown away, so the delay cannot grow

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.blocks = [];
    this.offset = 0;
    this.waiting = 0;
    this.playing = false;
    this.peak = 0;
    this.ticks = 0;
    this.port.onmessage = ({ data }) => {
      this.blocks.push(data);
      this.waiting += data.length;
      while (this.waiting > LIMIT) {
        this.waiting -= this.blocks[0].length - this.offset;
        this.offset = 0;
        this.blocks.shift();
      }
    };
  }

  process(_inputs, [[out]]) {
    if (!this.playing && this.waiting >= START) this.playing = true;
    for (let i = 0; i < out.length && this.playing; i++) {
      if (!this.blocks.length) {
        this.playing = false;
        break;
      }
      out[i] = this.blocks[0][this.offset++] / 32768;
      this.waiting--;
      this.peak = Math.max(this.peak, Math.abs(out[i]));
      if (this.offset === this.blocks[0].length) {
        this.blocks.shift();
        this.offset = 0;
      }
    }
    if (++this.ticks % 24 === 0) { // every 64 ms
      this.port.postMessage(this.peak);
      this.peak = 0;
    }
    return true;
  }
}

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(960); // 20 ms
    this.filled = 0;
  }

  process([input]) {
    for (const sample of input[0] ?? []) {
      this.block[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.filled === this.block.length) {
        const full = this.block.buffer;
        this.port.postMessage(full, [full]);
        this.block = new Int16Array(960);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("player", Player);
registerProcessor("recorder", Recorder);
