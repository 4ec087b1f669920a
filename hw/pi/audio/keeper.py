"""Opens the best sound devices there are, and others when they go (thread ``hw.cards``).

``hw.audio`` takes what is laid ready for it, and lays back what it is done with: it never opens or closes anything.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hw.api import (
    DeviceDeniedError,
    DeviceFact,
    DeviceMissingError,
    DevicePulledError,
    FaultKind,
    HardwareError,
    Kind,
)
from hw.blame import fault_of
from hw.faults import FaultLine
from hw.pi.audio.cards import Endpoint, endpoints, rank
from hw.pi.audio.mixer import Mixer
from hw.pi.audio.streams import Capture, Playback, open_capture, open_playback
from hw.pi.audio.uevents import Uevents
from hw.pi.settling import AGAIN_S, is_settling

__all__ = ["Keeper"]

_log = logging.getLogger("hw.audio")

RETRY_S: Final = 1.0
"""A device that refuses is tried so often: nobody tells when its holder lets it go."""

SHUN_S: Final = 30.0
"""One that stood still is left alone so long while another works."""

SELECT_S: Final = 2.0
START_S: Final = 5.0
STOP_S: Final = 1.0

_CURED: Final = (FaultKind.BUSY, FaultKind.DENIED, FaultKind.FORMAT, FaultKind.FAILED, FaultKind.MISSING,
                 FaultKind.PULLED)
"""What is over once a device was opened."""


@dataclass(slots=True)
class _Line:
    """One direction: what is wanted, what is open, what was wrong with which."""

    kind: Kind
    wanted: Sequence[str]
    selected: str = ""  # by command, before all that is wanted
    heeded: str = ""  # what was selected when it was looked at last
    found: list[Endpoint] = field(default_factory=list)  # all that are plugged in
    ranked: list[Endpoint] = field(default_factory=list)  # of those, what may be used
    used: dict[str, Endpoint] = field(default_factory=dict)  # ever opened, by id
    current: Endpoint | None = None
    retry_at: dict[str, float] = field(default_factory=dict)
    settling: set[str] = field(default_factory=set)  # refused, and so new that it says nothing
    notes: dict[str, str] = field(default_factory=dict)
    error: HardwareError | None = None
    mixer: Mixer | None = None


class Keeper:
    """Lives as long as the board; opens devices between ``begin`` and ``end`` alone, and tells of them always."""

    def __init__(self, microphones: Sequence[str], speakers: Sequence[str], volume: int, faults: FaultLine, *,
                 find: Callable[[], list[Endpoint]] = endpoints) -> None:
        self._faults = faults
        self._find = find
        self._lines = {kind: _Line(kind, wanted) for kind, wanted in (
            (Kind.MICROPHONE, microphones), (Kind.SPEAKER, speakers))}
        self._uevents = Uevents("sound")
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rate = 0  # 0: nothing is to be open
        self._block_s = 0.0
        self._answers = threading.Condition()
        self._asked = self._answered = 0
        self._facts: tuple[DeviceFact, ...] = ()
        self._troubles: deque[tuple[Capture | Playback, HardwareError, FaultKind]] = deque(maxlen=64)
        self._delivering: deque[Endpoint] = deque(maxlen=64)
        self._retired: deque[Capture | Playback] = deque()
        self.ready: dict[Kind, Capture | Playback] = {}
        """Opened and not yet taken by ``hw.audio``."""
        self.volume = volume
        self.gain = 1.0
        """What ``hw.audio`` scales by: 1 where the mixer does it."""
        self._set_volume = True
        self.line_muted = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hw.cards", daemon=True)
        self._thread.start()

    # --- any thread

    def begin(self, rate: int, block_s: float) -> None:
        """Open what is there, or has come just now. Raises HardwareError when that is nothing; ``ready`` holds the
        rest."""
        if not self._ask(START_S, rate, block_s):
            _log.warning("sound: a device takes more than %g s to open", START_S)
            return
        if all(line.current is None and not line.settling for line in self._lines.values()):
            errors = [line.error for line in self._lines.values()
                      if line.ranked and line.error is not None and not isinstance(line.error, DeviceMissingError)]
            self.end([])
            raise errors[0] if errors else DeviceMissingError(
                "there is neither microphone nor loudspeaker that the board file names: plug one in")

    def end(self, streams: Sequence[Capture | Playback]) -> None:
        """Nothing is to be open any more; ``streams`` are those that ``hw.audio`` held."""
        self._retired.extend(streams)
        if not self._ask(STOP_S, 0):
            _log.error("sound: a device does not close: its driver hangs")

    def select(self, kind: Kind, device: str) -> None:
        """Prefer the endpoint with this id to all others; empty: by the board file's list again. Waits until it is open
        or refused, where something is to be open."""
        line = self._lines[kind]
        line.selected = device
        if not self._closing and not self._ask(SELECT_S):
            _log.warning("sound: a device takes more than %g s to change", SELECT_S)

    def _ask(self, seconds: float, rate: int | None = None, block_s: float = 0.0) -> bool:
        """Let ``hw.cards`` open or close what there is, at another rate where one is given; False where that takes
        longer."""
        with self._answers:
            if rate is not None:
                self._rate, self._block_s = rate, block_s
            self._asked += 1
            asked = self._asked
            self._poke()
            return self._answers.wait_for(lambda: self._answered >= asked, seconds)

    def take(self, kind: Kind) -> Capture | Playback | None:
        """What lies ready; called by ``hw.audio`` at every block."""
        return self.ready.pop(kind, None)

    def retire(self, stream: Capture | Playback) -> None:
        """``hw.audio`` is done with it."""
        self._retired.append(stream)
        self._poke()

    def trouble(self, stream: Capture | Playback, error: HardwareError, fault: FaultKind) -> None:
        """It failed in use; it is retired with that."""
        self._troubles.append((stream, error, fault))
        self._retired.append(stream)
        self._poke()

    def delivering(self, stream: Capture | Playback) -> None:
        """The first sound of a stream."""
        self._delivering.append(stream.endpoint)
        self._poke()

    def set_volume(self, percent: int) -> None:
        self.volume, self._set_volume = percent, True
        self._poke()

    def mute_line(self, closed: bool) -> None:
        self.line_muted = closed
        self._poke()

    def devices(self) -> Sequence[DeviceFact]:
        return self._facts

    def close(self) -> None:
        if self._closing:
            return
        if self._rate:
            self.end([])
        self._closing = True
        self._poke()
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._uevents.close()
            os.close(self._wake)

    def _poke(self) -> None:
        if not self._closing or self._thread.is_alive():
            os.eventfd_write(self._wake, 1)

    # --- hw.cards

    def _run(self) -> None:
        muted = self.line_muted
        while not self._closing:
            with self._answers:
                asked = self._asked
            try:
                self._look()
            except Exception:  # outermost frame of the thread: what a driver says must not end it
                _log.exception("sound devices cannot be looked after")
            if muted != self.line_muted:
                muted = self.line_muted
                mixer = self._lines[Kind.MICROPHONE].mixer
                if mixer is not None:
                    mixer.switch_capture(not muted)
            self._tell_mixers()
            with self._answers:
                self._answered = asked
                self._answers.notify_all()
            self._wait()

    def _wait(self) -> None:
        poller = select.poll()
        mixers = [line.mixer for line in self._lines.values() if line.mixer is not None]
        for number in (self._wake, self._uevents.fileno(), *(fd for mixer in mixers for fd in mixer.fds())):
            if number is not None:
                poller.register(number, select.POLLIN)
        poller.poll(self._pause())
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._uevents.happened()
        for mixer in mixers:
            mixer.refresh()

    def _pause(self) -> float | None:
        """Milliseconds until something is to be tried again."""
        due = [at for line in self._lines.values() for at in line.retry_at.values()] if self._rate else []
        if self._uevents.fileno() is None:
            due.append(time.monotonic() + RETRY_S)
        return None if not due else max(0.0, min(due) - time.monotonic()) * 1000 + 1

    def _look(self) -> None:
        self._settle()
        found = self._find()
        for line in self._lines.values():
            self._heed(line)
            line.found = [one for one in found if one.kind is line.kind]
            line.ranked = rank(found, line.kind, line.wanted, line.heeded)
            self._forget(line)
            if self._rate:
                self._ensure(line)
            else:
                self._let_go(line)
            line.retry_at = {key: at for key, at in line.retry_at.items() if at > time.monotonic()}
            line.settling.intersection_update(line.retry_at)
            nothing = not line.ranked
            self._faults.report(line.kind, FaultKind.MISSING, line.kind.value, nothing,
                                f"no {line.kind.value} is plugged in" if nothing else "")
        facts = tuple(fact for line in self._lines.values() for fact in _facts(line, idle=not self._rate))
        if facts != self._facts:
            self._facts = facts
            self._faults.devices_changed()

    def _heed(self, line: _Line) -> None:
        """What is selected now is tried at once, whatever it refused with before."""
        if line.heeded != line.selected:
            line.heeded = line.selected
            line.retry_at.pop(line.heeded, None)

    def _settle(self) -> None:
        """What ``hw.audio`` told meanwhile."""
        while self._troubles:
            stream, error, fault = self._troubles.popleft()
            line = self._lines[stream.endpoint.kind]
            self._blame(line, stream.endpoint, error, fault)
            if line.current is stream.endpoint:
                self._drop(line)
            others = any(one.id != stream.endpoint.id for one in line.ranked)
            wait = 0.0 if fault is FaultKind.PULLED else SHUN_S if others else RETRY_S
            line.retry_at[stream.endpoint.id] = time.monotonic() + wait
        while self._delivering:
            endpoint = self._delivering.popleft()
            self._faults.report(endpoint.kind, FaultKind.STALLED, endpoint.id, False)
        while self._retired:
            self._retired.popleft().close()

    def _blame(self, line: _Line, endpoint: Endpoint, error: HardwareError, fault: FaultKind) -> None:
        if line.notes.get(endpoint.id) != str(error):
            _log.warning("%s", error)
        line.notes[endpoint.id] = str(error)
        line.error = error
        for other in _CURED:
            if other is not fault:
                self._faults.report(line.kind, other, endpoint.id, False)
        self._faults.report(line.kind, fault, endpoint.id, True, str(error))

    def _forget(self, line: _Line) -> None:
        """What is said of a device that is gone: that it is gone. Of one that may not be used any more nothing is."""
        present = {one.id for one in line.found}
        current = line.current
        if current is not None and current.id not in present:
            words = f"{line.kind.value} {current.id} ({current.name}) was unplugged: plug it in again"
            self._blame(line, current, DevicePulledError(words), FaultKind.PULLED)
            self._drop(line)
        wanted = {one.id for one in line.ranked}
        idle = {key for key in line.notes if key in present - wanted and (current is None or key != current.id)}
        for key in [key for key in line.notes if key in idle or (key not in present and key not in line.used)]:
            del line.notes[key]
            for fault in (*_CURED, FaultKind.STALLED):
                self._faults.report(line.kind, fault, key, False)

    def _ensure(self, line: _Line) -> None:
        """The best that opens; what is in use stays while nothing better does."""
        now = time.monotonic()
        for endpoint in line.ranked:
            if line.current is not None and line.current.id == endpoint.id:
                return
            if line.retry_at.get(endpoint.id, -math.inf) > now:
                if endpoint.id in line.settling:
                    return
                continue
            line.settling.discard(endpoint.id)
            try:
                stream: Capture | Playback = (
                    open_capture(endpoint, self._rate, self._block_s) if line.kind is Kind.MICROPHONE
                    else open_playback(endpoint, self._rate))
            except (DeviceDeniedError, DeviceMissingError) as error:
                if is_settling(endpoint.node):  # plugged in just now: the next of the list need not start for that
                    line.settling.add(endpoint.id)
                    line.retry_at[endpoint.id] = time.monotonic() + AGAIN_S
                    return
                self._refused(line, endpoint, error)
                continue
            except HardwareError as error:
                self._refused(line, endpoint, error)
                continue
            self._opened(line, endpoint, stream)
            return

    def _refused(self, line: _Line, endpoint: Endpoint, error: HardwareError) -> None:
        gone = isinstance(error, DeviceMissingError) and endpoint.id in line.used  # and the list lags behind
        self._blame(line, endpoint, error, FaultKind.PULLED if gone else fault_of(error))
        line.retry_at[endpoint.id] = time.monotonic() + RETRY_S

    def _opened(self, line: _Line, endpoint: Endpoint, stream: Capture | Playback) -> None:
        _log.info("%s: %s (%s), %d Hz, %d channels, %s", line.kind.value, endpoint.id, endpoint.name,
                  stream.shape.rate, stream.shape.channels, stream.shape.format)
        line.current, line.error = endpoint, None
        line.used[endpoint.id] = endpoint
        line.notes.pop(endpoint.id, None)
        for fault in _CURED:
            self._faults.report(line.kind, fault, endpoint.id, False)
        if line.mixer is not None:
            line.mixer.close()
        line.mixer = Mixer(endpoint.mixer)
        if line.kind is Kind.SPEAKER:
            line.mixer.unmute_speaker()
            self._set_volume = True
        else:
            line.mixer.switch_capture(not self.line_muted)
        unused = self.ready.pop(line.kind, None)
        self.ready[line.kind] = stream
        if unused is not None:
            unused.close()

    def _let_go(self, line: _Line) -> None:
        line.retry_at.clear()
        self._drop(line)
        stream = self.ready.pop(line.kind, None)
        if stream is not None:
            stream.close()

    def _drop(self, line: _Line) -> None:
        """What was in use is no more. Without its mixer: of a card that is gone, it would always be readable."""
        line.current = None
        if line.mixer is not None:
            line.mixer.close()
            line.mixer = None

    def _tell_mixers(self) -> None:
        """Volume down to the card, or up from its knob; switches that somebody else turned off."""
        microphone, speaker = self._lines[Kind.MICROPHONE], self._lines[Kind.SPEAKER]
        if microphone.mixer is not None and microphone.current is not None:
            muted = microphone.mixer.capture_muted() and not self.line_muted
            self._faults.report(Kind.MICROPHONE, FaultKind.MUTED, microphone.current.id, muted,
                                "the capture switch of the mixer is off")
        if speaker.mixer is None or speaker.current is None:
            return
        if self._set_volume:
            self._set_volume = False
            speaker.mixer.set_volume(self.volume)
        else:
            told = speaker.mixer.volume()
            if told is not None and told != self.volume:
                self.volume = told
                self._faults.devices_changed()
        self.gain = 1.0 if speaker.mixer.has_volume else self.volume / 100
        self._faults.report(Kind.SPEAKER, FaultKind.MUTED, speaker.current.id, speaker.mixer.speaker_muted(),
                            "the playback switch of the mixer is off")
        self._faults.report(Kind.SPEAKER, FaultKind.ZERO_VOLUME, speaker.current.id, self.volume == 0,
                            "the mixer's volume is 0")


_UNLISTED: Final = "in no list of the board file; used only where it is selected"


def _facts(line: _Line, *, idle: bool) -> list[DeviceFact]:
    """While nothing is open, the best is the one that will be."""
    chosen = next(iter(line.ranked), None) if idle else line.current
    ranked = {one.id for one in line.ranked}
    rest = [one for one in line.found if one.id not in ranked]
    present = ranked | {one.id for one in rest}

    def fact(one: Endpoint, note: str, *, listed: bool) -> DeviceFact:
        used = chosen is not None and chosen.id == one.id
        return DeviceFact(line.kind, one.id, one.name, used=used, note=note, listed=listed)

    facts = [fact(one, line.notes.get(one.id, ""), listed=True) for one in line.ranked]
    facts += [DeviceFact(line.kind, key, one.name, present=False, used=False, note=line.notes.get(key, ""))
              for key, one in line.used.items() if key not in present]
    if not facts:
        facts = [DeviceFact(line.kind, line.kind.value, line.kind.value.capitalize(), present=False, used=False,
                            note="no such sound device that the board file names is plugged in")]
    return facts + [fact(one, _UNLISTED, listed=False) for one in rest]
