"""Tones, quiet rooms, recordings, the echo path and what a microphone's faults sound like."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import pytest

from hw.api import DeviceFailedError, DeviceMissingError, FaultKind
from hw.hearing import Hearing
from hw.pcm import mix, scale
from hw.sim.audio import EchoPath
from hw.sim.sounds import RATE, LentSound, Loop, open_sound

BLOCK = 960


def _samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(float)


def _read(sound: Loop, seconds: float) -> bytes:
    return b"".join(sound.read(BLOCK) for _ in range(round(seconds * 100)))


@pytest.mark.parametrize("hertz", [100, 440, 1000, 5000])
def test_a_tone_has_its_frequency_and_no_seam(hertz: int) -> None:
    samples = _samples(_read(open_sound(f"tone:{hertz}"), 3.0))
    spectrum = np.abs(np.fft.rfft(samples))
    peak = int(spectrum.argmax())
    assert peak / 3.0 == hertz
    rest = np.delete(spectrum, peak)
    assert rest.max() < spectrum[peak] / 1000  # a seam would click: 60 dB below is silence


def test_silence_is_a_quiet_room_and_not_digital_zero() -> None:
    samples = _samples(_read(open_sound("silence"), 1.0))
    assert samples.any()
    assert np.abs(samples).max() <= 1


def test_speech_has_pauses_and_loud_parts() -> None:
    levels = [float(np.sqrt(np.mean(_samples(part) ** 2))) for part in _blocks(_read(open_sound("speech"), 4.0))]
    assert max(levels) > 1000
    assert sum(level < 10 for level in levels) > 20


def _blocks(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + BLOCK] for at in range(0, len(pcm), BLOCK)]


def test_a_recording_of_another_rate_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        ramp = (8000 * np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000)).astype("<i2")
        file.writeframes(np.repeat(ramp, 2).tobytes())
    samples = _samples(_read(open_sound(f"wav:{path}"), 0.9))
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(spectrum.argmax() / 0.9 - 500) < 2


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("tone:", DeviceFailedError),
        ("tone:19", DeviceFailedError),
        ("tone:440.5", DeviceFailedError),
        ("noise", DeviceFailedError),
        ("wav:/nowhere.wav", DeviceMissingError),
        ("wav:/proc/self/status", DeviceFailedError),
    ],
)
def test_bad_sources_are_named(spec: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="microphone"):
        open_sound(spec)


@pytest.mark.parametrize(("delay_ms", "loss_db"), [(0.0, 6.0), (12.5, 0.0), (120.0, 20.0), (250.0, 40.0)])
def test_echo_delay_is_exact_and_loss_true(delay_ms: float, loss_db: float) -> None:
    noise = np.random.default_rng(1).integers(-20_000, 20_000, 48 * 480).astype("<i2").tobytes()
    path = EchoPath(delay_ms, loss_db)
    heard = _samples(b"".join(path.add(bytes(BLOCK), part) for part in _blocks(noise)))
    played = _samples(noise)
    spectrum = np.fft.rfft(heard, 65_536) * np.conj(np.fft.rfft(played, 65_536))
    assert int(np.fft.irfft(spectrum).argmax()) == round(delay_ms * RATE / 1000)
    shift = round(delay_ms * RATE / 1000)
    ratio = np.sqrt(np.mean(heard[shift:] ** 2) / np.mean(played[: len(played) - shift] ** 2))
    assert abs(20 * math.log10(ratio) + loss_db) < 0.1


def test_echo_path_changes_while_it_runs_and_can_be_none() -> None:
    path = EchoPath()
    loud = (b"\x00\x20" * 480)
    assert path.add(bytes(BLOCK), loud) == bytes(BLOCK)
    path.set(0.0, 0.0)
    assert path.add(bytes(BLOCK), loud) == loud
    path.set(10.0, 0.0)
    assert path.add(bytes(BLOCK), bytes(BLOCK)) == loud
    with pytest.raises(ValueError, match="echo path"):
        path.set(-1.0, 0.0)
    assert path.delay_ms == 10.0


def test_lent_sound_waits_for_a_little_then_plays_in_order_and_ends() -> None:
    lent, numbers = LentSound(), [bytes([number, 1]) * 480 for number in range(1, 10)]
    assert lent.read(BLOCK, 0.0) is None
    lent.offer(numbers[0], 0.0)
    assert lent.read(BLOCK, 0.0) == bytes(BLOCK)
    for part in numbers[1:5]:
        lent.offer(part, 0.01)
    assert [lent.read(BLOCK, 0.02) for _ in range(5)] == numbers[:5]
    assert lent.read(BLOCK, 0.5) == bytes(BLOCK)
    assert lent.read(BLOCK, 1.02) is None


def test_lent_sound_is_bounded() -> None:
    lent = LentSound()
    for number in range(100):
        lent.offer(bytes([number, 1]) * 480, 0.0)
    assert lent.dropped == 80 * BLOCK
    assert lent.read(BLOCK, 0.0) == bytes([80, 1]) * 480  # the newest 200 ms


def _after(seconds: float, pcm: bytes) -> frozenset[FaultKind]:
    hearing = Hearing(0.01)
    faults = frozenset[FaultKind]()
    for part in _blocks(pcm * math.ceil(seconds * 100 * BLOCK / len(pcm)))[: round(seconds * 100)]:
        faults = hearing.hear(part)
    return faults


def test_hearing_tells_what_is_wrong() -> None:
    noise = np.random.default_rng(2).normal(0, 3000, 48_000).astype("<i2").tobytes()
    assert _after(3.9, bytes(BLOCK)) == frozenset()
    assert _after(4.1, bytes(BLOCK)) == {FaultKind.SILENT}
    assert _after(1.1, scale(_read(open_sound("tone:440"), 1.0), 60.0)) == {FaultKind.CLIPPING}
    assert _after(1.1, noise) == {FaultKind.NOISY}


@pytest.mark.parametrize("spec", ["tone:100", "tone:440", "tone:5000", "speech", "silence"])
def test_hearing_finds_no_fault_in_sound(spec: str) -> None:
    assert _after(6.0, _read(open_sound(spec), 6.0)) == frozenset()


def test_noise_under_speech_is_found() -> None:
    speech = _read(open_sound("speech"), 3.0)
    noise = np.random.default_rng(3).normal(0, 3000, len(speech) // 2).astype("<i2").tobytes()
    assert _after(3.0, mix(speech, noise)) == {FaultKind.NOISY}
