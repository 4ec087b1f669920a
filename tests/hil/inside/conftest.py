"""For tests that run on the device itself, as root: loads the modules that a test file names in ``MODULES``, on the
test kernel alone, since a board on the bench has its own devices."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hil.devices import TEST_KERNEL
from tests.hil.machine import Machine

if os.environ.get("EDGECALL_HIL_INSIDE") is None:  # the suite outside sets it where it runs these
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module", autouse=True)
def modules(request: pytest.FixtureRequest) -> Iterator[None]:
    """``MODULES = ["vivid n_devs=1", …]`` in a test file; whatever opens their devices has to be closed at its end."""
    loaded = []
    for module in getattr(request.module, "MODULES", []) if TEST_KERNEL else []:
        subprocess.run(["modprobe", *module.split()], check=True)
        loaded.append(module.split()[0])
    yield
    for name in reversed(loaded):
        if Path(f"/sys/module/{name.replace('-', '_')}").exists():
            subprocess.run(["modprobe", "--remove", name], check=True)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """What judges how long something waited."""
    with Machine() as machine:
        yield machine
