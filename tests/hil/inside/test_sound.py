"""Sound on cards of the kernel: snd-aloop, where what is played on device 0 is recorded on device 1, and snd-dummy with
its mixer. Kernel real, hardware simulated: the loop's clock is the kernel's, shifted by its own control.
"""

from __future__ import annotations

import cmath
import itertools
import math
import os
import re
import subprocess
import sys
import threading
import time
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path

import alsaaudio
import pytest

from hw import doctor
from hw.api import (
    AudioBlock,
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFormatError,
    DeviceMissingError,
    FaultKind,
    Kind,
)
from hw.faults import FaultLine
from hw.pi.audio.cards import Endpoint, endpoints, rank
from hw.pi.audio.device import AudioConfig, PiAudio, open_audio
from hw.pi.audio.streams import Capture, open_capture, open_playback
from tests.contract.audio import counts_a_stalled_receiver, paces_whole_blocks
from tests.hil.devices import Bound, sound_loop
from tests.hil.heard import Listener, loud, starved
from tests.hil.machine import Machine, again_where, free_s

MODULES = ["snd-aloop index=0,1 enable=1,1 id=First,Second pcm_substreams=1,1", "snd-dummy index=2 id=Dummy"]
pytestmark = pytest.mark.timeout(180)
RATE, BLOCK = 48_000, 480
HERTZ = 1030  # no whole number of periods in a block: one too few or too many is seen
TONE = array("h", [round(9000 * math.sin(2 * math.pi * HERTZ * n / RATE)) for n in range(RATE)]).tobytes()
HANN = [1 - math.cos(2 * math.pi * (n + 0.5) / BLOCK) for n in range(BLOCK)]
BOTH = AudioConfig(microphones=("alsa:First/1", "alsa:Second/1"), speakers=("alsa:First", "alsa:Second"), volume=100)
DUMMY = AudioConfig(microphones=("alsa:Dummy",), speakers=("alsa:Dummy",))
DEAF = AudioConfig(microphones=("alsa:none",), speakers=("alsa:First",), latency_ms=60, volume=100)
TWO = AudioConfig(microphones=("alsa:Second/1",), speakers=("alsa:First",), latency_ms=60, volume=100)
SWITCH_S = 2.0
"""In which the next device takes over, or the best takes back (docs/hardware.md)."""
SLOW_S = 15.0
"""A machine that starves the guest may take so long; of it no more than ``SWITCH_S`` may be waiting."""
STARVED_S = 60.0
"""A machine that starves the guest breaks the sound; so long is waited for a stretch where it does not."""


def _phase(pcm: bytes) -> complex:
    """Amplitude and phase of the tone in one block."""
    samples = memoryview(pcm).cast("h")
    turn = -2j * math.pi * HERTZ / RATE
    return sum(value * HANN[n] * cmath.exp(turn * n) for n, value in enumerate(samples)) * 2 / BLOCK


def _steps(blocks: list[bytes]) -> list[float]:
    """By how many samples the tone of each block is early or late after the one before."""
    found = [_phase(block) for block in blocks]
    assert all(8000 < abs(one) < 10_000 for one in found), "no hole in it"
    turn = cmath.exp(2j * math.pi * HERTZ * BLOCK / RATE)
    return [cmath.phase(after / before / turn) / (2 * math.pi) * RATE / HERTZ
            for before, after in itertools.pairwise(found)]


def _endpoint(kind: Kind, name: str) -> Endpoint:
    return rank(endpoints(), kind, [name])[0]


def _amixer(*words: str) -> str:
    return subprocess.run(["amixer", *words], check=True, capture_output=True, text=True).stdout


def _devices(audio: PiAudio, kind: Kind) -> list[str]:
    return [fact.id for fact in audio.devices() if fact.kind is kind and fact.used]


@pytest.fixture
def listener() -> Listener:
    return Listener(TONE)


