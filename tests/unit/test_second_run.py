"""What a test is given that runs once more because it failed (``tests/conftest.py``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HANGS = """
import time

def test_it():
    time.sleep(30)
"""


def test_it_may_not_last_longer_than_the_first(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_setup\n")
    (tmp_path / "test_it.py").write_text(HANGS)
    (tmp_path / "pytest.ini").touch()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "0.5", "--reruns", "1", tmp_path],
        check=False, capture_output=True, text=True, timeout=18, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    assert "1 failed, 1 rerun" in done.stdout, done.stdout + done.stderr
