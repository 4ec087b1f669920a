"""Where every door hands its commands in: admission, journal, execution, one final answer each.

The promise (A5): every accepted command has exactly one final answer, whose bytes never change; a command that is not
idempotent starts at most once; one whose fate is unknown after a crash answers ``failed/interrupted``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from secrets import token_urlsafe
from typing import Final, Protocol

from appliance.bulletin import Bulletin
from appliance.clock import Clock, RateLimits
from appliance.errors import BadRequest, EdgecallError, NotPermitted, Refused, StoreError
from appliance.faces.envelope import decode, encode, refusal
from appliance.store import Entry, JournalState, Store
from appliance.vocabulary import VERB, Answer, Command, Json, Origin, Result, Scope
from hw.api import HardwareError

__all__ = ["Handler", "Handlers", "Intake", "Submit"]

log = logging.getLogger(__name__)

Handler = Callable[[Command], Awaitable[Json | None]]
"""Carries out one verb; returns the answer's data. Raises EdgecallError or HardwareError."""

Handlers = Mapping[str, Handler]
"""Verb name to handler; composed by ``__main__`` from the rooms that carry verbs out."""

RATE_PER_S: Final = 10.0
"""Commands per second and sender."""
BURST: Final = 20.0
"""Above MQTT's receive maximum of 16: what a broker delivers again after a restart is no flood."""
STOP_BURST: Final = 60.0
"""Of commands that only stop something, which have a budget of their own, at the same rate: whoever floods with others
can still hang up. When one of these is refused, sixty were obeyed."""
SENDERS: Final = 256  # remembered for the rate; the one seen longest ago goes first
SETTLE_S: Final = 1.0  # for events to be kept before the answer they belong to
CLOCK_TOLERANCE_S: Final = 2.0
CLOCK_AHEAD_S: Final = 5.0
"""A sender's clock further ahead than this would undo the check for stalled links."""
CHALLENGE_S: Final = 5.0
CHALLENGES: Final = 64
TWO_STEP: Final = frozenset({Origin.MQTT, Origin.HTTP})
"""Origins a command can lie on the way from. A button and the Unix socket have no way to be late on; a signed message
of a call's data channel has had its nonce already (``doors.signed``)."""
SHORT_S: Final = 10.0
"""A short verb that takes longer answers ``accepted``; its final is told like a long one's."""
EXECUTION_S: Final = 900.0
"""Longest execution (or the verb's own ``max_ttl_s``): a handler that hangs still gets a final answer."""
STOP_S: Final = 2.0
RETRY_S: Final = 1.0  # between two tries to store what the store did not take
UNSTORED: Final = 256
"""Final answers kept for a store that hangs. While it does nothing more is journalled: those beyond are of buttons and
of requests that were answered already."""


class Submit(Protocol):
    """What a door is handed."""

    async def submit(self, command: Command) -> Answer:
        """Admit, journal and start; returns the first answer: final for short verbs, ``accepted`` for long ones.

        When this returns, the command is committed to the journal: only now may MQTT acknowledge it.
        """

    async def final(self, command_id: str, deadline_s: float) -> Answer | None:
        """Wait for the final answer; None when it has not come in time."""

    def on_answer(self, tell: Callable[[Command, Answer], None]) -> None:
        """Told, on the loop, of every answer after the first one (the finals of long commands)."""


@dataclass(slots=True, eq=False)
class _Running:
    """A command between admission and its final answer."""

    command: Command
    digest: str
    accepted: Answer
    final: asyncio.Future[Answer]
    first_told: bool = False  # ``accepted`` was returned: the final one must be told
    reply: str | None = None  # where the final answer goes together with the journal
    also: set[str] = field(default_factory=set)  # where else ``accepted`` was told meanwhile: the final one follows
    journalled: bool = True  # or the store did not answer when it came
    executing: bool = False  # may be cancelled; never while the final answer is being written
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    """What admission came to. ``queued``: the answer lies in the outbox, or the final one will."""

    answer: Answer
    queued: bool = False
    running: _Running | None = None  # set where this submission began it