@pytest.fixture
def sound(request: pytest.FixtureRequest, listener: Listener) -> Iterator[PiAudio]:
    line = FaultLine()
    line.listen(listener.fault)
    audio = open_audio(getattr(request, "param", BOTH), line)
    yield audio
    audio.close()
    line.close()
    assert not [thread for thread in threading.enumerate() if thread.name in ("hw.audio", "hw.cards")]


@pytest.fixture
def first() -> Iterator[Bound]:
    loop = sound_loop(0)
    yield loop
    if not loop.plugged:
        loop.plug()


@pytest.fixture
def second() -> Iterator[Bound]:
    loop = sound_loop(1)
    yield loop
    if not loop.plugged:
        loop.plug()


# --- the contract


def test_blocks_come_at_their_pace_whole_and_with_what_was_played(sound: PiAudio) -> None:
    again_where(lambda: sound.figures.xruns + sound.figures.dropped > 0,  # a machine that starves the guest is seen to
                lambda: paces_whole_blocks(sound, most_delay_ms=60.0))


def test_a_stalled_receiver_is_counted_and_the_clock_goes_on(sound: PiAudio, machine: Machine) -> None:
    machine.while_it_runs(lambda: counts_a_stalled_receiver(sound, ring_ms=120.0))
    assert sound.figures.xruns >= 1


def test_it_starts_and_stops_over_and_over_and_leaves_nothing(sound: PiAudio, listener: Listener) -> None:
    for _ in range(5):
        sound.start(RATE, 10, listener.exchange)
        listener.until(listener.hears, 5.0)
        sound.stop()
        listener.blocks.clear()
    open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    sound.start(RATE, 20, listener.exchange)
    listener.until(lambda: len(listener.blocks) > 10, 5.0)
    sound.stop()
    assert len(os.listdir("/proc/self/fd")) == open_files  # noqa: PTH208


def test_its_thread_goes_first_where_that_is_allowed(sound: PiAudio, listener: Listener) -> None:
    sound.start(RATE, 10, listener.exchange)
    listener.until(listener.hears, 5.0)
    thread, = (one.native_id for one in threading.enumerate() if one.name == "hw.audio")
    assert sound.figures.realtime
    policy = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
    assert (policy, os.sched_getparam(thread).sched_priority) == (os.SCHED_FIFO, AudioConfig().priority)


NOT_ALLOWED = """
import threading
from hw.faults import FaultLine
from hw.pi.audio.device import AudioConfig, open_audio
heard, line = threading.Event(), FaultLine()
sound = open_audio(AudioConfig(microphones=("*",), speakers=("*",)), line)
sound.start(48_000, 10, lambda block: heard.set() or b"")
print(heard.wait(20), sound.figures.realtime)
sound.close()
line.close()
"""


def test_its_thread_runs_on_where_priority_is_not_allowed() -> None:
    done = subprocess.run(["setpriv", "--bounding-set=-sys_nice", sys.executable, "-c", NOT_ALLOWED],
                          capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "False"], done.stderr


# --- one clock, two clocks


def test_the_tone_comes_back_whole_beside_what_was_played(sound: PiAudio, listener: Listener) -> None:
    sound.start(RATE, 10, listener.exchange)
    end = time.monotonic() + STARVED_S
    while True:
        listener.until(listener.hears, 5.0)
        count, xruns = len(listener.blocks) + 50, sound.figures.xruns
        listener.more(351, 10.0)
        if sound.figures.xruns == xruns and not starved(listener.blocks[count - 50 :]):
            break
        assert time.monotonic() < end, "the machine starves the guest"
    blocks = [block for _, block in listener.blocks[count : count + 300]]
    assert max(map(abs, _steps([block.heard for block in blocks]))) < 0.05, "no click in 3 s"
    path = [cmath.phase(_phase(block.heard) / _phase(block.played)) for block in blocks]
    assert max(path) - min(path) < 0.1, "the way from loudspeaker to microphone has one length"
    assert sound.figures.drift_ppm is None, "one card has one clock"


