"""Echo by numbers: the meter, the policy, the guard; and voice processing around a canceller of the test's own."""

from __future__ import annotations

import asyncio
import math
import threading
from array import array
from collections import deque
from collections.abc import Callable

import pytest

from appliance.errors import Refused
from appliance.media import acoustics as acoustics_module
from appliance.media.acoustics import Acoustics, Override
from appliance.media.canceller import EchoCanceller, Filters, NoiseSuppression
from appliance.media.chirp import AcousticPath, Probe, chirp
from appliance.media.echo import WINDOW_BLOCKS, Duplex, DuplexPolicy, DuplexWanted, EchoMeter, HalfDuplexGuard, Verdict
from appliance.media.sound import BLOCK_BYTES, SILENCE, attenuate, dbfs, mean_square
from appliance.media.voice import OVERLAP_BLOCKS, Treatment, VoiceProcessing
from appliance.settings import AudioSettings
from hw.api import AudioBlock

NOISE = 10 ** (-80 / 10)
VOICE = array("h", [int(8000 * math.sin(2 * math.pi * 700 * n / 48_000)) for n in range(BLOCK_BYTES // 2)]).tobytes()


def square(dbfs_: float) -> float:
    return 10 ** (dbfs_ / 10)


class Place:
    """A meter fed with levels: ``loss`` from played to heard, ``cancelled`` off that; near in dBFS."""

    def __init__(self) -> None:
        self.meter = EchoMeter()
        self.meter.set_delay(0)
        self.verdicts: list[Verdict] = []
        self.talk(0.5, far=-127)

    def talk(self, seconds: float, *, far: float = -20, loss: float = 12, cancelled: float = 30,
             near: float = -127) -> None:
        for number in range(round(seconds * 100)):
            far_now = far if number % 40 < 30 else -127  # syllables
            echo = square(far_now - loss)
            verdict = self.meter.block(square(far_now), echo + square(near) + NOISE,
                                       echo * square(-cancelled) + square(near) + NOISE)
            if verdict is not None:
                self.verdicts.append(verdict)


def test_the_meter_tells_loss_and_enhancement_of_an_echo_alone() -> None:
    place = Place()
    assert place.meter.erl_db is None
    assert place.meter.erle_db is None
    place.talk(5)
    assert place.meter.erl_db == pytest.approx(12, abs=0.5)
    assert place.meter.erle_db == pytest.approx(30, abs=1.5)
    assert place.meter.residual_dbfs == pytest.approx(-64, abs=3)
    assert place.meter.double_talk_s == 0
    assert place.meter.far_s == pytest.approx(5, abs=0.3)


def test_who_talks_meanwhile_is_double_talk_and_changes_neither_figure() -> None:
    place = Place()
    place.talk(5)
    place.talk(2, near=-15)
    assert place.meter.double_talk_s == pytest.approx(2, abs=0.4)
    assert place.meter.erl_db == pytest.approx(12, abs=1)
    assert place.meter.erle_db == pytest.approx(30, abs=3)


def test_a_path_that_became_louder_is_believed_after_some_seconds() -> None:
    place = Place()
    place.talk(5, loss=25)
    place.talk(10, loss=5)
    assert place.meter.erl_db == pytest.approx(5, abs=1.5)


def test_silence_and_what_drowns_in_noise_prove_nothing() -> None:
    place = Place()
    place.talk(3, far=-127, near=-20)
    place.talk(3, far=-50)
    place.talk(1, far=-127)
    place.talk(3, far=-20, loss=65)
    assert set(place.verdicts) == {Verdict.SILENT}
    assert place.meter.erle_db is None


def judged(policy: DuplexPolicy, meter: EchoMeter, windows: int, verdict: Verdict = Verdict.ECHO, *,
           ducked: bool = False, talk_key: bool = True) -> Duplex:
    for _ in range(windows):
        policy.judge(verdict, meter, ducked=ducked, talk_key=talk_key)
    return policy.now


def test_half_duplex_comes_with_a_defeated_canceller_and_goes_with_a_working_one() -> None:
    bad, good = Place(), Place()
    bad.talk(3, cancelled=3)
    good.talk(3, cancelled=30)
    policy = DuplexPolicy()
    assert judged(policy, bad.meter, 14) is Duplex.FULL
    assert judged(policy, bad.meter, 1000, Verdict.DOUBLE_TALK) is Duplex.FULL, "double talk proves nothing"
    assert judged(policy, bad.meter, 1) is Duplex.HALF
    assert judged(policy, good.meter, 29) is Duplex.HALF
    assert judged(policy, good.meter, 1) is Duplex.FULL
    quiet = Place()
    quiet.talk(3, far=-35, loss=30, cancelled=0)
    assert judged(policy, quiet.meter, 100) is Duplex.FULL, "nobody hears an echo of -65 dBFS"


def test_push_to_talk_comes_only_with_a_key_and_an_other_side_that_never_pauses() -> None:
    bad = Place()
    bad.talk(3, cancelled=3)
    assert judged(DuplexPolicy(Duplex.HALF), bad.meter, 300, ducked=True, talk_key=False) is Duplex.HALF
    policy = DuplexPolicy(Duplex.HALF)
    for _ in range(5):
        judged(policy, bad.meter, 150, ducked=True)
        assert judged(policy, bad.meter, 1, ducked=False) is Duplex.HALF
    assert judged(policy, bad.meter, 200, Verdict.SILENT, ducked=True) is Duplex.PUSH_TO_TALK


def test_the_guard_expects_the_echo_where_the_path_says_it_is() -> None:
    guard = HalfDuplexGuard()
    loud, faint = VOICE, array("h", [value // 8 for value in array("h", VOICE)]).tobytes()
    assert guard(faint, loud, -18.0) is not faint, "as loud as its echo"
    assert guard(loud, loud, -18.0) is loud, "18 dB above its echo: somebody talks"
    assert guard(loud, loud, 0.0) is not loud


class Halving:
    """A canceller that makes everything 6 dB quieter and remembers what it was made for."""

    made: list[tuple[Filters, int]]

    def __init__(self, filters: Filters, delay_ms: int) -> None:
        self.filters = filters
        self.gain_db = 0.0
        type(self).made.append((filters, delay_ms))

    def process(self, near: bytes, far: bytes) -> bytes:
        return array("h", [value // 2 for value in array("h", near)]).tobytes()


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    Halving.made = []


def factory(filters: Filters, delay_ms: int) -> EchoCanceller:
    return Halving(filters, delay_ms)


def voice(treatment: Treatment, *, installed: bool = True) -> VoiceProcessing:
    made = VoiceProcessing(Treatment(), lambda: factory if installed else None, talk_key=True)
    if made.must_load(treatment):
        made.load()
    made.want(treatment)
    return made


def levels(of: VoiceProcessing, blocks: int, heard: bytes = VOICE, played: bytes = SILENCE) -> list[float]:
    return [dbfs(mean_square(of.process(heard, played))) for _ in range(blocks)]


def test_nothing_wanted_is_nothing_done() -> None:
    untouched = voice(Treatment())
    assert not untouched.active
    assert untouched.process(VOICE, SILENCE) is VOICE
    assert Halving.made == []


def test_a_new_chain_runs_beside_the_old_one_and_is_faded_in() -> None:
    of = voice(Treatment(Filters(aec=True)))
    assert of.active
    told = levels(of, OVERLAP_BLOCKS + 5)
    before, at, after = told[: OVERLAP_BLOCKS - 1], told[OVERLAP_BLOCKS - 1], told[OVERLAP_BLOCKS :]
    assert set(before) == {told[0]}
    assert after == pytest.approx([told[0] - 6.02] * 5, abs=0.05)
    assert told[0] > at > told[0] - 6
    assert of.cancelling
    of.want(Treatment())
    levels(of, OVERLAP_BLOCKS)
    assert not of.active


def test_between_calls_what_is_wanted_is_taken_over_at_once() -> None:
    of = voice(Treatment(Filters(aec=True)))
    of.rest()
    assert of.cancelling
    assert levels(of, 1) == pytest.approx([dbfs(mean_square(VOICE)) - 6.02], abs=0.05)


def test_the_last_wish_of_several_wins() -> None:
    of = voice(Treatment(Filters(aec=True)))
    levels(of, 10)
    of.want(Treatment(Filters(aec=True, agc=True)))
    levels(of, 10)
    of.want(Treatment(Filters(agc=True)))
    of.want(Treatment(Filters(agc=True)))
    assert [filters for filters, _ in Halving.made] == [
        Filters(aec=True), Filters(aec=True, agc=True), Filters(agc=True)]
    levels(of, OVERLAP_BLOCKS)
    assert of.facts()["actual"] == {"aec": False, "ns": "off", "agc": True, "highpass": False, "halfDuplex": "full"}


def test_a_measured_delay_reaches_the_canceller_once() -> None:
    of = voice(Treatment(Filters(aec=True)))
    levels(of, OVERLAP_BLOCKS)
    of.set_path(85)
    of.set_path(85)
    assert [delay for _, delay in Halving.made] == [0, 85]


def test_without_a_canceller_one_side_is_heard_at_a_time_and_that_is_told() -> None:
    of = voice(Treatment(Filters(aec=True), DuplexWanted.AUTO), installed=False)
    assert of.duplex is Duplex.HALF
    assert of.defeated
    assert "no echo canceller" in of.facts()["reason"]
    assert levels(of, 1, VOICE, VOICE)[0] < levels(of, 40, VOICE, SILENCE)[-1] - 20
    assert of.source_stats() == {}


def test_push_to_talk_lets_out_what_is_said_with_the_key_held_and_nothing_else() -> None:
    of = voice(Treatment(duplex=DuplexWanted.PUSH_TO_TALK))
    assert levels(of, WINDOW_BLOCKS) == [-127] * WINDOW_BLOCKS
    assert not of.quiet
    of.talking = True
    assert of.quiet, "the loudspeaker is silent meanwhile"
    assert levels(of, 1)[0] > -20
    of.want(Treatment())
    assert not of.quiet, "without push-to-talk the key does nothing"


@pytest.mark.parametrize(("settings", "echoes", "wanted"), [
    (AudioSettings(), False, Treatment()),
    (AudioSettings(), True,
     Treatment(Filters(aec=True, ns=NoiseSuppression.LOW, highpass=True), DuplexWanted.AUTO)),
    (AudioSettings(echo="none"), True, Treatment(Filters(ns=NoiseSuppression.LOW, highpass=True))),
    (AudioSettings(echo="cancel", noise_suppression="off", automatic_gain=True, high_pass=False, half_duplex="on"),
     False, Treatment(Filters(aec=True, agc=True), DuplexWanted.ON)),
], ids=["no path", "path", "own canceller", "as said"])
async def test_settings_mean_what_they_say(settings: AudioSettings, echoes: bool, wanted: Treatment) -> None:
    acoustics = Acoustics(settings, lambda: echoes, find=lambda: factory)
    await acoustics.settle()
    assert acoustics.voice.wanted == wanted


async def test_a_command_goes_before_the_settings_until_it_is_taken_back() -> None:
    acoustics = Acoustics(AudioSettings(), lambda: True, find=lambda: factory)
    await acoustics.override(Override(aec=False, ns=NoiseSuppression.OFF))
    await acoustics.override(Override(duplex=DuplexWanted.ON))
    assert acoustics.voice.wanted == Treatment(Filters(highpass=True), DuplexWanted.ON)
    acoustics.configure(AudioSettings(high_pass=False, automatic_gain=True))
    await acoustics.settle()
    assert acoustics.voice.wanted == Treatment(Filters(agc=True), DuplexWanted.ON)


async def test_a_measurement_makes_way_while_its_chirp_is_still_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = threading.Event()

    def slowly() -> bytes:
        made.wait(5)
        return SILENCE

    monkeypatch.setattr(acoustics_module, "chirp", slowly)
    acoustics = Acoustics(AudioSettings(), lambda: True, find=lambda: factory)
    measuring = asyncio.create_task(acoustics.calibrate())
    await asyncio.sleep(0)
    acoustics.interrupt()
    made.set()
    with pytest.raises(Refused) as call:
        await measuring
    assert call.value.sub_code == "inCall"
    assert acoustics.probe is None


async def test_of_two_measurements_at_once_one_is_refused() -> None:
    acoustics = Acoustics(AudioSettings(), lambda: True, find=lambda: factory)
    both = {asyncio.create_task(acoustics.calibrate()) for _ in range(2)}
    done, measuring = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    assert [getattr(task.exception(), "sub_code", "") for task in done] == ["busy"]
    assert acoustics.probe is not None
    acoustics.interrupt()
    for task in measuring:
        with pytest.raises(Refused):
            await task


async def measured(heard: Callable[[int, bytes], bytes]) -> AcousticPath | None:
    """What a probe finds when block ``n``, during which the second argument was played, sounds like ``heard``."""
    probe, played = Probe(chirp()), SILENCE
    for number in range(len(probe._sound) // BLOCK_BYTES):
        played = probe.exchange(AudioBlock(heard(number, played), played))
    return await probe.path()


async def test_the_same_path_twice_is_one() -> None:
    echo: deque[bytes] = deque([SILENCE] * 5)

    def room(_: int, played: bytes) -> bytes:
        echo.append(attenuate(played, 2))
        return echo.popleft()

    path = await measured(room)
    assert path is not None
    assert path.delay_ms == pytest.approx(50, abs=1)
    assert path.loss_db == pytest.approx(12, abs=1)


async def test_what_looks_like_a_path_only_once_is_none() -> None:
    """Speech into the microphone of a board without a path: a delay, but each time another."""
    sound = chirp()
    blocks = [sound[at : at + BLOCK_BYTES] for at in range(0, len(sound), BLOCK_BYTES)]
    begins = (7, 170 + 31)

    def voice(number: int, _: bytes) -> bytes:
        for begin in begins:
            if begin <= number < begin + len(blocks):
                return blocks[number - begin]
        return SILENCE

    assert await measured(voice) is None


async def test_who_changed_a_filter_is_told_when_it_is_in_force() -> None:
    acoustics = Acoustics(AudioSettings(), lambda: True, find=lambda: factory)
    await acoustics.settle()
    acoustics.voice.rest()
    await acoustics.override(Override(agc=True))
    assert not acoustics.voice.settled
    waiting = asyncio.create_task(acoustics.in_force(10))
    await asyncio.sleep(0)
    await asyncio.to_thread(acoustics.voice.rest)
    await asyncio.wait_for(waiting, 5)
    assert acoustics.facts()["actual"]["agc"] is True
    await acoustics.override(Override(agc=False))
    await acoustics.in_force(0.01)  # nobody pulls: it does not wait for ever
