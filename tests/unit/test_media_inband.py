"""Digits as tones in the sound: what is heard as one, and what is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from appliance.media.inband import COLUMNS, DTMF_RATE, KEYS, ROWS, ToneReader, tones_of
from appliance.media.sound import audioop

DIGITS = "0123456789*#ABCD"
Samples = npt.NDArray[np.float64]


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * DTMF_RATE))


def pair(digit: str, seconds: float, *, level: float = 0.2, twist_db: float = 0.0, off: float = 0.0) -> Samples:
    row = next(n for n, keys in enumerate(KEYS) if digit in keys)
    at = 2 * np.pi * (1 + off) * np.arange(round(seconds * DTMF_RATE)) / DTMF_RATE
    column = COLUMNS[KEYS[row].index(digit)]
    return level * (np.sin(ROWS[row] * at) + 10 ** (twist_db / 20) * np.sin(column * at))


def heard(*parts: Samples, packet: int = 160) -> str:
    wave = np.clip(np.concatenate(parts), -1, 1)
    pcm = (wave * 32767).astype("<i2").tobytes()
    reader = ToneReader()
    return "".join(digit for at in range(0, len(pcm), 2 * packet) for digit in reader.take(pcm[at : at + 2 * packet]))


@pytest.mark.parametrize("packet", [80, 160, 480])
def test_all_sixteen_each_once(packet: int) -> None:
    parts = [part for digit in DIGITS + "55" for part in (pair(digit, 0.08), silence(0.08))]
    assert heard(silence(0.1), *parts, packet=packet) == DIGITS + "55"


@pytest.mark.parametrize("how", [
    {"level": 0.02}, {"level": 0.45}, {"twist_db": 4}, {"twist_db": -6}, {"off": 0.015}, {"off": -0.015}])
def test_as_telephones_differ(how: dict[str, float]) -> None:
    assert heard(*(part for digit in DIGITS for part in (pair(digit, 0.06, **how), silence(0.06)))) == DIGITS


def test_what_lasts_is_one_digit_and_a_scratch_in_it_is_none() -> None:
    assert heard(pair("7", 0.5), silence(0.005), pair("7", 0.5)) == "7"


@pytest.mark.parametrize("seconds", [0.01, 0.02])
def test_what_is_too_short_is_none(seconds: float) -> None:
    assert heard(silence(0.1), pair("7", seconds), silence(0.1)) == ""


def test_through_the_codec_and_its_noise() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 4000)
    wave = np.concatenate((silence(0.05), pair("#", 0.1, level=0.1), silence(0.35)))[: len(noise)] + noise
    pcm = (wave * 32767).astype("<i2").tobytes()
    for there, back in ((audioop.lin2ulaw, audioop.ulaw2lin), (audioop.lin2alaw, audioop.alaw2lin)):
        assert "".join(ToneReader().take(back(there(pcm, 2), 2))) == "#"


def test_our_own_tones_are_digits() -> None:
    for digit in DIGITS:
        assert "".join(ToneReader().take(tones_of(digit, 800))) == digit
    with pytest.raises(ValueError, match="no digit"):
        tones_of("x", 800)


def test_one_tone_or_three_or_noise_is_none() -> None:
    at = 2 * np.pi * np.arange(DTMF_RATE) / DTMF_RATE
    noise = np.random.default_rng(2).normal(0, 0.2, DTMF_RATE)
    dial_tone, busy = 0.3 * np.sin(425 * at), 0.3 * np.sin(697 * at)
    three = 0.2 * (np.sin(697 * at) + np.sin(1209 * at) + np.sin(1000 * at))
    two_rows = 0.2 * (np.sin(697 * at) + np.sin(852 * at) + np.sin(1209 * at))
    for sound in (dial_tone, busy, three, two_rows, noise):
        assert heard(sound) == ""
