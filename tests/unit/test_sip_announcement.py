"""Announcements are told from each other by how loud they are, in steps that begin at any moment."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from appliance.providers.sip.announcement import KEPT, Recording, is_repeated

FRAME_S = 0.02


def speech(seed: int, seconds: float) -> list[float]:
    """dBFS of frames: syllables of 0.1 to 0.3 s, with gaps."""
    dice, levels = random.Random(seed), list[float]()
    while len(levels) < seconds / FRAME_S:
        levels += [dice.uniform(-35, -15)] * dice.randrange(5, 15)
        levels += [dice.uniform(-70, -45)] * dice.randrange(1, 8)
    return levels


def silence(seconds: float) -> list[float]:
    return [-75.0] * round(seconds / FRAME_S)


def tone(seconds: float, level: float = -20.0) -> list[float]:
    return [level] * round(seconds / FRAME_S)


def recorded(levels: Sequence[float], *, seed: int = 0, stalls: float = 0.0) -> Sequence[float]:
    """As it is looked at twenty times a second or so, beginning at any moment; decoders give whole frames. ``stalls``:
    how likely it is each time that nobody looks for 0.4 s."""
    dice, recording = random.Random(seed), Recording()
    energies = [0.0]
    for level in levels:
        energies.append(energies[-1] + 10 ** (level / 10) * FRAME_S)
    at = 1000.0 + dice.uniform(0, 0.1)
    began = at
    while at - began < len(levels) * FRAME_S:
        recording.hear(at, energies[int((at - began) / FRAME_S)])
        at += 0.4 if dice.random() < stalls else dice.uniform(0.05, 0.065)
    return recording.levels()


def uneven(levels: Sequence[float], seed: int) -> list[float]:
    """As play-out makes it when packets are late: some frames twice or not at all."""
    dice, found = random.Random(seed), list[float]()
    for level in levels:
        found += [level] * dice.choices((0, 1, 2), (1, 198, 1))[0]
    return found


SORRY, PROMPT, WELCOME = speech(1, 2.5), speech(2, 5.0), speech(3, 4.0)


@pytest.mark.parametrize("seed", range(10))
def test_the_same_announcement_is_known_wherever_it_stands(seed: int) -> None:
    before = recorded([*silence(0.7), *PROMPT, *silence(1.2)], seed=seed)
    assert is_repeated(before, recorded([*silence(0.5), *PROMPT, *silence(1.2)], seed=seed + 100))
    assert is_repeated(before, recorded([*silence(1), *SORRY, *silence(0.5), *PROMPT, *silence(2)], seed=seed + 200))
    assert is_repeated(before, recorded([*PROMPT[100:], *silence(1.2)], seed=seed + 300)), "keys were pressed into it"
    assert is_repeated(before, recorded(uneven([*silence(0.5), *PROMPT, *silence(1.2)], seed), seed=seed + 400))


@pytest.mark.parametrize("seed", range(10))
def test_a_machine_that_stands_still_now_and_then_knows_it_too(seed: int) -> None:
    before = recorded([*silence(0.7), *PROMPT, *silence(1.2)], seed=seed, stalls=0.01)
    assert is_repeated(before, recorded([*silence(0.5), *PROMPT, *silence(1.2)], seed=seed + 100, stalls=0.01))
    for after in (silence(8), WELCOME + silence(2), speech(seed + 50, 12), [*tone(3), *silence(3)]):
        assert not is_repeated(before, recorded(after, seed=seed + 100, stalls=0.01))
    assert not is_repeated(before, [math.nan] * 200)


@pytest.mark.parametrize("seed", range(10))
def test_another_one_or_people_are_not_taken_for_it(seed: int) -> None:
    before = recorded([*PROMPT, *silence(1.2)], seed=seed)
    for after in (silence(8), WELCOME + silence(2), tone(10), tone(0.3) + silence(5), speech(seed + 50, 12),
                  PROMPT[:200], tone(3) + silence(3), [level - 25 for level in PROMPT] + silence(2)):
        assert not is_repeated(before, recorded(after, seed=seed + 100))


@pytest.mark.parametrize("seed", range(10))
def test_tones_are_known_by_their_length(seed: int) -> None:
    before = recorded([*silence(1), *tone(2), *silence(1.2)], seed=seed)
    assert is_repeated(before, recorded([*silence(0.3), *tone(2), *silence(1.2)], seed=seed + 100))
    for after in (tone(0.5), tone(1), tone(3), tone(6)):
        assert not is_repeated(before, recorded([*silence(0.5), *after, *silence(2)], seed=seed + 100))


def test_what_says_nothing_or_little_is_never_repeated() -> None:
    for before in ([], silence(5), tone(0.7) + silence(2)):
        assert not is_repeated(recorded(before), recorded(before))


def test_a_recording_is_bounded() -> None:
    recording = Recording()
    for number in range(10 * KEPT):
        recording.hear(number / 20, number)
    assert len(recording.levels()) < KEPT
