"""Updates of an appliance over its network, from the wish to what the system that then runs tells of it."""

from __future__ import annotations

import time

import pytest

from edgecall_image.flashed import CHUNK
from edgecall_image.slots import ASKS
from tests.image.appliance import (
    GATE_S,
    ask,
    ask_restart,
    edgecall,
    installing,
    ready,
    restarted,
    result_of,
    status,
    told_of,
    watching,
)
from tests.image.board import Board
from tests.image.call import calling
from tests.image.conftest import Made
from tests.image.firmware import Choice, Firmware
from tests.image.server import Server

IDLE_S = 60.0
"""For so long nobody has called before it restarts."""
INSTALL_S = 600.0
"""On a machine with other work, in a call; under a minute where there is neither."""
SLOT_BLOCKS = (1536 << 20) // CHUNK
"""Of a root slot: so many RAUC hashes where it does not know what is there."""


def _default(board: Board) -> Choice:
    """What a board would boot whose power was cut now."""
    return Firmware(board.card).choose()


@pytest.mark.timeout(2400)
def test_an_update_waits_for_the_end_of_a_call_is_tried_and_stays(board: Board, made: Made, server: Server) -> None:
    """Through the daemon's own door, fetched during a call."""
    before = board.switch_on()
    ready(before)
    assert status(before)["slot"] == "A"
    with calling(before) as hang_up:
        with watching(before) as until:
            asked = time.monotonic()
            answer = edgecall(before, "update.install", server.url(made.bundles["good"]),
                              "--version", made.versions["good"])
            assert answer["result"] in ("accepted", "done"), answer
            pending = until(lambda state: state["phase"] == "pending", "the update is installed", INSTALL_S)
        served = server.take_counts()
        print(f"installed after {time.monotonic() - asked:.1f} s, in a call; {served.octets / 1e6:.1f} MB in "
              f"{served.requests} requests")
        hashed = before.run("journalctl -b -u rauc -o cat --no-pager | grep -F 'Building new hash index'", check=False)
        assert f"with {SLOT_BLOCKS} chunks" not in hashed, "the card brings the hashes of what was flashed"
        assert pending["slot"] == "A"
        refused = ask(before, "reboot")
        assert refused["error"]["code"] == "busy", refused
        assert edgecall(before, "state", "call")["state"] == "Connected"
        assert not before.over
        hung_up = time.monotonic()  # at the earliest: the command that does it ends later than the call
        hang_up()
    trial = board.after(before, IDLE_S + 120)
    assert trial.began - hung_up >= IDLE_S, "it restarted though the call was just over"
    assert (trial.slot, trial.choice.tried) == ("B", True)
    ready(trial)
    assert _default(board).partition == 2, "not before the new system is found to be well"
    job = str(status(trial)["job"])
    result = result_of(trial, job, GATE_S)
    print(f"a whole update, without the call and the wait after it: {time.monotonic() - hung_up - IDLE_S:.1f} s "
          f"after the restart began")
    assert (result["state"], result["version"]) == ("succeeded", made.versions["good"])
    assert _default(board) == Choice(3, False, trial.choice.cmdline)
    told = told_of(trial, job)
    assert (told["last"]["result"], told["version"]) == ("succeeded", made.versions["good"]), told
    assert told["other"] == {"version": made.versions["flashed"], "state": "good"}, told


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_whole_update_of_a_device_that_nobody_uses(board: Board, made: Made, server: Server) -> None:
    """Its time counts from the accepted request, on a device that has been idle for a minute, to the commit.
    And back again."""
    before = board.switch_on()
    ready(before)
    time.sleep(IDLE_S)
    answer = edgecall(before, "update.install", server.url(made.bundles["good"]), "--version", made.versions["good"])
    assert answer["result"] in ("accepted", "done"), answer
    asked = time.monotonic()
    trial = board.after(before, INSTALL_S)
    restarted_s = trial.began - asked
    ready(trial)
    result = result_of(trial, str(status(trial)["job"]), GATE_S)
    print(f"a whole update: {time.monotonic() - asked:.1f} s, {restarted_s:.1f} of them to the restart")
    assert (result["state"], result["version"]) == ("succeeded", made.versions["good"])
    assert _default(board).partition == 3
    answer = edgecall(trial, "update.back")
    assert answer["result"] in ("accepted", "done"), answer
    old = board.after(trial, IDLE_S + 120)
    assert (old.slot, old.choice.tried) == ("A", True), "back is a trial too"
    ready(old)
    result = result_of(old, str(status(old)["job"]), GATE_S)
    assert (result["state"], result["version"]) == ("succeeded", made.versions["flashed"])
    assert _default(board).partition == 2


