"""What is missed of somebody who owes nothing but its own rhythm."""

from __future__ import annotations

from appliance.media.rhythm import KNOWN_S, Rhythm


def after(beats: list[float]) -> Rhythm:
    rhythm = Rhythm()
    for at in beats:
        rhythm.beat(at)
    return rhythm


def every(seconds: float, begin: float, end: float) -> list[float]:
    return [begin + n * seconds for n in range(int((end - begin) / seconds) + 1)]


def test_nothing_is_missed_before_the_rhythm_is_known() -> None:
    assert not Rhythm().missed(1e6)
    assert not after([5.0]).missed(1e6)
    assert not after(every(0.1, 0, KNOWN_S - 1)).missed(1e6)


def test_twice_the_longest_pause_is_missed() -> None:
    assert not after(every(0.5, 100, 120)).missed(121.0)
    assert after(every(0.5, 100, 120)).missed(121.1)
    slow = after(every(5.0, 100, 120))  # a server that only answers checks
    assert not slow.missed(129.0)
    assert slow.missed(130.1)


def test_a_pause_is_forgotten_after_a_minute() -> None:
    paused = [*every(0.5, 0, 20), *every(0.5, 28, 50)]
    assert not after(paused).missed(60.0)
    assert not after([*paused, *every(0.5, 50.5, 55)]).missed(65.0)
    assert after([*paused, *every(0.5, 50.5, 130)]).missed(132.0)
