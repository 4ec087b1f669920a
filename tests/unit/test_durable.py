"""Files that are replaced whole: what is there after a failure, who may read them, and two writers at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from appliance.durable import replace_file


def test_a_file_is_replaced_and_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "book.json"
    replace_file(path, b"one")
    path.chmod(0o666)
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_when_the_new_one_cannot_be_written_whole(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "book.json"
    replace_file(path, b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    replace_file(path, b"three")
    assert path.read_bytes() == b"three", "a draft that was left is no obstacle"


def test_a_draft_that_somebody_laid_down_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "book.json", tmp_path / "other"
    other.write_text("mine")
    (tmp_path / ".book.json.new").symlink_to(other)
    replace_file(path, b"one")
    assert (other.read_text(), path.read_bytes()) == ("mine", b"one")


def test_two_threads_leave_one_of_both(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    threads = [threading.Thread(target=replace_file, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
