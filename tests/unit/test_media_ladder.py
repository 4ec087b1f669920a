"""The steps of size and frame rate, when they are taken, and what limits that somebody asked for do to them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media.ladder import DOWN_AFTER_S, LEAST_BPS, UP_AFTER_S, UP_SURE_AFTER_S, Constraints, Ladder, Preference
from appliance.media.quality_limit import Limit, QualityLimit
from hw.api import VideoMode


@pytest.mark.parametrize("preference", Preference)
def test_it_goes_down_to_180_lines_and_60_kilobits(preference: Preference) -> None:
    rungs = Ladder(VideoMode(), Constraints(preference=preference)).rungs
    assert (rungs[0].width, rungs[0].height, rungs[0].fps) == (1280, 720, 30)
    assert (rungs[-1].width, rungs[-1].height) == (320, 180)
    assert rungs[-1].least <= 60_000
    for higher, lower in itertools.pairwise(rungs):
        assert lower.least < higher.least
        assert lower.height <= higher.height
        assert lower.fps <= higher.fps
    for rung in rungs:
        assert rung.width % 2 == 0
        assert rung.floor <= rung.least
        assert rung.mode(1).bitrate == rung.floor, "no encoder is set below it"


def test_what_is_given_up_first_is_a_matter_of_preference() -> None:
    def second(preference: Preference) -> tuple[int, int]:
        rung = Ladder(VideoMode(), Constraints(preference=preference)).rungs[1]
        return rung.height, rung.fps

    assert second(Preference.RESOLUTION) == (720, 15)
    assert second(Preference.FRAME_RATE) == second(Preference.BALANCED) == (540, 30)


def test_down_soon_and_up_when_it_has_been_enough_for_a_while() -> None:
    ladder = Ladder(VideoMode())
    assert ladder.choose(1_500_000, 0.0).height == 720
    assert ladder.choose(400_000, 1.0).height == 720, "a moment is no reason"
    assert ladder.choose(1_500_000, 1.2).height == 720
    assert ladder.choose(400_000, 1.4).height == 720
    assert ladder.choose(400_000, 1.4 + DOWN_AFTER_S).height == 540
    assert ladder.choose(60_000, 3.0).height == 180, "far below: at once"
    assert ladder.choose(900_000, 4.0).height == 180
    assert ladder.choose(900_000, 4.0 + UP_AFTER_S / 2).height == 180
    assert ladder.choose(450_000, 4.1 + UP_AFTER_S / 2).height == 180
    assert ladder.choose(900_000, 4.0 + UP_AFTER_S).height == 540, "as far as it has been enough for all the while"
    assert ladder.choose(900_000, 9.0).height == 540
    assert ladder.choose(900_000, 9.0 + UP_AFTER_S).height == 720


def test_what_is_far_more_than_enough_is_not_waited_for() -> None:
    ladder = Ladder(VideoMode())
    ladder.choose(60_000, 0.0)
    assert ladder.choose(1_500_000, 1.0).height == 180
    assert ladder.choose(1_500_000, 1.0 + UP_SURE_AFTER_S).height == 720


def test_at_the_border_nothing_flutters() -> None:
    ladder, changes, before = Ladder(VideoMode()), 0, 720
    for step in range(2000):
        rung = ladder.choose(500_000 + (20_000 if step % 7 < 4 else -20_000), step * 0.1)
        changes += rung.height != before
        before = rung.height
    assert changes <= 1


def test_limits_are_the_next_step_below_and_restored_at_once() -> None:
    ladder = Ladder(VideoMode())
    ladder.choose(2_000_000, 0.0)
    ladder.constrain(Constraints(send_height=400, send_fps=15, send_bitrate=400_000))
    rung = ladder.choose(2_000_000, 0.1)
    assert (rung.width, rung.height, rung.fps) == (640, 360, 15)
    assert ladder.demand == 400_000
    ladder.constrain(Constraints())
    assert ladder.choose(2_000_000, 0.2).height == 720
    assert ladder.demand == 1_500_000
    ladder.constrain(Constraints(send_height=50))
    assert ladder.choose(2_000_000, 0.3).height == 180, "the least where it is too small"
    ladder.constrain(Constraints(send_height=2000, send_fps=60, send_bitrate=9_000_000))
    assert ladder.choose(2_000_000, 0.4) == Ladder(VideoMode()).rungs[0], "no more than the board is set to"
    ladder.constrain(Constraints(send_bitrate=1))
    assert ladder.demand == LEAST_BPS


def test_what_limits_come_to_is_told() -> None:
    def sent(constraints: Constraints) -> tuple[int, int, int, int]:
        told = constraints.in_force(VideoMode())["send"]
        return told["frameWidth"], told["frameHeight"], told["frameRate"], told["bitrate"]

    assert sent(Constraints()) == (1280, 720, 30, 1_500_000)
    assert sent(Constraints(send_height=400, send_fps=20)) == (640, 360, 20, 1_500_000)
    assert sent(Constraints(send_height=50, send_bitrate=1)) == (320, 180, 15, LEAST_BPS), "the last step"
    assert sent(Constraints(send_bitrate=100_000))[1:] == (240, 15, 100_000), "so little is not worth 720 lines"
    assert Constraints(receive_height=50).in_force(None) == {
        "recv": {"maxBitrate": Constraints(receive_height=180).receive_limit}}, "no camera"


@given(
    st.integers(16, 1920), st.integers(16, 1080), st.integers(1, 60), st.sampled_from(Preference),
    st.integers(0, 2000), st.integers(0, 60), st.lists(st.tuples(st.floats(0, 1e8), st.floats(0, 5)), max_size=20),
)
def test_any_mode_has_steps(
    width: int, height: int, fps: int, preference: Preference, limit: int, rate: int, steps: list[tuple[float, float]]
) -> None:
    ladder = Ladder(VideoMode(width, height, fps, 1_000_000), Constraints(limit, rate, 0, preference=preference))
    now = 0.0
    for bits, pause in steps:
        now += pause
        rung = ladder.choose(bits, now)
        assert rung in ladder.rungs
        assert rung.height <= max(height, 180)
        assert rung.fps <= fps


def test_a_height_that_is_to_be_received_counts_as_the_rate_the_ladder_gives_it() -> None:
    assert Constraints().receive_limit == 0
    limit = Constraints(receive_height=360).receive_limit
    ladder = Ladder(VideoMode())
    ladder.choose(60_000, 0.0)
    for step in range(100):
        ladder.choose(limit, step * 0.1)
    assert ladder.rung.height == 360
    assert Constraints(receive_height=360, receive_bitrate=100_000).receive_limit == 100_000
    assert Constraints(receive_height=1080).receive_limit == 0


def test_the_account_of_what_limits_quality() -> None:
    quality = QualityLimit()
    assert quality.durations(5.0) == {"cpu": 0.0, "none": 0.0, "bandwidth": 0.0, "other": 0.0}
    quality.update(Limit.NONE, 10.0)
    quality.update(Limit.BANDWIDTH, 12.0)
    assert quality.limited
    assert quality.durations(15.0) == {"cpu": 0.0, "none": 2.0, "bandwidth": 3.0, "other": 0.0}
    quality.stop(16.0)
    quality.update(Limit.OTHER, 100.0)
    assert quality.durations(101.0) == {"cpu": 0.0, "none": 2.0, "bandwidth": 4.0, "other": 1.0}
