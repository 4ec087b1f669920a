"""The health gate: is the system on trial well? Nothing else finds a slot good.

Well is: the daemon ready and its watchdog fed for a minute, no crash loop, the devices and the network there that were
there before the restart, the broker reached or shown to be away while the network works, and room on data; all of it
within five minutes. A network that does not come back may be the new system's fault or a cable's that was pulled: the
device goes back in either case, since that costs another try, and a system that reaches nobody stays for good.
Else the device goes back, once nobody calls; the system that comes up marks the slot bad (``slots``). Until then its
mark as tried stays, for the last resort: ``edgecall-trial-failed.service`` restarts a device that did not. Either way
the result is on data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from edgecall_image import daemon, reach
from edgecall_image.daemon import CallLock, Condition, Network
from edgecall_image.errors import ImageError
from edgecall_image.layout import DATA, SOCKET
from edgecall_image.rauc import Rauc, RaucError
from edgecall_image.record import Job, Record, Result
from edgecall_image.service import logs_to_journal
from edgecall_image.slots import Slots
from edgecall_image.updater import FREE_BYTES
from edgecall_image.versions import own_version

__all__ = ["Gate", "Unit", "judge", "main"]

log = logging.getLogger(__name__)

UNIT: Final = "edgecall.service"
LIMIT_S: Final = 300.0
FED_S: Final = 60.0
OFFLINE_AFTER_S: Final = 180.0
"""That nobody can reach the broker counts from here on: until then the network may still come up."""
LOOK_S: Final = 2.0
CRASHES: Final = 3
"""Restarts of the daemon that are a loop; its unit gives up after six."""
CALL_S: Final = 3600.0
"""How long a call is waited for before the device goes back."""
COMMAND_S: Final = 30.0
NO_DATA: Final = Path("/run/edgecall-image/no-data")
"""Left by process 1 where it could not mount the data partition and put memory in its place."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The daemon as systemd sees it; times in seconds of the monotonic clock, 0 where there was none yet."""

    state: str
    restarts: int
    ready_at: float
    fed_at: float

    @classmethod
    def look(cls) -> Self:
        """A systemd that does not answer is a daemon that is not known to run."""
        try:
            result = subprocess.run(
                ["systemctl", "show", "--property=ActiveState,NRestarts,ActiveEnterTimestampMonotonic,"
                 "WatchdogTimestampMonotonic", UNIT],
                capture_output=True, text=True, check=False, timeout=COMMAND_S)
        except (OSError, subprocess.TimeoutExpired):
            return cls("unknown", 0, 0.0, 0.0)
        return cls.parse(result.stdout)

    @classmethod
    def parse(cls, text: str) -> Self:
        told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

        def number(name: str) -> int:
            return int(told[name]) if told.get(name, "").isdecimal() else 0

        return cls(told.get("ActiveState", "unknown"), number("NRestarts"),
                   number("ActiveEnterTimestampMonotonic") / 1e6, number("WatchdogTimestampMonotonic") / 1e6)


@dataclass
class Gate:
    """``run`` once, from the start of the trial. ``before``: of the daemon before the restart, where that was known."""

    before: Condition | None
    unit: Callable[[], Unit]
    condition: Callable[[], Condition | None]
    broker: Callable[[], bool | None]
    """Does the broker take a connection of ours? None: it is on this device."""
    network: Callable[[], bool]
    """Has anybody else answered, so that it is not the network that keeps us from the broker?"""
    free_bytes: Callable[[], int | None]
    """On data; None where there is no data partition, and nothing lasts."""
    told: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> str:
        """What is missing, in words; empty: it is well."""
        began = self.clock()
        said = ""
        while True:
            unit = self.unit()
            if hopeless := _hopeless(unit):
                return hopeless
            missing = "; ".join(self._missing(unit, self.clock() - began))
            if not missing or self.clock() - began >= LIMIT_S:
                return missing
            if missing != said:
                said = missing
                log.info("on trial, and still to come: %s", missing)
                self.told(missing)
            self.sleep(LOOK_S)

    def _missing(self, unit: Unit, after: float) -> Iterator[str]:
        if unit.state != "active":
            yield f"the appliance is ready (it is {unit.state})"
        elif unit.fed_at - unit.ready_at < FED_S:
            yield f"its watchdog is fed for {FED_S:g} s"
        free = self.free_bytes()
        if free is None:
            yield "the data partition can be used"
        elif free < FREE_BYTES:
            yield f"{FREE_BYTES >> 20} MiB are free on data ({free >> 20} are)"
        now = self.condition() if unit.state == "active" else None
        if now is None:
            yield "the appliance tells its state"
            return
        before = self.before or Condition()
        for kind, count in sorted(before.devices.items()):
            if (there := now.devices.get(kind, 0)) < count:
                yield f"{kind}: {there} of {count} that were there"
        if now.failed and not before.failed:
            yield "the appliance can do its work, by its own account"
        was = before.network or Network()
        yield from _network(was, now.network or Network())
        if was.answered and not (now.broker is True and self.broker()) and not self.network():
            yield "somebody in the network answers, as before"
        yield from self._broker(now, after)

    def _broker(self, now: Condition, after: float) -> Iterator[str]:
        if now.broker is not False or (self.before is not None and self.before.broker is not True):
            return
        answers = self.broker()
        if answers is None or answers:
            yield "the broker is reached"
            return
        was = None if self.before is None else self.before.network
        if was is not None and not was.addresses:
            return  # the cable was pulled so shortly before the restart that the daemon still took itself for connected
        there = now.network or Network()
        if after < OFFLINE_AFTER_S:
            yield "the broker is reached, or nobody reaches it"
        elif not there.addresses or (there.gateways and not self.network()):
            yield "the broker is reached, or shown to be away by a network that works"


