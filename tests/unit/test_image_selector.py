"""autoboot.txt: one of two texts, whatever moment the power goes, and never a word over what somebody else wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgecall_image.device import DeviceError
from edgecall_image.fat import FatError
from edgecall_image.layout import SLOTS, Slot
from edgecall_image.selector import TEXT, Selector, SelectorError
from tests.support.fat_images import write_fat
from tests.support.power import HOLDS, Hold, Power

IMAGE = Path(__file__).parents[2] / "image"


def selector(path: Path, content: bytes = TEXT["A"], **kind: int) -> Selector:
    write_fat(path, {"bootcode.bin": b"x" * 600, "autoboot.txt": content}, **kind)
    return Selector(path)


def test_the_texts_name_the_boot_partitions_and_are_of_one_length() -> None:
    assert TEXT["A"] == b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
    assert TEXT["B"] == b"[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n"


@pytest.mark.parametrize("slot", SLOTS)
def test_a_new_image_gets_its_text_by_a_command(slot: Slot) -> None:
    command = [sys.executable, "-m", "edgecall_image.selector", slot]
    assert subprocess.run(command, cwd=IMAGE, capture_output=True, check=True).stdout == TEXT[slot]


def test_only_the_slots_have_a_text() -> None:
    command = [sys.executable, "-m", "edgecall_image.selector", "C"]
    result = subprocess.run(command, cwd=IMAGE, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "usage: selector A|B\n")


@pytest.mark.parametrize("kind", [{}, {"per_cluster": 8}, {"sector": 4096}, {"wide": False}], ids=str)
@pytest.mark.parametrize("length", [len(TEXT["A"]), 512])
def test_the_default_is_read_and_changed_by_one_sector(tmp_path: Path, kind: dict[str, int], length: int) -> None:
    path = tmp_path / "p1"
    chosen = selector(path, TEXT["A"].ljust(length, b"\n"), **kind)
    before = path.read_bytes()
    assert chosen.read() == "A"
    chosen.write("B")
    assert chosen.read() == "B"
    size = kind.get("sector", 512)
    after = path.read_bytes()
    changed = {at // size for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    assert len(changed) == 1
    assert after[changed.pop() * size :][:size] == TEXT["B"].ljust(size, b"\n")


def test_nothing_is_written_where_it_is_the_default_already(tmp_path: Path) -> None:
    chosen = selector(tmp_path / "p1")
    power = Power(tmp_path / "p1")
    with power.on(0):
        chosen.write("A")
    assert not power.went


@pytest.mark.parametrize("hold", HOLDS)
def test_a_power_cut_leaves_one_of_the_two(tmp_path: Path, hold: Hold) -> None:
    path = tmp_path / "p1"
    seen = []
    for writes in range(5):
        chosen = selector(path)
        power = Power(path)
        with power.on(writes, hold):
            chosen.write("B")
        seen.append((power.went, chosen.read()))
    after_the_write = "B" if hold == "everything" else "A"
    assert seen == [(True, "A"), (True, after_the_write), (False, "B"), (False, "B"), (False, "B")]


@pytest.mark.parametrize("content", [
    b"", b"boot_partition=2\n", TEXT["A"] + b"# mine\n", TEXT["A"].replace(b"\n", b"\r\n"), TEXT["A"][:-1] + b"\0",
    TEXT["A"].replace(b"boot_partition=2", b"boot_partition=3"), b"\xff" * 400, TEXT["A"].ljust(600, b"\n"),
])
def test_what_somebody_else_wrote_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p1"
    chosen = selector(path, content)
    before = path.read_bytes()
    with pytest.raises(SelectorError, match=r"autoboot\.txt on .*p1 is '.*, which this system did not write: nothing"):
        chosen.read()
    with pytest.raises(SelectorError, match=r"nothing is changed\. Make it"):
        chosen.write("B")
    assert path.read_bytes() == before


def test_a_missing_file_or_partition_is_named(tmp_path: Path) -> None:
    write_fat(tmp_path / "p1", {"config.txt": b""})
    with pytest.raises(SelectorError, match=r"autoboot\.txt is missing on .*p1: no slot can be chosen"):
        Selector(tmp_path / "p1").read()
    (tmp_path / "zeros").write_bytes(bytes(4096))
    with pytest.raises(FatError, match="holds no FAT file system"):
        Selector(tmp_path / "zeros").read()
    with pytest.raises(DeviceError, match="cannot be opened"):
        Selector(tmp_path / "none").write("A")
