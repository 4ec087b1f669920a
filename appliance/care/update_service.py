"""The root service of a flashed image, as it is spoken to: JSON lines over a Unix socket, one request a connection.

It alone installs, restarts into what is installed, and judges whether that is well; we ask. ``status`` is the whole of
what it knows, and comes with every answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from appliance.errors import Refused
from appliance.vocabulary import Json

__all__ = ["NoServiceError", "Outcome", "Phase", "RootService", "ServiceLostError", "ServiceRefusedError", "Status"]

CONNECT_S: Final = 5.0
ANSWER_S: Final = 120.0  # an installation that is cancelled is given a minute to end in order
MAX_LINE: Final = 64 * 1024  # bytes
STATES: Final = frozenset({"succeeded", "failed", "rolledBack", "interrupted"})

_CODES: Final[Mapping[str, int]] = {
    "badRequest": 400, "notAllowed": 403, "tooOld": 403, "signature": 403, "busy": 409, "nothingPending": 409,
    "incompatible": 409, "noRange": 502, "network": 503, "noSpace": 507,
}
"""Codes of an answer by those of the service; 500 for others."""


class NoServiceError(Refused):
    """There is none: this system was not flashed from an image."""

    code = 501
    sub_code = "FeatureNotSupported"
    retryable = False

    def __init__(self) -> None:
        super().__init__("This system was not flashed from an image of Edgecall: update it by the way that it was "
                         "installed, with pip or apt.")


class ServiceLostError(Refused):
    """It does not answer, or not in the words that we know. Whether it did what was asked for is unknown."""

    code = 503
    sub_code = "updateService"

    def __init__(self, why: str) -> None:
        super().__init__(f"The update service does not answer ({why}). See journalctl -u edgecall-update, and try "
                         "again.")


class ServiceRefusedError(Refused):
    """It answered with an error. ``sub_code`` is its own code for that."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=_CODES.get(code, 500), sub_code=code)


class Phase(StrEnum):
    IDLE = "idle"
    INSTALLING = "installing"  # into the slot that does not run
    PENDING = "pending"  # installed, not started yet
    REBOOTING = "rebooting"
    TRIAL = "trial"  # the installed one runs, and is not known to be well


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job. ``state``: succeeded, failed, rolledBack, or interrupted (by a power cut)."""

    id: str
    state: str
    code: str
    message: str
    at: str

    @property
    def key(self) -> str:
        """Tells it from another one of the same job."""
        return f"{self.id} {self.at}"


@dataclass(frozen=True, slots=True)
class Status:
    """What the service knows. ``slot``: the one that runs; ``other``: version and state of the one that does not."""

    version: str
    slot: str
    trial: bool
    phase: Phase
    progress: int | None
    step: str
    job: str | None
    other: Json
    result: Outcome | None

    @classmethod
    def of(cls, told: Any) -> Status:
        """Raises ValueError, TypeError, LookupError, AttributeError or OverflowError for what is no status."""
        progress, other, result = told.get("progress"), told.get("other") or {}, told.get("result")
        return cls(
            version=str(told["version"]), slot=str(told["slot"]), trial=bool(told["trial"]), phase=Phase(told["phase"]),
            progress=None if progress is None else min(100, max(0, int(progress))), step=str(told.get("step") or ""),
            job=_text(told.get("job")),
            other={"version": _text(other.get("version")), "state": str(other.get("state", "unknown"))},
            result=None if result is None else _outcome(result))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _outcome(told: Any) -> Outcome:
    state = str(told["state"])
    return Outcome(str(told["id"]), state if state in STATES else "failed", str(told.get("code") or ""),
                   str(told.get("message") or ""), str(told.get("at") or ""))


class RootService:
    """``path`` of the socket. Every method raises NoServiceError where there is none, ServiceLostError, and
    ServiceRefusedError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(self, verb: str, **args: Any) -> Status:
        """Ask for something and return how things are then."""
        async with self._asked({"verb": verb, **args}) as reader:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await _told(reader)
            except TimeoutError:
                raise ServiceLostError(f"no answer to {verb} within {ANSWER_S:g} s") from None

    async def watch(self) -> AsyncGenerator[Status, None]:
        """How things are now, and at each change."""
        async with self._asked({"verb": "watch"}) as reader:
            while True:
                yield await _told(reader)

    @contextlib.asynccontextmanager
    async def _asked(self, request: Json) -> AsyncIterator[asyncio.StreamReader]:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
        except (FileNotFoundError, NotADirectoryError):
            raise NoServiceError from None
        except TimeoutError:
            raise ServiceLostError("the connection was not taken") from None
        except OSError as error:
            raise ServiceLostError(error.strerror or str(error)) from error
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            yield reader
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    await writer.wait_closed()


async def _told(reader: asyncio.StreamReader) -> Status:
    try:
        line = await reader.readuntil(b"\n")
        answer = json.loads(line)
        if answer["ok"]:
            return Status.of(answer["status"])
        code, message = str(answer["error"]["code"]), str(answer["error"]["message"])
    except asyncio.IncompleteReadError:
        raise ServiceLostError("it closed the connection") from None
    except OSError as error:
        raise ServiceLostError(error.strerror or str(error)) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError,
            asyncio.LimitOverrunError) as error:
        raise ServiceLostError(f"its answer is not understood: {error!r}") from error
    raise ServiceRefusedError(code, message)
