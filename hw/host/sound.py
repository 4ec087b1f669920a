"""The computer's own sound card by ALSA (pyalsaaudio).

Two cards' clocks are never the same: capture paces ``hw.audio``; playback takes a block per captured block, and
what drifts apart is dropped or filled, one block at a time, and counted.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hw.api import (
    AudioBlock,
    AudioFigures,
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    FaultKind,
    HardwareError,
    Kind,
)
from hw.blame import fault_of
from hw.exchange import Exchange
from hw.faults import FaultLine
from hw.hearing import Hearing
from hw.host.holders import holders
from hw.pcm import scale
from hw.sim.sounds import RATE

__all__ = ["AlsaAudio", "sound_card"]

_log = logging.getLogger("hw.audio")

NULL_CLOCK_S: Final = 0.5
RETRY_S: Final = 2.0
"""A lost card is looked for this often: an unplugged headset returns."""

_REFUSALS: Final = (FaultKind.MISSING, FaultKind.BUSY, FaultKind.DENIED, FaultKind.FORMAT, FaultKind.FAILED)

QUEUE_BLOCKS: Final = 4
"""Blocks on their way to the loudspeaker; the oldest is dropped beyond."""


def sound_card(asound: str = "/proc/asound") -> str:
    """The name of the first card for people; empty when there is none. The device opened is ALSA's ``default``."""
    try:
        lines = (Path(asound) / "cards").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        number, _, rest = line.strip().partition(" ")
        if number.isdecimal() and " - " in rest:
            return rest.partition(" - ")[2].strip()
    return ""


def _refusal(error: Exception, what: str) -> HardwareError:
    """alsaaudio puts the system's words into its errors: make them ours."""
    text = str(error)
    if os.strerror(errno.EBUSY) in text:
        nodes = [str(path) for path in Path("/dev/snd").glob("pcm*")]
        holder = ", ".join(filter(None, (holders(node) for node in nodes))) or "a program of another user"
        return DeviceBusyError(f"{what} is held by {holder}: end it")
    if os.strerror(errno.ENOENT) in text or os.strerror(errno.ENODEV) in text:
        return DeviceMissingError(f"{what} is not there: plug one in")
    if os.strerror(errno.EACCES) in text:
        return DeviceDeniedError(f"{what} may not be opened: add the user to the group audio")
    if os.strerror(errno.EINVAL) in text:
        return DeviceFormatError(f"{what} takes no mono sound of 16 bit at {RATE} Hz: choose another default device")
    return DeviceFailedError(f"{what}: {text}")


