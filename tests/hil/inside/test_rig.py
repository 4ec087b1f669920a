"""The hands for a board on the bench, with a simulated chip where its wires lead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hil.devices import GpioChip
from tests.hil.rig import DRIVEN, READ, WIRES, LoopedHeader


@pytest.fixture
def wires() -> Iterator[GpioChip]:
    chip = GpioChip(WIRES.values(), label="header", name="header")
    yield chip
    chip.remove()


def test_contacts_are_driven_and_lamps_read_by_their_wires(wires: GpioChip) -> None:
    header = LoopedHeader("header")
    try:
        for line in DRIVEN.values():
            assert wires.value(WIRES[line]), "nothing is pressed"
            header.drive(line, down=True)
            assert not wires.value(WIRES[line])
            header.drive(line, down=False)
            assert wires.value(WIRES[line])
        for line in READ.values():
            for lit in (True, False):
                wires.pull(WIRES[line], up=lit)
                assert header.level(line) is lit
    finally:
        header.close()
