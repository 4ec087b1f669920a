"""Board to peer: microphone and camera, each opened and encoded once and given to every session that sends.

Nothing is re-encoded: the camera's access units pass through, and one Opus encoder serves all sessions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any, Final

import av

from appliance.handover import Inbox
from appliance.media.congestion.allocation import Meter
from appliance.media.frame_rate import FrameRate
from appliance.media.ladder import Constraints, Ladder, Rung
from appliance.media.opus import DTX_BYTES, OpusEncoder
from appliance.media.quality_limit import Limit, QualityLimit
from appliance.media.rtp_send import EncodedTrack
from appliance.media.sound import BLOCK_BYTES, RATE, dbfs, mean_square
from appliance.media.voice_codecs import OPUS, Encoder, VoiceCodec
from appliance.tasks import background
from hw.api import Camera, DeviceMissingError, EncodedFrame, EncoderKind, HardwareError, VideoMode

__all__ = ["RETRY_S", "CameraFeed", "CameraTrack", "MicrophoneFeed", "MicrophoneTrack"]

log = logging.getLogger(__name__)

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
VOICE_QUEUE: Final = 5  # encoded frames waiting in one session, 100 ms
VIDEO_QUEUE: Final = 8  # access units waiting in one session
VIDEO_STALE: Final = 3  # so many waiting are thrown away for a key frame: it shows what they would have, sooner
KEY_INTERVAL_S: Final = 0.5  # key frames on request, all sessions together
BITRATE_STEP: Final = 0.05  # smaller changes are not worth a call to the encoder
SEEN_S: Final = 2.0  # the least time a camera that was looked through is told as open: a lamp people can notice
RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts to open a device

VIDEO_BASE: Final = Fraction(1, 90_000)


class MicrophoneTrack(EncodedTrack):
    """What one session sends of the microphone."""

    kind = "audio"

    def __init__(self, feed: MicrophoneFeed) -> None:
        super().__init__()
        self._feed = feed
        self._items: deque[av.Packet[Any]] = deque(maxlen=VOICE_QUEUE)
        self._ready = asyncio.Event()
        self._sending = False
        self._paused = 0
        self._format: Mapping[str, str] = {}
        self._thin = False
        self.codec = OPUS
        self.dropped = 0
        self.loss = 0.0
        """Share of packets that the peer lost of late, 0..1: the worst, slowly forgotten."""
        self._lasting = 0.0
        self.on_pause: Callable[[], None] = _nothing

    def set_sending(self, sending: bool) -> None:
        """False: nothing at all leaves (hold, audio-less call); mute is silence and is the feed's."""
        if sending == self._sending:
            return
        self._sending = sending
        self._items.clear()
        if sending:
            self.on_pause()
        self._feed.changed(self)

    @property
    def sending(self) -> bool:
        return self._sending

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
        self._items.append(packet)
        self.level_dbov = level_dbov
        self._ready.set()

    async def recv(self) -> av.Packet[Any]:
        while not self._items:
            self._ready.clear()
            await self._ready.wait()
        return self._items.popleft()

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return self._feed.captured_at((packet.pts or 0) * RATE // self.codec.clock_rate)

    def stop(self) -> None:
        self.set_sending(False)
        super().stop()


class MicrophoneFeed:
    """One fan-out from the audio exchange: 10 ms blocks in on the audio thread, Opus packets out on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._inbox: Inbox[bytes] = Inbox(loop, 5 // FRAME_BLOCKS + 1, "microphone", deliver=self._deliver)
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


class CameraTrack(EncodedTrack):
    """What one session sends of the camera. Begins with a key frame, and so again after every overflow."""

    kind = "video"

    def __init__(self, feed: CameraFeed) -> None:
        super().__init__()
        self._feed = feed
        self._items: deque[av.Packet[Any]] = deque()
        self._ready = asyncio.Event()
        self._sending = False
        self._wants_key = True
        self.dropped = 0
        self.encoded = 0  # access units the encoder made for this session, sent or not
        self.key_encoded = 0
        self.encode_s = 0.0  # sum over them, from capture to the encoder's output
        self.dwell_s: float | None = None  # of the latest one, in the encoder; None where it was not encoded here
        self.quality = QualityLimit()
        self._allocated: int | None = None
        self._lasting = 0
        self._paused = False

    @property
    def sending(self) -> bool:
        return self._sending

    @property
    def paused(self) -> bool:
        """Wanted, but its path is too thin for any picture."""
        return self._paused

    @property
    def allocated(self) -> int | None:
        """Bits per second this session's path leaves for the picture; None while nothing is known to limit it."""
        return self._allocated

    @property
    def lasting(self) -> int | None:
        """The same once no queue has to be emptied on the path."""
        return None if self._allocated is None else self._lasting

    @property
    def waiting(self) -> int:
        """Access units that are encoded and not yet being sent."""
        return len(self._items)

    def set_sending(self, sending: bool) -> None:
        """True opens the camera (when nobody has yet) and asks it for a key frame; False lets it go."""
        if sending == self._sending:
            return
        self._sending = sending
        self._items.clear()
        self._wants_key = True
        self._allocated, self._paused = None, False
        self._feed.changed(self)

    def allocate(self, bits_per_second: int | None, lasting: int | None = None) -> None:
        """What the path leaves for the picture; None: so little that it pauses, and the sound has it all. ``lasting``,
        where it is more, is what it leaves once its queue is empty: that decides on size and frame rate."""
        paused = bits_per_second is None
        if self._sending and paused != self._paused:
            self._paused = paused
            self._items.clear()
            self._wants_key = True
            if not paused:
                self._feed.want_keyframe()
        self._allocated = 0 if bits_per_second is None else bits_per_second
        self._lasting = max(self._allocated, lasting or 0)
        self._feed.adapt()

    def push(self, frame: EncodedFrame) -> None:
        self.encoded += 1
        self.key_encoded += frame.keyframe
        self.encode_s += max(0, frame.delivered_us - frame.pts_us) / 1e6
        self.dwell_s = None if frame.dwell_us is None else frame.dwell_us / 1e6
        if self._paused or (self._wants_key and not frame.keyframe):
            return
        if frame.keyframe and len(self._items) >= VIDEO_STALE:
            self.dropped += len(self._items)
            self._items.clear()
        if len(self._items) >= VIDEO_QUEUE:
            self.dropped += len(self._items) + 1
            self._items.clear()
            self._wants_key = True
            self._feed.want_keyframe()
            return
        self._wants_key = False
        packet = av.Packet(frame.data)
        packet.pts, packet.time_base = frame.pts_us * 9 // 100, VIDEO_BASE
        packet.is_keyframe = frame.keyframe
        self._items.append(packet)
        self._ready.set()

    def lost(self) -> None:
        """Frames were thrown away on the way here."""
        self._items.clear()
        self._wants_key = True
        self._feed.want_keyframe()

    async def recv(self) -> av.Packet[Any]:
        while not self._items:
            self._ready.clear()
            await self._ready.wait()
        return self._items.popleft()

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return (packet.pts or 0) / 90_000

    # -- Feedback of the peer, through RtpSendStream

    def keyframe_wanted(self) -> None:
        self._feed.want_keyframe()

    def stop(self) -> None:
        self.set_sending(False)
        super().stop()


class CameraFeed:
    """The board's camera: open while somebody sends video or keeps it warm; one encoder, many tracks."""

    def __init__(
        self, camera: Camera, mode: VideoMode, loop: asyncio.AbstractEventLoop, executor: Executor
    ) -> None:
        self._camera = camera
        self._wanted_mode = mode
        self._loop = loop
        self._executor = executor
        self._tracks: set[CameraTrack] = set()
        self._holders: set[object] = set()
        self._inbox: Inbox[EncodedFrame] | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._closing = False
        self._key_at = -KEY_INTERVAL_S
        self._key_timer: asyncio.TimerHandle | None = None
        self.ladder = Ladder(mode)
        self._rung = self.ladder.rung  # what the camera was last told to do
        self._produced = Meter()
        self.mode: VideoMode | None = None  # what it really does, None while closed
        self.fault = ""  # why it is not open although wanted
        self.bitrate = mode.bitrate
        self.rate = FrameRate()
        self.key_requests = 0
        self.dropped = 0

    @property
    def wanted(self) -> bool:
        """Somebody needs it open; never of a feed that closes."""
        return not self._closing and bool(self._holders or self._tracks)

    @property
    def encoder(self) -> EncoderKind:
        return self._camera.encoder

    def track(self) -> CameraTrack:
        return CameraTrack(self)

    def start(self) -> None:
        self._task = background(self._run(), name="media.camera", failed=self._failed)

    def hold(self, owner: object, held: bool) -> None:
        """Keep the camera open for ``owner`` although nobody is sent anything yet."""
        if held:
            self._holders.add(owner)
        else:
            self._holders.discard(owner)
        self._nudge()

    @asynccontextmanager
    async def seen(self) -> AsyncIterator[None]:
        """For who takes one picture: the camera is open meanwhile, and for at least two seconds in all, so that the
        state and the lamp tell of it. Raises DeviceMissingError when it cannot be opened: no look without the lamp."""
        owner, until = object(), self._loop.time() + SEEN_S
        self.hold(owner, True)
        try:
            await self.settled()
            if self.mode is None:
                raise DeviceMissingError(self.fault or "the camera is closing")
            yield
        finally:
            self._loop.call_at(until, self.hold, owner, False)

    async def settled(self) -> None:
        """Returns when the camera is what is wanted of it, or has failed to open."""
        if self._task is not None and not self._task.done():
            await self._settled.wait()

    def changed(self, track: CameraTrack) -> None:
        if track.sending:
            self._tracks.add(track)
            if self.mode is not None:
                self._ask_keyframe()  # a new viewer does not wait for the shared interval
        else:
            self._tracks.discard(track)
            track.quality.stop(self._loop.time())
            self.adapt()
        self._nudge()

    def want_keyframe(self) -> None:
        """Ask the encoder; requests inside the interval are joined to one at its end, none is lost."""
        if self.mode is None or self._key_timer is not None:
            return
        wait = self._key_at + KEY_INTERVAL_S - self._loop.time()
        if wait <= 0:
            self._ask_keyframe()
        else:
            self._key_timer = self._loop.call_later(wait, self._ask_keyframe)

    def adapt(self) -> None:
        """Set the encoder to what the narrowest session can take: the size and frame rate that are worth it, and the
        bit rate. A session whose picture pauses narrows nobody."""
        if self.mode is None:
            return
        now = self._loop.time()
        lasting = self._narrowest([track.lasting for track in self._sending()])
        settable = self._camera.encoder is not EncoderKind.RECORDED
        rung = self.ladder.choose(lasting, now) if settable else self.ladder.best
        limited = {track for track in self._tracks if track.quality.limited}
        for track in self._tracks:
            track.quality.update(self._limit_of(track, lasting, rung), now)
        if not settable:
            return
        if rung.height != self._rung.height:
            for track in self._tracks:  # both ways: what it was limited to, and back
                track.quality.resolution_changes += track in limited or track.quality.limited
        target = max(rung.floor, int(self._narrowest([track.allocated for track in self._sending()])))
        if rung != self._rung:
            self._change(rung, target)
        elif abs(target - self.bitrate) > self.bitrate * BITRATE_STEP or (
            target != self.bitrate and target == self.ladder.demand
        ):
            self.bitrate = target
            self._camera.set_bitrate(target)

    def _sending(self) -> list[CameraTrack]:
        return [track for track in self._tracks if not track.paused]

    def _narrowest(self, allocated: list[int | None]) -> int:
        if self._tracks and not allocated:
            return 0  # all pause; whoever begins again begins small
        return min([self.ladder.demand, *(bits for bits in allocated if bits is not None)])

    def _limit_of(self, track: CameraTrack, narrowest: int, rung: Rung) -> Limit:
        """Why this session's picture is not what is wanted."""
        demand = self.ladder.demand
        if track.paused or (track.lasting is not None and track.lasting < demand):
            return Limit.BANDWIDTH
        if narrowest < demand:
            return Limit.OTHER  # another session's path: there is one encoder
        if rung is self.ladder.best:
            return Limit.NONE
        return track.quality.reason if track.quality.limited else Limit.OTHER  # what it was, on the way back up

    def _change(self, rung: Rung, target: int) -> None:
        self._rung, self.bitrate = rung, target
        self._camera.set_mode(rung.mode(target))
        self.mode = self._camera.mode or self.mode

    def constrain(self, constraints: Constraints) -> None:
        """Other limits from now on; nothing is opened anew."""
        self.ladder.constrain(constraints)
        self.adapt()

    @property
    def narrowest(self) -> int:
        """Bits per second that the narrowest session leaves for the picture."""
        return self._narrowest([track.allocated for track in self._sending()])

    def produced(self) -> float | None:
        """Bits per second the encoder made over the last second; None before the first one is over."""
        return self._produced.bps(time.monotonic())

    async def close(self) -> None:
        """Let the camera go, also one that is just being opened; within the board's own deadlines."""
        self._closing = True
        self._holders.clear()
        self._tracks.clear()
        self._changed.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        if self._key_timer is not None:
            self._key_timer.cancel()

    # -- private

    def _ask_keyframe(self) -> None:
        if self._key_timer is not None:
            self._key_timer.cancel()
            self._key_timer = None
        if self.mode is not None:
            self._key_at = self._loop.time()
            self.key_requests += 1
            self._camera.request_keyframe()

    def _nudge(self) -> None:
        if self.wanted != (self.mode is not None):
            self._settled.clear()
        self._changed.set()

    async def _run(self) -> None:
        """Bring the camera to what is wanted, one step at a time; a camera that fails is tried again, ever slower."""
        failures = 0
        while self.mode is not None or not self._closing:
            self._changed.clear()
            if self.wanted and self.mode is None:
                failures = 0 if await self._open() else failures + 1
            elif not self.wanted:
                failures = 0
                await self._let_go()
            self._settled.set()
            if self._closing:
                continue
            pause = RETRY_S[min(failures, len(RETRY_S)) - 1] if failures else None
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                continue
        self._settled.set()  # nothing more is going to happen: nobody waits for it

    def _failed(self, error: Exception) -> None:
        log.error("the camera is given up until the next start; this is a defect", exc_info=error)
        self.mode, self.fault = None, f"{type(error).__name__}: {error}"
        self._settled.set()

    async def _open(self) -> bool:
        inbox: Inbox[EncodedFrame] = Inbox(
            self._loop, 3, "camera", deliver=self._deliver, on_drop=self._on_drop
        )
        try:
            mode = await self._loop.run_in_executor(
                self._executor, self._camera.start, self._wanted_mode, inbox.put
            )
        except HardwareError as error:
            inbox.close()
            if not self.fault:
                log.warning("the camera cannot be opened: %s", error)
            self.fault = str(error)
            return False
        self._inbox, self.mode, self.fault, self._produced = inbox, mode, "", Meter()
        self.ladder = Ladder(self._wanted_mode, self.ladder.constraints)
        self._rung, self.bitrate = Ladder(self._wanted_mode).rung, mode.bitrate
        self._ask_keyframe()
        self.adapt()
        return True

    async def _let_go(self) -> None:
        if self.mode is None:
            return
        self.mode = None
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None
        await self._loop.run_in_executor(self._executor, self._camera.stop)

    def _deliver(self, frame: EncodedFrame) -> None:
        self.rate.frame(frame.pts_us / 1e6)
        self._produced.add(len(frame.data), time.monotonic())
        for track in list(self._tracks):
            track.push(frame)

    def _on_drop(self) -> None:
        self.dropped += 1
        for track in self._tracks:
            track.lost()


def _nothing() -> None:
    return None

