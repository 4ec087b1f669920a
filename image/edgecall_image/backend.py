"""RAUC's custom boot loader backend: its five questions, answered by ``slots`` (RAUC documentation, "custom")."""

from __future__ import annotations

import sys

from edgecall_image.errors import ImageError
from edgecall_image.layout import SLOTS, Slot
from edgecall_image.slots import Place, Slots

__all__ = ["main"]

USAGE = "usage: backend get-primary | set-primary SLOT | get-state SLOT | set-state SLOT good|bad | get-current"


def main(arguments: list[str], place: Place | None = None) -> int:
    """Prints the answer. 0: done; 1: not done, and why; 2: not understood."""
    try:
        return _answer(Slots(place), arguments)
    except (ImageError, OSError) as error:
        print(f"backend {' '.join(arguments)}: {error}", file=sys.stderr)
        return 1


def _answer(slots: Slots, arguments: list[str]) -> int:
    named: dict[str, Slot] = {slot: slot for slot in SLOTS}
    match arguments:
        case ["get-primary"]:
            print(slots.primary())
        case ["get-current"]:
            print(slots.booted())
        case ["get-state", name] if name in named:
            print("bad" if slots.is_bad(named[name]) else "good")
        case ["set-primary", name] if name in named:
            slots.make_primary(named[name])
        case ["set-state", name, "good"] if name in named:
            slots.mark_good(named[name])
        case ["set-state", name, "bad"] if name in named:
            slots.mark_bad(named[name])
        case _:
            print(f"{' '.join(arguments) or 'nothing'} is not understood; {USAGE}", file=sys.stderr)
            return 2
    return 0
