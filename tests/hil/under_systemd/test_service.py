"""The daemon as installed: under a real systemd, with its sandbox and its watchdog, on kernel devices.

Runs in a guest whose first process is systemd (``tests/hil/guest/systemd``), as root.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from evdev import UInput, ecodes

from tests.hil.devices import GpioChip

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "config" / "systemd" / "edgecall.service"
SETTINGS = Path("/etc/edgecall/edgecall.toml")
EXPOSURE = 1.5
START_S = 60.0
"""Where a fork costs 10 ms, Python with everything takes its time to load."""
pytestmark = pytest.mark.timeout(150)


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


FORBIDDEN_CALLS = ("@module", "@clock", "@mount", "@swap", "@reboot", "@raw-io", "@debug", "@privileged", "@resources",
                   "@obsolete", "@cpu-emulation")  # fmt: skip
OWN_SCHEDULING = {"sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity", "setpriority",
                  "ioprio_set"}  # fmt: skip

NODES = {
    "memory": ("c", 1, 1), "ports": ("c", 1, 4), "log": ("c", 1, 11), "console": ("c", 5, 1), "tty0": ("c", 4, 0),
    "watchdog": ("c", 10, 130), "tun": ("c", 10, 200), "uinput": ("c", 10, 223), "fuse": ("c", 10, 229),
    "loop": ("b", 7, 0), "root-disk": ("b", 98, 0), "sd-card": ("b", 179, 0),
}  # fmt: skip
"""Nodes that anybody may open by their mode, so that nothing but the unit refuses: type, major, minor."""

ALLOWED_NODES = re.compile(
    r"/dev/(null|zero|full|u?random|tty|ptmx|pts/\w+|video\d+|v4l-subdev\d+|media\d+|snd/\w+|dri/\w+|input/\w+|"
    r"gpiochip\d+|vcio|dma_heap/linux,cma)")
ALLOWED_MOUNTS = re.compile(
    r"/dev(/(pts|shm|mqueue|hugepages))?|/proc|/tmp|/var/tmp|/sys/(class/backlight|devices/platform)|/(var/lib|run)/edgecall\S*")


@cache
def call_sets() -> dict[str, set[str]]:
    """systemd's sets of system calls, with what stands in each: calls and other sets."""
    sets: dict[str, set[str]] = {}
    inside: set[str] = set()
    for line in run("systemd-analyze", "syscall-filter", "--no-pager").splitlines():
        if line.startswith("@"):
            inside = sets.setdefault(line.strip(), set())
        elif line.startswith(" ") and not line.strip().startswith("#"):
            inside.add(line.strip())
    return sets


def calls_of(group: str) -> set[str]:
    """The system calls of a set, and of those in it, but for what the unit gives back."""
    inside = call_sets()[group]
    return {word for word in inside if not word.startswith("@")}.union(
        *(calls_of(word) for word in inside if word.startswith("@"))) - OWN_SCHEDULING


def lay_out_temptations() -> None:
    """What an intruder would look for; but for the unit, each is there to be had."""
    for name, (kind, major, minor) in NODES.items():
        run("mknod", "-m", "666", f"/dev/probe-{name}", kind, str(major), str(minor))
    for path, mode in (("/var/lib/another/secret", 0o600), ("/home/another/public", 0o644), ("/tmp/public", 0o666)):  # noqa: S108
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("secret")
        Path(path).chmod(mode)
    Path("/opt/edgecall/set-user-id").mkdir()
    run("mount", "-t", "tmpfs", "-o", "suid,mode=755", "tmpfs", "/opt/edgecall/set-user-id")
    program = "/opt/edgecall/set-user-id/id"
    run("install", "-m", "4755", "/usr/bin/id", program)
    assert run("setpriv", "--reuid=edgecall", "--regid=edgecall", "--clear-groups", program, "-u") == "0\n"


