// Sounds of the operator page, made here: a ring for the incoming call, a soft tone for its end.

const RING_EVERY_MS = 2800;

export class Sounds {
  constructor() {
    this.context = null;
    this.timer = 0;
  }

  /** Unlock sound. Call from a click; browsers start sound only then. */
  async unlock() {
    this.context ??= new AudioContext();
    await this.context.resume();
  }

  ring(on) {
    if (on === Boolean(this.timer)) return;
    clearInterval(this.timer);
    this.timer = 0;
    if (!on || !this.context) return;
    this.chime();
    this.timer = setInterval(() => this.chime(), RING_EVERY_MS);
  }

  chime() {
    for (const [at, pitch] of [[0, 659.3], [0.18, 830.6], [0.36, 987.8], [0.8, 830.6], [0.98, 987.8]]) {
      this.note(at, pitch, 0.42, 0.22);
    }
  }

  ended() {
    if (!this.context) return;
    this.note(0, 440, 0.16, 0.12);
    this.note(0.17, 330, 0.3, 0.12);
  }

  note(at, pitch, seconds, volume) {
    const { context } = this;
    const begin = context.currentTime + at;
    const gain = context.createGain();
    gain.gain.setValueAtTime(0, begin);
    gain.gain.linearRampToValueAtTime(volume, begin + 0.012);
    gain.gain.exponentialRampToValueAtTime(0.001, begin + seconds);
    gain.connect(context.destination);
    for (const [ratio, share] of [[1, 1], [2, 0.22]]) {
      const tone = context.createOscillator();
      const mix = context.createGain();
      tone.frequency.value = pitch * ratio;
      mix.gain.value = share;
      tone.connect(mix).connect(gain);
      tone.start(begin);
      tone.stop(begin + seconds);
    }
  }
}

/** Level of a stream's sound, 0..1, on a logarithmic scale from -60 dB to full scale. */
export class Meter {
  constructor() {
    this.source = null;
    this.analyser = null;
    this.samples = null;
  }

  watch(context, stream) {
    this.source?.disconnect();
    this.source = null;
    if (!context || !stream?.getAudioTracks().length) return;
    this.analyser = context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.source = context.createMediaStreamSource(stream);
    this.source.connect(this.analyser);
  }

  level() {
    if (!this.source) return 0;
    this.analyser.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const sample of this.samples) sum += sample * sample;
    const decibel = 10 * Math.log10(sum / this.samples.length + 1e-9);
    return Math.max(0, Math.min(1, (decibel + 60) / 60));
  }
}