@pytest.mark.parametrize("sound", [DEAF, TWO], ids=["monotonic", "microphone"], indirect=True)
@pytest.mark.parametrize("shift", [100_500, 99_500])
def test_a_clock_half_a_percent_off_is_followed_without_a_click(
    sound: PiAudio, listener: Listener, shift: int
) -> None:
    """The monotonic clock paces, or the microphone of another card, and the loudspeaker's is shifted; the far end of
    the loop has the same shifted clock, so it hears the tone without a break where the drift is corrected, and a gap or
    a jump where it is not."""
    _amixer("-c", "First", "cset", "iface=PCM,name='PCM Rate Shift 100000',device=1", str(shift))
    far = open_capture(_endpoint(Kind.MICROPHONE, "alsa:First/1"), RATE, 0.01)
    heard = bytearray()
    stop = threading.Event()

    def listen() -> None:
        far.read()
        while not stop.is_set():
            if far.wait(0.1):
                heard.extend(far.read())

    ear = threading.Thread(target=listen, name="ear")
    ear.start()
    try:
        sound.start(RATE, 10, listener.exchange)
        end = time.monotonic() + STARVED_S
        while True:
            listener.more(100, 10.0)
            drift = sound.figures.drift_ppm
            assert drift is not None
            broken, began = sound.figures.xruns + sound.figures.dropped + far.xruns, len(heard) // 960 * 960
            assert sound.figures.latency_ms is not None
            # and not still on its way back from a pause
            settled = abs(sound.figures.delay_ms - sound.figures.latency_ms) < 3
            if settled and abs(abs(drift) - 5000) < 300:
                listener.more(300, 10.0)
                if (sound.figures.xruns + sound.figures.dropped + far.xruns == broken
                        and not starved(listener.blocks[-320:])):
                    break
            assert time.monotonic() < end, f"{sound.figures}, far end {far.xruns} xruns"
        sample = bytes(heard[began : began + 960 * 250])
    finally:
        stop.set()
        ear.join()
        far.close()
        _amixer("-c", "First", "cset", "iface=PCM,name='PCM Rate Shift 100000',device=1", "100000")
    steps = _steps([sample[at : at + 960] for at in range(0, len(sample) - 959, 960)])
    assert len(steps) > 200
    assert 1.5 < abs(sum(steps) / len(steps)) < 3.3, "half a percent of a block is 2.4 samples: the pitch is right"
    assert max(abs(after - before) for before, after in itertools.pairwise(steps)) < 0.5, "and not half a sample jumps"


# --- plugs


def test_pulled_in_use_the_next_takes_over_and_the_best_takes_back(
    sound: PiAudio, listener: Listener, first: Bound, machine: Machine
) -> None:
    sound.start(RATE, 10, listener.exchange)
    listener.until(listener.hears, 5.0)
    for _ in range(5):
        assert _devices(sound, Kind.MICROPHONE) == ["alsa:First/1"]
        watch = machine.stopwatch()
        first.unplug()
        pulled = lambda: listener.told(Kind.MICROPHONE, FaultKind.PULLED, True, "alsa:First/1")  # noqa: E731
        listener.until(pulled, SLOW_S)
        word = pulled()
        assert word is not None
        assert word.detail == "microphone alsa:First/1 (Loopback) was unplugged: plug it in again"
        listener.until(lambda: listener.told(Kind.SPEAKER, FaultKind.PULLED, True, "alsa:First"), SLOW_S)
        listener.until(lambda: _devices(sound, Kind.SPEAKER) == ["alsa:Second"] and listener.hears(), SLOW_S)
        watch.within(SWITCH_S, "pulled: told, and sound of the next")
        watch = machine.stopwatch()
        first.plug()
        listener.until(lambda: listener.told(Kind.SPEAKER, FaultKind.PULLED, False), SLOW_S)
        listener.until(lambda: _devices(sound, Kind.SPEAKER) == ["alsa:First"] == _devices_of(sound), SLOW_S)
        listener.until(listener.hears, SLOW_S)
        watch.within(SWITCH_S, "plugged: sound of the best")
    _goes_on(listener, machine)


