"""Whether the wall clock may be believed: the kernel's word, else timesyncd's mark, else no."""

from __future__ import annotations

import pytest

from appliance.clock import RateLimits, SystemClock, kernel_synchronised


@pytest.mark.parametrize("kernel, mark, synchronised", [
    (True, False, True), (False, True, False), (None, True, True), (None, False, False),
])
def test_who_is_believed(tmp_path, kernel, mark, synchronised):
    if mark:
        (tmp_path / "synchronized").touch()
    assert SystemClock(lambda: kernel, tmp_path / "synchronized").synchronised() is synchronised


def test_it_is_asked_once_a_second(tmp_path):
    asked = []
    clock = SystemClock(lambda: bool(asked.append(1)), tmp_path)
    assert not clock.synchronised() and not clock.synchronised() and len(asked) == 1


def test_the_kernel_answers_or_may_not_be_asked():
    assert kernel_synchronised() in (True, False, None)


def test_each_who_asks_has_a_limit_of_its_own_and_the_one_seen_longest_ago_is_forgotten() -> None:
    now = 0.0
    limits = RateLimits(1.0, 2, lambda: now, most=2)
    assert [limits.take("a") for _ in range(3)] == [True, True, False]
    assert limits.take("b")
    assert not limits.take("a"), "seen again"
    assert limits.take("c"), "b is forgotten for it"
    assert len(limits) == 2
    assert not limits.take("a")
    now = 1.5
    assert [limits.take("a") for _ in range(2)] == [True, False]
