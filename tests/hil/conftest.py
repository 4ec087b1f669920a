"""The suite on devices: tests run here and command what labgrid's environment file describes (``scripts/hil``)."""

from __future__ import annotations

import os
import shlex
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The files beside this one need labgrid and a device: they are collected where ``--lg-env`` names one."""
    beside = collection_path.parent == Path(__file__).parent and collection_path.match("test_*.py")
    return True if beside and config.getoption("lg_env", default=None) is None else None


@dataclass(frozen=True, slots=True)
class Device:
    """The device under test, switched on, with this checkout on it."""

    shell: Any  # labgrid's CommandProtocol
    checkout: str
    python: str

    def run(self, command: str, seconds: float = 30.0) -> str:
        """Its output. Fails the test with that output when it ends with anything but 0."""
        output, errors, status = self.shell.run(command, timeout=seconds)
        text = "\n".join([*output, *errors])
        assert status == 0, f"{command!r} on the device: exit status {status}\n{text}"
        return text

    def write(self, path: str, text: str) -> None:
        """A file on the device; its folder is made."""
        folder = shlex.quote(str(Path(path).parent))
        self.run(f"mkdir -p {folder} && echo {b64encode(text.encode()).decode()} | base64 -d > {shlex.quote(path)}")

    def background(self, unit: str, *arguments: str) -> None:
        """Run Python on the device with this checkout, under its systemd."""
        self.run(f"systemd-run --unit {unit} -p WorkingDirectory={shlex.quote(self.checkout)} "
                 f"-E PYTHONPATH={shlex.quote(self.checkout)} {shlex.join([self.python, *arguments])}")

    def pytest(self, *arguments: str, seconds: float, **environment: str) -> str:
        """Run tests on the device itself. ``EDGECALL_HIL_ARGUMENTS`` chooses among them (``-k relay``)."""
        variables = {"PYTHONPATH": self.checkout, "EDGECALL_HIL_INSIDE": "1"} | environment
        setting = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        chosen = shlex.split(os.environ.get("EDGECALL_HIL_ARGUMENTS", ""))
        words = [self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, *chosen]
        return self.run(f"cd {shlex.quote(self.checkout)} && {setting} {shlex.join(words)}", seconds)


@contextmanager
def switched_on(env: Any, name: str) -> Iterator[Device]:
    """A target of labgrid's environment, and off again."""
    target = env.get_target(name)
    shell = target.get_driver("CommandProtocol", activate=False)
    target.activate(shell)
    checkout = env.config.get_option("checkout", str(ROOT))
    python = sys.executable if checkout == str(ROOT) else f"{checkout}/.venv/bin/python"
    try:
        yield Device(shell, checkout, python)
    finally:
        target.deactivate_all_drivers()


@pytest.fixture
def device(env: Any) -> Iterator[Device]:
    """Switched on for the test, and off after it."""
    with switched_on(env, "main") as device:
        yield device
