"""A sound device whose driver hangs, without a sound card: ALSA's ``file`` plug-in, which waits for a FIFO's reader."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hw.api import DeviceFailedError, DeviceMissingError, Kind
from hw.pi.audio import rehearsal as module
from hw.pi.audio.cards import Endpoint
from hw.pi.audio.convert import Shape
from hw.pi.audio.rehearsal import rehearse
from hw.pi.audio.streams import open_playback
from tests.hil.machine import Machine

MODULES: list[str] = []
RATE = 48_000
MOST_S = 0.2
"""What the daemon's loop may be kept from running, whatever a device does."""


def _endpoint(device: str) -> Endpoint:
    return Endpoint(Kind.SPEAKER, "alsa:Stuck", "Stuck", device, "", "alsa:Stuck", "")


class Ticks:
    """A thread that wants to run all the time, as the daemon's loop does."""

    def __init__(self) -> None:
        self.gaps: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stopping.wait(0.005):
            now = time.monotonic()
            self.gaps.append((before, now))
            before = now

    def longest_s(self, machine: Machine) -> float:
        """Of its gaps, without what of them the machine stood still."""
        return max((now - before - machine.stood_s(before, now)
                    for before, now in self.gaps if now - before > MOST_S), default=0.0)

    def __enter__(self) -> Ticks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """Its format cannot be set before somebody reads the FIFO."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    yield _endpoint(f"file:FILE={fifo},FORMAT=raw")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # and the driver goes on
    while any(thread.name == "hw.speaker:alsa:Stuck" for thread in threading.enumerate()):
        time.sleep(0.01)
    os.close(reader)


def test_a_driver_that_hangs_is_told_and_holds_nobody_else(stuck: Endpoint, machine: Machine) -> None:
    with Ticks() as ticks:
        with pytest.raises(DeviceFailedError, match=r"speaker alsa:Stuck \(Stuck\) .* its driver hangs; unplug it"):
            open_playback(stuck, RATE)
        watch = machine.stopwatch()
        with pytest.raises(DeviceFailedError, match="its driver hangs"):
            open_playback(stuck, RATE)
        watch.within(0.25, "it still hangs, and is not waited for again: told")
    assert ticks.longest_s(machine) < MOST_S
    assert sum(thread.name == "hw.speaker:alsa:Stuck" for thread in threading.enumerate()) == 1


def test_pyalsaaudio_alone_would_hold_the_whole_interpreter(tmp_path: Path) -> None:
    """What the rehearsal is for: where this fails, pyalsaaudio lets go of the interpreter, and it can go."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = textwrap.dedent(f"""
        import alsaaudio, threading, time
        longest, opened = 0.0, threading.Event()
        def tick():
            global longest
            before = time.monotonic()
            while not opened.wait(0.005):
                longest, before = max(longest, time.monotonic() - before), time.monotonic()
        ticker = threading.Thread(target=tick)
        ticker.start()
        time.sleep(0.05)
        print("began", flush=True)
        alsaaudio.PCM(type=alsaaudio.PCM_PLAYBACK, mode=alsaaudio.PCM_NONBLOCK, rate={RATE}, channels=1,
                      format=alsaaudio.PCM_FORMAT_S16_LE, periodsize=480, device="file:FILE={fifo},FORMAT=raw")
        time.sleep(0.05)
        opened.set()
        ticker.join()
        print(longest)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        reader = os.open(fifo, os.O_RDONLY)
        try:
            longest_s = float(process.stdout.readline())
        finally:
            os.close(reader)
    assert longest_s > 2 * MOST_S


def test_what_can_be_opened_passes_and_what_is_refused_is_left_to_the_opening() -> None:
    rehearse(_endpoint("null"), Shape(RATE, 1, "S16_LE"))
    rehearse(_endpoint("hw:CARD=NotThere,DEV=0"), Shape(RATE, 1, "S16_LE"))
    with pytest.raises(DeviceMissingError, match="is not there: plug it in"):
        open_playback(_endpoint("hw:CARD=NotThere,DEV=0"), RATE)