class Intake:
    """The one way in. ``recover`` once, when the handlers can work and before a door opens; ``stop`` at the end."""

    def __init__(self, store: Store, handlers: Handlers, bulletin: Bulletin, clock: Clock) -> None:
        self._store = store
        self._handlers = handlers
        self._bulletin = bulletin
        self._clock = clock
        self._tell: list[Callable[[Command, Answer], None]] = []
        self._settle: list[Callable[[], Awaitable[None]]] = []
        self._running: dict[str, _Running] = {}
        self._rates = RateLimits(RATE_PER_S, BURST, clock.monotonic, most=SENDERS)
        self._stop_rates = RateLimits(RATE_PER_S, STOP_BURST, clock.monotonic, most=SENDERS)
        self._challenges: OrderedDict[str, tuple[str, float]] = OrderedDict()  # nonce -> (what for, until)
        self._admissions: set[asyncio.Task[_Taken]] = set()
        self._unstored: OrderedDict[str, _Running] = OrderedDict()  # those of them that wait for the store alone
        self._recovered = False
        self._recovery: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def before_final(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Awaited, at most SETTLE_S, between the end of a command and the storing of its final answer."""
        self._settle.append(settle)

    def on_answer(self, tell: Callable[[Command, Answer], None]) -> None:
        self._tell.append(tell)

    async def submit(self, command: Command) -> Answer:
        taken = await self._take(command, None)
        running = taken.running
        if running is None:
            return taken.answer
        if not command.verb.long:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHORT_S):
                    return await asyncio.shield(running.final)
        if running.final.done():  # before anybody was told of ``accepted``
            return running.final.result()
        running.first_told = True
        return taken.answer

    async def take(self, command: Command, reply: str) -> Answer | None:
        """Like ``submit``, for a door whose answers go through the outbox under the topic ``reply``.

        Returns once the command is committed, without waiting for its execution; each answer is committed to the
        outbox together with the journal, so that no crash can part them. Returns an answer only where none was
        queued (``429/busy``, a failing store): a flood must not wear the flash; the door tells it itself.
        """
        taken = await self._take(command, reply)
        return None if taken.queued else taken.answer

    async def final(self, command_id: str, deadline_s: float) -> Answer | None:
        running = self._running.get(command_id)
        if running is not None:
            try:
                async with asyncio.timeout(deadline_s):
                    return await asyncio.shield(running.final)
            except TimeoutError:
                return None
        found = await self._store.command(command_id)
        return decode(found.answer) if found is not None and found.answer is not None else None

    async def recover(self) -> None:
        """Answer what a crash left behind: not begun → expired; begun → again if idempotent, else interrupted.

        Where the store does not answer this is done as soon as it does.
        """
        try:
            await self._recover()
        except StoreError as error:
            log.warning("commands of the last run wait for their answers: %s", error.message)
            self._recovery = asyncio.create_task(self._recover_late(), name="intake recovery")

    async def _recover_late(self) -> None:
        while not await self._stopped_within(RETRY_S):
            with contextlib.suppress(StoreError):  # told once
                await self._recover()
                return

    async def _recover(self) -> None:
        for entry in await self._store.unfinished():
            if entry.id in self._running:
                continue
            command = _from_journal(entry)
            if command is not None and entry.state is JournalState.STARTED and self._may_run_again(command):
                self._launch(self._register(command, entry.digest), started=True)
            else:
                await self._close(entry)
        self._recovered = True

    async def _close(self, entry: Entry) -> None:
        """The final answer of a command that nobody carries out any more."""
        began = entry.state is JournalState.STARTED
        error = _interrupted() if began else _late("The appliance restarted before it began.")
        answer = refusal(entry.id, error, self._bulletin.rev)
        await self._store.finish(entry.id, encode(answer))
        _audit(entry.verb, entry.id, entry.origin, entry.sender, answer, 0.0)

    async def stop(self) -> None:
        """Take nothing more; what runs is cancelled and answers ``503/shutdown``. May be called twice."""
        self._stopping.set()
        if self._admissions:
            await asyncio.wait(self._admissions, timeout=STOP_S)
        tasks = [] if self._recovery is None else [self._recovery]
        for running in tuple(self._running.values()):
            if running.task is not None:
                tasks.append(running.task)
                if running.executing:
                    running.task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                log.error("%s did not end within %s s at the stop", task.get_name(), STOP_S)

    # --- admission

    async def _take(self, command: Command, reply: str | None) -> _Taken:
        try:
            self._check_rate(command)
        except EdgecallError as error:
            return _Taken(self._refused(command, error))
        # A task of its own: a sender that goes away must not part the journal's row from the execution.
        task = asyncio.create_task(self._admit(command, reply), name=f"admit {command.verb.name} {command.id}")
        self._admissions.add(task)
        task.add_done_callback(self._admissions.discard)
        return await asyncio.shield(task)

    async def _admit(self, command: Command, reply: str | None) -> _Taken:
        digest = _digest(command.args)
        try:
            return await self._journal(command, digest, reply)
        except StoreError as error:
            known = self._known(command, digest, None)
            if known is not None:  # it runs, or its answer waits for the store: the door tells it itself
                self._also(command.id, reply, known)
                return _Taken(known)
            if command.origin is Origin.MQTT:  # the sender can ask again; nothing was promised
                return _Taken(self._refused(command, error))
            # A button must ring whatever the card does. The trouble itself is told by the store.
            log.warning("%s runs without the journal: %s", command.verb.name, error.message)
        try:
            self._check(command, digest)
        except EdgecallError as error:
            return _Taken(self._refused(command, error))
        running = self._register(command, digest)
        running.journalled = False
        self._launch(running, started=True)
        return _Taken(running.accepted, running=running)

    async def _journal(self, command: Command, digest: str, reply: str | None) -> _Taken:
        entry = await self._store.command(command.id)
        if entry is not None and entry.answer is None and entry.id not in self._running and self._recovered:
            await self._close(entry)  # its admission was given up while the store hung, and was written after all
            entry = await self._store.command(command.id)
        known = self._known(command, digest, entry)
        if known is None:
            try:
                self._check(command, digest)
            except EdgecallError as error:
                return await self._refuse(command, digest, error, reply)
        if known is not None:
            await self._queue_known(command.id, reply, known)
            return _Taken(known, reply is not None)
        running = self._register(command, digest)
        running.reply = reply
        first = encode(running.accepted) if command.verb.long else None
        # A door that answers by itself saves one commit: a button is not made to wait for the card twice.
        state = JournalState.STARTED if reply is None else JournalState.ADMITTED
        try:
            found = await self._store.admit(_entry(command, digest, state, reply), first)
        except StoreError as error:
            del self._running[command.id]
            running.final.set_result(refusal(command.id, error, self._bulletin.rev))
            raise
        if found is not None:  # its twin was found expired while this one was checked
            del self._running[command.id]
            known = self._known(command, digest, found) or running.accepted
            running.final.set_result(known)
            await self._queue(reply, known)
            return _Taken(known, reply is not None)
        self._launch(running, started=state is JournalState.STARTED)
        return _Taken(running.accepted, reply is not None, running)

    def _known(self, command: Command, digest: str, entry: Entry | None) -> Answer | None:
        """The answer to an id seen before (A1)."""
        running = self._running.get(command.id)
        if running is not None:
            same = running.command.verb.name == command.verb.name and running.digest == digest
            if not same:
                return self._reused(command)
            return running.final.result() if running.final.done() else running.accepted
        if entry is None:
            return None
        if entry.verb != command.verb.name or entry.digest != digest:
            return self._reused(command)
        if entry.answer is None:  # of before a restart, and ``recover`` has not come to it
            return Answer(command.id, Result.ACCEPTED, state_rev=self._bulletin.rev)
        return decode(entry.answer)

    def _reused(self, command: Command) -> Answer:
        return self._refused(command, Refused(
            f"The id {command.id!r} was used for another command; take a new one.", sub_code="idReused"))

    async def _refuse(self, command: Command, digest: str, error: EdgecallError, reply: str | None) -> _Taken:
        answer = self._refused(command, error)
        if answer.result is not Result.EXPIRED:
            # Nothing was promised and nothing happened: the same id may come again (with the challenge's nonce).
            await self._queue(reply, answer)
            return _Taken(answer, reply is not None)
        payload = encode(answer)
        entry = replace(_entry(command, digest, JournalState.FINAL, reply), args="", answer=payload)
        found = await self._store.admit(entry, payload)
        if found is not None:
            answer = self._known(command, digest, found) or answer
            await self._queue(reply, answer)
        return _Taken(answer, reply is not None)

    async def _queue_known(self, command_id: str, reply: str | None, known: Answer) -> None:
        self._also(command_id, reply, known)
        await self._queue(reply, known)

    def _also(self, command_id: str, reply: str | None, known: Answer) -> None:
        """Where the command came through another door and still runs, its final answer must come here as well."""
        running = self._running.get(command_id)
        if running is not None and known is running.accepted and reply not in (None, running.reply):
            running.also.add(reply)

    async def _queue(self, reply: str | None, answer: Answer) -> None:
        if reply is not None:
            await self._store.enqueue(reply, encode(answer), precious=True)

    def _refused(self, command: Command, error: EdgecallError) -> Answer:
        answer = refusal(command.id, error, self._bulletin.rev)
        _audit(command.verb.name, command.id, command.origin, command.sender, answer, 0.0)
        return answer

    # --- checks

    def _check(self, command: Command, digest: str) -> None:
        """Raises what a command is refused for, before anything is promised."""
        if command.verb.name not in self._handlers:
            raise Refused(f"This device does not offer {command.verb.name}.", code=501, sub_code="FeatureNotSupported")
        self._check_time(command)
        self._check_challenge(command, digest)

    def _check_rate(self, command: Command) -> None:
        if self._stopping.is_set():
            raise Refused("The appliance is shutting down.", code=503, sub_code="shutdown")
        if command.origin is Origin.INTERNAL:
            return
        rates = self._stop_rates if command.stops else self._rates
        if not rates.take((command.origin, command.sender)):
            raise Refused(f"More than {RATE_PER_S:g} commands a second; wait and send it again.",
                          code=429, sub_code="busy")

    def _check_deadline(self, command: Command) -> None:
        if command.deadline is not None and self._clock.monotonic() > command.deadline:
            raise _late("Its time ran out before it was begun.")

    def _check_time(self, command: Command) -> None:
        self._check_deadline(command)
        if not command.verb.acts or command.ts is None or command.ttl_s is None or not self._clock.synchronised():
            return
        late_s = self._clock.wall() - command.ts
        if late_s > command.ttl_s + CLOCK_TOLERANCE_S:
            raise _late(f"It was sent {late_s:.1f} s ago and was good for {command.ttl_s:g} s.")
        if late_s < -CLOCK_AHEAD_S:
            raise BadRequest(f"The sender's clock is {-late_s:.1f} s ahead; set it by a time server.",
                             sub_code="clockAhead")

    def _check_challenge(self, command: Command, digest: str) -> None:
        verb = command.verb
        if not verb.two_step or command.origin not in TWO_STEP or self._clock.synchronised():
            return
        purpose, now = f"{command.sender} {command.id} {verb.name} {digest}", self._clock.monotonic()
        if command.nonce is not None:
            known, until = self._challenges.pop(command.nonce, ("", 0.0))
            if known == purpose and now <= until:
                return
            self._bulletin.post("security.refused", why="challenge", verb=verb.name, origin=command.origin.value,
                                sender=command.sender)
        nonce = token_urlsafe(16)
        self._challenges[nonce] = (purpose, now + CHALLENGE_S)
        while len(self._challenges) > CHALLENGES:
            self._challenges.popitem(last=False)
        raise NotPermitted(
            f"The clock is not synchronised: send {verb.name} again within {CHALLENGE_S:g} s, same id, with the nonce.",
            code=401, sub_code="challenge", data={"nonce": nonce})

    def _may_run_again(self, command: Command) -> bool:
        """No deadline survives a restart, except by a clock that may be believed."""
        if not command.verb.idempotent or command.verb.name not in self._handlers:
            return False
        if command.ttl_s is None:
            return True
        return (command.ts is not None and self._clock.synchronised()
                and self._clock.wall() <= command.ts + command.ttl_s + CLOCK_TOLERANCE_S)

    # --- execution

    def _register(self, command: Command, digest: str) -> _Running:
        accepted = Answer(command.id, Result.ACCEPTED, state_rev=self._bulletin.rev)
        running = _Running(command, digest, accepted, asyncio.get_running_loop().create_future())
        self._running[command.id] = running
        return running

    def _launch(self, running: _Running, *, started: bool) -> None:
        command = running.command
        running.task = asyncio.create_task(
            self._run(running, started), name=f"command {command.verb.name} {command.id}")

    async def _run(self, running: _Running, started: bool) -> None:
        command, begun = running.command, self._clock.monotonic()
        running.executing = True
        answer = await self._execute(command, started)
        running.executing = False
        await self._settled()
        try:
            payload = encode(answer)
        except ValueError:
            log.exception("defect: %s answered with what is not JSON", command.verb.name)
            answer = refusal(command.id, RuntimeError("answer"), self._bulletin.rev)
            payload = encode(answer)
        stored = await self._finish(running, answer, payload)
        if stored:
            del self._running[command.id]
        running.final.set_result(answer)
        _audit(command.verb.name, command.id, command.origin, command.sender, answer, self._clock.monotonic() - begun)
        if running.first_told:
            for tell in tuple(self._tell):
                tell(command, answer)
        if not stored:
            await self._finish_late(running, answer, payload)

    async def _settled(self) -> None:
        """The events of a command are kept before its final answer is: killed in between, nobody is told ``done`` of
        what no event tells."""
        for settle in self._settle:
            try:
                async with asyncio.timeout(SETTLE_S):
                    await settle()
            except (TimeoutError, StoreError) as error:
                log.warning("events are kept later than the answer they belong to: %s", error)

    async def _finish(self, running: _Running, answer: Answer, payload: bytes) -> bool:
        """Whether the final answer is stored, and queued wherever ``accepted`` was told."""
        try:
            await self._store.finish(running.command.id, payload)
            while running.also:
                reply = next(iter(running.also))
                await self._queue(reply, answer)
                running.also.discard(reply)
        except StoreError as error:
            if running.command.id not in self._unstored:
                log.warning("the final answer of %s waits for the store: %s", running.command.id, error.message)
            return False
        return True

    async def _finish_late(self, running: _Running, answer: Answer, payload: bytes) -> None:
        """Its id again gets this answer all the while; a stop ends the waiting after one more try."""
        command_id = running.command.id
        self._unstored[command_id] = running
        if len(self._unstored) > UNSTORED:
            self._give_up(next((one for one in self._unstored.values() if not one.journalled), running))
        while command_id in self._unstored:
            last = await self._stopped_within(RETRY_S)
            if command_id not in self._unstored:
                return
            stored = await self._finish(running, answer, payload)
            if last and not stored:
                log.error("the final answer of %s (%s) is lost at the stop", running.command.verb.name, command_id)
            if last or stored:
                self._give_up(running)

    def _give_up(self, running: _Running) -> None:
        self._unstored.pop(running.command.id, None)
        self._running.pop(running.command.id, None)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _execute(self, command: Command, started: bool) -> Answer:
        """Never raises: whatever happens is an answer."""
        verb = command.verb
        try:
            if not started:
                await self._store.start(command.id)
            self._check_deadline(command)
            async with asyncio.timeout(max(EXECUTION_S, verb.max_ttl_s)):
                data = await self._handlers[verb.name](command)
            return Answer(command.id, Result.DONE, state_rev=self._bulletin.rev, data=data)
        except asyncio.CancelledError:
            return refusal(command.id, EdgecallError(
                "The appliance is shutting down.", code=503, sub_code="shutdown"), self._bulletin.rev)
        except (EdgecallError, HardwareError) as error:
            return refusal(command.id, error, self._bulletin.rev)
        except Exception as error:
            log.exception("defect: %s failed", verb.name, extra={"command_id": command.id})
            return refusal(command.id, error, self._bulletin.rev)


def _digest(args: Mapping[str, object]) -> str:
    text = json.dumps(args, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(command: Command, digest: str, state: JournalState, reply: str | None) -> Entry:
    return Entry(
        command.id, command.verb.name, digest, json.dumps(dict(command.args), default=dict), command.origin.value,
        command.sender, command.scope.value, command.ts, command.ttl_s, state, None, reply)


def _from_journal(entry: Entry) -> Command | None:
    """None for a verb this version does not know (any more)."""
    verb = VERB.get(entry.verb)
    if verb is None:
        return None
    return Command(entry.id, verb, json.loads(entry.args), Origin(entry.origin), entry.sender, Scope(entry.scope),
                   entry.ts, entry.ttl_s)


def _late(why: str) -> Refused:
    return Refused(f"The command came too late: {why}", code=408, sub_code="ttlExpired")


def _interrupted() -> EdgecallError:
    return EdgecallError("The appliance restarted while the command ran; look at the state before sending another.",
                         code=500, sub_code="interrupted")


def _audit(verb: str, command_id: str, origin: str, sender: str, answer: Answer, seconds: float) -> None:
    log.info(
        "%s from %s %s: %s %s/%s", verb, origin, sender, answer.result.value, answer.code, answer.sub_code,
        extra={"operation": "clientOperation", "verb": verb, "command_id": command_id, "origin": str(origin),
               "sender": sender, "result": answer.result.value, "code": answer.code, "sub_code": answer.sub_code,
               "duration_ms": round(seconds * 1000, 3)})
