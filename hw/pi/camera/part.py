"""The camera of a board file, as the board has it: one at a time of those that are plugged in."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hw.api import DeviceFact, EncoderKind, FaultKind, Kind
from hw.camera.owner import ProcessCamera
from hw.faults import FaultLine
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.csi import csi_is_there
from hw.pi.camera.known import KnownCameras
from hw.pi.camera.usb import find_usb

__all__ = ["PiCamera", "open_camera"]

DEVICE: Final = "cam0"
"""What the board's camera is called while none was ever there."""

SELECT_S: Final = 1.9


class PiCamera(ProcessCamera):
    """Implements ``hw.api.Camera`` over what the board file names, in a process of its own."""

    def __init__(self, config: CameraConfig, faults: FaultLine) -> None:
        self._config = config
        self._known = KnownCameras(config.devices, faults)
        self._line = faults
        self._heeded = threading.Event()
        super().__init__(DEVICE, config.text(), faults, program="hw.pi.camera.process")

    def choose(self, device: str) -> None:
        """Prefer the camera with this id; empty: by the board file's list again. Waits until a picture that is wanted
        comes of it, or of the next that opens."""
        with self._lock:
            self._known.selected = device
            self._heeded.clear()
            self._tell(do="select", id=device)
            running = self._ready and self._start is not None
        if running and threading.current_thread() is not self._thread:
            self._heeded.wait(SELECT_S)
        self._line.devices_changed()

    def stop(self) -> None:
        super().stop()
        with self._lock:
            self._known.closed()

    def devices(self) -> Sequence[DeviceFact]:
        with self._lock:
            facts = self._known.facts(running=self._start is not None, note=self.note)
        if not any(fact.used for fact in facts):
            gone = any(map(self._trouble.active, (FaultKind.MISSING, FaultKind.PULLED)))
            note = "it was unplugged" if gone else "none is plugged in that the board file names"
            last = DEVICE if self._trouble.device in {fact.id for fact in facts} else self._trouble.device
            facts.append(DeviceFact(Kind.CAMERA, last, "Camera", present=False, used=False, note=note))
        return facts

    # --- from the process

    def _be(self, camera: str) -> None:
        """What comes now is of ``camera``; empty: of none that is there."""
        with self._lock:
            if camera:
                self._trouble.become(camera, {self._known.refusal(self._trouble.device)})

    def _tell_all(self) -> None:
        with self._lock:
            self._ready = True
            if self._known.selected:
                self._tell(do="select", id=self._known.selected)
        super()._tell_all()

    def _event(self, event: Mapping[str, Any]) -> None:
        known = self._known
        match event["event"]:
            case "using":
                self._be(event["id"])
                with self._lock:
                    known.using(event["id"])
            case "device":
                self._be(event.get("id", ""))
                super()._event(event)
            case "refused":
                with self._lock:
                    known.refused(event["id"], FaultKind(event["why"]), event["detail"])
            case "cameras":
                with self._lock:
                    known.plugged([(one["id"], one["name"]) for one in event["there"]])
                super()._event(event)
            case "selected":
                self._heeded.set()
            case "encoder":
                super()._event(event)
                if self.encoder is EncoderKind.HARDWARE and self._config.encoder == "auto":
                    with self._lock:  # a later process of this camera misses it, where it is not there any more
                        self._config = replace(self._config, encoder="hardware")
                        self._spec = self._config.text()
                return
            case _:
                super()._event(event)
                return
        self._line.devices_changed()


def open_camera(config: CameraConfig, faults: FaultLine) -> PiCamera | None:
    """None where there is to be no camera, or (``auto``) none is plugged in at the start."""
    if config.use == "none" or (config.use == "auto" and not find_usb() and not csi_is_there()):
        return None
    return PiCamera(config, faults)
