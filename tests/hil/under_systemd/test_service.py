"""The daemon as installed: under a real systemd, with its sandbox and its watchdog, on kernel devices.

Runs in a guest whose first process is systemd (``tests/hil/guest/systemd``), as root.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from evdev import UInput, ecodes

from tests.hil.devices import GpioChip

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "config" / "systemd" / "edgecall.service"
SETTINGS = Path("/etc/edgecall/edgecall.toml")
EXPOSURE = 1.5
START_S = 60.0
"""Where a fork costs 10 ms, Python with everything takes its time to load."""


def run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0 or not check, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}\n{journal()}"
    return done.stdout


def journal(unit: str = "edgecall") -> str:
    return subprocess.run(["journalctl", "--no-pager", "-o", "cat", "-n", "60", "-u", unit],
                          capture_output=True, text=True, check=False).stdout  # fmt: skip


def show(name: str, unit: str = "edgecall") -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def until(fits: Callable[[], object], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not fits():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{journal()}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    """The service, running; its main process."""
    SETTINGS.parent.mkdir(exist_ok=True)
    SETTINGS.write_text("""
[device]
id = "door-1"
[board]
name = "auto"
[mqtt]
enabled = false
[http]
port = 0
""")
    started = time.monotonic()
    run("systemctl", "start", "edgecall")
    print(f"READY after {time.monotonic() - started:.1f} s")
    yield int(show("MainPID"))
    run("systemctl", "stop", "edgecall")


def test_it_is_no_more_exposed_than_promised(service: int) -> None:
    told = run("systemd-analyze", "security", "--no-pager", "edgecall.service")
    found = re.search(r"exposure level for edgecall.service: ([\d.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= EXPOSURE, told


@pytest.fixture(scope="module")
def probed() -> Iterator[dict[str, object]]:
    """What the probe found in the daemon's own sandbox: the unit but for what it runs and how it is watched."""
    chip, keypad = GpioChip({17}), UInput({ecodes.EV_KEY: [ecodes.KEY_1]}, name="keypad")
    run("udevadm", "settle")
    unit = re.sub(r"^(Type|NotifyAccess|ExecStart|ExecReload|Restart|RestartSec|WatchdogSec|WatchdogSignal)=.*\n", "",
                  UNIT.read_text(), flags=re.M)  # fmt: skip
    unit = unit.replace("RuntimeDirectory=edgecall\n", "RuntimeDirectory=edgecall-probe\n")  # it goes with the unit
    program = Path("/opt/edgecall/bin/edgecall").read_text().split(" -m ")[0].splitlines()[-1].split()[-1]
    unit = unit.replace("[Service]\n", "[Service]\nType=oneshot\nStandardOutput=file:/run/probe.json\n"
                        f"ExecStart={program} /opt/edgecall/room/tests/hil/under_systemd/probe.py\n")  # fmt: skip
    Path("/etc/systemd/system/edgecall-probe.service").write_text(unit)
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "edgecall-probe")
    try:
        yield json.loads(Path("/run/probe.json").read_text())
    finally:
        keypad.close()
        chip.remove()


@pytest.mark.parametrize("what", [
    "camera", "encoder", "sound control", "sound capture", "gpio", "keypad", "screen", "state", "runtime", "udp",
    "netlink", "real-time",
])  # fmt: skip
def test_the_sandbox_allows(probed: dict[str, object], what: str) -> None:
    assert probed[what] == "ok"


@pytest.mark.parametrize(("what", "how"), [
    ("watchdog", "EACCES EPERM"), ("uinput", "EACCES EPERM"), ("disk", "EACCES EPERM"),
    ("memory", "EACCES EPERM ENOENT"), ("kernel log", "EACCES EPERM ENOENT"), ("tun", "EACCES EPERM ENOENT"),
    ("write /usr", "EROFS"), ("write /etc", "EROFS EACCES"), ("write the program", "EROFS EACCES"),
    ("write kernel settings", "EROFS EACCES"), ("read home", "EACCES ENOENT"), ("read shadow", "EACCES"),
    ("packet socket", "EAFNOSUPPORT"), ("user namespace", "EPERM"), ("set clock", "EPERM"),
    ("become root", "EPERM EINVAL"),
    ("mount", "EPERM"), ("host name", "EPERM"), ("reboot", "EPERM"), ("trace", "EPERM"), ("load module", "EPERM"),
])  # fmt: skip
def test_the_sandbox_refuses(probed: dict[str, object], what: str, how: str) -> None:
    assert probed[what] in how.split()


def test_the_sandbox_leaves_no_privilege(probed: dict[str, object]) -> None:
    assert probed["uid"] != 0
    assert (probed["capabilities"], probed["no new privileges"], probed["seccomp"]) == (0, "1", "2")
    assert probed["processes"] == 1, "others' processes are seen"


def test_a_daemon_that_hangs_is_killed_and_back_in_time(service: int) -> None:
    frozen = int(show("MainPID"))
    restarts = int(show("NRestarts"))
    began = time.monotonic()
    subprocess.run(["kill", f"-{signal.SIGSTOP.value}", str(frozen)], check=True)
    until(lambda: int(show("NRestarts")) == restarts + 1 and show("SubState") == "running", "a restart", 20 + START_S)
    print(f"back after {time.monotonic() - began:.1f} s")
    assert int(show("MainPID")) not in (0, frozen)
    assert "Watchdog timeout" in journal()


def test_it_stops_when_told_and_leaves_nothing(service: int) -> None:
    run("systemctl", "stop", "edgecall")
    assert (show("Result"), show("MainPID")) == ("success", "0")
    assert not Path("/run/edgecall").exists()
