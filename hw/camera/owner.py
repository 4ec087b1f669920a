"""A camera that lives in a process of its own (``hw.sim.camera_process``, ``hw.pi.camera.process``): its owner's side.

The thread ``hw.camera`` starts the process when the board opens, reads its pipe, calls the sink and watches. A
process that dies or does not answer is a fault; it is killed and started again with growing pauses, and the pictures
come back by themselves.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from hw.api import (
    DeviceBusyError,
    DeviceFailedError,
    EncodedFrame,
    EncoderKind,
    FaultKind,
    HardwareError,
    Picture,
    VideoMode,
)
from hw.blame import error_of
from hw.camera import wire
from hw.camera.child import end, launch
from hw.camera.trouble import CameraTrouble
from hw.camera.watch import START_TIMEOUT_S, FrameWatch
from hw.faults import FaultLine

__all__ = ["ProcessCamera"]

_log = logging.getLogger("hw.camera")

START_WAIT_S: Final = 0.15
"""``start`` waits this long for the process to say what the sensor really does; the contract allows 200 ms."""

STOP_WAIT_S: Final = 0.4
"""Then the process is killed; the contract allows 500 ms."""

PING_S: Final = 1.0
PONG_S: Final = 3.0
"""A process that says nothing for PONG_S is stuck in a driver: kill it. Asked every PING_S while pictures are due."""

READY_S: Final = 20.0
"""From exec to ready; 0.4 s on an idle PC, many times that on a Pi Zero reading a cold card."""

RETRY_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Pauses before the process is started, or the sensor opened, again; the last one is repeated."""

PLUG_S: Final = 2.0
"""An unplugged camera is looked for this often."""

HEALTHY_S: Final = 30.0
"""After this long with pictures the pauses begin at the first one again."""

LEAST_SIDE: Final = 64  # pixels, of small pictures' longer side

OUTBOX: Final = 4 * 1024 * 1024
"""Bytes that may wait for a process that does not read; beyond, it is taken for stuck."""

_OBSTACLES: Final = (
    FaultKind.MISSING, FaultKind.PULLED, FaultKind.BUSY, FaultKind.DENIED, FaultKind.FORMAT, FaultKind.FAILED,
)  # fmt: skip


@dataclass(slots=True)
class _Start:
    """One ``start``: what was asked, who gets it, and what the sensor said."""

    generation: int
    opened: VideoMode  # what the sensor is opened with
    mode: VideoMode  # what is made of it now
    sink: Callable[[EncodedFrame], None]
    watch: FrameWatch
    answered: threading.Event


@dataclass(slots=True)
class _Still:
    """One snapshot on its way."""

    done: threading.Event
    jpeg: bytes = b""
    error: HardwareError | None = None


