"""What a viewer sees through a bad network with a round trip of 40 ms: up to a minute each, on virtual time.

Both directions lose, so requests are lost as well. The limits are those of the product's targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest

from appliance.media.assembly import GUESS_TRIES
from tests.support.clock import run_virtual
from tests.support.impair import Burst, Conditions
from tests.support.lossy_video import Outcome, adapt, watch
from tests.support.simulations import Simulations

pytestmark = pytest.mark.timeout(120)  # minutes of video are work for a machine that has other things to do

DELAY_S = 0.02


@pytest.fixture(scope="module")
def simulations() -> Iterator[Simulations]:
    with Simulations.running() as made:
        yield made


def watched(conditions: Conditions, seconds: float, seed: int) -> Outcome:
    return run_virtual(watch(conditions, seconds=seconds, seed=seed))


def adapted(conditions: Conditions, seed: int = 1) -> Outcome:
    return run_virtual(adapt(conditions, seconds=12, seed=seed))


def outcomes(simulations: Simulations, loss: float | Burst, *, seeds: int = 3) -> list[Outcome]:
    """A minute for each seed."""
    conditions = Conditions(loss=loss, delay_s=DELAY_S)
    return simulations.results([
        simulations.begin(watched, conditions, 60.0, seed) for seed in range(1, seeds + 1)])


def test_at_two_per_cent_nothing_freezes(simulations: Simulations) -> None:
    for outcome in outcomes(simulations, 0.02):
        assert outcome.smoothness.freeze_count == 0, outcome
        assert outcome.latency(0.99) <= 0.080, outcome
        assert outcome.incoming.plis == 0, outcome


@pytest.mark.parametrize(("loss", "frozen"), [(0.05, 0.01), (0.10, 0.03), (Burst.of(0.02, length=5), 0.005)])
def test_under_high_loss_the_picture_is_hardly_ever_frozen(
    simulations: Simulations, loss: float | Burst, frozen: float
) -> None:
    seen = outcomes(simulations, loss, seeds=3 if isinstance(loss, float) else 5)  # few long bursts decide
    told = "\n".join(map(str, seen))
    assert median(outcome.frozen for outcome in seen) <= frozen, told
    assert all(len(outcome.latencies) >= 0.99 * outcome.seconds * 30 for outcome in seen), told
    share = loss if isinstance(loss, float) else 0.02
    assert all(outcome.resent <= 2 * share for outcome in seen), told


def test_jitter_is_not_taken_for_loss() -> None:
    outcome = run_virtual(watch(Conditions(delay_s=DELAY_S, jitter_s=0.02), seconds=30))
    assert outcome.resent < 0.02, outcome


def test_at_a_round_trip_of_600_ms_losses_are_repaired() -> None:
    outcome = watched(Conditions(loss=0.01, delay_s=0.3), 60.0, 1)
    assert outcome.incoming.resent_packets > 30, outcome
    assert len(outcome.latencies) >= 0.97 * outcome.seconds * 30, outcome
    assert outcome.latency(0.99) < 1.6, outcome
    assert outcome.outgoing.resent_packets < 1.3 * outcome.incoming.resent_packets, "asked for more often than needed"


def test_a_black_out_costs_one_key_frame() -> None:
    dark = [False] * 600 + [True] * 200 + [False] * 20_000  # 1.3 s in the dark, once
    outcome = run_virtual(watch(Conditions(loss=dark, delay_s=DELAY_S), back=Conditions(delay_s=DELAY_S), seconds=30))
    assert outcome.incoming.plis == 1, outcome
    assert outcome.incoming.nacks <= GUESS_TRIES, "the picture in which it began; nothing of what was in the dark"
    assert outcome.smoothness.freeze_count == 1, outcome
    assert outcome.smoothness.total_freezes_s < 1.5, outcome


@pytest.mark.parametrize(
    ("loss", "worst_s"), [(0.02, 0.075), (0.05, 0.09), (0.10, 0.125), (Burst.of(0.02, length=5), 0.115)])
def test_loss_on_a_path_with_room_costs_neither_pictures_nor_size(
    simulations: Simulations, loss: float | Burst, worst_s: float
) -> None:
    conditions = Conditions(loss=loss, delay_s=DELAY_S)
    seen = simulations.results([simulations.begin(adapted, conditions, seed) for seed in (1, 2)])
    share = loss if isinstance(loss, float) else 0.02
    for outcome in seen:
        assert outcome.sizes == [], outcome
        assert outcome.frames_per_second >= 29.5, outcome
        assert outcome.reasons["none"] > 10, outcome.reasons
        assert outcome.resent <= 2.5 * share, outcome
    assert min(outcome.latency(0.99) for outcome in seen) <= worst_s, "\n".join(map(str, seen))


def test_what_is_sent_again_is_sent_twice_only_where_there_is_room(simulations: Simulations) -> None:
    wide, narrow = simulations.results([
        simulations.begin(adapted, Conditions(loss=0.05, delay_s=DELAY_S, rate_bps=rate)) for rate in (None, 5e5)])
    assert wide.resent > 1.6 * wide.lost, wide
    assert narrow.resent < 1.4 * narrow.lost, narrow


def test_a_cap_makes_the_picture_smaller_not_slower_nor_late_and_leaves_the_sound() -> None:
    conditions = Conditions(delay_s=DELAY_S, rate_bps=700_000, queue_ms=250)
    outcome = run_virtual(adapt(conditions, back=Conditions(delay_s=DELAY_S), seconds=15))
    assert outcome.arrived_bytes * 8 / outcome.seconds > 0.85 * 700_000, outcome
    assert [(height, fps) for _, height, fps in outcome.sizes] == [(540, 30)]
    assert outcome.frames_per_second > 27, outcome
    assert outcome.latency(0.95) < 0.15, outcome
    assert outcome.voices > 0.99 * 50 * outcome.seconds
    assert outcome.reasons["bandwidth"] > 14, outcome.reasons
