"""A bad file never replaces good settings, across starts and power cuts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import SettingsError
from appliance.settings import Loaded, Settings, copy_name, lastgood, load_or_last_good
from appliance.settings.fields import setting
from appliance.settings.loading import Source

GOOD = '[device]\nid = "front-door"\n[call]\nring_s = 40\n'
BAD = '[device]\nid = "front-door"\n[call]\nring_s = 4000\nrung_s = 1\n'


class Place:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "etc" / "edgecall.toml"
        self.file.parent.mkdir()
        self.data = folder / "data"
        self.copy = self.data / copy_name()

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
    assert [path.name for path in place.data.iterdir()] == [copy_name()]  # nothing half written beside it

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
    assert synced == [str(place.data / f".{copy_name()}.new"), str(place.data)]


def test_no_file_at_all_forgets_the_copy(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    data = tmp_path / "data"
    data.mkdir()
    (data / copy_name()).write_text(GOOD)
    settings, faults = load_or_last_good(None, data, environ=environ)
    assert (settings.call.ring_s, faults) == (30, ())
    assert not (data / copy_name()).exists()


class Versions:
    """The same device under the version before, which knows no ``ring_s``, and this one."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self._place = place
        self._monkeypatch = monkeypatch

    def load(self, version: str) -> Loaded:
        with self._monkeypatch.context() as patched:
            if version != "this":
                real = lastgood.parse

                def parse(source: Source, **rest: Any) -> Settings:
                    if "ring_s" in (source.text or ""):
                        raise SettingsError(str(source.path), ["line 4: call.ring_s is no setting"])
                    return real(source, **rest)

                patched.setattr(lastgood, "parse", parse)
                patched.setattr(lastgood, "copy_name", lambda: f"settings.last-good.{version}.toml")
            return self._place.load()


def test_going_back_finds_what_that_version_took_for_good(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Versions(place, monkeypatch)
    place.file.write_text('[device]\nid = "front-door"\n')
    assert device.load("before").faults == ()
    assert device.load("this").faults == ()
    place.file.write_text(GOOD)  # with a setting that is new in this version
    assert device.load("this").settings.call.ring_s == 40
    settings, faults = device.load("before")
    assert settings.device.id == "front-door"
    assert faults == ("line 4: call.ring_s is no setting",)
    assert device.load("this") == Loaded(device.load("this").settings, ())  # forth again


def test_a_version_without_a_copy_takes_that_of_the_one_before(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Versions(place, monkeypatch)
    place.file.write_text('[device]\nid = "front-door"\n')
    device.load("before")
    place.file.write_text(BAD)
    assert device.load("this").settings.device.id == "front-door"


def test_the_copies_of_long_ago_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Versions(place, monkeypatch)
    place.file.write_text('[device]\nid = "front-door"\n')
    for age, version in ((30, "long-ago"), (20, "before")):
        device.load(version)
        kept = place.data / f"settings.last-good.{version}.toml"
        os.utime(kept, (1000 - age, 1000 - age))
    device.load("this")
    assert {path.name for path in place.data.iterdir()} == {"settings.last-good.before.toml", copy_name()}


def test_the_name_of_the_copy_follows_what_settings_there_are() -> None:
    @dataclass(frozen=True)
    class Section:
        one: int = setting(1, "One.", minimum=0, maximum=9)

    @dataclass(frozen=True)
    class Wider:
        one: int = setting(1, "Another word for it.", minimum=0, maximum=10)

    @dataclass(frozen=True)
    class Reworded:
        one: int = setting(2, "Another word for it.", minimum=0, maximum=9)

    assert lastgood._known(Section) == lastgood._known(Reworded) != lastgood._known(Wider)
    assert lastgood._known(Settings)
