"""What the media bench says of times, packets, sounds and pictures, on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from hw.sim import pattern
from tests.bench.judge import capped, freezes, frozen_s, regained_s
from tests.bench.matrix import Row, matrix
from tests.bench.pictures import Marks
from tests.bench.speech import RATE, delays, resampled

STEADY = [number / 30 for number in range(60)]


def test_a_freeze_is_longer_than_three_intervals_and_than_one_and_150_ms() -> None:
    """The rule of webrtc-stats, freezeCount."""
    assert freezes(STEADY) == []
    assert freezes([*STEADY, STEADY[-1] + 0.18]) == []  # 33 + 150 ms is more
    assert freezes([*STEADY, STEADY[-1] + 0.19]) == [(STEADY[-1], STEADY[-1] + 0.19)]
    slow = [number / 2 for number in range(40)]
    assert freezes([*slow, slow[-1] + 1.4]) == []
    assert freezes([*slow, slow[-1] + 1.6]) == [(slow[-1], slow[-1] + 1.6)]


def test_only_the_part_of_a_freeze_within_the_window_counts() -> None:
    assert frozen_s([], 10, 20) == 10
    early = [8 + at for at in STEADY]  # the last picture before a window that has none
    assert frozen_s(early, 10, 20) == 10
    assert frozen_s([*early, 12.0, 30.0], 10, 20) == pytest.approx(2 + 8)
    assert frozen_s([10 + at for at in STEADY], 10, 15) == pytest.approx(3.0 + 1 / 30)


def samples(rates: list[tuple[float, float, bool]]) -> list[tuple[float, int, int, int]]:
    """(seconds, bits per second, whether the queue drops) -> what a link counted every 100 ms."""
    rows, at, arrived, sent, dropped = [(0.0, 0, 0, 0)], 0.0, 0, 0, 0
    for seconds, rate, drops in rates:
        for _ in range(round(seconds * 10)):
            at, arrived, sent, dropped = at + 0.1, arrived + round(rate / 80), sent + 10, dropped + drops
            rows.append((at, arrived, sent, dropped))
    return rows


def test_a_cap_is_judged_by_what_arrives_and_when_its_queue_stops_dropping() -> None:
    cap = capped(samples([(2, 700_000, True), (8, 560_000, False)]), 700_000, 0, 10)
    assert cap.used == pytest.approx(0.8, rel=0.01)
    assert cap.settled_s == pytest.approx(2, abs=0.11)
    assert cap.dropped == pytest.approx(0.02)
    assert capped(samples([(10, 700_000, False)]), 700_000, 0, 10).settled_s == 0


def test_a_rate_is_regained_when_a_second_of_it_is_there() -> None:
    rows = samples([(4, 500_000, False), (6, 1_500_000, False)])
    assert regained_s(rows, 1_500_000, 0, 10) == pytest.approx(5, abs=0.25)
    assert regained_s(rows, 3_000_000, 0, 10) == 10


def test_a_delay_is_found_in_speech_that_was_damaged() -> None:
    rng = np.random.default_rng(3)
    spoken = np.repeat(rng.normal(0, 0.1, RATE // 4), 16).astype(np.float32)[:4 * RATE]  # no two chunks are alike
    heard = np.concatenate([np.zeros(round(0.08 * RATE), np.float32), spoken])
    heard[::RATE // 2] = 0.5
    found = delays(spoken, heard[round(0.03 * RATE):], lag_s=0.03, longest_s=0.5)
    assert len(found) > 8
    assert found == pytest.approx([0.08] * len(found), abs=0.001)
    assert delays(spoken, rng.normal(0, 0.1, 4 * RATE), 0.0, longest_s=0.5) == []


def test_a_tone_keeps_its_pitch_at_another_rate() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100)
    expected = np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)
    assert resampled(tone, 44_100, 48_000) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("width", "height", "pad"), [(1280, 720, 0), (320, 180, 64)])
def test_marks_are_read_from_the_middle_lines_alone(width: int, height: int, pad: int) -> None:
    luma = pattern.PatternPainter(width, height).paint(77, 5_000_000)[0]
    rows = [luma[y * width:(y + 1) * width] + bytes(pad) for y in range(height)]
    marks = Marks()
    marks.add(1.0, b"".join(rows), width + pad, width, height)
    marks.add(1.1, bytes((width + pad) * height), width + pad, width, height)
    assert marks.take() == ([(1.0, 77, 5000)], [1.0, 1.1])
    assert marks.take() == ([], [])


def test_systems_are_compared_within_a_seed() -> None:
    results = {("here", "late", "ours"): [10.0, 40.0, 30.0], ("here", "late", "theirs"): [20.0, 20.0, 20.0],
               ("here", "lost", "ours"): [1.0], ("here", "lost", "theirs"): [0.0]}
    text = matrix(results, ["here"], [Row("late", "ms"), Row("lost", "%"), Row("never", "")], ["ours", "theirs"])
    assert text.splitlines()[2:] == [
        "| here | late | ms | 30.0 (10.0 to 40.0) | 20.0 (20.0 to 20.0) | 1.50 |",
        "| here | lost | % | 1.00 | 0.00 | +1.00 (difference) |",
    ]
