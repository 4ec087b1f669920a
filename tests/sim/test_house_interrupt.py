"""Ctrl-C while the appliance still starts: it goes without a word, and nothing stays behind."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("begun", ["edgecall.db", "broker/mosquitto.conf"])
async def test_it_ends_quietly_when_interrupted_at_the_start(tmp_path: Path, begun: str) -> None:
    """Sent when ``begun`` appears in the data folder. On a machine that is up by then it ends as asked, with 0."""
    data, settings = tmp_path / "data", tmp_path / "edgecall.toml"
    settings.touch()
    mine = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests behind a terminal may ignore it
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "appliance", "--data", str(data), "--config", str(settings), "--port", "0",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, mine)
    try:
        async with asyncio.timeout(30):
            while not (data / begun).exists() and process.returncode is None:  # noqa: ASYNC110 - another's file
                await asyncio.sleep(0.002)
            process.send_signal(signal.SIGINT)
            _, said = await process.communicate()  # also ends only when the children have let go of stderr
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in (0, 128 + signal.SIGINT)
    assert b"Traceback" not in said, said.decode()
