// Eyes and ears of a bench inside a page, installed before the page's own scripts. It changes nothing of the call: it
// sees the page's peer connections and devices as they are made and reads clones of their tracks.
//
// All times are performance.now() of this page; the bench maps them to CLOCK_MONOTONIC. Camera frames carry the
// browser's own capture time on CLOCK_MONOTONIC (VideoFrame.timestamp, in microseconds).
//
//   bench.marks             name -> first time it happened
//   bench.record(what)      keep samples and picture marks of these tracks ("own.audio", "far.video", ...) from now on
//   bench.take()            what was kept; forgets it
(() => {
  const COLUMNS = 20, ROWS = 16, LOUD = 1e-4; // mean square: -40 dB of full scale
  const bench = window.bench = { marks: {}, kept: {}, wanted: new Set(), pcs: [] };
  const mark = (name, at = performance.now()) => { bench.marks[name] ??= at; };

  bench.record = (names) => { bench.kept = {}; bench.wanted = new Set(names); };
  bench.take = () => {
    const kept = bench.kept;
    bench.kept = {};
    bench.wanted.clear();
    for (const one of Object.values(kept)) if (one.pcm) one.pcm = text(one.pcm);
    return kept;
  };

  /** 16 bit samples as base64. */
  function text(blocks) {
    const parts = [];
    for (const block of blocks) {
      const bytes = new Uint8Array(block.buffer);
      parts.push(String.fromCharCode(...bytes));
    }
    return btoa(parts.join(""));
  }

  async function listen(track, name) {
    // Room for a second: what a busy page does not read in time is dropped otherwise.
    const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 100 }).readable.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const now = performance.now(), wanted = bench.wanted.has(name);
      if (wanted || bench.marks[`${name}.loud`] === undefined) {
        const samples = new Float32Array(value.numberOfFrames);
        value.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
        if (samples.reduce((sum, one) => sum + one * one, 0) / samples.length > LOUD) mark(`${name}.loud`, now);
        if (wanted) {
          const kept = bench.kept[name] ??= { rate: value.sampleRate, at: [], count: [], pcm: [] };
          kept.at.push(now);
          kept.count.push(samples.length);
          kept.pcm.push(Int16Array.from(samples, (one) => Math.max(-1, Math.min(1, one)) * 32767));
        }
      }
      value.close();
    }
  }

  async function watch(track, name) {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    let buffer = new Uint8Array(0);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const now = performance.now();
      mark(`${name}.frame`, now);
      if (bench.wanted.has(name)) {
        const { width, height } = value.visibleRect;
        const rect = { x: value.visibleRect.x, y: value.visibleRect.y, width, height: (height * 3 / 8) & ~1 };
        const size = value.allocationSize({ rect });
        if (buffer.length < size) buffer = new Uint8Array(size);
        const [luma] = await value.copyTo(buffer, { rect });
        const seen = read(buffer.subarray(luma.offset), luma.stride, width, height);
        const kept = bench.kept[name] ??= { frames: [], times: [], unread: 0, width, height };
        Object.assign(kept, { width, height });
        kept.times.push(now);
        if (seen) kept.frames.push([now, value.timestamp, ...seen]);
        else kept.unread += 1;
      }
      value.close();
    }
  }

  /** [counter, clock in ms] of the test picture (hw/sim/pattern.py), null when it cannot be read. */
  function read(luma, stride, width, height) {
    const level = (column, row) => {
      const x = Math.floor((2 * column + 1) * width / (2 * COLUMNS));
      const y = Math.floor((2 * row + 1) * height / (2 * ROWS));
      let sum = 0;
      for (let dy = -1; dy <= 1; dy++) for (let dx = -1; dx <= 1; dx++) sum += luma[(y + dy) * stride + x + dx];
      return sum / 9;
    };
    let white = 255, black = 0;
    for (let row = 1; row < 5; row++) {
      const ends = [level(1, row), level(18, row)];
      if (row % 2 === 0) ends.reverse();
      white = Math.min(white, ends[0]);
      black = Math.max(black, ends[1]);
    }
    if (white - black < 40) return null;
    const bytes = [0, 0, 0, 0, 0, 0, 0, 0];
    for (let n = 0; n < 64; n++)
      if (level(2 + n % 16, 1 + (n >> 4)) > (white + black) / 2) bytes[n >> 3] |= 128 >> (n & 7);
    let crc = 0;
    for (const byte of bytes.slice(0, 7)) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = crc & 128 ? (crc << 1 ^ 7) & 255 : crc << 1;
    }
    if (crc !== bytes[7]) return null;
    return [bytes[0] << 16 | bytes[1] << 8 | bytes[2], (bytes[3] << 24 | bytes[4] << 16 | bytes[5] << 8 | bytes[6]) >>> 0];
  }

  const tap = (track, side) => (track.kind === "audio" ? listen : watch)(track, `${side}.${track.kind}`);

  const Connection = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Connection {
    constructor(...settings) {
      super(...settings);
      bench.pcs.push(this);
      this.addEventListener("track", ({ track }) => tap(track.clone(), "far"));
    }
  };

  const take = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (take) navigator.mediaDevices.getUserMedia = async (wish) => {
    const stream = await take(wish);
    for (const track of stream.getTracks()) tap(track.clone(), "own");
    return stream;
  };

  // The operator page shows that it rings: its view is there, and the frame that paints it begins.
  addEventListener("DOMContentLoaded", () => {
    const view = document.querySelector("#view-incoming");
    if (!view) return;
    new MutationObserver(() => {
      if (view.hidden) return;
      mark("ring");
      requestAnimationFrame(() => mark("ring.painted"));
    }).observe(view, { attributes: true, attributeFilter: ["hidden"] });
  });
})();
