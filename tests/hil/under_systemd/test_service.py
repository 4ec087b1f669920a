"""The daemon as installed: under a real systemd, with its sandbox, its watchdog and a call, on kernel devices.

Runs in a guest whose first process is systemd (``tests/hil/guest/systemd``), as root.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hil.devices import GpioChip
from tests.support.appliance import Appliance

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "config" / "systemd" / "edgecall.service"
SETTINGS = Path("/etc/edgecall/edgecall.toml")
PEER_PORT = 18080
TOKEN = Path("/etc/edgecall/peer.token")
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
    TOKEN.write_text(secrets.token_urlsafe(24))
    TOKEN.chmod(0o600)
    run("chown", "edgecall:edgecall", str(TOKEN))
    SETTINGS.write_text(f"""
[device]
id = "door-1"
[board]
name = "auto"
[mqtt]
enabled = false
[http]
port = 0
[[direct.peers]]
name = "lobby"
url = "http://127.0.0.1:{PEER_PORT}"
token_file = "{TOKEN}"
""")
    started = time.monotonic()
    run("systemctl", "start", "edgecall")
    print(f"READY after {time.monotonic() - started:.1f} s")
    yield int(show("MainPID"))
    run("systemctl", "stop", "edgecall")


def commanded(*words: str) -> list[str]:
    """The command line, as a member of the service's group."""
    return ["setpriv", "--reuid", "edgecall", "--regid", "edgecall", "--init-groups",
            "/opt/edgecall/bin/edgecall", "--socket", "/run/edgecall/edgecall.sock", *words]


def test_it_is_no_more_exposed_than_promised(service: int) -> None:
    told = run("systemd-analyze", "security", "--no-pager", "edgecall.service")
    found = re.search(r"exposure level for edgecall.service: ([\d.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= EXPOSURE, told


@pytest.fixture(scope="module")
def probed() -> Iterator[dict[str, object]]:
    """What the probe found in the daemon's own sandbox: the unit but for what it runs and how it is watched."""
    chip = GpioChip({17})
    run("udevadm", "settle")
    unit = re.sub(r"^(Type|NotifyAccess|ExecStart|ExecReload|Restart|RestartSec|WatchdogSec|WatchdogSignal)=.*\n", "",
                  UNIT.read_text(), flags=re.M)  # fmt: skip
    program = Path("/opt/edgecall/bin/edgecall").read_text().split(" -m ")[0].splitlines()[-1].split()[-1]
    unit = unit.replace("[Service]\n", "[Service]\nType=oneshot\nStandardOutput=file:/run/probe.json\n"
                        f"ExecStart={program} /opt/edgecall/room/tests/hil/under_systemd/probe.py\n")  # fmt: skip
    Path("/etc/systemd/system/edgecall-probe.service").write_text(unit)
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "edgecall-probe")
    try:
        yield json.loads(Path("/run/probe.json").read_text())
    finally:
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


async def received(appliance: Appliance, kind: str) -> int:
    """Packets that came, so far."""
    rows = (await appliance.get("/v1/stats"))["stats"]
    return sum(row["packetsReceived"] for row in rows if (row["type"], row.get("kind")) == ("inbound-rtp", kind))


async def test_a_call_inside_the_sandbox(service: int, tmp_path: Path) -> None:
    run("ip", "link", "add", "edge0", "type", "dummy")
    run("ip", "address", "add", "10.99.0.1/24", "dev", "edge0")
    run("ip", "link", "set", "edge0", "up")
    trusted = f"""
[[http.tokens]]
name = "door-1"
scope = "device"
token_file = "{TOKEN}"
"""
    lobby = Appliance(tmp_path / "lobby", device="lobby-2", tables=trusted, settings={
        "board.name": "sim", "board.microphone": "tone:1500", "http.port": PEER_PORT,
        "video.width": 320, "video.height": 180, "video.fps": 5})  # fmt: skip
    (tmp_path / "lobby").mkdir()
    async with lobby:
        dialling = await asyncio.create_subprocess_exec(*commanded("call.dial", "lan:lobby", "--wait", "30"))
        await lobby.call_is("Incoming", within_s=30)
        answered = await lobby.give("call.answer", wait=30)
        assert answered["result"] == "done", answered
        await lobby.call_is("Connected", within_s=30)
        assert await dialling.wait() == 0
        for kind in ("audio", "video"):
            async with asyncio.timeout(30):
                while await received(lobby, kind) < 100:  # noqa: ASYNC110 - a figure of another process
                    await asyncio.sleep(0.5)
        await lobby.give("call.hangup")


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


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
