"""The camera process: sensor, encoder and nothing else. Started as ``python -m hw.sim.camera_process``.

One thread: it waits for commands until the next picture is due. Pictures are stamped and paced on CLOCK_MONOTONIC.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, EncoderKind, VideoMode
from hw.camera.light import is_dark
from hw.camera.preview import Preview
from hw.camera.serve import Owner, serve
from hw.camera.x264 import H264Encoder, jpeg
from hw.sim.obstacles import OBSTACLES, obstacle_of
from hw.sim.sources import Clip, Lent, PictureSource, SourceError, open_source

SLOW_SHARE: Final = 4
"""A slow sensor (fault ``camera.slow``) delivers one picture of this many: below half its rate."""

DEFAULT_MODE: Final = VideoMode()

_OPENING: Final = {name.removeprefix("camera.") for name in OBSTACLES} | {"timeout"}
"""Faults that are of a camera which is opened. Those of an HDMI input have its name."""

NO_SIGNAL: Final = "hdmi.noSignal"


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class Sensor:
    """Everything the process knows: what is wanted, the faults that are physically in force, the open source."""

    def __init__(self, spec: str, owner: Owner) -> None:
        self._spec = spec
        self._owner = owner
        self._preview = Preview(owner)
        self._wanted: tuple[int, VideoMode] | None = None  # number of the start, what the sensor is opened with
        self._asked: VideoMode | None = None  # changed to while open
        self._mode = DEFAULT_MODE  # what is made now
        self._faults: set[str] = set()
        self._source: PictureSource | None = None
        self._clip: Clip | None = None
        self._encoder: H264Encoder | None = None
        self._lent = Lent()
        self._was_lent = False
        self._last: VideoFrame | None = None
        self._counter = 0
        self._due_us = 0
        self._encode_us = 0  # a sensor that is faster than asked is thinned out
        self._dark = False
        # Made before it is needed: painting the still part of the picture and x264's tables take 60 ms.
        self._warm: tuple[str, VideoMode, PictureSource, H264Encoder] | None = None

    # --- from the board

    def handle(self, fields: Mapping[str, Any]) -> None:
        match fields["do"]:
            case "start":
                self._close()
                mode = _mode(fields)
                self._wanted, self._asked = (fields["generation"], mode), None
                self._open()
            case "mode":
                self._asked = _mode(fields)
                self._change_mode()
                generation = 0 if self._wanted is None else self._wanted[0]
                mode = self._mode
                self._owner.tell("mode", generation=generation, width=mode.width, height=mode.height, fps=mode.fps)
            case "stop":
                self._close()
                self._wanted, self._mode = None, DEFAULT_MODE
                self._owner.tell("stopped", generation=fields["generation"])
            case "keyframe":
                self._request_keyframe()
            case "bitrate":
                self._set_bitrate(int(fields["value"]))
            case "source":
                self._spec = fields["spec"]
                self._reopen()
            case "faults":
                self._set_faults(set(fields["active"]))
            case "preview":
                self._preview.want(int(fields["side"]))
            case "snapshot":
                self._snapshot(int(fields["id"]))
            case "ping":
                self._owner.tell("pong", id=fields["id"])
            case "warm":
                self._warm_up(_mode(fields))
            case unknown:
                raise ValueError(f"camera process: unknown command {unknown!r}")

    def lend(self, data: bytes) -> None:
        self._lent.offer(data, _now_us())

    def _set_faults(self, faults: set[str]) -> None:
        changed = faults ^ self._faults
        self._faults = faults
        self._tell_presence()
        if NO_SIGNAL in changed:
            self._owner.tell("signal", there=NO_SIGNAL not in faults, detail="nothing sends to the HDMI input")
        if changed & _OPENING:  # the sensor leaves the bus, or comes back to it
            self._reopen()

    def _tell_presence(self) -> None:
        why, detail = self._obstacle()
        self._owner.tell("device", why=why, detail=detail)

    def _obstacle(self) -> tuple[str, str]:
        obstacle = obstacle_of("camera", [f"camera.{name}" for name in self._faults])
        obstacle = obstacle or obstacle_of("hdmi", self._faults)
        return ("", "") if obstacle is None else (obstacle[0].value, obstacle[1])

    @property
    def _sees_nothing(self) -> bool:
        return bool(self._faults & {"black", NO_SIGNAL})

    # --- sensor

    def _reopen(self) -> None:
        if self._wanted is not None:
            self._close()
            self._open()

    def _warm_up(self, mode: VideoMode) -> None:
        if self._spec == "pattern" and self._source is None:
            self._warm = (self._spec, mode, open_source(self._spec, mode), H264Encoder(mode))

    def _open(self) -> None:
        assert self._wanted is not None  # noqa: S101
        generation, mode = self._wanted
        why, detail = self._obstacle()
        if why:
            self._owner.tell("device", why=why, detail=detail)
            return
        try:
            mode = self._open_source(mode)
        except SourceError as error:
            self._owner.tell("device", why=error.why, detail=str(error))
            return
        self._mode = mode
        self._due_us = self._encode_us = _now_us()
        self._dark = False  # the board forgets it with every start
        self._owner.tell(
            "started", generation=generation, width=mode.width, height=mode.height, fps=mode.fps, bitrate=mode.bitrate
        )
        self._change_mode()

    def _change_mode(self) -> None:
        """Make pictures as asked from the next one on: a new encoder begins with a key frame. The sensor stays."""
        mode = self._asked
        if mode is None or mode == self._mode or self._source is None:
            return
        if (mode.width, mode.height) != (self._mode.width, self._mode.height):
            self._source.resize(mode)
        self._mode, self._last = mode, None
        self._encoder = H264Encoder(mode)

    def _open_source(self, mode: VideoMode) -> VideoMode:
        kind, _, path = self._spec.partition(":")
        if kind == "clip":
            self._clip, self._asked = Clip(path), None
            return self._clip.mode
        warm, self._warm = self._warm, None
        if warm is not None and warm[:2] == (self._spec, mode):
            self._source, self._encoder = warm[2:]
        else:
            self._source = open_source(self._spec, mode)
            self._encoder = H264Encoder(mode)
        return mode

    def _close(self) -> None:
        if self._source is not None:
            self._source.close()
        self._source = self._clip = self._encoder = self._last = None

    @property
    def is_open(self) -> bool:
        return self._source is not None or self._clip is not None

    def files(self) -> Sequence[tuple[int, int]]:
        return ()  # pictures are due by the clock

    def wait_s(self) -> float | None:
        """Seconds until the next picture is due; None while the sensor is closed."""
        return max(0.0, (self._due_us - _now_us()) / 1e6) if self.is_open else None

    def tick(self) -> None:
        """Take the picture that is due, if one is."""
        now = _now_us()
        if not self.is_open or now < self._due_us:
            return
        period = 1_000_000 // self._mode.fps
        self._due_us += period
        if self._due_us < now - period:  # stalled: go on from here, a sensor does not catch up
            self._due_us = now + period
        self._counter += 1
        if self._faults & {"freeze", "timeout"}:
            return
        if "slow" in self._faults and self._counter % SLOW_SHARE:
            return
        try:
            frame = self._take(now)
        except SourceError as error:
            self._close()
            self._owner.tell("device", why=error.why, detail=str(error))
            return
        if frame is not None:
            assert self._wanted is not None  # noqa: S101 - only while open
            self._owner.frame(self._wanted[0], frame)
            passed = self._clip is not None and not self._was_lent
            if self._last is not None and not passed and self._preview.due(frame.pts_us):
                self._preview.show(self._wanted[0], self._last, self._mode)

    def _take(self, now: int) -> EncodedFrame | None:
        lent = None if self._sees_nothing else self._lent.picture(self._mode, now)
        if (lent is not None) != self._was_lent:
            self._was_lent = lent is not None
            self._request_keyframe()  # from clip to encoder and back the stream must begin anew
            kind = EncoderKind.RECORDED if self._clip is not None and lent is None else EncoderKind.SOFTWARE
            self._owner.tell("encoder", kind=kind.value)
        if lent is None and self._clip is not None and not self._sees_nothing:
            return self._clip.unit(now)
        if self._sees_nothing:
            picture = _black(self._mode)
        elif lent is not None:
            picture = lent
        else:
            assert self._source is not None  # noqa: S101
            picture = self._source.picture(self._counter, now)
            if self._source.live:
                now = self._due_us = _now_us()  # it has just been captured; the next one is waited for at once
                if self._thinned(now):
                    return None
        if self._counter % max(1, self._mode.fps // 2) == 0:
            self._judge_light(picture)
        self._last = picture
        if self._encoder is None:
            self._encoder = H264Encoder(self._mode)
        return self._encoder.encode(picture, now)

    def _thinned(self, now: int) -> bool:
        """Whether a picture comes too early for the rate that is asked."""
        period = 1_000_000 // self._mode.fps
        if now < self._encode_us - period // 4:  # sensors are not that regular
            return True
        self._encode_us = max(self._encode_us + period, now)
        return False

    def _judge_light(self, picture: VideoFrame) -> None:
        dark = is_dark(picture)
        if dark != self._dark:
            self._dark = dark
            self._owner.tell("dark", dark=dark)

    def _request_keyframe(self) -> None:
        if self._clip is not None:
            self._clip.jump()
        if self._encoder is not None:
            self._encoder.force_keyframe()

    def _set_bitrate(self, value: int) -> None:
        if self._wanted is not None:
            self._mode = replace(self._mode, bitrate=value)
            self._asked = replace(self._asked or self._wanted[1], bitrate=value)
        if self._encoder is not None:
            self._encoder.set_bitrate(value)

    # --- snapshot

    def _snapshot(self, number: int) -> None:
        why, detail = self._obstacle()
        if self._faults & {"freeze", "timeout"}:
            why, detail = "stalled", "the camera delivers no picture"
        try:
            picture = None if why else self._picture_now()
        except SourceError as error:
            picture, why, detail = None, error.why, str(error)
        if picture is None:
            self._owner.tell("snapshot_failed", id=number, why=why, detail=detail)
            return
        self._owner.snapshot(number, jpeg(picture))

    def _picture_now(self) -> VideoFrame:
        """The picture just taken, or one taken for this purpose with the sensor open no longer than that."""
        now = _now_us()
        if self._sees_nothing:
            return _black(self._mode)
        if self.is_open and self._last is not None and (self._clip is None or self._was_lent):
            return self._last
        lent = self._lent.picture(self._mode, now)
        if lent is not None:
            return lent
        kind, _, path = self._spec.partition(":")
        if kind == "clip":
            clip = self._clip or Clip(path)
            return clip.picture(clip.mode)
        source = self._source or open_source(self._spec, self._mode)
        try:
            return source.picture(self._counter, now)
        finally:
            if source is not self._source:
                source.close()


def _mode(fields: Mapping[str, Any]) -> VideoMode:
    return VideoMode(fields["width"], fields["height"], fields["fps"], fields["bitrate"], fields.get("slice_bytes", 0))


def _black(mode: VideoMode) -> VideoFrame:
    frame = VideoFrame(mode.width, mode.height, "yuv420p")
    for plane, value in zip(frame.planes, (16, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


if __name__ == "__main__":
    serve(lambda owner: Sensor(sys.argv[1], owner))
