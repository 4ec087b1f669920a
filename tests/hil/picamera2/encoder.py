"""Our camera with ``encoder = "picamera2"``: steered while it runs, and left for software in each trouble.

Runs in the guest, in the Debian 13 of ``tests/hil/picamera2/suite``, on libcamera's virtual camera and the test
kernel's encoder. Prints one JSON line: of each trouble what became of the pictures.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
from picamera2.encoders.v4l2_encoder import V4L2Encoder

from hw.api import EncodedFrame
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.process import RealCamera
from tests.hil.machine import Machine
from tests.hil.picamera2.virtual import plug

PARAMETERS = Path("/sys/module/hilenc/parameters")
CALM = {"stall": "N", "unplug": "N", "error_next": "0", "corrupt_next": "0", "no_import": "0"}
TROUBLES: dict[str, dict[str, str]] = {
    "none": {}, "stall": {"stall": "Y"}, "error": {"error_next": "1000"}, "damage": {"corrupt_next": "1000"},
    "unplug": {"unplug": "Y"}, "memory": {"no_import": "1"}, "memory of others": {"no_import": "2"},
}  # fmt: skip
LIMIT_S = 40.0
handed = 0


def counted(encode: Callable[..., None]) -> Callable[..., None]:
    """picamera2's own, whose pictures are counted."""

    def count(encoder: Any, stream: Any, request: Any) -> None:
        global handed
        encode(encoder, stream, request)
        handed += 1

    return count


class Owner:
    """What the camera's process is told of."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.told: list[dict[str, Any]] = []

    def tell(self, event: str, **fields: Any) -> None:
        if event in ("encoder", "fallback"):
            self.told.append({"event": event, **fields})

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        self.frames.append(frame)

    def kind(self) -> str:
        return str(next(one["kind"] for one in reversed(self.told) if one["event"] == "encoder"))


def set_all(parameters: dict[str, str]) -> None:
    for name, value in parameters.items():
        (PARAMETERS / name).write_text(value)


def run(trouble: str) -> dict[str, Any]:
    V4L2Encoder._encode = counted(V4L2Encoder._encode)
    plug()
    owner = Owner()
    camera = RealCamera(CameraConfig(devices=("Virtual0",), encoder="picamera2"), owner)  # type: ignore[arg-type]

    def until(condition: Callable[[], object]) -> bool:
        deadline = time.monotonic() + LIMIT_S
        while not condition() and time.monotonic() < deadline:
            poll = select.poll()
            for file, events in camera.files():
                poll.register(file, events)
            wait = camera.wait_s()
            poll.poll(100 if wait is None else min(100.0, wait * 1000))
            camera.tick()
        return bool(condition())

    def more(count: int) -> list[EncodedFrame]:
        begin = len(owner.frames)
        assert until(lambda: len(owner.frames) >= begin + count), owner.told
        return owner.frames[begin:]

    refused = trouble.startswith("memory")
    if refused:
        set_all(TROUBLES[trouble])
    camera.handle({"do": "start", "generation": 1, "width": 640, "height": 360, "fps": 30, "bitrate": 1_000_000})
    more(10)
    found: dict[str, Any] = {"kind": owner.kind(), "by_picamera2": handed}
    if trouble == "none":
        found["keys_before"] = sum(frame.keyframe for frame in more(10))
        camera.handle({"do": "keyframe"})
        found["keys_asked"] = sum(frame.keyframe for frame in more(10))
        camera.handle({"do": "bitrate", "value": 4_000_000})
        more(6)
        high = sum(len(frame.data) for frame in more(20))
        camera.handle({"do": "bitrate", "value": 300_000})
        more(6)
        found["rate"] = round(sum(len(frame.data) for frame in more(20)) / high, 2)
    elif not refused:
        count = len(owner.frames)
        with Machine() as machine:
            watch = machine.stopwatch()
            set_all(TROUBLES[trouble])
            camera.handle({"do": "keyframe"})
            until(lambda: owner.kind() == "software" and any(frame.keyframe for frame in owner.frames[count:]))
            found |= {"waited_s": round(watch.waited_s, 2), "lasted_s": round(time.monotonic() - watch.begin, 2)}
        found["told"] = next(one for one in reversed(owner.told) if one["event"] == "fallback")
        more(10)
        decoder = av.CodecContext.create("h264", "r")
        first = next(number for number, frame in enumerate(owner.frames) if number >= count and frame.keyframe)
        found["after"] = sum(len(decoder.decode(av.Packet(frame.data))) for frame in owner.frames[first:])
    set_all(CALM)
    if trouble == "unplug":
        found["back"] = until(lambda: owner.kind() == "hardware")
        before = handed
        more(10)
        found["by_picamera2_again"] = handed - before
    with Machine() as machine:
        watch = machine.stopwatch()
        camera.handle({"do": "stop", "generation": 1})
        found["stop_s"] = round(watch.waited_s, 2)
    decoder = av.CodecContext.create("h264", "r")
    if refused or trouble == "none":
        shown = [one for frame in owner.frames for one in decoder.decode(av.Packet(frame.data))]
        found |= {"frames": len(owner.frames), "decoded": len(shown), "sizes": sorted({(one.width, one.height)
                                                                                       for one in shown})}
    deadline = time.monotonic() + 5.0
    while (live := (PARAMETERS / "live").read_text().strip()) != "0" and time.monotonic() < deadline:
        time.sleep(0.05)
    return found | {"left_open": int(live)}


if len(sys.argv) > 1:
    try:
        print(json.dumps(run(sys.argv[1])), flush=True)
    finally:
        set_all(CALM)  # or the driver holds this process as it ends
    os._exit(0)  # whatever hangs
results = {}
for trouble in TROUBLES:
    set_all(CALM)
    done = subprocess.run([sys.executable, __file__, trouble], stdout=subprocess.PIPE, text=True, timeout=120,
                          check=False)
    results[trouble] = json.loads(done.stdout) if done.stdout.startswith("{") else {"failed": done.returncode}
print(json.dumps(results))
