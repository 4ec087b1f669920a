"""The parsers of telephony for minutes, with inputs that no run had before."""

from __future__ import annotations

import random

import pytest

from tests.support.sip_fuzz import TARGETS, fuzz, lasting

SECONDS = 300.0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_them(name: str) -> None:
    fuzz(TARGETS[name], lasting(SECONDS), random.SystemRandom().randrange(1 << 31))
