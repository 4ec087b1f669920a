"""Freezes by the rule of W3C webrtc-stats, and the remedies of a picture that does not come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from appliance.media.smoothness import ASK_S, RESTART_S, STALLED_S, Remedy, Smoothness, StallWatch


def played(*intervals: float) -> Smoothness:
    smoothness, now = Smoothness(), 100.0
    smoothness.rendered(now)
    for interval in intervals:
        now += interval
        smoothness.rendered(now)
    return smoothness


def test_a_freeze_is_three_intervals_or_150_ms_over_the_average() -> None:
    steady = [1 / 30] * 30
    assert played(*steady, 0.18).freeze_count == 0, "33 + 150 ms are not reached"
    frozen = played(*steady, 0.184, *steady, 0.5)
    assert frozen.freeze_count == 2
    assert frozen.total_freezes_s == pytest.approx(0.684)
    slow = [0.2] * 30
    assert played(*slow, 0.55).freeze_count == 0, "three intervals of 200 ms are not reached"
    assert played(*slow, 0.61).freeze_count == 1


def test_only_the_last_30_frames_count() -> None:
    assert played(*[0.2] * 30, *[1 / 30] * 30, 0.19).freeze_count == 1
    assert played(*[0.2] * 30, *[1 / 30] * 10, 0.19).freeze_count == 0


def test_intervals_are_summed_for_their_variance() -> None:
    smoothness = played(0.1, 0.3)
    assert smoothness.frames_rendered == 3
    assert smoothness.total_inter_frame_delay_s == pytest.approx(0.4)
    assert smoothness.total_squared_inter_frame_delay_s2 == pytest.approx(0.1)


def test_a_long_gap_is_a_pause_and_an_intended_one_is_nothing() -> None:
    smoothness = played(*[1 / 30] * 30, 6.0)
    assert (smoothness.freeze_count, smoothness.pause_count) == (0, 1)
    assert smoothness.total_pauses_s == pytest.approx(6.0)
    smoothness.interrupted()
    smoothness.rendered(1000.0)
    assert (smoothness.freeze_count, smoothness.pause_count) == (0, 1)


def looks(watch: StallWatch, begin: float, end: float, **facts: int) -> dict[float, Remedy]:
    found = {}
    for step in range(round((end - begin) * 4)):
        now = begin + step / 4
        remedy = watch.look(now, due=True, **{"units": 0, "decoded": 0, **facts})
        if remedy is not Remedy.NONE:
            found[now] = remedy
    return found


def test_without_packets_a_key_frame_is_asked_for_and_then_people_are_told() -> None:
    watch = StallWatch()
    remedies = looks(watch, 10.0, 10.0 + STALLED_S)
    assert set(remedies.values()) == {Remedy.KEY_FRAME}, "a new decoder cannot help"
    assert next(iter(remedies)) == 10.0 + ASK_S
    assert not watch.stalled
    watch.look(10.0 + STALLED_S, due=True, units=0, decoded=0)
    assert watch.stalled
    watch.look(16.0, due=True, units=1, decoded=1)
    assert not watch.stalled


def test_a_decoder_that_gives_nothing_is_replaced() -> None:
    watch = StallWatch()
    watch.look(10.0, due=True, units=5, decoded=5)
    remedies = looks(watch, 10.25, 14.0, units=9, decoded=5)
    assert remedies[10.0 + ASK_S] is Remedy.KEY_FRAME
    assert remedies[10.0 + RESTART_S] is Remedy.NEW_DECODER
    assert list(remedies.values()).count(Remedy.NEW_DECODER) == 1


def test_what_is_not_due_does_not_stall() -> None:
    watch = StallWatch()
    for second in range(100):
        assert watch.look(second, due=False, units=0, decoded=0) is Remedy.NONE
    assert not watch.stalled
    assert watch.look(100.0, due=True, units=0, decoded=0) is Remedy.NONE, "the time before does not count"
    assert watch.look(100.5, due=True, units=0, decoded=0) is Remedy.NONE


def test_the_average_stands_what_another_thread_does_meanwhile() -> None:
    class Interrupted(deque[float]):
        def __iter__(self) -> Iterator[float]:
            known = list(super().__iter__())
            self.clear()
            return iter(known)

    smoothness = Smoothness()
    smoothness._intervals = Interrupted([0.02, 0.04])
    assert smoothness.average_s == pytest.approx(0.03)
    assert smoothness.average_s == 0.0


def test_a_peer_with_few_pictures_is_given_time() -> None:
    watch = StallWatch()
    watch.look(10.0, due=True, units=5, decoded=5, interval_s=2.0)
    for now in (12.0, 13.0, 15.0):
        assert watch.look(now, due=True, units=5, decoded=5, interval_s=2.0) is Remedy.NONE
    assert watch.look(16.0, due=True, units=5, decoded=5, interval_s=2.0) is Remedy.KEY_FRAME
