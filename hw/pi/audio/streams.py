"""One opened direction of one card (pyalsaaudio), never blocking, and why it could not be opened.

Opening and closing may wait for a driver: never on ``hw.audio``.
"""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path
from typing import Any, Final

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    HardwareError,
    Kind,
)
from hw.host.holders import holders
from hw.pi.audio.cards import SERVER, Endpoint
from hw.pi.audio.convert import RATES, Resampler, Shape, from_mono, negotiate, to_mono
from hw.pi.audio.rehearsal import patiently, rehearse

__all__ = ["Capture", "Playback", "open_capture", "open_playback"]

CAPTURE_S: Final = 0.08
"""The ring of a microphone: how late ``hw.audio`` may be before sound is lost."""

MOST_READS: Final = 64
"""Periods taken at once: a driver that always has more must not hold the thread."""

PLAYBACK_S: Final = 0.2
PLAYBACK_PERIOD_S: Final = 0.005
SERVER_PERIOD_S: Final = 0.02
"""What a sound server is asked for: it serves all programs as often as the one that asks for the shortest."""


def refusal(endpoint: Endpoint, number: int, words: str) -> HardwareError:
    """The system's error number as one of ours, with what to do."""
    what = f"{endpoint.kind.value} {endpoint.id} ({endpoint.name})"
    if number == errno.EBUSY:
        holder = holders(endpoint.node) or "a program of another user"
        return DeviceBusyError(f"{what} is held by {holder}: end it, or name another device in the board file")
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceMissingError(f"{what} is not there: plug it in")
    if number in (errno.EACCES, errno.EPERM):
        return DeviceDeniedError(f"{what} may not be opened: add the user to the group audio")
    return DeviceFailedError(f"{what} does not start: {words}; unplug it and plug it in again")


