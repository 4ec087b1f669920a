"""The firmware's stand-in (``tests/image``) on small cards: real FAT file systems, made and filled by others' tools."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.image.firmware import Card, Choice, Firmware, Partition, Unbootable

MIB = 1 << 20
SELECTOR = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"


def _entry(kind: int, start: int, size: int) -> bytes:
    return struct.pack("<4xB3xII", kind, start // 512, size // 512)


def _table(*entries: bytes) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def _fat(path: Path, size: int, kind: str = "32") -> bytes:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    tool = shutil.which("mkfs.vfat", path="/usr/sbin:/sbin:/usr/bin")
    assert tool, "dosfstools is missing: scripts/test installs it"
    subprocess.run([tool, "-F", kind, "-s", "1", path], check=True, stdout=subprocess.DEVNULL)
    return path.read_bytes()


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card as an image's: selector, two boot slots, and in the extended partition two more."""
    folder = tmp_path_factory.mktemp("card")
    path = folder / "card.img"
    table = _table(_entry(0x0C, MIB, 40 * MIB), _entry(0x0C, 41 * MIB, 40 * MIB), _entry(0x0C, 81 * MIB, 40 * MIB),
                   _entry(0x05, 121 * MIB, 20 * MIB))
    fat = _fat(folder / "fat", 40 * MIB)
    with path.open("wb") as file:
        file.write(table)
        for start in (1, 41, 81):
            file.seek(start * MIB)
            file.write(fat)
        for start, following in ((121, 10), (131, 0)):
            file.seek(start * MIB)
            more = _entry(0x05, following * MIB, 10 * MIB) if following else b""
            file.write(_table(_entry(0x83, MIB, 8 * MIB), more))
        file.truncate(141 * MIB)
    card = Card(path)
    card.put(1, "autoboot.txt", SELECTOR)
    card.put(2, "cmdline.txt", b"root=PARTUUID=edca1101-05 rauc.slot=A\nnobody reads this\n")
    card.put(3, "cmdline.txt", b"root=PARTUUID=edca1101-06 rauc.slot=B\n")
    return path


@pytest.fixture
def card(blank: Path, tmp_path: Path) -> Card:
    subprocess.run(["cp", "--sparse=always", blank, tmp_path / "card.img"], check=True)
    return Card(tmp_path / "card.img")


A = Choice(2, False, "root=PARTUUID=edca1101-05 rauc.slot=A")
B = Choice(3, True, "root=PARTUUID=edca1101-06 rauc.slot=B")


def test_partitions_are_counted_as_linux_does(card: Card) -> None:
    assert card.partitions() == {
        1: Partition(0x0C, MIB, 40 * MIB), 2: Partition(0x0C, 41 * MIB, 40 * MIB),
        3: Partition(0x0C, 81 * MIB, 40 * MIB), 4: Partition(0x05, 121 * MIB, 20 * MIB),
        5: Partition(0x83, 122 * MIB, 8 * MIB), 6: Partition(0x83, 132 * MIB, 8 * MIB)}


def test_a_trial_is_once(card: Card) -> None:
    firmware = Firmware(card)
    assert firmware.choose() == A
    assert firmware.heard("[   12.3] reboot: Restarting system with command '0 tryboot'")
    assert firmware.choose() == B
    assert firmware.choose() == A


@pytest.mark.parametrize("line", [
    "reboot: Restarting system", "reboot: Restarting system with command '3'",
    "reboot: Restarting system with command 'tryboot'"])
def test_another_restart_is_no_trial_and_takes_one_back(card: Card, line: str) -> None:
    firmware = Firmware(card)
    firmware.heard("reboot: Restarting system with command '0 tryboot'")
    assert firmware.heard(line)
    assert firmware.choose() == A


def test_a_power_cut_takes_the_trial(card: Card) -> None:
    firmware = Firmware(card)
    firmware.heard("reboot: Restarting system with command '0 tryboot'")
    firmware.power_lost()
    assert firmware.choose() == A


def test_other_words_of_the_kernel_are_no_restart(card: Card) -> None:
    firmware = Firmware(card)
    assert not firmware.heard("reboot: Power down")
    assert not firmware.heard("systemd[1]: Rebooting with argument '0 tryboot'.")
    assert firmware.choose() == A


def test_the_other_slot_as_default(card: Card) -> None:
    card.put(1, "autoboot.txt", SELECTOR.replace(b"2", b"x").replace(b"3", b"2").replace(b"x", b"3").ljust(512, b"\n"))
    firmware = Firmware(card)
    assert firmware.choose().partition == 3
    firmware.heard("reboot: Restarting system with command '0 tryboot'")
    assert firmware.choose() == Choice(2, True, A.cmdline)


@pytest.mark.parametrize(("text", "why"), [
    (SELECTOR.ljust(513, b"\n"), "513 bytes"), (b"", "no boot_partition"), (bytes(512), "no boot_partition"),
    (b"[all]\nboot_partition=1\n", "no cmdline.txt"), (b"[all]\nboot_partition=5\n", "partition 5 is no FAT"),
    (b"[all]\nboot_partition=9\n", "partition 9 is no FAT"), (b"[pi4]\nboot_partition=2\n", "no boot_partition"),
    (b"[all]\nboot_partition=two\n", "no boot_partition")])
def test_what_boots_nothing_is_refused(card: Card, text: bytes, why: str) -> None:
    card.put(1, "autoboot.txt", text)
    with pytest.raises(Unbootable, match=why):
        Firmware(card).choose()


def test_a_trial_needs_a_selector_for_it(card: Card) -> None:
    card.put(1, "autoboot.txt", SELECTOR.replace(b"tryboot_a_b=1\n", b""))
    firmware = Firmware(card)
    assert firmware.choose() == A
    firmware.heard("reboot: Restarting system with command '0 tryboot'")
    with pytest.raises(Unbootable, match="tryboot_a_b"):
        firmware.choose()


def test_without_a_selector_nothing_boots(card: Card) -> None:
    area = card.partitions()[1]
    subprocess.run(["mdel", "-i", f"{card.path}@@{area.start}", "::autoboot.txt"], check=True)
    with pytest.raises(Unbootable, match=r"no autoboot\.txt"):
        Firmware(card).choose()


def test_fat32_with_the_clusters_of_fat16_is_refused(card: Card, tmp_path: Path) -> None:
    with card.path.open("r+b") as file:
        file.write(_table(_entry(0x0C, MIB, 20 * MIB)))
        file.seek(MIB)
        file.write(_fat(tmp_path / "small", 20 * MIB))
    with pytest.raises(Unbootable, match=r"FAT32 with \d+ clusters"):
        Firmware(card).choose()


def test_an_extended_partition_of_the_other_kind_is_not_followed(card: Card) -> None:
    with card.path.open("r+b") as file:
        file.seek(446 + 3 * 16)
        file.write(_entry(0x0F, 121 * MIB, 20 * MIB))
    assert sorted(card.partitions()) == [1, 2, 3, 4]


def test_what_is_no_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(bytes(4096))
    with pytest.raises(Unbootable, match="no partition table"):
        Firmware(Card(tmp_path / "empty")).choose()
