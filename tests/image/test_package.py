"""The daemon's Debian package: in the image with a GPIO chip, and in a bare Debian 13."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.image.appliance import ready
from tests.image.board import Board

ROOT = Path(__file__).parents[2]
PROOF = (ROOT / "image/edgecall_build/installed.py").read_text()

CHIP = """set -e
mount -t configfs none /sys/kernel/config 2>/dev/null || mountpoint -q /sys/kernel/config
cd /sys/kernel/config/gpio-sim
mkdir -p chip/bank
echo 8 >chip/bank/num_lines
echo 1 >chip/live
echo "/dev/$(cat chip/bank/chip_name)"
"""


def test_everything_imports_and_a_gpio_chip_opens(board: Board) -> None:
    boot = board.switch_on()
    ready(boot)
    chip = boot.run(CHIP).strip()
    told = boot.run("/usr/lib/edgecall/bin/python -I - --without picamera2 imports gpio told", 120, given=PROOF)
    print(told)
    assert f"gpio: opened {chip.removeprefix('/dev/')} (" in told
    assert "8 lines" in told


def test_it_installs_upgrades_and_leaves_no_trace(tmp_path: Path) -> None:
    package = subprocess.run([ROOT / "image/deb/build", "amd64", "--out", tmp_path], check=True, stdout=subprocess.PIPE,
                             text=True).stdout.strip()
    checked = subprocess.run([ROOT / "image/deb/check", package], stderr=subprocess.PIPE, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
