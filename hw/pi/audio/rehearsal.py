"""Opens a device once before pyalsaaudio does, with the interpreter free: here a driver that hangs hangs alone.

pyalsaaudio 0.11 holds the interpreter while it opens a device, sets its format and loads its mixer. A card that takes
its time over that (on USB each control transfer may take five seconds to fail) would stop every thread of the daemon as
long. Calls by ctypes let go of it.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Final

from hw.api import DeviceFailedError
from hw.pi.audio.cards import Endpoint
from hw.pi.audio.convert import Shape
from hw.pi.patience import aside, within

__all__ = ["patiently", "rehearse"]

PATIENCE_S: Final = 2.0
"""Cards take milliseconds; a USB card that wakes up, a few hundred."""

_STREAMS: Final = {"microphone": 1, "speaker": 0}  # snd_pcm_stream_t
_NONBLOCK: Final = 1
_INTERLEAVED: Final = 3  # SND_PCM_ACCESS_RW_INTERLEAVED


def patiently(endpoint: Endpoint, call: Callable[[], None]) -> None:
    """``call``, which may wait for the driver of ``endpoint``, and raises what it raises.

    Raises DeviceFailedError when the driver has not answered in time, and at once while it still has not.
    """
    thread = f"hw.{endpoint.kind.value}:{endpoint.id}"
    what = (f"{endpoint.kind.value} {endpoint.id} ({endpoint.name}) does not start: its driver hangs; unplug it and "
            f"plug it in again, or restart the board")
    if any(one.name == thread for one in threading.enumerate()):
        raise DeviceFailedError(what)
    try:
        within(PATIENCE_S, thread, aside(thread, call))
    except TimeoutError as error:
        raise DeviceFailedError(what) from error


def rehearse(endpoint: Endpoint, shape: Shape) -> None:
    """Open, set the format, load the mixer, close. What ALSA refuses is left for the opening itself to tell; raises as
    ``patiently`` does."""
    patiently(endpoint, lambda: _go_through(endpoint, shape))


@functools.cache
def _alsa() -> ctypes.CDLL:
    return ctypes.CDLL("libasound.so.2")


def _go_through(endpoint: Endpoint, shape: Shape) -> None:
    alsa, pcm = _alsa(), ctypes.c_void_p()
    if alsa.snd_pcm_open(ctypes.byref(pcm), endpoint.device.encode(), _STREAMS[endpoint.kind.value], _NONBLOCK) < 0:
        return
    try:
        _set_format(alsa, pcm, shape)
    finally:
        alsa.snd_pcm_close(pcm)
    if endpoint.mixer:
        _load_mixer(alsa, endpoint.mixer)


def _set_format(alsa: ctypes.CDLL, pcm: ctypes.c_void_p, shape: Shape) -> None:
    parameters = ctypes.c_void_p()
    if alsa.snd_pcm_hw_params_malloc(ctypes.byref(parameters)) < 0:
        return
    try:
        if alsa.snd_pcm_hw_params_any(pcm, parameters) < 0:
            return
        kind = alsa.snd_pcm_format_value(shape.format.encode())
        alsa.snd_pcm_hw_params_set_access(pcm, parameters, _INTERLEAVED)
        alsa.snd_pcm_hw_params_set_format(pcm, parameters, kind)
        alsa.snd_pcm_hw_params_set_channels(pcm, parameters, shape.channels)
        rate, direction = ctypes.c_uint(shape.rate), ctypes.c_int(0)
        alsa.snd_pcm_hw_params_set_rate_near(pcm, parameters, ctypes.byref(rate), ctypes.byref(direction))
        alsa.snd_pcm_hw_params(pcm, parameters)
    finally:
        alsa.snd_pcm_hw_params_free(parameters)


def _load_mixer(alsa: ctypes.CDLL, card: str) -> None:
    mixer = ctypes.c_void_p()
    if alsa.snd_mixer_open(ctypes.byref(mixer), 0) < 0:
        return
    try:
        if alsa.snd_mixer_attach(mixer, card.encode()) >= 0 and alsa.snd_mixer_selem_register(mixer, None, None) >= 0:
            alsa.snd_mixer_load(mixer)
    finally:
        alsa.snd_mixer_close(mixer)