class AlsaAudio:
    """Implements ``hw.api.Audio`` over ALSA's default device."""

    def __init__(self, faults: FaultLine) -> None:
        import alsaaudio

        self._alsa: Any = alsaaudio
        self._faults = faults
        self._volume = 100
        self._lock = threading.RLock()
        self._threads: tuple[threading.Thread, ...] = ()
        self._stop = threading.Event()
        self._ring: deque[bytes] = deque(maxlen=QUEUE_BLOCKS)
        self._fill = threading.Semaphore(0)
        self.dropped = 0

    def probe(self) -> None:
        """Open both directions once. Raises HardwareError as ``start`` would."""
        for direction, what in ((self._alsa.PCM_CAPTURE, "microphone"), (self._alsa.PCM_PLAYBACK, "loudspeaker")):
            self._open(direction, RATE // 100, what).close()

    def _open(self, direction: int, frames: int, what: str) -> Any:
        try:
            return self._alsa.PCM(
                type=direction, mode=self._alsa.PCM_NORMAL, rate=RATE, channels=1,
                format=self._alsa.PCM_FORMAT_S16_LE, periodsize=frames, periods=4, device="default",
            )  # fmt: skip
        except self._alsa.ALSAAudioError as error:
            raise _refusal(error, what) from error

    def start(self, rate: int, block_ms: int, exchange: Callable[[AudioBlock], bytes]) -> None:
        if rate != RATE:
            raise DeviceFailedError(f"sound card: it is used at {RATE} Hz, not {rate} Hz")
        with self._lock:
            if self._threads:
                raise DeviceBusyError("sound card: it is started already, by this program")
            frames = rate * block_ms // 1000
            capture, deaf = self._try(Kind.MICROPHONE, frames)
            playback, mute = self._try(Kind.SPEAKER, frames)
            if deaf is not None and mute is not None:
                raise deaf
            self._stop = stop = threading.Event()
            self._ring.clear()
            self._fill = threading.Semaphore(0)
            self._threads = (
                threading.Thread(
                    target=self._run, args=(capture, frames, exchange, stop), name="hw.audio", daemon=True
                ),
                threading.Thread(target=self._play, args=(playback, frames, stop), name="hw.speaker", daemon=True),
            )
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        with self._lock:
            threads, self._threads = self._threads, ()
            self._stop.set()
        self._fill.release()
        deadline = time.monotonic() + 1.0
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    _log.error("%s does not stop: its driver hangs", thread.name)

    def set_volume(self, percent: int) -> None:
        if not 0 <= percent <= 100:
            raise ValueError(f"volume {percent} is outside 0 to 100")
        self._volume = percent

    @property
    def volume(self) -> int:
        return self._volume

    @property
    def echoes(self) -> bool:
        return True  # of a headset too nobody tells us that it is one

    @property
    def figures(self) -> AudioFigures:
        return AudioFigures(dropped=self.dropped)

    # --- hw.audio

    def _run(self, capture: Any, frames: int, exchange: Callable[[AudioBlock], bytes], stop: threading.Event) -> None:
        """Capture paces; a capture that is lost is replaced by a null clock and looked for again."""
        block_s, size = frames / RATE, frames * 2
        answered = Exchange(exchange, size)
        hearing, told = Hearing(block_s), frozenset[FaultKind]()
        played, missed, silent_since = bytes(size), 0, time.monotonic()
        retry_at = 0.0
        while not stop.is_set():
            if capture is None and time.monotonic() >= retry_at:
                (capture, _), retry_at = self._try(Kind.MICROPHONE, frames), time.monotonic() + RETRY_S
            heard, lost = self._read(capture, size)
            missed += lost
            if heard is None:
                if capture is not None:
                    capture.close()
                    capture = None
                time.sleep(block_s)
                if time.monotonic() - silent_since < NULL_CLOCK_S:
                    missed += 1
                    continue
                heard = bytes(size)
            else:
                silent_since = time.monotonic()
                faults = hearing.hear(heard)
                for fault in faults ^ told:
                    self._faults.report(Kind.MICROPHONE, fault, "default", fault in faults)
                told = faults
            played = scale(answered(AudioBlock(heard, played, missed)), self._volume / 100)
            missed = 0
            if len(self._ring) == QUEUE_BLOCKS:
                self.dropped += 1
            self._ring.append(played)
            self._fill.release()
        if capture is not None:
            capture.close()

    def _try(self, kind: Kind, frames: int) -> tuple[Any, HardwareError | None]:
        """One direction opened, or None and what kept it from that, which is told until it opens."""
        capture = kind is Kind.MICROPHONE
        direction = self._alsa.PCM_CAPTURE if capture else self._alsa.PCM_PLAYBACK
        opened, refusal = None, None
        try:
            opened = self._open(direction, frames, "microphone" if capture else "loudspeaker")
        except HardwareError as error:
            refusal = error
        told = None if refusal is None else fault_of(refusal)
        for fault in _REFUSALS:
            self._faults.report(kind, fault, "default", fault is told, str(refusal))
        return opened, refusal

    def _read(self, capture: Any, size: int) -> tuple[bytes | None, int]:
        """One block, and how many were lost before it. None: the card is gone."""
        if capture is None:
            return None, 0
        block = b""
        while len(block) < size:
            try:
                count, data = capture.read()
            except self._alsa.ALSAAudioError as error:
                self._faults.report(Kind.MICROPHONE, FaultKind.MISSING, "default", True, str(error))
                return None, 0
            if count == -errno.EPIPE:  # overrun: we were late, alsaaudio has restarted the stream
                return bytes(size), 1
            if count <= 0:
                return None, 0
            block += data
        return block[:size], 0

    # --- hw.speaker

    def _play(self, playback: Any, frames: int, stop: threading.Event) -> None:
        retry_at = 0.0
        while not stop.is_set():
            self._fill.acquire(timeout=1.0)
            if stop.is_set() or not self._ring:
                continue
            block = self._ring.popleft()
            if playback is None and time.monotonic() >= retry_at:
                (playback, _), retry_at = self._try(Kind.SPEAKER, frames), time.monotonic() + RETRY_S
            if playback is None:
                continue
            try:
                playback.write(block)
            except self._alsa.ALSAAudioError as error:
                playback.close()
                playback = None
                self._faults.report(Kind.SPEAKER, FaultKind.MISSING, "default", True, str(error))
        if playback is not None:
            playback.close()
