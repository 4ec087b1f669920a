"""The capture devices of a board, as the board has them: HDMI inputs, and cameras that are not the one in use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from hw.api import DeviceBusyError, DeviceFact, DeviceMissingError, Kind
from hw.faults import FaultLine
from hw.pi.camera.usb import find_hdmi, find_usb
from hw.shared import ShownCapture

__all__ = ["PiCaptures"]


class PiCaptures:
    """``cameras``: the facts of the camera part. HDMI inputs are soldered: they are looked for once, and whenever one
    is asked for. Any thread."""

    def __init__(self, cameras: Callable[[], Sequence[DeviceFact]], faults: FaultLine) -> None:
        self._cameras = cameras
        self._faults = faults
        self._lock = threading.Lock()
        self._there = tuple(find_hdmi())
        self._shown = ""  # id

    def devices(self) -> Sequence[DeviceFact]:
        return [DeviceFact(Kind.CAPTURE, one.id, one.name, used=one.id == self._shown) for one in self._there]

    def capture(self, device: str) -> ShownCapture:
        """Raises DeviceMissingError and DeviceBusyError. Blocking."""
        there = tuple(find_hdmi())
        if any(fact.id == device and fact.used for fact in self._cameras()):
            raise DeviceBusyError(f"{device} is the camera of this appliance, and shown to others as that: choose "
                                  "another camera first (devices.select)")
        ids = list(dict.fromkeys(one.id for one in (*there, *find_usb())))
        if device not in ids:
            raise DeviceMissingError(f"there is no capture device {device!r}; there are: {', '.join(ids) or 'none'}")
        with self._lock:
            self._there = there
            if self._shown:
                raise DeviceBusyError(f"the capture device {self._shown} is shown already")
            self._shown = device
        try:
            shown = ShownCapture(device, device, self._faults, program="hw.pi.camera.capture", on_close=self._free)
        except BaseException:
            self._free()
            raise
        self._faults.devices_changed()
        return shown

    def _free(self) -> None:
        with self._lock:
            self._shown = ""
        self._faults.devices_changed()

    def close(self) -> None:
        """Who asked for one closes it."""
