"""Board to peer: the camera, opened once and given to every session that sends pictures.

Nothing is encoded again: its access units pass through, and the one encoder follows the narrowest path.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

import av

from appliance.handover import Inbox
from appliance.media.congestion.allocation import Meter
from appliance.media.fed_track import FedTrack
from appliance.media.frame_rate import FrameRate
from appliance.media.h264 import SLICE_BYTES, PictureLimit, sprop_of
from appliance.media.ladder import Constraints, Ladder, Rung, within
from appliance.media.looks import Looks
from appliance.media.quality_limit import Limit, QualityLimit
from appliance.tasks import background
from hw.api import Camera, DeviceMissingError, EncodedFrame, EncoderKind, HardwareError, VideoMode

__all__ = ["RETRY_S", "CameraFeed", "CameraTrack"]

log = logging.getLogger(__name__)

VIDEO_QUEUE: Final = 8  # access units waiting in one session
VIDEO_STALE: Final = 3  # so many waiting are thrown away for a key frame: it shows what they would have, sooner
KEY_INTERVAL_S: Final = 0.5  # key frames on request, all sessions together
BITRATE_STEP: Final = 0.05  # smaller changes are not worth a call to the encoder
SEEN_S: Final = 2.0  # the least time a camera that was looked through is told as open: a lamp people can notice
RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts to open a device
VIDEO_BASE: Final = Fraction(1, 90_000)


class CameraTrack(FedTrack):
    """What one session sends of the camera. Begins with a key frame, and so again after every overflow."""

    kind = "video"

    def __init__(self, feed: CameraFeed) -> None:
        super().__init__()
        self._feed = feed
        self._wants_key = True
        self.encoded = 0  # access units the encoder made for this session, sent or not
        self.key_encoded = 0
        self.encode_s = 0.0  # sum over them, from capture to the encoder's output
        self.dwell_s: float | None = None  # of the latest one, in the encoder; None where it was not encoded here
        self.quality = QualityLimit()
        self._allocated: int | None = None
        self._lasting = 0
        self._paused = False
        self.limit = PictureLimit()
        self.sliced = False

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

    def _turned(self) -> None:
        """Opens the camera when nobody has yet, with a key frame, or lets it go."""
        self._wants_key = True
        self._allocated, self._paused = None, False
        self._feed.changed(self)

    def take_only(self, limit: PictureLimit, *, sliced: bool) -> None:
        """What the peer takes at most; ``sliced``: and each NAL unit in a packet of its own."""
        if (limit, sliced) != (self.limit, self.sliced):
            self.limit, self.sliced = limit, sliced
            self._feed.narrow()

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
        self._put(packet)

    def lost(self) -> None:
        """Frames were thrown away on the way here."""
        self._items.clear()
        self._wants_key = True
        self._feed.want_keyframe()

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return (packet.pts or 0) / 90_000

    # -- Feedback of the peer, through RtpSendStream

    def keyframe_wanted(self) -> None:
        self._feed.want_keyframe()


class CameraFeed:
    """The board's camera: open while somebody sends video or keeps it warm; one encoder, many tracks."""

    def __init__(
        self, camera: Camera, mode: VideoMode, loop: asyncio.AbstractEventLoop, executor: Executor
    ) -> None:
        self._camera = camera
        self.looks = Looks(camera, loop)
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
        self._watcher: Callable[[EncodedFrame | None], None] | None = None
        self._key_at = -KEY_INTERVAL_S
        self._key_timer: asyncio.TimerHandle | None = None
        self.ladder = Ladder(mode)
        self._constraints = Constraints()
        self._rung = self.ladder.rung  # what the camera was last told to do
        self._slice_bytes = 0
        self.sprop = ""  # of the last key frame: its parameter sets, for descriptions
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

    @property
    def slices(self) -> bool:
        """Whether the encoder keeps NAL units within a size."""
        return self._camera.encoder is EncoderKind.SOFTWARE

    @property
    def wanted_mode(self) -> VideoMode:
        """The largest picture that it makes."""
        return self._wanted_mode

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

    def watch(self, watcher: Callable[[EncodedFrame | None], None] | None) -> None:
        """Who sees every frame while the camera is open, and None when it closes. One at a time; None: nobody."""
        self._watcher = watcher

    def changed(self, track: CameraTrack) -> None:
        if track.sending:
            self._tracks.add(track)
            if self.mode is not None:
                self._ask_keyframe()  # a new viewer does not wait for the shared interval
        else:
            self._tracks.discard(track)
            track.quality.stop(self._loop.time())
        self.narrow()
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
        slice_bytes = SLICE_BYTES if any(track.sliced for track in self._tracks) else 0
        if rung != self._rung or slice_bytes != self._slice_bytes:
            self._slice_bytes = slice_bytes
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
        self._camera.set_mode(replace(rung.mode(target), slice_bytes=self._slice_bytes))
        self.mode = self._camera.mode or self.mode

    def constrain(self, constraints: Constraints) -> None:
        """Other limits from now on; nothing is opened anew."""
        self._constraints = constraints
        self._narrowed()
        self.adapt()

    def narrow(self) -> None:
        """What somebody who is sent pictures takes of them is another thing."""
        self._narrowed()
        self.adapt()

    def _narrowed(self) -> None:
        constraints = self._constraints
        for track in self._tracks:
            constraints = within(self._wanted_mode, constraints, track.limit)
        if constraints != self.ladder.constraints:
            self.ladder.constrain(constraints)

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
        self._rung, self.bitrate, self._slice_bytes = Ladder(self._wanted_mode).rung, mode.bitrate, 0
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
        if self._watcher is not None:
            self._watcher(None)
        await self._loop.run_in_executor(self._executor, self._camera.stop)

    def _deliver(self, frame: EncodedFrame) -> None:
        self.rate.frame(frame.pts_us / 1e6)
        self._produced.add(len(frame.data), time.monotonic())
        if frame.keyframe:
            self.sprop = sprop_of(frame.data)
        for track in list(self._tracks):
            track.push(frame)
        if self._watcher is not None:
            self._watcher(frame)

    def _on_drop(self) -> None:
        self.dropped += 1
        for track in self._tracks:
            track.lost()
