"""Our video sender and receiver with a bad network between them, on virtual time: minutes in a second.

    outcome = await watch(Conditions(loss=0.02, delay_s=0.02), seconds=60, seed=1)

The pictures are bytes of the sizes that 720p30 at 1.3 Mbit/s has; nothing is encoded, encrypted or decoded.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from unittest import mock

from aiortc.rtcrtpparameters import RTCRtcpParameters, RTCRtpCodecParameters, RTCRtpSendParameters
from aiortc.rtp import RtcpPacket, RtpPacket, is_rtcp

from appliance.media.api import AccessUnit
from appliance.media.rtp_receive import Incoming, RtpReceiveStream
from appliance.media.rtp_send import Outgoing, RtpSendStream
from appliance.media.smoothness import Smoothness
from appliance.media.transmission import Transmission
from tests.support.coded_video import Film
from tests.support.impair import Conditions, Link

__all__ = ["Outcome", "watch"]

FPS = 30
KEY_BYTES = 35_000
DELTA_BYTES = 5_200
CALM_S = 1.0  # without loss, at the beginning
MEDIA, RTX = 96, 97
CODECS = [
    RTCRtpCodecParameters(mimeType="video/H264", clockRate=90_000, payloadType=MEDIA),
    RTCRtpCodecParameters(mimeType="video/rtx", clockRate=90_000, payloadType=RTX, parameters={"apt": MEDIA}),
]


@dataclass
class Outcome:
    """What arrived of one run, after its calm beginning."""

    seconds: float
    latencies: list[float] = field(default_factory=list)  # capture to complete, of each frame
    smoothness: Smoothness = field(default_factory=Smoothness)
    incoming: Incoming = field(default_factory=Incoming)
    outgoing: Outgoing = field(default_factory=Outgoing)

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
            f"resent {self.outgoing.resent_packets / self.outgoing.packets:.1%} of packets, "
            f"nacks {self.incoming.nacks}, plis {self.incoming.plis}, given up {self.incoming.given_up}"
        )


def _nal(kind: bytes, size: int) -> bytes:
    return b"\0\0\0\1" + kind + b"\x9a" * size


def _scene(seconds: float) -> list[AccessUnit]:
    key = AccessUnit(_nal(b"\x67", 20) + _nal(b"\x68", 4) + _nal(b"\x65", KEY_BYTES), 0, True, 0.0, 0.0)
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


class _Screen:
    wants_video = True

    def __init__(self, film: Film, outcome: Outcome) -> None:
        self._film = film
        self._outcome = outcome
        self._origin: int | None = None
        self.calm = True

    def on_access_unit(self, unit: AccessUnit) -> None:
        if self._origin is None:
            self._origin = unit.timestamp
        self._outcome.smoothness.rendered(unit.arrived_s)
        if not self.calm:
            captured = self._film.captured[unit.timestamp - self._origin & 0xFFFFFFFF]
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
    """One peer watches the other for ``seconds`` under ``conditions``, of which ``back`` is what RTCP meets."""
    random.seed(seed)  # reports are spread by it
    async with _clock():
        outcome = Outcome(seconds)
        film = Film(_scene(seconds + CALM_S + 1), fps=FPS)
        forth, home = _Path(2 * seed), _Path(2 * seed + 1)
        transmission = Transmission("there")
        sending = RtpSendStream("video", "there", film, transmission)
        screen = _Screen(film, outcome)
        receiving = RtpReceiveStream("video", "here", video=screen, round_trip=lambda: sending.counters.round_trip_s)
        parameters = RTCRtpSendParameters(codecs=CODECS, rtcp=RTCRtcpParameters(cname="x"))

        def arrived(data: bytes) -> None:
            if is_rtcp(data):
                for packet in RtcpPacket.parse(data):
                    receiving.on_rtcp(packet)
            else:
                receiving.on_rtp(RtpPacket.parse(data), 0)

        def reported(data: bytes) -> None:
            for packet in RtcpPacket.parse(data):
                sending.on_rtcp(packet)

        forth.deliver, home.deliver = arrived, reported
        delay = Conditions(delay_s=conditions.delay_s)
        forth.change(delay)
        home.change(delay)
        receiving.start(rtcp_ssrc=2, parameters=parameters, send=home.send)
        sending.start(ssrc=7, rtx_ssrc=8, parameters=parameters, send=forth.send, track=film)
        await asyncio.sleep(CALM_S)
        forth.change(conditions)
        home.change(back or conditions)
        screen.calm = False
        await asyncio.sleep(seconds)
        outcome.incoming, outcome.outgoing = receiving.counters, sending.counters
        await receiving.stop()
        await sending.stop()
        await transmission.close()
        forth.stop()
        home.stop()
        return outcome
