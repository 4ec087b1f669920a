"""Our video sender and receiver with a bad network between them, on virtual time: minutes in a second.

    outcome = await watch(Conditions(loss=0.02, delay_s=0.02), seconds=60, seed=1)

The pictures are bytes of the sizes that 720p30 at 1.3 Mbit/s has; nothing is encoded, encrypted or decoded. With
``adapts`` they come through the product's own camera feed, which follows what transport-wide feedback says of the path,
and sound goes beside them.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any
from unittest import mock

import av
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import RtcpPacket, RtpPacket, is_rtcp

from appliance.media.api import AccessUnit
from appliance.media.camera import CameraFeed, CameraTrack
from appliance.media.congestion import transport_cc
from appliance.media.congestion.allocation import Allocation
from appliance.media.rtp_receive import Incoming, RtpReceiveStream
from appliance.media.rtp_send import EncodedTrack, Outgoing, RtpSendStream
from appliance.media.smoothness import Smoothness
from appliance.media.transmission import Transmission
from hw.api import EncodedFrame, EncoderKind, Picture, VideoMode
from tests.support.coded_video import Film
from tests.support.impair import Conditions, Link

__all__ = ["Outcome", "adapt", "watch"]

FPS = 30
KEY_BYTES = 35_000
DELTA_BYTES = 5_200
CALM_S = 1.0  # without loss, at the beginning
WARM_S = 6.0  # more of that, until an adapting picture is what is wanted
KEY_FACTOR = 4  # times as large as other pictures, by an encoder that keeps its rate
MEDIA, RTX, VOICE = 96, 97, 111
VOICE_BYTES = 110  # 20 ms of Opus at 40 kbit/s, now and then a little more
WIDE_ID, WIDE_AT = 3, 17  # the transport-wide number stands first, behind the heads of RTP and of the extensions
SSRC, RTX_SSRC, VOICE_SSRC, REPORTER = 7, 8, 9, 2
CODECS = [
    RTCRtpCodecParameters(mimeType="video/H264", clockRate=90_000, payloadType=MEDIA),
    RTCRtpCodecParameters(mimeType="video/rtx", clockRate=90_000, payloadType=RTX, parameters={"apt": MEDIA}),
]


@dataclass
class Outcome:
    """What arrived of one run, after its calm beginning."""

    seconds: float
    latencies: list[float] = field(default_factory=list)  # capture to complete, of each frame
    sizes: list[tuple[float, int, int]] = field(default_factory=list)  # (time, lines, frames per second), each change
    rates: list[tuple[float, float]] = field(default_factory=list)  # (time, estimate in bits per second)
    smoothness: Smoothness = field(default_factory=Smoothness)
    incoming: Incoming = field(default_factory=Incoming)
    outgoing: Outgoing = field(default_factory=Outgoing)
    resent: float = 0.0  # packets sent again, as a share of all of the picture's
    lost: float = 0.0  # share of all packets that the path lost or its queue dropped
    arrived_bytes: int = 0  # of all, on the wire
    voices: int = 0  # packets of sound that arrived
    reasons: dict[str, float] = field(default_factory=dict)  # seconds by what limited the picture

    @property
    def frames_per_second(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def frozen(self) -> float:
        """Share of the time."""
        return self.smoothness.total_freezes_s / self.seconds

    def latency(self, share: float) -> float:
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    def __str__(self) -> str:
        return (
            f"frozen {self.frozen:.2%} in {self.smoothness.freeze_count}, p50 {self.latency(0.5) * 1000:.0f} ms, "
            f"p99 {self.latency(0.99) * 1000:.0f} ms, frames {len(self.latencies) / self.seconds / FPS:.1%}, "
            f"resent {self.resent:.1%} of packets, "
            f"nacks {self.incoming.nacks}, plis {self.incoming.plis}, given up {self.incoming.given_up}"
        )


def _nal(kind: bytes, size: int) -> bytes:
    return b"\0\0\0\1" + kind + b"\x9a" * size


def _key_frame(size: int) -> bytes:
    return _nal(b"\x67", 20) + _nal(b"\x68", 4) + _nal(b"\x65", size)


def _scene(seconds: float) -> list[AccessUnit]:
    key = AccessUnit(_key_frame(KEY_BYTES), 0, True, 0.0, 0.0)
    delta = AccessUnit(_nal(b"\x41", DELTA_BYTES), 0, False, 0.0, 0.0)
    return [key] + [delta] * round(seconds * FPS)


class _Path:
    """One direction: a Link that delivers by itself."""

    def __init__(self, seed: int) -> None:
        self.link = Link(seed=seed)
        self.deliver = _nobody
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, data: bytes) -> None:
        self.link.send(self._loop.time(), data)
        self._pump()

    def change(self, conditions: Conditions) -> None:
        self.link.change(self._loop.time(), conditions)

    def stop(self) -> None:
        self.deliver = _nobody
        if self._timer is not None:
            self._timer.cancel()

    def _pump(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for packet in self.link.take(self._loop.time()):
            self.deliver(packet)
        if (due := self.link.next_at) is not None:
            self._timer = self._loop.call_at(due, self._pump)


def _nobody(_: bytes) -> None:
    return None


class _Encoder:
    """A camera on the loop's own time whose pictures have exactly the size asked for."""

    encoder = EncoderKind.HARDWARE

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sink: Callable[[EncodedFrame], None] | None = None
        self._key = True
        self._timer: asyncio.TimerHandle | None = None
        self.mode: VideoMode | None = None
        self.sizes: list[tuple[float, int, int]] = []
        self.first_us = 0

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self.mode, self._sink = mode, sink
        self._loop.call_soon_threadsafe(self._frame)
        return mode

    def request_keyframe(self) -> None:
        self._key = True

    def set_bitrate(self, bits_per_second: int) -> None:
        assert self.mode is not None
        self.mode = VideoMode(self.mode.width, self.mode.height, self.mode.fps, bits_per_second)

    def set_mode(self, mode: VideoMode) -> None:
        self.mode, self._key = mode, True
        self.sizes.append((self._loop.time(), mode.height, mode.fps))

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        return b""

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None: ...

    def stop(self) -> None:
        self.mode = None

    def _frame(self) -> None:
        if self.mode is None or self._sink is None:
            return
        now = self._loop.time()
        self._timer = self._loop.call_at(now + 1 / self.mode.fps, self._frame)
        size = self.mode.bitrate // 8 // self.mode.fps
        data = _key_frame(KEY_FACTOR * size) if self._key else _nal(b"\x41", size)
        captured = round(now * 1e6)
        self.first_us = self.first_us or captured
        self._sink(EncodedFrame(data, captured, self._key, captured))
        self._key = False


