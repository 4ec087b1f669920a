"""Hundreds of calls, one after the other: nothing is left of any of them, and memory stays where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cycles import device_calls, operator_calls

pytestmark = [pytest.mark.long, pytest.mark.peer, pytest.mark.timeout(3600)]


async def test_three_hundred_calls_with_the_operator_page_leave_nothing(tmp_path: Path, capsys) -> None:
    words = await operator_calls(tmp_path, 300)
    with capsys.disabled():
        print(f"\n  {words}")


async def test_sixty_calls_between_two_devices_leave_nothing(tmp_path: Path, capsys) -> None:
    words = await device_calls(tmp_path, 60, warm_up=10, pause_s=3.0)  # a device lets a caller ring ten times a minute
    with capsys.disabled():
        print(f"\n  {words}")
