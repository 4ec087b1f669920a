"""Whatever bytes arrive at the parsers of telephony (``tests/support/sip_fuzz.py``)."""

from __future__ import annotations

import os
import random

import pytest

from tests.support.sip_fuzz import TARGETS, Broken, Target, fuzz

INPUTS = {"sip": 20_000, "sdp": 12_000, "sdes": 100_000}
"""A few seconds of each on a machine with nothing else to do; tests/long takes minutes."""


def seed() -> int:
    """The same at each run of CI, so that a failure belongs to the change it is seen with."""
    return 4475 if os.environ.get("CI") else random.SystemRandom().randrange(1 << 31)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_them(name: str) -> None:
    assert fuzz(TARGETS[name], range(1, INPUTS[name] + 1), seed()) == INPUTS[name]


def test_what_breaks_one_is_told_with_the_way_to_see_it_again() -> None:
    def fragile(data: bytes) -> None:
        assert b"\0" not in data

    target = Target([b"one", b"two"], fragile)
    with pytest.raises(Broken, match=r"input \d+ of seed 7: b'.*\\x00") as first:
        fuzz(target, range(1, 10_000), 7)
    with pytest.raises(Broken) as second:
        fuzz(target, range(1, 10_000), 7)
    assert str(first.value) == str(second.value)
