"""The way to a board on the bench (``scripts/hil --env pi``), with a guest and its SSH server in the board's place.

It is all that ``--env pi`` does but for compiling the packages, which the guest finds where this machine has them.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.hil.inside.test_board import MODULES

pytestmark = [pytest.mark.lg_feature("faults"), pytest.mark.timeout(240), pytest.mark.alone]

HERE = Path(__file__).parent
GUEST = "10.98.0.2"


@dataclass(frozen=True)
class Way:
    """How ssh is told to reach the guest."""

    folder: Path
    address: str = GUEST
    port: int = 22
    key: str = "key"
    known_hosts: str = "known_hosts"

    def call(self, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        config = self.folder / "config"
        config.write_text(f"Host *\nUser root\nPort {self.port}\nIdentityFile {self.folder / self.key}\n"
                          f"IdentitiesOnly yes\nUserKnownHostsFile {self.folder / self.known_hosts}\n")
        variables = {"EDGECALL_HIL_ADDRESS": self.address, "EDGECALL_HIL_SSH_CONFIG": str(config)} | variables
        return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=200,
                              stdin=subprocess.DEVNULL, env=os.environ | variables)

    def run(self, command: str) -> None:
        done = self.call(HERE / "board", "run", command)
        assert done.returncode == 0, done.stderr


def _made_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), 1.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    folder = tmp_path_factory.mktemp("way")
    out = folder / "hil"
    out.mkdir()
    (out / "authorized_keys").write_text(_made_key(folder / "key"))
    _made_key(folder / "other")
    told = subprocess.run(["dropbearkey", "-t", "ed25519", "-f", out / "host_key"], capture_output=True, text=True,
                          check=True).stdout
    host_key = next(line for line in told.splitlines() if line.startswith("ssh-ed25519 "))
    (folder / "known_hosts").write_text(f"{GUEST} {host_key}\n")
    (folder / "nobody").touch()
    (folder / "another").write_text(f"{GUEST} {(folder / 'other.pub').read_text()}")
    load = [word for module in MODULES for word in ("--load", module)]
    with (folder / "boot.log").open("w") as log, subprocess.Popen(
        [HERE / "boot", "--tap", "tap0", "--out", out, *load, "--limit", "900", "--", HERE / "guest" / "board"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log) as guest:
        try:
            deadline = time.monotonic() + 40
            while not _answers(GUEST):
                assert guest.poll() is None, (folder / "boot.log").read_text()
                assert time.monotonic() < deadline, (folder / "boot.log").read_text()
                time.sleep(0.1)
            yield Way(folder)
        finally:
            guest.terminate()


def test_the_checkout_goes_there_tests_run_there_and_their_results_come_back(way: Way) -> None:
    done = way.call("scripts/hil", "--env", "pi", "-s", "tests/hil/test_contract.py",
                    EDGECALL_HIL_ARGUMENTS="-vv -k 'told_short or health or wires'")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for one in ("test_presses_are_told_short_and_long", "test_the_board_tells_its_health",
                "test_lamp_and_relay_are_on_their_wires"):
        assert f"{one} PASSED" in done.stdout
    assert "3 passed" in done.stdout
    assert re.search(r"SKIPPED .*unsupported feature\(s\): simulated", done.stdout)
    assert "kernel and hardware are its own" in done.stderr

    way.run("rm -r /opt/edgecall-hil/checkout/hw/pi/panel.py")
    done = way.call("python", "-m", "pytest", "-q", "-p", "labgrid.pytestplugin", "--lg-env", "tests/hil/env/pi.yaml",
                    "tests/hil/test_contract.py", EDGECALL_HIL_ARGUMENTS="-k health")
    assert done.returncode == 1, "what fails there fails here"
    assert "No module named 'hw.pi.panel'" in done.stdout


@pytest.mark.parametrize(("change", "words"), [
    ({"address": ""}, "EDGECALL_HIL_ADDRESS is not set"),
    ({"address": "no-such-board.invalid"}, "nobody knows a machine named no-such-board.invalid"),
    ({"port": 1}, "no SSH server answers there"),
    ({"address": "10.98.0.77"}, "10.98.0.77 does not answer"),
    ({"known_hosts": "nobody"}, "host key of 10.98.0.2 is not known here"),
    ({"known_hosts": "another"}, "does not have the host key that is known of it"),
    ({"key": "other"}, "lets in none of your keys"),
])
def test_what_bars_the_way_is_told_with_what_to_do(way: Way, change: dict[str, str], words: str) -> None:
    done = replace(way, **change).call("scripts/hil", "--env", "pi")  # type: ignore[arg-type]
    assert done.returncode == 1
    assert words in done.stderr
    assert "passed" not in done.stdout


@pytest.mark.parametrize(("release", "words"), [
    ('ID=alpine\nPRETTY_NAME="Alpine Linux v3.20"\nVERSION_ID=3.20.1\n', "it runs Alpine Linux v3.20"),
    ('ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\nVERSION_ID=24.04\n', "it runs Ubuntu 24.04"),
])
def test_a_system_that_is_none_of_ours_is_refused_and_left_alone(way: Way, release: str, words: str) -> None:
    way.run(f"rm -rf /opt/edgecall-hil && cp /etc/os-release /tmp/kept && printf %s '{release}' >/etc/os-release")
    try:
        done = way.call("scripts/hil", "--env", "pi")
    finally:
        way.run("cat /tmp/kept >/etc/os-release")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Debian 12 or 13" in done.stderr
    way.run("! test -e /opt/edgecall-hil")
