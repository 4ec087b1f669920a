"""The simulated board: all devices without hardware, and hands for the test."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hw.api import BoardOptions, DeviceFact, Fault, Health, Kind
from hw.faults import FaultLine
from hw.shared import ShownCapture, ShownFile
from hw.sim.audio import EchoPath, SimAudio
from hw.sim.camera import SimCamera
from hw.sim.capture import SimCapture
from hw.sim.display import SimDisplay
from hw.sim.obstacles import obstacle_of
from hw.sim.panel import SimPanel

__all__ = ["FAULTS", "SimBoard", "SimHands"]

CAMERA_FAULTS: Final = (
    "camera.freeze", "camera.slow", "camera.black", "camera.busy", "camera.unplug", "camera.timeout", "camera.denied",
    "camera.format",
)  # fmt: skip
SOUND_FAULTS: Final = (
    "mic.silence", "mic.unplug", "mic.busy", "mic.clip", "mic.noise", "mic.osMute",
    "mic.denied", "mic.format", "speaker.unplug", "speaker.busy", "speaker.mute", "speaker.zeroVolume",
    "speaker.stall", "speaker.denied", "speaker.format",
)  # fmt: skip
HDMI_FAULTS: Final = ("hdmi.unplug", "hdmi.busy", "hdmi.noSignal")
SCREEN_FAULTS: Final = ("screen.missing", "screen.unplug", "screen.busy", "screen.denied", "screen.format")
HEALTH_FAULTS: Final = ("power.undervoltage", "thermal", "storage.full")
OTHER_FAULTS: Final = (
    *HEALTH_FAULTS, "button.stuck", "echo.path", "echo.delayMs", "echo.erlDb", "echo.roomMs", "echo.moved",
    "echo.distortion",
)  # fmt: skip

FAULTS: Final = (*CAMERA_FAULTS, *SOUND_FAULTS, *HDMI_FAULTS, *SCREEN_FAULTS, *OTHER_FAULTS)
"""Every fault of this board by the names of ``sim.fault``. Values: ``mic.noise`` level in dBFS (-20), ``thermal``
°C (85), ``echo.path`` and ``echo.erlDb`` loss in dB (20), ``echo.delayMs`` delay in ms (100), ``echo.roomMs``
reverberation in ms (300), ``echo.moved`` another place in that room (2), ``echo.distortion`` drive of the loudspeaker
into saturation in dB (12)."""

_VALUES: Final[Mapping[str, tuple[float, float, str]]] = {
    "mic.noise": (-100.0, 0.0, "dBFS"), "thermal": (-40.0, 150.0, "°C"), "echo.path": (0.0, 120.0, "dB"),
    "echo.erlDb": (0.0, 120.0, "dB"), "echo.delayMs": (0.0, 1000.0, "ms"), "echo.roomMs": (0.0, 1000.0, "ms"),
    "echo.moved": (0.0, 1000.0, "as the number of a place"), "echo.distortion": (0.0, 40.0, "dB"),
}

ROOM_MS: Final = 300.0
DRIVE_DB: Final = 12.0
COOL_C: Final = 45.0
HOT_C: Final = 85.0
THROTTLE_C: Final = 80.0
"""Where a Raspberry Pi begins to slow down."""


def _check(name: str, value: float) -> None:
    """Raises ValueError for a value that the fault cannot have."""
    if name not in _VALUES:
        raise ValueError(f"{name} has no value; one have: {', '.join(_VALUES)}")
    low, high, unit = _VALUES[name]
    if not low <= value <= high:
        raise ValueError(f"{name}: {value:g} is outside {low:g} to {high:g} {unit}")


class SimHands:
    """Implements ``hw.api.Simulation`` over the devices that are simulated; a real one has no hands here."""

    def __init__(
        self, *, audio: SimAudio | None, camera: SimCamera | None, display: SimDisplay, panel: SimPanel,
        capture: SimCapture | None = None, health: bool = True,
    ) -> None:
        """``health``: that of the board is simulated too."""
        self._health, self._capture = health, capture
        self._audio, self._camera, self._display, self._panel = audio, camera, display, panel
        self._lock = threading.RLock()
        self._active: dict[str, float | None] = {}
        self._echo_at_rest = (audio.echo.delay_ms, audio.echo.loss_db) if audio is not None else (0.0, None)

    @property
    def faults(self) -> Sequence[str]:
        return tuple(
            name
            for name in FAULTS
            if not (name.startswith("camera.") and self._camera is None)
            and not (name in HDMI_FAULTS and self._capture is None)
            and not (name.startswith(("mic.", "speaker.", "echo.")) and self._audio is None)
            and (self._health or name not in HEALTH_FAULTS)
        )

    def fault(self, name: str, active: bool, value: float | None = None) -> None:
        if name not in self.faults:
            raise KeyError(f"unknown fault {name!r}; this board has {', '.join(self.faults)}")
        if active and value is not None:
            _check(name, value)
        with self._lock:
            before = dict(self._active)
            if active:
                self._active[name] = value
            else:
                self._active.pop(name, None)
            try:
                self._apply(name)
            except ValueError:
                self._active = before
                raise

    def _apply(self, name: str) -> None:
        active = self._active
        if name in CAMERA_FAULTS and self._camera is not None:
            self._camera.set_physics(key.removeprefix("camera.") for key in active if key in CAMERA_FAULTS)
        elif name in HDMI_FAULTS and self._capture is not None:
            self._capture.set_physics(key for key in active if key in HDMI_FAULTS)
        elif name in SCREEN_FAULTS:
            self._display.obstruct(obstacle_of("screen", active.keys()))
        elif name in SOUND_FAULTS and self._audio is not None:
            self._audio.set_physics((key for key in active if key in SOUND_FAULTS), active.get("mic.noise"))
        elif name.startswith("echo.") and self._audio is not None:
            self._apply_echo(self._audio)
        elif name == "button.stuck":
            self._panel.jam(self._panel.buttons[0], name in active)

    def _apply_echo(self, audio: SimAudio) -> None:
        delay, loss = self._echo_at_rest
        active = self._active
        if any(name.startswith("echo.") for name in active):
            loss = 20.0 if loss is None else loss
            loss = next((active[key] for key in ("echo.erlDb", "echo.path") if active.get(key) is not None), loss)
            wanted = active.get("echo.delayMs")
            delay = wanted if wanted is not None else (delay or 100.0)
        audio.echo.set(delay, loss)
        self._furnish(audio)

    def _furnish(self, audio: SimAudio) -> None:
        moved, distorted = self.active("echo.moved"), self.active("echo.distortion")
        audio.echo.furnish(
            self.value("echo.roomMs", ROOM_MS) if moved or self.active("echo.roomMs") else 0.0,
            place=round(self.value("echo.moved", 2.0)) if moved else 1,
            drive_db=self.value("echo.distortion", DRIVE_DB) if distorted else 0.0)

    def active(self, name: str) -> bool:
        return name in self._active

    def value(self, name: str, default: float) -> float:
        found = self._active.get(name)
        return default if found is None else found

    def press(self, button: str, held_s: float) -> None:
        self._panel.press(button, held_s)

    def set_input(self, name: str, closed: bool) -> None:
        self._panel.set_input(name, closed)

    def source(self, kind: Kind, spec: str) -> None:
        if kind is Kind.MICROPHONE and self._audio is not None:
            self._audio.set_source(spec)
        elif kind is Kind.CAMERA and self._camera is not None:
            self._camera.set_source(_camera_spec(spec))
        elif kind is Kind.CAPTURE and self._capture is not None:
            self._capture.set_source(_camera_spec(spec))
        else:
            raise ValueError(f"the {kind.value} of this board has no source to choose")

    @property
    def choices(self) -> frozenset[Kind]:
        """The kinds of which there may be two."""
        sound = frozenset({Kind.MICROPHONE, Kind.SPEAKER}) if self._audio is not None else frozenset()
        return sound | ({Kind.CAMERA} if self._camera is not None else set())

    def plug(self, kind: Kind, plugged: bool, spec: str = "") -> None:
        if kind in (Kind.MICROPHONE, Kind.SPEAKER) and self._audio is not None:
            self._audio.plug(kind, plugged, spec)
        elif kind is Kind.CAMERA and self._camera is not None:
            self._camera.plug(plugged, _camera_spec(spec) if spec else "")
        else:
            raise ValueError(f"this board has no simulated {kind.value} beside which another is plugged in")

    def select(self, kind: Kind, device: str) -> None:
        """As ``hw.api.Board`` has it, of what is simulated."""
        if kind in (Kind.MICROPHONE, Kind.SPEAKER) and self._audio is not None:
            self._audio.select(kind, device)
        elif kind is Kind.CAMERA and self._camera is not None:
            self._camera.choose(device)
        else:
            raise ValueError(f"of the {kind.value} of this board none can be selected")

    def lend_audio(self, pcm: bytes) -> None:
        if self._audio is not None:
            self._audio.lend(pcm)

    def lend_picture(self, jpeg: bytes) -> None:
        if self._camera is not None:
            self._camera.lend(jpeg)

    def tap_speaker(self, sink: Callable[[bytes], None] | None) -> None:
        if self._audio is not None:
            self._audio.tap(sink)

    def screen(self, width: int) -> bytes:
        return self._display.jpeg(width)


def _camera_spec(spec: str) -> str:
    if spec != "pattern" and spec.partition(":")[0] not in ("file", "clip"):
        raise ValueError(f"camera source {spec!r} is unknown; there are pattern, file:PATH and clip:PATH")
    return spec


class SimBoard:
    """Implements ``hw.api.Board``."""

    def __init__(self, options: BoardOptions) -> None:
        self._faults = FaultLine()
        self._camera: SimCamera | None = None
        self._panel: SimPanel | None = None
        try:
            # First: the process gets ready while the rest of the board, and of the program, is made.
            self._camera = SimCamera(options.camera, self._faults)
            self._panel = SimPanel(options.long_press_s, self._faults)
            self._display = SimDisplay(options.display, self._faults)
            echo = EchoPath(options.echo_delay_ms, options.echo_loss_db)
            self._audio = SimAudio(options.microphone, options.speaker, echo, self._faults)
        except BaseException:
            self._close_opened()
            raise
        self._capture = SimCapture(self._faults)
        self._hands = SimHands(audio=self._audio, camera=self._camera, display=self._display, panel=self._panel,
                               capture=self._capture)

    def _close_opened(self) -> None:
        if self._panel is not None:
            self._panel.close()
        if self._camera is not None:
            self._camera.close()
        self._faults.close()

    @property
    def audio(self) -> SimAudio:
        return self._audio

    @property
    def camera(self) -> SimCamera:
        assert self._camera is not None  # noqa: S101 - set by __init__
        return self._camera

    @property
    def display(self) -> SimDisplay:
        return self._display

    @property
    def panel(self) -> SimPanel:
        assert self._panel is not None  # noqa: S101 - set by __init__
        return self._panel

    @property
    def simulation(self) -> SimHands:
        return self._hands

    def share(self, path: str) -> ShownFile:
        return ShownFile(path)

    def capture(self, device: str) -> ShownCapture:
        return self._capture.capture(device)

    def facts(self) -> Mapping[str, str]:
        return {
            "board": "sim",
            "model": "Simulated board",
            "serial": "sim",
            "machine": platform.machine(),
            "kernel": platform.release(),
        }

    def health(self) -> Health:
        hands = self._hands
        temperature = hands.value("thermal", HOT_C) if hands.active("thermal") else COOL_C
        return Health(
            temperature_c=temperature,
            throttled=temperature >= THROTTLE_C,
            undervoltage=hands.active("power.undervoltage"),
            storage_full=hands.active("storage.full"),
        )

    def devices(self) -> Sequence[DeviceFact]:
        return [
            *self._audio.devices(), *self.camera.devices(), *self._capture.devices(),
            self._display.device(),
            DeviceFact(Kind.PANEL, "panel0", "Simulated panel", simulated=True),
        ]

    @property
    def choices(self) -> frozenset[Kind]:
        return self._hands.choices

    def select(self, kind: Kind, device: str) -> None:
        self._hands.select(kind, device)

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        self._faults.listen(sink)

    def on_devices(self, sink: Callable[[], None]) -> None:
        self._faults.watch(sink)

    def close(self) -> None:
        self._audio.close()
        self._display.close()
        self._close_opened()
