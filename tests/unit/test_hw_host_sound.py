"""The sound card of ``auto``, with an ALSA that is made here: what refuses, what goes on, what is told."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hw.api import (
    AudioBlock,
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFormatError,
    DeviceMissingError,
    FaultKind,
    HardwareError,
    Kind,
)
from hw.blame import error_of, fault_of
from hw.faults import FaultLine
from hw.host import sound as module
from hw.host.sound import AlsaAudio
from tests.contract.seen import Faults, until

CAPTURE, PLAYBACK = 1, 0


class AlsaError(Exception):
    pass


class Card:
    """ALSA's default device: what each direction refuses with, and what was played."""

    def __init__(self) -> None:
        self.refusals: dict[int, str] = {}
        self.played: list[bytes] = []

    def open(self, *, type: int, periodsize: int, **_: Any) -> Any:
        if type in self.refusals:
            raise AlsaError(f"{self.refusals[type]} [default]")

        def read() -> tuple[int, bytes]:
            time.sleep(0.01)
            return periodsize, b"\x01\x10" * periodsize

        return SimpleNamespace(read=read, write=self.played.append, close=lambda: None)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    found = Card()
    monkeypatch.setitem(sys.modules, "alsaaudio", SimpleNamespace(
        PCM=found.open, PCM_CAPTURE=CAPTURE, PCM_PLAYBACK=PLAYBACK, PCM_NORMAL=0, PCM_FORMAT_S16_LE=2,
        ALSAAudioError=AlsaError))
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    return found


@pytest.fixture
def told() -> Faults:
    return Faults()


@pytest.fixture
def audio(card: Card, told: Faults) -> Iterator[AlsaAudio]:
    line = FaultLine()
    line.listen(told)
    made = AlsaAudio(line)
    yield made
    made.stop()
    line.close()


REFUSALS = [("Device or resource busy", FaultKind.BUSY), ("Permission denied", FaultKind.DENIED),
            ("No such file or directory", FaultKind.MISSING), ("Invalid argument", FaultKind.FORMAT),
            ("Broken pipe", FaultKind.FAILED)]


@pytest.mark.parametrize(("words", "fault"), REFUSALS)
@pytest.mark.parametrize(("direction", "kind"), [(CAPTURE, Kind.MICROPHONE), (PLAYBACK, Kind.SPEAKER)])
def test_one_direction_that_refuses_is_told_and_the_other_goes_on(
        card: Card, audio: AlsaAudio, told: Faults, direction: int, kind: Kind, words: str, fault: FaultKind) -> None:
    card.refusals[direction] = words
    heard, ticking = [], threading.Event()

    def exchange(block: AudioBlock) -> bytes:
        heard.append(any(block.heard))
        ticking.set()
        return b"\x02\x20" * 480

    audio.start(48_000, 10, exchange)
    assert ticking.wait(2.0)
    assert told.wait(kind, fault, active=True, seconds=2.0).device == "default"
    assert until(lambda: any(heard) is (direction == PLAYBACK) and bool(card.played) is (direction == CAPTURE), 2.0)
    del card.refusals[direction]
    told.wait(kind, fault, active=False, seconds=2.0)
    assert until(lambda: any(heard) and bool(card.played), 2.0)


def test_nothing_starts_where_both_refuse_and_the_reason_is_raised(card: Card, audio: AlsaAudio) -> None:
    card.refusals = {CAPTURE: "Permission denied", PLAYBACK: "Device or resource busy"}
    with pytest.raises(DeviceDeniedError, match="group audio"):
        audio.start(48_000, 10, lambda block: b"")
    del card.refusals[PLAYBACK]
    audio.start(48_000, 10, lambda block: b"")


@pytest.mark.parametrize("error", [DeviceMissingError, DeviceBusyError, DeviceDeniedError, DeviceFormatError])
def test_an_error_is_told_as_a_fault_and_made_of_it_again(error: type[HardwareError]) -> None:
    assert error_of(fault_of(error("x"))) is error
