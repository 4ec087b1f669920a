"""Our camera on a camera of libcamera with two streams: the picture goes to the encoder, the small one into snapshots.

Runs in the guest, in the Debian 13 of ``tests/hil/picamera2/suite``. Prints one JSON line.
"""

from __future__ import annotations

import io
import json
import select
import time
from typing import Any

import av
from PIL import Image

from hw.api import EncodedFrame
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.process import RealCamera
from tests.hil.picamera2.virtual import plug

PICTURES = 8
LIMIT_S = 60.0


class Owner:
    """What the camera's process is told of."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.stills: list[Any] = []
        self.told: list[str] = []

    def tell(self, event: str, **fields: Any) -> None:
        self.told.append(f"{event} {fields}")

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        self.frames.append(frame)

    def snapshot(self, number: int, jpeg: bytes) -> None:
        self.stills.append(Image.open(io.BytesIO(jpeg)).convert("L"))


def run(camera: RealCamera, owner: Owner, more: int) -> None:
    begin, deadline = len(owner.frames), time.monotonic() + LIMIT_S
    while len(owner.frames) < begin + more:
        assert time.monotonic() < deadline, owner.told
        poll = select.poll()
        for file, events in camera.files():
            poll.register(file, events)
        wait = camera.wait_s()
        poll.poll(1000 if wait is None else wait * 1000)
        camera.tick()


plug()
owner = Owner()
camera = RealCamera(CameraConfig(devices=("Virtual0",), masks=("0 0 0.25 1",)), owner)  # type: ignore[arg-type]
camera.handle({"do": "start", "generation": 1, "width": 1280, "height": 720, "fps": 30, "bitrate": 2_000_000})
run(camera, owner, PICTURES)
camera.handle({"do": "snapshot", "id": 1})
run(camera, owner, PICTURES)
camera.handle({"do": "stop", "generation": 1})
decoder = av.CodecContext.create("h264", "r")
shown = [one for unit in owner.frames for one in decoder.decode(av.Packet(unit.data))] + decoder.decode(None)
still = owner.stills[0]
large = shown[-1].to_image().convert("L").resize(still.size, Image.Resampling.BOX)
masked = still.width // 4
print(json.dumps({
    "taken": len(owner.frames), "decoded": len(shown), "sizes": sorted({(one.width, one.height) for one in shown}),
    "still": still.size, "told": owner.told,
    "masked": [max(one.crop((0, 0, masked - 16, still.height)).getdata()) for one in (still, large)],
    "seen": [max(one.crop((masked + 16, 0, *still.size)).getdata()) for one in (still, large)],
    "apart": max(abs(one - other) for one, other in zip(*(
        [part.resize((40, 1), Image.Resampling.BOX).getpixel((x, 0)) for x in range(40)] for part in (still, large)),
        strict=True)),
}))  # fmt: skip
