"""Exponential back-off: its steps, their jitter, and where it begins again."""

from __future__ import annotations

import random

import pytest

from appliance.backoff import Backoff, doubling


def longest(low: float, high: float) -> float:
    assert (low, high) == (0.5, 1.0)
    return high


def shortest(low: float, high: float) -> float:
    assert (low, high) == (0.5, 1.0)
    return low


@pytest.mark.parametrize(("first_s", "most_s", "steps"), [
    (2.0, 60.0, (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)), (0.5, 4.0, (0.5, 1.0, 2.0, 4.0)), (5.0, 5.0, (5.0,))])
def test_each_step_is_twice_the_one_before_up_to_the_last(
        first_s: float, most_s: float, steps: tuple[float, ...]) -> None:
    assert doubling(first_s, most_s) == steps


def test_each_failure_waits_for_the_next_step_and_the_last_one_repeats() -> None:
    backoff = Backoff((0.2, 0.5, 4.0), longest)
    assert backoff.failures == 0
    assert [backoff.failed() for _ in range(5)] == [0.2, 0.5, 4.0, 4.0, 4.0]
    assert backoff.failures == 3


def test_a_wait_is_at_least_half_a_step() -> None:
    backoff = Backoff((0.2, 0.5, 4.0), shortest)
    assert [backoff.failed() for _ in range(4)] == [0.1, 0.25, 2.0, 2.0]


def test_after_a_success_it_begins_anew() -> None:
    backoff = Backoff((1.0, 2.0, 4.0), longest)
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed() == 1.0


def test_what_will_not_mend_soon_waits_longest_at_once_and_counts_as_one_failure() -> None:
    backoff = Backoff((1.0, 2.0, 4.0), longest)
    assert backoff.failed_for_long() == 4.0
    assert backoff.failures == 1
    assert backoff.failed() == 2.0
    assert Backoff((1.0, 4.0), shortest).failed_for_long() == 2.0


def test_two_devices_of_one_site_do_not_wait_alike() -> None:
    waits = [[backoff.failed() for _ in range(20)]
             for backoff in (Backoff((1.0,), random.Random(seed).uniform) for seed in (1, 2))]
    assert waits[0] != waits[1]
    assert all(0.5 <= wait <= 1.0 for one in waits for wait in one)
    assert max(waits[0]) - min(waits[0]) > 0.3
