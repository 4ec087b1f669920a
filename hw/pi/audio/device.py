"""Microphone and loudspeaker as one clocked device: the thread ``hw.audio``.

The microphone paces: a block that was captured is exchanged for the next one to play. The loudspeaker may be of another
card with a clock of its own; what is on its way to it is held at a constant delay by bending its sample rate
(``drift``), so that it is known which sound was playing while a block was captured. Without a microphone the monotonic
clock paces, and the loudspeaker is bent to that.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hw.api import (
    AudioBlock,
    AudioFigures,
    DeviceBusyError,
    DeviceFact,
    DeviceFailedError,
    FaultKind,
    HardwareError,
    Kind,
)
from hw.blame import fault_of
from hw.exchange import Exchange
from hw.faults import FaultLine
from hw.hearing import Hearing
from hw.pcm import scale
from hw.pi.audio.convert import RATES
from hw.pi.audio.drift import Drift
from hw.pi.audio.dropouts import Dropouts
from hw.pi.audio.keeper import Keeper
from hw.pi.audio.streams import PLAYBACK_PERIOD_S, Capture, Playback

__all__ = ["AudioConfig", "PiAudio", "open_audio"]

_log = logging.getLogger("hw.audio")

NULL_CLOCK_S: Final = 0.5
"""A microphone without a block this long is given up, and the exchange goes on by a clock of our own."""

LATE_BLOCKS: Final = 4
"""So much is caught up after a delay of our own without a microphone; the rest is counted as missed."""

EXCESS_S: Final = 0.06
"""Sound that is so much later than it should be is dropped: bending would take a minute."""

STILL_S: Final = 2.0
"""A loudspeaker that takes nothing for so long stands still: told within 3 s."""

SOUND: Final = "sound"
"""The device of faults that are of both cards together."""

MOVED_S: Final = 0.0015
HISTORY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class AudioConfig:
    """``[audio]`` of a board file.

    Lists are patterns of ids (``usb:1-1.2``, ``alsa:vc4hdmi``) or names, best first. ``latency_ms``: of sound on its
    way to the loudspeaker; raised, 100 at most, where it keeps running empty. ``echo`` false: a handset or headset,
    where no microphone hears a loudspeaker. ``mute_input``: the panel's input that mutes the microphone; empty: none.
    ``priority``: SCHED_FIFO of ``hw.audio``, where the system allows; 0: none.
    """

    microphones: tuple[str, ...] = ("usb:*", "*")
    speakers: tuple[str, ...] = ("usb:*", "*")
    latency_ms: int = 20
    volume: int = 80
    echo: bool = True
    mute_input: str = "hardware_mute"
    priority: int = 10

    def __post_init__(self) -> None:
        if faults := [f"{name}: {value} is outside {low} to {high}" for name, value, low, high in (
                ("latency_ms", self.latency_ms, 5, 100), ("volume", self.volume, 0, 100),
                ("priority", self.priority, 0, 99)) if not low <= value <= high]:
            raise ValueError("; ".join(faults))


class PiAudio:
    """Implements ``hw.api.Audio``, and what the board asks of a part."""

    def __init__(self, config: AudioConfig, faults: FaultLine, keeper: Keeper | None = None) -> None:
        self.config = config
        self.faults = faults
        self.keeper = keeper or Keeper(config.microphones, config.speakers, config.volume, faults)
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._run: _Run | None = None
        self._closed = False

    def start(self, rate: int, block_ms: int, exchange: Callable[[AudioBlock], bytes]) -> None:
        if rate not in RATES or rate * block_ms % 1000 or not 5 <= block_ms <= 60:
            raise DeviceFailedError(f"sound: blocks of 5 to 60 ms, of whole samples, at {', '.join(map(str, RATES))} "
                                    f"Hz; not {block_ms} ms at {rate} Hz")
        with self._lock:
            if self._closed:
                raise DeviceFailedError("sound: the board is closed")
            if self._thread is not None:
                raise DeviceBusyError("sound: it is started already, by this program")
            self.keeper.begin(rate, block_ms / 1000)
            self._run = _Run(self, rate, block_ms / 1000, exchange)
            self._thread = threading.Thread(target=self._run.run, name="hw.audio", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        with self._lock:
            thread, run, self._thread = self._thread, self._run, None
            if thread is None or run is None:
                return
            run.stopping.set()
        if thread is not threading.current_thread():
            thread.join(1.0)
            if thread.is_alive():
                _log.error("hw.audio does not stop: the receiver of its blocks hangs")
                return
            self.keeper.end(run.streams())

    def set_volume(self, percent: int) -> None:
        if not 0 <= percent <= 100:
            raise ValueError(f"volume {percent} is outside 0 to 100")
        self.keeper.set_volume(percent)

    @property
    def volume(self) -> int:
        return self.keeper.volume

    @property
    def echoes(self) -> bool:
        return self.config.echo

    @property
    def figures(self) -> AudioFigures:
        run = self._run
        return AudioFigures() if run is None else run.figures()

    def mute_line(self, closed: bool) -> None:
        """The hardware mute line: while it is closed, silence is all that leaves here, whatever anybody asks."""
        self.keeper.mute_line(closed)

    def select(self, kind: Kind, device: str) -> None:
        """See ``hw.api.Board``; of microphone and loudspeaker."""
        self.keeper.select(kind, device)

    def devices(self) -> Sequence[DeviceFact]:
        return self.keeper.devices()

    def close(self) -> None:
        self.stop()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.keeper.close()


def open_audio(config: AudioConfig, faults: FaultLine) -> PiAudio:
    """The sound of a board. Devices may come later. Raises ImportError where pyalsaaudio is not installed."""
    import alsaaudio  # noqa: F401 - said here and not by the first device

    return PiAudio(config, faults)


class _Run:
    """One start: everything here runs on ``hw.audio``, but for ``figures`` and ``streams`` after it has ended."""

    def __init__(self, audio: PiAudio, rate: int, block_s: float, exchange: Callable[[AudioBlock], bytes]) -> None:
        self._audio, self._keeper = audio, audio.keeper
        self._rate, self._block_s = rate, block_s
        self._size = round(rate * block_s) * 2
        self._exchange = Exchange(exchange, self._size)
        self._silence = bytes(self._size)
        self._dropouts = Dropouts(audio.config.latency_ms / 1000)
        self._given_s = self._full_s = 0.0  # given to the loudspeaker since it began; how long it had no room
        self._emptied = 0  # xruns of the loudspeaker in use that were looked at
        self.stopping = threading.Event()
        self._microphone: Capture | None = None
        self._speaker: Playback | None = None
        self._fifo = b""  # captured and not yet exchanged
        self._heard_at = time.monotonic()
        self._quiet_s = 0.0
        self._fresh: set[Kind] = set()  # opened, and nothing came through yet
        self._missed = 0
        self._history = bytes(round(HISTORY_S * rate) * 2)  # of what was sent to the loudspeaker
        self._lag_s = self._smooth_s = self._dropouts.latency_s
        self._drift = self._new_drift()
        self._hearing = Hearing(block_s)
        self._told: tuple[str, frozenset[FaultKind]] = ("", frozenset())
        self._xruns = self._overruns = self._dropped = 0
        self._realtime = False

    def figures(self) -> AudioFigures:
        return AudioFigures(
            xruns=self._all_xruns(), dropped=self._dropped,
            drift_ppm=round(self._drift.ppm, 1) if self._speaker is not None and not self._one_clock() else None,
            delay_ms=round(self._lag_s * 1000, 1), latency_ms=round(self._dropouts.latency_s * 1000, 1),
            realtime=self._realtime)

    def _all_xruns(self) -> int:
        return self._xruns + sum(stream.xruns for stream in self.streams())

    def streams(self) -> list[Capture | Playback]:
        return [stream for stream in (self._microphone, self._speaker) if stream is not None]

    def run(self) -> None:
        self._realtime = _become_realtime(self._audio.config.priority)
        due = time.monotonic() + self._block_s
        while not self.stopping.is_set():
            self._adopt()
            if self._microphone is not None:
                self._capture(self._microphone)
                due = time.monotonic() + self._block_s
            else:
                due = self._null_clock(due)
        self._judge(None)
        self._audio.faults.report(Kind.SPEAKER, FaultKind.DROPOUTS, SOUND, False)

    def _new_drift(self) -> Drift:
        return Drift(self._block_s, PLAYBACK_PERIOD_S)

    # --- streams come and go

    def _adopt(self) -> None:
        microphone = self._keeper.take(Kind.MICROPHONE)
        if isinstance(microphone, Capture):
            if self._microphone is not None:
                self._leave(self._microphone)
            self._microphone, self._fifo, self._overruns = microphone, b"", 0
            self._heard_at, self._quiet_s = time.monotonic(), 0.0
            self._fresh.add(Kind.MICROPHONE)
            self._drift = self._new_drift()
        speaker = self._keeper.take(Kind.SPEAKER)
        if isinstance(speaker, Playback):
            if self._speaker is not None:
                self._leave(self._speaker)
            self._speaker, self._emptied, self._full_s = speaker, 0, 0.0
            self._fresh.add(Kind.SPEAKER)
            self._drift = self._new_drift()

    def _leave(self, stream: Capture | Playback) -> None:
        self._xruns += stream.xruns
        self._keeper.retire(stream)

    def _lose(self, stream: Capture | Playback, error: HardwareError, fault: FaultKind | None = None) -> None:
        self._xruns += stream.xruns
        if stream is self._microphone:
            self._judge(None)
            self._microphone, self._fifo = None, b""
            self._drift = self._new_drift()
        else:
            self._speaker = None
        self._keeper.trouble(stream, error, fault or fault_of(error))

    def _one_clock(self) -> bool:
        microphone, speaker = self._microphone, self._speaker
        return (microphone is not None and speaker is not None
                and microphone.endpoint.clock == speaker.endpoint.clock
                and microphone.shape.rate == speaker.shape.rate)

    # --- what paces

    def _null_clock(self, due: float) -> float:
        """A block at ``due``; returns when the next one is."""
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        elif -wait > LATE_BLOCKS * self._block_s:
            lost = int(-wait / self._block_s)
            self._missed += lost
            due += lost * self._block_s
        self._period(self._silence, max(0.0, time.monotonic() - due))
        return due + self._block_s

    def _capture(self, microphone: Capture) -> None:
        began = time.monotonic()
        try:
            pcm = microphone.read() if Kind.MICROPHONE in self._fresh or microphone.wait(2 * self._block_s) else b""
            waiting_s = microphone.waiting_s if pcm else 0.0
        except HardwareError as error:
            self._lose(microphone, error)
            return
        now = time.monotonic()
        if microphone.xruns > self._overruns:  # we were late, not the card: it begins anew with this read
            self._overruns = microphone.xruns
            self._missed += max(1, round((now - self._heard_at) / self._block_s))
            self._heard_at, self._quiet_s, self._fifo = now, 0.0, b""
        if not pcm:
            self._idle(microphone, min(now - began, 2 * self._block_s))
            return
        if Kind.MICROPHONE in self._fresh:
            self._fresh.discard(Kind.MICROPHONE)
            self._keeper.delivering(microphone)
        self._heard_at, self._quiet_s = now, 0.0
        self._fifo += pcm
        while len(self._fifo) >= self._size and not self.stopping.is_set():
            heard, self._fifo = self._fifo[: self._size], self._fifo[self._size :]
            self._period(heard, len(self._fifo) / 2 / self._rate + waiting_s)

    def _idle(self, microphone: Capture, watched_s: float) -> None:
        """Nothing came: for a moment, or for too long. Only time in which we looked counts against the card."""
        self._quiet_s += watched_s
        if self._quiet_s < NULL_CLOCK_S:
            if watched_s < self._block_s / 2:
                time.sleep(0.001)  # a driver that says ready and has nothing must not spin us
                self._quiet_s += 0.001
            return
        self._missed += round((time.monotonic() - self._heard_at) / self._block_s)
        endpoint = microphone.endpoint
        self._lose(microphone, DeviceFailedError(
            f"microphone {endpoint.id} ({endpoint.name}) delivers nothing: check its plug"), FaultKind.STALLED)

    # --- one block

    def _period(self, heard: bytes, behind_s: float) -> None:
        """``behind_s``: sound that was captured after ``heard`` and waits."""
        level_s = self._level(behind_s)
        self._look_at_xruns()
        if level_s is not None:
            self._smooth_s += (level_s - self._smooth_s) * 0.05
            if abs(self._smooth_s - self._lag_s) > MOVED_S:
                self._lag_s = self._smooth_s
        muted = self._keeper.line_muted
        if muted:
            heard = self._silence
        self._judge(None if muted or self._microphone is None else heard)
        end = len(self._history) - round(self._lag_s * self._rate) * 2
        played = self._history[end - self._size : end] if self._speaker is not None else self._silence
        missed, self._missed = self._missed, 0
        answer = scale(self._exchange(AudioBlock(heard, played, missed)), self._keeper.gain)
        if self._speaker is not None:
            self._play(self._speaker, answer, behind_s, level_s)

    def _level(self, behind_s: float) -> float | None:
        """Seconds between this block and what is heard of it; None where the loudspeaker has to begin."""
        if self._speaker is None:
            return None
        try:
            queued_s = self._speaker.queued_s()
        except HardwareError as error:
            self._lose(self._speaker, error)
            return None
        return None if queued_s is None else queued_s + behind_s

    def _look_at_xruns(self) -> None:
        now, speaker = time.monotonic(), self._speaker
        if speaker is not None and speaker.xruns > self._emptied:
            self._emptied = speaker.xruns
            if self._dropouts.ran_empty(now):
                _log.info("sound: the loudspeaker ran empty again: %.0f ms wait on the way to it from now on",
                          self._dropouts.latency_s * 1000)
        if self._dropouts.count(now, self._all_xruns()):
            self._audio.faults.report(
                Kind.SPEAKER, FaultKind.DROPOUTS, SOUND, self._dropouts.many,
                f"{self._dropouts.lately} xruns within a minute; {self._dropouts.latency_s * 1000:.0f} ms wait on the "
                f"way to the loudspeaker, of which the board file sets {self._audio.config.latency_ms}")

    def _play(self, speaker: Playback, answer: bytes, behind_s: float, level_s: float | None) -> None:
        try:
            if level_s is None and behind_s >= self._dropouts.latency_s:
                self._dropped += 1  # of a backlog: only what is still in time begins anew
                return
            if level_s is None:
                silence_s = max(PLAYBACK_PERIOD_S, self._dropouts.latency_s - behind_s)
                speaker.prime(silence_s)
                self._remember(bytes(round(silence_s * self._rate) * 2))
                self._drift.restart()
                self._lag_s = self._smooth_s = silence_s + behind_s
                self._given_s = silence_s
            elif level_s - self._dropouts.latency_s > EXCESS_S:
                self._dropped += 1
                self._full_s += self._block_s
                if self._full_s >= STILL_S:
                    endpoint = speaker.endpoint
                    self._lose(speaker, DeviceFailedError(
                        f"speaker {endpoint.id} ({endpoint.name}) plays nothing of what it is given: check its plug"),
                        FaultKind.STALLED)
                return
            elif not self._one_clock():
                speaker.bend(self._drift.update(level_s - self._dropouts.latency_s))
            speaker.write(answer)
        except HardwareError as error:
            self._lose(speaker, error)
            return
        self._remember(answer)
        self._full_s = 0.0
        self._given_s += self._block_s
        queued_s = self._given_s if level_s is None else level_s - behind_s
        if Kind.SPEAKER in self._fresh and self._given_s - queued_s > PLAYBACK_PERIOD_S + self._block_s:
            self._fresh.discard(Kind.SPEAKER)
            self._keeper.delivering(speaker)

    def _remember(self, pcm: bytes) -> None:
        keep = round(HISTORY_S * self._rate) * 2
        self._history = (self._history + pcm)[-keep:]

    def _judge(self, heard: bytes | None) -> None:
        """What is wrong with the sound itself; nothing is, where there is none."""
        device, told = self._told
        now = frozenset[FaultKind]() if heard is None else self._hearing.hear(heard)
        here = device if self._microphone is None else self._microphone.endpoint.id
        if here != device:
            for fault in told:
                self._audio.faults.report(Kind.MICROPHONE, fault, device, False)
            self._hearing, now, told = Hearing(self._block_s), frozenset(), frozenset()
        for fault in now ^ told:
            self._audio.faults.report(Kind.MICROPHONE, fault, here, fault in now)
        self._told = here, now


def _become_realtime(priority: int) -> bool:
    """SCHED_FIFO for this thread, where LimitRTPRIO= or the user's limits allow; its children do not inherit it."""
    if priority == 0:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        _log.info("hw.audio runs without real-time priority: %s", error.strerror)
        return False
    return True
