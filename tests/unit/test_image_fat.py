"""Files of a FAT partition without a mount: found by every name, read over every chain, overwritten where they lie."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecall_image.device import Device, DeviceError
from edgecall_image.errors import ImageError
from edgecall_image.fat import FatError, Volume
from tests.support.fat_images import write_fat

FILES = {
    "autoboot.txt": b"[all]\n",
    "edgecall.toml": b"name = 'lobby'\n" * 300,
    "edgecall-result.txt": b"\n" * 4_096,
    "bootcode.bin": bytes(range(256)) * 20,
    "empty.txt": b"",
}
KINDS = pytest.mark.parametrize("kind", [
    {}, {"wide": False}, {"scattered": True}, {"per_cluster": 4}, {"sector": 4096}, {"wide": False, "scattered": True},
], ids=str)


def content_of(path: Path, name: str) -> bytes | None:
    with Device(path) as device:
        volume = Volume(device)
        file = volume.find(name)
        return None if file is None else volume.read(file)


@KINDS
def test_files_are_found_and_read(tmp_path: Path, kind: dict[str, int]) -> None:
    path = tmp_path / "p1"
    write_fat(path, FILES, **kind)
    assert {name: content_of(path, name) for name in FILES} == FILES
    assert content_of(path, "EDGECALL.Toml") == FILES["edgecall.toml"], "names have no case there"
    assert content_of(path, "edgeca~1.tom") == FILES["edgecall.toml"]
    assert content_of(path, "edgecall") is None
    assert content_of(path, "") is None


@KINDS
def test_a_file_is_overwritten_in_place_and_nothing_else_is(tmp_path: Path, kind: dict[str, int]) -> None:
    path = tmp_path / "p1"
    write_fat(path, FILES, **kind)
    before = path.read_bytes()
    with Device(path, writable=True) as device:
        volume = Volume(device)
        file = volume.find("edgecall-result.txt")
        assert file is not None
        volume.overwrite(file, b"all is well\n")
    assert content_of(path, "edgecall-result.txt") == b"all is well\n".ljust(4_096, b"\n")
    after = path.read_bytes()
    own = {at for offset in file.sectors for at in range(offset, offset + file.sector_size)}
    assert {at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new} <= own
    assert {name: content_of(path, name) for name in FILES if name != "edgecall-result.txt"} == {
        name: content for name, content in FILES.items() if name != "edgecall-result.txt"}


def test_what_lay_behind_the_end_of_a_file_is_overwritten_too(tmp_path: Path) -> None:
    path = tmp_path / "p1"
    write_fat(path, {"edgecall.toml": b"x" * 300}, per_cluster=4)
    image = bytearray(path.read_bytes())
    with Device(path) as device:
        file = Volume(device).find("edgecall.toml")
    assert file is not None and len(file.sectors) == 4
    image[file.sectors[3] : file.sectors[3] + 6] = b"secret"
    path.write_bytes(image)
    with Device(path, writable=True) as device:
        Volume(device).overwrite(file, b"", b"\0")
    assert b"secret" not in path.read_bytes()
    assert content_of(path, "edgecall.toml") == bytes(300)


def test_more_than_a_file_has_room_for_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "p1"
    write_fat(path, FILES)
    before = path.read_bytes()
    with Device(path, writable=True) as device:
        volume = Volume(device)
        file = volume.find("autoboot.txt")
        assert file is not None
        with pytest.raises(FatError, match=r"autoboot\.txt on .*p1 has room for 6 bytes, not for 7"):
            volume.overwrite(file, b"1234567")
    assert path.read_bytes() == before


def test_a_long_name_that_belongs_to_another_entry_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "p1"
    write_fat(path, {"edgecall.toml": b"x"})
    image = path.read_bytes()
    assert image.count(b"EDGECA~0TOM") == 1
    path.write_bytes(image.replace(b"EDGECA~0TOM", b"OTHER   TXT"))  # renamed by a system that knows short names only
    assert content_of(path, "edgecall.toml") is None
    assert content_of(path, "other.txt") == b"x"


def test_removed_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "p1"
    write_fat(path, {"GONE.TXT": b"x", "THERE.TXT": b"y", "FOLDER.TXT": b"z"})
    image = path.read_bytes().replace(b"GONE    TXT", b"\xe5ONE    TXT").replace(b"FOLDER  TXT\x20", b"FOLDER  TXT\x10")
    path.write_bytes(image)
    assert content_of(path, "gone.txt") is None
    assert content_of(path, "there.txt") == b"y"
    with pytest.raises(FatError, match=r"folder\.txt on .* is a folder"):
        content_of(path, "folder.txt")


@pytest.mark.parametrize(("at", "raw", "said"), [
    (510, b"\0\0", "holds no FAT file system"),
    (11, b"\0\0", "holds no FAT file system"),
    (13, b"\0", "holds no FAT file system"),
    (36, b"\0\0\0\0", "holds no FAT file system"),
    (44, b"\0\0\0\0", "leads astray"),  # where the root folder begins
])
def test_a_damaged_boot_sector_is_named(tmp_path: Path, at: int, raw: bytes, said: str) -> None:
    path = tmp_path / "p1"
    write_fat(path, FILES)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(raw)
    with pytest.raises(FatError, match=said):
        content_of(path, "autoboot.txt")


@pytest.mark.parametrize(("follows", "said"), [
    (0, "leads astray"), (0x0FFFFFF7, "leads astray"), (10, "leads astray"), (1_000_000, "leads astray"),
    (0x0FFFFFFF, "shorter than its 4500 bytes"),
])
def test_a_damaged_chain_is_named(tmp_path: Path, follows: int, said: str) -> None:
    path = tmp_path / "p1"
    write_fat(path, {"edgecall.toml": b"x" * 4_500})  # clusters 10 to 18
    with path.open("r+b") as file:
        file.seek(32 * 512 + 11 * 4)
        file.write(struct.pack("<I", follows))
    with pytest.raises(FatError, match=said):
        content_of(path, "edgecall.toml")


def test_fat12_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p1"
    write_fat(path, FILES, wide=False)
    with path.open("r+b") as file:
        file.seek(32)
        file.write(struct.pack("<I", 4_000))
    with pytest.raises(FatError, match="is FAT12, or damaged"):
        content_of(path, "autoboot.txt")


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 24_000), st.binary(min_size=1, max_size=8)), max_size=8))
def test_whatever_the_damage_it_is_told_or_harmless(tmp_path_factory: pytest.TempPathFactory,
                                                    changes: list[tuple[int, bytes]]) -> None:
    path = tmp_path_factory.mktemp("fat") / "p1"
    write_fat(path, {"edgecall.toml": b"x" * 4_500})
    with path.open("r+b") as file:
        for at, raw in changes:
            file.seek(at)
            file.write(raw)
    try:
        content = content_of(path, "edgecall.toml")
    except ImageError as error:
        assert str(path) in str(error)
    else:
        assert content is None or isinstance(content, bytes)


def test_a_partition_that_is_missing_or_ends_early_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="p1 cannot be opened: No such file"):
        content_of(tmp_path / "p1", "autoboot.txt")
    (tmp_path / "p1").write_bytes(b"x" * 100)
    with pytest.raises(DeviceError, match="p1 ends within the 512 bytes at 0"):
        content_of(tmp_path / "p1", "autoboot.txt")
