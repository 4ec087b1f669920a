"""What every ``hw.api.Audio`` promises, for a board's own test to call with its device."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

import pytest

from hw.api import Audio, AudioBlock, DeviceBusyError, DeviceFailedError

__all__ = ["counts_a_stalled_receiver", "keeps_volume_in_bounds", "paces_whole_blocks", "refuses_a_rate_it_has_not"]

SIZE = 960  # bytes of 10 ms
SETTLED: Final = 100
"""Blocks until a device knows how long sound is on its way to the loudspeaker; before, it may correct itself."""
LAST: Final = SETTLED + 30


def _gained_s(blocks: Sequence[tuple[float, int]]) -> float:
    """By how much the clock of blocks of 10 ms, each with its time and how many were missed before it, is off after
    the last of them. On a busy machine any may come late, and none comes early: the earliest of ten counts."""
    number, offsets = 0, []
    for at, missed in blocks:
        number += missed
        offsets.append(at - number * 0.010)
        number += 1
    return min(offsets[-10:]) - min(offsets[:10])


def paces_whole_blocks(audio: Audio, most_delay_ms: float = 0.0) -> None:
    """Blocks come at their pace and whole, with what was played beside: one block after it was returned, and later by
    at most ``most_delay_ms`` of sound that is on its way, once that is known. None comes after ``stop``."""
    blocks: list[tuple[float, AudioBlock]] = []
    answers = [bytes([number % 250 + 1, 0]) * 480 for number in range(400)]
    answers[SETTLED + 5] += b"\x01\x00" * 300  # too long: cut
    answers[SETTLED + 6] = answers[SETTLED + 6][:300]  # too short: padded
    done = threading.Event()

    def exchange(block: AudioBlock) -> bytes:
        blocks.append((time.monotonic(), block))
        if len(blocks) == LAST + 1:
            done.set()
        return answers[len(blocks) - 1]

    audio.set_volume(100)
    audio.start(48_000, 10, exchange)
    with pytest.raises(DeviceBusyError, match="started already"):
        audio.start(48_000, 10, exchange)
    came = done.wait(5.0)
    told_ms = audio.figures.delay_ms
    began = time.monotonic()
    audio.stop()  # whatever came: who tries again starts it again
    assert time.monotonic() - began < 1.0
    assert came
    count = len(blocks)
    audio.stop()
    assert all(len(block.heard) == len(block.played) == SIZE for _, block in blocks)
    assert abs(_gained_s([(at, block.missed) for at, block in blocks[: LAST + 1]])) < 0.030
    played = b"".join(block.played for _, block in blocks[SETTLED + 1 :])
    returned = b"".join(answer[:SIZE].ljust(SIZE, b"\0") for answer in answers[SETTLED : SETTLED + 11])
    delay = played.find(returned)
    assert 0 <= delay <= most_delay_ms * 96, "what was played is what was returned, sample by sample"
    assert not told_ms or abs(told_ms - 10 - delay / 96) < 15, "the delay that is told is the one that was"
    assert len(blocks) == count


def counts_a_stalled_receiver(audio: Audio, ring_ms: float = 45.0) -> None:
    """A receiver that sleeps costs blocks, which are counted, and the clock goes on as if it had not: within the
    ``ring_ms`` that the card keeps."""
    blocks: list[tuple[float, int]] = []
    done = threading.Event()

    def exchange(block: AudioBlock) -> bytes:
        blocks.append((time.monotonic(), block.missed))
        if len(blocks) == 10:
            time.sleep(0.2)  # what it must not do
        if len(blocks) == 40:
            done.set()
        return b""

    audio.start(48_000, 10, exchange)
    came = done.wait(5.0)
    audio.stop()
    assert came
    missed = sum(lost for _, lost in blocks)
    assert 10 <= missed <= 40
    assert abs(_gained_s(blocks[:40])) < ring_ms / 1000


def keeps_volume_in_bounds(audio: Audio) -> None:
    for percent in (0, 50, 100):
        audio.set_volume(percent)
        assert audio.volume == percent
    for wrong in (-1, 101):
        with pytest.raises(ValueError, match="volume"):
            audio.set_volume(wrong)


def refuses_a_rate_it_has_not(audio: Audio) -> None:
    with pytest.raises(DeviceFailedError, match="48000 Hz"):
        audio.start(11_025, 10, lambda block: b"")
    audio.stop()
