"""That what judges waiting in the guest sees a wait, and nothing else: ``tests/hil/machine.py``."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.hil.machine import Machine

HELD = """
import os, time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
end = time.monotonic() + 1.0
while time.monotonic() < end:
    pass
"""


def test_a_wait_counts_as_one() -> None:
    with Machine() as machine:
        for _ in range(5):  # the first second in which the machine did not stand still
            watch = machine.stopwatch()
            time.sleep(1.0)
            if machine.stood_s(watch.begin, time.monotonic()) < 0.1:
                break
        assert watch.waited_s > 0.6
        with pytest.raises(AssertionError, match=r"the device: after 1\.\d+ s, of which .* 0\.5 s are allowed"):
            watch.within(0.5, "the device")
        watch.within(2.0, "the device")


def test_work_counts_as_none() -> None:
    with Machine() as machine:
        watch = machine.stopwatch()
        begin = time.monotonic()
        while time.monotonic() < begin + 1.0:
            pass
        assert watch.waited_s < 0.3


def test_what_keeps_all_else_from_running_is_the_machine_s() -> None:
    with Machine() as machine:
        quiet = 1.0
        for _ in range(5):
            begin = time.monotonic()
            time.sleep(0.3)
            quiet = min(quiet, machine.stood_s(begin, time.monotonic()))
        begin = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", HELD], check=True)
        assert machine.stood_s(begin, time.monotonic()) > 0.8 > quiet
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
