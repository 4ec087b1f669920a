"""The receive path without a network: order, loss, what the peer may send."""

from __future__ import annotations

import pytest

from appliance.media import rtp_receive
from appliance.media.rtp_receive import Allowance, Reception


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
