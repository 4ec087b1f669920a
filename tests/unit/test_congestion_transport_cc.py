"""Transport-wide feedback on the wire: round trip, bad input, and what a receiver reports."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media.congestion.transport_cc import (
    MAX_STATUSES,
    REPORT_STATUSES,
    TICKS_PER_S,
    WINDOW,
    Arrivals,
    MalformedFeedbackError,
    TransportFeedback,
    split_compound,
)


@st.composite
def feedbacks(draw: st.DrawFn) -> TransportFeedback:
    reference = draw(st.integers(-0x800000, 0x7FFFFF))
    ticks, arrivals = reference * 256, []
    steps = st.one_of(st.none(), st.integers(-0x8000, 0x7FFF), st.integers(0, 255))
    for step in draw(st.lists(steps, min_size=1, max_size=120)):
        repeat = draw(st.integers(1, 30))
        for _ in range(repeat):
            ticks += step or 0
            arrivals.append(None if step is None else ticks)
    return TransportFeedback(draw(st.integers(0, 0xFFFF)), reference, draw(st.integers(0, 255)), tuple(arrivals))


@given(feedbacks())
def test_what_is_written_is_read_again(feedback: TransportFeedback) -> None:
    assert TransportFeedback.parse(feedback.fci()) == feedback
    rest, bodies = split_compound(feedback.packet(1, 2))
    assert rest == b""
    assert [TransportFeedback.parse(body) for body in bodies] == [feedback]


@given(st.binary(max_size=200))
def test_bad_input_is_refused_in_one_way(data: bytes) -> None:
    try:
        parsed = TransportFeedback.parse(data)
    except MalformedFeedbackError:
        return
    assert 0 < len(parsed.arrivals) <= MAX_STATUSES


@given(st.binary(max_size=200))
def test_any_compound_is_split_without_harm(data: bytes) -> None:
    rest, bodies = split_compound(data)
    assert len(rest) + sum(map(len, bodies)) <= len(data)


def test_the_example_of_the_draft_is_read() -> None:
    # 3.1.3 and 3.1.4: a run of 3 lost, then a vector of two-bit symbols: small, large, lost, small
    chunks = struct.pack("!HH", 0 << 13 | 3, 0xC000 | 1 << 12 | 2 << 10 | 0 << 8 | 1 << 6)
    fci = struct.pack("!HHL", 10, 7, 2 << 8 | 9) + chunks + bytes([4]) + struct.pack("!h", -2) + bytes([8])
    assert TransportFeedback.parse(fci + b"\0") == TransportFeedback(10, 2, 9, (None, None, None, 516, 514, None, 522))


@pytest.mark.parametrize("fci", [
    b"", struct.pack("!HHL", 1, 0, 0), struct.pack("!HHL", 1, MAX_STATUSES + 1, 0),
    struct.pack("!HHL", 1, 5, 0), struct.pack("!HHLH", 1, 5, 0, 0), struct.pack("!HHLH", 1, 5, 0, 1 << 13 | 5),
], ids=["empty", "none", "too many", "no chunk", "empty run", "no times"])
def test_what_does_not_hold_together_is_refused(fci: bytes) -> None:
    with pytest.raises(MalformedFeedbackError):
        TransportFeedback.parse(fci)


def test_other_feedback_in_the_compound_is_left_alone() -> None:
    nack = struct.pack("!BBHLLHH", 0x81, 205, 3, 1, 2, 77, 0)
    feedback = TransportFeedback(5, 0, 0, (3, None, 9))
    rest, bodies = split_compound(nack + feedback.packet(1, 2) + nack)
    assert rest == nack * 2
    assert TransportFeedback.parse(bodies[0]) == feedback
    assert split_compound(nack + b"\x8f\xcd\x00\x09") == (nack + b"\x8f\xcd\x00\x09", []), "does not hold together"


def told(arrivals: Arrivals) -> dict[int, int | None]:
    """What the reports say, by sequence number; each goes over the wire."""
    said: dict[int, int | None] = {}
    for report in arrivals.reports():
        parsed = TransportFeedback.parse(report.fci())
        said |= {parsed.base + place & 0xFFFF: ticks for place, ticks in enumerate(parsed.arrivals)}
    return said


def test_each_arrival_is_told_once_and_holes_as_lost() -> None:
    arrivals = Arrivals()
    for sequence in (65534, 65535, 1, 2):
        arrivals.add(sequence, sequence % 10 / 100)
    assert told(arrivals) == {65534: 160, 65535: 200, 0: None, 1: 40, 2: 80}
    assert not arrivals.waiting
    assert arrivals.reports() == []
    arrivals.add(5, 1.0)
    assert told(arrivals) == {3: None, 4: None, 5: TICKS_PER_S}


def test_a_latecomer_is_told_with_those_that_overtook_it() -> None:
    arrivals = Arrivals()
    for sequence in (10, 12, 13):
        arrivals.add(sequence, 1.0)
    told(arrivals)
    arrivals.add(11, 1.5)
    arrivals.add(14, 1.6)
    assert told(arrivals) == {11: 6000, 12: 4000, 13: 4000, 14: 6400}
    arrivals.add(11, 9.0)
    assert not arrivals.waiting, "a copy is nothing new"


def test_long_silence_and_many_packets_take_several_messages() -> None:
    arrivals = Arrivals()
    arrivals.add(1, 0.0)
    arrivals.add(2, 60.0)
    for sequence in range(3, REPORT_STATUSES + 10):
        arrivals.add(sequence, 60.0)
    reports = arrivals.reports()
    assert len(reports) == 3
    assert [report.count for report in reports] == [0, 1, 2]
    assert all(len(report.fci()) < 1200 for report in reports)
    assert sum(len(report.arrivals) for report in reports) == REPORT_STATUSES + 9


def test_a_jump_is_a_new_start_and_memory_is_bounded() -> None:
    arrivals = Arrivals()
    arrivals.add(1, 0.0)
    arrivals.add(1 + WINDOW + 5, 0.1)
    assert told(arrivals) == {WINDOW + 6: 400}
    for sequence in range(4000, 60_000):
        arrivals.add(sequence, sequence / 1000)
        if sequence % 50 == 0:
            arrivals.reports()
    assert len(arrivals._times) < WINDOW + 60
