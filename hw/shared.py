"""A picture or video file that is shown to others, on every board: in the place of a camera, encoded by software in a
process of its own, so that the camera's encoder is not disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hw.api import DeviceMissingError, Fault
from hw.camera.owner import ProcessCamera
from hw.faults import FaultLine

__all__ = ["ShownFile"]


class ShownFile(ProcessCamera):
    """Implements ``hw.api.SharedFile``. Raises DeviceMissingError where there is no such file."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise DeviceMissingError(f"there is no file {path}")
        self._line = FaultLine()  # what is wrong with the file is wrong with no camera of the board
        try:
            super().__init__("content0", f"file:{path}", self._line)
        except BaseException:
            self._line.close()
            raise

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        self._line.listen(sink)

    def close(self) -> None:
        super().close()
        self._line.close()
