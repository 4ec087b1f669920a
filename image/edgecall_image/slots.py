"""The two slots: which is booted, which is the default, what is to be tried, and how a trial ended.

A trial is one boot of the slot that is not the default; the firmware is asked for it with the reboot and forgets it by
itself. It is told by the command line alone: the booted slot differs from the default, which only a commit changes.
Each step is safe to be cut after any write: what follows is in ``settle``, at the next boot.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal, NamedTuple

from edgecall_image.durable import remove_file, replace_file
from edgecall_image.errors import ImageError
from edgecall_image.layout import MARKS, SELECTOR_PARTITION, SLOTS, Slot, other, partition
from edgecall_image.marks import Marks, Verdict
from edgecall_image.selector import Selector

__all__ = ["ASKS", "REQUEST", "Place", "Settled", "SlotError", "Slots"]

ASKS: Final = 3
"""How many times the firmware is asked for one trial: a Pi 4 may lose the request (raspberrypi/firmware 2038)."""
REQUEST: Final = b"0 tryboot\n"
"""What systemd hands to the kernel with a reboot, and that to the firmware: once by ``[tryboot]`` of the selector."""

Settled = Literal["nothing", "trial", "waiting", "committed", "failed", "neverStarted"]


class SlotError(ImageError):
    """What is asked for is not possible as the slots stand."""


class Place(NamedTuple):
    """Where things are; tests have their own."""

    selector: Path = partition(SELECTOR_PARTITION)
    marks: Path = MARKS
    command_line: Path = Path("/proc/cmdline")
    request: Path = Path("/run/systemd/reboot-param")
    """Gone with the power, so that a request never outlives what it was made for."""


class Slots:
    """Raises SlotError, SelectorError, FatError, DeviceError (all ImageError), and OSError for data."""

    def __init__(self, place: Place | None = None) -> None:
        self._place = place or Place()
        self._selector = Selector(self._place.selector)
        self._marks = Marks(self._place.marks)

    def booted(self) -> Slot:
        line = self._place.command_line.read_text("utf-8", "replace")
        named = set(re.findall(r"(?:^|\s)rauc\.slot=(\S*)", line))
        for slot in SLOTS:
            if named == {slot}:
                return slot
        raise SlotError(f"the kernel's command line names {' and '.join(sorted(named)) or 'no slot'} as rauc.slot, "
                        "and should name A or B: its cmdline.txt is damaged")

    def default(self) -> Slot:
        """The one that comes up by itself."""
        return self._selector.read()

    def on_trial(self) -> bool:
        return self.booted() != self.default()

    def pending(self) -> Slot | None:
        """The one that is to be tried, or is being tried."""
        candidate = other(self.default())  # a mark of the default is of a commit that was cut
        return candidate if self._marks.has("pending", candidate) else None

    def primary(self) -> Slot:
        """The one to come up next."""
        return self.pending() or self.default()

    def is_bad(self, slot: Slot) -> bool:
        return self._marks.has("bad", slot)

    def verdict(self) -> Verdict | None:
        """How the last trial ended, where nobody reported it yet."""
        return self._marks.verdict()

    def forget_verdict(self) -> None:
        self._marks.forget_verdict()

    def make_primary(self, slot: Slot) -> None:
        """Have it wait to be tried, by a reboot that is asked for (``ask``) and by no other; of the default: have
        nothing tried, which is refused during a trial: its marks are what tells how it ended. Never changes the
        default."""
        with self._marks.alone():
            default = self.default()
            if slot == default != self.booted():
                raise SlotError(f"slot {other(slot)} is on trial: it is left by a reboot, and marked bad then")
            if slot == default:
                self._give_up(other(default))
            elif slot == self.booted():  # it is on trial: without its mark a failure would go unseen
                self._marks.leave("tried", slot)
                self._marks.leave("pending", slot)
            else:
                self._give_up(slot)
                self._marks.clear("bad", slot)
                self._marks.leave("pending", slot)

    def mark_good(self, slot: Slot) -> None:
        """Of the slot on trial: commit it, so that it is the default from now on."""
        with self._marks.alone():
            if slot == self.booted() and slot != self.default():
                self._selector.write(slot)
                self._clean(slot)
                self._withdraw()
            else:
                self._marks.clear("bad", slot)

    def mark_bad(self, slot: Slot) -> None:
        """It is not tried then, as before it is written. Refused for the default while the other is on trial: written
        over or not, it is all there is to go back to."""
        with self._marks.alone():
            default = self.default()
            if slot == default != self.booted():
                raise SlotError(f"slot {slot} is what a failed trial goes back to and stays as it is while slot "
                                f"{other(slot)} is on trial: wait until that is judged")
            self._marks.leave("bad", slot)
            if slot != default:
                self._give_up(slot)

    def ask(self) -> Slot:
        """Before a reboot into what is pending: count it, and request it of the firmware. Returns the slot."""
        with self._marks.alone():
            slot = self.pending()
            if slot is None:
                raise SlotError("no slot is pending: there is nothing to reboot into")
            self._marks.count_asked(slot)  # before: a request that nobody counted might be made for ever
            try:
                replace_file(self._place.request, REQUEST, 0o644)
            except OSError:
                self._marks.uncount_asked(slot)
                raise
            return slot

    def unask(self) -> None:
        """That reboot does not take place: another one does not try it, and it does not count. A request that is gone
        was heard, or went with the power: it stays counted."""
        with self._marks.alone():
            slot = self.pending()
            if self._withdraw() and slot is not None:
                self._marks.uncount_asked(slot)

    def settle(self) -> Settled:
        """Once at each boot, before anything asks for the slots. What it found:

        ``trial``         the pending slot is up; it left its mark
        ``waiting``       a slot is pending, and the firmware was not asked, or lost the request: it may be asked again
        ``committed``     a commit was cut after it took effect; it is complete now
        ``failed``        a trial came up and ended without a commit; the slot is marked bad
        ``neverStarted``  a trial did not come up though asked for ``ASKS`` times; the slot is marked bad
        """
        with self._marks.alone():
            booted = self.booted()
            if self._marks.has("pending", booted):
                self._marks.leave("tried", booted)
            if booted != self.default():
                return "trial"
            if self._marks.has("pending", booted):
                self._marks.judge(booted, "committed")
                self._clean(booted)
                return "committed"
            return self._settle_default(other(booted))

    def _settle_default(self, slot: Slot) -> Settled:
        """Up is the default, and the other was to be tried, or not."""
        if not self._marks.has("pending", slot):
            self._forget(slot)
            return "nothing"
        outcome: Literal["failed", "neverStarted"]
        if self._marks.has("tried", slot):
            outcome = "failed"
        elif self._marks.asked(slot) >= ASKS:
            outcome = "neverStarted"
        else:
            return "waiting"
        self._marks.leave("bad", slot)
        self._marks.judge(slot, outcome)
        self._give_up(slot)
        return outcome

    def _clean(self, slot: Slot) -> None:
        """After a commit. Pending goes last: as long as it is there, the rest is done again."""
        self._marks.clear("bad", slot)
        self._forget(slot)
        self._marks.clear("pending", slot)

    def _give_up(self, slot: Slot) -> None:
        """Pending goes first: what is left without it is removed at the next boot."""
        self._withdraw()
        self._marks.clear("pending", slot)
        self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        self._marks.clear("tried", slot)
        self._marks.forget_asked(slot)

    def _withdraw(self) -> bool:
        """Whether there was one of ours."""
        ours = self._place.request.exists() and self._place.request.read_bytes().strip() == REQUEST.strip()
        if ours:
            remove_file(self._place.request)
        return ours
