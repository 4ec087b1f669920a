"""What RAUC is told of a flashed card: the hashes of what was flashed, as it keeps them, and nothing that is not so."""

from __future__ import annotations

import configparser
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgecall_build import flashed as build
from edgecall_image import flashed
from edgecall_image.errors import ImageError
from edgecall_image.flashed import CHUNK, FACTS_FILE, INDEX_FILE, FlashedError, Place, lay
from tests.support.fat_images import write_fat
from tests.support.overlay import UNITS, links

ROOT = Path(__file__).parents[2]
CONTENT = b"".join(bytes([number]) * CHUNK for number in (0, 7, 0, 9))
ZERO = hashlib.sha256(bytes(CHUNK)).hexdigest()


class Flashed:
    """A card as it was written, before its first update; ``files``: on slot A's boot partition."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "out").mkdir()
        root = folder / "root.ext4"
        root.write_bytes(CONTENT)
        assert build.main(["hash", str(root), str(folder / "out"), "--compatible=edgecall-uml-amd64",
                           "--version=1.2.0"]) == 0
        self.files = {name: (folder / "out" / name).read_bytes() for name in (FACTS_FILE, INDEX_FILE)}
        self.place = Place({"A": root, "B": folder / "p6"}, {"A": folder / "p2", "B": folder / "p3"}, folder / "rauc",
                           folder / "version")
        self.place.version.write_text("1.2.0\n")
        for empty in (self.place.roots["B"], self.place.boots["B"]):
            empty.write_bytes(bytes(2 * CHUNK))
        self.place.rauc.mkdir()
        self.write()

    def write(self) -> None:
        write_fat(self.place.boots["A"], {"cmdline.txt": b"rauc.slot=A\n", **self.files})

    def facts(self, **changed: Any) -> None:
        self.files[FACTS_FILE] = json.dumps(json.loads(self.files[FACTS_FILE]) | changed).encode()
        self.write()

    def status(self) -> dict[str, dict[str, str]]:
        """As RAUC reads it."""
        told = configparser.RawConfigParser(delimiters=("=",))
        told.read(self.place.rauc / "central.raucs")
        return {name: dict(told[name]) for name in told.sections()}

    def index(self, name: str) -> bytes:
        return (self.place.rauc / name / f"hash-{self.status()[name]['sha256']}" / "block-hash-index").read_bytes()


@pytest.fixture
def card(tmp_path: Path) -> Flashed:
    return Flashed(tmp_path / "card")


def test_rauc_is_told_what_it_would_have_found(card: Flashed) -> None:
    assert lay("A", card.place)
    whole = hashlib.sha256(CONTENT).hexdigest()
    assert card.status() == {
        "slot.rootfs.0": {"bundle.compatible": "edgecall-uml-amd64", "bundle.version": "1.2.0", "status": "ok",
                          "sha256": whole, "size": str(len(CONTENT))},
        "slot.rootfs.1": {"sha256": ZERO, "size": str(CHUNK)}, "slot.boot.1": {"sha256": ZERO, "size": str(CHUNK)}}
    assert card.index("slot.rootfs.0") == b"".join(
        hashlib.sha256(CONTENT[at : at + CHUNK]).digest() for at in range(0, len(CONTENT), CHUNK))
    for empty in ("slot.rootfs.1", "slot.boot.1"):
        assert card.index(empty).hex() == ZERO


def test_what_rauc_knows_itself_is_left_alone(card: Flashed) -> None:
    (card.place.rauc / "central.raucs").write_text("[system]\nboot-id=x\n")
    assert not lay("A", card.place)
    assert card.status() == {"system": {"boot-id": "x"}}


def test_a_system_that_came_by_an_update_has_nothing_to_tell(card: Flashed) -> None:
    card.files = {}
    card.write()
    assert not lay("A", card.place)
    write_fat(card.place.boots["B"], {"cmdline.txt": b"rauc.slot=B\n"})
    assert not lay("B", card.place)
    assert list(card.place.rauc.iterdir()) == []


def test_a_slot_that_was_written_since_is_not_called_empty(card: Flashed) -> None:
    """As after a factory reset that came after an update."""
    card.place.roots["B"].write_bytes(bytes(1024) + b"superblock".ljust(CHUNK))
    write_fat(card.place.boots["B"], {"cmdline.txt": b"rauc.slot=B\n"})
    assert lay("A", card.place)
    assert set(card.status()) == {"slot.rootfs.0"}


def test_facts_of_another_system_are_not_told(card: Flashed) -> None:
    card.place.version.write_text("1.3.0\n")
    with pytest.raises(FlashedError, match="not what runs"):
        lay("A", card.place)
    assert list(card.place.rauc.iterdir()) == []


@pytest.mark.parametrize("changed", [
    {"sha256": "../../x"}, {"sha256": "0" * 63}, {"version": "1.2.0\nstatus=ok"}, {"compatible": "[x]"}, {"size": 4097},
    {"size": "16384"}, {"size": 0}, {"size": True}, {"size": 1 << 40}, {"version": None}, {"more": 1},
    {"size": 2 * len(CONTENT)}])
def test_what_is_not_understood_is_not_told(card: Flashed, changed: dict[str, Any]) -> None:
    card.facts(**changed)
    with pytest.raises(FlashedError):
        lay("A", card.place)
    assert list(card.place.rauc.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b"[" * 3000, b" " * 5000])
def test_no_file_of_facts_crashes_it(card: Flashed, content: bytes) -> None:
    card.files[FACTS_FILE] = content
    card.write()
    with pytest.raises(FlashedError):
        lay("A", card.place)


def test_a_card_that_cannot_be_read_leaves_it_to_rauc(
        card: Flashed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Booted:
        def booted(self) -> str:
            return "A"

    monkeypatch.setattr(flashed, "Slots", Booted)
    monkeypatch.setattr(flashed, "Place", lambda: card.place)
    assert flashed.main(["now"]) == 2
    card.place.boots["B"].unlink()
    assert flashed.main([]) == 1
    assert "RAUC has to hash the slots by itself" in capsys.readouterr().err
    assert not card.place.status.exists()
    card.place.boots["B"].write_bytes(bytes(CHUNK))
    assert flashed.main([]) == 0
    assert "told of the system that was flashed" in capsys.readouterr().err
    assert flashed.main([]) == 0
    assert capsys.readouterr().err == ""


def test_boot_files_that_lie_elsewhere_than_in_a_bundle_are_found_at_the_build(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [bytes([number, more]) * (CHUNK // 2) for number in range(1, 6) for more in range(20)]
    bundled, card = tmp_path / "boot.vfat", tmp_path / "boot_a.vfat"
    bundled.write_bytes(b"".join(blocks) + bytes(9 * CHUNK))
    card.write_bytes(b"".join(blocks[::-1]) + b"behind it")
    assert build.main(["check", str(bundled), str(card)]) == 0
    card.write_bytes(b"shifted" + b"".join(blocks))
    assert build.main(["check", str(bundled), str(card)]) == 1
    assert f"100 blocks of {bundled} are not in" in capsys.readouterr().err


def test_a_root_of_broken_blocks_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"x")
    with pytest.raises(ImageError):
        build.write(tmp_path / "root", tmp_path, "edgecall-uml-amd64", "1.2.0")
    assert not (tmp_path / FACTS_FILE).exists()


def test_it_is_done_before_rauc_runs_and_where_rauc_looks() -> None:
    assert links()["rauc.service.wants/edgecall-flashed.service"] == "../edgecall-flashed.service"
    unit = (UNITS / "edgecall-flashed.service").read_text()
    assert "Before=rauc.service\n" in unit
    assert f"ConditionPathExists=!{Place().status}\n" in unit
    conf = (ROOT / "image" / "rauc" / "system.conf.in").read_text()
    assert f"data-directory={Place().rauc}\n" in conf
    for name in ("rootfs", "boot"):
        for number, slot in enumerate("AB"):
            devices = Place().roots if name == "rootfs" else Place().boots
            assert f"[slot.{name}.{number}]\ndevice={devices[slot]}\n" in conf  # type: ignore[index]
