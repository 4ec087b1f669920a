"""Pacer, budget, allocation, REMB and probes, each alone and on virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from appliance.media.congestion.allocation import (
    AGAIN_AFTER_S,
    AUDIO_LEAST_BPS,
    PAUSE_AFTER_S,
    VIDEO_LEAST_BPS,
    Allocator,
    Meter,
)
from appliance.media.congestion.pacer import BURST_S, QUEUE_PACKETS, Pacer, Priority, RetransmissionBudget
from appliance.media.congestion.probing import Prober
from appliance.media.congestion.remb import CAP_S, RembEstimate
from appliance.media.congestion.sent import OVERHEAD


@dataclass
class Packet:
    size: int
    name: str = ""


def pacer(rate: float = 2_400_000) -> Pacer[Packet]:
    return Pacer(rate, lambda size: Packet(min(size, 255), "padding"))


def test_a_frame_leaves_in_bursts_of_5_ms_and_the_first_at_once() -> None:
    paced = pacer()
    for _ in range(10):
        paced.put(Packet(1200 - OVERHEAD), Priority.VIDEO)  # 4 ms each
    now, sent = 50.0, []
    while True:
        release = paced.take(now)
        sent.append((now - 50.0, len(release.packets)))
        if release.next_at is None:
            break
        assert release.next_at > now
        now = release.next_at
    assert sent[0] == (0.0, 2), "5 ms of credit, and the packet that passes it"
    assert all(count <= 2 for _, count in sent)
    assert sum(count for _, count in sent) == 10
    assert sent[-1][0] == pytest.approx(0.036, abs=0.006), "at the rate asked"
    assert paced.take(60.0).packets == []


def test_what_was_lost_goes_before_the_picture_and_sound_is_charged() -> None:
    paced = pacer()
    paced.charge(1200, 1.0)
    paced.charge(1200, 1.0)
    paced.put(Packet(1000, "picture"), Priority.VIDEO)
    paced.put(Packet(1000, "lost"), Priority.RETRANSMISSION)
    first = paced.take(1.0)
    assert first.packets == [], "sound has used the budget"
    assert first.next_at is not None
    later = paced.take(first.next_at)
    assert [packet.name for packet, _ in later.packets] == ["lost", "picture"]


def test_the_queue_is_bounded_and_counted() -> None:
    paced = pacer()
    for _ in range(QUEUE_PACKETS):
        assert paced.put(Packet(100), Priority.VIDEO)
    assert not paced.put(Packet(100), Priority.VIDEO)
    assert paced.dropped == 1
    assert paced.waiting == QUEUE_PACKETS


@pytest.mark.parametrize("rate", [150_000, 1_000_000, 4_000_000])
def test_a_probe_leaves_at_its_rate_with_padding_for_what_lacks(rate: float) -> None:
    prober, paced = Prober(), pacer(500_000)
    cluster = prober.wanted(10.0, rate / 2, rate)
    assert cluster is not None
    assert cluster.rate == rate
    paced.put(Packet(80, "picture"), Priority.VIDEO)
    paced.probe(cluster, 10.0)
    now, times = 10.0, []
    while True:
        release = paced.take(now)
        times += [(now, packet) for packet, number in release.packets if number == cluster.number]
        if release.next_at is None:
            break
        now = max(release.next_at, now + 0.001)  # a loop that wakes up by milliseconds
    assert times[0][1].name == "picture"
    assert {packet.name for _, packet in times[1:]} == {"padding"}
    assert len(times) >= cluster.packets
    bits = sum((packet.size + OVERHEAD) * 8 for _, packet in times[:-1])
    assert bits / (times[-1][0] - times[0][0]) == pytest.approx(rate, rel=0.15)
    for at, packet in times:
        prober.add(cluster.number, at, at + 7.0, packet.size + OVERHEAD)
    assert prober.result(now, rate / 2) == pytest.approx(rate, rel=0.25)
    assert prober.result(now, rate / 2) is None, "told once"


def test_without_padding_a_probe_is_given_up() -> None:
    paced: Pacer[Packet] = Pacer(500_000, lambda size: None)
    cluster = Prober().wanted(0.0, 500_000, 2_000_000)
    assert cluster is not None
    paced.probe(cluster, 0.0)
    assert paced.take(0.0).packets == []
    assert paced.take(1.0).next_at is None


def test_a_probe_that_fills_the_path_shows_what_it_carries_and_the_next_ones_come_later() -> None:
    prober, pauses, last = Prober(), [], 0.0
    for step in range(3000):
        now = step * 0.01
        cluster = prober.wanted(now, 500_000, 2_000_000)
        if cluster is None:
            continue
        pauses.append(now - last)
        last = now
        for packet in range(8):  # sent within 20 ms, arriving at 600 kbit/s
            prober.add(cluster.number, now + packet * 0.0025, now + packet * 250 * 8 / 600_000, 250 + packet)
        shown = prober.result(now, 500_000)
        assert shown is not None
        assert 500_000 < shown < 620_000
    assert pauses[1] < pauses[2] < pauses[3] <= 4.1
    assert prober.wanted(40.0, 2_300_000, 2_000_000) is None, "enough is enough"
    prober.disturbed(60.0)
    assert prober.wanted(60.5, 500_000, 2_000_000) is None
    assert prober.wanted(61.1, 500_000, 2_000_000) is not None


@pytest.mark.parametrize("round_trip", [0.1, 1.5, 3.0])
def test_a_probe_is_judged_however_far_the_peer_is(round_trip: float) -> None:
    """Reports on what left before come all the time, and its own in two parts."""
    prober = Prober()
    cluster = prober.wanted(0.0, 500_000, 2_000_000)
    assert cluster is not None
    size = cluster.size // 8
    sent_at = [number * size * 8 / cluster.rate for number in range(9)]
    for step in range(round(round_trip / 0.1)):
        assert prober.result(step * 0.1, 500_000, round_trip) is None
    for part, now in ((sent_at[:4], round_trip), (sent_at[4:], round_trip + 0.1)):
        for sent in part:
            prober.add(cluster.number, sent, sent + round_trip / 2, size)
        shown = prober.result(now, 500_000, round_trip)
    assert shown == pytest.approx(cluster.rate, rel=0.1)


def test_arrivals_faster_than_they_were_sent_are_not_believed() -> None:
    prober = Prober()
    cluster = prober.wanted(0.0, 500_000, 2_000_000)
    assert cluster is not None
    for packet in range(10):
        prober.add(cluster.number, packet * 0.002, 5.0 + packet * 0.0001, 300)
    assert prober.result(0.1, 500_000) is None
    assert prober.result(9.0, 500_000) is None


def test_retransmissions_are_a_share_of_the_rate() -> None:
    budget, sent = RetransmissionBudget(), 0
    for step in range(10_000):
        sent += 1200 * budget.take(1200, 1_000_000, 100.0 + step / 1000)
    assert 0.15 < sent * 8 / 10 / 1_000_000 < 0.3
    assert not budget.take(100_000, 1_000_000, 200.0), "not even after a long rest"


def test_sound_comes_first_and_the_picture_pauses_before_it_suffers() -> None:
    allocator, now = Allocator(), 0.0

    def allocate(total: float, repair: float = 0.0) -> int | None:
        return allocator.allocate(total, total, audio=58_000, repair=repair, overhead=0.1, now=now).video

    assert allocate(1_058_000) == 900_000
    assert allocate(1_058_000, repair=100_000) == 810_000
    assert allocate(1_058_000, repair=900_000) == 675_000, "repair takes a quarter at most"
    assert allocate(100_000) == VIDEO_LEAST_BPS, "a moment is no reason"
    now += PAUSE_AFTER_S + 0.1
    assert allocate(100_000) is None
    now += 10
    assert allocate(140_000) is None, "not enough to begin again"
    assert allocate(200_000) is None
    now += AGAIN_AFTER_S[0] + 0.1
    assert allocate(200_000) == 127_800
    assert allocate(100_000) == VIDEO_LEAST_BPS
    now += PAUSE_AFTER_S + 0.1
    assert allocate(100_000) is None
    allocate(200_000)
    now += AGAIN_AFTER_S[0] + 0.1
    assert allocate(200_000) is None, "a relapse: this time it waits longer"
    now += AGAIN_AFTER_S[0] + 0.1
    assert allocate(200_000) is not None


def test_a_queue_that_is_being_emptied_takes_from_the_moment_not_from_the_size() -> None:
    allocation = Allocator().allocate(400_000, 800_000, audio=0, repair=0, overhead=0, now=0.0)
    assert allocation.audio == AUDIO_LEAST_BPS, "it may speak at any moment"
    assert allocation.video == round(370_000 * 0.95)
    assert allocation.lasting == round(770_000 * 0.95)


def test_the_meter_counts_whole_seconds() -> None:
    meter = Meter()
    for step in range(100):
        meter.add(125, step / 100)
    assert meter.bps(0.99) is None
    assert meter.bps(1.0) == pytest.approx(100_000)
    assert meter.bps(3.0) == pytest.approx(0.0)


def test_an_estimate_of_the_peer_counts_only_when_we_are_near_it() -> None:
    remb = RembEstimate()
    assert math.isinf(remb.bits_per_second)
    remb.told(10, 1e6, 0.0)
    assert math.isinf(remb.bits_per_second), "noise of a peer that has just begun"
    remb.told(900_000, 300_000, 0.0)
    assert math.isinf(remb.bits_per_second), "the picture is the limit"
    assert remb.wish(1.0) == 900_000
    remb.told(600_000, 800_000, 1.0)
    assert remb.bits_per_second == 600_000
    assert remb.wish(1.0 + CAP_S) == math.inf, "not repeated"


def test_loss_in_receiver_reports_bounds_it_too() -> None:
    remb = RembEstimate()
    for second in range(12):
        remb.reported(1000 + second * 150, 0.3, 1_500_000, float(second))
    assert remb.bits_per_second < 1_000_000
    assert remb.loss == pytest.approx(0.3, abs=0.02)
    low = remb.bits_per_second
    for second in range(12, 60):
        remb.reported(1000 + second * 150, 0.0, 400_000, float(second))
    assert remb.bits_per_second > 1.5 * low
    assert BURST_S == 0.005
