"""The codecs of voices, each from and to 48 kHz mono s16: Opus, and what telephones and gateways speak.

G.711 and G.722 conceal nothing by themselves; that is done here (``stretch.Concealer``), and so is the comfort noise
of RFC 3389, whose packets are marked as ``Noise`` by who reads their payload type.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from operator import mul
from typing import Any, Final, Literal, Protocol

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


class Resampler:
    """A stream from one rate to another; as long as it should be, the delay of the filter is silence at its start."""

    def __init__(self, rate: int, to: int) -> None:
        self._rate, self._to = rate, to
        self._resampler = av.AudioResampler("s16", "mono", to)
        self._begun = False

    def __call__(self, pcm: bytes) -> bytes:
        wanted = len(pcm) * self._to // self._rate
        parts = [bytes(frame.planes[0])[: frame.samples * 2] for frame in self._resampler.resample(self._frame(pcm))]
        out = b"".join(parts)
        if not self._begun:
            self._begun, self._rest = True, bytes(max(0, wanted - len(out)))
        out = self._rest + out
        self._rest = out[wanted:]
        return out[:wanted] + bytes(max(0, wanted - len(out)))

    def _frame(self, pcm: bytes) -> AudioFrame:
        frame = AudioFrame(format="s16", layout="mono", samples=len(pcm) // 2)
        frame.sample_rate = self._rate
        frame.planes[0].update(pcm)
        frame.pts = None
        return frame


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
    """What G.711 and G.722 have in common. ``rate`` in Hz is that of the sound, one packet byte is 1/8 ms."""

    def __init__(self, rate: int) -> None:
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

    def _linear(self, packet: bytes) -> bytes:
        raise NotImplementedError


class _MuLaw(_PhoneDecoder):
    def __init__(self) -> None:
        super().__init__(PHONE)

    def _linear(self, packet: bytes) -> bytes:
        return audioop.ulaw2lin(packet, 2)


class _ALaw(_PhoneDecoder):
    def __init__(self) -> None:
        super().__init__(PHONE)

    def _linear(self, packet: bytes) -> bytes:
        return audioop.alaw2lin(packet, 2)


def _g722(mode: Literal["r", "w"]) -> AudioCodecContext:
    codec = av.CodecContext.create("g722", mode)
    codec.sample_rate = WIDE
    codec.layout = "mono"
    if mode == "w":
        codec.format = av.AudioFormat("s16")
        codec.time_base = Fraction(1, WIDE)
    codec.open()
    return codec


class _G722Decoder(_PhoneDecoder):
    def __init__(self) -> None:
        super().__init__(WIDE)
        self._codec = _g722("r")

    def _linear(self, packet: bytes) -> bytes:
        wanted = len(packet) * 4
        try:
            frames: list[Any] = self._codec.decode(av.Packet(packet))
        except av.FFmpegError as error:
            raise ValueError(str(error)) from error
        pcm = b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)
        return pcm[:wanted].ljust(wanted, b"\0")


class _MuLawEncoder:
    def __init__(self) -> None:
        self._down = Resampler(RATE, PHONE)

    def encode(self, pcm: bytes) -> bytes:
        return audioop.lin2ulaw(self._down(pcm), 2)


class _ALawEncoder:
    def __init__(self) -> None:
        self._down = Resampler(RATE, PHONE)

    def encode(self, pcm: bytes) -> bytes:
        return audioop.lin2alaw(self._down(pcm), 2)


class _G722Encoder:
    def __init__(self) -> None:
        self._down = Resampler(RATE, WIDE)
        self._codec = _g722("w")

    def encode(self, pcm: bytes) -> bytes:
        frame = AudioFrame(format="s16", layout="mono", samples=len(pcm) // 6)
        frame.sample_rate = WIDE
        frame.planes[0].update(scaled(self._down(pcm), 0.9))  # its filters overshoot, and would clip
        frame.pts = None
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


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
        VoiceCodec("audio/G722", PHONE, _G722Decoder, _G722Encoder),
        VoiceCodec("audio/PCMU", PHONE, _MuLaw, _MuLawEncoder),
        VoiceCodec("audio/PCMA", PHONE, _ALaw, _ALawEncoder),
    )
}
"""By MIME type in lower case, in the order in which they are offered."""
