"""The appliance as it is, with marks at its ends: run in place of ``-m appliance`` by a bench.

* a simulated microphone that is told to hear ``wav:…/marks.wav`` hears a mark whenever CLOCK_MONOTONIC passes a
  multiple of ``PERIOD_S``, as the test picture carries the clock;
* every picture that is handed to the screen is noted, with the time and its frame counter, as one line of
  ``EDGECALL_BENCH_PICTURES``: ``{"at": seconds, "counter": number or null}``.

Everything between is the product.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import appliance.media.session as session
import hw.sim.audio as audio
from appliance.__main__ import main
from appliance.media.video_in import VideoIn
from hw.api import Picture
from hw.sim import pattern
from hw.sim.sounds import Sound, open_sound

RATE = 48_000
RESYNC_S = 0.05


class ClockMarks:
    """A block that is read at t holds the sound of the time before t, as a sound card's does."""

    def __init__(self, mark: bytes, period_s: float) -> None:
        self._mark = mark
        self._period_s = period_s
        self._origin = -math.inf
        self._read = 0

    def read(self, size: int) -> bytes:
        self._read += size // 2
        origin = time.monotonic() - self._read / RATE
        if origin < self._origin or origin > self._origin + RESYNC_S:  # a wake-up is late now and then, never early
            self._origin = origin
        begin = self._origin + (self._read - size // 2) / RATE
        due = math.floor((begin + size / 2 / RATE) / self._period_s) * self._period_s
        offset = round((begin - due) * RATE) * 2  # of this block within the mark; negative: it begins in the block
        if offset >= 0:
            return self._mark[offset:offset + size].ljust(size, b"\0")
        return (bytes(-offset) + self._mark[:size + offset]).ljust(size, b"\0")


def open_marked(spec: str) -> Sound:
    if not spec.endswith("marks.wav"):
        return open_sound(spec)
    from tests.bench.marks import PERIOD_S, sweep_pcm

    return ClockMarks(sweep_pcm(), PERIOD_S)


class MarkedVideoIn(VideoIn):
    def __init__(self, *arguments: Any, on_picture: Callable[[Picture], None], **others: Any) -> None:
        def noted(picture: Picture) -> None:
            now = time.monotonic()
            on_picture(picture)
            mark = pattern.read(picture.i420, picture.width, picture.height)
            with Path(os.environ["EDGECALL_BENCH_PICTURES"]).open("a") as out:
                out.write(json.dumps({"at": now, "counter": None if mark is None else mark.counter}) + "\n")

        super().__init__(*arguments, on_picture=noted, **others)


if __name__ == "__main__":
    audio.open_sound = open_marked
    session.VideoIn = MarkedVideoIn  # type: ignore[misc]
    sys.exit(main())
