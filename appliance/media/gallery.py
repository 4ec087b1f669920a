"""What a room sends: many voices and pictures on one connection, which the room's server offers and offers anew.

Each media line is a stream of its own, found by its MID; a line that carried one person may carry another after the
next offer. Pictures are decoded only while they are shown, and a person of whom nothing arrives is told.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

from aiortc import RTCDataChannel, RTCSessionDescription

from appliance.errors import EdgecallError, SignalingError
from appliance.media import sdp, stats
from appliance.media.aiortc_seam import PeerConnection, candidate_from_sdp
from appliance.media.api import OnLine
from appliance.media.arrival import Arrival
from appliance.media.downlink import Loudspeaker
from appliance.media.dscp import Marks
from appliance.media.layout import Source
from appliance.media.life import CHECK_S, MAX_EVENTS, MediaLife
from appliance.media.messages import Inbound
from appliance.media.playout import Playout
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.screen import Screen
from appliance.media.servers import ServerPool
from appliance.media.sound import dbfs
from appliance.media.transmission import Transmission
from appliance.media.video_in import VideoIn
from appliance.vocabulary import Json
from hw.api import Picture

__all__ = ["Gallery"]

log = logging.getLogger(__name__)

OPENER: Final = "JanusDataChannel"
ABSENT_S: Final = 2.0
"""Of a line of which nothing has come for so long nothing arrives any more."""
HOPELESS_S: Final = 10.0
"""After people were told that a picture stands: neither key frames nor new decoders will mend it."""


class _Line:
    """One media line: a voice or a picture, and who is on it now."""

    def __init__(self, gallery: Gallery, number: int, kind: str) -> None:
        name = f"{gallery.name} line {number}"
        self.kind = kind
        self.on: OnLine | None = None
        self.since = 0.0  # monotonic time when ``on`` came onto it
        self._fine_at = 0.0  # and when its picture was last none that people are told of
        self._screen = gallery.screen
        self._arrival = Arrival()
        self._loudspeaker = gallery.loudspeaker
        self.voice: Playout | None = None
        self.video: VideoIn | None = None
        if kind == "audio":
            self.voice = Playout()
            self._loudspeaker.add(self.voice)
        else:
            self.video = VideoIn(name, gallery.loop, on_picture=self._on_picture, on_lost=self._on_lost,
                                 on_asked=self._on_asked)
            self.video.show(False)
        self.stream = RtpReceiveStream(kind, name, audio=self.voice, video=self.video)
        self._energy = 0.0  # of the voice, as it was looked at last

    def carry(self, on: OnLine | None, *, wanted: bool) -> None:
        """``on`` is on the line from here on; ``wanted``: what arrives is played, or shown."""
        if on is None or on != self.on:
            self._screen.picture(self, None)
            self.since = time.monotonic()
            self._arrival = Arrival()
            if on is not None and self.video is not None:
                self.video.on_new_source()  # what came before is of another person: a key frame begins anew
        self.on = on
        if self.voice is not None:
            self.voice.silent = on is None or not wanted
        if self.video is not None:
            self.video.show(on is not None and wanted and self._screen.present)
            if not wanted:
                self._screen.picture(self, None)

    @property
    def heard_at(self) -> float:
        """Monotonic time of the last packet; 0 before the first."""
        return self.stream.counters.last_at

    def loudness(self) -> float:
        """Of the voice since this was asked last, CHECK_S ago, in dBFS."""
        energy = 0.0 if self.voice is None else self.voice.counters.energy
        before, self._energy = self._energy, energy
        return dbfs(max(0.0, energy - before) / CHECK_S)

    def look(self, now: float, *, up: bool) -> None:
        if self.video is not None:
            # of one who sends nothing there is nothing to repair
            self.video.look(now, due=up and self.on is not None and time.monotonic() - self.heard_at < ABSENT_S)
        if self.video is None or not self.video.stalled:
            self._fine_at = time.monotonic()

    def still(self, moment: float) -> bool:
        """Somebody is on it, and at monotonic ``moment`` nothing comes, or nothing that anything can be made of."""
        return self.on is not None and (moment - max(self.since, self.heard_at) > ABSENT_S
                                        or moment - max(self.since, self._fine_at) > HOPELESS_S)

    def arrived(self, now: float) -> int | None:
        """How well; None: not known."""
        if self.on is None or self.stream.reception is None:
            return None
        self._arrival.look(self.stream.counters.packets, self.stream.reception.lost, now)
        return self._arrival.level

    def release(self) -> None:
        self.on = None  # a picture that is decoded still is nobody's: the screen would keep it, and us, for good
        self._screen.picture(self, None)
        if self.voice is not None:
            self._loudspeaker.remove(self.voice)
            self.voice.close()

    async def close(self, deadline_s: float) -> None:
        if self.video is not None:
            await self.video.close(deadline_s)

    def _on_picture(self, picture: Picture) -> None:
        if self.on is not None:
            self._screen.picture(self, picture, Source(self.on.feed, self.on.shows))

    def _on_lost(self) -> None:
        self.stream.need_keyframe()

    def _on_asked(self) -> None:
        self.stream.want_keyframe()


class Gallery(MediaLife):
    """One connection that only receives; made by ``Studio``. Events are those of a session.

    ``on_absence`` is called when another set of people is ``absent``, or of lines ``still``, or ``levels`` are others.
    """

    def __init__(
        self, name: str, *, servers: ServerPool, loopback: bool, marks: Marks, loudspeaker: Loudspeaker, screen: Screen,
    ) -> None:
        super().__init__(name)
        self.loop = self._loop
        self.loudspeaker = loudspeaker
        self.screen = screen
        self.on_absence: Callable[[], None] = _nobody
        self.on_voices: Callable[[Mapping[str, float]], None] = _unheard
        self.absent: Set[str] = frozenset()
        """Feeds of which nothing arrives."""
        self.still: Set[str] = frozenset()
        """MIDs of the lines with somebody on them on which nothing arrives, or nothing of any use."""
        self.levels: Mapping[str, int] = {}
        """How well what people send arrives, 5 excellent to 1 bad, by feed, as far as it is known."""
        self._loopback = loopback
        self._wanted = {"audio": True, "video": True}
        self._lines: list[_Line] = []
        self._by_mid: dict[str, _Line] = {}
        self._since: dict[str, float] = {}  # feed -> when it came onto a line
        self.transmission = Transmission(name)
        self.transmission.on_failure = self._on_defect
        self._transport = self._pc = PeerConnection(
            servers, loopback=loopback, name=name, marking=marks.of(video=False), streams=self._streams,
            on_arrival=self.on_arrival, on_error=self._on_connect_error, wide=self.transmission,
        )
        self._pc.on("connectionstatechange", self.on_state)
        self._pc.on("datachannel", self._on_channel)
        self._inbound = Inbound(self._loop.time)
        self._opener: RTCDataChannel | None = None
        self.messages_dropped = 0

    # -- signalling

    async def answer(self, offer: str, lines: Mapping[str, OnLine]) -> str:
        """Take the room's offer, the first or a further one, and return the answer. ``lines``: who is on each, by MID;
        a line that is not named carries nobody. Raises SignalingError for any bad SDP."""
        try:
            admitted = sdp.admit_room_offer(offer)
            sdp.require_dtls(admitted)
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=admitted, type="offer"))
            if self._opener is None and self._pc.sctp is not None:
                # Janus hands data on only to who has opened a channel itself; on it nothing comes
                self._opener = self._pc.createDataChannel(OPENER)
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except EdgecallError:
            raise
        except Exception as error:  # whatever the text of a peer does inside aiortc, it is the text that is bad
            raise SignalingError(f"the room's offer cannot be used ({type(error).__name__})", sub_code="badSdp"
                                 ) from error
        self._by_mid = {mid: line for mid, stream in self._pc.receiving().items()
                        for line in self._lines if line.stream is stream}
        self.carry(lines)
        if self._described_at is None:
            self._described()
        return self._pc.localDescription.sdp

    def carry(self, lines: Mapping[str, OnLine]) -> None:
        """Who is on which line from here on, by MID; a line that is not named carries nobody."""
        now = time.monotonic()
        self._since = {on.feed: self._since.get(on.feed, now) for on in lines.values()}
        for mid, line in self._by_mid.items():
            line.carry(lines.get(mid), wanted=self._wanted[line.kind])

    async def add_candidate(self, candidate: str) -> None:
        first = next(iter(self._pc.getTransceivers()), None)
        if self._ended or first is None:
            return
        if candidate == "":
            await self._pc.addIceCandidate(None)
        elif sdp.usable_candidate(candidate):
            parsed = candidate_from_sdp(candidate.removeprefix("candidate:"))
            parsed.sdpMid = first.mid
            await self._pc.addIceCandidate(parsed)

    def set_wanted(self, *, audio: bool, video: bool) -> None:
        """Play what is heard, and show what is seen, or not; at once and without the room's help."""
        self._wanted = {"audio": audio, "video": video}
        for line in self._lines:
            line.carry(line.on, wanted=self._wanted[line.kind])

    # -- life

    def _streams(self, kind: str) -> tuple[RtpSendStream, RtpReceiveStream]:
        line = _Line(self, len(self._lines), kind)
        line.stream.on_failure = self._on_defect
        self._lines.append(line)
        return RtpSendStream(kind, f"{self.name} line {len(self._lines)}", transmission=self.transmission), line.stream

    def _due(self) -> bool:
        """Media came until nothing came at all: of those who send nothing reports are heard still, and answers."""
        return any(line.on is not None and self._heard_at - line.heard_at < ABSENT_S for line in self._lines)

    def _ask(self) -> bool:
        """A room in which nobody sends anything owes its answers alone."""
        return self._pc.ask()

    def _round_trip_s(self) -> float | None:
        return self._pc.round_trip_s

    def _maybe_up(self) -> None:
        """A room may be silent: the transport is all that is owed."""
        if self._connected_at is not None and not self._up and not self._ended:
            self._be_up()

    def _on_connected(self) -> None:
        """Nothing to do: lines begin with their first packet."""

    def _look(self, now: float) -> None:
        for line in self._lines:
            line.look(now, up=self._up and not self._silent)
        moment = time.monotonic()
        latest: dict[str, float] = dict(self._since)
        for line in self._lines:
            if line.on is not None and line.on.feed in latest:
                latest[line.on.feed] = max(latest[line.on.feed], line.heard_at)
        absent = frozenset(feed for feed, at in latest.items() if moment - at > ABSENT_S) if self._up else frozenset()
        still = frozenset(mid for mid, line in self._by_mid.items() if line.still(moment)) if self._up else frozenset()
        levels = self._levels(moment)
        if (absent, still, levels) != (self.absent, self.still, self.levels):
            self.absent, self.still, self.levels = absent, still, levels
            self.on_absence()
        if self._up:
            self.on_voices({line.on.feed: line.loudness() for line in self._lines
                            if line.on is not None and line.voice is not None})

    def _levels(self, now: float) -> Mapping[str, int]:
        """Of the worst of each person's lines."""
        found: dict[str, int] = {}
        for line in self._lines:
            level = line.arrived(now)
            if line.on is not None and level is not None:
                found[line.on.feed] = min(level, found.get(line.on.feed, level))
        return found

    def _release(self) -> None:
        for line in self._lines:
            line.release()

    async def _end_streams(self, deadline_s: float) -> None:
        await self.transmission.close()
        for line in self._lines:
            await line.close(deadline_s / len(self._lines))

    def _on_channel(self, channel: RTCDataChannel) -> None:
        """Of one person in the room: the server names it so."""
        channel.on("message", functools.partial(self._on_message, channel.label))

    def _on_message(self, feed: str, frame: str | bytes) -> None:
        message = self._inbound.take(frame, feed)
        if message is not None and len(self._events) < MAX_EVENTS:
            self._emit(message)
        elif message is not None:
            self.messages_dropped += 1

    def _on_connect_error(self, error: Exception) -> None:
        log.warning("connecting failed inside the media stack: %s", type(error).__name__, exc_info=error)
        self._finish("dtls", f"{type(error).__name__}: {error}")

    # -- facts

    @property
    def receiving(self) -> tuple[bool, bool]:
        """Whether sound is played and pictures are shown, as far as the room sends any."""
        kinds = {line.kind for line in self._lines if line.on is not None}
        return (self.up and "audio" in kinds and self._wanted["audio"],
                self.up and "video" in kinds and self._wanted["video"] and self.screen.present)

    @property
    def shown(self) -> Sequence[VideoIn]:
        """Pictures that are decoded for the screen."""
        return [line.video for line in self._lines if line.video is not None and line.video.showing] if self.up else []

    @property
    def stalled(self) -> int:
        """Pictures that stand still though packets come."""
        return 0 if self._ended else sum(line.video is not None and line.video.stalled for line in self._lines)

    async def stats(self) -> Sequence[Json]:
        lines = [stats.Received(f"{line.kind}-{mid}", line.kind, line.stream, mid, line.voice, line.video)
                 for mid, line in self._by_mid.items() if line.on is not None]
        return stats.collect_room(lines, self._pc)


def _nobody() -> None:
    return None


def _unheard(_: Mapping[str, float]) -> None:
    return None