class _Voice(EncodedTrack):
    """Sound without a pause."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._begun = asyncio.get_running_loop().time()

    async def recv(self) -> av.Packet[Any]:
        self._number += 1
        await asyncio.sleep(self._begun + self._number * 0.02 - asyncio.get_running_loop().time())
        packet: av.Packet[Any] = av.Packet(bytes(VOICE_BYTES))
        packet.pts, packet.time_base = self._number * 960, Fraction(1, 48_000)
        return packet

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return self._begun + (packet.pts or 0) / 48_000


class _Screen:
    wants_video = True

    def __init__(self, captured: Callable[[int], float], outcome: Outcome) -> None:
        self._captured = captured
        self._outcome = outcome
        self._origin: int | None = None
        self.calm = True

    def on_access_unit(self, unit: AccessUnit) -> None:
        if self._origin is None:
            self._origin = unit.timestamp
        self._outcome.smoothness.rendered(unit.arrived_s)
        if not self.calm:
            captured = self._captured(unit.timestamp - self._origin & 0xFFFFFFFF)
            self._outcome.latencies.append(unit.arrived_s - captured)

    def on_new_source(self) -> None: ...


@asynccontextmanager
async def _clock() -> AsyncIterator[None]:
    """What asks for the time gets that of the virtual loop."""
    now, began = asyncio.get_running_loop().time, time.time()
    with mock.patch("time.monotonic", now), mock.patch("time.time", lambda: began + now()):
        yield


async def watch(
    conditions: Conditions, *, back: Conditions | None = None, seconds: float = 60.0, seed: int = 1,
) -> Outcome:
    """One peer watches a film of the other's for ``seconds`` under ``conditions``, of which ``back`` is what RTCP
    meets."""
    random.seed(seed)  # reports are spread by it
    async with _clock():
        film = Film(_scene(seconds + CALM_S + 1), fps=FPS)
        async with _Call(film, film.captured.__getitem__, conditions.delay_s, seconds, seed) as call:
            await asyncio.sleep(CALM_S)
            await call.impaired(conditions, back or conditions)
        return call.outcome


async def adapt(
    conditions: Conditions, *, back: Conditions | None = None, seconds: float = 60.0, seed: int = 1,
) -> Outcome:
    """The same with a camera that follows what transport-wide feedback says of the path, and with sound."""
    random.seed(seed)
    async with _clock():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as executor:
            encoder = _Encoder(loop)
            feed = CameraFeed(encoder, VideoMode(), loop, executor)
            feed.start()
            track = feed.track()

            def captured(ticks: int) -> float:
                return (encoder.first_us * 9 // 100 + ticks) / 90_000

            async with _Call(track, captured, conditions.delay_s, seconds, seed, extended=True) as call:
                transmission = call.transmission

                def allot(allocation: Allocation) -> None:
                    call.outcome.rates.append((loop.time(), transmission.available_bps or 0.0))
                    track.allocate(allocation.video, allocation.lasting)

                transmission.on_allocation = allot
                transmission.demand = lambda: feed.ladder.demand
                track.set_sending(True)
                await asyncio.sleep(CALM_S + WARM_S)
                before = track.quality.durations(loop.time())
                await call.impaired(conditions, back or conditions)
                after = track.quality.durations(loop.time())
                call.outcome.reasons = {reason: after[reason] - before[reason] for reason in after}
                call.outcome.sizes = encoder.sizes
                await feed.close()
        return call.outcome


class _Call:
    """A sender and a receiver with a Link each way."""

    def __init__(
        self, track: EncodedTrack, captured: Callable[[int], float], delay_s: float, seconds: float, seed: int, *,
        extended: bool = False,
    ) -> None:
        self.outcome = Outcome(seconds)
        self.transmission = Transmission("there")
        self._extended = extended
        self._track = track
        self._forth, self._home = _Path(2 * seed), _Path(2 * seed + 1)
        delay = Conditions(delay_s=delay_s)
        self._forth.change(delay)
        self._home.change(delay)
        feedback = track if isinstance(track, Film | CameraTrack) else None
        self._sending = RtpSendStream("video", "there", feedback, self.transmission)
        self._speaking = RtpSendStream("audio", "there", transmission=self.transmission)
        self._screen = _Screen(captured, self.outcome)
        self._receiving = RtpReceiveStream(
            "video", "here", video=self._screen, round_trip=lambda: self._sending.counters.round_trip_s)
        self._reports = Transmission("here")
        self._forth.deliver, self._home.deliver = self._arrived, self._reported

    async def __aenter__(self) -> _Call:
        parameters = RTCRtpSendParameters(codecs=CODECS, rtcp=RTCRtcpParameters(cname="x"))
        voice = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=48_000, channels=2, payloadType=VOICE)
        if self._extended:
            for codec in (CODECS[0], voice):
                codec.rtcpFeedback = [RTCRtcpFeedback("transport-cc")]
            parameters.headerExtensions = [RTCRtpHeaderExtensionParameters(WIDE_ID, transport_cc.URI)]
            self._reports.report_as(REPORTER, self._home.send)
        self._receiving.start(rtcp_ssrc=REPORTER, parameters=parameters, send=self._home.send)
        self._sending.start(
            ssrc=SSRC, rtx_ssrc=RTX_SSRC, parameters=parameters, send=self._forth.send, track=self._track)
        if self._extended:
            sound = RTCRtpSendParameters(
                codecs=[voice], rtcp=RTCRtcpParameters(cname="x"), headerExtensions=parameters.headerExtensions)
            self._speaking.start(
                ssrc=VOICE_SSRC, rtx_ssrc=0, parameters=sound, send=self._forth.send, track=_Voice())
        return self

    async def impaired(self, forth: Conditions, home: Conditions) -> None:
        """What is counted begins here."""
        self._forth.change(forth)
        self._home.change(home)
        self._screen.calm = False
        sent = self._sending.counters
        path = self._forth.link.counters
        before, packets, again = replace(path), sent.packets, sent.resent_packets
        self.outcome.voices = 0
        await asyncio.sleep(self.outcome.seconds)
        self.outcome.resent = (sent.resent_packets - again) / max(1, sent.packets - packets)
        self.outcome.arrived_bytes = path.arrived_bytes - before.arrived_bytes
        gone = path.lost + path.overflowed - before.lost - before.overflowed
        self.outcome.lost = gone / (path.sent - before.sent)
        self.outcome.incoming, self.outcome.outgoing = self._receiving.counters, self._sending.counters

    async def __aexit__(self, *_: object) -> None:
        await self._receiving.stop()
        await self._speaking.stop()
        await self._sending.stop()
        await self.transmission.close()
        await self._reports.close()
        self._forth.stop()
        self._home.stop()

    def _arrived(self, data: bytes) -> None:
        if is_rtcp(data):
            for report in RtcpPacket.parse(data):
                self._receiving.on_rtcp(report)
            return
        packet = RtpPacket.parse(data)
        if self._extended:
            self._reports.on_packet(struct.unpack_from("!H", data, WIDE_AT)[0], packet.ssrc)
        if packet.payload_type == VOICE:
            self.outcome.voices += 1
        else:
            self._receiving.on_rtp(packet, 0)

    def _reported(self, data: bytes) -> None:
        data, bodies = transport_cc.split_compound(data)
        for fci in bodies:
            self.transmission.on_feedback(fci)
        for packet in RtcpPacket.parse(data) if data else ():
            self._sending.on_rtcp(packet)
