"""Video packets to access units: order, holes, requests by the round trip, giving up, key frames, bounds."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.media.assembly import (
    ECHO_S,
    ECHOES,
    GUESS_TRIES,
    MAX_BYTES,
    MAX_HOLES,
    MAX_PACKETS,
    REORDER_MOST_S,
    RETRY_LEAST_S,
    TAIL_LEAST_S,
    TRIES,
    LossList,
    VideoAssembler,
    is_key_frame,
)

KEY = b"\0\0\0\1\x67sps\0\0\0\1\x68pps\0\0\0\1\x65\x88idr"
DELTA = b"\0\0\0\1\x41\x9adelta"


def shown(video: VideoAssembler, sequence: int, timestamp: int, marker: bool, data: bytes, now: float = 0.0,
          *, resent: bool = False) -> list[tuple[int, bytes]]:
    units = video.add(sequence, timestamp, marker, data, now, resent=resent)
    assert all(unit.arrived_s == now and unit.key == is_key_frame(unit.data) for unit in units)
    return [(unit.timestamp, unit.data) for unit in units]


def begun() -> VideoAssembler:
    """A key frame at 10 has been shown."""
    video = VideoAssembler()
    assert shown(video, 10, 100, True, KEY) == [(100, KEY)]
    return video


def test_key_frames_are_recognised() -> None:
    assert is_key_frame(KEY)
    assert is_key_frame(b"\0\0\1\x09\xf0" + KEY)  # an access unit delimiter stands before
    assert not is_key_frame(DELTA)
    assert not is_key_frame(b"\0\0\1")


# --- order ------------------------------------------------------------------------------------------------------------


def test_a_frame_is_released_by_its_marker_not_by_the_next_frame() -> None:
    video = VideoAssembler()
    assert shown(video, 10, 100, False, KEY) == []
    assert shown(video, 11, 100, True, b"rest") == [(100, KEY + b"rest")]
    assert shown(video, 12, 200, True, DELTA) == [(200, DELTA)]


def test_a_frame_without_marker_is_released_by_the_next() -> None:
    video = VideoAssembler()
    assert shown(video, 10, 100, False, KEY) == []
    assert shown(video, 11, 200, False, DELTA) == [(100, KEY)]


def test_nothing_is_shown_before_a_key_frame() -> None:
    video = VideoAssembler()
    assert shown(video, 10, 100, False, DELTA) == []
    assert not video.asks_key, "the first frame is still coming: it may be a key frame"
    assert shown(video, 11, 100, True, b"") == []
    assert video.asks_key
    assert shown(video, 12, 200, True, KEY) == [(200, KEY)]
    assert not video.wants_key
    assert not video.asks_key


def test_padding_between_frames_is_no_frame() -> None:
    video = begun()
    assert shown(video, 11, 100, False, b"") == []
    assert shown(video, 12, 100, False, b"") == []
    assert shown(video, 13, 200, True, DELTA) == [(200, DELTA)]
    assert video.buffered_bytes == 0


def test_a_peer_that_starts_again_is_followed() -> None:
    video = begun()
    assert shown(video, 40_000, 4, True, DELTA, 1) == []
    assert video.asks_key
    assert shown(video, 40_001, 5, True, KEY, 1) == [(5, KEY)]


def test_a_retransmission_of_long_ago_begins_nothing() -> None:
    """Peers repeat old packets as padding when they probe the path; some come long after they were given up."""
    video = VideoAssembler()
    assert shown(video, 7, 90, True, KEY, resent=True) == [], "of the source before this one"
    assert shown(video, 1000, 100, True, KEY) == [(100, KEY)]
    assert shown(video, 400, 50, True, DELTA, resent=True) == []
    assert video.discarded == 0, "nobody knows whether they came before"
    assert shown(video, 1001, 200, True, DELTA) == [(200, DELTA)]
    assert not video.asks_key


def test_padding_behind_a_frame_without_marker_is_no_frame() -> None:
    video = begun()
    assert shown(video, 11, 200, False, DELTA) == []
    assert shown(video, 12, 300, False, b"") == [(200, DELTA)]
    assert shown(video, 13, 400, True, DELTA) == [(400, DELTA)], "an empty unit would end the decoder's stream"


@given(st.permutations(list(range(12))), st.sets(st.integers(0, 11), max_size=3))
def test_frames_come_in_order_whatever_the_network_does(order: list[int], lost: set[int]) -> None:
    video = VideoAssembler()
    shown(video, 100, 0, True, KEY)
    stamps = []
    for place in order:
        if place not in lost:
            stamps += [stamp for stamp, _ in shown(video, 101 + place, 10 + place, True, DELTA)]
    assert stamps == sorted(stamps)
    assert len(stamps) == len(set(stamps)) == min(lost, default=12)


Sent = tuple[int, int, bool, bytes, bool]


@given(st.lists(st.tuples(
    st.integers(0, 600), st.integers(0, 20), st.booleans(), st.sampled_from([KEY, DELTA, b"", b"more"]), st.booleans(),
), max_size=120))
@example([(at, 0, False, KEY, False) for at in (0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2)])
def test_any_packets_of_a_peer_are_survived_and_counted_right(packets: list[Sent]) -> None:
    video, now = VideoAssembler(), 0.0
    for sequence, timestamp, marker, data, resent in packets:
        now += 0.05
        video.add(sequence, timestamp, marker, data, now, resent=resent)
        video.tick(now)
        assert 0 <= video.buffered_bytes <= sum(len(packet[3]) for packet in packets)
        at = video.next_at()
        assert at is not None or video.losses.oldest() is None
        assert at is None or at > now or video.tick(now), "nothing is due for ever"


# --- holes ------------------------------------------------------------------------------------------------------------


def test_a_hole_is_asked_for_at_once_and_again_and_filled() -> None:
    video = begun()
    assert shown(video, 13, 300, True, DELTA, 1.0) == []
    assert video.tick(1.0) == [11, 12]
    retry = video.losses.retry_s
    assert video.tick(1.0 + retry / 2) == []
    assert video.tick(1.0 + retry) == [11, 12]
    assert shown(video, 12, 200, True, DELTA, 1.07, resent=True) == []
    assert shown(video, 11, 150, True, DELTA, 1.08, resent=True) == [(150, DELTA), (200, DELTA), (300, DELTA)]
    assert video.next_at() is None


def test_a_hole_is_given_up_and_then_only_a_key_frame_helps() -> None:
    video = begun()
    shown(video, 12, 300, True, DELTA, 1.0)
    assert video.tick(1.0 + video.losses.plead_s / 2) == [11]
    assert not video.asks_key
    video.tick(1.0 + video.losses.plead_s)
    assert video.asks_key, "a key frame is asked for before the packet is given up"
    assert not video.wants_key
    assert video.tick(1.0 + video.losses.give_up_s) == []
    assert (video.given_up, video.wants_key, video.next_at()) == (1, True, None)
    assert shown(video, 11, 200, True, DELTA, 1.5, resent=True) == [], "too late"
    assert shown(video, 11, 200, True, DELTA, 1.5, resent=True) == [], "and twice"
    assert video.discarded == 1
    assert shown(video, 13, 400, True, DELTA, 1.5) == []
    assert shown(video, 14, 500, True, KEY, 1.5) == [(500, KEY)]


def test_a_whole_key_frame_does_not_wait_for_what_is_missing_before_it() -> None:
    video = begun()
    shown(video, 12, 300, True, DELTA, 1.0)
    assert shown(video, 13, 400, False, KEY, 1.1) == []
    assert shown(video, 14, 400, True, b"rest", 1.1) == [(400, KEY + b"rest")]
    assert (video.skipped, video.given_up, len(video.losses)) == (1, 0, 0)
    assert shown(video, 15, 500, True, DELTA, 1.2) == [(500, DELTA)]
    assert video.buffered_bytes == 0


def test_an_idr_slice_whose_parameter_sets_are_missing_is_not_whole() -> None:
    video = begun()
    assert shown(video, 12, 400, True, b"\0\0\0\1\x65\x88idr", 1.0) == []
    assert shown(video, 11, 400, False, b"\0\0\0\1\x67sps", 1.05, resent=True) == [
        (400, b"\0\0\0\1\x67sps\0\0\0\1\x65\x88idr")]


def test_a_key_frame_that_has_begun_to_come_outlives_the_giving_up() -> None:
    video = begun()
    shown(video, 12, 300, True, DELTA, 1.0)
    shown(video, 13, 400, False, KEY, 1.1)
    shown(video, 15, 400, True, b"end", 1.1)
    assert video.tick(1.0 + video.losses.give_up_s) == [14], "what lacks of the key frame is still asked for"
    assert video.given_up == 1
    assert shown(video, 14, 400, False, b"mid", 1.45, resent=True) == [(400, KEY + b"mid" + b"end")]


def test_a_key_frame_whose_slices_all_begin_like_one_is_put_together_once() -> None:
    """Whatever their order, from the first of them on; and thousands of them cost no more than other packets."""
    video = begun()
    shown(video, 12, 300, False, KEY, 1.0)
    shown(video, 14, 400, False, KEY, 1.0)
    shown(video, 13, 400, False, b"\0\0\0\1\x67first", 1.0)
    assert shown(video, 15, 400, True, KEY, 1.0) == [(400, b"\0\0\0\1\x67first" + KEY + KEY)]
    begin = time.process_time()
    for sequence in range(17, 1500):
        assert shown(video, sequence, 500 + sequence // 700, False, KEY, 1.1) == []
    assert time.process_time() - begin < 1, "half a minute, when each is looked at again for all the others"


def test_a_long_round_trip_is_waited_for() -> None:
    """600 ms: the first retransmission comes after the give-up time of a short path, the second one too."""
    video = begun()
    video.losses.round_trip_hint = 0.6
    shown(video, 12, 300, True, DELTA, 1.0)
    asked = [moment / 100 for moment in range(100, 250) if video.tick(moment / 100)]
    assert asked[0] == 1.0
    assert all(later - asked[0] >= 0.6 for later in asked[1:])
    assert len(asked) <= 5, "the first, and two more that are said twice"
    assert video.given_up == 0
    assert len(shown(video, 11, 200, True, DELTA, 2.3, resent=True)) == 2


def test_a_path_turns_out_to_be_long_and_the_requests_become_fewer() -> None:
    video, sequence, now, asked = begun(), 11, 1.0, []
    for _ in range(12):
        lost_at, sequence = sequence, sequence + 2
        shown(video, lost_at + 1, sequence * 10, True, DELTA, now)
        times, end = 0, now + 0.3
        while now < end:
            times += bool(video.tick(now))
            now += 0.005
        shown(video, lost_at, sequence * 10 - 10, True, DELTA, now, resent=True)
        asked.append(times)
        for _ in range(200):  # else the loss would be so high that each request is said twice
            video.losses.seen()
    assert asked[0] >= 4
    assert set(asked[-4:]) == {1}, f"requests per loss: {asked}"
    assert video.losses.retry_s > 0.3


def test_requests_are_limited_in_tries_and_in_number() -> None:
    losses = LossList()
    losses.missing(5, 6, 0.0)
    assert TRIES <= sum(len(losses.due(moment * 0.1)) for moment in range(1000)) <= TRIES * (1 + ECHOES)
    assert losses.next_at() is None
    video = begun()
    shown(video, 12 + MAX_HOLES, 300, True, DELTA, 1.0)
    assert video.tick(1.0) == [], "so much is not worth its retransmission"
    assert video.asks_key


def test_the_lost_end_of_a_picture_is_asked_for_before_the_next_one_comes() -> None:
    video = begun()
    for number in range(4):
        shown(video, 11 + number, 200, number == 3, DELTA, 1.0 + number * 0.004)
    shown(video, 15, 300, False, DELTA, 1.1)
    shown(video, 16, 300, False, DELTA, 1.104)
    due = 1.104 + TAIL_LEAST_S
    assert video.next_at() == pytest.approx(due)
    assert video.tick(due - 0.001) == []
    assert video.tick(due) == [17, 18], "as many as the picture before had"
    assert shown(video, 17, 300, False, DELTA, 1.16, resent=True) == []
    assert shown(video, 18, 300, True, DELTA, 1.16, resent=True) == [(300, DELTA * 4)]
    assert (len(video.losses), video.next_at()) == (0, None)
    shown(video, 19, 400, False, DELTA, 1.2)
    assert video.next_at() == pytest.approx(1.2 + TAIL_LEAST_S), "a repair takes its time: that is no gap to learn from"


def test_a_picture_that_does_not_come_is_asked_for_before_the_one_after_it() -> None:
    video = begun()
    for number in range(3):
        shown(video, 11 + 2 * number, 3000 * number + 3000, False, DELTA, 1.0 + number / 30)
        shown(video, 12 + 2 * number, 3000 * number + 3000, True, DELTA, 1.001 + number / 30)
    due = 1.0 + 3 / 30 + TAIL_LEAST_S
    assert video.next_at() == pytest.approx(due)
    assert video.tick(due) == [17, 18]
    assert [count for count in (len(video.tick(due + step * 0.01)) for step in range(300)) if count] == [2] * (
        GUESS_TRIES - 1), "it may be a pause: no more than this"
    for number in range(3):
        shown(video, 17 + number, 30_000 + 3000 * number, True, DELTA, 5.0 + number * 0.05)
    assert (video.next_at() or 0) > 5.1 + 3000 / 90_000 + 0.02, "pictures of this camera come 17 ms late"


def test_what_is_slow_by_nature_is_not_asked_for_and_a_pause_is_no_loss() -> None:
    video = begun()
    for number in range(6):
        shown(video, 11 + number, 200, number == 5, DELTA, 1.0 + number * 0.03)
    shown(video, 17, 300, False, DELTA, 1.2)
    at = video.next_at()
    assert at is not None
    assert at > 1.2 + 0.03, "packets of this path come 30 ms apart"
    asked = [video.tick(2.0 + step * 0.01) for step in range(500)]
    assert sum(map(bool, asked)) <= 2 * GUESS_TRIES
    assert not video.asks_key
    assert video.given_up == 0
    assert shown(video, 18, 300, True, DELTA, 10.0) == [(300, DELTA * 2)], "it was not lost, but late"
    shown(video, 20, 400, True, DELTA, 10.1)
    assert video.tick(10.1) == [19], "and nothing was learnt about reordering"


def test_under_high_loss_the_first_request_is_said_twice() -> None:
    losses = LossList()
    for sequence in range(0, 400, 10):
        losses.missing(sequence, sequence + 1, 0.0)
        losses.due(0.0)
        losses.found(sequence, 0.02, resent=True)
        for _ in range(9):
            losses.seen()
    losses.missing(500, 501, 1.0)
    assert losses.due(1.0) == [500]
    assert losses.due(1.0 + ECHO_S) == [500]
    assert losses.due(1.0 + ECHO_S + 0.005) == []
    assert losses.due(1.0 + losses.retry_s) == [500]


def test_packets_that_overtake_each_other_are_waited_for_a_little() -> None:
    losses = LossList()
    losses.missing(5, 6, 1.0)
    assert losses.due(1.0) == [5], "nothing is known of the path yet"
    losses.found(5, 1.008, resent=False)
    losses.missing(7, 8, 2.0)
    assert losses.due(2.0) == []
    assert losses.due(2.008) == []
    losses.found(7, 2.008, resent=False)
    losses.missing(9, 10, 3.0)
    assert losses.due(3.0 + REORDER_MOST_S) == [9], "but not for long"
    for sequence in range(11, 1000, 2):
        losses.missing(sequence, sequence + 1, 4.0)
        losses.due(5.0)
    losses.clear()
    losses.missing(2000, 2001, 6.0)
    assert losses.due(6.001) == [2000], "the path has become orderly"


def test_the_retry_interval_follows_the_measured_round_trip() -> None:
    losses = LossList()
    losses.round_trip_hint = 0.2
    assert losses.retry_s == pytest.approx(0.225)
    for sequence in range(100):
        losses.missing(sequence, sequence + 1, sequence)
        losses.due(sequence)
        losses.found(sequence, sequence + 0.08, resent=True)
    assert 0.08 < losses.retry_s < 0.1
    for sequence in range(100, 200):
        losses.missing(sequence, sequence + 1, sequence)
        losses.due(sequence)
        losses.found(sequence, sequence + 0.002, resent=True)
    assert losses.retry_s == RETRY_LEAST_S


def test_after_a_black_out_a_key_frame_is_asked_for_and_not_what_is_old() -> None:
    video = begun()
    assert shown(video, 30, 300, True, DELTA, 1.0) == []
    assert video.tick(1.0) == []
    assert (video.asks_key, video.wants_key) == (True, True)
    assert shown(video, 31, 400, True, KEY, 1.1) == [(400, KEY)]
    assert shown(video, 32, 500, True, DELTA, 9.0) == [(500, DELTA)], "a pause in which nothing is lost is none"


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_what_waits_behind_a_hole_is_bounded_in_bytes_and_packets() -> None:
    for size in (1200, 0):
        video, most, count = begun(), 0, 0
        for number in range(MAX_PACKETS * 2):
            video.add(12 + number, 300 + number, False, bytes(size), 1.0)
            most, count = max(most, video.buffered_bytes), max(count, len(video._packets))
        assert most <= MAX_BYTES
        assert count <= MAX_PACKETS
        assert video.given_up >= 1
