"""Microphone and loudspeaker of the simulated board: one clock that really paces, and the air between them."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import wave
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hw.api import (
    AudioBlock,
    AudioFigures,
    DeviceBusyError,
    DeviceFact,
    DeviceFailedError,
    FaultKind,
    Kind,
)
from hw.blame import error_of
from hw.exchange import Exchange
from hw.faults import FaultLine
from hw.hearing import Hearing
from hw.pcm import mix, scale
from hw.sim.obstacles import obstacle_of
from hw.sim.pair import Pair
from hw.sim.sounds import RATE, LentSound, open_sound

if TYPE_CHECKING:
    from hw.sim.room import Room

__all__ = ["EchoPath", "SimAudio"]

_log = logging.getLogger("hw.audio")

NULL_CLOCK_S: Final = 0.5
"""A device without a block this long is replaced by a clock of our own, so that the exchange goes on."""

RING_BLOCKS: Final = 4
"""Blocks a sound card's ring holds: what is late by no more is caught up, what is later is lost and counted."""

STALL_S: Final = 1.0
"""A loudspeaker that takes no block for this long has stopped."""


class EchoPath:
    """The air from loudspeaker to microphone: a delay and a loss, sample-accurate, and a room where one is asked for
    (``furnish``); changeable while it runs."""

    MAX_DELAY_MS: Final = 1000.0

    def __init__(self, delay_ms: float = 0.0, loss_db: float | None = None) -> None:
        self._history = bytes(0)
        self._room: Room | None = None
        self.set(delay_ms, loss_db)

    def set(self, delay_ms: float, loss_db: float | None) -> None:
        """``loss_db`` None: no path. Raises ValueError outside 0 to 1000 ms or for a negative loss."""
        if not 0.0 <= delay_ms <= self.MAX_DELAY_MS or (loss_db is not None and not 0.0 <= loss_db <= 120.0):
            raise ValueError(f"echo path: {delay_ms} ms and {loss_db} dB are outside 0 to 1000 ms and 0 to 120 dB")
        self.delay_ms, self.loss_db = delay_ms, loss_db
        self._delay = round(delay_ms * RATE / 1000) * 2
        self._gain = 0.0 if loss_db is None else 10.0 ** (-loss_db / 20.0)

    def furnish(self, reverberation_ms: float, *, place: int = 1, drive_db: float = 0.0) -> None:
        """Reverberation, and saturation of the loudspeaker; both 0: a plain path again. Raises ValueError outside 0 to
        1000 ms and 0 to 40 dB. Blocking: it may load numpy."""
        if reverberation_ms == drive_db == 0.0:
            self._room = None
            return
        from hw.sim.room import Room

        self._room = Room(reverberation_ms, place, drive_db)

    def add(self, heard: bytes, played: bytes) -> bytes:
        """``heard`` plus what was played ``delay_ms`` ago; ``played`` sounds at the same moment as ``heard``."""
        if not self._gain:
            self._history = b""
            return heard
        history = self._history + played
        end = len(history) - self._delay
        part = history[max(0, end - len(played)) : max(0, end)]
        part = bytes(len(played) - len(part)) + part
        self._history = history[-(self._delay + len(played)) :]
        room = self._room
        if room is not None:
            part = room.pass_through(part)
        return mix(heard, part, self._gain) if any(part) else heard


