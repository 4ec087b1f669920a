"""What becomes of a camera's pictures when the encoder fails: picamera2's own H264Encoder beside our camera process.

The figures of ``docs/hardware.md``. Runs in the guest, in the Debian 13 of ``tests/hil/picamera2/suite``, on
libcamera's vimc camera and the test kernel's encoder. Prints one JSON line for each encoder and trouble.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
from picamera2 import Picamera2
from picamera2.encoders import H264Encoder
from picamera2.outputs import Output

from hw.api import EncodedFrame
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.process import RealCamera

PARAMETERS = Path("/sys/module/hilenc/parameters")
TROUBLES = {"none": "", "stall": "stall=Y", "damage": "error_next=1000", "unplug": "unplug=Y"}
BEFORE, AFTER_S, LIMIT_S, STOP_S = 5, 6.0, 15.0, 10.0
BITRATE, SIZE = 1_000_000, (640, 360)


class Pictures:
    """Units as they come; which of them decode is told afterwards."""

    def __init__(self) -> None:
        self.units: list[tuple[float, bytes]] = []

    def put(self, data: bytes) -> None:
        self.units.append((time.monotonic(), bytes(data)))

    def decoded(self) -> list[float]:
        """When the units came that gave a picture."""
        decoder, times = av.CodecContext.create("h264", "r"), []
        for at, data in self.units:
            try:
                times += [at] * len(decoder.decode(av.Packet(data)))
            except av.FFmpegError:
                continue
        return times


class Theirs(Output):  # type: ignore[misc]
    """picamera2 with its own encoder, unmodified."""

    def __init__(self, pictures: Pictures) -> None:
        super().__init__()
        self.pictures = pictures
        self.camera = Picamera2()
        main = {"size": SIZE, "format": "BGR888"}
        self.camera.configure(self.camera.create_video_configuration(main, buffer_count=6, controls={}))
        # which nobody can set here, and start_recording looks for
        self.camera.camera_ctrl_info.setdefault("FrameDurationLimits", (None, SimpleNamespace(min=33333, max=33333)))
        self.encoder = H264Encoder(bitrate=BITRATE, repeat=True, profile="constrained baseline", framerate=30)
        self.camera.start_recording(self.encoder, self)

    def outputframe(self, frame: bytes, keyframe: bool = True, timestamp: Any = None, packet: Any = None,
                    audio: bool = False) -> None:
        self.pictures.put(frame)

    def step(self) -> None:
        time.sleep(0.02)

    def end(self) -> None:
        self.camera.stop_recording()


class Ours:
    """What the camera's process does, in this one."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.camera = RealCamera(CameraConfig(), self)  # type: ignore[arg-type]
        self.camera.handle({"do": "start", "generation": 1, "width": SIZE[0], "height": SIZE[1], "fps": 30,
                            "bitrate": BITRATE})

    def tell(self, event: str, **fields: Any) -> None: ...

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        self.pictures.put(frame.data)

    def step(self) -> None:
        poll = select.poll()
        for file, events in self.camera.files():
            poll.register(file, events)
        wait = self.camera.wait_s()
        poll.poll(20 if wait is None else min(20.0, wait * 1000))
        self.camera.tick()

    def end(self) -> None:
        self.camera.handle({"do": "stop", "generation": 1})


def calm() -> None:
    for name, value in (("stall", "N"), ("unplug", "N"), ("error_next", "0")):
        (PARAMETERS / name).write_text(value)


def run(make: Callable[[Pictures], Theirs | Ours], trouble: str) -> None:
    """One trouble, in a process of its own, which ends it whatever hangs."""
    pictures = Pictures()
    camera = make(pictures)
    deadline = time.monotonic() + LIMIT_S
    while len(pictures.units) < BEFORE and time.monotonic() < deadline:
        camera.step()
    cpu, count = time.process_time(), len(pictures.units)
    name, _, value = TROUBLES[trouble].partition("=")
    if name:
        (PARAMETERS / name).write_text(value)
    begin = time.monotonic()
    while time.monotonic() < begin + AFTER_S:
        camera.step()
    spent, made = time.process_time() - cpu, len(pictures.units) - count
    stopping = threading.Thread(target=camera.end, daemon=True)
    stopped = time.monotonic()
    stopping.start()
    stopping.join(STOP_S)
    after = [at - begin for at in pictures.decoded() if at > begin + 0.1]
    print(json.dumps({
        "encoder": make.__name__, "trouble": trouble, "pictures_after": len(after),
        "first_after_s": round(after[0], 2) if after else None,
        "last_after_s": round(after[-1], 2) if after else None,
        "cpu_ms": round(1000 * spent / made, 1) if made else None,
        "stop_s": None if stopping.is_alive() else round(time.monotonic() - stopped, 2),
    }), flush=True)  # fmt: skip
    calm()  # or the driver holds this process as it ends
    os._exit(0)


if len(sys.argv) > 2:
    run({"Theirs": Theirs, "Ours": Ours}[sys.argv[1]], sys.argv[2])
for trouble in TROUBLES:
    for who in ("Theirs", "Ours"):
        calm()
        try:
            subprocess.run([sys.executable, __file__, who, trouble], timeout=LIMIT_S + 20, check=False)
        except subprocess.TimeoutExpired:
            print(json.dumps({"encoder": who, "trouble": trouble, "hangs": True}), flush=True)