def _knock(endpoint: Endpoint) -> None:
    """The kernel's own answer to opening the node, which ALSA blurs. Raises HardwareError."""
    if not endpoint.node:
        return
    try:
        os.close(os.open(endpoint.node, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        raise refusal(endpoint, error.errno or 0, error.strerror or "") from error


def _number(error: Exception) -> int:
    """alsaaudio puts the system's words into its errors: back to the number."""
    text = str(error)
    return next((number for number in (errno.EBUSY, errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.EACCES, errno.EPERM)
                 if os.strerror(number) in text), 0)


def _open(endpoint: Endpoint, wanted: int, period_s: float, ring_s: float) -> tuple[Any, Shape, int]:
    """The PCM, what it is driven with, and the frames of its ring. Raises HardwareError."""
    import alsaaudio

    patiently(endpoint, lambda: _knock(endpoint))
    kind = alsaaudio.PCM_CAPTURE if endpoint.kind is Kind.MICROPHONE else alsaaudio.PCM_PLAYBACK

    def attempt(shape: Shape) -> Any:
        rehearse(endpoint, shape)
        try:
            return alsaaudio.PCM(
                type=kind, mode=alsaaudio.PCM_NONBLOCK, device=endpoint.device, rate=shape.rate,
                channels=shape.channels, format=getattr(alsaaudio, f"PCM_FORMAT_{shape.format}"),
                periodsize=round(shape.rate * period_s), periods=max(2, round(ring_s / period_s)))
        except alsaaudio.ALSAAudioError as error:
            raise refusal(endpoint, _number(error), str(error)) from error

    shape = Shape(wanted, 1, "S16_LE")
    pcm = attempt(shape)
    try:
        if _shape(pcm) != shape:
            try:
                shape = negotiate(_rates(pcm.getrates()), pcm.getchannels(), pcm.getformats(), wanted)
            except (ValueError, alsaaudio.ALSAAudioError) as error:
                raise DeviceFormatError(f"{endpoint.kind.value} {endpoint.id} ({endpoint.name}): {error}") from error
            pcm.close()
            pcm = attempt(shape)
            shape = _shape(pcm)  # one that offers more than it takes: what it says now is what it does
        return pcm, shape, int(pcm.info()["buffer_size"])
    except BaseException:
        pcm.close()
        raise


def _shape(pcm: Any) -> Shape:
    info = pcm.info()
    return Shape(int(info["rate"]), int(info["channels"]), str(info["format_name"]))


def _rates(told: Any) -> list[int]:
    """alsaaudio tells one rate, the bounds of a range, or a list."""
    if isinstance(told, int):
        return [told]
    if isinstance(told, tuple):
        return [rate for rate in RATES if told[0] <= rate <= told[1]]
    return list(told)


class _Stream:
    def __init__(self, endpoint: Endpoint, pcm: Any, shape: Shape, ring: int) -> None:
        self.endpoint, self.shape, self._pcm, self._ring = endpoint, shape, pcm, ring
        self.xruns = 0

    def _gone(self, words: str) -> HardwareError:
        what = f"{self.endpoint.kind.value} {self.endpoint.id} ({self.endpoint.name})"
        if os.strerror(errno.ENODEV) in words or (self.endpoint.node and not Path(self.endpoint.node).exists()):
            return DevicePulledError(f"{what} was unplugged: plug it in again")
        return DeviceFailedError(f"{what} stopped: {words}")

    def _available(self) -> int:
        """Frames to read or room to write; -1 after an xrun. Raises HardwareError where the card is gone."""
        count = int(self._pcm.avail())
        if count < 0 and count != -errno.EPIPE:
            raise self._gone(os.strerror(-count))
        return max(-1, count)

    def close(self) -> None:
        import alsaaudio

        try:
            if self.endpoint.kind is Kind.SPEAKER:
                self._pcm.drop()  # or closing waits until all is played
        except alsaaudio.ALSAAudioError:  # gone already
            pass
        finally:
            self._pcm.close()


class Capture(_Stream):
    """A microphone: mono at the rate asked for."""

    def __init__(self, endpoint: Endpoint, pcm: Any, shape: Shape, ring: int, rate: int) -> None:
        super().__init__(endpoint, pcm, shape, ring)
        self._resampler = None if shape.rate == rate else Resampler(shape.rate, rate)
        self._poll = select.poll()
        for number, events in pcm.polldescriptors():
            self._poll.register(number, events)

    def wait(self, seconds: float) -> bool:
        """Until something can be read, at most so long."""
        ready = self._poll.poll(max(0.0, seconds * 1000))
        if not ready:
            return False
        return bool(self._pcm.polldescriptors_revents([(number, events) for number, events in ready]))

    def read(self) -> bytes:
        """All that is there; after an overrun, what comes then. Raises HardwareError where the card is gone."""
        import alsaaudio

        parts: list[bytes] = []
        try:
            for _ in range(MOST_READS):
                count, frames = self._pcm.read()
                if count == -errno.EPIPE:  # alsaaudio has prepared it again; reading starts it
                    self.xruns += 1
                    parts.clear()
                elif count <= 0:
                    break
                else:
                    parts.append(frames)
        except alsaaudio.ALSAAudioError as error:
            raise self._gone(str(error)) from error
        pcm = to_mono(b"".join(parts), self.shape)
        return pcm if self._resampler is None else self._resampler.process(pcm)

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be read."""
        return max(0, self._available()) / self.shape.rate


class Playback(_Stream):
    """A loudspeaker: takes mono at the rate given, times 1 + ``ppm`` millionths once it was bent."""

    def __init__(self, endpoint: Endpoint, pcm: Any, shape: Shape, ring: int, rate: int) -> None:
        super().__init__(endpoint, pcm, shape, ring)
        self._rate = rate
        self._resampler = None if shape.rate == rate else Resampler(rate, shape.rate)
        self._pending = b""
        self._primed = False

    def bend(self, ppm: float) -> None:
        """Its clock is not the one that paces: so many more samples from now on."""
        if self._resampler is None:
            self._resampler = Resampler(self._rate, self.shape.rate)
        self._resampler.ppm = ppm

    def queued_s(self) -> float | None:
        """Seconds of sound before one written now is heard; None where it has run empty, or never began."""
        room = self._available()
        if not self._primed or room < 0:
            if self._primed:
                self.xruns += 1
                self._primed = False
            return None
        return (max(0, self._ring - room) + len(self._pending) // self.shape.frame) / self.shape.rate

    def prime(self, seconds: float) -> None:
        """Begin anew with so much silence."""
        import alsaaudio

        self._pending = bytes(round(seconds * self.shape.rate) * self.shape.frame)
        self._primed = True
        try:
            self._pcm.drop()  # alsaaudio prepares a dropped stream with the next write
        except alsaaudio.ALSAAudioError as error:
            raise self._gone(str(error)) from error

    def write(self, pcm: bytes) -> None:
        """Hand on; what does not fit waits for the next time. Raises HardwareError where the card is gone."""
        import alsaaudio

        if self._resampler is not None:
            pcm = self._resampler.process(pcm)
        frames = self._pending + from_mono(pcm, self.shape)
        try:
            count = self._pcm.write(frames)
        except alsaaudio.ALSAAudioError as error:
            raise self._gone(str(error)) from error
        if count == -errno.EPIPE:
            self.xruns += 1
            self._primed, self._pending = False, b""
            return
        self._pending = frames[count * self.shape.frame :]


def open_capture(endpoint: Endpoint, rate: int, block_s: float) -> Capture:
    """Open a microphone for blocks of ``block_s`` at ``rate`` Hz. Raises HardwareError. May block."""
    pcm, shape, ring = _open(endpoint, rate, SERVER_PERIOD_S if endpoint.id == SERVER else block_s, CAPTURE_S)
    return Capture(endpoint, pcm, shape, ring, rate)


def open_playback(endpoint: Endpoint, rate: int) -> Playback:
    """Open a loudspeaker for ``rate`` Hz. Raises HardwareError. May block."""
    period_s = SERVER_PERIOD_S if endpoint.id == SERVER else PLAYBACK_PERIOD_S
    pcm, shape, ring = _open(endpoint, rate, period_s, PLAYBACK_S)
    return Playback(endpoint, pcm, shape, ring, rate)
