"""Whether the wall clock may be believed: the kernel's word, else timesyncd's mark, else no."""

from __future__ import annotations

import pytest

from appliance.clock import SystemClock, kernel_synchronised


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
