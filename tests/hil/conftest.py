"""The suite on devices: tests run here and command what labgrid's environment file describes (``scripts/hil``)."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

if os.environ.get("EDGECALL_HIL") is None:  # plain `pytest` has neither labgrid nor a device
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True, slots=True)
class Device:
    """The device under test, switched on, with this checkout on it."""

    shell: Any  # labgrid's CommandProtocol
    environment: str

    def run(self, command: str, seconds: float = 30.0) -> str:
        """Its output. Fails the test with that output when it ends with anything but 0."""
        output, errors, status = self.shell.run(command, timeout=seconds)
        text = "\n".join([*output, *errors])
        assert status == 0, f"{command!r} on the device: exit status {status}\n{text}"
        return text

    def pytest(self, *arguments: str, seconds: float, **environment: str) -> str:
        """Run tests on the device itself."""
        variables = {"PYTHONPATH": str(ROOT), "EDGECALL_HIL_INSIDE": "1"} | environment
        setting = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        return self.run(f"cd {shlex.quote(str(ROOT))} && {setting} {shlex.join(words)}", seconds)


@pytest.fixture
def device(env: Any) -> Iterator[Device]:
    """Switched on for the test, and off after it."""
    target = env.get_target("main")
    shell = target.get_driver("CommandProtocol", activate=False)
    target.activate(shell)
    try:
        yield Device(shell, os.environ["EDGECALL_HIL"])
    finally:
        target.deactivate_all_drivers()
