"""Relays whose lines a process of their own holds (``relay_guard``), so that they open when this one dies."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hw.api import DeviceFailedError, HardwareError
from hw.panel import Line
from hw.pi.gpiochip import Chip, refused

__all__ = ["GuardedRelays"]

_log = logging.getLogger("hw.relays")

ANSWER_S: Final = 0.15
"""A relay that did not move by then is told as failed: the caller may be the loop. The guard answers in 1 ms."""

START_S: Final = 5.0
CLOSE_S: Final = 0.4


class GuardedRelays:
    """Implements ``hw.panel.Relays``. ``start`` it on a chip, again when it has ended (``running``).

    ``failed`` hears of a relay whose line cannot be taken or driven, with the reason, on ``hw.relays``.
    """

    def __init__(self, lines: Mapping[str, Line], failed: Callable[[str, HardwareError], None]) -> None:
        self._lines = dict(lines)
        self._failed = failed
        self._changed = threading.Condition()
        self._states = dict.fromkeys(self._lines, False)
        self._errors: dict[str, HardwareError] = {}
        self._told: dict[str, int] = dict.fromkeys(self._lines, 0)  # answers about each, counted
        self._guard: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._closing = False

    # --- life of the guard

    @property
    def running(self) -> bool:
        with self._changed:
            return self._door is not None

    def start(self, chip: Chip) -> None:
        """Take the lines, open. Raises DeviceFailedError when the guard does not come up."""
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            words = [f"{name}:{line.pin}:{int(line.high)}" for name, line in self._lines.items()]
            script = str(Path(__file__).with_name("relay_guard.py"))
            with theirs:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", script, str(theirs.fileno()), chip.path, *words],
                    pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            ours.settimeout(START_S)
            self._errors.clear()
            while (word := ours.recv(256)) != b"ready":
                if not word:
                    raise DeviceFailedError("relays: their process ended as it began")
                self._hear(word.decode().split(), chip)
            ours.settimeout(None)
        except OSError as error:
            ours.close()
            self._end()
            raise DeviceFailedError(f"relays: their process does not start: {error}") from error
        except HardwareError:
            ours.close()
            self._end()
            raise
        with self._changed:
            self._door = ours
        self._reader = threading.Thread(target=self._listen, args=(ours, chip), name="hw.relays", daemon=True)
        self._reader.start()

    def _end(self) -> None:
        """Close our end of the socket: the guard opens all relays and ends. One that hangs is killed."""
        with self._changed:
            door, self._door = self._door, None
        if door is not None:
            with contextlib.suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(CLOSE_S)
            self._reader = None
        if door is not None:
            door.close()
        guard, self._guard = self._guard, None
        if guard is not None:
            try:
                guard.wait(CLOSE_S)
            except subprocess.TimeoutExpired:
                _log.error("the process that holds the relays hangs; it is killed")
                guard.kill()
                guard.wait()
        with self._changed:
            self._states = dict.fromkeys(self._lines, False)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the lines go, open; ``start`` takes them again."""
        self._end()

    def close(self) -> None:
        self._closing = True
        self._end()

    # --- hw.relays

    def _listen(self, door: socket.socket, chip: Chip) -> None:
        while True:
            try:
                word = door.recv(256)
            except OSError:
                word = b""
            if not word:
                break
            self._hear(word.decode().split(), chip)
        with self._changed:
            ended = self._door is door  # by itself, not by us
            if ended:
                self._door = None
            self._states = dict.fromkeys(self._lines, False)
            self._changed.notify_all()
        if ended:
            door.close()
            for name in self._lines:
                self._failed(name, DeviceFailedError(f"relay {name}: the process that holds it ended"))

    def _hear(self, words: Sequence[str], chip: Chip) -> None:
        error: HardwareError | None = None
        what, name, value = words
        with self._changed:
            if what == "state":
                self._states[name] = value == "1"
                self._errors.pop(name, None)
            else:
                error = refused(f"relay {name}, line {self._lines[name].pin} of {chip.label}", int(value))
                self._states[name] = False
                self._errors[name] = error
            self._told[name] += 1
            self._changed.notify_all()
        if error is not None:
            self._failed(name, error)

    # --- the contract

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._lines)

    def switch(self, relay: str, seconds: float) -> None:
        with self._changed:
            told = self._told[relay]
            if self._closing:
                return
            if self._door is None:
                raise DeviceFailedError(f"relay {relay}: nothing holds its line just now; it is being taken again")
            if relay in self._errors:
                raise self._errors[relay]
            try:
                self._door.send(f"{relay} {seconds!r}".encode(), socket.MSG_DONTWAIT)
            except OSError as error:
                raise DeviceFailedError(f"relay {relay}: the process that holds it does not listen") from error
            if not self._changed.wait_for(lambda: self._told[relay] != told, ANSWER_S):
                raise DeviceFailedError(f"relay {relay}: no answer within {ANSWER_S * 1000:.0f} ms whether it moved")
            if relay in self._errors:
                raise self._errors[relay]

    def closed(self, relay: str) -> bool:
        with self._changed:
            return self._states[relay]

    def due(self) -> float:
        return math.inf  # the guard keeps the time

    def tick(self, now: float) -> None:
        """Nothing: the guard opens them."""
