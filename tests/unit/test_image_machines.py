"""Where a guest of the image's tests has its memory, by what the machine under it has."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.image.machines import MEMORY_MIB, memory_folder

GUESTS = 4
ROOMY = (GUESTS * MEMORY_MIB + 1) << 20


@pytest.mark.parametrize(("free", "flags", "taken"), [
    (ROOMY, os.ST_NOSUID | os.ST_NODEV, True),
    (64 << 20, 0, False),
    (ROOMY, os.ST_NOEXEC, False),
], ids=["a machine's", "a container's", "nothing runs there"])
def test_memory_is_shared_where_that_has_room_and_runs_programs(
    free: int, flags: int, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = os.statvfs_result((4096, 4096, free // 4096, free // 4096, free // 4096, 0, 0, 0, flags, 255))
    monkeypatch.setattr(os, "statvfs", {tmp_path: found}.__getitem__)
    assert memory_folder(tmp_path) == (str(tmp_path) if taken else tempfile.gettempdir())


def test_a_machine_without_it_has_its_folder_for_temporary_files(tmp_path: Path) -> None:
    assert memory_folder(tmp_path / "none") == tempfile.gettempdir()
