"""A session on a peer connection: offer and answer, candidates, and the data channel beside the media."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar, Unpack

from aiortc import RTCDataChannel, RTCSessionDescription

from appliance.errors import EdgecallError, Refused, SignalingError
from appliance.media import sdp, stats
from appliance.media.aiortc_seam import PeerConnection, candidate_from_sdp
from appliance.media.api import Directions, IceFragment, IceServers, SessionBlocked, SessionPassed
from appliance.media.hearing import UNHEARD_S, Hearing, unheard
from appliance.media.life import MAX_EVENTS
from appliance.media.messages import MESSAGE_LIMIT, Inbound, Outbound
from appliance.media.rtp_seam import codec_preferences
from appliance.media.servers import ServerPool
from appliance.media.session import Channel, Session, SessionParts
from appliance.media.voice_codecs import VoiceCodec
from appliance.network import Network
from appliance.vocabulary import Json

__all__ = ["CHANNEL", "MixedSession", "PlayingSession", "PublishingSession", "WebRtcSession"]

log = logging.getLogger(__name__)
T = TypeVar("T")

CHANNEL: Final = "edgecall"
LOSSY: Final = "edgecall-lossy"
MAX_BUFFERED: Final = 1024 * 1024  # bytes waiting in the data channel
RESERVE: Final = 256 * 1024  # beyond them for what is urgent
EARLY_CANDIDATES: Final = 64


class WebRtcSession(Session):
    """``media.api.Session`` over aiortc."""

    def __init__(
        self, name: str, *, wanted: Directions, servers: ServerPool, loopback: bool, **parts: Unpack[SessionParts],
    ) -> None:
        super().__init__(name, wanted=wanted, **parts)
        marking = parts["marks"].of(video=wanted.send_video)
        self._loopback = loopback
        self._transport = self._pc = PeerConnection(
            servers, loopback=loopback, name=name, marking=marking, streams=self._streams,
            on_arrival=self.on_arrival, on_error=self._on_connect_error, wide=self.transmission,
        )
        self._pc.on("connectionstatechange", self.on_state)
        self._pc.on("datachannel", self._on_channel)
        self._channels: list[Channel] = []
        self._outbound = Outbound()
        self._inbound = Inbound(self._loop.time)
        self._rejected = sdp.Rejected()
        self._early: list[tuple[str, str | None, int | None]] | None = []

    # -- signalling

    async def offer(self) -> str:
        self._prepare_camera()
        self._add_line("audio")
        self._add_line("video")
        # after the first transceiver: with MAX_BUNDLE the other order never connects (aiortc 1.16)
        self._open_channels()
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return sdp.start_boldly(self._pc.localDescription.sdp)

    async def answer(self, offer: str) -> str:
        return await self._boundary(self._answer(offer), "offer")

    async def accept_answer(self, answer: str) -> None:
        await self._boundary(self._accept(answer), "answer")

    async def add_candidate(self, candidate: str, mid: str | None, line: int | None) -> None:
        if self._ended:
            return
        if self._early is not None:
            if len(self._early) < EARLY_CANDIDATES:
                self._early.append((candidate, mid, line))
            return
        await self._boundary(self._add_candidate(candidate, mid, line), "candidate")

    async def _answer(self, offer: str) -> str:
        text, kinds, self._rejected = sdp.admit_offer(offer)
        sdp.require_dtls(text)
        self._prepare_camera()
        self.without.update(self._rejected.reasons)
        for kind in kinds:
            if kind != "application":
                self._add_line(kind)
        await self._pc.setRemoteDescription(RTCSessionDescription(sdp=text, type="offer"))
        await self._pc.setLocalDescription(await self._pc.createAnswer())
        answer = sdp.start_boldly(sdp.finish_answer(self._pc.localDescription.sdp, self._rejected))
        await self._take_early()
        return answer

    async def _accept(self, answer: str) -> None:
        local = self._pc.localDescription
        if local is None or local.type != "offer" or self._described_at is not None:
            raise SignalingError("an answer came without an offer of ours", sub_code="order")
        text, reasons = sdp.admit_answer(answer, local.sdp)
        sdp.require_dtls(text)
        self.without.update(reasons)
        await self._pc.setRemoteDescription(RTCSessionDescription(sdp=text, type="answer"))
        await self._take_early()

    async def _take_early(self) -> None:
        """The description is there: what was trickled before it can be used."""
        self._described()
        early, self._early = self._early or [], None
        for candidate in early:
            await self._add_candidate(*candidate)

    async def _add_candidate(self, candidate: str, mid: str | None, line: int | None) -> None:
        first = self._pc.getTransceivers()[0]
        if candidate == "":
            await self._pc.addIceCandidate(None)
            return
        place = self._rejected.order[0] if self._rejected.order else 0
        if mid != first.mid if mid is not None else line != place:
            return  # of a line that is bundled into the first
        if not sdp.usable_candidate(candidate):
            return
        parsed = candidate_from_sdp(candidate.removeprefix("candidate:"))
        parsed.sdpMid = first.mid
        await self._pc.addIceCandidate(parsed)

    # -- a server, after the descriptions

    @property
    def description(self) -> str:
        local = self._pc.localDescription
        return local.sdp if local is not None else ""

    @property
    def connected(self) -> bool:
        return self._connected_at is not None and not self._ended

    async def gather_more(self, ice: IceServers) -> IceFragment | None:
        return None if self.connected or self._ended else await self._pc.gather_more(ServerPool(ice))

    async def restart_ice(self) -> IceFragment:
        if not self.connected:
            raise ConnectionError("a session that is not connected has nothing to restart")
        return await self._pc.restart_ice()

    async def ice_restarted(self, theirs: IceFragment) -> bool:
        try:
            usable = tuple(one for one in theirs.candidates if sdp.usable_candidate(one))
            await self._boundary(self._pc.ice_restarted(replace(theirs, candidates=usable)), "fragment")
        except SignalingError as error:
            log.info("no other path was found: %s", error.message)
            return False
        return self.connected

    async def _boundary(self, work: Awaitable[T], what: str) -> T:
        """The one place where text of a peer meets aiortc: any exception means that the text is bad."""
        try:
            return await work
        except EdgecallError:
            raise
        except Exception as error:
            raise SignalingError(
                f"the peer's {what} cannot be used ({type(error).__name__})", sub_code="badSdp"
            ) from error

    def _add_line(self, kind: str) -> None:
        track = self._microphone_track if kind == "audio" else self._camera_track
        if track is None:
            self.without[kind] = f"no {'microphone' if kind == 'audio' else 'camera'}: {kind} is only received"
        transceiver = self._pc.addTransceiver(track or kind, direction="sendrecv" if track else "recvonly")
        transceiver.setCodecPreferences(codec_preferences(kind))

    def _on_connect_error(self, error: Exception) -> None:
        log.warning("connecting failed inside the media stack: %s", type(error).__name__, exc_info=error)
        self._finish("dtls", f"{type(error).__name__}: {error}")

    def _wishes(self, codec: VoiceCodec) -> Mapping[str, str]:
        return sdp.format_parameters(self._pc.remoteDescription.sdp, codec.rtpmap)

    def network_changed(self, before: Network, now: Network) -> None:
        """See SessionStranded. What began at a loopback address ends there too and is left alone."""
        if not self._loopback:
            super().network_changed(before, now)

    def _round_trip_s(self) -> float | None:
        return self._pc.round_trip_s

    # -- data

    def _open_channels(self) -> None:
        self._adopt(self._pc.createDataChannel(CHANNEL))
        self._adopt(self._pc.createDataChannel(LOSSY, ordered=False, maxRetransmits=0))

    def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        found = self._open_channel(lossy=lossy)
        if found.channel.bufferedAmount > MAX_BUFFERED + (RESERVE if urgent else 0):
            raise Refused("the peer does not take data as fast as it is sent", sub_code="dataBacklog")
        try:
            frames = self._outbound.frames(channel, payload, to=to, lossy=lossy)
        except ValueError:
            raise Refused(f"a data message may have {MESSAGE_LIMIT // 1024} KiB; shorten it or send it in parts",
                          code=413, sub_code="tooLarge") from None
        for frame in frames:
            found.channel.send(frame)
            found.sent += 1
            found.sent_bytes += len(frame.encode())

    def _open_channel(self, *, lossy: bool) -> Channel:
        """Raises Refused where there is none; what may be lost goes reliably where the peer has nothing else."""
        open_ones = [one for one in self._channels if one.channel.readyState == "open"]
        wanted = [one for one in open_ones if (one.channel.label == LOSSY) is lossy]
        found = next(iter(wanted or (open_ones if lossy else ())), None)
        if found is None:
            raise Refused("the data channel to the peer is not open", sub_code="noDataChannel")
        return found

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label in (CHANNEL, LOSSY) and len(self._channels) < 4:
            self._adopt(channel)

    def _adopt(self, channel: RTCDataChannel) -> None:
        adopted = Channel(channel)
        self._channels.append(adopted)
        channel.on("message", functools.partial(self._on_message, adopted))

    def _on_message(self, channel: Channel, message: str | bytes) -> None:
        channel.received += 1
        channel.received_bytes += len(message if isinstance(message, bytes) else message.encode())
        malformed = self._inbound.malformed
        event = self._inbound.take(message)
        self.messages_dropped += self._inbound.malformed - malformed
        if event is None:
            return
        if len(self._events) >= MAX_EVENTS:
            self.messages_dropped += 1
            return
        self._emit(event)

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels


class _ToServer(WebRtcSession):
    """With a server that may be there, answer and report, though no media pass."""

    _passing: SessionBlocked | SessionPassed | None = None  # as told last

    def _look(self, now: float) -> None:
        super()._look(now)
        if not self._up or self._silent:
            return
        moment = time.monotonic()
        obstacles = self._obstacles(moment)
        told: SessionBlocked | SessionPassed | None = SessionPassed() if self._passes(moment) else None
        if obstacles:
            told = SessionBlocked(any(obstacles))
        if told is not None and told != self._passing:
            self._passing = told
            self._emit(told)

    @property
    def _hearings(self) -> Sequence[Hearing]:
        return [one.hearing for one in self.outgoing.values()]

    def _obstacles(self, moment: float) -> Sequence[bool]:
        """For each way that media do not pass, whether they have passed it before."""
        if not unheard(self._hearings, moment):
            return []
        return [any(one.heard_at is not None for one in self._hearings)]

    def _passes(self, moment: float) -> bool:
        """Media have passed lately; while none are sent nothing is known of it."""
        return any(one.heard(moment) for one in self._hearings)


class PublishingSession(_ToServer):
    """Only sends: microphone and camera to a server, which hands them on, and data messages where it does that too.

    The server owes nothing; when it is quiet it is asked (``inquiry``), whether anything is sent or not.
    """

    def __init__(
        self, name: str, *, wanted: Directions, servers: ServerPool, loopback: bool, data: bool = False,
        **parts: Unpack[SessionParts],
    ) -> None:
        super().__init__(name, wanted=wanted, servers=servers, loopback=loopback, **parts)
        self._data = data

    def _due(self) -> bool:
        return False

    def _ask(self) -> bool:
        return self._pc.ask()

    async def offer(self) -> str:
        self._prepare_camera()
        for kind, track in (("audio", self._microphone_track), ("video", self._camera_track)):
            if track is None:
                self.without[kind] = f"no {'microphone' if kind == 'audio' else 'camera'}: no {kind} is sent"
                continue
            transceiver = self._pc.addTransceiver(track, direction="sendonly")
            transceiver.setCodecPreferences(codec_preferences(kind))
        if self._data:
            self._open_channels()
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return self._pc.localDescription.sdp


class MixedSession(_ToServer):
    """Sound alone, both ways, with a server that mixes it; without a microphone it is only received. No data channel.
    Where it owes no sound it is asked.
    """

    def _ask(self) -> bool:
        return not (self.up and self._due()) and self._pc.ask()

    def _quiet_s(self, moment: float) -> float:
        """Since sound has come that the server owes; it mixes it without a pause."""
        stream = self.incoming.get("audio")
        if stream is None or self._connected_at is None or not self._owed("audio"):
            return 0.0
        return moment - max(stream.counters.last_at, self._connected_at)

    def _obstacles(self, moment: float) -> Sequence[bool]:
        found = [*super()._obstacles(moment)]
        if self._quiet_s(moment) >= UNHEARD_S:
            found.append(self.incoming["audio"].counters.packets > 0)
        return found

    def _passes(self, moment: float) -> bool:
        sends = any(one.begun_at is not None for one in self._hearings)
        return bool(self.incoming["audio"].counters.packets) and (super()._passes(moment) or not sends)

    async def offer(self) -> str:
        self._add_line("audio")
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return self._pc.localDescription.sdp


class PlayingSession(WebRtcSession):
    """Only receives: what a server plays. No data channel. The server may offer, too.

    Where it owes something the lack of that is silence, also of one that is there and has nothing to play: it is asked
    for a new resource then. Where it owes nothing it is asked whether it is there.
    """

    def _ask(self) -> bool:
        return not (self.up and self._due()) and self._pc.ask()

    async def offer(self) -> str:
        self._add_line("audio")
        self._add_line("video")
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return self._pc.localDescription.sdp

    def _add_line(self, kind: str) -> None:
        transceiver = self._pc.addTransceiver(kind, direction="recvonly")
        transceiver.setCodecPreferences(codec_preferences(kind))

    async def stats(self) -> Sequence[Json]:
        return stats.named_apart(await super().stats(), "play")
