"""Digits of telephones: what is sent for one, and that each is told once whatever is lost."""

from __future__ import annotations

import pytest

from appliance.media.events import DIGITS, EventPacket, EventReader, packets_of


def test_a_digit_grows_and_its_end_is_told_three_times() -> None:
    packets = list(packets_of("5", 0.1, 8000, 0.02))
    assert [packet.duration for packet in packets] == [160, 320, 480, 640, 800, 800, 800]
    assert [packet.end for packet in packets] == [False] * 4 + [True] * 3
    assert packets[0].pack() == bytes([5, 10, 0, 160])
    assert EventPacket.parse(packets[-1].pack()) == packets[-1]
    assert next(packets_of("#", 0.1, 48_000, 0.02)).event == 11


@pytest.mark.parametrize(("digit", "seconds"), [("E", 0.1), ("", 0.1), ("55", 0.1), ("5", 0.01), ("5", 9.0)])
def test_what_is_no_digit_is_refused(digit: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="digit"):
        list(packets_of(digit, seconds, 8000, 0.02))


@pytest.mark.parametrize("lost", [(), (0,), (0, 1, 2, 3), (4, 5, 6), (0, 1, 2, 3, 4, 5)])
def test_each_digit_is_told_once_whatever_is_lost(lost: tuple[int, ...]) -> None:
    reader, told = EventReader(), []
    for start, digit in ((0xFFFFFF00, "1"), (2000, "1"), (5000, "#")):  # the timestamps wrap on the way
        for number, packet in enumerate(packets_of(digit, 0.1, 8000, 0.02)):
            if number not in lost:
                told.append(reader.take(start, packet))
    told.append(reader.take(2000, EventPacket(1, 800, end=True)))  # late
    assert [digit for digit in told if digit] == ["1", "1", "#"]


def test_events_that_are_no_digits_are_nothing() -> None:
    assert EventReader().take(0, EventPacket(len(DIGITS), 100)) is None
    with pytest.raises(ValueError, match="four bytes"):
        EventPacket.parse(b"\x01\x02\x03")
