"""The power goes at any moment of an update: what comes up boots, and tells the truth of what became of it.

The machine keeps what the guest has written, so what is lost is what the guest had not yet given to its card.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.image.appliance import GATE_S, installing, ready, restarted, result_of, status, told_of
from tests.image.board import Board, Boot
from tests.image.conftest import Made
from tests.image.firmware import Choice, Firmware
from tests.image.server import Server

Chance = Callable[[str], random.Random]
INSTALL_S = 300.0
TRIAL_S = 75.0
"""Of a trial, from its first command on, that is cut at any point: the health gate watches for a minute of it."""
EARLY_S = 15.0
"""In which a trial's first unit has left its mark, on a machine with other work; a second after the first command."""


def _well(board: Board, boot: Boot, slot: str) -> None:
    """It came up by itself, not as a trial, and would again."""
    ready(boot)
    assert (boot.slot, boot.choice.tried) == (slot, False), str(boot)
    assert status(boot)["slot"] == slot
    assert Firmware(board.card).choose() == Choice(boot.choice.partition, False, boot.choice.cmdline)


def _cut_in_install(board: Board, boot: Boot, url: str, job: str, chance: random.Random) -> None:
    percent, more_s = chance.randrange(101), chance.uniform(0, 3)
    with installing(boot, url, job) as until:
        state = until(lambda state: state["phase"] != "installing" or (state["progress"] or 0) >= percent,
                      f"{percent} % of the install", INSTALL_S)
        time.sleep(more_s)  # between two steps too
        board.cut()
    print(f"cut {more_s:.2f} s after {percent} %: {state['phase']}, {state['step']!r}")


def _after_cut_install(board: Board, job: str) -> Boot:
    """The old system runs, and knows how far it came."""
    boot = board.switch_on()
    _well(board, boot, "A")
    state = status(boot)
    result = state["result"]
    if state["phase"] == "pending":  # it had been installed, and is still to be tried
        assert state["job"] == job, state
    else:
        assert result["id"] == job, state
        assert result["state"] in ("interrupted", "rolledBack"), state
        assert told_of(boot, job)["last"]["result"] in ("failed", "rolledBack")
    print(f"after the cut: {state['phase']}, {result}")
    return boot


def _cut_in_trial(board: Board, boot: Boot, chance: random.Random) -> tuple[Boot, float]:
    """Of an update that is installed; the boot after it, and how far the trial came, in seconds."""
    trial = restarted(board, boot)
    assert (trial.slot, trial.choice.tried) == ("B", True)
    after_s = chance.uniform(0, TRIAL_S)
    time.sleep(after_s)
    good = Firmware(board.card).choose().partition == 3
    board.cut()
    print(f"cut {after_s:.1f} s into the trial, {'after' if good else 'before'} it was found well")
    return board.switch_on(), after_s


def _install(boot: Boot, url: str, job: str) -> None:
    with installing(boot, url, job) as until:
        until(lambda state: state["phase"] == "pending", "the update is installed", INSTALL_S)


def _after_cut_trial(board: Board, boot: Boot, after_s: float, job: str) -> None:
    """Either system runs: the new one only if it was found well before. Cut so early that it had left no word, it is
    still to be tried, and then is."""
    _well(board, boot, boot.slot)
    state = status(boot)
    if state["phase"] == "pending":
        assert (boot.slot, state["job"]) == ("A", job), state
        assert after_s < EARLY_S, f"a trial that lasted for {after_s:.1f} s is forgotten: {state}"
        print("the trial had left no word: it is tried again")
        boot = restarted(board, boot)
        assert (boot.slot, boot.choice.tried) == ("B", True)
        ready(boot)
        assert result_of(boot, job, GATE_S)["state"] == "succeeded"
        state = status(boot)
    assert state["result"]["id"] == job, state
    assert state["result"]["state"] == ("succeeded" if boot.slot == "B" else "rolledBack"), state
    assert state["phase"] == "idle", state
    assert told_of(boot, job)["last"]["result"] == state["result"]["state"]


@pytest.mark.timeout(2400)
def test_a_cut_in_the_install_and_in_the_trial(board: Board, made: Made, server: Server, chance: Chance) -> None:
    """One appliance after the other: each cut finds what the one before has left."""
    luck = chance("install and trial")
    url = server.url(made.bundles["good"])
    boot = board.switch_on()
    ready(boot)
    _cut_in_install(board, boot, url, "cut-1", luck)
    boot = _after_cut_install(board, "cut-1")
    _install(boot, url, "whole-2")
    _after_cut_trial(board, *_cut_in_trial(board, boot, luck), "whole-2")


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("number", range(7))
def test_many_cuts_in_the_install(board: Board, made: Made, server: Server, chance: Chance, number: int) -> None:
    luck = chance(f"install {number}")
    url = server.url(made.bundles["good"])
    boot = board.switch_on()
    ready(boot)
    _cut_in_install(board, boot, url, "cut-1", luck)
    boot = _after_cut_install(board, "cut-1")
    _cut_in_install(board, boot, url, "cut-2", luck)  # also in the place of one that is still to be tried
    _after_cut_install(board, "cut-2")


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("number", range(6))
def test_many_cuts_in_the_trial(board: Board, made: Made, server: Server, chance: Chance, number: int) -> None:
    boot = board.switch_on()
    ready(boot)
    _install(boot, server.url(made.bundles["good"]), "trial-1")
    _after_cut_trial(board, *_cut_in_trial(board, boot, chance(f"trial {number}")), "trial-1")
