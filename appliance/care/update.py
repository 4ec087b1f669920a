"""Updates of a flashed image: what is asked for waits for its date, a quiet minute and the window.

The root service does the work and judges it (``update_service``); here stands when it may, and what is told of it. A
job is kept over restarts, since the result is told by whichever system then runs, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from appliance.bulletin import Bulletin
from appliance.care.call_lock import CallLock
from appliance.care.diagnostics import Diagnostics
from appliance.care.update_job import IDLE_S, Facts, Job, Kept, Kind, Wait, When, before_begin, before_restart
from appliance.care.update_service import (
    NoServiceError,
    Outcome,
    Phase,
    RootService,
    ServiceLostError,
    ServiceRefusedError,
    Status,
)
from appliance.clock import Clock, rfc3339
from appliance.errors import Refused, StoreError
from appliance.settings import UpdateSettings, Window
from appliance.vocabulary import Json, calling

__all__ = ["Update"]

log = logging.getLogger(__name__)

KEPT: Final = "update"
TRIES: Final = 3
"""Power cuts in one installation; then it is given up. Of a bad network the service tries by itself."""
LOOK_S: Final = 30.0
"""Longest time between two looks at the clock: a window of a minute is not missed."""
RETRY_S: Final = 1.0  # to a service that does not answer, doubled up to LOOK_S
STALE_S: Final = 86_400.0
"""So long an installed update may wait before that is trouble."""
BITS: Final = 8
FAILED: Final = frozenset({"failed", "rolledBack"})


class Memory(Protocol):
    """Small values that outlive a crash (the store)."""

    async def get(self, name: str, default: str | None = None) -> str | None: ...

    async def set(self, name: str, value: str) -> None: ...


class Update:
    """``run`` serves until cancelled; subscribe ``on_document`` before. ``settle`` returns when the events so far are
    kept for the broker. Lives on the loop."""

    def __init__(
        self, service: RootService, memory: Memory, bulletin: Bulletin, diagnostics: Diagnostics, clock: Clock,
        lock: CallLock, settings: UpdateSettings, *, settle: Callable[[], Awaitable[None]],
        local_time: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._service = service
        self._memory = memory
        self._bulletin = bulletin
        self._diagnostics = diagnostics
        self._clock = clock
        self._lock = lock
        self._settle = settle
        self._local_time = local_time
        self._kept = Kept()
        self._status: Status | None = None
        self._supported: bool | None = None  # not known yet
        self._noted = ""  # trouble with it
        self._waits: tuple[Wait, ...] = ()
        self._rate: tuple[str, int | None] | None = None  # of which job, and what it was told
        self._call: Json = bulletin.document("call")
        self._quiet_since = clock.monotonic()
        self._pending_since: float | None = None
        self._left: float | None = None  # when it was last asked to restart
        self._turn = asyncio.Lock()  # of whoever changes the job: a command, or the way things go
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()  # there may be something to see at the service
        self._watching: asyncio.Timeout | None = None
        self.configure(settings)

    @property
    def job(self) -> Job | None:
        """What is under way."""
        return self._kept.job

    def configure(self, settings: UpdateSettings) -> None:
        self._settings = settings
        self._windows = [Window.parse(line) for line in settings.window]
        self._changed.set()

    def on_document(self, name: str, document: Json, _rev: int) -> None:
        """A subscriber of the bulletin."""
        if name != "call":
            return
        before, self._call = self._call, document
        if calling(before) != calling(document):
            self._quiet_since = self._clock.monotonic()
            self._changed.set()

    async def recall(self) -> None:
        """What the last run left behind; before any command comes."""
        try:
            text = await self._memory.get(KEPT)
            if text:
                self._kept = Kept.load(text)
        except StoreError as error:
            log.warning("whether there is an update in progress is not known: %s", error.message)
        except ValueError as error:
            log.warning("what was kept of the last update is forgotten: %s", error)
        self._publish()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="care.update.follow")
            group.create_task(self._drive(), name="care.update.drive")

    # --- what the service tells ---------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Watch it while there is something to see. At rest it need not be in memory for us."""
        retry_s = RETRY_S
        while True:
            try:
                await self._watch()
                retry_s = RETRY_S
                await self._wanted.wait()
            except NoServiceError:
                self._supported, self._status = False, None
                self._changed.set()
                await self._wanted.wait()
            except (ServiceLostError, ServiceRefusedError) as error:
                self._lose(error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(retry_s):
                        await self._wanted.wait()
                retry_s = min(LOOK_S, 2 * retry_s)
            self._wanted.clear()

    async def _watch(self) -> None:
        """Until all is told and done."""
        try:
            async with asyncio.timeout(None) as self._watching, aclosing(self._service.watch()) as told:
                async for status in told:
                    self._hear(status)
        except TimeoutError:  # see _rest
            pass
        finally:
            self._watching = None

    def _rest(self) -> None:
        status = self._status
        if (self._watching is not None and self._kept.job is None and status is not None
                and status.phase is Phase.IDLE and (status.result is None or status.result.key == self._kept.told)):
            self._watching.reschedule(asyncio.get_running_loop().time())
            self._watching = None

    def _hear(self, status: Status) -> None:
        if self._status is None and self._noted:
            log.info("the update service answers again")
            self._noted = ""
        self._supported, self._status = True, status
        self._changed.set()

    def _lose(self, error: Refused) -> None:
        self._note(error)
        self._supported, self._status = True, None
        self._changed.set()

    def _note(self, error: Refused) -> None:
        """Once, however often it is tried again."""
        if error.message != self._noted:
            log.warning("%s", error.message)
        self._noted = error.message

    # --- what is to be done -------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        while True:
            self._changed.clear()
            async with self._turn:
                try:
                    await self._advance()
                except (ServiceLostError, NoServiceError) as error:  # if it is gone, whoever watches it will know
                    self._note(error)
                    self._waits = (Wait.SERVICE,)
                self._rest()
            self._publish()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_look()):
                    await self._changed.wait()

    def _next_look(self) -> float | None:
        if self._kept.job is None:
            return None if self._pending_since is None else LOOK_S
        if Wait.IDLE in self._waits:
            return max(0.01, min(LOOK_S, IDLE_S - self._facts().idle_s))
        return LOOK_S

    async def _advance(self) -> None:
        """One step of the job, by what the service told last."""
        self._waits = ()
        status = self._status
        if status is None:
            self._waits = () if self._kept.job is None else (Wait.SERVICE,)
            return
        if status.phase is not Phase.REBOOTING:
            self._lock.yield_to_restart(False)
        if status.phase is not Phase.PENDING:
            self._pending_since = None
        elif self._pending_since is None:
            self._pending_since = self._clock.monotonic()
        await self._take_result(status)
        job = self._kept.job
        if job is None:
            return
        if status.phase is Phase.INSTALLING and status.job == job.id:
            await self._keep_rate(job)
        elif status.phase is Phase.PENDING and (status.job == job.id or job.adopted):
            await self._restart(job, status)
        elif status.phase in (Phase.IDLE, Phase.PENDING):
            await (self._go_back if job.kind is Kind.BACK else self._begin)(job, status)
        elif status.phase is Phase.INSTALLING:
            self._waits = (Wait.SERVICE,)

    async def _take_result(self, status: Status) -> None:
        result = status.result
        job = self._kept.job
        if result is None or result.key == self._kept.told:
            return
        over = job is not None and job.id == result.id != status.job  # and left a slot that nobody wants tried
        if status.phase is not Phase.IDLE and not (status.phase is Phase.PENDING and over):
            return
        if job is not None and job.id != result.id and not job.adopted:
            job = None
        if job is None and self._kept.last is not None and self._kept.last["job"] == result.id:
            await self._keep(replace(self._kept, told=result.key))  # we gave it up, and have told that
            return
        if job is not None and result.state == "interrupted" and not job.cancelled and job.tries < TRIES:
            log.info("%s was interrupted; it is done again", job.kind.value)
            await self._keep(replace(self._kept, job=replace(job, handed=False), told=result.key))
            return
        state = "failed" if result.state == "interrupted" else result.state
        if state == "failed" and job is not None and job.cancelled:
            state = "cancelled"
        await self._conclude(job, replace(result, state=state), status)

    async def _begin(self, job: Job, status: Status) -> None:
        if job.cancelled:
            if status.phase is Phase.PENDING and status.job is None:
                with suppress(ServiceRefusedError):
                    await self._service.ask("cancel")
            await self._fail(job, "cancelled", "It was given up.", state="cancelled")
            return
        if job.adopted:
            await self._fail(job, "nothingPending", "What was installed is gone.")
            return
        if job.tries >= TRIES:
            await self._fail(job, "interrupted", "The installation was interrupted too often, and is given up.")
            return
        self._waits = before_begin(job, self._facts()).waits
        if self._waits:
            return
        rate = self._wanted_rate()
        try:
            await self._service.ask("install", url=job.url, id=job.id, rateLimit=rate)
        except ServiceRefusedError as error:
            if error.sub_code == "busy":
                self._waits = (Wait.SERVICE,)
            else:
                await self._fail(job, error.sub_code, error.message)
            return
        job = replace(job, handed=True, tries=job.tries + 1)
        await self._keep(replace(self._kept, job=job))
        self._rate = job.id, rate
        self._bulletin.post("update.started", job=job.id, version=job.version or None, attempt=job.tries)

    async def _keep_rate(self, job: Job) -> None:
        rate = self._wanted_rate()
        if self._rate == (job.id, rate):
            return
        try:
            await self._service.ask("rate", rateLimit=rate)
        except ServiceRefusedError as error:  # it is done meanwhile
            log.info("the update goes on at the rate it had: %s", error.message)
        self._rate = job.id, rate

    async def _restart(self, job: Job, status: Status) -> None:
        there = status.other["version"] or ""
        if job.cancelled:  # and it was forgotten, by a service that was restarted, or is not seen yet
            with suppress(ServiceRefusedError):
                await self._service.ask("cancel")
            return
        if job.version and there and job.version != there:
            with suppress(ServiceRefusedError):
                await self._service.ask("cancel")
            await self._fail(job, "otherVersion", f"The bundle holds {there}, and not {job.version}.")
            return
        outlook = before_restart(job, self._facts())
        self._waits = outlook.waits
        if not job.installed and job.kind is Kind.INSTALL:
            job = replace(job, installed=True, version=there or job.version)
            await self._keep(replace(self._kept, job=job))
            self._bulletin.post("update.installed", job=job.id, version=job.version or None,
                                waitsFor=list(outlook.waits))
        if not outlook.waits and self._left is not None and self._clock.monotonic() - self._left < LOOK_S:
            self._waits = (Wait.SERVICE,)  # it did not restart just now
        elif not outlook.waits:
            await self._leave(job, "reboot", forced=outlook.forced)

    async def _go_back(self, job: Job, status: Status) -> None:
        if job.handed and job.boot != self._bulletin.boot:  # this is after the restart, and the service lost its result
            if job.slot != status.slot:
                await self._fail(job, "", "", "succeeded")
                return
            if status.other["state"] == "bad":
                await self._fail(job, "trialFailed", "The other system did not come up well; this one runs again.",
                                 "rolledBack")
                return
        if job.handed and status.phase is not Phase.IDLE:
            return  # the service is at it. Where it knows nothing, it died when it was asked; it takes each job once
        if job.tries >= TRIES:
            await self._fail(job, "interrupted", "Going back was interrupted too often, and is given up.")
            return
        outlook = before_restart(job, self._facts())
        self._waits = outlook.waits
        if self._waits:
            return
        job = replace(job, handed=True, tries=job.tries + 1, boot=self._bulletin.boot, slot=status.slot,
                      version=status.other["version"] or "")
        await self._leave(job, "back", forced=outlook.forced)

    async def _leave(self, job: Job, verb: str, *, forced: bool) -> None:
        """Restart, by the service; it refuses while anybody but us holds the lock of calls."""
        before = self._kept
        await self._keep(replace(self._kept, job=job))
        self._lock.yield_to_restart(forced)
        try:
            now = await self._service.ask(verb, id=job.id)
        except ServiceRefusedError as error:
            self._lock.yield_to_restart(False)
            await self._keep(before)
            if error.sub_code == "busy" or (verb == "reboot" and error.sub_code != "nothingPending"):
                self._note(error)  # what is installed is there still
                self._waits = (Wait.SERVICE,)
            else:
                await self._fail(job, error.sub_code, error.message)
            return
        except ServiceLostError:
            self._lock.yield_to_restart(False)
            raise
        self._left = self._clock.monotonic()
        self._bulletin.post("update.restarting", job=job.id, version=job.version or None, forced=forced)
        self._hear(now)

    # --- what came of it ----------------------------------------------------------------------------------------------

    async def _fail(self, job: Job, code: str, message: str, state: str = "failed") -> None:
        """Of what the service has no result."""
        await self._conclude(job, Outcome(job.id, state, code, message, ""), self._status)

    async def _conclude(self, job: Job | None, outcome: Outcome, status: Status | None) -> None:
        """Tell it, and forget the job. The event is with the broker's others before that is so: a power cut in between
        makes it be told again, under the same id."""
        last = {"job": outcome.id, "kind": (Kind.INSTALL if job is None else job.kind).value, "result": outcome.state,
                "version": None if job is None else job.version or None,
                "running": None if status is None else status.version, "code": outcome.code,
                "message": outcome.message}
        told = outcome.key if outcome.at else self._kept.told
        self._bulletin.post_again("update.completed", outcome.key, **last)
        try:
            await self._settle()
        except StoreError as error:
            log.warning("what became of the update is told to the broker later: %s", error.message)
        others = self._kept.job if job is None else None
        await self._keep(Kept(others, last | {"at": outcome.at or rfc3339(self._clock.wall())}, told))
        log.info("the update %s%s", outcome.state, f": {outcome.message}" if outcome.message else "")
        self._waits = ()

    async def _keep(self, kept: Kept) -> None:
        if kept == self._kept:
            return
        self._kept = kept
        try:
            await self._memory.set(KEPT, kept.dump())
        except StoreError as error:
            log.warning("the update is not kept over a restart: %s", error.message)

    # --- telling ------------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        status, job, last = self._status, self._kept.job, self._kept.last
        failed = last is not None and last["result"] in FAILED and job is None
        self._diagnostics.flag("updateFailed", failed, what=None if last is None else last["message"])
        stale = (self._pending_since is not None and Wait.COMMIT not in self._waits
                 and self._clock.monotonic() - self._pending_since >= STALE_S)
        waits = ", ".join(self._waits) if job else "update.commit or update.cancel, since nobody here asked for it"
        self._diagnostics.flag("updatePending", stale, what=f"it waits for: {waits}")
        self._bulletin.set("update", self._document(status, job, last))

    def _document(self, status: Status | None, job: Job | None, last: Json | None) -> Json:
        waiting = job is not None and not job.handed and status is not None and status.phase in (
            Phase.IDLE, Phase.PENDING)
        phase = "waiting" if waiting else "unknown" if status is None else status.phase.value
        return {
            "supported": self._supported, "phase": phase, "waitsFor": [one.value for one in self._waits],
            "version": None if status is None else status.version, "slot": None if status is None else status.slot,
            "trial": status is not None and status.trial, "progress": None if status is None else status.progress,
            "step": "" if status is None else status.step, "other": None if status is None else status.other,
            "job": None if job is None else job.payload(), "last": last}

    # --- orders -------------------------------------------------------------------------------------------------------

    def document(self) -> Json:
        self._publish()
        return self._bulletin.document("update")

    async def look(self) -> Status:
        """Ask the service anew. Raises NoServiceError, ServiceLostError."""
        status = await self._service.ask("status")
        if self._watching is None:  # else the one is not known to be newer than the other
            self._hear(status)
        self._wanted.set()
        return status

    async def take_on(self, job: Job, *, origin: str, sender: str) -> None:
        """Raises Refused, and StoreError: a job that a restart would forget is not taken on."""
        async with self._turn:
            status, known = await self.look(), self._kept.job
            if known is not None and known.id == job.id:  # begun before a crash
                return
            if known is not None:
                raise Refused(f"Another update is in progress ({known.id}); wait for it, or give update.cancel.",
                              sub_code="busy")
            _check(job, status)
            kept = replace(self._kept, job=job)
            await self._memory.set(KEPT, kept.dump())
            self._kept = kept
            self._changed.set()
            shown = job.payload()
            self._bulletin.post("update.requested", job=job.id, kind=job.kind.value, version=shown["version"],
                                notBefore=shown["notBefore"], force=shown["force"], origin=origin, sender=sender)

    async def hasten(self, command_id: str, force: float | None) -> None:
        """Do not wait for the window, or the word, any more; ``force``: from then on for nobody. Raises Refused."""
        async with self._turn:
            status, job = await self.look(), self._kept.job
            if status.phase is Phase.TRIAL:
                raise Refused("The new system is on trial: whether it is well it finds out by itself.",
                              sub_code="trial")
            if job is None and status.phase is Phase.PENDING:  # of somebody else
                job = Job(status.job or command_id, version=status.other["version"] or "", handed=True, installed=True)
            if job is None or job.kind is not Kind.INSTALL:
                raise Refused("Nothing is installed or being installed; give update.install first.",
                              sub_code="nothingPending")
            job = replace(job, when=When.NOW, force=job.force if force is None else force)
            await self._keep(replace(self._kept, job=job))
            self._changed.set()

    async def cancel(self) -> None:
        """Raises Refused."""
        async with self._turn:
            status, job = await self.look(), self._kept.job
            if status.phase in (Phase.REBOOTING, Phase.TRIAL):
                raise Refused("It is too late: the device restarts, or has restarted, into it.", sub_code="tooLate")
            if job is not None and status.job != job.id and not (job.adopted and status.phase is Phase.PENDING):
                await self._fail(job, "cancelled", "It was given up before it began.", state="cancelled")
            elif status.phase is Phase.IDLE:
                raise Refused("There is no update that waits or is being installed.", sub_code="nothingPending")
            else:
                await self._service.ask("cancel")
                if job is not None:
                    await self._keep(replace(self._kept, job=replace(job, cancelled=True)))

    async def factory_reset(self, *, origin: str, sender: str) -> None:
        """Raises Refused."""
        async with self._turn:
            status = await self.look()
            if calling(self._call):
                raise Refused("Not in a call: end it first.", sub_code="inCall")
            if status.phase is not Phase.IDLE or self._kept.job is not None:
                raise Refused("Not while there is an update in progress; give update.cancel first.", sub_code="busy")
            await self._service.ask("factoryReset")
            self._bulletin.post("device.factoryReset", origin=origin, sender=sender)

    # --- facts --------------------------------------------------------------------------------------------------------

    def _facts(self) -> Facts:
        busy = calling(self._call)
        return Facts(
            wall=self._clock.wall(), synchronised=self._clock.synchronised(), local=self._local_time(), calling=busy,
            emergency=busy and bool(self._call.get("isEmergency")),
            idle_s=0.0 if busy else self._clock.monotonic() - self._quiet_since, windows=self._windows)

    def _wanted_rate(self) -> int | None:
        """Bytes per second; None is no limit."""
        return self._settings.call_bitrate // BITS if calling(self._call) else None


def _check(job: Job, status: Status) -> None:
    """Whether it can be done at all. Raises Refused."""
    if job.kind is Kind.INSTALL:
        if job.version and job.version == status.version and not status.trial:
            raise Refused(f"{job.version} runs already.", sub_code="installed", retryable=False)
    elif status.phase is not Phase.IDLE:
        raise Refused(f"Not while the update is {status.phase.value}; see update.cancel.", sub_code="busy")
    elif status.other["state"] == "bad":
        raise Refused("There is no other system that would run.", sub_code="noOther", retryable=False)
