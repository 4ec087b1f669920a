"""An update in progress, as it is kept over restarts, and what it waits for. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Final

from appliance.clock import rfc3339
from appliance.settings import Window
from appliance.vocabulary import Json

__all__ = ["IDLE_S", "Facts", "Job", "Kept", "Kind", "Outlook", "Wait", "When", "before_begin", "before_restart"]

IDLE_S: Final = 60.0
"""So long after the last call nobody is taken for about to call again."""


class Kind(StrEnum):
    INSTALL = "install"
    BACK = "back"  # into the other system, as it is


class When(StrEnum):
    """When it is restarted into what is installed."""

    WINDOW = "window"  # by the settings
    NOW = "now"  # as soon as nobody calls
    HELD = "held"  # when that is asked for


class Wait(StrEnum):
    """What is waited for."""

    DATE = "date"  # notBefore
    CLOCK = "clock"  # to be set by a time server: what has a date or a time of day needs one to be believed
    CALL = "call"  # its end
    IDLE = "idle"  # IDLE_S without a call
    WINDOW = "window"
    COMMIT = "commit"  # update.commit
    SERVICE = "service"  # the root service is busy, or does not answer


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for, and how far it is. Times in seconds since the epoch.

    Kept as JSON that the version before and the one after read too: fields are only ever added, with a default.
    """

    id: str
    kind: Kind = Kind.INSTALL
    url: str = ""
    version: str = ""  # asked for, later the one that was found
    not_before: float | None = None
    force: float | None = None
    when: When = When.WINDOW
    tries: int = 0  # how often the service was asked to install it, or to go back
    handed: bool = False  # and has it, or has lost it in a power cut
    installed: bool = False  # and that was told
    cancelled: bool = False
    boot: str = ""  # the run of ours that asked for going back
    slot: str = ""  # which ran then

    @property
    def adopted(self) -> bool:
        """Somebody else had it installed."""
        return self.kind is Kind.INSTALL and not self.url

    def payload(self) -> Json:
        """As the state shows it. An address may hold a secret behind its '?', which stays here."""
        return {"id": self.id, "kind": self.kind.value, "url": self.url.partition("?")[0] or None,
                "version": self.version or None, "restart": self.when.value, "attempt": self.tries,
                "notBefore": None if self.not_before is None else rfc3339(self.not_before),
                "force": None if self.force is None else rfc3339(self.force)}


@dataclass(frozen=True, slots=True)
class Kept:
    """What a restart must not forget. ``last``: what became of the last job; ``told``: which result of the service was
    told of last."""

    job: Job | None = None
    last: Json | None = None
    told: str = ""

    def dump(self) -> str:
        return json.dumps({"job": None if self.job is None else asdict(self.job), "last": self.last, "told": self.told})

    @classmethod
    def load(cls, text: str) -> Kept:
        """Raises ValueError for what is none. Members that are not known are left out."""
        try:
            read = json.loads(text)
            job, last = read["job"], read["last"]
            if last is not None and not all(isinstance(last[name], str) for name in ("job", "result", "message")):
                raise ValueError("what 'last' says is no text")
            return cls(None if job is None else _job(job), last, str(read["told"]))
        except (TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not as it is written: {error!r}") from error


def _job(read: Json) -> Job:
    known = {one.name: read[one.name] for one in fields(Job) if one.name in read}
    known["kind"] = Kind(known.get("kind", Kind.INSTALL))
    known["when"] = When(known.get("when", When.WINDOW))
    for name in ("not_before", "force"):
        if known.get(name) is not None:
            rfc3339(known[name])  # raises for what is no time
    job = Job(**known)
    for one in fields(Job):
        right = (str if one.default is MISSING else type(one.default)) if one.default is not None else None
        if right is not None and not isinstance(getattr(job, one.name), right):
            raise ValueError(f"{one.name} is {getattr(job, one.name)!r}")
    return job


@dataclass(frozen=True, slots=True)
class Facts:
    """How things are. ``idle_s``: since the last call, 0 in one; ``local``: the time of day here."""

    wall: float
    synchronised: bool
    local: datetime
    calling: bool
    emergency: bool
    idle_s: float
    windows: Sequence[Window]


@dataclass(frozen=True, slots=True)
class Outlook:
    """``waits`` is empty where it is time; ``forced``: a rule is passed over."""

    waits: tuple[Wait, ...]
    forced: bool = False


def before_begin(job: Job, facts: Facts) -> Outlook:
    """Before an installation begins, which disturbs nobody."""
    if job.not_before is None:
        return Outlook(())
    if not facts.synchronised:
        return Outlook((Wait.CLOCK,))
    return Outlook(() if facts.wall >= job.not_before else (Wait.DATE,))


def before_restart(job: Job, facts: Facts) -> Outlook:
    """Before the restart, which ends whatever goes on."""
    waits: list[Wait] = []
    if facts.calling:
        waits.append(Wait.CALL)
    elif facts.idle_s < IDLE_S:
        waits.append(Wait.IDLE)
    if job.when is When.HELD:
        waits.append(Wait.COMMIT)
    elif job.when is When.WINDOW and facts.windows:
        minute = facts.local.hour * 60 + facts.local.minute
        if not facts.synchronised:
            waits.append(Wait.CLOCK)
        elif not any(one.covers(facts.local.weekday(), minute) for one in facts.windows):
            waits.append(Wait.WINDOW)
    force = job.force is not None and facts.synchronised and facts.wall >= job.force
    if waits and force and not facts.emergency:
        return Outlook((), forced=True)
    return Outlook(tuple(waits))
