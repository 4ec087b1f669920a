"""A bad file never replaces good settings, across starts and power cuts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.settings import LAST_GOOD, Loaded, load_or_last_good

GOOD = '[device]\nid = "front-door"\n[call]\nring_s = 40\n'
BAD = '[device]\nid = "front-door"\n[call]\nring_s = 4000\nrung_s = 1\n'


class Place:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "etc" / "edgecall.toml"
        self.file.parent.mkdir()
        self.data = folder / "data"
        self.copy = self.data / LAST_GOOD

    def load(self, overrides: Mapping[str, object] | None = None) -> Loaded:
        return load_or_last_good(self.file, self.data, overrides=overrides, environ={"HOME": "/nowhere"})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_good_file_is_kept_and_a_bad_one_falls_back_to_it(place: Place) -> None:
    place.file.write_text(GOOD)
    settings, faults = place.load()
    assert (settings.call.ring_s, faults) == (40, ())
    assert place.copy.read_text() == GOOD
    assert place.copy.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in place.data.iterdir()] == [LAST_GOOD]  # nothing half written beside it

    place.file.write_text(BAD)
    settings, faults = place.load()
    assert settings.call.ring_s == 40
    assert len(faults) == 2
    assert "Did you mean 'ring_s'?" in faults[0]
    assert place.copy.read_text() == GOOD

    place.file.unlink()  # a named file that vanished is a fault like any other
    settings, faults = place.load()
    assert (settings.call.ring_s, faults) == (40, ("there is no such file",))


def test_without_a_good_copy_a_bad_file_stops_the_start(place: Place) -> None:
    place.file.write_text(BAD)
    with pytest.raises(SettingsError) as caught:
        place.load()
    assert len(caught.value.faults) == 2
    assert caught.value.path == str(place.file)
    assert not place.copy.exists()


def test_a_copy_that_cannot_be_used_any_more_is_told_too(place: Place) -> None:
    secret = place.file.parent / "pw"
    secret.write_text("a-password")
    secret.chmod(0o600)
    place.file.write_text('[mqtt]\nusername = "a"\npassword_file = "./pw"\n')
    assert place.load().settings.mqtt.password.reveal() == "a-password"
    assert "a-password" not in place.copy.read_text()
    place.file.write_text(BAD)
    assert place.load().settings.mqtt.password.reveal() == "a-password"  # ./ counts from the file, not from its copy
    secret.unlink()
    with pytest.raises(SettingsError) as caught:
        place.load()
    assert any(f"the last good copy {place.copy} cannot be used either: mqtt.password_file" in fault
               for fault in caught.value.faults)
    place.copy.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        place.load()


def test_overrides_are_not_kept(place: Place) -> None:
    place.file.write_text(GOOD)
    assert place.load({"board.name": "auto"}).settings.board.name == "auto"
    assert place.load().settings.board.name == "sim"


def test_flash_is_spared_when_nothing_changed(place: Place) -> None:
    place.file.write_text(GOOD)
    place.load()
    before = place.copy.stat()
    place.load()
    assert place.copy.stat().st_ino == before.st_ino  # a rename would have made a new one


def test_a_power_cut_while_the_copy_is_written_leaves_the_old_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    place.file.write_text(GOOD)
    place.load()
    place.file.write_text(GOOD + "reconnect_s = 60\n")

    def cut(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", cut)
    assert place.load().settings.call.reconnect_s == 60  # good settings, though they could not be kept
    assert place.copy.read_text() == GOOD
    assert "the last good settings could not be kept" in caplog.text


def test_the_folder_is_synced_after_the_rename(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())), real(fd)))
    place.file.write_text(GOOD)
    place.load()
    assert synced == [str(place.data / f".{LAST_GOOD}.new"), str(place.data)]


def test_no_file_at_all_forgets_the_copy(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    data = tmp_path / "data"
    data.mkdir()
    (data / LAST_GOOD).write_text(GOOD)
    settings, faults = load_or_last_good(None, data, environ=environ)
    assert (settings.call.ring_s, faults) == (30, ())
    assert not (data / LAST_GOOD).exists()
