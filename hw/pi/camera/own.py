"""The H.264 that a camera makes by itself: judged, and brought into the form that calls expect. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from hw.api import EncodedFrame
from hw.pi.encoder.units import B_PICTURE, IDR, KNOWN, OTHER_PROFILE, PPS, SLICE, SPS, fault_of_unit
from hw.sim.sources import nal_units

__all__ = ["OwnStream", "OwnStreamError"]

START: Final = b"\0\0\0\1"

KEY_S: Final = 1.0
"""From the request to the key frame; cameras take two or three pictures."""

DAMAGED: Final = 3
DAMAGED_S: Final = 1.5
"""So many units of no use within so many seconds; one alone, torn on the bus, is made good by a key frame."""

RATE_S: Final = 2.0
TOO_MUCH: Final = 2.0
"""Over the rate that is asked, for two times RATE_S on end: the camera does not follow."""

LEAST_RATE: Final = 300_000
"""Bits per second that no camera is asked to stay far below."""


class OwnStreamError(Exception):
    """A camera's own H.264 is of no use, and why."""


class OwnStream:
    """One stream from its first key frame on. Seconds are CLOCK_MONOTONIC."""

    def __init__(self, bitrate: int) -> None:
        self.bitrate = bitrate
        self._headers: dict[int, bytes] = {}
        self._begun = False
        self._asked: float | None = None
        self._damaged: deque[float] = deque()
        self._window: tuple[float, int] | None = None  # since when, bits
        self._over = 0

    def asked(self, now: float) -> None:
        """A key frame was requested."""
        self._asked = now if self._asked is None else self._asked

    @property
    def awaiting(self) -> bool:
        """Whether a key frame that was requested is on its way."""
        return self._asked is not None

    def unit(self, data: bytes, pts_us: int, now: float) -> tuple[EncodedFrame | None, bool]:
        """What goes out of an access unit that the camera delivered, None: nothing; and whether a key frame is wanted.

        Headers stand before every key frame whether the camera repeats them or not; nothing but them and slices is
        kept. Raises OwnStreamError.
        """
        units = list(nal_units(data)) if data.startswith((b"\0\0\1", START)) else []
        for kind, nal in units:
            if kind in (SPS, PPS):
                self._headers[kind] = nal
        kinds = {kind for kind, _ in units}
        key = IDR in kinds
        if not key and SLICE not in kinds and kinds and kinds <= KNOWN:
            return None, False  # headers that come by themselves
        slices = [nal for kind, nal in units if kind in (SLICE, IDR)]
        headers = [self._headers[kind] for kind in (SPS, PPS) if kind in self._headers] if key else []
        whole = b"".join(START + nal for nal in [*headers, *slices])
        if not units or not kinds <= KNOWN:
            whole = data
        if fault := fault_of_unit(whole):
            self._judge(fault, now)
            return None, True
        if key:
            self._begun, self._asked = True, None
        elif self._asked is not None and now - self._asked > KEY_S:
            raise OwnStreamError(f"it makes no key frame within {KEY_S:g} s when asked for one")
        self._weigh(len(whole) * 8, now)
        return (EncodedFrame(whole, pts_us, key), False) if self._begun else (None, True)

    def _judge(self, fault: str, now: float) -> None:
        if fault in (B_PICTURE, OTHER_PROFILE):
            raise OwnStreamError(f"it has {fault}")
        self._begun = False  # what follows refers to what is lost
        self._damaged.append(now)
        while now - self._damaged[0] > DAMAGED_S:
            self._damaged.popleft()
        if len(self._damaged) >= DAMAGED:
            raise OwnStreamError(f"it comes damaged: {fault}")

    def _weigh(self, bits: int, now: float) -> None:
        since, sum_bits = self._window or (now, 0)
        self._window = since, sum_bits + bits
        if now - since < RATE_S:
            return
        rate = sum_bits / (now - since)
        self._over = self._over + 1 if rate > TOO_MUCH * max(self.bitrate, LEAST_RATE) else 0
        self._window = None
        if self._over >= 2:
            raise OwnStreamError(f"it takes {rate / 1000:.0f} kbit/s where {self.bitrate / 1000:.0f} are asked")
