"""What every ``hw.api.Board`` promises of itself and its health, for a board's own test to call."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from hw.api import Board, DeviceFailedError, Kind
from tests.contract.camera import MODE
from tests.contract.seen import Frames
from tests.support.leaks import Belongings

__all__ = ["leaves_nothing_when_closed_at_any_moment", "tells_every_device", "tells_its_health",
           "uses_what_is_selected"]


def tells_every_device(board: Board) -> None:
    """Of a board with one of each kind."""
    facts = board.devices()
    assert {fact.kind for fact in facts} >= set(Kind) - {Kind.CAPTURE}
    assert all(fact.id and fact.name for fact in facts)
    usable = {fact.kind for fact in facts if fact.present and fact.used}
    assert usable >= set(Kind) - {Kind.CAPTURE}, facts
    assert board.facts()["model"]


def uses_what_is_selected(board: Board) -> None:
    """Each of the devices of a kind with a choice is used as soon as it is selected; one that is not there is not
    waited for, and the board's own order comes back."""

    def used(kind: Kind) -> list[str]:
        return [fact.id for fact in board.devices() if fact.kind is kind and fact.present and fact.used]

    for kind in Kind:
        if kind not in board.choices:
            with pytest.raises(ValueError, match=kind.value):
                board.select(kind, "nowhere")
            continue
        there = [fact.id for fact in board.devices() if fact.kind is kind and fact.present]
        first = used(kind)
        assert len(first) == 1, there
        for device in (*reversed(there), *there):
            board.select(kind, device)
            assert used(kind) == [device]
        for device in ("nowhere", ""):
            board.select(kind, there[-1])
            board.select(kind, device)
            assert used(kind) == first


def tells_its_health(board: Board, late_s: float = 0.0) -> None:
    """What it can tell is possible, and told at once: it is asked every few seconds."""
    began = time.monotonic()
    health = board.health()
    assert time.monotonic() - began < 0.1 + late_s
    assert health.temperature_c is None or -40 < health.temperature_c < 150
    assert health.storage_wear is None or 0 <= health.storage_wear <= 1
    assert {type(value) for value in (health.throttled, health.undervoltage, health.storage_full)} <= {bool, type(None)}
    names = [link.name for link in health.links]
    assert len(set(names)) == len(names)
    assert all(link.name and (link.up or (link.mbps, link.dbm) == (None, None)) for link in health.links)
    assert all(link.dbm is None or -120 < link.dbm < 0 for link in health.links)


def leaves_nothing_when_closed_at_any_moment(opened: Callable[[], Board], late_s: float = 0.0) -> None:
    """``opened`` gives a board with a camera, sound, a panel with the relay ``door``, and a screen that is there."""
    opened().close()  # what Python itself opens once is open now
    before = Belongings.now()
    half = opened()
    half.close()  # its camera process has not even come up
    used = opened()
    assert used.camera is not None
    assert used.audio is not None
    assert used.panel is not None
    assert used.display is not None
    frames = Frames()
    used.camera.start(MODE, frames)
    used.audio.start(48_000, 10, lambda block: block.heard)
    used.panel.switch("door", 20.0)
    used.display.show([], "Edgecall")
    frames.wait(1, 10.0 + late_s)
    began = time.monotonic()
    used.close()
    assert time.monotonic() - began < 3.0 + late_s
    used.close()
    count = len(frames.frames)
    assert not used.panel.closed("door")
    assert before.left() == []
    assert len(frames.frames) == count
    for what in (used.camera.snapshot, used.display.screenshot):
        with pytest.raises(DeviceFailedError):
            what()
