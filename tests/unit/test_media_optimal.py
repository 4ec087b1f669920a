"""How many pictures a board carries: what they cost, what is too much, and when one more is tried."""

from __future__ import annotations

import itertools

import pytest

from appliance.media.layout import ALL
from appliance.media.optimal import HOLD_S, Load, OptimalCount, Why


def run(count: OptimalCount, load: Load, seconds: int, begin: int = 0) -> list[int]:
    """Values after each second."""
    found = []
    for second in range(begin, begin + seconds):
        count.update(load, float(second))
        found.append(count.document()["value"])
    return found


def test_before_anything_is_shown_nothing_speaks_against_the_most() -> None:
    count = OptimalCount(4)
    assert run(count, Load(), 30) == [9] * 30
    assert count.document() == {"value": 9, "reason": "externalLimit"}


@pytest.mark.parametrize(("cores", "streams", "decode_s", "draw_s", "value"), [
    (4, 4, 0.4, 0.0, 9),  # 20 would do
    (4, 4, 1.6, 0.0, 5),
    (4, 4, 1.2, 0.4, 5),  # drawing counts
    (2, 9, 1.8, 0.0, 5),
    (1, 2, 2.0, 0.0, 1),  # one is always shown
])
def test_half_of_the_processor_pays_for_pictures(
    cores: int, streams: int, decode_s: float, draw_s: float, value: int,
) -> None:
    count = OptimalCount(cores)
    assert run(count, Load(streams, decode_s, draw_s), 10)[-1] == value
    assert count.document()["reason"] == (Why.EXTERNAL_LIMIT if value == 9 else Why.PERFORMANCE)


def test_a_processor_that_is_too_hot_carries_half_of_them_and_cools_down_for_ten_seconds() -> None:
    count = OptimalCount(4)
    values = run(count, Load(4, 0.4, throttled=True), 6)
    assert values == [9, 9, 4, 4, 4, 4]
    assert count.document() == {"value": 4, "reason": "performance"}
    values = run(count, Load(4, 0.4), 14, begin=6)
    assert values == [4] * 10 + [9] * 4


def test_a_moment_of_load_changes_nothing() -> None:
    count = OptimalCount(4)
    for second in range(40):
        count.update(Load(4, 0.4, late=0 if second % 3 else 5), float(second))
    assert count.value == ALL


def test_content_beside_nine_people_is_the_first_that_costs_one_of_them_a_seat() -> None:
    count = OptimalCount(4)
    assert count.value == 10
    run(count, Load(10, 1.0, late=4), 4)
    assert (count.value, count.document()) == (9, {"value": 9, "reason": "externalLimit"})
    run(count, Load(9, 0.9, late=4), 4, begin=4)
    assert (count.value, count.document()) == (8, {"value": 8, "reason": "performance"})


def test_decoders_that_do_not_keep_up_have_one_picture_less() -> None:
    count = OptimalCount(4)
    assert run(count, Load(6, 0.6, late=4), 4)[-1] == 5


def test_it_never_rises_within_ten_seconds_of_a_change_whatever_comes() -> None:
    count, changes = OptimalCount(2), []
    loads = itertools.cycle([Load(9, 3.0)] * 4 + [Load(3, 0.1)] * 13)
    for second, load in zip(range(200), loads, strict=False):
        before = count.value
        if count.update(load, float(second)):
            changes.append((second, count.value - before))
    rises = [(at, before) for (before, _), (at, step) in itertools.pairwise(changes) if step > 0]
    assert rises
    assert all(at - before >= HOLD_S for at, before in rises)
