"""Weekly times for do-not-disturb."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.settings import Window

MON, FRI, SAT, SUN = 0, 4, 5, 6


def at(hours: int, minutes: int = 0) -> int:
    return hours * 60 + minutes


def test_a_night_belongs_to_the_day_it_begins_on() -> None:
    night = Window.parse("Mon-Fri 22:00-06:00")
    assert night.covers(FRI, at(22)) and night.covers(FRI, at(23, 59))
    assert night.covers(SAT, at(5, 59)) and not night.covers(SAT, at(6))
    assert not night.covers(SAT, at(22)) and not night.covers(MON, at(5))
    assert not night.covers(MON, at(21, 59))


def test_days_may_be_lists_ranges_and_go_round_the_week() -> None:
    assert Window.parse("Sat,Mon-Tue 10:00-11:00").days == {SAT, MON, 1}
    assert Window.parse("fri-mon 10:00-11:00").days == {FRI, SAT, SUN, MON}
    assert Window.parse("22:00-06:00").days == set(range(7))
    whole = Window.parse("Sun 00:00-24:00")
    assert whole.covers(SUN, 0) and whole.covers(SUN, at(23, 59)) and not whole.covers(MON, 0)


def test_sunday_night_reaches_into_monday() -> None:
    assert Window.parse("Sun 22:00-06:00").covers(MON, at(3))


@pytest.mark.parametrize(("text", "words"), [
    ("", "write it as"), ("Mon", "write it as"), ("Mon 9-17", "write it as"), ("Mon 22:00", "write it as"),
    ("Mon 25:00-26:00", "no time of day"), ("Mon 10:60-11:00", "no time of day"), ("Mon 24:01-10:00", "no time of day"),
    ("Fry 10:00-11:00", "'Fry' is no day"), ("Mon- 10:00-11:00", "is no day"), ("Mon 10:00-10:00", "00:00-24:00"),
    ("Mon 24:00-10:00", "begin at 00:00"), ("Mon 10:00-11:00\n", ""),
])
def test_what_is_no_window_says_why(text: str, words: str) -> None:
    if not words:
        Window.parse(text)  # blanks around it do no harm
        return
    with pytest.raises(ValueError, match=words):
        Window.parse(text)


@given(st.integers(0, 6), st.integers(0, 1439), st.integers(0, 1439))
def test_a_window_lasts_as_long_as_it_says(day: int, begin: int, end: int) -> None:
    if begin == end:
        return
    names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    window = Window.parse(f"{names[day]} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}")
    covered = sum(window.covers(weekday, minute) for weekday in range(7) for minute in range(1440))
    assert covered == (end - begin) % 1440
