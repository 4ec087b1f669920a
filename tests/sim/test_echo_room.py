"""The canceller that is installed, in the simulated room: what it takes away, what it leaves, and when it fails.

No clock and no thread: sound is handed through as fast as it can be computed, and the figures are the same each time.
"""

from __future__ import annotations

import math
from array import array

import pytest

from appliance.media.canceller import Filters, NoiseSuppression
from appliance.media.chirp import TAIL_BLOCKS, chirp, find_path
from appliance.media.echo import Duplex, DuplexWanted
from appliance.media.sound import BLOCK_BYTES, SILENCE, dbfs
from appliance.media.voice import Treatment
from hw.sim import sounds
from hw.sim.audio import EchoPath
from hw.sim.sounds import Loop, open_sound
from tests.support.echo_room import EchoRoom

ALL = Filters(aec=True, ns=NoiseSuppression.LOW, highpass=True)


@pytest.fixture(autouse=True)
def one_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made speech, on every machine the same."""
    monkeypatch.setattr(sounds, "SPEECH_FILES", ())


@pytest.mark.parametrize(("filters", "room"), [
    (Filters(aec=True), {}),
    (ALL, {}),
    (ALL, {"delay_ms": 180.0, "loss_db": 0.0}),
    (ALL, {"drive_db": 12.0}),
], ids=["echo alone", "as set at first", "late and loud", "saturated loudspeaker"])
def test_after_two_seconds_30_db_of_the_echo_are_gone(filters: Filters, room: dict[str, float]) -> None:
    room_ = EchoRoom(filters, far=open_sound("speech"), **room)
    room_.run(2)
    room_.run(4)
    assert room_.gain_db(4) <= -30
    meter = room_.voice.meter
    assert meter.erl_db == pytest.approx(room.get("loss_db", 10.0), abs=4)
    assert meter.erle_db == pytest.approx(-room_.gain_db(2), abs=20)
    assert meter.double_talk_s < 0.1 * meter.far_s, "nobody talked at the microphone"


def test_who_talks_alone_at_the_microphone_is_left_alone() -> None:
    room = EchoRoom(ALL, far=open_sound("speech"))
    room.run(4)
    room.far, room.near = None, open_sound("speech")
    room.run(0.5)
    room.run(4)
    assert -1 <= room.gain_db(4) <= 0.5


def test_a_path_that_changes_is_found_again_within_two_seconds() -> None:
    room = EchoRoom(ALL, far=open_sound("speech"))
    room.run(4)
    room.move()
    room.run(2)
    room.run(2)
    assert room.gain_db(2) <= -30


def test_double_talk_is_heard_and_told() -> None:
    room = EchoRoom(Filters(aec=True), loss_db=20, far=open_sound("speech"))
    room.run(4)
    room.near = open_sound("speech")
    room.near.read(BLOCK_BYTES * 137)  # not the same words at the same moment
    before = room.voice.meter.double_talk_s
    room.run(4)
    assert room.voice.meter.double_talk_s - before > 1.5
    assert room.gain_db(4) > -6, "the near talker stays audible where the echo is not louder than he is"
    assert (room.voice.meter.erle_db or 0) > 20, "what somebody says is not taken for echo"


def test_filters_change_without_a_gap() -> None:
    tone = Loop(array("h", [int(8000 * math.sin(2 * math.pi * 1000 * n / 48_000)) for n in range(48_000)]).tobytes())
    room = EchoRoom(Filters(), near=tone)
    for filters in (Filters(aec=True), Filters(aec=True, highpass=True), Filters(highpass=True), Filters()):
        room.voice.want(Treatment(filters))
        room.run(0.8)
        assert room.voice.facts()["actual"]["aec"] is filters.aec
        assert room.voice.facts()["actual"]["highpass"] is filters.highpass
    levels = [dbfs(square) for square in room.left[10:]]
    assert max(levels) - min(levels) < 3, "never a block without the tone, never a step"


def test_noise_goes_and_quiet_voices_rise_where_it_is_wanted() -> None:
    hiss = EchoRoom(Filters(ns=NoiseSuppression.HIGH), near=Loop(_hiss(300)))
    hiss.run(4)
    assert hiss.gain_db(1) < -12
    quiet = EchoRoom(Filters(agc=True), near=Loop(
        array("h", [value // 8 for value in array("h", open_sound("speech").read(480_000))]).tobytes()))
    quiet.run(6)
    assert quiet.gain_db(1) > 6


def _hiss(peak: int) -> bytes:
    return array("h", [value * peak for value in array("h", sounds.quiet(48_000))]).tobytes()


def test_half_duplex_where_the_echo_comes_too_late_for_the_canceller_and_back() -> None:
    room = EchoRoom(Filters(aec=True), DuplexWanted.AUTO, loss_db=5, far=open_sound("speech"))
    room.path.set(700, 5)
    room.run(12)
    assert room.voice.duplex is Duplex.HALF
    assert room.voice.defeated
    room.path.set(60, 5)
    room.run(8)
    assert room.voice.duplex is Duplex.FULL
    assert not room.voice.defeated


def test_push_to_talk_where_the_other_side_never_pauses_and_there_is_a_key() -> None:
    room = EchoRoom(Filters(aec=True), DuplexWanted.AUTO, talk_key=True, loss_db=5, far=open_sound("speech"))
    room.path.set(700, 5)
    room.run(12)
    assert room.voice.duplex is Duplex.HALF
    room.far = Loop(_hiss(10_000))
    room.run(21)
    assert room.voice.duplex is Duplex.PUSH_TO_TALK
    room.run(1)
    assert room.gain_db(1) == -127 - dbfs(sum(room.heard[-100:]) / 100), "nothing leaves"
    room.voice.talking = True
    assert room.voice.quiet, "the loudspeaker is silent while somebody talks by the key"
    room.far, room.near = None, open_sound("speech")
    room.run(2)
    assert room.gain_db(1) > -6


@pytest.mark.parametrize(("delay", "loss", "reverberation", "drive"), [
    (20, 6, 0, 0), (60, 10, 300, 0), (120, 20, 300, 0), (250, 40, 500, 0), (400, 30, 200, 12),
])
def test_the_chirp_finds_delay_and_loss(delay: int, loss: int, reverberation: int, drive: int) -> None:
    path = EchoPath(delay, loss)
    path.furnish(reverberation, drive_db=drive)
    floor = open_sound("silence")
    played = chirp() + SILENCE * TAIL_BLOCKS
    heard = b"".join(path.add(floor.read(BLOCK_BYTES), played[at : at + BLOCK_BYTES])
                     for at in range(0, len(played), BLOCK_BYTES))
    found = find_path(played, heard)
    assert found is not None
    assert found.delay_ms == pytest.approx(delay, abs=1)
    assert found.loss_db == pytest.approx(loss, abs=2)
    assert not found.clipped


def test_the_chirp_tells_a_dead_loudspeaker_from_a_quiet_one() -> None:
    played = chirp() + SILENCE * TAIL_BLOCKS
    assert find_path(played, open_sound("speech").read(len(played))) is None
    assert find_path(played, sounds.quiet(len(played) // 2)) is None
    assert find_path(played, bytes(len(played))) is None
    assert find_path(bytes(len(played)), played) is None
