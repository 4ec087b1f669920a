"""A board with a card in it: the firmware's stand-in, and under it the image on a machine of ``machines.py``.

It starts, restarts and takes trials as a real one does, until it powers itself off or the power is cut. Commands reach
it by a serial line, on which ``agent.py`` listens.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Self

from tests.image.firmware import Card, Choice, Firmware
from tests.image.machines import Machine, memory_folder

__all__ = ["Board", "Boot", "Gone", "Lines"]

TELL_S: Final = 120.0
"""Until a boot says hello; some seconds where the machine has nothing else to do."""
STARTS: Final = 12
"""More in one test than any that goes as it should: a board that restarts for ever is ended."""
GONE_S: Final = 20.0
PIECE_BYTES: Final = 1024
"""User Mode Linux may leave a serial line that was full once (4 KiB) so: a piece is sent when the last is taken."""


class Gone(AssertionError):
    """The system ended before it said what it was asked for."""


class Lines:
    """What a command in the guest prints, as it comes; ended when the ``with`` is."""

    def __init__(self, boot: Boot, number: int) -> None:
        self._boot, self._number = boot, number
        self._told: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.status: int | None = None
        """Once it has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            self._boot.ask(id=self._number, end=True)

    def take(self, words: dict[str, Any] | None) -> None:
        self._told.put(words)

    def until(self, seconds: float) -> Iterator[str]:
        """The lines, until the command ends; fails when that takes longer."""
        deadline = time.monotonic() + seconds
        while self.status is None:
            try:
                words = self._told.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no end within {seconds:g} s in {self._boot}") from None
            if words is None:
                raise Gone(f"{self._boot} ended\n{self._boot.tail()}")
            if "line" in words:
                yield words["line"]
            else:
                self.status = words["status"]


