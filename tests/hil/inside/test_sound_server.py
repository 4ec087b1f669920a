"""Sound beside a sound server: PipeWire with its session manager, as a desktop session runs them, has a card of the
kernel (snd-aloop: what is played on device 0 is recorded on device 1). Kernel real, hardware simulated.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hw.api import AudioBlock, Fault, FaultKind, Kind
from hw.faults import FaultLine
from hw.pi.audio.cards import SERVER
from hw.pi.audio.device import AudioConfig, PiAudio, open_audio

MODULES = ["snd-aloop index=0 id=Cable pcm_substreams=1"]
pytestmark = pytest.mark.timeout(120)
RATE, BLOCK = 48_000, 480
TONE = array("h", [round(9000 * math.sin(2 * math.pi * 1000 * n / RATE)) for n in range(BLOCK)]).tobytes()
SERVED = AudioConfig(microphones=("server:*",), speakers=("server:*",), volume=100)
PLAIN = AudioConfig(microphones=("alsa:Cable/1",), speakers=("alsa:Cable",), volume=100)
SPEAKER_SERVED = AudioConfig(microphones=("alsa:none",), speakers=("server:*",), volume=100)
SPEAKER = AudioConfig(microphones=("alsa:none",), speakers=("alsa:Cable", "server:*"), volume=100)
OTHER_END = ["-I", "-q", "-D", "hw:Cable,1", "-f", "S32_LE", "-r", "48000", "-c", "2"]
"""Each channel by itself, since the server drives the cable so; ``PiAudio`` does not."""
STATE = Path("/proc/asound/card0/pcm0p/sub0/status")
SESSION = "pipewire & until [ -S $XDG_RUNTIME_DIR/pipewire-0 ]; do sleep 0.1; done; exec wireplumber"


@pytest.fixture(scope="module")
def server(modules: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The session's server, with the card among its own."""
    runtime = tmp_path_factory.mktemp("session")
    runtime.chmod(0o700)
    for name in ("seats", "sessions", "users", "machines"):  # as logind does, which WirePlumber watches
        Path("/run/systemd", name).mkdir(parents=True, exist_ok=True)
    udev = subprocess.Popen(["/lib/systemd/systemd-udevd"], stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        _until(lambda: _run("udevadm", "control", "--ping").returncode == 0, "systemd-udevd")
        _run("udevadm", "trigger", "--action=add", "--subsystem-match=sound")  # it takes cards that udev announced
        _run("udevadm", "settle", "--timeout=20")
        session = subprocess.Popen(["dbus-run-session", "--", "sh", "-c", SESSION], stderr=subprocess.DEVNULL,
                                   process_group=0)
        try:
            _until(lambda: "Audio Analog Stereo" in _run("wpctl", "status").stdout, "card at the server")
            yield
        finally:
            os.killpg(session.pid, 15)
            session.wait(20)
            udev.terminate()
            udev.wait(20)


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=False, capture_output=True, text=True)


def _until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """For what others do, which do not tell us."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds:g} s"
        time.sleep(0.2)


def _plays() -> bool:
    return "RUNNING" in STATE.read_text()


def _rests() -> bool:
    return STATE.read_text() == "closed\n"


class Side:
    """One that plays a tone and hears what comes."""

    def __init__(self) -> None:
        self.heard = b""
        self.faults: list[Fault] = []
        self._changed = threading.Condition()

    def exchange(self, block: AudioBlock) -> bytes:
        with self._changed:
            self.heard = block.heard
            self._changed.notify_all()
        return TONE

    def fault(self, fault: Fault) -> None:
        with self._changed:
            self.faults.append(fault)
            self._changed.notify_all()

    def hears(self) -> bool:
        """The tone, if only at the server's first volume: 40 %, on a cubic scale."""
        return max(memoryview(self.heard).cast("h"), default=0) > 300

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> float:
        """Seconds until it holds."""
        began = time.monotonic()
        with self._changed:
            assert self._changed.wait_for(condition, seconds), f"not in {seconds} s; told: {self.faults}"
        return time.monotonic() - began


