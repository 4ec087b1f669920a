"""RAUC's side of the slots: its configuration names those of the layout, and its hook tells each slot who it is."""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

import pytest

from edgecall_image.layout import BOOT_PARTITION, BY_PARTUUID, DATA, LABEL_ID, ROOT_PARTITION, SLOTS, Slot, partition
from edgecall_image.slots import Place, Slots

RAUC = Path(__file__).parents[2] / "image" / "rauc"
PARENT: dict[Slot, str] = {"A": "rootfs.0", "B": "rootfs.1"}
LINE = (RAUC.parent / "boot" / "cmdline.txt").read_text().strip()


def test_the_configuration_names_the_slots_of_the_layout() -> None:
    conf = configparser.ConfigParser(interpolation=None)
    conf.read(RAUC / "system.conf.in")
    for number, slot in enumerate(SLOTS):
        assert dict(conf[f"slot.rootfs.{number}"]) == {
            "device": str(partition(ROOT_PARTITION[slot])), "type": "raw", "bootname": slot}
        assert dict(conf[f"slot.boot.{number}"]) == {
            "device": str(partition(BOOT_PARTITION[slot])), "type": "vfat", "parent": f"rootfs.{number}"}
    assert str(partition(1)) == f"{BY_PARTUUID}/{LABEL_ID:08x}-01"
    assert dict(conf["system"]) == {
        "compatible": "@COMPATIBLE@", "min-bundle-version": "@MIN_VERSION@", "bootloader": "custom",
        "bundle-formats": "verity", "data-directory": str(DATA / "rauc")}
    assert dict(conf["keyring"]) == {
        "path": "/etc/rauc/ca.pem", "check-purpose": "codesign", "use-bundle-signing-time": "true"}
    backend = RAUC.parent / "overlay" / "common" / conf["handlers"]["bootloader-custom-backend"].lstrip("/")
    assert os.access(backend, os.X_OK)


def hook(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    told = {"PATH": os.environ["PATH"], "RAUC_SLOT_CLASS": "boot", "RAUC_SLOT_NAME": "boot.1",
            "RAUC_SLOT_PARENT": "rootfs.1", "RAUC_SLOT_MOUNT_POINT": str(folder)} | variables
    return subprocess.run([RAUC / "hook", *(words or ("slot-post-install",))], env=told, capture_output=True, text=True,
                          check=False)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("line", [LINE, LINE.replace("@ROOT@", "05").replace("@SLOT@", "A"),
                                  "rauc.slot=B root=/dev/vda root=/dev/vdb rauc.slot=A"])
def test_the_hook_names_root_and_slot(tmp_path: Path, slot: Slot, line: str) -> None:
    (tmp_path / "cmdline.txt").write_text(f"{line}\n")
    result = hook(tmp_path, RAUC_SLOT_PARENT=PARENT[slot])
    assert (result.returncode, result.stderr) == (0, "")
    written = (tmp_path / "cmdline.txt").read_text()
    assert written.endswith("\n") and written.count("\n") == 1
    assert {word for word in written.split() if word.startswith("root=")} == {
        f"root=PARTUUID={LABEL_ID:08x}-{ROOT_PARTITION[slot]:02d}"}
    own = ("root=", "rauc.slot=")
    assert [word for word in written.split() if not word.startswith(own)] == [
        word for word in line.split() if not word.startswith(own)]
    assert Slots(Place(command_line=tmp_path / "cmdline.txt")).booted() == slot


@pytest.mark.parametrize("line", ["ro quiet", "root=x", "rauc.slot=A", ""])
def test_a_command_line_without_a_place_for_them_fails_the_installation(tmp_path: Path, line: str) -> None:
    (tmp_path / "cmdline.txt").write_text(line)
    result = hook(tmp_path)
    assert result.returncode == 1
    assert "hook: cmdline.txt of this bundle has no r" in result.stderr
    assert (tmp_path / "cmdline.txt").read_text() == line


def test_a_slot_of_another_layout_fails_the_installation(tmp_path: Path) -> None:
    (tmp_path / "cmdline.txt").write_text(LINE)
    result = hook(tmp_path, RAUC_SLOT_PARENT="rootfs.2")
    assert (result.returncode, result.stderr) == (
        1, "hook: boot.1 belongs to rootfs.2, which is no slot of this layout\n")
    assert (tmp_path / "cmdline.txt").read_text() == LINE


def test_a_bundle_without_a_command_line_fails_the_installation(tmp_path: Path) -> None:
    assert hook(tmp_path).returncode != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("word", "kind"), [("slot-pre-install", "boot"), ("slot-post-install", "rootfs")])
def test_other_hooks_and_slots_are_let_be(tmp_path: Path, word: str, kind: str) -> None:
    (tmp_path / "cmdline.txt").write_text(LINE)
    assert hook(tmp_path, word, RAUC_SLOT_CLASS=kind).returncode == 0
    assert (tmp_path / "cmdline.txt").read_text() == LINE
