"""The process of a real camera: sensor, picture, encoder. Started as ``python -m hw.pi.camera.process CONFIGURATION``.

One thread, which sleeps until the sensor has a picture, the encoder a unit, or the board a command. The camera is
looked up by where it is plugged at every opening, so that one that returns under another number is the same.
"""

from __future__ import annotations

import logging
import select
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from av.video.frame import VideoFrame

from hw.api import (
    DeviceDeniedError,
    DeviceFailedError,
    DeviceMissingError,
    DevicePulledError,
    EncoderKind,
    FaultKind,
    HardwareError,
    VideoMode,
)
from hw.blame import fault_of
from hw.camera.light import is_dark
from hw.camera.preview import Preview
from hw.camera.serve import Owner, serve
from hw.camera.x264 import jpeg
from hw.pi.camera.config import WHOLE, CameraConfig, config_of, ranked
from hw.pi.camera.csi import CSI, CsiSensor, csi_lacks, find_csi
from hw.pi.camera.develop import Developer
from hw.pi.camera.own import OwnStream, OwnStreamError
from hw.pi.camera.sensor import Sensor
from hw.pi.camera.usb import UsbCamera, UsbSensor, find_usb
from hw.pi.encoder.ladder import CameraEncoder
from hw.pi.encoder.units import key_picture
from hw.pi.settling import AGAIN_S, is_settling
from hw.pi.shot import Shot
from hw.pi.v4l2 import Format, nodes_named

_log = logging.getLogger("hw.camera")

LOOK_S: Final = 1.0
"""What is plugged in is looked at this often, while the camera is closed or others than the best are used."""

REFUSED_S: Final = 5.0
"""A better camera that refused is tried so often while another is used: nobody tells when its holder lets it go."""

SNAPSHOT_S: Final = 1.8
SETTLE: Final = 4
"""Pictures after opening for which exposure and white balance need time."""


class _SettlingError(Exception):
    """A camera has just come and may not be opened yet."""


