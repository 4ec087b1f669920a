"""What every board promises of sound: pace, volume, devices that go and come, and the echo between them."""

from __future__ import annotations

import itertools
import struct
import threading
import time

import pytest

from hw.api import AudioBlock, Board, DeviceFailedError, FaultKind, Kind, Simulation
from tests.contract.audio import (
    counts_a_stalled_receiver,
    keeps_volume_in_bounds,
    paces_whole_blocks,
    refuses_a_rate_it_has_not,
)
from tests.contract.boards import LATE_S
from tests.contract.seen import Faults, until


def test_blocks_come_at_their_pace_whole_and_with_what_was_played(board: Board, quiet: None) -> None:
    assert board.audio is not None
    paces_whole_blocks(board.audio)


def test_a_stalled_receiver_is_counted_and_the_clock_goes_on(board: Board, quiet: None) -> None:
    assert board.audio is not None
    counts_a_stalled_receiver(board.audio)


def test_volume_is_heard(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    loud = b"\x00\x40" * 480
    emitted: list[bytes] = []
    done = threading.Event()

    def tap(pcm: bytes) -> None:
        emitted.append(pcm)
        if len(emitted) == 5:
            done.set()

    board.audio.set_volume(50)
    assert board.audio.volume == 50
    hands.tap_speaker(tap)
    board.audio.start(48_000, 10, lambda block: loud)
    assert done.wait(3.0)
    hands.tap_speaker(None)
    count = len(emitted)
    board.audio.stop()
    board.audio.set_volume(100)
    assert emitted[3] == b"\x00\x20" * 480
    assert len(emitted) == count


def test_volume_is_bounded(board: Board, quiet: None) -> None:
    assert board.audio is not None
    keeps_volume_in_bounds(board.audio)


def test_a_rate_the_card_has_not_is_refused(board: Board, quiet: None) -> None:
    assert board.audio is not None
    refuses_a_rate_it_has_not(board.audio)


def test_unplugged_in_use_the_microphone_is_replaced_by_a_null_clock(
    board: Board, hands: Simulation, faults: Faults
) -> None:
    assert board.audio is not None
    blocks: list[tuple[float, AudioBlock]] = []

    def exchange(block: AudioBlock) -> bytes:
        blocks.append((time.monotonic(), block))
        return b""

    board.audio.start(48_000, 10, exchange)
    assert until(lambda: len(blocks) > 3, 2.0)
    hands.fault("mic.unplug", active=True)
    faults.wait(Kind.MICROPHONE, FaultKind.MISSING, active=True, seconds=2.0)
    assert until(lambda: any(block.missed > 30 for _, block in blocks), 2.0)
    gap = next(number for number, (_, block) in enumerate(blocks) if block.missed > 30)
    assert 0.3 < blocks[gap][0] - blocks[gap - 1][0] < 0.6 + LATE_S
    count = len(blocks)
    assert until(lambda: len(blocks) > count + 5, 1.0)
    assert blocks[-1][1].heard == bytes(960)
    hands.fault("mic.unplug", active=False)
    assert until(lambda: any(blocks[-1][1].heard), 1.0)
    board.audio.stop()


def test_the_selected_microphone_is_heard_and_another_while_it_is_away(
    board: Board, hands: Simulation, faults: Faults
) -> None:
    assert board.audio is not None
    blocks: list[AudioBlock] = []

    def exchange(block: AudioBlock) -> bytes:
        blocks.append(block)
        return b""

    def crossings() -> float:
        """Of zero within 100 ms: twice the frequency, over ten."""
        heard = struct.unpack("<4800h", b"".join(block.heard for block in blocks[-10:]))
        return sum(one < 0 <= other or other < 0 <= one for one, other in itertools.pairwise(heard))

    def hears(hertz: int) -> bool:
        del blocks[:]
        return until(lambda: len(blocks) > 12 and abs(crossings() - hertz / 5) < 10, 2.0)

    board.audio.start(48_000, 10, exchange)
    assert hears(1000)
    with pytest.raises(DeviceFailedError, match="radio"):
        hands.plug(Kind.MICROPHONE, plugged=True, spec="radio")
    hands.plug(Kind.MICROPHONE, plugged=True, spec="tone:300")
    assert hears(1000), "plugged in, and nobody has asked for it"
    board.select(Kind.MICROPHONE, "mic1")
    assert hears(300)
    hands.plug(Kind.MICROPHONE, plugged=False)
    faults.wait(Kind.MICROPHONE, FaultKind.PULLED, active=True, seconds=2.0)
    assert hears(1000)
    hands.fault("mic.unplug", active=True)
    assert faults.wait(Kind.MICROPHONE, FaultKind.MISSING, active=True, seconds=2.0).device == "mic0"
    hands.plug(Kind.MICROPHONE, plugged=True)
    faults.wait(Kind.MICROPHONE, FaultKind.PULLED, active=False, seconds=2.0)
    faults.wait(Kind.MICROPHONE, FaultKind.MISSING, active=False, seconds=2.0)
    assert hears(300)
    hands.fault("mic.unplug", active=False)
    assert hears(300)
    board.select(Kind.MICROPHONE, "")
    assert hears(1000)
    board.audio.stop()


def test_the_selected_loudspeaker_plays_where_the_other_is_mute(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    emitted: list[bytes] = []
    hands.tap_speaker(emitted.append)
    hands.fault("speaker.mute", active=True)
    board.audio.start(48_000, 10, lambda block: b"\x00\x10" * 480)
    assert until(lambda: len(emitted) > 5, 2.0)
    assert not any(map(any, emitted))
    hands.plug(Kind.SPEAKER, plugged=True)
    board.select(Kind.SPEAKER, "spk1")
    assert until(lambda: any(emitted[-1]), 2.0)
    hands.plug(Kind.SPEAKER, plugged=False)
    assert until(lambda: not any(emitted[-1]), 2.0)
    with pytest.raises(ValueError, match="speaker"):
        hands.plug(Kind.SPEAKER, plugged=True, spec="tone:300")


def test_the_echo_path_is_physical(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    hands.source(Kind.MICROPHONE, "silence")
    hands.fault("echo.delayMs", active=True, value=20.0)
    hands.fault("echo.erlDb", active=True, value=6.0206)
    blocks: list[AudioBlock] = []
    done = threading.Event()

    def exchange(block: AudioBlock) -> bytes:
        blocks.append(block)
        if len(blocks) == 12:
            done.set()
        return (b"\x00\x20" if len(blocks) == 5 else b"\0\0") * 480

    board.audio.start(48_000, 10, exchange)
    assert done.wait(2.0)
    board.audio.stop()
    loud = [number for number, block in enumerate(blocks) if max(memoryview(block.heard).cast("h")) > 100]
    played = [number for number, block in enumerate(blocks) if any(block.played)]
    assert [number + 2 for number in played] == loud  # 20 ms are two blocks
    assert abs(max(memoryview(blocks[loud[0]].heard).cast("h")) - 0x1000) <= 2
    with pytest.raises(ValueError, match=r"echo\.delayMs: -5 is outside 0 to 1000 ms"):
        hands.fault("echo.delayMs", active=True, value=-5.0)
    for name in ("echo.delayMs", "echo.erlDb"):
        hands.fault(name, active=False)
    hands.source(Kind.MICROPHONE, "tone:1000")


def test_the_room_of_the_echo_path_rings_saturates_and_changes(board: Board, hands: Simulation, quiet: None) -> None:
    assert board.audio is not None
    hands.source(Kind.MICROPHONE, "silence")

    def answer(peak: bytes) -> list[int]:
        """What one loud sample makes the microphone hear in the next 200 ms."""
        heard: list[bytes] = []
        done = threading.Event()

        def exchange(block: AudioBlock) -> bytes:
            heard.append(block.heard)
            if len(heard) == 25:
                done.set()
            return peak + bytes(958) if len(heard) == 3 else bytes(960)

        board.audio.start(48_000, 10, exchange)
        assert done.wait(3.0)
        board.audio.stop()
        return list(memoryview(b"".join(heard)).cast("h"))

    hands.fault("echo.erlDb", active=True, value=0.0)
    hands.fault("echo.delayMs", active=True, value=20.0)
    assert board.audio.echoes
    plain = answer(b"\xff\x7f")
    assert sum(abs(value) > 3 for value in plain) == 1
    hands.fault("echo.roomMs", active=True, value=200.0)
    ringing = answer(b"\xff\x7f")
    assert sum(abs(value) > 3 for value in ringing) > 1000
    hands.fault("echo.moved", active=True)
    assert answer(b"\xff\x7f") != ringing
    hands.fault("echo.roomMs", active=False)
    hands.fault("echo.moved", active=False)
    hands.fault("echo.distortion", active=True, value=20.0)
    assert max(answer(b"\xff\x7f")) < 4000, "a tenth of full scale is all that gets through"
    with pytest.raises(ValueError, match="room"):
        hands.fault("echo.roomMs", active=True, value=5000.0)
    for name in ("echo.delayMs", "echo.erlDb", "echo.distortion"):
        hands.fault(name, active=False)
    assert not board.audio.echoes
    hands.source(Kind.MICROPHONE, "tone:1000")
