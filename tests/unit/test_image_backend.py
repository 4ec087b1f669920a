"""The backend as RAUC calls it: a program with words, which answers in one word and by its exit status."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgecall_image import backend
from tests.support.slot_card import Card

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "image" / "overlay" / "common" / "usr" / "lib" / "edgecall-image"


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def test_an_update_as_rauc_goes_about_it(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(words: str) -> str:
        assert backend.main(words.split(), card.place) == 0
        return capsys.readouterr().out

    assert [asked("get-current"), asked("get-primary"), asked("get-state A"), asked("get-state B")] == [
        "A\n", "A\n", "good\n", "good\n"]
    assert asked("set-state B bad") == ""  # before it writes
    assert [asked("get-state B"), asked("get-primary")] == ["bad\n", "A\n"]
    assert asked("set-primary B") == ""  # when all is written
    assert [asked("get-state B"), asked("get-primary"), asked("get-current")] == ["good\n", "B\n", "A\n"]
    card.slots.ask()  # the update service's part
    assert card.reboot() == "B"
    card.slots.settle()
    assert [asked("get-current"), asked("get-primary")] == ["B\n", "B\n"]
    assert asked("set-state B good") == ""
    assert [card.power_cycle(), asked("get-primary"), card.slots.settle()] == ["B", "B\n", "nothing"]


@pytest.mark.parametrize("words", [
    "", "get-primary B", "get-state", "get-state C", "set-primary", "set-primary a", "set-state B", "set-state B ugly",
    "set-state good B", "get-current A", "--help",
])
def test_what_is_not_understood_changes_nothing(card: Card, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert backend.main(words.split(), card.place) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{words or 'nothing'} is not understood; usage: backend get-primary | ")
    assert (card.marks(), card.requested) == (set(), False)


def test_what_cannot_be_done_is_told(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card.place.selector.unlink()
    assert backend.main(["set-primary", "B"], card.place) == 1
    assert capsys.readouterr().err == (
        f"backend set-primary B: {card.place.selector} cannot be opened: No such file or directory\n")
    card.place.command_line.unlink()
    assert backend.main(["get-current"], card.place) == 1
    assert "No such file" in capsys.readouterr().err


def test_data_that_takes_no_marks_fails_the_call(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card.place.marks.rmdir()
    card.place.marks.write_text("")
    assert backend.main(["set-state", "B", "bad"], card.place) == 1
    assert str(card.place.marks) in capsys.readouterr().err
    assert not card.requested


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """As it lies in an image."""
    folder = tmp_path / "edgecall-image"
    shutil.copytree(OVERLAY, folder)
    shutil.copytree(ROOT / "image" / "edgecall_image", folder / "edgecall_image",
                    ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_program_that_rauc_starts_needs_nothing_of_its_environment(installed: Path) -> None:
    result = subprocess.run([installed / "backend", "what"], env={"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"},
                            cwd="/", capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("what is not understood; usage: backend ")


@pytest.mark.parametrize("words", [[], ["../backend"], ["os.path"]])
def test_only_modules_of_the_image_are_run(installed: Path, words: list[str]) -> None:
    result = subprocess.run([installed / "run", *words], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "usage: run MODULE ARGUMENTS\n")