def _goes_on(listener: Listener, machine: Machine) -> None:
    """No gap in the exchange but the machine's."""
    gaps = [after - before - machine.stood_s(before, after)
            for (before, _), (after, _) in itertools.pairwise(listener.blocks) if after - before > 0.1]
    print(f"gaps: {[round(gap, 2) for gap in gaps]}")
    assert max(gaps, default=0.0) < 0.6, "the exchange goes on"


def test_what_is_selected_is_used_at_once_and_the_exchange_goes_on(
    sound: PiAudio, listener: Listener, machine: Machine
) -> None:
    sound.start(RATE, 10, listener.exchange)
    listener.until(listener.hears, 5.0)
    for microphone, speaker in (("alsa:Second/1", "alsa:Second"), ("", "")):
        sound.select(Kind.MICROPHONE, microphone)
        listener.until(lambda: not listener.hears(), SLOW_S)  # what plays is in the other card's loop
        watch = machine.stopwatch()
        sound.select(Kind.SPEAKER, speaker)
        assert (_devices(sound, Kind.MICROPHONE), _devices(sound, Kind.SPEAKER)) == (
            [microphone or "alsa:First/1"], [speaker or "alsa:First"])
        listener.until(listener.hears, SLOW_S)
        watch.within(SWITCH_S, "selected: heard")
    _goes_on(listener, machine)
    assert not [fault for fault in listener.faults if fault.fault in (FaultKind.PULLED, FaultKind.MISSING)]


def _devices_of(audio: PiAudio) -> list[str]:
    return [name.removesuffix("/1") for name in _devices(audio, Kind.MICROPHONE)]


def test_without_any_device_the_call_goes_on_in_silence(
    sound: PiAudio, listener: Listener, first: Bound, second: Bound
) -> None:
    sound.start(RATE, 10, listener.exchange)
    listener.until(listener.hears, 5.0)
    first.unplug()
    second.unplug()
    for kind in (Kind.MICROPHONE, Kind.SPEAKER):
        listener.until(lambda kind=kind: listener.told(kind, FaultKind.MISSING, True, kind.value), 2.0)
    count = len(listener.blocks)
    listener.until(lambda: len(listener.blocks) > count + 100, 3.0)
    (began, _), (ended, _) = listener.blocks[count], listener.blocks[count + 100]
    lost = sum(block.missed for _, block in listener.blocks[count + 1 : count + 101])
    assert abs(ended - began - (1.0 + lost * 0.01)) < 0.15
    assert not any(listener.blocks[-1][1].heard)
    assert not any(fact.present for fact in sound.devices() if fact.listed)
    second.plug()
    listener.until(listener.hears, 3.0)
    listener.until(lambda: listener.told(Kind.MICROPHONE, FaultKind.MISSING, False), 2.0)
    sound.stop()


def test_nothing_at_the_start_is_missing(listener: Listener, first: Bound, second: Bound, sound: PiAudio) -> None:
    first.unplug()
    second.unplug()
    with pytest.raises(DeviceMissingError, match="neither microphone nor loudspeaker that the board file names"):
        sound.start(RATE, 10, listener.exchange)
    first.plug()
    sound.start(RATE, 10, listener.exchange)
    listener.until(listener.hears, 5.0)


# --- who cannot be had


