"""RAUC by its command line (rauc 1.15): install a bundle, mark a slot, tell what a slot holds.

The command line is a client of RAUC's own service over D-Bus, which does the work as root. Its progress comes as lines
on stdout (``" 40% Verifying signature done."``, ``"LastError: …"``); it cannot be cancelled, but it ends by itself when
the bundle's source goes away, which is ours (``relay``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edgecall_image.layout import Slot

__all__ = ["Rauc", "RaucError", "SlotReport", "cause_of", "ended"]

ANSWER_S: Final = 60.0
"""For marks and the status: RAUC's service is started by D-Bus, on a slow card."""
LINE_LIMIT: Final = 65_536

_PROGRESS: Final = re.compile(r"^ *(\d{1,3})% (.*)$")
_LAST_ERROR: Final = "LastError: "
_ROOTFS: Final = "rootfs"

_CAUSES: Final = {code: re.compile(words, re.IGNORECASE) for code, words in {
    "noSpace": "no space left",
    "tooOld": "version mismatch",
    "incompatible": "compatible mismatch|bundle format .* not allowed|bundle rejected",
    "signature": "signature|verify error|certificate|bundle identifier|no valid cms",
    "noRange": "range requests not supported",
    "network": "failed to configure streaming|not found: |unauthorized: |server not responding|http response"
               "|streaming subprocess|failed to read data from remote",
    "busy": "already processing",
}.items()}
"""Words of RAUC's errors, the surest first (src/install.c, bundle.c, nbd.c, service.c of 1.15)."""


class RaucError(Exception):
    """RAUC did not do it. ``code``: one of _CAUSES, else failed; ``again``: later it may."""

    def __init__(self, code: str, message: str, *, again: bool | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.again = code in {"network", "busy"} if again is None else again


@dataclass(frozen=True, slots=True)
class SlotReport:
    """What RAUC's status file tells of a root slot; ``version``: None where no bundle was ever installed whole."""

    version: str | None
    good: bool


def cause_of(message: str) -> str:
    return next((code for code, words in _CAUSES.items() if words.search(message)), "failed")


class Rauc:
    """``program``: name or path of the command."""

    def __init__(self, program: str = "rauc") -> None:
        self._program = program

    async def install(self, url: str, told: Callable[[int | None, str], None]) -> None:
        """Write the bundle into the other slot and have it tried at the next reboot. ``told`` each step, with per cent
        where RAUC gives one. Raises RaucError. When it is cancelled the command ends; RAUC's service goes on until the
        bundle cannot be read any more."""
        process = await self._start("install", url)
        said = _Said(told)
        try:
            async with asyncio.TaskGroup() as both:
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        both.create_task(said.follow(stream), name="rauc.said")
            status = await process.wait()
        finally:
            await ended(process)
        if status == 0:
            return
        if said.error:
            raise RaucError(cause_of(said.error), said.error)
        raise RaucError("failed", said.last or f"rauc ended with status {status} and said nothing")

    async def mark(self, state: str, slot: str = "booted") -> None:
        """``state``: good, bad or active; ``slot``: booted or other. Raises RaucError."""
        await self._ask("status", f"mark-{state}", slot)

    async def slots(self) -> dict[str, SlotReport]:
        """The root slots by boot name. Raises RaucError."""
        text = await self._ask("status", "--detailed", "--output-format=json")
        try:
            return _reports(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise RaucError("failed", f"rauc told its status in words we do not know: {error}") from None

    async def version_in(self, slot: Slot) -> str | None:
        """Of the bundle that was installed into ``slot``. Raises RaucError."""
        report = (await self.slots()).get(slot)
        return None if report is None else report.version

    async def _ask(self, *words: str) -> str:
        process = await self._start(*words)
        try:
            async with asyncio.timeout(ANSWER_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise RaucError("failed", f"rauc {words[1]} gave no answer within {ANSWER_S:g} s") from None
        finally:
            await ended(process)
        if process.returncode:
            message = err.decode("utf-8", "replace").strip() or out.decode("utf-8", "replace").strip()
            raise RaucError(cause_of(message), message[:1000] or f"rauc ended with status {process.returncode}")
        return out.decode("utf-8", "replace")

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                self._program, *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE, limit=LINE_LIMIT)
        except OSError as error:
            raise RaucError("failed", f"{self._program} cannot be started: {error.strerror}") from error


class _Said:
    """What the command has said so far."""

    def __init__(self, told: Callable[[int | None, str], None]) -> None:
        self._told = told
        self.error = ""
        self.last = ""

    async def follow(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = (await stream.readline()).decode("utf-8", "replace")
            except ValueError:  # longer than LINE_LIMIT: passed over
                continue
            if not line:
                return
            self._take(line.rstrip())

    def _take(self, line: str) -> None:
        if line.startswith(_LAST_ERROR):
            self.error = line.removeprefix(_LAST_ERROR)[:1000]
        elif match := _PROGRESS.match(line):
            self._told(min(int(match[1]), 100), match[2])
        elif "failed to contact rauc service: " in line.lower():
            self.error = line[:1000]
        elif line:
            self.last = line[:1000]


async def ended(process: asyncio.subprocess.Process) -> None:
    """Whatever happened: no child is left."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _reports(status: Any) -> dict[str, SlotReport]:
    found: dict[str, SlotReport] = {}
    if not isinstance(status, dict) or not isinstance(status.get("slots"), list):
        raise ValueError("no list of slots")  # noqa: TRY004 - what is wrong is text that came from outside
    for entry in status["slots"]:
        for slot in entry.values() if isinstance(entry, dict) else ():
            if not isinstance(slot, dict) or slot.get("class") != _ROOTFS or not isinstance(slot.get("bootname"), str):
                continue
            written = slot.get("slot_status")
            written = written if isinstance(written, dict) else {}
            bundle = written.get("bundle")
            version = bundle.get("version") if isinstance(bundle, dict) and written.get("status") == "ok" else None
            found[slot["bootname"]] = SlotReport(version if isinstance(version, str) else None,
                                                 slot.get("boot_status") == "good")
    return found
