"""The units that ship: understood by systemd, sandboxed to the figure that is promised, and what follows a failure."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "config" / "systemd"
SERVICE = UNITS / "edgecall.service"
SAFE = UNITS / "appliance" / "edgecall-safe.service"
ON_FAILURE = UNITS / "appliance" / "edgecall-on-failure"
ALL = sorted([*UNITS.rglob("*.service"), *UNITS.rglob("*.timer")], key=lambda path: path.name)
EXPOSURE = 15  # tenths


def settings_of(unit: Path) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    for unit in ALL:  # all in one folder, as installed; verify also wants the programs to be there
        (tmp_path / unit.name).write_text(re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", unit.read_text(), flags=re.M))
    drop_in = tmp_path / "edgecall.service.d"
    drop_in.mkdir()
    (drop_in / "on-failure.conf").write_text((UNITS / "appliance" / "on-failure.conf").read_text())
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *(f"{tmp_path}/{u.name}" for u in ALL)],
        capture_output=True, text=True, check=False, env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    complaints = [line for line in result.stderr.splitlines() if str(tmp_path) in line or "edgecall" in line]
    assert complaints == []


@pytest.mark.parametrize("unit", [SERVICE, SAFE], ids=lambda unit: unit.stem)
def test_the_daemon_is_no_more_exposed_than_promised(unit: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )
    assert result.returncode == 0, result.stdout.splitlines()[-1:] + result.stderr.splitlines()


def test_safe_mode_has_the_same_sandbox() -> None:
    differs = set(settings_of(SERVICE)) ^ set(settings_of(SAFE))
    assert {line.partition("=")[0] for line in differs if not line.startswith("[")} == {
        "Description", "After", "Conflicts", "ExecStart", "RestartPreventExitStatus", "WantedBy",
    }


def test_safe_mode_starts_only_once_the_other_is_gone() -> None:
    assert {"Conflicts=edgecall.service", "After=edgecall.service"} <= set(settings_of(SAFE))


def test_what_the_sandbox_refuses_does_not_kill() -> None:
    """The C library and we ask for what may be refused (adjtimex) and then take another way."""
    assert "SystemCallErrorNumber=EPERM" in settings_of(SERVICE)


def test_a_shared_computer_is_never_rebooted_by_the_plain_unit() -> None:
    reboots = ("OnFailure", "StartLimitAction", "FailureAction")
    assert not [line for line in settings_of(SERVICE) if line.startswith(reboots)]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder, and a systemctl that writes down what it is told."""
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(f"""#!/bin/sh
if [ "$1" = show ]; then echo "${{STATUS:-1}}"; else echo "$@" >>{tmp_path}/told; fi
""")
    systemctl.chmod(0o755)
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def failed(state: Path, **environ: str) -> str:
    """Run what OnFailure= starts; returns what systemctl was told."""
    home = state.parent
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    subprocess.run([str(ON_FAILURE)], check=True, capture_output=True,
                   env={"PATH": path, "STATE_DIRECTORY": str(state)} | environ)
    told = (home / "told").read_text()
    (home / "told").unlink()
    return told.strip()


def test_the_first_failure_reboots_once_and_the_second_starts_safe_mode(state: Path) -> None:
    assert failed(state) == "reboot"
    assert failed(state) == "start edgecall-safe.service"
    (state / "marker").unlink()  # what ten healthy minutes do
    assert failed(state) == "reboot"


def test_no_reboot_where_the_marker_cannot_be_written(state: Path) -> None:
    state.rmdir()
    assert failed(state) == "start edgecall-safe.service"


def test_no_reboot_for_faulty_settings(state: Path) -> None:
    assert failed(state, STATUS="78") == "start edgecall-safe.service"
    assert not (state / "marker").exists()


def test_the_marker_that_healthy_minutes_remove_is_the_one_that_a_failure_writes() -> None:
    healthy = settings_of(UNITS / "appliance" / "edgecall-healthy.service")
    failure = settings_of(UNITS / "appliance" / "edgecall-failed.service")
    assert "ExecStart=/bin/rm -f %S/edgecall-failed/marker" in healthy
    assert "StateDirectory=edgecall-failed" in healthy
    assert "StateDirectory=edgecall-failed" in failure