class Boot:
    """One start of the system, until it restarts, powers off, or loses power."""

    def __init__(self, choice: Choice, number: int, log: Path) -> None:
        self.choice, self.number = choice, number
        self.began = time.monotonic()
        self.lasted_s: float | None = None
        self.last_word = ""
        """``restart``, ``off``; once it is over, nothing is a crash, after which a board's watchdog starts it again."""
        self._log = log
        self._near, self.far = socket.socketpair()
        self._numbers = itertools.count(1)
        self._commands: dict[int, Lines] = {}
        self._hello = threading.Event()
        self._over = threading.Event()
        self._asking = threading.Lock()
        self._heard = threading.Condition()
        self._sent = self._taken = 0
        threading.Thread(target=self._listen, name=f"line {number}", daemon=True).start()

    def __str__(self) -> str:
        return f"boot {self.number} (partition {self.choice.partition}{', a trial' if self.choice.tried else ''})"

    @property
    def slot(self) -> str:
        """By the command line that its partition has: A or B."""
        return next((word[-1] for word in self.choice.cmdline.split() if word.startswith("rauc.slot=")), "")

    def tail(self, lines: int = 60) -> str:
        """The last of its console."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def wait_hello(self, seconds: float = TELL_S) -> Self:
        """Until commands are taken, which is early: not before systemd runs, and before most else does."""
        deadline = time.monotonic() + seconds
        while not self._hello.wait(0.2):
            if self._over.is_set():
                raise Gone(f"{self} ended before it took a command\n{self.tail()}")
            assert time.monotonic() < deadline, f"{self} takes no command after {seconds:g} s\n{self.tail()}"
        return self

    def wait_end(self, seconds: float) -> Self:
        assert self._over.wait(seconds), f"{self} goes on after {seconds:g} s\n{self.tail()}"
        return self

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def follow(self, command: str, given: str = "") -> Lines:
        """A command of bash, as root."""
        self.wait_hello()
        number = next(self._numbers)
        lines = self._commands[number] = Lines(self, number)
        self.ask(id=number, run=command, **{"in": given})
        if self.over:
            lines.take(None)
        return lines

    def run(self, command: str, seconds: float = 60.0, *, given: str = "", check: bool = True) -> str:
        """Its output. With ``check`` it fails the test when it ends with anything but 0."""
        with self.follow(command, given) as lines:
            text = "\n".join(lines.until(seconds))
            assert not check or lines.status == 0, f"{command!r} in {self}: exit status {lines.status}\n{text}"
        return text

    def ask(self, **words: Any) -> None:
        """Nobody hears it once the boot is over; whoever waits for an answer is told."""
        text = json.dumps(words).encode() + b"\n"
        with self._asking, contextlib.suppress(OSError):
            for at in range(0, len(text), PIECE_BYTES):
                piece = text[at : at + PIECE_BYTES]
                self._near.sendall(piece)
                self._sent += len(piece)
                with self._heard:
                    self._heard.wait_for(lambda: self._taken >= self._sent or self.over, TELL_S)

    def _listen(self) -> None:
        with self._near.makefile("rb") as told:
            for line in told:
                try:
                    words = json.loads(line)
                except ValueError:
                    continue  # half of one: the power was cut
                if "hello" in words:
                    self._hello.set()
                elif "taken" in words:
                    with self._heard:
                        self._taken = words["taken"]
                        self._heard.notify_all()
                elif lines := self._commands.get(words["id"]):
                    lines.take(words)
        self._near.close()

    def end(self) -> None:
        self.lasted_s = time.monotonic() - self.began
        self.far.close()
        self._over.set()
        with self._heard:
            self._heard.notify_all()
        for lines in list(self._commands.values()):
            lines.take(None)


class Board:
    """``with Board(card, …) as board:`` has it, switched off; ``switch_on`` and ``cut`` are its plug.

    ``machine``: what stands in for its processor.
    """

    def __init__(self, card: Path, folder: Path, machine: Machine) -> None:
        self.card, self.folder, self.machine = Card(card), folder, machine
        self.firmware = Firmware(self.card)
        self.boots: list[Boot] = []
        self.fault: BaseException | None = None
        """Why it stays dark: ``firmware.Unbootable``, or what went wrong here."""
        self._changed = threading.Condition()
        self._powered = threading.Event()
        self._life: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    # --- the plug ---------------------------------------------------------------------------------------------------

    def switch_on(self) -> Boot:
        """The boot that this begins."""
        assert self._life is None, "it is on"
        before = len(self.boots)
        self.fault = None
        self._powered.set()
        self._life = threading.Thread(target=self._live, name="board", daemon=True)
        self._life.start()
        return self._boot(lambda: self.boots[before:], GONE_S, "the first boot")

    def cut(self) -> None:
        """The power, now: nothing of the guest runs after this, and its card is free."""
        with self._starting:
            self._powered.clear()
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        if self._life is not None:
            self._life.join()
            self._life = None
        self.firmware.power_lost()

    def after(self, boot: Boot, seconds: float) -> Boot:
        """The boot that follows, taking commands; fails when the board powers off or there is none within the time."""
        deadline = time.monotonic() + seconds
        return self.begun_after(boot, seconds).wait_hello(deadline - time.monotonic())

    def begun_after(self, boot: Boot, seconds: float) -> Boot:
        """The same, as its kernel begins."""
        return self._boot(lambda: self.boots[boot.number:], seconds, f"a restart after {boot}")

    def wait_off(self, seconds: float) -> None:
        """Until it has powered itself off."""
        assert self._life is not None
        self._life.join(seconds)
        assert not self._life.is_alive(), f"it is on after {seconds:g} s\n{self.boots[-1].tail()}"
        self._life = None
        if self.fault is not None:
            raise self.fault

    def _boot(self, found: Callable[[], list[Boot]], seconds: float, what: str) -> Boot:
        with self._changed:
            self._changed.wait_for(lambda: found() or self.fault is not None or not self._powered.is_set(), seconds)
            if boots := found():
                return boots[0]
        if self.fault is not None:
            raise self.fault
        tail = self.boots[-1].tail() if self.boots else ""
        raise AssertionError(f"not within {seconds:g} s, or it is off: {what}\n{tail}")

    # --- its life ---------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            while self._powered.is_set():
                assert len(self.boots) < STARTS, f"started {STARTS} times, for ever it seems\n{self.boots[-1].tail()}"
                if self._start() == "off":
                    break
        except BaseException as error:  # raised again by whoever waits for a boot
            self.fault = error
        finally:
            self._powered.clear()
            with self._changed:
                self._changed.notify_all()

    def _start(self) -> str:
        """Runs the system once; its last word."""
        choice = self.firmware.choose()
        with tempfile.TemporaryDirectory(prefix="board-") as own:
            log = self.folder / f"console-{len(self.boots) + 1}.log"
            boot = Boot(choice, len(self.boots) + 1, log)
            alive = Path(own) / "alive"
            with self._starting:
                if not self._powered.is_set():
                    boot.end()
                    return ""
                with alive.open("w") as lock:
                    self._process = process = self._power(boot, Path(own), lock)
            with self._changed:
                self.boots.append(boot)
                self._changed.notify_all()
            assert process.stdout is not None
            with log.open("w", errors="replace") as written, process.stdout as console:
                for raw in console:
                    line = raw.decode(errors="replace").rstrip()
                    written.write(f"{time.monotonic() - boot.began:7.2f} {line}\n")
                    written.flush()
                    if self.firmware.heard(line):
                        boot.last_word = "restart"
                    elif "reboot: Power down" in line:
                        boot.last_word = "off"
            process.wait()
            self._process = None
            with alive.open() as lock:  # each process of the guest has it: once it is free, nothing writes to the card
                _wait_lock(lock, GONE_S)
        boot.end()
        with self._changed:
            self._changed.notify_all()
        return boot.last_word

    def _power(self, boot: Boot, own: Path, lock: IO[str]) -> subprocess.Popen[bytes]:
        line = boot.far.fileno()
        words = self.machine.command(self.card, boot.choice, line, own)
        # a guest is several processes that trace each other: their namespace ends them all with its first, a shell
        return subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
             f'flock {lock.fileno()}; "$@"; exit $?', "board", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            pass_fds=(line, lock.fileno()), env=os.environ | {"HOME": str(own), "TMPDIR": memory_folder()})


def _wait_lock(file: IO[str], seconds: float) -> None:
    taken = threading.Event()

    def take() -> None:
        fcntl.flock(file, fcntl.LOCK_SH)
        taken.set()

    threading.Thread(target=take, daemon=True).start()
    assert taken.wait(seconds), f"something of the guest is left after {seconds:g} s"
