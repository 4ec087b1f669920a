"""When the long suites run again: ``tests/image/inputs``, ``tests/hil/inputs`` and ``tests/peers/inputs``, each in a
checkout of its own, with dpkg played."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parents[2]

FILES: Final = {
    "image": ["hw/camera.py", "appliance/it's one.py", "tests/support/lag.py", "scripts/image", "image/lock/uml",
              "README.md", "tests/hil/rig.py"],
    "hil": ["hw/camera.py", "appliance/it's one.py", "tests/support/lag.py", "scripts/hil", "scripts/netns",
            "README.md", "image/build"],
    "peers": ["hw/camera.py", "appliance/it's one.py", "tests/support/lag.py", "scripts/peers", "config/board.toml",
              "README.md", "image/build"],
    "matrix": ["hw/sim/camera.py", "appliance/it's one.py", "tests/support/lag.py", "scripts/matrix",
               "appliance/media/ice.py", "appliance/providers/sip/dialog.py", "hw/pi/camera.py",
               "appliance/providers/janus/leg.py"],
}  # fmt: skip
"""Of each suite's checkout; on the last two its outcome does not depend."""
DPKG = """#!/bin/sh
[ "$1" != --root ] || HERE=$2
# of all packages, or of one, which it then has to know
case $# in
  4) grep "^$4 " "$HERE/packages" ;;
  *) cat "$HERE/packages" ;;
esac
"""


class Checkout:
    """A small one, and beside it two kernels (or folders of peers), a suite of Debian, and what dpkg knows of each."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.tree = name, folder, folder / "tree"
        of = "peers" if name == "matrix" else name
        self.program = self.tree / "tests" / of / "inputs"
        for file in FILES[name]:
            self.write(file, "as it was")
        self.program.parent.mkdir()
        shutil.copy(ROOT / "tests" / of / "inputs", self.program)
        shutil.copy(ROOT / "tests/sums.sh", self.tree / "tests")
        for beside in ("bin", "kernel-1", "kernel-2", "suite"):
            (folder / beside).mkdir()
            (folder / beside / "packages").write_text(f"{beside} 1.0\n")
        (folder / "packages").write_text("e2fsprogs 1.47.0\n")
        (folder / "suite/packages").write_text("python3-libcamera 0.4.0-7\n")
        (folder / "bin/dpkg-query").write_text(DPKG)
        (folder / "bin/dpkg-query").chmod(0o755)
        subprocess.run(["git", "init", "--quiet"], cwd=self.tree, check=True)
        subprocess.run(["git", "add", "."], cwd=self.tree, check=True)

    def write(self, name: str, text: str) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def inputs(self, kernel: str = "kernel-1") -> str:
        path = os.pathsep.join([f"{self.folder}/bin", str(Path(sys.executable).parent), os.environ["PATH"]])
        environ = os.environ | {"PATH": path, "HERE": str(self.folder)}
        words = {"image": [kernel], "hil": [kernel, "suite"],
                 "peers": ["peers", kernel, "suite"], "matrix": ["matrix"]}[self.name]
        words = [str(self.folder / word) if (self.folder / word).is_dir() else word for word in words]
        return subprocess.run([self.program, *words], check=True, env=environ, stdout=subprocess.PIPE, text=True,
                              cwd="/").stdout


@functools.cache  # each asks pip, which takes half a second
def unchanged(suite: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Checkout(suite, Path(folder)).inputs()


Change = Callable[[Checkout], object]
BOTH: Final[dict[str, Change]] = {
    "file": lambda one: one.write(FILES[one.name][0], "otherwise"),
    "quoted": lambda one: one.write("appliance/it's one.py", "otherwise"),
    "new": lambda one: one.write("hw/sim/new.py", "nobody has added it to git yet"),
    "deleted": lambda one: (one.tree / "tests/support/lag.py").unlink(),
    "script": lambda one: one.write(f"scripts/{one.name}", "otherwise"),
    "package": lambda one: (one.folder / "packages").write_text("e2fsprogs 1.47.2\n"),
}
OWN: Final[dict[str, dict[str, Change]]] = {
    "image": {"lock": lambda one: one.write("image/lock/uml", "otherwise")},
    "hil": {"netns": lambda one: one.write("scripts/netns", "otherwise"),
            "suite": lambda one: (one.folder / "suite/packages").write_text("python3-libcamera 0.5.0-1\n")},
    "peers": {"config": lambda one: one.write("config/board.toml", "otherwise"),
              "suite": lambda one: (one.folder / "suite/packages").write_text("janus 1.4.0-1\n")},
    "matrix": {"media": lambda one: one.write("appliance/media/ice.py", "otherwise"),
               "sip": lambda one: one.write("appliance/providers/sip/dialog.py", "otherwise")},
}  # fmt: skip


@pytest.mark.parametrize(("suite", "change"), [
    pytest.param(suite, change, id=f"{suite}-{name}")
    for suite, own in OWN.items() for name, change in (BOTH | own).items()
])  # fmt: skip
def test_what_the_outcome_depends_on_makes_other_inputs(suite: str, change: Change, tmp_path: Path) -> None:
    checkout = Checkout(suite, tmp_path)
    change(checkout)
    assert checkout.inputs() != unchanged(suite)


@pytest.mark.parametrize("suite", FILES)
def test_another_kernel_or_peer_makes_other_inputs_and_a_page_does_not(suite: str, tmp_path: Path) -> None:
    checkout, before = Checkout(suite, tmp_path), unchanged(suite)
    assert checkout.inputs() == before, "wherever the checkout lies"
    assert (checkout.inputs("kernel-2") != before) == (suite != "matrix")
    for beside in FILES[suite][-2:]:
        checkout.write(beside, "otherwise")
    assert checkout.inputs() == before
    assert "pytest==" in before, "the Python packages"
    assert ("mtools: none" in before) == (suite == "image")
