"""One bundle into the other slot: RAUC writes it, our relay fetches it, and a bad line is met with patience."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pwd
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from edgecall_image.origins import Origins
from edgecall_image.rauc import LINE_LIMIT, Rauc, RaucError

__all__ = ["RELAY", "Installation"]

log = logging.getLogger(__name__)

RELAY: Final = (sys.executable, "-I", "/usr/lib/edgecall-image/run", "relay")
NOBODY: Final = "nobody"
"""Whom the relay runs as; RAUC's own streaming process too."""
START_S: Final = 30.0
"""For an interpreter on a slow card."""
STALL_S: Final = 1800.0
"""Without a step and without a byte: RAUC hashes two slots before the first byte, minutes on the slowest board."""
PAUSES_S: Final = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0)
"""Before RAUC is asked anew; the last one from then on. What was written already need not be fetched again."""
GIVE_UP_S: Final = 86_400.0
CODES: Final = ("network", "noRange", "notAllowed", "cancelled", "failed")
"""Of a failure of the relay."""

_ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:\d{1,5}/[\w/.-]{1,100}", re.ASCII)

Told = Callable[[int | None, str], None]


@dataclass(frozen=True, slots=True)
class _Failure:
    code: str
    message: str
    again: bool = False


class _Relay:
    """The process of ``relay``, from its address to its end."""

    def __init__(self, process: asyncio.subprocess.Process, moved: Callable[[], None]) -> None:
        self._process = process
        self._moved = moved
        self._reader: asyncio.Task[None] | None = None
        self.url = ""
        self.failure: _Failure | None = None

    @classmethod
    async def start(cls, command: Sequence[str], user: str, task: Mapping[str, Any], moved: Callable[[], None]) -> Self:
        """Raises RaucError."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_LIMIT, **_as(user))
        except (OSError, LookupError) as error:
            raise RaucError("failed", f"what fetches the bundle cannot be started: {error}") from error
        relay = cls(process, moved)
        try:
            await relay.tell(task)
            async with asyncio.timeout(START_S):
                while not relay.url and await relay._line():
                    pass
        except TimeoutError:
            await relay.close()
            raise RaucError("failed", f"what fetches the bundle did not start within {START_S:g} s") from None
        except BaseException:
            await relay.close()
            raise
        if not relay.url:
            await relay.close()
            failure = relay.failure or _Failure("failed", "what fetches the bundle ended at once")
            raise RaucError(failure.code, failure.message, again=failure.again)
        relay._reader = asyncio.create_task(relay._follow(), name="relay.follow")
        return relay

    async def tell(self, document: Mapping[str, Any]) -> None:
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(ConnectionError):  # its end is told by its output
                stdin.write(json.dumps(document).encode() + b"\n")
                await stdin.drain()

    async def close(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        if self._reader is not None:
            await self._reader
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _follow(self) -> None:
        while await self._line():
            pass

    async def _line(self) -> bool:
        stdout = self._process.stdout
        try:
            line = b"" if stdout is None else await stdout.readline()
            document = json.loads(line) if line else {}
        except ValueError:  # longer than any of ours, or no JSON: a message of the interpreter's end
            return True
        if not line:
            return False
        if isinstance(document, dict):
            self._hear(document)
        return True

    def _hear(self, document: dict[str, Any]) -> None:
        """What a process says that reads what strangers send: no word of it is more than a word."""
        self._moved()
        if _ADDRESS.fullmatch(str(document.get("url"))):
            self.url = document["url"]
        elif document.get("failed") in CODES:
            self.failure = _Failure(document["failed"], str(document.get("message", ""))[:1000],
                                    document.get("again") is True)
            log.warning("the bundle cannot be fetched: %s", self.failure.message)


class Installation:
    """``run`` once. ``told`` each step, in per cent and in words. ``user``: of the relay; empty: our own."""

    def __init__(self, rauc: Rauc, url: str, origins: Origins, *, rate: int | None, told: Told,
                 relay: Sequence[str] = RELAY, user: str = NOBODY) -> None:
        self._rauc = rauc
        self._command = relay
        self._user = user
        self._url = url
        self._origins = origins
        self._rate = rate
        self._told = told
        self._relay: _Relay | None = None
        self._progress: int | None = None
        self._moved_at = 0.0
        self._given_up = asyncio.Event()

    async def run(self) -> None:
        """Raises RaucError: it cannot be installed, or the network was bad for GIVE_UP_S."""
        loop = asyncio.get_running_loop()
        give_up, tries = loop.time() + GIVE_UP_S, 0
        while True:
            try:
                await self._once()
                return
            except RaucError as error:
                pause = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
                if self._given_up.is_set() or not error.again or loop.time() + pause > give_up:
                    raise
                tries += 1
                log.info("the installation goes on in %g s: %s", pause, error.message)
                self._tell(self._progress, f"waits {pause:g} s to go on: {error.message}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._given_up.wait(), pause)
                    raise

    async def set_rate(self, rate: int | None) -> None:
        """Bytes per second, from now on; None: as fast as it goes."""
        self._rate = rate
        if self._relay is not None:
            await self._relay.tell({"rate": rate})

    @property
    def given_up(self) -> bool:
        """What comes of it all the same is not wanted."""
        return self._given_up.is_set()

    async def give_up(self) -> None:
        """The bundle is taken away from RAUC, which then ends by itself, and with it ``run``."""
        self._given_up.set()
        if self._relay is not None:
            await self._relay.tell({"stop": True})

    async def _once(self) -> None:
        self._moved()
        ca_file, ca = self._origins.ca_file, None
        try:
            if ca_file:
                ca = await asyncio.to_thread(Path(ca_file).read_text, "ascii")
        except (OSError, ValueError) as error:
            raise RaucError("failed", f"update.ca_file cannot be read: {error}") from error
        task = {"url": self._url, "origins": self._origins.below, "ca": ca, "rate": self._rate}
        self._relay = relay = await _Relay.start(self._command, self._user, task, self._moved)
        try:
            if self._given_up.is_set():
                raise RaucError("cancelled", "the update was given up")  # noqa: TRY301 - the relay is closed below
            await self._watched(relay.url)
        except RaucError as error:
            if relay.failure is not None and error.code in {"network", "noRange", "failed"}:
                raise RaucError(relay.failure.code, relay.failure.message, again=relay.failure.again) from error
            raise
        finally:
            self._relay = None
            await relay.close()

    async def _watched(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        install = asyncio.create_task(self._rauc.install(url, self._tell), name="rauc.install")
        try:
            while not install.done():
                left = self._moved_at + STALL_S - loop.time()
                if left <= 0:
                    raise RaucError("failed", f"nothing has moved for {STALL_S / 60:g} minutes")
                await asyncio.wait({install}, timeout=left)
            await install
        finally:
            install.cancel()
            await asyncio.wait({install})

    def _tell(self, progress: int | None, step: str) -> None:
        self._moved()
        self._progress = progress
        self._told(progress, step)

    def _moved(self) -> None:
        self._moved_at = asyncio.get_running_loop().time()


def _as(name: str) -> dict[str, Any]:
    """Arguments of a process that gives away what root has. Raises LookupError where there is no such user."""
    if not name:
        return {}
    user = pwd.getpwnam(name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
