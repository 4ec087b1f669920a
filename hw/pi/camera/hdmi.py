"""An open HDMI input: a sensor in the format of what is connected to it."""

from __future__ import annotations

from hw.api import DeviceFailedError, VideoMode
from hw.pi.camera.usb import TAKEN, Offer, UsbSensor
from hw.pi.dv import Signal, receive, signal_of
from hw.pi.v4l2 import QueueKind

__all__ = ["HdmiSensor", "NoSignalError"]


class NoSignalError(DeviceFailedError):
    """Nothing is received that could be shown."""


class HdmiSensor(UsbSensor):
    """Raises NoSignalError where nothing is received, and HardwareError."""

    signal: Signal

    def _offers(self, mode: VideoMode) -> list[Offer]:
        found = receive(self._node)
        if isinstance(found, str):
            raise NoSignalError(found)
        self.signal = found
        return [Offer(pixels, found.width, found.height, found.fps)
                for pixels in self._node.formats(QueueKind.CAMERA) if pixels in TAKEN]

    @property
    def lacking(self) -> str:
        """What keeps it from delivering what it was opened with; empty: nothing."""
        found = signal_of(self._node)
        return found if isinstance(found, str) else "" if found == self.signal else "another signal came"
