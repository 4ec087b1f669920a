"""Our camera on libcamera's vimc camera and the test kernel's encoder: what it takes, how it is steered and pulled.

Runs in the guest, in the Debian 13 of ``tests/hil/picamera2/suite``. Prints one JSON line.
"""

from __future__ import annotations

import io
import json
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
from picamera2 import Picamera2
from PIL import Image

from hw.api import EncodedFrame, VideoMode
from hw.faults import FaultLine
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.csi import CsiSensor, csi_streams, find_csi
from hw.pi.camera.part import open_camera
from tests.hil.machine import Machine

PICTURES = 10
LIMIT_S = 60.0
IMPORTED = Path("/sys/module/hilenc/parameters/imported")

frames: list[EncodedFrame] = []
faults: list[str] = []
changed = threading.Condition()


def until(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + LIMIT_S
    with changed:
        while not condition() and time.monotonic() < deadline:
            changed.wait(0.05)
    return bool(condition())


def frame(one: EncodedFrame) -> None:
    with changed:
        frames.append(one)
        changed.notify_all()


def configured() -> list[dict[str, Any]]:
    """What picamera2 makes of the streams that it is asked for, where they pass its own check."""
    found = []
    with Picamera2() as one:
        for streams in csi_streams(VideoMode(1280, 720)):
            made = one.create_video_configuration(**streams, buffer_count=4, controls={})
            one.check_camera_config(made)
            one.align_configuration(made)  # as its signal processors do
            found.append({name: [made[name]["size"], made[name]["format"]] for name in ("main", "lores") if made[name]})
    return found


def beside() -> dict[str, Any]:
    """A picture larger than the small stream, of a camera with one stream."""
    sensor = CsiSensor(find_csi()[0], VideoMode(704, 396), CameraConfig())
    try:
        poll = select.poll()
        poll.register(sensor.file, select.POLLIN)
        poll.poll(LIMIT_S * 1000)
        taken = sensor.take()
        assert taken is not None
        picture, small = taken.picture(), taken.small()
        taken.close()
        return {"taken": picture and [picture.width, picture.height], "small": small is not None}
    finally:
        sensor.close()


def shared() -> dict[str, Any]:
    """Pictures that leave as they were taken: how many the encoder read from libcamera's own memory."""
    told = FaultLine()
    one = open_camera(CameraConfig(), told)
    assert one is not None
    until(lambda: one.cameras)
    frames.clear()
    before = int(IMPORTED.read_text())
    one.start(VideoMode(640, 360, 10, 500_000), frame)
    until(lambda: len(frames) >= PICTURES)
    still = Image.open(io.BytesIO(one.snapshot(20.0)))
    one.stop()
    read = int(IMPORTED.read_text()) - before
    decoder = av.CodecContext.create("h264", "r")
    pictures = [picture for unit in frames for picture in decoder.decode(av.Packet(unit.data))]
    one.close()
    told.close()
    pictures += decoder.decode(None)
    return {"frames": len(frames), "read": read, "decoded": len(pictures), "still": still.size}


line = FaultLine()
line.listen(lambda fault: faults.append(f"{fault.fault.value} {fault.active} {fault.detail}"))
camera = open_camera(CameraConfig(masks=("0 0 0.5 1",)), line)
assert camera is not None
until(lambda: camera.cameras)
camera.start(VideoMode(640, 360, 10, 500_000), frame)
until(lambda: len(frames) >= PICTURES)
first = len(frames)
camera.request_keyframe()
keyed = until(lambda: any(one.keyframe for one in frames[first:]))
still = Image.open(io.BytesIO(camera.snapshot(20.0)))
encoder = camera.encoder.value
late = time.monotonic_ns() // 1000 - frames[-1].pts_us
with Machine() as machine:
    watch = machine.stopwatch()
    camera.stop()
    stopped = watch.waited_s
decoder = av.CodecContext.create("h264", "r")
pictures = [picture for one in frames for picture in decoder.decode(av.Packet(one.data))]
rows = [bytes(picture.planes[0])[180 * picture.planes[0].line_size :][:640] for picture in pictures]
camera.close()
line.close()
print(json.dumps({
    "cameras": [[fact.id, fact.name, fact.present, fact.used] for fact in camera.devices()],
    "taken": len(frames), "decoded": len(pictures), "sizes": sorted({(one.width, one.height) for one in pictures}),
    "first": frames[0].keyframe if frames else None, "keyed": keyed, "still": still.size, "encoder": encoder,
    "masked": max((max(row[:320]) for row in rows), default=None),
    "seen": min((max(row[320:]) for row in rows), default=None),
    "late_s": late / 1e6, "stopped_s": stopped, "faults": faults, "configured": configured(), "beside": beside(),
    "shared": shared(),
}))  # fmt: skip
