"""Factory reset: all that is kept goes, the slots stay; and the kernel's own lines tell of the button."""

from __future__ import annotations

import shlex

from edgecall_image.layout import PROVISIONED
from tests.image.appliance import edgecall, ready, status
from tests.image.board import Board, Boot
from tests.image.first_file import HOST_NAME, RESULT

_KEPT = "cat /etc/machine-id /var/lib/systemd/credential.secret /data/config/device.key | sha256sum"
_BUTTON = """
set -e
sim=/sys/kernel/config/gpio-sim/front
mkdir -p $sim/bank0/line17 /run/boards
echo 32 >$sim/bank0/num_lines
echo header >$sim/bank0/label
echo 1 >$sim/live
echo /sys/devices/platform/$(cat $sim/dev_name)/$(cat $sim/bank0/chip_name)/sim_gpio17/pull
"""
# a pull of the chip's own would be taken for the circuit's
_BOARD = """models = ["Rig"]
[panel]
chip = "header"
buttons = { call = "17 no-pull" }
"""
_HELD = """
import sys, time
from pathlib import Path
sys.path.insert(0, "/usr/lib/edgecall-image")
from edgecall_image.reset import GpioLine, find_button, is_held
button = find_button("call", "Rig 1", [Path("/run/boards")])
sys.exit(0 if is_held(GpioLine(button), time.monotonic) else 1)
"""


def test_a_factory_reset_forgets_everything_but_the_slots(board: Board) -> None:
    boot = board.switch_on()
    ready(boot)
    kept, before = boot.run(_KEPT), status(boot)
    with boot.follow(f"edgecall device.factoryReset {HOST_NAME}"):
        again = board.after(boot, 180)
    ready(again)
    assert again.run(f"test -e {PROVISIONED} || echo not set up") == "not set up"
    assert again.run(_KEPT) != kept
    assert again.run("hostname") != HOST_NAME
    assert edgecall(again, "state", "device")["id"] == again.run("hostname")
    after = status(again)
    assert (after["slot"], after["version"], after["trial"]) == (before["slot"], before["version"], False)
    told = board.card.read(1, RESULT)
    assert told is not None
    assert b"This device is not set up." in told
    assert again.run("systemctl --failed --plain --no-legend") == ""
    _hold_the_button(again)


def _hold_the_button(boot: Boot) -> None:
    pull = boot.run(_BUTTON).strip()
    boot.run("cat >/run/boards/rig.toml", given=_BOARD)
    held = f"python3 -I -u -c {shlex.quote(_HELD)}"
    boot.run(f"echo pull-up >{pull}")
    assert boot.run(f"{held} || echo nobody is at it") == "nobody is at it"
    boot.run(f"echo pull-down >{pull}")
    with boot.follow(held) as lines:
        told = lines.until(40)
        assert "kept for 10 s" in next(told)
        assert "let go" in next(told)
        boot.run(f"echo pull-up >{pull}")
        assert list(told) == []
        assert lines.status == 0