HOLD = """
import alsaaudio, sys
pcm = alsaaudio.PCM(type=alsaaudio.PCM_PLAYBACK, device="hw:CARD=First,DEV=0", rate=48000, channels=1,
                    format=alsaaudio.PCM_FORMAT_S16_LE, periodsize=480)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_busy_device_is_named_with_its_holder_and_taken_when_it_is_free(
    sound: PiAudio, listener: Listener
) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        words = rf"speaker alsa:First \(Loopback\) is held by python\S* \({holder.pid}\): end it"
        with pytest.raises(DeviceBusyError, match=words):
            open_playback(_endpoint(Kind.SPEAKER, "alsa:First"), RATE)
        sound.start(RATE, 10, listener.exchange)
        listener.until(lambda: listener.told(Kind.SPEAKER, FaultKind.BUSY, True, "alsa:First"), 2.0)
        listener.until(lambda: _devices(sound, Kind.SPEAKER) == ["alsa:Second"], 2.0)
        held = next(fact for fact in sound.devices() if fact.kind is Kind.SPEAKER and fact.id == "alsa:First")
        assert f"({holder.pid}): end it" in held.note
        holder.communicate()
    listener.until(lambda: listener.told(Kind.SPEAKER, FaultKind.BUSY, False, "alsa:First"), 3.0)
    listener.until(listener.hears, 3.0)
    assert _devices(sound, Kind.SPEAKER) == ["alsa:First"]


def test_a_device_that_may_not_be_opened_says_which_group_is_lacking() -> None:
    microphone = _endpoint(Kind.MICROPHONE, "alsa:First/1")
    os.seteuid(65_534)
    try:
        with pytest.raises(DeviceDeniedError, match="may not be opened: add the user to the group audio"):
            open_capture(microphone, RATE, 0.01)
    finally:
        os.seteuid(0)


def test_a_format_that_is_none_of_ours_is_told_with_what_is_offered() -> None:
    far = alsaaudio.PCM(type=alsaaudio.PCM_PLAYBACK, device="hw:CARD=First,DEV=0", rate=96_000, channels=1,
                        format=alsaaudio.PCM_FORMAT_FLOAT_LE, periodsize=960)
    try:
        with pytest.raises(DeviceFormatError, match=r"offers FLOAT_LE with 1 channels at 96000 Hz; usable are S16_LE"):
            open_capture(_endpoint(Kind.MICROPHONE, "alsa:First/1"), RATE, 0.01)
    finally:
        far.drop()
        far.close()


# --- mixer and mute


@pytest.mark.parametrize("sound", [DUMMY], indirect=True)
def test_volume_is_the_mixer_s_both_ways(sound: PiAudio, listener: Listener) -> None:
    sound.start(RATE, 10, listener.exchange)
    for percent in (30, 70):
        sound.set_volume(percent)
        assert sound.volume == percent
        listener.until(lambda percent=percent: f"[{percent}%]" in _amixer("-c", "Dummy", "sget", "Master"), 2.0)
    _amixer("-q", "-c", "Dummy", "sset", "Master", "0%")  # somebody turns the knob
    listener.until(lambda: listener.told(Kind.SPEAKER, FaultKind.ZERO_VOLUME, True), 2.0)
    assert sound.volume == 0
    _amixer("-q", "-c", "Dummy", "sset", "Master", "50%")
    listener.until(lambda: listener.told(Kind.SPEAKER, FaultKind.ZERO_VOLUME, False), 2.0)
    assert sound.volume == 50
    with pytest.raises(ValueError, match="outside 0 to 100"):
        sound.set_volume(101)


@pytest.mark.parametrize("sound", [DUMMY], indirect=True)
def test_a_switch_that_somebody_turned_off_is_told(sound: PiAudio, listener: Listener) -> None:
    sound.start(RATE, 10, listener.exchange)
    assert "Capture [on]" in _amixer("-c", "Dummy", "sget", "Mic")
    # both channels at once: snd-dummy tells nobody when one changes alone
    _amixer("-q", "-c", "Dummy", "cset", "name='Mic Capture Switch'", "off,off")
    listener.until(lambda: listener.told(Kind.MICROPHONE, FaultKind.MUTED, True, "alsa:Dummy"), 2.0)
    _amixer("-q", "-c", "Dummy", "cset", "name='Mic Capture Switch'", "on,on")
    listener.until(lambda: listener.told(Kind.MICROPHONE, FaultKind.MUTED, False, "alsa:Dummy"), 2.0)


def test_the_mute_line_silences_at_the_source(sound: PiAudio, listener: Listener) -> None:
    sound.start(RATE, 10, listener.exchange)
    listener.until(listener.hears, 5.0)
    sound.mute_line(True)
    count = len(listener.blocks) + 1
    listener.until(lambda: len(listener.blocks) > count + 50, 3.0)
    assert not any(any(block.heard) for _, block in listener.blocks[count:])
    sound.mute_line(False)
    listener.until(listener.hears, 2.0)
    assert not [fault for fault in listener.faults if fault.fault in (FaultKind.SILENT, FaultKind.MUTED)]


@pytest.mark.parametrize("sound", [DUMMY], indirect=True)
def test_the_mute_line_turns_the_capture_switch_off(sound: PiAudio, listener: Listener) -> None:
    sound.start(RATE, 10, listener.exchange)
    sound.mute_line(True)
    listener.until(lambda: "Capture [off]" in _amixer("-c", "Dummy", "sget", "Mic"), 2.0)
    sound.mute_line(False)
    listener.until(lambda: "Capture [on]" in _amixer("-c", "Dummy", "sget", "Mic"), 2.0)
    assert not [fault for fault in listener.faults if fault.fault is FaultKind.MUTED]


# --- doctor


def test_the_doctor_names_what_is_here_what_is_held_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], machine: Machine
) -> None:
    board, record = tmp_path / "board.toml", tmp_path / "heard.wav"
    board.write_text('[audio]\nmicrophones = ["alsa:First/1"]\nspeakers = ["alsa:First"]\nvolume = 100\n')
    words = ["--board-file", str(board), "--play", "--record", str(record), "--seconds", "1"]
    began = time.monotonic()
    assert doctor.main(words) == 0, capsys.readouterr().out
    stood_s = machine.stood_s(began, time.monotonic())
    said = capsys.readouterr().out
    assert re.search(r"microphone +alsa:First/1 +\S+: in use\n", said)
    assert "also here    speaker alsa:Dummy (Dummy)" in said
    assert "played       660 Hz for 1 s" in said
    with wave.open(str(record)) as file:
        assert 0.8 - stood_s < file.getnframes() / RATE < 1.3 + stood_s
        assert loud(file.readframes(RATE))
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert doctor.main(["--board-file", str(board)]) == 1
        holder.communicate()
    said = capsys.readouterr().out
    assert "! speaker alsa:First is busy: speaker alsa:First" in said
    assert f"({holder.pid}): end it" in said


# --- xruns


HANGS = 8


def _recovers(sound: PiAudio, listener: Listener, machine: Machine, asleep_s: float) -> tuple[list[float], list[float]]:
    """The exchange hangs over and over, for longer than both rings last: they run over, and empty. Returns of each time
    the seconds from its end to the first block that was captured then, in which the machine did not stand still and had
    nothing to do; and how much of the sound that was lost meanwhile is in no count."""
    hang, slept, back = threading.Event(), [(0.0, 0.0)], [(0.0, 0.0)]

    def exchange(block: AudioBlock) -> bytes:
        if block.missed and slept[-1] > back[-1]:
            back.append((time.monotonic(), free_s()))
        if hang.is_set():
            hang.clear()
            time.sleep(asleep_s)
            slept.append((time.monotonic(), free_s()))
        return listener.exchange(block)

    sound.start(RATE, 10, exchange)
    listener.until(listener.hears, SLOW_S)
    recovered, uncounted = [], []
    for number in range(1, HANGS + 1):
        begin, xruns = len(listener.blocks), sound.figures.xruns
        hang.set()
        listener.until(lambda number=number: len(back) > number, SLOW_S)
        listener.until(listener.hears, SLOW_S)
        assert sound.figures.xruns >= xruns + 2, "the microphone's and the loudspeaker's"
        blocks = listener.blocks[begin - 1 :]
        lasted, lost = blocks[-1][0] - blocks[0][0], sum(block.missed for _, block in blocks[1:])
        uncounted.append(abs((len(blocks) - 1 + lost) * 0.01 - lasted))
        (ended, free_then), (came, free_now) = slept[number], back[number]
        recovered.append(min(came - ended - machine.stood_s(ended, came), free_now - free_then + 0.01))
    print(f"recovered after {[round(one * 1000) for one in recovered]} ms; uncounted at most {max(uncounted):.2f} s")
    return recovered, uncounted


@pytest.mark.parametrize("asleep_s", [0.3, 0.8])
def test_an_xrun_costs_no_more_than_100_ms(
    sound: PiAudio, listener: Listener, machine: Machine, asleep_s: float
) -> None:
    recovered, uncounted = _recovers(sound, listener, machine, asleep_s)
    assert max(recovered) < 0.1, "each time"
    assert max(uncounted) < 0.15, "what was lost is in the count of blocks, but for what a ring holds"
    told = {fault.fault for fault in listener.faults} - {FaultKind.DROPOUTS}
    assert not told, "that we were late is no fault of the cards"


def test_one_that_costs_more_is_seen(
    sound: PiAudio, listener: Listener, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, dead = Capture.read, [0.0]

    def slow(capture: Capture) -> bytes:
        before, pcm = capture.xruns, read(capture)
        if capture.xruns > before:
            dead[0] = time.monotonic() + 0.2
        return pcm if time.monotonic() > dead[0] else b""

    monkeypatch.setattr(Capture, "read", slow)
    assert max(_recovers(sound, listener, machine, 0.3)[0]) > 0.1


def test_a_loudspeaker_that_keeps_running_empty_gets_more_time_and_that_is_told(
    sound: PiAudio, listener: Listener
) -> None:
    pause_s = 0.0

    def exchange(block: AudioBlock) -> bytes:
        nonlocal pause_s
        asleep_s, pause_s = pause_s, 0.0
        time.sleep(asleep_s)
        return listener.exchange(block)

    sound.start(RATE, 10, exchange)
    listener.until(listener.hears, 5.0)
    assert sound.figures.latency_ms == BOTH.latency_ms
    pause_s = 0.15  # more may wait than is meant to, up to 60 ms, where the start was slow: that begins anew
    listener.more(30, 10.0)
    unheard = 0
    for _ in range(12):
        xruns, pause_s = sound.figures.xruns, 0.06  # longer than what waits on the way, shorter than what may
        listener.more(30, 10.0)
        unheard = unheard + 1 if sound.figures.xruns == xruns else 0
        if unheard == 2:  # one alone may have met a moment in which the card had no time itself
            break
    raised = sound.figures.latency_ms
    assert raised is not None
    assert 50 <= raised <= 100, "until such a pause passes unheard"
    for _ in range(12):
        pause_s = 0.3  # over everything: both cards are late
        listener.more(30, 10.0)
    word = listener.told(Kind.SPEAKER, FaultKind.DROPOUTS, True, "sound")
    assert word is not None
    assert re.fullmatch(r"1[1-9] xruns within a minute; \d+ ms wait on the way to the loudspeaker, of which the board "
                        r"file sets 20", word.detail)
    assert sound.figures.latency_ms == 100
    sound.stop()
    listener.until(lambda: listener.told(Kind.SPEAKER, FaultKind.DROPOUTS, False, "sound"), 2.0)
    sound.start(RATE, 10, exchange)
    assert sound.figures.latency_ms == BOTH.latency_ms
