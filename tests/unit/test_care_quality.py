"""Quality of a call from its statistics: the published thresholds, and the score by hand."""

from __future__ import annotations

import pytest

from appliance.care.quality import judge, mos
from appliance.vocabulary import Json


def sample(*, jitter: float = 0.0, lost: int = 0, came: int = 1000, rtt: float = 0.02) -> list[Json]:
    return [
        {"id": "in", "type": "inbound-rtp", "kind": "audio", "jitter": jitter, "packetsLost": lost,
         "packetsReceived": came},
        {"id": "rin", "type": "remote-inbound-rtp", "kind": "audio", "jitter": 0.0, "packetsLost": 0,
         "packetsReceived": came, "roundTripTime": rtt},
    ]


def test_the_score_of_a_clean_line_and_of_a_bad_one() -> None:
    # R = 94.768 - (20+10)/40 = 94.018; MOS = 1 + 0.035 R + 7e-6 R (R-60)(100-R)
    assert mos(0.02, 0.0, 0.0) == pytest.approx(4.4245, abs=1e-3)
    assert mos(0.3, 0.03, 0.05) < 3.6
    assert mos(2.0, 0.0, 0.0) == 1.0


@pytest.mark.parametrize(("changes", "receive"), [
    ({}, 1), ({"jitter": 0.04}, 2), ({"jitter": 0.2}, 3), ({"lost": 40}, 2), ({"lost": 200}, 3), ({"rtt": 0.4}, 2)])
def test_thresholds_of_what_is_received(changes: Json, receive: int) -> None:
    assert judge(sample(**changes), []).receive == receive


def test_loss_counts_since_the_sample_before() -> None:
    before, now = sample(lost=500, came=1000), sample(lost=501, came=2000)
    quality = judge(now, before)
    assert quality.loss == pytest.approx(1 / 1001)
    assert quality.receive == 1
    assert quality.level == 5


def test_counters_that_begin_again_are_no_loss() -> None:
    assert judge(sample(lost=0, came=10), sample(lost=500, came=9000)).loss == 0


def test_without_statistics_nothing_is_wrong() -> None:
    quality = judge([], [])
    assert (quality.send, quality.receive, quality.rtt) == (1, 1, None)
