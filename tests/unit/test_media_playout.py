"""Play-out on virtual time: what the loudspeaker gets of a voice whose packets are late, lost, doubled or paused."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.media.jitter import LEAST_S, MOST_S, DelayTarget
from appliance.media.opus import OpusDecoder, OpusEncoder, OpusError, frame_samples, has_fec, is_dtx
from appliance.media.playout import Playout
from appliance.media.sound import BLOCK_BYTES, RATE, audioop
from appliance.media.stretch import NEEDED, Concealer, longer, period, shorter
from appliance.media.voice_codecs import VOICE_CODECS
from tests.support.media_pair import goertzel
from tests.support.voice_path import FRAME, Path, speech_like


def lossy(share: float, seed: int = 3, jitter: float = 0.005) -> Callable[[float], float | None]:
    chance = random.Random(seed)
    return lambda at: None if chance.random() < share else 0.03 + chance.random() * jitter


def sine(hertz: float, samples: int, level: float = 0.3) -> bytes:
    return array("h", [int(32767 * level * math.sin(2 * math.pi * hertz * n / RATE)) for n in range(samples)]).tobytes()


# -- the codec


def test_opus_goes_through_and_refuses_what_is_not_opus() -> None:
    encoder, decoder = OpusEncoder(32_000), OpusDecoder()
    packets = [encoder.encode(sine(440, (n + 1) * FRAME)[-FRAME * 2 :]) for n in range(10)]
    pcm = b"".join(decoder.decode(packet) for packet in packets)
    assert len(pcm) == 10 * FRAME * 2
    assert goertzel(pcm[FRAME * 4 :], 440) > 0.2
    assert frame_samples(packets[0]) == FRAME
    for bad in (b"", b"\xff\xff\xff"):
        with pytest.raises(OpusError):
            decoder.decode(bad)
        with pytest.raises(OpusError):
            frame_samples(bad)


def test_a_packet_carries_a_copy_of_the_one_before_when_loss_is_expected() -> None:
    voice = speech_like()
    frames = [next(voice) for _ in range(100)]
    with_copies, without = OpusEncoder(32_000, loss=20), OpusEncoder(32_000, loss=0)
    packets = [with_copies.encode(frame) for frame in frames]
    assert sum(map(has_fec, packets)) > 60
    assert not any(has_fec(without.encode(frame)) for frame in frames)
    assert not has_fec(b"")
    at = next(n for n in range(50, 99) if has_fec(packets[n]))
    whole, holed = OpusDecoder(), OpusDecoder()
    for packet in packets[: at - 1]:
        whole.decode(packet), holed.decode(packet)
    said, copied = whole.decode(packets[at - 1]), holed.previous(packets[at], FRAME)
    assert len(copied) == len(said)
    late = OpusDecoder()
    for packet in packets[: at - 1]:
        late.decode(packet)
    assert late.previous(packets[at], FRAME // 2) == copied[FRAME:], "its end, where the beginning was made up already"
    _, factor = audioop.findfit(said + said[: FRAME * 2 - 2], copied)
    assert factor > 0.3, "the copy sounds like what was lost"


def test_no_more_is_written_than_there_is_room_for() -> None:
    """libopus writes what it is asked for: a gap of a quarter of a second ended the process."""
    decoder = OpusDecoder()
    for samples in (480, 5760, 8400, 24_000):
        assert len(decoder.conceal(samples)) == samples * 2
    with pytest.raises(OpusError, match="8400 samples"):
        decoder.previous(OpusEncoder(32_000, loss=20).encode(bytes(FRAME * 2)), 8400)


def test_silence_is_not_sent_with_dtx() -> None:
    encoder = OpusEncoder(32_000, dtx=True)
    packets = [encoder.encode(bytes(FRAME * 2)) for _ in range(60)]
    assert sum(map(is_dtx, packets[15:])) > 35
    assert not any(map(is_dtx, [OpusEncoder(32_000).encode(bytes(FRAME * 2)) for _ in range(3)]))


# -- time stretching


@pytest.mark.parametrize("hertz", [95, 150, 240, 390])
def test_a_period_is_found(hertz: int) -> None:
    lag, quality = period(sine(hertz, NEEDED))
    cycles = lag * hertz / RATE
    assert quality > 0.9
    assert abs(cycles - round(cycles)) < 0.06


@pytest.mark.parametrize("change", [shorter, longer])
def test_length_changes_and_pitch_does_not(change: Callable[[bytes], bytes]) -> None:
    pcm = sine(200, FRAME * 50)
    for _ in range(30):
        changed = change(pcm[FRAME * 20 :])
        assert len(changed) != len(pcm) - FRAME * 20
        pcm = pcm[: FRAME * 20] + changed
    assert goertzel(pcm[FRAME * 16 : FRAME * 28], 200) == pytest.approx(0.3, abs=0.04)
    steps = [abs(b - a) for a, b in zip(array("h", pcm), array("h", pcm)[1:], strict=False)]
    assert max(steps) < 32767 * 0.3 * 2 * 3.15 * 200 / RATE * 2, "no click"


def test_noise_is_not_stretched_unless_it_must() -> None:
    chance = random.Random(1)
    noise = array("h", [int(chance.gauss(0, 3000)) for _ in range(NEEDED)]).tobytes()
    assert shorter(noise) is noise
    assert longer(noise) is noise
    assert len(shorter(noise, alike=0.0)) < len(noise)
    short = noise[: NEEDED * 2 - 2]
    assert shorter(short) is short


def test_no_more_is_taken_out_than_may_be() -> None:
    pcm = sine(200, NEEDED)  # periods of 240 samples
    assert len(pcm) - len(shorter(pcm)) in (480, 960)
    assert len(pcm) - len(shorter(pcm, most=300)) == 480
    assert shorter(pcm, most=180) is pcm, "part of a period would be a click"
    assert shorter(pcm, most=50) is pcm
    assert len(bytes(NEEDED * 2)) - len(shorter(bytes(NEEDED * 2), most=300)) == 600, "of silence, all of it"


def test_what_is_concealed_goes_on_in_pitch_and_fades() -> None:
    concealer = Concealer()
    assert concealer.conceal(100) == bytes(200), "nothing is known yet"
    pcm = sine(200, FRAME * 5)
    concealer.heard(pcm)
    first, later = concealer.conceal(FRAME), [concealer.conceal(FRAME) for _ in range(4)]
    assert goertzel(first[: FRAME], 200) > 0.2
    loud = [audioop.rms(part, 2) for part in (first, *later)]
    assert loud == sorted(loud, reverse=True)
    assert loud[-1] == 0
    joined = concealer.heard(sine(200, FRAME))
    assert len(joined) == FRAME * 2
    assert joined[:2] == b"\0\0", "faded in from silence"


# -- the delay


def test_a_calm_path_needs_the_least_delay() -> None:
    target = DelayTarget()
    for n in range(500):
        target.add(5000.0 + n % 2 * 0.001, n * 0.02, 0.02)
    assert target.at(10.0) == LEAST_S


def test_jitter_is_waited_for_up_to_a_limit_and_forgotten() -> None:
    target, chance = DelayTarget(), random.Random(1)
    for n in range(1000):
        target.add(chance.random() * 0.06, n * 0.02, 0.02)
    assert 0.06 <= target.at(20.0) <= 0.08
    for n in range(1000, 1200):
        target.add(chance.random() * 0.9, n * 0.02, 0.02)
    assert target.at(24.0) == MOST_S
    for n in range(1200, 3200):
        target.add(0.0, n * 0.02, 0.02)
    assert target.at(64.0) == LEAST_S


def test_one_stall_is_no_jitter_but_the_next_one_is() -> None:
    target = DelayTarget()
    for n in range(2000):
        target.add(0.1 if n == 500 else 0.0, n * 0.02, 0.02)
        assert target.at(n * 0.02) == LEAST_S
    for n in range(2000, 2200):
        target.add(0.1 if n in (2050, 2150) else 0.0, n * 0.02, 0.02)
    assert target.at(44.0) > 0.1


def test_a_lost_packet_makes_room_for_its_copy_and_a_late_one_does_not() -> None:
    target = DelayTarget()
    for n in range(100):
        target.add(0.0, n * 0.02, 0.02)
    target.lost(2.0)
    assert 0.02 < target.at(2.0) < 0.025
    assert target.at(2.0, lead_s=0.01) == pytest.approx(target.at(2.0) + 0.01)
    assert target.at(13.0) == LEAST_S
    target.lost(14.0)
    target.found()
    assert target.at(14.0) == LEAST_S


def test_the_few_copies_that_come_late_are_not_waited_for() -> None:
    """A packet that jitters counts fully by itself, but a copy only where its packet was lost."""
    target = DelayTarget()
    for n in range(1000):
        target.add(0.018 if n % 20 == 0 else n % 4 * 0.001, n * 0.02, 0.02)
    calm = target.at(20.0)
    target.lost(20.0)
    assert 0.018 < calm < target.at(20.0) < 0.027


# -- play-out


def test_a_clean_path_is_played_without_a_gap_and_with_little_delay() -> None:
    path = Path()
    path.run(10)
    counters = path.playout.counters
    assert (counters.concealed, counters.late, counters.inserted, counters.removed) == (0, 0, 0, 0)
    assert path.played.count(None) <= 6, "30 ms of the path and 20 ms of delay"
    assert path.delay_now() <= 0.025
    assert counters.received == (len(path.played) - path.played.count(None)) * BLOCK_BYTES // 2
    assert counters.delay_s / counters.received == pytest.approx(path.delay_now(), abs=0.005)


@pytest.mark.parametrize(("share", "most"), [(0.02, 0.006), (0.05, 0.02), (0.10, 0.045)])
def test_lost_packets_are_repaired_from_their_copies(share: float, most: float) -> None:
    path = Path(delay=lossy(share), encoder=OpusEncoder(36_000, loss=int(share * 100) + 5))
    path.run(30)
    counters = path.playout.counters
    assert counters.concealed / counters.received < most
    assert counters.repaired > counters.concealed
    assert path.delay_now() < 0.035, "one frame, for the copy, and the jitter"
    assert None not in path.played[20:]


def test_delay_that_is_not_needed_is_taken_out_once_and_then_left_alone() -> None:
    """Periods have any length and the card takes whole blocks: one cut too many, and the next packet is needed a block
    sooner than it comes, so that the cut is undone and made again without end."""
    chance = random.Random(5)
    path = Path(delay=lambda at: 0.03 + chance.random() * (0.05 if at < 115 else 0.012))
    path.run(15)
    assert path.delay_now() > 0.045
    counters = path.playout.counters
    concealed, removed, inserted = counters.concealed, counters.removed, counters.inserted
    path.run(40)
    assert 0.02 < (counters.removed - removed) / RATE < 0.05
    assert (counters.inserted - inserted) / RATE < 0.02
    assert path.delay_now() < 0.036
    assert (counters.concealed - concealed) / RATE < 0.02


def test_what_a_stall_held_back_is_heard_and_the_delay_returns() -> None:
    path = Path(delay=lambda at: 0.03 + (110.3 - at if 110 <= at < 110.3 else 0))
    path.run(10)
    before = path.delay_now()
    path.run(1)
    counters = path.playout.counters
    assert counters.late == 0, "nothing was thrown away for being late"
    assert counters.concealments == 1
    assert max(path.delays) > 0.2
    path.run(8.5)
    assert path.delay_now() < before + 0.02
    assert counters.concealed / RATE < 0.35
    assert counters.removed / RATE == pytest.approx(0.28, abs=0.06)


@pytest.mark.parametrize("drift", [-0.001, 0.001])
def test_clocks_that_drift_neither_fill_nor_empty_the_buffer(drift: float) -> None:
    path = Path(drift=drift)
    path.run(60)
    counters = path.playout.counters
    assert counters.concealed / counters.received < 0.001
    assert path.delay_now() < 0.05
    changed = counters.removed if drift > 0 else counters.inserted
    assert changed / RATE == pytest.approx(0.06, abs=0.03)


def test_a_thread_that_pulls_late_and_then_in_a_burst_costs_nothing() -> None:
    path = Path(pull_late=lambda at: 0.06 if at * 2 % 1 < 0.5 else 0.0)
    path.run(20)
    counters = path.playout.counters
    assert counters.concealed / counters.received < 0.003
    assert counters.removed / RATE < 0.03, "the delay it sees now and then is not there"
    assert path.delay_now() < 0.04


def test_pauses_are_comfort_noise_and_not_loss() -> None:
    path = Path(source=speech_like(pauses=True), encoder=OpusEncoder(32_000, dtx=True))
    path.run(20)
    counters = path.playout.counters
    assert path.sent < 20 * 50 * 0.85
    assert (counters.concealed, counters.late) == (0, 0)
    assert None not in path.played[20:]
    assert path.delay_now() < 0.03


def test_packets_out_of_order_and_twice_are_put_right() -> None:
    chance = random.Random(4)
    path = Path(delay=lambda at: 0.03 + (0.025 if chance.random() < 0.3 else 0.0))
    path.run(20)
    counters = path.playout.counters
    assert counters.concealed / counters.received < 0.01
    playout, encoder = Playout(), OpusEncoder(32_000)
    for n in range(3):
        data = encoder.encode(bytes(FRAME * 2))
        playout.put(n * FRAME, data, n * 0.02)
        playout.put(n * FRAME, data, n * 0.02)
    assert playout.counters.duplicates == 3
    assert playout.counters.discarded == 0


def test_after_a_long_outage_it_begins_again() -> None:
    path = Path(delay=lambda at: None if 105 < at < 108 else 0.03)
    path.run(7.9)
    assert path.played[-1] is None, "made-up sound ends"
    assert path.playout.position is None
    path.run(4)
    assert None not in path.played[-350:]
    assert path.delay_now() < 0.05


def test_a_burst_before_the_first_sound_is_no_reason_for_delay() -> None:
    path = Path(delay=lambda at: 0.03 + max(0.0, 100.4 - at))
    path.run(5)
    assert path.delay_now() < 0.05
    assert path.playout.counters.late == 0


def test_the_source_may_begin_anew_and_its_timestamps_may_wrap() -> None:
    path = Path(first_timestamp=0x1_0000_0000 - 3 * RATE)
    path.run(10)
    assert path.playout.counters.concealed == 0
    path.first_timestamp -= 40 * RATE
    path.run(2)
    assert path.playout.counters.resets == 1
    path.run(3)
    assert None not in path.played[-200:]
    path.playout.restart()
    assert path.playout.of_source.received == 0
    path.first_timestamp += 1234
    path.run(3)
    assert None not in path.played[-200:]
    assert path.playout.counters.late == 0
    assert 2.5 * RATE < path.playout.of_source.received <= 3 * RATE < path.playout.counters.received
    assert path.playout.of_source.level == path.playout.counters.level


def test_the_position_tells_which_sample_is_played() -> None:
    path = Path(first_timestamp=0)
    path.run(5)
    assert path.playout.position is not None
    timestamp, at = path.playout.position
    assert at == pytest.approx(105, abs=0.011)
    assert timestamp / RATE == pytest.approx(5 - 0.03 - path.delay_now(), abs=0.03)


def test_sound_waits_for_a_slower_picture() -> None:
    path = Path()
    path.playout.minimum_delay_s = 0.15
    path.run(20)
    assert path.delay_now() == pytest.approx(0.15, abs=0.02)
    counters = path.playout.counters
    assert counters.target_s / counters.received == pytest.approx(0.15, abs=0.001)
    assert counters.minimum_s / counters.received < 0.035, "what it would be without the picture"
    path.playout.minimum_delay_s = 0.0
    path.run(10)
    assert path.delay_now() < 0.04


def test_silenced_sound_is_consumed_and_a_closed_one_takes_nothing() -> None:
    path = Path()
    path.playout.silent = True
    path.run(2)
    assert set(path.played) == {None}
    assert path.playout.counters.received > RATE
    path.playout.silent = False
    path.run(0.1)
    assert path.played[-1] is not None
    path.playout.close()
    path.run(2)
    assert path.played[-1] is None


def test_a_packet_that_comes_while_it_is_made_up_is_late_and_time_goes_on() -> None:
    encoder, voice = OpusEncoder(32_000, loss=0), speech_like()
    packets = [encoder.encode(next(voice)) for _ in range(10)]
    missing = [packets[4]]

    class Interrupted(OpusDecoder):
        def conceal(self, samples: int) -> bytes:
            if missing:
                playout.put(4 * FRAME, missing.pop(), 0.2)  # by the loop's thread, between the audio thread's locks
            return super().conceal(samples)

    playout = Playout(Interrupted())
    for n in (*range(4), *range(5, 10)):
        playout.put(n * FRAME, packets[n], n * 0.02)
    heard = [
        playout.position[0] for block in range(40)
        if playout.take(0.1 + block * 0.01) is not None and playout.position is not None
    ]
    assert heard == sorted(heard)
    assert max(heard) > 9 * FRAME
    assert playout.counters.late == 1


def test_nobody_who_pulls_costs_no_memory() -> None:
    playout, data = Playout(), OpusEncoder(32_000).encode(bytes(FRAME * 2))
    for n in range(1000):
        playout.put(n * FRAME, data, n * 0.02)
    assert playout.counters.overflow > 800
    assert len(playout._packets) <= 101
    telephone = VOICE_CODECS["audio/pcmu"]
    playout = Playout(telephone.decoder(), telephone.clock_rate)
    for n in range(4000):
        playout.put(n, b"x", n / 8000)  # an eighth of a millisecond each
    assert len(playout._packets) <= 801


def test_what_cannot_be_decoded_is_counted_and_nothing_else_happens() -> None:
    path = Path()
    path.run(1)
    path.playout.put(path.first_timestamp, b"\xff\xff\xff", path.now)
    path.playout.put(path.first_timestamp, b"", path.now)
    path.run(1)
    assert path.playout.counters.undecodable == 2
    assert path.playout.counters.concealed == 0


def test_a_packet_of_the_next_codec_is_left_to_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codec changes on the loop while a block is on its way on the audio thread."""
    path, telephone = Path(), VOICE_CODECS["audio/pcmu"]
    path.run(1)
    playout = path.playout
    judge, decoder = playout._judge, telephone.decoder()

    def changed(now: float) -> None:
        judge(now)
        monkeypatch.undo()
        playout.use(decoder, telephone.clock_rate)
        playout.put(0, bytes(160), now)

    while len(playout._pcm) >= BLOCK_BYTES:
        playout.take(path.now)
    monkeypatch.setattr(playout, "_judge", changed)
    assert playout.take(path.now) is None
    assert len(playout._packets) == 1, "it waits"
    assert any(playout.take(path.now + n * 0.01) for n in range(10))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0xFFFFFFFF) | st.integers(0, 4000), st.binary(max_size=80)), max_size=12))
def test_any_bytes_of_a_peer_are_survived(packets: list[tuple[int, bytes]]) -> None:
    """With any timestamps, between those of a good voice."""
    playout, encoder, voice = Playout(), OpusEncoder(32_000), speech_like()
    for n in range(12):
        playout.put(n * FRAME, encoder.encode(next(voice)), n * 0.02)
        for timestamp, data in packets[n : n + 1]:
            playout.put(timestamp, data, n * 0.02)
        for half in range(2):
            block = playout.take(n * 0.02 + half * 0.01)
            assert block is None or len(block) == BLOCK_BYTES
