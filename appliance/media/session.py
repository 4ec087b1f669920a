"""One session over one transport: what it sends and plays, and the facts of its life as events.

Whatever carries it (``transport.MediaTransport``): ``webrtc.WebRtcSession`` puts it on a peer connection,
``plain_rtp.PlainSession`` on RTP over UDP.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

from aiortc import RTCDataChannel

from appliance.media import stats
from appliance.media.api import (
    ENCODED_LIMIT,
    PICTURES_LIMIT,
    AccessUnit,
    Directions,
)
from appliance.media.camera import CameraFeed, CameraTrack
from appliance.media.congestion.allocation import Allocation
from appliance.media.downlink import Loudspeaker
from appliance.media.dscp import Marks
from appliance.media.life import MediaLife
from appliance.media.lipsync import LipSync
from appliance.media.microphone import MicrophoneFeed, MicrophoneTrack
from appliance.media.playout import Playout
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.screen import Screen
from appliance.media.sound import Loudness
from appliance.media.taps import Tap
from appliance.media.transmission import Transmission
from appliance.media.transport import MediaTransport
from appliance.media.video_in import VideoIn
from appliance.media.voice import VoiceProcessing
from appliance.media.voice_codecs import OPUS, VOICE_CODECS, VoiceCodec
from appliance.vocabulary import Json
from hw.api import Picture

__all__ = ["Channel", "Lag", "Session", "SessionParts"]

log = logging.getLogger(__name__)

OWED_S: Final = 10.0


@dataclass(slots=True)
class Channel:
    """A data channel and what went through it."""

    channel: RTCDataChannel
    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lag:
    """Of the picture sent last: seconds from the sensor to its last packet, to its first, and in the encoder, where it
    was encoded here; and how many wait."""

    capture_to_send_s: float
    capture_to_first_packet_s: float | None
    dwell_s: float | None
    waiting: int

    def document(self) -> Json:
        """Members of ``x-device``."""
        known = {"encoderDwell": self.dwell_s, "captureToFirstPacketLatency": self.capture_to_first_packet_s,
                 "captureToSendLatency": self.capture_to_send_s}
        return {name: value for name, value in known.items() if value is not None}


class SessionParts(TypedDict):
    """What the sessions of one board are made of."""

    marks: Marks
    microphone: MicrophoneFeed | None
    camera: CameraFeed | None
    loudspeaker: Loudspeaker
    screen: Screen
    voice: Loudness
    processing: NotRequired[VoiceProcessing | None]


class Session(MediaLife):
    """Everything on the loop; made by ``Studio``. Who derives from it sets ``_transport`` and calls ``_described``."""

    _transport: MediaTransport

    def __init__(
        self, name: str, *, wanted: Directions, marks: Marks,
        microphone: MicrophoneFeed | None, camera: CameraFeed | None, loudspeaker: Loudspeaker, screen: Screen,
        voice: Loudness, processing: VoiceProcessing | None = None,
    ) -> None:
        super().__init__(name)
        self.voice = voice
        self._wanted = wanted
        self._marks = marks
        self._camera = camera
        self._loudspeaker = loudspeaker
        self._screen = screen
        self._microphone_track: MicrophoneTrack | None = microphone.track() if microphone is not None else None
        self._camera_track: CameraTrack | None = camera.track() if camera is not None else None
        self.processing = processing  # of the microphone; one for all sessions
        self.voice_in = Playout()
        self.lip_sync = LipSync()
        self._seen_last: tuple[int, float] | None = None
        self.video_in = VideoIn(
            name, self._loop, on_picture=self._on_picture, on_lost=self._on_video_lost, on_asked=self._on_video_asked,
        )
        self._receive_limit = 0
        self.outgoing: dict[str, RtpSendStream] = {}
        self.incoming: dict[str, RtpReceiveStream] = {}
        self.transmission = Transmission(name)
        self.transmission.on_allocation = self._on_allocation
        self.transmission.on_failure = self._on_defect
        self.transmission.demand = self._demand
        self.without: dict[str, str] = {}  # kind -> why it is not in this session
        self._peer_sends = {"audio": True, "video": True}
        self.messages_dropped = 0
        loudspeaker.add(self.voice_in)

    def _prepare_camera(self) -> None:
        """Open it while the transport connects."""
        if self._camera is not None and not self._ended:
            self._camera.hold(self, self._wanted.send_video and self._connected_at is None)

    def _streams(self, kind: str) -> tuple[RtpSendStream, RtpReceiveStream]:
        if kind == "audio":
            outgoing = RtpSendStream(kind, self.name, transmission=self.transmission)
            if self._microphone_track is not None:
                self._microphone_track.on_pause = outgoing.paused
                outgoing.on_loss = self._microphone_track.loss_reported
            incoming = RtpReceiveStream(kind, self.name, audio=self.voice_in, on_media=self._maybe_up)
        else:
            outgoing = RtpSendStream(kind, self.name, self._camera_track, self.transmission)
            incoming = RtpReceiveStream(
                kind, self.name, video=self.video_in, on_media=self._maybe_up,
                round_trip=lambda: outgoing.counters.round_trip_s,
            )
            incoming.limit(self._receive_limit)
        outgoing.on_failure = incoming.on_failure = self._on_defect
        self.outgoing[kind], self.incoming[kind] = outgoing, incoming
        return outgoing, incoming

    # -- media

    def set_directions(self, wanted: Directions) -> None:
        was_due = self._due()
        self._wanted = wanted
        if not was_due:  # what was not due until now is not missed from before
            self._heard_at = self._loop.time()
        if self._described_at is not None:
            self._prepare_camera()
        if self._connected_at is not None and not self._ended:
            self._apply()

    def peer_sends(self, *, audio: bool, video: bool) -> None:
        was_due = self._due()
        if video and not self._peer_sends["video"] and self._wanted.receive_video:
            self._on_video_lost()
        if video is not self._peer_sends["video"]:
            self.video_in.smoothness.interrupted()
        self._peer_sends = {"audio": audio, "video": video}
        if not video:
            self._screen.picture(self, None)
        if not was_due:  # what was not due until now is not missed from before; the same word again is no sign of life
            self._heard_at = self._loop.time()
        self._maybe_up()

    def _apply(self) -> None:
        sends_audio, _ = self._transport.negotiated("audio")
        sends_video, _ = self._transport.negotiated("video")
        if self._microphone_track is not None:
            agreed = self._transport.codec("audio")
            codec = VOICE_CODECS.get(agreed.mimeType.lower(), OPUS) if agreed is not None else OPUS
            self._microphone_track.negotiated(codec, self._wishes(codec))
            self._microphone_track.set_sending(self._wanted.send_audio and sends_audio)
        if self._camera_track is not None:
            self._camera_track.set_sending(self._wanted.send_video and sends_video)
        self._transport.mark(self._marks, video=self._wanted.send_video and sends_video)
        self.voice_in.silent = not self._wanted.receive_audio
        self.video_in.show(self._wanted.receive_video and self._screen.present)
        if not self._wanted.receive_video:
            self._screen.picture(self, None)

    def _demand(self) -> int | None:
        """Bits per second of picture that this session would send at most; None: none."""
        if self._camera is None or self._camera_track is None or not self._camera_track.sending:
            return None
        return self._camera.ladder.demand

    def _on_allocation(self, allocation: Allocation) -> None:
        if self._microphone_track is not None:
            self._microphone_track.path(allocation.total)
        if self._camera_track is not None and self._camera_track.sending:
            self._camera_track.allocate(allocation.video, allocation.lasting)

    def limit_received(self, bits_per_second: int) -> None:
        """The most picture the peer is to send, in bits per second; 0: as its path carries."""
        self._receive_limit = bits_per_second
        if "video" in self.incoming:
            self.incoming["video"].limit(bits_per_second)

    def _wishes(self, codec: VoiceCodec) -> Mapping[str, str]:
        """What the peer asks of the voice we send, in the words of its ``a=fmtp``."""
        return {}

    def _on_picture(self, picture: Picture) -> None:
        if not self._ended and self._wanted.receive_video and self._peer_sends["video"]:
            self._screen.picture(self, picture)

    def _on_video_lost(self) -> None:
        if "video" in self.incoming:
            self.incoming["video"].need_keyframe()

    def _on_video_asked(self) -> None:
        if "video" in self.incoming:
            self.incoming["video"].want_keyframe()

    def tap_encoded(self, limit_bytes: int = ENCODED_LIMIT) -> Tap[AccessUnit]:
        return self.video_in.encoded.open(limit_bytes)

    def tap_pictures(self, limit_bytes: int = PICTURES_LIMIT) -> Tap[Picture]:
        return self.video_in.pictures.open(limit_bytes)

    def _owed(self, kind: str) -> bool:
        """Whether the peer has to send it. A picture that we do not want it leaves out, whatever it says of it."""
        wanted = kind == "audio" or self._wanted.receive_video
        return wanted and self._peer_sends[kind] and self._transport.negotiated(kind)[1]

    def _due(self) -> bool:
        return self._owed("audio") or self._owed("video")

    def _on_connected(self) -> None:
        self._apply()
        if self._camera is not None:
            self._camera.hold(self, False)

    def _maybe_up(self) -> None:
        """Up once the transport is and the audio that is owed has shown itself (video that lacks is a diagnostic)."""
        if self._up or self._ended or self._connected_at is None:
            return
        kind = "audio" if self._owed("audio") else "video"
        if self._owed(kind) and not self._seen(kind):
            late = self._loop.time() - self._connected_at >= OWED_S
            if kind == "audio" and late:
                self._finish("oneWayMedia", "no sound of the peer within 10 s of the connection")
            if not (kind == "video" and late):
                return
        self._be_up()

    def _seen(self, kind: str) -> bool:
        stream = self.incoming.get(kind)
        return stream is not None and bool(stream.counters.packets or stream.counters.reports)

    def _look(self, now: float) -> None:
        due = self._up and not self._silent and self._owed("video") and self._wanted.receive_video
        self.video_in.look(now, due=due)
        self._keep_in_step(due=due)

    def _keep_in_step(self, *, due: bool) -> None:
        """Sound and picture of the peer: the earlier one waits."""
        sync, voice, video = self.lip_sync, self.voice_in, self.video_in
        heard, seen = voice.position, video.position
        if not due or seen is None or not self._owed("audio"):
            sync.rest()
        elif heard is not None and seen != self._seen_last:
            self._seen_last = seen
            spoken, shot = self.incoming["audio"].captured_at(heard[0]), self.incoming["video"].captured_at(seen[0])
            if spoken is not None and shot is not None:
                sync.update(heard[1] - spoken, seen[1] - shot, voice.delay_s)
        video.delay_s, voice.minimum_delay_s = sync.video_delay_s, sync.audio_delay_s

    def _release(self) -> None:
        for track in (self._microphone_track, self._camera_track):
            if track is not None:
                track.stop()
        if self._camera is not None:
            self._camera.hold(self, False)
        self._loudspeaker.remove(self.voice_in)
        self.voice_in.close()
        self._screen.picture(self, None)

    async def _end_streams(self, deadline_s: float) -> None:
        await self.transmission.close()
        await self.video_in.close(deadline_s)

    # -- facts

    @property
    def stalled(self) -> bool:
        """The peer says that it sends video and nothing has come of it for seconds."""
        return self.video_in.stalled and not self._ended

    @property
    def shown(self) -> Sequence[VideoIn]:
        """Pictures that are decoded for the screen."""
        return [self.video_in] if self.up and self.video_in.showing and self._peer_sends["video"] else []

    @property
    def sending(self) -> tuple[bool, bool]:
        """Whether audio and video leave now."""
        audio = self._microphone_track is not None and self._microphone_track.sending
        return audio, self._camera_track is not None and self._camera_track.sending

    @property
    def receiving(self) -> tuple[bool, bool]:
        """Whether audio is played and video shown now, as far as this session has a say; on hold neither is."""
        wanted = self._wanted
        return (self.up and wanted.receive_audio,
                self.up and wanted.receive_video and self._peer_sends["video"] and self._screen.present)

    @property
    def sending_since(self) -> float | None:
        """Monotonic time since which the oldest frame is being sent; None while no stream has one in hand."""
        begun = [self.transmission.sending_since, *(stream.taken_at for stream in self.outgoing.values())]
        return min((at for at in begun if at is not None), default=None)

    @property
    def lag(self) -> Lag | None:
        """What the picture takes here; None while none is sent."""
        track, stream = self._camera_track, self.outgoing.get("video")
        if track is None or stream is None or not track.sending:
            return None
        counters = stream.counters
        if counters.capture_to_send_s is None:
            return None
        return Lag(counters.capture_to_send_s, counters.capture_to_first_packet_s, track.dwell_s, track.waiting)

    @property
    def video_paused(self) -> bool:
        """Our picture is wanted, but the path carries no more than the sound."""
        return self._camera_track is not None and self._camera_track.sending and self._camera_track.paused

    @property
    def video_limit(self) -> str | None:
        """Why our picture is not what is wanted (W3C qualityLimitationReason); None while none is sent."""
        track = self._camera_track
        return track.quality.reason.value if track is not None and track.sending else None

    @property
    def camera(self) -> CameraFeed | None:
        return self._camera

    @property
    def shows(self) -> bool:
        """Whether there is a screen for pictures."""
        return self._screen.present

    @property
    def receive_limit(self) -> int:
        """See ``limit_received``."""
        return self._receive_limit

    @property
    def microphone_track(self) -> MicrophoneTrack | None:
        return self._microphone_track

    @property
    def camera_track(self) -> CameraTrack | None:
        return self._camera_track

    @property
    def channels(self) -> Sequence[Channel]:
        """Of data, where the transport has any."""
        return ()

    @property
    def voice_bitrate(self) -> int | None:
        """Bits per second that the voice is encoded with; None without a microphone."""
        return None if self._microphone_track is None else self._microphone_track.bit_rate

    def negotiated(self, kind: str) -> tuple[bool, bool]:
        return self._transport.negotiated(kind)

    async def stats(self) -> Sequence[Json]:
        return stats.collect(self, self._transport)
