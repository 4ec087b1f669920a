"""What is done to the microphone's sound, and who does it: echo cancellation, noise suppression, gain, high-pass.

The interface is ours, the work WebRTC's (``webrtc_apm``, AEC3). Where its package is not installed there is no
canceller, and the half-duplex guard of ``echo`` stands in.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ["EchoCanceller", "Factory", "Filters", "NoiseSuppression", "find_canceller"]

log = logging.getLogger(__name__)


class NoiseSuppression(StrEnum):
    """How much of a steady noise is taken away."""

    OFF = "off"
    LOW = "low"  # 12 dB: inaudible on speech
    HIGH = "high"  # 21 dB: for a loud place; colours speech


@dataclass(frozen=True, slots=True)
class Filters:
    """What is wanted. ``aec`` brings its own high-pass: a microphone's offset would spoil it."""

    aec: bool = False
    ns: NoiseSuppression = NoiseSuppression.OFF
    agc: bool = False
    highpass: bool = False

    @property
    def any(self) -> bool:
        return self.aec or self.agc or self.highpass or self.ns is not NoiseSuppression.OFF


class EchoCanceller(Protocol):
    """One chain for one set of ``Filters``, used on the audio thread alone. It never waits and never raises."""

    def process(self, near: bytes, far: bytes) -> bytes:
        """10 ms of the microphone, cleaned. ``far`` is what the loudspeaker played at that moment; the way from there
        to the microphone may take up to 500 ms. Both are 480 samples of 48 kHz mono s16le."""

    @property
    def gain_db(self) -> float:
        """What the automatic gain adds now; 0 without it."""


Factory = Callable[[Filters, int], EchoCanceller]
"""Makes a chain from the filters and a hint: the delay of the acoustic path in ms, 0 when it is not known."""


def find_canceller() -> Factory | None:
    """The canceller that is installed. Blocking: its import costs 0.1 s and, with numpy, 12 MiB, so it is loaded only
    where a filter is wanted."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's own threads would stand idle, one a core
    try:
        from appliance.media.webrtc_apm import WebRtcCanceller
    except ImportError as error:
        log.warning("no echo canceller: %s; half-duplex stands in", error)
        return None
    return WebRtcCanceller
