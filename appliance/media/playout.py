"""Play-out of one peer's sound: Opus to PCM on the loop, a small adaptive buffer, 10 ms blocks to the audio thread.

The audio thread never waits: what is missing is silence, and is counted (W3C ``concealedSamples``). Delay grows after
an underrun and shrinks again, and clock drift is taken up by single blocks.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Final

import av

from appliance.media.sound import BLOCK_BYTES, RATE, SILENCE

__all__ = ["Playout", "VoiceDecoder", "VoiceIn"]

log = logging.getLogger(__name__)

START_BLOCKS: Final = 4  # of 10 ms: 40 ms before the first sound
MAX_START_BLOCKS: Final = 16
LIMIT_BLOCKS: Final = 40  # 400 ms; older sound is thrown away
SHRINK_AFTER: Final = 25  # blocks (250 ms) in which more than needed waited all the time: some are dropped
SHRINK_STEP: Final = 3  # at most, of one window: a burst at the start (Chromium: 150 ms) is gone within 2 s
RELAX_AFTER: Final = 1000  # blocks (10 s) without an underrun: the start buffer shrinks by one
MAX_LOST_PACKETS: Final = 10  # a longer gap is not filled: the sender paused


class VoiceDecoder:
    """libopus to 48 kHz mono; a stereo stream is mixed down by the decoder itself."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "r")
        codec.sample_rate = RATE
        codec.layout = "mono"
        codec.format = av.AudioFormat("s16")
        codec.open()
        self._codec = codec

    def decode(self, data: bytes) -> bytes:
        """PCM of one packet. Raises av.FFmpegError for a packet that is not Opus."""
        pcm = b""
        for frame in self._codec.decode(av.Packet(data)):
            pcm += bytes(frame.planes[0])[: frame.samples * 2]
        return pcm


class Playout:
    """Blocks between the loop (``put``) and the audio thread (``take``)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: deque[bytes] = deque()
        self._rest = b""
        self._playing = False
        self._target = START_BLOCKS
        self._calm = 0
        self._least = LIMIT_BLOCKS
        self._since_shrink = 0
        self.silent = False  # received but not played (hold, speaker mute of this session)
        self.played = 0  # blocks with sound of the peer
        self.concealed = 0  # blocks of silence in its stead
        self.underruns = 0
        self.dropped = 0
        self.delay_total = 0  # sum over played blocks of the blocks waiting behind them

    def put(self, pcm: bytes) -> None:
        with self._lock:
            self._rest += pcm
            while len(self._rest) >= BLOCK_BYTES:
                self._blocks.append(self._rest[:BLOCK_BYTES])
                self._rest = self._rest[BLOCK_BYTES:]
            while len(self._blocks) > LIMIT_BLOCKS:
                self._blocks.popleft()
                self.dropped += 1

    def take(self) -> bytes | None:
        """The next 10 ms for the loudspeaker, None where there is nothing to play. Never waits."""
        with self._lock:
            waiting = len(self._blocks)
            if not self._playing:
                if waiting < self._target:
                    return None
                self._playing = True
                while len(self._blocks) > self._target:  # nothing has been heard yet: no delay needs to be kept
                    self._blocks.popleft()
                    self.dropped += 1
                waiting = len(self._blocks)
                self._calm, self._least, self._since_shrink = 0, LIMIT_BLOCKS, 0
            if not waiting:
                self._playing = False
                self.underruns += 1
                self.concealed += 1
                self._target = min(MAX_START_BLOCKS, self._target + 1)
                return None
            self._adapt(waiting)
            self.played += 1
            self.delay_total += len(self._blocks)
            block = self._blocks.popleft()
        return None if self.silent else block

    @property
    def delay_ms(self) -> int:
        return len(self._blocks) * 10

    def _adapt(self, waiting: int) -> None:
        self._least = min(self._least, waiting)
        self._calm += 1
        self._since_shrink += 1
        if self._calm >= RELAX_AFTER:
            self._calm = 0
            self._target = max(START_BLOCKS, self._target - 1)
        if self._since_shrink >= SHRINK_AFTER:
            for _ in range(min(SHRINK_STEP, self._least - self._target)):
                self._blocks.popleft()
                self.dropped += 1
            self._since_shrink, self._least = 0, LIMIT_BLOCKS


class VoiceIn:
    """Packets of one peer into its play-out. An AudioSink for RtpReceiveStream."""

    def __init__(self) -> None:
        self.playout = Playout()
        self._decoder = VoiceDecoder()
        self._packet_bytes = 2 * BLOCK_BYTES
        self.undecodable = 0
        self.concealed_samples = 0
        self.concealments = 0
        self.samples = 0

    def on_audio(self, data: bytes, lost: int) -> None:
        if 0 < lost <= MAX_LOST_PACKETS:
            self._conceal(lost)
        try:
            pcm = self._decoder.decode(data) if data else b""
        except av.FFmpegError:
            self.undecodable += 1
            self._conceal(1)
            return
        if pcm:
            self._packet_bytes = len(pcm)
            self.samples += len(pcm) // 2
            self.playout.put(pcm)

    def _conceal(self, packets: int) -> None:
        self.concealments += 1
        gap = self._packet_bytes * packets
        self.concealed_samples += gap // 2
        self.playout.put((SILENCE * (gap // BLOCK_BYTES + 1))[:gap])
