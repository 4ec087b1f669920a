"""The receive path without a network: order, loss, holes, key frames, play-out delay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media import rtp_receive
from appliance.media.playout import LIMIT_BLOCKS, START_BLOCKS, Playout, VoiceDecoder, VoiceIn
from appliance.media.rtp_receive import Allowance, AudioOrder, Reception
from appliance.media.sound import BLOCK_BYTES
from appliance.media.uplink import VoiceEncoder


def test_audio_comes_in_order_with_what_was_lost() -> None:
    order = AudioOrder()
    assert order.add(5, b"5") == [(b"5", 0)]
    assert order.add(7, b"7") == []
    assert order.add(6, b"6") == [(b"6", 0), (b"7", 0)]
    assert order.add(6, b"6") == []
    assert order.add(10, b"a") == []
    assert order.add(11, b"b") == []
    assert order.add(12, b"c") == [(b"a", 2), (b"b", 0), (b"c", 0)]
    assert order.discarded == 1


@given(st.permutations(list(range(20))))
def test_audio_never_goes_back(order: list[int]) -> None:
    audio, played, lost = AudioOrder(), [], 0
    for number in order:
        for data, missing in audio.add(100 + number, bytes([number])):
            played.append(data[0])
            lost += missing
    assert played == sorted(played)
    assert lost <= 20


def test_reception_counts_over_the_wrap() -> None:
    reception = Reception(48_000)
    for number in range(100):
        sequence = (65_500 + number) & 0xFFFF
        if number % 10 != 5:
            reception.add(sequence, number * 960, number * 0.02)
    assert reception.lost == 10
    report = reception.report(1, 0, 0)
    assert report.packets_lost == 10
    assert report.fraction_lost == pytest.approx(25, abs=2)
    assert report.highest_sequence == 65_599  # with the wrap, RFC 3550 6.4.1
    assert reception.jitter_s < 0.001
    assert reception.report(1, 0, 0).fraction_lost == 0


def test_an_early_reordering_is_no_restart() -> None:
    reception = Reception(48_000)
    reception.add(0, 960, 0.02)
    reception.add(65_535, 0, 0.021)
    reception.add(1, 1920, 0.04)
    assert reception.lost == 0


def test_a_retransmission_fills_the_hole_but_not_the_statistics() -> None:
    reception = Reception(90_000)
    reception.add(10, 0, 0.0)
    reception.add(12, 0, 0.01)
    assert reception.extend(11) == reception.extend(10) + 1
    assert reception.lost == 1


def test_a_careful_peer_may_send_more_and_a_full_path_is_obeyed() -> None:
    allowance = Allowance()
    assert allowance.update(300_000, 200_000) > 1_500_000, "limited by its picture, not by the path"
    assert allowance.update(600_000, 700_000) == 600_000
    assert allowance.update(50_000, 60_000) == rtp_receive.REMB_FLOOR
    assert rtp_receive.REMB_FLOOR < allowance.update(100_000, 90_000) < 200_000, "it comes back step by step"
    for _ in range(200):
        allowance.update(400_000, 300_000)
    assert allowance.bits_per_second == rtp_receive.REMB_CEILING


# --- play-out ---------------------------------------------------------------------------------------------------------


def blocks(count: int) -> bytes:
    return b"\1\0" * (BLOCK_BYTES // 2 * count)


def test_playing_begins_with_40_ms_and_never_waits() -> None:
    playout = Playout()
    playout.put(blocks(START_BLOCKS - 1))
    assert playout.take() is None
    playout.put(blocks(1))
    assert [playout.take() is not None for _ in range(START_BLOCKS + 1)] == [True] * START_BLOCKS + [False]
    assert (playout.underruns, playout.concealed) == (1, 1)
    playout.put(blocks(START_BLOCKS))
    assert playout.take() is None, "after an underrun it waits for more than before"
    playout.put(blocks(1))
    assert playout.take() is not None


def test_the_delay_is_bounded_and_shrinks_again() -> None:
    playout = Playout()
    playout.put(blocks(LIMIT_BLOCKS + 20))
    assert playout.delay_ms == LIMIT_BLOCKS * 10
    assert playout.dropped == 20
    playout.take()
    assert playout.delay_ms == (START_BLOCKS - 1) * 10, "a burst before the first sound is no reason for delay"
    playout.put(blocks(15))  # a burst while it plays
    for _ in range(200):
        playout.put(blocks(1))
        playout.take()
    assert playout.delay_ms <= (START_BLOCKS + 1) * 10


def test_a_lost_packet_is_silence_of_its_length() -> None:
    encoder, voice = VoiceEncoder(), VoiceIn()
    packets = [packet for _ in range(3) for packet in encoder.encode(blocks(2))]
    voice.on_audio(packets[0], 0)
    voice.on_audio(packets[1], 2)
    assert voice.concealed_samples == 2 * 960
    assert voice.concealments == 1
    voice.on_audio(b"\xff\xff\xff", 0)
    assert voice.undecodable in (0, 1)  # Opus takes nearly any bytes; what it does not take is counted


@given(st.binary(min_size=1, max_size=100))
def test_any_bytes_of_a_peer_are_survived(data: bytes) -> None:
    VoiceIn().on_audio(data, 0)


def test_opus_round_trip_keeps_mono_48_khz() -> None:
    encoder, decoder = VoiceEncoder(), VoiceDecoder()
    pcm = b"".join(decoder.decode(packet) for _ in range(10) for packet in encoder.encode(blocks(2)))
    assert len(pcm) >= 8 * 2 * BLOCK_BYTES
    assert len(pcm) % (2 * BLOCK_BYTES) == 0
