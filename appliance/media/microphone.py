"""Board to peer: the microphone, encoded once for all sessions that send it in one codec."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

import av

from appliance.handover import Inbox
from appliance.media.fed_track import FedTrack
from appliance.media.opus import DTX_BYTES, OpusEncoder
from appliance.media.sound import BLOCK_BYTES, RATE, dbfs, mean_square
from appliance.media.voice_codecs import OPUS, Encoder, VoiceCodec

__all__ = ["MicrophoneFeed", "MicrophoneTrack"]

# Opus mono speech with copies of every frame in the next one (stock aiortc: stereo 96 kbit/s without). Measured with
# recorded speech, PESQ wideband without loss and at 2, 5 and 10 %: 3.99 3.80 3.65 2.79; 32 kbit/s without copies:
# 4.01 3.26 2.48 1.73. So copies are always there: the first loss is repaired as well.
VOICE_BPS: Final = 40_000
VOICE_THIN_BPS: Final = 24_000  # on a path so thin that the picture has to pause for the voice
THIN_PATH_BPS: Final = (130_000, 180_000)  # which begins below the first and ends above the second
VOICE_LEAST_BPS: Final = 16_000  # a peer that asks for less (maxaveragebitrate) is not understood any more
VOICE_COMPLEXITY: Final = 5  # of 10: two thirds of the CPU of the library's 9, which a small board feels
LOSS_LEAST: Final = 10  # per cent of loss that the copies are sized for at least: the library makes none below 6
LOSS_MOST: Final = 20
LOSS_HIGH: Final = 10  # above, for a while, silence is not sent: fewer packets on a bad path
LASTING: Final = 0.1  # weight of a report in the loss that counts for that: one bad second is no bad path
LOSS_FORGET: Final = 0.9  # per report, about one a second: what was lost counts half after 7 s
DTX_REFRESH: Final = 20  # frames of a pause after which one is sent: 400 ms, keeps NAT bindings and the peer's noise
FRAME_BLOCKS: Final = 2  # of 10 ms: one Opus frame of 20 ms
FRAMES_WAITING: Final = 3  # on their way from the audio thread to the loop
VOICE_QUEUE: Final = 5  # encoded frames waiting in one session, 100 ms


class MicrophoneTrack(FedTrack):
    """What one session sends of the microphone."""

    kind = "audio"

    def __init__(self, feed: MicrophoneFeed) -> None:
        super().__init__(VOICE_QUEUE)
        self._feed = feed
        self._paused = 0
        self._format: Mapping[str, str] = {}
        self._thin = False
        self.codec = OPUS
        self.loss = 0.0
        """Share of packets that the peer lost of late, 0..1: the worst, slowly forgotten."""
        self._lasting = 0.0
        self.on_pause: Callable[[], None] = _nothing

    def _turned(self) -> None:
        """Off in a hold and an audio-less call; mute is silence and is the feed's."""
        if self.sending:
            self.on_pause()
        self._feed.changed(self)

    @property
    def skips_silence(self) -> bool:
        """DTX: where the peer prefers it, and where its path loses so much that fewer packets help."""
        return self.codec is OPUS and (self._format.get("usedtx") == "1" or self._lasting * 100 > LOSS_HIGH)

    @property
    def bit_rate(self) -> int:
        """Bits per second that the encoder is set to."""
        return self._feed.bit_rate if self.codec is OPUS else self.codec.bit_rate

    @property
    def most_bps(self) -> int:
        """What the path carries and the peer wishes, in bits per second of Opus."""
        most = VOICE_THIN_BPS if self._thin else VOICE_BPS
        asked = self._format.get("maxaveragebitrate", "")
        return min(most, max(VOICE_LEAST_BPS, int(asked))) if asked.isdecimal() and len(asked) < 8 else most

    def path(self, bits_per_second: float) -> None:
        """What the path to this peer carries in all."""
        thin = bits_per_second < THIN_PATH_BPS[self._thin]
        if thin is not self._thin:
            self._thin = thin
            self._feed.adapt()

    def negotiated(self, codec: VoiceCodec, parameters: Mapping[str, str]) -> None:
        """The codec of this session, and what the peer wishes of it (its ``a=fmtp``; Opus: RFC 7587 6.1)."""
        if codec is not self.codec:
            self._items.clear()
        self.codec, self._format = codec, parameters
        self._feed.adapt()

    def loss_reported(self, fraction: float) -> None:
        """A receiver report of the peer: the share lost since the one before, 0..1."""
        self.loss = max(fraction, self.loss * LOSS_FORGET)
        self._lasting += (fraction - self._lasting) * LASTING
        self._feed.adapt()

    def push(self, packet: av.Packet[Any], level_dbov: int) -> None:
        if self.skips_silence and packet.size <= DTX_BYTES:
            self._paused += 1
            if self._paused > 1 and self._paused % DTX_REFRESH:
                self.on_pause()
                return
        else:
            self._paused = 0
        self.dropped += len(self._items) == VOICE_QUEUE
        self.level_dbov = level_dbov
        self._put(packet)

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return self._feed.captured_at((packet.pts or 0) * RATE // self.codec.clock_rate)


class MicrophoneFeed:
    """One fan-out from the audio exchange: 10 ms blocks in on the audio thread, Opus packets out on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._inbox: Inbox[bytes] = Inbox(loop, FRAMES_WAITING, "microphone", deliver=self._deliver)
        self._encoder = OpusEncoder(VOICE_BPS, loss=LOSS_LEAST)
        self._encoder.complexity(VOICE_COMPLEXITY)
        self._others: dict[VoiceCodec, Encoder] = {}  # of codecs but Opus that some track sends
        self._tracks: set[MicrophoneTrack] = set()
        self._half = b""
        self._pts = 0
        self._anchor = 0.0  # monotonic time of pts 0
        self.wanted = False  # read on the audio thread
        self.encoded = 0

    @property
    def dropped(self) -> int:
        return self._inbox.dropped

    @property
    def bit_rate(self) -> int:
        return self._encoder.bit_rate

    def track(self) -> MicrophoneTrack:
        return MicrophoneTrack(self)

    def put(self, block: bytes) -> None:
        """On the audio thread: 10 ms that should leave. Two blocks cross to the loop at once: half the wake-ups."""
        if not self.wanted:
            self._half = b""
            return
        if self._half:
            self._inbox.put(self._half + block)
            self._half = b""
        else:
            self._half = block

    def changed(self, track: MicrophoneTrack) -> None:
        if track.sending:
            self._tracks.add(track)
        else:
            self._tracks.discard(track)
        self.wanted = bool(self._tracks)
        for codec in set(self._others) - {other.codec for other in self._tracks}:
            del self._others[codec]
        self.adapt()

    def adapt(self) -> None:
        """Size the encoder's copies, rate and pauses by the path that needs them most."""
        worst = max((track.loss for track in self._tracks), default=0.0)
        loss = max(LOSS_LEAST, min(LOSS_MOST, -(-int(worst * 100) // 5) * 5))
        rate = min([VOICE_BPS, *(track.most_bps for track in self._tracks)])
        dtx = any(track.skips_silence for track in self._tracks)
        encoder = self._encoder
        if (encoder.loss, encoder.bit_rate, encoder.dtx) != (loss, rate, dtx):
            encoder.loss, encoder.bit_rate, encoder.dtx = loss, rate, dtx

    def captured_at(self, pts: int) -> float:
        return self._anchor + pts / RATE

    def close(self) -> None:
        self.wanted = False
        self._inbox.close()

    def _deliver(self, pcm: bytes) -> None:
        now = time.monotonic()
        begun = now - len(pcm) / 2 / RATE
        if not self._anchor:
            self._anchor = begun
        behind = begun - self.captured_at(self._pts)
        if behind > 0.2:  # nobody listened meanwhile, or blocks were lost: the RTP time moves on with the clock
            self._pts += int(behind * RATE) // 960 * 960
        else:
            self._anchor += behind * 0.01  # follows the drift between sound card and monotonic clock
        level = round(dbfs(mean_square(pcm)))
        encoded: dict[VoiceCodec, bytes] = {}
        for track in list(self._tracks):
            codec = track.codec
            if codec not in encoded:
                encoded[codec] = self._encode(codec, pcm)
            packet = av.Packet(encoded[codec])
            packet.pts, packet.time_base = self._pts * codec.clock_rate // RATE, Fraction(1, codec.clock_rate)
            track.push(packet, level)
        self._pts += BLOCK_BYTES // 2 * FRAME_BLOCKS

    def _encode(self, codec: VoiceCodec, pcm: bytes) -> bytes:
        self.encoded += 1
        if codec.encoder is None:
            return self._encoder.encode(pcm)
        if codec not in self._others:
            self._others[codec] = codec.encoder()
        return self._others[codec].encode(pcm)


def _nothing() -> None:
    return None
