"""At each boot, early: settle what the last reboot was for. Run by ``edgecall-slot.service``."""

from __future__ import annotations

import sys
from typing import Final

from edgecall_image.errors import ImageError
from edgecall_image.slots import ASKS, Place, Settled, Slots

__all__ = ["main"]

SAID: Final[dict[Settled, str]] = {
    "nothing": "<6>slot {booted} is the default, and nothing is to be tried",
    "trial": "<5>slot {booted} is on trial",
    "waiting": "<5>slot {other} is to be tried and did not come up yet: a reboot of the update service asks for it",
    "committed": "<5>slot {booted} was committed; the power went before that was written down",
    "failed": "<4>slot {other} came up and was left without being committed: it is marked bad, slot {booted} stays",
    "neverStarted": f"<4>slot {{other}} did not come up, asked for {ASKS} times: it is marked bad, slot {{booted}} "
                    "stays. Either its kernel does not start, or the firmware is too old to try a slot",
}
"""With systemd's mark of the level before each."""


def main(arguments: list[str], place: Place | None = None) -> int:
    if arguments:
        print("usage: boot", file=sys.stderr)
        return 2
    slots = Slots(place)
    try:
        settled = slots.settle()
        booted = slots.booted()
    except (ImageError, OSError) as error:
        print(f"<3>the slots are not settled: {error}", file=sys.stderr)
        return 1
    print(SAID[settled].format(booted=booted, other="B" if booted == "A" else "A"), file=sys.stderr)
    return 0
