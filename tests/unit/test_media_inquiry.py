"""When one who says little is asked, and when its silence is one."""

from __future__ import annotations

import pytest

from appliance.media.inquiry import QUIET_S, UNANSWERED, Inquiry

TICK_S = 0.25


def silent_after(round_trip_s: float | None, *, heard_until: float = 0.0, seconds: float = 20.0) -> float:
    """Seconds from what was heard last until it is silence, looked at by the tick."""
    inquiry, now = Inquiry(), heard_until + 0.1
    while now < heard_until + seconds:
        if inquiry.in_vain(now, round_trip_s):
            return now - heard_until
        if inquiry.due(now, heard_until):
            inquiry.asked(now)
        now += TICK_S
    raise AssertionError("never")


def test_silence_is_known_within_three_seconds() -> None:
    assert 2.5 < silent_after(None) <= 3.0
    assert 2.5 < silent_after(0.3) <= 3.0


@pytest.mark.parametrize("round_trip_s", [0.6, 1.5])
def test_a_long_path_is_waited_for(round_trip_s: float) -> None:
    assert silent_after(round_trip_s) > QUIET_S + 1.4 * round_trip_s + (UNANSWERED - 1) * TICK_S


def test_who_speaks_is_not_asked_and_who_answers_is_there() -> None:
    inquiry = Inquiry()
    assert not any(inquiry.due(now, now - 0.5) for now in range(10))
    for number in range(400):  # quiet for a second, then an answer, for ever
        now = number * TICK_S
        assert not inquiry.in_vain(now, 0.05)
        if number % 4 == 3:
            assert inquiry.due(now, now - 1.0)
            inquiry.asked(now)
            inquiry.heard()


def test_questions_of_a_silence_of_hours_are_not_kept() -> None:
    inquiry = Inquiry()
    for number in range(100_000):
        inquiry.asked(number * TICK_S)
    assert len(inquiry._asked) < 100
    assert inquiry.in_vain(30_000.0, 1.5)
