"""Whatever is called in whatever order, whenever the power goes: the card boots a whole system, and tells the truth."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgecall_image import backend
from edgecall_image.layout import SLOTS, Slot, other
from edgecall_image.slots import ASKS, SlotError
from tests.support.power import HOLDS, Hold, Power
from tests.support.slot_card import Card

pytestmark = pytest.mark.timeout(120)  # a hundred lives of a card; Hypothesis takes a limit that is reached for a fault

WORDS = st.sampled_from([f"{call} {slot}{end}" for slot in SLOTS
                         for call, end in (("set-primary", ""), ("set-state", " good"), ("set-state", " bad"))])
WRITES = st.integers(0, 30)
HOLD = st.sampled_from(HOLDS)


@dataclass
class System:
    """What a slot holds. ``whole``: all of it was written. ``starts``: its kernel comes up."""

    whole: bool = True
    starts: bool = True


class SlotsInAnyOrder(RuleBasedStateMachine):
    """What is asked of the card here is what RAUC, the update service, an operator and the power may do to it."""

    @initialize()
    def flash(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda _: None)  # no disk is waited for: the medium is Power's
        self.card = Card(self.folder)
        self.power = Power(self.card.place.selector, self.card.place.marks)
        self.holds: dict[Slot, System] = {"A": System(), "B": System(whole=False)}
        self.came_up: Slot | None = None
        """The slot whose trial was settled as such, and that nothing was decided of since."""
        self.asked = 0
        self.sure = True
        """No call was cut since the last boot was settled: what is expected is certain."""

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.patch.undo()
            shutil.rmtree(self.folder)

    # what runs on the device

    def call(self, words: str) -> int:
        return backend.main(words.split(), self.card.place)

    def would_be_half(self, words: str) -> bool:
        """Neither RAUC nor the update service makes a slot primary that was not written to its end."""
        return any(words == f"set-primary {slot}" and not system.whole for slot, system in self.holds.items())

    @rule(words=WORDS)
    def rauc_calls(self, words: str) -> None:
        if self.would_be_half(words):
            return
        default = self.card.slots.default()
        refused = self.card.slots.on_trial() and words in {f"set-state {default} bad", f"set-primary {default}"}
        assert self.call(words) == int(refused)
        if not refused:
            self.decided(words)

    @rule(words=WORDS, writes=WRITES, hold=HOLD)
    def the_power_goes_in_a_call(self, words: str, writes: int, hold: Hold) -> None:
        if self.would_be_half(words):
            return
        with self.power.on(writes, hold):
            self.call(words)
        self.sure = False
        self.boot(self.card.power_cycle())

    @rule(starts=st.booleans(), writes=st.one_of(st.none(), WRITES), hold=HOLD)
    def rauc_installs(self, starts: bool, writes: int | None, hold: Hold) -> None:
        """Into the other slot; the power goes at a write of the backend's, or before anything is whole."""
        slot = other(self.card.slots.booted())
        with self.power.on(-1 if writes is None else writes, hold):
            if self.call(f"set-state {slot} bad"):
                assert self.card.slots.on_trial()
                return
            self.decided(f"set-state {slot} bad")
            self.holds[slot] = System(whole=False)
            assert not self.card.requested
            if writes is not None and writes % 3 == 0:
                self.power.went = True
            else:
                self.holds[slot] = System(starts=starts)
                assert self.call(f"set-primary {slot}") == 0
                self.decided(f"set-primary {slot}")
                assert (self.card.slots.primary(), self.card.requested) == (slot, False)
        if writes is not None:
            self.sure = False
            self.boot(self.card.power_cycle())

    def decided(self, words: str) -> None:
        """What the call does to what is expected of the next boots."""
        match words.split():
            case ["set-primary", slot] if slot != self.card.slots.booted() or slot == self.card.slots.default():
                self.came_up, self.asked = None, 0
            case ["set-primary", slot]:
                self.came_up = self.card.slots.booted()
            case ["set-state", slot, _] if slot != self.card.slots.default() or slot == self.came_up:
                if words.endswith("bad"):
                    self.came_up, self.asked = None, 0
                elif slot == self.card.slots.booted():
                    self.came_up = None

    # boots

    @rule(asks=st.booleans(), loses=st.booleans(), fails=st.booleans())
    def reboot(self, asks: bool, loses: bool, fails: bool) -> None:
        if asks:
            try:
                slot = self.card.slots.ask()
            except SlotError:
                assert self.card.slots.primary() == self.card.slots.default()
            else:
                assert slot == self.card.slots.primary() and self.card.requested
                self.asked += 1
            if fails:
                self.card.slots.unask()
                self.asked = max(0, self.asked - 1)
                assert not self.card.requested
                return
        tried = self.card.requested and not loses
        slot = self.card.chosen(tried=tried)
        self.card.start(slot)
        if tried and not self.holds[slot].starts:  # the watchdog resets it, and the firmware forgot
            slot = self.card.power_cycle()
        self.boot(slot)

    @rule()
    def the_power_goes(self) -> None:
        self.boot(self.card.power_cycle())

    @rule(writes=WRITES, hold=HOLD)
    def the_power_goes_while_it_boots(self, writes: int, hold: Hold) -> None:
        self.card.power_cycle()
        with self.power.on(writes, hold):
            self.card.slots.settle()
        self.sure = False
        self.boot(self.card.power_cycle())

    def boot(self, slot: Slot) -> None:
        assert self.holds[slot].whole and self.holds[slot].starts, f"slot {slot} comes up"
        was_pending = self.card.slots.pending()
        settled = self.card.slots.settle()
        verdict = self.card.slots.verdict()
        if slot != self.card.slots.default():
            assert settled == "trial" and was_pending == slot
            self.came_up, self.sure = slot, True
            return
        if self.sure and self.came_up is not None:
            assert settled == "failed"
        elif self.sure and was_pending is not None:
            assert settled == ("neverStarted" if self.asked >= ASKS else "waiting")
        elif self.sure:
            assert settled == "nothing"
        if settled in {"failed", "neverStarted"}:
            assert verdict is not None and (verdict.slot, verdict.outcome) == (other(slot), settled)
            assert self.card.slots.is_bad(other(slot))
        if settled in {"failed", "neverStarted", "nothing"}:
            assert self.card.marks() <= {"bad.A", "bad.B", "verdict.json"}
            self.asked = 0
        assert not self.card.requested, "a reboot for another reason tries nothing"
        if settled == "waiting" and not self.sure:
            asked = self.card.place.marks / f"asked.{other(slot)}"
            self.asked = int(asked.read_text()) if asked.exists() else 0
        self.came_up, self.sure = None, True

    @rule()
    def nothing_is_reported_twice(self) -> None:
        self.card.slots.forget_verdict()
        assert self.card.slots.verdict() is None

    # what always holds

    @precondition(lambda self: hasattr(self, "card"))
    @invariant()
    def the_firmware_finds_a_whole_system(self) -> None:
        assert self.holds[self.card.chosen()].whole
        assert self.card.chosen() == self.card.slots.default()
        if self.card.requested:
            assert self.holds[self.card.chosen(tried=True)].whole, "what a reboot would try"
            assert self.card.slots.pending() == self.card.chosen(tried=True)


SlotsInAnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestSlotsInAnyOrder = SlotsInAnyOrder.TestCase
