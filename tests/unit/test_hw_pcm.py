"""How every board rounds and limits sound."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.pcm import mix, samples_of, scale

SAMPLES = st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=60)
GAINS = st.floats(0.0, 80.0)


def pcm(*samples: int) -> bytes:
    return array("h", samples).tobytes()


def limited(value: float) -> int:
    return max(-32_768, min(32_767, math.floor(value + 0.5)))


@given(SAMPLES, GAINS)
def test_scaled_sound_is_the_nearest_step_within_full_scale(samples: list[int], gain: float) -> None:
    found = list(samples_of(scale(pcm(*samples), gain)))
    for sample, one in zip(samples, found, strict=True):
        exact = sample * gain
        near = abs(exact - math.floor(exact) - 0.5) < 2**-14  # a half, or too near to one for 32 bit
        assert abs(one - limited(exact)) <= near, (sample, gain)


@pytest.mark.parametrize(("sample", "gain", "scaled"), [
    (1, 0.5, 1), (-1, 0.5, 0), (3, 0.5, 2), (-3, 0.5, -1), (1, 0.49, 0), (-1, 0.51, -1), (-1, 0.49, 0),
    (20_000, 2.0, 32_767), (-20_000, 2.0, -32_768), (-32_768, 1.0, -32_768), (32_767, 0.0, 0),
])
def test_halves_go_upwards_and_full_scale_is_the_limit(sample: int, gain: float, scaled: int) -> None:
    assert scale(pcm(sample), gain) == pcm(scaled)


def test_what_is_turned_down_has_no_direct_current() -> None:
    wave = [round(1000 * math.sin(2 * math.pi * n / 480)) for n in range(480)]
    left = sum(samples_of(scale(pcm(*wave), 0.31416)))
    assert abs(left) < 24, "of 480 samples: rounded downwards it is -240"


@given(SAMPLES, SAMPLES, GAINS)
def test_a_mix_is_the_sum_with_the_second_scaled(one: list[int], two: list[int], gain: float) -> None:
    size = min(len(one), len(two))
    first, second = pcm(*one[:size]), pcm(*two[:size])
    sums = [limited(a + b) for a, b in zip(one, samples_of(scale(second, gain)), strict=False)]
    assert mix(first, second, gain) == pcm(*sums)


def test_silence_stays_silence_and_blocks_of_two_lengths_are_refused() -> None:
    assert scale(bytes(960), 7.5) == bytes(960)
    with pytest.raises(Exception, match="same"):
        mix(bytes(960), bytes(480))
