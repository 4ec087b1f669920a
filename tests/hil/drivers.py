"""labgrid's view of this very machine, so that one suite serves a simulated board, a guest and a board on the bench."""

from __future__ import annotations

import subprocess

import attr
from labgrid.driver import Driver
from labgrid.driver.commandmixin import CommandMixin
from labgrid.factory import target_factory
from labgrid.protocol import CommandProtocol


@target_factory.reg_driver
@attr.s(eq=False)
class LocalShell(CommandMixin, Driver, CommandProtocol):
    """Runs commands here, in the folder and environment of the tests."""

    @Driver.check_active
    def run(self, cmd: str, timeout: float = 30.0, **_: str) -> tuple[list[str], list[str], int]:
        return self._run(cmd, timeout=timeout)

    def _run(self, cmd: str, *, timeout: float = 30.0, **_: str) -> tuple[list[str], list[str], int]:
        done = subprocess.run(["sh", "-c", cmd], capture_output=True, text=True, timeout=timeout, check=False)
        return done.stdout.splitlines(), done.stderr.splitlines(), done.returncode

    def get_status(self) -> int:
        return 1
