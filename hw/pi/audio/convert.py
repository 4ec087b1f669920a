"""Between what cards speak and mono 16 bit: formats, channels, and rates that may differ by a few millionths. Pure.

The sums are audioop's, as in ``hw.pcm``.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hw.pcm import audioop

__all__ = ["RATES", "Resampler", "Shape", "from_mono", "negotiate", "to_mono"]

WIDTHS: Final[Mapping[str, int]] = {"S16_LE": 2, "S32_LE": 4, "S24_3LE": 3}
"""Formats in order of preference, by ALSA's names, with their bytes per sample."""

RATES: Final = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000)
"""Rates of cards in Hz that are used."""

MOST_CHANNELS: Final = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """What a card is driven with. ``rate`` in Hz, ``format`` by ALSA's name."""

    rate: int
    channels: int
    format: str

    @property
    def frame(self) -> int:
        """Bytes of one frame."""
        return self.channels * WIDTHS[self.format]


def negotiate(
    rates: Collection[int], channels: Collection[int], formats: Collection[str], wanted: int
) -> Shape:
    """The cheapest shape for mono at ``wanted`` Hz: the rate itself, else the next higher, else the next lower; one
    channel before two before more. Raises ValueError saying what is offered."""
    usable = sorted(set(rates) & set(RATES))
    rate = min(usable, key=lambda one: (one < wanted, abs(one - wanted)), default=None)
    count = min((one for one in channels if 1 <= one <= MOST_CHANNELS), default=None)
    kind = next((one for one in WIDTHS if one in formats), None)
    if rate is None or count is None or kind is None:
        raise ValueError(
            f"it offers {_words(sorted(formats))} with {_words(sorted(channels))} channels at {_words(sorted(rates))} "
            f"Hz; usable are {_words(WIDTHS)} with 1 to {MOST_CHANNELS} channels at {_words(RATES)} Hz"
        )
    return Shape(rate, count, kind)


def _words(values: Collection[object]) -> str:
    return ", ".join(str(one) for one in list(values)[:12]) or "nothing"


def to_mono(frames: bytes, shape: Shape) -> bytes:
    """Frames of a card as mono 16 bit: the mean of two channels, the first of more."""
    width = WIDTHS[shape.format]
    pcm = frames if width == 2 else audioop.lin2lin(frames, width, 2)
    if shape.channels == 2:
        return audioop.tomono(pcm, 2, 0.5, 0.5)
    if shape.channels > 2:
        return array("h", memoryview(pcm).cast("h")[:: shape.channels].tolist()).tobytes()
    return pcm


def from_mono(pcm: bytes, shape: Shape) -> bytes:
    """Mono 16 bit as frames of a card: on both of two channels, on the first two of more."""
    width = WIDTHS[shape.format]
    if shape.channels == 2:
        pcm = audioop.tostereo(pcm, 2, 1, 1)
    elif shape.channels > 2:
        samples, spread = array("h", pcm), array("h", bytes(len(pcm) * shape.channels))
        spread[:: shape.channels] = samples
        spread[1 :: shape.channels] = samples
        pcm = spread.tobytes()
    return pcm if width == 2 else audioop.lin2lin(pcm, 2, width)


# --- rates ----------------------------------------------------------------------------------------------------------


def _halfband(pairs: int) -> Sequence[float]:
    """Weights of the samples at ±½, ±1½ … around a point half-way between two: a windowed sinc, of sum ½ a side."""
    raw = []
    for number in range(pairs):
        at = number + 0.5
        window = 0.5 * (1 + math.cos(math.pi * at / (pairs + 0.5)))
        raw.append(math.sin(math.pi * at) / (math.pi * at) * window)
    return [one / (2 * sum(raw)) for one in raw]


def _lowpass(share: float, taps: int) -> Sequence[float]:
    """Weights of the middle sample and of its pairs: cut-off at ``share`` of the rate, a Blackman window."""
    half = taps // 2
    raw = [2 * share]
    for at in range(1, half + 1):
        turn = math.pi * at / (half + 1)
        window = 0.42 + 0.5 * math.cos(turn) + 0.08 * math.cos(2 * turn)
        raw.append(math.sin(2 * math.pi * share * at) / (math.pi * at) * window)
    total = raw[0] + 2 * sum(raw[1:])
    return [one / total for one in raw]


class _Doubler:
    """Twice the rate: a sample between each two. 32 bit in and out."""

    def __init__(self, pairs: int) -> None:
        self._weights = _halfband(pairs)
        self._tail = bytes(4 * (2 * pairs - 1))

    def process(self, pcm: bytes) -> bytes:
        pairs, size = len(self._weights), len(pcm)
        line = self._tail + pcm
        self._tail = line[-len(self._tail) :]
        between = _between(line, self._weights, size)
        out = array("i", bytes(2 * size))
        out[::2] = array("i", line[4 * (pairs - 1) : 4 * (pairs - 1) + size])
        out[1::2] = array("i", between)
        return out.tobytes()


