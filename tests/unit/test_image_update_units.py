"""The units of an update: understood by systemd, no more exposed than promised, and what follows a failure."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

from edgecall_image.gate import CALL_S, LIMIT_S
from edgecall_image.layout import MARKS, SOCKET
from tests.support.overlay import OVERLAY, UNITS, links

OURS = sorted(path for pattern in ("edgecall-update*", "edgecall-health*", "edgecall-trial*")
              for path in UNITS.glob(pattern) if path.is_file())
EXPOSURE = {"edgecall-update.service": 29, "edgecall-health.service": 25}  # tenths, by systemd 252


def read(name: str) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNITS / name)
    return unit


def test_systemd_understands_them(tmp_path: Path) -> None:
    for unit in OURS:  # verify wants the programs to be there
        (tmp_path / unit.name).write_text(re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", unit.read_text(), flags=re.M))
    places = [f"{tmp_path}/{unit.name}" for unit in OURS]
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *places],
        capture_output=True, text=True, check=False, env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
    assert len(OURS) == 5
    assert [line for line in result.stderr.splitlines() if str(tmp_path) in line or "edgecall" in line] == []


@pytest.mark.parametrize("name", EXPOSURE)
def test_they_are_no_more_exposed_than_promised(name: str) -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE[name]}", "--no-pager",
         str(UNITS / name)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout.splitlines()[-1:] + result.stderr.splitlines()


@pytest.mark.parametrize(("target", "name"), [
    ("sockets", "edgecall-update.socket"), ("multi-user", "edgecall-health.service"),
    ("timers", "edgecall-trial-failed.timer")])
def test_they_are_enabled(target: str, name: str) -> None:
    assert links()[f"{target}.target.wants/{name}"] == f"../{name}"
    assert read(name)["Install"]["WantedBy"] == f"{target}.target"


def test_what_they_run_is_there() -> None:
    for unit in OURS:
        match = re.search(r"^ExecStart=/usr/bin/python3 -I /usr/lib/edgecall-image/run (\w+)$", unit.read_text(), re.M)
        if match:
            module = OVERLAY.parents[1] / "edgecall_image" / f"{match[1]}.py"
            assert "\ndef main(" in module.read_text()


def test_the_socket_is_where_the_daemon_looks_for_it() -> None:
    socket = read("edgecall-update.socket")["Socket"]
    assert socket["ListenStream"] == str(SOCKET)
    assert (socket["SocketGroup"], socket["SocketMode"]) == ("edgecall", "0660")


def test_the_judge_has_the_time_that_it_gives() -> None:
    minutes = int(read("edgecall-health.service")["Service"]["RuntimeMaxSec"].removesuffix("min"))
    assert minutes * 60 > LIMIT_S + CALL_S
    assert int(read("edgecall-trial-failed.timer")["Timer"]["OnBootSec"].removesuffix("min")) * 60 > LIMIT_S


def test_a_judge_that_fails_restarts_the_device_and_only_while_something_is_on_trial() -> None:
    assert read("edgecall-health.service")["Unit"]["OnFailure"] == "edgecall-trial-failed.service"
    last = read("edgecall-trial-failed.service")
    assert last["Unit"]["ConditionPathExistsGlob"] == f"{MARKS}/tried.*"
    folder = read("edgecall-health.service")["Service"]["RuntimeDirectory"]
    assert last["Unit"]["ConditionPathExists"] == f"!/run/{folder}"
    assert last["Service"]["ExecStart"] == "/usr/bin/systemctl reboot"


def test_nothing_else_marks_a_slot_good() -> None:
    there = [path for folder in (OVERLAY, OVERLAY.parents[1] / "edgecall_image") for path in folder.rglob("*")
             if path.is_file() and path.suffix != ".pyc"]
    marks = re.compile(r"mark-good|\.mark\(\"good\"\)")
    assert [path.name for path in there if marks.search(path.read_text("utf-8", "replace"))] == ["gate.py"]
