"""Who of several under one identity is shown in a room, and of whom it is told."""

from __future__ import annotations

from appliance.providers.janus.effects import (
    StartTimer,
    TakenOver,
    Timer,
)
from appliance.vocabulary import Json
from tests.support.janus_desk import Desk, person


def gate(number: int, name: str) -> Json:
    return person(number, name, metadata={"identity": "gate-1"})


def test_of_an_identity_the_newest_counts_and_of_us_no_ghost() -> None:
    desk = Desk()
    desk.in_room(gate(2, "old"), person(3, "me", metadata={"identity": "door-1"}), gate(4, "new"))
    assert desk.names == ["new"]
    assert not desk.of(TakenOver)  # so it was when we came


def test_an_identity_changes_hands_once_in_30_s_and_each_time_is_told() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.says({"videoroom": "event", "publishers": [gate(3, "second")]})
    assert desk.names == ["second"]
    assert desk.of(TakenOver) == [TakenOver("gate-1")]
    desk.now += 10
    desk.says({"videoroom": "event", "publishers": [gate(4, "third")]})
    assert desk.names == ["second"]
    assert StartTimer(Timer.TAKE_OVER, 20.0) in desk.done
    desk.now += 20
    desk.run(desk.member.timeout(Timer.TAKE_OVER))
    assert desk.names == ["third"]
    assert desk.of(TakenOver) == [TakenOver("gate-1")] * 2


def test_who_is_back_after_the_old_one_has_left_takes_nothing_over() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.says({"videoroom": "event", "leaving": 2})
    desk.says({"videoroom": "event", "publishers": [gate(3, "second")]})
    desk.says({"videoroom": "event", "leaving": 3})
    desk.says({"videoroom": "event", "publishers": [gate(4, "third")]})
    assert desk.names == ["third"]
    assert not desk.of(TakenOver)


def test_of_two_the_one_that_is_left_is_shown() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.says({"videoroom": "event", "publishers": [gate(3, "second")]})
    desk.says({"videoroom": "event", "leaving": 3})
    assert desk.names == ["first"]


def test_another_device_under_our_own_identity_is_shown_and_told() -> None:
    desk = Desk()
    desk.in_room()
    desk.says({"videoroom": "event", "publishers": [person(2, "Front door", metadata={"identity": "door-1"})]})
    assert desk.names == ["Front door"]
    assert desk.of(TakenOver) == [TakenOver("door-1")]


def test_a_loss_of_ours_is_no_take_over_of_others() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.run(desk.member.link_down("closed"))
    desk.asked.clear()
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "claim")
    desk.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    desk.joined(gate(7, "first"), handle=21, own=8)
    assert desk.names == ["first"]
    assert not desk.of(TakenOver)
