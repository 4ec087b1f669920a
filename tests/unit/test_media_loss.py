"""What a viewer sees through a bad network with a round trip of 40 ms: a minute each, on virtual time.

Both directions lose, so requests are lost as well. The limits are those of the product's targets.
"""

from __future__ import annotations

from statistics import median

import pytest

from tests.support.clock import run_virtual
from tests.support.impair import Burst, Conditions
from tests.support.lossy_video import Outcome, watch

DELAY_S = 0.02


def outcomes(loss: float | Burst, *, delay_s: float = DELAY_S, seconds: float = 60.0, seeds: int = 3) -> list[Outcome]:
    conditions = Conditions(loss=loss, delay_s=delay_s)
    return [run_virtual(watch(conditions, seconds=seconds, seed=seed)) for seed in range(1, seeds + 1)]


def test_at_two_per_cent_nothing_freezes() -> None:
    for outcome in outcomes(0.02):
        assert outcome.smoothness.freeze_count == 0, outcome
        assert outcome.latency(0.99) <= 0.150, outcome
        assert outcome.incoming.plis == 0, outcome


@pytest.mark.parametrize(("loss", "frozen"), [(0.05, 0.01), (0.10, 0.03), (Burst.of(0.02, length=5), 0.005)])
def test_under_high_loss_the_picture_is_hardly_ever_frozen(loss: float | Burst, frozen: float) -> None:
    seen = outcomes(loss, seeds=3 if isinstance(loss, float) else 5)  # few long bursts decide
    told = "\n".join(map(str, seen))
    assert median(outcome.frozen for outcome in seen) <= frozen, told
    assert all(len(outcome.latencies) >= 0.99 * outcome.seconds * 30 for outcome in seen), told
    share = loss if isinstance(loss, float) else 0.02
    assert all(outcome.outgoing.resent_packets <= 2 * share * outcome.outgoing.packets for outcome in seen), told


def test_at_a_round_trip_of_600_ms_losses_are_repaired() -> None:
    (outcome,) = outcomes(0.01, delay_s=0.3, seeds=1)
    assert outcome.incoming.resent_packets > 30, outcome
    assert len(outcome.latencies) >= 0.97 * outcome.seconds * 30, outcome
    assert outcome.latency(0.99) < 1.6, outcome
    assert outcome.outgoing.resent_packets < 1.3 * outcome.incoming.resent_packets, "asked for more often than needed"


def test_a_black_out_costs_one_key_frame() -> None:
    dark = [False] * 600 + [True] * 200 + [False] * 20_000  # 1.3 s in the dark, once
    outcome = run_virtual(watch(Conditions(loss=dark, delay_s=DELAY_S), back=Conditions(delay_s=DELAY_S), seconds=30))
    assert (outcome.incoming.plis, outcome.incoming.nacks) == (1, 0), outcome
    assert outcome.smoothness.freeze_count == 1, outcome
    assert outcome.smoothness.total_freezes_s < 1.5, outcome