def test_a_sick_update_undoes_itself_and_says_why(board: Board, made: Made, server: Server) -> None:
    before = board.switch_on()
    ready(before)
    with installing(before, server.url(made.bundles["sick"]), "sick-1") as until:
        until(lambda state: state["phase"] == "pending", "the update is installed", INSTALL_S)
    trial = restarted(board, before)
    assert (trial.slot, trial.choice.tried) == ("B", True)
    back = board.after(trial, GATE_S + 120)
    assert (back.slot, back.choice.tried) == ("A", False)
    ready(back)
    result = result_of(back, "sick-1")
    assert result["state"] == "rolledBack", result
    assert result["message"], "what was missing"
    print(result)
    state = status(back)
    assert (state["phase"], state["version"], state["other"]["state"]) == ("idle", made.versions["flashed"], "bad")
    assert _default(board).partition == 2
    told = told_of(back, "sick-1")
    assert (told["last"]["result"], told["version"]) == ("rolledBack", made.versions["flashed"]), told


def test_what_may_not_be_installed_is_refused_and_changes_nothing(board: Board, made: Made, server: Server) -> None:
    boot = board.switch_on()
    ready(boot)
    good = server.url(made.bundles["good"])

    def refused(job: str, url: str) -> str:
        answer = ask(boot, "install", url=url, id=job, rateLimit=None)
        if not answer["ok"]:
            return str(answer["error"]["code"])
        result = result_of(boot, job)
        assert result["state"] == "failed", result
        assert result["message"]
        return str(result["code"])

    assert refused("foreign", server.url(made.bundles["foreign"])) == "signature"
    assert refused("old", server.url(made.bundles["old"])) == "tooOld"
    assert refused("whole", server.url(made.bundles["good"], ranges=False)) == "noRange"
    assert refused("nothing", f"{server.origin}nothing.raucb") == "network"
    assert refused("elsewhere", "https://10.98.0.1:9443/good.raucb") == "notAllowed"
    boot.run("fallocate -l $(($(stat -f -c '%f * %S' /data))) /data/full || cat /dev/zero >/data/full || true", 120)
    assert refused("full", good) == "noSpace"
    boot.run("rm /data/full")
    state = status(boot)
    assert (state["phase"], state["slot"], state["version"]) == ("idle", "A", made.versions["flashed"])
    assert _default(board).partition == 2
    assert edgecall(boot, "health", check=False), "the daemon is up"
    with installing(boot, good, "at last") as until:
        until(lambda state: state["phase"] == "pending", "a good one is installed after all that", INSTALL_S)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_an_update_that_does_not_boot_is_given_up(board: Board, made: Made, server: Server) -> None:
    """Its kernel panics: nothing of it leaves a mark. It may have been the wish for a trial that was lost, so it is
    tried again, twice."""
    boot = board.switch_on()
    ready(boot)
    with installing(boot, server.url(made.bundles["dead"]), "dead-1") as until:
        until(lambda state: state["phase"] == "pending", "the update is installed", INSTALL_S)
    for _ in range(ASKS):
        assert status(boot)["phase"] == "pending"
        ask_restart(boot)
        dead = board.begun_after(boot, 240)
        assert (dead.slot, dead.choice.tried) == ("B", True)
        boot = board.after(dead, 240)
        assert (boot.slot, boot.choice.tried) == ("A", False)
        ready(boot)
    state = status(boot)
    assert (state["phase"], state["other"]["state"]) == ("idle", "bad")
    assert (state["result"]["id"], state["result"]["state"]) == ("dead-1", "rolledBack")
    assert state["result"]["code"] == "neverStarted"
    assert told_of(boot, "dead-1")["last"]["code"] == "neverStarted"
