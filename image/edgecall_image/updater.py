"""The root service of updates: a few verbs, a status, and the memory that outlives a reboot.

It alone has systems installed, tried and gone back to; it never finds one good, which is the health gate's (``gate``).
The daemon asks it over a Unix socket (``service``) and decides when; what is asked for here is done at once or refused.
What must outlive a reboot lies on data: facts of the slots (``slots``), the job and how it ended (``record``).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgecall_image import daemon, reach
from edgecall_image.durable import remove_file, replace_file
from edgecall_image.errors import ImageError
from edgecall_image.installation import NOBODY, RELAY, Installation
from edgecall_image.layout import CALL_LOCK, DATA, MARKS, SETTINGS, VERSION_FILE, Slot, other
from edgecall_image.origins import Origins, OriginsError
from edgecall_image.outcome import Facts, what_became
from edgecall_image.rauc import Rauc, RaucError, ended
from edgecall_image.record import Job, Record, Result
from edgecall_image.slots import Slots
from edgecall_image.versions import SYSTEM_CONF, Version, minimum_version, own_version

__all__ = ["FACTORY_RESET", "Paths", "Refused", "Updater"]

log = logging.getLogger(__name__)

FREE_BYTES: Final = 16 << 20
"""On data, for what RAUC and the trial write down; the health gate wants as much."""
COMMAND_S: Final = 30.0
GENTLY_S: Final = 30.0
"""How long the answer to a cancel waits for RAUC, which finds that its bundle is gone and has to clean up."""
GRACE_S: Final = 2.0
"""Between an answer and the restart that it promises: whoever asked can tell it to others."""
REBOOT_S: Final = 300.0
"""A reboot that has not happened by then will not: systemd's own limits are far below."""
CANCELLED: Final = "the update was cancelled"
RATES: Final = (1024, 1_000_000_000)
FACTORY_RESET: Final = "factory-reset"
"""Flag on data that the next boot heeds before it mounts anything else of it."""


class Refused(Exception):
    """Nothing was done. ``code`` and message go to whoever asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are; tests have their own."""

    marks: Path = MARKS
    data: Path = DATA
    settings: Path = SETTINGS
    version: Path = VERSION_FILE
    system_conf: Path = SYSTEM_CONF
    call_lock: Path = CALL_LOCK
    daemon: Path = daemon.DAEMON_SOCKET


