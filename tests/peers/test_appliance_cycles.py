"""Short calls, one after the other: nothing is left of any of them. Three hundred: ``tests/long``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.cycles import device_calls, operator_calls

pytestmark = pytest.mark.peer


def figure(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """Figures are for the record (EDGECALL_FIGURES=1), never for a verdict."""
    if os.environ.get("EDGECALL_FIGURES"):
        with capsys.disabled():
            print(f"\n  {words}")


async def test_thirty_calls_with_the_operator_page_leave_nothing(tmp_path: Path, capsys) -> None:
    figure(capsys, await operator_calls(tmp_path, 30))


async def test_calls_between_two_devices_leave_nothing(tmp_path: Path, capsys) -> None:
    figure(capsys, await device_calls(tmp_path, 12, warm_up=8))
