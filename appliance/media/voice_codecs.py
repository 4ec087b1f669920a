"""The codecs of voices, each from and to 48 kHz mono s16: Opus, and what telephones and gateways speak.

G.711 and G.722 conceal nothing by themselves; that is done here (``stretch.Concealer``), and so is the comfort noise
of RFC 3389, whose packets are marked as ``Noise`` by who reads their payload type.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from operator import mul
from typing import Final, Literal, Protocol

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from appliance.media.opus import OpusDecoder
from appliance.media.playout import Decoder
from appliance.media.sound import RATE, audioop, scaled
from appliance.media.stretch import Concealer

__all__ = ["NOISE", "OPUS", "VOICE_CODECS", "Encoder", "Noise", "Resampler", "VoiceCodec"]

NOISE: Final = "audio/CN"
PHONE: Final = 8000  # Hz: the rate of G.711, and of the timestamps of G.722 (RFC 3551 4.5.2)
WIDE: Final = 16_000
FULL_SCALE_RMS: Final = 32768 / math.sqrt(2)  # 0 dBov: the RMS of a full-scale sine is 3 dB below it
MAX_ORDER: Final = 10  # reflection coefficients of comfort noise that are heard (RFC 3389 3.2)


class Encoder(Protocol):
    def encode(self, pcm: bytes) -> bytes:
        """48 kHz mono s16 to the payload of one RTP packet: 10 to 60 ms, for G.722 in whole frames of 20 ms."""


class Noise(bytes):
    """A packet of comfort noise: level, then reflection coefficients (RFC 3389 3)."""


def _frame(pcm: bytes, rate: int) -> AudioFrame:
    frame = AudioFrame(format="s16", layout="mono", samples=len(pcm) // 2)
    frame.sample_rate = rate
    frame.planes[0].update(pcm)
    frame.pts = None
    return frame


def _pcm(frames: Iterable[AudioFrame]) -> bytes:
    return b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)


class Resampler:
    """A stream from one rate to another; as long as it should be, the delay of the filter is silence at its start."""

    def __init__(self, rate: int, to: int) -> None:
        self._rate, self._to = rate, to
        self._resampler = av.AudioResampler("s16", "mono", to)
        self._begun = False

    def __call__(self, pcm: bytes) -> bytes:
        wanted = len(pcm) * self._to // self._rate
        out = _pcm(self._resampler.resample(_frame(pcm, self._rate)))
        if not self._begun:
            self._begun, self._rest = True, bytes(max(0, wanted - len(out)))
        out = self._rest + out
        self._rest = out[wanted:]
        return out[:wanted] + bytes(max(0, wanted - len(out)))


class _NoiseSource:
    """Noise of a level and a colour, at 8 kHz."""

    def __init__(self) -> None:
        self._chance = random.Random()  # noqa: S311 it is heard, not guessed
        self._level = 0.0
        self._filter: list[float] = []
        self._past: list[float] = []

    def describe(self, payload: bytes) -> None:
        self._level = FULL_SCALE_RMS * 10 ** (-(payload[0] & 0x7F) / 20) if payload else 0.0
        weights: list[float] = []
        for byte in payload[1 : MAX_ORDER + 1]:
            k = max(-0.98, min(0.98, (byte - 127) / 128))
            weights = [a + k * b for a, b in zip(weights, reversed(weights), strict=True)] + [k]
        self._filter, self._past = weights, [0.0] * len(weights)

    def make(self, samples: int) -> bytes:
        white = [self._chance.gauss(0, 1) for _ in range(samples)]
        if self._filter:
            white = [self._colour(value) for value in white]
        power = math.sqrt(sum(map(mul, white, white)) / max(1, samples)) or 1.0
        gain = self._level / power
        return array("h", [max(-32768, min(32767, int(value * gain))) for value in white]).tobytes()

    def _colour(self, value: float) -> float:
        value -= sum(map(mul, self._filter, self._past))
        self._past = [value, *self._past[:-1]]
        return value


class _PhoneDecoder:
    """G.711 and G.722: ``linear`` makes a packet PCM of ``rate`` Hz, a byte of it is 1/8 ms of sound."""

    def __init__(self, rate: int, linear: Callable[[bytes], bytes]) -> None:
        self._linear = linear
        self._up = Resampler(rate, RATE)
        self._concealer = Concealer()
        self._noise = _NoiseSource()
        self._noise_up = Resampler(PHONE, RATE)
        self._pausing = False

    def duration(self, packet: bytes) -> int:
        if isinstance(packet, Noise):
            return RATE // 50
        if not packet:
            raise ValueError("an empty packet")
        return len(packet) * (RATE // PHONE)

    def pauses(self, packet: bytes) -> bool:
        return isinstance(packet, Noise)

    def repeats(self, packet: bytes) -> bool:
        return False

    def previous(self, packet: bytes, samples: int) -> bytes:
        raise ValueError("the codec carries no copies")

    def decode(self, packet: bytes) -> bytes:
        if isinstance(packet, Noise):
            self._noise.describe(packet)
            self._pausing = True
            return self.conceal(RATE // 50)
        self._pausing = False
        return self._concealer.heard(self._up(self._linear(packet)))

    def conceal(self, samples: int) -> bytes:
        if not self._pausing:
            return self._concealer.conceal(samples)
        step = RATE // PHONE
        return self._noise_up(self._noise.make(-(-samples // step)))[: samples * 2]


def _g722(mode: Literal["r", "w"]) -> AudioCodecContext:
    codec = av.CodecContext.create("g722", mode)
    codec.sample_rate = WIDE
    codec.layout = "mono"
    if mode == "w":
        codec.format = av.AudioFormat("s16")
        codec.time_base = Fraction(1, WIDE)
    codec.open()
    return codec


class _G722Linear:
    """Packets of one stream to PCM of 16 kHz."""

    def __init__(self) -> None:
        self._codec = _g722("r")

    def __call__(self, packet: bytes) -> bytes:
        wanted = len(packet) * 4
        try:
            pcm = _pcm(self._codec.decode(av.Packet(packet)))
        except av.FFmpegError as error:
            raise ValueError(str(error)) from error
        return pcm[:wanted].ljust(wanted, b"\0")


class _PhoneEncoder:
    """48 kHz to ``rate``, and what ``coded`` makes of it."""

    def __init__(self, rate: int, coded: Callable[[bytes], bytes]) -> None:
        self._down, self._coded = Resampler(RATE, rate), coded

    def encode(self, pcm: bytes) -> bytes:
        return self._coded(self._down(pcm))


class _G722Coded:
    """PCM of 16 kHz to packets of one stream."""

    def __init__(self) -> None:
        self._codec = _g722("w")

    def __call__(self, pcm: bytes) -> bytes:
        quieter = scaled(pcm, 0.9)  # its filters overshoot, and would clip
        return b"".join(bytes(packet) for packet in self._codec.encode(_frame(quieter, WIDE)))


@dataclass(frozen=True, slots=True)
class VoiceCodec:
    """``clock_rate`` of the RTP timestamps in Hz. ``encoder`` None: Opus, whose one encoder follows the paths."""

    mime_type: str
    clock_rate: int
    decoder: Callable[[], Decoder]
    encoder: Callable[[], Encoder] | None
    bit_rate: int = 64_000

    @property
    def rtpmap(self) -> str:
        """How SDP begins to name it, in lower case: ``opus/48000``."""
        return f"{self.mime_type.rpartition('/')[2].lower()}/{self.clock_rate}"


OPUS: Final = VoiceCodec("audio/opus", RATE, OpusDecoder, None)

VOICE_CODECS: Final = {
    codec.mime_type.lower(): codec
    for codec in (
        OPUS,
        VoiceCodec(
            "audio/G722", PHONE,
            lambda: _PhoneDecoder(WIDE, _G722Linear()), lambda: _PhoneEncoder(WIDE, _G722Coded()),
        ),
        VoiceCodec(
            "audio/PCMU", PHONE,
            lambda: _PhoneDecoder(PHONE, lambda packet: audioop.ulaw2lin(packet, 2)),
            lambda: _PhoneEncoder(PHONE, lambda pcm: audioop.lin2ulaw(pcm, 2)),
        ),
        VoiceCodec(
            "audio/PCMA", PHONE,
            lambda: _PhoneDecoder(PHONE, lambda packet: audioop.alaw2lin(packet, 2)),
            lambda: _PhoneEncoder(PHONE, lambda pcm: audioop.lin2alaw(pcm, 2)),
        ),
    )
}
"""By MIME type in lower case, in the order in which they are offered."""
