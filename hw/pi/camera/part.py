"""The camera of a board file, as the board has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hw.api import DeviceFact, FaultKind, Kind
from hw.camera.owner import ProcessCamera
from hw.faults import FaultLine
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.csi import csi_is_there
from hw.pi.camera.usb import find_usb

__all__ = ["PiCamera", "open_camera"]

DEVICE: Final = "cam0"
"""Which of several cameras it is changes with what is plugged in; faults and calls know one."""


class PiCamera(ProcessCamera):
    """Implements ``hw.api.Camera`` over what the board file names, in a process of its own."""

    def __init__(self, config: CameraConfig, faults: FaultLine) -> None:
        super().__init__(DEVICE, config.text(), faults, program="hw.pi.camera.process")
        self._wanted = config.devices
        self._line = faults

    def devices(self) -> Sequence[DeviceFact]:
        """Each camera that is plugged in; the first that the board file names, or else the first, is used."""
        there = self.cameras
        chosen = next((one for want in self._wanted for one in there if one[0] == want or one[1].startswith(want)),
                      None if self._wanted else next(iter(there), None))
        facts = [DeviceFact(Kind.CAMERA, *one, selected=one == chosen, note=self.note if one == chosen else "")
                 for one in there]
        if chosen is None:
            gone = any(self._line.active(Kind.CAMERA, fault, DEVICE) for fault in (FaultKind.MISSING, FaultKind.PULLED))
            note = "it was unplugged" if gone else "none is plugged in that the board file names"
            facts.append(DeviceFact(Kind.CAMERA, DEVICE, "Camera", present=False, note=note))
        return facts


def open_camera(config: CameraConfig, faults: FaultLine) -> PiCamera | None:
    """None where there is to be no camera, or (``auto``) none is plugged in at the start."""
    if config.use == "none" or (config.use == "auto" and not find_usb() and not csi_is_there()):
        return None
    return PiCamera(config, faults)
