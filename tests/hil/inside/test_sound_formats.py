"""Sound to and from cards that speak another rate, width and number of channels than ours, on the kernel's loop.

The far end of a loop decides what the near one is offered: tones that are played here are looked at there as the card's
own frames, and those that are played there in the blocks that arrive here. The loudspeaker is at the card's first loop,
the microphone at its second, so that both have one clock, and what is heard is of the conversion alone (of two clocks:
``test_sound.py``). Kernel real, hardware simulated.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import alsaaudio
import numpy as np
import numpy.typing as npt
import pytest

from hw.faults import FaultLine
from hw.pi.audio.convert import Shape
from hw.pi.audio.device import AudioConfig, PiAudio, open_audio
from tests.hil.heard import BLOCK, RATE, Listener, Tones, tones

MODULES = ["snd-aloop index=0 id=First pcm_substreams=2"]
pytestmark = pytest.mark.timeout(180)

BOTH: Final = AudioConfig(microphones=("alsa:First/1",), speakers=("alsa:First",), latency_ms=60, volume=100)
SHAPES: Final = [
    Shape(8_000, 1, "S16_LE"), Shape(11_025, 2, "S32_LE"), Shape(16_000, 2, "S16_LE"), Shape(22_050, 1, "S24_3LE"),
    Shape(32_000, 4, "S32_LE"), Shape(44_100, 2, "S16_LE"), Shape(48_000, 2, "S32_LE"),
]  # fmt: skip
PEAK: Final = 8000
TOO_HIGH: Final = 10_500
"""Hz of a tone that is played beside the others: a card below 22 kHz cannot carry it, and nothing of it may come."""

WINDOW_S: Final = 2.0
STARVED_S: Final = 90.0
"""A machine that starves the guest breaks the sound; so long is waited for a stretch where it does not."""

LEFT_DB: Final = -40.0
"""Beside the tones: 7 kHz at 32 kHz has an image at -46 dB. One sample that is missed leaves -12 dB."""

PART_S: Final = 0.5
"""Is judged at a time."""

PITCH_PPM: Final = 5.0
"""The clock is one, so the pitch is what it was: three samples of a minute at most are found or lost."""


def _tones_for(shape: Shape) -> list[int]:
    """In the band of speech, and near the upper end of what the card carries well."""
    return [1030, min(7000, shape.rate * 3 // 100 * 10)]


class Far:
    """The other end of a loop, in a shape: ``raw`` is what came there."""

    def __init__(self, device: str, shape: Shape, plays: bytes = b"") -> None:
        self.shape, self.raw, self.broken = shape, bytearray(), 0
        self._plays = plays
        self._pcm: Any = alsaaudio.PCM(
            type=alsaaudio.PCM_PLAYBACK if plays else alsaaudio.PCM_CAPTURE, device=device, rate=shape.rate,
            channels=shape.channels, format=getattr(alsaaudio, f"PCM_FORMAT_{shape.format}"),
            periodsize=shape.rate // 100, periods=24)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play if plays else self._listen, name="far")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._plays:
            self._pcm.drop()
        self._pcm.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            count, frames = self._pcm.read()
            if count > 0:
                self.raw += frames
            self.broken += count == -errno.EPIPE

    def _play(self) -> None:
        part, at = self.shape.rate // 100 * self.shape.frame, 0
        while not self._stop.is_set():
            self.broken += self._pcm.write(self._plays[at : at + part]) == -errno.EPIPE
            at = (at + part) % len(self._plays) if at + part < len(self._plays) else 0


def _frames(wave: npt.NDArray[np.int16], shape: Shape) -> bytes:
    """One wave on all channels of a card."""
    each = np.repeat(wave.astype("<i4") << 16, shape.channels).astype("<i4").view(np.uint8).reshape(-1, 4)
    width = shape.frame // shape.channels
    return each[:, 4 - width :].tobytes()


def _channels(raw: bytes, shape: Shape) -> npt.NDArray[np.float64]:
    """Of a card's frames, in units of 16 bit."""
    width = shape.frame // shape.channels
    raw = raw[: len(raw) // shape.frame * shape.frame]
    wide = np.zeros((len(raw) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return wide.view("<i4").reshape(-1, shape.channels).T / 65536


def _driven(device: str) -> Shape:
    """What the kernel says that our end is driven with."""
    lines = (Path("/proc/asound/First") / device / "hw_params").read_text().splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    return Shape(int(told["rate"].split()[0]), int(told["channels"]), told["format"])


@pytest.fixture
def listener() -> Listener:
    return Listener(b"")


@pytest.fixture
def sound(listener: Listener) -> Iterator[PiAudio]:
    line = FaultLine()
    line.listen(listener.fault)
    audio = open_audio(BOTH, line)
    yield audio
    audio.close()
    line.close()


def _calm_stretch(sound: PiAudio, listener: Listener, ear: Far, mouth: Far) -> tuple[bytes, int]:
    """The sound through the card for ``WINDOW_S``, in which nothing broke it: what came at the far end, and the number
    of the first block that came here."""
    end = time.monotonic() + STARVED_S
    while True:
        listener.more(50, 10.0)
        before, broken = sound.figures, ear.broken + mouth.broken
        first, began = len(listener.blocks), len(ear.raw)
        listener.more(round(WINDOW_S * RATE / BLOCK), 3 * WINDOW_S)
        after = sound.figures
        if (after.xruns, after.dropped, ear.broken + mouth.broken) == (before.xruns, before.dropped, broken):
            assert after.drift_ppm is None, "one clock"
            assert abs(after.delay_ms - before.delay_ms) < 5, "it stands, as far as the guest's timer tells"
            return bytes(ear.raw[began:]), first
        assert time.monotonic() < end, f"the machine starves the guest: {after}, far ends {broken} xruns"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_sound_is_right_at_every_rate_width_and_number_of_channels(
    sound: PiAudio, listener: Listener, shape: Shape
) -> None:
    hertz = _tones_for(shape)
    listener.plays = tones([*hertz, TOO_HIGH], PEAK).tobytes()
    mouth_plays = _frames(tones(hertz, PEAK, shape.rate), shape)
    with (Far("hw:CARD=First,DEV=1,SUBDEV=0", shape) as ear,
          Far("hw:CARD=First,DEV=0,SUBDEV=1", shape, mouth_plays) as mouth):
        sound.start(RATE, 10, listener.exchange)
        listener.until(listener.hears, 10.0)
        assert (_driven("pcm0p/sub0"), _driven("pcm1c/sub1")) == (shape, shape)
        raw, first = _calm_stretch(sound, listener, ear, mouth)
        sound.stop()
    # --- the loudspeaker's way
    carried = [*hertz, TOO_HIGH] if shape.rate > 2 * TOO_HIGH else hertz
    channels = _channels(raw, shape)
    assert channels.shape[1] > (WINDOW_S - 0.4) * shape.rate
    for number, channel in enumerate(channels):
        if number > 1:
            assert not channel.any(), "of more than two channels the first two are played on"
            continue
        _is_whole(channel, carried, shape.rate, f"at the loudspeaker, channel {number}")
    # --- the microphone's way
    heard = np.frombuffer(b"".join(block.heard for _, block in listener.blocks[first:]), "<i2")
    _is_whole(heard, hertz, RATE, "from the microphone")


def _is_whole(wave: npt.ArrayLike, hertz: list[int], rate: int, what: str) -> None:
    """Everywhere the tones are there, at their level and pitch, and nothing else is."""
    wave, part = np.asarray(wave), round(PART_S * rate)
    seen = [Tones(wave[at : at + part], hertz, rate) for at in range(0, len(wave) - part + 1, part // 2)]
    assert len(seen) >= 5
    print(f"{what}: at the worst {max(seen, key=lambda one: one.left_db)}")
    for one in seen:
        assert one.left_db < LEFT_DB, f"{what}: {one}"
        assert abs(one.pitch_ppm) < PITCH_PPM, f"{what}: {one}"
        for level, tone in zip(one.levels, hertz, strict=True):
            if tone < 0.45 * rate:  # above, a card's own filter begins to act
                assert 0.89 < level / PEAK < 1.12, f"{what}, {tone} Hz within 1 dB: {one}"
