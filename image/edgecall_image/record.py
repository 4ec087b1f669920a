"""An update on data, so that whichever slot comes up can report it: the job, and how the last one ended.

Each is one small JSON file, replaced as a whole. A file that cannot be read counts as none, and the journal says so: an
update that is not remembered is asked for again, and no word of it was a promise.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from edgecall_image.durable import remove_file, replace_file
from edgecall_image.layout import MARKS, Slot

__all__ = ["Job", "Record", "Result", "Stage", "State", "utc"]

log = logging.getLogger(__name__)

Stage = Literal["installing", "pending", "rebooting"]
State = Literal["succeeded", "failed", "rolledBack", "interrupted"]

JOB: Final = "job.json"
RESULT: Final = "result.json"
MAX_BYTES: Final = 65_536

T = TypeVar("T", "Job", "Result")


def utc() -> str:
    """RFC 3339, in milliseconds: a time tells one result of a job from the next, and two may be of one second."""
    at = datetime.fromtimestamp(time.time(), UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Job:
    """One update, or way back, from the accepted request to its result. ``slot``: where the new system goes. ``stage``:
    ``installing`` until that slot is to be tried. ``before``: what the daemon told of itself before the reboot
    (``daemon.Condition``), which the health gate wants to see again."""

    id: str
    slot: Slot
    stage: Stage
    url: str = ""
    version: str | None = None
    before: dict[str, Any] = field(default_factory=dict)
    at: str = field(default_factory=utc)


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended; it stands until the next one ends. ``code`` and ``message`` are empty for one that succeeded."""

    id: str
    state: State
    version: str | None
    code: str = ""
    message: str = ""
    at: str = field(default_factory=utc)


class Record:
    """Job and last result in ``folder``. Blocking, some milliseconds each; writing raises OSError."""

    def __init__(self, folder: Path = MARKS) -> None:
        self.folder = folder

    def job(self) -> Job | None:
        return _read(self.folder / JOB, Job)

    def result(self) -> Result | None:
        return _read(self.folder / RESULT, Result)

    def set_job(self, job: Job) -> None:
        _write(self.folder / JOB, asdict(job))

    def forget_job(self) -> None:
        """One that was refused, and never was."""
        remove_file(self.folder / JOB)

    def end(self, result: Result) -> None:
        """The result first, then the job goes: a power cut in between leaves both, and the same id says it ended."""
        _write(self.folder / RESULT, asdict(result))
        self.forget_job()

    def open_job(self) -> Job | None:
        """The job that has no result yet."""
        job, result = self.job(), self.result()
        return None if job is None or (result is not None and result.id == job.id) else job

    def forget_result(self) -> None:
        """Before a job begins that may have the id of one which failed."""
        remove_file(self.folder / RESULT)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read: %s", path, error.strerror)
        return None
    try:
        document = json.loads(content) if len(content) <= MAX_BYTES else None
        return _made(kind, document)
    except (ValueError, RecursionError) as error:
        log.warning("%s is damaged and counts as none: %s", path, error)
        return None


def _made(kind: type[T], document: object) -> T:
    """Fields of a later version are passed over. Raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - it is the file that is wrong
    known = {one.name for one in fields(kind)}
    given = {name: value for name, value in document.items() if name in known}
    allowed: dict[str, tuple[object, ...]] = {
        "slot": get_args(Slot), "stage": get_args(Stage), "state": get_args(State)}
    for name, value in given.items():
        if name in allowed:
            right = value in allowed[name]
        elif name == "before":
            right = isinstance(value, dict)
        else:
            right = isinstance(value, str) or (value is None and name == "version")
        if not right:
            raise ValueError(f"{name} is {value!r}")
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _write(path: Path, document: dict[str, Any]) -> None:
    replace_file(path, json.dumps(document, ensure_ascii=False).encode())