class ProcessCamera:
    """Implements ``hw.api.Camera``. ``close`` ends process and thread."""

    def __init__(
        self, device: str, spec: str, faults: FaultLine, warm: VideoMode | None = None, *,
        program: str = "hw.sim.camera_process",
    ) -> None:  # fmt: skip
        """``program`` is the module that is run, ``spec`` its one argument."""
        self._trouble = CameraTrouble(device, faults)
        self._program = program
        self._faults = faults
        self._warm = warm or VideoMode()
        self._lock = threading.RLock()  # everything below
        self._delivery = threading.RLock()  # held while the sink runs: who holds it knows that no callback does
        self._spec = spec
        self._encoder = _encoder_of(spec)
        self._cameras: tuple[tuple[str, str], ...] = ()
        self.note = ""
        """What is to be known of the camera that was opened last, for people."""
        self._physics: frozenset[str] = frozenset()
        self._start: _Start | None = None
        self._looks: tuple[Callable[[Picture], None], int] | None = None  # who, and how large
        self._generation = 0
        self._stopped = threading.Event()
        self._stills: dict[int, _Still] = {}
        self._still_number = 0
        self._picture: bytes | None = None
        self._outbox: deque[bytes] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._unsent = b""
        self._unframer = wire.Unframer()
        self._ready = False
        self._kill = ""
        self._heard = self._asked = 0.0
        self._attempts = 0
        self._retry_at = 0.0
        self._healthy_since: float | None = None
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="hw.camera", daemon=True)
        self._thread.start()

    # --- the contract

    @property
    def encoder(self) -> EncoderKind:
        return self._encoder

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        with self._lock:
            if self._start is not None:
                raise DeviceBusyError(f"camera {self._trouble.device}: it is started already, by this program")
            if self._closing:
                raise DeviceFailedError(f"camera {self._trouble.device}: the board is closed")
            self._generation += 1
            start = _Start(
                self._generation, mode, mode, sink, FrameWatch(mode.fps, time.monotonic()), threading.Event()
            )
            self._start = start
            self._tell_start()
        if threading.current_thread() is not self._thread:
            start.answered.wait(START_WAIT_S)
        return start.mode

    def request_keyframe(self) -> None:
        self._tell(do="keyframe")

    def set_bitrate(self, bits_per_second: int) -> None:
        with self._lock:
            if self._start is not None:
                self._start.mode = replace(self._start.mode, bitrate=bits_per_second)
                self._tell(do="bitrate", value=bits_per_second)

    def set_mode(self, mode: VideoMode) -> None:
        with self._lock:
            if self._start is None or self._encoder is EncoderKind.RECORDED:
                return
            self._start.mode = mode
            self._start.watch.retimed(mode.fps)
            self._tell_mode()

    @property
    def mode(self) -> VideoMode | None:
        start = self._start
        return start.mode if start is not None else None

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        still = _Still(threading.Event())
        with self._lock:
            if self._closing:
                raise DeviceFailedError(f"camera {self._trouble.device}: the board is closed")
            self._still_number = number = self._still_number % 0xFFFFFFFF + 1
            self._stills[number] = still
            self._tell(do="snapshot", id=number)
        try:
            if not still.done.wait(deadline_s):
                raise DeviceFailedError(f"camera {self._trouble.device}: no picture within {deadline_s:g} s")
        finally:
            with self._lock:
                self._stills.pop(number, None)
        if still.error is not None:
            raise still.error
        return still.jpeg

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None:
        if side < LEAST_SIDE:
            raise ValueError(f"camera: the longer side of small pictures has {LEAST_SIDE} pixels at least, not {side}")
        with self._lock:
            self._looks = None if sink is None else (sink, side)
            self._tell(do="preview", side=0 if sink is None else side)
        with self._delivery:
            pass  # a callback that was running has returned

    def stop(self) -> None:
        with self._lock:
            start, self._start = self._start, None
            if start is None:
                return
            self._stopped.clear()
            self._tell(do="stop", generation=start.generation)
            alive = self._ready
        with self._delivery:
            pass  # a callback that was running has returned
        self._clear((FaultKind.STALLED, FaultKind.START_TIMED_OUT, FaultKind.SLOW, FaultKind.COVERED))
        if threading.current_thread() is self._thread or not alive:
            return
        if not self._stopped.wait(STOP_WAIT_S):
            self._order_kill("did not stop in time")

    # --- for the board

    @property
    def pid(self) -> int | None:
        """The process at this moment; None between two."""
        process = self._process
        return process.pid if process is not None else None

    @property
    def cameras(self) -> Sequence[tuple[str, str]]:
        """Ids and names of the cameras that the process finds; a simulated one tells of none."""
        return self._cameras

    def set_source(self, spec: str) -> None:
        with self._lock:
            self._spec = spec
            self._encoder = _encoder_of(spec)
            self._tell(do="source", spec=spec)
            self._retry_now()

    def set_physics(self, faults: Iterable[str]) -> None:
        """Faults that are physically in force from now on (simulated sensor)."""
        with self._lock:
            self._physics = frozenset(faults)
            self._tell(do="faults", active=sorted(self._physics))
            self._retry_now()

    def lend(self, jpeg: bytes) -> None:
        """A picture from elsewhere; only the newest waits."""
        with self._lock:
            self._picture = jpeg
        self._ring()

    def close(self) -> None:
        self.stop()
        with self._lock:
            if self._closing:
                return
            self._closing = True
            for still in self._stills.values():
                still.error = DeviceFailedError(f"camera {self._trouble.device}: the board is closed")
                still.done.set()
        self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join(2.0)

    # --- to the process

    def _ring(self) -> None:
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _tell(self, **fields: Any) -> None:
        """Queue a command; lost with the process, which is told everything again when it is started anew."""
        with self._lock:
            if self._ready:
                self._outbox.append(wire.message(wire.CONTROL, fields))
        self._ring()

    def _tell_start(self) -> None:
        with self._lock:
            start = self._start
            if start is not None:
                self._tell(do="start", generation=start.generation, **asdict(start.opened))
                if start.mode != start.opened and self._encoder is not EncoderKind.RECORDED:
                    self._tell_mode()

    def _tell_mode(self) -> None:
        with self._lock:
            if self._start is not None:
                self._tell(do="mode", **asdict(self._start.mode))

    def _tell_all(self) -> None:
        """Everything a new process must know."""
        with self._lock:
            self._ready = True
            if self._physics:
                self._tell(do="faults", active=sorted(self._physics))
            if self._looks is not None:
                self._tell(do="preview", side=self._looks[1])
            if self._start is None:
                self._tell(do="warm", **asdict(self._warm))
            self._tell_start()
            # not sooner: what is told of the process before is not its own fault
            self._retry_at = time.monotonic() + max(self._pause(), START_TIMEOUT_S)
            for number in self._stills:
                self._tell(do="snapshot", id=number)

    # --- the thread

    def _run(self) -> None:
        while not self._closing:
            try:
                if self._process is None and time.monotonic() >= self._retry_at:
                    self._spawn()
                self._wait()
                self._judge(time.monotonic())
            except Exception:  # outermost frame of the thread: without it the camera would be gone for good
                _log.exception("camera: begins anew after a fault of its own")
                self._order_kill("internal fault, see the log")
        self._end_process(grace_s=0.3)
        with self._lock:
            os.close(self._wake)
            self._wake = -1

    def _spawn(self) -> None:
        with self._lock:
            spec = self._spec
            self._outbox.clear()
            self._unsent = b""
            self._unframer = wire.Unframer()
            self._kill = ""
        try:
            self._process = launch(self._program, spec)
        except OSError as error:
            self._retry_later()
            self._report(FaultKind.FAILED, True, f"camera process cannot be started: {error}")
            return
        self._heard = self._asked = time.monotonic()

    def _wait(self) -> None:
        """Sleep until the process says something, somebody wants something, or it is time to look."""
        process = self._process
        now = time.monotonic()
        if process is None:
            timeout = max(0.0, self._retry_at - now)
        else:
            timeout = 0.25 if self._start is not None or not self._ready else PING_S
        with selectors.PollSelector() as selector:  # made per wait: it must cost no descriptor
            selector.register(self._wake, selectors.EVENT_READ)
            if process is not None:
                assert process.stdin is not None  # noqa: S101
                assert process.stdout is not None  # noqa: S101
                selector.register(process.stdout, selectors.EVENT_READ)
                if self._unsent or self._outbox or (self._picture is not None and self._ready):
                    selector.register(process.stdin, selectors.EVENT_WRITE)
            ready = {key.fd for key, _ in selector.select(timeout)}
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            if process.stdin.fileno() in ready:
                self._flush(process.stdin.fileno())
            if process.stdout.fileno() in ready:
                self._read(process.stdout.fileno())
        except (OSError, ValueError) as error:
            self._order_kill(str(error))

    def _flush(self, fd: int) -> None:
        with self._lock:
            if not self._unsent and self._picture is not None:  # first: a snapshot asked after it must show it
                self._unsent, self._picture = wire.pack(wire.PICTURE, self._picture), None
            self._unsent += b"".join(self._outbox)
            self._outbox.clear()
            if len(self._unsent) > OUTBOX:
                raise OSError("the camera process does not read its commands")
            try:
                self._unsent = self._unsent[os.write(fd, self._unsent) :]
            except BlockingIOError:
                return

    def _read(self, fd: int) -> None:
        data = os.read(fd, 1 << 18)
        if not data:
            raise OSError("the camera process died")
        self._heard = time.monotonic()
        for kind, payload in self._unframer.feed(data):
            if kind == wire.FRAME:
                self._deliver(payload)
            elif kind == wire.PREVIEW:
                self._show(payload)
            elif kind == wire.EVENT:
                self._event(json.loads(payload))
            elif kind == wire.SNAPSHOT:
                self._still(int.from_bytes(payload[:4], "big"), payload[4:], None)

    def _deliver(self, payload: bytes) -> None:
        generation, keyframe, pts_us, dwell_us = wire.FRAME_HEAD.unpack_from(payload)
        with self._delivery:
            start = self._start
            if start is None or start.generation != generation:
                return
            start.watch.frame(time.monotonic())
            try:
                start.sink(EncodedFrame(payload[wire.FRAME_HEAD.size :], pts_us, bool(keyframe),
                                        dwell_us=None if dwell_us < 0 else dwell_us))
            except Exception:  # outermost frame of the callback: a sink never ends the camera
                _log.exception("receiver of camera frames failed")

    def _show(self, payload: bytes) -> None:
        generation, width, height = wire.PREVIEW_HEAD.unpack_from(payload)
        with self._delivery:
            start, looks = self._start, self._looks
            if start is None or looks is None or start.generation != generation:
                return
            try:
                looks[0](Picture(width, height, payload[wire.PREVIEW_HEAD.size :]))
            except Exception:  # outermost frame of the callback, as above
                _log.exception("receiver of small pictures failed")

    def _event(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "ready":
                self._report(FaultKind.COVERED, False)
                if self._start is None:
                    self._report(FaultKind.FAILED, False)
                self._tell_all()
            case "started":
                start = self._start
                if start is not None and start.generation == event["generation"]:
                    opened = VideoMode(event["width"], event["height"], event["fps"], event["bitrate"])
                    if opened != start.opened or self._encoder is EncoderKind.RECORDED:
                        start.opened = start.mode = opened
                    if self._obstructed():
                        start.watch = FrameWatch(start.mode.fps, time.monotonic())
                    else:
                        start.watch.reopened(time.monotonic())
                    start.answered.set()
                self._clear(_OBSTACLES)
            case "mode":
                with self._lock:
                    start = self._start
                    if start is not None and start.generation == event["generation"]:
                        size = {name: event[name] for name in ("width", "height", "fps")}
                        start.mode = replace(start.mode, **size)
            case "stopped":
                self._stopped.set()
            case "device":
                self._obstacle(event["why"], event["detail"])
            case "signal":
                self._report(FaultKind.NO_SIGNAL, not event["there"], event["detail"])
            case "dark":
                self._report(FaultKind.COVERED, event["dark"])
            case "encoder":
                self._encoder = EncoderKind(event["kind"])
            case "cameras":
                self._cameras = tuple((one["id"], one["name"]) for one in event["there"])
                self._faults.devices_changed()
            case "note":
                self.note = str(event["text"])
            case "fallback":
                self._trouble.fallback(event["active"], event["detail"], FaultKind(event["why"]))
            case "snapshot_failed":
                error = error_of(FaultKind(event["why"]))
                self._still(event["id"], b"", error(f"camera {self._trouble.device}: {event['detail']}"))

    def _still(self, number: int, jpeg: bytes, error: HardwareError | None) -> None:
        with self._lock:
            still = self._stills.get(number)
        if still is not None:
            still.jpeg, still.error = jpeg, error
            still.done.set()

    def _obstacle(self, why: str, detail: str) -> None:
        """The sensor cannot be opened (or can again, ``why`` empty). An opened one clears the rest."""
        for kind in _OBSTACLES:
            if kind.value == why:
                self._report(kind, True, detail)
            elif kind is not FaultKind.FAILED or why:
                self._report(kind, False)
        start = self._start
        if why and start is not None:
            start.answered.set()
            self._retry_later()
            # Looking for a plug is cheap: somebody may be holding it.
            if why in (FaultKind.MISSING.value, FaultKind.PULLED.value):
                self._retry_at = min(self._retry_at, time.monotonic() + PLUG_S)

    # --- judging

    def _judge(self, now: float) -> None:
        if self._process is None:
            return
        if not self._kill and self._process.poll() is not None:
            self._order_kill("the camera process died")
        if not self._kill:
            self._ask(now)
        if self._kill:
            self._bury()
            return
        start = self._start
        if start is None:
            return
        if self._obstructed():
            if self._ready and now >= self._retry_at:
                self._retry_later()
                self._tell_start()
            return
        self._judge_frames(start, now)

    def _obstructed(self) -> bool:
        return any(map(self._trouble.active, _OBSTACLES))

    def _judge_frames(self, start: _Start, now: float) -> None:
        faults = start.watch.faults(now)
        with self._delivery:
            if self._start is not start:
                return
            for kind in (FaultKind.START_TIMED_OUT, FaultKind.STALLED, FaultKind.SLOW):
                words = f"{start.watch.rate:.0f} of {start.mode.fps} pictures a second"
                self._report(kind, kind in faults, words if kind is FaultKind.SLOW else "")
        if faults & {FaultKind.START_TIMED_OUT, FaultKind.STALLED}:
            self._healthy_since = None
            if now >= self._retry_at and self._heard >= self._asked:
                self._retry_later()
                self._tell_start()  # the process answers, the sensor does not: open the sensor anew
        elif self._healthy_since is None:
            self._healthy_since = now
        elif now - self._healthy_since >= HEALTHY_S:
            self._attempts = 0

    def _ask(self, now: float) -> None:
        """Find out whether a silent process still lives."""
        if not self._ready:
            if now - self._heard > READY_S:
                self._order_kill(f"the camera process was not ready after {READY_S:g} s")
            return
        if self._start is None and not self._stills:
            self._heard = self._asked = now  # nothing is due
            return
        if now - self._heard > PONG_S:
            self._order_kill(f"the camera process does not answer for {PONG_S:g} s")
        elif now - max(self._heard, self._asked) > PING_S:
            self._asked = now
            self._tell(do="ping", id=0)

    def _order_kill(self, why: str) -> None:
        with self._lock:
            self._kill = self._kill or why
        self._ring()

    def _bury(self) -> None:
        why = self._kill
        code = self._end_process(grace_s=0.0)
        detail = f"{why} (status {code})"
        _log.warning("camera: %s", detail)
        self._report(FaultKind.FAILED, True, detail)
        self._retry_later()

    def _end_process(self, grace_s: float) -> int | None:
        """Close its pipes; it ends by itself within ``grace_s`` or is killed."""
        with self._lock:
            process, self._process = self._process, None
            self._ready = False
            self._kill = ""
        self._healthy_since = None
        return None if process is None else end(process, grace_s)

    def _pause(self) -> float:
        return RETRY_S[min(self._attempts, len(RETRY_S) - 1)]

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + self._pause()
        self._attempts += 1

    def _retry_now(self) -> None:
        """Something changed: the old pauses say nothing any more."""
        with self._lock:
            self._attempts = 0
            self._retry_at = 0.0
        self._ring()

    def _report(self, fault: FaultKind, active: bool, detail: str = "") -> None:
        self._trouble.report(fault, active, detail)

    def _clear(self, faults: Iterable[FaultKind]) -> None:
        for fault in faults:
            self._report(fault, False)


def _encoder_of(spec: str) -> EncoderKind:
    """Who makes the H.264, as far as the process has not told."""
    return EncoderKind.RECORDED if spec.startswith("clip:") else EncoderKind.SOFTWARE
