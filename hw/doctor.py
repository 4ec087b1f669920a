"""``edgecall doctor``: opens the board of this machine, part by part, and says what is there, what is not, and why.

Needs nothing of the appliance, and its devices to itself: stop the appliance first, or its devices are told as busy. On
request it plays, records, grabs a picture and blinks the lamps. It moves no relay.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import threading
import time
import wave
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hw.api import AudioBlock, Board, BoardOptions, DeviceFact, Fault, FaultKind, HardwareError, Health, Kind
from hw.boards import open_board
from hw.pi.audio.cards import endpoints
from hw.pi.board import checked_file
from hw.pi.boardfile import BoardFileError, board_files
from hw.pi.camera.usb import find_usb
from hw.pi.display import connectors
from hw.pi.encoder.probe import encoder_nodes
from hw.pi.gpiochip import chips, keeps_outputs
from hw.pi.health import identity
from hw.pi.keypad import keypads

__all__ = ["Doctor", "board_file_faults", "main"]

RATE: Final = 48_000
SETTLE_S: Final = 1.5
PATIENCE_S: Final = 6.0
"""So long devices have to say what is wrong, and those that are slow to start at most."""

PLAY_S: Final = 2.0
BLINK_S: Final = 1.0
HERTZ: Final = 660
PEAK: Final = 6000
"""-15 dBFS: heard, and harmless to an ear near it."""

_WORDS: Final = {
    FaultKind.MISSING: "missing", FaultKind.BUSY: "busy", FaultKind.DENIED: "not permitted",
    FaultKind.FORMAT: "of no format that we can use", FaultKind.PULLED: "unplugged", FaultKind.STALLED: "stands still",
    FaultKind.START_TIMED_OUT: "does not start", FaultKind.MUTED: "muted in the mixer",
    FaultKind.ZERO_VOLUME: "at volume 0", FaultKind.SILENT: "silent",
}


class Doctor:
    """One visit to an opened board. ``print`` goes to stdout; ``well`` tells whether everything was."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._lock = threading.Lock()
        self._faults: dict[tuple[Kind, FaultKind, str], Fault] = {}
        self.well = True
        board.on_fault(self._fault)

    def _fault(self, fault: Fault) -> None:
        with self._lock:
            if fault.active:
                self._faults[fault.kind, fault.fault, fault.device] = fault
            else:
                self._faults.pop((fault.kind, fault.fault, fault.device), None)

    def _complain(self, words: str) -> None:
        self.well = False
        print(words)

    def look(self) -> None:
        """What the board file names, with its state; then what else this machine has."""
        for key, value in self._board.facts().items():
            print(f"{key:<12} {value}")
        print()
        with self._sounding(lambda _: b""):
            end = time.monotonic() + PATIENCE_S
            time.sleep(SETTLE_S)
            while _lacking(facts := [one for one in self._board.devices() if one.listed]) and time.monotonic() < end:
                time.sleep(0.1)
        with self._lock:
            faults = list(self._faults.values())
        for kind in Kind:
            ours = [fact for fact in facts if fact.kind is kind]
            for fact in ours:
                print(f"{kind.value:<12} {fact.id:<20} {fact.name}: {_state(fact)}")
            if not ours and kind is not Kind.CAPTURE:
                print(f"{kind.value:<12} none: the board file names none, and none is plugged in")
        self.well &= not _lacking(facts)
        for fault in faults:
            device = "" if fault.device == fault.kind.value else f" {fault.device}"  # none is there that has an id
            self._complain(f"! {fault.kind.value}{device} is {_WORDS.get(fault.fault, fault.fault.value)}"
                           + (f": {fault.detail}" if fault.detail else ""))
        named = {word for fact in facts if fact.present for word in (fact.id, fact.name)}
        health = self._board.health()
        for words in _health(health):
            print(f"health       {words}")
        if health.undervoltage:
            self._complain("! the supply voltage is too low: use a stronger supply, and a shorter cable")
        if health.throttled:
            self._complain("! the board is too hot and slows down: improve its cooling")
        for words in _others(named):
            print(f"also here    {words}")
        if self._board.panel is not None and self._board.panel.relays and keeps_outputs():
            print("advice       this kernel leaves a relay closed when all that holds it is killed at once: set "
                  "dtparam=strict_gpiod in config.txt")

    @contextmanager
    def _sounding(self, exchange: Callable[[AudioBlock], bytes]) -> Iterator[bool]:
        """The sound device runs meanwhile; False where it does not start, which is told."""
        audio = self._board.audio
        if audio is None:
            yield False
            return
        try:
            audio.start(RATE, 10, exchange)
        except HardwareError as error:
            self._complain(f"! {error}")
            yield False
            return
        try:
            yield True
        finally:
            audio.stop()

    def sound(self, seconds: float, record: Path | None, play: bool) -> None:
        """Play a tone, or record, or both at once."""
        blocks: list[bytes] = []
        tone = _Tone()

        def exchange(block: AudioBlock) -> bytes:
            blocks.append(block.heard)
            return tone.block() if play else b""

        with self._sounding(exchange) as started:
            if not started:
                self._complain("! no sound device: nothing was played or recorded")
                return
            time.sleep(seconds)
            figures = self._board.audio.figures if self._board.audio is not None else None
        if play:
            print(f"played       {HERTZ} Hz for {seconds:g} s")
        if record is not None:
            pcm = b"".join(blocks)
            if self._keep(record, _wav(pcm)):
                print(f"recorded     {record}: {len(pcm) / 2 / RATE:.1f} s, {_dbfs(pcm)}")
        if figures is not None:
            drift = "" if figures.drift_ppm is None else f", the clocks {figures.drift_ppm:g} ppm apart"
            print(f"sound        {figures.xruns} xruns, {figures.delay_ms:g} ms on the way to the loudspeaker{drift}"
                  + ("" if figures.realtime else ", without real-time priority"))

    def grab(self, path: Path) -> None:
        """A picture of the camera, as JPEG."""
        camera = self._board.camera
        if camera is None:
            self._complain("! no camera: no picture was grabbed")
            return
        try:
            picture = camera.snapshot(10.0)
        except HardwareError as error:
            self._complain(f"! {error}")
            return
        if self._keep(path, picture):
            print(f"grabbed      {path}, encoder: {camera.encoder.value}")

    def _keep(self, path: Path, content: bytes) -> bool:
        """Write a file; False, and told, where that fails."""
        try:
            path.write_bytes(content)
        except OSError as error:
            self._complain(f"! {path} cannot be written: {error.strerror}")
            return False
        return True

    def blink(self) -> None:
        """Each lamp alone, and whether its line follows."""
        panel = self._board.panel
        if panel is None or not panel.lamps:
            self._complain("! no lamp: none was lit")
            return
        for lamp in panel.lamps:
            panel.light(lamp, [(1.0, True)])
            time.sleep(BLINK_S)
            lit = panel.lit(lamp)
            panel.light(lamp, [(1.0, False)])
            if lit:
                print(f"lamp         {lamp}: lit")
            else:
                self._complain(f"! lamp {lamp} does not follow: see the panel's line above")


