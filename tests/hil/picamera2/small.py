"""Our camera on a camera of libcamera with two streams: the picture goes to the encoder, the small one into snapshots.

libcamera's virtual camera makes both of them itself, as fast as is asked. It lacks three things that picamera2 takes
for granted, which are added here: raw modes of a sensor, buffers of one plane (its own have two), and the state of a
buffer, which it leaves unwritten. Runs in the guest, in the Debian 13 of ``tests/hil/picamera2/suite``. Prints one JSON
line.
"""

from __future__ import annotations

import io
import json
import select
import time
from pathlib import Path
from typing import Any

import av
import libcamera
import picamera2
from picamera2.allocators import DmaAllocator
from PIL import Image

from hw.api import EncodedFrame
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.process import RealCamera

PICTURES = 8
LIMIT_S = 60.0
SIZES = "".join(f"  - {{width: {width}, height: {height}, frame_rates: [30, 60]}}\n"
                for width, height in ((1280, 720), (640, 360)))


class TwoPlanes(DmaAllocator):
    """Of each piece of memory the luma and the chroma, as libcamera's virtual camera fills them."""

    def allocate(self, configuration: Any, use_case: Any) -> None:
        super().allocate(configuration, use_case)
        for stream in configuration:
            luma = stream.stride * stream.size.height
            self.frame_buffers[stream.stream] = [
                self._split(one, luma) for one in self.frame_buffers[stream.stream]]

    def _split(self, whole: Any, luma: int) -> Any:
        planes = []
        for begin, length in ((0, luma), (luma, luma // 2)):
            plane = libcamera.FrameBuffer.Plane()
            plane.fd, plane.offset, plane.length = whole.planes[0].fd, begin, length
            planes.append(plane)
        both = libcamera.FrameBuffer(planes)
        self.libcamera_fds.append(both.planes[0].fd)
        self.mapped_buffers_used[both.planes[0].fd] = False
        self.mapped_buffers[both] = self.mapped_buffers.pop(whole)
        return both


class VirtualCamera(picamera2.Picamera2):
    def __init__(self, number: int) -> None:
        super().__init__(number, allocator=TwoPlanes())

    def _get_raw_modes(self) -> list[dict[str, Any]]:
        return [{"format": "NV12", "size": (1280, 720)}]

    def process_requests(self, display: Any) -> None:
        with self._requestslock:
            done, self._requests = self._requests, []
        for one in done:
            if self.pre_callback is not None:
                self.pre_callback(one)
            one.release()
        super().process_requests(display)


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


folder = Path("/usr/share/libcamera/pipeline/virtual")
folder.mkdir(parents=True)
(folder / "virtual.yaml").write_text(
    f'"Virtual0":\n  supported_formats:\n{SIZES}'
    "  test_pattern: bars\n  location: CameraLocationFront\n  model: Virtual\n")
picamera2.Picamera2 = VirtualCamera

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
