"""The board ``auto``: real camera and sound card where they open, each named with its holder where they do not."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hw.api import (
    BoardOptions,
    DeviceBusyError,
    DeviceFact,
    DeviceMissingError,
    Fault,
    FaultKind,
    HardwareError,
    Health,
    Kind,
    VideoMode,
)
from hw.camera.owner import ProcessCamera
from hw.faults import FaultLine
from hw.host.sound import AlsaAudio, sound_card
from hw.host.v4l2 import V4l2Source, cameras
from hw.shared import ShownCapture, ShownFile
from hw.sim.audio import EchoPath, SimAudio
from hw.sim.board import SimHands
from hw.sim.camera import SimCamera
from hw.sim.display import SimDisplay
from hw.sim.panel import SimPanel
from hw.sim.sources import SourceError

__all__ = ["HostBoard"]

_log = logging.getLogger("hw.host")



class HostBoard:
    """Implements ``hw.api.Board``, best effort. Panel and screen are simulated; the reasons stand in ``devices()``."""

    def __init__(self, options: BoardOptions) -> None:
        self._faults = FaultLine()
        self._closers: list[Callable[[], None]] = [self._faults.close]
        try:
            self._camera, self._camera_facts = self._open_camera(options)
            self._closers.append(self._camera.close)
            self._panel = SimPanel(options.long_press_s, self._faults)
            self._closers.append(self._panel.close)
            self._display = SimDisplay(options.display, self._faults)
            self._closers.append(self._display.close)
            self._audio, self._sound_facts = self._open_sound(options)
            self._closers.append(self._audio.close if isinstance(self._audio, SimAudio) else self._audio.stop)
        except BaseException:
            self.close()
            raise
        self._hands = SimHands(
            audio=self._audio if isinstance(self._audio, SimAudio) else None,
            camera=self._camera if isinstance(self._camera, SimCamera) else None,
            display=self._display,
            panel=self._panel,
            health=False,  # this machine's own
        )

    def _open_camera(self, options: BoardOptions) -> tuple[ProcessCamera, Sequence[DeviceFact]]:
        """And the facts of a real one."""
        reasons = []
        for node in cameras():
            try:
                V4l2Source(node.path, VideoMode()).close()
            except SourceError as error:
                reasons.append(str(error))
                continue
            fact = DeviceFact(Kind.CAMERA, node.path, node.name)
            return ProcessCamera(node.path, f"v4l2:{node.path}", self._faults), (fact,)
        note = "; ".join(reasons) or "this computer has no camera"
        _log.info("camera: simulated, because %s", note)
        return SimCamera(options.camera, self._faults, note=note), ()

    def _open_sound(self, options: BoardOptions) -> tuple[SimAudio | AlsaAudio, Sequence[DeviceFact]]:
        """And the facts of a real one."""
        name, note = sound_card(), "this computer has no sound card"
        if name:
            try:
                card = AlsaAudio(self._faults)
                card.probe()
            except ImportError:
                note = "pyalsaaudio is not installed (extra 'sound')"
            except HardwareError as error:
                note = str(error)
            else:
                fact = DeviceFact(Kind.MICROPHONE, "default", name)
                return card, (fact, replace(fact, kind=Kind.SPEAKER))
        _log.info("sound: simulated, because %s", note)
        echo = EchoPath(options.echo_delay_ms, options.echo_loss_db)
        return SimAudio(options.microphone, options.speaker, echo, self._faults, note=note), ()

    @property
    def audio(self) -> SimAudio | AlsaAudio:
        return self._audio

    @property
    def camera(self) -> ProcessCamera:
        return self._camera

    @property
    def display(self) -> SimDisplay:
        return self._display

    @property
    def panel(self) -> SimPanel:
        return self._panel

    @property
    def simulation(self) -> SimHands:
        """Hands for the parts that are simulated."""
        return self._hands

    def share(self, path: str) -> ShownFile:
        return ShownFile(path)

    def capture(self, device: str) -> ShownCapture:
        nodes = [node.path for node in cameras()]
        if device not in nodes:
            raise DeviceMissingError(f"there is no capture device {device!r}; there are: {', '.join(nodes) or 'none'}")
        if any(fact.id == device for fact in self._camera_facts):
            raise DeviceBusyError(f"{device} is the camera of this appliance, and shown to others as that")
        return ShownCapture(device, f"v4l2:{device}", self._faults)

    def facts(self) -> Mapping[str, str]:
        return {
            "board": "auto",
            "model": _text("/sys/class/dmi/id/product_name") or _text("/proc/device-tree/model") or "Computer",
            "machine": platform.machine(),
            "kernel": platform.release(),
        }

    def health(self) -> Health:
        milli = _text("/sys/class/thermal/thermal_zone0/temp")
        return Health(temperature_c=int(milli) / 1000 if milli.lstrip("-").isdecimal() else None)

    def devices(self) -> Sequence[DeviceFact]:
        return (
            *(self._audio.devices() if isinstance(self._audio, SimAudio) else ()),
            *(self._camera.devices() if isinstance(self._camera, SimCamera) else ()),
            *(self._now(fact) for fact in (*self._sound_facts, *self._camera_facts)),
            self._display.device("shown on the device's page"),
            DeviceFact(Kind.PANEL, "panel0", "Simulated panel", simulated=True, note="shown on the device's page"),
        )

    def _now(self, fact: DeviceFact) -> DeviceFact:
        present = not self._faults.active(fact.kind, FaultKind.MISSING, fact.id)
        return replace(fact, present=present, used=present)

    @property
    def choices(self) -> frozenset[Kind]:
        """Of real devices one is used, and no other known: ALSA's default, and the camera that opened first."""
        return self._hands.choices

    def select(self, kind: Kind, device: str) -> None:
        self._hands.select(kind, device)

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        self._faults.listen(sink)

    def on_devices(self, sink: Callable[[], None]) -> None:
        self._faults.watch(sink)

    def close(self) -> None:
        for closer in reversed(self._closers):
            closer()


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip("\0\n ")
    except OSError:
        return ""
