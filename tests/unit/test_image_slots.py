"""Slots: what is booted, pending and tried, how each trial ends, and what a power cut at any write leaves."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecall_image.layout import Slot
from edgecall_image.marks import Marks
from edgecall_image.selector import SelectorError
from edgecall_image.slots import ASKS, Place, SlotError, Slots
from tests.support.power import HOLDS, Hold, Power
from tests.support.slot_card import Card


@pytest.fixture(autouse=True)
def no_disk_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def on_trial(card: Card) -> Card:
    card.slots.make_primary("B")
    card.slots.ask()
    assert card.reboot() == "B"
    assert card.slots.settle() == "trial"
    return card


def test_the_places_of_an_appliance() -> None:
    assert Place() == (Path("/dev/disk/by-partuuid/edca1101-01"), Path("/data/update"), Path("/proc/cmdline"),
                       Path("/run/systemd/reboot-param"))


def test_a_new_card_has_nothing_to_try(card: Card) -> None:
    slots = card.slots
    assert (slots.booted(), slots.default(), slots.primary(), slots.pending()) == ("A", "A", "A", None)
    assert slots.settle() == "nothing"
    assert not slots.on_trial()
    assert card.marks() == set()


def test_a_good_trial_is_committed(card: Card) -> None:
    card.slots.make_primary("B")
    assert (card.slots.primary(), card.slots.default(), card.requested) == ("B", "A", False)
    assert card.slots.ask() == "B"
    assert card.requested
    assert card.reboot() == "B"
    assert card.slots.settle() == "trial"
    assert card.slots.on_trial()
    assert card.marks() == {"pending.B", "tried.B", "asked.B"}
    card.slots.mark_good("B")
    assert (card.slots.default(), card.slots.on_trial(), card.marks()) == ("B", False, set())
    assert card.power_cycle() == "B"
    assert card.slots.settle() == "nothing"
    assert card.slots.verdict() is None, "whoever committed it reports it"


def test_a_trial_that_was_judged_bad_goes_back_and_is_not_tried_again(card: Card) -> None:
    on_trial(card).slots.mark_bad("B")
    assert card.marks() == {"bad.B"}
    assert card.reboot() == "A"
    assert card.slots.settle() == "nothing"
    assert (card.slots.is_bad("B"), card.slots.is_bad("A"), card.slots.primary()) == (True, False, "A")


def test_a_trial_that_nobody_judged_has_failed(card: Card) -> None:
    assert on_trial(card).power_cycle() == "A"
    assert card.slots.settle() == "failed"
    verdict = card.slots.verdict()
    assert verdict is not None and verdict[:2] == ("B", "failed") and verdict.at.endswith("Z")
    assert card.marks() == {"bad.B", "verdict.json"}
    assert not card.requested
    card.slots.forget_verdict()
    assert card.slots.verdict() is None
    assert card.power_cycle() == "A"
    assert card.slots.settle() == "nothing"


def test_a_request_that_the_firmware_loses_is_made_again_twice(card: Card) -> None:
    card.slots.make_primary("B")
    for _ in range(ASKS):
        assert card.slots.ask() == "B"
        assert card.requested
        card.start("A")  # the firmware lost it
        if _ < ASKS - 1:
            assert card.slots.settle() == "waiting"
            assert not card.requested
    assert card.slots.settle() == "neverStarted"
    assert not card.requested
    verdict = card.slots.verdict()
    assert verdict is not None and verdict[:2] == ("B", "neverStarted")
    assert card.marks() == {"bad.B", "verdict.json"}


def test_a_request_that_power_took_before_it_was_made_does_not_count(card: Card) -> None:
    card.slots.make_primary("B")
    for _ in range(2 * ASKS):
        assert card.power_cycle() == "A"
        assert card.slots.settle() == "waiting"
    assert card.slots.ask() == "B"
    assert card.reboot() == "B"


def test_a_reboot_for_another_reason_tries_nothing(card: Card) -> None:
    """An update that is held, or waits for its window, waits on."""
    card.slots.make_primary("B")
    for _ in range(2 * ASKS):
        assert card.reboot() == "A"
        assert card.slots.settle() == "waiting"


def test_a_reboot_that_does_not_take_place_is_not_made_up_for_by_the_next_one(card: Card) -> None:
    card.slots.make_primary("B")
    for _ in range(2 * ASKS):
        card.slots.ask()
        card.slots.unask()
        assert not card.requested
    assert card.reboot() == "A"
    assert card.slots.settle() == "waiting", "the firmware was never asked"
    card.slots.make_primary("A")
    card.slots.unask()
    assert card.marks() == set()


def test_a_request_that_was_heard_or_lost_stays_counted(card: Card) -> None:
    card.slots.make_primary("B")
    for _ in range(ASKS):
        card.slots.ask()
        card.start("A")
        card.slots.unask()
    assert card.slots.settle() == "neverStarted"


def test_a_request_that_cannot_be_made_is_not_counted(card: Card) -> None:
    card.slots.make_primary("B")
    card.place.request.parent.rmdir()
    card.place.request.parent.write_text("")
    for _ in range(ASKS):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            card.slots.ask()
    assert card.slots.settle() == "waiting"


def test_a_count_that_cannot_be_read_ends_the_asking(card: Card) -> None:
    card.slots.make_primary("B")
    (card.place.marks / "asked.B").write_bytes(b"\xff")
    assert card.power_cycle() == "A"
    assert card.slots.settle() == "neverStarted"


def test_asking_needs_a_pending_slot(card: Card) -> None:
    with pytest.raises(SlotError, match="no slot is pending"):
        card.slots.ask()


def test_the_default_as_primary_withdraws_what_was_to_be_tried(card: Card) -> None:
    card.slots.make_primary("B")
    card.slots.make_primary("A")
    assert (card.slots.primary(), card.requested, card.marks()) == ("A", False, set())


def test_a_bad_slot_that_is_asked_for_again_is_tried_again(card: Card) -> None:
    on_trial(card).power_cycle()
    assert card.slots.settle() == "failed"
    card.slots.make_primary("B")
    assert not card.slots.is_bad("B")
    card.slots.ask()
    assert card.reboot() == "B"
    assert card.slots.settle() == "trial"


def test_a_slot_on_trial_that_is_made_primary_may_still_fail(card: Card) -> None:
    slots = on_trial(card).slots
    with pytest.raises(SlotError, match="slot B is on trial"):
        slots.make_primary("A")
    slots.make_primary("B")
    assert (slots.primary(), card.requested) == ("B", False)
    assert card.reboot() == "A"
    assert card.slots.settle() == "failed"


def test_the_way_back_cannot_be_written_over_during_a_trial(card: Card) -> None:
    slots = on_trial(card).slots
    with pytest.raises(SlotError, match="slot A is what a failed trial goes back to"):
        slots.mark_bad("A")
    assert not slots.is_bad("A")
    slots.mark_good("B")
    slots.mark_bad("A")
    assert slots.is_bad("A")


def test_a_slot_that_is_about_to_be_written_is_not_tried(card: Card) -> None:
    card.slots.make_primary("B")
    card.slots.mark_bad("B")
    assert (card.requested, card.slots.pending(), card.marks()) == (False, None, {"bad.B"})


def test_good_of_a_slot_that_is_not_on_trial_only_clears_its_mark(card: Card) -> None:
    card.slots.mark_bad("A")
    card.slots.mark_bad("B")
    card.slots.mark_good("B")
    card.slots.mark_good("A")
    assert (card.slots.default(), card.marks()) == ("A", set())


def test_a_request_of_somebody_else_stays(card: Card) -> None:
    card.place.request.write_text("1\n")
    card.slots.mark_bad("B")
    assert card.place.request.read_text() == "1\n"


@pytest.mark.parametrize(("line", "said"), [
    ("root=/dev/vda\n", "names no slot as rauc"),
    ("rauc.slot=C ro", "names C as rauc"),
    ("rauc.slot=", "names no slot as rauc"),
    ("rauc.slot=A rauc.slot=B", "names A and B as rauc"),
    ("xrauc.slot=A", "names no slot as rauc"),
])
def test_a_command_line_that_names_no_slot_is_damaged(card: Card, line: str, said: str) -> None:
    card.place.command_line.write_text(line)
    with pytest.raises(SlotError, match=said):
        card.slots.booted()


def test_a_selector_that_somebody_changed_stops_everything_and_is_left_alone(card: Card) -> None:
    on_trial(card)
    image = card.place.selector.read_bytes().replace(b"[all]\n", b"[ALL]\n")
    card.place.selector.write_bytes(image)
    marks = card.marks()
    for call in (card.slots.default, card.slots.settle, card.slots.ask, lambda: card.slots.make_primary("B"),
                 lambda: card.slots.mark_good("B"), lambda: card.slots.mark_bad("B")):
        with pytest.raises(SelectorError, match="did not write"):
            call()
    assert (card.place.selector.read_bytes(), card.marks()) == (image, marks)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"slot": "C", "outcome": "failed", "at": ""}',
                                     b'{"slot": "A", "outcome": ["x"], "at": ""}', b"\xff", b'{"slot": []}'])
def test_a_damaged_verdict_is_none(card: Card, content: bytes) -> None:
    (card.place.marks / "verdict.json").write_bytes(content)
    assert card.slots.verdict() is None


def test_one_changes_slots_at_a_time(card: Card) -> None:
    descriptor = os.open(card.place.marks, os.O_RDONLY)
    try:
        with Marks(card.place.marks).alone(), pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_marks_survive_a_folder_that_is_not_there_yet(card: Card) -> None:
    card.place.marks.rmdir()
    assert card.slots.settle() == "nothing"
    assert card.place.marks.stat().st_mode & 0o777 == 0o700


# -- power cuts --------------------------------------------------------------------------------------------------------

Prepared = Callable[[Card], object]


def pending(card: Card) -> Card:
    card.slots.make_primary("B")
    return card


def asked_out(card: Card) -> Card:
    pending(card)
    for _ in range(ASKS):
        card.slots.ask()
        card.start("A")
    return card


def gone_bad(card: Card) -> Card:
    on_trial(card).power_cycle()
    card.slots.settle()
    card.slots.forget_verdict()
    return card


def left(card: Card) -> Card:
    on_trial(card).power_cycle()
    return card


def asked(card: Card) -> Card:
    pending(card).slots.ask()
    return card


def up(card: Card) -> Card:
    asked(card).reboot()
    return card


Ending = tuple[Slot, frozenset[str], str | None]
"""Default, marks and outcome of the verdict, once all has settled."""

NOTHING: Ending = ("A", frozenset(), None)
WAITING: Ending = ("A", frozenset({"pending.B"}), None)
ASKED: Ending = ("A", frozenset({"pending.B", "asked.B"}), None)
BAD: Ending = ("A", frozenset({"bad.B"}), None)
FAILED: Ending = ("A", frozenset({"bad.B", "verdict.json"}), "failed")
NEVER: Ending = ("A", frozenset({"bad.B", "verdict.json"}), "neverStarted")
COMMITTED: Ending = ("B", frozenset(), None)
WAS_COMMITTED: Ending = ("B", frozenset({"verdict.json"}), "committed")

CUTS: list[tuple[Prepared, Callable[[Slots], object], set[Ending]]] = [
    (lambda card: card, lambda slots: slots.make_primary("B"), {NOTHING, WAITING}),
    (gone_bad, lambda slots: slots.make_primary("B"), {BAD, NOTHING, WAITING}),
    (pending, lambda slots: slots.make_primary("A"), {WAITING, NOTHING}),
    (pending, lambda slots: slots.mark_bad("B"), {WAITING, ("A", WAITING[1] | {"bad.B"}, None), BAD}),
    (pending, lambda slots: slots.ask(), {WAITING, ASKED}),
    (asked, lambda slots: slots.unask(), {ASKED}),
    (asked_out, lambda slots: slots.settle(), {NEVER}),
    (up, lambda slots: slots.settle(), {ASKED, FAILED}),
    (left, lambda slots: slots.settle(), {FAILED}),
    (on_trial, lambda slots: slots.mark_bad("B"), {FAILED, BAD}),
    (on_trial, lambda slots: slots.mark_good("B"), {FAILED, WAS_COMMITTED, COMMITTED}),
]


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize(("prepared", "call", "endings"), CUTS)
def test_a_power_cut_at_any_write_and_another_while_that_settles(
        tmp_path: Path, prepared: Prepared, call: Callable[[Slots], object], endings: set[Ending], hold: Hold) -> None:
    seen: set[Ending] = set()
    first, went = 0, True
    while went:
        second, second_went = 0, True
        while second_went:
            folder = tmp_path / f"{first}-{second}"
            folder.mkdir()
            card = Card(folder)
            prepared(card)
            power = Power(card.place.selector, card.place.marks)
            with power.on(first, hold):
                call(card.slots)
            went = power.went
            card.power_cycle()
            with power.on(second, hold):
                card.slots.settle()
            second_went = power.went
            slot = card.power_cycle()
            card.slots.settle()
            verdict = card.slots.verdict()
            ending = (slot, frozenset(card.marks()), verdict.outcome if verdict else None)
            assert ending in endings, f"cut before write {first}, then before write {second} of settling"
            seen.add(ending)
            second += 1
        first += 1
    assert seen == endings, "each of them comes about"
