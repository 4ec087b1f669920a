"""What is shown to others beside the camera, on every board: in the place of a camera, encoded by software in a process
of its own, so that the camera's encoder is not disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hw.api import DeviceMissingError, Fault, FaultKind, Kind
from hw.camera.owner import ProcessCamera
from hw.faults import FaultLine

__all__ = ["ShownCapture", "ShownFile"]


class _Shown(ProcessCamera):
    """Implements ``hw.api.SharedSource``."""

    def __init__(self, device: str, spec: str, program: str = "hw.sim.camera_process") -> None:
        self._line = FaultLine()  # what is wrong with it is wrong with no camera of the board
        try:
            super().__init__(device, spec, self._line, program=program)
        except BaseException:
            self._line.close()
            raise

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        self._line.listen(sink)

    def close(self) -> None:
        super().close()
        self._line.close()


class ShownFile(_Shown):
    """A picture or video file. Raises DeviceMissingError where there is no such file."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise DeviceMissingError(f"there is no file {path}")
        super().__init__("content0", f"file:{path}")


class ShownCapture(_Shown):
    """A capture device. ``board`` is told whether there is a signal; ``on_close`` that it is free again."""

    def __init__(
        self, device: str, spec: str, board: FaultLine, *, program: str = "hw.sim.camera_process",
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._board = board
        self._on_close: Callable[[], None] | None = on_close
        super().__init__(device, spec, program)

    def close(self) -> None:
        super().close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:  # the second time the device may be another's
            self._board.report(Kind.CAPTURE, FaultKind.NO_SIGNAL, self._trouble.device, False)
            on_close()

    def _report(self, fault: FaultKind, active: bool, detail: str = "") -> None:
        super()._report(fault, active, detail)
        if fault in _DARK:
            lacking = any(map(self._trouble.active, _DARK))
            words = detail or "it delivers no picture"
            self._board.report(Kind.CAPTURE, FaultKind.NO_SIGNAL, self._trouble.device, lacking, words)


_DARK = (FaultKind.NO_SIGNAL, FaultKind.STALLED)  # USB grabbers know of no signal, and some just stop
