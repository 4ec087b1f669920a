"""The daemon loads nothing that its settings do not ask for: each MiB of it is there on the smallest board."""

from __future__ import annotations

import subprocess
import sys

LATER = """
import sys
import appliance.house
later = ("dns.", "appliance.providers.janus", "appliance.providers.sip", "appliance.providers.whip",
         "appliance.doors.cli", "numpy", "PIL", "gpiozero", "alsaaudio", "lgpio", "evdev", "hw.pi", "hw.sim")
print(*sorted(name for name in sys.modules if name.startswith(later)))
"""


def test_what_is_only_needed_by_some_is_not_loaded_for_all() -> None:
    """In a process of its own: this one has loaded it."""
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "\n"
