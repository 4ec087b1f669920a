"""The rate of pictures over the last second, on the test's own time."""

from __future__ import annotations

from appliance.media.frame_rate import FrameRate


def test_a_rate_is_of_the_last_second_alone() -> None:
    rate = FrameRate()
    assert rate.per_second(100.0) == 0
    for number in range(100):
        rate.frame(100 + number / 20)
    end = 100 + 99 / 20
    assert rate.per_second(end) == 20
    assert rate.per_second(end + 0.5) == 10
    assert rate.per_second(end + 2) == 0
    assert rate.frames == 100