def _network(before: Network, now: Network) -> Iterator[str]:
    for family in sorted(before.addresses - now.addresses):
        yield f"an address of {family}, as before"
    for family in sorted(before.gateways - now.gateways):
        yield f"a default gateway of {family}, as before"


def _hopeless(unit: Unit) -> str:
    if unit.state == "failed":
        return "the appliance has failed for good"
    if unit.restarts >= CRASHES:
        return f"the appliance has crashed {unit.restarts} times"
    return ""


# --- judging


def judge(gate: Gate, slots: Slots, rauc: Rauc, record: Record, version: str, *, calls_end: Callable[[], None],
          reboot: Callable[[], None]) -> bool:
    """Commit what is well, else go back. True when it was committed. Raises RaucError where it cannot go back."""
    slot = slots.booted()
    job = record.open_job() or Job("trial", slot, "rebooting", version=version)
    missing = gate.run()
    if not missing:
        try:
            asyncio.run(rauc.mark("good"))
        except RaucError as error:
            missing = f"the commit failed: {error.message}"
        if slots.default() == slot:  # whatever RAUC says of it: this is what counts
            _write(record, Result(job.id, "succeeded", version))
            log.info("version %s is well and committed", version)
            return True
        missing = missing or "RAUC has committed it, and the selector says otherwise"
    log.error("version %s is not well: %s; the device goes back", version, missing)
    _write(record, Result(job.id, "rolledBack", version, "unhealthy", f"on trial this was missing: {missing}"))
    calls_end()
    if slots.default() == slot:  # RAUC has committed it after all, later than we waited for its answer
        _write(record, Result(job.id, "succeeded", version))
        log.warning("version %s is committed all the same, and stays", version)
        return True
    reboot()
    return False


def _write(record: Record, result: Result) -> None:
    try:
        record.end(result)
    except OSError as error:
        log.error("the result cannot be written down: %s", error)  # noqa: TRY400 - the next boot finds it out


def _refresh(step: str, path: Path = SOCKET) -> None:
    """Tell the update service, and by it whoever watches; it may not be there."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5.0)
        connection.connect(str(path))
        connection.sendall(json.dumps({"verb": "refresh", "step": step}).encode() + b"\n")
        connection.recv(65_536)


def _calls_end() -> None:
    """Waits until nobody calls, CALL_S at most, and keeps it so until the device has restarted."""

    def over(_number: int, _frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, CALL_S)
    try:
        CallLock.take(wait=True)
    except TimeoutError:
        log.warning("somebody has called for %g minutes: the device goes back all the same", CALL_S / 60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reboot() -> None:
    """Raises RaucError."""
    for command in (["systemctl", "reboot"], ["systemctl", "reboot", "--force"]):
        try:
            if subprocess.run(command, check=False, timeout=COMMAND_S).returncode == 0:
                return
        except (OSError, subprocess.TimeoutExpired) as error:
            log.error("%s: %s", " ".join(command), error)  # noqa: TRY400
    raise RaucError("failed", "the device does not restart")


def _free_bytes() -> int | None:
    if NO_DATA.exists():
        return None
    free = os.statvfs(DATA)
    return free.f_bavail * free.f_frsize


def _broker() -> bool | None:
    address = daemon.broker_address()
    return None if address is None or reach.is_own(address[0]) else daemon.broker_answers(address)


def main(argv: Sequence[str]) -> int:
    """``run gate``: no arguments. 0: nothing is on trial, or it was committed, or the device goes back. 1: restarting
    it is left to the unit."""
    if argv:
        print("the health gate takes no arguments", file=sys.stderr)
        return 2
    logs_to_journal()
    slots, record = Slots(), Record()
    try:
        if not slots.on_trial():
            return 0
        job = record.open_job()
        before = None if job is None else Condition.of(job.before)
        gate = Gate(before, Unit.look, daemon.condition, _broker, reach.works, _free_bytes, _refresh)
        committed = judge(gate, slots, Rauc(), record, own_version(), calls_end=_calls_end, reboot=_reboot)
        _refresh("")
        if not committed:
            signal.pause()  # until the restart ends us: so long nobody can call
    except (ImageError, OSError, RaucError) as error:
        log.error("the trial cannot be judged: %s", error)  # noqa: TRY400
        return 1
    return 0
