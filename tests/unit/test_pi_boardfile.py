"""Board files: chosen by the model, checked whole, every fault in words; and the board that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hw.api import BoardOptions, HardwareError
from hw.boards import open_board
from hw.pi.boardfile import FOLDERS, BoardFile, BoardFileError, board_files, find_board_file, load_board_file


@dataclass(frozen=True)
class Shape:
    names: tuple[str, ...] = ("a",)
    pins: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 1.0
    loud: bool = False

    def __post_init__(self) -> None:
        if self.seconds > 10:
            raise ValueError(f"seconds: {self.seconds:g} is above 10")


def test_a_part_is_read_by_its_types() -> None:
    table = {"names": ["x", "y"], "pins": {"call": 17}, "seconds": 2, "loud": True}
    file = BoardFile("b.toml", tables={"audio": table})
    assert file.part("audio", Shape) == Shape(("x", "y"), {"call": 17}, 2.0, True)
    assert file.part("camera", Shape) == Shape()


@pytest.mark.parametrize(("table", "words"), [
    ({"seconds": "2"}, r"\[audio\] seconds: must be a number, not '2'"),
    ({"loud": 1}, "loud: must be true or false, not 1"),
    ({"names": "x"}, "names: must be a list of a text in quotes"),
    ({"names": [3, "x", 4.5]}, "names: number 1 must be a text in quotes, not 3; number 3 must be .*, not 4.5"),
    ({"pins": [3]}, "pins: must be a table"),
    ({"pins": {"call": True, "bell": "9"}}, "pins: call must be a whole number, not True; bell must be .*, not '9'"),
    ({"second": 2.0}, "second: there is no such key; did you mean seconds"),
    ({"zzz": 2.0}, "zzz: there is no such key; there are names, pins, seconds, loud"),
    ({"seconds": 11}, r"\[audio\] seconds: 11 is above 10"),
    ({"zzz": 1, "loud": 1}, r"(?s)zzz.*\n.*loud"),
    ({"loud": 1, "seconds": 11}, r"loud: .*\n.*seconds: 11 is above 10"),
])
def test_every_fault_of_a_part_is_told_in_words(table: Mapping[str, object], words: str) -> None:
    with pytest.raises(BoardFileError, match=words) as refused:
        BoardFile("b.toml", tables={"audio": table}).part("audio", Shape)
    assert all(line.startswith("board file b.toml: ") for line in str(refused.value).splitlines())


@pytest.mark.parametrize(("text", "words"), [
    ("title = ", "b.toml"), ("title = 3", "title: must be a text"), ('models = "x"', "models: must be a list"),
    ("[audoi]", r"no part 'audoi'; did you mean \[audio\]\?"), ("[zzz]", "no part 'zzz'; there are audio, camera"),
    ("audio = 3", r"audio: must be a table, begun by \[audio\]"), ("title = 3\n[zzz]", "title: .*\nboard file .*'zzz'"),
    (b"\xff", "b.toml"),
])
def test_a_broken_file_is_told_in_words(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = tmp_path / "b.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BoardFileError, match=words):
        load_board_file(path)


def test_the_longest_beginning_of_the_model_wins_and_the_site_before_the_package(tmp_path: Path) -> None:
    site, package = tmp_path / "site", tmp_path / "package"
    for folder, name, models in (
        (package, "pi-4", ["Raspberry Pi 4"]), (package, "pi-4b", ["Raspberry Pi 4 Model B", "Other"]),
        (package, "generic", []), (site, "pi-4b", ["Raspberry Pi 4 Model B"]),
    ):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(f"title = '{folder.name} {name}'\nmodels = {models}\n")
    folders = (site, package)
    assert list(board_files(folders)) == ["pi-4b", "generic", "pi-4"]
    assert find_board_file("", "Raspberry Pi 4 Model B Rev 1.5", folders).title == "site pi-4b"
    assert find_board_file("", "Raspberry Pi 400 Rev 1.0", folders).title == "package pi-4"
    assert find_board_file("", "Laptop", folders).title == "package generic"
    assert find_board_file("pi-4", "Laptop", folders).title == "package pi-4"
    assert find_board_file(str(package / "pi-4b.toml"), "", folders).title == "package pi-4b"
    with pytest.raises(BoardFileError, match="no board file 'pi-9'; there are generic, pi-4, pi-4b"):
        find_board_file("pi-9", "", folders)
    for nowhere in ("/nowhere/x.toml", "nowhere.toml"):
        with pytest.raises(BoardFileError, match="not there; edgecall doctor --help"):
            find_board_file(nowhere, "", folders)
    assert find_board_file("", "Laptop", ()).tables == {}


@pytest.mark.parametrize("path", sorted(FOLDERS[-1].glob("*.toml")), ids=lambda path: path.stem)
def test_every_board_file_of_ours_opens_a_board(path: Path) -> None:
    board = open_board("pi", BoardOptions(file=str(path)))
    try:
        assert board.facts()["boardFile"] == str(path)
        assert board.simulation is None
        assert all(fact.note for fact in board.devices() if not fact.present)
    finally:
        board.close()


def test_the_faults_of_all_parts_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text('[audio]\nloud = 1\nlatency_ms = 3\nvolume = 101\n[camera]\nmasks = ["0 0"]\n[display]\n'
                    'rotation = 1\n[panel]\nchip = "x"\nbuttons = { call = "17", mute = "17" }\n'
                    'lamps = { call = "5 x" }\n')
    with pytest.raises(BoardFileError) as refused:
        open_board("pi", BoardOptions(file=str(path)))
    lines = str(refused.value).splitlines()
    assert [line.removeprefix(f"board file {path}: ").split(":")[0] for line in lines] == [
        "[audio] loud", "[audio] latency_ms", "[camera] masks", "[display] rotation", "[panel] lamps.call = '5 x'"]
    assert "volume: 101" in lines[1]
    assert "line 17 is given twice" in lines[4]


def test_a_wrong_head_hides_no_fault_of_the_parts(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text('title = 3\nmodels = ["Pi", 4]\naudio = 3\n[camra]\nzoom = "1"\n[camera]\nrotation = 7\n'
                    'zoom = "1"\n[display]\ndriver = "fb"\n[panel]\nchip = "x"\nbuttons = { call = 17, "a b" = "x" }\n')
    with pytest.raises(BoardFileError) as refused:
        open_board("pi", BoardOptions(file=str(path)))
    lines = [line.removeprefix(f"board file {path}: ") for line in str(refused.value).splitlines()]
    assert lines[:4] == ["title: must be a text in quotes, not 3", "models: number 2 must be a text in quotes, not 4",
                         "audio: must be a table, begun by [audio]", "there is no part 'camra'; did you mean [camera]?"]
    assert [line.split(":")[0] for line in lines[4:]] == [
        "[camera] rotation", "[display] driver", "[panel] buttons", "[panel] buttons.a b = 'x'"]
    assert "zoom: '1' is not LEFT TOP" in lines[4]


@pytest.mark.parametrize("head", ["", "title = 3\n"])
def test_a_line_that_mutes_nothing_is_told_beside_the_rest(tmp_path: Path, head: str) -> None:
    path = tmp_path / "b.toml"
    path.write_text(f'{head}[audio]\nmute_input = "quite"\nvolume = 101\n[panel]\nchip = "x"\n'
                    'inputs = { quiet = "25 loud soft" }\n')
    with pytest.raises(BoardFileError) as refused:
        open_board("pi", BoardOptions(file=str(path)))
    lines = [line.removeprefix(f"board file {path}: ") for line in str(refused.value).splitlines()]
    assert [line.split(":")[0] for line in lines] == [
        *(["title"] if head else []), "[audio] volume", "[panel] inputs.quiet = '25 loud soft'", "[audio] mute_input"]
    assert "'loud', 'soft' are none of high, low" in lines[-2]


def test_a_line_that_mutes_must_be_an_input_of_the_panel(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    panel = '[panel]\nchip = "nowhere"\ninputs = { quiet = "25" }\n'
    path.write_text('[audio]\nmute_input = "quite"\n' + panel)
    with pytest.raises(BoardFileError, match="mute_input: the panel has no input 'quite'; there are: quiet"):
        open_board("pi", BoardOptions(file=str(path)))
    for audio in ('[audio]\nmute_input = "quiet"\n', '[audio]\nmute_input = ""\n', ""):
        path.write_text(audio + panel)
        open_board("pi", BoardOptions(file=str(path))).close()


def test_a_board_file_that_is_missing_is_told_and_nothing_is_left() -> None:
    with pytest.raises(HardwareError, match="no board file 'nope'"):
        open_board("pi", BoardOptions(file="nope"))
