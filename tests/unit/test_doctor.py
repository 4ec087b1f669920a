"""``edgecall doctor``: what it says of a board, and that it does what is asked."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
from PIL import Image

from appliance.doors.cli import main as cli
from hw import doctor
from hw.api import BoardOptions, Health, Link
from hw.boards import open_board
from hw.pi.gpiochip import keeps_outputs


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SETTLE_S", 0.2)
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.5)
    monkeypatch.setattr(doctor, "BLINK_S", 0.05)


def test_it_plays_records_grabs_and_blinks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, picture = tmp_path / "heard.wav", tmp_path / "seen.jpg"
    assert doctor.main(["--board", "sim", "--play", "--record", str(record), "--seconds", "0.3", "--grab", str(picture),
                        "--blink"]) == 0
    said = capsys.readouterr().out
    for words in ("microphone   mic0", "in use, simulated", "camera       cam0", "played       660 Hz for 0.3 s",
                  "recorded ", "grabbed ", "lamp         call: lit"):
        assert words in said
    assert "!" not in said
    with wave.open(str(record)) as file:
        assert (file.getframerate(), file.getnchannels()) == (48_000, 1)
        assert any(file.readframes(48_000))
    with Image.open(picture) as shown:
        assert shown.width == 1280


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = "/dev/full"
    assert doctor.main(["--board", "sim", "--record", full, "--seconds", "0.2", "--grab", full]) == 1
    said = capsys.readouterr().out
    assert said.count("! /dev/full cannot be written: No space left on device\n") == 2
    assert "recorded" not in said
    assert "grabbed" not in said
    with pytest.raises(SystemExit):
        doctor.main(["--board", "sim", "--grab", str(tmp_path)])
    assert f"{tmp_path} is a folder: name a file" in capsys.readouterr().err


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 0)])
def test_it_is_ended_without_a_traceback_and_lets_the_board_go(
    end: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = open_board("sim", BoardOptions())
    closed: list[bool] = []
    close = board.close
    monkeypatch.setattr(board, "close", lambda: (closed.append(True), close()))
    monkeypatch.setattr(doctor, "open_board", lambda *_: board)
    monkeypatch.setattr(doctor.Doctor, "look", lambda _: (_ for _ in ()).throw(end))
    monkeypatch.setattr("os.dup2", lambda *_: None)  # what pytest captures with stays
    assert cli(["doctor", "--board", "sim"]) == code
    assert closed == [True]


def test_what_is_wrong_is_said_with_its_device(capsys: pytest.CaptureFixture[str]) -> None:
    board = open_board("sim", BoardOptions())
    try:
        assert board.simulation is not None
        board.simulation.fault("mic.osMute", active=True)
        board.simulation.fault("speaker.unplug", active=True)
        visit = doctor.Doctor(board)
        visit.look()
    finally:
        board.close()
    said = capsys.readouterr().out
    assert not visit.well
    assert "! microphone mic0 is muted in the mixer: the capture switch of the mixer is off" in said
    assert "! speaker spk0 is missing: the loudspeaker was unplugged" in said
    assert "speaker      spk0                 Simulated loudspeaker: not here, simulated" in said


def test_the_board_s_own_health_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    board = open_board("sim", BoardOptions())
    health = Health(temperature_c=84.6, throttled=True, undervoltage=True, storage_wear=0.3, supply="USB-C, 5 V, 3 A",
                    links=[Link("eth0", True, 1000), Link("wlan0", True, None, -61), Link("wlan1", False)])
    monkeypatch.setattr(board, "health", lambda: health)
    monkeypatch.setattr(doctor, "keeps_outputs", lambda: True)
    try:
        visit = doctor.Doctor(board)
        visit.look()
    finally:
        board.close()
    said = capsys.readouterr().out
    assert not visit.well
    for words in ("85 °C", "the supply is too weak", "fed by USB-C, 5 V, 3 A", "eth0 is up (1000 Mbit/s)",
                  "30% of the life of the built-in storage is used up", "wlan0 is up (-61 dBm)", "wlan1 has no link"):
        assert f"health       {words}\n" in said
    assert "! the supply voltage is too low: " in said
    assert "! the board is too hot and slows down: " in said
    assert "set dtparam=strict_gpiod in config.txt\n" in said


def test_what_else_is_here_is_said(tmp_path: Path) -> None:
    for path, text in {
        "video4linux/video11/name": "bcm2835-codec-encode", "video4linux/video12/name": "bcm2835-isp",
        "drm/card1-HDMI-A-1/status": "connected", "drm/card1-HDMI-A-1/connector_id": "32",
        "drm/card1-HDMI-A-2/status": "disconnected", "drm/card1-HDMI-A-2/connector_id": "42",
        "input/event3/device/name": "Door keypad", "input/event3/device/capabilities/key": "1000000000 ffe",
        "input/event0/device/name": "Power button", "input/event0/device/capabilities/key": "10000000000000 0",
        "input/event1/device/name": "Lid", "input/event1/device/capabilities/key": "0",
    }.items():
        file = tmp_path / "class" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    said = doctor._others(set(), str(tmp_path))
    assert [one for one in said if one.startswith(("H.264", "connector", "keypad"))] == [
        "H.264 encoder /dev/video11",
        "connector HDMI-A-1 of /dev/dri/card1: a screen", "connector HDMI-A-2 of /dev/dri/card1: nothing plugged in",
        "keypad /dev/input/event3 (Door keypad)"]


def test_a_kernel_that_leaves_relays_closed_is_known_by_its_driver(tmp_path: Path) -> None:
    assert not keeps_outputs(str(tmp_path))
    for driver, value in (("pinctrl_bcm2835", "N"), ("pinctrl_rp1", "Y")):
        folder = tmp_path / "module" / driver / "parameters"
        folder.mkdir(parents=True)
        (folder / "persist_gpio_outputs").write_text(f"{value}\n")
        assert keeps_outputs(str(tmp_path)) is (value == "Y")


def test_without_the_device_nothing_is_done_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = open_board("none", BoardOptions())
    visit = doctor.Doctor(board)
    visit.look()
    assert visit.well, "a board that names no device lacks none"
    visit.sound(0.1, None, play=True)
    visit.grab(tmp_path / "x.jpg")
    visit.blink()
    board.close()
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("!")] == [
        "! no sound device: nothing was played or recorded", "! no camera: no picture was grabbed",
        "! no lamp: none was lit"]
    assert not visit.well


@pytest.mark.parametrize(("words", "told"), [
    (["--seconds", "0"], "0.1 to 600"), (["--record", "/nowhere/x.wav"], "no such folder"), (["--bord"], "--bord"),
])
def test_wrong_words_are_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["doctor", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_wrong_board_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.toml"
    path.write_text("[audio]\nlatency_ms = 1\nvolum = 3\n")
    assert doctor.main(["--board-file", str(path)]) == 1
    assert "[audio] volum: there is no such key; did you mean volume?" in capsys.readouterr().err
    assert doctor.main(["--board-file", "nope"]) == 1
    assert "no board file 'nope'; there are" in capsys.readouterr().err
