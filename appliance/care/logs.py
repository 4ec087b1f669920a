"""Logging: to the journal with fields when systemd keeps our output, else as plain lines; never a secret, never a wait.

Any room logs with the standard library and may add fields: ``logger.info("call ended", extra={"event": "call.ended",
"call_id": call_id})`` becomes ``EVENT=``, ``CALL_ID=`` and a ``MESSAGE_ID=`` that is the same for that event always.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import queue
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TextIO

from appliance.settings import Secret

__all__ = ["Logs", "in_journal", "message_id", "secrets_in"]

QUEUE_LIMIT: Final = 2000
"""Records that wait for a journal or terminal that does not take them; then the oldest is dropped and counted."""

CLOSE_S: Final = 2.0
"""How long ``close`` waits for what is queued: it is part of the graceful stop, below TimeoutStopSec."""

SHORTEST_SECRET: Final = 6
"""Shorter secrets are not searched for in text: they would blank out ordinary words."""

_EVENTS: Final = uuid.UUID("5b0f7d0a-3c1e-4a53-9d57-2f0c6f8a9e11")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FIELD: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog(3)


def message_id(event: str) -> str:
    """The journal's MESSAGE_ID of an event type: 128 bits in hexadecimal, the same in every version."""
    return uuid.uuid5(_EVENTS, event).hex


def secrets_in(settings: Any) -> set[str]:
    """Every secret text in a tree of settings dataclasses, for ``Logs.hide``."""
    if isinstance(settings, Secret):
        return {settings.reveal()}
    if isinstance(settings, tuple):
        return set[str]().union(*map(secrets_in, settings))
    if dataclasses.is_dataclass(settings):
        return set[str]().union(*(secrets_in(getattr(settings, field.name)) for field in dataclasses.fields(settings)))
    return set()


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """What the caller passed as ``extra``, as journal fields. None values are left out."""
    fields = {}
    for name, value in vars(record).items():
        if name not in _STANDARD and value is not None and _FIELD.fullmatch(name.upper()):
            fields[name.upper()] = str(value)
    if "EVENT" in fields:
        fields.setdefault("MESSAGE_ID", message_id(fields["EVENT"]))
    return fields


def in_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Does ``stream`` go straight to the journal? JOURNAL_STREAM is its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _journal_send() -> Callable[..., None] | None:
    try:
        from systemd.journal import send
    except ImportError:
        return None
    return send  # type: ignore[no-any-return]


class Logs(logging.Handler):
    """The one handler of the root logger. Records are written by a thread of its own.

    A journal that stands still, a full disk or a stopped terminal blocks that thread and nothing else: neither the loop
    nor the audio exchange waits for a line of text.
    """

    def __init__(
        self, level: str = "info", *, secrets: Iterable[str] = (), stream: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.dropped = 0  # did not fit
        self.unwritten = 0  # nobody took it
        self._stream = sys.stderr if stream is None else stream
        environ = os.environ if environ is None else environ
        journal = in_journal(environ, self._stream)
        self._send = _journal_send() if journal else None
        self._prefixed = journal and self._send is None  # sd-daemon(3): the journal reads "<4>" as the priority
        self._plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._bare = logging.Formatter("%(message)s")
        self._secrets: tuple[str, ...] = ()
        self.hide(secrets)
        self.set_level(level)
        # SimpleQueue: put never blocks and may interrupt itself (a record logged by a signal handler or a finaliser)
        self._queue: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="care.logs", daemon=True)

    def set_level(self, level: str) -> None:
        """``debug``, ``info``, ``warning`` or ``error``; below INFO only our own rooms speak, not the libraries."""
        number = logging.getLevelNamesMapping()[level.upper()]
        logging.getLogger().setLevel(max(number, logging.INFO))
        for room in ("appliance", "hw"):
            logging.getLogger(room).setLevel(number)

    def hide(self, secrets: Iterable[str], no_longer: Iterable[str] = ()) -> None:
        """More texts that are replaced by ``***`` in everything written from now on, and some that nobody may use any
        more and need not be. Longer first: one may hold another."""
        known = {*self._secrets, *(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)} - {*no_longer}
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def install(self) -> Logs:
        """Take over the root logger, alone, and start writing."""
        root = logging.getLogger()
        for other in tuple(root.handlers):
            root.removeHandler(other)
        root.addHandler(self)
        logging.captureWarnings(capture=True)
        self._thread.start()
        if self._prefixed:
            logging.getLogger(__name__).warning(
                "systemd-python is not installed: the journal gets lines without fields; install edgecall[systemd]"
            )
        return self

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record; on any thread, never waits. The text is made here: arguments may change afterwards."""
        try:
            record.msg, record.args = record.getMessage(), None
        except (TypeError, ValueError):
            self.handleError(record)
            return
        if self._queue.qsize() >= QUEUE_LIMIT:
            with contextlib.suppress(queue.Empty):  # the writer took it just now: then there is room
                self._queue.get_nowait()
                self.dropped += 1
        self._queue.put(record)

    def close(self) -> None:
        """Write what is queued, for at most 2 s, and leave the root logger. May be called twice."""
        logging.getLogger().removeHandler(self)
        logging.captureWarnings(capture=False)
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(CLOSE_S)
        super().close()

    def _write_all(self) -> None:
        told = 0
        while (record := self._queue.get()) is not None:
            try:
                self._write(record)
                if self.dropped > told:
                    told = self.dropped
                    self._write(logging.makeLogRecord({
                        "name": __name__, "levelno": logging.WARNING, "levelname": "WARNING",
                        "msg": f"{told} log records were dropped: whoever keeps them was not taking any",
                    }))
            except (OSError, ValueError):  # the journal is gone, the terminal hung up: there is nobody left to tell
                self.unwritten += 1

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _write(self, record: logging.LogRecord) -> None:
        if self._send is None:
            prefix = f"<{_priority(record.levelno)}>" if self._prefixed else ""
            formatter = self._bare if self._prefixed else self._plain
            text = self._redacted(formatter.format(record))
            self._stream.write("".join(f"{prefix}{line}\n" for line in text.splitlines()))
            self._stream.flush()
            return
        fields = {name: self._redacted(value) for name, value in _fields(record).items()}
        self._send(self._redacted(self._bare.format(record)), **({
            "PRIORITY": str(_priority(record.levelno)),
            "SYSLOG_IDENTIFIER": "edgecall",
            "LOGGER": record.name,
            "THREAD_NAME": str(record.threadName),
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
        } | fields))
