"""The door by telephone: keys that the other side presses in a call close a relay, as the rules of ``door.codes`` say.

Everything is here: no broker, server or clock is asked. What was pressed is told nowhere; what came of it is the event
``door.code``, and a refusal ``security.refused`` besides.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Final

from appliance.clock import RateLimit
from appliance.doors.codes import CodeLock, Verdict, Why
from appliance.faces.envelope import parse
from appliance.intake import Submit
from appliance.settings import CodeSettings, DoorSettings
from appliance.tasks import background
from appliance.vocabulary import VERB, Answer, Json, KeyMethod, KeyPress, Origin, Result, Scope

__all__ = ["DigitDoor"]

log = logging.getLogger(__name__)

REFUSALS_PER_S: Final = 1.0  # each is written to the outbox: who presses keys all day must not wear the flash
REFUSALS_BURST: Final = 10.0

_WORDS: Final = {
    Why.WRONG_PIN: (401, "The PIN was wrong; press it again, and # behind it."),
    Why.LOCKED: (429, "Wrong PINs were given too often; wait, and then press the right one."),
    Why.NOT_ENCRYPTED: (403, "The call is not encrypted, so anybody in between could have pressed the keys. Encrypt it "
                             "(TLS and SRTP), or set allow_plain for this rule of [[door.codes]]."),
    Why.NOT_VERIFIED: (403, "Nobody vouches for who is calling. Let the PBX assert it (P-Asserted-Identity over TLS), "
                            "or set trust_caller_id for the account where its network can be trusted."),
}


class DigitDoor:
    """Lives on the loop. ``told``: of each entry that came to something, the data of ``door.code``; ``refused``: why
    and who; ``tampered``: a rule is locked, for how many seconds, and which; ``keep``: what the next start is to
    ``recall``."""

    def __init__(
        self, submit: Submit, settings: DoorSettings, *, told: Callable[[Json], object],
        refused: Callable[[str, str], None], tampered: Callable[[float, str], None], keep: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._submit = submit
        self._lock = CodeLock(settings.codes)
        self._told = told
        self._refused = refused
        self._tampered = tampered
        self._keep = keep
        self._kept = ""
        self._unlocked: dict[str, asyncio.TimerHandle] = {}  # by rule: its lock is over
        self._monotonic = monotonic
        self._refusals = RateLimit(REFUSALS_PER_S, REFUSALS_BURST, monotonic)
        self._tasks: set[asyncio.Task[None]] = set()

    def recall(self, kept: str) -> None:
        """What was kept before a restart, which opens no lock: each begins anew."""
        try:
            locked = self._lock.recall(kept, self._monotonic())
        except ValueError:
            log.warning("what was kept of wrong PINs (door.codes) before the restart cannot be read, and is forgotten")
            return
        self._kept = kept
        for rule, seconds in locked:
            self._locked(rule, seconds)

    def press(self, key: KeyPress) -> bool:
        """Take a key; returns whether it may be told to others. Tones are anybody's, and move nothing."""
        match None if key.method is KeyMethod.TONES else self._lock.press(key, self._monotonic()):
            case Verdict(rule, None):
                task = background(self._close_relay(rule, key), name="doors.digits", failed=_failed)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Verdict(rule, Why() as why, locks_s):
                self._refuse(rule, why, key)
                if locks_s:
                    self._locked(rule, locks_s)
        self._keep_count()
        return not self._lock.may_be_secret(key)

    def _locked(self, rule: CodeSettings, seconds: float) -> None:
        self._tampered(seconds, rule.name)
        before = self._unlocked.pop(rule.name, None)
        if before is not None:
            before.cancel()
        self._unlocked[rule.name] = asyncio.get_running_loop().call_later(seconds + 0.1, self._keep_count)

    def _keep_count(self) -> None:
        kept = self._lock.kept(self._monotonic())
        if kept != self._kept:
            self._kept = kept
            self._keep(kept)

    async def stop(self) -> None:
        """May be called twice."""
        for timer in self._unlocked.values():
            timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _refuse(self, rule: CodeSettings, why: Why, key: KeyPress) -> None:
        log.warning("keys pressed in the call do not close the relay: %s", why.value,
                    extra={"call_id": key.call_id, "rule": rule.name})
        if not self._refusals.take():
            return
        code, words = _WORDS[why]
        self._tell(rule, key, Answer("", Result.REJECTED, code, why.value, message=words))
        self._refused(why.value, key.raw_id)

    async def _close_relay(self, rule: CodeSettings, key: KeyPress) -> None:
        verb = VERB["io.set"]
        command = parse(verb.name, {"id": f"digits-{uuid.uuid4()}", "ts": time.time(), "ttl_s": verb.max_ttl_s,
                                    "args": {"relay": rule.relay, "seconds": rule.seconds}},
                        origin=Origin.DIGITS, sender=rule.name, scope=Scope.OPERATOR)
        self._tell(rule, key, await self._submit.submit(command))

    def _tell(self, rule: CodeSettings, key: KeyPress, answer: Answer) -> None:
        self._told({"callId": key.call_id, "rule": rule.name, "relay": rule.relay, "rawId": key.raw_id,
                    "result": answer.result.value, "code": answer.code, "subCode": answer.sub_code,
                    "message": answer.message})


def _failed(error: Exception) -> None:
    log.error("a relay was not closed by keys; this is a defect", exc_info=error)