class _Recorder:
    """Writes what the loudspeaker plays into a WAV file on a thread of its own: a disk never delays the sound."""

    LIMIT: Final = 500  # blocks, 5 s; the newest is dropped and counted when the disk is slower

    def __init__(self, path: str) -> None:
        try:
            self._raw = Path(path).open("wb")  # noqa: SIM115 - closed by the thread
        except OSError as error:
            raise DeviceFailedError(f"loudspeaker recording {path} cannot be written: {error.strerror}") from error
        self._file = wave.open(self._raw, "wb")  # noqa: SIM115 - closed by the thread
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(RATE)
        self._blocks: queue.Queue[bytes | None] = queue.Queue(self.LIMIT)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="hw.speaker", daemon=True)
        self._thread.start()

    def write(self, pcm: bytes) -> None:
        try:
            self._blocks.put_nowait(pcm)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        try:
            self._blocks.put(None, timeout=0.5)
        except queue.Full:
            _log.warning("loudspeaker recording: the disk does not keep up, the end is lost")
            return
        self._thread.join(0.5)

    def _run(self) -> None:
        failed = False
        while (pcm := self._blocks.get()) is not None:
            if failed:
                self.dropped += 1
                continue
            try:
                self._file.writeframesraw(pcm)
            except OSError:
                failed = True
                _log.exception("loudspeaker recording ends here")
        try:
            self._file.close()
            self._raw.close()
        except OSError:
            _log.exception("loudspeaker recording cannot be finished")


