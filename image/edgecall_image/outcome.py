"""What became of a job that a reboot, or a cut, has come between: told by what the slots say. Pure."""

from __future__ import annotations

from typing import NamedTuple

from edgecall_image.layout import Slot
from edgecall_image.marks import Verdict
from edgecall_image.record import Job, Result

__all__ = ["Facts", "what_became"]


class Facts(NamedTuple):
    """What the slots say."""

    booted: Slot
    trial: bool
    pending: Slot | None
    other_bad: bool
    other_version: str | None
    verdict: Verdict | None


def what_became(job: Job, facts: Facts, running: str) -> Result | None:
    """Of ``job``, seen by the system that runs after a start of this service; None: it is still under way.

    ``running``: the version of that system.
    """
    if job.stage == "installing" and facts.pending != job.slot:
        return Result(job.id, "interrupted", None, "interrupted",
                      "the device or its update service was restarted before the update was ready to be tried; the "
                      "system is as it was")
    if facts.booted == job.slot:
        return None if facts.trial else Result(job.id, "succeeded", running)
    if facts.pending == job.slot:
        return None
    verdict = facts.verdict if facts.verdict is not None and facts.verdict.slot == job.slot else None
    if verdict is not None and verdict.outcome == "neverStarted":
        return Result(job.id, "rolledBack", job.version, "neverStarted",
                      "the new system did not come up: either its kernel does not start, or the boot firmware of the "
                      "board is too old to try one")
    if verdict is not None or (facts.other_bad and job.stage == "rebooting"):
        return Result(job.id, "rolledBack", job.version, "trialFailed",
                      "the new system came up and was left before it was found well, by a crash, a power cut or a "
                      "restart; the one before it runs again")
    return Result(job.id, "failed", job.version, "withdrawn", "the update was withdrawn before it was tried")
