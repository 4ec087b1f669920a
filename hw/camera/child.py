"""The camera process as its owner has it: started on two pipes, ended within a time."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["end", "launch"]

_log = logging.getLogger("hw.camera")

ROOM: Final = 1024 * 1024
"""Bytes that its pipe takes before somebody reads: a small raw picture is written, and read, at one waking, also one of
640 x 640 pixels. More is root's alone (pipe-max-size, pipe(7))."""


def launch(program: str, spec: str) -> subprocess.Popen[bytes]:
    """``program`` is the module that is run, ``spec`` its one argument. Raises OSError."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    # exec, never fork: the daemon has threads and holds locks that a forked child would inherit locked.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", program, spec],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        process_group=0,  # a Ctrl-C in the terminal is the daemon's to answer
    )
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    os.set_blocking(process.stdin.fileno(), False)
    with suppress(OSError):  # the user's pipes hold too much already
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, ROOM)
    return process


def end(process: subprocess.Popen[bytes], grace_s: float) -> int | None:
    """Close its pipes; it ends by itself within ``grace_s`` or is killed. Its status, None where nothing ends it."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    process.stdin.close()
    process.stdout.close()
    try:
        code = process.wait(grace_s) if grace_s else None
    except subprocess.TimeoutExpired:
        code = None
    if code is None:
        process.kill()
        try:
            code = process.wait(1.0)
        except subprocess.TimeoutExpired:
            # In an uninterruptible driver call: nothing can end it. Popen's bookkeeping reaps it later.
            _log.error("camera process %d survives SIGKILL: its driver hangs", process.pid)
    return code