class RealCamera:
    """What the process serves."""

    def __init__(self, config: CameraConfig, owner: Owner) -> None:
        self._config, self._owner = config, owner
        self._preview = Preview(owner)
        self._wanted: tuple[int, VideoMode] | None = None  # number of the start, what the sensor is opened with
        self._mode = VideoMode()  # what is asked of the encoder now
        self._told_mode = VideoMode()
        self._sensor: Sensor | None = None
        self._developer: Developer | None = None
        self._beside: tuple[VideoMode, Developer] | None = None  # of small pictures, and their size
        self._last: VideoFrame | None = None
        self._shot: Shot | None = None  # the last one, where it may be looked at later
        self._due_us = 0
        self._counter = 0
        self._dark = False
        self._pulled = ""
        self._seen: frozenset[tuple[str, str]] | None = None
        self._look_at = 0.0
        self._again_at: float | None = None  # a camera that has just come is opened again then
        self._plugged: Sequence[object] = ()
        self._own: OwnStream | None = None  # while the camera's own H.264 is passed through
        self._chosen = self._blamed = ""  # ids of the camera that was opened last, and of what trouble is of
        self._selected = ""  # id of the one that is preferred to all others
        self._refused: dict[str, float] = {}  # by id, those that others stand in for, and when to try them again
        self._own_faults: dict[str, str] = {}  # by id: why a camera's own H.264 is not asked for again
        self._stills: list[tuple[int, float]] = []  # snapshots that wait for its next one, with their deadlines
        self._maker = (EncoderKind.SOFTWARE, "", FaultKind.FAILED)
        self._encoder = CameraEncoder(self._tell_encoder, hardware=config.encoder != "software",
                                      expected=config.encoder in ("hardware", "picamera2"))

    # --- to the board

    def _tell_encoder(self, *maker: *tuple[EncoderKind, str, FaultKind]) -> None:
        self._maker = maker
        self._tell_maker()

    def _tell_maker(self) -> None:
        kind, reason, fault = self._maker if self._own is None else (EncoderKind.CAMERA, "", FaultKind.FAILED)
        self._owner.tell("encoder", kind=kind.value)
        self._owner.tell("fallback", active=bool(reason), detail=reason, why=fault.value)

    def _tell_trouble(self, error: HardwareError) -> None:
        fault, words = fault_of(error), str(error)
        if fault is FaultKind.PULLED:
            self._pulled = words
        elif fault is FaultKind.MISSING and self._pulled:  # what it was when it went is what helps
            fault, words = FaultKind.PULLED, self._pulled
        blamed = "" if fault is FaultKind.MISSING else self._blamed
        self._owner.tell("device", why=fault.value, detail=words, id=blamed)

    def _tell_mode(self, mode: VideoMode) -> None:
        generation = 0 if self._wanted is None else self._wanted[0]
        self._told_mode = mode
        self._owner.tell("mode", generation=generation, width=mode.width, height=mode.height, fps=mode.fps)

    # --- from the board

    def handle(self, fields: Mapping[str, Any]) -> None:
        match fields["do"]:
            case "start":
                self._close()
                self._refused.clear()
                self._mode = _mode(fields)
                self._wanted = fields["generation"], self._mode
                self._open()
            case "mode":
                self._mode = _mode(fields)
                if self._sensor is not None:
                    self._tell_mode(self._prepare(self._sensor))
            case "stop":
                self._close()
                self._wanted = None
                self._owner.tell("stopped", generation=fields["generation"])
            case "select":
                self._select(str(fields["id"]))
                self._owner.tell("selected")
            case "keyframe":
                self._ask_key()
            case "bitrate":
                self._mode = replace(self._mode, bitrate=int(fields["value"]))
                self._encoder.set_bitrate(self._mode.bitrate)
                self._steer_rate()
            case "preview":
                self._preview.want(int(fields["side"]))
            case "snapshot":
                self._snapshot(int(fields["id"]))
            case "ping":
                self._owner.tell("pong", id=fields["id"])
            case "warm":
                pass  # the encoder was proven at the start, and a real sensor is never opened before it is wanted
            case unknown:
                raise ValueError(f"camera process: unknown command {unknown!r}")

    def lend(self, data: bytes) -> None:
        raise ValueError("camera process: a real camera takes no pictures from elsewhere")

    # --- sensor

    def _ranked(self) -> list[UsbCamera]:
        """The cameras that are there, best first: the selected one, then by the board file's list, without which CSI
        comes before USB. One at least; raises DeviceMissingError."""
        there = [*find_csi(), *find_usb()]
        self._tell_cameras(there)
        found = ranked(there, self._config.devices, self._selected)
        if found:
            return found
        if lacks := csi_lacks():
            raise DeviceMissingError(f"no camera is found: {lacks}")
        if not self._config.devices:
            raise DeviceMissingError("no camera is plugged in: check cable and power")
        others = ", ".join(camera.id for camera in there) or "none at all"
        raise DeviceMissingError(f"none of the board file's cameras {', '.join(self._config.devices)} is there, "
                                 f"but {others}: plug it in, or name another")

    def _tell_cameras(self, there: Sequence[UsbCamera]) -> None:
        seen = frozenset((camera.id, camera.name) for camera in there)
        ids = {camera.id for camera in there}  # one that returns is another chance
        self._refused = {camera: at for camera, at in self._refused.items() if camera in ids}
        if seen != self._seen:
            self._seen = seen
            self._owner.tell("cameras", there=[{"id": camera.id, "name": camera.name} for camera in there])

    def _open_sensor(self, camera: UsbCamera, mode: VideoMode) -> Sensor:
        if camera.path == CSI:
            return CsiSensor(camera, mode, self._config)
        return UsbSensor(camera, mode, self._config,
                         own=self._config.untouched and camera.id not in self._own_faults)

    def _open_best(self, mode: VideoMode) -> Sensor:
        """The best that opens; what keeps better ones from it is told. Raises the error of the best where none does,
        and _SettlingError."""
        cameras, now = self._ranked(), time.monotonic()
        passed: list[tuple[UsbCamera, HardwareError]] = []
        for camera in [one for one in cameras if self._refused.get(one.id, now) <= now] or cameras:
            try:
                sensor = self._open_sensor(camera, mode)
            except HardwareError as error:
                if isinstance(error, DeviceDeniedError) and is_settling(camera.path):
                    raise _SettlingError from error
                passed.append((camera, error))
                continue
            for better, refusal in passed:
                self._refuse(better.id, refusal)
            self._use(camera)
            return sensor
        self._blamed = passed[0][0].id
        raise passed[0][1]

    def _use(self, camera: UsbCamera) -> None:
        self._chosen = self._blamed = camera.id
        self._refused.pop(camera.id, None)
        self._owner.tell("using", id=camera.id)

    def _refuse(self, camera: str, error: HardwareError) -> None:
        """Another stands in for it."""
        gone = isinstance(error, DeviceMissingError)  # somebody may be holding its plug
        self._refused[camera] = time.monotonic() + (LOOK_S if gone else REFUSED_S)
        fault = fault_of(error)
        if fault is not FaultKind.MISSING:  # of one that is going, the list lags behind
            self._owner.tell("refused", id=camera, why=fault.value, detail=str(error))

    def _open(self) -> None:
        assert self._wanted is not None  # noqa: S101
        self._again_at = None
        try:
            sensor = self._open_best(self._wanted[1])
        except _SettlingError:
            self._again_at = time.monotonic() + AGAIN_S
        except HardwareError as error:
            self._tell_trouble(error)
        else:
            self._begin(sensor)

    def _begin(self, sensor: Sensor) -> None:
        assert self._wanted is not None  # noqa: S101
        generation, self._sensor = self._wanted[0], sensor
        self._pulled = ""
        self._dark = False  # the board forgets it with every start
        self._due_us = 0
        self._owner.tell("note", text=self._own_faults.get(self._chosen, self._sensor.note))
        made = self._told_mode = self._prepare(self._sensor)
        self._owner.tell("started", generation=generation, width=made.width, height=made.height, fps=made.fps,
                         bitrate=made.bitrate)

    def _prepare(self, sensor: Sensor) -> VideoMode:
        """Encoder and pictures for the mode that is asked; returns what is made. A camera's own H.264 is passed through
        in the size that it was opened with, and else decoded and encoded again."""
        assert self._wanted is not None  # noqa: S101
        opened, mode, passed = self._wanted[1], self._mode, self._own
        self._own = None
        if sensor.steering is not None and mode == replace(opened, bitrate=mode.bitrate):
            self._own, made = OwnStream(mode.bitrate), mode
            self._encoder.close()
        else:
            made = self._encoder.open(mode, self._as_it_lies(sensor, mode), sensor.driver)
        self._developer, self._beside = Developer(self._config, made, zoomed=sensor.zooms), None
        if sensor.steering is not None:
            self._last = None
            self._steer_rate()
            self._ask_key()  # from there on it can be decoded, here or there
        if (passed is None) != (self._own is None):
            self._tell_maker()
        return made

    def _as_it_lies(self, sensor: Sensor, mode: VideoMode) -> Format | None:
        """How its pictures lie, where an encoder may have them as they are."""
        layout, config = sensor.layout, self._config
        plain = not (config.rotation or config.masks) and (sensor.zooms or config.part == WHOLE)
        fits = layout is not None and (layout.width, layout.height) == (mode.width, mode.height)
        return layout if plain and fits else None

    def _hold(self, shot: Shot | None) -> None:
        """The one that may be looked at later, in place of the one before."""
        if self._shot is not None:
            self._shot.close()
        self._shot = shot

    def _close(self) -> None:
        self._hold(None)
        self._encoder.close()  # before the camera, whose memory it reads
        if self._sensor is not None:
            self._sensor.close()
        self._sensor = self._developer = self._beside = self._last = self._again_at = None
        if self._own is not None:
            self._own = None
            self._tell_maker()

    def _lose(self, error: HardwareError) -> None:
        """The camera in use failed: the next takes over, if there is one, while one that was pulled is told as that."""
        self._close()
        others = [one for one in [*find_csi(), *find_usb()] if one.id != self._chosen]
        if isinstance(error, DevicePulledError) and ranked(others, self._config.devices, self._selected):
            self._refuse(self._chosen, error)
            self._plugged = ()  # what was seen before says nothing: it may be back under the same name at once
            self._open()
        else:
            self._tell_trouble(error)

    # --- a better one

    def _select(self, camera: str) -> None:
        self._selected = camera
        self._refused.pop(camera, None)
        if self._sensor is not None:
            self._take_better()
        elif self._wanted is not None:
            self._open()

    def _prefer(self) -> None:
        """While a picture is made, look whether it could be one of a better camera."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        plugged = nodes_named()
        if plugged != self._plugged or any(at <= now for at in self._refused.values()):
            self._plugged = plugged
            self._take_better()

    def _take_better(self) -> None:
        """Open the best before the one in use is closed, so that one that refuses costs no picture. It stays in use
        until then, and where the bus has no room for both it is closed first."""
        try:
            cameras = self._ranked()
        except DeviceMissingError:  # the one in use is going: its next picture tells
            return
        for better in cameras:
            if better.id == self._chosen or self._take(better):
                return

    def _take(self, camera: UsbCamera) -> bool:
        """Use ``camera`` instead of the one that is open; False where it refuses, or did just now."""
        assert self._wanted is not None  # noqa: S101 - only while open
        now = time.monotonic()
        new = camera.id not in self._refused
        if self._refused.get(camera.id, now) > now:
            return False
        try:
            sensor = self._open_sensor(camera, self._wanted[1])
        except HardwareError as error:
            if isinstance(error, DeviceDeniedError) and is_settling(camera.path):
                self._refused[camera.id] = now + AGAIN_S
            elif new and type(error) is DeviceFailedError:
                self._close()
                self._open()
                return True
            else:
                self._refuse(camera.id, error)
            return False
        self._close()
        self._use(camera)
        self._begin(sensor)
        return True

    # --- the camera's own H.264

    def _ask_key(self) -> None:
        self._encoder.force_keyframe()
        if self._sensor is not None and self._sensor.steering is not None:
            if self._own is not None:
                self._own.asked(time.monotonic())
            with suppress(OSError):  # one that is gone is noticed by its next unit, one that refuses by the judge
                self._sensor.steering.request_keyframe()

    def _steer_rate(self) -> None:
        if self._own is not None:
            self._own.bitrate = self._mode.bitrate
        if self._sensor is not None and self._sensor.steering is not None:
            with suppress(OSError):
                self._sensor.steering.set_bitrate(self._mode.bitrate)

    def _pass_on(self, sensor: Sensor, own: OwnStream) -> None:
        assert self._wanted is not None  # noqa: S101
        try:
            for data, pts_us in sensor.units():
                frame, wanted = own.unit(data, pts_us, time.monotonic())
                if wanted and not own.awaiting:
                    self._ask_key()
                if frame is None:
                    continue
                self._owner.frame(self._wanted[0], frame)
                if frame.keyframe:
                    self._seen_key(frame.data)
        except OwnStreamError as error:
            fault = self._own_faults[self._chosen] = f"its own H.264 is not used: {error}"
            _log.warning("%s: %s", sensor.what, fault)
            self._close()
            self._open()

    def _seen_key(self, data: bytes) -> None:
        """The only pictures of an own stream that are looked at here."""
        picture = key_picture(data)
        if picture is None:
            return
        self._judge_light(picture)
        waiting, self._stills = self._stills, []
        for number, _ in waiting:
            self._owner.snapshot(number, jpeg(picture))

    # --- the thread

    def files(self) -> Sequence[tuple[int, int]]:
        if self._sensor is None:
            return ()
        return ((self._sensor.file, select.POLLIN), *self._encoder.files())

    def wait_s(self) -> float | None:
        if self._sensor is None:
            return LOOK_S if self._again_at is None else AGAIN_S
        return LOOK_S if self._stills else self._encoder.wait_s()

    def tick(self) -> None:
        self._encoder.recover()
        self._judge_stills()
        if self._sensor is None:
            if self._again_at is not None and time.monotonic() >= self._again_at:
                self._open()
            self._look()
            return
        try:
            if self._own is not None:
                self._pass_on(self._sensor, self._own)
                self._prefer()
                return
            taken = self._sensor.take()
        except HardwareError as error:
            self._lose(error)
            return
        if taken is not None:
            self._picture(taken)
        self._deliver()
        self._show()
        self._prefer()

    def _look(self) -> None:
        """Tell what is plugged in when that has changed."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            plugged = nodes_named()
            if plugged != self._plugged:
                self._plugged = plugged
                self._judge_plugs()

    def _judge_plugs(self) -> None:
        """A camera that the board file requires is missed before anybody wants a picture of it."""
        try:
            self._ranked()
        except DeviceMissingError as error:
            if self._config.use == "required":
                self._tell_trouble(error)
        else:
            if self._config.use == "required":
                self._owner.tell("device", why="", detail="")

    def _picture(self, shot: Shot) -> None:
        if self._thinned(shot.pts_us):
            shot.close()
            return
        assert self._developer is not None  # noqa: S101 - only while open
        self._hold(shot.keep())
        self._counter += 1
        judged = self._counter % max(1, self._mode.fps // 2) == 0
        shared = self._encoder.shares
        self._last = self._developed() if judged or not shared else None
        if self._last is not None and judged:
            self._judge_light(self._last)
        if shared:
            self._encoder.share(shot)
            return
        shot.close()
        if self._last is not None:  # else it is damaged
            self._encoder.encode(self._last, shot.pts_us)

    def _developed(self) -> VideoFrame | None:
        """The last picture, as it leaves; None: there is none, or it is damaged."""
        if self._shot is None or self._developer is None:
            return None
        picture = self._shot.picture()
        return None if picture is None else self._developer.develop(picture)

    def _judge_light(self, shown: VideoFrame) -> None:
        if is_dark(shown) != self._dark:
            self._dark = not self._dark
            self._owner.tell("dark", dark=self._dark)

    def _thinned(self, pts_us: int) -> bool:
        """Whether a picture comes too early for the rate that is made; sensors are not that regular."""
        period = 1_000_000 // self._encoder.mode.fps
        if pts_us < self._due_us - period // 4:
            return True
        self._due_us = max(self._due_us + period, pts_us)
        return False

    def _deliver(self) -> None:
        assert self._wanted is not None  # noqa: S101 - only while open
        for unit in self._encoder.collect():
            self._owner.frame(self._wanted[0], unit)
        made = self._encoder.mode
        if (made.width, made.height, made.fps) != (self._told_mode.width, self._told_mode.height, self._told_mode.fps):
            assert self._sensor is not None  # noqa: S101
            self._developer = Developer(self._config, made, zoomed=self._sensor.zooms)  # it fell back
            self._beside = None
            self._tell_mode(made)

    # --- small pictures

    def _small(self, picture: VideoFrame, mode: VideoMode) -> VideoFrame:
        """As it leaves, in the size of ``mode``."""
        assert self._sensor is not None  # noqa: S101 - only while open
        if self._beside is None or self._beside[0] != mode:
            self._beside = mode, Developer(self._config, mode, zoomed=self._sensor.zooms)
        return self._beside[1].develop(picture)

    def _show(self) -> None:
        """The last picture, for who looks, where it is its turn: of the small stream where that is large enough."""
        shot, mode, picture = self._shot, self._told_mode, self._last
        if shot is None or self._wanted is None or not self._preview.due(shot.pts_us):
            return
        if picture is None:
            size = self._preview.mode_of(mode)
            with suppress(HardwareError):  # of memory that is no picture: it is not shown
                raw = shot.at_least(size.width)
                picture = None if raw is None else self._small(raw, size)
        if picture is not None:
            self._preview.show(self._wanted[0], picture, mode)

    def _snapshot(self, number: int) -> None:
        if self._own is not None:
            self._stills.append((number, time.monotonic() + SNAPSHOT_S))
            self._ask_key()
            return
        try:
            self._owner.snapshot(number, jpeg(self._still()))
        except HardwareError as error:
            self._refuse_still(number, error)

    def _still(self) -> VideoFrame:
        """What a snapshot shows: the small picture beside the last one where that is larger, else the last one."""
        if self._sensor is None or self._shot is None:
            return self._look_once()
        small = self._shot.small()
        if small is not None and small.width < self._told_mode.width:
            return self._small(small, replace(self._told_mode, width=small.width, height=small.height))
        self._last = self._last or self._developed()
        return self._last or self._look_once()

    def _judge_stills(self) -> None:
        waiting, self._stills = self._stills, []
        for number, deadline in waiting:
            if self._own is None:
                self._snapshot(number)
            elif time.monotonic() < deadline:
                self._stills.append((number, deadline))
            else:
                self._refuse_still(number, DeviceFailedError("the camera makes no key frame to show"))

    def _refuse_still(self, number: int, error: HardwareError) -> None:
        self._owner.tell("snapshot_failed", id=number, why=fault_of(error).value, detail=str(error))

    def _look_once(self) -> VideoFrame:
        """A picture of a camera that is closed, open no longer than that; of one just opened, its first."""
        sensor, deadline = self._sensor, time.monotonic() + SNAPSHOT_S
        mode = self._mode if sensor is not None else VideoMode()
        settle = 1 if sensor is not None else SETTLE
        try:
            opened = sensor or self._open_best(mode)
        except _SettlingError as error:
            raise DeviceFailedError("the camera was plugged in just now: ask again in a second") from error
        developer = Developer(self._config, mode, zoomed=opened.zooms)
        picture: VideoFrame | None = None
        try:
            while settle and (left := deadline - time.monotonic()) > 0:
                poll = select.poll()
                poll.register(opened.file, select.POLLIN)
                poll.poll(left * 1000)
                taken = opened.take()
                if taken is not None:
                    picture, settle = taken.picture() or picture, settle - 1
                    taken.close()
            if picture is None:
                raise DeviceFailedError(f"{opened.what} delivers no picture")
            return developer.develop(picture)
        finally:
            if opened is not sensor:
                opened.close()


def _mode(fields: Mapping[str, Any]) -> VideoMode:
    return VideoMode(fields["width"], fields["height"], fields["fps"], fields["bitrate"], fields.get("slice_bytes", 0))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    serve(lambda owner: RealCamera(config_of(sys.argv[1]), owner))
