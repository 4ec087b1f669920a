"""The service under a real systemd: a guest whose process 1 it is, with the tests of ``under_systemd/`` in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = ["vivid n_devs=1 node_types=0x1", "snd-aloop", "hilenc", "softdog", "vkms"]


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(300)
def test_the_installed_service() -> None:
    load = [word for module in MODULES for word in ("--load", module)]
    done = subprocess.run(
        [HERE / "boot", "--init", HERE / "guest" / "systemd", *load, "--limit", "280", "--",
         sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", HERE / "under_systemd"],
        capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL,
        env=os.environ | {"EDGECALL_HIL_INSIDE": "1"},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