def board_file_faults(wanted: str) -> list[str]:
    """What is wrong with the board file ``wanted`` (empty: by this machine's model), a line each. Opens nothing."""
    try:
        checked_file(wanted, identity()["model"])
    except BoardFileError as error:
        return str(error).splitlines()
    return []


class _Tone:
    def __init__(self) -> None:
        wave_ = [round(PEAK * math.sin(2 * math.pi * HERTZ * n / RATE)) for n in range(RATE // 10)]
        self._pcm, self._at = array("h", wave_).tobytes(), 0  # 66 whole periods

    def block(self) -> bytes:
        part = self._pcm[self._at : self._at + RATE // 50]
        self._at = (self._at + len(part)) % len(self._pcm)
        return part


def _lacking(facts: Sequence[DeviceFact]) -> set[Kind]:
    """Kinds that the board file names and of which none is there."""
    return {fact.kind for fact in facts} - {fact.kind for fact in facts if fact.present}


def _state(fact: DeviceFact) -> str:
    words = "here" if fact.present else "not here"
    if fact.present and fact.kind in (Kind.MICROPHONE, Kind.SPEAKER):
        words = "in use" if fact.used else "in reserve"
    return words + (", simulated" if fact.simulated else "") + (f" ({fact.note})" if fact.note else "")


def _health(health: Health) -> list[str]:
    """What the board tells of itself."""
    found = [] if health.temperature_c is None else [f"{health.temperature_c:.0f} °C"]
    if health.undervoltage is not None:
        found.append("the supply is too weak" if health.undervoltage else "the supply is strong enough")
    if health.supply:
        found.append(f"fed by {health.supply}")
    if health.storage_wear is not None:
        found.append(f"{health.storage_wear:.0%} of the life of the built-in storage is used up")
    for link in health.links:
        figures = ", ".join(filter(None, (f"{link.mbps} Mbit/s" if link.mbps else "",
                                          f"{link.dbm} dBm" if link.dbm is not None else "")))
        found.append(f"{link.name} {'is up' if link.up else 'has no link'}{figures and f' ({figures})'}")
    return found


def _others(named: set[str], sysfs: str = "/sys") -> list[str]:
    """Devices of this machine beside those ``named`` by id or name."""
    found = [f"{one.kind.value} {one.id} ({one.name})" for one in endpoints() if one.id not in named]
    found += [f"camera {one.id} ({one.name})" for one in find_usb() if one.id not in named]
    found += [f"H.264 encoder {path}" for path in encoder_nodes(sysfs)]
    for one in connectors(f"{sysfs}/class/drm"):
        plugged = "a screen" if one.connected else "nothing plugged in"
        found.append(f"connector {one.name} of /dev/dri/card{one.card}: {plugged}")
    found += [f"keypad {path} ({name})" for path, name in keypads(sysfs)]
    try:
        found += [f"GPIO chip {chip.label}, {chip.lines} lines" for chip in chips()]
    except HardwareError as error:
        found.append(str(error))
    return found


def _wav(pcm: bytes) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    return content.getvalue()


def _dbfs(pcm: bytes) -> str:
    samples = memoryview(pcm).cast("h")
    square = sum(value * value for value in samples) / max(1, len(samples)) / 32_768**2
    return f"{10 * math.log10(square):.0f} dBFS" if square else "digital silence"


def main(words: Sequence[str]) -> int:
    """The command line; returns 0 where everything that the board file names is there and works, else 1."""
    files = board_files()
    parser = argparse.ArgumentParser(
        prog="edgecall doctor", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Open the devices of this machine, and say what is there, what is not, and why. The appliance must "
                    "not run meanwhile.",
        epilog="board files:\n" + "\n".join(f"  {name:<12} {path}" for name, path in sorted(files.items())))
    parser.add_argument("--board", choices=("pi", "auto", "sim"), default="pi", help="which board (default pi)")
    parser.add_argument("--board-file", default="", metavar="FILE", help="name or path; default: by the model")
    parser.add_argument("--play", action="store_true", help=f"play a tone for {PLAY_S:g} s")
    parser.add_argument("--record", type=Path, metavar="WAV", help="record the microphone into a file")
    parser.add_argument("--seconds", type=float, default=PLAY_S, help="how long (default %(default)g)")
    parser.add_argument("--grab", type=Path, metavar="JPEG", help="grab a picture of the camera into a file")
    parser.add_argument("--blink", action="store_true", help="light each lamp for a second")
    asked = parser.parse_args(words)
    if not 0.1 <= asked.seconds <= 600:
        parser.error("--seconds must be 0.1 to 600")
    for path in filter(None, (asked.record, asked.grab)):
        if not path.absolute().parent.is_dir():
            parser.error(f"{path}: there is no such folder")
        if path.is_dir():
            parser.error(f"{path} is a folder: name a file")
    try:
        board = open_board(asked.board, BoardOptions(file=asked.board_file))
    except HardwareError as error:
        print(f"edgecall doctor: {error}", file=sys.stderr)
        return 1
    try:
        doctor = Doctor(board)
        doctor.look()
        if asked.play or asked.record is not None:
            doctor.sound(asked.seconds, asked.record, asked.play)
        if asked.grab is not None:
            doctor.grab(asked.grab)
        if asked.blink:
            doctor.blink()
    finally:
        board.close()
    return 0 if doctor.well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
