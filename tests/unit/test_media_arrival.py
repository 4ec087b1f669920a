"""The bars of who is received: by what the network loses of it, over five seconds."""

from __future__ import annotations

import pytest

from appliance.media.arrival import WINDOW_S, Arrival


def told(arrival: Arrival, shares: list[float], *, rate: int = 50, begin: float = 0.0) -> None:
    """A second each, with this share of its packets lost."""
    received = lost = 0
    for second, share in enumerate(shares):
        received, lost = received + round(rate * (1 - share)), lost + round(rate * share)
        arrival.look(received, lost, begin + second)


@pytest.mark.parametrize(("share", "level"), [(0.0, 5), (0.02, 4), (0.06, 3), (0.08, 2), (0.2, 1)])
def test_what_is_lost_takes_bars_away(share: float, level: int) -> None:
    arrival = Arrival()
    told(arrival, [share] * 8)
    assert arrival.level == level


def test_before_enough_has_come_nothing_is_said_and_a_rest_is_forgotten() -> None:
    arrival = Arrival()
    told(arrival, [0.0], rate=20)
    assert arrival.level is None
    told(arrival, [0.0] * 4)
    assert arrival.level == 5
    for second in range(4, 12):
        arrival.look(200, 0, float(second))
    assert arrival.level is None


def test_a_burst_is_over_after_the_window_and_another_source_begins_anew() -> None:
    arrival = Arrival()
    told(arrival, [0.0, 0.0, 0.5])
    assert arrival.level == 1
    told(arrival, [0.5, *[0.0] * (int(WINDOW_S) + 2)], begin=3.0)
    assert arrival.level == 5
