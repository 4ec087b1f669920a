"""``EchoCanceller`` over WebRTC's audio processing module (AEC3, NS, AGC2) as packaged in pywebrtc-audio.

The package releases the GIL while it works. It takes and gives numpy arrays: the one reason why numpy is in the daemon.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pywebrtc_audio as webrtc

from appliance.media.canceller import Filters, NoiseSuppression
from appliance.media.sound import RATE

__all__ = ["WebRtcCanceller"]

NS_LEVEL: Final = {NoiseSuppression.LOW: 1, NoiseSuppression.HIGH: 3}
MAX_GAIN_DB: Final = 24.0
"""Of the automatic gain. WebRTC's own 50 dB would raise a residual echo to the level of speech."""


class WebRtcCanceller:
    """Implements ``EchoCanceller``, stage by stage: the package's own combination of them (0.2.0) suppresses noise by
    7 dB at most, whatever its level."""

    def __init__(self, filters: Filters, delay_ms: int = 0) -> None:
        self._echo = webrtc.EchoCanceller(RATE, stream_delay_ms=delay_ms) if filters.aec else None
        self._highpass = webrtc.AudioProcessor(RATE, high_pass_filter=True) \
            if filters.highpass and not filters.aec else None
        self._noise = webrtc.NoiseSuppressor(RATE, level=NS_LEVEL[filters.ns]) if filters.ns in NS_LEVEL else None
        self._gain = webrtc.GainController(RATE, max_gain_db=MAX_GAIN_DB) if filters.agc else None

    def process(self, near: bytes, far: bytes) -> bytes:
        sound = np.frombuffer(near, np.int16)
        if self._echo is not None:
            sound = self._echo.process(sound, np.frombuffer(far, np.int16))
        elif self._highpass is not None:
            sound = self._highpass.process(sound)
        if self._noise is not None:
            sound = self._noise.process(sound)
        if self._gain is not None:
            sound = self._gain.process(sound)
        return sound.tobytes()

    @property
    def gain_db(self) -> float:
        return self._gain.gain_db if self._gain is not None else 0.0