class _Halver:
    """Half the rate, without what that cannot carry but for its upper third. 32 bit in and out."""

    PAIRS: Final = 8

    def __init__(self) -> None:
        self._weights = _halfband(self.PAIRS)
        self._tail = bytes(4 * (4 * self.PAIRS - 2))

    def process(self, pcm: bytes) -> bytes:
        line = array("i", self._tail + pcm)
        whole = len(line) // 2 * 2
        count = whole // 2 - (2 * self.PAIRS - 1)
        self._tail = line[2 * count :].tobytes()
        # the samples at odd places give what lies half-way between two of them, which is where the even ones are
        between = _between(line[1:whole:2].tobytes(), self._weights, 4 * count)
        here = line[2 * self.PAIRS : whole : 2][:count].tobytes()
        return audioop.add(audioop.mul(here, 4, 0.5), audioop.mul(between, 4, 0.5), 4)


def _between(line: bytes, weights: Sequence[float], size: int) -> bytes:
    """``size`` bytes of the samples half-way between each two of ``line``, from the one after the first ``len(weights)
    - 1`` on. 32 bit."""
    pairs, between = len(weights), b""
    for number, weight in enumerate(weights):
        early, late = 4 * (pairs - 1 - number), 4 * (pairs + number)
        both = audioop.add(line[early : early + size], line[late : late + size], 4)
        part = audioop.mul(both, 4, weight)
        between = audioop.add(between, part, 4) if between else part
    return between


class _LowPass:
    """What a lower rate cannot carry is taken away before. 32 bit in and out."""

    TAPS: Final = 48

    def __init__(self, share: float) -> None:
        self._weights = _lowpass(share, self.TAPS)
        self._tail = bytes(4 * self.TAPS)

    def process(self, pcm: bytes) -> bytes:
        half, size = self.TAPS // 2, len(pcm)
        line = self._tail + pcm
        self._tail = line[-4 * self.TAPS :]
        total = audioop.mul(line[4 * half : 4 * half + size], 4, self._weights[0])
        for at, weight in enumerate(self._weights[1:], 1):
            early, late = 4 * (half - at), 4 * (half + at)
            both = audioop.add(line[early : early + size], line[late : late + size], 4)
            total = audioop.add(total, audioop.mul(both, 4, weight), 4)
        return total


FINE: Final = 128_000
"""The rate at least, in Hz, from which on samples are joined by straight lines."""

SHARP: Final = 12
"""Pairs of the first doubling of a rate that speech fills; of those after, and of higher rates, fewer will do."""


def _stages(rate_in: int, rate_out: int) -> tuple[Sequence[_Halver | _LowPass | _Doubler], int]:
    """What a stream goes through before straight lines are drawn, and the rate that it has then."""
    stages: list[_Halver | _LowPass | _Doubler] = []
    rate = rate_in
    if rate_out * 3 <= rate_in:
        stages.append(_Halver())
        rate //= 2
    if rate_out < rate_in:
        stages.append(_LowPass(0.45 * rate_out / rate))
    pairs = SHARP if rate_in < 32_000 else 6
    while rate < FINE:
        stages.append(_Doubler(pairs))
        pairs = 6 if pairs > 6 else 2
        rate *= 2
    return stages, rate


class Resampler:
    """A stream from one rate to another, times 1 + ``ppm`` millionths, which may change with every block.

    Oversampled by half-band filters to 128 kHz and more, then linear. A change of ``ppm`` bends the pitch and never
    breaks the wave. Mono 16 bit.
    """

    UNIT: Final = 999_983
    """audioop.ratecv reduces its two rates by their common divisor, and its state is in those units: with a prime for
    one of them the units stay the same whatever the ratio."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._stages, fine = _stages(rate_in, rate_out)
        self._step = self.UNIT * fine / rate_out
        self._state: tuple[int, tuple[tuple[int, int], ...]] | None = None
        self.ppm = 0.0

    def process(self, pcm: bytes) -> bytes:
        """What comes out for ``pcm``: about its length times the ratio."""
        if not pcm:
            return b""
        line = audioop.mul(audioop.lin2lin(pcm, 2, 4), 4, 0.5)  # head room for the filters
        for stage in self._stages:
            line = stage.process(line)
        step = round(self._step / (1 + self.ppm * 1e-6))
        step += step % self.UNIT == 0
        line, self._state = audioop.ratecv(line, 4, 1, step, self.UNIT, self._state)
        return audioop.lin2lin(audioop.mul(line, 4, 2.0), 4, 2)
