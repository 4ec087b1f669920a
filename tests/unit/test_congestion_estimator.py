"""The estimate against a simulated bottleneck, on virtual time: how it settles, uses a cap, and returns."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media.congestion.delay import DelayDetector, Usage
from appliance.media.congestion.estimator import FLOOR_BPS, UNHEARD_S, Estimator
from appliance.media.congestion.rates import AcknowledgedRate, LossBound
from appliance.media.congestion.sent import KEPT, OVERHEAD, SentLog
from appliance.media.congestion.transport_cc import TransportFeedback
from tests.support.bottleneck import AUDIO_BPS, Link, Second, Simulation, percentile

CAP = 700_000


def rate(seconds: list[Second]) -> float:
    """Bits per second that arrived."""
    return sum(second.arrived_bits for second in seconds) / len(seconds)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("link", [
    Link(), Link(queue_s=0.1), Link(queue_s=1.0), Link(jitter_s=0.005), Link(delay_s=0.1), Link(loss=0.02),
    Link(loss=0.1),
], ids=["plain", "short queue", "long queue", "jitter", "far", "loss", "much loss"])
def test_a_cap_is_used_and_left_behind(link: Link, seed: int) -> None:
    link = Link(10e6, link.queue_s, link.delay_s, link.jitter_s, link.loss, seed)
    simulation = Simulation(link, seed=seed)
    before = rate(simulation.run(8)[3:])
    link.rate = CAP
    capped = simulation.run(20)
    assert rate(capped[3:6]) > 0.75 * CAP, "settled within 3 s"
    assert rate(capped[3:]) > 0.85 * CAP
    late = [delay for second in capped[3:] for delay in second.delays]
    assert percentile(late, 0.95) <= 0.15 + link.delay_s - 0.02, "key frames of five times the size included"
    assert percentile([delay for second in capped[3:] for delay in second.audio_delays], 0.5) < 0.08 + link.delay_s
    resting = [second.padding_bits / CAP for second in capped]
    assert sum(resting) / len(resting) < 0.02, "probes cost little"
    link.rate = 10e6
    assert rate(simulation.run(13)[10:]) > 0.9 * before, "back within 10 s"


def test_a_call_begins_at_full_rate_within_a_second() -> None:
    seconds = Simulation(Link()).run(2)
    assert seconds[0].estimate > 1.5e6 + AUDIO_BPS


@pytest.mark.parametrize("cap", [300_000, 150_000])
def test_sound_gets_through_a_thin_link(cap: float) -> None:
    link = Link(queue_s=0.5)
    simulation = Simulation(link, fps=15)
    simulation.run(4)
    link.rate = cap
    assert len(onset := simulation.run(2)[1].audio_delays) > 38, f"{onset}: the sound is back within a second"
    simulation.run(3)
    capped = simulation.run(20)
    sound = [delay for second in capped for delay in second.audio_delays]
    assert len(sound) > 20 * 50 * 0.99
    assert percentile(sound, 0.9) < 0.3
    assert rate(capped) > 0.85 * cap


def test_ten_per_cent_of_random_loss_do_not_starve_it() -> None:
    simulation = Simulation(Link(loss=0.1))
    simulation.run(15)
    assert rate(simulation.run(15)) > 1_400_000
    assert 0.06 < simulation.estimator.loss < 0.14


def test_a_queue_too_short_to_be_seen_is_found_by_its_loss() -> None:
    simulation = Simulation(Link(queue_s=0.02))
    simulation.run(6)
    simulation.link.rate = CAP
    simulation.run(3)
    capped = simulation.run(20)
    assert rate(capped) > 0.7 * CAP
    assert sum(len(second.audio_delays) for second in capped) > 0.88 * 20 * 50


def test_a_path_that_has_become_longer_has_no_queue_for_ever() -> None:
    simulation = Simulation(Link())
    before = rate(simulation.run(6)[3:])
    simulation.link.delay_s += 0.15
    simulation.run(4)
    assert rate(simulation.run(3)) > 0.9 * before


def test_half_of_all_lost_is_too_much() -> None:
    link = Link(loss=0.5)
    simulation = Simulation(link)
    simulation.run(10)
    assert simulation.estimator.bits_per_second < 500_000


def test_bursts_are_at_most_5_ms_long() -> None:
    simulation = Simulation(Link())
    for second in simulation.run(6):
        pacing = simulation.estimator.pacing_bps
        assert second.largest_burst * 8 <= 0.005 * pacing + 1300 * 8


def test_sound_alone_is_no_reason_to_probe_or_to_sink() -> None:
    simulation = Simulation(Link(), demand=None)
    seconds = simulation.run(20)
    assert sum(second.padding_bits for second in seconds) == 0
    assert seconds[-1].estimate >= 0.9 * seconds[0].estimate


def test_reports_that_are_lost_are_lived_with() -> None:
    simulation = Simulation(Link(), report_loss=0.1)
    simulation.run(5)
    assert rate(simulation.run(10)) > 1.3e6


def test_a_path_without_reports_is_not_flooded_for_ever() -> None:
    estimator = Estimator(1_000_000)
    estimator.tick(0.0, sending=True)
    estimator.tick(100.0, sending=True)
    assert estimator.bits_per_second == 1_000_000, "never heard: a peer that reports otherwise"
    estimator.report([], 100.0)
    for step in range(1, 31):
        estimator.tick(100.0 + step * UNHEARD_S, sending=step > 2)
    assert estimator.bits_per_second == FLOOR_BPS


def test_the_detector_sees_a_growing_and_a_shrinking_queue() -> None:
    detector, seen = DelayDetector(), []
    for packet in range(300):
        sent = packet * 0.01
        queue = max(0.0, min(packet - 100, 220 - packet) * 0.003) if packet > 100 else 0.0
        detector.add(sent, 50.0 + sent + queue)
        seen.append(detector.usage)
    assert set(seen[:100]) == {Usage.NORMAL}
    assert Usage.OVER in seen[100:160]
    assert Usage.UNDER in seen[165:225]
    assert seen[-1] is Usage.NORMAL


def test_a_clock_that_jumps_back_begins_anew() -> None:
    detector = DelayDetector()
    for packet in range(100):
        detector.add(packet * 0.01, (1000.0 if packet < 50 else 10.0) + packet * 0.01)
    assert detector.usage is Usage.NORMAL


@pytest.mark.parametrize("jump_s", [5.0, -5.0, 3600.0, -90.0])
def test_a_peer_whose_clock_is_set_has_no_queue(jump_s: float) -> None:
    simulation = Simulation(Link())
    simulation.peer_clock_s = 7000.0
    before = rate(simulation.run(6)[3:])
    simulation.peer_clock_s += jump_s
    assert rate(simulation.run(3)) > 0.95 * before
    assert simulation.estimator.target_bps == simulation.estimator.bits_per_second
    simulation.link.rate = CAP
    simulation.run(3)
    assert rate(simulation.run(3)) == pytest.approx(CAP, rel=0.15), "and a queue that follows is seen"


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 1500)), max_size=60))
def test_any_arrivals_are_survived(arrivals: list[tuple[float, float, int]]) -> None:
    """The peer's times are the peer's: any of them may come."""
    detector, acknowledged = DelayDetector(), AcknowledgedRate()
    for sent, arrived, size in arrivals:
        detector.add(sent, arrived)
        acknowledged.add(arrived, size, limited=False)
    assert acknowledged.value is None or acknowledged.value >= 0


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(-0x800000, 0x7FFFFF), st.lists(
    st.one_of(st.none(), st.integers(-2**31, 2**31)), min_size=1, max_size=30)), max_size=30))
def test_any_feedback_leaves_an_estimate_within_bounds(reports: list[tuple[int, int, list[int | None]]]) -> None:
    log, estimator = SentLog(), Estimator()
    for step, (base, reference, arrivals) in enumerate(reports):
        now = step * 0.05
        for _ in range(20):
            log.add(1000, now)
            estimator.sent(1000, now)
        feedback = TransportFeedback(base % 700, reference, 0, tuple(arrivals))
        estimator.report(log.match(feedback), now)
        estimator.tick(now, sending=True)
        estimator.probe(now, 2e6)
        assert FLOOR_BPS <= estimator.bits_per_second <= 30_000_000


def test_loss_of_the_medium_is_told_from_loss_of_a_full_queue() -> None:
    def observed(bound: LossBound, begin: float, loss: Callable[[float], float]) -> float:
        """Ten seconds of 400 packets each at rates that go up and down by a fifth; the time of the end."""
        now = begin
        for step in range(200):
            now += 0.05
            rate = 1_000_000 + 200_000 * math.sin(step / 10)
            bits = rate * 0.05
            bound.update(20, round(20 * loss(rate)), bits, 2_000_000, rate * (1 - loss(rate)), now)
        return now

    bound = LossBound()
    now = observed(bound, 0.0, lambda rate: 0.1)
    assert math.isinf(bound.value), "the same at every rate"
    assert bound.path_loss == pytest.approx(0.1, abs=0.01)
    observed(bound, now, lambda rate: 0.1 + max(0.0, 1 - 700_000 / rate))
    assert 500_000 < bound.value < 850_000, "what grows with the rate"


def test_the_log_matches_by_number_and_is_bounded() -> None:
    log = SentLog()
    for number in range(70_000):
        assert log.add(100, number / 1000) == number & 0xFFFF
    assert len(log._waiting) <= KEPT
    newest = 69_990
    log.highest_reported = newest - 10
    told = log.match(TransportFeedback(newest & 0xFFFF, 1, 0, (256, None, 260)))
    assert [(packet.sequence, packet.arrived_at) for packet in told] == [
        (newest, 0.064), (newest + 1, None), (newest + 2, 0.065)
    ]
    assert told[0].size == 100 + OVERHEAD
    assert log.match(TransportFeedback(newest & 0xFFFF, 1, 1, (256, None, 260))) == [], "nothing new"
    late = log.match(TransportFeedback(newest + 1 & 0xFFFF, 1, 2, (258,)))
    assert late[0].reported, "told as missing before"


def test_the_reference_time_may_wrap() -> None:
    log = SentLog()
    for number in range(2):
        log.add(100, number / 10)
    first = log.match(TransportFeedback(0, 0x7FFFFF, 0, (0x7FFFFF * 256,)))[0]
    second = log.match(TransportFeedback(1, -0x800000, 1, (-0x800000 * 256 + 4,)))[0]
    assert second.arrived_at is not None
    assert first.arrived_at is not None
    assert second.arrived_at - first.arrived_at == pytest.approx(0.065)