@pytest.fixture(scope="module")
def probed() -> Iterator[dict[str, object]]:
    """What the probe found in the daemon's own sandbox: the unit but for what it runs and how it is watched."""
    chip, keypad = GpioChip({17}), UInput({ecodes.EV_KEY: [ecodes.KEY_1]}, name="keypad")
    run("udevadm", "settle")
    Path("/run/probe-calls.json").write_text(json.dumps(sorted(set().union(*map(calls_of, FORBIDDEN_CALLS)))))
    lay_out_temptations()
    unit = re.sub(r"^(Type|NotifyAccess|ExecStart|ExecReload|Restart|RestartSec|WatchdogSec|WatchdogSignal)=.*\n", "",
                  UNIT.read_text(), flags=re.M)  # fmt: skip
    unit = unit.replace("RuntimeDirectory=edgecall\n", "RuntimeDirectory=edgecall-probe\n")  # it goes with the unit
    program = Path("/opt/edgecall/bin/edgecall").read_text().split(" -m ")[0].splitlines()[-1].split()[-1]
    unit = unit.replace("[Service]\n", "[Service]\nType=oneshot\nStandardOutput=file:/run/probe.json\n"
                        f"ExecStart={program} /opt/edgecall/room/tests/hil/under_systemd/probe.py "
                        "/run/probe-calls.json\n")  # fmt: skip
    Path("/etc/systemd/system/edgecall-probe.service").write_text(unit)
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "edgecall-probe")
    try:
        yield json.loads(Path("/run/probe.json").read_text())
    finally:
        keypad.close()
        chip.remove()
        for name in NODES:
            Path(f"/dev/probe-{name}").unlink()


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
    ("packet socket", "EAFNOSUPPORT"), ("raw socket", "EPERM"), ("set clock", "EPERM"), ("become root", "EPERM EINVAL"),
    ("mount", "EPERM"), ("remount", "EPERM"), ("host name", "EPERM"), ("reboot", "EPERM"), ("trace", "EPERM"),
    ("load module", "EPERM"), ("make a node", "EPERM"), ("make a set-user-ID file", "EPERM"),
    ("run a set-user-ID program", "EPERM"), ("write /", "EROFS"), ("write /var/lib", "EROFS"), ("write /run", "EROFS"),
    ("write /boot", "EROFS"), ("read another's state", "EACCES"),
    ("read another's public file at home", "EACCES ENOENT"), ("read another's public file in /tmp", "ENOENT"),
    ("read the memory of another", "ENOENT EACCES EPERM"), ("signal another", "EPERM"),
    ("connect to systemd", "EACCES EPERM"), ("write the control group", "EROFS"), ("too much real-time", "EPERM"),
    ("personality", "EPERM"), ("enter a namespace", "EPERM"), ("clone by another call", "ENOSYS EPERM"),
])  # fmt: skip
def test_the_sandbox_refuses(probed: dict[str, object], what: str, how: str) -> None:
    assert probed[what] in how.split()


def test_no_other_device_opens_whatever_its_mode(probed: dict[str, Any]) -> None:
    nodes = probed["nodes"]
    assert {nodes[f"/dev/probe-{name}"] for name in NODES} == {"EPERM"}
    assert [path for path, how in nodes.items() if how == "ok" and not ALLOWED_NODES.fullmatch(path)] == []


def test_nothing_else_can_be_written(probed: dict[str, Any]) -> None:
    assert [mount for mount in probed["writable mounts"] if not ALLOWED_MOUNTS.fullmatch(mount)] == []
    assert {path for path in probed["writable kernel files"] if not path.startswith("/proc/pressure/")} == set(), (
        "all but the files by which anybody may ask to be woken under pressure")


def test_no_other_family_of_sockets(probed: dict[str, Any]) -> None:
    opened = {int(family) for family, how in probed["families"].items() if how != "EAFNOSUPPORT"}
    assert opened == {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}


def test_no_kind_of_namespace(probed: dict[str, Any]) -> None:
    assert (len(probed["namespaces"]), len(probed["cloned namespaces"])) == (8, 7)
    assert {*probed["namespaces"].values(), *probed["cloned namespaces"].values()} == {"EPERM"}


@pytest.mark.parametrize("group", FORBIDDEN_CALLS)
def test_every_system_call_of_a_forbidden_set_is_refused(probed: dict[str, Any], group: str) -> None:
    tried = {name: how for name, how in probed["calls"].items() if name in calls_of(group)}
    assert tried, "this machine has none of them"
    assert {name: how for name, how in tried.items() if how != "EPERM"} == {}


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