@contextmanager
def _open(config: AudioConfig) -> Iterator[tuple[PiAudio, Side]]:
    line, side = FaultLine(), Side()
    line.listen(side.fault)
    audio = open_audio(config, line)
    audio.start(RATE, 10, side.exchange)
    try:
        yield audio, side
    finally:
        audio.close()
        line.close()


def _selected(audio: PiAudio) -> set[str]:
    return {fact.id for fact in audio.devices() if fact.used}


def test_both_ways_through_the_server(server: None, tmp_path: Path) -> None:
    """We have the server's default devices, which are one end of the cable."""
    channels = [str(tmp_path / f"sound.{channel}") for channel in (0, 1)]
    with _open(SERVED) as (audio, side):
        _until(_plays, "sound of ours")
        subprocess.run(["arecord", *OTHER_END, "-d", "2", str(tmp_path / "sound")], check=True, timeout=40)
        heard = Path(channels[0]).read_bytes()
        assert max(memoryview(heard).cast("i")) > 0.01 * 2**31
        for channel in channels:
            Path(channel).write_bytes(array("i", [sample << 16 for sample in array("h", TONE)]).tobytes() * 1000)
        with subprocess.Popen(["aplay", *OTHER_END, *channels]) as program:
            side.until(side.hears)
            program.terminate()
        assert _selected(audio) == {SERVER}
        assert {fault.fault for fault in side.faults} <= {FaultKind.SILENT, FaultKind.DROPOUTS}  # before, and by load
        print(f"sound by the server: {audio.figures}")


def test_a_card_that_the_server_rests_on_is_ours(server: None) -> None:
    """By plain ALSA, and a program that then plays through the server takes nothing from us."""
    _until(_rests, "rest: the server lets a card go some seconds after the last sound")
    with _open(PLAIN) as (audio, side):
        side.until(side.hears)
        with _plays_through_the_server():
            side.heard = b""
            side.until(side.hears)
        assert _selected(audio) == {"alsa:Cable", "alsa:Cable/1"}


def test_a_card_that_the_server_plays_on_is_busy_and_shared_through_it(server: None) -> None:
    with _plays_through_the_server():
        _until(_plays, "sound of others")
        with _open(SPEAKER) as (audio, side):
            side.until(lambda: any(fault.fault is FaultKind.BUSY for fault in side.faults))
            busy = next(fault for fault in side.faults if fault.fault is FaultKind.BUSY)
            assert (busy.kind, busy.device) == (Kind.SPEAKER, "alsa:Cable")
            assert re.search(r"is held by pipewire \(\d+\): end it, or name another device", busy.detail)
            side.until(lambda: _selected(audio) == {SERVER})


def test_a_server_that_stands_still_is_told_and_played_on_again(server: None) -> None:
    process = next(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/comm")
                   if path.read_text() == "pipewire\n")

    def told(active: bool) -> bool:
        return any((fault.kind, fault.fault, fault.active) == (Kind.SPEAKER, FaultKind.STALLED, active)
                   for fault in side.faults)

    with _open(SPEAKER_SERVED) as (audio, side):
        _until(_plays, "sound of ours")
        os.kill(process, signal.SIGSTOP)
        try:
            print(f"standing still to told: {side.until(lambda: told(True)):.1f} s")
        finally:
            os.kill(process, signal.SIGCONT)
        print(f"and back: {side.until(lambda: told(False) and _selected(audio) == {SERVER}):.1f} s")


@contextmanager
def _plays_through_the_server() -> Iterator[None]:
    """Another program, silent."""
    with subprocess.Popen(["aplay", "-q", "-D", "pipewire", "-f", "cd", "/dev/zero"],
                          stderr=subprocess.DEVNULL) as program:
        try:
            yield
        finally:
            program.terminate()
