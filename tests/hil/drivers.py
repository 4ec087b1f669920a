"""labgrid's view of this very machine and of a board by SSH, so that one suite serves a simulated board, a guest and a
board on the bench."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

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
        return _ended(["sh", "-c", cmd], timeout)

    def get_status(self) -> int:
        return 1


@target_factory.reg_driver
@attr.s(eq=False)
class BoardShell(LocalShell):
    """Runs commands on the board that ``tests/hil/board`` reaches.

    labgrid's own driver for SSH takes any host key and leaves the user's configuration out.
    """

    def _run(self, cmd: str, *, timeout: float = 30.0, **_: str) -> tuple[list[str], list[str], int]:
        # ended there, since the end of a connection ends nothing that has no terminal
        limited = f"timeout --kill-after=5 {timeout:.0f} sh -c {shlex.quote(cmd)}"
        return _ended([str(Path(__file__).parent / "board"), "run", limited], timeout + 60)


def _ended(words: list[str], timeout: float) -> tuple[list[str], list[str], int]:
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    return done.stdout.splitlines(), done.stderr.splitlines(), done.returncode
