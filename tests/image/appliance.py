"""What a test asks of an appliance that runs: by its daemon's command line, and of the root service of updates."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from edgecall_image.layout import SOCKET
from tests.image.board import Board, Boot, Gone

__all__ = [
    "GATE_S", "Json", "ask", "ask_restart", "edgecall", "installing", "journal", "ready", "restarted", "result_of",
    "status", "told_of", "watching",
]

Json = dict[str, Any]

READY_S: Final = 300.0
"""To the daemon's READY, on a machine with other work; the goal of 30 s is printed, not asserted."""
INSTALL_S: Final = 240.0
GATE_S: Final = 300.0
"""By then the health gate has decided; over a minute is what it watches."""

_CLIENT: Final = f"""
import socket, sys
with socket.socket(socket.AF_UNIX) as to:
    to.connect({str(SOCKET)!r})
    to.sendall(sys.stdin.buffer.readline())
    with to.makefile() as told:
        for line in told:
            print(line, end="", flush=True)
"""
_ASK: Final = f"python3 -I -c {shlex.quote(_CLIENT)}"
_STARTED: Final = """
while state=$(systemctl show edgecall -P ActiveState); [ "$state" != active ]; do
  [ "$state" != failed ] || exec systemctl --no-pager status edgecall
  sleep 2
done
"""
"""Seldom: a command takes a tenth of a second of the guest's only processor, which the start has to wait for."""


def ready(boot: Boot, seconds: float = READY_S) -> float:
    """Until the daemon is up; seconds since the kernel began. Fails at once where it has failed for good."""
    boot.run(_STARTED, seconds)
    stamp = boot.run("systemctl show edgecall -P ActiveEnterTimestampMonotonic")
    took = int(stamp) / 1e6
    print(f"{boot}: ready after {took:.1f} s")
    return took


def edgecall(boot: Boot, *words: str, seconds: float = 60.0, check: bool = True) -> Any:
    """What the command line answers, as JSON where it is; its words for people are left out."""
    text = boot.run(f"edgecall {shlex.join(words)} 2>/dev/null", seconds, check=check)
    try:
        return json.loads(text)
    except ValueError:
        return text


def ask(boot: Boot, verb: str, *, seconds: float = 60.0, **words: Any) -> Json:
    """One request to the root service; its answer."""
    return dict(json.loads(boot.run(_ASK, seconds, given=json.dumps({"verb": verb, **words}) + "\n")))


def status(boot: Boot) -> Json:
    answer = ask(boot, "status")
    assert answer["ok"], answer
    return dict(answer["status"])


@contextmanager
def watching(boot: Boot) -> Iterator[Callable[[Callable[[Json], object], str, float], Json]]:
    """``until(fits, what, seconds)``: the first state of the root service that fits, from now on."""
    with boot.follow(_ASK, json.dumps({"verb": "watch"}) + "\n") as lines:
        def until(fits: Callable[[Json], object], what: str, seconds: float) -> Json:
            last: Json = {}
            deadline = time.monotonic() + seconds
            try:
                for line in lines.until(deadline - time.monotonic()):
                    answer = json.loads(line)
                    assert answer["ok"], answer
                    last = answer["status"]
                    if fits(last):
                        return last
            except AssertionError as error:
                raise AssertionError(f"{what}: {error}\nlast: {last}") from None
            raise AssertionError(f"{what}: the root service ended its connection; last: {last}")

        yield until


@contextmanager
def installing(boot: Boot, url: str, job: str) -> Iterator[Callable[[Callable[[Json], object], str, float], Json]]:
    """An install that the root service was asked for and has taken; as ``watching``."""
    answer = ask(boot, "install", url=url, id=job, rateLimit=None)
    assert answer["ok"], answer
    with watching(boot) as until:
        yield until


def restarted(board: Board, boot: Boot, seconds: float = 240.0) -> Boot:
    """The root service was asked to restart into what is installed, and has done so: the boot that follows."""
    ask_restart(boot, seconds)
    return board.after(boot, seconds)


def ask_restart(boot: Boot, seconds: float = 240.0) -> None:
    """Of the root service, into what is installed. Its answer may be lost on the way down."""
    with boot.follow(_ASK, json.dumps({"verb": "reboot"}) + "\n") as lines, suppress(Gone):
        for line in lines.until(seconds):
            answer = json.loads(line)
            assert answer["ok"], answer


def result_of(boot: Boot, job: str, seconds: float = INSTALL_S) -> Json:
    """How a job ended, once it has."""
    with watching(boot) as until:
        state = until(lambda state: (state["result"] or {}).get("id") == job, f"the result of {job}", seconds)
    return dict(state["result"])


def told_of(boot: Boot, job: str, seconds: float = 60.0) -> Json:
    """The daemon's own document of updates, once it tells how this job ended."""
    deadline = time.monotonic() + seconds
    while True:
        document = dict(edgecall(boot, "state", "update"))
        if (document["last"] or {}).get("job") == job:
            return document
        assert time.monotonic() < deadline, f"the daemon tells nothing of {job} within {seconds:g} s: {document}"


def journal(board: Board) -> str:
    """Of the boot that runs, if it takes commands."""
    boot = board.boots[-1] if board.boots else None
    if boot is None or boot.over:
        return ""
    return boot.run("journalctl -b --no-pager -o short-monotonic | tail -n 400", 60, check=False)
