"""libcamera's own virtual camera under picamera2: two streams as fast as is asked, and no kernel driver behind them.

It lacks three things that picamera2 takes for granted, which are added here: raw modes of a sensor, buffers of one
plane (its own have two), and the state of a buffer, which it leaves unwritten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libcamera
import picamera2
from picamera2.allocators import DmaAllocator

__all__ = ["VirtualCamera", "plug"]

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


def plug() -> None:
    """It is there from now on, as ``Virtual0``; before libcamera looks for cameras."""
    folder = Path("/usr/share/libcamera/pipeline/virtual")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "virtual.yaml").write_text(
        f'"Virtual0":\n  supported_formats:\n{SIZES}'
        "  test_pattern: bars\n  location: CameraLocationFront\n  model: Virtual\n")
    picamera2.Picamera2 = VirtualCamera