class Updater:
    """On one loop. ``start`` once, then ``ask``; ``changed`` wakes who watches. ``stop`` ends an installation."""

    def __init__(self, slots: Slots, rauc: Rauc, paths: Paths | None = None, *, relay: Sequence[str] = RELAY,
                 relay_user: str = NOBODY, reboot: Sequence[str] = ("systemctl", "reboot"),
                 grace_s: float = GRACE_S) -> None:
        self._slots = slots
        self._rauc = rauc
        self._paths = paths or Paths()
        self._record = Record(self._paths.marks)
        self._relay, self._relay_user = relay, relay_user
        self._reboot = reboot
        self._grace_s = grace_s
        self._version = own_version(self._paths.version)
        self._facts: Facts | None = None
        self._trouble = "the update service is starting"
        self._one = asyncio.Lock()  # verbs that act
        self._installing: asyncio.Task[None] | None = None
        self._installation: Installation | None = None
        self._calls: daemon.CallLock | None = None
        self._answered = asyncio.Event()
        self._restarting: asyncio.Task[None] | None = None
        self._progress: int | None = None
        self._step = ""
        self._job: Job | None = None
        self._result: Result | None = None
        self._unwritten: Result | None = None
        self._watchers: set[asyncio.Event] = set()

    async def start(self) -> None:
        """Find out what became of the job that was under way. Never raises for what is wrong with the slots or data:
        it says so to whoever asks."""
        await self._look()
        try:
            await asyncio.to_thread(self._remember, self._version)
        except OSError as error:
            log.error("the version of this system cannot be written down: %s", error)  # noqa: TRY400
        try:
            await self._stay()
            await self._settle()
        except (ImageError, OSError, RaucError) as error:
            log.error("what became of the last update could not be written down: %s", error)  # noqa: TRY400

    async def stop(self) -> None:
        """An installation ends as interrupted; the next start says so."""
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait({self._restarting})
        if self._installing is not None:
            self._installing.cancel()
            await asyncio.wait({self._installing})
        if self._calls is not None:
            self._calls.close()

    def answered(self) -> None:
        """Whoever asked has the answer: a restart may begin."""
        self._answered.set()

    @property
    def at_rest(self) -> bool:
        """Nothing goes on that would be lost with this process."""
        return self._installing is None and self._calls is None and not self._one.locked()

    # --- asking

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request, answered with the status after it. Raises Refused."""
        verbs: dict[str, Callable[[Mapping[str, Any]], Awaitable[None]]] = {
            "install": self._install, "rate": self._rate, "cancel": self._cancel, "reboot": self._commit,
            "back": self._back, "factoryReset": self._factory_reset,
        }
        verb = request.get("verb")
        if verb == "status":
            if self._one.locked():
                await self._look()
            else:
                async with self._one:
                    await self._look_and_settle()
            return self.status()
        if not isinstance(verb, str) or verb not in verbs:
            raise Refused("badRequest", f"there is no verb {str(verb)[:40]!r}, but status, watch, {', '.join(verbs)}")
        async with self._one:
            ended = await self._look_and_settle()
            if ended is not None and ended == request.get("id"):
                return self.status()  # of what has just come to nothing; who wants it still asks once more
            try:
                await verbs[verb](request)
            except RaucError as error:
                raise Refused("failed" if error.code in {"network", "busy"} else error.code, error.message) from error
            except ImageError as error:
                raise Refused("failed", str(error)) from error
            except OSError as error:
                raise _unwritten(error) from error
            finally:
                await self._look()
        return self.status()

    def status(self) -> dict[str, Any]:
        """Raises Refused while the slots cannot be read."""
        facts = self._known()
        return {
            "version": self._version, "slot": facts.booted, "trial": facts.trial, "phase": self._phase(facts),
            "progress": self._progress, "step": self._step, "job": None if self._job is None else self._job.id,
            "other": {"version": facts.other_version,
                      "state": "bad" if facts.other_bad else "unknown" if facts.other_version is None else "good"},
            "result": None if self._result is None else asdict(self._result),
        }

    @contextlib.contextmanager
    def changed(self) -> Iterator[asyncio.Event]:
        """An event that is set with each change of the status; whoever watches clears it."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    async def refresh(self, step: str) -> None:
        """The health gate has something to tell: what it waits for, or that it has judged."""
        self._step = step
        await self._look()

    # --- verbs

    async def _install(self, request: Mapping[str, Any]) -> None:
        job_id, url, rate = _text(request, "id", 128), _text(request, "url", 2048), _rate_of(request)
        facts = self._known()
        if self._job is not None and self._job.id == job_id:
            return
        if self._result is not None and self._result.id == job_id and self._result.state == "succeeded":
            return
        self._refuse_while_busy(facts)
        try:
            origins = await asyncio.to_thread(Origins.read, self._paths.settings)
            origins.check(url)
        except OriginsError as error:
            raise Refused("notAllowed", str(error)) from None
        await asyncio.to_thread(self._needs_space)
        if facts.pending is not None:  # else a cut in the installation leaves it pending, as if that had been done
            await self._rauc.mark("active", "booted")
        if self._job is not None:
            await self._end(Result(self._job.id, "failed", self._job.version, "replaced",
                                   "another update was asked for before this one was tried"))
        job = Job(job_id, other(facts.booted), "installing", url)
        await asyncio.to_thread(self._begin, job)
        self._job = job
        self._installation = Installation(self._rauc, url, origins, rate=rate, told=self._told, relay=self._relay,
                                          user=self._relay_user)
        self._told(None, "begins")
        self._installing = asyncio.create_task(self._run(job, self._installation), name="updater.install")

    async def _rate(self, request: Mapping[str, Any]) -> None:
        rate = _rate_of(request)
        if self._installation is not None:
            await self._installation.set_rate(rate)

    async def _cancel(self, _request: Mapping[str, Any]) -> None:
        facts = self._known()
        if self._calls is not None or facts.trial:
            raise Refused("busy", "it is too late: the device restarts, or tries the new system")
        if self._installing is None and facts.pending is None:
            raise Refused("nothingPending", "no update is being installed or waits")
        if self._installing is not None and self._installation is not None:
            self._told(None, "is cancelled")
            task = self._installing
            await self._installation.give_up()
            await asyncio.wait({task}, timeout=GENTLY_S)
            if not task.done():
                return  # it is told when RAUC has ended: until then that may make the slot pending
            await self._look()
            if self._known().pending is None:
                return
        await self._rauc.mark("active", "booted")
        if self._job is not None:
            await self._end(Result(self._job.id, "failed", self._job.version, "cancelled", CANCELLED))

    async def _commit(self, request: Mapping[str, Any]) -> None:
        """The verb ``reboot``."""
        facts = self._known()
        self._refuse_while_busy(facts)
        if facts.pending is None:
            raise Refused("nothingPending", "no update waits for a restart")
        job = self._job or Job(_text(request, "id", 128, default="restart"), facts.pending, "pending",
                               version=facts.other_version)
        with self._no_calls() as calls:
            if self._job is None:
                await asyncio.to_thread(self._begin, job)
            await self._restart_into(replace(job, stage="rebooting"), calls)

    async def _back(self, request: Mapping[str, Any]) -> None:
        job_id = _text(request, "id", 128, default="back")
        facts = self._known()
        if self._job is not None and self._job.id == job_id:
            return
        self._refuse_while_busy(facts)
        if facts.pending is not None:
            raise Refused("busy", "an update waits for a restart: have it tried, or cancel it first")
        if facts.other_bad or facts.other_version is None:
            raise Refused("failed", "the other slot holds no system that is known to have been well")
        await asyncio.to_thread(self._may_run, facts.other_version)
        job = Job(job_id, other(facts.booted), "installing", version=facts.other_version)
        with self._no_calls() as calls:
            # The job goes first: a slot that is to be tried and belongs to no job would be tried, and nobody told.
            await asyncio.to_thread(self._begin, job)
            self._job = job
            try:
                await self._rauc.mark("active", "other")
                await self._restart_into(replace(job, stage="rebooting"), calls)
            except (RaucError, ImageError, OSError):
                await self._take_back(job)
                raise

    async def _factory_reset(self, _request: Mapping[str, Any]) -> None:
        facts = self._known()
        self._refuse_while_busy(facts)
        with self._no_calls() as calls:
            if facts.pending is not None:
                await self._rauc.mark("active", "booted")
            flag = self._paths.marks / FACTORY_RESET
            await asyncio.to_thread(replace_file, flag, b"")
            self._restart(calls, lambda: asyncio.to_thread(remove_file, flag))

    # --- installing

    async def _run(self, job: Job, installation: Installation) -> None:
        try:
            await installation.run()
            if installation.given_up:
                raise RaucError("cancelled", CANCELLED)  # noqa: TRY301 - it ends as one that RAUC gave up
            await self._installed(job)
        except (RaucError, ImageError, OSError) as error:
            log.warning("the update %s came to nothing: %s", job.id, error)
            code = error.code if isinstance(error, RaucError) else "failed"
            code, message = ("cancelled", CANCELLED) if installation.given_up else (code, str(error))
            await self._came_to_nothing(job, code, message)
        except Exception:
            log.exception("the update %s came to nothing by a fault of ours", job.id)
            await self._came_to_nothing(job, "failed", "a fault of the update service: see its journal")
        finally:
            self._installing = self._installation = None
            self._progress, self._step = None, ""
            await self._look()

    async def _came_to_nothing(self, job: Job, code: str, message: str) -> None:
        await self._clear_away(job)
        await self._end(Result(job.id, "failed", None, code, message))

    async def _installed(self, job: Job) -> None:
        if await asyncio.to_thread(self._slots.pending) != job.slot:
            raise RaucError("failed", "RAUC has installed it, and does not have it tried")
        if job.url:  # until RAUC has told, what was there before is not taken for it
            await asyncio.to_thread(self._forget_version, job.slot)
        version = await self._rauc.version_in(job.slot) or job.version
        await asyncio.to_thread(self._remember_of, job.slot, version or "")
        await self._write(replace(job, stage="pending", version=version, before=await self._condition()))
        log.info("the update %s is installed: version %s waits for a restart", job.id, version)

    def _told(self, progress: int | None, step: str) -> None:
        if progress is not None:
            self._progress = progress
        self._step = step
        self._tell()

    # --- restarting

    @contextlib.contextmanager
    def _no_calls(self) -> Iterator[daemon.CallLock]:
        """Nobody calls, and nobody can while it lasts; kept where the device restarts. Raises Refused."""
        calls = daemon.CallLock.take(self._paths.call_lock)
        if calls is None:
            raise Refused("busy", "somebody calls: the device restarts when nobody does")
        try:
            yield calls
        finally:
            if self._calls is not calls:
                calls.close()

    async def _restart_into(self, job: Job, calls: daemon.CallLock) -> None:
        """What is pending. Raises RaucError, ImageError, OSError; it is still pending then."""
        before = await self._condition()
        await self._write(replace(job, before=before or job.before))
        await asyncio.to_thread(self._slots.ask)

        async def undo() -> None:
            await asyncio.to_thread(self._slots.unask)
            await self._write(replace(job, stage="pending"))

        self._restart(calls, undo)

    def _restart(self, calls: daemon.CallLock, undo: Callable[[], Awaitable[None]]) -> None:
        """Soon after the answer. ``undo``: where it cannot be done."""
        self._calls = calls
        self._step = "restarts"
        self._answered.clear()
        self._restarting = asyncio.create_task(self._restart_now(undo), name="updater.restart")

    async def _restart_now(self, undo: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMAND_S):
                await self._answered.wait()
        await asyncio.sleep(self._grace_s)
        try:
            await _run_to_end(self._reboot)
            await asyncio.sleep(REBOOT_S)
            log.error("the device was to restart %g s ago and still runs; calls are possible again", REBOOT_S)
        except RaucError as error:
            log.error("the device cannot be restarted: %s", error.message)  # noqa: TRY400
        with contextlib.suppress(ImageError, OSError):
            await undo()
        if self._calls is not None:
            self._calls.close()
        self._calls, self._step = None, ""
        await self._look()

    # --- facts

    async def _look(self) -> None:
        """Read the facts anew, and tell who watches."""
        try:
            self._facts, job, result = await asyncio.to_thread(
                lambda: (self._seen(), self._record.open_job(), self._record.result()))
            if self._unwritten is not None and job is not None and self._unwritten.id == job.id:
                job, result = None, self._unwritten
            self._job, self._result = job, result
        except (ImageError, OSError) as error:
            if self._facts is not None or str(error) != self._trouble:
                log.error("the slots cannot be read: %s", error)  # noqa: TRY400 - the words say it all
            self._facts, self._trouble = None, str(error)
        self._tell()

    def _seen(self) -> Facts:
        booted = self._slots.booted()
        away = other(booted)
        try:
            version: str | None = (self._paths.marks / f"version.{away}").read_text("utf-8", "replace").strip()[:128]
        except FileNotFoundError:
            version = None
        return Facts(booted, self._slots.on_trial(), self._slots.pending(), self._slots.is_bad(away), version or None,
                     self._slots.verdict())

    async def _stay(self) -> None:
        """This service was started anew between its request for a reboot and that: another reboot tries nothing."""
        job, facts = self._job, self._facts
        if facts is None or job is None or job.stage != "rebooting" or facts.trial:
            return
        if facts.pending == job.slot:
            await asyncio.to_thread(self._slots.unask)

    async def _look_and_settle(self) -> str | None:
        """With the lock of verbs. Of a job of which somebody at the device took the slot back: it has ended, and which
        it was. Raises Refused."""
        await self._look()
        job, facts = self._job, self._facts
        if job is None or facts is None or self._installing is not None or self._calls is not None or facts.trial:
            return None
        if facts.pending != job.slot:
            try:
                await self._settle()
            except (ImageError, OSError, RaucError) as error:
                raise Refused("failed", f"what became of {job.id} cannot be told: {error}") from error
        return job.id if self._job is None else None

    async def _settle(self) -> None:
        job, facts = self._job, self._facts
        if facts is None:
            return
        if job is not None and (result := what_became(job, facts, self._version)) is not None:
            await self._end(result)
            if result.state == "interrupted":
                await self._clear_away(job)
        elif job is not None and job.stage == "installing":  # its end was not written down any more
            await self._installed(job)
        if facts.verdict is not None:
            await asyncio.to_thread(self._slots.forget_verdict)
        await self._look()

    def _known(self) -> Facts:
        if self._facts is None:
            raise Refused("failed", self._trouble)
        return self._facts

    def _phase(self, facts: Facts) -> str:
        if self._calls is not None:
            return "rebooting"
        if self._installing is not None:
            return "installing"
        return "trial" if facts.trial else "pending" if facts.pending is not None else "idle"

    def _tell(self) -> None:
        for event in self._watchers:
            event.set()

    async def _condition(self) -> dict[str, Any]:
        found = await asyncio.to_thread(daemon.condition, self._paths.daemon)
        if found is None:
            return {}
        if found.network is not None:
            answered = await asyncio.to_thread(reach.a_gateway_answers)
            found = replace(found, network=replace(found.network, answered=answered))
        return found.document()

    def _refuse_while_busy(self, facts: Facts) -> None:
        if self._calls is not None:
            raise Refused("busy", "the device restarts")
        if self._installing is not None:
            raise Refused("busy", "an update is being installed")
        if facts.trial:
            raise Refused("busy", "a new system is on trial; wait until it is found well, or gone back from")

    def _needs_space(self) -> None:
        free = os.statvfs(self._paths.data)
        if free.f_bavail * free.f_frsize < FREE_BYTES:
            raise Refused("noSpace", f"less than {FREE_BYTES >> 20} MiB are free on the data partition: remove "
                                     "recordings or logs")

    def _may_run(self, version: str) -> None:
        try:
            minimum = minimum_version(self._paths.system_conf)
            too_old = minimum is not None and Version.parse(version) < minimum
        except (OSError, ValueError) as error:
            raise Refused("tooOld", f"whether {version} may run cannot be told: {error}") from None
        if too_old:
            raise Refused("tooOld", f"{version} is older than this system lets itself be replaced by, for security")

    # --- writing down

    def _begin(self, job: Job) -> None:
        result = self._record.result()
        if result is not None and result.id == job.id:
            self._record.forget_result()
        self._record.set_job(job)

    def _remember(self, version: str) -> None:
        if self._facts is not None:
            self._remember_of(self._facts.booted, version)

    def _remember_of(self, slot: Slot, version: str) -> None:
        """Empty: not known."""
        path = self._paths.marks / f"version.{slot}"
        if not path.exists() or path.read_text("utf-8", "replace") != version:
            replace_file(path, version.encode())

    def _forget_version(self, slot: Slot) -> None:
        remove_file(self._paths.marks / f"version.{slot}")

    async def _take_back(self, job: Job) -> None:
        """A way back that was refused. Where the slot stays pending all the same, it stays that job's."""
        await self._clear_away(job)
        with contextlib.suppress(ImageError, OSError):
            if await asyncio.to_thread(self._slots.pending) != job.slot:
                await asyncio.to_thread(self._record.forget_job)

    async def _clear_away(self, job: Job) -> None:
        """After what came to nothing: what it left there is not tried, and if RAUC has begun to write (it marks the
        slot bad before, and pending after), the version that was there before is there no more."""
        with contextlib.suppress(ImageError, OSError, RaucError):
            whole = await asyncio.to_thread(self._slots.pending) == job.slot
            if job.url and (whole or await asyncio.to_thread(self._slots.is_bad, job.slot)):
                await asyncio.to_thread(self._forget_version, job.slot)
            if whole:
                await self._rauc.mark("active", "booted")

    async def _write(self, job: Job) -> None:
        await asyncio.to_thread(self._record.set_job, job)
        self._job = job

    async def _end(self, result: Result) -> None:
        """It is told even where it cannot be written down; the next start finds out by itself then."""
        self._unwritten = None
        try:
            await asyncio.to_thread(self._record.end, result)
        except OSError as error:
            log.error("the result of %s cannot be written down: %s", result.id, error)  # noqa: TRY400
            self._unwritten = result
        self._job, self._result = None, result


async def _run_to_end(command: Sequence[str]) -> None:
    """Raises RaucError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE)
    except OSError as error:
        raise RaucError("failed", f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(COMMAND_S):
            _, said = await process.communicate()
    except TimeoutError:
        raise RaucError("failed", f"{' '.join(command)} did not end within {COMMAND_S:g} s") from None
    finally:
        await ended(process)
    if process.returncode:
        raise RaucError("failed", f"{' '.join(command)}: {said.decode('utf-8', 'replace').strip()[:500]}")


def _text(request: Mapping[str, Any], name: str, limit: int, *, default: str = "") -> str:
    value = request.get(name, default)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise Refused("badRequest", f"{name} is a text of 1 to {limit} characters")
    return value


def _rate_of(request: Mapping[str, Any]) -> int | None:
    rate = request.get("rateLimit")
    least, most = RATES
    if rate is not None and (not isinstance(rate, int) or isinstance(rate, bool) or not least <= rate <= most):
        raise Refused("badRequest", f"rateLimit is {least} to {most} bytes per second, or null")
    return rate


def _unwritten(error: OSError) -> Refused:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Refused("noSpace", "the data partition is full: remove recordings or logs")
    return Refused("failed", f"it cannot be written down: {error}")
