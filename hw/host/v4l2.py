"""Video4Linux cameras: which there are, and one as the source of the camera process (PyAV's v4l2 input)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
from av.video.frame import VideoFrame

from hw.api import VideoMode
from hw.host.holders import holders
from hw.sim.sources import Fitter, SourceError

__all__ = ["CameraNode", "V4l2Source", "cameras"]

FORMATS: Final = ("mjpeg", "yuyv422")
"""In this order: USB 2 carries 720p30 only compressed."""


@dataclass(frozen=True, slots=True)
class CameraNode:
    """A capture node. ``index`` 0 is the picture; the others of a USB camera carry metadata."""

    path: str
    name: str


def cameras(sysfs: str = "/sys") -> list[CameraNode]:
    """Every V4L2 node that may be a camera, in order of its number."""
    found = []
    root = Path(sysfs) / "class" / "video4linux"
    nodes = sorted(root.glob("video*"), key=lambda path: int(path.name.removeprefix("video") or 0))
    for node in nodes:
        try:
            name = (node / "name").read_text().strip()
            index = (node / "index").read_text().strip()
        except OSError:  # unplugged while we look
            continue
        if index == "0":
            found.append(CameraNode(f"/dev/{node.name}", name))
    return found


class V4l2Source:
    """Implements ``hw.sim.sources.PictureSource``. The sensor paces: a picture is waited for."""

    live = True

    def __init__(self, path: str, mode: VideoMode) -> None:
        self._path = path
        self._fitter = Fitter(mode)
        self._container = self._open(mode)

    def _open(self, mode: VideoMode) -> av.container.InputContainer:
        refusal: Exception | None = None
        for pixels in FORMATS:
            options = {"video_size": f"{mode.width}x{mode.height}", "framerate": str(mode.fps), "input_format": pixels}
            try:
                return av.open(self._path, format="v4l2", options=options)
            except (av.FFmpegError, OSError) as error:
                refusal = error
                if error.errno in (errno.EBUSY, errno.ENOENT, errno.ENODEV, errno.EACCES):
                    break
        raise self._refused(refusal) from refusal

    def _refused(self, error: Exception | None) -> SourceError:
        number = getattr(error, "errno", None)
        if number == errno.EBUSY:
            holder = holders(self._path) or "a program of another user"
            return SourceError("busy", f"{self._path} is held by {holder}")
        if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            return SourceError("missing", f"{self._path} is not there")
        if number in (errno.EACCES, errno.EPERM):
            return SourceError("denied", f"{self._path} may not be opened: add the user to the group video")
        return SourceError("failed", f"{self._path}: {error}")

    def picture(self, counter: int, clock_us: int) -> VideoFrame:
        """The next picture of the driver: it blocks at the sensor's own rate."""
        try:
            frame = next(self._container.decode(video=0))
        except (av.FFmpegError, StopIteration) as error:
            if not Path(self._path).exists():
                raise SourceError("missing", f"{self._path} was unplugged") from error
            raise SourceError("failed", f"{self._path}: {error}") from error
        return self._fitter.fit(frame)

    def resize(self, mode: VideoMode) -> None:
        self._fitter = Fitter(mode)

    def close(self) -> None:
        self._container.close()
