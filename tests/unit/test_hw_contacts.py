"""Debouncing, long presses and stuck buttons, on a clock of our own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.api import Press, PressKind
from hw.contacts import DEBOUNCE_S, STUCK_S, Button, Contact

LONG = 1.0


def _run(contact: Contact, edges: list[tuple[float, bool]], until: float) -> list[tuple[float, Press]]:
    """Play edges; tick exactly when the contact asks for it, as the panel does."""
    told: list[tuple[float, Press]] = []

    def tick_until(end: float) -> None:
        for _ in range(1000):
            due = contact.due()
            if due > end:
                return
            told.extend((due, press) for press in contact.tick(due))
            if isinstance(contact, Button):
                contact.stuck(due)
        raise AssertionError("due() does not advance: the panel would spin")

    for at, level in edges:
        tick_until(at)
        contact.edge(level, at)
    tick_until(until)
    return told


def _kinds(told: list[tuple[float, Press]]) -> list[PressKind]:
    return [press.kind for _, press in told]


def test_short_press() -> None:
    told = _run(Button("call", LONG), [(1.0, True), (1.3, False)], 40.0)
    assert _kinds(told) == [PressKind.PRESSED, PressKind.RELEASED]
    assert told[0][0] == pytest.approx(1.0 + DEBOUNCE_S)
    assert told[1][1].held_s == pytest.approx(0.3)


def test_long_press_has_no_release() -> None:
    told = _run(Button("call", LONG), [(1.0, True), (4.0, False)], 40.0)
    assert _kinds(told) == [PressKind.PRESSED, PressKind.HELD]
    assert told[1][0] == pytest.approx(2.0)


def test_release_just_before_the_long_press_time_is_short() -> None:
    told = _run(Button("call", LONG), [(1.0, True), (1.99, False)], 40.0)
    assert _kinds(told) == [PressKind.PRESSED, PressKind.RELEASED]


def test_a_new_press_after_a_long_one_counts() -> None:
    told = _run(Button("call", LONG), [(0.0, True), (2.0, False), (3.0, True), (3.2, False)], 40.0)
    assert _kinds(told) == [PressKind.PRESSED, PressKind.HELD, PressKind.PRESSED, PressKind.RELEASED]


def test_bounces_are_one_press() -> None:
    edges = [(1.0 + n * 0.002, n % 2 == 0) for n in range(9)] + [(1.4 + n * 0.002, n % 2 == 1) for n in range(9)]
    assert _kinds(_run(Button("call", LONG), edges, 40.0)) == [PressKind.PRESSED, PressKind.RELEASED]


def test_a_spike_is_nothing() -> None:
    assert _run(Button("call", LONG), [(1.0, True), (1.005, False)], 40.0) == []


def test_stuck_after_thirty_seconds_and_free_again() -> None:
    button = Button("call", LONG)
    _run(button, [(0.0, True)], STUCK_S - 0.1)
    assert not button.stuck(STUCK_S - 0.1)
    assert button.due() == pytest.approx(STUCK_S)
    assert button.stuck(STUCK_S)
    assert button.due() == math.inf
    assert _run(button, [(50.0, False)], 60.0) == []
    assert not button.stuck(60.0)


def test_an_input_tells_on_and_off_only() -> None:
    told = _run(Contact("door"), [(1.0, True), (8.0, False)], 40.0)
    assert _kinds(told) == [PressKind.INPUT_ON, PressKind.INPUT_OFF]
    assert told[1][1].held_s == pytest.approx(7.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.001, 3.0), max_size=20))
def test_any_rhythm_gives_whole_presses(gaps: list[float]) -> None:
    at, edges = 0.0, []
    for number, gap in enumerate(gaps):
        at += gap
        edges.append((at, number % 2 == 0))
    if len(edges) % 2:
        edges.append((at + 1.5, False))
    kinds = _kinds(_run(Button("call", LONG), edges, at + 10.0))
    assert kinds[::2] == [PressKind.PRESSED] * (len(kinds) // 2)
    assert set(kinds[1::2]) <= {PressKind.RELEASED, PressKind.HELD}
    assert len(kinds) % 2 == 0
