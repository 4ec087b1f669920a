"""File systems as the tools of everybody make them (mkfs.vfat, mtools), and what those tools say after ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgecall_image.device import Device
from edgecall_image.fat import Volume
from edgecall_image.selector import TEXT, Selector

RESULT = b"\n" * 16_384
FILES = {
    "bootcode.bin": bytes(range(256)) * 205,
    "autoboot.txt": TEXT["A"],
    "edgecall.toml": b"[system]\nhostname = 'lobby'\n" * 200,
    "edgecall-result.txt": RESULT,
    "A certificate of ours.pem": b"-----BEGIN CERTIFICATE-----\n" * 40,
    "empty.txt": b"",
}


def run(*command: object) -> bytes:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True).stdout


@pytest.fixture(params=["-F 32 -s 1", "-F 16 -s 4", "-F 16 -s 1 -S 4096"])
def partition(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """With some of the files in pieces: between others that were removed."""
    path, source = tmp_path / "p1", tmp_path / "source"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    run("mkfs.vfat", *request.param.split(), "-n", "EDGECALL", path)
    (tmp_path / "filler").write_bytes(b"old secret " * 900)
    for number in range(20):
        run("mcopy", "-i", path, tmp_path / "filler", f"::filler-{number}.bin")
    for number in range(0, 20, 2):
        run("mdel", "-i", path, f"::filler-{number}.bin")
    source.mkdir()
    for name, content in FILES.items():
        (source / name).write_bytes(content)
        run("mcopy", "-i", path, source / name, "::")
    return path


def checked(path: Path) -> None:
    run("fsck.vfat", "-n", path)


def test_files_that_others_wrote_are_read(partition: Path) -> None:
    with Device(partition) as device:
        volume = Volume(device)
        found = {name: volume.find(name) for name in FILES}
        assert {name: file and volume.read(file) for name, file in found.items()} == FILES
        assert volume.find("filler-0.bin") is None


def test_what_is_overwritten_is_what_others_read(partition: Path) -> None:
    checked(partition)
    text = b"all is well\n" * 1_000
    before = partition.read_bytes()
    with Device(partition, writable=True) as device:
        volume = Volume(device)
        file = volume.find("edgecall-result.txt")
        assert file is not None
        volume.overwrite(file, text)
    checked(partition)
    assert run("mtype", "-i", partition, "::edgecall-result.txt") == text.ljust(len(RESULT), b"\n")
    after = partition.read_bytes()
    sectors = {at // file.sector_size * file.sector_size
               for at in range(0, len(before), 512) if before[at : at + 512] != after[at : at + 512]}
    assert sectors <= set(file.sectors)


def test_the_default_is_chosen_in_the_one_sector_that_others_find(partition: Path) -> None:
    selector = Selector(partition)
    assert selector.read() == "A"
    for slot in ("B", "A"):
        selector.write(slot)
        checked(partition)
        assert run("mtype", "-i", partition, "::autoboot.txt") == TEXT[slot]
        assert selector.read() == slot