class SimAudio:
    """Implements ``hw.api.Audio`` at 48 kHz. ``note``: of its devices, for people."""

    def __init__(self, microphone: str, record: str, echo: EchoPath, faults: FaultLine, *, note: str = "") -> None:
        self.echo = echo
        self.microphones = Pair(Kind.MICROPHONE, "microphone", faults, note=note)
        self.speakers = Pair(Kind.SPEAKER, "loudspeaker", faults, note=note)
        self._source = open_sound(microphone)
        self._second = open_sound("silence")  # what the second microphone hears
        self._room = open_sound("silence")
        self._recorder = _Recorder(record) if record else None
        self._faults = faults
        self._lent = LentSound()
        self._lent_inbox: deque[bytes] = deque(maxlen=64)
        self._tap: Callable[[bytes], None] | None = None
        self._tap_lock = threading.RLock()
        self._physics: frozenset[str] = frozenset()
        self._noise = b""
        self._volume = 100
        self._delay_ms = 0.0
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._closed = False

    # --- the contract

    def start(self, rate: int, block_ms: int, exchange: Callable[[AudioBlock], bytes]) -> None:
        if rate != RATE or not 5 <= block_ms <= 60:
            raise DeviceFailedError(
                f"simulated sound card: it runs at {RATE} Hz with blocks of 5 to 60 ms, not {rate} Hz and {block_ms} ms"
            )
        with self._lock:
            if self._closed:
                raise DeviceFailedError("simulated sound card: the board is closed")
            if self._thread is not None:
                raise DeviceBusyError("simulated sound card: it is started already, by this program")
            self._refuse_if_gone()
            self._stop = threading.Event()
            run = _Run(self, block_ms / 1000.0, exchange, self._stop)
            self._delay_ms = float(block_ms)  # what is handed out plays during the next block
            self._thread = threading.Thread(target=run.run, name="hw.audio", daemon=True)
            self._thread.start()

    def _refuse_if_gone(self) -> None:
        """Only when neither half can be opened: one half is enough to go on."""
        if self.microphones.used or self.speakers.used:
            return
        obstacles = [pair.obstacle for pair in (self.microphones, self.speakers) if pair.obstacle is not None]
        fault, words = next((one for one in obstacles if one[0] is not FaultKind.MISSING),
                            (FaultKind.MISSING, "neither microphone nor loudspeaker is there"))
        raise error_of(fault)(f"sound card: {words}")

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is None or thread is threading.current_thread():
            return
        thread.join(1.0)
        for fault in (FaultKind.SILENT, FaultKind.CLIPPING, FaultKind.NOISY, FaultKind.STALLED):
            for device in (self.microphones.first, self.microphones.second):
                self._faults.report(Kind.MICROPHONE, fault, device, False)
        self._faults.report(Kind.SPEAKER, FaultKind.STALLED, self.speakers.first, False)

    def set_volume(self, percent: int) -> None:
        if not 0 <= percent <= 100:
            raise ValueError(f"volume {percent} is outside 0 to 100")
        self._volume = percent

    @property
    def volume(self) -> int:
        return self._volume

    @property
    def echoes(self) -> bool:
        return self.echo.loss_db is not None

    @property
    def figures(self) -> AudioFigures:
        return AudioFigures(delay_ms=self._delay_ms)

    # --- for the board

    def set_source(self, spec: str) -> None:
        self._source = open_sound(spec)

    def select(self, kind: Kind, device: str) -> None:
        with self._lock:
            self._pair(kind).select(device)

    def plug(self, kind: Kind, plugged: bool, spec: str) -> None:
        if spec and kind is not Kind.MICROPHONE:
            raise ValueError(f"a {kind.value} has no source")
        source = open_sound(spec) if spec else None
        with self._lock:
            self._second = source or self._second
            self._pair(kind).plug(plugged)

    def _pair(self, kind: Kind) -> Pair:
        return self.microphones if kind is Kind.MICROPHONE else self.speakers

    def devices(self) -> Sequence[DeviceFact]:
        return [*self.microphones.devices(), *self.speakers.devices()]

    def lend(self, pcm: bytes) -> None:
        self._lent_inbox.append(pcm)

    def tap(self, sink: Callable[[bytes], None] | None) -> None:
        with self._tap_lock:
            self._tap = sink

    def set_physics(self, faults: Iterable[str], noise_db: float | None) -> None:
        """Faults that are physically in force. ``noise_db``: level of ``mic.noise`` in dBFS."""
        physics = frozenset(faults)
        if "mic.noise" in physics:
            dice = random.Random(5)  # noqa: S311
            level = -20.0 if noise_db is None else noise_db
            peak = int(min(32_000.0, 32_768.0 * 10 ** (level / 20) * 3**0.5))  # even distribution: RMS is peak / sqrt 3
            steps = [dice.randint(-peak, peak) for _ in range(RATE // 4)]
            self._noise = b"".join(step.to_bytes(2, "little", signed=True) for step in steps)
        self._physics = physics  # last: hw.audio reads it at any moment
        with self._lock:
            for pair, word in ((self.microphones, "mic"), (self.speakers, "speaker")):
                pair.obstruct(obstacle_of(word, physics))
        self._tell_mixers()

    def _tell_mixers(self) -> None:
        for name, kind, fault, device, detail in (
            ("mic.osMute", Kind.MICROPHONE, FaultKind.MUTED, "mic0", "the capture switch of the mixer is off"),
            ("speaker.mute", Kind.SPEAKER, FaultKind.MUTED, "spk0", "the playback switch of the mixer is off"),
            ("speaker.zeroVolume", Kind.SPEAKER, FaultKind.ZERO_VOLUME, "spk0", "the mixer's volume is 0"),
        ):
            self._faults.report(kind, fault, device, name in self._physics, detail if name in self._physics else "")

    def close(self) -> None:
        self.stop()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.tap(None)
        if self._recorder is not None:
            self._recorder.close()

    # --- the physics, on hw.audio

    @property
    def physics(self) -> frozenset[str]:
        return self._physics

    def hear(self, played: bytes) -> bytes | None:
        """What the microphone in use delivers while ``played`` sounds; None when there is none."""
        physics, used = self._physics, self.microphones.used
        size = len(played)
        now = time.monotonic()
        while self._lent_inbox:
            self._lent.offer(self._lent_inbox.popleft(), now)
        first, second = self._source.read(size), self._second.read(size)  # the world goes on while nobody listens
        own = second if used == self.microphones.second else first
        if not any(own):
            own = self._room.read(size)  # digital zero in a recording: a preamplifier has noise all the same
        lent = self._lent.read(size, now)
        heard = self.echo.add(lent if lent is not None else own, played)
        if used != self.microphones.first:
            return heard if used else None
        if physics & {"mic.silence", "mic.osMute"}:
            return bytes(size)
        if "mic.noise" in physics:
            offset = random.randrange(0, len(self._noise) // 2 - size // 2) * 2  # noqa: S311
            heard = mix(heard, self._noise[offset : offset + size])
        return scale(heard, 60.0) if "mic.clip" in physics else heard

    def play(self, pcm: bytes) -> bytes | None:
        """What the loudspeaker in use emits of a block; None when it takes none."""
        used = self.speakers.used
        physics = self._physics if used == self.speakers.first else frozenset()
        if not used or "speaker.stall" in physics:
            return None
        if physics & {"speaker.mute", "speaker.zeroVolume"}:
            return bytes(len(pcm))
        return scale(pcm, self._volume / 100.0)

    def emit(self, pcm: bytes) -> None:
        """The sound leaves the loudspeaker."""
        if self._recorder is not None:
            self._recorder.write(pcm)
        with self._tap_lock:
            if self._tap is not None:
                try:
                    self._tap(pcm)
                except Exception:  # outermost frame of the callback
                    _log.exception("listener at the loudspeaker failed")

    def report(self, kind: Kind, fault: FaultKind, device: str, active: bool) -> None:
        self._faults.report(kind, fault, device, active)


class _Run:
    """One start of the card: the thread ``hw.audio``."""

    def __init__(
        self, card: SimAudio, block_s: float, exchange: Callable[[AudioBlock], bytes], stop: threading.Event
    ) -> None:
        self._card = card
        self._block_s = block_s
        self._size = round(RATE * block_s) * 2
        self._exchange = Exchange(exchange, self._size)
        self._stop = stop
        self._silence = bytes(self._size)
        self._queued = self._silence  # in the loudspeaker's ring, plays during the next block
        self._hearing = Hearing(block_s)
        self._told: frozenset[FaultKind] = frozenset()
        self._listening = card.microphones.first  # the one that these are of
        self._missed = 0
        self._deaf_blocks = 0
        self._idle_blocks = 0

    def run(self) -> None:
        """An absolute schedule: block n is due at start + n blocks, however long the ones before took."""
        due = time.monotonic()
        while not self._stop.is_set():
            due += self._block_s
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)  # not Event.wait: it costs twice as much, and stop() can wait for a block
            elif -wait > RING_BLOCKS * self._block_s:
                lost = int(-wait / self._block_s)
                self._missed += lost
                due += lost * self._block_s
            self._period()

    def _period(self) -> None:
        card = self._card
        played = card.play(self._queued)
        self._judge_speaker(played is not None)
        played = self._silence if played is None else played
        card.emit(played)
        heard = card.hear(played)
        if heard is None:
            self._deaf_blocks += 1
            if self._deaf_blocks * self._block_s < NULL_CLOCK_S:
                self._missed += 1
                self._queued = self._silence  # nobody fills the ring: it runs empty
                return
            heard = self._silence
        else:
            self._deaf_blocks = 0
            self._judge_microphone(heard)
        missed, self._missed = self._missed, 0
        self._queued = self._exchange(AudioBlock(heard, played, missed))

    def _judge_microphone(self, heard: bytes) -> None:
        used = self._card.microphones.used
        if used != self._listening:
            for fault in self._told:
                self._card.report(Kind.MICROPHONE, fault, self._listening, False)
            self._listening, self._hearing, self._told = used, Hearing(self._block_s), frozenset()
        faults = self._hearing.hear(heard)
        if "mic.osMute" in self._card.physics:  # the mixer explains the silence
            faults -= {FaultKind.SILENT}
        if faults != self._told:
            for fault in faults ^ self._told:
                self._card.report(Kind.MICROPHONE, fault, used, fault in faults)
            self._told = faults

    def _judge_speaker(self, took: bool) -> None:
        first = self._card.speakers.first  # the second one never stalls
        if took:
            if self._idle_blocks:
                self._card.report(Kind.SPEAKER, FaultKind.STALLED, first, False)
            self._idle_blocks = 0
            return
        self._idle_blocks += 1
        if self._idle_blocks == round(STALL_S / self._block_s) and "speaker.stall" in self._card.physics:
            self._card.report(Kind.SPEAKER, FaultKind.STALLED, first, True)
