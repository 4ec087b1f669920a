"""What each boot finds of the slot that was to be tried, in words for the journal; and the unit that looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from edgecall_image import boot
from edgecall_image.slots import ASKS, Settled
from tests.support.overlay import OVERLAY, UNITS, links
from tests.support.slot_card import Card


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def said(card: Card, capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    assert boot.main([], card.place) == status
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.strip()


def test_a_trial_that_fails(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(card, capsys) == "<6>slot A is the default, and nothing is to be tried"
    card.slots.make_primary("B")
    card.power_cycle()
    assert said(card, capsys) == (
        "<5>slot B is to be tried and did not come up yet: a reboot of the update service asks for it")
    card.slots.ask()
    card.reboot()
    assert said(card, capsys) == "<5>slot B is on trial"
    card.power_cycle()
    assert said(card, capsys) == (
        "<4>slot B came up and was left without being committed: it is marked bad, slot A stays")
    card.power_cycle()
    assert said(card, capsys) == "<6>slot A is the default, and nothing is to be tried"


def test_a_trial_that_never_starts(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card.slots.make_primary("B")
    for _ in range(ASKS):
        card.slots.ask()
    card.start("A")
    assert said(card, capsys).startswith(f"<4>slot B did not come up, asked for {ASKS} times: it is marked bad, ")


def test_a_commit_that_was_cut(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card.slots.make_primary("B")
    card.slots.ask()
    card.reboot()
    card.slots.settle()
    card.slots.mark_good("B")
    (card.place.marks / "pending.B").write_bytes(b"")
    card.power_cycle()
    assert said(card, capsys) == "<5>slot B was committed; the power went before that was written down"


def test_everything_that_can_be_found_has_words() -> None:
    assert set(boot.SAID) == set(get_args(Settled))


def test_what_cannot_be_settled_is_told(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card.place.command_line.write_text("ro quiet\n")
    assert said(card, capsys, 1).startswith("<3>the slots are not settled: the kernel's command line names no slot")


def test_a_trial_leaves_its_mark_even_where_the_selector_cannot_be_read(
        card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card.slots.make_primary("B")
    card.slots.ask()
    card.reboot()
    whole = card.place.selector.read_bytes()
    card.place.selector.write_bytes(whole[:100])
    assert "not settled" in said(card, capsys, 1)
    card.place.selector.write_bytes(whole)
    card.power_cycle()
    assert said(card, capsys).startswith("<4>slot B came up and was left")


def test_it_takes_no_arguments(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    assert boot.main(["now"], card.place) == 2
    assert capsys.readouterr().err == "usage: boot\n"


def test_the_unit_runs_at_every_boot_before_what_could_fail() -> None:
    assert links()["sysinit.target.wants/edgecall-slot.service"] == "../edgecall-slot.service"
    text = (UNITS / "edgecall-slot.service").read_text()
    assert re.search(r"^ExecStart=/usr/bin/python3 -I /usr/lib/edgecall-image/run boot$", text, re.MULTILINE)
    before = " ".join(re.findall(r"^Before=(.*)$", text, re.MULTILINE)).split()
    assert {"sysinit.target", "rauc.service", "edgecall.service"} <= set(before)


def test_rauc_is_asked_by_root_alone() -> None:
    text = (OVERLAY / "etc" / "dbus-1" / "system.d" / "edgecall-rauc.conf").read_text()
    policies = {match[1]: match[2].strip() for match in re.finditer(r"<policy (.*?)>(.*?)</policy>", text, re.DOTALL)}
    assert policies == {'context="default"': '<deny send_destination="de.pengutronix.rauc"/>',
                        'user="root"': '<allow send_destination="de.pengutronix.rauc"/>'}
