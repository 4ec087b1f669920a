"""The board's media: one audio exchange, one camera, one screen, shared by all sessions."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from appliance.media.acoustics import Acoustics
from appliance.media.api import SOUND_LIMIT, Directions, IceServers, SoundBlock, Tone
from appliance.media.camera import CameraFeed
from appliance.media.content import Content
from appliance.media.data_line import DataLine
from appliance.media.downlink import Loudspeaker
from appliance.media.dscp import Marks
from appliance.media.gallery import Gallery
from appliance.media.ladder import Constraints
from appliance.media.layout import SELF, Face, Seat
from appliance.media.life import MediaLife
from appliance.media.looks import Glimpses
from appliance.media.microphone import MicrophoneFeed
from appliance.media.optimal import Load, OptimalCount
from appliance.media.plain_rtp import PlainSession
from appliance.media.screen import Screen
from appliance.media.self_view import SelfView
from appliance.media.servers import ServerPool
from appliance.media.session import Session, SessionParts
from appliance.media.sound import BLOCK_MS, RATE, SILENCE, Loudness, audioop, mean_square
from appliance.media.stills import scaled
from appliance.media.taps import Tap, TapPoint
from appliance.media.tones import TonePlayer
from appliance.media.video_in import VideoIn
from appliance.media.ways import Protection
from appliance.media.webrtc import MixedSession, PlayingSession, PublishingSession, WebRtcSession
from appliance.network import Network
from appliance.settings import AudioSettings, VideoSettings
from appliance.tasks import background
from appliance.vocabulary import Json
from hw.api import Audio, AudioBlock, Board, DeviceMissingError, EncoderKind, Fit, HardwareError, Kind, VideoMode

__all__ = ["Studio"]

log = logging.getLogger(__name__)
S = TypeVar("S", bound=Session)

METER_S: Final = 0.1
METER_BLOCKS: Final = round(METER_S * 1000) // BLOCK_MS
SOUND_RETRY_S: Final = 1.0  # nobody tells when the holder of a sound device lets it go
NOTHING: Final = AudioBlock(SILENCE, SILENCE)
POOLS: Final = 4  # those of the settings, and of media servers that name their own
TALK_KEY: Final = "talk"  # the input of a board that has a key for push-to-talk


class Studio:
    """``media.api.Studio`` over a board."""

    def __init__(
        self, board: Board, video: VideoSettings, audio: AudioSettings | None = None, *, marks: Marks | None = None
    ) -> None:
        self._board = board
        self._mode = VideoMode(video.width, video.height, video.fps, video.bitrate)
        self.acoustics = Acoustics(audio or AudioSettings(), self._echoes,
                                   talk_key=board.panel is not None and TALK_KEY in board.panel.inputs)
        self._loudspeaker = Loudspeaker()
        self._leaving: TapPoint[SoundBlock] = TapPoint(lambda block: len(block.pcm))
        self._screen = Screen(board.display)
        self._self_view: SelfView | None = None
        self._glimpses: Glimpses | None = None
        self._layout: Json = {}
        self._microphone: MicrophoneFeed | None = None
        self._camera: CameraFeed | None = None
        self._marks = marks or Marks()
        self._pools: dict[IceServers, ServerPool] = {}
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="media.device")
        self._sessions: set[Session] = set()
        self._galleries: set[Gallery] = set()
        self._optimal = OptimalCount(len(os.sched_getaffinity(0)))
        self._weighed: tuple[float, float] | None = None  # when, and what drawing had taken by then
        self._decoded: dict[VideoIn, tuple[float, int]] = {}  # what each had taken by then, and thrown away
        self._content: Content | None = None
        self.on_content_lost: Callable[[str], None] = lambda _why: None
        self._sharing: set[Session] = set()
        self._data_lines: set[DataLine] = set()
        self._names = itertools.count(1)
        self._muted = False
        self._announced = TonePlayer()
        self._constraints = Constraints()
        self._running = False
        self._retry: asyncio.Task[None] | None = None
        self._audio_fault = ""
        self._tick = time.monotonic()
        self._missed = 0
        self._voice = Loudness()  # of the microphone as it leaves
        self._heard: deque[float] = deque([0.0] * METER_BLOCKS, METER_BLOCKS)
        self._played: deque[float] = deque([0.0] * METER_BLOCKS, METER_BLOCKS)

    # -- life

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._loudspeaker.tones.warm()
        if self._board.audio is None:
            self._audio_fault = "the board has neither microphone nor loudspeaker"
        else:
            self._microphone = MicrophoneFeed(loop)
            await self.acoustics.settle()
            if not await self._start_audio(self._board.audio):
                self._retry = background(self._try_again(self._board.audio), name="media.audio", failed=_given_up)
        if self._board.camera is not None:
            self._camera = CameraFeed(self._board.camera, self._mode, loop, self._executor)
            self._camera.start()
            self._glimpses = Glimpses(self._camera.looks, loop, self._executor)
            if self._screen.present:
                self._self_view = SelfView(self._camera, self._screen, loop)

    async def close(self) -> None:
        await asyncio.gather(*(one.close() for one in self._connections()))
        await self.unshare()
        loop = asyncio.get_running_loop()
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)
        if self._self_view is not None:
            await self._self_view.close()
        if self._glimpses is not None:
            self._glimpses.close()
        if self._camera is not None:
            await self._camera.close()
        if self._board.audio is not None and self._running:
            self._running = False
            await loop.run_in_executor(self._executor, self._board.audio.stop)
        if self._microphone is not None:
            self._microphone.close()
        self._loudspeaker.received.close()
        self._leaving.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _try_again(self, audio: Audio) -> None:
        """Every second until a sound device is there."""
        while True:
            await self._exchange_silence()
            if await self._start_audio(audio):
                return

    async def _exchange_silence(self) -> None:
        """In place of a sound device, for a second: a call that begins without one has it when it comes, and what is
        received is taken off meanwhile."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        end = due + SOUND_RETRY_S
        while due < end:
            calls = bool(self._sessions or self._galleries)
            due = max(due + (BLOCK_MS / 1000 if calls else METER_S), loop.time() - METER_S)
            await asyncio.sleep(due - loop.time())
            if calls:
                self._exchange(NOTHING)

    async def _start_audio(self, audio: Audio) -> bool:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, audio.start, RATE, BLOCK_MS, self._exchange)
        except HardwareError as error:
            if not self._audio_fault:
                log.warning("no sound: %s", error)
            self._audio_fault = str(error)
            return False
        if self._audio_fault:
            log.info("sound is there again")
        self._running, self._audio_fault = True, ""
        return True

    # -- sessions

    def session(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> WebRtcSession:
        return self._kept(WebRtcSession(
            self._name(), wanted=wanted, servers=self.servers(ice), loopback=loopback, **self._parts()))

    def plain_session(
        self, wanted: Directions, *, mux: bool = False, symmetric: bool = True,
        protections: Mapping[str, Protection] | None = None, ice: IceServers = IceServers(),  # noqa: B008 - frozen
    ) -> PlainSession:
        """A session over RTP on UDP, for who signals by other means than WebRTC's; see ``plain_rtp``. ``ice``: for
        associations with DTLS."""
        return self._kept(PlainSession(
            self._name(), wanted=wanted, mux=mux, symmetric=symmetric, protections=protections,
            servers=self.servers(ice), **self._parts()))

    def publication(
        self, wanted: Directions, *, ice: IceServers, loopback: bool, data: bool = False,
    ) -> PublishingSession | None:
        if not self.sends:
            return None
        return self._kept(PublishingSession(
            self._name(), wanted=wanted, servers=self.servers(ice), loopback=loopback, data=data, **self._parts()))

    def playback(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> PlayingSession:
        parts = self._parts()
        parts["microphone"] = parts["camera"] = None
        return self._kept(PlayingSession(
            self._name(), wanted=wanted, servers=self.servers(ice), loopback=loopback, **parts))

    def conversation(self, wanted: Directions, *, ice: IceServers, loopback: bool, speaks: bool) -> MixedSession:
        parts = self._parts()
        parts["camera"] = None
        if not speaks:
            parts["microphone"] = None
        return self._kept(MixedSession(
            self._name(), wanted=wanted, servers=self.servers(ice), loopback=loopback, **parts))

    def gallery(self, *, ice: IceServers, loopback: bool) -> Gallery:
        self.acoustics.interrupt()
        gallery = Gallery(self._name(), servers=self.servers(ice), loopback=loopback, marks=self._marks,
                          loudspeaker=self._loudspeaker, screen=self._screen)
        self._galleries.add(gallery)
        gallery.on_closed = self._galleries.discard
        return gallery

    def data_line(self, *, ice: IceServers, loopback: bool) -> DataLine:
        line = DataLine(self._name(), servers=self.servers(ice), loopback=loopback, marks=self._marks)
        self._data_lines.add(line)
        line.on_closed = self._data_lines.discard
        return line

    def _connections(self) -> Sequence[MediaLife]:
        return [*self._sessions, *self._galleries, *self._sharing, *self._data_lines]

    async def share(self, source: str, *, device: bool = False) -> None:
        await self.unshare()
        loop = asyncio.get_running_loop()
        opener = self._board.capture if device else self._board.share
        content = Content(await loop.run_in_executor(self._executor, opener, source), loop, self._executor,
                          on_lost=self._content_lost)
        try:
            await content.open()
        except BaseException:
            await content.close()
            raise
        self._content = content

    def _content_lost(self, why: str) -> None:
        self.on_content_lost(why)

    async def unshare(self) -> None:
        content, self._content = self._content, None
        if content is not None:
            await content.close()

    def shared(self, *, ice: IceServers, loopback: bool) -> PublishingSession | None:
        if self._content is None:
            return None
        parts = self._parts()
        parts["microphone"], parts["camera"] = None, self._content.feed
        session = PublishingSession(
            self._name(), wanted=Directions(send_audio=False, receive_audio=False, receive_video=False),
            servers=self.servers(ice), loopback=loopback, **parts)
        self._sharing.add(session)
        session.on_closed = self._sharing.discard
        return session

    @property
    def sends(self) -> bool:
        return self._microphone is not None or self._camera is not None

    @property
    def shows(self) -> bool:
        return self._screen.present

    @property
    def sees(self) -> bool:
        """Whether there is a camera or a screen."""
        return self._camera is not None or self._screen.present

    @property
    def screen_size(self) -> tuple[int, int]:
        return self._screen.size

    def arrange(self, seats: Sequence[Seat], faces: Sequence[Face], fit: Fit, layout: Json) -> None:
        self._layout = layout
        self._screen.arrange(seats, faces, fit)
        if self._self_view is not None:
            share = max((seat.w for seat in seats if seat.source == SELF), default=0.0)
            self._self_view.show(round(share * self.screen_size[0]))

    def _name(self) -> str:
        return f"session-{next(self._names)}"

    def _parts(self) -> SessionParts:
        return SessionParts(
            marks=self._marks, microphone=self._microphone, camera=self._camera,
            loudspeaker=self._loudspeaker, screen=self._screen, voice=self._voice,
            processing=self.acoustics.voice,
        )

    def _kept(self, session: S) -> S:
        self.acoustics.interrupt()
        session.limit_received(self._constraints.receive_limit)
        self._sessions.add(session)
        session.on_closed = self._sessions.discard
        return session

    def servers(self, ice: IceServers) -> ServerPool:
        """The servers with what is known of them, which is remembered of the POOLS asked for last."""
        pool = self._pools.pop(ice, None) or ServerPool(ice)
        self._pools[ice] = pool
        if len(self._pools) > POOLS:
            del self._pools[next(iter(self._pools))]
        return pool

    def network_changed(self, before: Network, now: Network) -> None:
        for one in self._connections():
            one.network_changed(before, now)

    # -- sound

    def _exchange(self, block: AudioBlock) -> bytes:
        """On ``hw.audio``, every 10 ms: what the microphone heard leaves, the next block of the loudspeaker returns."""
        self._tick = time.monotonic()
        self._missed += block.missed
        probe = self.acoustics.probe
        if probe is not None:
            return probe.exchange(block)
        voice, heard = self.acoustics.voice, block.heard
        if block is NOTHING or not self._wanted():  # the loop, in place of a device, has no time to clean silence
            voice.rest()
        elif voice.active:
            heard = voice.process(heard, block.played)
        leaving = SILENCE if self._muted else heard
        announced = self._announced.block()
        if announced is not None:
            leaving = audioop.add(leaving, announced, 2)
        if self._microphone is not None:
            self._microphone.put(leaving)
        if self._leaving.active:
            self._leaving.put(SoundBlock(leaving, self._tick))
        sound = self._loudspeaker.block()
        if voice.quiet:
            sound = SILENCE
        square = mean_square(heard)
        self._heard.append(square)  # muted too: who speaks into a muted microphone is told so
        self._voice.add(0.0 if self._muted else square)
        self._played.append(mean_square(sound) if sound is not SILENCE else 0.0)
        return sound

    def _wanted(self) -> bool:
        """Whether anybody is sent the microphone: a canceller without a call would only warm the board."""
        return self._microphone is not None and self._microphone.wanted

    def _echoes(self) -> bool:
        return self._board.audio is not None and self._board.audio.echoes

    @property
    def sounding(self) -> bool:
        """Whether a sound device runs."""
        return self._running

    def lacks_for_measuring(self) -> str:
        """What keeps the loudspeaker from being heard by the microphone, with what to do; empty when nothing does."""
        missing = self._missing()
        for kind in (Kind.MICROPHONE, Kind.SPEAKER):
            if kind in missing:
                return f"{missing[kind]}; plug one in, or free it"
        if self._board.audio is not None and self._board.audio.volume == 0:
            return "the loudspeaker's volume is 0; raise it with devices.volume"
        return ""

    def talk(self, held: bool) -> None:
        """The talk key of push-to-talk."""
        self.acoustics.voice.talking = held

    def tap_received(self, limit_bytes: int = SOUND_LIMIT) -> Tap[SoundBlock]:
        return self._loudspeaker.received.open(limit_bytes)

    def tap_microphone(self, limit_bytes: int = SOUND_LIMIT) -> Tap[SoundBlock]:
        return self._leaving.open(limit_bytes)

    def mute(self, muted: bool) -> None:
        self._muted = muted

    def mute_incoming(self, muted: bool) -> None:
        self._loudspeaker.muted = muted

    def play(self, tone: Tone | None) -> None:
        if tone is not None:
            self.acoustics.interrupt()
        self._loudspeaker.tones.play(tone)

    def announce(self, tone: Tone) -> None:
        self.play(tone)
        self._announced.play(tone)

    def levels(self) -> tuple[float, float]:
        return _rms(self._heard), _rms(self._played)

    @property
    def exchange_tick(self) -> float:
        return self._tick if self._running else time.monotonic()  # nothing of ours can be stuck without a device

    @property
    def sending_tick(self) -> float:
        return min(
            (since for session in self._sessions if (since := session.sending_since) is not None),
            default=time.monotonic(),
        )

    # -- pictures

    @property
    def constraints(self) -> Constraints:
        return self._constraints

    def constrain(self, constraints: Constraints) -> None:
        self._constraints = constraints
        if self._camera is not None:
            self._camera.constrain(constraints)
        for session in self._sessions:
            session.limit_received(constraints.receive_limit)

    def limits(self) -> Json:
        camera = self._board.camera
        settable = camera is not None and camera.encoder is not EncoderKind.RECORDED
        in_force = self._constraints.in_force(self._mode if settable else None)
        return self._constraints.document() | {"inForce": in_force}

    def rates(self) -> Json:
        """Bits per second of the picture: what the narrowest path leaves, what the encoder is set to, what it made in
        the last second; empty while the camera is closed."""
        if self._camera is None or self._camera.mode is None:
            return {}
        produced = self._camera.produced()
        return {
            "videoAllocatedBitrate": self._camera.narrowest, "videoConfiguredBitrate": self._camera.bitrate,
            **({} if produced is None else {"videoProducedBitrate": produced}),
        }

    async def warm_camera(self, warm: bool) -> None:
        if self._camera is not None:
            self._camera.hold("warm", warm)
            if warm:
                await self._camera.settled()

    async def look(self) -> None:
        if self._camera is None:
            raise DeviceMissingError("the board has no camera")
        self._camera.hold("look", True)
        await self._camera.settled()
        if self._camera.mode is None:
            raise DeviceMissingError(self._camera.fault or "the camera is closing")

    def look_away(self) -> None:
        if self._camera is not None:
            self._camera.hold("look", False)

    async def snapshot(self, width: int = 640) -> bytes:
        camera, feed = self._board.camera, self._camera
        if camera is None or feed is None:
            raise DeviceMissingError("the board has no camera")
        loop = asyncio.get_running_loop()
        async with feed.seen():
            jpeg = await loop.run_in_executor(self._executor, camera.snapshot)
        return await loop.run_in_executor(self._executor, scaled, jpeg, width)

    async def preview(self) -> bytes:
        if self._camera is None or self._glimpses is None:
            raise DeviceMissingError("the board has no camera")
        async with self._camera.seen():
            return await self._glimpses.take() or await self.snapshot()

    def show(self, banner: str, hint: str = "") -> None:
        self._screen.text(banner, hint)

    def blank(self) -> None:
        self._screen.blank()

    def weigh_pictures(self, *, throttled: bool) -> int | None:
        """To be called about once a second. The number of pictures of others that this board carries, where it is
        another one than before."""
        now, drawn = time.monotonic(), 0.0 if self._board.display is None else self._board.display.drawn_s
        shown = [one for session in self._sessions for one in session.shown]
        shown += [one for gallery in self._galleries for one in gallery.shown]
        before, self._decoded = self._decoded, {one: (one.decode_s, one.dropped) for one in shown}
        last, self._weighed = self._weighed, (now, drawn)
        if last is None or now <= last[0]:
            return None
        spent, late = 0.0, 0
        for one, (decode_s, dropped) in self._decoded.items():
            was_s, was_dropped = before.get(one, (decode_s, dropped))
            spent += max(0.0, decode_s - was_s)  # of another source it is counted anew
            late += max(0, dropped - was_dropped)
        elapsed = now - last[0]
        load = Load(len(shown), spent / elapsed, max(0.0, drawn - last[1]) / elapsed, late, throttled)
        return self._optimal.value if self._optimal.update(load, now) else None

    # -- facts

    def lag(self) -> Json:
        """Members of ``x-device``: what each stage on the way of picture and sound takes, of the session whose picture
        lags most."""
        lags = [lag for session in self._sessions if (lag := session.lag) is not None]
        worst = max(lags, key=lambda lag: lag.capture_to_send_s, default=None)
        audio = self._board.audio
        loop_s = audio.figures.delay_ms / 1000 if audio is not None and self._running else 0.0
        return {"encoderQueue": max((lag.waiting for lag in lags), default=0),
                **({} if worst is None else worst.document()), **({"audioLoopDelay": loop_s} if loop_s else {})}

    def _missing(self) -> Mapping[Kind, str]:
        """The kinds of which the board has devices and none works, with why in words."""
        devices = self._board.devices()
        works = {fact.kind for fact in devices if fact.used and fact.present}
        return {fact.kind: f"{fact.name} is not there" if not fact.present else
                f"{fact.name}: {fact.note or 'it is not in use'}"
                for fact in reversed(devices) if fact.kind not in works}

    def _figures(self) -> Json | None:
        """Of the sound device: what went wrong there and was mended, and the two cards' clocks."""
        if self._board.audio is None:
            return None
        figures = self._board.audio.figures
        return {"xruns": figures.xruns, "dropped": figures.dropped, "driftPpm": figures.drift_ppm,
                "delayMs": figures.delay_ms, "latencyMs": figures.latency_ms, "realtime": figures.realtime}

    def state(self) -> Json:
        camera, microphone = self._camera, self._microphone
        sending = [session.sending for session in self._sessions]
        receiving = [session.receiving for session in self._sessions]
        receiving += [gallery.receiving for gallery in self._galleries]
        missing = self._missing()

        def works(kind: Kind) -> bool:
            return self._running and kind not in missing

        audio: Json = {
            "wanted": {"muted": self._muted, "speakerMuted": self._loudspeaker.muted},
            "actual": {
                "running": self._running,
                "sending": any(a for a, _ in sending) and not self._muted and works(Kind.MICROPHONE),
                "playing": any(a for a, _ in receiving) and not self._loudspeaker.muted and works(Kind.SPEAKER),
            },
            "codec": "opus", "rate": RATE, "processing": self.acoustics.facts(), "missedBlocks": self._missed,
            "device": self._figures(),
            "droppedBlocks": microphone.dropped if microphone is not None else 0,
        }
        video: Json = {
            "wanted": {
                "open": camera is not None and camera.wanted,
                "width": self._mode.width, "height": self._mode.height, "fps": self._mode.fps,
                "bitrate": self._mode.bitrate,
            },
            "actual": {
                "open": camera is not None and camera.mode is not None and Kind.CAMERA not in missing,
                "sending": any(v for _, v in sending) and Kind.CAMERA not in missing,
                "showing": any(v for _, v in receiving),
            },
            "codec": "H264", "pictures": self._screen.pictures,
            "stalled": sum(session.stalled for session in self._sessions)
            + sum(gallery.stalled for gallery in self._galleries),
        }
        if self._screen.present:
            video["layout"] = self._layout | self._screen.document()
        if camera is not None:
            if camera.mode is not None and self._board.camera is not None:
                video["actual"] |= {
                    "width": camera.mode.width, "height": camera.mode.height, "fps": camera.mode.fps,
                    "bitrate": camera.bitrate, "encoder": self._board.camera.encoder.value,
                }
            video |= {
                "droppedFrames": camera.dropped, "keyFrameRequests": camera.key_requests,
                "limits": self.limits(),
                "paused": sum(session.video_paused for session in self._sessions),
                "qualityLimitationReasons": sorted({reason for session in self._sessions
                                                    if (reason := session.video_limit) is not None}),
            }
            if reason := camera.fault or missing.get(Kind.CAMERA):
                video["reason"] = reason
        else:
            video["reason"] = "the board has no camera"
        lacking = [missing[kind] for kind in (Kind.MICROPHONE, Kind.SPEAKER) if kind in missing]
        if reason := self._audio_fault or "; ".join(lacking):
            audio["reason"] = reason
        without = {kind: why for session in self._sessions for kind, why in session.without.items()}
        return {"audio": audio, "video": video, "sessions": len(self._sessions), "without": without,
                "optimalVideoCount": self._optimal.document()}


def _given_up(error: Exception) -> None:
    log.error("sound is given up until the next start; this is a defect", exc_info=error)


def _rms(squares: deque[float]) -> float:
    return float((sum(squares) / METER_BLOCKS) ** 0.5)
